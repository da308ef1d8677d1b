"""Images of our own, described, scored and compared: every file that `caption --out` writes is read by `score`."""

import json

import pytest

DECODERS = ("greedy", "vcd")


@pytest.fixture(scope="module")
def world(veridical, tmp_path_factory):
    """Three scenes as a COCO folder, as `data world` writes it."""
    folder = tmp_path_factory.mktemp("own") / "world"
    assert veridical("data", "world", "--split", "test", "--count", 3, "--out", folder).exit_code == 0
    return folder


@pytest.fixture(scope="module", params=["parquet", "jsonl", "csv", "coco"])
def captions(request, veridical, world):
    """The folder of a captioning job with two decoders about these scenes."""
    out = world.parent / request.param
    decoders = [part for name in DECODERS for part in ("-d", name)]
    shown = veridical(
        "caption", world / "test", *decoders, "--max-new-tokens", 24, "--format", request.param, "--no-prefect",
        "--out", out,
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    return out


def test_captions_of_own_images_are_scored_as_they_were_written_each_decoder_by_itself(veridical, world, captions):
    kind = "json" if captions.name == "coco" else captions.name
    for path in (captions, captions / f"captions.{kind}"):
        shown = veridical("score", "chair", path, "--ground-truth", world, "--json")
        assert shown.exit_code == 0, shown.output
        found = json.loads(shown.stdout)["scores"]
        assert list(found) == list(DECODERS)
        assert all(table["chair_i"]["n"] > 0 and table["length"]["n"] == 3 for table in found.values())
    assert found["greedy"]["length"] != found["vcd"]["length"]
    alone = veridical("score", "chair", captions, "--ground-truth", world, "-d", "vcd", "--json")
    assert json.loads(alone.stdout)["scores"][""] == found["vcd"]


def test_the_status_of_a_job_is_its_images_and_errors(veridical, captions):
    shown = veridical("status", captions)
    assert shown.stdout == f"{captions}: 3 of 3 images by greedy, vcd, 0 errors\nfinished\n"


def test_two_decoders_of_one_file_are_compared_as_two_systems(veridical, world, captions):
    shown = veridical("compare", captions, "--ground-truth", world, "--json")
    assert shown.exit_code == 0, shown.output
    (one,) = json.loads(shown.stdout)["comparisons"]
    assert (one["baseline"].rpartition(":")[2], one["system"].rpartition(":")[2]) == DECODERS
    assert one["tables"][""]["length"]["difference"]["n"] == 3


def test_a_decoder_that_the_file_does_not_have_is_named_with_those_it_has(veridical, world, captions):
    shown = veridical("score", "chair", captions, "--ground-truth", world, "-d", "icd")
    assert shown.exit_code == 2
    assert "has no decoder 'icd'; it has greedy, vcd." in shown.stderr


def test_a_file_that_is_no_parquet_file_is_said_to_be_none(veridical, world, tmp_path):
    (tmp_path / "captions.parquet").write_text("image,caption\n")
    shown = veridical("score", "chair", tmp_path, "--ground-truth", world)
    assert shown.exit_code == 2
    assert "captions.parquet is no Parquet file" in shown.stderr
