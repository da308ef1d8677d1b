"""Finds decoders, detectors and procedures by name, "name:field=value", "module:Class(field=value)", or instance.

Nothing here imports torch: tables of methods are made from the rows alone.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .entry_points import OURS, Taken, found
from .per_model import for_model

_CLASS = re.compile(r"\s*([A-Za-z_][\w.]*)\s*:\s*([A-Za-z_]\w*)\s*(?:\((.*)\))?\s*", re.DOTALL)


class UnknownName(KeyError):
    """A name that is not registered; the message has near names and all known ones."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Method:
    """A row of a registry: where a class is, and what tables say of it.

    target: "module:Class" below the registry's package. paper: its arXiv number, or a word in its place. changes: of
    decoders and procedures; reads: of detectors; cost: of all. differs: where paper and code differ, in a sentence or
    two.
    families: on which models it works, where not on all.
    """

    target: str
    paper: str = "–"
    changes: str = ""
    cost: str = ""
    reads: str = ""
    differs: str = ""
    families: str = ""
    origin: str = OURS

    @property
    def cited(self) -> str:
        """The paper as tables show it."""
        return f"arXiv {self.paper}" if self.paper[:1].isdigit() else self.paper


class Registry:
    """Names of one kind of thing and the classes behind them, imported when first used.

    The rows stand in `package` as `NAMES: name -> Method`: adding a method adds one there. Packages beside this one add
    theirs by entry points of the group `group`.
    """

    def __init__(self, kind: str, package: str, needs: str, group: str | None = None) -> None:
        self.kind, self.package, self.needs, self.group = kind, package, needs, group

    @cached_property
    def own(self) -> Mapping[str, Method]:
        """The rows of this package."""
        return importlib.import_module(self.package).NAMES

    @cached_property
    def _all(self) -> tuple[dict[str, Method], dict[str, Taken]]:
        others, taken = found(self.group, self.own) if self.group else ({}, {})
        return {**self.own, **{name: Method(at.value, origin=at.origin) for name, at in others.items()}}, taken

    @property
    def names(self) -> Mapping[str, Method]:
        """Every registered name with its row; of another package's, target and origin alone (see `about`)."""
        return self._all[0]

    @property
    def taken(self) -> Mapping[str, Taken]:
        """Names that several packages register, which therefore stand for nothing."""
        return self._all[1]

    def type(self, name: str) -> Any:
        """The class of that name.

        Raises:
            UnknownName: with near names. ValueError: a name that two packages register, or a class that cannot be
                imported or is of another kind.
        """
        if name in self.taken:
            raise ValueError(f'{self.kind} "{name}": {self.taken[name].why}')
        if name not in self.names:
            near = difflib.get_close_matches(name.lower(), self.names, n=1, cutoff=0.5)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise UnknownName(f'no {self.kind} "{name}".{hint} Known: {", ".join(sorted(self.names))}.')
        row = self.names[name]
        module, _, attribute = row.target.partition(":")
        if row.origin == OURS:
            return getattr(importlib.import_module(f"{self.package}.{module}"), attribute)
        return self._class(f'{self.kind} "{name}" of {row.origin}', module, attribute)

    def about(self, name: str) -> Method:
        """The row of a name. Of another package's class, which is imported, its attributes of the same names."""
        row = self.names[name]
        if row.origin == OURS:
            return row
        cls = self.type(name)
        texts = [field.name for field in dataclasses.fields(Method) if field.name not in ("target", "origin")]
        return dataclasses.replace(row, **{text: str(getattr(cls, text)) for text in texts if hasattr(cls, text)})

    def make(self, wanted: Any, model: str = "") -> Any:
        """An instance: from itself, from a name, from "name:field=value,…", or from "module:Class(field=value,…)".

        model: the model's name. A text takes its paper's values for it in the fields that it leaves open.

        Raises:
            UnknownName: no such name. ValueError: no such field or class, or a value that the class refuses.
        """
        if not isinstance(wanted, str):
            instance = wanted() if isinstance(wanted, type) else wanted
            if not callable(getattr(instance, self.needs, None)):
                raise TypeError(
                    f"{wanted!r} is no {self.kind}: give a name, "
                    f'"name:field=value", or an object with {self.needs}(); names: {", ".join(sorted(self.names))}'
                )
            return instance
        name, _, settings = wanted.partition(":")
        elsewhere = _CLASS.fullmatch(wanted)
        if elsewhere and name.strip() not in {*self.names, *self.taken}:
            module, attribute, settings = elsewhere.groups(default="")
            cls, name = self._class(repr(wanted), module, attribute), attribute
        else:
            cls, name = self.type(name.strip()), name.strip()
        values = self._values(wanted, name, cls, settings)
        try:
            instance = cls(**values)
        except TypeError as error:
            raise ValueError(f"{wanted!r}: {error}; fields of {name}: {_shown(_fields(cls))}") from error
        if not model:
            return instance
        own = getattr(instance, "for_model", None)
        return own(model, keep=values) if own is not None else for_model(instance, model, keep=values)

    def make_all(self, wanted: Any, model: str = "") -> list[Any]:
        """A list of instances from one thing, a list, or None; model as in `make`."""
        if wanted is None:
            return []
        if isinstance(wanted, str) or not isinstance(wanted, Iterable):
            wanted = [wanted]
        return [self.make(one, model) for one in wanted]

    def name_of(self, thing: Any) -> str:
        """The registered name of an instance's class (or of a class), or the class's own name: a class of the same name
        from elsewhere is another one."""
        cls = thing if isinstance(thing, type) else type(thing)
        for name, row in self.names.items():
            module, _, attribute = row.target.partition(":")
            place = sys.modules.get(f"{self.package}.{module}" if row.origin == OURS else module)
            if getattr(place, attribute, None) is cls and name not in self.taken:
                return name
        return cls.__name__

    def _class(self, whose: str, module: str, attribute: str) -> Any:
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"{whose}: {error}. It has to be a class that Python can import as `from {module} import {attribute}`: "
                "install its package, or name its folder in PYTHONPATH."
            ) from error
        if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and callable(getattr(cls, self.needs, None))):
            raise ValueError(
                f"{whose}: {module}:{attribute} is no {self.kind}, which is a dataclass with {self.needs}()."
            )
        return cls

    def _values(self, wanted: str, name: str, cls: Any, settings: str) -> dict[str, Any]:
        """The fields that a text sets."""
        fields = _fields(cls)
        values: dict[str, Any] = {}
        for part in _split(settings):
            key, sign, text = part.partition("=")
            key = key.strip()
            if not sign:
                raise ValueError(f"{wanted!r}: {part!r} is not field=value; fields of {name}: {_shown(fields)}")
            if key not in {field.name for field in fields}:
                raise ValueError(f"{wanted!r}: {name} has no field {key!r}; it has: {_shown(fields)}")
            if key in values:
                raise ValueError(f"{wanted!r}: {key} occurs twice")
            values[key] = _value(text.strip())
        return values


def lazily(package: str, names: Mapping[str, Method]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose classes are imported when first used."""
    classes = {row.target.partition(":")[2]: row.target.partition(":")[0] for row in names.values()}

    def get(name: str) -> Any:
        if name in classes:
            return getattr(importlib.import_module(f"{package}.{classes[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}; classes: {', '.join(sorted(classes))}")

    return get, lambda: sorted({*vars(sys.modules[package]), *classes})


def split_chain(text: str) -> list[str]:
    """The parts of "vsv+vcd:alpha=2"; a "+" inside brackets, quotes or a number is no joint."""
    return _split(text, "+") or [text]


def _split(text: str, at: str = ",") -> list[str]:
    """Parts between commas (or another sign), those inside brackets and quotes left alone."""
    parts, depth, current, quote = [], 0, "", ""
    for place, sign in enumerate(text):
        if sign in "'\"" and quote in ("", sign):
            quote = "" if quote else sign
        depth += 0 if quote else (sign in "([{") - (sign in ")]}")
        joint = sign == at and depth == 0 and not quote
        if joint and (at == "," or text[place + 1 : place + 2].isalpha()):
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


def _fields(cls: Any) -> list[Any]:
    return [field for field in dataclasses.fields(cls) if field.init]


def _shown(fields: Iterable[Any]) -> str:
    default = lambda f: "" if f.default is dataclasses.MISSING else f"={f.default!r}"
    return ", ".join(f.name + default(f) for f in fields) or "none"


DECODERS = Registry("decoder", "veridical.decoders", "edits", "veridical.decoders")
DETECTORS = Registry("detector", "veridical.detectors", "readings", "veridical.detectors")
PROCEDURES = Registry("procedure", "veridical.decoders.procedures", "answers")


def is_procedure(thing: Any) -> bool:
    """Whether an instance answers by several calls of the model."""
    return callable(getattr(thing, PROCEDURES.needs, None))


def name_of(instance: Any) -> str:
    """The registered name of a procedure or decoder."""
    return (PROCEDURES if is_procedure(instance) else DECODERS).name_of(instance)
