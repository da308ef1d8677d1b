"""Commands that the documents and the help texts show exist, with the options that they are shown with."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from veridical.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def shown(text):
    """Command lines, in blocks of code and in backticks; lines that end with a backslash go on."""
    text = text.replace("\\\n", " ")
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S):
        yield from re.findall(r"^\s*(?:[A-Z_]+=\S+ )*(veridical [^\n#&|]+)", block, re.M)
    yield from re.findall(r"`(veridical [^`\n]+)`", text)


def unknown(line):
    """What is wrong with a command line: a command that does not exist, or an option that it does not have."""
    words = shlex.split(line.replace("…", " ").replace("\\", " "))[1:]
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0].isupper():  # it stands for any
            return None
        if words[0] not in command.commands:
            return words[0]
        command = command.commands[words.pop(0)]
    known = {text for param in command.params for text in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}
    return next((word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known), None)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documented_commands_and_options_exist(path):
    wrong = {line: word for line in shown(path.read_text(encoding="utf-8")) if (word := unknown(line))}
    assert not wrong


def test_examples_in_help_texts_exist():
    files = sorted((ROOT / "cli").rglob("*.py"))
    quoted = re.compile(r"\"(veridical [^\"{]+)\"|'(veridical [^'{]+)'")
    found = [pair for path in files for pair in quoted.findall(path.read_text(encoding="utf-8"))]
    lines = [first or second for first, second in found]
    assert len(lines) > 40
    assert not {line: word for line in lines if (word := unknown(line))}


def test_a_misspelt_option_and_a_command_that_does_not_exist_are_found():
    assert unknown("veridical caption a.jpg --decodr vcd") == "--decodr"
    assert unknown("veridical captions a.jpg") == "captions"
    assert unknown("veridical score chair c.jsonl -g coco") is None
