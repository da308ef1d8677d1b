"""Decoders that edit by fixed directions, against the reference: batched and left-padded, cached and not.

Tolerance and measure of an effect as in `test_more_methods`.
"""

import pytest
import torch

import veridical
from veridical.decoders.adhh import ADHH
from veridical.decoders.nullu import Nullu
from veridical.decoders.project_away import ProjectAway
from veridical.decoders.spin import SPIN
from veridical.decoders.vhr import VHR
from veridical.decoders.vti import VTI
from veridical.pipelines.chain import make_chain
from veridical.pipelines.engine.run import Observers, run

from ..test_methods import HEADS, TOLERANCE, furthest
from ..test_more_methods import Setting, hold
from . import reference_states as states

STEPS = 4
WORDS = ((5, 6), (9,), (33, 34, 35))


@pytest.fixture(params=HEADS, scope="module")
def tiny(request):
    return Setting(*HEADS[request.param])


@pytest.fixture(scope="module")
def gqa():
    return Setting(*HEADS["gqa"])


# ---------------------------------------------------------------------- ProjectAway


@pytest.mark.parametrize(
    "options",
    [{}, {"alpha": 3.5, "layer": 5, "text_layer": 6}, {"layer": 0, "text_layer": -1}, {"layer": 6, "text_layer": 7}],
    ids=str,
)
def test_project_away_subtracts_each_words_direction_in_turn(tiny, options):
    hold(tiny, [ProjectAway(objects=WORDS, **options)], lambda *given: states.project_away(*given, WORDS, **options))


def test_objects_of_one_sample_leave_the_other_plain(gqa):
    out = gqa.generate([ProjectAway(objects=((), WORDS[:2]))])
    ids, pixels = gqa.rows[1]
    expected = states.project_away(gqa.reference, ids, pixels, STEPS, WORDS[:2])
    assert furthest(out.logits[0], gqa.plain[0].logits) < TOLERANCE
    assert furthest(out.logits[1], expected.logits) < TOLERANCE
    assert furthest(out.logits[1, 0], gqa.plain[1].logits[0]) > 1e-3


# ---------------------------------------------------------------------- Nullu


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


BASES = {layer: torch.linalg.qr(drawn(64, 6, seed=layer))[0] for layer in range(8)}


@pytest.mark.parametrize(
    ("options", "layers", "rank"),
    [({}, range(4, 8), 4), ({"rank": 1, "layers": (0, 5)}, (0, 5), 1), ({"rank": 6, "layers": range(8)}, range(8), 6)],
    ids=str,
)
def test_nullu_takes_its_directions_out_of_what_the_mlps_write(tiny, options, layers, rank):
    bases = {layer: BASES[layer][:, :rank] for layer in layers}
    decoder = Nullu.from_bases(BASES, **{"layers": None, **options})
    hold(tiny, [decoder], lambda *given: states.nullu(*given, bases))


# ---------------------------------------------------------------------- ADHH


WATCHED = ((0, 1), (3, 2), (3, 5), (6, 0), (7, 7))


@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_adhh_silences_text_where_a_watched_head_attends_to_it_too_much(tiny, threshold):
    acted = []
    expected = lambda *given: states.adhh(*given, WATCHED, threshold, acted)
    hold(tiny, [ADHH(heads=WATCHED, threshold=threshold)], expected)
    rows = 2 * STEPS * (STEPS + 1) // 2  # of two samples, once more for each token: passes without a cache
    assert 0 < len(acted) <= rows * len(WATCHED)
    assert (len(acted) < rows * len(WATCHED)) == (threshold > 0)


# ---------------------------------------------------------------------- VTI


TEXT, IMAGE = drawn(8, 64), drawn(2, 17, 32)


@pytest.mark.parametrize("alpha", [0.8, 5.0])
def test_vti_turns_every_mlps_output_toward_its_layers_direction(tiny, alpha):
    hold(tiny, [VTI.from_directions(TEXT, alpha=alpha)], lambda *given: states.vti(*given, TEXT, alpha=alpha))


def test_vti_turns_the_towers_outputs_token_by_token(gqa):
    options = {"alpha": 0.8, "alpha_image": 3.0}
    hold(gqa, [VTI.from_directions(TEXT, IMAGE, **options)], lambda *given: states.vti(*given, TEXT, IMAGE, **options))
    alone = VTI.from_directions(None, IMAGE, **options)
    hold(gqa, [alone], lambda *given: states.vti(*given, None, IMAGE, **options))


def test_equal_images_of_a_batch_are_each_steered(gqa):
    """A plain run encodes an image that stands in several rows once, apart from the pass that has the edits."""
    pixels = gqa.rows[0][1]
    inputs = {**gqa.inputs, "pixel_values": pixels.repeat(2, 1, 1, 1)}
    options = {"return_logits": True, "max_new_tokens": 2, "do_sample": False}
    found = veridical.generate(gqa.lvlm, inputs, [VTI.from_directions(None, IMAGE, alpha_image=3.0)], **options)
    for row, (ids, _) in enumerate(gqa.rows):
        expected = states.vti(gqa.reference, ids, pixels, 2, None, IMAGE, alpha_image=3.0)
        assert furthest(found.logits[row], expected.logits) < TOLERANCE


def test_a_branch_that_is_opened_before_vti_sees_the_image_with_a_plain_tower(gqa):
    """VCD's noised image is encoded plainly when VCD comes first, and steered when VTI does."""
    seen = {}
    for order in ("vti first", "vcd first"):
        chain = [VTI.from_directions(None, IMAGE, alpha_image=3.0), "vcd:noise_step=0,alpha=0,beta=0.1"]
        chain = chain if order == "vti first" else chain[::-1]
        note = lambda step, _, order=order: seen.setdefault(order, dict(step.branches))
        run(gqa.lvlm, gqa.inputs, make_chain(chain), Observers(observe=note), max_new_tokens=1, do_sample=False)
    assert furthest(seen["vti first"]["main"], seen["vcd first"]["main"]) < TOLERANCE
    assert furthest(seen["vti first"]["vcd"], seen["vcd first"]["vcd"]) > 1e-3


# ---------------------------------------------------------------------- heads that are fixed


@pytest.mark.parametrize("queries", ["last", "text", "all"])
def test_spin_shrinks_fixed_heads_in_the_rows_that_are_named(gqa, queries):
    def expected(reference, ids, pixels, steps):
        image = states.positions(reference, ids)
        first = {"last": len(ids) - 1, "text": max(image) + 1, "all": 0}[queries]

        def edit(at, heads):
            heads = heads.clone()
            for layer, head in WATCHED:
                if layer == at:
                    heads[first:, head] *= 0.3
            return heads

        return states.greedy(steps, lambda new: reference(ids, pixels, new, on_heads=edit).logits[-1])

    hold(gqa, [SPIN(heads=WATCHED, factor=0.3, queries=queries)], expected)


def test_vhr_reinforces_fixed_heads_everywhere(gqa):
    def expected(reference, ids, pixels, steps):
        def edit(at, heads):
            gains = torch.tensor([2.5 if (at, head) in WATCHED else 1.0 for head in range(8)], dtype=heads.dtype)
            return heads * gains[:, None]

        return states.greedy(steps, lambda new: reference(ids, pixels, new, on_heads=edit).logits[-1])

    hold(gqa, [VHR(heads=WATCHED, alpha=2.5)], expected)


# ---------------------------------------------------------------------- without a cache


ALL = [
    ProjectAway(objects=WORDS, layer=5),
    Nullu.from_bases(BASES),
    ADHH(heads=WATCHED, threshold=0.2),
    VTI.from_directions(TEXT, IMAGE, alpha_image=3.0),
    SPIN(heads=WATCHED, factor=0.3),
]
named = lambda decoder: type(decoder).__name__


@pytest.mark.parametrize("decoder", ALL, ids=named)
def test_a_run_without_a_cache_is_the_run_with_one(gqa, decoder):
    options = {"return_logits": True, "max_new_tokens": STEPS, "do_sample": False}
    one = veridical.generate(gqa.lvlm, gqa.inputs, [decoder], **options)
    other = veridical.generate(gqa.lvlm, gqa.inputs, [decoder], use_cache=False, **options)
    assert torch.equal(one.ids, other.ids)
    assert furthest(one.logits, other.logits) < TOLERANCE
