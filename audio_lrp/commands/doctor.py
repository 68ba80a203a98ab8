"""What this installation is made of and what is wrong with it: ``audio-lrp doctor``.

Nothing of the package is imported before it is known that PyTorch can be: a broken installation is what people come
with.
"""

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final, Literal, NamedTuple

from packaging.requirements import Requirement

from audio_lrp import __version__
from audio_lrp.errors import UserError
from audio_lrp.utils.arguments import CommandParser

CORPUS_VARIABLE: Final = "AUDIOMNIST_ROOT"
"""Where the shipped sweeps look for their corpus."""

WITHOUT_SERVER: Final = ("offline", "dryrun", "disabled")
"""Values of ``WANDB_MODE`` that need no account."""

LOW_SPACE: Final = 2e9
"""Bytes below which a run, or the packed AudioMNIST, may not fit."""


SMALL_SHARED_MEMORY: Final = 256e6
"""Bytes of which worker processes may run out: four that have read two batches of 100 spectrograms take 165 MB."""

LOADER_VARIABLES: Final = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH")
"""Variables by which libraries of another installation come before PyTorch's own."""


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        state: ``"broken"`` for what must be fixed, ``"note"`` for what limits what can be done.
        subject: what was looked at.
        detail: what was found, and the fix where one is needed.
    """

    state: Literal["ok", "note", "broken"]
    subject: str
    detail: str


def main(args: Sequence[str] | None = None) -> None:
    """Print the report.

    Args:
        args: the command line's arguments; by default the process's.

    Raises:
        UserError: something is broken.
    """
    options = parser().parse_args(args)
    broken = 0
    for finding in examine(options.data, options.online):
        print(f"{finding.state:<8}{finding.subject:<11}{finding.detail}", flush=True)
        broken += finding.state == "broken"
    if broken:
        raise UserError(f"{broken} {'thing is' if broken == 1 else 'things are'} broken: fix the lines that say so")


def examine(data: Path | None, online: bool) -> Iterator[Finding]:
    """Everything there is to say, what others depend on first.

    Args:
        data: a corpus's folder to look at beside the usual ones.
        online: ask W&B's server whether it can be reached.
    """
    yield Finding("ok", "Python", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("ok", "audio-lrp", __version__)
    yield from requirements()
    imported = list(imports())
    yield from imported
    if all(finding.state == "ok" for finding in imported):
        yield from wandb_state(online)
        yield from devices()
        yield from shared_memory()
        yield from caches()
        yield from corpora(data)
        yield speech()


def requirements() -> Iterator[Finding]:
    """The installed version of every required package, and whether it is within its bounds."""
    for text in requires("audio-lrp") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        fix = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield Finding("broken", "package", f"{requirement.name} is missing: {fix}")
            continue
        inside = requirement.specifier.contains(installed, prereleases=True)
        bounds = str(requirement.specifier) or "any version"
        detail = f"{requirement.name} {installed} ({bounds})"
        yield Finding("ok", "package", detail) if inside else Finding("broken", "package", f"{detail}: {fix}")


def imports() -> Iterator[Finding]:
    """Whether the packages that are built for one another can be imported."""
    for name in ("torch", "torchaudio", "lightning"):
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken library may raise anything
            reason = " ".join(str(error).split())
            fix = "install PyTorch and torchaudio anew, within the bounds above and for this machine's CUDA"
            if found := [variable for variable in LOADER_VARIABLES if os.environ.get(variable)]:
                fix = f"try without the variable {' and '.join(found)}, or {fix}"
            yield Finding("broken", "import", f"{name} cannot be imported ({reason}): {fix}")
        else:
            yield Finding("ok", "import", name)


def devices() -> Iterator[Finding]:
    """What networks can be trained on, and what slows it down."""
    import torch

    from audio_lrp.training.efficiency import has_bfloat16
    from audio_lrp.utils.parallel import usable_cores

    yield from threads()
    cores = f"{usable_cores()} cores, {torch.get_num_threads()} threads in PyTorch"
    if has_bfloat16() is False:
        fix = "train with --trainer.precision 32-true, as --config trainer/cpu does"
        yield Finding("note", "CPU", f"{cores}; it emulates bfloat16, which takes many times as long: {fix}")
    else:
        yield Finding("ok", "CPU", cores)
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            yield Finding("ok", "GPU", f"{properties.name}, {properties.total_memory / 1e9:.0f} GB")
    elif torch.backends.mps.is_available():
        yield Finding("ok", "GPU", "Apple's (MPS)")
    else:
        built = f"PyTorch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "PyTorch is built without"
        if torch.version.cuda and (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
            built += f", the variable CUDA_VISIBLE_DEVICES is {visible!r}"
        yield Finding("note", "GPU", f"none that PyTorch can use ({built}): train with --config trainer/cpu")


def threads() -> Iterator[Finding]:
    """Variables whose number of threads is none: the libraries that read them use all cores of the machine."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value and not re.fullmatch(r"\s*0*[1-9]\d*(\s*,\s*0*[1-9]\d*)*\s*", value):
            yield Finding("broken", "threads", f"the variable {name} is {value!r}: a number of 1 or more, or unset it")


def shared_memory() -> Iterator[Finding]:
    """Whether worker processes have room for their batches, on systems where these lie in a folder."""
    from audio_lrp.data.loading.workers import SHARED_MEMORY

    if sys.platform != "linux":
        return
    fix = "in a container --shm-size=1g, or train with --data.num_workers 0"
    if not (SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK)):
        yield Finding("note", "memory", f"{SHARED_MEMORY} is missing or cannot be written, workers cannot start: {fix}")
        return
    memory = shutil.disk_usage(SHARED_MEMORY)
    detail = f"{memory.free / 1e6:,.0f} of {memory.total / 1e6:,.0f} MB are free in {SHARED_MEMORY}"
    if memory.free < SMALL_SHARED_MEMORY:
        yield Finding("note", "memory", f"{detail}, too little for workers: {fix}")
    else:
        yield Finding("ok", "memory", f"{detail}, for workers")


def wandb_state(online: bool) -> Iterator[Finding]:
    """Whether runs can be uploaded to Weights & Biases."""
    import requests

    from audio_lrp.tracking.wandb_variables import check_wandb_variables

    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    mode = os.environ.get("WANDB_MODE", "offline")
    logged_in = "WANDB_API_KEY" in os.environ or requests.utils.get_netrc_auth(server) is not None
    account = f"logged in to {server}" if logged_in else "not logged in: wandb login, to upload runs"
    try:
        check_wandb_variables()
    except UserError as error:
        yield Finding("broken", "W&B", str(error))
    else:
        works = logged_in or mode in WITHOUT_SERVER
        yield Finding("ok" if works else "broken", "W&B", f"runs are {mode}; {account}")
    if online:
        try:
            status = requests.get(server, timeout=5).status_code
        except requests.RequestException as error:
            reason = re.sub(r".*Caused by (.*)\)", r"\1", " ".join(str(error).split()))
            yield Finding("broken", "W&B", f"{server} cannot be reached ({reason}): run offline, sync later")
        else:
            yield Finding("ok", "W&B", f"{server} answers ({status})")


def caches() -> Iterator[Finding]:
    """Where packed recordings lie, how many bytes they take, and whether there is room for more."""
    from audio_lrp.data.caches import caches_folder

    folder = caches_folder(Path(), None)
    held = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    size = sum(path.stat().st_size for cache in held for path in cache.rglob("*") if path.is_file())
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    detail = f"{folder}: {len(held)} corpora, {size / 1e6:.0f} MB; {free / 1e9:.0f} GB free"
    if not (place.is_dir() and os.access(place, os.W_OK)):
        yield Finding("broken", "cache", f"{detail}; it cannot be written: set the variable AUDIO_LRP_CACHE")
    elif free < LOW_SPACE:
        yield Finding("note", "cache", f"{detail}: little for a corpus, set the variable AUDIO_LRP_CACHE")
    else:
        yield Finding("ok", "cache", detail)


def corpora(data: Path | None) -> Iterator[Finding]:
    """The corpora in the usual places; one that was named and is not there is broken."""
    from audio_lrp.data import AudioMNIST

    named = data or (Path(os.environ[CORPUS_VARIABLE]) if CORPUS_VARIABLE in os.environ else None)
    folder = named or Path("AudioMNIST")
    try:
        recordings = AudioMNIST(folder).recordings
    except UserError as error:
        if named is not None:
            yield Finding("broken", "corpus", str(error))
        else:
            yield Finding(
                "note", "corpus", "none in ./AudioMNIST: audio-lrp data download audiomnist, or name it by --data"
            )
        return
    speakers = {recording.speaker for recording in recordings}
    yield Finding("ok", "corpus", f"{folder}: {len(recordings):,} recordings of {len(speakers)} speakers")


def speech() -> Finding:
    """Whether the quick start can synthesise its corpus."""
    from audio_lrp.data.corpora import espeak

    try:
        return Finding("ok", "espeak-ng", espeak.version())
    except UserError as error:
        return Finding("note", "espeak-ng", f"the quick start cannot speak: {error}")


def parser() -> CommandParser:
    """What it takes from the command line."""
    parser = CommandParser(
        prog="audio-lrp doctor", description="Tell what this installation is made of and what is wrong with it."
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="a corpus in AudioMNIST's layout to look at")
    parser.add_argument("--online", action="store_true", help="ask W&B's server whether it can be reached")
    return parser
