"""What a notebook shows of answers and generations."""

import re

import torch

from veridical import Answer, Generation
from veridical.pipelines.results import Acted


def test_words_are_tinted_by_risk_and_escaped():
    risk = {"lookback_lens": [0.1, 0.9, float("nan")]}
    page = Answer("A <b>cat</b> &", ["A", " <b>cat</b>", " &"], risk)._repr_html_()
    assert "<b>cat" not in page
    assert re.search(r'rgba\(214, 39, 40, 0.06\).*title="lookback_lens 0.100">A</span>', page)
    assert re.search(r'rgba\(214, 39, 40, 0.54\)[^>]*title="lookback_lens 0.900">&lt;b&gt;cat&lt;/b&gt;</span>', page)
    assert page.endswith(" &amp;</p></div>"), "a word without a risk has no tint"


def test_every_detector_has_a_line_and_methods_say_what_they_did():
    acted = {"vcd": {"steps": 3.0, "acted": 2.0, "flipped": 1.0, "kl": 0.1}}
    page = Answer("A", ["A"], {"a": [0.5], "b": [0.5]}, acted)._repr_html_()
    assert page.count("<p>") == 3
    assert "vcd acted at 2 of 3 steps" in page


def test_an_error_is_shown_in_place_of_a_text():
    assert "<b>error:</b> no &lt;image&gt;" in Answer("", error="no <image>")._repr_html_()


def test_a_generation_shows_the_text_of_every_row():
    one = torch.ones(2)
    page = Generation(torch.zeros(2, 1, dtype=torch.long), None, ["<i>", "b"], {"vcd": Acted(one, one, one, one)})
    assert page._repr_html_().count("vcd acted at 1 of 1 steps") == 2
    assert "&lt;i&gt;" in page._repr_html_()
    assert "no processor, no text" in Generation(torch.zeros(1, 1, dtype=torch.long))._repr_html_()
