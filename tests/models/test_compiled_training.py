"""Networks compiled by the option of the model: same checkpoints, same explanations."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from command_line import TinyNetwork, exit_code, only_checkpoint, only_folder, tiny_run
from torch import Tensor, nn

from audio_lrp import load
from audio_lrp.attribution import attribute
from audio_lrp.errors import UserError
from audio_lrp.models import Classifier
from audio_lrp.models.classifier import check_compiler


def compiled_classifier() -> Classifier:
    return Classifier(TinyNetwork, 10, "waveform", compile="default")


def test_weights_have_the_same_names_and_load_both_ways() -> None:
    plain, compiled = Classifier(TinyNetwork, 10, "waveform"), compiled_classifier()
    assert list(plain.state_dict()) == list(compiled.state_dict())
    compiled.load_state_dict(plain.state_dict())
    plain.load_state_dict(compiled.state_dict())


def test_steps_are_compiled_in_the_mode_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the network itself stays what it is, for explanations."""
    asked: list[object] = []
    ran: list[nn.Module] = []

    def compile_(call: Callable[..., Tensor], **options: object) -> Callable[..., Tensor]:
        asked.append(options)
        return lambda network, waveform: ran.append(network) or call(network, waveform)

    monkeypatch.setattr(torch, "compile", compile_)
    for mode in ("max-autotune", None):
        classifier = Classifier(TinyNetwork, 10, "waveform", compile=mode)
        for _ in range(2):
            assert classifier(torch.zeros(3, 1, 8000)).shape == (3, 10)
    assert asked == [{"mode": "max-autotune"}]
    assert len(ran) == 2
    assert all(type(network) is TinyNetwork for network in ran)


def test_the_average_of_the_weights_is_a_copy_of_a_compiled_model() -> None:
    classifier = compiled_classifier()
    assert callable(classifier._run)
    copy = deepcopy(classifier)
    assert copy.compile_mode == "default"
    assert copy.network is not classifier.network


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(UserError, match=r"compile of the model is null or one of default, .*, not 'fast'"):
        Classifier(TinyNetwork, 10, "waveform", compile="fast")  # type: ignore[arg-type]


def test_missing_compiler_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no no-such-compiler"):
        check_compiler()
    assert exit_code("fit", *tiny_run(tmp_path / "corpus"), "--model.compile=default") == 1
    assert "model.compile needs a C++ compiler on a CPU" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiled_training_is_explained_and_its_checkpoint_loads_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler's own code trains; relevance is LRP's, not the plain gradient's that compiled code would give."""
    monkeypatch.chdir(tmp_path)
    counters = torch._dynamo.utils.counters
    counters.clear()
    arguments = [
        *tiny_run(tmp_path / "corpus"), "--model.compile=default", "--trainer.callbacks+=LRPCallback",
        "--trainer.callbacks.num_examples=4", "--trainer.callbacks.on_error=raise",
    ]  # fmt: skip
    assert exit_code("fit", *arguments, "--run.root=compiled") == 0
    assert counters["stats"]["unique_graphs"] > 0
    checkpoint = only_checkpoint(only_folder(tmp_path / "compiled"))
    assert exit_code("test", *tiny_run(tmp_path / "corpus"), f"--ckpt_path={checkpoint}") == 0
    saved = load(checkpoint, plugins=["command_line"])
    compiled = compiled_classifier()
    compiled.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    torch.manual_seed(0)
    waveform = torch.randn(4, 1, 8000)
    with torch.no_grad():
        logits = compiled.eval()(waveform)
    torch.testing.assert_close(logits, saved.network(waveform), rtol=1e-5, atol=1e-5)
    explanation, expected = (attribute(network, waveform) for network in (compiled.network, saved.network))
    assert torch.equal(explanation.relevance, expected.relevance)
    gradient = torch.autograd.grad(saved.network(waveform.requires_grad_()).amax(dim=1).sum(), waveform)[0]
    assert not torch.allclose(explanation.relevance, (gradient * waveform).detach(), rtol=1e-2)
