"""A device without the hardware: tensors that say they lie on it and refuse to meet others, but hold their values here.

What PyTorch would refuse on a real one, tensors of two devices in one operation or NumPy that looks into its memory, is
refused; results are those of a CPU. On "meta" also backward passes work, which PyTorch runs in this thread then.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
"""The operations that may have tensors of two devices."""

_ANSWERS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
"""Operations whose result is a number or a size, for which this thread waits."""

waits: list[str] = []
"""Operations in `pretended` for which a GPU would have been waited for."""


class Elsewhere(Tensor):
    """A tensor on the pretended device."""

    value: Tensor

    @staticmethod
    def __new__(cls, value: Tensor, device: torch.device) -> "Elsewhere":
        layout: dict[str, Any] = {"strides": value.stride(), "storage_offset": value.storage_offset()}
        tensor = Tensor._make_wrapper_subclass(cls, value.shape, dtype=value.dtype, device=device, **layout)
        tensor.value = value
        return tensor

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, _: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        flat = tree_flatten((args, kwargs))[0]
        return _run(next(each.device for each in flat if isinstance(each, cls)), operation, args, kwargs or {})

    def numpy(self, **_: Any) -> Any:
        """Refused, as by a GPU's tensors."""
        raise TypeError(f"can't convert a tensor on {self.device} to numpy")

    __array__ = numpy

    def tolist(self) -> Any:
        """PyTorch's own would look into memory that is not there."""
        waits.append("tolist")
        return self.value.tolist()

    def new_tensor(self, data: Any) -> Tensor:
        """PyTorch's own would be made here, unseen."""
        return self.value.new_tensor(data).to(self.device)


class _Pretending(TorchDispatchMode):
    """Sees the operations that make tensors on the device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(
        self, operation: Any, _: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if operation._can_decompose() and torch.is_inference_mode_enabled():  # else PyTorch has done it
            with self:
                return operation.decompose(*args, **(kwargs or {}))
        return _run(self._device, operation, args, kwargs or {})


def _run(device: torch.device, operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    there = [each for each in tensors if isinstance(each, Elsewhere)]
    # A single number on the CPU may meet the tensors of any device.
    if there and operation not in _COPIES and any(each.ndim and not isinstance(each, Elsewhere) for each in tensors):
        raise RuntimeError(f"{operation} has tensors on {device} and on the CPU")
    chosen = operation is torch.ops.aten.index.Tensor and any(
        each is not None and each.dtype == torch.bool for each in args[1]
    )
    if there and (operation in _ANSWERS or chosen):
        waits.append(str(operation))
    wanted = isinstance(args[0], Elsewhere) if operation is torch.ops.aten.copy_.default else bool(there)
    if kwargs.get("device") is not None:
        wanted = torch.device(kwargs["device"]).type == device.type
        if tensors and operation in _COPIES and wanted != bool(there):
            waits.append(str(operation))
        kwargs = {**kwargs, "device": torch.device("cpu")}
    known = {id(each.value): each for each in there}  # what an operation changes in place stays the same tensor
    args, kwargs = tree_map_only(Elsewhere, lambda each: each.value, (args, kwargs))
    made = operation(*args, **kwargs)

    def found(each: Tensor) -> Tensor:
        return known[id(each)] if id(each) in known else Elsewhere(each, device)

    return tree_map_only(Tensor, found, made) if wanted else made


@contextmanager
def pretended(name: str = "meta") -> Iterator[torch.device]:
    """Inside, ``tensor.to(device)`` and ``torch.arange(..., device=device)`` give tensors of a pretended device."""
    device = torch.device(name)
    waits.clear()
    autocast = torch.autocast

    def there(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def make_there(data: Any, *, device: Any = None, **options: Any) -> Tensor:
            made = make(data, **options)
            return made if device is None else made.to(device)

        return make_there

    def autocast_here(kind: str, **options: Any) -> torch.autocast:
        return autocast("cpu" if kind == name else kind, **options)

    with (
        mock.patch.object(torch, "tensor", there(torch.tensor)),
        mock.patch.object(torch, "as_tensor", there(torch.as_tensor)),
        mock.patch.object(torch, "autocast", autocast_here),
        _Pretending(device),
    ):
        yield device
