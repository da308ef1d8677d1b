"""Decoders that act on what is paid to the image, against the reference: batched and left-padded, cached and not.

Tolerance and measure of an effect as in `test_more_methods`.
"""

import pytest
import torch

import veridical
from veridical.decoders.code import CODE
from veridical.decoders.heads_guided import HeadsGuided
from veridical.decoders.marine import MARINE
from veridical.decoders.pai import PAI
from veridical.decoders.ritual import RITUAL
from veridical.decoders.sid import SID
from veridical.decoders.spin import SPIN
from veridical.decoders.vaf import VAF

from . import reference_image as image
from . import reference_more as more
from .test_methods import HEADS, TOLERANCE, furthest
from .test_more_methods import Setting, hold

STEPS = 4


@pytest.fixture(params=HEADS, scope="module")
def tiny(request):
    return Setting(*HEADS[request.param])


@pytest.fixture(scope="module")
def gqa():
    return Setting(*HEADS["gqa"])


# ---------------------------------------------------------------------- RITUAL


@pytest.mark.parametrize("options", [{}, {"alpha": 0.5, "beta": 0.0}, {"beta": 0.5}], ids=str)
def test_ritual_adds_an_uncached_pass_of_the_view(tiny, options):
    flip = lambda inputs: inputs["pixel_values"].flip(-1)
    hold(tiny, [RITUAL(view=flip, **options)], lambda *given: image.ritual(*given, given[2].flip(-1), **options))


def test_rituals_own_flip_is_that_of_the_whole_image(gqa):
    hold(gqa, [RITUAL(transforms="vflip")], lambda *given: image.ritual(*given, given[2].flip(-2)))


# ---------------------------------------------------------------------- VAF


VAF_OPTIONS = [
    ({}, [2, 3]),
    ({"boost": 1.0, "suppress": 0.5, "layers": (0, 1, 5)}, [0, 1, 5]),
    ({"boost": 0.0, "suppress": 1.0, "layers": range(8)}, range(8)),
    ({"boost": 0.8, "heads": {2: (0, 3), 5: (1,)}, "layers": (2, 3, 5)}, [2, 5]),
]


@pytest.mark.parametrize(("options", "layers"), VAF_OPTIONS, ids=str)
def test_vaf_multiplies_scores_behind_the_image(tiny, options, layers):
    rest = {name: value for name, value in options.items() if name != "layers"}
    hold(tiny, [VAF(**options)], lambda *given: image.vaf(*given, layers, **rest))


# ---------------------------------------------------------------------- heads-guided attention


@pytest.mark.parametrize(
    ("options", "layers"),
    [({}, [1, 2, 3, 4]), ({"alpha": 2.0, "layers": range(8)}, range(8)), ({"layers": (0, 7)}, [0, 7])],
    ids=str,
)
def test_heads_guided_raises_scores_by_the_mean_size(tiny, options, layers):
    alpha = options.get("alpha", 0.5)
    hold(tiny, [HeadsGuided(**options)], lambda *given: image.heads_guided(*given, layers, alpha))


# ---------------------------------------------------------------------- SPIN


SPIN_OPTIONS = [
    {},
    {"keep": 0.5, "factor": 0.3},
    {"keep": 0.5, "factor": 0.3, "layers": (0, 3, 7)},
    {"keep": 0.5, "factor": 0.3, "queries": "text"},
    {"keep": 0.1, "factor": 0.0},
]


@pytest.mark.parametrize("options", SPIN_OPTIONS, ids=str)
def test_spin_shrinks_the_heads_that_score_the_image_least(tiny, options):
    hold(tiny, [SPIN(**options)], lambda *given: image.spin(*given, **options))


def test_spin_chooses_anew_for_each_token(gqa):
    chosen = []
    ids, pixels = gqa.rows[0]
    image.spin(gqa.reference, ids, pixels, STEPS, keep=0.5, factor=0.3, layers=(0,), chosen=chosen)
    assert len({tuple(heads) for heads in chosen}) > 1


def test_spin_ranks_scores_that_a_method_before_it_has_edited(gqa):
    """PAI's boost is so strong that it changes which heads stay."""

    def expected(reference, ids, pixels, steps):
        boost = more.boosted(reference, ids, dict.fromkeys(more.positions(reference, ids), 3.0), 0)
        changed = lambda *given, on_scores, **taps: reference(
            *given, on_scores=lambda layer, scores: on_scores(layer, boost(layer, scores)), **taps
        )
        changed.image_mask = reference.image_mask
        return image.spin(changed, ids, pixels, steps, keep=0.5, factor=0.3)

    hold(gqa, [PAI(alpha=3.0, gamma=1.0, skip_first=0), SPIN(keep=0.5, factor=0.3)], expected)


# ---------------------------------------------------------------------- SID


SID_OPTIONS = [
    {},
    {"beta": 0.0, "layer": 1, "keep": 1},
    {"alpha": 2.0, "beta": 0.0, "layer": 2, "keep": 4},
    {"alpha": 1.0, "layer": 7, "keep": 0.5},
]


@pytest.mark.parametrize("options", SID_OPTIONS, ids=str)
def test_sid_contrasts_with_the_least_attended_image_tokens(tiny, options):
    hold(tiny, [SID(**options)], lambda *given: image.sid(*given, **options))


def test_sid_chooses_anew_for_each_token(gqa):
    chosen = []
    image.sid(gqa.reference, *gqa.rows[0], STEPS, layer=2, keep=4, chosen=chosen)
    assert len({tuple(tokens) for tokens in chosen}) > 1


def test_sid_keeps_a_rows_own_key_where_no_text_stands_before_the_image(gqa):
    ids, pixels = gqa.rows[0]
    start = more.positions(gqa.reference, ids)[0]
    cut = ids[None, start:]
    inputs = {"input_ids": cut, "attention_mask": torch.ones_like(cut), "pixel_values": pixels}
    options = {"alpha": 2.0, "beta": 0.0, "layer": 2, "keep": 1}
    out = veridical.generate(
        gqa.lvlm, inputs, [SID(**options)], return_logits=True, max_new_tokens=STEPS, do_sample=False
    )
    run = image.sid(gqa.reference, cut[0], pixels, STEPS, **options)
    assert furthest(out.logits[0], run.logits) < TOLERANCE


# ---------------------------------------------------------------------- CODE


@pytest.mark.parametrize("power", [0.7, 0.2, 1.5])
def test_code_contrasts_with_the_description_in_the_images_place(tiny, power):
    texts = [[50, 51, 77, 12, 20], [9]]
    decoder = CODE(power=power, description=lambda inputs: texts)
    own = lambda ids: texts[[torch.equal(ids, row[0]) for row in tiny.rows].index(True)]
    hold(tiny, [decoder], lambda *given: image.code(*given, own(given[1]), power))


# ---------------------------------------------------------------------- MARINE


@pytest.mark.parametrize("gamma", [0.7, 0.3, 1.0, 1.5])
def test_marine_mixes_in_the_guided_prompts_distribution(tiny, gamma):
    prompts = [torch.cat([ids[:-2], torch.tensor(extra), ids[-2:]])
               for (ids, _), extra in zip(tiny.rows, ([7, 33, 60], [9]), strict=True)]  # fmt: skip
    own = lambda ids: prompts[[torch.equal(ids, row[0]) for row in tiny.rows].index(True)]
    decoder = MARINE(gamma=gamma, guide=lambda inputs: prompts)
    hold(tiny, [decoder], lambda *given: image.marine(*given, own(given[1]), gamma))


# ---------------------------------------------------------------------- without a cache, and the text once more


ALL = [
    VAF(boost=1.0, suppress=0.5, layers=range(8)),
    HeadsGuided(alpha=2.0, layers=range(8)),
    SPIN(keep=0.5, factor=0.3),
    SPIN(keep=0.5, factor=0.3, queries="text"),
]
named = lambda decoder: f"{type(decoder).__name__}-{getattr(decoder, 'queries', '')}"


@pytest.mark.parametrize("decoder", [*ALL, SID(beta=0.0, layer=2, keep=4)], ids=named)
def test_a_run_without_a_cache_is_the_run_with_one(gqa, decoder):
    options = {"return_logits": True, "max_new_tokens": STEPS, "do_sample": False}
    one = veridical.generate(gqa.lvlm, gqa.inputs, [decoder], **options)
    other = veridical.generate(gqa.lvlm, gqa.inputs, [decoder], use_cache=False, **options)
    assert torch.equal(one.ids, other.ids)
    assert furthest(one.logits, other.logits) < TOLERANCE


def test_rows_that_are_not_edited_keep_their_states_to_the_bit(gqa):
    """Heads-guided attention and SPIN edit the prompt's last row alone, VAF the rows behind the image."""
    from veridical.pipelines.engine.declarations import Reading
    from veridical.pipelines.engine.run import prefill

    ids = gqa.inputs["input_ids"]
    behind = gqa.lvlm.image_mask(ids).flip(1).cumsum(1).flip(1) == 0
    last = torch.zeros_like(behind)
    last[:, -1] = True
    block = lambda *edits: prefill(
        gqa.lvlm, gqa.inputs, [*edits, Reading("block", range(8), keep=lambda h: h, of="block", queries="all")]
    ).by_layer("block")
    plain = block()
    for decoder in ALL:
        found = block(*decoder.edits(gqa.lvlm, gqa.inputs))
        rows = last if isinstance(decoder, HeadsGuided) or getattr(decoder, "queries", "") == "last" else behind
        for layer in range(8):
            change = (found[layer] - plain[layer]).abs().amax(-1)
            assert bool((change[rows] > 1e-4).any())
            assert float(change[~rows & gqa.inputs["attention_mask"].bool()].max()) < 1e-5
