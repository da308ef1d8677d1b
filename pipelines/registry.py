"""Finds decoders and detectors by name, by instance, or by "name:field=value,field=value"."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from .per_model import for_model


class UnknownName(KeyError):
    """A name that is not registered; the message has near names and all known ones."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry:
    """Names of one kind of thing and the classes behind them, imported when first asked for.

    The table stands in `package`, or in the module `table`, as `NAMES: name -> "module:Class"`: adding a method adds
    one line there.
    """

    def __init__(self, kind: str, package: str, needs: str, table: str | None = None) -> None:
        self.kind, self.package, self.needs, self.table = kind, package, needs, table or package

    @cached_property
    def names(self) -> Mapping[str, str]:
        return importlib.import_module(self.table).NAMES

    def type(self, name: str) -> Any:
        """The class of that name.

        Raises:
            UnknownName: with near names.
        """
        if name not in self.names:
            near = difflib.get_close_matches(name.lower(), self.names, n=1, cutoff=0.5)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise UnknownName(f'no {self.kind} "{name}".{hint} Known: {", ".join(sorted(self.names))}.')
        module, _, attribute = self.names[name].partition(":")
        return getattr(importlib.import_module(f"{self.package}.{module}"), attribute)

    def make(self, wanted: Any, model: str = "") -> Any:
        """An instance: from itself, from a name, or from "name:field=value,…".

        model: the model's name. A text takes its paper's values for it in the fields that it leaves open.

        Raises:
            UnknownName: no such name. ValueError: no such field, or a value that the class refuses.
        """
        if not isinstance(wanted, str):
            made = wanted() if isinstance(wanted, type) else wanted
            if not callable(getattr(made, self.needs, None)):
                raise TypeError(
                    f"{wanted!r} is no {self.kind}: give a name, "
                    f'"name:field=value", or an object with {self.needs}(); names: {", ".join(sorted(self.names))}'
                )
            return made
        name, _, settings = wanted.partition(":")
        cls = self.type(name.strip())
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for part in _split(settings):
            key, sign, text = part.partition("=")
            key = key.strip()
            if not sign:
                known = _shown(fields.values())
                raise ValueError(f"{wanted!r}: {part!r} is not field=value; fields of {name}: {known}")
            if key not in fields:
                raise ValueError(f"{wanted!r}: {name} has no field {key!r}; it has: {_shown(fields.values())}")
            if key in values:
                raise ValueError(f"{wanted!r}: {key} is given twice")
            values[key] = _value(text.strip())
        try:
            made = cls(**values)
        except TypeError as error:
            raise ValueError(f"{wanted!r}: {error}; fields of {name}: {_shown(fields.values())}") from error
        return for_model(made, model, keep=values) if model else made

    def make_all(self, wanted: Any, model: str = "") -> list[Any]:
        """A list of instances from one thing, a list, or None; model as in `make`."""
        if wanted is None:
            return []
        if isinstance(wanted, str) or not isinstance(wanted, Iterable):
            wanted = [wanted]
        return [self.make(one, model) for one in wanted]

    def name_of(self, instance: Any) -> str:
        """The registered name of an instance's class, or the class's own name."""
        for name, where in self.names.items():
            if where.rpartition(":")[2] == type(instance).__name__:
                return name
        return type(instance).__name__


def _split(text: str) -> list[str]:
    """Comma-separated parts, commas inside brackets and quotes left alone."""
    parts, depth, current, quote = [], 0, "", ""
    for sign in text:
        if sign in "'\"" and quote in ("", sign):
            quote = "" if quote else sign
        depth += 0 if quote else (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0 and not quote:
            parts.append(current)
            current = ""
        else:
            current += sign
    return [part for part in (*parts, current) if part.strip()]


def _value(text: str) -> Any:
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _shown(fields: Iterable[Any]) -> str:
    default = lambda f: "" if f.default is dataclasses.MISSING else f"={f.default!r}"
    return ", ".join(f.name + default(f) for f in fields) or "none"


DECODERS = Registry("decoder", "veridical.decoders", "edits")
DETECTORS = Registry("detector", "veridical.detectors", "readings")
PROCEDURES = Registry("procedure", "veridical.decoders.procedures", "answers")
