"""Explanations of a run's test clips, computed anew from a checkpoint."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from tqdm import tqdm

from audio_lrp.attribution.attribute import attribute
from audio_lrp.callbacks.lrp import LRPCallback
from audio_lrp.callbacks.pictures import ExampleViews, example_views
from audio_lrp.checkpoints import instantiated, load_network
from audio_lrp.data import CorpusDataModule
from audio_lrp.data.corpora.listing import left_out_summary
from audio_lrp.errors import UserError
from audio_lrp.report.run_folder import setting
from audio_lrp.visualization.views import time_frequency_relevance


@dataclass(frozen=True)
class Explained:
    """Explained test clips.

    Attributes:
        views: their pictures and sounds.
        ledger: rows of the conservation ledger, averaged over the clips.
        composite: name of the LRP composite.
        checkpoint: the network's file.
        notes: what is missing: parts of the explanations, files of the corpus.
    """

    views: Sequence[ExampleViews]
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
    try:
        planes = time_frequency_relevance(batch.input, explanation.relevance, explanation.modified_gradient)
    except UserError as error:
        planes = None
        notes.append(f"There are maps alone, without time, frequency and sounds of relevance: {error}.")
    views = example_views(batch, datamodule.signals(batch), explanation, planes, saved.class_names)
    shown = tqdm(views, "explaining", total=len(batch.index), unit="clip", leave=False, disable=None)
    return Explained([*shown], explanation.conservation.rows(), explanation.composite, checkpoint, notes)


def _callback_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    callbacks = setting(config, "trainer.callbacks") or []
    found = [item for item in callbacks if str(item.get("class_path")).endswith("LRPCallback")]
    return found[0] if found else {"class_path": f"{LRPCallback.__module__}.LRPCallback"}
