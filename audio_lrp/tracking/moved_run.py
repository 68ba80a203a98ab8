"""W&B's file of an offline run, fixed after its folder was moved.

W&B writes down where the files of artifacts lie, those of tables among them, by their absolute paths. On another
machine, or in another folder, ``wandb sync`` does not find them and leaves them out without a word.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from audio_lrp.tracking.wandb_file import HEADER, read_records, written
from audio_lrp.utils.files import replacing

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import ArtifactManifestEntry


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
    for data in read_records(content):
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
            temporary.write_bytes(content[:HEADER] + written(records))
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
