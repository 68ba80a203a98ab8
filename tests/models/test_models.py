"""The two networks against plain re-statements of the paper's tables."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from plain_audionet import plain_audionet
from torch import nn

from audio_lrp.errors import UserError
from audio_lrp.models import AlexNet, AudioNet
from audio_lrp.models.initialization import Initialization
from audio_lrp.training.checkpoint import check_weights


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts() -> None:
    alexnet = (
        96 * (121 + 1) + 256 * (48 * 25 + 1) + 384 * (256 * 9 + 1) + 384 * (192 * 9 + 1) + 256 * (192 * 9 + 1)
        + (9216 + 1) * 1024 + (1024 + 1) * 1024 + (1024 + 1) * 10
    )  # fmt: skip
    assert count(AlexNet(10)) == alexnet == 12_808_906
    assert count(AudioNet(10)) == count(plain_audionet()) == 17_107_162
    assert count(AlexNet(2)) == alexnet - 1025 * 8


def test_alexnet_is_made_of_these_layers() -> None:
    network = AlexNet()
    assert Counter(type(layer) for layer in (*network.features, *network.classifier)) == {
        nn.Conv2d: 5, nn.ReLU: 7, nn.MaxPool2d: 3, nn.Flatten: 1, nn.Linear: 3, nn.Dropout: 2
    }  # fmt: skip


@pytest.mark.parametrize("network_class", [AlexNet, AudioNet])
def test_dropout_is_that_asked_for(network_class: type[AlexNet | AudioNet]) -> None:
    network = network_class(dropout=0.3)
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


def test_audionet_equals_plain_conv1d_network_and_either_loads_the_other() -> None:
    torch.manual_seed(0)
    plain, other = plain_audionet().eval(), plain_audionet().eval()
    network = AudioNet(10).eval()
    network.load_state_dict(plain.state_dict())
    check_weights(Path("plain.ckpt"), {"state_dict": plain.state_dict()}, network)
    other.load_state_dict(network.state_dict())
    waveform = torch.randn(4, 1, 8000)
    with torch.no_grad():
        expected = plain(waveform)
        torch.testing.assert_close(network(waveform), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(other(waveform), expected)


def test_audionet_loads_kernels_of_height_1_as_earlier_checkpoints_hold_them() -> None:
    first, second = AudioNet(2), AudioNet(2)
    earlier = dict(first.named_parameters())
    assert earlier["features.0.weight"].shape == (100, 1, 1, 3)
    check_weights(Path("earlier.ckpt"), {"state_dict": earlier}, second)
    assert all(torch.equal(value, earlier[name]) for name, value in second.named_parameters())


def test_audionet_round_trips_its_own_state_dict() -> None:
    first, second = AudioNet(2), AudioNet(2)
    second.load_state_dict(first.state_dict())
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_kernels_that_do_not_load_are_another_models() -> None:
    stored = nn.Sequential(nn.Conv1d(1, 4, 3)).state_dict()
    with pytest.raises(
        UserError, match=r"the weights in a\.ckpt are another model's \(size mismatch for 0\.weight: .*\): t"
    ):
        check_weights(Path("a.ckpt"), {"state_dict": stored}, nn.Sequential(nn.Conv2d(1, 4, (1, 3))))
    with pytest.raises(UserError, match=r"\(0\.weight is of shape \(4, 1, 3\) there and of shape \(4, 1, 5\) here\)"):
        check_weights(Path("a.ckpt"), {"state_dict": stored}, nn.Sequential(nn.Conv1d(1, 4, 5)))


class Counting(nn.Linear):
    """Keeps more than tensors in its state dict, as any module may."""

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]


def test_what_modules_keep_beside_tensors_is_theirs_to_judge() -> None:
    network = Counting(2, 2)
    check_weights(Path("a.ckpt"), {"state_dict": network.state_dict()}, network)
    assert network.calls == 3
    with pytest.raises(UserError, match=r"\(_extra_state is missing there and no tensor here\)"):
        check_weights(Path("a.ckpt"), {"state_dict": nn.Linear(2, 2).state_dict()}, network)


@pytest.mark.parametrize("network_class", [AlexNet, AudioNet])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_logits_have_one_column_a_class(network_class: type[AlexNet | AudioNet], num_classes: int) -> None:
    network = network_class(num_classes)
    assert network(torch.randn(2, *network_class.input_shape)).shape == (2, num_classes)


@pytest.mark.parametrize("network_class", [AlexNet, AudioNet])
def test_every_leaf_is_used_once(network_class: type[AlexNet | AudioNet]) -> None:
    """Layer-wise relevance propagation gives wrong maps for modules that are used twice."""
    network = network_class().eval()
    calls: dict[str, int] = {}
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1}))
    network(torch.randn(1, *network_class.input_shape))
    assert set(calls.values()) == {1}
    assert sum(name.startswith("classifier") for name in calls) == (7 if network_class is AlexNet else 5)


@pytest.mark.parametrize("network_class", [AlexNet, AudioNet])
def test_unknown_initialization_is_refused(network_class: type[AlexNet | AudioNet]) -> None:
    with pytest.raises(UserError, match="unknown initialization 'hee': it is one of unit_variance, he, paper"):
        network_class(initialization="hee")


def test_paper_initialization() -> None:
    torch.manual_seed(0)
    alexnet, audionet = AlexNet(initialization="paper"), AudioNet(initialization="paper")
    assert alexnet.features[3].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert alexnet.classifier[0].weight.std().item() == pytest.approx(0.005, rel=0.02)
    assert audionet.features[3].weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert audionet.classifier[0].weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert all((parameter == 0).all() for name, parameter in alexnet.named_parameters() if name.endswith("bias"))


def test_alexnet_begins_with_hes_weights_for_relu() -> None:
    torch.manual_seed(0)
    layers = [layer for layer in AlexNet().modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / layer.weight[0].numel()), rel=0.05)
        assert (layer.bias == 0).all()


def outputs_of_layers(network: nn.Module, network_input: torch.Tensor) -> list[torch.Tensor]:
    """What the convolutions and dense layers give, in their order."""
    outputs: list[torch.Tensor] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        network.eval()(network_input)
    return outputs


def speech_like_noise() -> torch.Tensor:
    """Waveforms whose spectrum falls by 6 dB an octave above 100 Hz."""
    noise = np.cumsum(np.random.default_rng(0).standard_normal((8, 1, 8000)), axis=-1)
    noise = scipy.signal.sosfilt(scipy.signal.butter(1, 100, "highpass", fs=8000, output="sos"), noise)
    return torch.from_numpy(noise / np.quantile(noise, 0.95)).float()


@pytest.mark.parametrize("network_class", [AlexNet, AudioNet])
def test_unit_variance_initialization(network_class: type[AlexNet | AudioNet]) -> None:
    torch.manual_seed(0)
    network = network_class(initialization="unit_variance")
    assert network.training
    weights = [layer.weight.flatten(1) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(weights) == (8 if network_class is AlexNet else 9)
    for weight in weights:
        assert (weight.sum(dim=1).abs() < 1e-5 * weight.abs().sum(dim=1)).all()
    noise = torch.rand(8, 1, 227, 227) if network_class is AlexNet else speech_like_noise()
    *hidden, logits = outputs_of_layers(network, noise)
    for output in hidden:
        assert output.std().item() == pytest.approx(1, rel=0.2)
    assert 0.05 < logits.std().item() < 0.2
    assert all((parameter == 0).all() for name, parameter in network.named_parameters() if name.endswith("bias"))


def test_unit_variance_initialization_leaves_no_hooks() -> None:
    audionet = AudioNet()
    before = {name: value.clone() for name, value in audionet.state_dict().items()}
    audionet(torch.randn(2, 1, 8000))
    assert all(torch.equal(value, before[name]) for name, value in audionet.state_dict().items())


def test_what_all_samples_have_in_common_does_not_pass_the_first_layer() -> None:
    first = AudioNet().features[0]
    inner = first(torch.ones(1, 1, 1, 8000))[..., 1:-1]  # at the ends there are zeros beside the ones
    assert inner.abs().max() < 1e-5


@pytest.mark.parametrize("network_class", [AlexNet, AudioNet])
@pytest.mark.parametrize("initialization", ["unit_variance", "he", "paper"])
def test_networks_begin_in_half_precision_too(
    network_class: type[AlexNet | AudioNet], initialization: Initialization
) -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        network = network_class(initialization=initialization)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert all(parameter.isfinite().all() for parameter in network.parameters())
