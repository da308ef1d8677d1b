"""An evaluation from a file of options, its table for a paper, and how far it has come."""

import json


def test_options_come_from_a_file_those_of_the_command_line_win_and_the_table_is_markdown(veridical, tmp_path):
    (tmp_path / "run.toml").write_text(
        f'decoder = ["greedy", "vcd"]\nbenchmark = "chair"\nlimit = 3\nmax-new-tokens = 8\nout = "{tmp_path / "run"}"\n'
    )
    shown = veridical(
        "evaluate", "--config", tmp_path / "run.toml", "--limit", 2, "--no-prefect", "--format", "markdown"
    )
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("**chair**\n\n| system | chair_s ↓ |")
    assert "\n| vcd | " in shown.stdout
    manifest, again = tmp_path / "run" / "manifest.json", tmp_path / "again"
    assert veridical("evaluate", "--config", manifest, "-d", "greedy", "--no-prefect", "--out", again).exit_code == 0
    first, second = (
        json.loads((folder / "manifest.json").read_text())["request"] for folder in (manifest.parent, again)
    )
    assert second == {**first, "decoders": ["greedy"]}
    state = veridical("status", tmp_path / "run")
    assert state.stdout == "chair, greedy: 2 answers\nchair, vcd: 2 answers\nfinished\n"


def test_a_folder_without_a_job_has_no_status(veridical, tmp_path):
    shown = veridical("status", tmp_path)
    assert shown.exit_code == 2
    assert "holds neither a job nor an evaluation" in shown.stderr
