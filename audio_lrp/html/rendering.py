"""From a page's parts to one HTML file that loads nothing and runs nothing."""

from base64 import b64encode
from datetime import datetime
from hashlib import sha256

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from audio_lrp import __version__
from audio_lrp.html.blocks import Page


def html(page: Page) -> str:
    """The page as HTML; all text in it is escaped.

    Its content security policy allows the page's own style, known by its hash, and pictures and sounds inside the page
    or in files beside it: no script, no style of anybody else's, no network. A page with files beside it does not say
    when it was written, so that the same recordings give the same files.
    """
    templates = Environment(
        loader=PackageLoader("audio_lrp.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = templates.get_template("page.css").render()
    digest = b64encode(sha256(style.encode()).digest()).decode("ascii")
    media = "'self' file:" if page.beside else "data:"
    return templates.get_template("page.html").render(
        page=page,
        style=Markup(style),
        policy=f"default-src 'none'; img-src {media}; media-src {media}; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
        version=__version__,
        written=None if page.beside else datetime.now().strftime("%Y-%m-%d %H:%M"),
    )
