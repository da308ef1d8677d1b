"""Families beyond the table: Aya Vision, Mistral 3 and GLM-4V, as far as hand-made inputs show.

Tolerances as in test_families: 0 where the same operations run, 1e-6 and 1e-5 in float64 where sums run in another
order.
"""

import pytest
import torch
import transformers as tf

import veridical
from veridical.decoders.vcd import VCD
from veridical.pipelines.engine.declarations import Reading
from veridical.pipelines.model.layout import UnsupportedModel

from ..contract.setting import difference
from ..contract.table import neutral
from .models.tiny_more import MORE
from .models.tiny_prompts import batch, other_image, two_prompts
from .models.tiny_weights import HEADS, HIDDEN, IMAGE, LAYERS, VOCAB, vision
from .setting import (
    STEPS,
    Setting,
    all_rows,
    appended,
    cast,
    forward,
    transformers_generate,
    transformers_logits,
    watch,
)  # fmt: skip
from .support import acting

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")

DECODERS = ("vcd", "m3id", "avc", "var", "vhr", "vista", "pai", "dola")


@pytest.fixture(params=MORE, scope="module")
def case(request):
    family = MORE[request.param]
    model = family.build().to(torch.float64)
    prompts = [cast(one, torch.float64) for one in two_prompts(family)]
    return Setting(family, model, veridical.LVLM(model), prompts, batch(family, prompts))


def test_changed_pixels_change_the_logits(case):
    other = transformers_logits(case.model, other_image(case.inputs))
    assert ((case.plain() - other)[:, 0].abs().amax(-1) > 1e-3).all()


def test_no_declarations_are_plain_decoding_to_the_bit(case):
    assert torch.equal(case.logits(), case.plain())


def test_readings_are_eager_attention(case):
    eager = case.family.build(attention="eager").to(torch.float64)
    theirs = transformers_generate(eager, case.prompts[0], output_attentions=True).attentions
    ours = []
    row = Reading("rows", case.layers, keep=lambda call: call.probabilities(slice(-1, None)))
    watch(case, row, ours.append, case.prompts[0])
    errors = [difference(ours[s][n], row[:, :, -1:]) for s, layers in enumerate(theirs) for n, row in enumerate(layers)]
    assert len(errors) == STEPS * LAYERS
    assert max(errors) <= 1e-5, "eager softmaxes float64 scores in float32, layer upon layer"


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_acts_is_plain_when_neutral_and_is_itself_in_a_batch(case, name):
    assert difference(case.logits([neutral(name)]), case.plain()) <= 1e-6
    together = case.once(name, acting(name))
    assert ((together.logits - case.plain()).nan_to_num(0.0, posinf=1.0, neginf=-1.0).abs().amax((1, 2)) > 1e-3).all()
    for row, one in enumerate(case.prompts):
        alone = case.logits([acting(name)], one)
        assert difference(alone[0], together.logits[row]) <= 1e-5


def test_a_cached_run_is_uncached_passes(case):
    cached, prompt = case.logits(inputs=case.prompts[0])[0], case.prompts[0]
    tokens = transformers_generate(case.model, prompt).sequences[0, -STEPS:].tolist()
    for step in range(STEPS):
        uncached = forward(case.model, appended(case.family, prompt, tokens[:step])).logits[0, -1]
        assert difference(uncached, cached[step]) <= 1e-5


def test_branches_stay_in_step(case):
    for mode in ({"do_sample": False, "num_beams": 3}, {"do_sample": True, "top_p": 0.9, "seed": [3, 4]}):
        blocks = all_rows(case, [VCD()], **mode)
        assert blocks.shape[0] == 2
        assert torch.equal(blocks[0], blocks[1])


def test_image_free_prompts_have_no_image(case):
    free = case.lvlm.image_free(case.inputs)
    assert not case.lvlm.image_mask(free["input_ids"]).any()
    assert free["input_ids"].shape[1] < case.inputs["input_ids"].shape[1]


def test_blip_2_over_opt_is_refused_with_what_was_looked_for():
    """OPT has another layout. BLIP-2 is what InstructBLIP, which is supported, was made from."""
    config = tf.Blip2Config(
        vision_config=vision(tf.Blip2VisionConfig, 16),
        qformer_config=tf.Blip2QFormerConfig(
            vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            encoder_hidden_size=32,
        ),
        text_config=tf.OPTConfig(
            vocab_size=VOCAB, hidden_size=HIDDEN, ffn_dim=HIDDEN, num_hidden_layers=2, num_attention_heads=HEADS,
            word_embed_proj_dim=HIDDEN, max_position_embeddings=64,
        ),
        num_query_tokens=4, image_token_index=IMAGE,
    )  # fmt: skip
    with pytest.raises(UnsupportedModel, match=r"\(model_type 'blip-2'\) is not understood: looked for get_decoder"):
        veridical.LVLM(tf.Blip2ForConditionalGeneration(config))
