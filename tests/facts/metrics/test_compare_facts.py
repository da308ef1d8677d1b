"""Comparisons by hand: verdicts, McNemar's p, equal lengths, several runs, warnings."""

import copy

import pytest

from veridical.metrics.chair import Chair
from veridical.metrics.compare import (
    Comparison,
    compare_chair,
    compare_pope,
    figures_over_runs,
    length_matched,
    over_runs,
    token_ends,
    verdict,
    warnings_between,
)
from veridical.metrics.estimate import Estimate

# Verdicts


@pytest.mark.parametrize(
    ("low", "high", "higher", "expected"),
    [
        (0.01, 0.09, True, "better"),
        (0.01, 0.09, False, "worse"),
        (-0.09, -0.01, True, "worse"),
        (-0.09, -0.01, False, "better"),
        (-0.01, 0.09, True, "inside the noise"),
        (0.0, 0.09, True, "inside the noise"),  # an end on 0 holds it
        (-0.09, 0.0, False, "inside the noise"),
        (float("nan"), float("nan"), True, "inside the noise"),
        (0.01, 0.09, None, "differs"),
        (-0.01, 0.09, None, "inside the noise"),
    ],
)
def test_the_verdict_ranks_only_outside_the_noise(low, high, higher, expected):
    assert verdict(Estimate((low + high) / 2, low, high, 500), higher) == expected


@pytest.mark.parametrize(("n", "expected"), [(0, "inside the noise"), (5, "inside the noise"), (6, "better")])
def test_fewer_than_six_images_rank_nothing(n, expected):
    assert verdict(Estimate(0.5, 0.4, 0.6, n), True) == expected


def test_a_large_p_overrules_an_interval_without_zero():
    clear = Estimate(0.008, 0.002, 0.016, 500)
    assert verdict(clear, True, p=0.125) == "inside the noise"
    assert verdict(clear, True, p=0.05) == "better"
    assert verdict(clear, True, p=0.05, level=0.99) == "inside the noise"


def test_a_comparison_prints_both_figures_the_difference_and_the_verdict():
    found = Comparison(0.5, 0.6, Estimate(-0.1, -0.15, -0.05, 500), False, 0.0012)
    assert str(found) == "0.500 against 0.600: -0.100 [-0.150, -0.050] (n=500, p=0.0012), better"


# CHAIR

TRUTH = {image: {"dog"} for image in range(40)}


def scored(wrong, total=40):
    return Chair().score({i: "A dog and a cat." if i < wrong else "A dog." for i in range(total)}, TRUTH)


def test_a_system_that_hallucinates_less_is_better_and_mcnemar_agrees():
    found = compare_chair(scored(4), scored(24))
    assert found["chair_s"].first == 0.1
    assert found["chair_s"].second == 0.6
    assert found["chair_s"].difference.value == -0.5
    assert found["chair_s"].verdict == "better"
    assert found["chair_s"].p == pytest.approx(2 * 0.5**20)
    assert found["chair_i"].verdict == "better"
    assert 2 * 0.5**20 <= found["chair_i"].p < 1e-4
    assert found["length"].verdict == "differs"
    assert compare_chair(scored(24), scored(4))["chair_s"].verdict == "worse"


def test_equal_systems_are_inside_the_noise():
    found = compare_chair(scored(4), scored(4))
    assert {c.verdict for c in found.values()} == {"inside the noise"}
    assert found["chair_s"].p == 1


@pytest.mark.parametrize(("wrong", "expected"), [(5, "inside the noise"), (6, "worse")])
def test_a_handful_of_images_that_differ_ranks_no_figure(wrong, expected):
    found = compare_chair(scored(wrong), scored(0))["chair_i"]
    assert found.p == 2 * 0.5**wrong
    assert (found.difference.low > 0) is (wrong == 6), "the interval says what the test says"
    assert (found.differing, found.verdict) == (wrong, expected)
    texts = ["no"] * wrong + ["yes"] * (40 - wrong)
    recall = compare_pope(texts, ["yes"] * 40, ["yes"] * 40)["recall"]
    assert (recall.difference.high < 0) is (wrong == 6)
    assert (recall.differing, recall.verdict) == (wrong, expected)


def test_four_captions_of_forty_rank_nothing():
    found = compare_chair(scored(0), scored(4))["chair_s"]
    assert found.p == 0.125
    assert found.verdict == "inside the noise"


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="40 and 39 images with 39 in common"):
        compare_chair(scored(1), scored(1, 39))


# Equal length


def test_both_captions_are_cut_to_the_shorter_one():
    long = {1: "A dog runs. Beside it stands a cat.", 2: "A dog."}
    short = {1: "A dog runs.", 2: "A dog and a cat here"}
    a, b = length_matched(Chair(), long, short, {1: {"dog"}, 2: {"dog"}})
    assert [a.per_caption[i].caption for i in (1, 2)] == ["A dog runs.", "A dog."]
    assert [b.per_caption[i].caption for i in (1, 2)] == ["A dog runs.", "A dog and"]
    assert a.length == b.length == 3.5
    assert a.chair_s == b.chair_s == 0


def test_a_longer_system_no_longer_looks_worse():
    plain, cut = compare_chair(scored(24), scored(0)), length_matched(
        Chair(),
        {i: "A dog and a cat." if i < 24 else "A dog." for i in range(40)},
        dict.fromkeys(range(40), "A dog."),
        TRUTH,
    )  # fmt: skip
    assert plain["chair_s"].verdict == "worse"
    assert compare_chair(*cut)["chair_s"].verdict == "inside the noise"


def test_double_words_are_not_torn():
    long, short = {1: "A hot dog and a cup."}, {1: "A cat"}
    a, _ = length_matched(Chair(), long, short, {1: set()})
    assert a.per_caption[1].caption == "A hot dog"
    assert a.per_caption[1].mentions.objects == ["hot dog"]


def test_an_empty_caption_leaves_nothing_of_the_other():
    a, b = length_matched(Chair(), {1: "A dog."}, {1: ""}, {1: {"dog"}})
    assert (a.per_caption[1].caption, b.per_caption[1].caption) == ("", "")


def test_captions_of_equal_length_stay_as_they_are():
    a, b = length_matched(Chair(), {1: "A dog.  "}, {1: "A cat. "}, {1: {"dog"}})
    assert (a.per_caption[1].caption, b.per_caption[1].caption) == ("A dog.  ", "A cat. ")


def test_length_matching_needs_the_same_images():
    with pytest.raises(ValueError, match="1 and 1 images with 0 in common"):
        length_matched(Chair(), {1: "A dog."}, {2: "A dog."}, TRUTH)


def test_nltks_tokens_are_cut_at_their_ends_too(test_data, monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(test_data / "nltk_data"), *nltk.data.path])
    chair = Chair(test_data / "chair_synonyms.txt")
    caption = 'The dog\'s hot dogs lie on a "tennis racket".'
    ends = token_ends(chair, caption)
    assert len(ends) == len(chair.parse(caption).tokens)
    assert [caption[:end] for end in ends[:4]] == ["The", "The dog", "The dog's", "The dog's hot dogs"]
    assert caption[: ends[-3]].endswith("tennis racket")


# POPE

LABELS = ["yes", "no"] * 50
IMAGES = [i // 2 for i in range(100)]


def test_pope_figures_are_compared_by_image_and_single_questions_as_mcnemar_does():
    better = ["no" if i in (0, 1) else label for i, label in enumerate(LABELS)]
    found = compare_pope(better, ["yes"] * 100, LABELS, IMAGES)
    assert found["accuracy"].first == 0.99
    assert found["accuracy"].second == 0.5
    assert found["accuracy"].verdict == "better"
    assert found["accuracy"].p < 1e-9  # 49 images are ahead by an answer, and one behind by one
    single = compare_pope(better, ["yes"] * 100, LABELS)["accuracy"]
    assert single.p == pytest.approx(2 * 51 / 2**50)  # 49 against 1 of 50 that differ, two sides
    assert found["accuracy"].difference.n == 50
    assert found["yes_ratio"].verdict == "differs"
    assert found["f1"].p < 1e-4


def test_a_handful_of_answers_ranks_nothing():
    one = ["yes" if i < 4 else label for i, label in enumerate(["no"] * 100)]
    found = compare_pope(["no"] * 100, one, ["no"] * 100)["accuracy"]
    assert found.p == 0.125
    assert found.verdict == "inside the noise"


def test_the_protocol_decides_what_an_answer_says():
    labels = ["no"] * 20
    assert compare_pope(["NO"] * 20, ["no"] * 20, labels)["accuracy"].verdict == "worse"
    assert compare_pope(["NO"] * 20, ["no"] * 20, labels, protocol="opera")["accuracy"].verdict == "inside the noise"


# Runs


def test_mean_and_sample_sd_over_runs():
    found = over_runs([0.45, 0.47, 0.49])
    assert (found.mean, found.n) == (pytest.approx(0.47), 3)
    assert found.sd == pytest.approx(0.02)
    assert str(found) == "0.470 ± 0.020 (3 runs)"
    assert str(over_runs([0.5])) == "0.500 ± 0.000 (1 run)"
    with pytest.raises(ValueError, match="no runs"):
        over_runs([])


def test_figures_that_all_runs_have_are_averaged():
    found = figures_over_runs([{"a": 1.0, "b": 2.0}, {"a": 3.0}])
    assert list(found) == ["a"]
    assert found["a"].mean == 2
    with pytest.raises(ValueError, match="no runs"):
        figures_over_runs([])


# Warnings

MANIFEST = {
    "request": {"limit": 100, "model": "embedded"},
    "model": {"model": "embedded", "revision": "a"},
    "decoders": {"greedy": "plain decoding"},
    "dataset": "world:test",
    "seed": 0,
    "benchmarks": {
        "chair": {
            "version": "1", "prompt": "USER: describe", "question": "describe", "data_sha256": "aa",
            "generation": {"do_sample": False, "max_new_tokens": 128}, "image_ids": ["a", "b", "c"],
        },
        "pope": {"version": "1", "protocol": "official", "prompt": "Is there?", "image_ids": ["a"]},
    },
    "versions": {"torch": "2.13"},
    "hardware": {"gpus": []},
}  # fmt: skip


def changed(*path, to):
    other = copy.deepcopy(MANIFEST)
    inner = other
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return other


def test_equal_manifests_give_no_warning():
    assert warnings_between(MANIFEST, copy.deepcopy(MANIFEST)) == []


@pytest.mark.parametrize(
    ("path", "to", "warning"),
    [
        (
            ("benchmarks", "chair", "prompt"), "x",
            "prompts differ (benchmarks.chair.prompt): 'USER: describe' against 'x'.",
        ),
        (
            ("benchmarks", "pope", "protocol"), "vcd",
            "protocols differ (benchmarks.pope.protocol): 'official' against 'vcd'.",
        ),
        (("benchmarks", "chair", "version"), "2", "protocols differ (benchmarks.chair.version): '1' against '2'."),
        (
            ("benchmarks", "chair", "image_ids"), ["c", "d"],
            "image sets differ (benchmarks.chair.image_ids): 3 and 2 with 1 in common.",
        ),
        (
            ("benchmarks", "chair", "generation", "max_new_tokens"), 64,
            "token budgets differ (benchmarks.chair.generation.max_new_tokens): 128 against 64.",
        ),
        (
            ("benchmarks", "chair", "generation", "do_sample"), True,
            "decoding differ (benchmarks.chair.generation.do_sample): False against True.",
        ),
        (
            ("benchmarks", "chair", "data_sha256"), "bb",
            "data files differ (benchmarks.chair.data_sha256): 'aa' against 'bb'.",
        ),
        (
            ("benchmarks", "chair", "family"), "wordnet",
            "only the second says benchmarks.chair.family: word families cannot be compared.",
        ),
        (("dataset",), "coco:x", "image sets differ (dataset): 'world:test' against 'coco:x'."),
    ],
)  # fmt: skip
def test_what_makes_results_incomparable_is_said(path, to, warning):
    assert warnings_between(MANIFEST, changed(*path, to=to)) == [warning]


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("decoders",), {"vcd": "VCD(alpha=1.0)"}),
        (("model", "revision"), "b"),
        (("seed",), 1),
        (("versions", "torch"), "2.6"),
        (("hardware", "gpus"), ["H100"]),
        (("benchmarks", "chair", "image_ids"), ["c", "b", "a"]),
    ],
)
def test_what_is_compared_or_does_not_matter_is_not_warned_about(path, to):
    assert warnings_between(MANIFEST, changed(*path, to=to)) == []


def test_a_benchmark_that_only_one_has_is_one_warning():
    alone = copy.deepcopy(MANIFEST)
    del alone["benchmarks"]["pope"]
    found = warnings_between(MANIFEST, alone)
    assert found == ["only the first says benchmarks.pope: protocols, prompts, image sets cannot be compared."]
    assert warnings_between(alone, MANIFEST) == [found[0].replace("first", "second")]


def test_prompts_by_benchmark_are_compared_below_their_key():
    assert warnings_between({"prompts": {"chair": "a"}}, {"prompts": {"chair": "b"}}) == [
        "prompts differ (prompts.chair): 'a' against 'b'."
    ]
