"""STFT relevance of waveforms: the transform against the dense matrix of the virtual inspection layer.

Run it as a program; it prints one table::

    python tests/benchmarks/timefrequency.py
    python tests/benchmarks/timefrequency.py --num-samples 2000 --batch-size 16 --device cuda

Every method runs in a process of its own, so that its peak memory is its own: the resident memory on a CPU, the
allocated one on a GPU, less what the process held before.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import Tensor

from audio_lrp.timefrequency.stft import STABILIZER, STFT

WINDOW, HOP = 455, 35


def make_stft(num_samples: int) -> STFT:
    return STFT(num_samples, torch.hann_window(WINDOW, dtype=torch.float64), HOP)


def dense_matrices(stft: STFT, device: str) -> Tensor:
    """Inverse STFT of real and of imaginary parts [2, frames * bins, num_samples], the inspection layer's weights."""
    offsets, bins = np.arange(WINDOW), np.arange(stft.num_bins)[:, None]
    inverse = np.where(bins == 0, 1, 2) * np.exp(2j * np.pi * bins * offsets / WINDOW) / WINDOW
    inverse = inverse * stft.synthesis_window.numpy()
    weighted = torch.from_numpy(np.stack([inverse.real, -inverse.imag])).float().to(device)
    matrices = torch.zeros(2, stft.num_frames, stft.num_bins, stft.num_samples, device=device)
    overlap = torch.zeros(stft.num_samples)
    for frame in range(stft.num_frames):
        start = stft.start + frame * HOP
        begin, end = max(0, start), min(stft.num_samples, start + WINDOW)
        inside = slice(begin - start, end - start)
        matrices[:, frame, :, begin:end] = weighted[..., inside]
        overlap[begin:end] += (stft.window * stft.synthesis_window)[inside]
    return matrices.flatten(1, 2).div_(overlap.to(device))


def by_matrix(stft: STFT, device: str) -> Callable[[Tensor, Tensor], Tensor]:
    matrices = dense_matrices(stft, device)

    def relevance(signal: Tensor, of_samples: Tensor) -> Tensor:
        quotient = of_samples / signal
        spectrum = stft.spectrum(signal).transpose(-1, -2)
        parts = (spectrum.real, spectrum.imag)
        handed_on = [part * (quotient @ matrix.T).view_as(part) for part, matrix in zip(parts, matrices, strict=True)]
        return (handed_on[0] + handed_on[1]).transpose(-1, -2)

    return relevance


def by_transform(stft: STFT, device: str) -> Callable[[Tensor, Tensor], Tensor]:
    return stft.relevance


def by_stabilized_transform(stft: STFT, device: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda signal, relevance: stft.relevance(signal, relevance, stabilizer=STABILIZER)


METHODS = {"dense matrix": by_matrix, "transform": by_transform, "transform, stabilized": by_stabilized_transform}


def peak_memory(device: str) -> int:
    """Bytes."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(method: str, batch_size: int, num_samples: int, repetitions: int, device: str, reply: Connection) -> None:
    """Reply with seconds to prepare, median seconds per call, bytes, and the largest error of a total."""
    generator = torch.Generator().manual_seed(0)
    signal, gradient = (torch.randn(batch_size, num_samples, generator=generator).to(device) for _ in range(2))
    relevance = signal * gradient
    before = peak_memory(device)
    stft = make_stft(num_samples)
    begin = time.perf_counter()
    function = METHODS[method](stft, device)
    prepared = time.perf_counter() - begin
    seconds = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        result = function(signal, relevance)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    error = (result.sum(dim=(-1, -2)) - relevance.sum(dim=-1)).abs() / relevance.abs().sum(dim=-1)
    reply.send((prepared, float(np.median(seconds)), peak_memory(device) - before, error.max().item()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of STFT relevance, by matrix and by transform.")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-samples", type=int, default=8000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    stft = make_stft(options.num_samples)
    print(
        f"{options.batch_size} waveforms of {options.num_samples} samples, float32, {stft.num_frames} frames x "
        f"{stft.num_bins} bins, {options.device}, {torch.get_num_threads()} threads"
    )
    print(f"{'method':<24}{'prepare':>10}{'per batch':>12}{'peak memory':>14}{'sum error':>12}")
    context = multiprocessing.get_context("spawn")
    found = {}
    for method in METHODS:
        receiver, sender = context.Pipe(duplex=False)
        arguments = (method, options.batch_size, options.num_samples, options.repetitions, options.device, sender)
        process = context.Process(target=measure, args=arguments)
        process.start()
        sender.close()
        try:
            prepared, seconds, memory, error = found[method] = receiver.recv()
        except EOFError:
            print(f"{method:<24} failed, out of memory?")
            continue
        finally:
            process.join()
        print(f"{method:<24}{prepared:>8.2f} s{seconds:>10.3f} s{memory / 1e6:>11.0f} MB{error:>12.1e}")
    if {"dense matrix", "transform"} <= found.keys():
        dense, ours = found["dense matrix"], found["transform"]
        print(f"the transform takes 1/{dense[1] / ours[1]:.0f} of the time, 1/{dense[2] / ours[2]:.0f} of the memory")


if __name__ == "__main__":
    main()
