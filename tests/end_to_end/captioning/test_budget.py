"""`veridical caption --budget`: a gate is chosen on the first images, recorded, and kept when the job goes on.

No time is measured: answers are canned, and take what a formula says on a clock of their own.
"""

import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from veridical.flows.captioning import run, shard_format
from veridical.flows.captioning.job import Job
from veridical.flows.captioning.request import Captioning
from veridical.flows.evaluation import answer_file
from veridical.flows.gating import budget as budgets
from veridical.flows.gating import budgeted
from veridical.flows.gating.budget import NothingFits
from veridical.pipelines.lvlm import LVLM
from veridical.pipelines.registry import DECODERS
from veridical.pipelines.results import Answer

IMAGES, TOKENS, BUDGET = 7, 20, 1.25
PLAIN, VCD, OPEN = 1.0, 1.5, 0.6  # seconds of a caption; of a gate 1 + 0.6 · share


class Canned:
    """Answers in the model's place. Their tokens, risks and times follow from the image alone."""

    def __init__(self):
        self.now, self.calls = 0.0, 0

    def answer(self, images, question, decoders=(), detectors=(), *, seed, **options):
        self.calls += 1
        gates, out = DECODERS.make_all(list(decoders)), []
        seeds = seed if isinstance(seed, list) else range(seed, seed + len(images))
        for image, one in zip(images, seeds, strict=True):
            image = Image.open(image) if isinstance(image, Path | str) else image
            draw = random.Random(image.getpixel((3, 3))[0])
            risks = [draw.random() for _ in range(TOKENS)]
            acted = sum(risk > getattr(gates[0], "threshold", -1) for risk in risks) if gates else 0
            name = DECODERS.name_of(gates[0]) if gates else ""
            self.now += PLAIN if not gates else VCD if name == "vcd" else 1 + OPEN * acted / TOKENS
            text = f"{name} acted {acted} times, seed {one}"
            counts = {name: {"steps": float(TOKENS), "acted": float(acted), "flipped": 0.0, "kl": 0.0}} if gates else {}
            out.append(Answer(text, text.split(), {"entropy": risks, "position": risks} if detectors else {}, counts))
        return out


@pytest.fixture(scope="module")
def canned():
    one = Canned()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LVLM, "answer", lambda self, *arguments, **named: one.answer(*arguments, **named))
        yield one


@pytest.fixture(scope="module")
def clock(canned):
    return lambda: canned.now


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Seven images of different greys, the first of them cut off."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        Image.new("RGB", (24, 24), (number, number, number)).save(folder / f"{number}.png")
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:40])
    return folder


def requested(images, **changes):
    fields = {"decoders": ["vcd"], "batch_size": 2, "shard_size": 3, "attention_maps": 0,
              "generation": {"max_new_tokens": TOKENS}}  # fmt: skip
    return Captioning([str(images)], **{**fields, **changes})


def broken_clock():
    raise AssertionError("nothing is to be timed")


@pytest.fixture(scope="module")
def finished(images, clock, tmp_path_factory):
    """A finished job with a budget, and what it cost beside a plain one; to be looked at, not changed."""
    folder = tmp_path_factory.mktemp("budget")
    request, choice = budgeted.budgeted(requested(images), folder / "out", BUDGET, clock)
    cost = []
    for one, out in ((request, folder / "out"), (requested(images, decoders=["greedy"]), folder / "plain")):
        began = clock()
        run.captioning(one, str(out))
        cost.append(clock() - began)
    return SimpleNamespace(out=folder / "out", request=request, choice=choice, cost=cost[0] / cost[1])


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(finished.out, tmp_path / "out"))


def files(out):
    """The files of a job that are the same bytes each time."""
    kept = ["captions.parquet", "errors.jsonl", "summary.json", "job.json", "report.html", "budget.json"]
    return {name: (out / name).read_bytes() for name in kept} | {
        path.name: path.read_bytes() for path in (out / "shards").iterdir()
    }


def test_the_job_costs_what_was_predicted_and_pays_for_the_steps_that_it_reports(finished):
    """All images that can be read are those that were timed, and a caption takes what its image says."""
    chosen, choice = finished.choice.chosen, finished.choice
    assert chosen.decoder.startswith("gate:decoder='vcd',detector=entropy,threshold=0.")
    assert (choice.images, choice.skipped) == (IMAGES - 1, 1)  # the first image cannot be read
    assert finished.cost == pytest.approx(chosen.ratio)
    assert chosen.ratio < BUDGET < choice.tried[0].ratio == VCD
    assert chosen.share == pytest.approx(0.3, abs=0.05)  # 1 + 0.6 · 0.3 is within 1.25, 1 + 0.6 · 0.5 is not
    rows = [row for row in shard_format.read(finished.out / "captions.parquet") if row["error"] is None]
    steps, acted = (sum(row["acted"]["gate"][name] for row in rows) for name in ("steps", "acted"))
    assert len(rows) == IMAGES - 1
    assert acted / steps == pytest.approx(chosen.share)
    summary = json.loads((finished.out / "summary.json").read_text(encoding="utf-8"))["budget"]
    assert summary["share"] == pytest.approx(acted / steps)
    assert (summary["budget"], summary["chosen"]) == (BUDGET, chosen.decoder)
    assert summary["sentence"] in (finished.out / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")
    assert f"vcd was paid for at {acted / steps:.1%} of the steps" in summary["sentence"]


def test_the_job_runs_under_the_gates_own_text(finished, images, tmp_path):
    """The same captions as those of a job whose gate is written by hand."""
    run.captioning(requested(images, decoders=[finished.choice.chosen.decoder]), str(tmp_path / "by hand"))
    by_hand = shard_format.read(tmp_path / "by hand" / "captions.parquet")
    assert shard_format.read(finished.out / "captions.parquet") == by_hand


def test_a_job_that_was_stopped_goes_on_with_the_recorded_gate_and_ends_in_the_same_bytes(finished, images, copy):
    before = files(copy)
    (copy / "summary.json").unlink()
    (copy / "captions.parquet").unlink()
    (copy / "shards" / "000001.parquet").unlink()
    request, choice = budgeted.budgeted(requested(images), copy, BUDGET, broken_clock)
    assert (request, choice) == (finished.request, finished.choice)
    run.captioning(request, str(copy))
    assert files(copy) == before


def test_a_job_that_was_stopped_before_its_plan_goes_on_with_the_recorded_gate(finished, images, copy):
    for path in copy.iterdir():
        if path.is_file() and path.name != "budget.json":
            path.unlink()
    shutil.rmtree(copy / "shards")
    again = budgeted.budgeted(requested(images), copy, BUDGET, broken_clock)
    assert again == (finished.request, finished.choice)
    with pytest.raises(AssertionError, match="nothing is to be timed"):  # what was chosen for another request is no use
        budgeted.budgeted(requested(images, batch_size=3), copy, BUDGET, broken_clock)


@pytest.mark.parametrize(("decoders", "budget", "message"), [
    (["vcd"], 1.5, "budget was 1.25, now 1.5"), (["icd"], BUDGET, 'decoder was "vcd", now "icd"'),
])  # fmt: skip
def test_another_budget_or_decoder_on_the_same_folder_is_refused(finished, images, decoders, budget, message):
    with pytest.raises(answer_file.OtherSettings, match=message):
        budgeted.budgeted(requested(images, decoders=decoders), finished.out, budget, broken_clock)
    assert Job.read(finished.out).request.decoders == finished.request.decoders


def test_a_budget_for_a_job_that_was_begun_without_one_is_refused(finished, images):
    with pytest.raises(answer_file.OtherSettings, match="was begun without a budget, with the decoders greedy"):
        budgeted.budgeted(requested(images), finished.out.parent / "plain", BUDGET, broken_clock)


def test_a_damaged_choice_is_refused_and_the_captions_are_kept(finished, images, copy):
    record = json.loads((copy / "budget.json").read_text(encoding="utf-8"))
    record["choice"]["chosen"]["share"] = 0.9
    (copy / "budget.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match=r"budget\.json is damaged .*checksum.*go on without --budget"):
        budgeted.budgeted(requested(images), copy, BUDGET, broken_clock)
    run.captioning(finished.request, str(copy))
    assert "budget" not in json.loads((copy / "summary.json").read_text(encoding="utf-8"))


def test_a_folder_is_left_as_it_was_where_nothing_fits(images, clock, tmp_path):
    with pytest.raises(NothingFits, match=r"stays within 1\.001 times"):
        budgeted.budgeted(requested(images), tmp_path / "out", 1.001, clock)
    assert not (tmp_path / "out").exists()


# -- the command ---------------------------------------------------------------------------------------------------
@pytest.fixture
def counted(monkeypatch, clock):
    for module in (budgets, budgeted):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=clock))


def command(images, *more):
    return ("caption", images, "-b", 2, "--shard-size", 3, "--attention-maps", 0, "--max-new-tokens", TOKENS,
            "--no-prefect", *more)  # fmt: skip


def test_the_command_chooses_once_and_shows_what_was_paid_for(veridical, counted, images, finished, tmp_path, clock):
    words = command(images, "-d", "vcd", "--budget", BUDGET, "--out", tmp_path / "out")
    shown = veridical(*words)
    chosen = finished.choice.chosen
    assert shown.exit_code == 1  # of one image that cannot be read
    assert f"budget 1.25: {chosen.decoder} acts at {chosen.share:.1%} of the steps, predicted ×" in shown.stderr
    assert f"budget 1.25: vcd was paid for at {chosen.share:.1%} of the steps" in shown.stdout
    began = clock()
    again = veridical(*words)
    assert again.stdout == shown.stdout
    assert "settings were timed" not in again.stderr
    assert clock() == began  # a finished job computes nothing
    other = veridical(*command(images, "-d", "vcd", "--budget", 2, "--out", tmp_path / "out"))
    assert other.exit_code == 2
    assert "budget was 1.25, now 2.0" in other.stderr


def test_status_shows_the_budget_while_the_job_runs_and_what_was_paid_when_it_is_finished(veridical, finished, copy):
    shown = json.loads(veridical("status", copy, "--json").stdout)
    assert shown["budget"] == json.loads((copy / "summary.json").read_text(encoding="utf-8"))["budget"]
    assert shown["budget"]["sentence"] in veridical("status", copy).stdout
    (copy / "summary.json").unlink()
    running = veridical("status", copy)
    chosen = finished.choice.chosen
    assert f"vcd predicted {chosen.share:.1%} and ×{chosen.ratio:.2f} of plain decoding's time" in running.stdout
    record = json.loads((copy / "budget.json").read_text(encoding="utf-8"))
    record["choice"]["budget"] = 9
    (copy / "budget.json").write_text(json.dumps(record), encoding="utf-8")
    assert "budget.json is damaged" in veridical("status", copy).stdout
    (copy / "budget.json").unlink()
    assert "budget" not in json.loads(veridical("status", copy, "--json").stdout)


def test_a_few_images_are_printed_within_a_budget(veridical, counted, images):
    few = [images / f"{number}.png" for number in (1, 2, 3)]
    shown = veridical("caption", *few, "-d", "vcd", "--budget", BUDGET, "--max-new-tokens", 8, "--json", "-b", 3)
    assert shown.exit_code == 0, shown.stderr
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    (decoder,) = {row["decoder"] for row in rows}
    assert len(rows) == 3
    assert f"{decoder} " in shown.stderr
    assert "vcd was paid for at " in shown.stderr


@pytest.mark.parametrize(("more", "message"), [
    (("-d", "vcd", "-d", "icd"), "found 2: vcd, icd"),
    ((), "found 0: none"),
    (("-d", "vcd", "--setting", "chosen.json"), "leave out one"),
    (("-d", "vcd", "--out", "jobs", "--runner", "dask"), "--runner dask works in others"),
])  # fmt: skip
def test_what_a_budget_does_not_go_with_is_refused(veridical, images, tmp_path, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    shown = veridical("caption", images if "--out" in more else images / "1.png", "--budget", 1.2, *more)
    assert shown.exit_code == 2
    assert message in shown.stderr
