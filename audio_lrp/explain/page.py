"""The page that shows explained recordings: one HTML file that links to the files beside it and to nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

_STYLE = """
body { font-family: system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: 0.2em 1.5em 0.2em 0; vertical-align: top; }
img { width: 100%; height: auto; }
figure { display: inline-block; margin: 0.5em 1.5em 0.5em 0; }
section { border-top: 1px solid #ccc; margin-top: 2em; }
"""


@dataclass(frozen=True)
class ExplainedWindow:
    """One second of a recording, explained.

    Attributes:
        begin: where in the recording it begins, in seconds.
        end: where it, or the recording, ends, in seconds.
        title: prediction, explained class, composite.
        figures: names of the figures' files.
        sounds: names of the sound files, by what is to be heard.
    """

    begin: float
    end: float
    title: str
    figures: tuple[str, ...]
    sounds: Mapping[str, str]


@dataclass(frozen=True)
class ExplainedRecording:
    """A recording, explained.

    Attributes:
        name: what it is called.
        folder: the folder of its files, beside the page.
        prediction: the class with the largest mean probability over the windows.
        probabilities: of each class, mean over the windows.
        windows: its windows.
    """

    name: str
    folder: str
    prediction: str
    probabilities: Mapping[str, float]
    windows: tuple[ExplainedWindow, ...]


def page(
    facts: Mapping[str, str],
    recordings: Sequence[ExplainedRecording],
    unusable: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """The page as HTML.

    Args:
        facts: what holds for all recordings, by name.
        recordings: the recordings, in the page's order.
        unusable: recordings that could not be explained, by name, and why.
        notes: what else is missing.
    """
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>\n" for name, value in facts.items())
    overview = "".join(
        f'<tr><td><a href="#{number}">{escape(recording.name)}</a></td><td>{escape(recording.prediction)}</td>'
        f"<td>{recording.probabilities[recording.prediction]:.1%}</td></tr>\n"
        for number, recording in enumerate(recordings)
    )
    left_out = "".join(f"<li>{escape(name)}: {escape(reason)}</li>\n" for name, reason in unusable.items())
    remarks = "".join(f"<p>{escape(note)}</p>\n" for note in notes)
    sections = "".join(_section(number, recording) for number, recording in enumerate(recordings))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Explanations by LRP</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Explanations by LRP</h1>\n<table>\n{rows}</table>\n"
        "<p>Red, and the positive sounds: evidence for the explained class. Blue, and the negative sounds: "
        "evidence against it. The sounds of one window are equally loud.</p>\n"
        f"<table>\n<tr><th>recording</th><th>prediction</th><th>probability</th></tr>\n{overview}</table>\n"
        + (f"<p>Not explained:</p>\n<ul>\n{left_out}</ul>\n" if unusable else "")
        + remarks
        + f"{sections}</body>\n</html>\n"
    )


def _section(number: int, recording: ExplainedRecording) -> str:
    shares = ", ".join(f"{escape(name)}: {value:.1%}" for name, value in _largest_first(recording.probabilities))
    files = " ".join(
        f'<a href="{_link(recording, name)}">{escape(name)}</a>' for name in ("explanation.json", "relevance.npz")
    )
    windows = "".join(_window(recording, window) for window in recording.windows)
    return (
        f'<section id="{number}">\n<h2>{escape(recording.name)}: {escape(recording.prediction)}</h2>\n'
        f"<p>{shares}</p>\n<p>{files}</p>\n{windows}</section>\n"
    )


def _window(recording: ExplainedRecording, window: ExplainedWindow) -> str:
    title = escape(f"{window.begin:.2f} s to {window.end:.2f} s: {window.title}")
    sounds = "".join(
        f'<figure><figcaption>{escape(name)}</figcaption><audio controls preload="none" '
        f'src="{_link(recording, file)}"></audio></figure>\n'
        for name, file in window.sounds.items()
    )
    figures = "".join(
        f'<img loading="lazy" src="{_link(recording, file)}" alt="{escape(file)}">\n' for file in window.figures
    )
    return f"<h3>{title}</h3>\n{sounds}{figures}"


def _link(recording: ExplainedRecording, file: str) -> str:
    return escape(quote(f"{recording.folder}/{file}"))


def _largest_first(probabilities: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(probabilities.items(), key=lambda item: -item[1])
