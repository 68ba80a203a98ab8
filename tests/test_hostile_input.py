"""Files with bytes changed at random: each is read, or refused in one sentence; nothing hangs or eats the memory."""

import io
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command_line import TinyNetwork, exit_code, tiny_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_lrp.checkpoints import SavedNetwork, load_network
from audio_lrp.data.corpora.audiomnist_metadata import read_genders
from audio_lrp.data.corpora.exclusions import SHIPPED, read_exclusions
from audio_lrp.data.packing.decode import UnusableRecordingError, decode
from audio_lrp.errors import UserError
from audio_lrp.study.budget import find_budget, load_budget
from audio_lrp.sweeps.sweep_file import make_sweep, read_sweep
from audio_lrp.training.config_files import shipped_configs

MEMORY = 2 * 2**30
"""Bytes that reading any of these files, a few thousand bytes long, may take at most."""

HEADER = 64
"""Damage to the first bytes does most: half of it goes there."""

ALIKE_EACH_TIME = settings(derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """The bytes with one to six places changed, cut out, doubled or overwritten, or the end cut off."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 6))):
        size = len(content)
        place = draw(st.integers(0, min(HEADER, size)) | st.integers(0, size))
        length = draw(st.integers(1, 16))
        kind = draw(st.sampled_from(["flip", "overwrite", "remove", "double", "cut"]))
        if kind == "flip" and place < size:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "overwrite":
            content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "remove":
            del content[place : place + length]
        elif kind == "double":
            content[place:place] = content[place : place + length]
        elif kind == "cut":
            del content[place:]
    return bytes(content)


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """A file that asks for gigabytes fails here instead of taking them."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def fuzz(original: bytes, path: Path, read: Callable[[Path], None], count: int) -> None:
    """Write ``count`` damaged copies to ``path``, one after the other, and read each."""

    @settings(ALIKE_EACH_TIME, max_examples=count, deadline=60_000)  # milliseconds, of a machine that may be busy
    @given(damaged(original))
    def run(content: bytes) -> None:
        path.write_bytes(content)
        read(path)

    run()


def one_sentence(error: Exception) -> None:
    assert str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 600


def wav(file_format: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    samples = 0.1 * np.sin(np.arange(400))[:, None].repeat(2, axis=1)
    soundfile.write(file, samples, 16000, format=file_format, subtype=subtype)
    return file.getvalue()


counts = pytest.mark.parametrize("count", [150, pytest.param(500, marks=pytest.mark.slow)])
few_counts = pytest.mark.parametrize("count", [15, pytest.param(50, marks=pytest.mark.slow)])


@counts
@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("RF64", "PCM_16"), ("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("AU", "PCM_16"),
     ("FLAC", "PCM_16"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
)  # fmt: skip
def test_recordings(tmp_path: Path, count: int, file_format: str, subtype: str) -> None:
    def read(path: Path) -> None:
        try:
            samples = decode(path)
        except UnusableRecordingError as error:
            one_sentence(error)
        else:
            assert samples.ndim == 1
            assert len(samples) > 0
            assert np.isfinite(samples).all()

    fuzz(wav(file_format, subtype), tmp_path / "damaged.wav", read, count)


@counts
def test_metadata(tmp_path: Path, count: int) -> None:
    original = {f"{speaker:02d}": {"gender": "male", "age": 20 + speaker, "native speaker": "no"} for speaker in (1, 2)}

    def read(path: Path) -> None:
        try:
            genders = read_genders(path)
        except UserError as error:
            one_sentence(error)
        else:
            assert set(genders.values()) <= {"male", "female"}

    fuzz(json.dumps(original).encode(), tmp_path / "audioMNIST_meta.txt", read, count)


@counts
def test_checkpoints(tmp_path: Path, count: int) -> None:
    file = io.BytesIO()
    network = {"class_path": "command_line.TinyNetwork", "init_args": {"width": 1}}
    hyper_parameters = {"num_classes": 2, "representation": "waveform", "network": network}
    weights = {f"network.{name}": value for name, value in TinyNetwork(2, width=1).state_dict().items()}
    torch.save({"state_dict": weights, "hyper_parameters": hyper_parameters}, file)

    def read(path: Path) -> None:
        try:
            saved = load_network(path, plugins=["command_line"])
        except UserError as error:
            one_sentence(error)
        else:
            assert isinstance(saved, SavedNetwork)

    fuzz(file.getvalue(), tmp_path / "damaged.ckpt", read, count)


SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "audionet.yaml"


@pytest.mark.parametrize(
    ("original", "read"),
    [
        (SWEEP, lambda path: make_sweep(read_sweep(path))),
        (find_budget("tiny"), load_budget),
        (SHIPPED["audiomnist"], read_exclusions),
    ],
    ids=["sweep", "budget", "exclusions"],
)
@counts
def test_other_yaml_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: Path, read: Callable[[Path], object], count: int
) -> None:
    monkeypatch.setenv("AUDIOMNIST_ROOT", "corpus")

    def read_or_refuse(path: Path) -> None:
        try:
            read(path)
        except UserError as error:
            one_sentence(error)

    fuzz(original.read_bytes(), tmp_path / "damaged.yaml", read_or_refuse, count)


@few_counts
def test_configurations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    monkeypatch.chdir(tmp_path)

    def read(path: Path) -> None:
        code = exit_code("fit", "--config", str(path), "--data.root=corpus", "--print_config")
        printed = capsys.readouterr().err
        assert code in (0, 1, 2)
        assert "Traceback" not in printed
        errors = [line for line in printed.splitlines() if line.startswith("audio-lrp: error")]
        assert len(errors) == (code != 0)

    fuzz(shipped_configs()["audionet_digit"].read_bytes(), tmp_path / "damaged.yaml", read, count)


@few_counts
def test_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    monkeypatch.chdir(tmp_path)
    options = tiny_run(tmp_path / "corpus")

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.integers(0, len(options) - 1), st.text(max_size=12), st.booleans())
    def run(position: int, text: str, value_alone: bool) -> None:
        name, _, value = options[position].partition("=")
        changed = f"{name}={text}" if value_alone else f"--{text}={value}"
        code = exit_code("fit", *options[:position], changed, *options[position + 1 :], "--print_config")
        printed = capsys.readouterr().err
        assert code in (0, 1, 2)
        assert "Traceback" not in printed

    run()
