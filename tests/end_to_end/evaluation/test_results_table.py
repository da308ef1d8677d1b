"""`Results.load`: the numbers of results.json as a pandas table, and as tables for a paper."""

import json
import subprocess
import sys

import pandas as pd
import pytest

import veridical


@pytest.fixture
def results(small_run):
    return veridical.Results.load(small_run)


def test_every_figure_of_the_folder_is_a_row(results, small_run):
    records = json.loads((small_run / "results.json").read_text())
    assert isinstance(results, pd.DataFrame)
    assert len(results) == sum(len(record["metrics"]) for record in records)
    for record in records:
        mine = results[(results.benchmark == record["benchmark"]) & (results.decoder == record["decoder"])]
        for row in mine.itertuples():
            cell = record["metrics"][row.metric]
            assert (row.value, row.low, row.high, row.n) == (cell["value"], cell["low"], cell["high"], cell["n"])
    assert set(results.verdict) <= {"", "better", "best", "worse"}
    assert not results[results.metric == "chair_i"].higher_is_better.any()


def test_a_selection_prints_as_a_table_for_a_paper(results):
    chosen = results[(results.benchmark == "chair") & results.metric.isin(["chair_i", "recall"])]
    cell = next(row for row in chosen.itertuples() if (row.decoder, row.metric) == ("vcd", "recall"))
    shown = f"{cell.value:.3f} [{cell.low:.3f}, {cell.high:.3f}]"
    lines = chosen.to_markdown().splitlines()
    assert lines[2:4] == ["| system | chair_i ↓ | recall ↑ |", "| --- | --- | --- |"]
    assert len(lines) == 6
    assert lines[-1].startswith("| vcd |")
    assert shown in lines[-1]
    latex = chosen.to_latex()
    assert r"system & chair\_i $\downarrow$ & recall $\uparrow$ \\" in latex
    assert shown in latex


def test_other_columns_print_as_pandas_prints_them(results):
    assert results[["decoder", "value"]].to_latex().startswith(r"\begin{tabular}{llr}")


def test_without_pandas_the_error_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['pandas'] = None\nimport veridical\n"
        "try:\n    veridical.Results\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "pip install 'veridical[plots]'" in done.stdout, done.stderr
