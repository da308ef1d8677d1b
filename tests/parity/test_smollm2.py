"""embedded-smollm2 against the reference: 30 layers, 9 query and 3 key-value heads, a vocabulary of 49,152; slow.

One setting of every method that has a reference, through the comparison that the tiny models have: cached, batched and
left-padded in float32 against one uncached row at a time in float64.
"""

import pytest
import torch

import veridical
from veridical.decoders.agla import AGLA
from veridical.decoders.avc import AVC
from veridical.decoders.code import CODE
from veridical.decoders.deco import DeCo
from veridical.decoders.dola import DoLa
from veridical.decoders.heads_guided import HeadsGuided
from veridical.decoders.helpd import HELPD
from veridical.decoders.icd import ICD
from veridical.decoders.m3id import M3ID
from veridical.decoders.marine import MARINE
from veridical.decoders.pai import PAI
from veridical.decoders.rbd import RBD
from veridical.decoders.ritual import RITUAL
from veridical.decoders.sid import SID
from veridical.decoders.spin import SPIN
from veridical.decoders.vaf import VAF
from veridical.decoders.var import VAR
from veridical.decoders.vcd import VCD, diffuse
from veridical.decoders.vhr import VHR
from veridical.decoders.vista import SLA, VISTA, VSV
from veridical.detectors.lookback_lens import LookbackLens
from veridical.detectors.vhd import VHD

from ..contract import models
from . import reference_image as image
from . import reference_methods as methods
from . import reference_more as more
from .test_more_methods import dark, half_dark, hold, normal

STEPS = 2  # the prompt's pass and one behind its cache
PREFIX = (504, 2443, 2744)  # words of the vocabulary
ROUNDED = 3e-4  # logits up to 30 through 30 layers, in float32
GIVEN = torch.tensor([[504, 2443, 2744], [827, 5288, 284]])

pytestmark = pytest.mark.slow


class Setting:
    """What `hold` needs of a model: the batch of two prompts, each prompt alone, and plain decoding by hand."""

    def __init__(self, given) -> None:
        self.lvlm, self.inputs = given.lvlm, given.inputs
        self.rows = [(one["input_ids"][0], one["pixel_values"]) for one in given.prompts]
        self.reference = more.Scored(given.model)
        self.plain = [methods.plain(self.reference, ids, pixels, STEPS) for ids, pixels in self.rows]

    def generate(self, decoders, steps=STEPS):
        return veridical.generate(
            self.lvlm, self.inputs, decoders, return_logits=True, max_new_tokens=steps, do_sample=False
        )


@pytest.fixture(scope="module")
def smollm2():
    return Setting(models.MAKERS[models.SECOND]())


def test_plain_decoding_is_the_reference(smollm2):
    hold(smollm2, [], methods.plain, steps=STEPS, acts=False, tolerance=ROUNDED)


def vcd(reference, ids, pixels, steps):
    return methods.vcd(reference, ids, pixels, steps, diffuse(pixels, 500, 0))


def noise(count, seed=0):
    """What AVC documents: standard normal rows of the hidden size, from a generator seeded anew for each sample."""
    return torch.randn((count, 576), generator=torch.Generator().manual_seed(seed))


DOLA = DoLa(layers=(0, 8, 16, 24), relative_top=0.0)
WITH = {  # decoder -> the reference with the same settings
    "vcd": (VCD(), vcd),
    "vsv": (VSV(strength=0.05), lambda *given: methods.vsv(*given, strength=0.05)),
    "sla": (SLA(), methods.sla),
    "vista": (VISTA(strength=0.05), lambda *given: methods.vista(*given, strength=0.05)),
    "vhr": (VHR(layers=[9, 29]), lambda *given: methods.vhr(*given, layers=[9, 29])),
    "icd": (ICD(prefix_ids=PREFIX, beta=0.0), lambda *given: more.icd(*given, PREFIX, beta=0.0, blanks=1)),
    "avc": (AVC(beta=0.0, blank="noise"), lambda *given: more.avc(*given, noise=noise, beta=0.0, blank="noise")),
    "agla": (AGLA(view=half_dark, beta=0.0), lambda *given: more.agla(*given, dark(given[2]), beta=0.0)),
    "rbd": (RBD(), lambda *given: more.rbd(*given, diffuse(given[2], RBD().noise_step, RBD().seed))),
    "dola": (DOLA, lambda *given: more.dola(*given, [0, 8, 16, 24], relative_top=0.0)),
    "deco": (DeCo(layers=(20, 24, 28)), lambda *given: more.deco(*given, [20, 24, 28])),
    "helpd": (HELPD(candidates=3), lambda *given: more.helpd(*given, candidates=3)),
    "ritual": (RITUAL(transforms="vflip"), lambda *given: image.ritual(*given, given[2].flip(-2))),
    "vaf": (VAF(layers=(9, 14, 29)), lambda *given: image.vaf(*given, [9, 14, 29])),
    "heads_guided": (HeadsGuided(layers=(5, 20)), lambda *given: image.heads_guided(*given, [5, 20], 0.5)),
    "spin": (SPIN(keep=0.5, factor=0.3), lambda *given: image.spin(*given, keep=0.5, factor=0.3)),
    "sid": (SID(layer=3), lambda *given: image.sid(*given, layer=3)),
}
NORMAL = {  # the paper's logits are log-probabilities
    "m3id": (M3ID(lam=0.5, beta=0.0), lambda *given: more.m3id(*given, lam=0.5, beta=0.0)),
    "pai": (PAI(), more.pai),
}


@pytest.mark.parametrize("name", WITH)
def test_a_method_is_its_reference(smollm2, name):
    decoder, expected = WITH[name]
    hold(smollm2, [decoder], expected, steps=STEPS, tolerance=ROUNDED)


@pytest.mark.parametrize("name", NORMAL)
def test_a_method_of_log_probabilities_is_its_reference(smollm2, name):
    decoder, expected = NORMAL[name]
    hold(smollm2, [decoder], expected, normal, steps=STEPS, tolerance=ROUNDED)


def test_var_acts_at_the_papers_threshold_as_the_row_by_row_reference(smollm2):
    """τ = 20 of at most √576 = 24, in the two dimensions in which the first token is largest in layer 10."""
    ids, pixels = smollm2.rows[0]
    dims = smollm2.reference(ids, pixels).inputs[10][0].abs().topk(2).indices.tolist()
    expected = lambda *given: methods.var(*given, sink_dims=dims)
    hold(smollm2, [VAR(sink_dims=dims)], expected, steps=STEPS, tolerance=ROUNDED)


def test_code_contrasts_with_the_description_in_the_images_place(smollm2):
    texts = [[504, 2443, 2744, 827], [284]]
    own = lambda ids: texts[[torch.equal(ids, row[0]) for row in smollm2.rows].index(True)]
    decoder, expected = CODE(description=lambda inputs: texts), lambda *given: image.code(*given, own(given[1]))
    hold(smollm2, [decoder], expected, steps=STEPS, tolerance=ROUNDED)


def test_marine_mixes_in_the_guided_prompts_distribution(smollm2):
    prompts = [torch.cat([ids[:-4], torch.tensor(extra), ids[-4:]])
               for (ids, _), extra in zip(smollm2.rows, ([504, 2443], [284]), strict=True)]  # fmt: skip
    own = lambda ids: prompts[[torch.equal(ids, row[0]) for row in smollm2.rows].index(True)]
    decoder, expected = MARINE(guide=lambda inputs: prompts), lambda *given: image.marine(*given, own(given[1]))
    hold(smollm2, [decoder], expected, steps=STEPS, tolerance=ROUNDED)


@pytest.mark.parametrize("context", ["image", "prompt"])
def test_lookback_ratios_are_those_of_uncached_passes(smollm2, context):
    found = LookbackLens(context=context, weights=None).features(smollm2.lvlm, smollm2.inputs, GIVEN)
    for row, (ids, pixels) in enumerate(smollm2.rows):
        expected = methods.lookback(smollm2.reference, ids, pixels, GIVEN[row].tolist(), context)
        assert float((found[row].double() - expected.flatten(1)).abs().max()) < 1e-5


def test_head_divergences_are_those_of_two_uncached_passes(smollm2):
    """In proportion to the largest: head outputs of a trained model are of any size."""
    found = VHD().features(smollm2.lvlm, smollm2.inputs, GIVEN)
    for row, (ids, pixels) in enumerate(smollm2.rows):
        expected = methods.vhd(smollm2.reference, ids, pixels, GIVEN[row].tolist())
        assert float((found[row].double() - expected).abs().max()) < 1e-5 * float(expected.max())
