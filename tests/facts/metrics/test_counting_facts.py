"""Counting by hand."""

from collections import Counter

import pytest

from veridical.datasets.world import scene
from veridical.datasets.world_questions import counting
from veridical.metrics.counting import Claim, Count, agrees, estimates, join, parse_count, score


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("Two", 2), ("2", 2), ("There are 12 dogs.", 12), ("twenty people", 20), ("Two or three", 2),
        ("Zero", 0), ("None", 0), ("There are no dogs.", 0), ("There aren't any", 0), ("No, there are three.", 3),
        ("a dog", 1), ("There is a single dog", 1), ("One", 1),
        ("many", None), ("a few", None), ("a couple of dogs", None), ("", None), ("1.5", None), ("3D glasses", None),
        ("1,000", None), ("someone", None), ("stone", None),
    ],
)  # fmt: skip
def test_numbers_are_read_from_digits_and_words(answer, number):
    assert parse_count(answer) == number


def test_exact_match_error_and_bias():
    requests = [Count("Two", 2), Count("Three", 2), Count("One", 3), Count("lots", 4)]
    found = score(requests)
    assert found["accuracy"] == 0.25
    assert found["mean_absolute_error"] == pytest.approx((0 + 1 + 2) / 3)  # over answers with a number
    assert found["bias"] == pytest.approx((0 + 1 - 2) / 3)
    assert found["unparsed"] == 0.25
    assert found["constant"] == 0.5  # always saying two
    assert found["n"] == 4


@pytest.mark.parametrize(
    ("text", "claim", "expected"),
    [
        (2, Claim(2, "Yes"), True),
        (2, Claim(2, "No"), False),
        (2, Claim(3, "Yes"), False),
        (2, Claim(3, "No."), True),
        (0, Claim(1, "Yes", at_least=True), False),
        (0, Claim(1, "No", at_least=True), True),
        (4, Claim(1, "Yes, several", at_least=True), True),
        (None, Claim(1, "Yes", at_least=True), False),
        (2, Claim(2, "maybe"), False),
    ],
)
def test_a_count_and_a_claim_tell_one_story_or_two(text, claim, expected):
    assert agrees(text, claim) is expected


def test_consistency_is_over_claims_and_needs_no_truth():
    wrong_but_consistent = Count("Two", 5, (Claim(2, "Yes"), Claim(5, "No")))
    torn = Count("None", 1, (Claim(1, "Yes", at_least=True),))
    found = score([wrong_but_consistent, torn])
    assert found["consistency"] == pytest.approx(2 / 3)
    assert found["accuracy"] == 0


def test_without_claims_consistency_has_n_zero():
    found = estimates([Count("1", 1, image=i) for i in range(5)], samples=20)
    assert (found["consistency"].n, found["accuracy"].n) == (0, 5)
    assert found["mean_absolute_error"].value == 0


def test_errors_above_one_have_intervals_above_one():
    requests = [Count(str(n), 0, image=n % 10) for n in range(1, 41)]
    found = estimates(requests, samples=100)["mean_absolute_error"]
    assert found.value == 20.5
    assert 1 < found.low < 20.5 < found.high
    assert found.n == 10


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="no answers to score"):
        score([])
    with pytest.raises(ValueError, match="number=-1 is negative"):
        score([Count("1", -1)])
    with pytest.raises(ValueError, match="no protocol 'loose'"):
        score([Count("1", 1)], protocol="loose")
    with pytest.raises(TypeError, match="found int"):
        score([Count(1, 1)])


# The embedded world's questions


def test_the_worlds_numbers_are_true_and_half_of_them_above_one():
    requests = [q for q in counting("test", 40) if "number" in q]
    for q in requests:
        view = scene("test", q["index"])
        assert view.counts[q["category"]] == q["number"] == parse_count(q["label"])
    assert Counter(q["number"] > 1 for q in requests) == {True: 20, False: 20}
    assert len({q["image"] for q in requests}) == 40


def test_the_worlds_answers_join_into_counts_with_claims():
    requests = counting("test", 20)
    right = join(requests, {q["question_id"]: q["label"].capitalize() for q in requests})
    found = score(right)
    assert (found["accuracy"], found["consistency"], found["constant"]) == (1, 1, 0.5)
    contrary = join(requests, {q["question_id"]: q["label"] if "number" in q else "No" for q in requests})
    assert score(contrary)["consistency"] == 0
    assert all(len(one.claims) == 1 and one.image for one in contrary)


def test_joining_refuses_gaps():
    requests = counting("test", 1)
    with pytest.raises(ValueError, match="1 of 2 questions have no answer, such as 2"):
        join(requests, {1: "Two"})
    with pytest.raises(ValueError, match="never counted"):
        join(requests[1:], {2: "Yes"})
