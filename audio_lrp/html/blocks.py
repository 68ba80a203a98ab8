"""What a page is made of: sections of tables, charts, pictures and sounds, all of it text that is yet to be escaped."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from audio_lrp.html.charts import Chart

_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".wav": "audio/wav"}


@dataclass(frozen=True)
class Fact:
    """A number that is looked for first.

    Attributes:
        name: what it is.
        value: the number with its unit.
        note: what it was measured on.
    """

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Text; ``warning`` where it says what is missing."""

    kind: ClassVar[str] = "paragraph"
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        caption: what it holds.
        columns: the columns' names.
        rows: the cells.
        folded: whether it opens at a click.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class Charts:
    """Charts beside each other, or one below the other where there is no room."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class ConfusionMatrix:
    """Examples of each true class (row) given to each predicted class (column)."""

    kind: ClassVar[str] = "confusion"
    class_names: Sequence[str]
    counts: Sequence[Sequence[int]]
    title: str = "Confusion matrix"

    def shade(self, row: int, column: int) -> int:
        """Share of the true class, in tenths."""
        return round(10 * self.counts[row][column] / max(1, sum(self.counts[row])))


@dataclass(frozen=True)
class Clip:
    """An explained clip.

    Attributes:
        caption: its classes.
        pictures: URIs by what they show.
        sounds: URIs by what is to be heard.
    """

    caption: str
    pictures: dict[str, str] = field(default_factory=dict)
    sounds: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Clips:
    """Explained clips, one below the other, each of which opens at a click; the first ones are open."""

    kind: ClassVar[str] = "clips"
    clips: Sequence[Clip]
    num_open: int = 2


@dataclass(frozen=True)
class Pictures:
    """Data URIs of pictures by what they show."""

    kind: ClassVar[str] = "pictures"
    pictures: Mapping[str, str]


@dataclass(frozen=True)
class Files:
    """Links to files by name."""

    kind: ClassVar[str] = "files"
    files: Mapping[str, str]


@dataclass(frozen=True)
class Code:
    """Text in a fixed pitch that opens at a click."""

    kind: ClassVar[str] = "code"
    name: str
    text: str


Block = Paragraph | Table | Charts | ConfusionMatrix | Clips | Pictures | Files | Code


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: its address within the page.
        title: its heading.
        blocks: what it holds.
    """

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """The whole page.

    Attributes:
        title: what it is about.
        subtitle: in one line.
        facts: the numbers at its head.
        problems: what could not be read, a sentence each.
        sections: in their order.
        kind: what writes it.
        beside: whether figures and sounds are files beside the page; else the page holds them itself.
    """

    title: str
    subtitle: str
    facts: Sequence[Fact]
    problems: Sequence[str]
    sections: Sequence[Section]
    kind: str = "audio-lrp report"
    beside: bool = False


def percent(share: float) -> str:
    """A share, written.

    Example:
        >>> percent(0.4925)
        '49.2 %'
    """
    return f"{100 * share:.1f} %"


def data_uri(content: bytes, suffix: str) -> str:
    """A picture or a sound as part of the page.

    Args:
        content: of the file.
        suffix: of its name: ``.png``, ``.jpg`` or ``.wav``.

    Example:
        >>> data_uri(b"RIFF", ".wav")
        'data:audio/wav;base64,UklGRg=='
    """
    return f"data:{_MEDIA_TYPES[suffix]};base64,{base64.b64encode(content).decode('ascii')}"


def file_uri(path: Path) -> str:
    """A file's content as part of the page (see `data_uri`)."""
    return data_uri(path.read_bytes(), path.suffix.lower())
