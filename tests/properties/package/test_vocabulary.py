"""One word per idea: names in the code are the field's nouns (CONTRIBUTING.md, "Words")."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("benchmarks", "cli", "datasets", "decoders", "detectors", "flows", "metrics", "models", "pipelines", "plots",
           "testing", "tests")  # fmt: skip
INSTEAD = {
    "told": "record or report", "said": "text or answer", "asked": "request, example or question",
    "made": "generation, run or what it is", "picture": "image or tile", "pictures": "images or tiles",
    "sureness": "confidence", "seeing": "with_image", "blind": "without_image",
}  # fmt: skip
TERMS = {  # names of papers and files, and words of which these are a part
    "blind_tokens", "find_blind",  # AvisC's "blind tokens"
    "reinforce_blind",  # VHR's option, a fixed name
    "ready_made_truth",  # of files that others wrote
}  # fmt: skip


def names_of(tree):
    """(name, line) of everything that a file names: functions, classes, arguments, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def everyday(tree):
    """Names with an everyday word where the field has a noun; a test's name is a sentence and may have any."""
    for name, line in names_of(tree):
        words = set(name.lower().split("_"))
        if name not in TERMS and not name.startswith("test_") and (found := words & INSTEAD.keys()):
            yield f"line {line}: {name}: {', '.join(f'{word} is {INSTEAD[word]}' for word in sorted(found))}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_are_the_fields_nouns(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    found = [f"{file.relative_to(ROOT)} {one}" for file in files for one in everyday(ast.parse(file.read_text()))]
    assert files or folder == "models"
    assert not found, "\n".join(found)


def test_an_everyday_name_is_found_wherever_a_name_can_stand():
    code = "def told(said):\n    self.asked = picture_of = said\n    for made in said: pass\nclass Blind: pass\n"
    found = "\n".join(everyday(ast.parse(code)))
    assert sorted(re.findall(r"line (\d): (\w+)", found)) == [
        ("1", "said"), ("1", "told"), ("2", "asked"), ("2", "picture_of"), ("3", "made"), ("4", "Blind"),
    ]  # fmt: skip
