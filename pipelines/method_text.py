"""The text that names a method in requests, manifests and file names: the reverse of `Registry.make`."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from .registry import DECODERS, DETECTORS, PROCEDURES, Registry, split_chain

_BARE = re.compile(r"[A-Za-z_][\w./-]*")


def texts_of(methods: Iterable[Any]) -> tuple[str, ...]:
    """Texts as they are, and the text of each instance or class among them."""
    return tuple(one if isinstance(one, str) else text_of(one) for one in methods)


def text_of(method: Any) -> str:
    """The text that `Registry.make` makes an equal decoder, detector or procedure of.

    It has the fields that differ from their defaults, and those for which a paper has values of its own on some model,
    since an instance stays as it is on every model: "vcd:alpha=0.5", or "package.module:Class(field=value)" for a class
    that is not registered.

    Raises:
        TypeError: neither a decoder, a detector nor a procedure. ValueError: it has a probe in memory, a field that
            cannot be written, or a class that cannot be imported.
    """
    method = method() if isinstance(method, type) else method
    registry = _registry(method)
    if registry is None:
        raise TypeError(f"{method!r} is no method: give a text, or an instance of a decoder, detector or procedure")
    cls = type(method)
    if getattr(method, "probe", None) is not None:
        raise ValueError(
            f"{method!r} has a probe in memory, which no text names: save it with save_pretrained(FOLDER) and give "
            f'"{registry.name_of(method)}:weights=FOLDER"'
        )
    fitted = {name for fields in getattr(cls, "by_model", {}).values() for name in fields}
    values = {
        field.name: getattr(method, field.name)
        for field in dataclasses.fields(cls)
        if field.init and (field.name in fitted or repr(getattr(method, field.name)) != repr(field.default))
    }
    settings = ",".join(f"{name}={_written(method, name, value)}" for name, value in values.items())
    name = registry.name_of(method)
    if name in registry.names and registry.type(name) is cls:
        text = f"{name}:{settings}" if settings else name
    else:
        text = f"{cls.__module__}:{cls.__qualname__}" + (f"({settings})" if settings else "")
        if cls.__module__ == "__main__" or "." in cls.__qualname__:
            raise ValueError(
                f"{cls.__qualname__} of {cls.__module__} cannot be imported by another process, and a run has to name "
                "it by a text: move the class to the top of a module"
            )
    if split_chain(text) != [text] or not _same(registry.make(text), method):
        raise ValueError(f"{method!r} cannot be named by a text, since {text!r} is another one: give a text instead")
    return text


# -- helpers -------------------------------------------------------------------------------------------------------
def _registry(method: Any) -> Registry | None:
    if isinstance(method, type) or not dataclasses.is_dataclass(method):
        return None
    kinds = (PROCEDURES, DECODERS, DETECTORS)
    return next((one for one in kinds if callable(getattr(method, one.needs, None))), None)


def _written(method: Any, name: str, value: Any) -> str:
    """A field's value as `Registry.make` reads it."""
    if _registry(value) is not None:  # a gate's decoder
        value = text_of(value)
    if isinstance(value, float):  # also one of NumPy's
        value = float(value)
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) and value.lower() not in ("true", "false", "none") else repr(value)
    try:
        if ast.literal_eval(repr(value)) == value:
            return repr(value)
    except (ValueError, SyntaxError):
        pass
    raise ValueError(
        f"{type(method).__name__}: {name}={value!r} cannot be written as text, and a run has to name its methods by "
        "texts: use numbers, texts and tuples of them, or a class of your own that makes the value itself"
    )


def _same(built: Any, method: Any) -> bool:
    """Whether two instances are equal, where a method in a field may be there as its text."""
    names = [field.name for field in dataclasses.fields(method)]
    return type(built) is type(method) and all(_equal(getattr(built, name), getattr(method, name)) for name in names)


def _equal(value: Any, wanted: Any) -> bool:
    nested = _registry(wanted)
    return bool(value == wanted) or (
        nested is not None and isinstance(value, str) and _same(nested.make(value), wanted)
    )
