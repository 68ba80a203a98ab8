"""Names of recordings: the one definition of which files are some, and which look like some but cannot be read."""

import os.path
from pathlib import Path
from typing import Final

import soundfile

_SUFFIXES: Final = {
    "WAV": ".wav .wave .bwf",
    "RF64": ".rf64",
    "W64": ".w64",
    "FLAC": ".flac",
    "AIFF": ".aif .aiff .aifc",
    "CAF": ".caf",
    "AU": ".au .snd",
    "NIST": ".nist .sph",
    "VOC": ".voc",
    "AVR": ".avr",
    "PAF": ".paf",
    "PVF": ".pvf",
    "IRCAM": ".sf .ircam",
    "SVX": ".svx .8svx",
    "SDS": ".sds",
    "SD2": ".sd2",
    "WVE": ".wve",
    "OGG": ".ogg .oga .opus",
    "MP3": ".mp3 .mp2",
}
"""By libsndfile's name of the format, the lossy ones last. Its others hold other things as well, or have no header."""
_OTHERS: Final = (
    ".m4a .m4b .mp4 .aac .alac .wma .webm .weba .mka .mkv .mov .3gp .amr .spx .ape .wv .tta .ac3 .dts .ra .gsm .dsf "
    ".dff .raw .pcm"
)

SUFFIXES: Final = tuple(
    " ".join(names for name, names in _SUFFIXES.items() if name in soundfile.available_formats()).split()
)
"""How the names of recordings end, in lower case, the formats that keep most of the sound first."""
UNREADABLE: Final = frozenset(" ".join([*_SUFFIXES.values(), _OTHERS]).split()) - set(SUFFIXES)
"""How the names of other recordings end: libsndfile cannot read them."""
CONVERT: Final = "convert to WAV or FLAC"
_BEGINNINGS: Final = (b"fLaC", b"OggS", b"caff", b".snd", b"NIST_1A", b"ID3", b"riff\x2e\x91\xcf\x11")
_CHUNKED: Final = (b"WAVE", b"AIFF", b"AIFC")  # after four bytes and a length; other files begin alike


def begins_as_sound(path: Path) -> bool:
    """Whether a file begins as recordings do, whatever it is called; no if it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(_BEGINNINGS) or start[8:] in _CHUNKED


def suffix_of(name: str) -> str:
    """The end of a file's name that tells its format, in lower case.

    Example:
        >>> suffix_of("7_01_0.FLAC")
        '.flac'
    """
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (a tenth of the time, for tens of thousands of files)


def without_format(place: str) -> str:
    """A recording's place without what tells its format; other names as they are.

    Example:
        >>> without_format("36/3_36_20.flac"), without_format("36/3_36_20")
        ('36/3_36_20', '36/3_36_20')
    """
    suffix = suffix_of(place)
    return place[: -len(suffix)] if suffix in SUFFIXES else place
