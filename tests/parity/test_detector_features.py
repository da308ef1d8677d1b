"""Features on test scenes against plain loops over the library's own eager attentions, tolerance 1e-5.

The captions are the model's own, of different lengths and padded on the right, read in one pass under sdpa; the
reference sees one caption at a time, without padding, and takes whole attention maps from `output_attentions`.
"""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForImageTextToText

import veridical
from veridical.datasets.captions import DETAIL_PROMPT
from veridical.datasets.world import scene
from veridical.detectors.dhcp import DHCP
from veridical.detectors.image_attention import ImageAttention
from veridical.detectors.lookback_lens import LookbackLens
from veridical.models import EMBEDDED
from veridical.pipelines import generate
from veridical.pipelines.engine import attention

from ..contract import models
from ..contract.setting import READING

TOLERANCE = 1e-5


def embedded():
    """The model, its eager copy, three scenes, captions of them, and every detector that reads."""
    lvlm = veridical.load("embedded", device="cpu", dtype="fp32")
    eager = AutoModelForImageTextToText.from_pretrained(EMBEDDED, dtype=torch.float32, attn_implementation="eager")
    images = [scene("test", index).image for index in range(3)]
    inputs = lvlm.prepare(images, [DETAIL_PROMPT] * 3)
    return lvlm, eager, images, veridical.generate(lvlm, inputs, max_new_tokens=64, do_sample=False).ids, READING


def smollm2():
    """The same of two captions of embedded-smollm2, the second one cut off; probes are drawn, for none is shipped."""
    setting = models.MAKERS[models.SECOND]()
    shared = setting.lvlm
    lvlm, eager = replace(shared, model=deepcopy(shared.model)), deepcopy(shared.model)
    lvlm.model.generation_config.eos_token_id = lvlm.processor.tokenizer.eos_token_id
    eager.set_attn_implementation("eager")
    images = [scene("test", index).image for index in range(2)]
    inputs = lvlm.prepare(images, [DETAIL_PROMPT] * 2)
    ids = veridical.generate(lvlm, inputs, max_new_tokens=12, do_sample=False).ids
    ids[1, 7:] = lvlm.end_tokens[0]
    return lvlm, eager, images, ids, [setting.detector(name) for name in READING]


@pytest.fixture(scope="module", params=[embedded, pytest.param(smollm2, marks=pytest.mark.slow)])
def given(request):
    """Test scenes with captions, and of each the attention of every layer: (layer, head, query, key)."""
    lvlm, eager, images, ids, detectors = request.param()
    inputs = lvlm.prepare(images, [DETAIL_PROMPT] * len(images))
    kept = generate.real(ids, lvlm.end_tokens)
    maps, alone = [], []
    for row, image in enumerate(images):
        prompt = lvlm.prepare([image], [DETAIL_PROMPT])
        text = ids[row : row + 1, kept[row]]
        whole = torch.cat([prompt["input_ids"], text], 1)
        with torch.no_grad():
            seen = eager.eval()(
                input_ids=whole, pixel_values=prompt["pixel_values"], attention_mask=torch.ones_like(whole),
                output_attentions=True,
            ).attentions  # fmt: skip
        maps.append(torch.stack([layer[0] for layer in seen]).double())
        alone.append(prompt["input_ids"][0])
    return SimpleNamespace(detectors=detectors, lvlm=lvlm, inputs=inputs, ids=ids, kept=kept, maps=maps, alone=alone)


def image_places(given, row):
    return (given.alone[row] == given.lvlm.model.config.image_token_id).nonzero()[:, 0].tolist()


def producing(given, row):
    """(query, token): the row of attention that produces each token."""
    start, count = len(given.alone[row]), int(given.kept[row].sum())
    return [(start + token - 1, token) for token in range(count)]


def hold(found, expected):
    assert found.shape == expected.shape
    assert float((found.double() - expected).abs().max()) <= TOLERANCE


def test_the_captions_differ_in_length_and_their_attention_in_what_it_looks_at(given):
    """Else the comparisons below would show nothing."""
    assert len(set(given.kept.sum(1).tolist())) > 1
    ratios = LookbackLens(weights=None).features(given.lvlm, given.inputs, given.ids)[given.kept]
    assert float(ratios.std(0).min()) > 10 * TOLERANCE


@pytest.mark.parametrize("context", ["image", "prompt"])
def test_lookback_ratios(given, context):
    found = LookbackLens(context=context, weights=None).features(given.lvlm, given.inputs, given.ids)
    for row, maps in enumerate(given.maps):
        start, image = len(given.alone[row]), image_places(given, row)
        for query, token in producing(given, row):
            back = image if context == "image" else list(range(start))
            new = list(range(start, query + 1))
            if not new and context == "image":
                new = list(range(image[-1] + 1, start))
            mean = maps[:, :, query, back].mean(-1)
            expected = mean / (mean + maps[:, :, query, new].mean(-1)) if new else torch.ones_like(mean)
            hold(found[row, token], expected.flatten())


def test_dhcps_columns(given):
    found = DHCP(weights=None).features(given.lvlm, given.inputs, given.ids)
    for row, maps in enumerate(given.maps):
        queries = [query for query, _ in producing(given, row)]
        hold(found[row], maps[:, :, queries][..., image_places(given, row)].mean(2))


def test_the_columns_that_a_probe_sees_of_every_token(given):
    bare = DHCP(rows="own", weights=None)
    found = bare.token_features(generate.teacher_force(given.lvlm, given.inputs, given.ids, [bare]))
    for row, maps in enumerate(given.maps):
        for query, token in producing(given, row):
            hold(found[row, token], maps[:, :, query, image_places(given, row)].flatten())


def test_image_attention(given):
    layers = [2, 5]
    found = veridical.score(given.lvlm, given.inputs, given.ids, [ImageAttention(layers=layers)])["image_attention"]
    for row, maps in enumerate(given.maps):
        for query, token in producing(given, row):
            expected = -maps[layers][:, :, query, image_places(given, row)].sum(-1).mean(-1).sum()
            hold(found[row, token], expected)


# ---------------------------------------------------------------------- one pass, and what it touches


def watch(given, monkeypatch, detectors):
    """Forward passes of the model, the layers that ran our attention, and whether attentions were asked for."""
    passes, layers, requests = [], set(), []
    model, plain = given.lvlm.model, attention._attention

    def inside(module, *args, **kwargs):
        layers.add(getattr(module, attention.CARRIES).layer)
        return plain(module, *args, **kwargs)

    def before(module, args, kwargs):
        passes.append(kwargs["input_ids"].shape)
        requests.append(bool(kwargs.get("output_attentions")) or module.config.output_attentions)

    monkeypatch.setitem(attention.ALL_ATTENTION_FUNCTIONS, attention.NAME, inside)
    hook = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        veridical.generate(given.lvlm, given.inputs, [], detectors, max_new_tokens=4, min_new_tokens=4, do_sample=False)
        generated, passes[:] = len(passes), []
        veridical.score(given.lvlm, given.inputs, given.ids, detectors)
    finally:
        hook.remove()
    return generated, len(passes), layers, any(requests)


def test_all_detectors_together_take_the_passes_of_plain_decoding_and_one_to_score(given, monkeypatch):
    generated, scored, layers, requests = watch(given, monkeypatch, given.detectors)
    assert (generated, scored, requests) == (4, 1, False)
    assert layers == set(range(len(given.lvlm.layers)))


@pytest.mark.parametrize(
    ("detector", "touched"),
    [("image_attention:layers=(2,5)", {2, 5}), ("entropy", set()), ("margin", set()), ("logit_lens", set())],
)
def test_only_layers_that_a_detector_reads_run_our_attention(given, monkeypatch, detector, touched):
    assert watch(given, monkeypatch, [detector])[2] == touched
