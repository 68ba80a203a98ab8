"""The pictures: what is drawn where, on which scale, with which words."""

import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection

from audio_lrp.visualization.figures import (
    confusion_matrix,
    perturbation_chart,
    pixels,
    spectrogram_relevance,
    waveform_relevance,
)

TITLE = "true 3, predicted 8 | relevance for 3 | epsilon"
FREQUENCIES = np.arange(227) * 8000 / 455
TIMES = (np.arange(227) + 2) * 35 / 8000


@pytest.fixture
def waveform() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(8000).astype(np.float32)


def line_collection(figure) -> LineCollection:
    (lines,) = (item for item in figure.axes[0].collections if isinstance(item, LineCollection))
    return lines


def test_waveform_relevance_sums_windows_and_keeps_the_total(waveform):
    relevance = np.random.default_rng(1).standard_normal(8000).astype(np.float32)
    lines = line_collection(waveform_relevance(waveform, relevance, TITLE, window=40))
    summed = lines.get_array()
    np.testing.assert_allclose(summed, relevance.reshape(200, 40).sum(axis=1), rtol=1e-5, atol=1e-5)
    assert summed.sum() == pytest.approx(relevance.sum(), abs=1e-3)


def test_waveform_relevance_draws_every_sample_at_its_second(waveform):
    figure = waveform_relevance(waveform, waveform, TITLE, sample_rate=4000, window=30)
    segments = line_collection(figure).get_segments()
    # 8000 samples are 266 windows of 30 and one of 20; neighbours share a point, the last one has none to share.
    assert [len(segment) for segment in segments] == [31] * 266 + [20]
    drawn = np.concatenate([segment[:30] for segment in segments])
    np.testing.assert_allclose(drawn[:, 0], np.arange(8000) / 4000)
    np.testing.assert_allclose(drawn[:, 1], waveform)
    assert figure.axes[1].get_xlim() == (0, 2)


def test_waveform_relevance_scale_is_symmetric_and_says_its_unit(waveform):
    relevance = np.zeros(8000, dtype=np.float32)
    relevance[4000] = -3.0
    figure = waveform_relevance(waveform, relevance, TITLE, window=40, utterance=(1000, 5000))
    norm = line_collection(figure).norm
    assert (norm.vmin, norm.vmax) == (-3.0, 3.0)
    above, below, bar = figure.axes
    assert above.get_title() == TITLE
    assert below.get_xlabel() == "time [s], utterance shaded"
    assert bar.get_ylabel() == "relevance per 5 ms"
    assert above.patches[0].get_x() == pytest.approx(0.125)
    assert above.patches[0].get_width() == pytest.approx(0.5)


def test_waveform_is_red_where_relevance_is_positive_and_blue_where_it_is_negative(waveform):
    relevance = np.repeat(np.float32([1, -1]), 4000)
    image = pixels(waveform_relevance(waveform, relevance, TITLE)).astype(int)
    colour = image[:, :, 0] - image[:, :, 2]  # red minus blue
    left, right = colour[50:260, 100:450], colour[50:260, 500:850]
    assert left.max() > 150
    assert left.min() > -50
    assert right.min() < -100
    assert right.max() < 50


@pytest.mark.parametrize("mantissa", [1.05, 2.5, 7.5])
@pytest.mark.parametrize("exponent", range(-5, 5))
def test_no_text_of_a_waveform_picture_is_cut_off(waveform, mantissa, exponent):
    shape = mantissa * waveform / np.abs(waveform).max()
    relevance = np.zeros_like(shape)
    relevance[::40] = shape[::40] * 10.0**exponent
    figure = waveform_relevance(shape * 10.0 ** min(exponent, -1), relevance, TITLE, utterance=(1000, 5000))
    renderer = FigureCanvasAgg(figure).get_renderer()
    inside, drawn = figure.bbox, figure.get_tightbbox(renderer).transformed(figure.dpi_scale_trans)
    assert inside.x0 <= drawn.x0
    assert drawn.x1 <= inside.x1
    assert inside.y0 <= drawn.y0
    assert drawn.y1 <= inside.y1


def test_ordinary_amplitudes_are_written_as_they_are(waveform):
    figure = waveform_relevance(0.75 * waveform / np.abs(waveform).max(), waveform, TITLE)
    pixels(figure)
    axis = figure.axes[0].yaxis
    assert axis.get_offset_text().get_text() == ""
    assert "0.6" in [label.get_text() for label in axis.get_ticklabels()]


def test_spectrogram_relevance_has_axes_in_hertz_and_seconds_with_low_frequencies_below():
    rng = np.random.default_rng(0)
    spectrogram = rng.random((227, 227), dtype=np.float32)
    figure = spectrogram_relevance(spectrogram, spectrogram, TITLE, frequencies=FREQUENCIES, times=TIMES)
    shown, _, explained, _ = figure.axes
    for axes in (shown, explained):
        (image,) = axes.get_images()
        left, right, bottom, top = image.get_extent()
        assert image.origin == "lower"
        assert (left, right) == (pytest.approx(1.5 * 35 / 8000), pytest.approx(228.5 * 35 / 8000))
        assert (bottom, top) == (pytest.approx(-0.5 * 8000 / 455), pytest.approx(226.5 * 8000 / 455))
        assert axes.get_xlabel() == "time [s]"
    assert shown.get_ylabel() == "frequency [Hz]"
    np.testing.assert_array_equal(shown.get_images()[0].get_array(), spectrogram)
    assert figure.get_suptitle() == TITLE


def test_spectrogram_relevance_is_averaged_and_symmetric():
    relevance = np.zeros((227, 227), dtype=np.float32)
    relevance[100, 50] = 18.0
    relevance[0, 0] = -9.0
    figure = spectrogram_relevance(
        np.abs(relevance), relevance, TITLE, frequencies=FREQUENCIES, times=TIMES, window=3, utterance=(0.2, 0.6)
    )
    (image,) = figure.axes[2].get_images()
    averaged = image.get_array()
    np.testing.assert_allclose(averaged[99:102, 49:52], 2.0)
    np.testing.assert_allclose(averaged[:2, :2], -1.0)
    assert np.count_nonzero(averaged) == 9 + 4
    assert (image.norm.vmin, image.norm.vmax) == (-2.0, 2.0)
    assert [line.get_xdata()[0] for line in figure.axes[2].lines] == [0.2, 0.6]


def test_the_marks_of_an_utterance_do_not_widen_the_plane():
    zeros = np.zeros((227, 227), dtype=np.float32)
    figure = spectrogram_relevance(zeros, zeros, TITLE, frequencies=FREQUENCIES, times=TIMES, utterance=(0.0, 1.0))
    for axes in (figure.axes[0], figure.axes[2]):
        assert axes.get_xlim() == tuple(axes.get_images()[0].get_extent()[:2])


def test_silence_without_relevance_can_be_drawn():
    zeros = np.zeros(8000, dtype=np.float32)
    assert pixels(waveform_relevance(zeros, zeros, TITLE)).shape == (420, 1000, 3)
    zeros = np.zeros((227, 227), dtype=np.float32)
    figure = spectrogram_relevance(zeros, zeros, TITLE, frequencies=FREQUENCIES, times=TIMES)
    assert pixels(figure).shape == (420, 1000, 3)
    (image,) = figure.axes[0].get_images()
    assert (image.norm.vmin, image.norm.vmax) == (0.0, 1.0)  # as dark as the silence beside an utterance


def test_perturbation_chart_draws_every_order_in_every_panel():
    fractions, orders = np.array([0.0, 0.5, 1.0]), ("morf", "random", "amplitude")
    accuracy = np.array([[1.0, 0.1, 0.0], [1.0, 0.9, 0.5], [1.0, 0.4, 0.2]])
    figure = perturbation_chart(fractions, {"accuracy": accuracy, "logit": 5 * accuracy}, orders, TITLE)
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy", "logit"]
    for axes, factor in zip(figure.axes, (1, 5), strict=True):
        assert [line.get_label() for line in axes.lines] == list(orders)
        assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 3
        for line, curve in zip(axes.lines, accuracy, strict=True):
            np.testing.assert_allclose(line.get_xydata(), np.column_stack([fractions, factor * curve]))


@pytest.mark.parametrize("panels", [1, 3])
def test_the_legend_of_perturbation_curves_lies_below_the_panels(panels):
    fractions, orders = np.linspace(0, 1, 6), ("morf", "lrif", "random", "amplitude")
    curves = {f"quantity {number}": np.linspace(1, 0, 24).reshape(4, 6) for number in range(panels)}
    figure = perturbation_chart(fractions, curves, orders, TITLE)
    pixels(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(orders)
    box, bounds = legend.get_window_extent(), figure.bbox
    assert box.y1 <= min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert bounds.x0 <= box.x0 < box.x1 <= bounds.x1
    assert bounds.y0 <= box.y0


def test_confusion_matrix_writes_counts_and_colours_shares():
    counts = np.array([[8, 2], [0, 0]])
    axes = confusion_matrix(counts, ("male", "female"), "fold 0").axes[0]
    assert [text.get_text() for text in axes.texts] == ["8", "2", "0", "0"]
    np.testing.assert_allclose(axes.get_images()[0].get_array(), [[0.8, 0.2], [0.0, 0.0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["male", "female"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_drawing_does_not_touch_pyplot(waveform):
    pixels(waveform_relevance(waveform, waveform, TITLE))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
