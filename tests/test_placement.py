"""Placement of clips in the second."""

import numpy as np
import scipy.stats
import torch

from audio_lrp.data.placement import place, placement_offsets


def test_place_equals_numpy_loop() -> None:
    rng = np.random.default_rng(0)
    clips, lengths = np.zeros((5, 8000), dtype=np.float32), np.array([8000, 1, 4000, 7999, 300])
    for clip, length in zip(clips, lengths, strict=True):
        clip[:length] = rng.standard_normal(length)
    offsets = np.array([0, 7999, 123, 1, 7000])
    expected = np.zeros_like(clips)
    for row, (length, offset) in enumerate(zip(lengths, offsets, strict=True)):
        expected[row, offset : offset + length] = clips[row, :length]
    np.testing.assert_array_equal(place(torch.from_numpy(clips), torch.from_numpy(offsets)).numpy(), expected)


def test_offsets_are_uniform_and_in_range() -> None:
    count, length = 20_000, 3000
    index = torch.arange(count)
    for epoch in (0, 1, 7):
        offsets = placement_offsets(index, torch.full((count,), length), seed=3, epoch=epoch)
        assert 0 <= offsets.min() < 5
        assert 4990 < offsets.max() < 5000
        assert scipy.stats.kstest(offsets.numpy() / 5000, "uniform").pvalue > 1e-3


def test_offsets_depend_on_seed_epoch_and_recording_only() -> None:
    index, length = torch.arange(1000), torch.full((1000,), 4000)
    reference = placement_offsets(index, length, seed=0, epoch=0)
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(placement_offsets(index[shuffled], length, seed=0, epoch=0), reference[shuffled])
    others = [placement_offsets(index, length, seed=seed, epoch=epoch) for seed, epoch in ((0, 1), (1, 0), (0, -1))]
    for other in others:
        assert abs(np.corrcoef(other.numpy(), reference.numpy())[0, 1]) < 0.1
        assert (other == reference).float().mean() < 0.01


def test_clip_that_fills_the_second_stays() -> None:
    assert (placement_offsets(torch.arange(100), torch.full((100,), 8000), seed=0, epoch=0) == 0).all()
