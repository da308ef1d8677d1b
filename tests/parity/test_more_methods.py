"""Further decoders against the reference: cached, batched and left-padded against one uncached row at a time.

Tolerance 1e-4 as in `test_methods`, on logits, or on log-probabilities where the package keeps the logits' level and
the paper normalises. That a method did something is measured on log-probabilities of the tokens that stay, so that
neither a cut nor a constant passes for an effect.
"""

import pytest
import torch

import veridical
from veridical.decoders.agla import AGLA
from veridical.decoders.avc import AVC
from veridical.decoders.deco import DeCo
from veridical.decoders.dola import DoLa
from veridical.decoders.helpd import HELPD
from veridical.decoders.icd import ICD
from veridical.decoders.imbalanced import Imbalanced
from veridical.decoders.m3id import M3ID
from veridical.decoders.pai import PAI
from veridical.decoders.rbd import RBD
from veridical.decoders.vcd import diffuse
from veridical.pipelines.engine.run import Observers, declarations_of
from veridical.pipelines.engine.run import run as engine_run

from ..contract import table
from . import reference_methods as methods
from . import reference_more as more
from .test_methods import EFFECT, HEADS, TOLERANCE, furthest
from .tiny import batch, prompt, tiny_llava

STEPS = 4
PREFIX = (9, 33, 120)


class Setting:
    """A model, a batch of two prompts of different lengths, and each prompt alone."""

    def __init__(self, heads: int, kv_heads: int) -> None:
        self.model = tiny_llava(heads, kv_heads)
        prompts = [prompt(self.model, 3, 5, 1), prompt(self.model, 6, 7, 2)]
        self.rows = [(one["input_ids"][0], one["pixel_values"]) for one in prompts]
        self.lvlm, self.inputs = veridical.LVLM(self.model), batch(prompts)
        self.reference = more.Scored(self.model)
        self.plain = [methods.plain(self.reference, ids, pixels, STEPS) for ids, pixels in self.rows]

    def generate(self, decoders, steps=STEPS):
        return veridical.generate(
            self.lvlm, self.inputs, decoders, return_logits=True, max_new_tokens=steps, do_sample=False
        )


@pytest.fixture(params=HEADS, scope="module")
def tiny(request):
    return Setting(*HEADS[request.param])


@pytest.fixture(scope="module")
def gqa():
    return Setting(*HEADS["gqa"])


def normal(logits):
    return logits.double().log_softmax(-1)


def effect(logits, plain):
    """The largest difference of log-probabilities, over the tokens that neither side cuts."""
    both = logits.isfinite() & plain.isfinite()
    return float((normal(logits[both]) - normal(plain[both])).abs().max())


def hold(tiny, decoders, expected, same=lambda logits: logits, steps=STEPS, acts=True, tolerance=TOLERANCE):
    """Compare every row with `expected(reference, ids, pixels, steps)`. same: what of both is compared."""
    out = tiny.generate(decoders, steps)
    assert out.logits.shape[:2] == (len(tiny.rows), steps)
    moved = []
    for row, (ids, pixels) in enumerate(tiny.rows):
        run = expected(tiny.reference, ids, pixels, steps)
        for step in range(steps):
            ours, theirs = same(run.logits[step].double()), same(out.logits[row, step].double())
            where = f"row {row}, step {step}"
            assert torch.equal(theirs.isfinite(), ours.isfinite()), f"{where}: other tokens were cut"
            assert furthest(theirs, ours) < tolerance, f"{where}: off by {furthest(theirs, ours):.2e}"
            assert int(out.ids[row, step]) == run.tokens[step], where
        moved.append(effect(out.logits[row, 0], tiny.plain[row].logits[0]))
    if acts:
        assert min(moved) > EFFECT, f"the method left plain decoding as it was: {moved}"
    return out


# ---------------------------------------------------------------------- AVC


def drawn(count, seed=0):
    """What the package documents: standard normal rows from a generator seeded anew for each sample."""
    return torch.randn((count, 64), generator=torch.Generator().manual_seed(seed))


AVC_OPTIONS = [
    {"beta": 0.0},
    {"beta": 0.0, "blank": "ones"},
    {"beta": 0.0, "blank": "noise"},
    {"beta": 0.0, "blank": "mask"},
    {"blank": "mask", "lam": 0.3},
    {"alpha": 1.0, "gamma": 0.0},
    {"alpha": 1.0, "gamma": 1.0, "lam": 2.0},
    {"alpha": 1.0, "lam": 1e6, "beta": 0.0},
]


@pytest.mark.parametrize("options", AVC_OPTIONS, ids=str)
def test_avc_contrasts_with_the_blind_tokens_alone(tiny, options):
    hold(tiny, [AVC(**options)], lambda *given: more.avc(*given, noise=drawn, **options))


def test_some_tokens_are_blind_and_some_are_not(tiny):
    for ids, pixels in tiny.rows:
        assert 0 < len(more.without_image_positions(tiny.reference, ids, pixels, 0.5, 1.0)) < 16


def test_avc_with_every_token_blind_is_plain_decoding(tiny):
    """λ = −100: nothing is blanked, both branches agree, and z = l whatever α."""
    hold(tiny, [AVC(lam=-100.0, beta=0.0)], methods.plain, acts=False)


@pytest.mark.parametrize("blank", ["zeros", "ones", "noise", "mask"])
def test_a_branch_without_blind_tokens_does_not_see_the_image(tiny, blank):
    """Nothing reaches it past the blanking, whatever the pixels: the embeddings are what enters the first layer."""

    def logits(pixels):
        seen = []
        note = lambda step, _: seen.append({name: value.clone() for name, value in step.branches.items()})
        inputs = {**tiny.inputs, "pixel_values": pixels}
        options = {"max_new_tokens": 1, "do_sample": False}
        engine_run(tiny.lvlm, inputs, [AVC(lam=1e6, blank=blank)], Observers(observe=note), **options)
        return seen[0]

    one, other = logits(tiny.inputs["pixel_values"]), logits(0.3 * tiny.inputs["pixel_values"])
    assert furthest(one["avc"], other["avc"]) < 1e-5
    assert furthest(one["main"], other["main"]) > EFFECT


# ---------------------------------------------------------------------- AGLA


def half_dark(inputs):
    pixels = inputs["pixel_values"].clone()
    pixels[..., :16] = 0
    return pixels


def dark(pixels):
    return half_dark({"pixel_values": pixels})


@pytest.mark.parametrize("options", [{}, {"alpha": 0.5, "beta": 0.0}, {"beta": 0.1}], ids=str)
def test_agla_adds_a_second_pass_with_a_cache_of_its_own(tiny, options):
    hold(tiny, [AGLA(view=half_dark, **options)], lambda *given: more.agla(*given, dark(given[2]), **options))


def test_official_agla_sees_the_masked_image_for_one_token(tiny):
    expected = lambda *given: more.agla(*given, dark(given[2]), official=True)
    out = hold(tiny, [AGLA.official(half_dark)], expected)
    ours = tiny.generate([AGLA(view=half_dark)])
    assert torch.equal(out.logits[:, 0], ours.logits[:, 0])
    assert not torch.equal(out.logits[:, 1], ours.logits[:, 1])


# ---------------------------------------------------------------------- RBD


RBD_OPTIONS = [
    {},
    {"beta": 0.0, "keep": 0.2},
    {"beta": 0.0, "textual": 0.0, "visual": 2.0},
    {"beta": 0.0, "visual": 0.0},
    {"noise_step": 900, "seed": 4, "keep": 0.8},
]


@pytest.mark.parametrize("options", RBD_OPTIONS, ids=str)
def test_rbd_is_three_uncached_passes(tiny, options):
    decoder = RBD(**options)
    weights = {name: getattr(decoder, name) for name in ("visual", "textual", "beta", "keep")}

    def expected(reference, ids, pixels, steps):
        return more.rbd(reference, ids, pixels, steps, diffuse(pixels, decoder.noise_step, decoder.seed), **weights)

    hold(tiny, [decoder], expected)


@pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")
def test_rbd_that_keeps_every_token_and_has_no_noise_is_plain_decoding(tiny):
    hold(tiny, [RBD(keep=1.0, textual=0.0, beta=0.0)], methods.plain, acts=False)


# ---------------------------------------------------------------------- ICD and M3ID


@pytest.mark.parametrize("options", [{}, {"alpha": 2.5, "beta": 0.0}], ids=str)
def test_icd_disturbs_the_prompt_behind_the_image(tiny, options):
    hold(tiny, [ICD(prefix_ids=PREFIX, **options)], lambda *given: more.icd(*given, PREFIX, **options))


@pytest.mark.parametrize(
    "options",
    [{}, {"lam": 0.5, "beta": 0.0}, {"lam": 0.5, "gate": 0.3, "beta": 0.0}, {"lam": 0.2, "beta": 0.3}],
    ids=str,
)
def test_m3id_amplifies_more_with_every_token(tiny, options):
    acts = "gate" not in options  # it may leave the first token
    hold(tiny, [M3ID(**options)], lambda *given: more.m3id(*given, **options), normal, acts=acts)


# ---------------------------------------------------------------------- PAI and imbalanced attention


PAI_OPTIONS = [
    {},
    {"gamma": 1.0},
    {"gamma": 1.0, "alpha": 1.5, "skip_first": 0},
    {"alpha": 0.0},
    {"alpha": 0.0, "gamma": 2.0, "beta": 0.0},
    {"alpha": 0.5, "skip_first": 5, "beta": 0.3},
]


@pytest.mark.parametrize("options", PAI_OPTIONS, ids=str)
def test_pai_boosts_scores_and_guides_logits_each_by_itself(tiny, options):
    hold(tiny, [PAI(**options)], lambda *given: more.pai(*given, **options), normal)


def test_pai_without_guidance_keeps_the_logits_of_the_model(tiny):
    """Not only the distribution: the boost alone leaves the head as it is."""
    out = tiny.generate([PAI(gamma=1.0)])
    for row, (ids, pixels) in enumerate(tiny.rows):
        gains = dict.fromkeys(more.positions(tiny.reference, ids), 0.2)
        edit = more.boosted(tiny.reference, ids, gains, 2)
        assert furthest(out.logits[row, 0], tiny.reference(ids, pixels, on_scores=edit).logits[-1]) < TOLERANCE


@pytest.fixture(scope="module")
def class_attention():
    """Attention of the vision encoder's class token, from the library's own eager attention, summed over heads."""
    tower = tiny_llava(8, 2, attention="eager").model.vision_tower

    def of(pixels):
        attentions = tower(pixels, output_attentions=True).attentions
        return [attentions[layer][0, :, 0, 1:].sum(0).tolist() for layer in (0, len(attentions) - 2)]

    return of


IMBALANCED_OPTIONS = [{}, {"gamma": 1.0, "ratio": 0.5}, {"local": 0.0, "summary": 2.0}, {"local": 2.0, "summary": 0.0}]


@pytest.mark.parametrize("options", IMBALANCED_OPTIONS, ids=str)
def test_imbalanced_boosts_the_two_token_sets(tiny, class_attention, options):
    expected = lambda *given: more.imbalanced(*given, *class_attention(given[2]), **options)
    hold(tiny, [Imbalanced(**options)], expected, normal)


def test_imbalanced_with_every_token_local_is_pai(gqa):
    """But for summary tokens, which get the same strength here."""
    one, other = gqa.generate([Imbalanced(local=0.3, summary=0.3, ratio=1.0)]), gqa.generate([PAI(alpha=0.3)])
    assert torch.equal(one.logits, other.logits)


def test_boosts_find_the_image_in_a_branch_with_a_longer_prompt(gqa, class_attention):
    """The disturbed prompt has its image further left than the main one, counted from the right edge."""
    boost = {"gamma": 1.0, "local": 1.0}

    def expected(reference, ids, pixels, steps):
        early, late = class_attention(pixels)
        behind = max(more.positions(reference, ids)) + 1
        disturbed = torch.cat([ids[:behind], torch.tensor(PREFIX), ids[behind:]])

        def logits(prompt, new):
            on_local, on_summary = more.token_sets(early, late, 0.25)
            image = more.positions(reference, prompt)
            gains = {image[p]: 1.0 for p in on_local} | {image[p]: 0.4 for p in on_summary}
            return reference(prompt, pixels, new, on_scores=more.boosted(reference, prompt, gains, 2)).logits[-1]

        return methods.greedy(steps, lambda new: 2 * logits(ids, new) - logits(disturbed, new))

    hold(gqa, [Imbalanced(**boost), ICD(prefix_ids=PREFIX, beta=0.0)], expected)


# ---------------------------------------------------------------------- DoLa and DeCo


DOLA_OPTIONS = [
    ({}, [0, 2]),
    ({"layers": "high"}, [4, 6]),
    ({"layers": (1, 3, 5, 7), "relative_top": 0.0}, [1, 3, 5, 7]),
    ({"layers": (0, 2, 4, 6), "final_norm": True, "relative_top": 0.0}, [0, 2, 4, 6]),
    ({"layers": (0, 2, 4, 6), "mode": "official", "relative_top": 0.3}, [0, 2, 4, 6]),
]


@pytest.mark.parametrize(("options", "layers"), DOLA_OPTIONS, ids=str)
def test_dola_contrasts_with_the_layer_that_is_furthest(tiny, options, layers):
    rest = {name: value for name, value in options.items() if name != "layers"}
    hold(tiny, [DoLa(**options)], lambda *given: more.dola(*given, layers, **rest))


def test_dola_chooses_anew_for_every_token_and_sample(tiny):
    chosen = []
    for ids, pixels in tiny.rows:
        more.dola(tiny.reference, ids, pixels, STEPS, range(8), final_norm=True, chosen=chosen)
    assert len(set(chosen)) > 1
    hold(tiny, [DoLa(layers=range(8), final_norm=True)], lambda *given: more.dola(*given, range(8), final_norm=True))


DECO_OPTIONS = [
    ({}, [4, 5, 6]),
    ({"alpha": 2.0, "layers": (0, 1, 2, 3), "top_p": 0.99, "top_k": 50}, [0, 1, 2, 3]),
    ({"top_p": 1.0, "top_k": 128, "layers": range(7)}, list(range(7))),
]


@pytest.mark.parametrize(("options", "blocks"), DECO_OPTIONS, ids=str)
def test_deco_adds_the_surest_preceding_layer(tiny, options, blocks):
    rest = {name: value for name, value in options.items() if name != "layers"}
    hold(tiny, [DeCo(**options)], lambda *given: more.deco(*given, blocks, **rest))


# ---------------------------------------------------------------------- HELPD


def test_helpd_is_an_uncached_pass_per_candidate(tiny):
    hold(tiny, [HELPD(candidates=3)], lambda *given: more.helpd(*given, candidates=3), steps=3)


@pytest.mark.parametrize("options", [{}, {"window": 3, "weight": 0.5}, {"vision_weight": 0.0}], ids=str)
def test_helpd_penalises_by_products_over_the_window(tiny, options):
    """At these scales products of four factors are about 1, and that of the first token is nothing."""
    options = {"candidates": 3, "first_tokens": "vep", "scale": 700.0, "vision_scale": 700.0, **options}
    out = hold(tiny, [HELPD(**options)], lambda *given: more.helpd(*given, **options), acts=False)
    faint = tiny.generate([HELPD(**{**options, "weight": 1e-9})])
    assert furthest(out.logits, faint.logits) > EFFECT


def test_helpd_changes_its_rule_after_ten_tokens(gqa):
    options = {"candidates": 2, "scale": 500.0, "window": 3}
    hold(gqa, [HELPD(**options)], lambda *given: more.helpd(*given, **options), steps=12)


def test_helpd_leaves_the_model_and_its_weights_where_they_are(gqa):
    from veridical.decoders.helpd import twin

    other = twin(gqa.lvlm)
    assert other.model is not gqa.model
    mine, theirs = dict(gqa.model.named_parameters()), dict(other.model.named_parameters())
    assert all(theirs[name] is weight for name, weight in mine.items())
    assert other.layers[0] is not gqa.lvlm.layers[0]


# ---------------------------------------------------------------------- neutral strengths, and chains
OURS = ("avc", "agla", "rbd", "icd", "m3id", "pai", "dola", "deco", "imbalanced", "helpd")


@pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")
@pytest.mark.parametrize("decoder", OURS)
def test_neutral_strength_declares_nothing_and_is_plain_decoding(gqa, decoder):
    neutral = table.neutral(decoder)
    assert list(declarations_of(neutral, gqa.lvlm, gqa.inputs)) == []
    assert torch.equal(gqa.generate([neutral]).logits, gqa.generate([]).logits)


@pytest.mark.parametrize(
    "decoder",
    [AVC(alpha=0.0, beta=0.3), RBD(visual=0.0, textual=0.0, beta=0.3), M3ID(lam=0.0, beta=0.3)],
    ids=lambda decoder: type(decoder).__name__,
)
def test_zero_strength_with_a_cut_is_the_cut_alone(gqa, decoder):
    out, plain = gqa.generate([decoder]), gqa.generate([])
    assert torch.equal(out.ids, plain.ids)
    kept = out.logits.isfinite()
    logits = plain.logits.log_softmax(-1) if isinstance(decoder, M3ID) else plain.logits  # M3ID is of those
    assert furthest(out.logits, logits) < 1e-5  # other matrix shapes
    assert (kept.sum(-1) < kept.shape[-1]).all()


def test_two_branches_of_different_prompts_fold_in_order(gqa):
    """The main rows are padded to the disturbed prompt; blanking and its own branch still find their tokens."""

    def expected(reference, ids, pixels, steps):
        behind = max(more.positions(reference, ids)) + 1
        disturbed = torch.cat([ids[:behind], torch.tensor(PREFIX), ids[behind:]])
        kept = more.without_image_positions(reference, ids, pixels, 0.5, 1.0)
        gone = [position for position in more.positions(reference, ids) if position not in kept]

        def logits_after(new):
            first = methods.contrast_and_cut(
                reference(ids, pixels, new).logits[-1], reference(disturbed, pixels, new).logits[-1], 1.0, 0.0
            )
            return 2 * first - more.blanked_logits(reference, ids, pixels, new, gone, "zeros")

        return methods.greedy(steps, logits_after)

    hold(gqa, [ICD(prefix_ids=PREFIX, beta=0.0), AVC(alpha=1.0, beta=0.0)], expected)
