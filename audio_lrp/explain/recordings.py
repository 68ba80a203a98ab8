"""Explain what a trained network hears in recordings.

Per recording a folder with the prediction (``explanation.json``), relevance as arrays (``relevance.npz``), figures and
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
from torch import Tensor
from tqdm import tqdm

from audio_lrp.attribution.attribute import Explanation, attribute
from audio_lrp.attribution.composites import composite_by_name
from audio_lrp.checkpoints import SavedNetwork, load_network
from audio_lrp.constants import DEFAULT_COMPOSITE
from audio_lrp.data.corpora.listing import left_out_summary
from audio_lrp.data.packing.decode import UnusableRecordingError, decode
from audio_lrp.data.representation import FULL_SCALE, NUM_SAMPLES, SAMPLE_RATE, plane_frequencies, plane_times
from audio_lrp.errors import UserError, legible, not_writable
from audio_lrp.explain.inputs import AudioFile, Window, find_audio_files, window, windows
from audio_lrp.explain.page import ExplainedRecording, ExplainedWindow, page
from audio_lrp.html.rendering import html
from audio_lrp.timefrequency.audible import write_wav
from audio_lrp.visualization.clips import ExplainedClip, explained_clips

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

    def explained(self, parts: Sequence[Window]) -> Explanation:
        """What the network makes of windows, and why."""
        signals = torch.from_numpy(np.stack([part.signal for part in parts])).to(self.device) * FULL_SCALE
        network_input = torch.cat([self.representation(chunk) for chunk in torch.split(signals, _CHUNK)])
        target = None if self.target is None else torch.full((len(parts),), self.target, device=self.device)
        return attribute(
            self.network, network_input, "predicted" if target is None else target, self.composite, chunk_size=_CHUNK
        )

    def planes(self, explanation: Explanation) -> Tensor | None:
        """Relevance in time and frequency [W, 227, 227]; None where the composite's has no such form."""
        if not self.has_plane:
            return None
        chunks = [explanation[begin : begin + _CHUNK] for begin in range(0, len(explanation), _CHUNK)]
        return torch.cat(
            [self.representation.in_plane(chunk.input, chunk.relevance, chunk.modified_gradient) for chunk in chunks]
        )

    def _has_plane(self) -> bool:
        """Whether the composite's relevance has a form in time and frequency: silence must have none.

        Found out for noise before silence, so that it holds for all recordings alike. A network that cannot be
        explained is found as well, before any recording is.
        """
        noise = np.random.default_rng(0).standard_normal(NUM_SAMPLES // 2, dtype=np.float32)
        explanation = self.explained([window(noise, 0)])
        finite = explanation.relevance.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        try:
            self.representation.in_plane(explanation.input, finite, None)
        except UserError:
            return False
        return True


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
        (folder / "index.html").write_text(
            html(page(facts, recordings, unusable, notes)), encoding="utf-8", errors="replace"
        )
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
    explanation = explainer.explained(parts)
    if not explanation.relevance.isfinite().all():
        raise UserError("its relevance is not finite")
    planes = explainer.planes(explanation)
    arrays = _arrays(explainer, explanation, planes, parts)
    np.savez_compressed(folder / "relevance.npz", **arrays)
    clips = explained_clips(
        explanation,
        explainer.representation,
        torch.from_numpy(np.stack([part.signal for part in parts])),
        [(part.offset, part.offset + part.length) for part in parts],
        explainer.class_names,
        planes,
    )
    shown = tqdm(clips, desc=file.folder, total=len(parts), unit="window", leave=False, disable=len(parts) == 1)
    numbered = len(parts) > 1
    explained = [
        _written(clip, part, folder, f"{index:03d}-" if numbered else "", explainer.band)
        for index, (clip, part) in enumerate(zip(shown, parts, strict=True))
    ]
    of_windows = explanation.output.softmax(dim=1).cpu()
    probabilities = of_windows.mean(dim=0)
    names = explainer.class_names
    recording = ExplainedRecording(
        name=file.name,
        folder=file.folder,
        prediction=names[int(probabilities.argmax())],
        probabilities=_by_class(names, probabilities),
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
                "prediction": names[int(of_windows[index].argmax())],
                "probabilities": _by_class(names, of_windows[index]),
                "explained_class": names[int(arrays["target"][index])],
                "explained_logit": float(arrays["logits"][index, arrays["target"][index]]),
                "relevance": float(arrays["relevance"][index].sum()),
                "figures": list(window.figures),
                "sounds": list(window.sounds.values()),
            }
            for index, window in enumerate(explained)
        ],
    }
    (folder / "explanation.json").write_text(json.dumps(description, indent=2) + "\n")
    return recording


def _by_class(names: Sequence[str], probabilities: Tensor) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(names, probabilities, strict=True)}


def _arrays(
    explainer: _Explainer, explanation: Explanation, planes: Tensor | None, parts: Sequence[Window]
) -> dict[str, Any]:
    """What goes into ``relevance.npz``."""
    found = {
        "input": explanation.input,
        "relevance": explanation.relevance,
        "logits": explanation.output,
        "target": explanation.target,
        "frequencies": plane_frequencies(),
        "times": plane_times(),
    }
    if explainer.representation.view != "time_frequency" and planes is not None:
        found["time_frequency"] = planes
    arrays = {name: value.cpu().numpy() for name, value in found.items()}
    return arrays | {"first_sample": np.array([part.begin - part.offset for part in parts])}


def _written(
    clip: ExplainedClip, part: Window, folder: Path, prefix: str, band: tuple[float, float] | None
) -> ExplainedWindow:
    """A window whose figures and sounds are in the folder."""
    figures = {"waveform": clip.waveform()}
    if clip.plane is not None:
        figures["time-frequency"] = clip.time_frequency()
    names = {name: f"{prefix}{name}.png" for name in figures}
    for name, figure in figures.items():
        figure.savefig(folder / names[name])
    sounds = {}
    for name, sound in clip.sounds(band).items():
        sounds[name] = f"{prefix}{name.replace(' ', '-')}.wav"
        write_wav(folder / sounds[name], sound, SAMPLE_RATE)
    seconds = (part.begin / SAMPLE_RATE, (part.begin + part.length) / SAMPLE_RATE)
    return ExplainedWindow(*seconds, clip.title, tuple(names.values()), sounds)


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
