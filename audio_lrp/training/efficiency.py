"""What a training's speed depends on, in one line: precision, layout, pages and memory, threads, compilation."""

import os
import sys
from pathlib import Path
from typing import Final

import lightning as L
import torch

from audio_lrp.utils.allocator import keeps_freed_memory

_HUGE_PAGES: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")


class EfficiencyCallback(L.Callback):
    """Says what a training's speed depends on when it starts, and not before: processes share the threads by then."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line, in the first process alone."""
        if trainer.is_global_zero:
            print(f"audio-lrp: {efficiency_line(trainer, pl_module)}", file=sys.stderr)


def efficiency_line(trainer: L.Trainer, model: L.LightningModule) -> str:
    """The settings that decide how fast a network trains, and what would be faster.

    Args:
        trainer: fits the model.
        model: what it fits.

    Returns:
        For example ``"bfloat16 by trainer.precision, channels last, huge pages, freed memory kept, 2 threads"``.
    """
    on_cpu = trainer.strategy.root_device.type == "cpu"
    settings = [_precision(str(trainer.precision), on_cpu)]
    if any(_is_channels_last(parameter) for parameter in model.parameters()):
        settings.append("channels last")
    if getattr(model, "compile_mode", None) is not None:
        settings.append("compiled (the first step waits for the compiler)")
    if on_cpu:
        settings.append(_pages())
        if keeps_freed_memory():
            settings.append("freed memory kept")
        settings.append(f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}")
    return ", ".join(settings)


def _precision(precision: str, on_cpu: bool) -> str:
    name = {"bf16": "bfloat16", "16": "float16", "32": "float32", "64": "float64"}.get(precision.split("-")[0])
    said = f"{name or precision} by trainer.precision"
    if on_cpu and name == "bfloat16" and has_bfloat16() is False:
        return f"{said} (slow, as this CPU has no instructions for it: --trainer.precision 32-true)"
    if on_cpu and name == "float32" and has_bfloat16():
        return f"{said} (this CPU has instructions for --trainer.precision bf16-mixed)"
    return said


def has_bfloat16() -> bool | None:
    """Whether the CPU has instructions that multiply in bfloat16; ``None`` where PyTorch does not tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:
        return None
    known = capabilities()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _is_channels_last(parameter: torch.Tensor) -> bool:
    if parameter.dim() != 4 or parameter.is_contiguous():
        return False
    return parameter.is_contiguous(memory_format=torch.channels_last)


def _pages() -> str:
    """Whether PyTorch was told to ask for huge pages, and the system grants them."""
    asked = os.environ.get("THP_MEM_ALLOC_ENABLE") == "1"
    granted = _HUGE_PAGES.is_file() and "[never]" not in _HUGE_PAGES.read_text()
    return "huge pages" if asked and granted else "small pages"
