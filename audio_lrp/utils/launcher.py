"""The environment variables by which torchrun, SLURM, LSF or Lightning tell a process its place among several."""

import os
from typing import Final

_OF_TORCH: Final = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
_MEETING: Final = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
_OF_LSF: Final = ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE")
_OF_SLURM: Final = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
_ALONE_IN_SLURM: Final = {"SLURM_NTASKS": "1"} | dict.fromkeys(_OF_SLURM, "0")


def stand_alone() -> None:
    """Make this process the only one of its work, whatever it has inherited from a launcher of other processes.

    Lightning believes these variables: a training in one process would take itself for the second of two, and write
    nothing. In a job of SLURM it stays one, which SLURM may requeue.
    """
    in_slurm = "SLURM_NTASKS" in os.environ
    for name in (*_OF_TORCH, *_MEETING, *_OF_LSF, *_OF_SLURM, "SLURM_NTASKS_PER_NODE", "SLURM_NNODES"):
        os.environ.pop(name, None)
    if in_slurm:
        os.environ.update(_ALONE_IN_SLURM)


def forget_what_is_no_number() -> None:
    """Remove ranks that no launcher gives, an empty one for example: Lightning fails to be imported with them."""
    for name in (*_OF_TORCH, *_OF_LSF, *_OF_SLURM):
        if not os.environ.get(name, "0").isdecimal():
            del os.environ[name]
