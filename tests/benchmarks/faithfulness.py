"""What tests of explanations cost, relative to the forward passes and attributions that they need.

Run by hand, e.g. ``python tests/benchmarks/faithfulness.py --networks AudioNet --examples 100``. Perturbation curves of
four orders and 21 points take turns with as many plain forward passes in chunks of the same size; a curve of one order
with Quantus' PixelFlipping at equal settings, where it is installed. Quantus wants steps that divide the input: 20 for
waveforms, but 227 for spectrograms, for which fewer examples do. MPRT and max-sensitivity take turns with as many
attributions as they need. Times are process CPU time on one thread (wall time on a GPU), medians of the repetitions.
With ``--memory`` peak memory is measured in processes of their own, for several numbers of points and chunk sizes.
"""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch: fewer page faults

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from attribution import NETWORKS, Timer, load
from torch import Tensor, nn

from audio_lrp.faithfulness import LRP, ORDERS, max_sensitivity, parameter_randomization, perturbation_curves
from audio_lrp.utils.allocator import keep_freed_memory

POINTS = 21


def grid(points: int) -> list[float]:
    return [step / (points - 1) for step in range(points)]


def forward_passes(network: nn.Module, value: Tensor, count: int, chunk_size: int) -> None:
    """Predict ``count`` inputs, chunk by chunk, and nothing else."""
    chunks = value.repeat(-(-chunk_size // len(value)), *[1] * (value.ndim - 1))[:chunk_size]
    with torch.inference_mode():
        for begin in range(0, count, chunk_size):
            network(chunks[: min(chunk_size, count - begin)])


def curve_works(network: nn.Module, value: Tensor, chunk_size: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Curves of all orders, with the forward passes they need."""
    target = torch.arange(len(value), device=value.device) % 10
    relevance = torch.randn_like(value)
    everything = torch.ones_like(value, dtype=torch.bool)
    given = {"fractions": grid(POINTS), "candidates": everything, "chunk_size": chunk_size}
    count = (1 + len(ORDERS) * (POINTS - 1)) * len(value)
    yield f"{count} forward passes", lambda: forward_passes(network, value, count, chunk_size)
    yield (
        f"curves, {len(ORDERS)} orders x {POINTS} points",
        lambda: perturbation_curves(network, value, target, relevance, orders=ORDERS, **given),
    )


def flipping_works(network: nn.Module, value: Tensor, chunk_size: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """A curve of one order, and Quantus' of the same steps, with the forward passes each needs."""
    target = torch.arange(len(value), device=value.device) % 10
    relevance = torch.randn_like(value)
    size = value[0].numel()
    steps = 20 if size % 20 == 0 else math.isqrt(size)
    given = {
        "fractions": grid(steps + 1),
        "candidates": torch.ones_like(value, dtype=torch.bool),
        "chunk_size": chunk_size,
    }
    count = (steps + 1) * len(value)
    yield f"{count} forward passes", lambda: forward_passes(network, value, count, chunk_size)
    yield (
        f"curve, one order x {steps + 1} points",
        lambda: perturbation_curves(network, value, target, relevance, orders=["morf"], **given),
    )
    if find_spec("quantus"):
        import quantus

        flipping = quantus.PixelFlipping(
            features_in_step=size // steps,
            perturb_baseline=0.0,
            normalise=False,
            disable_warnings=True,
        )
        arrays = {
            "x_batch": value.cpu().numpy(),
            "y_batch": target.cpu().numpy(),
            "a_batch": relevance.cpu().numpy(),
        }
        device = str(value.device)
        yield (
            f"Quantus PixelFlipping, {steps} steps",
            lambda: flipping(network, **arrays, device=device, batch_size=chunk_size, softmax=True),
        )


def attribution_works(network: nn.Module, value: Tensor) -> Iterator[tuple[str, Callable[[], object]]]:
    """MPRT and max-sensitivity, each with the attributions it needs."""
    target = torch.arange(len(value), device=value.device) % 10
    method = LRP(chunk_size=len(value))
    layers = sum(1 for module in network.modules() if [*module.parameters(recurse=False)])

    def attributions(count: int) -> None:
        for _ in range(count):
            method(network, value, target)

    yield f"{layers + 1} attributions", lambda: attributions(layers + 1)
    yield "MPRT", lambda: parameter_randomization(method, network, value, target)
    yield "6 attributions", lambda: attributions(6)
    yield "max-sensitivity, 5 noises", lambda: max_sensitivity(method, network, value, target, num_samples=5)


def compare(works: Iterator[tuple[str, Callable[[], object]]], repetitions: int, device: str) -> None:
    """One row per work: its time over that of the last that only passes forward or attributes."""
    timer = Timer(dict(works), repetitions, device)
    taken = timer.cpu if device == "cpu" else timer.wall
    unit = 0.0
    for name, seconds in taken.items():
        unit = seconds if "forward passes" in name or "attributions" in name else unit
        print(f"  {name:40s} {seconds:8.2f} s   {seconds / unit:6.3f}", flush=True)


def peak_memory(network: str, points: int, chunk_size: int, examples: int) -> int:
    """MiB at most resident in a process that computes curves."""
    command = [sys.executable, __file__, "--networks", network, "--peak", str(points), str(chunk_size)]
    printed = subprocess.run([*command, "--examples", str(examples)], capture_output=True, text=True, check=True).stdout
    return int(printed.split()[-1])


def print_peak(network: nn.Module, value: Tensor, points: int, chunk_size: int) -> None:
    target = torch.zeros(len(value), dtype=torch.long)
    perturbation_curves(
        network, value, target, torch.randn_like(value), orders=ORDERS, fractions=grid(points), chunk_size=chunk_size
    )
    # Not getrusage: its maximum includes that of the process which started this one.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(line.split()[1]) // 1024)


def inputs(network: nn.Module, examples: int, device: str) -> Tensor:
    value = torch.randn(examples, *network.input_shape, device=device)
    return value.abs().clamp(max=1) if value.ndim == 4 else value


def main() -> None:
    keep_freed_memory()  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--flipped", type=int, default=8, help="examples beside Quantus")
    parser.add_argument("--attributed", type=int, default=8, help="examples for MPRT and max-sensitivity")
    parser.add_argument("--chunk_size", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="peak memory as well")
    parser.add_argument("--peak", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.networks:
        network = load(name, None, options.device)
        value = inputs(network, options.examples, options.device)
        if options.peak:
            print_peak(network, value, *options.peak)
            continue
        print(f"\n{name}, {options.examples} examples, chunks of {options.chunk_size}; seconds and ratio")
        compare(curve_works(network, value, options.chunk_size), options.repetitions, options.device)
        flipped = value[: options.flipped]
        compare(flipping_works(network, flipped, options.chunk_size), options.repetitions, options.device)
        compare(attribution_works(network, value[: options.attributed]), options.repetitions, options.device)
        if options.memory:
            for points, chunk_size in ((2, 16), (6, 16), (21, 16), (6, 64)):
                peak = peak_memory(name, points, chunk_size, examples=16)
                print(f"  peak memory, {points:2d} points, chunks of {chunk_size:2d}: {peak} MiB", flush=True)


if __name__ == "__main__":
    main()
