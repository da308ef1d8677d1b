"""What CONTRIBUTING tells a newcomer about places in the tree is still true."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROWS = re.findall(r"^\| [^|]+ \| `([\w/]+\.py)` \| `(\w+)` \|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M)


def defined(path):
    """The names that a module defines itself."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_a_newcomer_is_told_of_twenty_places_and_more():
    assert len({path for path, _ in ROWS}) > 20


@pytest.mark.parametrize(("path", "name"), ROWS, ids=[name for _, name in ROWS])
def test_what_contributing_points_at_is_defined_there(path, name):
    assert name in set(defined(ROOT / path))
