"""Units: what is removed from an input as a whole."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from audio_lrp.errors import UserError


class Units(ABC):
    """Divides the values of an input into units, each of which is removed as a whole.

    Subclasses say to which unit each value belongs; name your own by its class path wherever a unit is asked for.
    """

    @abstractmethod
    def numbers(self, shape: Sequence[int]) -> Tensor:
        """Number of the unit of each value, int64 of the given shape, counted from 0 without gaps.

        Args:
            shape: of one channel of an input: [N] for waveforms, [F, T] (frequency, time) for spectrograms.

        Raises:
            UserError: these units do not exist for inputs of this shape.
        """

    def check(self, shape: Sequence[int], dimensions: int) -> None:
        """Refuse shapes of another number of dimensions.

        Raises:
            UserError: names the units and the shape.
        """
        if len(shape) != dimensions:
            kind = "waveforms [N]" if dimensions == 1 else "spectrograms [F, T]"
            raise UserError(f"{type(self).__name__} divide {kind}, not inputs {list(shape)}: choose other units")


class Windows(Units):
    """Samples in a row of a waveform.

    Args:
        length: samples per window; 1: single samples, as in the paper. 40 to 80 are 5 to 10 ms at 8 kHz.

    Example:
        >>> Windows(3).numbers([8]).tolist()
        [0, 0, 0, 1, 1, 1, 2, 2]
    """

    def __init__(self, length: int = 1) -> None:
        self.length = _positive("length of Windows", length)

    def numbers(self, shape: Sequence[int]) -> Tensor:
        """Number of the window of each sample [N]."""
        self.check(shape, dimensions=1)
        return _grid(shape, [self.length])


class Patches(Units):
    """Rectangles of a spectrogram, by default single time-frequency bins.

    Args:
        bins: height in frequency bins.
        frames: width in frames.

    Example:
        >>> Patches(bins=2, frames=1).numbers([3, 2]).tolist()
        [[0, 1], [0, 1], [2, 3]]
    """

    def __init__(self, bins: int = 1, frames: int = 1) -> None:
        self.bins = _positive("bins of Patches", bins)
        self.frames = _positive("frames of Patches", frames)

    def numbers(self, shape: Sequence[int]) -> Tensor:
        """Number of the patch of each value [F, T]."""
        self.check(shape, dimensions=2)
        return _grid(shape, [self.bins, self.frames])


class Frames(Units):
    """Columns of a spectrogram: all frequencies of a moment.

    Args:
        frames: width in frames.
    """

    def __init__(self, frames: int = 1) -> None:
        self.frames = _positive("frames of Frames", frames)

    def numbers(self, shape: Sequence[int]) -> Tensor:
        """Number of the column of each value [F, T]."""
        self.check(shape, dimensions=2)
        return _grid(shape, [shape[0], self.frames])


class Bands(Units):
    """Rows of a spectrogram: a band of frequencies, all the time.

    Args:
        bins: height in frequency bins.
    """

    def __init__(self, bins: int = 1) -> None:
        self.bins = _positive("bins of Bands", bins)

    def numbers(self, shape: Sequence[int]) -> Tensor:
        """Number of the band of each value [F, T]."""
        self.check(shape, dimensions=2)
        return _grid(shape, [self.bins, shape[1]])


class Partition:
    """The units of inputs of one shape, on one device.

    Args:
        unit: how to divide; a number stands for windows of so many samples, or square patches of that side.
        shape: of one channel of the inputs, [N] or [F, T].
        device: of the inputs.

    Raises:
        UserError: units that do not fit the shape, or whose numbers are not as `Units.numbers` wants them.
    """

    def __init__(self, unit: int | Units, shape: Sequence[int], device: torch.device) -> None:
        if isinstance(unit, int):
            side = _positive("unit", unit)
            unit = Windows(side) if len(shape) == 1 else Patches(side, side)
        self._shape = list(shape)
        numbers = unit.numbers(shape)
        _check_numbers(type(unit).__name__, numbers, self._shape)
        self._numbers = numbers.flatten().to(device)
        self.count = int(self._numbers.max()) + 1
        self._single = torch.equal(self._numbers, torch.arange(len(self._numbers), device=device))

    def sum(self, values: Tensor) -> Tensor:
        """Sum of the values [B, C, *shape] in each unit, over all channels, float64 [B, U]."""
        sums = values.sum(dim=1, dtype=torch.float64).flatten(start_dim=1)
        if self._single:
            return sums
        return sums.new_zeros(len(sums), self.count).index_add_(1, self._numbers, sums)

    def spread(self, flags: Tensor) -> Tensor:
        """Give each unit's flag [R, U] to all its values [R, 1, *shape]."""
        values = flags if self._single else flags.index_select(1, self._numbers)
        return values.reshape(len(flags), 1, *self._shape)


def _grid(shape: Sequence[int], sides: Sequence[int]) -> Tensor:
    """Number of the cell of each value, cells in reading order; the last of a row or column is cut short."""
    numbers = torch.zeros(1, dtype=torch.long)
    for size, side in zip(shape, sides, strict=True):
        cells = torch.arange(size) // side
        numbers = numbers[..., None] * (int(cells[-1]) + 1) + cells
    return numbers[0]


def _check_numbers(name: str, numbers: Tensor, shape: list[int]) -> None:
    """Refuse numbers that would go wrong later, or pass unnoticed: units without values would count as removed."""
    if list(numbers.shape) != shape or numbers.dtype != torch.int64:
        raise UserError(
            f"the numbers of {name} are {numbers.dtype} of shape {list(numbers.shape)}: return one int64 for each "
            f"value of an input {shape}"
        )
    # the largest first: the counts of numbers without end would not fit into memory
    if numbers.min() < 0 or numbers.max() >= numbers.numel() or not numbers.flatten().bincount().all():
        raise UserError(
            f"the numbers of {name} lie between {int(numbers.min())} and {int(numbers.max())} and not each is some "
            "value's: count units from 0 without gaps"
        )


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"{name} is {value}: pass 1 or more")
    return value
