"""What every method computes, counted: images encoded, prompt positions, rows per further token. A rise fails here.

Counted, not timed. `COSTS` has what a text about one image costs, in images and in prompts; a method that is new adds
its line, with what its paper's algorithm needs and no more.
"""

import math
from contextlib import contextmanager

import pytest
import torch

from veridical.pipelines.engine.call import AttentionCall
from veridical.testing import batch, prompt

from .setting import STEPS

# decoder -> images encoded, prompt positions as a multiple of the prompt's, rows in each pass for a further token. The
# prompt here has 25 positions, 16 of them the image, so that a prompt without its image is 0.36 of it and the position
# with which the decoding loop begins behind a cache 0.04.
COSTS = {
    "greedy": (1, 1.0, 1),
    "vcd": (2, 2.0, 2),
    "icd": (1, 1.44, 2),  # from the end of the image on, the two prompts differ
    "m3id": (1, 1.44, 2),
    "avc": (1, 2.08, 2),  # the main prompt is read once, for the blind tokens and for the text
    "rbd": (2, 3.12, 3),
    "var": (1, 1.2, 1),  # behind the image the prompt is computed again, with attention moved
    "vhr": (1, 2.04, 1),  # heads are chosen layer by layer in two rows of one length; the text goes on from there
    "vsv": (1, 2.36, 1),  # the vector needs the prompt as it is, and changes all of it
    "sla": (1, 1.0, 1),
    "vista": (1, 2.36, 1),
    "pai": (1, 1.44, 2),
    "dola": (1, 1.0, 1),
    "deco": (1, 1.0, 1),
    "imbalanced": (2, 1.44, 2),  # the second encoding gives the attention inside the encoder
    "helpd": (2, 2.4, 1),
    "ritual": (2, 2.0, 2),
    "sid": (1, 2.0, 2),
    "vaf": (1, 1.0, 1),
    "heads_guided": (1, 1.0, 1),
    "spin": (1, 1.0, 1),
    "code": (1, 1.52, 2),  # the model's own description, which the contract's settings give it, in place of the image
    "project_away": (1, 1.24, 1),  # the words' own states
    "opera": (2, 2.4, 1),  # the attention that each candidate would pay, from one pass of all of them, as in HELPD
    "marine": (1, 1.28, 2),  # from the end of the image on, the guided prompt differs
    "nullu": (1, 1.0, 1),
    "adhh": (1, 1.0, 1),
    "vti": (1, 1.0, 1),
}
OF_THE_METHOD = ("agla", "gate")  # a matcher, or another decoder and a detector, which have costs of their own


@contextmanager
def counted(lvlm):
    """Images that the encoder gets, and rows × positions of every pass of the decoder."""
    images, passes = [], []

    def encodes(module, args, kwargs):
        images.append(len(args[0] if args else kwargs["pixel_values"]))

    def passes_on(module, args, kwargs):
        given = (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args)
        passes.append(tuple(next(value for value in given if value is not None).shape[:2]))

    hooks = [
        module.register_forward_pre_hook(hook, with_kwargs=True)
        for module, hook in ((lvlm.model.model.vision_tower, encodes), (lvlm.decoder, passes_on))
    ]
    try:
        yield images, passes
    finally:
        for hook in hooks:
            hook.remove()


def cost(setting, decoder, inputs):
    with counted(setting.lvlm) as (images, passes):
        setting.generate([decoder], inputs)
    prompt = sum(rows * width for rows, width in passes[: len(passes) - (STEPS - 1)])
    return sum(images), prompt, max(rows for rows, _ in passes[-(STEPS - 1) :])


def test_a_text_costs_what_its_method_needs(tiny, name):
    if name in OF_THE_METHOD:
        pytest.skip("its cost is that of what it is composed of")
    inputs = tiny.prompts[0]
    width = inputs["input_ids"].shape[1]
    images, prompt, rows = cost(tiny, tiny.acting(name), inputs)
    assert name in COSTS, f"{name!r} has no line in COSTS; it was counted as ({images}, {prompt / width:.2f}, {rows})"
    most = COSTS[name]
    found = images, math.ceil(100 * prompt / width) / 100, rows
    assert all(mine <= allowed for mine, allowed in zip(found, most, strict=True)), (found, most)


@pytest.mark.parametrize("name", ["pai", "imbalanced"])
def test_edits_of_producing_rows_cost_no_attention_map_of_the_prompt(tiny, name, monkeypatch):
    """Beside a branch the main prompt is read as it is; the boost waits for the one position that produces a token."""
    queries, make = [], AttentionCall.scores

    def counts(call, of):
        queries.append(call.query.shape[2])
        return make(call, of)

    monkeypatch.setattr(AttentionCall, "scores", counts)
    acted = tiny.generate([tiny.acting(name)], tiny.prompts[0]).acted[name]
    assert set(queries) == {1}
    assert acted.acted.tolist() == [STEPS]


SHARING = {"greedy": 1, "vcd": 2, "m3id": 1, "avc": 1, "vista": 1, "vhr": 1, "sid": 1}  # images encoded for six rows


@pytest.mark.parametrize("decoder", SHARING)
def test_six_questions_about_one_image_encode_it_once_and_share_the_prompts_beginning(tiny, decoder):
    one = prompt(tiny.model, 3, [50, 60, 77], 1)
    rows = [{**prompt(tiny.model, 3, [50, 60, 77, *more], 1), "pixel_values": one["pixel_values"]} for more in MORE]
    inputs = batch(rows)
    images, positions, _ = cost(tiny, decoder, inputs)
    assert images == SHARING[decoder]
    if decoder in ("greedy", "vcd", "m3id"):  # no edit changes the image's positions
        # 156 positions in all; one beginning of 20, six ends of up to 5 and a last one; without the image 10 each
        assert positions <= {"greedy": 56, "vcd": 112, "m3id": 122}[decoder]
    together = tiny.logits([decoder], inputs)
    for k, row in enumerate(rows):
        torch.testing.assert_close(together[k], tiny.logits([decoder], row)[0], rtol=0, atol=2e-5)  # float32, 8 layers


MORE = ([9], [10, 11], [9, 12, 13], [14], [10, 15], [9])
