"""LightningCLI for audio-lrp: fit, validate, test and predict, their options, and what is done around a run."""

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import lightning as L
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from audio_lrp import __version__
from audio_lrp.callbacks import FiniteLossCallback
from audio_lrp.checkpoints import read_checkpoint
from audio_lrp.data import CorpusDataModule
from audio_lrp.errors import NO_SPACE, UsageError, UserError, not_writable
from audio_lrp.models import Classifier
from audio_lrp.tracking import (
    Run,
    RunRecord,
    artifacts_wanted,
    best_checkpoint,
    discard_empty_folders,
    last_run_folder,
    log_artifacts,
    make_wandb_logger,
    wandb_session,
)
from audio_lrp.training.checkpoint import (
    check_optimizer,
    check_weights,
    continued_run,
    holds_weights_alone,
    how_to_resume,
    resuming,
)
from audio_lrp.training.config_files import ConfigFile, shipped_configs
from audio_lrp.training.construction import as_user_errors
from audio_lrp.training.efficiency import EfficiencyCallback
from audio_lrp.training.from_checkpoint import with_stored_configuration
from audio_lrp.training.help import arrange, parser_settings
from audio_lrp.training.layers import Layer, class_switches, read_layers, refuse_linked_options, refuse_none
from audio_lrp.training.noise import leave_out_noise
from audio_lrp.training.parser import Parser, shipped_classes_first
from audio_lrp.training.places import with_place
from audio_lrp.training.predictions import PredictionTable
from audio_lrp.training.processes import take_place
from audio_lrp.training.seen import SeenRecordings
from audio_lrp.training.summary import summary
from audio_lrp.training.trainer import Trainer
from audio_lrp.utils.signals import interruption

_SUBCOMMAND_OPTIONS = ("config", "ckpt_path", "return_predictions", "verbose")
"""Options of single commands, left out of a run's saved configuration, which every command takes."""

_BASES = {"model": Classifier, "data": CorpusDataModule}
"""Classes whose settings mean the same in all their subclasses."""

_LEFT_ALONE: Final = re.compile(r"(closed|reset) by peer|broken pipe|remote process", re.IGNORECASE)
"""What gloo and NCCL say when a process of a training has ended, which none of their types of errors tells."""


class AudioLRPCLI(LightningCLI):
    """Options, classes and folder of one run; the run itself happens in the constructor, as LightningCLI has it.

    Args:
        args: the command line's arguments without the program's name.

    Attributes:
        report: what to print when the run has ended; empty in all processes but the first.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self.report = ""
        self.continued: Path | None = None  # the folder of the run that is resumed
        self.metrics: dict[str, Tensor] = {}  # of fit, which a test after it forgets
        super().__init__(
            Classifier,
            CorpusDataModule,
            save_config_callback=None,  # RunRecord saves it, in a folder of the run's own
            trainer_class=Trainer,
            seed_everything_default=0,
            parser_class=Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=list(args),
            auto_configure_optimizers=False,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose ``--config`` knows the shipped files."""
        parser = self.parser_class(dump_header=[f"audio-lrp {__version__}"], **kwargs)
        names = ", ".join(shipped_configs())
        parser.add_argument(
            "-c", "--config", action=ConfigFile, help=f"A YAML file, or the name of a shipped one: {names}."
        )
        return parser

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Name and version for the main parser, usage and order for those of the commands."""
        main_kwargs |= {"prog": "audio-lrp", "version": __version__, "description": sys.modules["audio_lrp"].__doc__}
        subparser_kwargs |= {name: parser_settings(name) for name in self.subcommands()}
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        for name, parser in self._subcommand_parsers.items():
            arrange(parser, name)
        self.parser.add_instantiator(make_wandb_logger, WandbLogger)
        self.parser.add_instantiator(_make_mlflow_logger, MLFlowLogger)
        self.parser.add_instantiator(self._make_run, Run)

    def _make_run(self, class_type: type[Run], **settings: Any) -> Run:
        return class_type(**settings, continued=self.continued)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's options, and the links that let users state things once."""
        parser.add_class_arguments(Run, "run", skip={"continued"})
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
        parser.link_arguments("data.representation", "model.init_args.representation", apply_on="instantiate")
        parser.link_arguments("run.folder", "trainer.default_root_dir", apply_on="instantiate")
        # As text, which loggers take whether they ask for a string (MLFlowLogger) or for a path.
        parser.link_arguments("run.folder", "trainer.logger.init_args.save_dir", str, apply_on="instantiate")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's commands without ``weights_only``: checkpoints are never unpickled freely."""
        return {name: skipped | {"weights_only"} for name, skipped in LightningCLI.subcommands().items()}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, having looked for what the parser would pass over in silence."""
        subcommands = [position for position, word in enumerate(args) if word in self.subcommands()]
        layers = read_layers(args[subcommands[0] + 1 :]) if subcommands else []
        refuse_linked_options(layers)
        refuse_none(layers)
        try:
            with shipped_classes_first():
                self.config = parser.parse_args(args)
        except UsageError as error:
            raise with_place(error, layers) from error
        take_place(self.config[self.config.subcommand].trainer)
        self._warn_of_switches(layers)
        self.layers = layers
        options = [layer.settings for layer in layers if layer.path is None]
        self.new_folder_wanted = any({"run.root", "run.experiment"} & settings.keys() for settings in options)

    def _warn_of_switches(self, layers: Sequence[Layer]) -> None:
        for switch in class_switches(layers):
            settings = _settings(self.config[self.config.subcommand], switch.option)
            if settings is None:
                continue
            same = inspect.signature(_BASES[switch.option]).parameters if switch.option in _BASES else ()
            kept = [name for name in switch.left if name in settings and name not in same]
            dropped = [name for name in switch.left if name not in settings]
            fate = [f"{verb} {', '.join(names)}" for verb, names in (("keeps", kept), ("drops", dropped)) if names]
            if fate:
                _say(
                    f"warning: --{switch.option} is switched from {switch.before} to {switch.after} "
                    f"({switch.origin}), which {' and '.join(fate)} of the former's settings"
                )

    def _parse_ckpt_path(self) -> None:
        """Leave a checkpoint's hyperparameters alone: Lightning would let them override the user's own options."""

    def instantiate_classes(self) -> None:
        """Data, model and trainer; the optimizer is tried before a logger begins its run."""
        with as_user_errors(self._configuration(), self.layers):
            super().instantiate_classes()
            if self.subcommand == "fit":
                self.model.make_scheduler(self.model.make_optimizer(self.model.parameters()))

    def before_instantiate_classes(self) -> None:
        """Find the run that is resumed; name a new one after the first configuration file by default."""
        config = self.config[self.subcommand]
        if config.ckpt_path is not None and self.subcommand == "fit":
            checkpoint, self.continued = continued_run(config.ckpt_path, config.config or [])
            config.ckpt_path = str(checkpoint)
            if self.new_folder_wanted:
                self.continued = None
        if config.run.experiment is None:
            config.run.experiment = Path(str(config.config[0])).stem if config.config else self.subcommand

    def after_instantiate_classes(self) -> None:
        """Check what was instantiated before anything runs."""
        self._check_links()
        path = self.config[self.subcommand].ckpt_path
        if path is not None:
            self._check_checkpoint(Path(path), self.subcommand == "fit")
        elif self.subcommand != "fit":
            _say(f"warning: {self.subcommand} without --ckpt_path: the network has its initial, untrained weights")

    def _check_checkpoint(self, path: Path, training: bool) -> None:
        checkpoint = read_checkpoint(path)
        check_weights(path, checkpoint, self.model)  # and load them
        self.seen.begin_with(checkpoint)
        if training and holds_weights_alone(checkpoint):
            if self.continued is not None:
                raise UserError(
                    f"{path} holds weights alone (save_weights_only), from which no training can resume: begin a new "
                    "one with them by --run.experiment NAME; test, validate and predict take it with the run's "
                    "--config, explain as it is"
                )
            self.config_init[self.subcommand].ckpt_path = None
            _say(f"the training begins at step 0 with the weights of {path}, which holds nothing else")
        elif training:
            check_optimizer(path, checkpoint, self.model.make_optimizer(self.model.parameters()))
            trainer: Any = self.trainer  # whose type does not tell of its callbacks
            kept = resuming(trainer.callbacks)
            if len(kept) < len(trainer.callbacks):
                _say("LearningRateFinder is left out, as the rate that it found stands in the checkpoint")
            trainer.callbacks = kept
        if self.continued is not None:
            _say(f"the run in {self.continued} resumes at step {checkpoint['global_step']}")

    def _check_links(self) -> None:
        """A class without the linked argument would be linked to nothing, in silence."""
        for name in ("num_classes", "representation"):
            given, taken = getattr(self.datamodule, name), getattr(self.model, name)
            if given != taken:
                raise UserError(
                    f"{type(self.model).__name__} has {name} {taken!r} but the data has {given!r}: "
                    f"its constructor must have an argument {name} and pass it on to Classifier"
                )

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer, with the callback that keeps the run's record."""
        options = self.config_init[self.subcommand].trainer
        if options.logger is False and isinstance(options.callbacks, list):  # it refuses to work without a logger
            kwargs["callbacks"] = [item for item in options.callbacks if not isinstance(item, LearningRateMonitor)]
        self.run = self.config_init[self.subcommand].run
        settings = yaml.safe_dump(self._configuration(), sort_keys=False)
        record = RunRecord(self.run.folder, f"# audio-lrp {__version__}\n{settings}")
        table = [PredictionTable()] if self.subcommand == "predict" else []
        self.seen = SeenRecordings(str(self.subcommand))
        self.trainer_defaults = {"callbacks": [record, EfficiencyCallback(), FiniteLossCallback(), self.seen, *table]}
        return super().instantiate_trainer(**kwargs)

    def _configuration(self) -> dict[str, Any]:
        """The run's configuration, options left at None as well."""
        text = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_unset=False)
        return {name: value for name, value in yaml.safe_load(text).items() if name not in _SUBCOMMAND_OPTIONS}

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; an interruption of a training is told with the command that resumes it."""
        try:
            super()._run_subcommand(subcommand)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            if subcommand == "fit" and interruption(error) is not None:
                rank = self.trainer.global_rank
                error.add_note(f"process {rank} of several" if rank else how_to_resume(self.run.folder, self.trainer))
            raise

    def before_fit(self) -> None:
        """Warn of steps at the end that no validation follows, which is when checkpoints are written."""
        trainer = self.trainer
        steps, interval = trainer.max_steps, trainer.val_check_interval  # the latter in batches
        by_steps = trainer.check_val_every_n_epoch is None and trainer.accumulate_grad_batches == 1
        if by_steps and isinstance(interval, int) and steps > 0 and steps % interval:
            left = steps % interval
            _say(
                f"warning: --trainer.max_steps is {steps}, no multiple of --trainer.val_check_interval, {interval}: "
                f"the last {'step is' if left == 1 else f'{left} steps are'} neither validated nor kept"
            )

    def after_fit(self) -> None:
        """Test the best checkpoint where the run asks for it, then sum up."""
        self.metrics = dict(self.trainer.callback_metrics)
        if artifacts_wanted(self.run.artifacts) and self.trainer.is_global_zero:
            log_artifacts(self.trainer, self.metrics)
        if self.run.test_after_fit:
            keeper = best_checkpoint(self.trainer)
            best = (keeper.best_model_path or None) if keeper is not None else None
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best)
        self._sum_up()

    def after_validate(self) -> None:
        """Sum up."""
        self._sum_up()

    def after_test(self) -> None:
        """Sum up."""
        self._sum_up()

    def after_predict(self) -> None:
        """Sum up."""
        self._sum_up()

    def _sum_up(self) -> None:
        if self.trainer.is_global_zero:
            metrics = self.metrics | dict(self.trainer.callback_metrics)
            self.report = summary(self.trainer, str(self.subcommand), metrics, self.seen.lines(self.trainer))
            if warning := self.seen.warning():
                _say(f"warning: {warning}")


def main(args: Sequence[str]) -> None:
    """Run one of Lightning's commands: fit, validate, test or predict.

    Args:
        args: the command's name and its arguments.

    Raises:
        UserError: what the user can fix; what jsonargparse raises may have it as its cause.
    """
    leave_out_noise(args[0])
    cli = None
    try:
        with wandb_session(), with_stored_configuration(args) as complete:
            cli = AudioLRPCLI(complete)
    except KeyboardInterrupt as error:
        if cli is not None:
            error.add_note("the run was complete but for the end of its W&B run")
        raise
    except OSError as error:
        if error.errno in NO_SPACE and error.filename is None:  # of a logger's file, for example
            raise not_writable(last_run_folder(), error, "choose another place with --run.root") from error
        raise
    except ValueError as error:
        if "val_check_interval" in str(error):  # found where the number of batches is known
            raise UserError(f"--trainer.val_check_interval: {' '.join(str(error).split())}") from error
        raise
    except RuntimeError as error:
        if _LEFT_ALONE.search(str(error)) and torch.distributed.is_initialized():
            rank, reason = torch.distributed.get_rank(), " ".join(str(error).split())
            raise UserError(
                f"process {rank} of the training ends as it has lost another ({reason}): see what that one said, "
                "and start them again"
            ) from error
        raise
    finally:
        discard_empty_folders()
        if torch.distributed.is_initialized():  # the threads of one that is left abort many a process at its exit
            torch.distributed.destroy_process_group()
    if cli.report:
        print(f"\n{cli.report}")  # last of all, when the W&B run is complete


def _make_mlflow_logger(class_type: type[MLFlowLogger], **settings: Any) -> MLFlowLogger:
    """MLflow's logger, whose database lies in the run's folder unless the user has a server.

    Lightning would choose a folder of files, which MLflow refuses by now.
    """
    if settings.get("tracking_uri") is None:
        folder = Path(settings["save_dir"])
        artifacts = settings.get("artifact_location") or str(folder / "mlruns")
        settings |= {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}", "artifact_location": artifacts}
    return class_type(**settings)


def _settings(config: Any, option: str) -> set[str] | None:
    """Names of the settings of the class that stands at ``option``; None where none stands there in the end."""
    for name in option.split("."):
        config = config.get("init_args", config).get(name) if isinstance(config, Namespace) else None
    if not isinstance(config, Namespace):
        return None
    return set(vars(config.init_args)) if "init_args" in config else set()


@rank_zero_only
def _say(text: str) -> None:
    print(f"audio-lrp: {text}", file=sys.stderr)
