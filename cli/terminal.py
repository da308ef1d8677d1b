"""Text of others on a terminal: names of files, questions, messages."""

from __future__ import annotations

import typer

# Control characters but tab and line feed, and what turns the direction of text.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
_DIRECTIONS = {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_ESCAPED = {**_CONTROLS, **_DIRECTIONS}


def safe(text: object) -> str:
    r"""Text whose control characters are written out, so that no name moves a terminal's cursor or hides what follows.

    >>> safe("a\x1b[31mb.png"), safe("two\nlines")
    ('a\\x1b[31mb.png', 'two\nlines')
    """
    return str(text).encode("utf-8", "backslashreplace").decode().translate(_ESCAPED)


def name(path: object) -> str:
    r"""The name of a file on one line.

    >>> name("a\nError: b.png")
    'a\\nError: b.png'
    """
    return safe(path).replace("\n", "\\n")


def echo(text: object, err: bool = False) -> None:
    """Print text that may hold somebody's names."""
    typer.echo(safe(text), err=err)
