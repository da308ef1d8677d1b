"""Who may import whom, read from the source: no arrow goes back up, and nothing heavy is loaded before it is needed."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import veridical

ROOT = Path(veridical.__file__).parent
PARTS = ("metrics", "datasets", "pipelines", "decoders", "detectors", "models", "plots", "flows", "cli", "testing")
BELOW = {  # what a part may import of ours when it is itself imported
    "metrics": {"metrics"},
    "datasets": {"datasets"},
    "pipelines": {"pipelines", "metrics", "datasets", "models"},
    "decoders": {"decoders", "pipelines"},
    "detectors": {"detectors", "pipelines"},
    "models": {"models"},
    "plots": {"plots", "pipelines", "metrics", "datasets"},
    "flows": set(PARTS) - {"cli", "testing"},
    "testing": {"testing", "pipelines"},
    "cli": set(PARTS) - {"testing"},
}


def sources(part):
    return sorted((ROOT / part).rglob("*.py"))


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path, inside_functions=True):
    """Absolute names that a file imports; those for the type checker alone are left out."""
    package = ("veridical", *path.relative_to(ROOT).parent.parts)

    def found(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from found(child)
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions:
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from found(child)

    return set(found(tree(path)))


def ours(names):
    """Which parts of the package the names are in."""
    split = (name.split(".") for name in names)
    return {parts[1] for parts in split if parts[0] == "veridical" and len(parts) > 1} & set(PARTS)


def where(path, names):
    """What a file imports, with both ends, as a failing test shows it."""
    return [f"{path.relative_to(ROOT).as_posix()} imports {name}" for name in sorted(names)]


@pytest.fixture(params=PARTS)
def part(request):
    return request.param


def test_the_reader_of_imports_reads_them(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "decoders" / "x.py"
    path.parent.mkdir()
    path.write_text(
        "from typing import TYPE_CHECKING\nimport torch.nn\nfrom ..pipelines import engine\nfrom . import other\n"
        "if TYPE_CHECKING:\n    from ..flows.a import b\ndef f():\n    from ..flows import c\n"
    )
    assert ours(imports(path)) == {"pipelines", "decoders", "flows"}
    assert ours(imports(path, inside_functions=False)) == {"pipelines", "decoders"}
    assert "torch.nn" in imports(path)


@pytest.mark.parametrize("inside_functions", [False, True], ids=["at_import", "inside_functions_too"])
def test_no_arrow_goes_back_up(part, inside_functions):
    """A floor imports from its own and from lower floors, wherever the import stands; both ends are named."""
    up = []
    for path in sources(part):
        names = imports(path, inside_functions)
        up += where(path, {name for name in names if ours([name]) - BELOW[part]})
    assert sources(part)
    assert not up


def arrows(root, parts=PARTS):
    """Module -> module that it imports -> the line; imports inside functions and for the type checker count too."""
    paths = {path.relative_to(root).with_suffix(""): path for part in parts for path in (root / part).rglob("*.py")}
    names = {".".join(key.parts).removesuffix(".__init__"): path for key, path in paths.items()}
    out = {name: {} for name in names}
    for name, path in names.items():
        package = path.relative_to(root).parent.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                origin = [*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else ())]
                for alias in node.names:
                    whole = ".".join([*origin, alias.name])
                    target = whole if whole in names else ".".join(origin)
                    if target in names and target != name:
                        out[name].setdefault(target, node.lineno)
    return out


def circles(arrows):
    """The sets of modules that can each be reached from each other, sorted."""

    def reached(start):
        found, todo = set(), [start]
        while todo:
            for target in arrows[todo.pop()]:
                if target not in found:
                    found.add(target)
                    todo.append(target)
        return found

    reach = {name: reached(name) for name in arrows}
    return {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in arrows if name in reach[name]
    }  # fmt: skip


def both_ends(arrows, circle):
    return [f"{a} imports {b} in line {line}" for a in circle for b, line in arrows[a].items() if b in circle]


def test_no_circle_of_imports():
    found = arrows(ROOT)
    assert not [both_ends(found, circle) for circle in sorted(circles(found))]


def test_a_circle_is_found_and_both_ends_of_its_arrows_are_named(tmp_path):
    for name, text in {
        "a.py": "from .b import x\n", "b.py": "def f():\n    from ..lower.c import y\n", "d.py": "from .a import x\n",
    }.items():  # fmt: skip
        (tmp_path / "upper").mkdir(exist_ok=True)
        (tmp_path / "upper" / name).write_text(text)
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower" / "c.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..upper import a\n"
    )
    found = arrows(tmp_path, ("upper", "lower"))
    (circle,) = circles(found)
    assert circle == ("lower.c", "upper.a", "upper.b")
    assert both_ends(found, circle) == [
        "lower.c imports upper.a in line 3", "upper.a imports upper.b in line 1", "upper.b imports lower.c in line 2",
    ]  # fmt: skip


def outside(path, packages):
    """The packages among these from which a file imports."""
    return where(path, {name for name in imports(path) if name.split(".")[0] in packages})


def test_metrics_import_no_torch():
    heavy = {"torch", "torchvision", "transformers"}
    assert not [found for path in sources("metrics") for found in outside(path, heavy)]


@pytest.mark.parametrize("part", sorted({*PARTS} - {"flows", "cli"}))
def test_nothing_outside_flows_imports_prefect(part):
    assert not [found for path in sources(part) for found in outside(path, {"prefect"})]


def test_the_package_imports_itself_by_relative_names(part):
    """So that a checkout under another name works, and `datasets` is never ours by accident."""
    absolute = []
    for path in sources(part):
        nodes = [one for one in ast.walk(tree(path)) if isinstance(one, ast.ImportFrom) and one.level == 0]
        absolute += where(path, {one.module for one in nodes if one.module.split(".")[0] in ("veridical", *PARTS)})
    assert not absolute


def test_every_public_name_can_be_imported():
    for name in veridical.__all__:
        assert getattr(veridical, name) is not None


# ---------------------------------------------------------------------- what is loaded when


def python(code, cwd):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_takes_less_than_half_a_second_and_loads_nothing_heavy(tmp_path):
    """The best of three, since another process may hold the machine up."""
    code = (
        "import time, sys; began = time.perf_counter(); import veridical; took = time.perf_counter() - began\n"
        "print(took, *({'torch', 'transformers', 'prefect', 'numpy', 'PIL', 'rich', 'typer'} & set(sys.modules)))"
    )
    answers = [python(code, tmp_path).split() for _ in range(3)]
    assert all(len(answer) == 1 for answer in answers), answers
    assert min(float(answer[0]) for answer in answers) < 0.5


def test_metrics_and_data_load_no_torch(tmp_path):
    code = (
        "import sys\nfrom veridical.metrics import chair, pope, estimate\nfrom veridical.datasets import pope, world\n"
        "print(*({'torch', 'transformers', 'prefect'} & set(sys.modules)))"
    )
    assert python(code, tmp_path) == ""


def test_names_of_methods_are_known_without_loading_torch(tmp_path):
    """`veridical list` and a misspelt name answer at once."""
    code = (
        "import sys\nfrom veridical.decoders import NAMES\nfrom veridical.detectors import NAMES as more\n"
        "assert 'vcd' in NAMES and 'vhd' in more\nprint(*({'torch', 'prefect'} & set(sys.modules)))"
    )
    assert python(code, tmp_path) == ""


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """What one interpreter prints that names methods, then uses them, then the public calls."""
    code = (
        "import sys, veridical\nfrom veridical import decoders, detectors\nfrom veridical.decoders import procedures\n"
        "assert {'VCD', 'VISTA', 'VSV', 'Gate'} <= set(dir(decoders)) and 'DHCP' in dir(detectors)\n"
        "assert 'ViCrop' in dir(procedures) and {'load', 'LVLM', 'decoders', 'testing'} <= set(dir(veridical))\n"
        "assert not {'Any', 'TYPE_CHECKING', 'import_module'} & set(dir(veridical))\n"
        "print('torch' in sys.modules)\nfrom veridical.decoders import VCD\nfrom veridical.detectors import DHCP\n"
        "print(VCD(alpha=2).alpha, DHCP.__name__, veridical.decoders.procedures.Flip.__name__)\n"
        "try:\n    decoders.VDC\nexcept AttributeError as error:\n    print('classes: ADHH, AGLA, AVC' in str(error))\n"
        "veridical.generate, veridical.load, veridical.mitigate\nprint('prefect' in sys.modules)"
    )
    return python(code, tmp_path_factory.mktemp("used")).split()


def test_classes_of_methods_are_names_of_their_packages_and_imported_when_used(used):
    """`from veridical.decoders import VCD`; `dir` and completion show them without torch, and leave nothing out."""
    assert used[:5] == ["False", "2", "DHCP", "Flip", "True"]


def test_generating_loads_no_prefect(used):
    assert used[5] == "False"


def test_the_root_on_the_path_gives_an_explanation_and_not_our_datasets(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "try:\n    import datasets\nexcept ImportError as error:\n    print(error)"
    )
    assert "run `pytest` instead of `python -m pytest`" in python(code, tmp_path)
