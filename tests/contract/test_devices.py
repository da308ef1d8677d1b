"""Models that are not in one place: weights on the CPU's memory or disk, brought in layer by layer, and split models.

0: the same operations in the same order; 1e-6 of the largest risk where a text is scored in one pass. The two devices
are pretended (see `devices.py`): what crosses from one to the other without being moved raises the error that torch
raises with two real ones.
"""

import accelerate
import pytest
import torch

import veridical
from veridical.decoders.var import VAR
from veridical.pipelines.engine.declarations import HeadEdit, LogitsEdit, Reading, ResidualEdit

from . import devices, table
from . import setting as settings
from .setting import READING, Declares, difference, scale

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")

OFFLOADED = ("vcd", "avc", "var", "vhr", "vista", "sla", "dola")
STEPS = {"max_new_tokens": 2}


@pytest.fixture(scope="module")
def whole():
    return settings.tiny(8, 2)


@pytest.fixture(scope="module")
def offloaded(tmp_path_factory):
    """Every other layer, the norm and the head on disk, the rest on the CPU."""
    setting = settings.tiny(8, 2)
    model, text = setting.model, "model.language_model"
    places = {"model.vision_tower": "cpu", "model.multi_modal_projector": "cpu", f"{text}.embed_tokens": "disk",
              f"{text}.rotary_emb": "cpu", f"{text}.norm": "disk", "lm_head": "disk"}  # fmt: skip
    places |= {f"{text}.layers.{n}": ("cpu", "disk")[n % 2] for n in range(len(setting.lvlm.layers))}
    accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=tmp_path_factory.mktemp("weights"))
    assert {weight.device.type for weight in model.parameters()} == {"cpu", "meta"}
    setting.lvlm = veridical.LVLM(model)
    return setting


@pytest.mark.parametrize("name", OFFLOADED)
def test_a_decoder_gives_the_same_logits_when_layers_are_on_disk(whole, offloaded, name):
    theirs, ours = (one.logits([one.acting(name)], **STEPS) for one in (whole, offloaded))
    assert difference(theirs, ours) == 0


@pytest.mark.parametrize("name", ["lookback_lens", "vhd", "entropy"])
def test_a_detector_gives_the_same_risk_when_layers_are_on_disk(whole, offloaded, name):
    theirs, ours = (one.generate([], detectors=[name], **STEPS) for one in (whole, offloaded))
    assert torch.equal(theirs.risk[name], ours.risk[name])


def test_norm_and_head_that_are_on_disk_are_brought_in_for_the_logits(whole, offloaded):
    hidden = torch.randn(3, whole.lvlm.hidden_size, generator=torch.Generator().manual_seed(0))
    assert offloaded.lvlm.decoder.norm.weight.device.type == "meta"
    assert torch.equal(offloaded.lvlm.unembed(hidden), whole.lvlm.unembed(hidden))
    assert offloaded.lvlm.device.type == "cpu"


def test_a_model_whose_weights_all_wait_in_memory_is_the_model(whole):
    setting = settings.tiny(8, 2)
    accelerate.cpu_offload(setting.model, execution_device=torch.device("cpu"))
    setting.lvlm = veridical.LVLM(setting.model)
    assert difference(setting.logits(["vista"], **STEPS), whole.logits(["vista"], **STEPS)) == 0


# ---------------------------------------------------------------------- two devices


@pytest.fixture(scope="module")
def halves():
    """The first half of the layers on one device, the rest, the norm and the head on the other."""
    setting = settings.tiny(8, 2)
    devices.split(setting.model, setting.lvlm.layers, [setting.lvlm.decoder.norm, setting.model.lm_head])
    with devices.pretended():
        setting.lvlm = veridical.LVLM(setting.model)
    return setting


@pytest.mark.parametrize("name", table.covered())
def test_a_decoder_follows_the_layers_of_a_split_model(whole, halves, name):
    theirs = whole.logits([whole.acting(name)], **STEPS)
    with devices.pretended() as moves:
        ours = halves.logits([halves.acting(name)], **STEPS)
    assert moves.crossed > 0
    assert difference(ours, theirs) == 0


@pytest.mark.parametrize("name", [name for name in READING if name not in ("dhcp", "halp")])
def test_a_detector_follows_the_layers_of_a_split_model(whole, halves, name):
    generation = whole.generate([], detectors=[name], **STEPS)
    with devices.pretended():
        ours = halves.generate([], detectors=[name], **STEPS).risk[name]
        forced = veridical.score(halves.lvlm, halves.inputs, generation.ids, [name])[name]
    assert torch.equal(ours, generation.risk[name])
    assert difference(forced, ours) <= 1e-6 * scale(ours)


def test_edits_of_layers_on_the_second_device_alone_are_counted(halves):
    """What a run remembers of who acted is beside the layers; the tokens are on the first device."""
    last = len(halves.lvlm.layers) - 1
    edits = [ResidualEdit([last], lambda hidden, call: 1.1 * hidden), HeadEdit([last], lambda heads, call: 1.1 * heads)]
    with devices.pretended():
        out = halves.generate([Declares(edits)], **STEPS)
    assert out.acted["Declares"].acted.tolist() == [2, 2, 2]


def test_a_mistake_about_devices_is_seen_here(halves):
    """Otherwise these tests would be about nothing."""
    keep = Reading("late", [len(halves.lvlm.layers) - 1], keep=lambda hidden: hidden[:, -1], of="block")
    mix = LogitsEdit(lambda logits, step: logits + halves.lvlm.head(step.latest("late")[0]))
    with devices.pretended(), pytest.raises(RuntimeError, match="two devices: cuda:0, cuda:1"):
        halves.generate([Declares([keep, mix])], **STEPS)


def test_methods_with_their_own_dimensions_follow_too(whole, halves):
    decoder = VAR(tau=4.2, sink_dims=(5, 40), skip_first=3)
    with devices.pretended():
        ours = halves.logits([decoder], **STEPS)
    assert difference(ours, whole.logits([decoder], **STEPS)) == 0
