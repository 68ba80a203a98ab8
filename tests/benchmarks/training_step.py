"""A training step of the shipped networks beside the same networks written plainly, and Lightning beside a bare loop.

Run it as a program, e.g. ``python tests/benchmarks/training_step.py --repetitions 3``; with
``THP_MEM_ALLOC_ENABLE=0`` in the environment it shows what huge pages are worth, with ``MALLOC_TOP_PAD_=0`` what it is
to keep freed memory. Plain means: ``nn.Conv1d`` and the ReLU before the pooling as in the paper's table (AudioNet),
PyTorch's own memory layout (both). All variants take the same weights and batch and AdamW in one pass; they take turns,
and medians count. Times are CPU times, which other programs on the machine disturb less than wall-clock times. The
floor is the multiplications of a step (three times those forward) at the rate of a matrix product of 2048 x 2048 in
the same precision.
"""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from fake_corpus import ToneCorpus
from plain_audionet import plain_audionet

from audio_lrp.callbacks import FiniteLossCallback, WeightAveragingCallback
from audio_lrp.data import CorpusDataModule
from audio_lrp.models import AlexNet, AudioNet, Classifier
from audio_lrp.utils.allocator import keep_freed_memory

NETWORKS = {"AudioNet": AudioNet, "AlexNet": AlexNet}
PRECISIONS = {"float32": False, "bfloat16": True}


def plain(network: nn.Module) -> nn.Module:
    """The same function and weights as they would be written at first."""
    if isinstance(network, AudioNet):
        twin = plain_audionet()
        shapes = {name: value.shape for name, value in twin.state_dict().items()}
        twin.load_state_dict({name: value.reshape(shapes[name]) for name, value in network.state_dict().items()})
        return twin
    twin = AlexNet()
    twin.load_state_dict(network.state_dict())
    return twin.to(memory_format=torch.contiguous_format)


def make_step(network: nn.Module, network_input: Tensor, label: Tensor, bfloat16: bool) -> Callable[[], Tensor]:
    """One training step on a fixed batch; returns the loss."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = nn.functional.cross_entropy(network(network_input).float(), label)
        loss.backward()
        optimizer.step()
        return loss

    return step


def cpu_seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def product_rate(bfloat16: bool) -> float:
    """Floating-point operations a second of a large matrix product."""
    one = torch.randn(2048, 2048, dtype=torch.bfloat16 if bfloat16 else torch.float32)
    return 2 * 2048**3 / min(cpu_seconds(lambda: one @ one) for _ in range(4))


def compare_steps(name: str, batch_size: int, repetitions: int) -> None:
    """Print milliseconds a step of each variant, and the floor."""
    torch.manual_seed(0)
    network = NETWORKS[name](10)
    network_input = torch.randn(batch_size, *network.input_shape)
    label = torch.arange(batch_size) % 10
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(network_input)
    torch.testing.assert_close(plain(network).eval()(network_input), network(network_input), rtol=1e-4, atol=1e-4)
    variants = {
        (layout, precision): make_step(twin.train(), network_input, label, bfloat16)
        for precision, bfloat16 in PRECISIONS.items()
        for layout, twin in (("plain", plain(network)), ("shipped", plain_copy(network)))
    }
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in variants}
    for _ in range(repetitions + 1):
        for key, step in variants.items():
            taken[key].append(cpu_seconds(step))
    times = {key: statistics.median(values[1:]) for key, values in taken.items()}
    heading = f"{name}, batches of {batch_size}"
    print(f"{heading:<30}{'CPU ms':>9}{'clips/s':>9}{'x plain':>9}{'x plain float32':>17}{'x floor':>9}")
    for (layout, precision), seconds in times.items():
        floor = 3 * counter.get_total_flops() / product_rate(PRECISIONS[precision])
        print(
            f"  {layout + ', ' + precision:<28}{1000 * seconds:>9.0f}{batch_size / seconds:>9.1f}"
            f"{times['plain', precision] / seconds:>9.2f}{times['plain', 'float32'] / seconds:>17.2f}"
            f"{seconds / floor:>9.1f}"
        )


def plain_copy(network: nn.Module) -> nn.Module:
    """Another network of the same class and weights."""
    twin = type(network)(10)
    twin.load_state_dict(network.state_dict())
    return twin


class Laps(L.Callback):
    """CPU time from the beginning of one batch to that of the next."""

    def __init__(self) -> None:
        self.begins: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.begins.append(time.process_time())


def compare_loops(name: str, batch_size: int, steps: int, folder: Path) -> None:
    """Print CPU time a step of Lightning's loop, with the callbacks of the shipped recipes, and of a bare loop."""
    data = CorpusDataModule(
        ToneCorpus(folder / "tones", speakers=6, repetitions=40),
        num_folds=3,
        representation=NETWORKS[name].representation,
        batch_size=batch_size,
        cache_dir=str(folder / "cache"),
    )
    laps = Laps()
    callbacks = [
        laps,
        WeightAveragingCallback(),
        LearningRateMonitor("step"),
        FiniteLossCallback(),
    ]
    model = Classifier(NETWORKS[name], 10, data.representation, lambda p: torch.optim.AdamW(p, fused=True))
    trainer = L.Trainer(
        accelerator="cpu", precision="bf16-mixed", max_steps=steps + 1, limit_val_batches=0, num_sanity_val_steps=0,
        logger=CSVLogger(folder), callbacks=callbacks, enable_checkpointing=False, default_root_dir=folder,
    )  # fmt: skip

    def bare_loop() -> list[float]:
        data.trainer = None  # whose progress would be the position in the epoch
        optimizer = torch.optim.AdamW(model.train().parameters(), fused=True)
        begins = []
        for number, batch in enumerate(data.train_dataloader()):
            begins.append(time.process_time())
            if number == steps:
                break
            optimizer.zero_grad()
            batch = data.represent(batch, epoch=0)
            with torch.autocast("cpu", torch.bfloat16), patch.object(model, "log"):
                loss = model.training_step(batch, number)
            loss.backward()
            optimizer.step()
        return begins

    data.prepare_data()
    data.setup("fit")
    before = bare_loop()
    trainer.fit(model, datamodule=data)
    one, others = step_time(laps.begins), (step_time(before), step_time(bare_loop()))
    other = statistics.mean(others)
    print(
        f"  a step of Lightning {1000 * one:.0f} ms of CPU, of a bare loop {1000 * others[0]:.0f} ms before and "
        f"{1000 * others[1]:.0f} ms after it: {one / other - 1:+.1%}"
    )


def step_time(begins: list[float]) -> float:
    """Mean time of a step without the first, so that what happens at every tenth step counts."""
    return (begins[-1] - begins[1]) / (len(begins) - 2)


def main() -> None:
    keep_freed_memory()  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--loop_steps", type=int, default=12, help="steps for the comparison of loops; 0 for none")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.networks:
        compare_steps(name, options.batch_size, options.repetitions)
        if options.loop_steps:
            with tempfile.TemporaryDirectory() as folder:
                compare_loops(name, options.batch_size, options.loop_steps, Path(folder))


if __name__ == "__main__":
    main()
