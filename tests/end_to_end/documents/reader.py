"""What the documents show: blocks of code with their marks, and commands in running text.

A block is run unless a comment directly above it says `<!-- not run: why -->`. `<!-- file: NAME -->` writes the block
to a file of that name first. A block of language `text` is what the block before it prints; `…` stands for any output.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

from veridical.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "models").glob("*/*.md")]
)
MARK = re.compile(r"<!-- (not run|file): (.+?) -->")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
PLACEHOLDER = re.compile(r"…|\b[A-Z]{3,}\b")  # a command in running text with one stands for many


@dataclass(frozen=True)
class Block:
    """line: where it begins in the document. marks: "not run" -> why, "file" -> a name."""

    line: int
    language: str
    text: str
    marks: dict[str, str]

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a block in bash, without comments and without the variables in front."""
        text = self.text.replace("\\\n", " ")
        lines = [part for line in text.splitlines() for part in line.split(" && ")]
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(text: str) -> list[Block]:
    """The blocks of code of a document, in order."""
    found = []
    for match in FENCE.finditer(text):
        above = re.search(r"((?:^<!-- .* -->\n)*)\Z", text[: match.start()], re.M)
        marks = dict(MARK.findall(above[1] if above else ""))
        found.append(Block(text.count("\n", 0, match.start()) + 1, match[1], match[2], marks))
    return found


def inline(text: str) -> list[str]:
    """Commands in backticks in running text."""
    return re.findall(r"`(veridical [^`\n]+)`", FENCE.sub("", text))


def complete(line: str) -> bool:
    """Whether a command in running text can be run: it has no placeholder, and more than the command's own name."""
    words = shlex.split(line)[1:]
    return not PLACEHOLDER.search(line) and any(word not in names() for word in words)


@cache
def root() -> Any:
    """The command line as a tree of commands."""
    return typer.main.get_command(app)


@cache
def names() -> frozenset[str]:
    """The names of all commands, those inside groups too."""
    return frozenset(name for name, _ in every(root()))


def every(command: object) -> Iterator[tuple[str, object]]:
    """(name, command) of each command below a group, groups included."""
    for name, one in getattr(command, "commands", {}).items():
        yield name, one
        yield from every(one)


def unknown(line: str) -> str | None:
    """What is wrong with a command line: a command that does not exist, or an option that it does not have."""
    words = shlex.split(line.replace("…", " ").replace("\\", " "))[1:]
    command = root()
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0].isupper():  # it stands for any
            return None
        if words[0] not in command.commands:
            return words[0]
        command = command.commands[words.pop(0)]
    known = {text for param in command.params for text in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}
    return next((word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known), None)
