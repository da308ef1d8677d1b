"""Help texts are sentences: a capital letter or a quoted value at the front, a full stop at the end, no fragment."""

import re

import typer

from veridical.cli.main import app

FRAGMENT = re.compile(r"(Of|To|Or|As|And|With|They) ")
OF_OTHER_FILES = {"--prefect"}  # in worker_options.py


def options(command, name="veridical"):
    """(command, option, help) of every command below a group."""
    for inside, one in getattr(command, "commands", {}).items():
        yield from options(one, f"{name} {inside}")
    if not hasattr(command, "commands"):
        for param in command.params:
            if not getattr(param, "hidden", False):
                yield name, param.opts[0], getattr(param, "help", None) or ""


def test_every_option_has_a_help_text_that_is_a_sentence():
    found = list(options(typer.main.get_command(app)))
    assert len(found) > 100
    bad = [
        (name, option, text) for name, option, text in found
        if option not in OF_OTHER_FILES
        and (not re.match(r'[A-Z"]', text) or not text.endswith(".") or FRAGMENT.match(text))
    ]  # fmt: skip
    assert not bad
