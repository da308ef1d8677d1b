"""For every registered decoder: settings that change nothing, next to nothing, and something.

A new decoder adds one line to `ENTRIES`. Settings are written as on the command line, or are an instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from veridical.decoders.agla import AGLA
from veridical.decoders.code import CODE
from veridical.decoders.fitted import Fitted
from veridical.decoders.marine import MARINE
from veridical.decoders.nullu import Nullu
from veridical.decoders.vti import VTI
from veridical.pipelines.registry import DECODERS


@dataclass(frozen=True)
class LeftHalf:
    """A view for AGLA that needs no matcher: the right half of every image is blacked out."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"].clone()
        pixels[..., pixels.shape[-1] // 2 :] = 0
        return pixels


@dataclass(frozen=True)
class SomeWords:
    """A description for CODE that needs no processor: two or three words, by what the prompt's ids add up to."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        sums = (inputs["input_ids"] * inputs["attention_mask"]).sum(1)
        return [torch.tensor([20, 21 + value % 2, 22][: 2 + value % 2]) for value in sums.tolist()]


@dataclass(frozen=True)
class WordsBehind:
    """A guide for MARINE that needs no processor: one or two words behind the prompt, by what its ids add up to."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        rows = [row[mask.bool()] for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
        return [torch.cat([row, row.new_tensor([21, 22][: 1 + int(row.sum()) % 2])]) for row in rows]


@dataclass(frozen=True)
class Drawn:
    """Stands for what is fitted on a model: directions drawn for whichever there is."""

    def on(self, lvlm: Any) -> Fitted:
        draw, layers, size = torch.Generator().manual_seed(0), len(lvlm.layers), lvlm.hidden_size
        noise = lambda *shape: torch.randn(*shape, generator=draw)
        bases = {str(layer): torch.linalg.qr(noise(size, 4))[0] for layer in range(layers)}
        return Fitted({**bases, "text": noise(layers, size)})


@dataclass(frozen=True)
class Entry:
    """What the shared tests run a decoder with.

    Args:
        neutral: settings at which the method is plain decoding.
        faint: settings next to neutral ones, at which its arithmetic runs but moves logits by less than 1e-4. A method
            that returns early at its neutral strength would otherwise never be measured there.
        no_faint: why there are none.
        acting: settings that must show on the tiny models. The default ones, unless the model cannot show them.
        embedded: the same for the embedded model.
        smollm2: the same for embedded-smollm2.
        acts: False for a decoder that is plain decoding by definition.
        once: True for a decoder that changes the prompt's pass alone.
    """

    neutral: Any
    faint: Any = None
    no_faint: str = ""
    acting: Any = None
    embedded: Any = None
    smollm2: Any = None
    acts: bool = True
    once: bool = False


ENTRIES = {
    "greedy": Entry(neutral="greedy", no_faint="it declares nothing", acts=False),
    "vcd": Entry(neutral="vcd:alpha=0,beta=0", faint="vcd:alpha=1e-6,beta=0"),
    # Without a processor the disturbing prefix is given as tokens.
    "icd": Entry(
        neutral="icd:alpha=0,beta=0",
        faint="icd:alpha=1e-6,beta=0,prefix_ids=(5,6,7)",
        acting="icd:prefix_ids=(5,6,7)",
    ),
    # The embedded model is so sure of its first word that the cut leaves one token and nothing to compare.
    "m3id": Entry(neutral="m3id:lam=0,beta=0", faint="m3id:lam=1e-6,beta=0", embedded="m3id:lam=0.5,beta=0"),
    "avc": Entry(neutral="avc:alpha=0,beta=0", faint="avc:alpha=1e-6,beta=0"),
    "agla": Entry(
        neutral="agla:alpha=0,beta=0", faint=AGLA(alpha=1e-6, beta=0, view=LeftHalf()), acting=AGLA(view=LeftHalf())
    ),
    "rbd": Entry(neutral="rbd:visual=0,textual=0,beta=0", faint="rbd:visual=1e-6,textual=1e-6,beta=0"),
    # φ never exceeds √hidden: 8 on the tiny models, into which sinks are planted, and 13.9 on the embedded one, which
    # has no token far above the others. τ = 20 finds nothing on either, rightly.
    "var": Entry(
        neutral="var:move=0",
        faint="var:move=1e-6,tau=4.2,sink_dims=(5,40)",
        acting="var:tau=4.2,sink_dims=(5,40)",
        embedded="var:tau=2,min_nonsink=0,min_image=0",
        smollm2="var",  # φ of the first token is 22 there, of at most 24
    ),
    "vhr": Entry(neutral="vhr:alpha=1", faint="vhr:alpha=1.000001"),
    "vsv": Entry(neutral="vsv:strength=0", faint="vsv:strength=1e-6"),
    "sla": Entry(neutral="sla:gamma=0", faint="sla:gamma=1e-6"),
    "vista": Entry(neutral="vista:strength=0,gamma=0", faint="vista:strength=1e-6,gamma=1e-6"),
    "pai": Entry(neutral="pai:alpha=0,gamma=1", faint="pai:alpha=1e-6,gamma=1.000001,beta=0"),
    "dola": Entry(neutral="dola:layers=()", no_faint="a difference of two distributions without a strength"),
    "deco": Entry(
        neutral="deco:alpha=0",
        no_faint="only its candidates stay possible",
        smollm2="deco:alpha=6",  # its preceding layers give the first word little: 0.6 moves logits by 7e-4
    ),
    "imbalanced": Entry(
        neutral="imbalanced:local=0,summary=0,gamma=1",
        faint="imbalanced:local=1e-6,summary=1e-6,gamma=1.000001,beta=0",
    ),
    "helpd": Entry(
        neutral="helpd:weight=0",
        no_faint="only the few tokens that it tries stay possible",
        acting="helpd:candidates=3",
    ),
    "opera": Entry(
        neutral="opera:weight=0",
        no_faint="only the few tokens that it tries stay possible",
        acting="opera:candidates=3",
    ),
    "ritual": Entry(
        neutral="ritual:alpha=0,beta=0", faint="ritual:alpha=1e-6,beta=0", acting="ritual:transforms='vflip'"
    ),
    "sid": Entry(neutral="sid:alpha=0,beta=0", faint="sid:alpha=1e-6,beta=0"),
    "code": Entry(
        neutral="code:max_new_tokens=0",
        no_faint="distance and cut follow from the two branches alone",
        acting=CODE(description=SomeWords()),
    ),
    "marine": Entry(
        neutral="marine:gamma=0",
        faint=MARINE(gamma=1e-6, guide=WordsBehind()),
        acting=MARINE(guide=WordsBehind()),
    ),
    "vaf": Entry(neutral="vaf:boost=0,suppress=0", faint="vaf:boost=1e-6,suppress=1e-6"),
    "heads_guided": Entry(neutral="heads_guided:alpha=0", faint="heads_guided:alpha=1e-6"),
    "spin": Entry(neutral="spin:factor=1", faint="spin:keep=0.5,factor=1.000001", acting="spin:keep=0.5"),
    # Objects as tokens: the tiny models have no processor.
    "project_away": Entry(
        neutral="project_away:alpha=0",
        faint="project_away:alpha=1e-6,objects=((5,6),(7,))",
        acting="project_away:objects=((5,6),(7,))",
        once=True,
    ),
    "nullu": Entry(
        neutral="nullu:rank=0", no_faint="a direction is taken out or it is not", acting=Nullu(weights=Drawn())
    ),
    "adhh": Entry(
        neutral="adhh:heads=()",
        no_faint="a head is silenced or it is not",
        acting="adhh:heads=((1,0),(4,1)),threshold=0",
    ),
    "vti": Entry(
        neutral="vti:alpha=0,alpha_image=0",
        faint=VTI(alpha=1e-6, weights=Drawn()),
        acting=VTI(weights=Drawn()),
    ),
    # Open at every step. What it does at some steps and in some samples is in tests/properties/pipelines/test_gate.py.
    "gate": Entry(neutral="gate:threshold='inf'", faint="gate:threshold=1e9", acting="gate:threshold=0"),
}


def missing() -> list[str]:
    """Registered decoders of this package without a line: one test fails for them, and says what to add."""
    return [name for name in DECODERS.own if name not in ENTRIES]


def covered() -> list[str]:
    """Registered decoders of this package with a line: what the shared tests are run with."""
    return [name for name in DECODERS.own if name in ENTRIES]


def entry(name: str) -> Entry:
    """The entry of a registered decoder; a test failure that says what to add where there is none."""
    if name not in ENTRIES:
        pytest.fail(
            f'decoder "{name}" is registered but has no line in ENTRIES of tests/contract/table.py: add its neutral '
            "settings (plain decoding), faint ones beside them, acting ones if its defaults cannot show on tiny models",
            pytrace=False,
        )
    return ENTRIES[name]


def neutral(name: str) -> Any:
    return DECODERS.make(entry(name).neutral)


def acting(name: str, kind: str = "tiny") -> Any:
    """kind: "tiny", "embedded" or "smollm2"."""
    row = entry(name)
    return DECODERS.make(getattr(row, kind, None) or row.acting or name)
