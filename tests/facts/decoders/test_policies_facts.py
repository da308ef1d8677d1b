"""Flipping, dropping: what becomes of an answer, word by word."""

import math

import pytest

from veridical.decoders.procedures.drop import Drop, drop
from veridical.decoders.procedures.flip import Flip, flip
from veridical.decoders.procedures.reask import Reask
from veridical.pipelines.inputs.text_alignment import risk_of, sentences
from veridical.pipelines.results import Answer


def answer_of(text, *risk, tokens=None):
    return Answer(text, tokens or text.split(), {"entropy": list(risk)})


@pytest.mark.parametrize(("text", "flipped"), [
    ("Yes", "No"), ("no", "yes"), ("NO", "YES"), ("Yes.", "No."), ("No, there is no dog.", "Yes."),
])  # fmt: skip
def test_a_risky_yes_or_no_is_turned_around_and_loses_what_would_contradict_it(text, flipped):
    (answer,) = flip([answer_of(text, 0.9, 0.1, 0.1, 0.1, 0.1)], "entropy", 0.5)
    assert answer.text == flipped
    assert answer.tokens == [flipped]
    assert answer.risk == {"entropy": [0.9]}


def test_the_risk_that_counts_is_the_one_of_the_word_itself_and_must_exceed_the_threshold():
    confident = answer_of("Yes, a dog.", 0.2, 0.9, 0.9)
    assert flip([confident], "entropy", 0.5) == [confident]
    level = answer_of("Yes", 0.5)
    assert flip([level], "entropy", 0.5) == [level]
    quoted = answer_of('"Yes"', 0.1, 0.9, tokens=['"', 'Yes"'])
    assert flip([quoted], "entropy", 0.5)[0].text.startswith("No")


def test_an_answer_that_says_neither_stays():
    for text in ("A dog.", "Yesterday", "", "Maybe yes"):
        one = answer_of(text, *[0.9] * len(text.split()))
        assert flip([one], "entropy", 0.5) == [one]


def test_a_missing_risk_is_named():
    with pytest.raises(KeyError, match=r"no risk 'dhcp'.*there are: entropy.*detectors=\['dhcp'\]"):
        flip([answer_of("Yes", 0.9)], "dhcp", 0.5)
    with pytest.raises(KeyError, match="no risk 'dhcp'"):
        drop([answer_of("Yes", 0.9)], "dhcp", 0.5)


def test_an_answer_that_is_an_error_stays_an_error():
    failed = Answer("", error="no such file")
    assert flip([failed], "entropy", 0.5) == drop([failed], "entropy", 0.5) == [failed]


def test_a_risky_sentence_is_dropped_with_its_tokens():
    answer = answer_of("A dog. A red cat. It rains", 0.1, 0.2, 0.1, 0.9, 0.1, 0.3, 0.4)
    (left,) = drop([answer], "entropy", 0.5)
    assert left.text == "A dog. It rains"
    assert left.tokens == ["A", "dog.", "It", "rains"]
    assert left.risk == {"entropy": [0.1, 0.2, 0.3, 0.4]}
    assert drop([answer], "entropy", 0.9) == [answer]
    assert drop([answer], "entropy", 0.05)[0].text == ""


def test_a_sentence_is_as_risky_as_its_riskiest_token_or_as_their_mean():
    answer = answer_of("A red cat.", 0.1, 0.9, 0.2)
    assert drop([answer], "entropy", 0.5)[0].text == ""
    assert drop([answer], "entropy", 0.5, over="mean") == [answer]
    assert risk_of([0.2, math.nan, 0.6], "mean") == pytest.approx(0.4)
    assert risk_of([math.nan], "max") == -math.inf


def test_sentences_end_before_a_space_or_the_end_and_hold_every_token():
    text = "It is 3.5 m long. Is it? Yes!"
    parts = sentences(text, ["It", " is", " 3", ".5", " m", " long", ".", " Is", " it", "?", " Yes", "!"])
    assert [tuple(part) for part in parts] == [("It is 3.5 m long.", 0, 7), ("Is it?", 7, 10), ("Yes!", 10, 12)]
    assert sentences("", []) == []


@pytest.mark.parametrize(("built", "message"), [
    (lambda: Flip(detector="dhpc"), 'Did you mean "dhcp"'),
    (lambda: Drop(threshold="much"), "threshold='much' is no number"),
    (lambda: Drop(over="min"), "over='min' is none of 'max', 'mean'"),
    (lambda: Reask(decoder="vdc"), 'Did you mean "vcd"'),
    (lambda: Reask(temperature=-1), "temperature=-1 is below 0"),
])  # fmt: skip
def test_wrong_settings_are_refused_with_what_is_possible(built, message):
    with pytest.raises((ValueError, KeyError), match=message):
        built()


def test_an_infinite_threshold_can_be_read_back():
    method = Flip("entropy", float("inf"))
    assert eval(repr(method)) == method
