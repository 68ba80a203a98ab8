"""The two networks against plain re-statements of the paper's tables."""

import pytest
import torch
from torch import nn

from audio_lrp.errors import UserError
from audio_lrp.models import AlexNet, AudioNet


def plain_audionet() -> nn.Module:
    """AudioNet with ``nn.Conv1d``, ReLU before pooling, as the paper's table lists it."""
    channels = [1, 100, 64, 128, 128, 128, 128]
    features: list[nn.Module] = []
    for block in range(6):
        pooling = nn.MaxPool1d(3, 2, ceil_mode=True) if block == 0 else nn.MaxPool1d(2, 2)
        features += [nn.Conv1d(channels[block], channels[block + 1], 3, padding=1), nn.ReLU(), pooling]
    network = nn.Module()
    network.features = nn.Sequential(*features, nn.Flatten())
    network.classifier = nn.Sequential(
        nn.Linear(16000, 1024), nn.Dropout(), nn.Linear(1024, 512), nn.Dropout(), nn.Linear(512, 10)
    )
    network.forward = lambda x: network.classifier(network.features(x))
    return network


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


def test_audionet_equals_plain_conv1d_network_and_loads_its_state_dict() -> None:
    torch.manual_seed(0)
    plain = plain_audionet().eval()
    network = AudioNet(10).eval()
    network.load_state_dict(plain.state_dict())
    waveform = torch.randn(4, 1, 8000)
    with torch.no_grad():
        torch.testing.assert_close(network(waveform), plain(waveform), rtol=1e-5, atol=1e-6)


def test_audionet_round_trips_its_own_state_dict() -> None:
    first, second = AudioNet(2), AudioNet(2)
    second.load_state_dict(first.state_dict())
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


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
    with pytest.raises(UserError, match="unknown initialization 'hee': it is one of he, paper"):
        network_class(initialization="hee")


def test_paper_initialization() -> None:
    torch.manual_seed(0)
    alexnet, audionet = AlexNet(initialization="paper"), AudioNet(initialization="paper")
    assert alexnet.features[3].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert alexnet.classifier[0].weight.std().item() == pytest.approx(0.005, rel=0.02)
    assert audionet.features[3].weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert audionet.classifier[0].weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert all((parameter == 0).all() for name, parameter in alexnet.named_parameters() if name.endswith("bias"))
