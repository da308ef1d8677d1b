"""The wheel holds one top-level name, and Hugging Face's `datasets` is found beside it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import veridical

ROOT = Path(veridical.__file__).parent
EVERYWHERE = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")
AT_THE_ROOT = {"build", "dist", "runs", "tests", "docs", "benchmarks", "venv"}


def left_out(folder, names):
    return EVERYWHERE(folder, names) | (AT_THE_ROOT if Path(folder) == ROOT else set())


def python(*arguments, cwd):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built by the backend that pyproject.toml names, from a copy, so that the checkout stays clean; offline."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    code = "from setuptools import build_meta; build_meta.build_wheel('..')"
    python("-c", code, cwd=folder / "source")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel):
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheels_only_top_level_name_is_veridical(names):
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"veridical"}


def test_every_module_of_the_checkout_is_in_the_wheel(names):
    parts = ("metrics", "datasets", "pipelines", "decoders", "detectors", "models", "flows", "cli", "testing")
    modules = [path.relative_to(ROOT).as_posix() for part in parts for path in (ROOT / part).rglob("*.py")]
    assert [module for module in modules if f"veridical/{module}" not in names] == []
    assert {"veridical/__init__.py", "veridical/py.typed"} <= set(names)
    assert not [name for name in names if "/tests/" in name]


def test_what_the_modules_read_is_in_the_wheel(names):
    """Sprites, synonyms, the embedded model, its matcher and its detectors; licences too."""
    wanted = [path for path in (ROOT / "datasets").rglob("*") if path.suffix in (".png", ".txt")]
    models = [ROOT / "models" / name for name in ("embedded", "matcher", "detectors")]
    wanted += [path for folder in models for path in folder.rglob("*") if path.is_file()]
    wanted += [path for path in (ROOT / "flows").rglob("*") if path.suffix == ".jinja"]
    assert wanted
    assert [path for path in wanted if f"veridical/{path.relative_to(ROOT).as_posix()}" not in names] == []
    assert [name for name in names if name.endswith("LICENSE")]
    assert [name for name in names if name.endswith("LICENSE-OFL.txt")]


def test_the_wheel_is_small_enough_to_carry(wheel):
    assert wheel.stat().st_size < 30e6


def test_beside_the_wheel_another_datasets_is_found(wheel, tmp_path):
    """A stand-in for Hugging Face's, behind the wheel on the path; -S keeps this environment's own packages out."""
    installed, other = tmp_path / "installed", tmp_path / "other"
    zipfile.ZipFile(wheel).extractall(installed)
    (other / "datasets").mkdir(parents=True)
    (other / "datasets" / "__init__.py").write_text("whose = 'Hugging Face'\n")
    code = (
        f"import sys; sys.path[:0] = [{str(installed)!r}, {str(other)!r}]\n"
        "import datasets, veridical, importlib.util as u\n"
        "print(datasets.whose, veridical.__file__)\n"
        "print(*(name for name in ('metrics', 'pipelines', 'decoders', 'models', 'flows', 'cli') if u.find_spec(name)))"
    )
    first, second = python("-I", "-S", "-c", code, cwd=tmp_path).split("\n")[:2]
    assert first.split()[:2] == ["Hugging", "Face"]
    assert first.split()[2] == str(installed / "veridical" / "__init__.py")
    assert second == ""


def test_this_environments_datasets_is_not_ours():
    from importlib.util import find_spec

    found = find_spec("datasets")
    assert found is None or not Path(found.origin).is_relative_to(ROOT)
