"""Relevance maps and perturbation curves while a network trains."""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from zennit.core import Composite

from audio_lrp.attribution.attribute import Explanation, attribute
from audio_lrp.attribution.composites import composite_by_name
from audio_lrp.callbacks.isolation import OnError, check_on_error, isolated_random_state, surviving
from audio_lrp.callbacks.publishing import Results, publish, save_relevance
from audio_lrp.constants import DEFAULT_COMPOSITE
from audio_lrp.data.loading.batch import Batch
from audio_lrp.data.representation import FULL_SCALE, Representation
from audio_lrp.errors import UserError
from audio_lrp.faithfulness.baselines import Baseline
from audio_lrp.faithfulness.curves import check_fractions
from audio_lrp.faithfulness.localization import relevance_mass_accuracy
from audio_lrp.faithfulness.orders import ORDERS, Order, orders_by_name
from audio_lrp.faithfulness.perturbation import perturbation_curves
from audio_lrp.faithfulness.units import Units
from audio_lrp.timefrequency.coefficients import coefficient_relevance
from audio_lrp.timefrequency.stft import STFT
from audio_lrp.tracking import run_folder
from audio_lrp.visualization.clips import DrawnClip, explained_clips

LOGGED_FRACTIONS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
"""Fewer than for a published curve: with 20 examples an explanation costs less than 3 % of an epoch of AudioMNIST."""

_HISTORY = "perturbation_history"
"""Where a checkpoint keeps the curves of the training so far."""


@runtime_checkable
class ExampleSource(Protocol):
    """What the callback needs of a data module; :class:`~audio_lrp.data.datamodule.CorpusDataModule` has it."""

    class_names: Sequence[str]
    input_representation: Representation

    def examples(self, split: Literal["validate", "test"], count: int, seed: int) -> Batch:
        """The same clips for the same arguments, as network inputs."""
        ...

    def signals(self, batch: Batch) -> Tensor:
        """The signals behind the network inputs of ``examples``, in int16 scale [B, 8000]."""
        ...


class LRPCallback(Callback):
    """Shows what the network listens to: relevance maps by LRP, and perturbation curves that test them.

    After every n-th training epoch and the last, and after ``validate`` and ``test``, the same clips are explained
    again. Training goes on as if nothing had happened, to the bit.

    Callbacks and schedulers can monitor the scores below, ``lrp/srg`` for instance, like any metric; the network is
    then explained after every validation and every epoch, so that they never decide by an old score.

    Logged to W&B are

    - ``lrp/maps``, relevance on the network's input; for waveforms also ``lrp/time_frequency``, in the plane of
      AlexNet's spectrogram;
    - ``lrp/audio``, of the same examples the recording, the evidence for the class and that against it, equally loud;
    - ``lrp/perturbation``, the curves, and the scores that they give: ``lrp/aopc_morf``, ``lrp/aopc_lerf``,
      ``lrp/aopc_random``, ``lrp/aopc_amplitude``, the areas over them, and ``lrp/srg``, the symmetric relevance gain;
      where an accuracy is required also ``lrp/srg_constrained``, which is below -1 where it is missed;
    - ``lrp/perturbation_history``, in one chart the curve of the first order, ``morf``, at every explanation so far;
    - ``lrp/relevance_mass``, the share of the positive relevance that lies on the utterance, not on padding;
    - ``lrp/conservation_error``, the largest share of relevance that any layer cannot account for: rounding alone, so
      that more than 1e-4 tells of a fault; not with zennit's own rules, which keep no accounts.

    The run's folder keeps the arrays of the last time as ``relevance-validation.npz``.

    On the test split all keys begin with ``lrp/test/``. With another logger or none the same is written into the run's
    folder as PNG, WAV and CSV files.

    The network is the one that validation sees: with averaged weights where a ``WeightAveraging`` callback averages
    them. A failure costs what it kept from being shown and a warning, not the training.

    A map is trustworthy where the network's confidence falls faster along ``morf`` (most relevant first) than along
    ``random`` and ``amplitude`` (loudest first).

    Args:
        every_n_epochs: how often in training, where nothing monitors a score.
        num_pictures: how many of the examples are drawn and made audible.
        num_examples: how many examples the perturbation curves average over, spread evenly over the classes.
        target: explain the ``"label"`` or the ``"predicted"`` class.
        composite: name of an LRP preset, or any zennit composite (in a configuration by its class path).
        unit: what the curves remove at once: samples in a row of a waveform, the side of a square in a spectrogram, or
            any `Units` (in a configuration by class path, e.g. ``audio_lrp.faithfulness.Bands``).
        transform: removes bins, frames or bands of a waveform in this STFT's plane and transforms what is left back; in
            a configuration ``audio_lrp.timefrequency.HannSTFT``. Units are those of spectrograms then.
        baseline: what takes its place; None: silence.
        orders: in which orders, names out of `ORDERS` or orders of your own. ``lrp/srg`` needs ``morf`` and ``lerf``.
        fractions: fractions of the input at which the curves are evaluated, rising from 0.
        seed: chooses the examples, random orders and noise.
        required_accuracy: what the last validation must have reached, so that a sweep may look for faithful maps of
            accurate networks by one number, ``lrp/srg_constrained``; None: no such number.
        on_error: whether a failure to explain or to log is a warning (``"warn"``) or ends the run (``"raise"``).

    Raises:
        UserError: an option is out of its range, or, when the trainer starts, the data module cannot give examples.

    Example:
        >>> callback = LRPCallback(every_n_epochs=5, composite="epsilon_plus")
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        num_pictures: int = 4,
        num_examples: int = 20,
        target: Literal["label", "predicted"] = "label",
        composite: str | Composite = DEFAULT_COMPOSITE,
        unit: int | Units = 1,
        transform: STFT | None = None,
        baseline: Baseline | None = None,
        orders: Sequence[str | Order] = ORDERS,
        fractions: Sequence[float] = LOGGED_FRACTIONS,
        seed: int = 0,
        required_accuracy: float | None = None,
        on_error: OnError = "warn",
    ) -> None:
        self.every_n_epochs = every_n_epochs
        self.num_pictures = num_pictures
        self.num_examples = num_examples
        self.target = target
        self.composite = composite
        self.unit = unit
        self.transform = transform
        self.baseline = baseline
        self.orders = orders_by_name(orders)
        self.fractions = tuple(fractions)
        self.seed = seed
        self.required_accuracy = required_accuracy
        self.on_error = on_error
        self._explained_step = -1
        self._scores: dict[str, float] = {}
        self._history: list[dict[str, str | float]] = []
        self._check_options()

    def _check_options(self) -> None:
        for name, least in {"every_n_epochs": 1, "num_pictures": 0, "num_examples": 1, "unit": 1}.items():
            value = getattr(self, name)
            if isinstance(value, int) and value < least:
                raise UserError(f"{name} of LRPCallback must be at least {least}, not {value}")
        if self.num_pictures > self.num_examples:
            raise UserError(
                f"LRPCallback draws pictures of its examples: num_pictures ({self.num_pictures}) must not exceed "
                f"num_examples ({self.num_examples})"
            )
        if self.target not in ("label", "predicted"):
            raise UserError(f"target of LRPCallback is 'label' or 'predicted', not {self.target!r}")
        if self.required_accuracy is not None and not 0 <= self.required_accuracy <= 1:
            raise UserError(f"required_accuracy of LRPCallback is a share from 0 to 1, not {self.required_accuracy}")
        check_on_error(self.on_error, self)
        check_fractions(self.fractions)
        if isinstance(self.composite, str):
            composite_by_name(self.composite, bounds=(0.0, 1.0))  # tells an unknown name

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the data module can give examples and the units fit them, and begin anew."""
        self._explained_step = -1
        self._history = []
        if _monitors(trainer):  # they look when a validation ends, which is when it is explained: be the first
            trainer.callbacks = sorted(trainer.callbacks, key=lambda other: other is not self)  # type: ignore[attr-defined]
        if stage != "predict":
            self._check_units(_example_source(trainer).input_representation.shape[1:])

    def _check_units(self, shape: tuple[int, ...]) -> None:
        if self.transform is not None:
            if shape != (self.transform.num_samples,):
                raise UserError(
                    f"transform of LRPCallback is an STFT of {self.transform.num_samples} samples, but the network's "
                    f"inputs are of shape {list(shape)}: leave it out, or choose another"
                )
            shape = (self.transform.num_bins, self.transform.num_frames)
        if isinstance(self.unit, Units):
            self.unit.numbers(shape)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the curves so far for a training that is resumed.

        Not as the callback's state, for then Lightning would allow a trainer only one such callback.
        """
        checkpoint.setdefault("audio_lrp", {})[_HISTORY] = self._history

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Resume the curves of a training that is resumed."""
        self._history = list(checkpoint.get("audio_lrp", {}).get(_HISTORY, []))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell of explanations that are more than the user has asked for."""
        if self.every_n_epochs > 1 and (found := _monitors(trainer)):
            rank_zero_info(f"LRPCallback explains after every validation and epoch, as {' and '.join(found)}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Explain after every n-th training epoch."""
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0 or _monitors(trainer):
            self._explain(trainer, pl_module, "validate")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Explain the trained network, unless its last epoch was explained."""
        self._explain(trainer, pl_module, "validate")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Explain after ``validate``, and in training, where it may come at any step, if scores are monitored."""
        if not trainer.sanity_checking and (trainer.state.fn == TrainerFn.VALIDATING or _monitors(trainer)):
            self._explain(trainer, pl_module, "validate")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Explain after ``test``."""
        self._explain(trainer, pl_module, "test")

    def _explain(self, trainer: L.Trainer, pl_module: L.LightningModule, split: Literal["validate", "test"]) -> None:
        """Explain the network, unless it was explained after its last step, and let all processes know the scores."""
        if trainer.state.fn == TrainerFn.FITTING and split == "validate":
            if trainer.global_step == self._explained_step:
                return
            self._explained_step = trainer.global_step
        for name in self._scores:  # where this fails, no old score is taken for a new one
            trainer.callback_metrics.pop(name, None)
        self._scores = {}
        if trainer.is_global_zero:
            with self._surviving(trainer, "shows nothing"):
                prefix = "lrp/test" if split == "test" else "lrp"
                results = self._explain_examples(trainer, pl_module, split)
                self._scores = results.scalars(prefix)
                publish(trainer, prefix, results)
        self._scores = trainer.strategy.broadcast(self._scores)
        trainer.callback_metrics.update({name: torch.tensor(score) for name, score in self._scores.items()})

    def _surviving(self, trainer: L.Trainer, loss: str) -> AbstractContextManager[None]:
        return surviving(f"LRPCallback {loss} at step {trainer.global_step}", self.on_error)

    def _explain_examples(
        self, trainer: L.Trainer, pl_module: L.LightningModule, split: Literal["validate", "test"]
    ) -> Results:
        source = _example_source(trainer)
        # Apple's GPUs have no float64, in which relevance is accounted for.
        device = torch.device("cpu") if pl_module.device.type == "mps" else pl_module.device
        network = _validated_network(trainer, pl_module, device)
        with isolated_random_state(device):
            batch = source.examples(split, self.num_examples, self.seed).to(device)
            target: Tensor | Literal["predicted"] = batch.label if self.target == "label" else "predicted"
            explanation = attribute(network, batch.input, target, self.composite)
            if not explanation.relevance.isfinite().all():
                raise UserError("the relevance is not finite, so the network has diverged")
            outputs, classes = explanation.output.shape[1], len(source.class_names)
            if outputs != classes:
                raise UserError(f"the data has {classes} classes, but the network's output the size {outputs}")
            representation = source.input_representation
            relevance = explanation.relevance
            if self.transform is not None:
                relevance = coefficient_relevance(self.transform, batch.input, relevance, explanation.modified_gradient)
            curves = perturbation_curves(
                network,
                batch.input,
                explanation.target,
                relevance,
                orders=self.orders,
                fractions=self.fractions,
                unit=self.unit,
                transform=self.transform,
                baseline=representation.silence if self.baseline is None else self.baseline,
                seed=self.seed,
                index=batch.index,
            )
            mass = _mass_on_utterance(representation, batch, explanation.relevance)
            clips: list[DrawnClip] = []
            if self.num_pictures:
                with self._surviving(trainer, "draws nothing"):
                    clips = self._clips(source, batch, explanation)
            name = "test" if split == "test" else "validation"
            title = f"{len(batch)} {name} examples | target: {self.target} | {explanation.composite}"
            with self._surviving(trainer, "keeps no arrays"):
                save_relevance(run_folder(trainer) / f"relevance-{name}.npz", batch, explanation)
            shortfall = self._shortfall(trainer, "test/accuracy" if split == "test" else "val/accuracy")
            if trainer.state.fn == TrainerFn.FITTING:
                head: dict[str, str | float] = {"trained": f"step {trainer.global_step}"}
                self._history += [head | row for row in curves.rows() if row["order"] == curves.orders[0]]
            history = tuple(self._history) if trainer.state.fn == TrainerFn.FITTING else ()
            return Results(clips, curves, mass, shortfall, explanation.conservation, title, history)

    def _shortfall(self, trainer: L.Trainer, metric: str) -> float | None:
        """By how much the last accuracy misses the required one."""
        accuracy = trainer.callback_metrics.get(metric)
        if self.required_accuracy is None or accuracy is None:
            return None
        return max(0.0, self.required_accuracy - float(accuracy))

    def _clips(self, source: ExampleSource, batch: Batch, explanation: Explanation) -> list[DrawnClip]:
        """Figures and sounds of the first examples."""
        count, representation = self.num_pictures, source.input_representation
        shown = explanation[:count]
        planes: Tensor | None = None
        try:
            planes = representation.in_plane(shown.input, shown.relevance, shown.modified_gradient)
        except UserError as error:
            rank_zero_warn(f"LRPCallback shows maps alone, without time, frequency and sounds of relevance: {error}")
        signals, utterances = source.signals(batch)[:count] / FULL_SCALE, batch.utterances()[:count]
        labels = batch.label.tolist()
        clips = explained_clips(shown, representation, signals, utterances, source.class_names, planes, labels)
        return [clip.drawn() for clip in clips]


def _mass_on_utterance(representation: Representation, batch: Batch, relevance: Tensor) -> float | None:
    """Fraction of the positive relevance on the utterance; None for inputs of which we do not know where it is."""
    if batch.input.shape[1:] != representation.shape:
        return None
    mask = representation.utterance(batch.offset, batch.length)
    return relevance_mass_accuracy(relevance, mask).nanmean().item()


def _validated_network(trainer: L.Trainer, pl_module: L.LightningModule, device: torch.device) -> nn.Module:
    """The network as validation sees it, or a copy on the device where it lies on another.

    Lightning puts averaged weights in place for validation alone.
    """
    module: nn.Module = pl_module
    if trainer.state.fn == TrainerFn.FITTING:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging) and callback._average_model is not None:
                module = callback._average_model.module
    network: nn.Module = getattr(module, "network", module)
    # Lightning's own averages are made before the training's module is on its GPU, and stay on the CPU.
    elsewhere = any(parameter.device != device for parameter in network.parameters())
    return copy.deepcopy(network).to(device) if elsewhere else network


def _monitors(trainer: L.Trainer) -> list[str]:
    """What decides by scores of explanations in a training, e.g. ``"EarlyStopping monitors lrp/srg"``."""
    if trainer.state.fn != TrainerFn.FITTING:
        return []
    watched = [(callback, getattr(callback, "monitor", None)) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    watched += [(config.scheduler, config.monitor) for config in trainer.lr_scheduler_configs]
    return [f"{type(owner).__name__} monitors {name}" for owner, name in watched if str(name).startswith("lrp/")]


def _example_source(trainer: L.Trainer) -> ExampleSource:
    datamodule = getattr(trainer, "datamodule", None)
    if isinstance(datamodule, ExampleSource):
        return datamodule
    found = "there is none" if datamodule is None else f"{type(datamodule).__name__} is none"
    raise UserError(
        f"LRPCallback takes its examples from a CorpusDataModule, but {found}: "
        "choose one as data or take LRPCallback out of trainer.callbacks"
    )
