"""RePOPE, MME, MMVP, HallusionBench and DASH-B: the figures and readings of the published programs, by hand or run."""

import csv
import hashlib
import json

import pytest

from veridical.metrics import dash_b, hallusionbench, mme, mmvp, pope, repope, yes_no
from veridical.metrics.closed_questions import groups_right

SPLITS = ("random", "popular", "adversarial")


def near(figures, **expected):
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=5e-7), name


# -- groups --------------------------------------------------------------------------------------------------------
def test_a_group_is_right_only_if_all_its_questions_are():
    assert groups_right([1, 0, 1], ["a", "a", "b"]).sum(axis=0).tolist() == [1, 2]


def test_a_question_without_a_group_is_in_none():
    assert groups_right([0, 1], [None, "a"]).sum(axis=0).tolist() == [1, 1]


# -- RePOPE --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def changes(test_data):
    return json.loads((test_data / "repope_changes.json").read_text())["splits"]


def relabelled(questions, change):
    """RePOPE's rows from POPE's."""
    flipped = {**dict.fromkeys(change["yes_to_no"], "no"), **dict.fromkeys(change["no_to_yes"], "yes")}
    return [
        {**q, "label": flipped.get(q["question_id"], q["label"])}
        for q in questions
        if q["question_id"] not in set(change["removed"])
    ]


@pytest.fixture(scope="module")
def splits(test_data, changes):
    """Split -> (POPE's rows, RePOPE's)."""
    requests = {split: pope.read_questions(test_data / "pope" / f"coco_pope_{split}.json") for split in SPLITS}
    return {split: (rows, relabelled(rows, changes[split])) for split, rows in requests.items()}


def test_the_changes_give_repopes_files_back_byte_for_byte(splits, changes):
    for split, (_, rows) in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        assert hashlib.sha256(text.encode()).hexdigest() == changes[split]["sha256_of_repope"]


@pytest.mark.parametrize(("split", "left", "yes"), [("random", 2774, 1159), ("popular", 2727, 1193),
                                                    ("adversarial", 2684, 1187)])  # fmt: skip
def test_as_many_questions_and_labels_are_left(splits, split, left, yes):
    labels = repope.corrected(*splits[split])
    assert (len(labels), list(labels.values()).count("yes")) == (left, yes)
    assert len({row["image"] for row in splits[split][1]}) == 500


@pytest.mark.parametrize(
    ("split", "accuracy", "f1"),
    [("random", 0.417808, 0.589372), ("popular", 0.437477, 0.608673), ("adversarial", 0.442250, 0.613278)],
)
def test_always_yes_under_corrected_labels(splits, split, accuracy, f1):
    labels = list(repope.corrected(*splits[split]).values())
    near(repope.score(["yes"] * len(labels), labels), accuracy=accuracy, f1=f1, balanced_accuracy=0.5, yes_ratio=1)


@pytest.mark.parametrize(
    ("split", "counts", "figures"),
    [
        ("random", (1154, 139, 1476, 5), {"accuracy": 0.948089, "precision": 0.892498, "recall": 0.995686,
                                          "f1": 0.941272, "balanced_accuracy": 0.954809}),
        ("popular", (1154, 139, 1395, 39), {"accuracy": 0.934727, "f1": 0.928399}),
        ("adversarial", (1154, 139, 1358, 33), {"accuracy": 0.935917, "f1": 0.930645}),
    ],
)  # fmt: skip
def test_popes_own_labels_as_answers(splits, split, counts, figures):
    requests, rows = splits[split]
    labels = repope.corrected(requests, rows)
    answers = [q["label"] for q in requests if q["question_id"] in labels]
    found = repope.outcomes(answers, list(labels.values()))
    totals = repope.Outcome(*map(sum, zip(*found, strict=True)))
    assert (totals.true_positive, totals.false_positive, totals.true_negative, totals.false_negative) == counts
    near(repope.score(answers, list(labels.values())), **figures)


def test_an_answer_that_is_none_is_left_out_of_all_counts():
    figures = repope.score(["yes", "perhaps", "no", "yes"], ["yes", "yes", "no", "no"])
    near(figures, accuracy=2 / 3, recall=1, f1=2 / 3)
    assert figures["n"] == 3
    assert figures["unparsed"] == 0.25


def test_a_strict_reader_counts_it_as_wrong():
    figures = repope.score(["yes", "perhaps", "no", "yes"], ["yes", "yes", "no", "no"], "strict")
    near(figures, accuracy=0.5, recall=0.5)
    assert figures["n"] == 4


def test_another_splits_file_is_refused(splits):
    with pytest.raises(ValueError, match="is it another split"):
        repope.corrected(splits["random"][0], splits["popular"][1])


def test_the_mean_of_splits_is_the_mean_of_their_figures(splits):
    parts = []
    for requests, rows in splits.values():
        labels = repope.corrected(requests, rows)
        kept = [q for q in requests if q["question_id"] in labels]
        parts.append(([q["label"] for q in kept], list(labels.values()), [q["image"] for q in kept]))
    mean = repope.mean_of_splits(parts, samples=50)
    near({"f1": mean["f1"].value}, f1=(0.941272 + 0.928399 + 0.930645) / 3)
    assert mean["f1"].n == 500
    assert mean["f1"].low < mean["f1"].value < mean["f1"].high


def test_yes_is_looked_for_first_and_no_is_found_inside_words():
    read = {text: yes_no.anywhere(text) for text in ("No, yes", "know", "another", "cannot", "Unsure", "")}
    assert read == {"No, yes": "yes", "know": "no", "another": "no", "cannot": "no", "Unsure": "", "": ""}


# -- MME -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answer", "official", "lmms_eval", "vlmevalkit"),
    [
        ("Not really", "no", "no", ""), ("Nope", "no", "no", ""), ("Know", "no", "no", ""), ("None", "no", "no", ""),
        ("   No", "", "no", "no"), ("There is no bed", "", "", "no"), ("**Yes**", "", "", ""),
        ("Answer: yes", "", "", "yes"), ("Eyes", "yes", "yes", ""), ("N", "", "no", ""), ("No, yes", "no", "no", ""),
    ],
)  # fmt: skip
def test_three_programs_read_an_answer_to_mme(answer, official, lmms_eval, vlmevalkit):
    assert [mme.READERS[name](answer) for name in ("official", "lmms_eval", "vlmevalkit")] == [
        official, lmms_eval, vlmevalkit,
    ]  # fmt: skip


def task(right, pairs, images=30):
    """A task of which `right` questions and `pairs` images are right."""
    singles = right - 2 * pairs
    rows = []
    for number in range(images):
        good = ("Yes", "No") if number < pairs else ("Yes", "Yes") if number < pairs + singles else ("No", "Yes")
        rows += [mme.Question(str(number), label, text) for label, text in zip(("yes", "no"), good, strict=True)]
    return rows


@pytest.mark.parametrize(("right", "pairs", "score"), [(57, 27, 185), (37, 8, 88.3333), (32, 3, 63.3333),
                                                       (35, 5, 75)])  # fmt: skip
def test_the_score_of_a_task_is_accuracy_and_accuracy_plus(right, pairs, score):
    assert mme.score({"count": task(right, pairs)})["count"]["score"] == pytest.approx(score, abs=5e-5)


def test_the_total_is_the_sum_of_four_tasks():
    tasks = dict(zip(mme.TASKS, (task(57, 27), task(37, 8), task(32, 3), task(35, 5)), strict=True))
    found = mme.estimates(tasks, samples=200)
    assert found["total"]["score"].value == pytest.approx(411.6667, abs=5e-5)
    assert found["object_level"]["score"].value == pytest.approx(185 + 88.3333, abs=5e-5)
    assert found["total"]["score"].low < 411.6667 < found["total"]["score"].high


def test_always_yes_scores_200_of_800():
    requests = [mme.Question(str(i), label, "Yes") for i in range(30) for label in ("yes", "no")]
    found = mme.score(dict.fromkeys(mme.TASKS, requests))
    near(found["total"], score=200, accuracy=0.5, accuracy_plus=0, yes_ratio=1)


def test_an_image_without_its_two_questions_is_refused():
    with pytest.raises(ValueError, match="one yes and one no"):
        mme.outcomes(task(57, 27)[:-1])


# -- MMVP ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def mmvp_rows(test_data):
    with (test_data / "mmvp" / "Questions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_always_a_is_right_about_half_of_the_questions_and_no_pair(mmvp_rows):
    labels = [row["Correct Answer"][1] for row in mmvp_rows]
    found = mmvp.estimates(["(a)"] * 300, labels, [("", "")] * 300, [n // 2 for n in range(300)], samples=20)
    near({name: e.value for name, e in found.items()}, accuracy=0.5, pair_accuracy=0, first_option=1, unparsed=0)
    assert found["pair_accuracy"].n == 150


@pytest.mark.parametrize(
    ("answer", "strict", "loose"),
    [("A dog", "", "a"), ("both", "", "b"), ("a yes", "", "a"), ("A.", "a", "a"), ("(b) Closed", "b", "b"),
     ("The answer is (a)", "a", "a"), ("", "", "")],
)  # fmt: skip
def test_two_readers_of_a_choice(answer, strict, loose):
    assert mmvp.read_strict(answer, ("Open", "Closed")) == strict
    assert mmvp.read_lmms_eval(answer, ("Open", "Closed")) == loose


@pytest.mark.parametrize(("answer", "options", "read"), [
    ("They are closed.", ("Open", "Closed"), "b"), ("Open or closed", ("Open", "Closed"), ""),
    ("not open", ("Open", "Not open"), "b"), ("Reopened", ("Open", "Closed"), ""), ("(a) or (b)", ("Yes", "No"), ""),
])  # fmt: skip
def test_the_options_own_words_are_a_choice(answer, options, read):
    assert mmvp.read_strict(answer, options) == read


# -- HallusionBench ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def hallusion(test_data):
    rows = json.loads((test_data / "hallusionbench" / "HallusionBench.json").read_text())
    return [hallusionbench.of_row(row) for row in rows]


RULES = {
    "always no": lambda q: "no",
    "always yes": lambda q: "Yes.",
    "always unclear": lambda q: "perhaps",
    "yes iff question_id is even": lambda q: "no" if int(q.question_id) % 2 else "yes",
    "yes iff not edited": lambda q: "no" if q.visual_input == 2 else "yes",
}


@pytest.mark.parametrize(
    ("rule", "figures"),
    [
        ("always no", (57.1302, 12.1387, 19.3407, 53.1868, 58.1395, -0.428698, 0)),
        ("always yes", (42.8698, 7.2254, 3.9560, 46.3736, 34.1860, 0.571302, 1)),
        ("always unclear", (15.7662, 0, 0, 1.7582, 0, 0.131975, 0.578339)),
        ("yes iff question_id is even", (51.2843, 26.3006, 10.1099, 74.0659, 21.1628, 0.129318, 0.632727)),
        ("yes iff not edited", (53.3215, 15.3179, 40.8791, 46.3736, 58.1395, 0.124889, 0.633776)),
    ],
)
def test_hallusionbench_counts_as_the_official_program(hallusion, rule, figures):
    found = hallusionbench.score([RULES[rule](q) for q in hallusion], hallusion)
    names = ("aAcc", "fAcc", "qAcc", "easy", "hard")
    assert [100 * found[name] for name in names] == pytest.approx(figures[:5], abs=5e-5)
    near(found, pct_diff=figures[5], fp_ratio=figures[6])


@pytest.mark.parametrize(("answer", "figures"), [("no", (57.8339, 12.1387, 20.0)), ("yes", (42.1661, 7.2254, 4.6154))])
def test_rows_with_an_image_alone_are_another_figure(hallusion, answer, figures):
    kept = [q for q in hallusion if q.visual_input]
    assert len(kept) == 951
    found = hallusionbench.score([answer] * 951, kept)
    assert [100 * found[name] for name in ("aAcc", "fAcc", "qAcc")] == pytest.approx(figures, abs=5e-5)


def test_there_are_346_figures_and_455_pairs(hallusion):
    totals = hallusionbench.Counts(*map(sum, zip(*hallusionbench.outcomes(["no"] * 1129, hallusion), strict=True)))
    assert (totals.figures, totals.pairs, totals.easy, totals.hard) == (346, 455, 455, 430)


def test_the_categories_keep_their_ocr_apart(hallusion):
    assert len({(q.subcategory, q.set_id, q.question_id) for q in hallusion}) == 429
    assert len({q.pair for q in hallusion}) == 455


def test_what_cannot_be_told_without_the_image_is_right_only_there(hallusion):
    without = next(q for q in hallusion if q.without_image)
    seen = next(q for q in hallusion if not q.without_image)
    right = [one.correct for one in hallusionbench.outcomes(["I cannot tell."] * 2, [without, seen])]
    assert right == [1, 0]
    assert [one.correct for one in hallusionbench.outcomes(["I cannot tell."], [without], "vlmevalkit")] == [0]


def test_figures_have_intervals_over_sets(hallusion):
    answers = [RULES["yes iff question_id is even"](q) for q in hallusion]
    found = hallusionbench.estimates(answers, hallusion, samples=50)
    assert found["aAcc"].n == len({q.set for q in hallusion})
    assert all(e.low <= e.value <= e.high for e in found.values())


# -- DASH-B --------------------------------------------------------------------------------------------------------
def test_the_released_figures_of_a_model():
    answers = ["no"] * 354 + ["yes"] * (1341 - 354) + ["yes"] * 1158 + ["no"] * (1341 - 1158)
    figures = dash_b.score(answers, ["no"] * 1341 + ["yes"] * 1341)
    near(figures, accuracy=0.563758, tnr=0.263982, tpr=0.863535, harmonic_mean=0.404354)


def test_always_yes_has_an_accuracy_of_one_half_and_a_harmonic_mean_of_zero():
    figures = dash_b.score(["yes"] * 20, ["no", "yes"] * 10)
    near(figures, accuracy=0.5, tnr=0, tpr=1, harmonic_mean=0)


def test_a_model_that_gets_neither_has_a_harmonic_mean_of_zero():
    assert dash_b.score(["yes", "no"], ["no", "yes"])["harmonic_mean"] == 0


def test_an_answer_that_is_none_stays_in_the_denominator():
    figures = dash_b.score(["Unsure", "no", "Nope, but yes"], ["no", "no", "yes"])
    near(figures, tnr=0.5, tpr=1, unparsed=1 / 3)
