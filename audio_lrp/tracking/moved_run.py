"""W&B's file of an offline run, mended after its folder was moved.

W&B writes down where the files of artifacts lie, those of tables among them, by their absolute paths. On another
machine, or in another folder, ``wandb sync`` does not find them and leaves them out without a word.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from audio_lrp.tracking.files import replacing

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import ArtifactManifestEntry

# The format is LevelDB's log: blocks of 32 KiB, in them pieces of records, each with checksum, length and kind.
_FILE_HEADER = 7
_BLOCK = 32768
_PIECE = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class MissingFilesError(Exception):
    """Files of a run's artifacts that are nowhere in its folder."""

    def __init__(self, paths: list[str]) -> None:
        super().__init__(", ".join(paths))
        self.paths: Final = paths


def find_moved_files(path: Path) -> int:
    """Let a run's ``.wandb`` file name the places where its artifacts' files are now.

    The file is replaced as a whole, and only where something has moved.

    Args:
        path: ``<run's folder>/wandb/<W&B's folder>/run-<id>.wandb``.

    Returns:
        How many files had moved.

    Raises:
        MissingFilesError: some are not in the run's folder.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    records, moved, missing = [], 0, []
    for data in _read(content):
        record = Record.FromString(data)
        entries = [entry for entry in record.artifact.manifest.contents if entry.local_path]
        for entry in [entry for entry in entries if not Path(entry.local_path).exists()]:
            place = _find(entry, path.parents[2])
            if place is None:
                missing.append(entry.local_path)
            else:
                entry.local_path = str(place)
                moved += 1
        records.append(record.SerializeToString() if entries else data)
    if moved:
        with replacing(path) as temporary:
            temporary.write_bytes(content[:_FILE_HEADER] + _written(records))
    if missing:
        raise MissingFilesError(missing)
    return moved


def _find(entry: "ArtifactManifestEntry", folder: Path) -> Path | None:
    """The file of an artifact by the end of its old path and its size."""
    parts = Path(entry.local_path).parts[1:]
    for begin in range(len(parts)):
        place = folder.absolute().joinpath(*parts[begin:])
        if place.is_file() and place.stat().st_size == entry.size:
            return place
    return None


def _read(content: bytes) -> Iterator[bytes]:
    """The whole records; a crash may have cut off the last one."""
    position, record = _FILE_HEADER, b""
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


def _written(records: Iterable[bytes]) -> bytes:
    content = bytearray(_FILE_HEADER)  # positions within blocks count from the header on
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
    return bytes(content[_FILE_HEADER:])


def _checksum(kind: int, piece: bytes) -> int:
    return zlib.crc32(piece, zlib.crc32(bytes([kind])))
