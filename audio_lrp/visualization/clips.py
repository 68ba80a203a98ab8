"""The explained clip: one second of sound with its relevance, drawn, made audible and titled."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from audio_lrp.attribution.attribute import Explanation
from audio_lrp.data.representation import SAMPLE_RATE, Representation, plane_frequencies, plane_times
from audio_lrp.timefrequency.audible import audible_explanations
from audio_lrp.timefrequency.stft import Segment
from audio_lrp.visualization.figures import pixels, spectrogram_relevance, waveform_relevance


@dataclass(frozen=True)
class DrawnClip:
    """What is shown of an explained clip.

    Attributes:
        caption: classes and composite.
        figures: by name, uint8 RGB [height, width, 3]: ``"map"``, relevance on the network's input, and for waveforms
            ``"time_frequency"``, relevance in the plane of the paper's spectrograms.
        sounds: by name, samples at 8 kHz, full scale 1 [N]: ``"original"``, the evidence for the class
            (``"positive"``) and against it (``"negative"``).
    """

    caption: str
    figures: Mapping[str, NDArray[np.uint8]]
    sounds: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class ExplainedClip:
    """One explained clip, on the CPU.

    Attributes:
        title: classes and composite.
        representation: what the network sees of a signal.
        signal: the clip, full scale 1 [8000].
        utterance: first sample of the utterance and the first one after it.
        network_input: what the network saw [1, ...].
        relevance: relevance of each input value, same shape.
        plane: relevance in time and frequency [227, 227]; None: it has no such form, so that nothing but the map and
            the recording can be shown.
    """

    title: str
    representation: Representation
    signal: Tensor
    utterance: Segment
    network_input: Tensor
    relevance: Tensor
    plane: Tensor | None

    def drawn(self) -> DrawnClip:
        """Relevance on the network's input and, where that is another figure, in time and frequency; and the sounds."""
        view = self.representation.view
        figures = {"map": getattr(self, view)()}
        if view != "time_frequency" and self.plane is not None:
            figures["time_frequency"] = self.time_frequency()
        return DrawnClip(
            self.title,
            {name: pixels(figure) for name, figure in figures.items()},
            {name: sound.numpy() for name, sound in self.sounds().items()},
        )

    def waveform(self) -> Figure:
        """Relevance along the waveform."""
        over_time = self.representation.over_time(self.relevance[None])[0]
        return waveform_relevance(
            self.signal.numpy(),
            over_time.numpy(),
            self._drawn_title,
            sample_rate=SAMPLE_RATE,
            utterance=self.utterance,
        )

    def time_frequency(self) -> Figure:
        """The spectrogram beside relevance in time and frequency, where it has that form."""
        assert self.plane is not None
        begin, end = self.utterance
        return spectrogram_relevance(
            self.representation.spectrogram(self.signal[None], self.network_input[None])[0].numpy(),
            self.plane.numpy(),
            self._drawn_title,
            frequencies=plane_frequencies().numpy(),
            times=plane_times().numpy(),
            utterance=(begin / SAMPLE_RATE, end / SAMPLE_RATE),
            name=self.representation.spectrogram_name,
        )

    def sounds(self, band: tuple[float, float] | None = None) -> dict[str, Tensor]:
        """The recording and, where there is a plane, what of it is evidence for and against the class, equally loud.

        Args:
            band: see `audio_lrp.timefrequency.audible.audible_explanations`.
        """
        return audible_explanations(self.signal, self.plane, self.utterance, band)

    @property
    def _drawn_title(self) -> str:
        """The title for matplotlib, which takes what stands between dollars for a formula."""
        return self.title.replace("$", r"\$")


def explained_clips(
    explanation: Explanation,
    representation: Representation,
    signals: Tensor,
    utterances: Sequence[Segment],
    class_names: Sequence[str],
    planes: Tensor | None,
    labels: Sequence[int] | None = None,
) -> Iterator[ExplainedClip]:
    """The clips of an explanation, one by one.

    Args:
        explanation: of the clips [B, 1, ...].
        representation: what the network sees of a signal.
        signals: the clips, full scale 1 [B, 8000].
        utterances: where in each clip the recording lies.
        class_names: the classes' names in the order of their indices.
        planes: relevance in time and frequency [B, 227, 227]; None: it has no such form.
        labels: the true class of each clip, for the title; None: unknown.
    """
    probabilities = explanation.output.softmax(dim=1).cpu()
    for index, (signal, utterance) in enumerate(zip(signals.cpu(), utterances, strict=True)):
        predicted = int(probabilities[index].argmax())
        true = "" if labels is None else f"true {class_names[labels[index]]}, "
        yield ExplainedClip(
            f"{true}predicted {class_names[predicted]} ({float(probabilities[index, predicted]):.0%}) | "
            f"relevance for {class_names[int(explanation.target[index])]} | {explanation.composite}",
            representation,
            signal,
            utterance,
            explanation.input[index].cpu(),
            explanation.relevance[index].cpu(),
            None if planes is None else planes[index].cpu(),
        )
