"""Pictures on disk, and the command line in this process."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from veridical.datasets.world import scene
from veridical.flows.command_line import app


@pytest.fixture
def veridical() -> Callable[..., Any]:
    """Runs a command: exit_code, stdout, stderr."""

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(one) for one in arguments])

    return run


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two good image files, one cut off, one that holds text, one that is not there."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, index in (("a.png", 0), ("b.png", 1)):
        scene("validation", index).image.save(folder / name)
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    return SimpleNamespace(
        a=folder / "a.png", b=folder / "b.png", cut=folder / "cut.png", text=folder / "text.png",
        none=folder / "none.png",
    )  # fmt: skip
