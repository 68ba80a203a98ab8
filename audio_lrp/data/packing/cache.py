"""Recordings decoded and resampled once, packed into one memory-mapped file."""

import glob
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from audio_lrp.data.caches import ENVIRONMENT_VARIABLE, caches_folder
from audio_lrp.data.packing.decode import UnusableRecordingError, decode_all, loudest_window, peak_of
from audio_lrp.data.packing.fingerprint import (
    content_key,
    hash_files,
    hash_in_parallel,
    recall,
    remember,
    stat_signature,
)
from audio_lrp.data.representation import NUM_SAMPLES, SAMPLE_RATE
from audio_lrp.errors import UserError
from audio_lrp.utils.files import exclusively
from audio_lrp.utils.parallel import map_in_processes

LongClipPolicy = Literal["energy", "center", "error"]
"""Which second of a longer clip is used: the one with the most energy, the one in the middle, or none (an error)."""

FORMAT: Final = f"4 {SAMPLE_RATE} Hz"  # to be changed whenever the same recordings would be packed differently
SAMPLES: Final = "samples.int16"
INDEX: Final = "index.npy"
NAMES: Final = "names.json"
CLIP: Final = np.dtype([("length", "<i8"), ("loudest", "<i8"), ("scale", "<f4")])

logger = logging.getLogger(__name__)


class DamagedCacheError(Exception):
    """A cache folder is missing, incomplete or unreadable: it has to be built."""


class PackedClips:
    """All recordings of a corpus as mono clips at 8 kHz.

    Each clip is normalised to its own peak and stored as int16 with one float32 scale, so that quiet recordings keep
    their precision: samples are off by at most ``0.51 / 32767`` of their clip's peak. An object is pickled as the name
    of its folder and maps the file anew in the process that gets it.

    Args:
        folder: a folder of the cache, see :meth:`open`.
        root: the corpus's folder, to name recordings in messages.

    Attributes:
        lengths: samples at 8 kHz of every clip, uncut, int64 [N].

    Raises:
        DamagedCacheError: the folder is missing, incomplete or unreadable.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.root = root
        try:
            index = np.load(folder / INDEX, allow_pickle=False)
            size, size_of_names = ((folder / name).stat().st_size for name in (SAMPLES, NAMES))
        except (OSError, ValueError, EOFError) as error:
            raise DamagedCacheError(f"{folder}: {error}") from error
        if index.dtype != CLIP or index.ndim != 1 or not _fits(index, size) or not size_of_names:
            raise DamagedCacheError(f"{folder}: its files do not fit together")
        self.lengths: NDArray[np.int64] = index["length"].copy()
        self._loudest: NDArray[np.int64] = index["loudest"].copy()
        self._scales: NDArray[np.float32] = index["scale"].copy()
        self._offsets: NDArray[np.int64] = np.cumsum(self.lengths) - self.lengths
        # A plain array over the map: slicing a np.memmap itself is several times slower.
        self._samples: NDArray[np.int16] = np.asarray(np.memmap(folder / SAMPLES, dtype="<i2", mode="r"))

    def __reduce__(self) -> tuple[type["PackedClips"], tuple[Path, Path]]:
        return PackedClips, (self.folder, self.root)

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def open(
        cls, corpus_name: str, root: Path, paths: Sequence[Path], cache_dir: str | Path | None = None
    ) -> "PackedClips":
        """Open the cache of these recordings, building it if they are new, were changed, or it is damaged.

        The cache's folder is called by the corpus's name and a hash of the recordings' content, so that copies of a
        corpus share it. Files whose sizes and times did not change are not read again. Of processes that start at
        once, one builds and the others wait for it.

        Args:
            corpus_name: name for the cache's folder and messages.
            root: the corpus's folder.
            paths: recordings below ``root``; clip i is ``paths[i]``.
            cache_dir: folder for caches; ``"beside"`` keeps them in ``<root>/.audio-lrp-cache``; by default the
                environment variable ``AUDIO_LRP_CACHE``, or else the user's cache folder.

        Raises:
            UserError: no recordings, some that cannot be used, or a cache folder that cannot be written.
        """
        if not paths:
            raise UserError(f"{corpus_name} has no recordings below {root}; set --data.root to the corpus's folder")
        caches = caches_folder(root, cache_dir)
        signature = stat_signature(corpus_name, root, paths, FORMAT)
        name = noted(caches, signature, len(paths))
        if name is not None:
            return cls(caches / name, root)
        name = of_same_content(caches, corpus_name, root, paths)
        try:
            with exclusively(caches) as waited:
                if name is None and waited:  # meanwhile another process may have built it
                    name = noted(caches, signature, len(paths)) or of_same_content(caches, corpus_name, root, paths)
                if name is None:
                    name = build(caches, corpus_name, root, paths, signature)
                remember(caches, signature, name)
        except OSError as error:
            if name is None:  # else it is there already: reading is all we need
                raise UserError(
                    f"the recordings of {corpus_name} cannot be packed into {caches} ({error.strerror or error}); free "
                    f"space there, or choose another folder by --data.cache_dir or the variable {ENVIRONMENT_VARIABLE}"
                ) from error
        return cls(caches / name, root)

    def window(self, policy: LongClipPolicy) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The part of each clip that is used, at most one second.

        Args:
            policy: which second of a longer clip.

        Returns:
            First sample inside the clip [N], and number of samples [N], at most 8,000.

        Raises:
            UserError: there are longer clips and the policy is ``"error"``.
        """
        lengths = np.minimum(self.lengths, NUM_SAMPLES)
        if policy == "energy":
            return self._loudest, lengths
        if policy == "error":
            self._refuse_long_clips()
        return (self.lengths - lengths) // 2, lengths

    def gather(
        self, indices: NDArray[np.int64], policy: LongClipPolicy
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Read clips.

        Args:
            indices: which clips [B].
            policy: which second of longer clips.

        Returns:
            Clips [B, 8000] in int16 scale (full scale 32,768), from sample 0 on with zeros after their end, and their
            lengths [B].

        Raises:
            UserError: there are clips longer than a second and the policy is ``"error"``.
        """
        starts, lengths = self.window(policy)
        first, length = self._offsets[indices] + starts[indices], lengths[indices]
        clips = np.zeros((len(indices), NUM_SAMPLES), dtype=np.float32)
        for clip, begin, end, scale in zip(clips, first, first + length, self._scales[indices], strict=True):
            np.multiply(self._samples[begin:end], scale, out=clip[: end - begin])
        return clips, length

    def stored(self, policy: LongClipPolicy) -> tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.float32]]:
        """What is stored, for who keeps it elsewhere.

        Args:
            policy: which second of longer clips.

        Returns:
            The samples of all clips one after the other, mapped from the file [S]; the first that is used of each clip
            [N]; and the factor that restores its int16 scale [N].

        Raises:
            UserError: there are clips longer than a second and the policy is ``"error"``.
        """
        starts, _ = self.window(policy)
        return self._samples, self._offsets + starts, self._scales

    def _refuse_long_clips(self) -> None:
        (long,) = np.nonzero(self.lengths > NUM_SAMPLES)
        if len(long):
            names = json.loads((self.folder / NAMES).read_text())
            first = ", ".join(f"{self.root / names[i]} ({self.lengths[i] / SAMPLE_RATE:.2f} s)" for i in long[:3])
            raise UserError(
                f"{len(long)} recordings are longer than one second, the first of them {first}; "
                "set --data.long_clips to energy or center to use one second of each, or remove them"
            )


def _fits(index: NDArray[np.void], size: int) -> bool:
    """Whether an index [N] of type :data:`CLIP` can be that of a file of samples with so many bytes."""
    lengths, loudest = index["length"], index["loudest"]
    inside = (lengths > 0) & (lengths <= size) & (loudest >= 0) & (loudest <= (lengths - NUM_SAMPLES).clip(min=0))
    return bool(inside.all() and np.isfinite(index["scale"]).all() and lengths.sum() * 2 == size)


def intact(folder: Path, count: int) -> bool:
    """Whether a folder is a complete cache of ``count`` clips."""
    try:
        return len(PackedClips(folder, folder)) == count
    except DamagedCacheError:
        return False


def noted(caches: Path, signature: str, count: int) -> str | None:
    """The cache of these very files, as far as their sizes and times tell; ``None`` where none is known and intact."""
    name = recall(caches, signature)
    return name if name is not None and intact(caches / name, count) else None


def of_same_content(caches: Path, corpus_name: str, root: Path, paths: Sequence[Path]) -> str | None:
    """The cache of recordings with the same content at the same places; ``None`` where there is none.

    The recordings are read only where there is a cache to compare with: building one reads them anyway.

    Raises:
        UserError: a recording cannot be read.
    """
    if not any(intact(folder, len(paths)) for folder in caches.glob(f"{glob.escape(corpus_name)}-*")):
        return None
    name = name_of(corpus_name, root, paths, hash_in_parallel(paths))
    return name if intact(caches / name, len(paths)) else None


def name_of(corpus_name: str, root: Path, paths: Sequence[Path], hashes: Sequence[str]) -> str:
    """What a cache is called: the corpus's name and a hash of the recordings' places and content."""
    return f"{corpus_name}-{content_key(root, paths, hashes, FORMAT)}"


def build(caches: Path, corpus_name: str, root: Path, paths: Sequence[Path], signature: str) -> str:
    """Build one cache completely before it gets its name; the caller holds the lock.

    Returns:
        The name of its folder.

    Raises:
        UserError: some recordings cannot be used, or were changed meanwhile.
        OSError: the folder cannot be written.
    """
    for stale in caches.glob("*.building"):  # left by a process that was killed: nobody else builds now
        shutil.rmtree(stale)
    with TemporaryDirectory(dir=caches, suffix=".building") as temporary:
        packed = Path(temporary) / "cache"
        packed.mkdir()
        with (
            (packed / NAMES).open("w") as names,
            (packed / SAMPLES).open("wb", buffering=2**20) as samples,
            (packed / INDEX).open("wb") as index,
        ):
            json.dump([path.relative_to(root).as_posix() for path in paths], names)
            clips, hashes = pack(corpus_name, paths, samples)
            np.save(index, clips)
            for file in (names, samples, index):
                file.flush()
                os.fsync(file.fileno())
        if stat_signature(corpus_name, root, paths, FORMAT) != signature:
            raise UserError(f"recordings of {corpus_name} below {root} were changed while they were read; start again")
        name = name_of(corpus_name, root, paths, hashes)
        if (caches / name).exists():  # damaged
            shutil.rmtree(caches / name)
        packed.rename(caches / name)
    return name


def pack(corpus_name: str, paths: Sequence[Path], file: BinaryIO) -> tuple[NDArray[np.void], list[str]]:
    """Decode recordings in parallel and append them to a file in their order, a bounded number in memory.

    Returns:
        The index [N] of type :data:`CLIP`, and a hash of each recording's file.

    Raises:
        UserError: some recordings cannot be used; the first few are named.
    """
    index = np.zeros(len(paths), dtype=CLIP)
    hashes: list[str] = []
    unusable: list[str] = []
    clips = map_in_processes(hash_and_pack, paths)
    for i, (hash_of_file, clip) in enumerate(
        tqdm(clips, f"packing {corpus_name}", total=len(paths), unit="clip", delay=1)
    ):
        hashes.append(hash_of_file)
        if isinstance(clip, UnusableRecordingError):
            unusable.append(f"{paths[i]} ({clip})")
        else:
            samples, scale = clip
            index[i] = len(samples), loudest_window(samples, NUM_SAMPLES), scale
            file.write(samples.data)
    if unusable:
        some = ", ".join(unusable[:3]) + (", ..." if len(unusable) > 3 else "")
        raise UserError(
            f"{len(unusable)} of {len(paths)} recordings of {corpus_name} cannot be used: {some}; "
            "replace or remove them"
        )
    return index, hashes


def hash_and_pack(
    paths: Sequence[Path],
) -> Iterator[tuple[str, tuple[NDArray[np.int16], float] | UnusableRecordingError]]:
    """What :func:`hash_files` and :func:`pack_clips` give, in one go: the system need not read a file twice."""
    return zip(hash_files(paths), pack_clips(paths), strict=True)


def pack_clips(paths: Sequence[Path]) -> Iterator[tuple[NDArray[np.int16], float] | UnusableRecordingError]:
    """Decode recordings to int16 samples [n] that use the whole range, and the factors that restore int16 scale."""
    for samples in decode_all(paths):
        if isinstance(samples, UnusableRecordingError):
            yield samples
        elif (peak := float(peak_of(samples))) == 0:
            yield np.zeros(len(samples), dtype=np.int16), 0.0
        else:
            integers = np.rint(np.divide(samples, peak, dtype=np.float64) * 32767).astype("<i2")
            yield integers, peak * 32768 / 32767
