"""AudioNet in the paper's own layers, one after the other."""

from torch import nn


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
