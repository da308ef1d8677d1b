"""Every registered decoder and detector on a tiny model of every family, and the support table they make.

A new name in a registry enters by itself. Float64, so that 1e-6 and 1e-5 speak of the method and not of rounding.
"""

import os

import pytest
import torch

import veridical
from veridical.pipelines.registry import PROCEDURES

from ..contract.setting import READING, difference
from ..contract.table import covered, entry, neutral
from . import support
from .models.tiny_families import FAMILIES
from .models.tiny_processors import MISSING
from .setting import STEPS

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


@pytest.fixture(params=covered())
def decoder(request):
    return request.param


@pytest.fixture(params=READING)
def detector(request):
    return request.param


def possible(case, method):
    """Skip a pair that makes no sense, with its reason."""
    why = support.reason(case.family.name, method)
    if why:
        pytest.skip(why)


def test_decoder_acts(exact, decoder):
    possible(exact, decoder)
    assert support.outcome(exact.family.name, decoder) == support.YES


def test_decoder_runs_in_float32(case, decoder):
    """What users run. Token by token it may differ from float64, so that only its form is looked at."""
    possible(case, decoder)
    out = case.generate([support.acting(decoder)], return_logits=True)
    assert out.ids.shape == (len(case.prompts), STEPS)
    assert not out.logits.isnan().any()
    assert (out.logits.amax(-1) > -torch.inf).all()
    if entry(decoder).acts:
        acted = out.acted[decoder]
        steps = torch.ones_like(acted.steps) if entry(decoder).once else acted.steps
        assert torch.equal(acted.acted, steps), "it did not act at every step"


def test_neutral_decoder_is_plain_decoding(exact, decoder):
    possible(exact, decoder)
    assert difference(exact.logits([neutral(decoder)]), exact.plain()) <= 1e-6


def test_decoder_in_a_padded_batch_is_the_decoder_alone(exact, decoder):
    possible(exact, decoder)
    together = exact.once(decoder, support.acting(decoder))
    for row, one in enumerate(exact.prompts):
        alone = exact.generate([support.acting(decoder)], one, return_logits=True)
        assert torch.equal(alone.ids[0], together.ids[row])
        assert difference(alone.logits[0], together.logits[row]) <= 1e-5


@pytest.mark.parametrize(
    ("mode", "row"),
    [({"num_beams": 3}, 0), ({"do_sample": True, "top_p": 0.9, "seed": [3, 4]}, 1)],
    ids=["beams", "sampling"],
)
def test_decoder_keeps_its_tokens_in_a_batch(exact, decoder, mode, row):
    possible(exact, decoder)
    together = exact.generate([support.acting(decoder)], max_new_tokens=2, **mode).ids
    if "seed" in mode:
        mode = {**mode, "seed": mode["seed"][row]}
    alone = exact.generate([support.acting(decoder)], exact.prompts[row], max_new_tokens=2, **mode).ids
    assert torch.equal(alone[0], together[row])


def test_detector_scores_finished_text_as_it_does_while_generating(exact, detector):
    possible(exact, detector)
    assert support.outcome(exact.family.name, detector) == support.YES


def test_detector_in_a_padded_batch_is_the_detector_alone(exact, detector):
    possible(exact, detector)
    case, built, inputs = support.reading(exact.family.name, detector)
    ids = exact.generate(inputs=inputs).ids
    together = veridical.score(case.lvlm, inputs, ids, [built])[detector]
    alone = exact.prompts if inputs is exact.inputs else support.one_by_one(exact.family.name)
    for row, one in enumerate(alone):
        single = veridical.score(case.lvlm, one, ids[row : row + 1], [built])[detector]
        assert difference(single[0], together[row]) <= 1e-5


@pytest.mark.parametrize("procedure", PROCEDURES.own)
def test_procedure_answers(exact, procedure):
    possible(exact, procedure)
    if exact.family.name in MISSING:
        pytest.skip(MISSING[exact.family.name])
    assert support.outcome(exact.family.name, procedure) == support.YES


@pytest.mark.parametrize(("family", "method"), list(support.CANNOT))
def test_a_pair_that_makes_no_sense_is_refused_with_its_reason(family, method):
    for name in FAMILIES if family == "*" else [family]:
        with pytest.raises(ValueError, match=support.CANNOT[family, method]):
            support.run(name, method)


def test_the_support_table_is_all_yes_or_has_the_reason():
    built = support.table()
    found = support.cells()
    failed = {pair: value for pair, value in found.items() if value != support.YES and not support.reason(*pair)}
    assert not failed, f"{failed}\n\n{built}"
    assert built.splitlines()[0] == "| method | " + " | ".join(FAMILIES) + " |"
    assert [line.split("`")[1] for line in built.splitlines()[2:] if line.startswith("| ")] == support.methods()


@pytest.mark.skipif(bool(MISSING), reason=f"a processor is missing: {MISSING}")
def test_the_committed_support_table_is_what_these_tests_measure():
    if os.environ.get("WRITE_SUPPORT"):
        support.DOCUMENT.write_text(support.document(), encoding="utf-8")
    assert support.DOCUMENT.read_text(encoding="utf-8") == support.document(), (
        "docs/support.md is of other methods or families than there are now; make it anew: "
        "WRITE_SUPPORT=1 pytest tests/families/test_methods.py -k support"
    )
