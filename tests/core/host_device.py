"""A device whose tensors live on the host, and that rejects others as a GPU does.

On a GPU a product of a tensor there and one of the host is an error, and on the host it would
pass. `OnDevice` is a tensor that reports `DEVICE` and holds its values on the host.
Operations give such tensors again. With others beside them they fail, but for what a GPU takes too:
numbers (no dimensions), indices, and the source of a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
"""A real device of torch, so that names and factories know it."""
TAKES_INDICES = ("aten.index.", "aten.index_put", "aten._index_put_impl")
"""Operations whose second argument may be of the host if the first is on the device."""


class OnDevice(Tensor):
    """Reports to be on `DEVICE`; `host` are its values."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls, host.shape, strides=host.stride(), dtype=host.dtype, device=DEVICE
        )
        made.host = host
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """What is made for the device, of nothing or of host tensors, is on it."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


def moved(module: nn.Module) -> nn.Module:
    """The module with its weights and buffers on the device."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                on_device = OnDevice(weight.detach())
                part._parameters[name] = nn.Parameter(on_device, weight.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = OnDevice(value)
    return module


@contextmanager
def in_use(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block tensors can be made on the device."""
    for name in ("tensor", "as_tensor"):  # these do not pass through the mode
        monkeypatch.setattr(torch, name, _made_by(getattr(torch, name)))
    with _Factories():
        yield


def _made_by(make):
    def made(data, *, device=None, **settings):
        tensor = make(data, **settings)
        return OnDevice(tensor) if _is_ours(device) else tensor

    return made


def _is_ours(device) -> bool:
    return device is not None and torch.device(device) == DEVICE


def _run(operation, args, kwargs):
    compared = args
    if str(operation).startswith("aten.copy_."):
        compared = args[:1]
    elif str(operation).startswith(TAKES_INDICES) and isinstance(args[0], OnDevice):
        compared = args[:1] + args[2:]
    ours = [x for x in tree_leaves((args, kwargs)) if isinstance(x, OnDevice)]
    tensors = (x for x in tree_leaves((compared, kwargs)) if isinstance(x, Tensor))
    foreign = [tuple(x.shape) for x in tensors if not isinstance(x, OnDevice) and x.dim()]
    if ours and foreign:
        raise RuntimeError(f"{operation}: tensors {foreign} are not on the device")
    on_device, requested = bool(ours), kwargs.get("device")
    if requested is not None:
        on_device, kwargs = _is_ours(requested), kwargs | {"device": "cpu"}
    args, host_kwargs = tree_map(lambda x: getattr(x, "host", x), (args, kwargs))
    result = operation(*args, **host_kwargs)
    if operation._schema.is_mutable:  # in place: what was given is what comes back
        return next((x for x in ours if x.host is result), result)
    return tree_map(lambda x: OnDevice(x) if on_device and isinstance(x, Tensor) else x, result)
