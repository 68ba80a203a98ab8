"""The LightningModule that trains a network to classify clips."""

import copy
import math
import os
import shutil
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from audio_lrp.errors import UserError
from audio_lrp.models.schedule import WarmupCosine

CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


class LabelledBatch(Protocol):
    """What the classifier reads of a batch: network input [B, ...] and label [B]."""

    input: Tensor
    label: Tensor

    def __len__(self) -> int: ...


class Classifier(L.LightningModule):
    """Trains a network with cross entropy; logs loss, accuracy and macro F1, and counts confusions at test time.

    Args:
        network: makes the network from the number of classes; in a configuration the class path of any
            ``nn.Module`` whose first argument is the number of classes, e.g. ``AudioNet``.
        num_classes: number of classes; the command line takes it from the data.
        representation: name of the data's input representation; the command line takes it from the data.
        optimizer: makes the optimizer from the parameters.
        scheduler: makes the learning rate scheduler from the optimizer.
        scheduler_interval: whether the scheduler steps after every ``"step"`` or every ``"epoch"``, as
            ``ReduceLROnPlateau`` always does.
        label_smoothing: share of the target probability spread evenly over all classes.
        mixup: train on weighted means of two inputs and of their targets (Zhang et al. 2018, arXiv 1710.09412),
            the weights drawn from a beta distribution with both parameters of this value; 0 for no mixing.
        compile: compile the network in this mode of :func:`torch.compile`, ``"default"`` for instance; not by default,
            as the first steps wait for the compiler. Explanations run the network as it is written, and checkpoints
            are the same with and without.

    Raises:
        UserError: the network declares another representation than the data's, or, when training or testing
            starts, does not map the data's inputs to one logit per class, or cannot be compiled for want of a C++
            compiler.
    """

    def __init__(
        self,
        network: Callable[[int], nn.Module],
        num_classes: int,
        representation: str,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable = WarmupCosine,
        scheduler_interval: Literal["step", "epoch"] = "step",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        compile: CompileMode | None = None,  # noqa: A002 (PyTorch's own name for it)
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise UserError(f"label_smoothing of the model is a share from 0 to 1, not {label_smoothing}")
        if mixup < 0:
            raise UserError(f"mixup of the model is the parameter of a beta distribution, 0 or more, not {mixup}")
        if compile is not None and compile not in get_args(CompileMode):
            raise UserError(
                f"compile of the model is null or one of {', '.join(get_args(CompileMode))}, not {compile!r}"
            )
        self.save_hyperparameters(ignore=["optimizer", "scheduler", "compile"])
        if isinstance(network, type):  # given in Python; from a configuration it is described by its class path already
            self.hparams["network"] = {"class_path": f"{network.__module__}.{network.__qualname__}", "init_args": {}}
        elif not isinstance(self.hparams["network"], Mapping | Namespace):
            del self.hparams["network"]  # a function, which a checkpoint read as data alone cannot hold
        self.network = network(num_classes)
        self.compile_mode = compile
        self.num_classes = num_classes
        self.representation = representation
        self._check_representation()
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self._found_lr: float | None = None
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        scores = MetricCollection(
            {"accuracy": MulticlassAccuracy(num_classes, average="micro"), "f1": MulticlassF1Score(num_classes)}
        )
        self.validation_scores = scores.clone(prefix="val/")
        self.test_scores = scores.clone(prefix="test/")
        # Not left to Lightning, whose mean over processes rounds the number of clips in each; NaN stays NaN.
        self.validation_loss = MeanMetric(nan_strategy=math.nan)
        self.test_loss = MeanMetric(nan_strategy=math.nan)
        self.confusion_matrix = MulticlassConfusionMatrix(num_classes)

    def _check_representation(self) -> None:
        wanted = getattr(self.network, "representation", self.representation)
        if wanted != self.representation:
            raise UserError(
                f"{type(self.network).__name__} takes the representation {wanted!r}, but the data gives "
                f"{self.representation!r}: set data.init_args.representation to {wanted!r} or choose another network"
            )

    def setup(self, stage: str) -> None:
        """Try the network on one silent input, so that a misfit is told before the first batch."""
        if self.compile_mode is not None and self.trainer.strategy.root_device.type == "cpu":
            check_compiler()
        datamodule = getattr(self.trainer, "datamodule", None)
        shape = getattr(getattr(datamodule, "input_representation", None), "shape", None)
        if shape is not None:
            check_network(self.network, shape, self.num_classes)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Classifier":
        """A copy, as averaging of weights makes one, which shares what makes the optimizer and its scheduler.

        Those of a configuration hold on to the whole command line with its trainer, which cannot always be copied: not
        where it has started other processes.
        """
        memo |= {id(shared): shared for shared in (self.make_optimizer, self.make_scheduler)}
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        vars(copied).update(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (PyTorch's own name for it)
        """Logits [B, num_classes] of network inputs [B, ...]."""
        return self._run(self.network, input)

    @cached_property
    def _run(self) -> Callable[[nn.Module, Tensor], Tensor]:
        """Runs the network, compiled or not; a function apart, so that the network itself is never a wrapper."""
        return run if self.compile_mode is None else torch.compile(run, mode=self.compile_mode)

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        """Cross entropy of one training batch."""
        network_input, target = batch.input, nn.functional.one_hot(batch.label, self.num_classes).float()
        if self.mixup > 0:
            network_input, target = mix(network_input, target, self.mixup)
        loss = nn.functional.cross_entropy(self(network_input).float(), target, label_smoothing=self.label_smoothing)
        self.log("train/loss", loss, batch_size=len(batch), sync_dist=True)
        return loss

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """Update loss and scores with one validation batch."""
        self._evaluate(batch, "val", self.validation_loss, self.validation_scores)

    def test_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """Update loss, scores and confusion matrix with one test batch."""
        logits = self._evaluate(batch, "test", self.test_loss, self.test_scores)
        self.confusion_matrix.update(logits, batch.label)

    def predict_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        """Class probabilities [B, num_classes] of one batch."""
        probabilities: Tensor = self(batch.input).float().softmax(dim=-1)
        return probabilities

    def _evaluate(self, batch: LabelledBatch, stage: str, loss: MeanMetric, scores: MetricCollection) -> Tensor:
        logits: Tensor = self(batch.input).float()
        loss.update(nn.functional.cross_entropy(logits, batch.label), weight=len(batch))
        scores.update(logits, batch.label)
        self.log(f"{stage}/loss", loss, batch_size=len(batch), prog_bar=stage == "val")
        self.log_dict(scores, batch_size=len(batch), prog_bar=stage == "val")
        return logits

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what inputs and classes the network was trained on, so that the checkpoint is enough to use it."""
        datamodule = getattr(self._trainer, "datamodule", None)
        names = getattr(datamodule, "class_names", None)
        scale = getattr(getattr(datamodule, "input_representation", None), "scale", None)
        placement = getattr(datamodule, "placement", None)
        facts = {
            "class_names": None if names is None else list(names),
            "spectrogram_scale": scale,
            "placement": placement if isinstance(placement, str) else None,
        }
        known = {name: value for name, value in facts.items() if value is not None}
        checkpoint.setdefault("audio_lrp", {}).update(known)

    def on_test_epoch_start(self) -> None:
        """Forget the confusions of an earlier test."""
        self.confusion_matrix.reset()

    @property
    def lr(self) -> float:
        """The learning rate that the optimizer and its scheduler begin with, for LearningRateFinder to set."""
        optimizer = self.make_optimizer(self.parameters())
        return float(optimizer.defaults["lr"] if self._found_lr is None else self._found_lr)

    @lr.setter
    def lr(self, rate: float) -> None:
        self._found_lr = rate

    def on_fit_start(self) -> None:
        """Begin with the rate that LearningRateFinder has just found, which Lightning's schedulers would not keep."""
        if self._found_lr is not None:
            self.trainer.strategy.setup_optimizers(self.trainer)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimizer and scheduler of the recipe."""
        optimizer = self.make_optimizer(self.parameters())
        if self._found_lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = self._found_lr
        scheduler: Any = self.make_scheduler(optimizer)
        if isinstance(scheduler, WarmupCosine) and scheduler.total_steps is None:
            scheduler = self._spread_over_training(scheduler)
        settings: LRSchedulerConfigType = {"scheduler": scheduler, "interval": self.scheduler_interval}
        if hasattr(scheduler, "monitor"):  # ReduceLROnPlateau
            settings |= {"monitor": scheduler.monitor, "interval": "epoch"}  # metrics are new after a validation
        return {"optimizer": optimizer, "lr_scheduler": settings}

    def _spread_over_training(self, scheduler: WarmupCosine) -> WarmupCosine:
        if self.scheduler_interval != "step":
            raise UserError(
                "WarmupCosine is counted in steps: set model.init_args.scheduler_interval to 'step', "
                "or give the scheduler its total_steps in epochs"
            )
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError(
                "WarmupCosine needs to know when training ends: set trainer.max_epochs or trainer.max_steps, "
                "or the scheduler's total_steps"
            )
        return WarmupCosine(scheduler.optimizer, warmup=scheduler.warmup, total_steps=int(steps))


def run(network: nn.Module, network_input: Tensor) -> Tensor:
    """Logits [B, C] of network inputs [B, ...]."""
    logits: Tensor = network(network_input)
    return logits


def mix(network_input: Tensor, target: Tensor, concentration: float) -> tuple[Tensor, Tensor]:
    """Weighted means of each sample and another one of the batch (mixup, Zhang et al. 2018).

    Args:
        network_input: [B, ...].
        target: class probabilities [B, C].
        concentration: both parameters of the beta distribution of the weights; each sample has a weight of its own,
            at least one half.

    Returns:
        The mixed inputs [B, ...] and targets [B, C].
    """
    partner = torch.randperm(len(target), device=target.device)
    beta = torch.distributions.Beta(concentration, concentration)
    weight = beta.sample((len(target),)).to(target.device)
    weight = torch.maximum(weight, 1 - weight)
    column = weight.view(-1, *[1] * (network_input.dim() - 1))
    mixed = torch.lerp(network_input[partner], network_input, column)
    return mixed, torch.lerp(target[partner], target, weight[:, None])


def check_compiler() -> None:
    """Check that there is the C++ compiler that :func:`torch.compile` needs on a CPU.

    Raises:
        UserError: there is none.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(
            f"model.compile needs a C++ compiler on a CPU, and there is no {compiler}: install g++, "
            "name another in the environment variable CXX, or set model.init_args.compile to null"
        )


def check_network(network: nn.Module, shape: tuple[int, ...], num_classes: int) -> None:
    """Run ``network`` on one input of zeros and check that one logit per class comes out.

    Raises:
        UserError: the network fails on inputs [1, ...] or gives another shape than [1, num_classes].
    """
    name = type(network).__name__
    parameter = next(network.parameters(), torch.zeros(()))
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            output = network(torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{name} cannot take the data's inputs of shape {shape} ({reason}): "
            "choose a network made for this representation, or set data.init_args.representation"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(output, Tensor) or output.shape != (1, num_classes):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"{name} must return logits of shape (batch, {num_classes}) but returned {got} for a batch of one: "
            "make its first argument the number of classes"
        )
