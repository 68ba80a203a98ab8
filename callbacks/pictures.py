"""What is shown of an explanation: from a batch and its relevance to titled images and sounds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from audio_lrp.attribution.attribute import Explanation
from audio_lrp.data.loading.batch import Batch
from audio_lrp.data.representation import SAMPLE_RATE
from audio_lrp.timefrequency.audible import audible_explanations
from audio_lrp.visualization.figures import pixels, waveform_relevance
from audio_lrp.visualization.views import time_frequency_picture

_FULL_SCALE = 32768


@dataclass(frozen=True)
class ExampleViews:
    """What is shown of one explained clip.

    Attributes:
        caption: classes and composite.
        pictures: by name, uint8 RGB [height, width, 3]: ``"map"``, relevance on the network's input, and for waveforms
            ``"time_frequency"``, relevance in the plane of AlexNet's spectrogram.
        sounds: by name, samples at 8 kHz, full scale 1 [N]: ``"original"``, what spoke for the class (``"positive"``)
            and against it (``"negative"``).
    """

    caption: str
    pictures: Mapping[str, NDArray[np.uint8]]
    sounds: Mapping[str, NDArray[np.float32]]


def example_views(
    batch: Batch, signals: Tensor, explanation: Explanation, planes: Tensor | None, class_names: Sequence[str]
) -> Iterator[ExampleViews]:
    """Draw the relevance of clips and make it audible.

    Args:
        batch: clips whose inputs are waveforms [B, 1, samples] or spectrograms [B, 1, frequency, time].
        signals: the signals of those to be shown, the batch's first, in int16 scale [N, 8000].
        explanation: the batch's relevance.
        planes: relevance in time and frequency of those to be shown [N, 227, 227]; None: it has no such form, so that
            nothing but the map and the recording can be shown.
        class_names: the classes' names in the order of their indices.
    """
    for index, signal in enumerate(signals):
        caption = _caption(batch, explanation, class_names, index)
        utterance = (int(batch.offset[index]), int(batch.offset[index] + batch.length[index]))
        network_input, relevance = batch.input[index, 0].cpu(), explanation.relevance[index, 0].cpu()
        if network_input.dim() == 1:
            of_samples = (network_input.numpy(), relevance.numpy())
            figures = {"map": waveform_relevance(*of_samples, caption, sample_rate=SAMPLE_RATE, utterance=utterance)}
        else:
            figures = {"map": time_frequency_picture(signal, network_input, relevance, caption, utterance)}
        plane = None if planes is None else planes[index].cpu()
        if plane is not None and network_input.dim() == 1:
            figures["time_frequency"] = time_frequency_picture(signal, network_input, plane, caption, utterance)
        sounds = audible_explanations(signal / _FULL_SCALE, plane, utterance)
        yield ExampleViews(
            caption,
            {name: pixels(figure) for name, figure in figures.items()},
            {name: sound.numpy() for name, sound in sounds.items()},
        )


def _caption(batch: Batch, explanation: Explanation, class_names: Sequence[str], index: int) -> str:
    probability = explanation.output[index].softmax(dim=0)
    predicted = int(probability.argmax())
    return (
        f"true {class_names[int(batch.label[index])]}, "
        f"predicted {class_names[predicted]} ({float(probability[predicted]):.0%}) | "
        f"relevance for {class_names[int(explanation.target[index])]} | {explanation.composite}"
    )
