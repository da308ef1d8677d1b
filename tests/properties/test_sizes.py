"""Files that fit a reader's head, and functions whose callers need no list of twenty values."""

import ast
from pathlib import Path

import veridical

ROOT = Path(veridical.__file__).parent
PARTS = ("metrics", "datasets", "pipelines", "decoders", "detectors", "flows", "cli")
MOST_LINES, MOST_PARAMETERS = 350, 8

# Being taken apart: the lists get shorter and are never added to.
KNOWN_WIDE = {
    "detectors/dhcp.py fit", "detectors/probe.py fit_mlp",
    "pipelines/engine/run.py run", "pipelines/lvlm.py answer", "pipelines/model/load.py load",
    "pipelines/transformers_hook.py custom_generate",
}  # fmt: skip


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


def test_no_function_but_a_command_has_more_than_eight_parameters():
    found = {f"{name} {one}" for name, path in sources().items() for one in wide(path.read_text(encoding="utf-8"))}
    assert not found - KNOWN_WIDE


def test_a_wide_function_is_found_and_a_wide_command_is_none():
    names = ", ".join("abcdefghi")
    text = f"def wide({names}): ...\n@app.command(\"x\")\ndef command({names}): ...\ndef narrow(a, *b, **c): ...\n"
    assert [*wide(text)] == ["wide"]
