"""Find out what is wrong with a corpus, and write it down."""

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import mode

import numpy as np

from audio_lrp.data import FSDD, AudioMNIST, Corpus, Recording
from audio_lrp.data.corpora.audiomnist_metadata import metadata_faults
from audio_lrp.data.corpora.exclusions import read_exclusions, write_exclusions
from audio_lrp.data.corpora.layout import corpus_class
from audio_lrp.data.corpora.misnamed import MisnamedFileError
from audio_lrp.data.inspection.faults import (
    LONGEST,
    Fault,
    Sound,
    find_faults,
    known_faults,
    listen_to_all,
    repetitions_by_cell,
    worth_excluding,
)
from audio_lrp.data.inspection.figure import corpus_overview
from audio_lrp.errors import UserError
from audio_lrp.utils.files import replacing
from audio_lrp.utils.nearest import nearest_path

_MEND = "choose another place with --output"


def check(folder: Path, exclude: str | None, output: Path) -> list[Fault]:
    """Look for everything that is wrong with a corpus, print a table and write it down.

    Args:
        folder: the corpus, in AudioMNIST's or FSDD's layout.
        exclude: a list of recordings to leave out.
        output: folder for ``faults.csv``, ``corpus.png`` and ``exclude.yaml``.

    Returns:
        The faults.

    Raises:
        UserError: there is no corpus, all of it is misnamed or excluded, or the output cannot be written.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: {nearest_path(folder) or 'give the folder of a corpus'}")
    kind = corpus_class(folder) or AudioMNIST  # whose complaint says what is expected where there is no corpus
    corpus = kind(folder, exclude=exclude)
    corpus.recordings, faults = _read_names(corpus)
    sounds = listen_to_all(corpus.recordings)
    faults += find_faults(corpus, sounds)
    if corpus.published_folds("digit") is not None:
        faults += known_faults(corpus, read_exclusions("audiomnist"))
    if isinstance(corpus, AudioMNIST):
        speakers = {recording.speaker for recording in corpus.recordings}
        faults += [Fault("metadata", place, detail) for place, detail in metadata_faults(corpus.metadata, speakers)]
    summary = _summary(corpus, sounds)
    print(f"{folder}: {summary}")
    print(_table(faults))
    with replacing(output / "faults.csv", _MEND) as path, path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("fault", "place", "detail"), *((f.kind, f.place, f.detail) for f in faults)])
    with replacing(output / "corpus.png", _MEND) as path:
        _picture(corpus, sounds, f"{folder.resolve().name}: {summary}", path)
    excluded = worth_excluding(faults)
    with replacing(output / "exclude.yaml", _MEND) as path:
        write_exclusions(path, excluded, folder.resolve().name)
    print(f"all faults: {output / 'faults.csv'}\npicture:    {output / 'corpus.png'}")
    if excluded:
        print(f"to leave out the {len(excluded)} useless ones: --data.exclude {output / 'exclude.yaml'}")
    return faults


def _read_names(corpus: AudioMNIST | FSDD) -> tuple[tuple[Recording, ...], list[Fault]]:
    """The recordings, and a fault for each file whose name no training would accept.

    Raises:
        UserError: there are no files, or none whose name tells its labels.
    """
    recordings: list[Recording] = []
    misnamed: list[MisnamedFileError] = []
    for path in sorted(corpus.files(), key=Path.as_posix):
        try:
            recordings.append(corpus.read_name(path))
        except MisnamedFileError as error:
            misnamed.append(error)
    if not recordings:
        raise misnamed[0]
    places = [error.path.relative_to(corpus.root).as_posix() for error in misnamed]
    faults = [Fault("misnamed", place, error.problem) for place, error in zip(places, misnamed, strict=True)]
    for path, reason in corpus.left_out.items():
        faults.append(Fault("left out", path.relative_to(corpus.root).as_posix(), reason))
    return tuple(recordings), faults


def _summary(corpus: Corpus, sounds: Sequence[Sound | str]) -> str:
    speakers = {recording.speaker for recording in corpus.recordings}
    text = f"{len(sounds):,} recordings of {len(speakers)} speakers"
    seconds = [sound.seconds for sound in sounds if isinstance(sound, Sound)]
    if seconds:
        rate = mode(sound.rate for sound in sounds if isinstance(sound, Sound))
        text += f", {sum(seconds) / 3600:.2f} hours, {min(seconds):.2f} to {max(seconds):.2f} s, {rate} Hz"
    return text


def _table(faults: Sequence[Fault]) -> str:
    """One line for each kind of fault: how many, and the first of them."""
    if not faults:
        return "nothing is wrong"
    lines = [f"{'fault':<14}{'number':>7}  the first"]
    for kind in dict.fromkeys(fault.kind for fault in faults):
        found = [fault for fault in faults if fault.kind == kind]
        lines.append(f"{kind:<14}{len(found):>7}  {found[0].place}: {found[0].detail}")
    return "\n".join(lines)


def _picture(corpus: Corpus, sounds: Sequence[Sound | str], title: str, path: Path) -> None:
    speakers = sorted({recording.speaker for recording in corpus.recordings})
    cells = repetitions_by_cell(corpus.recordings)
    counts = np.array([[len(cells.get((name, digit), ())) for digit in range(10)] for name in speakers])
    levels: dict[str, list[float]] = {name: [] for name in speakers}
    for recording, sound in zip(corpus.recordings, sounds, strict=True):
        if isinstance(sound, Sound):
            levels[recording.speaker].append(sound.level)
    seconds = np.array([sound.seconds for sound in sounds if isinstance(sound, Sound)])
    by_speaker = [np.array(values) for values in levels.values()]
    figure = corpus_overview(counts, by_speaker, seconds, speakers, title, longest=LONGEST)
    figure.savefig(path, format="png")
