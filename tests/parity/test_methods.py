"""The package's decoders against the reference: cached, batched and left-padded against one uncached row at a time.

Tolerance 1e-4 on finite logits; where logits were cut to −inf, both must have cut. The reference computes its text
model in float64, the package in float32. A float32 copy of the reference stays within 1e-5 of the float64 one for every
method here, so 1e-4 leaves the package ten times that for another order of summation. The smallest deviation that a
misread specification causes is over 1e-3 (`test_misreadings_of_the_specification_would_be_seen`), and every method is
also required to move the first step's logits by more than 1e-3 away from plain decoding: a method that never ran fails.
"""

from dataclasses import dataclass, field

import pytest
import torch

import veridical
from veridical.decoders.var import VAR
from veridical.decoders.vcd import VCD, diffuse
from veridical.decoders.vhr import VHR
from veridical.decoders.vista import SLA, VISTA, VSV

from . import reference_methods as methods
from .reference_model import Reference
from .tiny import BOS, batch, plant_sinks, prompt, tiny_llava

TOLERANCE, EFFECT, STEPS = 1e-4, 1e-3, 6
HEADS = {"mha": (8, 8), "gqa": (8, 2)}
DIMS, TAU = (5, 40), 4.2  # of 64 dimensions φ is at most 8, so the paper's τ = 20 would find nothing
LATE = [1, 4, 5, 6, 7]


@dataclass
class Setting:
    """A model, a batch of two prompts of different lengths, and each prompt alone."""

    model: object
    lvlm: object
    inputs: dict
    rows: list[tuple[torch.Tensor, torch.Tensor]]
    reference: Reference
    plain: list[methods.Run] = field(default_factory=list)


def setting(heads: int, kv_heads: int, sinks: dict | None) -> Setting:
    model = tiny_llava(heads, kv_heads)
    if sinks is not None:
        plant_sinks(model, DIMS, **sinks)
    prompts = [prompt(model, 3, [50, 60, 77, 9, 100], 1), prompt(model, 6, [5, 6, 77, 8, 9, 10, 11], 2)]
    rows = [(one["input_ids"][0], one["pixel_values"]) for one in prompts]
    case = Setting(model, veridical.LVLM(model), batch(prompts), rows, Reference(model))
    case.plain = [methods.plain(case.reference, ids, pixels, STEPS) for ids, pixels in rows]
    return case


@pytest.fixture(params=HEADS, scope="module")
def tiny(request):
    return setting(*HEADS[request.param], sinks=None)


@pytest.fixture(params=HEADS, scope="module")
def sunk(request):
    """Text sinks (the first token, a word after the image) and image sinks; they differ by layer."""
    return setting(*HEADS[request.param], {"tokens": {BOS: 40.0, 77: 10.0}, "patches": {3: 40.0, 10: 12.0}})


@pytest.fixture(params=HEADS, scope="module")
def text_sunk(request):
    """Text sinks only."""
    return setting(*HEADS[request.param], {"tokens": {BOS: 40.0}})


def generate(tiny, decoders, inputs=None):
    return veridical.generate(
        tiny.lvlm,
        tiny.inputs if inputs is None else inputs,
        decoders=decoders,
        return_logits=True,
        max_new_tokens=STEPS,
        do_sample=False,
    )


def furthest(a, b):
    finite = a.isfinite() & b.isfinite()
    return float((a.double() - b.double())[finite].abs().max())


def hold(tiny, decoders, expected, acts=True):
    """Generate with the package and compare every row with `expected(reference, ids, pixels, steps)`."""
    out = generate(tiny, decoders)
    assert out.ids.shape == (len(tiny.rows), STEPS)
    assert out.logits.shape[:2] == (len(tiny.rows), STEPS)
    for row, (ids, pixels) in enumerate(tiny.rows):
        run = expected(tiny.reference, ids, pixels, STEPS)
        for step in range(STEPS):  # step by step, so that the first wrong one is named
            ours, theirs = run.logits[step], out.logits[row, step]
            where = f"row {row}, step {step}"
            assert torch.equal(theirs.isfinite(), ours.isfinite()), f"{where}: other tokens were cut"
            assert furthest(theirs, ours) < TOLERANCE, f"{where}: off by {furthest(theirs, ours):.2e}"
            assert int(out.ids[row, step]) == run.tokens[step], where
        if acts:
            moved = furthest(out.logits[row, 0], tiny.plain[row].logits[0])
            assert moved > EFFECT, f"row {row}: the method left plain decoding as it was ({moved:.2e})"


# ---------------------------------------------------------------------- plain


def test_plain_decoding_is_the_reference(tiny):
    hold(tiny, [], methods.plain, acts=False)


def test_plain_decoding_with_planted_sinks_is_the_reference(sunk):
    hold(sunk, [], methods.plain, acts=False)


# ---------------------------------------------------------------------- VCD


@pytest.mark.parametrize(
    "options",
    [{}, {"alpha": 2.5, "beta": 0.0, "noise_step": 900, "seed": 3}, {"alpha": 1.0, "beta": 0.5}, {"noise_step": 0}],
    ids=str,
)
def test_vcd_is_two_uncached_passes_contrasted(tiny, options):
    decoder = VCD(**options)

    def expected(reference, ids, pixels, steps):
        noised = diffuse(pixels, decoder.noise_step, decoder.seed)
        return methods.vcd(reference, ids, pixels, steps, noised, decoder.alpha, decoder.beta)

    hold(tiny, [decoder], expected)


def test_vcd_cuts_some_tokens_and_keeps_some(tiny):
    finite = generate(tiny, [VCD()]).logits.isfinite().sum(-1)
    assert (finite >= 1).all()
    assert (finite < tiny.model.config.text_config.vocab_size).all()


@pytest.mark.parametrize("step", [0, 500, 700, 999])
def test_diffused_pixels_follow_the_schedule(step):
    """The noise that zero pixels reveal, put into our own formula, gives what any other pixels become."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    scale = float(methods.diffuse(zero, step, one))
    noise = diffuse(torch.zeros(1, 3, 128, 128), step, 7) / scale
    assert abs(float(noise.mean())) < 0.02  # 49,152 draws: four standard errors
    assert abs(float(noise.std()) - 1) < 0.02
    correlation = float((noise[0, 0] * noise[0, 1]).mean())
    assert abs(correlation) < 0.04, "channels are drawn apart"
    pixels = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(diffuse(pixels, step, 7), methods.diffuse(pixels, step, noise), rtol=0, atol=1e-5)


def test_noise_comes_from_its_own_seed_and_leaves_the_global_generator_alone():
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    one = diffuse(pixels, 500, 7)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    torch.manual_seed(12)
    assert torch.equal(one, diffuse(pixels, 500, 7))
    assert not torch.allclose(one, diffuse(pixels, 500, 8))


# ---------------------------------------------------------------------- VAR


def expected_var(**options):
    options = {"tau": TAU, "sink_dims": DIMS, **options}
    return lambda reference, ids, pixels, steps: methods.var(reference, ids, pixels, steps, **options)


VAR_OPTIONS = [
    {},
    {"move": 1.0},
    {"move": 0.4, "skip_last": False},
    {"min_nonsink": 0.9, "min_image": 0.5},
    {"skip_first": 4},
    {"skip_first": 0},
    {"require_visual_sink": True},
]


@pytest.mark.parametrize("options", VAR_OPTIONS, ids=str)
def test_var_redistributes_as_the_row_by_row_reference(sunk, options):
    hold(sunk, [VAR(tau=TAU, sink_dims=DIMS, **options)], expected_var(**options))


def test_var_moves_the_budget_of_text_sinks_where_no_image_token_is_one(text_sunk):
    hold(text_sunk, [VAR(tau=TAU, sink_dims=DIMS)], expected_var())


def test_var_that_requires_a_visual_sink_is_plain_where_only_text_is_one(text_sunk):
    hold(text_sunk, [VAR(tau=TAU, sink_dims=DIMS, require_visual_sink=True)], methods.plain, acts=False)


def test_var_reads_the_sink_dimensions_off_the_first_token(sunk):
    """The first token is huge in the planted dimensions alone, so reading them off gives the same sinks."""
    hold(sunk, [VAR(tau=TAU, sink_dims=None)], expected_var())


def test_var_with_an_unreachable_threshold_is_plain_decoding(sunk):
    hold(sunk, [VAR(tau=8.1, sink_dims=DIMS)], methods.plain, acts=False)


# ---------------------------------------------------------------------- VHR


VHR_OPTIONS = [
    {"layers": LATE},
    {"layers": LATE, "outlier_filter": False},
    {"layers": LATE, "alpha": 0.5},
    {"layers": list(range(8)), "alpha": 1.5},
    {"layers": [7]},
]


@pytest.mark.parametrize("options", VHR_OPTIONS, ids=str)
def test_vhr_chooses_layer_by_layer_and_reinforces_every_position(tiny, options):
    hold(tiny, [VHR(**options)], lambda *given: methods.vhr(*given, **options))


def test_vhr_with_gain_one_is_plain_decoding(tiny):
    hold(tiny, [VHR(alpha=1.0, layers=LATE)], methods.plain, acts=False)


# ---------------------------------------------------------------------- VISTA


@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize("strength", [0.05, 0.17, 1.0])
def test_vsv_steers_every_position_of_every_block(tiny, mode, strength):
    options = {"strength": strength, "mode": mode}
    hold(tiny, [VSV(**options)], lambda *given: methods.vsv(*given, **options))


SLA_OPTIONS = [
    {},
    {"gamma": 1.0, "window": 1},
    {"gamma": 0.5, "window": 7},
    {"final_norm": True},
    {"window": (3, 6)},
    {"window": (0, 2), "final_norm": True},
]


@pytest.mark.parametrize("options", SLA_OPTIONS, ids=str)
def test_sla_mixes_in_the_logits_of_late_blocks(tiny, options):
    hold(tiny, [SLA(**options)], lambda *given: methods.sla(*given, **options))


VISTA_OPTIONS = [
    {"strength": 0.17, "gamma": 0.3, "window": 5, "mode": "paper"},
    {"strength": 0.1, "gamma": 0.3, "window": (3, 6), "mode": "official"},
]


@pytest.mark.parametrize("options", VISTA_OPTIONS, ids=str)
def test_vista_reads_late_logits_from_steered_states(tiny, options):
    hold(tiny, [VISTA(**options)], lambda *given: methods.vista(*given, **options))


@pytest.mark.parametrize("options", VISTA_OPTIONS, ids=str)
def test_vista_is_steering_and_augmentation_together(tiny, options):
    parts = [
        VSV(strength=options["strength"], mode=options["mode"]),
        SLA(gamma=options["gamma"], window=options["window"]),
    ]
    hold(tiny, parts, lambda *given: methods.vista(*given, **options))


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_zero_strength_steering_is_plain_decoding(tiny, mode):
    hold(tiny, [VSV(strength=0.0, mode=mode)], methods.plain, acts=False)


# ---------------------------------------------------------------------- one by one, and leftovers


@pytest.mark.parametrize(
    "decoder", [VCD(), VHR(layers=LATE), VSV(), VSV(mode="official"), SLA(), VAR(tau=TAU, sink_dims=DIMS)], ids=repr
)
def test_a_row_alone_unpadded_is_the_row_in_the_batch(sunk, decoder):
    together = generate(sunk, [decoder])
    for row, (ids, pixels) in enumerate(sunk.rows):
        inputs = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None]), "pixel_values": pixels}
        alone = generate(sunk, [decoder], inputs)
        assert torch.equal(alone.ids[0], together.ids[row])
        assert torch.equal(alone.logits[0].isfinite(), together.logits[row].isfinite())
        assert furthest(alone.logits[0], together.logits[row]) < TOLERANCE


@pytest.mark.parametrize("order", [[0, 1, 0], [1, 0, 1]], ids=str)
def test_nothing_of_one_sample_reaches_the_next(sunk, order):
    """The released VAR keeps the first question's sinks for the whole data set."""
    decoders = [VAR(tau=TAU, sink_dims=DIMS), VSV(strength=0.1)]
    outputs = []
    for row in order:
        ids, pixels = sunk.rows[row]
        inputs = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None]), "pixel_values": pixels}
        outputs.append(generate(sunk, decoders, inputs).logits)
    assert torch.equal(outputs[0], outputs[2])


# ---------------------------------------------------------------------- readings


@pytest.fixture(scope="module")
def given_tokens():
    """Two rows of tokens to force, ordinary words."""
    return torch.tensor([[9, 33, 120, 54, 71], [8, 90, 17, 17, 40]])


@pytest.mark.parametrize("context", ["image", "prompt"])
def test_lookback_ratios_are_those_of_uncached_passes(tiny, given_tokens, context):
    """1e-5: ratios lie in 0 to 1, and both sides' attention agrees to 1e-6."""
    from veridical.detectors.lookback_lens import LookbackLens

    found = LookbackLens(context=context).features(tiny.lvlm, tiny.inputs, given_tokens)
    for row, (ids, pixels) in enumerate(tiny.rows):
        expected = methods.lookback(tiny.reference, ids, pixels, given_tokens[row].tolist(), context)
        assert float((found[row].double() - expected.flatten(1)).abs().max()) < 1e-5


def test_head_divergences_are_those_of_two_uncached_passes(tiny, given_tokens):
    """1e-4: head outputs are of size 1 and carry the rounding of the layers below."""
    from veridical.detectors.vhd import VHD

    found = VHD().features(tiny.lvlm, tiny.inputs, given_tokens)
    for row, (ids, pixels) in enumerate(tiny.rows):
        expected = methods.vhd(tiny.reference, ids, pixels, given_tokens[row].tolist())
        assert found[row].shape == expected.shape
        assert float((found[row].double() - expected).abs().max()) < TOLERANCE
