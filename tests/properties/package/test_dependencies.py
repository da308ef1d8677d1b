"""Every package that is imported is declared in pyproject.toml, and what is declared is imported."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import veridical

ROOT = Path(veridical.__file__).parent
PARTS = ("metrics", "datasets", "models", "pipelines", "decoders", "detectors", "plots", "flows", "cli")
LOADED_BY_OTHERS = {
    "torchvision": "the image processors of transformers",
    "bitsandbytes": "transformers, for quantization",
    "torchao": "transformers, for quantization",
}


def imported() -> dict[str, str]:
    """Name of each package that the source imports, anywhere in a file, and a file that does."""
    found: dict[str, str] = {}
    for path in [ROOT / "__init__.py", *(path for part in PARTS for path in (ROOT / part).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            else:
                continue
            found |= {name.split(".")[0]: path.relative_to(ROOT).as_posix() for name in names}
    return {name: where for name, where in found.items() if name not in {*sys.stdlib_module_names, "veridical"}}


def declared(*extras: str) -> set[str]:
    """Distributions of the project and of some of its extras, in lower case with hyphens."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {plain(str(re.match(r"[A-Za-z0-9._-]+", line)[0])) for line in lines}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_imported_package_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = declared(*(extra for extra in project["optional-dependencies"] if extra != "dev"))
    owners = importlib.metadata.packages_distributions()
    missing = {
        name: where for name, where in imported().items()
        if not {plain(owner) for owner in owners.get(name, [name])} & known
    }  # fmt: skip
    # `dask` and `distributed` come with prefect-dask, `ray` with prefect-ray
    assert missing.keys() <= {"dask", "distributed", "ray"}, missing


def test_every_declared_package_is_imported():
    owners = importlib.metadata.packages_distributions()
    used = {plain(owner) for name in imported() for owner in owners.get(name, [name])}
    assert declared() - used <= {plain(name) for name in LOADED_BY_OTHERS}
