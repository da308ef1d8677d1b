"""The parts of a report: its figure, sentences, words, maps and images."""

import base64
import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image

from veridical.flows.benchmarks.base import Mark
from veridical.flows.report import maps
from veridical.flows.report.chart import chart
from veridical.flows.report.page import as_data, render
from veridical.flows.report.texts import shown_words
from veridical.flows.report.thumbnails import thumbnails
from veridical.flows.scoring import compare
from veridical.flows.scoring.sentences import sentence
from veridical.metrics.chair import Chair


# -- sentences -----------------------------------------------------------------------------------------------------
def found(texts, images=40):
    truth = {image: {"dog", "cat"} for image in range(images)}
    systems = [
        compare.System(name, "chair", name, {"": compare.Texts(Chair(), dict(enumerate(outputs)), truth)}, {})
        for name, outputs in texts.items()
    ]
    return compare.against_first(systems)


RIGHT, WRONG = "A dog and a cat.", "A dog, a cat and a zebra."


def test_a_sentence_says_what_a_decoder_does_and_what_of_it_is_brevity():
    (pair,) = found({"greedy": [WRONG] * 30 + [RIGHT] * 10, "short": ["A dog."] * 40})
    assert sentence(pair) == (
        "hallucinates less (CHAIR_i −0.273 [−0.311, −0.235]), says less (recall −0.500 [−0.500, −0.500]), at equal "
        "length nothing of it is shown (+0.000 [+0.000, +0.000])"
    )


def test_what_stays_at_equal_length_is_said_too():
    better = ["A dog, a cat and a dog."] * 40
    (pair,) = found({"greedy": [WRONG] * 30 + [RIGHT] * 10, "better": better})
    words = sentence(pair)
    assert words.startswith("hallucinates less (CHAIR_i −0.273")
    assert "no other recall shown (recall +0.000" in words
    assert "at equal length as well (−0.2" in words


def test_a_difference_inside_the_noise_is_not_called_one():
    (pair,) = found({"greedy": [WRONG] * 20 + [RIGHT] * 20, "same": [WRONG] * 19 + [RIGHT] * 21})
    assert sentence(pair).startswith("no other hallucination shown (CHAIR_i −0.00")
    assert "at equal length" not in sentence(pair)


def test_more_hallucination_is_called_that():
    (pair,) = found({"greedy": [RIGHT] * 40, "worse": [WRONG] * 40})
    assert sentence(pair).startswith("hallucinates more (CHAIR_i +0.333")


def test_questions_have_a_sentence_of_f1_and_yes():
    labels = {(str(n), f"{n}.jpg"): "yes" if n % 2 else "no" for n in range(60)}
    answers = {"greedy": dict.fromkeys(labels, "yes"), "vcd": labels}
    systems = [
        compare.System(name, "pope", name, {"popular": compare.Split(outputs, labels, "official")}, {})
        for name, outputs in answers.items()
    ]
    (pair,) = compare.against_first(systems)
    assert sentence(pair).startswith("answers better (f1 +0.333 [")
    assert "says yes less often (yes_ratio −0.500 [" in sentence(pair)


# -- the figure ----------------------------------------------------------------------------------------------------
def record(name, x, y, seconds):
    cell = lambda value: {"value": value, "low": value - 0.1, "high": value + 0.05, "n": 9}
    return {"decoder": name, "seconds_per_image": seconds, "metrics": {"recall": cell(x), "chair_i": cell(y)}}


def test_the_figure_has_recall_to_the_right_and_hallucination_upwards():
    drawn = chart("chair", "chair_s", [record("a", 0.5, 0.3, 1), record("b", 0.7, 0.1, 4.1)], {"recall": True})
    a, b = drawn["points"]
    assert a["x"] < b["x"]
    assert a["y"] < b["y"], "pixels count from the top: less hallucination is further down"
    assert a["left"] < a["x"] < a["right"]
    assert a["high"] < a["y"] < a["low"]
    assert (a["x"] - a["left"]) == pytest.approx(2 * (a["right"] - a["x"]), abs=0.3), "0.1 against 0.05"
    assert (a["cost"], a["colour"], b["cost"], b["colour"]) == (1, 0, 4.1, 4)
    assert drawn["x_name"] == "recall (more is better)"


def test_names_of_near_points_do_not_cover_each_other():
    drawn = chart("chair", "chair_s", [record(str(n), 0.5, 0.3, 1) for n in range(9)], {})
    lines = sorted(point["line"] for point in drawn["points"])
    assert min(b - a for a, b in itertools.pairwise(lines)) >= 16.9
    assert max(lines) <= drawn["frame"]["bottom"]


def test_a_benchmark_without_recall_has_a_line_per_decoder():
    drawn = chart("pope", "recall", [record("a", 0.5, 0.3, 1), record("b", 0.7, 0.1, 2)], {"recall": True})
    assert drawn["y_name"] == ""
    assert drawn["points"][0]["y"] < drawn["points"][1]["y"]
    assert [text for _, text in drawn["x_ticks"]] == sorted(text for _, text in drawn["x_ticks"])


def test_a_figure_that_rests_on_nothing_has_no_point():
    nothing = {"value": None, "low": 0, "high": 1, "n": 0}
    empty = {"decoder": "c", "seconds_per_image": 1, "metrics": {"recall": nothing}}
    assert chart("pope", "recall", [record("a", 0.5, 0.3, 1), empty], {})["points"][0]["name"] == "a"
    assert len(chart("pope", "recall", [record("a", 0.5, 0.3, 1), empty], {})["points"]) == 1


# -- words ---------------------------------------------------------------------------------------------------------
def test_words_have_their_mark_risk_and_what_plain_decoding_has_in_their_place():
    text = "A dog and a zebra."
    shown = shown_words(
        text, text.split(), {"entropy": [0.1, 0.2, None, 0.4, 0.9]}, [Mark(2, 5, True), Mark(12, 17, False)],
        "A dog and a cat.",
    )  # fmt: skip
    assert [text[one["s"] : one["e"]] for one in shown] == ["A", "dog", "and", "a", "zebra."]
    assert [one["k"] for one in shown] == [0, 1, 0, 0, 2]
    assert [one["r"] for one in shown] == [[0.1], [0.2], [None], [0.4], [0.9]]
    assert [one.get("p") for one in shown] == [None, None, None, None, "cat."]
    assert "p" not in shown[0]


def test_a_word_with_a_right_and_a_wrong_part_is_wrong():
    (shown,) = shown_words("dog/zebra", [], {}, [Mark(0, 3, True), Mark(4, 9, False)])
    assert shown["k"] == 2


def test_a_word_that_plain_decoding_has_not_at_all_is_said_to_replace_nothing():
    assert [one.get("p") for one in shown_words("A big dog", [], {}, [], "A dog")] == [None, "", None]
    assert not any("p" in one for one in shown_words("A dog", [], {}, []))


# -- maps ----------------------------------------------------------------------------------------------------------
def decoded(text, count):
    pairs = base64.b64decode(text)
    return [pairs[n // 2] & 15 if n % 2 else pairs[n // 2] >> 4 for n in range(count)]


def test_sixteen_levels_keep_where_a_map_is_large():
    assert decoded(maps.levels(np.array([[0.0, 0.1], [0.2, 0.05]])), 4) == [0, 8, 15, 4]
    assert decoded(maps.levels(np.array([[0.0, 0.2, 0.1]])), 3) == [0, 15, 8]
    assert decoded(maps.levels(np.zeros((2, 2))), 4) == [0, 0, 0, 0]


def test_a_fine_grid_becomes_means_of_blocks():
    fine = np.arange(24 * 24, dtype=float).reshape(24, 24)
    coarse = maps.coarse(fine)
    assert coarse.shape == (12, 12)
    assert coarse[0, 0] == fine[:2, :2].mean()
    assert coarse[11, 11] == fine[22:, 22:].mean()
    odd = maps.coarse(np.ones((17, 5)))
    assert odd.shape == (12, 5)
    np.testing.assert_allclose(odd, 1)


def test_a_words_map_is_that_of_its_first_token():
    first, second = np.eye(2), np.eye(2)[::-1]
    row = {
        "grid": [2, 2], "area": [0, 0, 1, 1], "spans": [[0, 1], [2, 4], [4, 7]], "probability": [0.9, 0.5, 0.25],
        "maps": [maps.packed(first), maps.packed(second), maps.packed(first)],
    }  # fmt: skip
    shown = maps.of_words(row, [(0, 1), (2, 7), (8, 9)])
    assert decoded(shown["maps"][1], 4) == [0, 15, 15, 0]
    assert shown["maps"][2] == ""
    assert shown["chances"] == [0.9, 0.25, None]


# -- images and the page -------------------------------------------------------------------------------------------
def test_images_become_smaller_until_all_of_them_fit():
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (300, 600, 3), np.uint8)) for _ in range(4)]
    openers = {str(n): (lambda one=one: one.copy()) for n, one in enumerate(noise)}
    large, small = thumbnails(openers), thumbnails(openers, 40_000)
    assert sum(len(one["uri"]) for one in large.values()) > 40_000 >= sum(len(one["uri"]) for one in small.values())
    assert {(one["width"], one["height"]) for one in small.values()} == {(600, 300)}
    shown = Image.open(io.BytesIO(base64.b64decode(large["0"]["uri"].split(",")[1])))
    assert shown.size == (384, 192)


def test_an_image_that_cannot_be_opened_leaves_an_empty_place():
    def gone():
        raise FileNotFoundError

    assert thumbnails({"a": gone}) == {"a": {"uri": "", "width": 0, "height": 0}}


def test_no_text_ends_the_element_that_holds_the_data():
    text = "</script><script>alert(1)</script><!-- \u2028 &"
    shown = str(as_data({"text": text}))
    assert "<" not in shown
    assert "\u2028" not in shown
    assert json.loads(shown) == {"text": text}


def test_the_page_forbids_everything_but_its_own_style_and_script():
    import hashlib
    import re

    page = render("layout.html.jinja", title="<i>", browser={})
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src &#39;none&#39;; img-src data:; ")
    for element, directive in (("style", "style-src"), ("script", "script-src")):
        inside = re.search(rf"<{element}>(.*?)</{element}>", page, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{directive} &#39;sha256-{digest}&#39;" in policy
    assert "<title>veridical: &lt;i&gt;</title>" in page
    assert not re.search(r"\son\w+=|\sstyle=", page)
