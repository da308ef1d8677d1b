"""What detectors hold beside plain decoding at a prompt of 2,900 tokens: no attention map of a prompt, no more of a
prompt's states than they read.

Bytes of tensors are counted, and come out the same on every machine. A model of 32 layers with 32 heads is too large
for a test. Of one with L layers, every other size divided by F = 16 (2 heads, 256 hidden, 2,000 words), let e(L) be
the most that a detector adds to plain decoding. It is a constant and so much per layer, and at most F times as large
in a model F times as wide, so that the model of 32 layers and 32 heads has at most

    16 · (e(1) + 31 · (e(2) − e(1)))

in float32, which must be within 50 MB while the prompt is read and again while tokens are chosen. Several detectors
together add no less than each of them.
"""

import weakref
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import veridical
from veridical.detectors.probe import HIDDEN, MLP
from veridical.pipelines.engine import call as calls
from veridical.pipelines.engine.declarations import Branch, Reading
from veridical.pipelines.engine.deferred_readings import STEPS
from veridical.pipelines.registry import DETECTORS

from ...contract.setting import READING, Declares

FACTOR, LAYERS = 16, 32
SIDE, TEXT = 48, 596  # 2,304 image tokens and 596 of text
BOUND = 50e6
ALONE = ["image_attention", "lookback_lens", "dhcp", "glsim", "vhd"]
LIGHT = [name for name in READING if name not in ALONE]  # so little that these fit together


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors that come into being, for as long as they live."""

    def __init__(self, lvlm):
        super().__init__()
        self.decoder, self.part, self.most = lvlm.decoder, "before", {}
        self.live, self.now = {}, 0

    def __enter__(self):
        self.hook = self.decoder.register_forward_pre_hook(self.passes, with_kwargs=True)
        return super().__enter__()

    def __exit__(self, *error):
        self.hook.remove()
        return super().__exit__(*error)

    def passes(self, module, args, kwargs):
        given = kwargs.get("inputs_embeds")
        given = kwargs["input_ids"] if given is None else given
        self.part = "steps" if given.shape[1] == 1 else "prompt"

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        known = {one.untyped_storage()._cdata for one in tensors((args, kwargs))}
        for one in tensors(out):
            storage = one.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.live and key not in known:
                self.live[key] = size
                self.now += size
                weakref.finalize(storage, self.gone, key)
        self.most[self.part] = max(self.most.get(self.part, 0), self.now)
        return out

    def gone(self, key):
        self.now -= self.live.pop(key)


def tensors(tree):
    return [one for one in tree_leaves(tree) if isinstance(one, torch.Tensor)]


class Branches:
    """A detector with another's branches and without its readings."""

    def __init__(self, other):
        self.other = other

    def readings(self, lvlm, inputs):
        return [one for one in self.other.readings(lvlm, inputs) if isinstance(one, Branch)]

    def score(self, record):
        return record.mask.float()


def model(layers):
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=4 * SIDE,
            patch_size=4,
        ),
        text_config=LlamaConfig(
            vocab_size=32000 // FACTOR, hidden_size=4096 // FACTOR, intermediate_size=64,
            num_hidden_layers=layers, num_attention_heads=32 // FACTOR, max_position_embeddings=4096, pad_token_id=0,
            bos_token_id=1, eos_token_id=None,
        ),
        image_token_index=3, image_seq_length=SIDE**2, vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    torch.manual_seed(0)
    built = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    built.generation_config.eos_token_id = None
    text = torch.randint(4, 2000, (1, TEXT - 1))
    ids = torch.cat([torch.tensor([[1]]), torch.full((1, SIDE**2), 3), text], 1)
    inputs = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(1, 3, 4 * SIDE, 4 * SIDE),
    }  # fmt: skip
    return SimpleNamespace(lvlm=veridical.LVLM(built), inputs=inputs, known={})


def detector(name, lvlm):
    """For a detector that needs a probe one with weights that were drawn, which are no reading; others as given."""
    if not isinstance(name, str):
        return name
    if name == "dhcp":
        size = len(lvlm.layers) * lvlm.heads * SIDE**2
        shapes = [(HIDDEN, size), (HIDDEN,), (2, HIDDEN), (2,)]
        probe = MLP(torch.zeros(size), torch.ones(size), *[torch.randn(shape) for shape in shapes])
        assert probe.folded
        return DETECTORS.make("dhcp:weights=None")._with(probe, {})
    if name == "image_attention":
        return f"{name}:layers={tuple(range(len(lvlm.layers)))}"
    if name == "halp":
        drawn = torch.randn(24, lvlm.hidden_size)
        return DETECTORS.make(name).fit(drawn, torch.arange(24) % 2, lvlm=lvlm, epochs=1)
    return name


def held(one, detectors, decoders=()):
    """The most that is held at any time, by part of the run."""
    key = str([detectors, decoders])
    if key not in one.known:
        detectors = [detector(name, one.lvlm) for name in detectors]
        with Held(one.lvlm) as found:
            length = {"max_new_tokens": STEPS + 1, "min_new_tokens": STEPS + 1}
            veridical.generate(one.lvlm, one.inputs, decoders, detectors, do_sample=False, **length)
        one.known[key] = found.most
    return one.known[key]


def added(one, names):
    """The same beyond plain decoding, with the detector's branch for one that has a branch."""
    beside = [Branches(DETECTORS.make("vhd"))] if "vhd" in names else []
    plain, read = held(one, beside), held(one, names)
    return {part: read[part] - plain[part] for part in ("prompt", "steps")}


@pytest.fixture(scope="module")
def models():
    return model(1), model(2)


@pytest.fixture(autouse=True)
def pieces(monkeypatch):
    """A map's largest piece shrinks with the model."""
    monkeypatch.setattr(calls, "LARGEST", tuple(size // FACTOR for size in calls.LARGEST))


@pytest.mark.parametrize("names", [LIGHT, *([name] for name in ALONE)], ids="+".join)
def test_a_detector_holds_50_mb_at_most_beside_plain_decoding_at_2900_tokens(models, names):
    assert models[0].inputs["input_ids"].shape[1] == 2900
    few, more = (added(one, names) for one in models)
    for part in ("prompt", "steps"):
        growth = max(0, more[part] - few[part])
        assert FACTOR * (few[part] + (LAYERS - 1) * growth) <= BOUND, part


@pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")
def test_a_map_of_the_whole_prompt_would_be_seen(models):
    """By a method, which no one defers: 2 heads, 2,900 queries and keys, float32."""
    whole = Declares([Reading("whole", [0], keep=lambda call: call.probabilities().mean((1, 2)))])
    found = held(models[0], [], [whole])["prompt"] - held(models[0], [])["prompt"]
    assert FACTOR * found > BOUND


def test_vhd_keeps_one_number_per_head(tiny):
    from veridical.pipelines.generate import teacher_force

    ids = torch.arange(12).view(3, 4) + 4
    record = teacher_force(tiny.lvlm, tiny.inputs, ids, [DETECTORS.make("vhd")])
    heads = len(tiny.lvlm.layers) * tiny.lvlm.heads
    assert sum(reading.numel() for reading in record.readings.values()) == ids.numel() * heads
