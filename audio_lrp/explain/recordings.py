"""Explain what a trained network hears in recordings.

Per recording a folder with the prediction (``explanation.json``), relevance as arrays (``relevance.npz``), pictures and
sounds, and one page over all of them, ``index.html``.
"""

import glob
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from audio_lrp.attribution.attribute import Explanation, attribute
from audio_lrp.attribution.composites import composite_by_name
from audio_lrp.checkpoints import SavedNetwork, load_network
from audio_lrp.constants import DEFAULT_COMPOSITE
from audio_lrp.data.corpora.listing import left_out_summary
from audio_lrp.data.packing.decode import UnusableRecordingError, decode
from audio_lrp.data.representation import NUM_SAMPLES, SAMPLE_RATE, Spectrogram, Waveform
from audio_lrp.errors import UserError, legible, not_writable
from audio_lrp.explain.inputs import AudioFile, Window, find_audio_files, window, windows
from audio_lrp.explain.page import ExplainedRecording, ExplainedWindow, page
from audio_lrp.timefrequency.audible import audible_explanations, write_wav
from audio_lrp.visualization.figures import waveform_relevance
from audio_lrp.visualization.views import (
    plane_frequencies,
    plane_times,
    time_frequency_picture,
    time_frequency_relevance,
)

_FULL_SCALE = 32768
_CHUNK = 16
"""Windows explained at once; bounds the memory."""


@dataclass(frozen=True, eq=False)
class Report:
    """What `explain` has done.

    Attributes:
        page: the page over all recordings.
        recordings: the recordings explained.
        unusable: recordings that could not be read or explained, by name, and why.
        notes: what else is missing: files left out, and what the composite's relevance cannot show.
    """

    page: Path
    recordings: tuple[ExplainedRecording, ...]
    unusable: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Relevance:
    """Relevance of a recording's windows.

    Attributes:
        network_input: what the network saw [W, ...].
        relevance: relevance of each input value [W, ...].
        probabilities: of each class [W, C].
        logits: of each class [W, C].
        target: class explained [W].
        plane: relevance in time and frequency [W, 227, 227]; None where the composite's has no such form.
    """

    network_input: Tensor
    relevance: Tensor
    probabilities: Tensor
    logits: Tensor
    target: Tensor
    plane: Tensor | None = None


class _Explainer:
    """A network and how to explain it."""

    def __init__(
        self, saved: SavedNetwork, target: str, composite: str, band: tuple[float, float] | None, device: torch.device
    ) -> None:
        self.network = saved.network.to(device)
        self.representation = saved.representation.to(device)
        self.class_names = saved.class_names
        self.composite = composite
        self.band = band
        self.device = device
        self.target: int | None = None
        composite_by_name(composite, bounds=(0.0, 1.0))  # tells an unknown name
        if band is not None and not 0 <= band[0] < band[1] <= SAMPLE_RATE / 2:
            raise UserError(
                f"there is no band from {band[0]:g} to {band[1]:g} Hz: pass --band LOWEST HIGHEST with "
                f"0 <= LOWEST < HIGHEST <= {SAMPLE_RATE // 2}"
            )
        if target != "predicted":
            if target not in self.class_names:
                raise UserError(
                    f"the network has no class {target!r}: choose 'predicted' or one of {', '.join(self.class_names)}"
                )
            self.target = self.class_names.index(target)
        self.has_plane = self._has_plane()

    @property
    def hears_waveforms(self) -> bool:
        return isinstance(self.representation, Waveform)

    def relevance(self, parts: Sequence[Window]) -> _Relevance:
        """Explain windows, a few at a time."""
        chunks = [self._relevance(parts[start : start + _CHUNK]) for start in range(0, len(parts), _CHUNK)]
        return _Relevance(**{name: torch.cat([chunk[name] for chunk in chunks]).cpu() for name in chunks[0]})

    def _has_plane(self) -> bool:
        """Whether the composite's relevance has a form in time and frequency: silence must have none.

        Found out for noise before silence, so that it holds for all recordings alike. A network that cannot be
        explained is found as well, before any recording is.
        """
        noise = np.random.default_rng(0).standard_normal(NUM_SAMPLES // 2, dtype=np.float32)
        network_input, explanation = self._explained([window(noise, 0)])
        silent = explanation.relevance[network_input == 0]
        return not self.hears_waveforms or not (silent.isfinite() & (silent != 0)).any()

    def _relevance(self, parts: Sequence[Window]) -> dict[str, Tensor]:
        network_input, explanation = self._explained(parts)
        relevance, logits = explanation.relevance, explanation.output
        if not relevance.isfinite().all():
            raise UserError("its relevance is not finite")
        found = {
            "network_input": network_input,
            "relevance": relevance,
            "probabilities": logits.softmax(dim=1),
            "logits": logits,
            "target": explanation.target,
        }
        if self.has_plane:
            found["plane"] = time_frequency_relevance(network_input, relevance, explanation.modified_gradient)
        return found

    def _explained(self, parts: Sequence[Window]) -> tuple[Tensor, Explanation]:
        """What the network sees of windows, and why it answers as it does."""
        signal = torch.from_numpy(np.stack([part.signal for part in parts])).to(self.device) * _FULL_SCALE
        network_input = self.representation(signal)
        target = None if self.target is None else torch.full((len(parts),), self.target, device=self.device)
        explanation = attribute(
            self.network, network_input, "predicted" if target is None else target, self.composite, chunk_size=_CHUNK
        )
        return network_input, explanation


def explain(
    checkpoint: Path,
    paths: Sequence[Path],
    output: Path,
    *,
    target: str = "predicted",
    composite: str = DEFAULT_COMPOSITE,
    band: tuple[float, float] | None = None,
    plugins: Collection[str] = (),
) -> Report:
    """Explain what the network of a checkpoint hears in recordings.

    Recordings may have any sampling rate and number of channels. A recording longer than a second is explained in
    windows of a second, every half second; a shorter one lies in the middle of a second of silence. Where the network
    was trained on centered clips, every window is moved so that the centroid of its amplitude lies in its middle, and
    left out where it then begins less than 100 ms after the one before.

    Args:
        checkpoint: a ``.ckpt`` file of ``audio-lrp fit``; nothing else of the training is needed.
        paths: recordings in any format of libsndfile, or folders with some anywhere below them.
        output: folder for the results; new or empty. It appears when everything is complete.
        target: name of the class to explain, or ``"predicted"``, the network's own choice in each window.
        composite: name of the LRP preset (see :func:`~audio_lrp.attribution.composite_by_name`).
        band: also make explanations audible that are limited to these frequencies, lowest and highest in Hz.
        plugins: packages whose classes the checkpoint may name (see :func:`~audio_lrp.checkpoints.load_network`).

    Returns:
        What was explained, and what could not be.

    Raises:
        UserError: the checkpoint, a path, the output folder or an option is wrong, or no recording can be explained.
    """
    files, left_out = find_audio_files(paths)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    saved = load_network(checkpoint, plugins)
    explainer = _Explainer(saved, target, composite, band, device)
    recordings: list[ExplainedRecording] = []
    unusable: dict[str, str] = {}
    with _new_folder(output) as folder:
        for file in tqdm(files, desc="explaining", unit="recording", disable=None):
            try:
                samples = decode(file.path)
            except (UnusableRecordingError, OSError) as error:
                unusable[file.name] = str(error)
                continue
            except UnicodeEncodeError:  # soundfile's
                unusable[legible(file.name)] = "its name is not in UTF-8: rename the file or folder"
                continue
            parts = windows(samples, saved.placement)
            try:
                recordings.append(_explain_recording(explainer, file, parts, folder, checkpoint))
            except UserError as error:
                unusable[file.name] = str(error)
                shutil.rmtree(folder / file.folder)
        if not recordings:
            name, reason = next(iter(unusable.items()))
            raise UserError(f"none of {len(files)} recordings can be explained, the first is {name} ({reason})")
        facts = {
            "checkpoint": str(checkpoint),
            "network": type(saved.network).__name__,
            "relevance for": "the predicted class" if explainer.target is None else target,
            "LRP composite": composite,
        }
        notes = _notes(explainer, left_out)
        (folder / "index.html").write_text(page(facts, recordings, unusable, notes), encoding="utf-8", errors="replace")
    return Report(output / "index.html", tuple(recordings), unusable, notes)


def _notes(explainer: _Explainer, left_out: Mapping[Path, str]) -> tuple[str, ...]:
    """What the results lack, a sentence each."""
    notes = [f"left out: {left_out_summary(left_out)}"] if left_out else []
    if not explainer.has_plane:
        notes.append(
            f"{explainer.composite} gives relevance to silence as well, which no frequency contributes: there are maps "
            "of the waveform alone, none in time and frequency and no sounds of positive and negative relevance "
            f"(other composites have them, such as {DEFAULT_COMPOSITE})"
        )
    return tuple(notes)


def _explain_recording(
    explainer: _Explainer, file: AudioFile, parts: Sequence[Window], output: Path, checkpoint: Path
) -> ExplainedRecording:
    folder = output / file.folder
    folder.mkdir()
    found = explainer.relevance(parts)
    np.savez_compressed(folder / "relevance.npz", **_arrays(explainer, found, parts))
    explained = [
        _explain_window(explainer, found, index, part, folder, "" if len(parts) == 1 else f"{index:03d}-")
        for index, part in enumerate(tqdm(parts, desc=file.folder, unit="window", leave=False, disable=len(parts) == 1))
    ]
    probabilities = found.probabilities.mean(dim=0)
    recording = ExplainedRecording(
        name=file.name,
        folder=file.folder,
        prediction=explainer.class_names[int(probabilities.argmax())],
        probabilities=_by_class(explainer, probabilities),
        windows=tuple(explained),
    )
    description = {
        "file": str(file.path),
        "checkpoint": str(checkpoint),
        "composite": explainer.composite,
        "prediction": recording.prediction,
        "probabilities": recording.probabilities,
        "windows": [
            {
                "begin_seconds": window.begin,
                "end_seconds": window.end,
                "prediction": explainer.class_names[int(found.probabilities[index].argmax())],
                "probabilities": _by_class(explainer, found.probabilities[index]),
                "explained_class": explainer.class_names[int(found.target[index])],
                "explained_logit": float(found.logits[index, found.target[index]]),
                "relevance": float(found.relevance[index].sum()),
                "pictures": list(window.pictures),
                "sounds": list(window.sounds.values()),
            }
            for index, window in enumerate(explained)
        ],
    }
    (folder / "explanation.json").write_text(json.dumps(description, indent=2) + "\n")
    return recording


def _by_class(explainer: _Explainer, probabilities: Tensor) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(explainer.class_names, probabilities, strict=True)}


def _arrays(explainer: _Explainer, found: _Relevance, parts: Sequence[Window]) -> dict[str, Any]:
    """What goes into ``relevance.npz``."""
    arrays = {
        "input": found.network_input.numpy(),
        "relevance": found.relevance.numpy(),
        "logits": found.logits.numpy(),
        "target": found.target.numpy(),
        "first_sample": np.array([part.begin - part.offset for part in parts]),
        "frequencies": plane_frequencies().numpy(),
        "times": plane_times().numpy(),
    }
    if explainer.hears_waveforms and found.plane is not None:
        arrays["time_frequency"] = found.plane.numpy()
    return arrays


def _explain_window(
    explainer: _Explainer, found: _Relevance, index: int, part: Window, folder: Path, prefix: str
) -> ExplainedWindow:
    predicted = int(found.probabilities[index].argmax())
    title = (
        f"predicted {explainer.class_names[predicted]} ({float(found.probabilities[index, predicted]):.0%}) | "
        f"relevance for {explainer.class_names[int(found.target[index])]} | {explainer.composite}"
    )
    figures = _figures(explainer, found, index, part, title.replace("$", r"\$"))
    pictures = []
    for name, figure in figures.items():
        pictures.append(f"{prefix}{name}.png")
        figure.savefig(folder / pictures[-1])
    sounds = {}
    utterance = (part.offset, part.offset + part.length)
    signal = torch.from_numpy(part.signal)
    plane = None if found.plane is None else found.plane[index]
    for name, sound in audible_explanations(signal, plane, utterance, explainer.band).items():
        sounds[name] = f"{prefix}{name.replace(' ', '-')}.wav"
        write_wav(folder / sounds[name], sound, SAMPLE_RATE)
    seconds = (part.begin / SAMPLE_RATE, (part.begin + part.length) / SAMPLE_RATE)
    return ExplainedWindow(*seconds, title, tuple(pictures), sounds)


def _figures(explainer: _Explainer, found: _Relevance, index: int, part: Window, title: str) -> dict[str, Figure]:
    """Relevance on the waveform, and in time and frequency beside the spectrogram."""
    utterance = (part.offset, part.offset + part.length)
    network_input, relevance = found.network_input[index, 0], found.relevance[index, 0]
    of_samples = (relevance if explainer.hears_waveforms else _spread_over_samples(relevance)).numpy()
    figures = {
        "waveform": waveform_relevance(part.signal, of_samples, title, sample_rate=SAMPLE_RATE, utterance=utterance)
    }
    if found.plane is not None:
        signal, plane = torch.from_numpy(part.signal), found.plane[index]
        figures["time-frequency"] = time_frequency_picture(signal, network_input, plane, title, utterance)
    return figures


def _spread_over_samples(plane: Tensor) -> Tensor:
    """Relevance of spectrogram frames, evenly over the hop around each frame's centre [8000]."""
    hop = Spectrogram.hop_length
    first = 2 * hop - hop // 2
    spread = (plane.sum(dim=0) / hop).repeat_interleave(hop)[: NUM_SAMPLES - first]
    return nn.functional.pad(spread, (first, NUM_SAMPLES - first - len(spread)))


def _is_running(process: str) -> bool:
    """Whether this machine has a process of this number; what is no number counts as one."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):  # another user's
        return True
    return True


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A folder under a temporary name, which becomes ``output`` when the block ends without an error."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} already exists and is not an empty folder: choose another place with --output")
    name = output.absolute().name
    temporary = output.absolute().with_name(f".{name}.{os.getpid()}.part")
    for earlier in temporary.parent.glob(f".{glob.escape(name)}.*.part"):
        if not _is_running(earlier.suffixes[-2].removeprefix(".")):
            shutil.rmtree(earlier, ignore_errors=True)  # of a process that was killed
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(output)
    except OSError as error:
        raise not_writable(output, error, "choose another place with --output") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
