"""docs/methods.md is what its record says: nobody edits a figure by hand, and none is left behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RECORD = ROOT / "docs" / "methods.json"


def page(*options) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / "methods_page.py"), *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return options[-1].read_text(encoding="utf-8")


def test_the_tables_of_the_page_are_those_of_the_record(tmp_path):
    stored = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    tables, mark, _ = stored.partition("\n<!-- by hand -->")
    assert mark
    assert page("--to", tmp_path / "page.md") == tables


@pytest.mark.parametrize("model", ["embedded", "embedded-smollm2"])
def test_verdicts_of_differences_with_a_p_hold_together(tmp_path, model):
    """A p of 0.03 alone is a verdict; among five of them none is."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    rows = record["models"][model]["chair"]
    for row in rows.values():
        row["differences"] = {}
    clear = {"value": -0.09, "low": -0.15, "high": -0.03, "n": 500, "p": 0.03, "differing": 90}
    rows["vcd"]["differences"]["CHAIR_i"] = clear
    assert verdicts(tmp_path, record, model) == ["better"]
    for setting in ("icd", "avc", "rbd", "sid"):
        rows[setting]["differences"]["CHAIR_i"] = clear
    assert set(verdicts(tmp_path, record, model)) == {"inside the noise"}


def verdicts(folder, record, model) -> list[str]:
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    text = page("--record", folder / "record.json", "--to", folder / "page.md")
    heading = {"embedded": "## Captions\n", "embedded-smollm2": "### Captions of the second model\n"}[model]
    table = text.split(heading)[1].split("\n#")[0]
    return [line.split("-0.090 [-0.150, -0.030] ")[1].split(" |")[0] for line in table.splitlines() if "-0.150" in line]
