"""What every method computes, counted: images encoded, prompt positions, rows per further token. A rise fails here.

Counted, not timed. `COSTS` has what a text about one image costs, for a prompt of any length; a method that is new adds
its line, with what its paper's algorithm needs and no more.
"""

from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch

from veridical.pipelines.engine.call import AttentionCall
from veridical.testing import batch, prompt

from .models import tiny_and_smollm2
from .setting import STEPS


class Cost(NamedTuple):
    """What a text may cost: images encoded, positions read before the first further token, rows of each later pass.

    The positions are `prompts` times those of the prompt, `texts` times those that are no image, `behind` times those
    behind the image, and `more`; one of these is the position with which the decoding loop begins behind a cache.
    """

    images: int = 1
    prompts: int = 1
    texts: int = 0
    behind: int = 0
    more: int = 0
    rows: int = 1


WITHOUT_IMAGE = Cost(texts=1, more=2, rows=2)
COSTS = {
    "greedy": Cost(),
    "vcd": Cost(images=2, prompts=2, rows=2),
    "icd": Cost(behind=1, more=6, rows=2),  # from the end of the image on, the two prompts differ
    "m3id": WITHOUT_IMAGE,
    "avc": Cost(prompts=2, more=2, rows=2),  # the main prompt is read once, for the blind tokens and for the text
    "rbd": Cost(images=2, prompts=3, more=3, rows=3),
    "var": Cost(behind=1),  # behind the image the prompt is computed again, with attention moved
    "vhr": Cost(prompts=2, more=1),  # heads are chosen layer by layer in two rows of one length; the text goes on there
    "vsv": Cost(prompts=2, texts=1),  # the vector needs the prompt as it is, and changes all of it
    "sla": Cost(),
    "vista": Cost(prompts=2, texts=1),
    "pai": WITHOUT_IMAGE,
    "dola": Cost(),
    "deco": Cost(),
    "imbalanced": WITHOUT_IMAGE._replace(images=2),  # the second encoding gives the attention inside the encoder
    "helpd": Cost(images=2, prompts=2, more=10),
    "ritual": Cost(images=2, prompts=2, rows=2),
    "sid": Cost(prompts=2, rows=2),
    "vaf": Cost(),
    "heads_guided": Cost(),
    "spin": Cost(),
    "code": Cost(texts=1, more=4, rows=2),  # the model's own description, from the table, in place of the image
    "project_away": Cost(more=6),  # the words' own states
    "opera": Cost(images=2, prompts=2, more=10),  # attention that each candidate would pay, from one pass, as in HELPD
    "marine": Cost(behind=1, more=2, rows=2),  # from the end of the image on, the guided prompt differs
    "nullu": Cost(),
    "adhh": Cost(),
    "vti": Cost(),
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


@tiny_and_smollm2
def test_a_text_costs_what_its_method_needs(setting, name):
    if name in OF_THE_METHOD:
        pytest.skip("its cost is that of what it is composed of")
    inputs = setting.prompts[0]
    image = setting.lvlm.image_mask(inputs["input_ids"])[0]
    width, last = len(image), int(image.nonzero()[-1])
    found = cost(setting, setting.acting(name), inputs)
    assert name in COSTS, f"{name!r} has no line in COSTS; it was counted as {found}, of a prompt of {width} positions"
    most = COSTS[name]
    text, behind = width - int(image.sum()), width - 1 - last
    positions = most.prompts * width + most.texts * text + most.behind * behind + most.more
    allowed = most.images, positions, most.rows
    assert all(mine <= limit for mine, limit in zip(found, allowed, strict=True)), (found, allowed)


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
