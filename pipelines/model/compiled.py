"""Compiled models: torch takes no notice of hooks that are added to a module after it was compiled."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

ORIGINAL = "_torchdynamo_orig_callable"  # what torch.compile was given, on what it returned


def uncompiled(model: Any) -> Any:
    """The module inside what `torch.compile(model)` returns; any other model is returned as it is."""
    return getattr(model, "_orig_mod", model)


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Within this block no module of the model is compiled, whoever compiled it and how; afterwards each is again.

    `module.compile()` keeps the compiled call in the module; a module whose `forward` the user has set to a compiled
    one, and a part that `torch.compile` wraps, have it as an attribute: what that was compiled from takes its place.
    torch's own switch (`torch.compiler.set_stance`) is left alone, because it concerns every model of every thread.

    Raises:
        ValueError: a class whose `forward` is compiled, for every model of that class at once.
    """
    with ExitStack() as undo:
        for module in model.modules():
            held = vars(module)
            if (call := held.get("_compiled_call_impl")) is not None:
                undo.callback(setattr, module, "_compiled_call_impl", call)
                module._compiled_call_impl = None
            for name in ("forward", "_old_forward"):  # the second is accelerate's, of a module that it has dispatched
                if (original := _original(held.get(name))) is not None:
                    undo.callback(setattr, module, name, held[name])
                    setattr(module, name, original)
            if "forward" not in held and _original(type(module).forward) is not None:
                raise ValueError(
                    f"{type(module).__name__}.forward is compiled for the whole class, and torch would leave the hooks "
                    "of a run out of it; compile the one model instead, by model.compile() or torch.compile(model)"
                )
        yield


def _original(function: Any) -> Any:
    """What a compiled function was compiled from; None for one that is not compiled, or that wraps a compiled one."""
    original = getattr(function, ORIGINAL, None)
    return original if getattr(function, "__wrapped__", None) is original else None


@contextmanager
def outputs(model: nn.Module, modules: Mapping[Any, nn.Module]) -> Iterator[dict[Any, Any]]:
    """What these modules of a model return in the forward passes of this thread within the block: the latest of each.

    Nothing of the model is compiled there, and the passes of other threads are left alone.
    """
    found: dict[Any, Any] = {}
    mine = threading.get_ident()

    def keep(key: Any, output: Any) -> None:
        if threading.get_ident() == mine:
            found[key] = output

    with eager(model), ExitStack() as undo:
        for key, module in modules.items():
            undo.callback(module.register_forward_hook(lambda _, args, output, key=key: keep(key, output)).remove)
        yield found
