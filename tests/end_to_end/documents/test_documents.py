"""Every block of code and every command of the README and the documents is run as it stands, but for its size."""

import ast
import configparser
import importlib
import re
import shlex
import shutil
import tomllib

import pytest
import yaml

from . import reader, runner
from .reader import DOCUMENTS, blocks

LANGUAGES = {"python", "bash", "toml", "yaml", "ini", "text"}
NEEDS = re.compile(
    r"needs (a checkpoint|a server|a cluster|Docker|containers|data|a checkout|hours|minutes)|changes |runs in "
)
NOT_RUN = 32  # blocks that are not run, in all documents together: lower it, do not raise it


def text_of(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_document_runs_from_its_first_block_to_its_last(path, request, tmp_path, monkeypatch):
    text = text_of(path)
    shell = runner.Shell(tmp_path)
    if "runs/mine" in text and "--out runs/mine" not in text:  # written by another document
        shutil.copytree(request.getfixturevalue("small_run"), tmp_path / "runs" / "mine")
    with runner.in_folder(tmp_path, monkeypatch):
        for block in blocks(text):
            if "not run" not in block.marks:
                try:
                    shell.block(block)
                except Exception as error:
                    raise AssertionError(f"{path.name}, line {block.line}: {error}") from error
        for line in filter(reader.complete, reader.inline(text)):
            shell.command(shlex.split(line))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_blocks_have_a_language_and_those_that_are_not_run_are_sound(path):
    text = text_of(path)
    found = blocks(text)
    assert len(re.findall(r"^\s*```", text, re.M)) == 2 * len(found), "a fence that is indented or not closed"
    for block in found:
        assert block.language in LANGUAGES, f"line {block.line}: {block.language!r} is none of {LANGUAGES}"
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language == "yaml":
            assert yaml.safe_load(block.text)
        if block.language == "ini":
            configparser.RawConfigParser(strict=False).read_string(block.text)
        if block.language == "python":
            for module, name in imported(block.text):
                assert name is None or hasattr(importlib.import_module(module), name), f"no {name} in {module}"


def imported(code):
    """(module, name) of each import from this package."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("veridical"):
            yield from ((node.module, one.name) for one in node.names)
        elif isinstance(node, ast.Import):
            yield from ((one.name, None) for one in node.names if one.name.startswith("veridical"))


def test_blocks_that_are_not_run_say_what_they_need_and_do_not_grow_in_number():
    reasons = [
        f"{path.name}, line {block.line}: {block.marks['not run']}"
        for path in DOCUMENTS for block in blocks(text_of(path)) if "not run" in block.marks
    ]  # fmt: skip
    assert len(reasons) <= NOT_RUN, "\n".join(reasons)
    assert not [reason for reason in reasons if not NEEDS.match(reason.partition(": ")[2])]


def test_most_of_what_the_documents_show_is_run():
    every = [block for path in DOCUMENTS for block in blocks(text_of(path)) if block.language in ("python", "bash")]
    assert sum("not run" not in block.marks for block in every) >= len(every) / 2


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("```bash\nveridical caption nowhere.jpg\n```\n", "exit code 2"),
        ("```bash\nls\n```\n", "mark the block"),
        ("```python\nimport veridical\nveridical.load('embedded').captions\n```\n", "captions"),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "printed"),
    ],
)
def test_what_does_not_run_is_found(document, message, tmp_path, monkeypatch):
    shell = runner.Shell(tmp_path)
    run = lambda: [shell.block(block) for block in blocks(document)]
    with runner.in_folder(tmp_path, monkeypatch), pytest.raises((AssertionError, AttributeError), match=message):
        run()


def test_sizes_are_reduced_and_marks_are_read():
    evaluate = ["evaluate", "--limit", "200", "--out", "a"]
    assert runner.smaller(evaluate) == ["evaluate", "--limit", "4", "--out", "a"]
    assert runner.smaller(["evaluate", "--out", "a"]) == ["evaluate", "--out", "a", "--limit", "4"]
    assert runner.smaller(["evaluate", "--limit", "2"]) == ["evaluate", "--limit", "2"]
    (block,) = blocks("<!-- file: a.py -->\n<!-- not run: a server -->\n```python\n1\n```\n")
    assert block.marks == {"file": "a.py", "not run": "a server"}
    assert blocks("<!-- not run: far away -->\n\n```bash\nls\n```\n")[0].marks == {}
