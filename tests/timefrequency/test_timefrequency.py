"""Time-frequency relevance against the virtual inspection layer written out as a dense matrix in float64."""

import numpy as np
import pytest
import scipy.signal
import torch
import torchaudio
from torch import nn

from audio_lrp.attribution import attribute
from audio_lrp.data.representation import Spectrogram
from audio_lrp.errors import UserError
from audio_lrp.timefrequency.bands import interval_weights, mel_weights, pooled
from audio_lrp.timefrequency.stft import (
    STABILIZER,
    STFT,
    HannSTFT,
    dft_relevance,
    plane_relevance,
    spectrogram_plane,
)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def dense_lrp(contributions: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """LRP-z through a linear layer: contribution of each coefficient (row) to each sample (column)."""
    total = contributions.sum(axis=0)
    shares = np.divide(contributions, total, out=np.zeros_like(contributions), where=np.abs(total) > 1e-13)
    return shares @ relevance


def dense_inverse_dft(length: int) -> np.ndarray:
    """Complex matrix [length // 2 + 1, length]: the real part of spectrum @ matrix is the signal."""
    bins, samples = np.arange(length // 2 + 1), np.arange(length)
    matrix = np.exp(2j * np.pi * np.outer(bins, samples) / length) / length
    counts = np.where((bins == 0) | (2 * bins == length), 1.0, 2.0)
    return counts[:, None] * matrix


def dense_stft_relevance(
    signal: np.ndarray, relevance: np.ndarray, analysis: np.ndarray, synthesis: np.ndarray, hop: int, starts: list[int]
) -> np.ndarray:
    """The inverse STFT as one dense matrix, frame by frame and sample by sample; relevance [bins, frames]."""
    length, size = len(analysis), len(signal)
    inverse = dense_inverse_dft(length)
    overlap = np.zeros(size)
    spectra, matrices = [], []
    for start in starts:
        frame = np.zeros(length)
        matrix = np.zeros((len(inverse), size), dtype=complex)
        for offset in range(length):
            if 0 <= start + offset < size:
                frame[offset] = signal[start + offset] * analysis[offset]
                overlap[start + offset] += analysis[offset] * synthesis[offset]
                matrix[:, start + offset] = inverse[:, offset] * synthesis[offset]
        spectra.append(np.fft.rfft(frame))
        matrices.append(matrix)
    contributions = np.concatenate(
        [(spectrum[:, None] * matrix).real / overlap for spectrum, matrix in zip(spectra, matrices, strict=True)]
    )
    np.testing.assert_allclose(contributions.sum(axis=0), signal, atol=1e-9)  # it is the inverse
    return dense_lrp(contributions, relevance).reshape(len(starts), -1).T


@pytest.mark.parametrize("length", [1, 2, 15, 16, 101, 256])
def test_dft_equals_the_dense_layer(length: int) -> None:
    signal, relevance = random(length), random(length, seed=1)
    contributions = (np.fft.rfft(signal.numpy())[:, None] * dense_inverse_dft(length)).real
    expected = dense_lrp(contributions, relevance.numpy())
    np.testing.assert_allclose(dft_relevance(signal, relevance).numpy(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("length", "hop", "analysis", "synthesis", "start", "frames"),
    [
        (32, 8, "hann", "hann", None, None),
        (35, 5, "hann", "hann", None, None),
        (32, 16, "hann", "boxcar", None, None),
        (31, 7, "hamming", "blackman", -20, None),
        (16, 16, "boxcar", "boxcar", 0, 13),
        (40, 3, "hann", "cosine", -39, 80),
    ],
)
def test_stft_equals_the_dense_layer(
    length: int, hop: int, analysis: str, synthesis: str, start: int | None, frames: int | None
) -> None:
    windows = [scipy.signal.get_window(name, length) for name in (analysis, synthesis)]
    stft = STFT(
        200,
        torch.from_numpy(windows[0]),
        hop,
        synthesis_window=torch.from_numpy(windows[1]),
        start=start,
        num_frames=frames,
    )
    signal, relevance = random(200), random(200, seed=1)
    starts = [stft.start + hop * frame for frame in range(stft.num_frames)]
    expected = dense_stft_relevance(signal.numpy(), relevance.numpy(), *windows, hop, starts)
    ours = stft.relevance(signal, relevance)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(stft.inverse(stft.spectrum(signal)), signal, rtol=0, atol=1e-12)


def test_inserting_the_inverse_transform_as_a_layer_gives_the_same() -> None:
    """The definition itself: a network on the spectrum's real and imaginary parts, explained by LRP-0."""
    stft = STFT(64, torch.hann_window(16, periodic=True, dtype=torch.float64), 4)
    signal = random(64)
    network = nn.Sequential(nn.Linear(64, 5, bias=False), nn.ReLU(), nn.Linear(5, 1, bias=False)).double()
    parts = torch.view_as_real(stft.spectrum(signal)).clone().requires_grad_()
    output = network(stft.inverse(torch.view_as_complex(parts)))
    (gradient,) = torch.autograd.grad(output, parts)  # LRP-0 of a ReLU network without biases is gradient x input
    expected = (gradient * parts).sum(dim=-1).detach()
    leaf = signal.clone().requires_grad_()
    (quotient,) = torch.autograd.grad(network(leaf), leaf)
    torch.testing.assert_close(stft.relevance(signal, modified_gradient=quotient), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(stft.relevance(signal, quotient * signal), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_totals_are_those_of_the_samples(dtype: torch.dtype, tolerance: float) -> None:
    signal = random(4, 1, 8000, dtype=dtype)
    relevance = signal * random(4, 1, 8000, seed=1, dtype=dtype) + signal**2
    total = relevance.sum(dim=-1)
    for transformed in (
        dft_relevance(signal, relevance),
        STFT(8000, torch.hann_window(256), 64).relevance(signal, relevance).flatten(-2),
        plane_relevance(signal, relevance).flatten(-2),
    ):
        assert transformed.dtype == dtype
        torch.testing.assert_close(transformed.sum(dim=-1), total, rtol=tolerance, atol=0)


def test_float32_agrees_with_float64() -> None:
    signal, quotient = random(2, 8000), random(2, 8000, seed=1)
    exact = plane_relevance(signal, modified_gradient=quotient)
    single = plane_relevance(signal.float(), modified_gradient=quotient.float())
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-5 * exact.abs().max().item())


def test_every_class_at_once_equals_one_by_one() -> None:
    signal, relevance = random(2, 1, 8000), random(2, 10, 8000, seed=1)
    together = plane_relevance(signal, relevance)
    assert together.shape == (2, 10, 227, 227)
    torch.testing.assert_close(together[1, 3], plane_relevance(signal[1, 0], relevance[1, 3]))


def test_padding_has_no_relevance_and_changes_nothing() -> None:
    signal, quotient = random(8000), random(8000, seed=1)
    signal[:2000] = 0.0
    signal[6000:] = 0.0
    plane = plane_relevance(signal, modified_gradient=quotient)
    starts = spectrogram_plane().start + 35 * torch.arange(227)
    padding = (starts + 455 <= 2000) | (starts >= 6000)
    assert padding.sum() > 80
    assert (plane[:, padding] == 0).all()
    torch.testing.assert_close(plane, plane_relevance(signal, quotient * signal))
    elsewhere = quotient.masked_fill(signal == 0, 123.0)  # what a network thinks of samples that are not there
    torch.testing.assert_close(
        dft_relevance(signal, modified_gradient=elsewhere), dft_relevance(signal, modified_gradient=quotient)
    )
    assert (plane_relevance(torch.zeros(8000), torch.zeros(8000)) == 0).all()


def test_segments_add_up() -> None:
    signal, relevance = random(8000), random(8000, seed=1)
    parts = [plane_relevance(signal, relevance, segment=segment) for segment in ((0, 3000), (3000, 5001), (5001, 8000))]
    torch.testing.assert_close(sum(parts), plane_relevance(signal, relevance), rtol=0, atol=1e-9)
    assert parts[1].sum().item() == pytest.approx(relevance[3000:5001].sum().item(), abs=1e-9)


def test_the_plane_is_the_spectrogram_networks_see() -> None:
    signal = random(2, 8000) * 1000
    stft = spectrogram_plane()
    magnitude = stft.spectrum(signal)[:, :-1].abs()
    expected = 20 * torch.log10(magnitude / magnitude.amax(dim=(1, 2), keepdim=True))
    shown = Spectrogram("decibel")(signal.float())[:, 0]
    torch.testing.assert_close(shown.double(), expected.clamp(min=-80), rtol=0, atol=0.01)
    assert shown.shape[1:] == plane_relevance(signal, signal).shape[1:]
    torch.testing.assert_close(stft.frequencies(8000)[:-1], torch.arange(227).double() * 8000 / 455)
    torch.testing.assert_close(stft.times(8000), (torch.arange(227).double() + 2) * 35 / 8000)


def test_the_plane_folds_the_topmost_bin_alone() -> None:
    signal, relevance = random(8000), random(8000, seed=1)
    whole = spectrogram_plane().relevance(signal, relevance)
    plane = plane_relevance(signal, relevance)
    torch.testing.assert_close(plane[:226], whole[:226])
    torch.testing.assert_close(plane[226], whole[226] + whole[227])


def test_a_tone_is_where_it_sounds() -> None:
    """A network that correlates with a tone: all relevance lies at the tone, the other tone has none."""
    time = torch.arange(8000, dtype=torch.float64) / 8000
    early = torch.where(time < 0.5, torch.sin(2 * torch.pi * 1000 * time + 0.3), 0)
    late = torch.where(time >= 0.5, torch.sin(2 * torch.pi * 2500 * time + 0.3), 0)
    signal = early + late
    plane = plane_relevance(signal, signal * early)
    stft = spectrogram_plane()
    bands = interval_weights(stft.frequencies(8000)[:-1], [900, 1100])
    halves = interval_weights(stft.times(8000), [0, 0.53, 1])
    assert pooled(plane, bands=bands, frames=halves)[0, 0] == pytest.approx(plane.sum().item(), rel=0.01)


def test_relevance_of_a_network_survives() -> None:
    network = nn.Sequential(
        nn.Conv1d(1, 4, 9, stride=4), nn.ReLU(), nn.MaxPool1d(4), nn.Flatten(), nn.Linear(4 * 499, 3)
    )
    signal = random(2, 1, 8000, dtype=torch.float32)
    signal[..., :1000] = 0.0
    relevance = attribute(network, signal).relevance
    plane = plane_relevance(signal, relevance)
    scale = relevance.abs().sum(dim=-1).max().item()
    torch.testing.assert_close(plane.sum(dim=(-1, -2)), relevance.sum(dim=-1), rtol=0, atol=1e-5 * scale)


def dense_stabilized(signal: np.ndarray, relevance: np.ndarray, stft: STFT, stabilizer: float) -> np.ndarray:
    """The stabilized map, frame by frame and sample by sample; relevance [bins, frames]."""
    window, length, size = stft.window.numpy(), stft.window_length, len(signal)
    starts = [stft.start + stft.hop_length * frame for frame in range(stft.num_frames)]
    overlap, level = np.zeros(size), np.zeros(size)
    frames = []
    for start in starts:
        frame = np.array([signal[start + i] * window[i] if 0 <= start + i < size else 0.0 for i in range(length)])
        frames.append(frame)
        for i in range(length):
            if 0 <= start + i < size:
                overlap[start + i] += window[i] ** 2
                level[start + i] += window[i] ** 2 * (frame**2).sum() / (window**2).sum()
    kept = signal**2 / (signal**2 + stabilizer**2 * level / overlap)
    rest = relevance * (1 - kept)
    result = dense_stft_relevance(signal, relevance * kept, window, window, stft.hop_length, starts)
    counts = np.where((np.arange(length // 2 + 1) == 0) | (2 * np.arange(length // 2 + 1) == length), 1.0, 2.0)
    for number, (start, frame) in enumerate(zip(starts, frames, strict=True)):
        power = counts * np.abs(np.fft.rfft(frame)) ** 2
        inside = [i for i in range(length) if 0 <= start + i < size]
        of_frame = sum(rest[start + i] * window[i] ** 2 / overlap[start + i] for i in inside)
        result[:, number] += of_frame * power / power.sum()
    return result


@pytest.mark.parametrize("length", [35, 32])
def test_stabilized_relevance_equals_its_definition(length: int) -> None:
    stft = STFT(200, torch.hann_window(length, dtype=torch.float64), 5)
    signal, relevance = random(200), random(200, seed=1)
    ours = stft.relevance(signal, relevance, stabilizer=0.3)
    expected = dense_stabilized(signal.numpy(), relevance.numpy(), stft, 0.3)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-8)
    nearly = stft.relevance(signal, relevance, stabilizer=1e-9)
    torch.testing.assert_close(nearly, stft.relevance(signal, relevance), rtol=0, atol=1e-8)


def test_the_stabilizer_tames_zero_crossings_and_keeps_totals() -> None:
    time = torch.arange(8000)
    signal = torch.sin(0.3 * time + 0.1).masked_fill((time < 1000) | (time >= 7000), 0.0)
    signal[4000] = 1e-5  # as good as silent, yet relevant
    relevance = signal.square()
    relevance[4000] = 1.0
    exact = plane_relevance(signal, relevance)
    tamed = plane_relevance(signal, relevance, stabilizer=STABILIZER)
    assert exact.abs().sum() > 5 * relevance.sum()
    assert tamed.abs().sum() < 1.1 * relevance.sum()
    assert tamed.sum().item() == pytest.approx(relevance.sum().item(), rel=1e-5)
    at_the_tone = interval_weights(spectrogram_plane().frequencies(8000)[:-1], [300, 460])
    assert pooled(tamed, bands=at_the_tone).sum() > 0.95 * relevance.sum()
    starts = spectrogram_plane().start + 35 * torch.arange(227)
    assert (tamed[:, (starts + 455 <= 1000) | (starts >= 7000)] == 0).all()
    by_quotient = plane_relevance(
        signal, modified_gradient=relevance / signal.masked_fill(signal == 0, 1.0), stabilizer=STABILIZER
    )
    torch.testing.assert_close(by_quotient, tamed)
    assert (plane_relevance(torch.zeros(2, 8000), torch.zeros(2, 8000), stabilizer=STABILIZER) == 0).all()


@pytest.mark.parametrize(
    ("window", "hop", "options", "message"),
    [
        (torch.hann_window(32), 33, {}, "cannot be inverted"),
        (torch.hann_window(32), 8, {"start": 8}, "product is 0 at sample 0"),
        (torch.hann_window(32), 8, {"num_frames": 5}, "cannot be inverted"),
        (torch.hann_window(32), 8, {"start": -40, "num_frames": 2}, "no frame holds any sample"),
        (torch.hann_window(32), 8, {"start": -39, "num_frames": 2}, "product is 0 at sample"),
        (torch.hann_window(32), 8, {"start": 100, "num_frames": 2}, "no frame holds any sample"),
        (torch.ones(32), 32, {"start": 0, "synthesis_window": -torch.ones(32)}, "product is -1"),
        (torch.ones(32), 8, {"synthesis_window": torch.ones(16)}, "same length"),
        (torch.ones(32), 0, {}, "at least 1"),
        (torch.ones(4, 8), 2, {}, "same length"),
    ],
)
def test_transforms_that_cannot_be_inverted_are_refused(window, hop, options, message) -> None:
    with pytest.raises(UserError, match=message):
        STFT(100, window, hop, **options)


def test_windows_have_a_length() -> None:
    with pytest.raises(UserError, match="window_length of HannSTFT is 0: pass 1 or more"):
        HannSTFT(window_length=0)


@pytest.mark.parametrize(
    ("signal", "arguments", "message"),
    [
        (torch.ones(8000), {}, "either the relevance"),
        (
            torch.ones(8000),
            {"relevance": torch.ones(8000), "modified_gradient": torch.ones(8000)},
            "either the relevance",
        ),
        (torch.ones(8000).bfloat16(), {"relevance": torch.ones(8000)}, "signal holds torch.bfloat16"),
        (torch.ones(8000), {"modified_gradient": torch.ones(8000).half()}, "relevance holds torch.float16"),
        (torch.ones(8000), {"relevance": torch.ones(7999)}, "one value for each sample"),
        (torch.ones(800), {"relevance": torch.ones(800)}, "takes signals of 8000 samples"),
        (torch.zeros(8000), {"relevance": torch.ones(8000)}, "proportional to the input"),
        (torch.ones(8000), {"relevance": torch.full((8000,), torch.nan)}, "not finite"),
        (torch.ones(8000), {"relevance": torch.ones(8000), "stabilizer": -0.1}, "stabilizer is -0.1"),
        (torch.ones(8000), {"relevance": torch.ones(8000), "segment": (5, 5)}, "does not lie in the signal"),
        (torch.ones(8000), {"relevance": torch.ones(8000), "segment": (0, 8001)}, "does not lie in the signal"),
    ],
)
def test_misfits_are_refused(signal, arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        plane_relevance(signal, **arguments)


def test_intervals_partition() -> None:
    centres = torch.linspace(0, 4000, 228, dtype=torch.float64)
    weights = interval_weights(centres, [0, 300, 3400, 4001])
    assert (weights.sum(dim=0) == 1).all()
    assert (weights[1] == ((centres >= 300) & (centres < 3400))).all()
    for edges in ([], [1.0], [2.0, 1.0]):
        with pytest.raises(UserError, match="rise"):
            interval_weights(centres, edges)


def test_mel_bands_are_the_usual_triangles_and_lose_nothing() -> None:
    frequencies = torch.linspace(0, 4000, 513, dtype=torch.float64)
    ours = mel_weights(frequencies, 20)
    usual = torchaudio.functional.melscale_fbanks(513, 0.0, 4000.0, 20, 8000, norm=None, mel_scale="htk").T.double()
    torch.testing.assert_close(ours[1:-1], usual[1:-1], rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.sum(dim=0), torch.ones(513, dtype=torch.float64), rtol=0, atol=1e-12)
    signal, relevance = random(8000), random(8000, seed=1)
    stft = STFT(8000, torch.hann_window(1024), 256)
    of_bands = pooled(stft.relevance(signal, relevance), bands=ours)
    assert of_bands.shape == (20, stft.num_frames)
    assert of_bands.sum().item() == pytest.approx(relevance.sum().item(), rel=1e-9)
    assert (mel_weights(frequencies, 1) == 1).all()
    with pytest.raises(UserError, match="mel bands"):
        mel_weights(frequencies, 0)
    with pytest.raises(UserError, match="has 513 bins"):
        pooled(stft.relevance(signal, relevance), bands=ours[:, :-1])
