"""Agreement among samples and P(True) in the numbers of their specification. 1e-6 unless said."""

import math

import pytest
import torch

from veridical.detectors.agreement import (
    AnswerAgreement,
    ObjectAgreement,
    answer_risk,
    clusters,
    discrete_entropy,
    equal,
    likelihood_entropy,
    normalised,
    object_risk,
    on_mentions,
)
from veridical.detectors.p_true import PTrue, probability
from veridical.metrics.chair import Chair
from veridical.pipelines.results import Answer

YES_NO = ["Yes.", "yes", "No", "Yes, a dog.", "no!"]


def test_the_risk_of_an_object_is_the_share_of_samples_that_do_not_name_it():
    samples = [{"dog", "cat"}, {"dog"}, {"dog", "bus"}, {"dog", "cat"}]
    assert object_risk(["dog", "car", "cat"], samples) == [0, 1, 0.5]


def test_groups_by_text_and_their_entropy():
    groups = clusters(YES_NO)
    assert groups == [0, 0, 1, 2, 1]
    nats = discrete_entropy(groups)
    assert nats == pytest.approx(1.054920, abs=1e-6)
    assert nats / math.log(2) == pytest.approx(1.521928, abs=1e-6)
    assert nats / math.log(5) == pytest.approx(0.655459, abs=1e-6)


def test_answers_that_begin_with_yes_or_no_are_equal_by_that_word():
    assert clusters(YES_NO, equal) == [0, 0, 1, 0, 1]
    assert not equal("Yes.", "A dog.")


@pytest.mark.parametrize(
    ("groups", "nats"), [([0, 0, 0, 1], 0.562335), ([0, 0, 0, 0], 0), ([0, 1, 2, 3, 4], 1.609438)]
)
def test_entropies_of_groups(groups, nats):
    assert discrete_entropy(groups) == pytest.approx(nats, abs=1e-6)


def test_likely_samples_weigh_more():
    groups = [0, 0, 1]
    assert likelihood_entropy(groups, [-0.1, -0.3, -0.2]) == pytest.approx(0.635743, abs=1e-6)
    assert likelihood_entropy(groups, [-0.7] * 3) == pytest.approx(discrete_entropy(groups), abs=1e-9)


def test_normalising_takes_case_punctuation_and_articles_out_and_writes_numbers_as_digits():
    assert normalised("The two Dogs, a cat!") == "2 dogs cat"
    assert clusters(["2 dogs", "Two dogs!", "three dogs", "a dog", "dog."]) == [0, 0, 1, 2, 2]


def test_the_risk_of_an_answer_is_the_share_of_samples_in_other_groups():
    assert answer_risk("two dogs", ["2 dogs", "Two dogs!", "three dogs", "a dog"]) == 0.5


@pytest.mark.parametrize(("numbers", "groups"), [([0, 1, 2], [0, 0, 1]), ([1, 0, 2], [0, 0, 0])])
def test_the_first_member_of_a_group_decides(numbers, groups):
    assert clusters(numbers, lambda a, b: abs(a - b) <= 1) == groups


def test_an_answer_that_fits_two_groups_stays_in_the_first():
    """The released code of semantic entropy moves it to the last."""
    assert clusters([0, 2, 1], lambda a, b: abs(a - b) <= 1) == [0, 1, 0]


def test_answers_that_name_the_same_objects_are_equal_and_a_judge_takes_the_place_of_texts_and_objects():
    same = AnswerAgreement().relation(Chair())
    assert same("A puppy.", "There is a dog")
    assert not same("A dog.", "A dog and a cat")
    assert not same("Red", "Blue")
    never = AnswerAgreement(judge=lambda a, b: False).relation(Chair())
    assert never("Yes.", "yes")
    assert not never("dog", "dog")


@pytest.mark.parametrize(
    ("score", "risk"), [("disagreement", 0.4), ("entropy", 0.673012 / math.log(5)), ("likelihood", 0.0)]
)
def test_the_three_scores_of_five_answers(score, risk):
    """Three yes and two no to a given yes; the noes have next to no probability."""
    logs = [0.0, 0.0, -60.0, 0.0, -60.0]
    found = AnswerAgreement(score=score).risk("yes", YES_NO, logs, equal)
    assert found == pytest.approx(risk, abs=1e-6)


def test_p_true_weighs_the_two_options_against_each_other_alone():
    assert float(probability(torch.tensor([2.0, 1, 0, -1]), [0, 2], [1, 3])) == pytest.approx(0.731059, abs=1e-6)
    assert float(probability(torch.tensor([3.0, 1]), [0], [1])) == pytest.approx(0.880797, abs=1e-6)
    assert float(probability(torch.tensor([3.0, 1, 90]), [0], [1])) == pytest.approx(0.880797, abs=1e-6)


def test_options_that_a_cut_has_both_taken_are_a_tie():
    assert float(probability(torch.tensor([-math.inf, -math.inf, 2.0]), [0], [1])) == 0.5


def test_a_mentions_tokens_carry_the_risk_of_its_object_and_all_others_none():
    answer = Answer("A puppy by a stop sign.", ["A", " pup", "py", " by", " a", " stop", " sign", "."])
    found = on_mentions(Chair(), answer, {"dog": 0.25, "stop sign": 1.0})
    assert found.tolist() == [0, 0.25, 0.25, 0, 0, 1, 1, 0]


def test_the_defaults_are_the_specifications():
    assert (ObjectAgreement().samples, AnswerAgreement().samples, PTrue().samples) == (5, 10, 0)
    assert AnswerAgreement.official() == AnswerAgreement(5, 0.5, score="entropy", blur=(0.6, 0.8, 1.0, 1.2, 1.4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ObjectAgreement(samples=0), "samples=0"),
        (lambda: AnswerAgreement(temperature=0), "temperature=0"),
        (lambda: AnswerAgreement(score="bits"), "score='bits'"),
        (lambda: ObjectAgreement(blur=(0.5, -1)), r"blur=\(0\.5, -1\) are no radii"),
        (lambda: AnswerAgreement(judge="llama"), "judge='llama' is no callable"),
        (lambda: PTrue(form="word"), "form='word'"),
    ],
)
def test_fields_outside_their_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
