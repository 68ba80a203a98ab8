"""What a training says about its speed when it begins."""

from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from command_line import TinyNetwork, exit_code, tiny_run

from audio_lrp.models import AudioNet, Classifier
from audio_lrp.models.classifier import CompileMode
from audio_lrp.training import efficiency
from audio_lrp.training.efficiency import EfficiencyCallback, efficiency_line


def line(
    precision: str,
    network: type[torch.nn.Module],
    has_bfloat16: bool | None,
    monkeypatch: pytest.MonkeyPatch,
    compile_mode: CompileMode | None = None,
) -> str:
    model = Classifier(network, 2, "waveform", compile=compile_mode)
    monkeypatch.setattr(efficiency, "has_bfloat16", lambda: has_bfloat16)
    return efficiency_line(L.Trainer(accelerator="cpu", precision=precision, logger=False), model)


@pytest.mark.parametrize(
    ("precision", "has_bfloat16", "said"),
    [
        ("bf16-mixed", True, "bfloat16 by trainer.precision,"),
        ("bf16-mixed", None, "bfloat16 by trainer.precision,"),
        ("bf16-mixed", False, "bfloat16 by trainer.precision (slow, as this CPU has no instructions for it"),
        ("32-true", True, "float32 by trainer.precision (this CPU has instructions for --trainer.precision bf16"),
        ("32-true", False, "float32 by trainer.precision,"),
        ("64-true", True, "float64 by trainer.precision,"),
    ],
)
def test_precision_is_said_and_what_would_be_faster(
    precision: str, has_bfloat16: bool | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert line(precision, TinyNetwork, has_bfloat16, monkeypatch).startswith(said)


@pytest.mark.parametrize(
    ("precision", "has_bfloat16", "said"), [("bf16-mixed", False, "bfloat16"), ("32-true", True, "float32")]
)
def test_on_a_gpu_nothing_is_said_of_the_cpu(
    precision: str, has_bfloat16: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efficiency, "has_bfloat16", lambda: has_bfloat16)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda")), precision=precision)
    assert efficiency_line(trainer, Classifier(TinyNetwork, 2, "waveform")) == f"{said} by trainer.precision"


def test_only_the_first_process_says_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(efficiency, "efficiency_line", lambda *_: "fast")
    for first in (True, False):
        EfficiencyCallback().on_fit_start(SimpleNamespace(is_global_zero=first), L.LightningModule())
    assert capsys.readouterr().err == "audio-lrp: fast\n"


def test_pages_threads_and_layout_are_those_in_force(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    enabled = tmp_path / "enabled"
    enabled.write_text("always [madvise] never\n")
    monkeypatch.setattr(efficiency, "_HUGE_PAGES", enabled)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    assert line("bf16-mixed", AudioNet, True, monkeypatch).endswith(", channels last, huge pages, 3 threads")
    assert line("bf16-mixed", TinyNetwork, True, monkeypatch).endswith("trainer.precision, huge pages, 3 threads")
    with monkeypatch.context() as told:
        told.setattr(efficiency, "keeps_freed_memory", lambda: True)
        assert line("bf16-mixed", AudioNet, True, monkeypatch).endswith(", huge pages, freed memory kept, 3 threads")
    enabled.write_text("always madvise [never]\n")
    assert "small pages" in line("bf16-mixed", TinyNetwork, True, monkeypatch)
    enabled.unlink()
    assert "small pages" in line("bf16-mixed", TinyNetwork, True, monkeypatch)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    compiled = line("32-true", TinyNetwork, False, monkeypatch, compile_mode="default")
    assert compiled.endswith(
        "trainer.precision, compiled (the first step waits for the compiler), small pages, 1 thread"
    )


def test_this_cpu_tells_what_it_has() -> None:
    cpu = Path("/proc/cpuinfo")
    if not (cpu.is_file() and hasattr(torch.cpu, "get_capabilities")) or "flags" not in cpu.read_text():
        pytest.skip("only Linux on x86 lists a processor's instructions")
    flags = set(cpu.read_text().split())
    assert efficiency.has_bfloat16() == bool(flags & {"avx512_bf16", "amx_bf16"})


def test_fit_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code("fit", *tiny_run(tmp_path / "corpus"), "--trainer.precision=bf16-mixed") == 0
    said = [text for text in capsys.readouterr().err.splitlines() if "trainer.precision" in text]
    assert len(said) == 1
    assert said[0].startswith("audio-lrp: bfloat16 by trainer.precision")
    assert said[0].endswith(f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}")
