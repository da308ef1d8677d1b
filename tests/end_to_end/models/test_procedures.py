"""MVP and ViCrop from the command line, in an evaluation, and in the list of methods."""

import json

import pytest

from veridical.flows.evaluation import steps
from veridical.pipelines.method import rules
from veridical.pipelines.registry import DECODERS, DETECTORS, PROCEDURES

from ..evaluations import evaluate

QUESTIONS = "Is there a dog in the image?"
MVP = "mvp:caption_tokens=4,path_tokens=2,paths=2"
DECODED = ["greedy", MVP, "vicrop+vcd"]


def test_they_stand_where_decoders_do(veridical, image_files):
    options = [part for decoder in DECODED for part in ("-d", decoder)]
    shown = veridical("answer", image_files.a, "-q", QUESTIONS, *options)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()[1:]
    assert [line.split(": ")[0].strip() for line in lines] == DECODED
    assert all(line.split(": ")[1].lower().startswith(("yes", "no")) for line in lines)


@pytest.mark.parametrize(
    ("command", "decoder", "message"),
    [
        (["caption", "{a}"], "mvp", "it takes closed questions, which have a question mark"),
        (["caption", "{a}"], "vcd+vicrop", "a procedure comes first"),
        (["caption", "{a}"], "mvp+vicrop", "neither can run inside the other"),
        (["answer", "{a}", "-q", QUESTIONS], "vicrop+agla", "two images at once"),
        (["answer", "{a}", "-q", QUESTIONS], "vicrop:side=0", "side=0 is below 1"),
        (["answer", "{a}", "-q", QUESTIONS], "mvpp", 'Did you mean "mvp"'),
    ],
)
def test_what_has_no_meaning_is_said_in_a_line(veridical, image_files, command, decoder, message):
    given = [part.format(a=image_files.a) for part in command]
    shown = veridical(*given, "-d", decoder)
    assert shown.exit_code != 0
    assert shown.stdout == ""
    assert message in " ".join(shown.stderr.split())
    assert "Traceback" not in shown.stderr


def test_an_evaluation_runs_them_and_counts_what_they_did(tmp_path):
    """A step of an answer is one decision, whatever it took."""
    run = evaluate(tmp_path / "run", decoders=DECODED[1:], benchmarks=["pope"], limit=1)
    records = {record["decoder"]: record for record in json.loads((run / "results.json").read_text(encoding="utf-8"))}
    assert list(records) == DECODED[1:]
    for decoder, record in records.items():
        name = decoder.partition(":")[0].partition("+")[0]
        acted = record["acted"][name]
        assert acted["steps"] == record["answers"] > 0
        assert 0 < acted["acted"] <= acted["steps"]
        assert 0 <= record["metrics"]["accuracy"]["value"] <= 1
    assert "vcd" in records["vicrop+vcd"]["acted"]
    assert records[MVP]["repr"].startswith("MVP(paths=2")


def test_an_evaluation_refuses_what_a_procedure_cannot_do_before_anything_is_answered(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "load", None)
    with pytest.raises(ValueError, match=r"mvp cannot answer chair: MVP chooses between yes and no"):
        evaluate(tmp_path / "run", decoders=["mvp"], benchmarks=["chair"], limit=1)
    assert not (tmp_path / "run").exists()


def test_the_long_list_says_of_every_method_what_it_does_costs_and_runs_on(veridical):
    """Paper, what it edits, extra forwards, families, and where paper and code differ."""
    shown = " ".join(veridical("list", "--long").stdout.split())
    for registry in (DECODERS, PROCEDURES):
        for name, row in registry.own.items():
            block = f"changes: {row.changes} · cost: {row.cost} · paper: {row.cited} families: "
            assert block in shown, name
            if row.differs:
                assert f"paper and code: {row.differs}" in shown, name


def test_the_long_list_says_what_may_stand_in_every_field(veridical):
    """The rules that the class checks are those that are shown."""
    shown = " ".join(veridical("list", "--long").stdout.split())
    for registry in (DECODERS, PROCEDURES, DETECTORS):
        for name in registry.own:
            for field, rule in rules(registry.type(name)).items():
                assert f"{field}: {' '.join(str(rule).split())}" in shown, (name, field)


def test_the_short_list_has_a_line_for_each(veridical):
    shown = veridical("list").stdout
    for name in (*DECODERS.names, *PROCEDURES.names):
        assert any(line.startswith(f"{name} ") for line in shown.splitlines()), name
