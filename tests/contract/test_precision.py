"""bfloat16 models stay bfloat16, and what is chosen from stays finite."""

import pytest
import torch

from . import setting as settings
from .setting import MODES, SEEDS, STEPS, seeded

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")
HALVES = {"bf16": torch.bfloat16}


@pytest.fixture(params=HALVES, scope="module")
def half(request):
    built = settings.tiny(8, 2)
    built.model.to(HALVES[request.param])
    return built, HALVES[request.param]


def test_a_half_precision_model_gives_numbers_and_keeps_its_type(half, name):
    setting, dtype = half
    types, handles = {}, []
    for index, layer in enumerate(setting.lvlm.layers):
        for part in (layer, layer.self_attn.o_proj, layer.mlp):

            def look(module, given, output, at=index):
                types.setdefault(at, set()).add((output if isinstance(output, torch.Tensor) else output[0]).dtype)

            handles.append(part.register_forward_hook(look))
    try:
        logits = setting.logits([setting.acting(name)])
    finally:
        for handle in handles:
            handle.remove()
    assert types == {index: {dtype} for index in range(len(setting.lvlm.layers))}
    assert not logits.isnan().any()
    assert not torch.isposinf(logits).any()
    assert logits.isfinite().any(-1).all()
    assert {weight.dtype for weight in setting.model.parameters()} == {dtype}


@pytest.mark.parametrize("mode", ["beams", "sampling"])
def test_a_half_precision_model_decodes_in_other_modes(half, name, mode):
    setting, _ = half
    ids = setting.generate([setting.acting(name)], **MODES[mode], **seeded(mode, SEEDS)).ids
    assert ids.shape == (3, STEPS)


def test_a_half_precision_method_is_near_the_float32_one(tiny, half, name):
    """0.7 of logits up to 8: two to three digits through eight layers. Plain decoding alone is off by up to 0.15."""
    setting, _ = half
    half_, full = (result.logits([result.acting(name)], max_new_tokens=1)[:, 0] for result in (setting, tiny))
    both = half_.isfinite() & full.isfinite()
    assert both.any()
    assert float((half_ - full)[both].abs().max()) < 0.7


def test_risks_of_a_half_precision_model_are_numbers(half, detector):
    setting, _ = half
    (risk,) = setting.generate([], detectors=[setting.detector(detector)]).risk.values()
    assert risk.isfinite().all()
