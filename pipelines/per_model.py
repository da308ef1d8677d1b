"""A paper's hyper-parameters for one model, where it gives several: they stand beside the method as `by_model`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

log = logging.getLogger(__name__)


def values_for(method: Any, model: str) -> dict[str, Any]:
    """What the method's paper uses on this model and its general defaults are not, field -> value.

    method: an instance or a class with `by_model: pattern -> fields`. model: a Hub id or folder; the first pattern
    that is found in its name counts, letters' case does not.
    """
    table = getattr(method, "by_model", {})
    return next((dict(fields) for pattern, fields in table.items() if re.search(pattern, model.lower())), {})


def fitted(methods: Iterable[Any], model: str) -> list[Any]:
    """Methods that were asked for by name take their paper's values for this model in every field that was not given.

    Instances stay as they are, and so does each field that was given: `"avc"` on InstructBLIP is AVC(alpha=3.0),
    `"avc:alpha=2.5"` and `AVC()` have 2.5. What was taken is in the method's repr and in the log; the command line
    prints it.
    """
    return [_fitted(method, model) for method in methods]


def _fitted(method: Any, model: str) -> Any:
    given = getattr(method, "_given", None)
    if given is None:
        return method
    fields = {name: value for name, value in values_for(method, model).items() if name not in given}
    changed = {name: value for name, value in fields.items() if value != getattr(method, name)}
    if not changed:
        return method
    _tell(type(method).__name__, model, ", ".join(f"{name}={value!r}" for name, value in changed.items()))
    return replace(method, **changed)


@cache
def _tell(method: str, model: str, values: str) -> None:
    log.info("%s on %s: %s, its paper's for this model", method, model, values)
