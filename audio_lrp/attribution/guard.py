"""The one place that switches modes for an attribution, and switches all of them back."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, backends, nn
from torch.nn.modules.module import _global_backward_hooks, _global_backward_pre_hooks
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode, _len_torch_function_stack, _pop_mode  # type: ignore[attr-defined]
from torch.utils.hooks import RemovableHandle

from audio_lrp.errors import UserError

_LOCK = threading.RLock()
"""Held by the thread that explains: precision, stance and random state belong to the process, not to a thread."""
if hasattr(os, "register_at_fork"):
    # A child process would find it held for ever, and the network half changed.
    os.register_at_fork(before=_LOCK.acquire, after_in_child=_LOCK.release, after_in_parent=_LOCK.release)


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
def guarded(model: nn.Module) -> Iterator[nn.Module]:
    """Make a network ready for attribution, whatever the caller was doing, and leave no trace.

    Inside, gradients are on (also within the caller's ``torch.inference_mode`` or ``torch.no_grad``), autocast and
    ``torch.compile`` are off, also where the network's own forward turns them on, products of float32 are not rounded
    to fewer bits, every module is in eval mode and without backward hooks, and parameters and buffers are plain tensors
    of one floating-point type (see ``precision``: bfloat16 and float16 weights are attributed in float32, with their
    exact values, and what the network converts to these types stays in float32) that need no gradient. One thread at a
    time is inside; others wait. A thread that only runs the network, or takes its gradient by the input, need not wait:
    it finds the network in eval mode and without rules, unless they are zennit's, which cannot tell threads apart.

    Outside, also after an exception, everything is as before: the network's `Parameter` objects, values, ``.grad``
    and ``requires_grad``, buffers, each module's training flag and other attributes, hooks, and the state of torch's
    random number generators. A rule or canonizer registered inside never gets hold of the original `Parameter` objects:
    zennit 1.0.0's rules replace them, and its canonizers put others before them, after which an optimizer trains
    parameters that the network no longer uses.

    Args:
        model: the network, possibly wrapped by ``torch.compile``, ``DistributedDataParallel`` or ``DataParallel``.

    Yields:
        The unwrapped network. Tensors given to it must be made inside the guard, or cloned there.

    Raises:
        UserError: the network lies on an Apple GPU, has parameters without values, or is TorchScript.
    """
    network = unwrap(model)
    _check_modules(network)
    devices = {parameter.device for parameter in network.parameters()}
    with ExitStack() as stack:
        stack.enter_context(_LOCK)
        stack.callback(_leave_modes, _len_torch_function_stack())
        stack.enter_context(torch.random.fork_rng([device for device in devices if device.type == "cuda"]))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in {"cpu"} | {device.type for device in devices}:
            stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled modules inside the network
        stack.enter_context(_full_precision())
        stack.enter_context(_substitutes(network))
        _keep_plain(network)
        yield network


def holds_nothing(tensor: Tensor) -> bool:
    """Whether a tensor has a shape but no values; a class with dispatch of its own may hold them elsewhere."""
    return tensor.is_meta and type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__


def _leave_modes(depth: int) -> None:
    """Leave the modes that an interrupt kept from being left."""
    while _len_torch_function_stack() > depth:
        _pop_mode()  # type: ignore[no-untyped-call]


def _check_modules(network: nn.Module) -> None:
    """Refuse what has no values, no Python code or no float64."""
    for name, module in network.named_modules():
        place = f"module {name!r} ({type(module).__name__})" if name else f"the network ({type(module).__name__})"
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(f"{place} is TorchScript, whose operations no rule sees: pass the module it was made from")
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if "_fsdp_wrapped_module" in module._modules or any(hasattr(tensor, "full_tensor") for tensor in tensors):
            raise UserError(
                f"{place} has its weights spread over several processes: load its full state dict into a plain "
                "network and explain that"
            )
        if any(map(is_lazy, tensors)):
            raise UserError(f"{place} has no weights yet: run the network once, so that it learns its input's shape")
        devices = {tensor.device.type for tensor in tensors}
        if any(map(holds_nothing, tensors)):
            raise UserError(f"{place} lies on the meta device, which holds no values: load its weights")
        if "mps" in devices:
            raise UserError(
                "relevance is accounted for in float64, which Apple's GPUs (MPS) do not have: move network and input "
                "to the CPU"
            )


_CONVERSIONS = (Tensor.half, Tensor.bfloat16, Tensor.to, Tensor.type, Tensor.type_as)


class _PlainForward(TorchFunctionMode):
    """No autocast and no half precision that the network asks for itself, and no hooks on its gradients."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The call, in the one type."""
        if func is Tensor.register_hook:
            return RemovableHandle(OrderedDict())  # gradients carry relevance now
        if func in _CONVERSIONS:
            converted = func(*args, **(kwargs or {}))
            is_half = isinstance(converted, Tensor) and _is_half(converted.dtype)
            return args[0].to(converted.device, self._dtype) if is_half else converted
        args = tuple(self._dtype if _is_half(value) else value for value in args)
        kwargs = {name: self._dtype if _is_half(value) else value for name, value in (kwargs or {}).items()}
        for device_type in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device_type):
                with torch.autocast(device_type, enabled=False):
                    return func(*args, **kwargs)
        return func(*args, **kwargs)


def _keep_plain(network: nn.Module) -> None:
    """Run the network's forward as a plain one, as long as its substitutes are there."""
    forward, dtype = network.forward, precision(network)

    @wraps(forward)
    def plain(*args: Any, **kwargs: Any) -> Any:
        with _PlainForward(dtype):
            return forward(*args, **kwargs)

    vars(network)["forward"] = plain


def _is_half(value: object) -> bool:
    return isinstance(value, torch.dtype) and value in (torch.float16, torch.bfloat16)


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
def _substitutes(network: nn.Module) -> Iterator[None]:
    """Eval mode, with copies of buffers, and substitutes for parameters that share their memory where they can."""
    dtype = precision(network)
    found = [(module, dict(vars(module))) for module in network.modules()]
    everywhere = [(hooks, dict(hooks)) for hooks in (_global_backward_hooks, _global_backward_pre_hooks)]
    # Some networks count or average in their forward, in place and whatever the mode.
    copies = {id(value): _plain(value, dtype).clone() for value in network.buffers()}
    try:
        for hooks, _ in everywhere:
            hooks.clear()
        for module, attributes in found:
            # Copies: whatever an interrupt leaves behind goes with them.
            vars(module).update({name: value.copy() for name, value in attributes.items() if name.endswith("_hooks")})
            module.training = False
            module._backward_hooks, module._backward_pre_hooks = OrderedDict(), OrderedDict()  # they change gradients
            module._parameters = {
                name: None if value is None else nn.Parameter(_plain(value, dtype), requires_grad=False)
                for name, value in module._parameters.items()
            }
            module._buffers = {name: copies.get(id(value)) for name, value in module._buffers.items()}
        yield
    finally:
        for module, attributes in found:
            present = vars(module)
            present.update(attributes)  # at no time is one missing: another thread may be running the network
            for name in present.keys() - attributes.keys():
                del present[name]
        for hooks, before in everywhere:
            hooks.update(before)


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The same values, of the given type if floating-point, as a tensor that autograd can save."""
    tensor = tensor.detach()
    if tensor.is_floating_point():
        tensor = tensor.to(dtype)
    return tensor.clone() if tensor.is_inference() else tensor
