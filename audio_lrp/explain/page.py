"""The page over explained recordings, whose figures and sounds are files beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from audio_lrp.html.blocks import Block, Clip, Clips, Files, Page, Paragraph, Section, Table, percent


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
) -> Page:
    """The page over all recordings.

    Args:
        facts: what holds for all recordings, by name.
        recordings: the recordings, in the page's order.
        unusable: recordings that could not be explained, by name, and why.
        notes: what else is missing.
    """
    rows = [[each.name, each.prediction, percent(each.probabilities[each.prediction])] for each in recordings]
    overview: list[Block] = [
        Paragraph(
            "Red, and the positive sounds: evidence for the explained class. Blue, and the negative sounds: evidence "
            "against it. The sounds of one window are equally loud."
        ),
        Table("Recordings", ["recording", "prediction", "probability"], rows),
        *(Paragraph(note, warning=True) for note in notes),
    ]
    return Page(
        title="Explanations by LRP",
        subtitle=" | ".join(f"{name}: {value}" for name, value in facts.items()),
        facts=(),
        problems=[f"{name}: {reason}" for name, reason in unusable.items()],
        sections=[
            Section("overview", "Recordings", overview),
            *(_section(number, recording) for number, recording in enumerate(recordings)),
        ],
        kind="audio-lrp explain",
        beside=True,
    )


def _section(number: int, recording: ExplainedRecording) -> Section:
    by_class = sorted(recording.probabilities.items(), key=lambda item: -item[1])
    clips = [_clip(recording, window) for window in recording.windows]
    blocks: list[Block] = [
        Paragraph(", ".join(f"{name}: {percent(value)}" for name, value in by_class)),
        Files({name: _link(recording, name) for name in ("explanation.json", "relevance.npz")}),
        Clips(clips, num_open=len(clips)),
    ]
    return Section(f"recording-{number}", f"{recording.name}: {recording.prediction}", blocks)


def _clip(recording: ExplainedRecording, window: ExplainedWindow) -> Clip:
    return Clip(
        f"{window.begin:.2f} s to {window.end:.2f} s: {window.title}",
        {name: _link(recording, name) for name in window.figures},
        {name: _link(recording, file) for name, file in window.sounds.items()},
    )


def _link(recording: ExplainedRecording, file: str) -> str:
    return quote(f"{recording.folder}/{file}")
