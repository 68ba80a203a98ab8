"""Attribution methods under one call: LRP and what it competes with."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from zennit.core import Composite

from audio_lrp.attribution.attribute import attribute
from audio_lrp.attribution.guard import guarded, precision
from audio_lrp.constants import DEFAULT_COMPOSITE
from audio_lrp.errors import UserError


class AttributionMethod(ABC):
    """Gives each input value a score: what it had to say for the target.

    Subclass it and name your own method by its class path wherever one is asked for.
    """

    @abstractmethod
    def __call__(self, network: nn.Module, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Explain a network's outputs.

        Args:
            network: maps the input to logits [B, C]; it is left as it was.
            input: [B, ...], on the network's device.
            target: class index of each example, integer [B].

        Returns:
            Score of each input value, detached, same shape as the input.
        """


class LRP(AttributionMethod):
    """Layer-wise Relevance Propagation (Bach et al., 2015), see `audio_lrp.attribution.attribute`.

    Args:
        composite: name of a preset or a zennit composite.
        chunk_size: how many examples are explained at once.
    """

    def __init__(self, composite: str | Composite = DEFAULT_COMPOSITE, chunk_size: int = 16) -> None:
        self.composite = composite
        self.chunk_size = chunk_size

    def __call__(self, network: nn.Module, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Relevance of each input value, in logits."""
        return attribute(network, input, target, self.composite, chunk_size=self.chunk_size).relevance


class Captum(AttributionMethod):
    """An attribution method of `captum <https://captum.ai>`_ that needs no more than input and target.

    Args:
        method: name of its class in ``captum.attr``, e.g. ``"IntegratedGradients"`` (Sundararajan et al., 2017),
            ``"InputXGradient"``, ``"Saliency"`` (Simonyan et al., 2014), ``"DeepLift"``.
        options: arguments of its ``attribute`` besides input and target, e.g. ``{"n_steps": 50}``.
        chunk_size: how many examples are explained at once.

    Raises:
        UserError: captum has no method of that name.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
        >>> Captum("Saliency")(network, torch.ones(4, 1, 3), torch.tensor([0, 1, 1, 0])).shape
        torch.Size([4, 1, 3])
    """

    def __init__(self, method: str, options: Mapping[str, Any] | None = None, chunk_size: int = 16) -> None:
        import captum.attr  # takes a second, and only those who use it need it

        known = [name for name in captum.attr.__all__ if hasattr(getattr(captum.attr, name), "attribute")]
        if method not in known:
            nearest = difflib.get_close_matches(method, known, n=1, cutoff=0.0)[0]
            raise UserError(f"captum.attr has no method {method!r}: did you mean {nearest!r}?")
        self.method = method
        self.options = dict(options or {})
        self.chunk_size = chunk_size

    def __call__(self, network: nn.Module, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Score of each input value."""
        import captum.attr

        with guarded(network) as unwrapped:
            explainer = getattr(captum.attr, self.method)(unwrapped)
            dtype = precision(unwrapped)
            parts = [
                explainer.attribute(
                    part.detach().to(dtype).clone().requires_grad_(), target=chosen.long().clone(), **self.options
                ).detach()
                for part, chosen in zip(
                    torch.split(input, self.chunk_size), torch.split(target, self.chunk_size), strict=True
                )
            ]
        return torch.cat(parts).to(dtype)  # captum's occlusion gives float32


class Occlusion(AttributionMethod):
    """How far the target's logit falls without a stretch of the input (Zeiler and Fergus, 2014), by captum.

    Args:
        samples: samples per stretch of a waveform; 80 are 10 ms at 8 kHz.
        side: bins and frames per side of a square of a spectrogram.
        silence: the input value that stands for silence.
        chunk_size: how many examples are explained at once, with eight stretches each.
    """

    def __init__(self, samples: int = 80, side: int = 16, silence: float = 0.0, chunk_size: int = 16) -> None:
        self.samples = samples
        self.side = side
        self.silence = silence
        self.chunk_size = chunk_size

    def __call__(self, network: nn.Module, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Fall of the target's logit, the same for all values of a stretch."""
        side = self.samples if input.ndim == 3 else self.side
        stretch = (input.shape[1], *(min(side, size) for size in input.shape[2:]))
        options = {
            "sliding_window_shapes": stretch,
            "strides": stretch,
            "baselines": self.silence,
            "perturbations_per_eval": 8,
        }
        return Captum("Occlusion", options, self.chunk_size)(network, input, target)


class RandomRelevance(AttributionMethod):
    """Independent Gaussian scores: what any explanation must beat.

    Args:
        seed: of the scores; torch's global generators are neither used nor advanced.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, network: nn.Module, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Scores that know nothing of the network."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(input.shape, generator=generator, dtype=input.dtype).to(input.device)


class Amplitude(AttributionMethod):
    """Distance from silence: what any explanation of audio must beat.

    Args:
        silence: the input value that stands for silence: 0 for waveforms, the floor for spectrograms.
    """

    def __init__(self, silence: float = 0.0) -> None:
        self.silence = silence

    def __call__(self, network: nn.Module, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Loudness, which knows nothing of the network."""
        return (input.detach() - self.silence).abs()


METHODS = (
    "lrp",
    "gradient_times_input",
    "integrated_gradients",
    "saliency",
    "occlusion",
    "random",
    "amplitude",
)
"""Names of the shipped methods."""


def method_by_name(name: str) -> AttributionMethod:
    """A shipped method with its usual settings.

    Args:
        name: one of `METHODS`.

    Raises:
        UserError: an unknown name.

    Example:
        >>> method_by_name("gradient_times_input").method
        'InputXGradient'
    """
    match name:
        case "lrp":
            return LRP()
        case "gradient_times_input":
            return Captum("InputXGradient")
        case "integrated_gradients":
            return Captum("IntegratedGradients", {"n_steps": 32, "internal_batch_size": 64})
        case "saliency":
            return Captum("Saliency")
        case "occlusion":
            return Occlusion()
        case "random":
            return RandomRelevance()
        case "amplitude":
            return Amplitude()
    raise UserError(f"unknown attribution method {name!r}: choose one of {', '.join(METHODS)}")
