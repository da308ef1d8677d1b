"""Commands that the documents and the help texts show exist, with the options that they are shown with."""

import re
import shlex

import pytest

from .reader import DOCUMENTS, ROOT, blocks, inline, unknown


def shown(text):
    """Command lines, in blocks of code and in backticks, with those that are not run."""
    for block in blocks(text):
        for words in block.commands if block.language == "bash" else ():
            rest = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]
            start = rest.index("veridical") if "veridical" in rest else 0
            if rest[start] == "veridical" and (start == 0 or rest[0] == "accelerate"):
                yield shlex.join(rest[start:])
    yield from inline(text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_documented_commands_and_options_exist(path):
    wrong = {line: word for line in shown(path.read_text(encoding="utf-8")) if (word := unknown(line))}
    assert not wrong


def test_examples_in_help_texts_exist():
    files = sorted((ROOT / "cli").rglob("*.py"))
    quoted = re.compile(r"\"(veridical [^\"{]+)\"|'(veridical [^'{]+)'")
    found = [pair for path in files for pair in quoted.findall(path.read_text(encoding="utf-8"))]
    lines = [first or second for first, second in found]
    assert len(lines) > 40
    assert not {line: word for line in lines if (word := unknown(line))}


def test_a_misspelt_option_and_a_command_that_does_not_exist_are_found():
    assert unknown("veridical caption a.jpg --decodr vcd") == "--decodr"
    assert unknown("veridical captions a.jpg") == "captions"
    assert unknown("veridical score chair c.jsonl -g coco") is None
    text = "```bash\n# why\nveridical caption a.jpg \\\n    --decodr vcd\n```\n"
    assert [unknown(line) for line in shown(text)] == ["--decodr"]
