"""Checks of hyper-parameters: each returns the value, or raises an error that says what was found and is possible."""

import math
import operator
from collections.abc import Iterable
from typing import Any


def _check_number(name: str, value: Any, meaning: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}={value!r} is no number ({meaning}).")
    if value == math.inf:
        raise ValueError(f"{name}={value:g} is no finite number ({meaning}).")


def check_range(name: str, value: float, low: float, high: float, meaning: str) -> float:
    """The value, or ValueError unless low <= value <= high."""
    _check_number(name, value, meaning)
    if not low <= value <= high:
        raise ValueError(f"{name}={value:g} is outside {low:g} to {high:g} ({meaning}).")
    return value


def check_at_least(name: str, value: float, low: float, meaning: str) -> float:
    """The value, or ValueError unless value >= low and finite."""
    _check_number(name, value, meaning)
    if not value >= low:
        raise ValueError(f"{name}={value:g} is below {low:g} ({meaning}).")
    return value


def check_count(name: str, value: Any, meaning: str, low: int | None = None, high: int | None = None) -> int:
    """The value, or ValueError unless it is a whole number, of at least `low` and at most `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}={value!r} is no whole number ({meaning}).")
    if high is not None:
        check_range(name, value, low or 0, high, meaning)
    elif low is not None:
        check_at_least(name, value, low, meaning)
    return value


def check_integers(name: str, values: Any, meaning: str, empty: bool = False) -> tuple[int, ...]:
    """The values as a tuple of whole numbers, or ValueError if they are none, or if there are none and not `empty`."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"{name}={values!r} is no list of whole numbers ({meaning}).")
    found = tuple(values)
    if any(isinstance(value, bool) or not isinstance(value, int) for value in found):
        raise ValueError(f"{name}={found!r} are not all whole numbers ({meaning}).")
    if not found and not empty:
        raise ValueError(f"{name} is empty ({meaning}).")
    return found


def whole_number(value: Any) -> int | None:
    """A whole number of Python, numpy or torch as an int; None for all else, truth values and lists of one included."""
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")) or getattr(value, "shape", ()) != ():
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_seed(name: str, value: Any, meaning: str) -> int:
    """The seed as an int, or ValueError if it is no whole number of Python, numpy or torch."""
    found = whole_number(value)
    if found is None:
        raise ValueError(f"{name}={value!r} is no whole number ({meaning}).")
    return found


def seeds_of(seed: Any, count: int, noun: str) -> list[int]:
    """A seed for each of `count` things: one number counts up from the first; or one number for each.

    Raises:
        ValueError: no whole number and no list of whole numbers, or a list of another length.
    """
    if (first := whole_number(seed)) is not None:
        return [first + index for index in range(count)]
    listed = not isinstance(seed, str) and isinstance(seed, Iterable) and getattr(seed, "shape", None) != ()
    found = [whole_number(one) for one in seed] if listed else [None]
    if None in found:
        raise ValueError(f"seed={seed!r} is no whole number and no list of whole numbers; give one, or one for each.")
    if len(found) != count:
        raise ValueError(f"{len(found)} seeds for {count} {noun}s; give one number, or one for each {noun}")
    return [one for one in found if one is not None]


def check_choice(name: str, value: str, choices: Iterable[str], meaning: str) -> str:
    """The value, or ValueError unless it is one of choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, choices))} ({meaning}).")
    return value


def check_flag(name: str, value: Any, meaning: str) -> bool:
    """The value, or ValueError unless it is True or False; "no" would count as yes."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} is neither True nor False ({meaning}).")
    return value


def check_layers(layers: Iterable[int], count: int, whose: str) -> tuple[int, ...]:
    """The layers as a tuple, or ValueError if one does not exist."""
    layers = tuple(layers)
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong:
        raise ValueError(f"{whose} asks for layers {wrong}, but this model's layers are 0 to {count - 1}.")
    return layers


def check_heads(
    heads: Iterable[tuple[int, Iterable[int]]], layers: int, count: int, whose: str
) -> dict[int, tuple[int, ...]]:
    """Query heads of single layers as a mapping, or ValueError if a layer or a head does not exist.

    layers, count: how many the model has of either.
    """
    named = {layer: tuple(some) for layer, some in heads}
    check_layers(named, layers, f"{whose}'s heads")
    wrong = sorted({head for some in named.values() for head in some if not 0 <= head < count})
    if wrong:
        raise ValueError(f"{whose} asks for heads {wrong}; this model's query heads are 0 to {count - 1}.")
    return named


def check_pairs(name: str, values: Any) -> tuple[tuple[int, int], ...]:
    """Pairs of a 0-based layer and a query head as tuples, or ValueError."""
    try:
        found = tuple((layer, head) for layer, head in values)
    except (TypeError, ValueError):
        found = ((-1, -1),)
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for pair in found for one in pair):
        raise ValueError(f"{name}={values!r} are no pairs of a layer and a query head from 0, such as ((16, 29),).")
    return found


def by_layer(pairs: Iterable[tuple[int, int]], layers: int, count: int, whose: str) -> dict[int, tuple[int, ...]]:
    """Pairs of a layer and a head as a mapping; arguments and errors as `check_heads`."""
    out: dict[int, list[int]] = {}
    for layer, head in pairs:
        out.setdefault(layer, []).append(head)
    return check_heads(out.items(), layers, count, whose)


def check_threshold(value: Any, meaning: str = "risk above which something is done") -> float:
    """The threshold as a number, ±inf and their names included, or ValueError if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"threshold={value!r} is no number ({meaning}).")
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if math.isnan(found):
        raise ValueError(f'threshold={value!r} is no number ({meaning}); "inf" is never and "-inf" always.')
    return found
