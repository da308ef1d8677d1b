"""Words tinted by risk on a terminal, plain text in a pipe, JSON where it is asked for."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from veridical.cli.render import tint
from veridical.pipelines.inputs.words import Word

CODE = (
    "from veridical.cli.render.answers import answers\nfrom veridical import Answer\n"
    "answers('a.png', {'greedy': Answer('A dog.', ['A', ' dog.'], {'entropy': [0.05, 0.95]})}, True)\n"
    "from veridical.cli.commands.detect import _show\n"
    "from veridical.flows.detection.word_risk import Rated, Word\n"
    "words = {'entropy': [Word('A', 0, 1, 0.05), Word('dog.', 2, 6, 0.95)]}\n"
    "_show('a.png', Rated('A dog.', words, {}, {'entropy': 0.5}), False, False, False)\n"
)
ESCAPE = "\x1b["


def on_a_terminal(**environment):
    """What the code prints on a terminal of its own."""
    master, slave = pty.openpty()
    settings = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    settings |= {"TERM": "xterm-256color", **environment}
    done = subprocess.run([sys.executable, "-c", CODE], stdout=slave, env=settings, check=True)
    os.close(slave)
    parts = []
    while done:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    os.close(master)
    return b"".join(parts).decode()


def test_a_terminal_gets_words_in_the_colour_of_their_risk():
    shown = on_a_terminal()
    riskiest = tint.LEVELS[-1]
    assert len(re.findall(rf"{re.escape(ESCAPE)}38;5;{riskiest}m(?:{re.escape(ESCAPE)}1m)?dog\.", shown)) == 2
    assert f"{ESCAPE}0mA{ESCAPE}2m·0.05" in shown, "a word of no risk has no colour"
    assert shown.count("risk: low") == 2
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert "A·0.05 dog.·0.95" in plain
    assert "entropy: A·0.05 [dog.·0.95]" in plain


def test_a_pipe_and_no_color_get_plain_text():
    piped = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
    assert ESCAPE not in piped
    assert ESCAPE not in on_a_terminal(NO_COLOR="1")
    assert "risk: low" not in piped


def test_levels_rise_with_risk(monkeypatch):
    monkeypatch.setattr(tint, "coloured", lambda: True)
    shown = tint.tinted([Word("a", 0, 1, risk) for risk in (0.0, 0.3, 0.5, 0.7, 1.0)])
    colours = [re.search(r"38;5;(\d+)", one) for one in shown]
    assert [one and int(one[1]) for one in colours] == list(tint.LEVELS)


# -- JSON ----------------------------------------------------------------------------------------------------------
def test_status_of_an_evaluation_as_json(small_run, veridical):
    found = json.loads(veridical("status", small_run, "--json").stdout)
    assert found["finished"] is True
    assert found["answers"]["chair"] == {"greedy": 6, "vcd": 6}


def test_the_list_of_methods_as_json(veridical):
    found = json.loads(veridical("list", "--json").stdout)
    assert found["decoders"]["vcd"]["fields"]["alpha"] == "1.0"
    assert found["decoders"]["vcd"]["paper"] == "2311.16922"
    assert "entropy" in found["detectors"]
    assert "POPE" in found["benchmarks"]["pope"]["measures"]


def test_results_of_an_evaluation_as_json(small_run, tmp_path, veridical):
    import shutil

    shutil.copytree(small_run, tmp_path / "run")
    command = ["evaluate", "-d", "greedy", "-d", "vcd", "--limit", 6, "--max-new-tokens", 24, "--out", tmp_path / "run"]
    shown = veridical(*command, "--json", "--no-prefect")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout) == json.loads((tmp_path / "run" / "results.json").read_text())
    refused = veridical(*command, "--json", "--format", "latex")
    assert refused.exit_code == 2
    assert "two ways to print one table" in refused.stderr


@pytest.mark.parametrize("form", ["csv", "coco"])
def test_captions_of_a_job_as_csv_and_in_cocos_format(form, tmp_path, veridical):
    from veridical.datasets.world import scene

    for index in range(2):
        (tmp_path / "in").mkdir(exist_ok=True)
        scene("test", index).image.save(tmp_path / "in" / f"{index}.png")
    out = tmp_path / "out"
    command = ["caption", tmp_path / "in", "-t", "entropy", "--out", out, "--format", form, "--max-new-tokens", 8]
    shown = veridical(*command, "--no-prefect")
    assert shown.exit_code == 0, shown.output
    if form == "csv":
        import csv

        rows = list(csv.DictReader((out / "captions.csv").open()))
        assert [row["id"] for row in rows] == ["0.png", "1.png"]
        assert all(json.loads(row["risk.entropy"]) for row in rows)
    else:
        rows = json.loads((out / "captions.json").read_text())
        assert [row["image_id"] for row in rows] == [0, 1]
    verified = veridical("verify", out, "--json")
    assert json.loads(verified.stdout)["faults"] == []
    assert json.loads(veridical("status", out, "--json").stdout)["done"] == 2
    page = (out / "report.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert [one["id"] for one in data["examples"]] == ["0.png", "1.png"]
    assert all(data["images"])
    assert data["truth"] is False
    assert data["examples"][0]["answers"][0]["words"][0]["r"]
