"""The text that names an instance: parsed again it is an equal one, and what no text can name is refused."""

import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from veridical.decoders import AGLA, AVC, VCD
from veridical.decoders.gate import Gate
from veridical.detectors import Entropy
from veridical.flows.captioning.request import Captioning
from veridical.flows.evaluation.request import Evaluation
from veridical.pipelines.method import Decoder
from veridical.pipelines.method_text import text_of, texts_of
from veridical.pipelines.registry import DECODERS, DETECTORS, PROCEDURES

METHODS = [(registry, name) for registry in (DECODERS, DETECTORS, PROCEDURES) for name in registry.own]
MODULE = '''
from dataclasses import dataclass
from veridical.pipelines.method import Decoder

@dataclass(frozen=True)
class Loud(Decoder):
    """Louder."""
    volume: float = 1.0
    words: tuple = ("a", "b+c")
'''


@pytest.fixture
def loud(tmp_path, monkeypatch):
    """A decoder of another package, which registers none."""
    (tmp_path / "loud_decoder.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import loud_decoder

    yield loud_decoder.Loud
    del sys.modules["loud_decoder"]


@pytest.mark.parametrize(("registry", "name"), METHODS, ids=[name for _, name in METHODS])
def test_the_text_of_every_method_makes_an_equal_one_also_on_models_that_papers_have_values_for(registry, name):
    cls = registry.type(name)
    changes = [{}, *(getattr(cls, name, None) or {} for name in ("neutral", "faint", "released"))]
    for instance in [cls(**change) for change in changes]:
        assert registry.make(text_of(instance)) == instance
        for model in ("Salesforce/instructblip-vicuna-7b", "llava-hf/llava-1.5-7b-hf"):
            assert registry is DETECTORS or registry.make(text_of(instance), model) == instance


@pytest.mark.parametrize(
    ("instance", "text"),
    [(VCD(), "vcd"), (VCD(alpha=0.5), "vcd:alpha=0.5"), (VCD, "vcd"), (Entropy(), "entropy"),
     (VCD(alpha=np.float64(0.5)), "vcd:alpha=0.5"), (AVC(), "avc:alpha=2.5"),
     (Gate(threshold="inf"), "gate:threshold=inf"),
     (Gate(VCD(alpha=0.5)), "gate:decoder='vcd:alpha=0.5'")],
    ids=str,
)  # fmt: skip
def test_a_text_has_what_differs_from_the_defaults_and_what_papers_change(instance, text):
    assert text_of(instance) == text


def test_a_class_that_is_not_registered_is_named_by_its_module(loud):
    assert text_of(loud()) == "loud_decoder:Loud"
    text = text_of(loud(2.0, ("c,d", "e")))
    assert text == "loud_decoder:Loud(volume=2.0,words=('c,d', 'e'))"
    assert DECODERS.make(text) == loud(2.0, ("c,d", "e"))


def test_requests_keep_the_texts_of_instances(loud):
    decoders, detectors = [VCD(alpha=0.5), "greedy", loud(3.0), "vcd:alpha=0.5"], [Entropy(), "margin"]
    texts = ("vcd:alpha=0.5", "greedy", "loud_decoder:Loud(volume=3.0)")
    methods = {"decoders": decoders, "detectors": detectors}
    for request in (Evaluation(**methods), Captioning(["a"], **methods)):
        assert (request.decoders, request.detectors) == (texts, ("entropy", "margin"))
        assert type(request).from_record(request.record()) == request


@dataclass(frozen=True)
class Weighted(Decoder):
    """With a tensor."""

    weights: torch.Tensor = torch.zeros(2)


def test_what_no_text_can_name_is_refused_with_the_reason():
    @dataclass(frozen=True)
    class Local(Decoder):
        """Of a function."""

    with pytest.raises(ValueError, match=r"^AGLA: view=<function .*> cannot be written as text, and a run has to name"):
        Captioning(["a"], decoders=[AGLA(view=lambda image, question: image)])
    with pytest.raises(ValueError, match=r"^Weighted: weights=tensor\(\[1\., 1\.\]\) cannot be written as text"):
        texts_of([Weighted(torch.ones(2))])
    with pytest.raises(ValueError, match=r"Local of .* cannot be imported by another process.*top of a module"):
        Evaluation(decoders=[Local()])
    with pytest.raises(TypeError, match=r"^3 is no method: give a text, or an instance of a decoder"):
        Evaluation(decoders=[3])


def test_a_probe_in_memory_is_refused_and_its_folder_is_what_to_give():
    trained = DETECTORS.make("dhcp")
    object.__setattr__(trained, "probe", object())
    with pytest.raises(ValueError, match=r'probe in memory.*save_pretrained.* and give "dhcp:weights=FOLDER"'):
        text_of(trained)
