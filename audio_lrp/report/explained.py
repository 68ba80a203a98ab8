"""Explanations of a run's test clips, computed anew from a checkpoint."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from tqdm import tqdm

from audio_lrp.attribution.attribute import attribute
from audio_lrp.callbacks.lrp import LRPCallback
from audio_lrp.checkpoints import instantiated, load_network
from audio_lrp.data import CorpusDataModule
from audio_lrp.data.corpora.listing import left_out_summary
from audio_lrp.data.representation import FULL_SCALE
from audio_lrp.errors import UserError
from audio_lrp.report.run_folder import setting
from audio_lrp.visualization.clips import DrawnClip, explained_clips


@dataclass(frozen=True)
class Explained:
    """Explained test clips.

    Attributes:
        clips: their figures and sounds.
        ledger: rows of the conservation ledger, averaged over the clips.
        composite: name of the LRP composite.
        checkpoint: the network's file.
        notes: what is missing: parts of the explanations, files of the corpus.
    """

    clips: Sequence[DrawnClip]
    ledger: Sequence[Mapping[str, str | float]]
    composite: str
    checkpoint: Path
    notes: Sequence[str] = ()


def explain_test_clips(
    config: Mapping[str, Any], checkpoint: Path, count: int, plugins: Collection[str] = ()
) -> Explained:
    """Explain a few test clips with the settings of the run's `LRPCallback`, or its defaults.

    Args:
        config: the run's configuration.
        checkpoint: one of its checkpoints.
        count: how many clips, spread evenly over the classes.
        plugins: packages whose classes the run may name (see `audio_lrp.checkpoints.load_network`).

    Raises:
        UserError: the checkpoint is damaged, the corpus is not there any more, or the run names a class of a package
            that is not trusted: to import a module is to run it.
    """
    saved = load_network(checkpoint, plugins)
    datamodule = instantiated(CorpusDataModule, config.get("data"), plugins)
    callback = instantiated(LRPCallback, _callback_settings(config), plugins)
    datamodule.prepare_data()
    datamodule.setup("test")
    batch = datamodule.examples("test", count, callback.seed)
    target: Tensor | Literal["predicted"] = batch.label if callback.target == "label" else "predicted"
    explanation = attribute(saved.network, batch.input, target, callback.composite)
    left_out = left_out_summary(datamodule.corpus.left_out)
    notes = [f"The corpus is read without {left_out}."] if left_out else []
    representation, planes = datamodule.input_representation, None
    try:
        planes = representation.in_plane(explanation.input, explanation.relevance, explanation.modified_gradient)
    except UserError as error:
        notes.append(f"There are maps alone, without time, frequency and sounds of relevance: {error}.")
    signals, labels = datamodule.signals(batch) / FULL_SCALE, batch.label.tolist()
    clips = explained_clips(explanation, representation, signals, batch.utterances(), saved.class_names, planes, labels)
    shown = tqdm(clips, "explaining", total=len(batch), unit="clip", leave=False, disable=None)
    drawn = [clip.drawn() for clip in shown]
    return Explained(drawn, explanation.conservation.rows(), explanation.composite, checkpoint, notes)


def _callback_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    callbacks = setting(config, "trainer.callbacks") or []
    found = [item for item in callbacks if str(item.get("class_path")).endswith("LRPCallback")]
    return found[0] if found else {"class_path": f"{LRPCallback.__module__}.LRPCallback"}
