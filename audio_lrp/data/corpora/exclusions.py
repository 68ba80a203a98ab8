"""Lists of recordings to leave out of a corpus, with the reason for each.

A list is a YAML file of places and reasons, such as ``36/3_36_20.wav: a copy of 3_36_19``. A place is the end of a
recording's path, so that it fits whichever of the corpus's folders is its root, and in whichever format it is.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import yaml

from audio_lrp.data.corpora.corpus import Corpus
from audio_lrp.data.corpora.formats import without_format
from audio_lrp.data.corpora.listing import Listing, no_recordings, warn_once
from audio_lrp.errors import UserError, parse_yaml, yaml_problem
from audio_lrp.utils.nearest import did_you_mean, nearest_path

SHIPPED: Final = {"audiomnist": Path(__file__).with_name("audiomnist_exclusions.yaml")}
"""The lists that come with the package, by name."""

logger = logging.getLogger(__name__)


def read_exclusions(name: str | Path) -> dict[str, str]:
    """Reasons by place.

    Args:
        name: a file, or the name of a shipped list.

    Raises:
        UserError: there is no such file, or it is no such list.
    """
    path = SHIPPED.get(str(name), Path(name).expanduser())
    try:
        exclusions = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        choices = f"give a YAML file, or one of the shipped lists: {', '.join(SHIPPED)}"
        hint = did_you_mean(str(name), SHIPPED) or nearest_path(path) or choices
        raise UserError(f"the list of exclusions {path} cannot be read ({error.strerror}); {hint}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {yaml_problem(error)}") from error
    if exclusions is None:  # nothing but comments
        return {}
    if not isinstance(exclusions, dict) or not all(isinstance(place, str) for place in exclusions):
        raise UserError(f"{path} is no list of exclusions: each line must be 'place: reason', e.g. '36/a.wav: a copy'")
    return {place: str(reason) for place, reason in exclusions.items()}


def write_exclusions(path: Path, exclusions: Mapping[str, str], corpus: str) -> None:
    """Write a list that :func:`read_exclusions` reads."""
    lines = yaml.safe_dump(dict(exclusions), sort_keys=False, allow_unicode=True, width=1000) if exclusions else ""
    path.write_text(f"# Recordings to leave out of {corpus}, and why.\n{lines}", encoding="utf-8")


def exclude(paths: Sequence[Path], name: str | Path, root: Path) -> list[Path]:
    """The files that no place of a list names; a warning tells of places that name no file.

    Args:
        paths: the recordings' files.
        name: the list, see :func:`read_exclusions`.
        root: the corpus's folder, for messages.

    Raises:
        UserError: the list cannot be read, or it names all files.
    """
    places = {PurePosixPath(without_format(place)).parts: place for place in read_exclusions(name)}
    lengths = {len(parts) for parts in places}
    names = {parts[-1] for parts in places if parts}  # most recordings are passed by a look at their name
    kept: list[Path] = []
    used: set[tuple[str, ...]] = set()
    for path in paths:
        stem = without_format(path.name)
        ends = places.keys() & {path.with_name(stem).parts[-n:] for n in lengths} if stem in names else set()
        used |= ends
        if not ends:
            kept.append(path)
    if not kept:
        raise UserError(
            f"the list of exclusions {name} excludes all {len(paths)} recordings of {root}; take some out of it, or "
            "do without it"
        )
    unused = [place for parts, place in places.items() if parts not in used]
    if unused:
        some = ", ".join(unused[:3]) + (", ..." if len(unused) > 3 else "")
        warn_once(
            f"{len(unused)} of the {len(places)} places in the list of exclusions {name} name no recording of {root}: "
            f"{some}; a place is the end of a path, such as {'/'.join(min(paths).parts[-2:])}"
        )
    logger.info("%d of %d recordings are excluded", len(paths) - len(kept), len(paths))
    return kept


def recordings_to_read(
    corpus: Corpus, found: Listing, exclusions: str | Path | None, layout: str, source: str
) -> list[Path]:
    """The files of a corpus without those to leave out; the corpus keeps what it is read without.

    Args:
        corpus: the corpus.
        found: what lies in its folder.
        exclusions: a list, see :func:`read_exclusions`; None: take all.
        layout: where its recordings are expected, for messages.
        source: where it can be had from, for messages.

    Raises:
        UserError: there are none, or the list cannot be read or leaves none.
    """
    corpus.left_out = found.left_out
    if not found.paths:
        raise no_recordings(corpus.name, corpus.root, layout, source, found.left_out)
    if exclusions is None:
        return found.paths
    kept = exclude(found.paths, exclusions, corpus.root)
    corpus.excluded = len(found.paths) - len(kept)
    return kept
