"""Networks that other people published: explained as zennit explains them, or refused in one sentence."""

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from zennit.composites import EpsilonAlpha2Beta1, EpsilonPlus
from zennit.torchvision import ResNetCanonizer

from audio_lrp.attribution import AlphaBeta, Epsilon, Explanation, RuleMap, attribute
from audio_lrp.errors import UserError

STOCK = {"epsilon_plus": EpsilonPlus, "epsilon_alpha2_beta1": EpsilonAlpha2Beta1}


class M5(nn.Module):
    """The network of PyTorch's tutorial on speech commands (Dai et al., 2016, arXiv 1610.00087), with its names."""

    def __init__(self, num_classes: int = 35, channels: int = 32) -> None:
        super().__init__()
        widths = [(1, channels, 80, 16), (channels, channels, 3, 1), (channels, 2 * channels, 3, 1)]
        widths.append((2 * channels, 2 * channels, 3, 1))
        for number, (inputs, outputs, size, stride) in enumerate(widths, start=1):
            setattr(self, f"conv{number}", nn.Conv1d(inputs, outputs, size, stride))
            setattr(self, f"bn{number}", nn.BatchNorm1d(outputs))
            setattr(self, f"pool{number}", nn.MaxPool1d(4))
        self.fc1 = nn.Linear(2 * channels, num_classes)

    def features(self, value: Tensor) -> Tensor:
        for number in range(1, 5):
            convolution, norm, pool = (getattr(self, f"{name}{number}") for name in ("conv", "bn", "pool"))
            value = pool(F.relu(norm(convolution(value))))
        return value

    def forward(self, value: Tensor) -> Tensor:
        value = self.features(value)
        value = F.avg_pool1d(value, value.shape[-1]).permute(0, 2, 1)
        return F.log_softmax(self.fc1(value), dim=2)


class M5WithLogits(M5):
    """M5 as it can be explained: the average by a module, which can have a rule, and logits [B, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.AdaptiveAvgPool1d(1)

    def forward(self, value: Tensor) -> Tensor:
        return self.fc1(self.average(self.features(value)).flatten(1))


def with_statistics(network: nn.Module) -> nn.Module:
    """In float64 and eval mode, with batch normalisations and biases that look trained."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    return network.double().eval()


def with_norms_fused(network: nn.Module) -> nn.Module:
    """A copy whose batch normalisations are part of the convolutions before them."""
    network = copy.deepcopy(network)
    for (_, layer), (name, norm) in pairwise(list(network.named_modules())):
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            fused = nn.utils.fusion.fuse_conv_bn_eval(layer, norm)
            layer.weight, layer.bias = fused.weight, fused.bias
            parent, _, key = name.rpartition(".")
            setattr(network.get_submodule(parent), key, nn.Identity())
    return network


def vgg() -> nn.Module:
    """Torchvision's VGG of 11 layers with batch normalisation, with dense layers as small as its images."""
    network = torchvision.models.vgg11_bn(weights=None, num_classes=10)
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier[0] = nn.Linear(512, 64)
    network.classifier[3] = nn.Linear(64, 64)
    network.classifier[6] = nn.Linear(64, 10)
    return network


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def check_conservation(explanation: Explanation) -> None:
    """What did not reach the input went to biases and stabilizers, layer by layer."""
    ledger = explanation.conservation
    assert ledger.error < 1e-9
    lost = sum((layer.to_bias + layer.to_stabilizer for layer in ledger.layers), torch.zeros(len(explanation.target)))
    torch.testing.assert_close(ledger.attributed + lost, ledger.explained, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("preset", STOCK)
@pytest.mark.parametrize(
    ("make", "shape"),
    [(M5WithLogits, (1, 8000)), (vgg, (3, 32, 32))],
    ids=["M5", "VGG"],
)
def test_explained_as_by_zennit(make: Callable[[], nn.Module], shape: tuple[int, ...], preset: str) -> None:
    network = with_statistics(make())
    images = torch.randn(1, *shape, dtype=torch.float64)
    ours = attribute(network, images, composite=preset)
    stock = attribute(with_norms_fused(network), images, composite=STOCK[preset]())
    scale = stock.relevance.abs().max().item()
    assert scale > 0
    torch.testing.assert_close(ours.relevance, stock.relevance, rtol=1e-8, atol=1e-8 * scale)
    check_conservation(ours)


def test_resnet_with_zennits_canonizer() -> None:
    network = with_statistics(torchvision.models.resnet18(weights=None, num_classes=10))
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    rules = {"Convolution": AlphaBeta(2, 1), "Linear": Epsilon()}
    ours = attribute(network, images, composite=RuleMap(rules, canonizers=[ResNetCanonizer()]))
    stock = attribute(network, images, composite=EpsilonAlpha2Beta1(canonizers=[ResNetCanonizer()]))
    scale = stock.relevance.abs().max().item()
    torch.testing.assert_close(ours.relevance, stock.relevance, rtol=1e-6, atol=1e-6 * scale)
    assert ours.conservation.error < 1e-9


def dense_net() -> nn.Module:
    return torchvision.models.DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8)


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (M5, (1, 8000), "the network returned .*: it must return logits"),
        (lambda: torchvision.models.resnet18(weights=None), (3, 32, 32), "no rule of epsilon_plus covers .*Add"),
        (dense_net, (3, 64, 64), r"a function in the network's forward \(operation Mean\)"),
    ],
    ids=["M5", "ResNet", "DenseNet"],
)
def test_refused_in_one_sentence(make: Callable[[], nn.Module], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        attribute(with_statistics(make()), torch.randn(1, *shape), composite="epsilon_plus")
    assert "\n" not in str(refusal.value)
