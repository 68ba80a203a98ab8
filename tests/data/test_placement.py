"""Placement of clips in the second."""

from itertools import combinations

import numpy as np
import scipy.stats
import torch

from audio_lrp.data.placement import centered_offsets, part_within_second, place, random_offsets, random_shifts


def test_place_equals_numpy_loop() -> None:
    rng = np.random.default_rng(0)
    clips, lengths = np.zeros((5, 8000), dtype=np.float32), np.array([8000, 1, 4000, 7999, 300])
    for clip, length in zip(clips, lengths, strict=True):
        clip[:length] = rng.standard_normal(length)
    offsets = np.array([0, 7999, 123, -5, 7900])
    expected = np.zeros_like(clips)
    for row, (length, offset) in enumerate(zip(lengths, offsets, strict=True)):
        for sample in range(length):
            if 0 <= offset + sample < 8000:
                expected[row, offset + sample] = clips[row, sample]
    np.testing.assert_array_equal(place(torch.from_numpy(clips), torch.from_numpy(offsets)).numpy(), expected)


def test_offsets_are_uniform_and_in_range() -> None:
    count, length = 20_000, 3000
    index = torch.arange(count)
    for epoch in (0, 1, 7):
        offsets = random_offsets(index, torch.full((count,), length), seed=3, epoch=epoch)
        assert 0 <= offsets.min() < 5
        assert 4990 < offsets.max() < 5000
        assert scipy.stats.kstest(offsets.numpy() / 5000, "uniform").pvalue > 1e-3


def test_offsets_depend_on_seed_epoch_and_recording_only() -> None:
    index, length = torch.arange(1000), torch.full((1000,), 4000)
    reference = random_offsets(index, length, seed=0, epoch=0)
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(random_offsets(index[shuffled], length, seed=0, epoch=0), reference[shuffled])
    others = [random_offsets(index, length, seed=seed, epoch=epoch) for seed, epoch in ((0, 1), (1, 0), (0, -1))]
    for one, other in combinations([reference, *others], 2):
        assert abs(np.corrcoef(one.numpy(), other.numpy())[0, 1]) < 0.1
        assert (one == other).float().mean() < 0.01


def test_clip_that_fills_the_second_stays() -> None:
    assert (random_offsets(torch.arange(100), torch.full((100,), 8000), seed=0, epoch=0) == 0).all()


def clips_of(lengths: list[int]) -> torch.Tensor:
    """Noise with an envelope, each clip from sample 0 on, in int16 scale [B, 8000]."""
    rng = np.random.default_rng(0)
    clips = np.zeros((len(lengths), 8000), dtype=np.float32)
    for clip, length in zip(clips, lengths, strict=True):
        envelope = np.exp(-0.5 * ((np.arange(length) / length - rng.uniform(0.2, 0.8)) / 0.1) ** 2)
        clip[:length] = 10 ** rng.uniform(1, 4) * envelope * rng.standard_normal(length)
    return torch.from_numpy(clips)


def test_centered_clips_have_their_centroid_in_the_middle() -> None:
    lengths = [3000, 3500, 4000, 700, 2, 1]
    clips = clips_of(lengths)
    offsets = centered_offsets(clips)
    for clip, offset in zip(clips.double().numpy(), offsets.tolist(), strict=True):
        centroid = sum(abs(sample) * time for time, sample in enumerate(clip)) / np.abs(clip).sum()
        assert abs(offset + centroid - 4000) <= 1  # a sample for rounding down, less than a tenth for the integers


def test_silence_around_a_sound_does_not_move_it() -> None:
    sounds = clips_of([3000, 1500])
    alone = place(sounds, centered_offsets(sounds))
    later = place(sounds, torch.tensor([700, 900]))
    assert torch.equal(place(later, centered_offsets(later)), alone)


def test_the_middle_does_not_depend_on_loudness_or_on_the_batch() -> None:
    clips = clips_of([3000, 5000, 6000])
    offsets = centered_offsets(clips)
    assert torch.equal(centered_offsets(clips * 2**-20), offsets)
    assert torch.equal(torch.cat([centered_offsets(clips[i : i + 1]) for i in range(3)]), offsets)


def test_a_word_at_the_edge_of_a_full_second_is_centered_too() -> None:
    clips = torch.zeros(3, 8000)
    clips[0, 7000] = clips[1, 0] = 1.0  # the third is silent
    offsets = centered_offsets(clips)
    assert offsets.tolist() == [-3000, 4000, 0]
    assert place(clips, offsets).nonzero().tolist() == [[0, 4000], [1, 4000]]
    first, length = part_within_second(offsets, torch.full((3,), 8000))
    assert (first.tolist(), length.tolist()) == ([0, 4000, 0], [5000, 4000, 8000])


def test_shifts_are_uniform_to_both_sides() -> None:
    shifts = random_shifts(torch.arange(100_000), 2, seed=1, epoch=5)
    counts = torch.bincount(shifts + 2, minlength=5)
    assert counts.sum() == 100_000
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert (random_shifts(torch.arange(10), 0, seed=0, epoch=0) == 0).all()


def test_shifts_depend_on_seed_and_epoch() -> None:
    drawn = [random_shifts(torch.arange(1000), 400, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for one, other in combinations(drawn, 2):
        assert (one == other).float().mean() < 0.02
