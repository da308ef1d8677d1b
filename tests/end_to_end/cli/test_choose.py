"""`veridical choose` on the embedded model and world, and `caption --setting` with what it certified."""

import json
import math

import numpy as np
import pytest
from PIL import Image

import veridical as package
from veridical.datasets.world import scene
from veridical.flows.benchmarks.base import Source
from veridical.flows.benchmarks.registry import BENCHMARKS
from veridical.flows.choosing import certify, run
from veridical.flows.choosing.losses import Losses, losses, recorded
from veridical.flows.choosing.request import Choice
from veridical.flows.evaluation import answer_file
from veridical.flows.evaluation.request import chain


@pytest.fixture(scope="module")
def chosen(veridical, tmp_path_factory):
    """What was printed, the setting file, and its folder."""
    out = tmp_path_factory.mktemp("choose") / "chosen.json"
    shown = veridical(
        "choose", "--out", out, "--limit", 24, "--level", 0.45, "--confidence", 0.8, "--recall-loss", 0.6,
        "-d", "greedy", "--batch-size", 24,
    )  # fmt: skip
    return shown, out


def test_the_setting_is_written_with_its_guarantee_and_assumption(chosen):
    shown, out = chosen
    found = json.loads(out.read_text())
    assert shown.exit_code == 0, shown.output
    assert found["claim"]
    assert found["images"] == {"calibration": 8, "certification": 16}
    assert found["p"] <= 0.2
    assert "With confidence 0.8, the expected share of hallucinated mentions" in found["guarantee"]
    assert "drawn alike" in found["guarantee"]
    assert found["guarantee"] in shown.output
    assert {"risk", "recall", "recall_change", "plain_risk"} <= found["figures"].keys()
    assert found["figures"]["risk"]["n"] == 16


def test_caption_reads_the_setting_and_captions_by_it(chosen, veridical, tmp_path):
    _, out = chosen
    image = tmp_path / "a.png"
    built = scene("validation", 3)
    built.image.save(image)
    shown = veridical("caption", image, "--setting", out, "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(out.read_text())
    row = json.loads(shown.stdout.splitlines()[-1])
    assert row["decoder"] == found["setting"]
    lvlm = package.load("embedded")
    (there,) = lvlm.caption(
        Image.open(image), decoders=chain(found["setting"], "embedded"), prompt=found["prompt"], max_new_tokens=128
    )
    assert row["text"] == there.text


def test_what_a_setting_does_is_what_was_certified(chosen):
    """`drop` on the model, and on recorded captions and risks, leaves the same objects."""
    _, out = chosen
    folder = out.with_suffix("") / "plain"
    rows = answer_file.read_rows(answer_file.answers_path(folder, "chair", "greedy"))[:8]
    source = Source(split="validation", limit=24)
    examples = BENCHMARKS["chair"].examples(source)[:8]
    threshold = sorted(r for row in rows for r in row["risk"]["lookback_lens"])[-20]
    table = losses(recorded("greedy", "lookback_lens", examples, rows), source.chair, [threshold])
    answers = package.load("embedded").caption(
        [e.open() for e in examples], [f"drop:detector='lookback_lens',threshold={threshold!r}"],
        prompt=BENCHMARKS["chair"].prompt, batch_size=8, max_new_tokens=128,
    )  # fmt: skip
    assert any(answer.text != row["text"] for answer, row in zip(answers, rows, strict=True))
    for image, (example, answer) in enumerate(zip(examples, answers, strict=True)):
        named = source.chair.parse(answer.text).objects
        assert table.counts[image, 0, 2] == len(named)
        assert table.counts[image, 0, 3] == sum(name not in example.objects for name in named)


def test_gates_take_their_thresholds_from_the_images_that_choose_and_can_be_dropped_behind(chosen):
    folder = chosen[1].with_suffix("") / "plain"
    request = Choice(
        source=Source(split="validation", limit=24), decoders=("vcd",), gate_shares=(0.3,), level=0.45, confidence=0.8
    )
    (text,) = run.gated(request, folder)
    rows = answer_file.read_rows(answer_file.answers_path(folder, "chair", "greedy"))
    calibration, _ = certify.divide(24, request)
    risks = [risk for image in calibration for risk in rows[image]["risk"]["lookback_lens"]]
    (gate,) = chain(text, "embedded")
    assert sum(risk > gate.threshold for risk in risks) <= 0.3 * len(risks) < sum(r >= gate.threshold for r in risks)
    named = Losses(text, [0.5, math.inf], np.zeros((1, 2)), np.zeros((1, 2, 4)), 0.1).setting(0, "lookback_lens")
    assert [type(one).__name__ for one in chain(named, "embedded")] == ["Drop", "Gate"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-d", "vcd"], "--decoder is fixed by"),
        (["--prompt", "Describe it."], "--prompt is fixed by"),
        (["--max-new-tokens", 5], "--max-new-tokens 5 is another than"),
        (["--model", "other"], "--model other is another than"),
        (["--sample"], "--sample is fixed by"),
    ],
)
def test_an_option_that_the_setting_fixes_is_refused(chosen, veridical, more, message):
    shown = veridical("caption", "a.png", "--setting", chosen[1], *more)
    assert shown.exit_code == 2
    assert message in shown.output


def test_a_file_without_a_claim_and_another_file_are_refused(chosen, veridical, tmp_path):
    found = json.loads(chosen[1].read_text())
    none, other = tmp_path / "none.json", tmp_path / "other.json"
    none.write_text(json.dumps({**found, "setting": None, "guarantee": "Nothing is guaranteed: too risky."}))
    other.write_text("[]")
    shown = veridical("caption", "a.png", "--setting", none)
    assert (shown.exit_code, "holds no setting. Nothing is guaranteed: too risky." in shown.output) == (2, True)
    shown = veridical("caption", "a.png", "--setting", other)
    assert (shown.exit_code, "is no file of `veridical choose`" in shown.output) == (2, True)


def test_too_few_images_are_refused_before_any_is_captioned(veridical, tmp_path):
    shown = veridical("choose", "--out", tmp_path / "c.json", "--limit", 30, "--level", 0.05)
    assert shown.exit_code == 2
    assert "takes 45 even if no caption has a mistake" in shown.output
    assert not list(tmp_path.iterdir())


def test_a_level_that_is_not_reached_claims_nothing_and_exits_with_1(chosen, veridical):
    _, out = chosen
    again = out.with_name("strict.json")
    (out.with_suffix("")).rename(again.with_suffix(""))  # the captions are there already
    shown = veridical(
        "choose", "--out", again, "--limit", 24, "--level", 0.1, "--confidence", 0.8, "--recall-loss", 0.6,
        "-d", "greedy", "--batch-size", 24,
    )  # fmt: skip
    again.with_suffix("").rename(out.with_suffix(""))
    assert shown.exit_code == 1, shown.output
    assert "does not show that it is at most 0.1" in shown.output
    assert json.loads(again.read_text())["setting"] is None
