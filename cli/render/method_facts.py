"""What a method says of itself, read from its source: `veridical list` need not wait for PyTorch to be imported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...pipelines.registry import Registry


def said(registry: Registry, name: str, attribute: str) -> str:
    """A class attribute of a registered name: its text, "" if there is none.

    Read from the class and its bases in one file; where that does not tell, from the class itself.

    Raises:
        UnknownName: as `Registry.type`.
    """
    where, _, wanted = registry.names[name].partition(":") if name in registry.names else ("", "", "")
    spec = importlib.util.find_spec(f"{registry.package}.{where}") if where else None
    classes = _classes(spec.origin) if spec is not None and spec.origin else {}
    for line in _lines_of(classes, wanted):
        match line:
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.Constant(value=text)) if found == attribute:
                return str(text)
    return str(getattr(registry.type(name), attribute, ""))


# -- helpers -------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=64)
def _classes(path: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _lines_of(classes: dict[str, ast.ClassDef], name: str) -> Iterator[ast.stmt]:
    """Of a class, then of its bases."""
    if name in classes:
        yield from classes[name].body
        for base in classes[name].bases:
            yield from _lines_of(classes, base.id if isinstance(base, ast.Name) else "")
