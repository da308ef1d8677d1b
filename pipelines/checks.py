"""Checks of hyper-parameters, each with an error that says what was asked and what is possible."""

from collections.abc import Iterable


def check_range(name: str, value: float, low: float, high: float, meaning: str) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name}={value:g} is outside {low:g} to {high:g} ({meaning}).")


def check_at_least(name: str, value: float, low: float, meaning: str) -> None:
    """Raise ValueError unless value >= low."""
    if not value >= low:
        raise ValueError(f"{name}={value:g} is below {low:g} ({meaning}).")


def check_choice(name: str, value: str, choices: Iterable[str], meaning: str) -> None:
    """Raise ValueError unless value is one of choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, choices))} ({meaning}).")


def check_layers(layers: Iterable[int], count: int, whose: str) -> tuple[int, ...]:
    """The layers as a tuple, or ValueError if one does not exist."""
    layers = tuple(layers)
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong:
        raise ValueError(f"{whose} asks for layers {wrong}, but this model's layers are 0 to {count - 1}.")
    return layers
