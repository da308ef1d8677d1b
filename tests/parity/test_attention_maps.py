"""Attention maps are transformers' own eager attentions, at the position before each token; grids as the family has."""

import pytest
import torch

import veridical
from veridical.datasets.world import scene
from veridical.pipelines.attention_maps import attention_maps, image_columns, maps_of, maps_of_texts
from veridical.pipelines.inputs.prompts import DETAIL, caption_prompt
from veridical.pipelines.inputs.text_alignment import answer_tokens

TEXTS = ["A dog stands on the grass.", "A cup."]
CLOSE = {"atol": 2e-6, "rtol": 0}  # sdpa against eager softmax in float32


@pytest.fixture(scope="module")
def embedded():
    return veridical.load("embedded")


@pytest.fixture(scope="module")
def found(embedded):
    return maps_of_texts(embedded, [scene("test", 0).image, scene("test", 1).image], [DETAIL] * 2, TEXTS)


def eager(lvlm, image, text):
    """(token, layer, head, image) and the probability of each token, from a pass of the whole row alone."""
    plain = veridical.load("embedded", attention="eager")
    inputs = lvlm.prepare([image], [DETAIL])
    ids = answer_tokens(lvlm, DETAIL, text)
    whole = torch.cat([inputs["input_ids"], ids], 1)
    with torch.no_grad():
        out = plain.model(
            input_ids=whole, pixel_values=inputs["pixel_values"], attention_mask=torch.ones_like(whole),
            output_attentions=True,
        )  # fmt: skip
    first = inputs["input_ids"].shape[1] - 1
    rows = torch.stack(out.attentions)[:, 0, :, first : first + ids.shape[1] - 1]
    chances = out.logits[0, first : first + ids.shape[1] - 1].softmax(-1).gather(1, ids[0, :-1, None])[:, 0]
    return rows[..., lvlm.image_mask(whole)[0]].permute(2, 0, 1, 3), chances


@pytest.mark.parametrize("row", [0, 1])
def test_maps_of_a_batch_are_the_eager_attentions_of_each_row_alone(embedded, found, row):
    values, chances = eager(embedded, scene("test", row).image, TEXTS[row])
    assert found[row].values.shape == values.shape
    torch.testing.assert_close(found[row].values, values, **CLOSE)
    torch.testing.assert_close(found[row].probability, chances, atol=1e-5, rtol=1e-4)
    assert found[row].values.sum(-1).max() > 0.1, "an image that nobody looks at would show nothing"


def test_other_images_give_other_maps(embedded, found):
    other = attention_maps(embedded, scene("test", 5).image, TEXTS[0])
    assert not torch.allclose(other.values, found[0].values, **CLOSE)


def test_the_mean_over_heads_can_be_read_alone(embedded, found):
    one = attention_maps(embedded, scene("test", 0).image, TEXTS[0], layers=[1, 2], heads="mean")
    torch.testing.assert_close(one.values[:, :, 0], found[0].values[:, 1:3].mean(2), **CLOSE)
    assert one.layers == (1, 2)


def test_an_overlay_has_the_grid_of_the_embedded_model(found):
    rows, columns = found[0].grids[0]
    assert found[0].overlay("dog").shape == (rows, columns)
    torch.testing.assert_close(found[0].overlay("dog", 0, 0).flatten(), found[0].values[found[0].token("dog"), 0, 0])


def test_what_is_no_choice_is_refused(embedded):
    image = scene("test", 0).image
    with pytest.raises(ValueError, match="the text to rate is empty"):
        attention_maps(embedded, image, " ")
    with pytest.raises(ValueError, match="layers"):
        attention_maps(embedded, image, "A dog.", layers=[99])
    with pytest.raises(ValueError, match="neither 'all' nor 'mean'"):
        attention_maps(embedded, image, "A dog.", heads="some")
    assert caption_prompt(DETAIL) == DETAIL


def test_padding_in_a_row_with_fewer_image_positions_is_zero():
    """Image positions come first, in their order, and a shorter row is filled up with 0."""
    from types import SimpleNamespace

    attention = torch.arange(8, dtype=torch.float32).view(2, 1, 1, 4)
    image = torch.tensor([[False, True, False, True], [False, False, True, False]])
    call = SimpleNamespace(image=image, producing=slice(None), probabilities=lambda queries: attention)
    assert image_columns(call).flatten(1).tolist() == [[1.0, 3.0], [6.0, 0.0]]


def test_rows_of_prepared_inputs_have_maps_too(embedded, found):
    inputs = embedded.prepare([scene("test", 0).image], [DETAIL])
    (one,) = maps_of(embedded, inputs, answer_tokens(embedded, DETAIL, TEXTS[0]))
    torch.testing.assert_close(one.values, found[0].values, **CLOSE)
