"""The file in which W&B keeps a run: a header, then records one after the other."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

# The format is LevelDB's log: blocks of 32 KiB, in them pieces of records, each with checksum, length and kind.
HEADER: Final = 7
"""Bytes before the first record."""
_BLOCK = 32768
_PIECE = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def is_complete(path: Path) -> bool:
    """Whether a run's file reaches to the record of the run's end.

    W&B says nothing, and its exit code is 0, where it could not write the file: the disk was full for example.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    try:
        content = path.read_bytes()
    except OSError:
        return False
    return any(Record.FromString(record).HasField("exit") for record in read_records(content))


def read_records(content: bytes) -> Iterator[bytes]:
    """The whole records; a crash may have cut off the last one."""
    position, record = HEADER, b""
    while position + _PIECE.size <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _PIECE.size:
            position += left
            continue
        checksum, length, kind = _PIECE.unpack_from(content, position)
        piece = content[position + _PIECE.size : position + _PIECE.size + length]
        if len(piece) < length or _checksum(kind, piece) != checksum:
            return
        position += _PIECE.size + length
        record += piece
        if kind in (_WHOLE, _LAST):
            yield record
            record = b""


def written(records: Iterable[bytes]) -> bytes:
    """Records as they stand in a file after its header."""
    content = bytearray(HEADER)  # positions within blocks count from the header on
    for record in records:
        first = True
        while first or record:
            left = _BLOCK - len(content) % _BLOCK
            if left < _PIECE.size:
                content += bytes(left)
                continue
            piece, record = record[: left - _PIECE.size], record[left - _PIECE.size :]
            kind = (_WHOLE if first else _LAST) if not record else (_FIRST if first else _MIDDLE)
            content += _PIECE.pack(_checksum(kind, piece), len(piece), kind) + piece
            first = False
    return bytes(content[HEADER:])


def _checksum(kind: int, piece: bytes) -> int:
    return zlib.crc32(piece, zlib.crc32(bytes([kind])))
