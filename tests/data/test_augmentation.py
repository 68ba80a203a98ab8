"""Augmentations: what they change, and what they must not."""

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from audio_lrp.data.augmentation import (
    AdditiveNoise,
    PolarityInversion,
    RandomEqualizer,
    SpectrogramMasking,
    SpeedPerturbation,
)
from audio_lrp.errors import UserError


def tones(frequency: float, length: int = 5000, count: int = 4) -> tuple[Tensor, Tensor]:
    clip = torch.zeros(count, 8000)
    clip[:, :length] = 1000 * torch.sin(2 * torch.pi * frequency * torch.arange(length) / 8000)
    return clip, torch.full((count,), length)


def frequency_of(clip: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(clip * np.hanning(len(clip)), n=1 << 17))
    return float(spectrum.argmax() * 8000 / (1 << 17))


@pytest.mark.parametrize(("speed", "stretched"), [(0.8, 11200), (1.0, 9000), (1.25, 7200), (0.97, 9360)])
def test_speed_moves_pitch_and_length(speed: float, stretched: int) -> None:
    """Of multiples of 8 without prime factors above 13, 9,360 is next to 9,000 * 1.02^2, 7,200 to 9,000 / 1.02^11."""
    clip, length = tones(440)
    changed, new_length = SpeedPerturbation(speed, speed).change_clip(clip, length)
    assert new_length.tolist() == [5000 * stretched // 9000] * 4
    interior = changed[0, 20 : new_length[0] - 20].numpy()
    assert frequency_of(interior) == pytest.approx(440 * 9000 / stretched, abs=0.5)
    assert np.abs(interior).max() == pytest.approx(1000, rel=0.02)
    assert (changed[0, new_length[0] :] == 0).all()


def test_speeds_lie_close_together() -> None:
    clip = torch.ones(2000, 8000)
    torch.manual_seed(0)
    _, new_length = SpeedPerturbation(0.5, 2.0).change_clip(clip, torch.full((2000,), 4000))
    torch.manual_seed(0)
    drawn = torch.empty(2000).uniform_(0.5, 2.0)
    assert (4000 / new_length / drawn - 1).abs().mean() < 0.006
    assert (4000 / new_length / drawn - 1).abs().max() < 0.016


def test_speed_interpolates_like_scipy() -> None:
    torch.manual_seed(0)
    clip, length = torch.zeros(6, 8000), torch.tensor([4000, 5000, 6000, 7000, 8000, 300])
    for row, count in zip(clip, length.tolist(), strict=True):
        row[:count] = torch.randn(count)
    changed, new_length = SpeedPerturbation(0.5, 2.0).change_clip(clip, length)
    assert len(set((new_length / length).tolist())) == 6
    assert (new_length[:4] > length[:4]).any()
    assert (new_length[:4] < length[:4]).any()
    for before, count, after, new in zip(clip, length.tolist(), changed, new_length.tolist(), strict=True):
        padded = np.zeros(9000)
        padded[:count] = before[:count]
        lengths = [n for n in range(4500, 18001, 2) if n * count // 9000 == new]
        expected = [scipy.signal.resample(without_nyquist(padded, n), n)[:new] for n in lengths]
        assert min(np.abs(after[:new].numpy() - one).max() for one in expected) < 1e-5
        assert (after[new:] == 0).all()


def without_nyquist(signal: np.ndarray, other: int) -> np.ndarray:
    """A signal without the frequency that is half of the lower of two sampling rates, which conventions differ on."""
    spectrum = np.fft.rfft(signal)
    spectrum[min(len(signal), other) // 2 :][:1] = 0
    return np.fft.irfft(spectrum, len(signal))


def test_speed_one_changes_nothing() -> None:
    clip, length = tones(1234)
    changed, new_length = SpeedPerturbation(1.0, 1.0).change_clip(clip, length)
    torch.testing.assert_close(changed, clip, rtol=0, atol=0.01)
    assert torch.equal(new_length, length)


def test_speed_does_not_alias() -> None:
    """A tone that ends above the new Nyquist frequency is filtered out, not folded back."""
    clip, length = tones(3800)
    changed, new_length = SpeedPerturbation(1.25, 1.25).change_clip(clip, length)
    interior = changed[0, 20 : new_length[0] - 20]
    assert interior.square().mean().sqrt() < 0.1 * clip[0, :5000].square().mean().sqrt()


def test_slowing_down_never_outgrows_the_second() -> None:
    clip, length = tones(300, length=7850)
    _, new_length = SpeedPerturbation(0.5, 0.5).change_clip(clip, length)
    assert new_length.tolist() == [7982] * 4  # the next slower speed would take 8,164


def test_equalizer_changes_the_spectrum_smoothly_within_the_clip() -> None:
    torch.manual_seed(0)
    clip = torch.zeros(2, 8000)
    clip[:, :6000] = torch.randn(2, 6000) * 100
    changed, length = RandomEqualizer(decibel=6.0).change_clip(clip, torch.tensor([6000, 6000]))
    assert length.tolist() == [6000, 6000]
    assert (changed[:, 6000:] == 0).all()
    _, before = scipy.signal.welch(clip[0, :6000].numpy(), 8000, nperseg=256)
    gain = 10 * np.log10(scipy.signal.welch(changed[0, :6000].numpy(), 8000, nperseg=256)[1] / before)
    assert gain.std() > 1
    # 129 frequencies, 8 knots: neighbours differ by little.
    assert np.abs(np.diff(gain)).max() < 3


def test_equalizer_draws_each_clips_response_at_its_bands_and_interpolates() -> None:
    torch.manual_seed(0)
    clip = torch.zeros(400, 8000)
    clip[:, 4000] = 1000  # a click, whose spectrum is flat
    changed, _ = RandomEqualizer(decibel=6.0, bands=5).change_clip(clip, torch.full((400,), 8000))
    response = 20 * (torch.fft.rfft(changed).abs() / 1000).log10()
    drawn, between = response[:, ::1000], response[:, 500::1000]  # of 4,001 frequencies
    assert drawn.std().item() == pytest.approx(6, rel=0.1)
    assert np.abs(np.corrcoef(drawn.numpy(), rowvar=False) - np.eye(5)).max() < 0.2
    torch.testing.assert_close(between, (drawn[:, :-1] + drawn[:, 1:]) / 2, rtol=0, atol=1e-2)


def test_equalizer_of_zero_decibel_is_the_identity() -> None:
    clip, length = tones(500)
    torch.testing.assert_close(RandomEqualizer(decibel=0).change_clip(clip, length)[0], clip, rtol=0, atol=1e-2)


def test_noise_has_the_stated_level_and_stays_in_the_clip() -> None:
    torch.manual_seed(0)
    clip, length = tones(500)
    noise = AdditiveNoise(20.0, 20.0).change_clip(clip, length)[0] - clip
    assert (noise[:, 5000:] == 0).all()
    ratio = clip[:, :5000].square().mean(1) / noise[:, :5000].square().mean(1)
    assert (10 * ratio.log10()).numpy() == pytest.approx(20, abs=0.5)


def test_noise_levels_spread_between_their_bounds_whatever_the_clips_level() -> None:
    torch.manual_seed(0)
    clip, length = tones(500, count=500)
    clip *= torch.linspace(0.001, 1, 500)[:, None]
    noise = AdditiveNoise(10.0, 30.0).change_clip(clip, length)[0] - clip
    ratio = 10 * (clip.square().sum(dim=1) / noise.square().sum(dim=1)).log10()
    assert ratio.min().item() == pytest.approx(10, abs=0.5)
    assert ratio.max().item() == pytest.approx(30, abs=0.5)


def test_polarity_of_about_half_the_clips_is_inverted() -> None:
    torch.manual_seed(0)
    clip, length = tones(500, count=200)
    changed, _ = PolarityInversion().change_clip(clip, length)
    signs = (changed * clip).sum(dim=1).sign()
    torch.testing.assert_close(changed, clip * signs[:, None], rtol=0, atol=0)
    assert 60 < (signs < 0).sum() < 140


def test_masking_silences_whole_rows_and_columns() -> None:
    torch.manual_seed(0)
    masked = SpectrogramMasking(max_bins=30, max_frames=30, masks=1).change_input(torch.ones(8, 1, 227, 227), -80.0)
    silent = masked == -80
    assert torch.equal(masked[~silent], torch.ones_like(masked[~silent]))
    rows, columns = silent.all(dim=3), silent.all(dim=2)
    assert 0 < rows.float().mean() < 0.2
    assert 0 < columns.float().mean() < 0.2
    assert torch.equal(silent[:, 0], rows.transpose(1, 2) | columns)
    for places in (rows, columns):  # each clip has its own
        assert len({tuple(place.flatten().tolist()) for place in places}) > 4


def test_masks_are_as_many_and_as_wide_as_asked_for() -> None:
    torch.manual_seed(0)
    widest = []
    for masks in (1, 3):
        masking = SpectrogramMasking(max_bins=8, max_frames=60, masks=masks)
        silent = masking.change_input(torch.ones(300, 1, 227, 227), 0.0)[:, 0] == 0
        widest.append([silent.all(dim=axis).sum(dim=1).max().item() for axis in (2, 1)])
    assert widest[0] == [7, 59]  # torchaudio's masks stay below the largest width
    assert 2 * 7 < widest[1][0] <= 3 * 7
    assert 2 * 59 < widest[1][1] <= 3 * 59


def test_masking_leaves_other_decibels_as_they_are() -> None:
    torch.manual_seed(0)
    spectrogram = torch.rand(8, 1, 227, 227) * -79
    masked = SpectrogramMasking().change_input(spectrogram, -80.0)
    silent = masked == -80
    assert 0.02 < silent.float().mean() < 0.4
    torch.testing.assert_close(masked[~silent], spectrogram[~silent], rtol=0, atol=1e-5)


def test_masking_refuses_waveforms() -> None:
    with pytest.raises(UserError, match="SpectrogramMasking masks spectrograms"):
        SpectrogramMasking().change_input(torch.ones(8, 1, 8000), 0.0)


@pytest.mark.parametrize(
    ("wrong", "arguments"),
    [
        (SpeedPerturbation, {"low": 1.2, "high": 0.9}),
        (SpeedPerturbation, {"low": 0.1, "high": 1.0}),
        (SpeedPerturbation, {"low": 1.0, "high": 2.5}),
        (RandomEqualizer, {"bands": 1}),
        (AdditiveNoise, {"low": 30.0, "high": 10.0}),
        (SpectrogramMasking, {"masks": 0}),
    ],
)
def test_impossible_options_are_refused(wrong: type, arguments: dict[str, float]) -> None:
    with pytest.raises(UserError, match=wrong.__name__):
        wrong(**arguments)
