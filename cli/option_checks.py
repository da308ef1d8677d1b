"""Checks of single options, as callbacks of typer: each says what was given, and what is possible."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import typer

CRON = (("minute", 59), ("hour", 23), ("day", 31), ("month", 12), ("weekday", 7))


def filled(param: typer.CallbackParam, value: Any) -> Any:
    """A text, or texts, that are not empty.

    Raises:
        ValueError: an empty one, which would silently be the default.
    """
    texts = value if isinstance(value, list | tuple) else [value]
    if any(text is not None and not text.strip() for text in texts):
        raise ValueError(f"{param.opts[0]} is an empty text: leave the option out for its default, or give the words.")
    return value


def once(param: typer.CallbackParam, value: Any) -> Any:
    """An option that takes one text, declared as a list so that a second one is noticed.

    Raises:
        ValueError: several, of which all but one would be dropped; or an empty one.
    """
    if len(value or ()) > 1:
        raise ValueError(
            f"{param.opts[0]} is given {len(value)} times ({', '.join(map(repr, value))}) and takes one text: run the "
            "command once for each."
        )
    return filled(param, value)


def distinct(param: typer.CallbackParam, value: Any) -> Any:
    """Each name once, in its order; a note says which was repeated."""
    kept = list(dict.fromkeys(value or ()))
    for name in kept:
        if value.count(name) > 1:
            typer.echo(f"note: {param.opts[0]} {name} is given {value.count(name)} times and runs once", err=True)
    return kept or value


def one_of(*possible: str) -> Callable[[typer.CallbackParam, str], str]:
    """A check for one of some words."""

    def check(param: typer.CallbackParam, value: str) -> str:
        if value not in possible:
            raise ValueError(f"{param.opts[0]} {value}: no such choice; possible: {', '.join(possible)}.")
        return value

    return check


def cron_line(param: typer.CallbackParam, value: str | None) -> str | None:
    """Five fields whose numbers are in range, or a name such as "@daily".

    Raises:
        ValueError: anything else, with an example.
    """
    if value is None or re.fullmatch(r"@[a-z]+", value):
        return value
    fields = value.split()
    ok = len(fields) == len(CRON) and all(
        re.fullmatch(r"[\w*/,#?-]+", field)
        and all(int(number) <= most for number in re.findall(r"(?<![\w/])\d+", field))
        for field, (_, most) in zip(fields, CRON, strict=True)
    )  # fmt: skip
    if not ok:
        raise ValueError(
            f"{param.opts[0]} {value!r} is no cron line; needed: minute, hour, day, month and weekday, such as "
            '"0 3 * * *", every night at three, or "*/30 8-18 * * 1-5", every half hour of working days.'
        )
    return value
