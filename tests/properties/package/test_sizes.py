"""Files that fit a reader's head, and functions whose callers need no list of twenty values."""

import ast
from collections import Counter
from pathlib import Path

import veridical

ROOT = Path(veridical.__file__).parent
PARTS = ("metrics", "datasets", "pipelines", "decoders", "detectors", "plots", "flows", "cli")
MOST_LINES, MOST_PARAMETERS, MOST_FILES = 350, 8, 16
ONE_METHOD_A_FILE = {"decoders", "detectors", "metrics"}

# What cannot be otherwise, and why.
WIDE = {
    "pipelines/lvlm.py answer": "the public call: its options are written out where it is called, and in every guide",
    "pipelines/model/load.py load": "the public call: what a model is loaded with, which flows hold as a ModelSpec",
    "pipelines/transformers_hook.py custom_generate": "transformers calls it, and names what it passes as media",
}


def sources():
    return {path.relative_to(ROOT).as_posix(): path for part in PARTS for path in (ROOT / part).rglob("*.py")}


def wide(text):
    """Functions with more than eight parameters; a command's options are parameters, and it may have more."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            command = any(".command(" in ast.unparse(one) for one in node.decorator_list)
            if len(given) > MOST_PARAMETERS and not command:
                yield node.name


def test_no_file_is_longer_than_350_lines():
    long = {name for name, path in sources().items() if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES}
    assert not long


def test_no_folder_has_more_than_16_files_of_code_but_those_where_a_file_is_a_method():
    files = Counter(path.parent.relative_to(ROOT).as_posix() for path in sources().values() if path.stem != "__init__")
    assert not {name: count for name, count in files.items() if count > MOST_FILES and name not in ONE_METHOD_A_FILE}


def test_no_function_but_a_command_has_more_than_eight_parameters():
    found = {f"{name} {one}" for name, path in sources().items() for one in wide(path.read_text(encoding="utf-8"))}
    assert found == set(WIDE)


def test_a_wide_function_is_found_and_a_wide_command_is_none():
    names = ", ".join("abcdefghi")
    text = f"def wide({names}): ...\n@app.command(\"x\")\ndef command({names}): ...\ndef narrow(a, *b, **c): ...\n"
    assert [*wide(text)] == ["wide"]
