"""Help texts are sentences: a noun with its article, or what the option does; a full stop at the end, no fragment."""

import re

import typer

from veridical.cli.main import app

PREPOSITION = r"(Of|To|Or|As|And|With|Where|They)"
BARE_NOUN = r"(Folders?|Files?|Number|Seed|Images?|Scenes?|Workers?|Threads?|GPUs|Address|Server|Format|Faster|Larger)"
FRAGMENT = re.compile(rf"({PREPOSITION}|{BARE_NOUN}|Keeps|Wants|Least|Most|Beginnings)\b")


def parameters(command, name="veridical"):
    """(command, option, parameter) of every command below a group."""
    for inside, one in getattr(command, "commands", {}).items():
        yield from parameters(one, f"{name} {inside}")
    if not hasattr(command, "commands"):
        for param in command.params:
            if not getattr(param, "hidden", False):
                yield name, param.opts[0], param


def options(command):
    """(command, option, help)."""
    for name, option, param in parameters(command):
        yield name, option, getattr(param, "help", None) or ""


def test_every_option_has_a_help_text_that_is_a_sentence():
    found = list(options(typer.main.get_command(app)))
    assert len(found) > 100
    bad = [
        (name, option, text) for name, option, text in found
        if not re.match(r'[A-Z"]', text) or not text.endswith(".") or FRAGMENT.match(text)
    ]  # fmt: skip
    assert not bad


def test_what_a_command_writes_by_default_is_what_the_documents_read():
    """`data chair` without --out writes the file that every example gives to --synonyms."""
    found = {
        (name, option): param.default for name, option, param in parameters(typer.main.get_command(app))
        if name == "veridical data chair"
    }  # fmt: skip
    assert str(found["veridical data chair", "--out"]) == "chair_synonyms.txt"
