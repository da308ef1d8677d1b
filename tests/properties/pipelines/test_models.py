"""A model that cannot be understood is refused when it is wrapped or loaded, with what was looked for and found."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import veridical
from veridical.pipelines.model.layout import UnsupportedModel
from veridical.pipelines.model.load import CannotLoad

from ...contract.setting import assert_unchanged, snapshot
from ...parity.tiny import prompt, tiny_llava

TEXT = LlamaConfig(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
)


def doubled(module, given, output):
    """A scale on the logits that nobody can see from outside, as some families have."""
    output.logits = output.logits * 2
    return output


@pytest.fixture
def model():
    return tiny_llava(4, 4, layers=2, hidden=32)


def test_a_text_only_model_is_refused():
    with pytest.raises(UnsupportedModel, match=r"LlamaForCausalLM \(model_type 'llama'\) has no image token: looked"):
        veridical.LVLM(LlamaForCausalLM(TEXT))


def test_a_text_only_model_is_refused_at_load_before_its_weights_are_read(tmp_path):
    TEXT.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="is a 'llama' model, which reads no images; looked for"):
        veridical.load(tmp_path)


def test_a_model_without_a_processor_is_refused_at_load_with_what_is_there(tmp_path, model):
    model.config.save_pretrained(tmp_path)
    with pytest.raises(CannotLoad, match=r"(?s)processor.*found config\.json"):
        veridical.load(tmp_path)


def test_a_model_that_does_not_exist_is_refused_at_load_with_what_was_looked_for(tmp_path):
    for name in (str(tmp_path / "nowhere"), "nobody/nothing"):
        with pytest.raises(CannotLoad, match=r"no model .*(nowhere|nobody/nothing)") as caught:
            veridical.load(name)
        assert "'embedded'" in str(caught.value)
        assert "folder" in str(caught.value)


def test_a_folder_without_a_model_is_refused_at_load_with_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(CannotLoad, match=r"notes\.txt"):
        veridical.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CannotLoad, match=r"config\.json"):
        veridical.load(tmp_path)


def test_a_model_of_a_type_that_nobody_knows_is_refused_at_load(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "perceptron"}))
    with pytest.raises(CannotLoad, match="perceptron"):
        veridical.load(tmp_path)


def test_a_decoder_without_layers_is_refused(model):
    model.get_decoder = lambda: model.model.multi_modal_projector
    with pytest.raises(UnsupportedModel, match=r"layout of Llava.* is not understood: looked for .*\.layers.*layers"):
        veridical.LVLM(model)


@pytest.mark.parametrize("part", ["self_attn", "mlp"])
def test_layers_without_attention_or_mlp_are_refused(model, part):
    delattr(model.model.language_model.layers[0], part)
    with pytest.raises(UnsupportedModel, match=f"not understood.*found .*{part}"):
        veridical.LVLM(model)


def test_a_model_whose_logits_are_not_norm_and_head_of_the_last_block_is_refused(model):
    model.register_forward_hook(doubled)
    with pytest.raises(UnsupportedModel, match=r"differ from the model's logits by .* \(allowed "):
        veridical.LVLM(model)


def test_a_model_with_numbers_that_are_none_is_refused(model):
    model.lm_head.weight[7] = torch.nan
    with pytest.raises(UnsupportedModel, match="NaN or infinite: its weights are damaged"):
        veridical.LVLM(model)


def test_a_model_that_is_refused_is_left_as_it_was(model):
    handle = model.register_forward_hook(doubled)
    with pytest.raises(UnsupportedModel):
        veridical.LVLM(model)
    handle.remove()
    lvlm = veridical.LVLM(model)
    before = snapshot(lvlm)
    veridical.LVLM(model)
    assert_unchanged(before, snapshot(lvlm))
    assert all(not layer._forward_hooks for layer in model.model.language_model.layers)


def test_a_model_in_use_is_not_checked_again_in_the_middle_of_a_run(model):
    """The check is a forward pass of its own, which would run into the other one's hooks."""
    from veridical.pipelines.engine.declarations import HeadEdit

    from ...contract.setting import Declares

    lvlm, inputs = veridical.LVLM(model), prompt(model, 2, 3)

    def wrap(heads, call):
        veridical.LVLM(model)
        return heads

    with pytest.raises(RuntimeError, match="already in a run"):
        veridical.generate(lvlm, inputs, [Declares([HeadEdit([0], wrap)])], max_new_tokens=1, do_sample=False)


def test_where_things_are(model):
    lvlm = veridical.LVLM(model)
    assert (len(lvlm.layers), lvlm.heads, lvlm.hidden_size) == (2, 4, 32)
    inputs = prompt(model, 2, 3)
    mask = lvlm.image_mask(inputs["input_ids"])
    assert mask[0].tolist() == [False] * 3 + [True] * 16 + [False] * 3
    assert lvlm.name == "LlavaForConditionalGeneration"


def test_the_head_of_the_last_block_is_the_models_logits(model):
    """1e-5: the same two operations in another place."""
    lvlm, inputs = veridical.LVLM(model), prompt(model, 2, 3)
    kept = []
    look = lambda module, given, output: kept.append(output if isinstance(output, torch.Tensor) else output[0])
    handle = lvlm.layers[-1].register_forward_hook(look)
    logits = model(**inputs).logits
    handle.remove()
    torch.testing.assert_close(lvlm.unembed(kept[0]), logits, rtol=1e-5, atol=1e-5)


def test_other_pixels_give_other_logits(model):
    """Otherwise every test with an image would be about nothing."""
    inputs = prompt(model, 2, 3)
    other = {**inputs, "pixel_values": -inputs["pixel_values"]}
    assert float((model(**inputs).logits[:, -1] - model(**other).logits[:, -1]).abs().max()) > 0.1
