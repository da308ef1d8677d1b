"""Test set-up: the repository root must not be importable, or `import datasets` would find ours."""

import os
import sys
from pathlib import Path

import pytest

from . import shapes

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

if os.environ.get("VERIDICAL_SHAPES", "1") != "0":  # annotated shapes are checked by default
    shapes.install()

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a matcher says is kept, but not in the cache of whoever runs the tests."""
    os.environ["VERIDICAL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Public data that is never committed; tests that need it say so when it is absent."""
    folder = Path(os.environ.get("VERIDICAL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no public test data at {folder}; set VERIDICAL_TEST_DATA")
    return folder
