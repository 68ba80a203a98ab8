"""What LRPCallback costs, as a share of an epoch of AudioMNIST (18,000 training clips), and what of it costs how much.

Run by hand, e.g. ``python tests/benchmarks/lrp_callback.py --networks AudioNet --checkpoint last.ckpt``. Times are
process CPU time (other programs on the machine disturb it less than wall time) on one thread; training steps and
explanations take turns, and the median of the repetitions counts. The epoch is reckoned as 18,000 clips at the
measured time of a step, without loading, augmentation and validation, so that the true share is smaller. Runs are
logged to W&B, offline; W&B's own process, which writes and uploads beside the training, is measured apart.
"""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch: fewer page faults

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger

sys.path.insert(0, str(Path(__file__).parents[1]))
from fake_corpus import ToneCorpus

from audio_lrp.callbacks import LRPCallback, lrp
from audio_lrp.data import CorpusDataModule
from audio_lrp.models import AlexNet, AudioNet, Classifier
from audio_lrp.tracking import make_wandb_logger, wandb_session
from audio_lrp.utils.allocator import keep_freed_memory

EPOCH = 18_000
BATCH = 32
NETWORKS = {"AudioNet": (AudioNet, "waveform"), "AlexNet": (AlexNet, "spectrogram")}
PARTS = {
    "attribute": "attribution",
    "perturbation_curves": "perturbation curves",
    "explained_clips": "titles",
    "save_relevance": "arrays",
    "publish": "encoding and W&B's queue",
}
"""Functions that the callback calls, and what they do."""


class Stopwatch:
    """CPU time by name; the first time warms up, unless it is the only one."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = defaultdict(list)

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            begin = time.process_time()
            result = work(*args, **kwargs)
            # A generator's work happens when it is read.
            result = list(result) if hasattr(result, "__next__") else result
            self.taken[name].append(time.process_time() - begin)
            return result

        return wrapper

    def median(self, name: str) -> float:
        return statistics.median(self.taken[name][1:] or self.taken[name])


def measure(name: str, checkpoint: Path | None, repetitions: int, folder: Path) -> None:
    class_, representation = NETWORKS[name]
    data = CorpusDataModule(ToneCorpus(folder / "corpus", speakers=6), num_folds=3, representation=representation)
    model = Classifier(class_, data.num_classes, representation)
    if checkpoint is not None:
        model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    logger = make_wandb_logger(WandbLogger, save_dir=str(folder / "run" / "now"), project="benchmark")
    trainer = L.Trainer(accelerator="cpu", logger=logger, enable_progress_bar=False, default_root_dir=folder)
    data.prepare_data()
    data.setup("fit")
    trainer.datamodule, trainer.strategy._lightning_module = data, model
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = data.examples("validate", BATCH, seed=0)
    batch.input = batch.input.repeat(-(-BATCH // len(batch)), *[1] * (batch.input.dim() - 1))[:BATCH]
    label = torch.arange(BATCH) % data.num_classes

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model.train()(batch.input), label).backward()
        optimizer.step()

    watch = Stopwatch()
    callback = LRPCallback(on_error="raise")
    with torch.random.fork_rng():
        for repetition in range(repetitions):
            for _ in range(3):
                watch.timed("step", step)()
            patches = [patch.object(lrp, part, watch.timed(part, getattr(lrp, part))) for part in PARTS]
            trainer.fit_loop.epoch_loop._batches_that_stepped = repetition
            for each in patches:
                each.start()
            watch.timed("all", lambda: callback._explain_examples(trainer, model, "validate"))()
            for each in patches:
                each.stop()
    epoch = watch.median("step") * EPOCH / BATCH
    share = watch.median("all") / epoch
    print(f"  epoch {epoch:.0f} s, callback {watch.median('all'):.2f} s: {share:.2%} of an epoch")
    for part, title in PARTS.items():
        if watch.taken[part]:
            print(f"    {title:<26}{watch.median(part):8.3f} s {watch.median(part) / epoch:8.2%}")


def main() -> None:
    keep_freed_memory()  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--checkpoint", type=Path, help="weights of a trained network, of the only one in --networks")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.networks:
        print(name)
        with tempfile.TemporaryDirectory() as folder:
            begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            with wandb_session():
                measure(name, options.checkpoint, options.repetitions, Path(folder))
            own = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin
            print(f"    W&B's own process, in all {own:.2f} s for {options.repetitions} explanations")


if __name__ == "__main__":
    main()
