"""The one place that switches modes for an attribution, and switches all of them back."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, backends, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from zennit.core import Composite

from audio_lrp.errors import UserError


def unwrap(model: nn.Module) -> nn.Module:
    """The network itself, without the wrappers of ``torch.compile`` and data parallelism.

    A compiled wrapper ignores the hooks that carry the LRP rules and would silently return the plain gradient.
    """
    while True:
        if isinstance(model, DistributedDataParallel | DataParallel):
            model = model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled
        else:
            return model


def precision(network: nn.Module) -> torch.dtype:
    """The floating-point type a network is attributed in: float64 if it has float64 parameters, else float32."""
    has_double = any(parameter.dtype == torch.float64 for parameter in network.parameters())
    return torch.float64 if has_double else torch.float32


@contextmanager
def guarded(model: nn.Module, composite: Composite | None = None) -> Iterator[nn.Module]:
    """Make a network ready for attribution, whatever the caller was doing, and leave no trace.

    Inside, gradients are on (also within the caller's ``torch.inference_mode`` or ``torch.no_grad``), autocast and
    ``torch.compile`` are off, products of float32 are not rounded to fewer bits, every module is in eval mode,
    parameters and buffers are plain tensors of one floating-point type (see ``precision``: bfloat16 and float16
    weights are attributed in float32, with their exact values) that need no gradient, and the composite's canonizers
    and hooks are registered.

    Outside, also after an exception, everything is as before: the network's `Parameter` objects, values, ``.grad``
    and ``requires_grad``, buffers, each module's training flag and other attributes, hooks, and the state of torch's
    random number generators. A rule or canonizer never gets hold of the original `Parameter` objects: zennit 1.0.0's
    rules replace them, and its canonizers put others before them, after which an optimizer trains parameters that the
    network no longer uses.

    Args:
        model: the network, possibly wrapped by ``torch.compile``, ``DistributedDataParallel`` or ``DataParallel``.
        composite: zennit composite to register for the time being; None: no rules.

    Yields:
        The unwrapped network. Tensors given to it must be made inside the guard, or cloned there.

    Raises:
        UserError: the network lies on an Apple GPU.
    """
    network = unwrap(model)
    devices = {parameter.device for parameter in network.parameters()}
    if any(device.type == "mps" for device in devices):
        raise UserError(
            "relevance is accounted for in float64, which Apple's GPUs (MPS) do not have: move network and input to "
            "the CPU"
        )
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device for device in devices if device.type == "cuda"]))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in {"cpu"} | {device.type for device in devices}:
            stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled modules inside the network
        stack.enter_context(_full_precision())
        stack.enter_context(_stand_ins(network))
        if composite is not None:
            stack.callback(composite.remove)  # before register: it may fail halfway
            composite.register(network)
        yield network


@contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32 or bfloat16 in the place of float32, which cuDNN's convolutions take unless told otherwise.

    What a unit's inputs contribute would not sum to its output, and relevance be lost by a thousandth in every layer.
    """
    libraries: list[Any] = [backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv]  # type: ignore[attr-defined]
    before = [library.fp32_precision for library in libraries]
    try:
        for library in libraries:
            library.fp32_precision = "ieee"
        yield
    finally:
        for library, found in zip(libraries, before, strict=True):
            library.fp32_precision = found


@contextmanager
def _stand_ins(network: nn.Module) -> Iterator[None]:
    """Eval mode, with copies of buffers, and stand-ins for parameters that share their memory where they can."""
    dtype = precision(network)
    found = [(module, dict(vars(module))) for module in network.modules()]
    # Some networks count or average in their forward, in place and whatever the mode.
    copies = {id(value): _plain(value, dtype).clone() for value in network.buffers()}
    try:
        for module, _ in found:
            module.training = False
            module._parameters = {
                name: None if value is None else nn.Parameter(_plain(value, dtype), requires_grad=False)
                for name, value in module._parameters.items()
            }
            module._buffers = {name: copies.get(id(value)) for name, value in module._buffers.items()}
        yield
    finally:
        for module, attributes in found:
            vars(module).clear()
            vars(module).update(attributes)


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The same values, of the given type if floating-point, as a tensor that autograd can save."""
    tensor = tensor.detach()
    if tensor.is_floating_point():
        tensor = tensor.to(dtype)
    return tensor.clone() if tensor.is_inference() else tensor
