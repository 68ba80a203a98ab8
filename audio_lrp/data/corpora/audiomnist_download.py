"""AudioMNIST from its repository's archive: fetched, checked, and put in place whole.

Nobody published a checksum of the archive, and its bytes may change when the server packs it anew. So its content is
checked: that it holds all 30,000 recordings by name, 50 of each digit by each of 60 speakers, that each is whole
(the archive's CRC-32) and 16-bit mono at 48 kHz, and that the metadata tell the gender of all speakers, 12 of them
female. The commit in the address names the content, to the extent that the server is trusted.
"""

import io
import json
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import soundfile
from tqdm import tqdm

from audio_lrp.data.corpora.audiomnist_layout import NAME, list_recordings
from audio_lrp.data.corpora.audiomnist_metadata import METADATA
from audio_lrp.data.corpora.download import AGAIN, another_server, download
from audio_lrp.errors import UserError, not_writable
from audio_lrp.utils.files import exclusively

MAX_ARCHIVE_BYTES: Final = 3 << 30  # the real one has about 1 GB
MAX_DIRECTORY_BYTES: Final = 16 << 20  # the archive's table of contents; the real one has about 3 MB
MAX_FILE_BYTES: Final = 1 << 18  # a second at 48 kHz and 16 bit takes 96 kB
FILE_TYPE: Final = 0o170000
REGULAR_FILE: Final = 0o100000
DAMAGED: Final = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError)
"""What zipfile raises over damaged archives."""


@dataclass(frozen=True)
class Release:
    """What an archive of AudioMNIST has to hold.

    Attributes:
        url: its address.
        speakers: how many speakers, called 01, 02, ...
        females: how many of them are female.
        repetitions: recordings of each digit by each speaker.
        sample_rate: in Hz.
    """

    url: str
    speakers: int
    females: int
    repetitions: int
    sample_rate: int

    def recordings(self) -> list[str]:
        """The recordings' places below ``data/``."""
        return [
            f"{speaker:02d}/{digit}_{speaker:02d}_{repetition}.wav"
            for speaker in range(1, self.speakers + 1)
            for digit in range(10)
            for repetition in range(self.repetitions)
        ]


AUDIOMNIST: Final = Release(
    "https://github.com/soerenab/AudioMNIST/archive/544b0f4bc65227e54332e665d5e02c24be6732c2.zip",
    speakers=60,
    females=12,
    repetitions=50,
    sample_rate=48_000,
)


class WrongArchiveError(Exception):
    """The archive is damaged, hostile, or not the one that is wanted; says why in a few words."""


def download_audiomnist(root: Path, mirror: str | None = None, release: Release = AUDIOMNIST) -> None:
    """Download AudioMNIST to ``<root>/data``, unless there is a corpus already.

    A download that was cut off resumes where it stopped. The recordings get their place when all are there.

    Args:
        root: the corpus's folder.
        mirror: another address of the same archive.
        release: what the archive holds.

    Raises:
        UserError: the archive cannot be had, is the wrong one, or there is no space for it.
    """
    archive = root / f".{PurePosixPath(release.url).name}"
    try:
        if not is_there(root):
            with exclusively(root):
                if not is_there(root):  # nor has another process put it there meanwhile
                    refuse_occupied(root / "data")
                    fetch(release.url if mirror is None else mirror, archive, root, release)
        archive.unlink(missing_ok=True)  # maybe that of an earlier process, which was killed when it had unpacked it
    except OSError as error:
        raise not_writable(root, error, AGAIN) from error


def is_there(root: Path) -> bool:
    """Whether a folder holds recordings in AudioMNIST's layout, all of them or some."""
    return any(NAME.fullmatch(path.stem) for path in list_recordings(root).paths)


def refuse_occupied(folder: Path) -> None:
    """Say before downloading that the recordings' place is taken; an empty folder makes room for them.

    Raises:
        UserError: something else is there, or what the recordings cannot take the place of.
    """
    if folder.is_symlink() or folder.is_mount():
        kind = "a link" if folder.is_symlink() else "another disk"
        raise UserError(f"{folder} is {kind}: AudioMNIST cannot take its place; remove it, or choose another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} is there, but holds no recordings in AudioMNIST's layout, and AudioMNIST would take its place; "
            "move it away, or choose another folder"
        )


def fetch(url: str, archive: Path, root: Path, release: Release) -> None:
    """Download the archive, unless it is there from an earlier attempt, and put its recordings in place.

    Raises:
        UserError: it cannot be had, is the wrong one, or there is no space for it.
        OSError: the folder cannot be written.
    """
    if not archive.exists():
        download(url, archive, MAX_ARCHIVE_BYTES)
    try:
        install(archive, root, release)
    except (WrongArchiveError, *DAMAGED) as error:
        archive.unlink()
        raise UserError(
            f"what {url} sent is not the archive of AudioMNIST ({error}); it was removed: try again, or "
            f"{another_server(root)}"
        ) from error


def install(archive: Path, root: Path, release: Release) -> None:
    """Check an archive and unpack its recordings and metadata to ``<root>/data``.

    Raises:
        WrongArchiveError: it is not the one that is wanted.
        zipfile.BadZipFile: it is damaged; or another of :data:`DAMAGED`.
        OSError: the folder cannot be written.
    """
    partial = root / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed: nobody else unpacks now
    refuse_huge_directory(archive)
    try:
        with zipfile.ZipFile(archive) as file:
            members = find_members(file, release)
            refuse_full_disk(root, sum(member.file_size for member in members.values()))
            partial.mkdir()
            for name, content in read_members(file, members):
                check_metadata(content, release) if name == METADATA else check_recording(name, content, release)
                (partial / name).parent.mkdir(exist_ok=True)
                (partial / name).write_bytes(content)
        partial.rename(root / "data")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_huge_directory(archive: Path) -> None:
    """Look at the size of the archive's table of contents before all of it is read into memory.

    Source: APPNOTE.TXT 6.3.10, 4.3.15 and 4.3.16 (the ends of ZIP64's and of the common table).
    """
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - (22 + 20 + 0xFFFF)))
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise WrongArchiveError("it is not a ZIP archive, or not a whole one")
    (size,) = struct.unpack_from("<L", tail, end + 12)
    if size > MAX_DIRECTORY_BYTES or b"PK\x06\x07" in tail:
        raise WrongArchiveError("its table of contents is too long")


def find_members(file: zipfile.ZipFile, release: Release) -> dict[str, zipfile.ZipInfo]:
    """The recordings and the metadata in an archive, by their places below ``data/``; its other files are passed over.

    Raises:
        WrongArchiveError: one is missing, there twice, too long, no regular file, or the archive has places outside of
            itself.
    """
    wanted = {*release.recordings(), METADATA}
    found: dict[str, zipfile.ZipInfo] = {}
    for member in file.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", member.filename):
            raise WrongArchiveError(f"its file {member.filename!r} would lie outside of it")
        name = "/".join(path.parts[2:])  # the first folder is called by the repository and the commit
        if path.parts[1:2] != ("data",) or name not in wanted:
            continue
        mode = member.external_attr >> 16
        if member.is_dir() or mode & FILE_TYPE not in (0, REGULAR_FILE):
            raise WrongArchiveError(f"its {name} is no regular file")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WrongArchiveError(f"its {name} is encrypted or compressed in an uncommon way")
        if member.header_offset < 0:
            raise WrongArchiveError(f"its {name} would begin before the archive does")
        if member.file_size > MAX_FILE_BYTES:
            raise WrongArchiveError(f"its {name} has {member.file_size} bytes")
        if name in found:
            raise WrongArchiveError(f"its {name} is there twice")
        found[name] = member
    missing = sorted(wanted - found.keys())
    if missing:
        raise WrongArchiveError(f"{len(missing)} of {len(wanted)} files are missing, the first of them {missing[0]}")
    return found


def refuse_full_disk(root: Path, needed: int) -> None:
    """Say before unpacking that there is no space for it.

    Raises:
        UserError: there is none.
    """
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"unpacking AudioMNIST takes {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free in {root}; free space "
            "there, then run the same command again"
        )


def read_members(file: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> Iterator[tuple[str, bytes]]:
    """The content of each file, which is compared with its CRC-32 on the way."""
    for name, member in tqdm(members.items(), "unpacking", unit="file", dynamic_ncols=True):
        with file.open(member) as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) != member.file_size:
            raise WrongArchiveError(f"its {name} has not the size that it says")
        yield name, content


def check_recording(name: str, content: bytes, release: Release) -> None:
    """Check a recording's format.

    Raises:
        WrongArchiveError: it has another.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as recording:
            found = recording.format, recording.subtype, recording.channels, recording.samplerate
    except soundfile.LibsndfileError as error:
        raise WrongArchiveError(f"its {name} is not readable as audio") from error
    if found != ("WAV", "PCM_16", 1, release.sample_rate):
        raise WrongArchiveError(f"its {name} is {found[0]} {found[1]} with {found[2]} channels at {found[3]} Hz")


def check_metadata(content: bytes, release: Release) -> None:
    """Check that the metadata tell all speakers' genders.

    Raises:
        WrongArchiveError: they do not.
    """
    try:
        metadata = json.loads(content)
        genders = [metadata[f"{speaker:02d}"]["gender"] for speaker in range(1, release.speakers + 1)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WrongArchiveError(f"its {METADATA} does not tell the gender of every speaker") from error
    if (genders.count("female"), genders.count("male")) != (release.females, release.speakers - release.females):
        raise WrongArchiveError(f"its {METADATA} tells other genders than AudioMNIST's")
