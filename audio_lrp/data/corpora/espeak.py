"""The speech synthesiser espeak-ng, in process: text in, samples out."""

import _ctypes
import ctypes
import locale
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio_lrp.errors import UserError

SAMPLE_RATE: Final = 22050
"""Sampling rate of espeak-ng, in Hz."""

# From espeak-ng's header speak_lib.h.
OUTPUT_SYNCHRONOUS: Final = 2
INITIALIZE_DONT_EXIT: Final = 0x8000
PARAMETER_RATE: Final = 1
PARAMETER_VOLUME: Final = 2
PARAMETER_PITCH: Final = 3
PARAMETER_RANGE: Final = 4
TEXT_IS_UTF8: Final = 1
BUFFER_MILLISECONDS: Final = 1000

VOLUME: Final = 40
"""Per cent of the default: the loudest voices overload at more than that."""

RANDOM_SEED: Final = 1

REINSTALL: Final = "install it again, pip install --force-reinstall espeakng-loader"

SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class Voice:
    """One voice of espeak-ng; a context manager that unloads it at the end.

    espeak-ng keeps its state in global variables, some of which (flutter of the pitch, noise of the breath) run on from
    one utterance into the next and cannot be set back. Each voice therefore loads a private copy of the library: what
    it speaks depends on nothing but its own utterances so far, whatever other voices do in this process.

    Args:
        accent: a voice of espeak-ng for one language, ``"en-gb-scotland"``, say.
        variant: one of its variants, ``"f2"``, say: the speaker's vocal tract.

    Raises:
        UserError: espeak-ng is not installed, cannot be loaded, or has no such voice.
    """

    def __init__(self, accent: str, variant: str) -> None:
        source, data = installation()
        if not (data / "voices" / "!v" / variant).is_file():
            raise UserError(f"espeak-ng {version()} has no voice variant {variant!r}: {REINSTALL}")
        self._library = load_private_copy(source)
        self._chunks: list[bytes] = []
        self._callback = SynthCallback(self._receive)  # kept here, for the library does not keep it alive
        initialize(self._library, data)
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(RANDOM_SEED))  # by default the time
        if self._library.espeak_SetVoiceByName(f"{accent}+{variant}".encode()) != 0:
            raise UserError(f"espeak-ng {version()} has no voice {accent!r}: {REINSTALL}")
        self._library.espeak_SetParameter(PARAMETER_VOLUME, VOLUME, 0)

    def __enter__(self) -> "Voice":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._library.espeak_Terminate()
        if sys.platform == "win32":
            _ctypes.FreeLibrary(self._library._handle)  # pragma: no cover: on Windows
        else:
            _ctypes.dlclose(self._library._handle)

    def speak(self, text: str, *, rate: int, pitch: int, pitch_range: int) -> NDArray[np.int16]:
        """Speak a text.

        Args:
            text: what to say; punctuation sets the intonation.
            rate: speed in words per minute, 80 to 450; 175 is the voice's own.
            pitch: 0 to 99; 50 is the voice's own, 50 more or less an octave.
            pitch_range: 0 (monotone) to 99 (lively); 50 is the voice's own.

        Returns:
            Samples at :data:`SAMPLE_RATE` [n].
        """
        for parameter, value in (PARAMETER_RATE, rate), (PARAMETER_PITCH, pitch), (PARAMETER_RANGE, pitch_range):
            self._library.espeak_SetParameter(parameter, value, 0)
        encoded = text.encode() + b"\0"
        self._chunks.clear()
        status = self._library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 0, 0, TEXT_IS_UTF8, None, None)
        if status != 0:
            raise RuntimeError(f"espeak-ng could not speak {text!r}: status {status}")
        return np.frombuffer(b"".join(self._chunks), dtype=np.int16)

    def _receive(self, samples: int | None, count: int, _events: int | None) -> int:
        """Take samples from espeak-ng, whose buffer is used again; 0 lets it go on."""
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, count * 2))
        return 0


def installation() -> tuple[Path, Path]:
    """The library of espeak-ng and the folder of its voices.

    Raises:
        UserError: the package that ships them is missing or damaged.
    """
    try:
        import espeakng_loader

        return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())
    except ImportError as error:
        raise UserError(
            "synthetic digits need espeak-ng, which is not installed: pip install 'audio-lrp[demo]'"
        ) from error
    except RuntimeError as error:  # the folder of voices is missing
        raise UserError(f"espeak-ng is damaged ({error}): {REINSTALL}") from error


@cache
def version() -> str:
    """The version of espeak-ng, for example ``"1.52.0"``.

    Raises:
        UserError: espeak-ng is not installed or cannot be loaded.
    """
    path, _ = installation()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise UserError(f"espeak-ng cannot be loaded ({error}): {REINSTALL}") from error
    library.espeak_Info.restype = ctypes.c_char_p
    described: bytes = library.espeak_Info(None)
    return described.decode().split()[0]


def load_private_copy(path: Path) -> ctypes.CDLL:
    """Load a library apart from all others loaded from the same file, with global variables of its own.

    Raises:
        UserError: it cannot be copied or loaded.
    """
    # The copy's name can go as soon as it is loaded, except on Windows.
    with tempfile.TemporaryDirectory(prefix="audio-lrp-", ignore_cleanup_errors=True) as folder:
        try:
            return ctypes.CDLL(str(shutil.copy(path, folder)))
        except OSError as error:
            raise UserError(
                f"espeak-ng cannot be loaded from {folder} ({error}): set the variable TMPDIR to a folder with free "
                "space that programs may be run from"
            ) from error


def initialize(library: ctypes.CDLL, data: Path) -> None:
    """Start a library up with the voices in a folder.

    Raises:
        UserError: the voices cannot be read.
    """
    ctype = locale.setlocale(locale.LC_CTYPE)
    try:
        sample_rate = library.espeak_Initialize(
            OUTPUT_SYNCHRONOUS, BUFFER_MILLISECONDS, str(data).encode(), INITIALIZE_DONT_EXIT
        )
    finally:
        locale.setlocale(locale.LC_CTYPE, ctype)  # espeak-ng sets its own, for the whole process
    if sample_rate != SAMPLE_RATE:
        raise UserError(
            f"espeak-ng cannot read its voices in {data}: {REINSTALL}, in an environment whose path is shorter than "
            "100 characters"
        )
