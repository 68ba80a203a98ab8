"""What it costs to make a training batch, beside the training step that consumes it.

Run it as a program, e.g. ``python tests/benchmarks/loader.py --batches 20``. Data modules, without workers, and
augmentations are those of the shipped configurations, on a corpus of tones; the parts of a batch and the training step
take turns, and medians count. Times are CPU times on one thread, which other programs on the machine disturb less than
wall-clock times, or with ``--threads 2`` wall-clock times on two. The floor of loading, placement and a waveform is to
copy a batch's samples once; that of a spectrogram the Fourier transforms of the frames that a clip touches.
"""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch: fewer page faults

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.resources import files
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
from fake_corpus import ToneCorpus

from audio_lrp.data import CorpusDataModule, augmentation
from audio_lrp.data.representation import Spectrogram
from audio_lrp.models import AlexNet, AudioNet
from audio_lrp.utils.allocator import keep_freed_memory

NETWORKS = {"audionet_digit": AudioNet, "alexnet_digit": AlexNet}
LOADING, REPRESENTATION, STEP = "loading", "placement, representation", "training step, bfloat16"
FLOOR = "floor of the two"


def data_module(config: dict[str, Any], folder: Path) -> CorpusDataModule:
    """The data module of a configuration, on tones."""
    settings = config["data"]["init_args"]
    data = CorpusDataModule(
        ToneCorpus(folder, speakers=6, repetitions=40),
        num_folds=3,
        representation=settings["representation"],
        batch_size=settings["batch_size"],
        placement=settings["placement"],
        cache_dir=str(folder / "cache"),
        augmentations=[
            getattr(augmentation, item["class_path"])(**item.get("init_args", {})) for item in settings["augmentations"]
        ],
    )
    data.prepare_data()
    data.setup("fit")
    return data


def measure(
    data: CorpusDataModule, network: torch.nn.Module, batches: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Milliseconds a batch, by part."""
    taken: dict[str, list[float]] = defaultdict(list)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    loader = chain.from_iterable(repeat(data.train_dataloader()))  # epoch after epoch
    begin = 0.0
    representation = data.input_representation

    def lap(part: str) -> None:
        nonlocal begin
        taken[part].append(1000 * (clock() - begin))
        begin = clock()

    for _ in range(batches):
        begin = clock()
        batch = next(loader)
        lap(LOADING)
        plain = data.represent(batch)
        lap(REPRESENTATION)
        if isinstance(representation, Spectrogram):
            sounding = (batch.length + representation.window_length) // representation.hop_length
            frames = torch.randn(int(sounding.sum()), representation.window_length)
            transformed = torch.fft.rfft(frames)
            begin = clock()
            torch.fft.rfft(frames, out=transformed)
        else:
            batch.input.clone()
        lap(FLOOR)
        clip, length = batch.input, batch.length
        for each in data.augmentations:
            begin = clock()
            clip, length = each.change_clip(clip, length)
            each.change_input(plain.input, 0.0) if changes_inputs(each) else None
            lap(type(each).__name__)
        begin = clock()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(network(plain.input).float(), plain.label)
        loss.backward()
        optimizer.step()
        lap(STEP)
    return {part: statistics.median(values[1:]) for part, values in taken.items()}


def changes_inputs(each: augmentation.Augmentation) -> bool:
    """Whether an augmentation changes network inputs."""
    return type(each).change_input is not augmentation.Augmentation.change_input


def report(name: str, times: dict[str, float], batch_size: int) -> None:
    """Print times and how many such batches could be made during one training step."""
    print(f"{name + f', batches of {batch_size}':<38}{'ms':>9}{'step / part':>13}")
    parts = {part: value for part, value in times.items() if part not in (LOADING, REPRESENTATION, FLOOR, STEP)}
    data = times[LOADING] + times[REPRESENTATION]
    rows = {
        FLOOR: times[FLOOR],
        LOADING: times[LOADING],
        REPRESENTATION: times[REPRESENTATION],
        "the two": data,
        **parts,
        "all of the augmentations": sum(parts.values()),
        "a whole training batch": data + sum(parts.values()),
        STEP: times[STEP],
    }
    for part, value in rows.items():
        print(f"{part:<38}{value:>9.2f}{times[STEP] / value:>13.1f}")
    print()


def main() -> None:
    keep_freed_memory()  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--batches", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    for name in options.configs:
        config = yaml.safe_load((files("audio_lrp.configs") / f"{name}.yaml").read_text())
        with tempfile.TemporaryDirectory() as folder:
            data = data_module(config, Path(folder))
            network = NETWORKS[name](data.num_classes).train()
            report(name, measure(data, network, options.batches, clock), data.batch_size)


if __name__ == "__main__":
    main()
