"""The place of this process among those of a training, and what launchers that started another number are told."""

import os
import sys
from typing import Any, Final

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only

from audio_lrp.errors import UserError
from audio_lrp.utils.launcher import stand_alone

_LAUNCHERS: Final[tuple[type[ClusterEnvironment], ...]] = (
    TorchElasticEnvironment,
    SLURMEnvironment,
    LSFEnvironment,
    MPIEnvironment,
)
"""In the order in which Lightning's Trainer looks for them."""


def take_place(trainer: Namespace) -> None:
    """Let what only the first process does know, before there is a Trainer, whether this is the first.

    Lightning itself guesses from the environment until a strategy for several processes is made; one for a single
    process leaves it at the guess. A training of one process is the first whatever the environment says: what
    launchers leave there is inherited by every command started later, and several trainings may be started by one.

    Args:
        trainer: the Trainer's settings.

    Raises:
        UserError: torchrun or SLURM has started another number of processes than the training has.
    """
    devices, nodes = _devices(trainer.devices, trainer.accelerator), int(trainer.num_nodes)
    rank = 0
    if devices * nodes == 1:
        _warn_of_others()
        stand_alone()
    elif "Environment" in str(trainer.plugins):  # of the user's own choice
        return
    else:
        _check_torchrun(devices, nodes)
        _check_slurm(devices, nodes)
        if launchers := [launcher for launcher in _LAUNCHERS if launcher.detect()]:
            rank = launchers[0]().global_rank()
        else:
            if nodes == 1 and not {"LOCAL_RANK", "MASTER_PORT"} <= os.environ.keys():
                stand_alone()  # Lightning starts the others, and tells each of them both
            here = LightningEnvironment()
            rank = here.node_rank() * devices + here.local_rank()
    rank_zero_only.rank = rank  # type: ignore[attr-defined]


def _devices(devices: Any, accelerator: Any) -> int:
    """Number of devices on each machine, as Lightning reads the setting; what it cannot read it refuses later."""
    if devices in ("auto", -1, "-1"):
        return max(1, torch.cuda.device_count()) if accelerator in ("auto", "gpu", "cuda") else 1
    if isinstance(devices, str):
        return int(devices) if devices.isdecimal() else len(devices.strip(",").split(","))
    return len(devices) if isinstance(devices, list) else int(devices)


def _warn_of_others() -> None:
    """Tell each of a launcher's processes that it trains alone."""
    if TorchElasticEnvironment.detect():
        launcher, name = "torchrun", "WORLD_SIZE"
    elif _slurm_starts_the_processes():
        launcher, name = "SLURM", "SLURM_NTASKS"
    else:
        return
    if (count := os.environ.get(name, "1")) != "1":
        single = "srun --ntasks=1 or sbatch --ntasks=1" if launcher == "SLURM" else "no torchrun"
        print(
            f"audio-lrp: warning: {launcher} has {count} processes ({name}), but this training is of one "
            f"(--trainer.devices 1, --trainer.num_nodes 1), and each of them trains alone: begin it with {single}, or "
            "raise --trainer.devices to what SLURM calls --ntasks-per-node and torchrun --nproc-per-node",
            file=sys.stderr,
        )


def _check_torchrun(devices: int, nodes: int) -> None:
    if not TorchElasticEnvironment.detect():
        return
    ranks = [_number(name) for name in ("RANK", "LOCAL_RANK")]
    if (started := _number("WORLD_SIZE")) != devices * nodes or None in ranks:
        raise UserError(
            f"torchrun has started {started or 'no'} processes (WORLD_SIZE) but this training has "
            f"{_size(devices, nodes)}: give torchrun --nnodes={nodes} --nproc-per-node={devices}, or change these "
            "options"
        )


def _slurm_starts_the_processes() -> bool:
    """Whether it does; in an interactive job of its own names Lightning starts them itself."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def _check_slurm(devices: int, nodes: int) -> None:
    """Look at what Lightning refuses with a traceback or, where SLURM has started too few tasks, trains without."""
    if TorchElasticEnvironment.detect() or not _slurm_starts_the_processes():
        return
    tasks, each = _number("SLURM_NTASKS"), _number("SLURM_NTASKS_PER_NODE")
    machines = _number("SLURM_NNODES") or nodes
    places = [_number(name) for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")]
    if (tasks, each, machines) != (devices * nodes, devices, nodes):
        names = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES")
        found = ", ".join(f"{name} is {os.environ.get(name, 'not set')}" for name in names)
        raise UserError(
            f"SLURM's tasks ({found}) are not those of this training, {_size(devices, nodes)}: ask SLURM for "
            f"--nodes={nodes} --ntasks-per-node={devices}, and begin the command with srun"
        )
    if None in places:
        raise UserError(
            "SLURM has not started this process (it has no SLURM_PROCID, SLURM_LOCALID or SLURM_NODEID), but this "
            f"training has {_size(devices, nodes)}: begin the command with srun"
        )


def _size(devices: int, nodes: int) -> str:
    return f"{devices * nodes} processes (--trainer.devices {devices}, --trainer.num_nodes {nodes})"


def _number(name: str) -> int | None:
    """The value of a variable that a launcher sets; None where it is not set."""
    text = os.environ.get(name)
    if text is not None and not text.isdecimal():
        raise UserError(f"the environment variable {name} is {text!r}, which is no number: unset it")
    return None if text is None else int(text)
