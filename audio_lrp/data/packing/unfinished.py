"""Headers that their programs never finished: the length of what follows is missing from them.

A program that records to a pipe, or was killed, leaves 0 or the largest number where the header tells how many bytes
of samples follow. Most of the latter libsndfile sees through by itself.
"""

import mmap
import struct
from pathlib import Path
from typing import Final, NamedTuple


class _Container(NamedTuple):
    """The layout of a format made of chunks.

    Attributes:
        first: where the first chunk begins.
        size: how a chunk's size is written.
        samples: name of the chunk of samples.
        alignment: chunks begin at multiples of so many bytes.
    """

    first: int
    size: str
    samples: bytes
    alignment: int = 2


_CONTAINERS: Final = {
    b"RIFF": _Container(12, "<I", b"data"),
    b"RIFX": _Container(12, ">I", b"data"),
    b"RF64": _Container(12, "<I", b"data"),
    b"FORM": _Container(12, ">I", b"SSND"),
    b"caff": _Container(8, ">Q", b"data", alignment=1),
}
_AU: Final = {b".snd": ">I", b"dns.": "<I"}
_UNKNOWN: Final = 0x7FFF0000
"""From here on a size of 32 bits means that it is not known: programs that cannot know it write numbers close to 2^31
or 2^32."""


def finished(path: Path) -> mmap.mmap | None:
    """A copy of a file in memory whose header says that its samples go on to the file's end.

    Returns:
        The copy, of which only what is read and changed takes memory; ``None`` where the header's length is to be
        believed: it is neither a number that means an unknown length nor followed by more bytes than it counts which
        are no chunk. Also for formats without such a header, and for what cannot be read or is empty.
    """
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):
        return None
    if _finish(content):
        return content
    content.close()
    return None


def _finish(content: mmap.mmap) -> bool:
    """Write into the header how many bytes of samples follow, where it does not tell."""
    magic = content[:4]
    if magic in _AU and len(content) >= 24:
        (begin,) = struct.unpack_from(_AU[magic], content, 4)
        return _write_size(content, 8, _AU[magic], begin, chunks=False)
    container = _CONTAINERS.get(magic)
    if container is None:
        return False
    place, width = container.first, struct.calcsize(container.size)
    while place + 4 + width <= len(content):
        begin = place + 4 + width
        if content[place : place + 4] == container.samples:
            if magic == b"RF64" and content[12:16] == b"ds64" and place >= 36:  # it has the size, in more bits
                struct.pack_into("<I", content, place + 4, min(_size(content, 28, "<Q"), 0xFFFFFFFF))
                content[:4] = b"RIFF"
            return _write_size(content, place + 4, container.size, begin)
        size = _size(content, place + 4, container.size)
        place = begin + size + -size % container.alignment
    return False


def _size(content: mmap.mmap, place: int, layout: str) -> int:
    size: int = struct.unpack_from(layout, content, place)[0]
    return size


def _write_size(content: mmap.mmap, place: int, layout: str, begin: int, *, chunks: bool = True) -> bool:
    """Let the samples go on to the end of the file, unless their size is credible; says whether it was changed.

    Args:
        content: the file.
        place: where the size is written.
        layout: how it is written.
        begin: where the samples begin.
        chunks: whether chunks may follow the samples.
    """
    if begin >= len(content):
        return False
    size = _size(content, place, layout)
    end = begin + size + size % 2
    name = content[end : end + 4]
    is_chunk = chunks and name.isascii() and name.decode("ascii").isprintable()
    if size < _UNKNOWN and (is_chunk or len(content) - end <= size):
        return False
    struct.pack_into(layout, content, place, min(len(content) - begin, 0xFFFFFFFF))
    return True
