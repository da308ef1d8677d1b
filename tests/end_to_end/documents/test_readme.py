"""The README fits on a screen, and does what it says; the catalogue is the registry."""

import io
import re
import tomllib
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from veridical.cli.render import catalogue

CAPTIONS = re.compile(r"^> \*\*(?:plain|vcd)\*\*((?:.*\n)(?:> (?!\*\*).*\n)*)", re.M)
ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "README.md"


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


def test_the_table_of_methods_is_the_registry():
    assert catalogue.markdown() in catalogue.PAGE.read_text(encoding="utf-8")


def test_it_is_a_screen_with_the_captions_their_code_and_two_commands_first(text):
    lines = text.splitlines()
    assert len(lines) <= 70
    marks = ("~~", "lvlm =", "make evaluate ", "make test")
    first = [next(n for n, line in enumerate(lines) if mark in line) for mark in marks]
    assert first == sorted(first)
    assert first[-1] < 40


def test_the_extras_that_it_names_exist(text):
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = re.search(r"with an extra: (.+)", text)[1]
    assert set(re.findall(r"\w+", named)) - {"or"} <= set(known)


def test_its_links_lead_to_files_and_headings(text):
    for target, heading in re.findall(r"\]\(([^):#]+)(?:#([^)]+))?\)", text):
        page = ROOT / target
        assert page.exists(), target
        titles = re.findall(r"^#+ (.+)", page.read_text(encoding="utf-8"), re.M) if heading else []
        assert not heading or heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
