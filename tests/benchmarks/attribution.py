"""What a composite costs, relative to one plain forward pass: our rules beside zennit's, in one run.

Run by hand, e.g. ``python tests/benchmarks/attribution.py --networks AudioNet --batch 16 --checkpoint CKPT``. On a CPU
one thread works, and times are the process's CPU time, which other programs disturb less than wall time; ratios are
given by both. Forward, ours and zennit's take turns, and the median of the repetitions counts. FLOPs are those of
torch's counter. With ``--checkpoint`` the weights are those of a trained network.
"""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch: fewer page faults

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from zennit.composites import LayerMapComposite, layer_map_base
from zennit.core import Composite
from zennit.rules import Epsilon
from zennit.types import Convolution

from audio_lrp.attribution import PRESETS, attribute, composite_by_name
from audio_lrp.models import AlexNet, AudioNet
from audio_lrp.utils.allocator import keep_freed_memory

NETWORKS = {"AudioNet": AudioNet, "AlexNet": AlexNet}


def stock(preset: str) -> Composite:
    """Zennit's composite with the rules of one of our presets."""
    if preset in ("lrp0", "epsilon"):
        rule = Epsilon(0 if preset == "lrp0" else 1e-6)
        return LayerMapComposite([*layer_map_base(), (Convolution, rule), (nn.Linear, rule)])
    return composite_by_name(f"zennit_{preset}", bounds=(-3.0, 3.0))


def flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


class Timer:
    """Median seconds of pieces of work that take turns, after one warm-up: of the process's CPU, and of the clock."""

    def __init__(self, works: dict[str, Callable[[], object]], repetitions: int, device: str) -> None:
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for _ in range(repetitions + 1):
            for name, work in works.items():
                begin = self._now(device)
                work()
                end = self._now(device)
                taken[name].append((end[0] - begin[0], end[1] - begin[1]))
        self.cpu, self.wall = (
            {name: statistics.median(value[clock] for value in values[1:]) for name, values in taken.items()}
            for clock in (0, 1)
        )

    @staticmethod
    def _now(device: str) -> tuple[float, float]:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.process_time(), time.perf_counter()

    def faster(self) -> str:
        """How many times faster ours is than stock, by either clock."""
        ratios = [clock["stock"] / clock["ours"] for clock in (self.cpu, self.wall)]
        return f"{ratios[0]:5.2f}x {ratios[1]:5.2f}x"


def load(name: str, checkpoint: str | None, device: str) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name](10).eval()
    if checkpoint is not None:
        weights = torch.load(checkpoint, weights_only=True)
        weights = weights.get("state_dict", weights)
        network.load_state_dict({key.removeprefix("network."): value for key, value in weights.items()})
    return network.to(device)


def composites(network: nn.Module, value: torch.Tensor, presets: list[str], repetitions: int, device: str) -> None:
    """One row per preset."""

    def forward() -> None:
        with torch.no_grad():
            network(value)

    unit = flops(forward)
    print(
        f"{'composite':28s} {'FLOPs ours':>10s} {'stock':>6s} {'time ours':>10s} {'stock':>6s}  faster: CPU   wall",
        flush=True,
    )
    for preset in presets:
        works: dict[str, Callable[[], object]] = {
            "forward": forward,
            "ours": lambda name=preset: attribute(
                network, value, composite=name, bounds=(-3.0, 3.0), chunk_size=len(value)
            ),
            "stock": lambda name=preset: attribute(network, value, composite=stock(name), chunk_size=len(value)),
        }
        work = {name: flops(works[name]) / unit for name in ("ours", "stock")}
        taken = Timer(works, repetitions, device)
        clock = taken.cpu if device == "cpu" else taken.wall
        print(
            f"{preset:28s} {work['ours']:9.2f}F {work['stock']:5.2f}F {clock['ours'] / clock['forward']:9.2f}F "
            f"{clock['stock'] / clock['forward']:5.2f}F         {taken.faster()}   "
            f"(forward {1000 * clock['forward']:.0f} ms)",
            flush=True,
        )


def all_classes(network: nn.Module, value: torch.Tensor, presets: list[str], repetitions: int, device: str) -> None:
    """All classes in one pass beside zennit once per class.

    Zennit's passes cost the same for every class, so one of them is timed and counts as often as there are classes.
    The ratio of FLOPs bounds what can be won: relevance of each class has to pass each layer once, whatever is shared.
    """
    with torch.no_grad():
        count = network(value[:1]).shape[1]
    print(f"all {count} classes, {len(value)} samples", flush=True)
    target = torch.zeros(len(value), dtype=torch.int64, device=value.device)
    for preset in presets:
        works: dict[str, Callable[[], object]] = {
            "ours": lambda name=preset: attribute(network, value, "all", name, chunk_size=160, bounds=(-3.0, 3.0)),
            "stock": lambda name=preset: attribute(network, value, target, stock(name), chunk_size=160),
        }
        bound = count * flops(works["stock"]) / flops(works["ours"])
        taken = Timer(works, repetitions, device)
        ratios = [count * clock["stock"] / clock["ours"] for clock in (taken.cpu, taken.wall)]
        print(f"{preset:28s} faster: CPU {ratios[0]:.2f}x, wall {ratios[1]:.2f}x, FLOPs {bound:.2f}x", flush=True)


def import_times() -> None:
    """CPU seconds of importing the package, and what of it explains networks, relative to importing torch."""
    modules = ("torch", "audio_lrp", "audio_lrp.attribution", "audio_lrp.faithfulness", "audio_lrp.models")
    taken: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(5):
        for module in modules:
            code = f"import time; begin = time.process_time(); import {module}; print(time.process_time() - begin)"
            run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
            taken[module].append(float(run.stdout))
    unit = statistics.median(taken["torch"])
    for module, seconds in taken.items():
        print(
            f"import {module:24s} {statistics.median(seconds):.2f} s, {statistics.median(seconds) / unit:.2f} of torch"
        )


def main() -> None:
    keep_freed_memory()  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--checkpoint", help="weights of a trained network, with one network only")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--classes", action="store_true", help="all classes at once as well")
    parser.add_argument("--imports", action="store_true", help="the time that importing takes, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.imports:
        import_times()
        return
    for name in options.networks:
        network = load(name, options.checkpoint, options.device)
        for batch in options.batch:
            print(f"\n{name}, batch {batch}")
            value = torch.randn(batch, *network.input_shape, device=options.device)
            if name == "AlexNet":
                value = value.abs().clamp(max=1)
            composites(network, value, options.presets, options.repetitions, options.device)
            if options.classes:
                all_classes(network, value[:16], options.presets, options.repetitions, options.device)


if __name__ == "__main__":
    main()
