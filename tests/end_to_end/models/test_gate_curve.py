"""`veridical gate-curve`, small, and gates by name on the command line."""

import json

import pytest

GATE = "gate:decoder='vcd:alpha=0.5',detector=entropy,threshold=0.6"


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    out = tmp_path_factory.mktemp("curve") / "g.md"
    return (
        "gate-curve", "-d", "vcd", "-t", "entropy", "--share", "0.2", "--limit", "4", "--validation", "4",
        "--max-new-tokens", "16", "--device", "cpu", "--out", out,
    ), out  # fmt: skip


def test_a_curve_is_written_and_made_again_from_what_was_said_but_for_what_is_by_hand(veridical, requests):
    command, out = requests
    shown = veridical(*command)
    assert shown.exit_code == 0, shown.stderr
    found = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    plain, ungated, gated = found["rows"]
    assert plain["share"] is None
    assert ungated["share"]["value"] == 1
    assert 0 < gated["share"]["value"] < 0.6
    assert (found["test"]["images"], found["validation"]["images"]) == (4, 4)
    assert out.read_text(encoding="utf-8") in shown.stdout
    assert out.with_suffix(".svg").read_text(encoding="utf-8").startswith("<?xml")
    assert (
        "veridical gate-curve -d vcd -t entropy --share 0.2 --limit 4 --validation 4 --model embedded" in shown.stdout
    )
    kept = {path: path.stat().st_mtime_ns for path in out.with_suffix("").iterdir()}
    assert len(kept) == 4
    by_hand = "\n<!-- by hand -->\nWhat it says.\n"
    page = out.read_text(encoding="utf-8")
    out.write_text("An older page.\n" + by_hand, encoding="utf-8")
    assert veridical(*command).exit_code == 0
    assert out.read_text(encoding="utf-8") == page + by_hand
    assert {path: path.stat().st_mtime_ns for path in out.with_suffix("").iterdir()} == kept


@pytest.mark.parametrize(("more", "message"), [
    (("--share", "1.5"), "share=1.5 is outside 0 to 1"),
    (("--validation-split", "test"), "name two different splits"),
    (("--coco", "somewhere"), "needs --validation-split"),
    (("--out", "g.html"), "no Markdown file"),
    (("-t", "entropi"), 'Did you mean "entropy"'),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused(veridical, requests, more, message):
    shown = veridical(*requests[0], *more)
    assert shown.exit_code != 0
    assert message in " ".join((shown.stderr + str(shown.exception)).split())


def test_gates_and_policies_are_named_where_decoders_are(veridical, image_files):
    named = [GATE, "drop:detector=entropy,threshold=0.6", f"{GATE}+sla"]
    shown = veridical(
        "caption", image_files.a, *[word for one in named for word in ("-d", one)], "--max-new-tokens", 12, "--json",
        "--device", "cpu",
    )  # fmt: skip
    assert shown.exit_code == 0, shown.stderr
    acted = [json.loads(line)["acted"] for line in shown.stdout.splitlines()]
    assert [list(one) for one in acted] == [["gate"], ["drop"], ["gate", "sla"]]
    assert 0 < acted[0]["gate"]["acted"] < acted[0]["gate"]["steps"]
