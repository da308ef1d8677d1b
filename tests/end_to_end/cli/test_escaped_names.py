"""Names of files and texts of others cannot move a terminal's cursor, colour it, or feign a line."""

import pytest
from PIL import Image

from veridical.cli import terminal
from veridical.flows.captioning.request import EMBEDDED
from veridical.pipelines.model.spec import load
from veridical.pipelines.results import Answer

EVIL = "a\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp\r.png"


def controls(text):
    return [c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c == "\u202e"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(
        type(load(EMBEDDED)), "answer", lambda self, images, *a, **k: [Answer("a \x1b[31mdog") for _ in images]
    )
    Image.new("RGB", (20, 20)).save(tmp_path / EVIL, "PNG")
    (tmp_path / f"bad{EVIL}").write_text("no image")
    return tmp_path


def test_the_names_of_images_their_errors_and_what_a_model_says_are_escaped(veridical, folder):
    shown = veridical("caption", folder / EVIL, folder / f"bad{EVIL}", folder / "feigned\nError: all is lost.png")
    assert controls(shown.stdout + shown.stderr) == []
    assert "\\x1b[2J" in shown.stdout
    assert "\\u202e" in shown.stdout
    assert "a \\x1b[31mdog" in shown.stdout
    assert not any(line.startswith("Error: all") for line in shown.stdout.splitlines())


def test_the_message_about_a_file_is_escaped(veridical, folder):
    shown = veridical("caption", folder / f"bad{EVIL}")
    assert shown.exit_code == 2
    assert shown.stderr.startswith("Error: ")
    assert controls(shown.stderr) == []
    assert "\\x9b31m" in shown.stderr


def test_the_folder_of_a_job_is_escaped_where_it_is_named(veridical, folder):
    out = folder / f"out{EVIL}"
    for words in (["caption", folder, "--out", out, "--no-prefect"], ["status", out], ["verify", out]):
        shown = veridical(*words)
        assert controls(shown.stdout + shown.stderr) == [], words


def test_text_in_other_scripts_stays():
    assert terminal.safe("Größe 犬 עברית é\tx\n") == "Größe 犬 עברית é\tx\n"
