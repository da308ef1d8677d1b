"""Devices that this machine need not have: every tensor stays on the CPU, with a label that says where it would be.

Within `pretended()` a tensor's `.device` is its label, `.to()` changes it, results get their arguments' label, and
an operation on two labels raises the RuntimeError that torch raises with two real devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)
CPU = torch.device("cpu")
_INDEXED = {Tensor.__getitem__, Tensor.__setitem__}  # an index may be on the CPU
_MOVES = {Tensor.to, Tensor.cpu, Tensor.type_as, torch.Tensor.cuda}


def label(tensor: Tensor) -> torch.device:
    return getattr(tensor, "_pretended", CPU)


def put(tensor: Tensor, device: torch.device) -> Tensor:
    tensor._pretended = device  # type: ignore[attr-defined]
    return tensor


class pretended(TorchFunctionMode):
    """The block in which labels count; `crossed` counts the moves from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.crossed = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if getattr(func, "__self__", None) is Tensor.device:
            return label(args[0])
        if getattr(func, "__self__", None) is Tensor.is_cuda:
            return label(args[0]).type == "cuda"
        requests = kwargs.pop("device", None)
        if func in _MOVES:
            return self._moved(func, args, kwargs, requests)
        where = self._one_device(func, given)
        out = func(*args, **kwargs)
        target = torch.device(requests) if requests is not None else where
        if func is Tensor.__setitem__ or (not given and requests is None):
            return out
        return tree_map_only(Tensor, lambda tensor: put(tensor, target), out)

    def _moved(self, func: Any, args: tuple, kwargs: dict, requests: Any) -> Tensor:
        tensor, *rest = args
        kwargs.pop("non_blocking", None)
        target = label(tensor) if requests is None else torch.device(requests)
        kept = []
        for one in rest:
            if isinstance(one, Tensor):
                target, one = label(one), one.dtype
            elif isinstance(one, torch.device | str):
                target, one = torch.device(one), None
            kept += [] if one is None or isinstance(one, bool) else [one]
        if func is Tensor.cpu:
            target = CPU
        if target.type == "cuda" and target.index is None:
            target = FIRST
        out = tensor.to(*kept, **kwargs) if kept or kwargs else tensor
        if target == label(tensor):
            return put(out, target)
        self.crossed += 1
        return put(out.clone() if out is tensor else out, target)

    @staticmethod
    def _one_device(func: Any, given: Sequence[Tensor]) -> torch.device:
        counted = [t for t in given if t is given[0] or label(t) != CPU] if func in _INDEXED else given
        places = {label(t) for t in counted if t.dim() or label(t) != CPU}
        if len(places) > 1:
            name = getattr(func, "__name__", func)
            raise RuntimeError(f"{name}: tensors on at least two devices: {', '.join(sorted(map(str, places)))}")
        return places.pop() if places else CPU


def split(model: Any, layers: Iterable[nn.Module], parts: Iterable[nn.Module]) -> None:
    """Half of the layers on the first device, half and `parts` on the second; inputs follow, as accelerate has them."""
    layers = list(layers)
    for tensor in (*model.parameters(), *model.buffers()):
        put(tensor, FIRST)
    for module in (*layers[len(layers) // 2 :], *parts):
        for tensor in (*module.parameters(), *module.buffers()):
            put(tensor, SECOND)
    for module in (*layers, *parts):
        place = label(next(module.parameters()))
        module.forward = partial(_following, module, place)


def _following(module: nn.Module, place: torch.device, *args: Any, **kwargs: Any) -> Any:
    args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to(place), (args, kwargs))
    return type(module).forward(module, *args, **kwargs)
