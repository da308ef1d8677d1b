"""The reference against transformers, the tiny models, and what a comparison with the reference would notice."""

import pytest
import torch

from . import reference_methods as methods
from .reference_model import Reference
from .tiny import BOS, batch, plant_sinks, prompt, tiny_llava

MODELS = {"mha": (8, 8), "gqa": (8, 2), "one_key_head": (4, 1)}
DIMS, TAU = (5, 40), 4.2
SINKS = {"dims": DIMS, "tokens": {BOS: 40.0, 77: 10.0}, "patches": {3: 40.0, 10: 12.0}}


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(
        torch.as_tensor(found).double(), torch.as_tensor(expected).double(), rtol=0, atol=tolerance
    )


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    heads, kv_heads = MODELS[request.param]
    return tiny_llava(heads, kv_heads, attention="eager")


@pytest.fixture(scope="module")
def sunk():
    model = tiny_llava(8, 2)
    plant_sinks(model, **SINKS)
    one = prompt(model, 3, [50, 60, 77, 9, 100], 1)
    return model, Reference(model), one["input_ids"][0], one["pixel_values"]


# ---------------------------------------------------------------------- against transformers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits_and_block_outputs_are_those_of_transformers(model, dtype):
    """1e-5: float32 rounding through eight layers, about 3e-6 measured."""
    inputs = prompt(model, 4, 6, seed=1)
    theirs = model(**inputs, output_hidden_states=True)
    ours = Reference(model, dtype)(inputs["input_ids"][0], inputs["pixel_values"])
    close(ours.logits, theirs.logits[0], 1e-5)
    for block, entering in zip(ours.blocks[:-1], theirs.hidden_states[1:-1], strict=True):
        close(block, entering[0], 1e-5)
    for entering, hidden in zip(ours.inputs, theirs.hidden_states[:-1], strict=True):
        close(entering, hidden[0], 1e-5)


def test_a_prompt_without_image_is_the_plain_text_model(model):
    ids = prompt(model, 4, 6, seed=1)["input_ids"][0]
    reference = Reference(model)
    words = methods.image_free(reference, ids)
    assert len(words) == len(ids) - 16
    assert not reference.image_mask(words).any()
    close(reference(words).logits, model(input_ids=words[None]).logits[0], 1e-5)


def test_attention_probabilities_are_the_eager_ones(model):
    inputs = prompt(model, 4, 6, seed=2)
    theirs = model(**inputs, output_attentions=True).attentions
    ours = Reference(model)(inputs["input_ids"][0], inputs["pixel_values"]).probabilities
    assert len(ours) == len(theirs) == 8
    for layer, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.shape == b.shape[1:], layer
        close(a, b[0], 1e-5)


def test_head_and_mlp_outputs_are_what_transformers_feeds_on(model):
    inputs = prompt(model, 4, 6, seed=2)
    seen, handles = {}, []
    for layer, block in enumerate(model.model.language_model.layers):
        keep = lambda _, given, layer=layer: seen.__setitem__(("heads", layer), given[0][0])
        handles.append(block.self_attn.o_proj.register_forward_pre_hook(keep))
        keep = lambda _, __, out, layer=layer: seen.__setitem__(("mlp", layer), out[0])
        handles.append(block.mlp.register_forward_hook(keep))
    model(**inputs)
    for handle in handles:
        handle.remove()
    ours = Reference(model)(inputs["input_ids"][0], inputs["pixel_values"])
    for layer in range(8):
        close(ours.heads[layer].flatten(1), seen["heads", layer], 1e-5)
        close(ours.mlps[layer], seen["mlp", layer], 1e-5)


def test_plain_decoding_is_a_left_padded_cached_generate(model):
    prompts = [prompt(model, 3, 5, seed=1), prompt(model, 6, 7, seed=2)]
    out = model.generate(
        **batch(prompts), max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    logits = torch.stack(out.logits, dim=1)
    for row, one in enumerate(prompts):
        run = methods.plain(Reference(model), one["input_ids"][0], one["pixel_values"], 6)
        assert run.tokens == out.sequences[row, -6:].tolist()
        close(run.logits, logits[row], 2e-5)


def test_every_callback_acts_and_is_recorded(model):
    inputs = prompt(model, 3, 4, seed=3)
    ids, pixels = inputs["input_ids"][0], inputs["pixel_values"]
    reference = Reference(model)
    untouched = reference(ids, pixels)
    sites = {"input": "inputs", "probabilities": "probabilities", "heads": "heads", "mlp": "mlps", "block": "blocks"}
    for site, record in sites.items():
        called = []

        def halve(layer, tensor, called=called):
            called.append(layer)
            return tensor / 2 if layer == 5 else tensor

        done = reference(ids, pixels, **{f"on_{site}": halve})
        assert called == list(range(8)), site
        assert (done.logits - untouched.logits).abs().max() > 1e-3, site
        close(getattr(done, record)[5], getattr(untouched, record)[5] / 2, 1e-12)
        close(done.blocks[4], untouched.blocks[4], 1e-12)


def test_generated_tokens_extend_the_prompt_even_if_one_is_the_placeholder(model):
    inputs = prompt(model, 3, 4, seed=3)
    ids, pixels = inputs["input_ids"][0], inputs["pixel_values"]
    reference = Reference(model)
    new = [model.config.image_token_id, 9]
    close(reference(ids, pixels, new).logits[: len(ids)], reference(ids, pixels).logits, 1e-10)
    words = methods.image_free(reference, ids)
    close(reference(words, None, [8, 9]).logits, reference(torch.cat([words, torch.tensor([8, 9])])).logits, 1e-12)


# ---------------------------------------------------------------------- the tiny models


def test_changing_pixels_changes_logits_clearly(model):
    one, other = prompt(model, 3, 5, seed=1), prompt(model, 3, 5, seed=1)
    other["pixel_values"] = prompt(model, 3, 5, seed=9)["pixel_values"]
    assert (model(**one).logits - model(**other).logits)[0, -1].abs().max() > 0.3


def test_attention_is_not_uniform(model):
    inputs = prompt(model, 3, 5, seed=1)
    for layer in model(**inputs, output_attentions=True).attentions:
        last = layer[0, :, -1]
        assert last.max(-1).values.mean() > 4 / last.shape[-1]


def test_planted_sinks_are_some_words_and_some_image_tokens_but_not_all(sunk):
    model, reference, ids, pixels = sunk
    sinks = methods.var_sinks(reference, ids, pixels, DIMS, TAU)
    image = reference.image_mask(ids)
    first = int(image.nonzero().min())
    assert not sinks[:2].any()
    for layer in range(2, 8):
        assert sinks[layer, 0], "the first token"
        assert sinks[layer, first + 3], "the planted patch"
        assert 1 <= sinks[layer][image].sum() <= 4
        assert 1 <= sinks[layer][~image].sum() <= 2
    assert sinks[2, ids.tolist().index(77)], "a word after the image"
    assert not sinks[7, ids.tolist().index(77)], "which is drowned in later layers, so sinks differ by layer"
    margin = min(abs(methods.phi(x, DIMS) - TAU) for layer in reference(ids, pixels).inputs[2:] for x in layer)
    assert margin > 1e-3, "no token so close to the line that rounding decides"
    other = prompt(model, 3, 5, seed=9)["pixel_values"]
    assert (reference(ids, pixels).logits - reference(ids, other).logits)[-1].abs().max() > 0.3


# ---------------------------------------------------------------------- neutral strengths, and power of the comparison


def test_neutral_strengths_are_plain_decoding(sunk):
    _, reference, ids, pixels = sunk
    plain = methods.plain(reference, ids, pixels, 3)
    noised = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(5))
    for run in (
        methods.vcd(reference, ids, pixels, 3, noised, alpha=0, beta=0),
        methods.vcd(reference, ids, pixels, 3, pixels, alpha=2, beta=0),
        methods.var(reference, ids, pixels, 3, DIMS, move=0, tau=TAU),
        methods.var(reference, ids, pixels, 3, DIMS, tau=65),
        methods.vhr(reference, ids, pixels, 3, [1, 5], alpha=1),
        methods.vhr(reference, ids, pixels, 3, []),
        methods.vista(reference, ids, pixels, 3, strength=0, gamma=0),
        methods.vista(reference, ids, pixels, 3, strength=0, gamma=0, mode="official", window=(3, 6)),
    ):
        assert run.tokens == plain.tokens
        close(run.logits, plain.logits, 1e-9)


def test_var_edits_prompt_rows_and_generated_rows_of_inner_layers_only(sunk):
    _, reference, ids, pixels = sunk
    rows = []
    methods.var(reference, ids, pixels, 3, DIMS, tau=TAU, edited_rows=rows)
    assert {layer for layer, _, _ in rows} == {2, 3, 4, 5, 6}
    queries = {query for _, _, query in rows}
    assert min(queries) > int(reference.image_mask(ids).nonzero().max())
    assert max(queries) == len(ids) + 1
    full = 5 * 8 * sum(5 + step for step in range(3))
    assert 0.3 * full < len(rows) < full, "some rows are left alone"


def misreadings(reference, ids, pixels):
    """What a wrong reading of the specification would give at the first step, beside the right one."""
    vectors = methods.steering_vectors(reference, ids, pixels)

    def first(**taps):
        return reference(ids, pixels, **taps).logits[-1]

    def only_last(edit):
        return lambda layer, x: torch.cat([x[:-1], edit(layer, x)[-1:]])

    official = methods.steering(reference, ids, pixels, 0.17, "official")["on_mlp"]
    no_artefact = lambda layer, x: torch.stack([methods.steer_official(row, vectors[layer], 0.17) for row in x])
    yield "artefact dropped", first(on_mlp=official), first(on_mlp=no_artefact)
    paper = methods.steering(reference, ids, pixels, 0.17, "paper")["on_block"]
    yield "prompt not steered", first(on_block=paper), first(on_block=only_last(paper))
    not_last = lambda layer, x: x if layer == 7 else paper(layer, x)
    yield "last block not steered", first(on_block=paper), first(on_block=not_last)
    right = methods.vhr_heads(reference, ids, pixels, [1, 4, 5, 6, 7])
    scale = methods.reinforce(right, 2.0)
    yield "prompt not reinforced", first(on_heads=scale), first(on_heads=only_last(scale))
    unfiltered = methods.vhr_heads(reference, ids, pixels, [1, 4, 5, 6, 7], outlier_filter=False)
    yield "filter forgotten", first(on_heads=scale), first(on_heads=methods.reinforce(unfiltered, 2.0))
    two_pass = methods.vhr_heads(reference, ids, pixels, [1, 4, 5, 6, 7], alpha=1.0)
    yield "chosen on unreinforced states", first(on_heads=scale), first(on_heads=methods.reinforce(two_pass, 2.0))
    sla = lambda **options: methods.sla(reference, ids, pixels, 1, **options).logits[0]
    yield "window one lower", sla(window=(2, 6)), sla(window=(1, 5))
    yield "states normed", sla(), sla(final_norm=True)
    var = lambda **options: methods.var(reference, ids, pixels, 1, DIMS, tau=TAU, **options).logits[0]
    yield "last layer edited", var(), var(skip_last=False)
    yield "0.4 moved", var(), var(move=0.4)
    yield "sinks from layer 0", var(), var(skip_first=0)


def test_misreadings_of_the_specification_would_be_seen():
    """Each lies at least ten tolerances (1e-3) away on the prompts and model of the parity tests."""
    model = tiny_llava(8, 8)
    plant_sinks(model, **SINKS)
    inputs = prompt(model, 6, [5, 6, 77, 8, 9, 10, 11], 2)
    for what, right, wrong in misreadings(Reference(model), inputs["input_ids"][0], inputs["pixel_values"]):
        assert (right - wrong).abs().max() > 1e-3, what


def test_lookback_of_the_first_token_stands_on_the_prompt(sunk):
    _, reference, ids, pixels = sunk
    image = methods.lookback(reference, ids, pixels, [9, 8, 7], "image")
    prompt_context = methods.lookback(reference, ids, pixels, [9, 8, 7], "prompt")
    assert image.shape == (3, 8, 8)
    assert (prompt_context[0] == 1).all()
    last = reference(ids, pixels).probabilities[6][3, -1]
    is_image = reference.image_mask(ids)
    after = torch.arange(len(ids)) > is_image.nonzero().max()
    close(image[0, 6, 3], last[is_image].mean() / (last[is_image].mean() + last[after].mean()))
    last = reference(ids, pixels, [9, 8]).probabilities[6][3, -1]
    close(prompt_context[2, 6, 3], last[:-2].mean() / (last[:-2].mean() + last[-2:].mean()))
