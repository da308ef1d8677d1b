"""What the engine promises, on a tiny model of every family.

Tolerances: logits here have a deviation of about 1, so that float32 leaves 1e-7 for one operation. 0 where the very
same operations run; 1e-6 where a layer's attention is computed once more; 1e-5 where the batch, the cache or the
padding differ, and sums run in another order.
"""

import pytest
import torch
import transformers as tf

import veridical
from veridical.decoders.vcd import VCD
from veridical.pipelines.engine.declarations import AttentionEdit, Branch, HeadEdit, LogitsEdit, Reading, ResidualEdit
from veridical.pipelines.engine.run import Observers, prefill, run
from veridical.pipelines.inputs.rows import repeated
from veridical.pipelines.model.layout import UnsupportedModel
from veridical.pipelines.prefill.last_position import LastPosition
from veridical.pipelines.prefill.start import apart

from ..contract.setting import Declares, difference
from .models.tiny_prompts import batch, other_image, text_only
from .models.tiny_weights import IMAGE, KV_HEADS, LAYERS, SIDE, text
from .setting import (
    STEPS,
    all_rows,
    appended,
    forward,
    hidden,
    identity,
    steered,
    transformers_generate,
    transformers_logits,
    watch,
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


# ---------------------------------------------------------------------- the tiny models themselves


def test_changed_pixels_change_the_logits_of_every_row(case):
    other = transformers_logits(case.model, other_image(case.inputs))
    assert ((case.plain() - other)[:, 0].abs().amax(-1) > 1e-3).all()


def test_tiny_models_group_keys_where_their_family_does(case):
    heads, attention = case.lvlm.heads, case.lvlm.layers[0].self_attn
    expected = {"llava": heads, "instructblip": heads, "paligemma": 1}.get(case.family.name, KV_HEADS)
    assert attention.k_proj.weight.shape[0] // attention.head_dim == expected
    assert len(case.lvlm.layers) == LAYERS


# ---------------------------------------------------------------------- where things are


def test_lvlm_accepts_the_model(case):
    assert veridical.LVLM(case.model).image_token == IMAGE


def test_a_model_that_feeds_the_image_through_cross_attention_is_refused():
    config = tf.MllamaConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1,
            "attention_heads": 2, "image_size": SIDE, "patch_size": 16, "vision_output_dim": 64, "max_num_tiles": 2,
            "intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1], [1, 2]],
        },
        text_config=text(dict, num_hidden_layers=4, cross_attention_layers=[1]),
        image_token_index=IMAGE,
    )  # fmt: skip
    with pytest.raises(UnsupportedModel, match="cross-attention in layers 1"):
        veridical.LVLM(tf.MllamaForConditionalGeneration(config))


def test_image_mask_has_the_placeholders_and_nothing_else(case):
    found = case.lvlm.image_mask(case.inputs["input_ids"]).sum(1).tolist()
    assert found == [case.family.image(1, True).placeholders, case.family.image(2, False).placeholders]


def test_norm_and_head_of_the_last_block_are_the_logits(case):
    seen = []
    hook = case.lvlm.layers[-1].register_forward_hook(lambda module, args, output: seen.append(hidden(output)))
    try:
        logits = forward(case.model, case.inputs).logits
    finally:
        hook.remove()
    assert torch.equal(case.lvlm.unembed(seen[0]), logits)


# ---------------------------------------------------------------------- looking changes nothing


def test_no_declarations_are_plain_decoding_to_the_bit(case):
    out = case.generate(return_logits=True)
    theirs = transformers_generate(case.model, case.inputs)
    assert torch.equal(out.logits, case.plain())
    assert torch.equal(out.ids, theirs.sequences[:, -STEPS:])


KEEP = {
    "attention": lambda call: call.probabilities(slice(-1, None)),
    "heads": lambda heads: heads,
    "input": lambda states: states,
    "block": lambda states: states,
}


def test_readings_in_every_layer_leave_the_logits_to_the_bit(case):
    """All four kinds in all layers at once: under sdpa a read layer's output comes from the same function."""
    readings = [Reading(f"probe/{of}", case.layers, keep=keep, of=of) for of, keep in KEEP.items()]
    fold = run(case.lvlm, case.inputs, [], Observers(readings), True, max_new_tokens=STEPS, do_sample=False)[1]
    assert set(fold.step.readings) == {reading.name for reading in readings}
    assert all(set(layers) == set(case.layers) for layers in fold.step.readings.values())
    assert torch.equal(torch.stack(fold.logits, 1), case.plain())


@pytest.mark.parametrize(
    "edit",
    [
        lambda layers: AttentionEdit(layers, identity, on="scores"),
        lambda layers: AttentionEdit(layers, identity, on="probabilities"),
        lambda layers: AttentionEdit(layers, identity, queries="last"),
        lambda layers: HeadEdit(layers, identity),
        lambda layers: ResidualEdit(layers, identity, at="input"),
        lambda layers: ResidualEdit(layers, identity, at="mlp"),
        lambda layers: ResidualEdit(layers, identity, at="block"),
    ],
    ids=["scores", "probabilities", "last_row", "heads", "input", "mlp", "block"],
)
def test_identity_edits_in_every_layer_leave_the_logits(exact, edit):
    declared = edit(exact.layers)
    error = difference(exact.logits([Declares([declared])]), exact.plain())
    assert error <= (1e-6 if isinstance(declared, AttentionEdit) else 0.0)


def rows_beside_eager(case, inputs):
    """The largest difference of the last attention row, over steps and layers, from transformers' eager attention."""
    eager = case.family.build(attention="eager").to(case.lvlm.dtype)
    theirs = transformers_generate(eager, inputs, output_attentions=True).attentions
    ours = []
    last_row = Reading("rows", case.layers, keep=lambda call: call.probabilities(slice(-1, None)))
    watch(case, last_row, ours.append, inputs)
    assert len(ours) == len(theirs) == STEPS
    return max(
        difference(ours[step][layer], attention[:, :, -1:])
        for step, layers in enumerate(theirs)
        for layer, attention in enumerate(layers)
    )


def test_last_attention_row_is_that_of_eager_attention(exact):
    """At the prompt and at every step after it, in every layer. Eager softmaxes float64 scores in float32."""
    assert max(rows_beside_eager(exact, one) for one in exact.prompts) <= 1e-6


def test_last_attention_row_of_a_padded_batch_is_that_of_eager_attention(case):
    """In float32, for eager attention knows no float64 where a row is padded; scores up to 10 round to 1e-6."""
    assert rows_beside_eager(case, case.inputs) <= 1e-5


# ---------------------------------------------------------------------- cached = uncached, batch = single


def test_a_cached_branched_run_is_independent_uncached_passes(exact):
    """Steering on all rows, a branch with other pixels, a contrast; against passes over one row at a time, no cache."""
    vectors = 0.2 * torch.randn(len(exact.layers), exact.lvlm.hidden_size, generator=torch.Generator().manual_seed(5))
    others = [other_image(one, 70 + number) for number, one in enumerate(exact.prompts)]
    contrast = lambda main, other: 2 * main - other
    ours = exact.generate(
        [
            Declares(
                [
                    ResidualEdit(exact.layers, lambda states, call: states + vectors[call.layer]),
                    Branch("other", batch(exact.family, others)),
                    LogitsEdit(lambda logits, step: contrast(logits, step.branches["other"])),
                ]
            )
        ],
        return_logits=True,
    )
    with steered(exact.lvlm.layers, vectors):
        for row, (main, other) in enumerate(zip(exact.prompts, others, strict=True)):
            tokens = []
            for step in range(STEPS):
                with_image, without_image = (
                    forward(exact.model, appended(exact.family, one, tokens)).logits[0, -1] for one in (main, other)
                )
                assert difference(with_image, without_image) > 1e-3, "the branch saw the same image"
                expected = contrast(with_image, without_image)
                assert difference(ours.logits[row, step], expected) <= 1e-5, f"row {row}, step {step}"
                tokens.append(int(expected.argmax()))
            assert ours.ids[row].tolist() == tokens


def test_a_pass_outside_generate_sees_what_generate_sees(exact):
    """Methods decide on a prefill; it must be the pass that decoding starts with, positions of padded rows included."""
    step = prefill(exact.lvlm, exact.inputs, [])
    assert difference(step.branches["main"], exact.plain()[:, 0]) <= 1e-5


def test_a_last_position_behind_its_prompt_is_that_of_a_whole_pass(exact):
    """Another head silent in each row, and the image unseen by a layer, in the last position alone."""
    rows, last, fed = 3, len(exact.lvlm.layers) - 1, set()

    def mute(states, call):
        states = states.clone()
        for row in range(rows):
            states[row, -1, row % states.shape[2]] = 0
        return states

    def without_image(probabilities, call):
        fed.add(call.sequences.seen)
        probabilities = probabilities.clone()
        probabilities[:, :, -1] *= ~call.columns(call.sequences.image)[:, None]
        return probabilities

    edit = [HeadEdit([0, last], mute), AttentionEdit([1], without_image)]
    for prompt in exact.prompts:
        whole = prefill(exact.lvlm, repeated(prompt, rows, exact.lvlm.pad_token), edit).branches["main"]
        behind, known = LastPosition(exact.lvlm, prompt), set(fed)
        assert difference(behind.logits(rows, edit), whole) <= 1e-6
        assert fed == known, "edits see as many positions as in a whole pass"
        assert difference(behind.logits(1, []), prefill(exact.lvlm, prompt, []).branches["main"]) <= 1e-6
        assert difference(whole[:1], behind.logits(1, [])) > 1e-6, "nothing was silent"
        assert (behind.before is not None) == apart(exact.lvlm, prompt)


def test_image_free_rows_beside_image_rows_are_those_run_alone(exact):
    free = exact.lvlm.image_free(exact.inputs)
    assert not exact.lvlm.image_mask(free["input_ids"]).any()
    reading = lambda branch: Reading("states", exact.layers, keep=lambda h: h[:, -1], of="block", branch=branch)
    beside = prefill(exact.lvlm, exact.inputs, [Branch("free", free), reading("free")])
    alone = prefill(exact.lvlm, free, [reading(None)])
    assert difference(beside.branches["free"], alone.branches["main"]) <= 1e-6
    assert difference(beside.latest("states"), alone.latest("states")) <= 1e-6


def test_a_row_in_a_padded_batch_is_the_row_alone(exact):
    for row, one in enumerate(exact.prompts):
        assert difference(exact.logits(inputs=one)[0], exact.plain()[row]) <= 1e-5


def test_text_without_an_image_passes_through(exact):
    """InstructBLIP's own generate wants pixels; a blank image that stands nowhere lets text through."""
    texts = batch(exact.family, [text_only(exact.family, 5, 1), text_only(exact.family, 8, 2)])
    ours = exact.generate(inputs=texts, return_logits=True)
    for row, one in enumerate([text_only(exact.family, 5, 1), text_only(exact.family, 8, 2)]):
        ids = one["input_ids"]
        layers_see = forward_text(exact, one)
        assert difference(ours.logits[row, 0], layers_see) <= 1e-5, ids


def forward_text(case, one):
    if case.family.name != "instructblip":
        return forward(case.model, one).logits[0, -1]
    with torch.no_grad():
        return case.model.language_model(input_ids=one["input_ids"]).logits[0, -1]


# ---------------------------------------------------------------------- row blocks stay together


@pytest.mark.parametrize(
    "mode",
    [
        {"do_sample": False},
        {"do_sample": False, "num_beams": 3},
        {"do_sample": True, "temperature": 0.9, "top_p": 0.9, "seed": [3, 4]},
    ],
    ids=["greedy", "beams", "sampling"],
)
def test_every_row_block_chooses_the_same_tokens(case, mode):
    """Two branches, one with noise and one image-free, whose own logits are far from the main ones."""
    free = Branch("free", case.lvlm.image_free(case.inputs))
    blocks = all_rows(case, [VCD(), Declares([free])], **mode)
    assert blocks.shape[0] == 3
    assert (blocks == blocks[0]).all()


def test_the_same_seed_draws_the_same_tokens_alone(case):
    options = {"do_sample": True, "temperature": 0.9, "top_p": 0.9}
    together = case.generate([VCD()], seed=[3, 4], **options).ids
    for row, one in enumerate(case.prompts):
        assert torch.equal(case.generate([VCD()], one, seed=[3 + row], **options).ids[0], together[row])
