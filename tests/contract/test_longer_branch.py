"""A branch with a longer prompt adds padding to the main rows and nothing else: no method counts from the left."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import veridical
from veridical.decoders.icd import insert, question_starts
from veridical.detectors.logit_lens import seen_words
from veridical.pipelines.engine.declarations import Branch, Reading
from veridical.pipelines.generate import teacher_force

from .setting import READING, STEPS, Declares, difference, scale

CLOSE = 1e-5  # of the largest logit, as in test_neutral.py: more padding, other rounding
WORDS = (5, 6, 7, 8, 9, 10, 11)

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")

PLACES = {
    "before_the_image": lambda lvlm, inputs: [int(row.argmax()) + 1 for row in inputs["attention_mask"]],
    "behind_the_image": question_starts,
}


@dataclass(frozen=True)
class Longer:
    """A decoder and a detector that opens a branch of a longer prompt and does nothing with it."""

    place: str

    def edits(self, lvlm: Any, inputs: Any) -> Any:
        yield Branch("longer", insert(inputs, PLACES[self.place](lvlm, inputs), WORDS))

    readings = edits


@pytest.fixture(params=PLACES)
def longer(request):
    return Longer(request.param)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-4 * max(1.0, float(expected.abs().max()))


def test_the_branch_is_longer_than_the_main_rows(setting, longer):
    """Else the tests below would say nothing."""
    seen = []
    spy = Reading("length", [0], keep=lambda hidden: seen.append(hidden.shape[1]) or hidden, of="block", queries="all")
    setting.generate([longer, Declares([spy])])
    assert seen[0] == setting.inputs["input_ids"].shape[1] + len(WORDS)


def test_every_detector_has_the_same_risks_beside_a_longer_branch(setting, detector, longer):
    one = setting.detector(detector)
    alone, beside = setting.risk(detector), setting.generate([longer], detectors=[one])
    assert torch.equal(beside.ids, alone.ids)
    close(beside.risk[detector], alone.risk[detector])


def test_every_detector_scores_a_text_the_same_beside_a_longer_branch(setting, detector, longer):
    (one,) = veridical.pipelines.generate.ready([setting.detector(detector)], setting.lvlm)
    ids = setting.risk(detector).ids
    alone, beside = (teacher_force(setting.lvlm, setting.inputs, ids, some) for some in ([one], [longer, one]))
    close(one.score(beside), one.score(alone))


def test_every_detector_sees_the_same_step_by_step_beside_a_longer_branch(tiny, detector, longer):
    """In a gate a detector reads along online. Its neutral decoder shows nothing, so that the gate's door is read."""
    from veridical.decoders.gate import Gate

    class Open(Gate):
        def edits(self, lvlm, inputs):
            for declared in super().edits(lvlm, inputs):
                if getattr(getattr(declared, "apply", None), "__name__", "") == "decide":
                    doors.append(declared.apply.__self__)
                yield declared

    doors = []
    gate = Open("sla", tiny.detector(detector), 0.0)
    tiny.generate([gate])
    tiny.generate([longer, gate])
    alone, beside = (door.risk.risks for door in doors)
    assert alone.shape == (3, STEPS)
    close(beside, alone)


@pytest.mark.parametrize("order", ["branch_first", "decoder_first"])
def test_every_decoder_gives_the_same_logits_beside_a_longer_branch(setting, name, longer, order):
    """Declared first the branch stays plain; declared last it has the decoder's edits too."""
    decoder = setting.acting(name)
    alone = setting.acting_logits(name)
    beside = setting.logits([longer, decoder] if order == "branch_first" else [decoder, longer])
    assert difference(beside, alone) <= CLOSE * scale(alone)


@pytest.mark.parametrize("name", READING)
def test_every_detector_has_the_same_risks_beside_icd(tiny, name):
    """A published method whose prompt is longer: what is read while it decodes is what is read of its finished text."""
    one = tiny.detector(name)
    out = tiny.generate(["icd:prefix_ids=(11,23,42,50,61,70)"], detectors=[one])
    close(out.risk[name], veridical.score(tiny.lvlm, tiny.inputs, out.ids, [one])[name])


def test_a_pass_that_holds_a_part_of_the_prompt_is_refused_by_logit_lens():
    image = torch.tensor([[False, True, True, False]])
    with pytest.raises(ValueError, match=r"holds 3 of its 4 positions: leave prefill_chunk_size out"):
        seen_words(torch.zeros(1, 3, 8), image, 50, torch.nn.Identity(), 8)
