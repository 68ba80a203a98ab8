"""Small networks, and ways to change them, that the tests of attribution share."""

import copy

import torch
from torch import nn
from zennit.attribution import Gradient

WAVEFORM, SPECTROGRAM = (1, 64), (1, 31, 31)


def waveform_network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv1d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool1d(3, 2, ceil_mode=True)),
        *(nn.Conv1d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Flatten(), nn.Dropout(), nn.Linear(128, 16), nn.Dropout(), nn.Linear(16, 4)),
    )


def spectrogram_network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 5, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(4, 8, (1, 3), padding=(0, 1), groups=2), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(72, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 4)),
    )


NETWORKS = [(waveform_network, WAVEFORM), (spectrogram_network, SPECTROGRAM)]


def random_input(shape=WAVEFORM, batch=5):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


def zennit_relevance(network, inputs, target, composite):
    """Relevance by zennit's own attributor, on a copy of the network."""
    with Gradient(copy.deepcopy(network).eval(), composite) as attributor:
        _, relevance = attributor(inputs.clone(), lambda output: output * torch.eye(output.shape[1])[target])
    return relevance


def assert_same_relevance(relevance, expected, tolerance=1e-6):
    """Within the tolerance relative to the greatest relevance."""
    assert (relevance - expected).abs().max() <= tolerance * expected.abs().max()
    assert expected.abs().max() > 0


def state_of(network):
    """Everything an attribution might disturb, as objects (to stay the same) and values (to stay equal)."""
    objects, values = [], []
    for module in network.modules():
        objects += [module._parameters, module._buffers]
        # Attributes hide a parameter or buffer of the same name, and so zennit 1.0.0's canonizers use them.
        objects += [getattr(module, name) for name in (*module._parameters, *module._buffers)]
        values += [list(vars(module))]
        values += [module.training, type(module)]
        values += [list(hooks) for hooks in (module._forward_pre_hooks, module._forward_hooks, module._backward_hooks)]
    for tensor in [*network.parameters(), *network.buffers()]:
        objects += [tensor, tensor.grad]
        values += [tensor.clone(), None if tensor.grad is None else tensor.grad.clone(), tensor.dtype]
        values += [tensor.requires_grad]
    values += [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")]
    values += [torch.get_rng_state(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32]
    return objects, values


def assert_same_state(before, after):
    assert all(left is right for left, right in zip(before[0], after[0], strict=True))
    for left, right in zip(before[1], after[1], strict=True):
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def batch_norm_network():
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.AdaptiveAvgPool1d(8), nn.Flatten(), nn.Linear(32, 3)),
    )
    for _ in range(3):
        network(3 * random_input() + 1)
    return network


def with_affine(norm):
    """The same batch normalisation with explicit weights."""
    same = nn.BatchNorm1d(norm.num_features).double().eval()
    same.load_state_dict(norm.state_dict(), strict=False)
    return same


class Residual(nn.Module):
    def __init__(self, add):
        super().__init__()
        self.convolution, self.add, self.dense = nn.Conv1d(1, 1, 3, padding=1), add, nn.Linear(64, 3)

    def forward(self, value):
        return self.dense(self.add(value, self.convolution(value)).flatten(1))


def scaling_norm():
    norm = nn.BatchNorm1d(6)
    norm.running_var.fill_(2.0)
    return norm


class CalledInAnotherOrder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(1, 4, 3)
        self.convolution, self.norm = nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4)
        self.dense = nn.Linear(240, 3)

    def forward(self, value):
        return self.dense(self.convolution(self.norm(self.first(value))).flatten(1))


class BesideItsNorm(nn.Module):
    """Uses a convolution's output as it is, too."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.dense = nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Linear(496, 3)

    def forward(self, value):
        value = self.convolution(value)
        return self.dense(torch.cat([value, self.norm(value)], dim=1).flatten(1))


class WithoutItsNorm(nn.Module):
    """Defines a normalisation that it never calls; the output is the layer's before it."""

    def __init__(self):
        super().__init__()
        self.dense, self.norm = nn.Linear(64, 3), nn.BatchNorm1d(3)

    def forward(self, value):
        return self.dense(value.flatten(1))


def trained_norm(channels):
    norm = nn.BatchNorm1d(channels)
    generator = torch.Generator().manual_seed(5)
    for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        tensor.uniform_(0.5, 1.5, generator=generator)
    return norm


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, value):
        return self.function(value)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

    def forward(self, value):
        return self.attention(value, value, value)[0][:, 0]


def with_parametrized(parametrize):
    network = waveform_network()
    parametrize(network[3])
    return network


def inserted(module, index=4):
    network = waveform_network()
    network.insert(index, module)
    return network


class Sinc(nn.Conv1d):
    """Filters made of cut-off frequencies; the inherited weights take no part."""

    def __init__(self):
        super().__init__(6, 8, 3, padding=1)
        self.cut = nn.Parameter(torch.rand(8, 6, 1) * 0.2 + 0.05)

    def forward(self, value):
        steps = torch.arange(-1, 2.0)
        return nn.functional.conv1d(value, 2 * self.cut * torch.sinc(2 * self.cut * steps), self.bias, padding=1)


class Standardised(nn.Conv1d):
    def forward(self, value):
        weight = (self.weight - self.weight.mean((1, 2), keepdim=True)) / self.weight.std((1, 2), keepdim=True)
        return self._conv_forward(value, weight, self.bias)


class Masked(nn.Linear):
    def forward(self, value):
        return nn.functional.linear(value, self.weight * (torch.arange(self.in_features) % 3 > 0), self.bias)


class Causal(nn.Conv1d):
    def forward(self, value):
        return super().forward(nn.functional.pad(value, (2 * self.dilation[0], 0)))


class LowRank(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.randn(4, inputs)), nn.Parameter(torch.randn(outputs, 4))

    def forward(self, value):
        return super().forward(value) + nn.functional.linear(nn.functional.linear(value, self.down), self.up)


def replaced(index, module):
    torch.manual_seed(2)
    network = waveform_network()
    network[index] = module() if isinstance(module, type) else module
    return network


def with_hook(kind, hook, index=3):
    network = waveform_network()
    getattr(network[index], f"register_{kind}")(hook)
    return network
