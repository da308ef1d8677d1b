"""A paper's hyper-parameters for one model, where it gives several: they stand beside the method as `by_model`."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import MISSING, fields, replace
from functools import cache
from typing import Any

log = logging.getLogger(__name__)


def values_for(method: Any, model: str) -> dict[str, Any]:
    """What the method's paper uses on this model and its general defaults are not, field -> value.

    method: an instance or a class with `by_model: pattern -> fields`. model: a Hub id or folder; the first pattern
    that is found in its name counts, letters' case does not.
    """
    table = getattr(method, "by_model", {})
    return next((dict(found) for pattern, found in table.items() if re.search(pattern, model.lower())), {})


def for_model(method: Any, model: str, keep: Collection[str] = ()) -> Any:
    """The method with its paper's values for this model in every field that has its default.

    Fields in `keep` stay as they are, so that `"avc:alpha=2.5"` remains 2.5 where `"avc"` takes 3.0. What changes is in
    the result's repr, hence in the manifest, and in the log; the command line prints it.
    """
    defaults = {field.name: field.default for field in fields(method) if field.default is not MISSING}
    changed = {
        name: value
        for name, value in values_for(method, model).items()
        if name not in keep and getattr(method, name) == defaults.get(name) != value
    }
    if not changed:
        return method
    _log(type(method).__name__, model, ", ".join(f"{name}={value!r}" for name, value in changed.items()))
    return replace(method, **changed)


@cache
def _log(method: str, model: str, values: str) -> None:
    log.info("%s on %s: %s, its paper's for this model", method, model, values)
