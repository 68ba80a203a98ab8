"""Both input representations against the original recipe, written with SciPy and NumPy in float64."""

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
import torch

from audio_lrp.data.representation import NUM_SAMPLES, Representation, Spectrogram, SpectrogramScale, Waveform


def original_waveform(signal: np.ndarray) -> np.ndarray:
    return signal / (np.percentile(signal, 95) + 0.001)


def original_spectrogram(signal: np.ndarray) -> np.ndarray:
    transform = scipy.signal.stft(signal, 8000, window="hann", nperseg=455, noverlap=420)[2]
    magnitude = np.abs(transform)[0:227, 2:-1]
    decibel = 20 * np.log10(np.maximum(1e-5, magnitude)) - 20 * np.log10(max(1e-5, magnitude.max()))
    return np.maximum(decibel, -80.0)


def vowel(peak: float, length: int, offset: int, seed: int = 0) -> np.ndarray:
    """A decaying harmonic sound with a little noise, in int16 scale, inside 8,000 zeros."""
    time = np.arange(length) / 8000
    sound = sum(np.sin(2 * np.pi * 130 * k * time) / k for k in range(1, 25)) * np.exp(-3 * time)
    sound += 0.003 * np.random.default_rng(seed).standard_normal(length)
    signal = np.zeros(NUM_SAMPLES)
    signal[offset : offset + length] = np.round(sound / np.abs(sound).max() * peak)
    return signal


@pytest.fixture(params=["loud", "quiet", "full second"])
def signal(request: pytest.FixtureRequest) -> np.ndarray:
    return {
        "loud": vowel(30_000, 5000, 1234),
        "quiet": vowel(300, 4000, 17),
        "full second": vowel(8_000, 8000, 0),
    }[request.param]


def test_waveform_equals_the_original_recipe(signal: np.ndarray) -> None:
    ours = Waveform()(torch.from_numpy(signal).float()[None])[0, 0].numpy()
    reference = original_waveform(signal)
    assert ours == pytest.approx(reference, abs=1e-4)
    assert np.abs(reference).max() > 1


def test_spectrogram_equals_the_original_recipe(signal: np.ndarray) -> None:
    batch = torch.from_numpy(signal).float()[None]
    reference = original_spectrogram(signal)
    assert reference.shape == (227, 227)
    assert Spectrogram("unit")(batch)[0, 0].numpy() == pytest.approx(1 + reference / 80, abs=1e-4)
    # Decibels to the same share of their range of 80.
    assert Spectrogram("decibel")(batch)[0, 0].numpy() == pytest.approx(reference, abs=80 * 1e-4)


def test_real_recordings_equal_the_original_recipe(shared_data) -> None:
    paths = sorted((shared_data / "fsdd" / "recordings").glob("*_0.wav"))[:12]
    for path in paths:
        _, samples = scipy.io.wavfile.read(path)
        signal = np.zeros(NUM_SAMPLES)
        signal[: len(samples)] = samples[:NUM_SAMPLES]
        batch = torch.from_numpy(signal).float()[None]
        assert Waveform()(batch)[0, 0].numpy() == pytest.approx(original_waveform(signal), abs=1e-4, rel=1e-6)
        assert Spectrogram()(batch)[0, 0].numpy() == pytest.approx(1 + original_spectrogram(signal) / 80, abs=1e-4)


def test_batch_equals_one_by_one() -> None:
    batch = torch.from_numpy(np.stack([vowel(9_000, 3000, 10 * k, seed=k) for k in range(4)])).float()
    for representation in (Waveform(), Spectrogram()):
        together = representation(batch)
        alone = torch.cat([representation(one[None]) for one in batch])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_level_does_not_matter() -> None:
    """Samples in int16 scale: a recording 40 dB quieter gives the same input but for the recipe's constant."""
    signal = torch.from_numpy(vowel(20_000, 5000, 100)).float()[None]
    torch.testing.assert_close(Waveform()(signal / 100), Waveform()(signal), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(Spectrogram()(signal / 100), Spectrogram()(signal), rtol=0, atol=1e-4)


@pytest.mark.parametrize("peak", [10_000, -10_000])
@pytest.mark.parametrize("length", [1, 50, 300])
def test_very_short_clip_stays_bounded(length: int, peak: int) -> None:
    signal = np.zeros(NUM_SAMPLES)
    signal[:length] = peak
    assert np.percentile(signal, 95) == 0
    network_input = Waveform()(torch.from_numpy(signal).float()[None])
    assert network_input.abs().max() == pytest.approx(100, rel=1e-6)


def test_silence_is_finite_and_silent() -> None:
    silent = torch.zeros(2, NUM_SAMPLES)
    for representation in (Waveform(), Spectrogram("unit"), Spectrogram("decibel")):
        assert (representation(silent) == representation.silence).all()


def test_padding_is_silence() -> None:
    signal = torch.from_numpy(vowel(20_000, 2000, 0)).float()[None]
    assert (Spectrogram()(signal)[..., 70:] == 0).all()
    assert (Waveform()(signal)[..., 2000:] == 0).all()


def test_frames_of_silence_between_sounds_are_silent() -> None:
    """Two sounds in one clip, another clip without any: frames keep their places."""
    signal = np.stack([vowel(20_000, 1500, 800) + vowel(9_000, 2000, 5500), np.zeros(NUM_SAMPLES)])
    ours = Spectrogram()(torch.from_numpy(signal).float())
    assert ours[0, 0].numpy() == pytest.approx(1 + original_spectrogram(signal[0]) / 80, abs=1e-4)
    padded = np.pad(signal[0], 455)
    empty = [not padded[455 + 35 * (m + 2) - 227 :][:455].any() for m in range(227)]
    assert 80 < sum(empty) < 120
    assert (ours[0, 0, :, empty] == 0).all()
    assert (ours[1] == 0).all()


class Elsewhere(torch.Tensor):
    """Lies on the CPU, but says that it does not."""

    is_cpu = False


@pytest.mark.parametrize("scale", ["unit", "decibel"])
def test_spectrogram_elsewhere_than_on_the_cpu_is_the_same(scale: SpectrogramScale) -> None:
    pause = vowel(20_000, 1500, 800) + vowel(9_000, 2000, 5500)
    signal = torch.from_numpy(np.stack([pause, vowel(300, 4000, 17), np.zeros(NUM_SAMPLES)])).float()
    representation = Spectrogram(scale)
    elsewhere = representation(signal.as_subclass(Elsewhere)).as_subclass(torch.Tensor)
    torch.testing.assert_close(elsewhere, representation(signal), rtol=0, atol=1e-4)


def test_shape_elsewhere_than_on_the_cpu() -> None:
    assert Spectrogram().to("meta")(torch.empty(3, NUM_SAMPLES, device="meta")).shape == (3, 1, 227, 227)


@pytest.mark.parametrize(
    "representation", [Waveform(), Spectrogram(), Spectrogram("decibel")], ids=lambda it: type(it).__name__
)
def test_relevance_is_looked_at_over_time_and_in_one_plane(representation: Representation) -> None:
    signal = 1000 * torch.randn(3, 8000, generator=torch.Generator().manual_seed(0))
    network_input = representation(signal)
    relevance = network_input**2
    total = relevance.sum(dim=tuple(range(1, relevance.ndim)))
    plane = representation.in_plane(network_input, relevance, None)
    assert plane.shape == representation.spectrogram(signal, network_input).shape == (3, 227, 227)
    torch.testing.assert_close(plane.sum(dim=(1, 2)), total, rtol=1e-4, atol=0)
    over_time = representation.over_time(relevance)
    assert over_time.shape == (3, 8000)
    torch.testing.assert_close(over_time.sum(dim=1), total, rtol=1e-4, atol=0)


@pytest.mark.parametrize("representation", [Waveform(), Spectrogram()], ids=lambda it: type(it).__name__)
def test_all_that_a_network_sees_of_an_utterance_is_in_its_mask(representation: Representation) -> None:
    signal, offset, length = torch.zeros(2, 8000), torch.tensor([500, 3000]), torch.tensor([2000, 4000])
    for clip, begin, count in zip(signal, offset, length, strict=True):
        clip[begin : begin + count] = 100 * torch.randn(int(count))
    seen = representation(signal) != representation.silence
    mask = representation.utterance(offset, length).expand_as(seen)
    assert not (seen & ~mask).any()
    assert seen[mask].float().mean() > 0.9
