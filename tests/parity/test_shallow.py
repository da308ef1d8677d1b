"""Models of one to three layers: what each method's default layers are there, and that none is plain in silence.

1e-4 as in `test_methods`.
"""

import pytest
import torch

import veridical
from veridical.decoders.deco import DeCo
from veridical.decoders.dola import DoLa
from veridical.decoders.imbalanced import Imbalanced
from veridical.decoders.pai import PAI
from veridical.decoders.var import VAR
from veridical.pipelines.generate import NeverActed

from . import reference_more as more
from .reference_model import Reference
from .test_methods import TOLERANCE, furthest
from .tiny import batch, prompt, tiny_llava

STEPS = 2


@pytest.fixture(params=[1, 2, 3], scope="module")
def shallow(request):
    model = tiny_llava(8, 2, layers=request.param)
    return request.param, model, [prompt(model, 3, 5, 1), prompt(model, 1, 7, 2)]


def logits(model, prompts, decoders):
    return veridical.generate(
        veridical.LVLM(model), batch(prompts), decoders, return_logits=True, max_new_tokens=STEPS, do_sample=False
    ).logits


@pytest.mark.parametrize(
    ("decoder", "expected"),
    [
        (DoLa(), lambda count: (more.dola, [0])),
        (DoLa(layers="high"), lambda count: (more.dola, [count // 2])),
        (DeCo(), lambda count: (more.deco, [max(0, count - 2)])),
    ],
    ids=["dola_low", "dola_high", "deco"],
)
def test_layers_of_the_defaults(shallow, decoder, expected):
    count, model, prompts = shallow
    found = logits(model, prompts, [decoder])
    method, layers = expected(count)
    for row, one in enumerate(prompts):
        run = method(Reference(model), one["input_ids"][0], one["pixel_values"], STEPS, layers)
        assert torch.equal(found[row].isfinite(), run.logits.isfinite())
        assert furthest(found[row], run.logits) < TOLERANCE


@pytest.mark.parametrize("decoder", [VAR(), PAI(gamma=1.0), Imbalanced(gamma=1.0)], ids=lambda one: type(one).__name__)
def test_a_method_that_leaves_out_every_layer_there_is_says_that_it_changed_nothing(shallow, decoder):
    """VAR leaves out the first two and the last, the others the first two."""
    count, model, prompts = shallow
    if count == 3 and not isinstance(decoder, VAR):
        assert furthest(logits(model, prompts, [decoder]), logits(model, prompts, [])) > 1e-3
        return
    with pytest.warns(NeverActed, match="changed nothing at any step"):
        found = logits(model, prompts, [decoder])
    assert torch.equal(found, logits(model, prompts, []))
