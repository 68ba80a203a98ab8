"""Manipulations of spectrograms and relevance by band, against slow loops in NumPy."""

import math

import numpy as np
import pytest
import torch

from audio_lrp.data.representation import Spectrogram
from audio_lrp.errors import UserError
from audio_lrp.faithfulness.band_relevance import band_relevance, by_class
from audio_lrp.faithfulness.manipulations import PITCH_FACTORS, scale_frequency, scale_time


def scaled_slowly(spectrogram, factor, axis, origin, destination, silence):
    """One value at a time."""
    result = np.full(spectrogram.shape, silence)
    size = spectrogram.shape[axis]
    for index in np.ndindex(*spectrogram.shape):
        source = (index[axis] - destination) / factor[index[0]] + origin[index[0]]
        if not 0 <= source <= size - 1:
            continue
        below = math.floor(source)
        neighbours = [list(index), list(index)]
        neighbours[0][axis], neighbours[1][axis] = below, min(below + 1, size - 1)
        low, high = (spectrogram[tuple(place)] for place in neighbours)
        result[index] = low + (source - below) * (high - low)
    return result


@pytest.fixture
def spectrogram():
    return torch.rand(3, 2, 13, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class TestScaling:
    def test_frequency_equals_slow_reference(self, spectrogram):
        factor = torch.tensor([1.5, 0.66, 1.0])
        expected = scaled_slowly(spectrogram.numpy(), factor.double().numpy(), 2, np.zeros(3), 0.0, -2.0)
        np.testing.assert_allclose(scale_frequency(spectrogram, factor, silence=-2.0), expected, rtol=0, atol=1e-12)

    def test_time_equals_slow_reference(self, spectrogram):
        factor, centre = torch.tensor([1.5, 0.66, 1.25]), torch.tensor([2.0, 5.5, 9.0])
        expected = scaled_slowly(spectrogram.numpy(), factor.double().numpy(), 3, centre.numpy(), 5.0, 0.5)
        scaled = scale_time(spectrogram, factor, centre=centre, silence=0.5)
        np.testing.assert_allclose(scaled, expected, rtol=0, atol=1e-12)

    def test_factor_one_changes_nothing(self, spectrogram):
        one = torch.ones(3)
        assert torch.equal(scale_frequency(spectrogram, one, silence=0.0), spectrogram)
        assert torch.equal(scale_time(spectrogram, one, centre=torch.full((3,), 5.0), silence=0.0), spectrogram)

    def test_a_voice_takes_the_other_pitch(self):
        """A hum of 120 Hz becomes one of 180 Hz, with all its harmonics."""
        time = torch.arange(8000) / 8000

        def hum(pitch):
            return sum(torch.sin(2 * torch.pi * pitch * n * time) / n for n in range(1, 6)) * 1000

        low, high = Spectrogram()(torch.stack([hum(120), hum(180)]))
        scaled = scale_frequency(low[None], torch.tensor(PITCH_FACTORS[:1]), silence=0.0)[0, 0, :, 113]
        bins = [round(180 * n * 455 / 8000) for n in range(1, 6)]
        for place in bins:
            assert (
                abs(int(scaled[place - 4 : place + 5].argmax()) - int(high[0, place - 4 : place + 5, 113].argmax()))
                <= 1
            )

    def test_there_and_back_restores_what_stays_below_the_top(self):
        smooth = torch.sin(torch.arange(227.0) / 20)[None, None, :, None].expand(1, 1, 227, 3)
        factor = torch.tensor([1.5])
        back = scale_frequency(scale_frequency(smooth, factor, silence=0.0), 1 / factor, silence=0.0)
        assert torch.allclose(back[:, :, :150], smooth[:, :, :150], atol=2e-3)
        assert (back[:, :, 152:] == 0).all()

    def test_refuses_what_does_not_fit(self, spectrogram):
        with pytest.raises(UserError, match=r"spectrograms \[B, channels, F, T\]"):
            scale_frequency(spectrogram[0], torch.ones(3), silence=0.0)
        with pytest.raises(UserError, match="one of the others for each"):
            scale_time(spectrogram, torch.ones(3), centre=torch.ones(2), silence=0.0)
        with pytest.raises(UserError, match="above 0"):
            scale_frequency(spectrogram, torch.tensor([1.0, 0.0, 1.0]), silence=0.0)


class TestBands:
    EDGES = (0, 100, 250, 1000, 4001)

    def test_spectrograms_equal_slow_reference(self):
        relevance = torch.randn(2, 1, 227, 227, generator=torch.Generator().manual_seed(1))
        found = band_relevance(torch.zeros_like(relevance), relevance, self.EDGES, 8000)
        expected = np.zeros((2, 4))
        for row in range(227):
            band = max(number for number, edge in enumerate(self.EDGES) if edge <= row * 8000 / 455)
            expected[:, band] += relevance.double().numpy()[:, 0, row].sum(axis=1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2)
        np.testing.assert_allclose(found.sum(dim=1), relevance.sum(dim=(1, 2, 3)), rtol=0, atol=1e-2)

    def test_a_network_that_hears_one_tone_of_a_waveform(self):
        """Of 200 Hz and 2,000 Hz only the high tone is relevant."""
        time = torch.arange(8000) / 8000
        high = torch.sin(2 * torch.pi * 2000 * time + 0.3)
        signal = torch.sin(2 * torch.pi * 200 * time + 0.1) + high
        relevance = (signal * high)[None, None]
        found = band_relevance(signal[None, None], relevance, [0, 1000, 4001], 8000)[0]
        assert found.sum() == pytest.approx(float(relevance.sum()), rel=1e-4)
        assert found[1] > 0.9 * relevance.sum()  # the rest goes by power, see the stabilizer

    def test_classes_equal_slow_reference(self):
        generator = torch.Generator().manual_seed(2)
        values, label = torch.randn(20, 5, generator=generator), torch.randint(0, 3, (20,), generator=generator)
        values[4] = 0  # a clip without relevance
        found = by_class(values, label, 4)
        for number in range(3):
            members = values.double().numpy()[label.numpy() == number]
            shares = [member / (np.abs(member).sum() or 1) for member in members]
            np.testing.assert_allclose(found.relevance[number], members.mean(axis=0), rtol=1e-12)
            np.testing.assert_allclose(found.share[number], np.mean(shares, axis=0), rtol=1e-12)
            assert found.count[number] == len(members)
        assert found.relevance[3].isnan().all()
        assert found.count[3] == 0

    def test_refuses_what_does_not_fit(self):
        with pytest.raises(UserError, match="relevance of each value"):
            band_relevance(torch.zeros(2, 1, 8000), torch.zeros(2, 1, 4000), [0, 1], 8000)
