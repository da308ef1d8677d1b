"""Runs what a document shows, in a folder with a few images, in this process and with the model that is loaded.

Sizes are reduced: `--limit 500` becomes `--limit 4`, and commands that would take all get a limit.
"""

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from veridical.cli.main import app
from veridical.datasets.world import scene

from .reader import Block

SMALL = {
    "--limit": 4, "--count": 3, "--validation": 4, "--images": 12, "--test-images": 6, "--examined": 2,
    "--lessons": 32,
}  # fmt: skip
WITHOUT = {  # what commands get that name no size
    "evaluate": ("--limit",), "gate-curve": ("--limit", "--validation"), "evaluate-detectors": ("--test-images",),
    "train-detector": ("--images", "--test-images"),
}  # fmt: skip


class Shell:
    """One reader's session: a folder, Python's names, and what was printed last."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names, self.printed = folder, {"__name__": "document"}, ""
        (folder / "photos").mkdir()
        for index in range(3):
            scene("test", index).image.save(folder / "photos" / f"{index}.jpg")
        for index, name in enumerate(("photo.jpg", "photo.png", "a.jpg", "b.jpg")):
            scene("validation", index).image.save(folder / name)

    def block(self, block: Block) -> None:
        """Run a block, or compare it with what the one before it printed.

        Raises:
            AssertionError: a command failed, cannot be run here, or printed something else.
        """
        if "file" in block.marks:
            path = self.folder / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        if block.language == "python" and not block.marks.get("file", "").startswith("test_"):
            self.python(block)
        elif block.language == "bash":
            self.printed = "".join(self.command(words) for words in block.commands)
        elif block.language == "text":
            assert printed(block.text, self.printed), f"shown:\n{block.text}\nprinted:\n{self.printed}"

    def python(self, block: Block) -> None:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block.text, block.marks.get("file", f"line {block.line}"), "exec"), self.names)
        self.printed = out.getvalue()

    def command(self, words: list[str]) -> str:
        """Run a command; what it printed."""
        words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]
        program, *rest = words
        if program == "pytest":
            done = pytest.main(["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir=.", *rest])
            assert done == 0, f"pytest {' '.join(rest)} ended with {done}"
            return ""
        assert program == "veridical", f"`{program}` cannot be run here: mark the block with <!-- not run: why -->"
        result = CliRunner().invoke(app, smaller(rest))
        assert result.exit_code == 0, f"{' '.join(words)}: exit code {result.exit_code}\n{result.output}"
        return result.stdout


def smaller(words: list[str]) -> list[str]:
    """A command's words with small sizes, also where it names none."""
    out = list(words)
    for option, most in SMALL.items():
        place = out.index(option) + 1 if option in out else 0
        if place and out[place].isdigit():
            out[place] = str(min(int(out[place]), most))
    name = next((word for word in words if word in WITHOUT), "")
    more = [part for option in WITHOUT.get(name, ()) if option not in out for part in (option, str(SMALL[option]))]
    return [*out, *more]


def printed(shown: str, output: str) -> bool:
    """Whether an output has the shown lines, whatever the white space; "…" stands for any text."""
    parts = [r"\s+".join(map(re.escape, part.split())) for part in shown.split("…")]
    return re.search(r".*?".join(parts), output, re.S) is not None


@contextlib.contextmanager
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The folder as the current one, its modules importable, and no Prefect server of other tests."""
    before = set(sys.modules)
    with monkeypatch.context() as patched:
        patched.chdir(folder)
        patched.syspath_prepend(str(folder))
        patched.setattr("veridical.flows.prefect.choice.has_server", lambda: False)
        try:
            yield
        finally:
            for name in set(sys.modules) - before:
                if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(folder)):
                    del sys.modules[name]
