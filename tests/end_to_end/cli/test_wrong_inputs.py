"""Inputs that are wrong in ways that happen: one sentence each, exit code 2, and nothing left behind."""

import errno

import pytest

from veridical.cli.errors import explain

BAD = {
    "an empty prompt": (["caption", "{a}", "--prompt", ""], ["--prompt is an empty text"]),
    "an empty prompt for an evaluation": (
        ["evaluate", "--prompt", " ", "--out", "{new}"], ["--prompt is an empty text: leave the option out"],
    ),
    "an empty question": (["answer", "{a}", "-q", ""], ["--question is an empty text"]),
    "an empty question to a detector": (["detect", "{a}", "-q", ""], ["--question is an empty text"]),
    "two questions": (
        ["answer", "{a}", "-q", "Is it?", "-q", "Was it?"], ["given 2 times ('Is it?', 'Was it?') and takes one"],
    ),
    "an empty image": (["caption", ""], ["an image has an empty name"]),
    "another format": (["caption", "{a}", "--format", "xml", "--out", "{new}"], ["--format xml", "parquet, jsonl"]),
    "captions beside results": (["caption", "{a}", "--out", "{results}"], ["holds the results of an evaluation"]),
    "captions in a file": (["caption", "{a}", "--out", "{file}"], ["(a file is in its place); choose another --out"]),
    "results in a file": (
        ["evaluate", "--limit", "1", "--benchmark", "chair", "--no-prefect", "--out", "{file}"],
        ["(a file is in its place); choose another --out"],
    ),
    "images in a file": (["data", "world", "--count", "1", "--out", "{file}"], ["is needed as a folder"]),
    "no cron line": (
        ["schedule", "evaluate", "--cron", "bad", "--out", "{new}"], ["'bad' is no cron line", "every night"],
    ),
    "an hour that no day has": (["schedule", "evaluate", "--cron", "0 25 * * *", "--out", "{new}"], ["no cron line"]),
    "images of no folder": (
        ["evaluate", "--images", "{latin}", "--limit", "1", "--out", "{new}"], ["--images", "add --coco FOLDER."],
    ),
    "results beside captions": (
        ["evaluate", "--limit", "1", "--out", "{job}"], ["holds the captions of a job", "choose another --out."],
    ),
    "an empty text": (["detect", "{a}", "--text", ""], ["--text is an empty text"]),
    "options in Latin-1": (["evaluate", "--config", "{latin}"], ["--config", "latin.txt is no UTF-8 text (byte 3)"]),
    "a list in Latin-1": (
        ["score", "chair", "{captions}", "-g", "{a}", "--images", "{latin}"], ["latin.txt is no UTF-8 text (byte 3)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_input_is_one_sentence_and_leaves_nothing_behind(veridical, image_files, tmp_path, case):
    arguments, expected = BAD[case]
    paths = {name: tmp_path / name for name in ("new", "file", "results", "job", "captions", "latin.txt")}
    paths["file"].write_text("")
    paths["results"].mkdir()
    (paths["results"] / "manifest.json").write_text("{}")
    paths["job"].mkdir()
    (paths["job"] / "job.json").write_text("{}")
    paths["captions"].write_text('{"image_id": 1, "caption": "A dog."}\n')
    paths["latin.txt"].write_bytes("café.png\n".encode("latin-1"))
    before = sorted(tmp_path.rglob("*"))
    places = {name.removesuffix(".txt"): path for name, path in paths.items()}
    shown = veridical(*(one.format(a=image_files.a, **places) for one in arguments))
    assert shown.exit_code == 2, shown.output
    assert all(part in shown.stderr for part in expected), shown.stderr
    assert "[Errno" not in shown.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("line", ["0 3 * * *", "*/15 8-18 * * mon-fri", "@daily", "0 0 1,15 jan *"])
def test_cron_lines_of_the_usual_kinds_are_taken(line):
    from types import SimpleNamespace

    from veridical.cli.option_checks import cron_line

    assert cron_line(SimpleNamespace(opts=["--cron"]), line) == line


def test_a_decoder_that_is_given_twice_runs_once_with_a_note(veridical, image_files):
    shown = veridical("caption", image_files.a, "-d", "greedy", "-d", "greedy", "--max-new-tokens", 4)
    assert shown.exit_code == 0, shown.output
    assert "note: --decoder greedy is given 2 times and runs once" in shown.stderr


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EACCES, "permission is denied"), (errno.EROFS, "read-only file system"),
        (errno.ENOSPC, "no room is left for /place"), (errno.ENOTDIR, "needed as a folder"),
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_a_sentence_without_a_number(number, expected):
    text, code = explain(OSError(number, "short", "/place"))
    assert expected in text
    assert "/place" in text
    assert "[Errno" not in text
    assert code == 2
