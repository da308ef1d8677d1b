"""GLSim and HALP against plain loops over the library's own hidden states, token by token and without a cache."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

import veridical
from veridical.detectors.glsim import GLSim, log_normalisers
from veridical.detectors.halp import HALP
from veridical.detectors.hidden_states import gathered
from veridical.testing import batch, prompt, tiny_llava

TOLERANCE = 2e-5
LAYERS = {"outer": {}, "inner": {"layer": 3, "object_layer": -4}, "one": {"layer": 2, "object_layer": 2}}


@pytest.fixture(scope="module", params=[8, 2], ids=["mha", "gqa"])
def given(request):
    """Three prompts of different length, a text for each, and the states of every prefix: one pass per token."""
    model = tiny_llava(8, request.param)
    ends = [(3, [50, 60, 77, 9]), (6, [5, 6, 77, 8, 9]), (1, [7, 12])]
    prompts = [prompt(model, before, after, seed) for seed, (before, after) in enumerate(ends, start=1)]
    ids = torch.tensor([[9, 33, 12, 60, 21], [70, 8, 8, 9, 41], [11, 52, 90, 7, 64]])
    states = []
    for one, text in zip(prompts, ids, strict=True):
        rows = []
        for count in range(ids.shape[1]):
            whole = torch.cat([one["input_ids"], text[None, :count]], 1)
            with torch.no_grad():
                rows.append(model(
                    input_ids=whole, pixel_values=one["pixel_values"], attention_mask=torch.ones_like(whole),
                    output_hidden_states=True, use_cache=False,
                ).hidden_states)  # fmt: skip
        states.append(rows)
    return veridical.LVLM(model), prompts, batch(prompts), ids, states


def expected_terms(lvlm, image, states, token, layer, object_layer, order, k):
    """g and loc of one token. states: of every prefix; image: where the image tokens are."""
    first, now = states[0], states[token[0]]
    patches = first[layer][0, image]
    lens = lvlm.model.get_output_embeddings()(patches).softmax(-1)[:, token[1]]
    best = lens.topk(min(k, len(lens))).indices
    own = now[object_layer][0, -1]
    loc = cosine_similarity(own[None], patches[best], dim=-1).mean()
    a, b = (layer, object_layer) if order == "paper" else (object_layer, layer)
    return cosine_similarity(first[a][0, -1], now[b][0, -1], dim=0), loc


@pytest.mark.parametrize("order", ["paper", "code"])
@pytest.mark.parametrize("layers", LAYERS)
def test_glsims_terms(given, layers, order):
    lvlm, prompts, inputs, ids, states = given
    built = GLSim(**LAYERS[layers], patches=4, order=order)
    found = built.features(lvlm, inputs, ids)
    assert found.std() > 1e-3
    for row, one in enumerate(prompts):
        image = lvlm.image_mask(one["input_ids"])[0]
        for place, token in enumerate(ids[row].tolist()):
            terms = expected_terms(lvlm, image, states[row], (place, token), built.layer, built.object_layer, order, 4)
            assert (found[row, place] - torch.stack(terms)).abs().max() <= TOLERANCE


def test_the_two_orders_differ_in_the_global_term_alone_and_not_with_one_layer(given):
    lvlm, _, inputs, ids, _ = given
    terms = lambda **fields: GLSim(patches=4, **fields).features(lvlm, inputs, ids)
    paper, code = terms(), terms(order="code")
    assert torch.equal(paper[..., 1], code[..., 1])
    assert float((paper[..., 0] - code[..., 0]).abs().max()) > 1e-3
    torch.testing.assert_close(terms(**LAYERS["one"]), terms(**LAYERS["one"], order="code"))


def test_glsims_first_tokens_do_not_change_with_what_follows(given):
    lvlm, _, inputs, ids, _ = given
    whole, part = (GLSim().features(lvlm, inputs, ids[:, :count]) for count in (5, 2))
    torch.testing.assert_close(whole[:, :2], part, rtol=0, atol=1e-5)


def test_images_of_different_size_take_each_their_own_patches(given):
    """A row with fewer image tokens has no normaliser behind its last, and so no probability there."""
    lvlm, _, inputs, _, _ = given
    image = lvlm.image_mask(inputs["input_ids"]).clone()
    count = int(image[1].sum())
    image[1] &= image[1].cumsum(0) <= 5
    states = torch.randn(3, image.shape[1], lvlm.hidden_size)
    found = log_normalisers(gathered(states, image), lvlm.model.get_output_embeddings(), image)
    assert found.isinf().sum(-1).tolist() == [0, count - 5, 0]
    alone = lvlm.model.get_output_embeddings()(states[1, image[1]]).logsumexp(-1)
    torch.testing.assert_close(found[1, :5], alone)


@pytest.mark.parametrize("position", ["query", "image"])
@pytest.mark.parametrize("layer", [0, 1, 3, -2, -1, None])
def test_halps_state(given, layer, position):
    lvlm, prompts, inputs, _, states = given
    found = HALP(layer=layer, position=position, weights=None).features(lvlm, inputs)
    entry = 3 * len(lvlm.layers) // 4 if layer is None else layer
    for row, one in enumerate(prompts):
        place = -1 if position == "query" else int(lvlm.image_mask(one["input_ids"])[0].nonzero()[-1])
        assert float((found[row] - states[row][0][entry][0, place]).abs().max()) <= TOLERANCE


def test_the_embedding_of_the_last_position_knows_nothing(given):
    """Prompts that end alike have it in common, whatever their images and questions are."""
    lvlm = given[0]
    model = lvlm.model
    two = batch([prompt(model, 3, [50, 60, 12], 1), prompt(model, 5, [5, 12], 2)])
    first, later = (HALP(layer=layer, weights=None).features(lvlm, two) for layer in (0, 1))
    assert torch.equal(first[0], first[1])
    assert float((later[0] - later[1]).abs().max()) > 1e-3


def fitted(lvlm, inputs):
    bare = HALP(weights=None)
    draw = torch.Generator().manual_seed(0)
    items = bare.features(lvlm, inputs).repeat(8, 1) * torch.rand(24, lvlm.hidden_size, generator=draw) * 2
    return bare.fit(items, torch.arange(24) % 2, lvlm=lvlm, epochs=2)


def test_the_risk_before_the_first_token_is_that_of_every_token_of_any_text(given):
    lvlm, prompts, inputs, ids, _ = given
    built = fitted(lvlm, inputs)
    before = built.before(lvlm, inputs)
    assert float(before.std()) > 1e-4
    for text in (ids, ids[:, :1], ids.flip(1)):
        scored = veridical.score(lvlm, inputs, text, [built])["halp"]
        torch.testing.assert_close(scored, before[:, None].expand(text.shape), rtol=0, atol=1e-6)
    for options in ({"max_new_tokens": 2}, {"max_new_tokens": 5, "do_sample": True, "seed": 3}):
        out = veridical.generate(lvlm, inputs, [], [built], **options)
        torch.testing.assert_close(out.risk["halp"][:, 0], before, rtol=0, atol=1e-6)
        torch.testing.assert_close(out.risk_before["halp"], before, rtol=0, atol=1e-6)
    for row, one in enumerate(prompts):
        torch.testing.assert_close(built.before(lvlm, one)[0], before[row], rtol=0, atol=1e-6)
