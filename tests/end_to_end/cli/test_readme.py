"""The README does what it says."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from veridical.cli.render import catalogue

CAPTIONS = re.compile(r"^> \*\*(?:plain|vcd)\*\*((?:.*\n)(?:> (?!\*\*).*\n)*)", re.M)
README = Path(__file__).resolve().parents[3] / "README.md"


@pytest.fixture(scope="module")
def text() -> str:
    return README.read_text(encoding="utf-8")


def test_its_first_lines_print_its_two_captions(text):
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    out = io.StringIO()
    with redirect_stdout(out):
        exec(code, {})
    words = lambda caption: re.findall(r"[a-z]+", caption.lower())
    printed = [words(line) for line in out.getvalue().splitlines()]
    assert [words(caption) for caption in CAPTIONS.findall(text)] == printed


def test_the_mitigated_caption_lacks_the_word_that_is_marked_as_wrong(text):
    from veridical.datasets.world import scene
    from veridical.metrics.chair import Chair

    plain, mitigated = CAPTIONS.findall(text)
    (marked,) = re.findall(r"~~(.+?)~~", plain)
    (wrong,) = Chair().parse(marked).objects
    assert wrong not in scene("test", 1).categories
    assert wrong not in Chair().parse(mitigated).objects


def test_its_table_of_methods_is_the_registry(text):
    assert catalogue.markdown() in text
