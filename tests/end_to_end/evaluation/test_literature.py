"""Released captions against published claims: files, verdicts, the cache, the page, and fetching from a mirror."""

import hashlib
import json
import lzma

import pytest

from veridical.flows.literature import folder as released_files
from veridical.flows.literature import pairs
from veridical.flows.literature.folder import Released, claims, index
from veridical.flows.literature.mentions import CachedChair
from veridical.flows.literature.run import literature
from veridical.metrics.chair import Chair
from veridical.metrics.compare import Comparison
from veridical.metrics.estimate import Estimate


def difference(value, half, higher_is_better=False):
    estimate = Estimate(value, value - half, value + half, 500)
    return Comparison(0.3 + value, 0.3, estimate, higher_is_better, differing=90)


BETTER, WORSE, NOISE = difference(-0.1, 0.05), difference(0.1, 0.05), difference(-0.1, 0.2)


# -- verdicts ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("written", "matched", "verdict"),
    [(BETTER, BETTER, "holds"), (BETTER, NOISE, "by length"), (BETTER, WORSE, "by length"),
     (NOISE, BETTER, "inside the noise"), (WORSE, BETTER, "fails")],
)  # fmt: skip
def test_a_claim_holds_only_if_it_does_at_equal_length_too(written, matched, verdict):
    assert pairs.verdict(written, matched) == verdict


def test_published_figures_are_repeated_only_to_the_digit():
    same, other = (
        pairs.Pair({"published": {"chair_s": [30.0, figure]}}, 500, 0, {"chair_s": BETTER}, {})
        for figure in (20.0, 20.1)
    )
    assert [same.repeats("chair_s"), other.repeats("chair_s"), same.repeats("chair_i")] == [True, False, None]


# -- what is shipped -----------------------------------------------------------------------------------------------
def test_every_pair_names_two_released_files_of_captions_and_a_paper():
    for pair in claims()["pairs"]:
        assert {index()[name]["kind"] for name in (*pair["plain"], *pair["method"])} == {"captions"}
        assert len(pair["plain"]) == len(pair["method"]) > 0
        assert pair["paper"] in claims()["papers"]
        assert "source" in pair or "published" not in pair


def test_every_released_file_has_its_repository_commit_licence_and_digest():
    for about in index().values():
        assert about["repository"].count("/") == 1
        assert len(about["sha256"]) == 64
        assert about["licence"]
        assert about["commit"]


# -- a small literature --------------------------------------------------------------------------------------------
CAPTIONS = {
    "plain": dict.fromkeys(range(12), "A dog and a cat sit beside a car. A person is there."),
    "method": dict.fromkeys(range(12), "A dog sits there. A person and a person."),
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder of two released files, one compressed and one with a torn line, and the shipped lists for it."""
    root, files = tmp_path / "released", {}
    root.mkdir()
    for name, captions in CAPTIONS.items():
        text = "".join(json.dumps({"image_id": image, "caption": text}) + "\n" for image, text in captions.items())
        content = (text + ('{"image_id": 99, "cap' if name == "method" else "")).encode()
        files[f"a/{name}"] = {
            "repository": "a/b", "commit": "c0ffee1", "path": f"log/{name} 1.jsonl", "licence": "MIT",
            "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "rows": 12,
            "file": f"a__{name}.jsonl", "kind": "captions",
        }  # fmt: skip
        if name == "plain":
            (root / f"a__{name}.jsonl.xz").write_bytes(lzma.compress(content))
        else:
            (root / f"a__{name}.jsonl").write_bytes(content)
    (tmp_path / "released.json").write_text(json.dumps(files))
    pair = {
        "paper": "a", "claim": "A hallucinates less", "model": "M", "tokens": 64, "plain": ["a/plain"],
        "method": ["a/method"], "published": {"chair_s": [100.0, 0.0]}, "source": "its table",
    }  # fmt: skip
    (tmp_path / "claims.json").write_text(json.dumps({"papers": {"a": ["A Paper", "1234.5678"]}, "pairs": [pair]}))
    monkeypatch.setattr(released_files, "INDEX", tmp_path / "released.json")
    monkeypatch.setattr(released_files, "CLAIMS", tmp_path / "claims.json")
    for cached in (index, claims):
        cached.cache_clear()
    (tmp_path / "synonyms.txt").write_text("dog, puppy\ncat\nperson\ncar\n")
    (tmp_path / "truth.json").write_text(json.dumps({str(image): ["dog", "person"] for image in range(12)}))
    yield tmp_path
    for cached in (index, claims):
        cached.cache_clear()


@pytest.fixture
def nltk_data(test_data, monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(test_data / "nltk_data"), *nltk.data.path])


def run(folder, **more):
    places = {"truth": folder / "truth.json", "synonyms": folder / "synonyms.txt", "cache": folder / "cache"}
    return literature(folder / "released", **places, **more)


def test_the_page_says_what_is_left_of_a_claim(small, nltk_data):
    found = run(small, out=small / "page.md")
    (pair,) = found.pairs
    assert (pair.images, pair.left_out) == (12, 0)
    assert (pair.written["chair_s"].first, pair.written["chair_s"].second) == (0, 1)
    assert pair.verdict("chair_s") == "holds"
    page = (small / "page.md").read_text()
    assert "| A hallucinates less; M | C_S | 100.0 → 0.0 ✓ | 100.0 → 0.0 | -100.0" in page
    assert "## A Paper (1234.5678)" in page


def test_a_malformed_line_is_counted_and_named(small, nltk_data):
    found = run(small)
    assert {name: len(lines) for name, lines in found.skipped.items()} == {"a/plain": 0, "a/method": 1}
    assert "line 13 is not JSON" in found.skipped["a/method"][0]
    assert "| a/method | 1 | line 13 is not JSON" in found.page


def test_the_page_is_the_same_again_and_no_caption_is_tagged_twice(small, nltk_data, monkeypatch):
    first = run(small).page
    tagged = []
    monkeypatch.setattr(Chair, "read", lambda self, caption: tagged.append(caption))
    assert run(small).page == first
    assert not tagged


def test_what_is_kept_is_what_was_found(small, nltk_data, tmp_path):
    plain = Chair(small / "synonyms.txt", "wordnet")
    kept = CachedChair(small / "synonyms.txt", "wordnet", tmp_path / "c")
    for caption in (*CAPTIONS["plain"].values(), "Half a pair \ud83d of a dog", ""):
        assert kept.parse(caption) == kept.parse(caption) == plain.parse(caption)
        assert kept.parse(caption, 3) == plain.parse(caption, 3)


def test_another_file_than_the_released_one_is_refused(small):
    path = small / "released" / "a__method.jsonl"
    path.write_text(path.read_text().replace("dog", "cow", 1))
    with pytest.raises(ValueError, match="is not the released file"):
        Released(small / "released").captions("a/method")


def test_a_folder_without_a_pair_says_how_to_get_one(small):
    (small / "released" / "a__method.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="veridical data released"):
        run(small)


def test_a_run_from_the_command_line_needs_truth_and_vocabulary(veridical, small):
    shown = veridical("reproduce", "--released", small / "released")
    assert shown.exit_code == 2
    assert "--synonyms" in shown.output


def test_released_files_are_fetched_from_their_repositories_once(veridical, small, serve):
    mirror = small / "mirror" / "a" / "b" / "c0ffee1" / "log"
    mirror.mkdir(parents=True)
    for name in CAPTIONS:
        (mirror / f"{name} 1.jsonl").write_bytes(Released(small / "released").content(f"a/{name}"))
    fetch = ("data", "released", "--out", small / "again", "--from", serve(small / "mirror"))
    shown = veridical(*fetch)
    assert shown.exit_code == 0, shown.output
    assert "2 files fetched, 0 were there" in shown.output
    assert Released(small / "again").captions("a/method") == CAPTIONS["method"]
    assert "0 files fetched, 2 were there" in veridical(*fetch).output
    shown = veridical(*fetch, "b")
    assert "no released file begins with 'b'" in " ".join(shown.output.split())


# -- the released files themselves ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def files(test_data):
    folder = test_data / "released"
    if not folder.is_dir():
        pytest.skip(f"no released files at {folder}; set VERIDICAL_TEST_DATA")
    return Released(folder)


def test_repeated_rows_of_the_released_files_are_named_and_two_on_one_line_are_read(files):
    assert len(files.captions("antrp/instructblip_sample_64")) == 500
    assert len(files.skipped["antrp/instructblip_sample_64"]) == 341
    assert "repeats 450674" in files.skipped["antrp/instructblip_sample_64"][0]
    assert len(files.captions("halc/mplug-owl2_woodpecker_seed1")) == 500
    assert not files.skipped["halc/mplug-owl2_woodpecker_seed1"]
