"""Pictures of an explanation: from a batch and its relevance to titled images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio_lrp.attribution.attribute import Explanation
from audio_lrp.data.batch import Batch
from audio_lrp.data.representation import SAMPLE_RATE, Spectrogram
from audio_lrp.figures import pixels, spectrogram_relevance, waveform_relevance


@dataclass(frozen=True)
class Picture:
    """An image and its caption.

    Attributes:
        image: RGB image, uint8 [height, width, 3].
        caption: what it shows.
    """

    image: NDArray[np.uint8]
    caption: str


def relevance_pictures(batch: Batch, explanation: Explanation, class_names: Sequence[str], count: int) -> list[Picture]:
    """Draw the relevance of the first ``count`` clips: on the waveform, or beside the spectrogram.

    Args:
        batch: clips whose inputs are waveforms [B, 1, samples] or spectrograms [B, 1, frequency, time].
        explanation: their relevance.
        class_names: the classes' names in the order of their indices.
        count: how many to draw.
    """
    return [_picture(batch, explanation, class_names, index) for index in range(min(count, len(batch)))]


def _picture(batch: Batch, explanation: Explanation, class_names: Sequence[str], index: int) -> Picture:
    probability = explanation.output[index].softmax(dim=0)
    predicted = int(probability.argmax())
    caption = (
        f"true {class_names[int(batch.label[index])]}, "
        f"predicted {class_names[predicted]} ({float(probability[predicted]):.0%}) | "
        f"relevance for {class_names[int(explanation.target[index])]} | {explanation.composite}"
    )
    network_input = batch.input[index, 0].cpu().numpy()
    relevance = explanation.relevance[index, 0].cpu().numpy()
    begin = int(batch.offset[index])
    end = begin + int(batch.length[index])
    if network_input.ndim == 1:
        figure = waveform_relevance(network_input, relevance, caption, sample_rate=SAMPLE_RATE, utterance=(begin, end))
    else:
        bins, frames = network_input.shape
        figure = spectrogram_relevance(
            network_input,
            relevance,
            caption,
            frequencies=np.arange(bins) * SAMPLE_RATE / Spectrogram.window_length,
            times=(np.arange(frames) + 2) * Spectrogram.hop_length / SAMPLE_RATE,
            utterance=(begin / SAMPLE_RATE, end / SAMPLE_RATE),
        )
    return Picture(pixels(figure), caption)
