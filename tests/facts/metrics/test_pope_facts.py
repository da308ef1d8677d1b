"""POPE's parsers, figures and question files against the facts of the specification."""

import hashlib
import json
from collections import Counter

import pytest

from veridical.metrics.estimate import Estimate, wilson
from veridical.metrics.pope import (
    PROMPT_SUFFIX,
    READERS,
    difference,
    estimates,
    mean_of_splits,
    outcomes,
    parse,
    read_questions,
    score,
)

SPLITS = ("random", "popular", "adversarial")
ANSWERS = [  # answer, official, OPERA, strict
    ("NO", "yes", "no", "no"),
    ("There isn't a bus", "yes", "no", "unparsed"),
    ("I cannot find one", "yes", "yes", "unparsed"),
    ("None", "yes", "yes", "unparsed"),
    ("", "yes", "yes", "unparsed"),
    ("\nNo", "yes", "yes", "no"),
    ("Fine. No bus", "yes", "no", "no"),
    ("Yes, and no doubt", "no", "no", "unparsed"),
    ("Not here", "yes", "yes", "unparsed"),
]


@pytest.mark.parametrize(("answer", "official", "opera", "strict"), ANSWERS)
def test_each_parser_reads_the_answer_as_its_program_does(answer, official, opera, strict):
    assert (parse(answer), parse(answer, "opera"), parse(answer, "strict")) == (official, opera, strict)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("There is no, absolutely no bus", "no"),
        ("Nothing", "yes"),
        ("no bus. Yes", "no"),
        ("1.5 no", "yes"),
        ("No", "no"),
        ("There is not", "no"),
        ("No, there is none.", "no"),
        ("Yes.", "yes"),
    ],
)
def test_the_official_parser_reads_up_to_the_first_full_stop(answer, expected):
    assert parse(answer) == expected


def test_vcd_finds_the_labels_word_inside_other_words():
    assert score(["I know"], ["no"], "vcd")["accuracy"] == 1
    assert score(["Snow", "It is not"], ["no", "no"], "vcd")["accuracy"] == 1
    assert score(["Yes, I know", "Yes, I know"], ["yes", "no"], "vcd")["accuracy"] == 1


def test_vcd_counts_an_answer_with_neither_word_as_wrong_for_both_labels():
    figures = score(["maybe", "maybe"], ["yes", "no"], "vcd")
    assert (figures["accuracy"], figures["yes_ratio"], figures["recall"]) == (0, 0.5, 0)


def test_vcd_is_blind_to_case():
    assert score(["YES", "NO"], ["yes", "no"], "vcd")["accuracy"] == 1
    assert (parse("YES.", "vcd"), parse("NO.", "vcd")) == ("yes", "no")


def test_lmms_eval_takes_the_bare_word_in_any_case_and_nothing_else():
    assert score([" Yes\n", "NO"], ["yes", "no"], "lmms_eval")["accuracy"] == 1
    assert score(["Yes.", "No."], ["yes", "no"], "lmms_eval")["accuracy"] == 0
    assert (parse("yes", "lmms_eval"), parse("Yes.", "lmms_eval")) == ("yes", "no")


def test_the_yes_ratio_of_lmms_eval_counts_labels():
    assert score(["yes"] * 4, ["yes", "no"] * 2, "lmms_eval")["yes_ratio"] == 0.5
    assert score(["yes"] * 4, ["yes", "no"] * 2, "official")["yes_ratio"] == 1


def test_lmms_eval_does_not_count_an_unreadable_answer_as_a_miss():
    figures = score(["yes", "Yes."], ["yes", "yes"], "lmms_eval")
    assert (figures["accuracy"], figures["recall"]) == (0.5, 1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("'Yes'", "yes"), ("_no_", "no"), ("**No**", "no"), ("“Yes”", "yes"), ("Yes- it is", "yes"), ("No。", "no"),
     ("No-one", "unparsed"), ("yesterday", "unparsed"), ("I know", "unparsed"), ("no.\nYes", "unparsed")],
)  # fmt: skip
def test_strict_reads_whole_words_inside_any_marks(answer, expected):
    assert parse(answer, "strict") == expected


def test_strict_counts_an_unreadable_answer_as_wrong_and_reports_it():
    figures = score(["yes", "maybe", "maybe", "no"], ["yes", "yes", "no", "no"], "strict")
    assert (figures["accuracy"], figures["recall"], figures["precision"]) == (0.5, 0.5, 1)
    assert (figures["yes_ratio"], figures["unparsed"]) == (0.25, 2)


def test_the_unparsed_count_does_not_depend_on_the_protocol():
    answers = [answer for answer, *_ in ANSWERS]
    counts = {score(answers, ["no"] * len(answers), protocol)["unparsed"] for protocol in READERS}
    assert counts == {6}


def confusion(true_positive, false_positive, true_negative, false_negative):
    answers = ["Yes"] * (true_positive + false_positive) + ["No"] * (true_negative + false_negative)
    labels = ["yes"] * true_positive + ["no"] * (false_positive + true_negative) + ["yes"] * false_negative
    return answers, labels


@pytest.mark.parametrize("protocol", ["official", "opera", "vcd", "strict"])
def test_figures_of_the_specified_confusion_matrix(protocol):
    figures = score(*confusion(1350, 100, 1400, 150), protocol)
    assert figures["accuracy"] == pytest.approx(0.916667, abs=1e-6)
    assert figures["precision"] == pytest.approx(0.931034, abs=1e-6)
    assert figures["recall"] == 0.9
    assert figures["f1"] == pytest.approx(0.915254, abs=1e-6)
    assert figures["yes_ratio"] == pytest.approx(0.483333, abs=1e-6)
    assert figures["n"] == 3000
    assert figures["unparsed"] == 0


def test_a_constant_yes_scores_half_and_two_thirds():
    figures = score(["Yes"] * 10, ["yes", "no"] * 5)
    assert (figures["accuracy"], figures["yes_ratio"]) == (0.5, 1)
    assert figures["f1"] == pytest.approx(2 / 3)


def test_a_constant_no_has_precision_zero_and_does_not_divide_by_zero():
    figures = score(["No"] * 10, ["yes", "no"] * 5)
    assert (figures["precision"], figures["recall"], figures["f1"], figures["yes_ratio"]) == (0, 0, 0, 0)
    assert estimates(["No"] * 10, ["yes", "no"] * 5)["precision"].n == 0


def test_order_of_the_questions_does_not_matter():
    answers, labels = confusion(7, 2, 5, 3)
    assert score(answers[::-1], labels[::-1]) == score(answers, labels)


def test_unknown_protocols_labels_and_lengths_are_refused():
    with pytest.raises(ValueError, match=r"no POPE protocol 'vlm'\. Known: official, opera, vcd, lmms_eval, strict"):
        parse("Yes", "vlm")
    with pytest.raises(ValueError, match="label 2 is 'maybe'; possible: 'yes' and 'no'"):
        score(["Yes", "No"], ["yes", "maybe"])
    with pytest.raises(ValueError, match="1 answers and 2 labels"):
        score(["Yes"], ["yes", "no"])
    with pytest.raises(ValueError, match="no answers to score"):
        score([], [])
    with pytest.raises(TypeError, match="an answer is a string; found NoneType"):
        score([None], ["yes"])


def test_each_protocol_has_its_prompt():
    assert PROMPT_SUFFIX.keys() == READERS.keys()
    assert PROMPT_SUFFIX["vcd"] == " Please answer this question with one word."
    assert PROMPT_SUFFIX["lmms_eval"] == "\nAnswer the question using a single word or phrase."


def test_estimates_agree_with_the_figures_and_enclose_them():
    answers, labels = confusion(40, 7, 38, 15)
    figures = score(answers, labels)
    for images in (None, [number // 4 for number in range(100)]):
        for name, estimate in estimates(answers, labels, images).items():
            value = figures["unparsed"] / 100 if name == "unparsed" else figures[name]
            assert estimate.value == pytest.approx(value)
            assert estimate.low <= estimate.value <= estimate.high
            assert estimate.n == (100 if images is None else 25)


def test_accuracy_over_independent_questions_is_wilsons():
    answers, labels = confusion(40, 7, 38, 15)
    assert estimates(answers, labels)["accuracy"] == wilson(78, 100)


def test_questions_that_fail_together_widen_the_interval():
    answers = ["Yes"] * 60 + ["No"] * 60
    labels = ["yes"] * 120
    by_image = estimates(answers, labels, images=[number // 6 for number in range(120)])["accuracy"]
    by_question = estimates(answers, labels)["accuracy"]
    assert by_image.high - by_image.low > 2 * (by_question.high - by_question.low)


def test_images_must_be_named_for_each_question():
    with pytest.raises(ValueError, match="2 answers and 1 images"):
        estimates(["Yes", "No"], ["yes", "no"], images=["a"])


def test_a_system_does_not_differ_from_itself_and_differs_from_a_worse_one():
    answers, labels = confusion(40, 7, 38, 15)
    same = difference(answers, answers, labels)
    assert all((e.value, e.low, e.high) == (0, 0, 0) for e in [one.estimate for one in same.values()])
    better = difference(labels, answers, labels)["accuracy"].estimate
    assert better.value == pytest.approx(0.22)
    assert better.low > 0
    silent = difference(answers, ["No"] * 100, labels)["precision"].estimate
    assert (silent.low, silent.high, silent.n) == (-1, 1, 0)


def test_the_mean_over_splits_is_that_of_their_figures_and_not_the_pooled_one():
    images = [number // 2 for number in range(40)]
    labels = ["yes", "no"] * 20
    splits = [(labels, labels, images), (["yes"] * 40, labels, images)]
    mean = mean_of_splits(splits)
    each = [score(answers, labels) for answers, labels, _ in splits]
    for name, estimate in mean.items():
        assert estimate.value == pytest.approx((each[0][name] + each[1][name]) / 2)
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.n == 20
    pooled = score([*labels, *["yes"] * 40], labels * 2)
    assert mean["f1"].value == pytest.approx((1 + 2 / 3) / 2)
    assert pooled["f1"] == pytest.approx(0.8), "the pooled figure is another one"
    assert mean_of_splits([(["no"] * 2, labels[:2], [1, 1])])["precision"] == Estimate(0.0, 0.0, 1.0, 0)
    assert mean_of_splits([splits[0]] * 2)["f1"] == wilson(20, 20)


def test_outcomes_tell_which_answers_were_right():
    assert [row.correct for row in outcomes(["Yes", "No", "Yes"], ["yes", "yes", "no"])] == [1, 0, 0]


QUESTION = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"}


def test_json_lines_and_arrays_are_read_alike(tmp_path):
    questions = [QUESTION, {**QUESTION, "question_id": 2, "label": "no", "text": "Is there a cat\u2028in the image?"}]
    (tmp_path / "lines.json").write_text("\n".join(json.dumps(q, ensure_ascii=False) for q in questions) + "\n\n")
    (tmp_path / "array.json").write_text(json.dumps(questions, indent=4))
    assert read_questions(tmp_path / "lines.json") == read_questions(tmp_path / "array.json") == questions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question_id": 1', "line 1 is not JSON"),
        (json.dumps(QUESTION) + "\n\n{torn", "line 3 is not JSON"),
        (json.dumps(QUESTION) + "\n" + json.dumps(QUESTION), "line 2 repeats question_id 1 of line 1"),
        (json.dumps([QUESTION, QUESTION]), "question 2 of the array repeats question_id 1"),
        ('[\n{"question_id": 1,\n]', "line 3 is not JSON"),
        (json.dumps({**QUESTION, "label": "maybe"}), "line 1 has label 'maybe'"),
        ('{"question_id": 1, "image": "a.jpg"}', "line 1 has no text, label"),
        ("[1]", "question 1 of the array has no question_id"),
        ("", "holds no questions"),
        ("[]", "holds no questions"),
    ],
)
def test_a_faulty_question_file_is_refused_with_the_line(tmp_path, text, message):
    (tmp_path / "questions.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_questions(tmp_path / "questions.json")


def test_the_fields_of_lmms_evals_copy_are_read_as_popes(tmp_path):
    row = {"question_id": 1, "image_source": "a.jpg", "question": "Is there a dog in the image?", "answer": "Yes"}
    (tmp_path / "questions.json").write_text(json.dumps(row))
    found = read_questions(tmp_path / "questions.json")
    assert [{name: one[name] for name in QUESTION} for one in found] == [QUESTION]


def test_a_missing_question_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no POPE question file at"):
        read_questions(tmp_path / "absent.json")


# The released files


def name_in(question):
    return question["text"].removeprefix("Is there ").removesuffix(" in the image?").split(" ", 1)[1]


@pytest.fixture(scope="module")
def coco(test_data):
    return {split: read_questions(test_data / "pope" / f"coco_pope_{split}.json") for split in SPLITS}


def test_the_coco_files_are_the_corrected_ones(test_data):
    for split, begins in zip(SPLITS, ("ac252451", "72c1a8ad", "420b3407"), strict=True):
        content = (test_data / "pope" / f"coco_pope_{split}.json").read_bytes()
        assert hashlib.sha256(content).hexdigest().startswith(begins)
        assert b"imange" not in content


def test_the_coco_files_hold_three_thousand_alternating_questions_on_five_hundred_images(coco):
    for questions in coco.values():
        assert [question["question_id"] for question in questions] == list(range(1, 3001))
        assert [question["label"] for question in questions] == ["yes", "no"] * 1500
        assert set(Counter(question["image"] for question in questions).values()) == {6}
        assert len({question["image"] for question in questions}) == 500


def test_the_coco_files_share_their_positives_and_name_79_objects(coco):
    positives = [[(q["image"], q["text"]) for q in questions[::2]] for questions in coco.values()]
    assert positives[0] == positives[1] == positives[2]
    assert len({name_in(question) for questions in coco.values() for question in questions}) == 79


def test_the_most_frequent_negatives_are_those_of_each_strategy(coco):
    popular = Counter(name_in(question) for question in coco["popular"][1::2]).most_common(3)
    assert popular == [("car", 410), ("dining table", 370), ("chair", 363)]
    adversarial = Counter(name_in(question) for question in coco["adversarial"][1::2]).most_common(3)
    assert adversarial == [("car", 288), ("dining table", 226), ("person", 146)]


def test_the_released_article_goes_by_the_first_letter_but_once(coco):
    odd = []
    for question in [question for questions in coco.values() for question in questions]:
        article, name = question["text"].removeprefix("Is there ").split(" ", 1)
        if article != ("an" if name[0] in "aeiou" else "a"):
            odd.append(question["text"])
    assert odd == ["Is there an traffic light in the image?"]


@pytest.mark.parametrize("data", ["aokvqa", "gqa"])
def test_the_seem_files_are_arrays_and_only_the_adversarial_ones_alternate(test_data, data):
    for split in SPLITS:
        path = test_data / "pope" / f"{data}_pope_seem_{split}.json"
        assert path.read_text().startswith("[")
        labels = [question["label"] for question in read_questions(path)]
        six = ["yes", "no"] * 3 if split == "adversarial" else ["yes"] * 3 + ["no"] * 3
        assert labels == six * 500
