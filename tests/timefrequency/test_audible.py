"""Audible explanations, listened to by measure: where their energy lies, how loud they are, what the files hold."""

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from torch import Tensor

from audio_lrp.errors import UserError
from audio_lrp.timefrequency.audible import audible_relevance, write_wav
from audio_lrp.timefrequency.loudness import equally_loud, loudness
from audio_lrp.timefrequency.stft import STFT, plane_relevance, spectrogram_plane

TIME = torch.arange(8000, dtype=torch.float64) / 8000


def tone(frequency: float, begin: float = 0.0, end: float = 1.0) -> Tensor:
    return torch.where((begin <= TIME) & (end > TIME), torch.sin(2 * torch.pi * frequency * TIME + 0.3), 0.0)


def energy(sound: Tensor, lowest: float, highest: float) -> float:
    """Energy between two frequencies."""
    power = torch.fft.rfft(sound.double()).abs().square()
    frequencies = torch.fft.rfftfreq(sound.shape[-1], 1 / 8000)
    return power[..., (frequencies >= lowest) & (frequencies < highest)].sum().item()


@pytest.fixture
def mixture() -> Tensor:
    """500 Hz in the first half, 2 kHz in the second, 3 kHz throughout."""
    return tone(500, 0.0, 0.5) + tone(2000, 0.5, 1.0) + tone(3000)


@pytest.fixture
def relevance(mixture: Tensor) -> Tensor:
    """Of a network for which 500 Hz speaks, against which 2 kHz speaks, and which is deaf to 3 kHz."""
    return plane_relevance(mixture, mixture * (tone(500, 0.0, 0.5) - tone(2000, 0.5, 1.0)))


def test_positive_and_negative_explanations_hold_what_spoke_for_and_against(mixture, relevance) -> None:
    positive = audible_relevance(mixture, relevance)
    negative = audible_relevance(mixture, relevance, "negative")
    for sound, frequency, half in ((positive, 500, slice(0, 4000)), (negative, 2000, slice(4000, 8000))):
        heard = energy(sound, frequency - 100, frequency + 100)
        assert heard > 0.99 * energy(sound, 0, 4001)
        assert heard > 0.25 * energy(mixture, frequency - 100, frequency + 100)
        assert sound[half].square().sum() > 0.99 * sound.square().sum()
    assert energy(positive, 2900, 3100) < 1e-4 * energy(positive, 0, 4001)


def test_no_bin_gains_or_turns_its_phase(mixture, relevance) -> None:
    stft = spectrogram_plane()
    shares = audible_relevance(mixture, relevance), audible_relevance(mixture, relevance, "negative")
    assert sum(share.square().sum() for share in shares) <= mixture.square().sum()
    loud = stft.spectrum(mixture)[28, 20:100]  # 492 Hz while 500 Hz sounds
    turned = (stft.spectrum(shares[0])[28, 20:100] / loud).angle()
    assert turned.abs().max() < 0.01


def test_even_relevance_leaves_the_recording_as_it_is(mixture) -> None:
    """A map of ones, as a spectrogram network might give: the original, with its own phases."""
    sound = audible_relevance(mixture, torch.ones(227, 227))
    inside = slice(1000, 7000)  # the mean over neighbours takes in nothing at the plane's edges
    torch.testing.assert_close(sound[inside], mixture[inside], rtol=0, atol=0.01)


def test_band_limited_explanations_hold_their_band(mixture) -> None:
    relevance = plane_relevance(mixture, mixture.square())
    sound = audible_relevance(mixture, relevance, band=(1800, 2200))
    assert energy(sound, 1700, 2300) > 0.9999 * energy(sound, 0, 4001)
    assert energy(sound, 1950, 2050) > 0.9 * energy(sound, 0, 4001)


@pytest.mark.parametrize("sign", ["positive", "negative"])
def test_silence_where_relevance_is_nil(sign) -> None:
    signal = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    assert (audible_relevance(signal, torch.zeros(227, 227), sign) == 0).all()
    assert (audible_relevance(signal, torch.ones(227, 227), "negative") == 0).all()
    assert (audible_relevance(torch.zeros(8000), torch.ones(227, 227), sign) == 0).all()
    heard = torch.zeros(8000)
    heard[3000:4000] = signal[3000:4000] * torch.randn(1000, generator=torch.Generator().manual_seed(1))
    sound = audible_relevance(signal, plane_relevance(signal, heard), sign)
    assert sound[3000:4000].square().sum() > 0.5 * sound.square().sum()
    assert (sound[: 3000 - 682] == 0).all()
    assert (sound[4000 + 682 :] == 0).all()


def test_rounding_is_not_made_audible(mixture) -> None:
    """All relevance is positive; what is negative in float32 is rounding, and stays silent."""
    relevance = torch.ones(227, 227)
    relevance[100:110, 100:110] = -1e-6
    assert (audible_relevance(mixture, relevance, "negative") == 0).all()


def test_batches_equal_one_by_one(mixture, relevance) -> None:
    signals = torch.stack([mixture, mixture.flip(0)])
    maps = torch.stack([relevance, relevance.flip(1)])
    together = audible_relevance(signals, maps)
    torch.testing.assert_close(together[1], audible_relevance(signals[1], maps[1]))


def test_other_transforms_and_rates() -> None:
    signal = torch.sin(torch.arange(16000.0) / 4)  # 637 Hz at 16 kHz
    stft = STFT(16000, torch.hann_window(512), 128)
    sound = audible_relevance(
        signal, stft.relevance(signal, signal.square()), band=(600, 700), sample_rate=16000, stft=stft
    )
    assert sound[4000:12000].square().sum() > 0.25 * signal[4000:12000].square().sum()


@pytest.mark.parametrize("sample_rate", [8000, 16000, 48000])
def test_loudness_is_that_of_the_standard(sample_rate) -> None:
    noise = torch.randn(4, 2 * sample_rate, generator=torch.Generator().manual_seed(0)) / 10
    noise[1, sample_rate:] /= 300  # gated
    noise[2] = torch.sin(torch.arange(2 * sample_rate) * 2 * torch.pi * 200 / sample_rate) / 3
    noise[3] = noise[3].cumsum(0) / 100
    ours = loudness(noise, sample_rate)
    for sound, measured in zip(noise, ours, strict=True):
        assert measured.item() == pytest.approx(
            torchaudio.functional.loudness(sound[None], sample_rate).item(), abs=0.01
        )
    torch.testing.assert_close(loudness(noise / 1000, sample_rate), ours - 60, rtol=0, atol=1e-4)


def test_loudness_of_silence_and_of_short_sounds() -> None:
    assert loudness(torch.zeros(2, 8000), 8000).tolist() == [-float("inf")] * 2
    click = torch.zeros(100)
    click[50] = 1.0
    assert loudness(click, 8000).isfinite()


def test_explanations_are_as_loud_as_the_original_and_do_not_clip(mixture, relevance) -> None:
    quiet = mixture / 50
    sounds = torch.stack([quiet, *(audible_relevance(quiet, relevance, sign) for sign in ("positive", "negative"))])
    levelled = equally_loud(sounds, 8000)
    for sound in levelled:
        assert torchaudio.functional.loudness(sound[None], 8000).item() == pytest.approx(-23, abs=0.1)
    assert levelled.abs().max() < 0.99
    # A click cannot be as loud as noise at -23 LUFS without clipping, so both are softer.
    click = torch.zeros(8000, dtype=torch.float64)
    click[4000] = 0.1
    levelled = equally_loud(torch.stack([quiet, click, torch.zeros(8000)]), 8000)
    assert levelled.abs().max().item() == pytest.approx(0.99)
    measured = loudness(levelled, 8000)
    assert measured[0] == pytest.approx(measured[1].item(), abs=0.01)
    assert (levelled[2] == 0).all()


def test_files_are_16_bit_mono_and_lossless_to_their_last_bit(tmp_path, mixture) -> None:
    sound = equally_loud(mixture[None], 8000)[0]
    write_wav(tmp_path / "sound.wav", sound)
    assert [path.name for path in tmp_path.iterdir()] == ["sound.wav"]
    details = soundfile.info(tmp_path / "sound.wav")
    assert (details.samplerate, details.channels, details.subtype) == (8000, 1, "PCM_16")
    samples, _ = soundfile.read(tmp_path / "sound.wav", dtype="int16")
    np.testing.assert_allclose(samples / 32767, sound.numpy(), rtol=0, atol=0.5 / 32767 + 1e-9)
    write_wav(tmp_path / "silence.wav", torch.zeros(8000))
    assert (soundfile.read(tmp_path / "silence.wav", dtype="int16")[0] == 0).all()


@pytest.mark.parametrize("sound", [torch.tensor([0.0, 1.01]), torch.tensor([torch.nan]), torch.zeros(2, 2)])
def test_what_would_clip_is_refused(tmp_path, sound) -> None:
    with pytest.raises(UserError, match="clipped"):
        write_wav(tmp_path / "sound.wav", sound)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("relevance", "options", "message"),
    [
        (torch.ones(8000), {}, "in time and frequency"),
        (torch.ones(229, 227), {}, "in time and frequency"),
        (torch.ones(227, 230), {}, "in time and frequency"),
        (torch.full((227, 227), torch.nan), {}, "not finite"),
        (torch.ones(227, 227), {"sign": "both"}, "unknown sign"),
        (torch.ones(227, 227), {"band": (2000, 1000)}, "no frequency"),
    ],
)
def test_misfits_are_refused(relevance, options, message) -> None:
    with pytest.raises(UserError, match=message):
        audible_relevance(torch.ones(8000), relevance, **options)


def test_sounds_that_cannot_be_levelled_are_refused() -> None:
    for sounds in (torch.ones(8000), torch.full((2, 8000), torch.inf)):
        with pytest.raises(UserError, match="cannot be levelled"):
            equally_loud(sounds, 8000)
