"""Which method works on which family: a table that the tests make by running every pair once.

docs/support.md is that table; `WRITE_SUPPORT=1 pytest tests/families/test_methods.py -k support` writes it anew.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import veridical
from veridical.detectors.deep_probe import Deep, folded, network
from veridical.detectors.probe import MLP
from veridical.pipelines.registry import DECODERS, DETECTORS, PROCEDURES
from veridical.pipelines.risk.asking import asks

from ..contract.setting import difference
from ..contract.table import covered, entry
from .image_files import IMAGES, QUESTIONS
from .models.tiny_families import FAMILIES
from .models.tiny_processors import processor
from .models.tiny_prompts import batch, prompt
from .setting import Setting, cast, setting

YES = "yes"
TILED = ("internvl", "smolvlm", "idefics3")  # for images of another shape than one tile
DOCUMENT = Path(__file__).parents[2] / "docs" / "support.md"

# (family, or "*" for all; method) -> why the pair makes no sense. Running it raises an error that says the same; the
# tests hold both to it.
CANNOT: dict[tuple[str, str], str] = {
    (family, "imbalanced"): "reads the class token's attention in a CLIP vision encoder, whole images"
    for family in FAMILIES
    if family != "llava"
}
CANNOT |= {
    (family, "vicrop"): "no grid of image positions" for family in ("instructblip", "llava_next", "llava_onevision")
}
CANNOT |= {
    (family, "vicrop"): "cuts where one rectangle of image positions says" for family in TILED
}


def half_dark(inputs: Mapping[str, Tensor]) -> Tensor:
    """A view for AGLA and RITUAL: every image dimmed, tiles that are padding still zero."""
    return 0.3 * inputs["pixel_values"]


# Acting settings where a decoder's own defaults cannot show on models of 64 dimensions without a processor. φ never
# exceeds √64 = 8 there, so that VAR's τ = 20 finds no sink, rightly.
ACTING: dict[str, Callable[[], Any]] = {
    "var": lambda: "var:tau=2,min_nonsink=0,min_image=0,skip_first=1",
    "icd": lambda: "icd:prefix_ids=(20,21,22,23)",
    "agla": lambda: DECODERS.type("agla")(view=half_dark),
    "code": lambda: entry("code").acting,
    "marine": lambda: entry("marine").acting,
    "ritual": lambda: DECODERS.type("ritual")(view=half_dark),
}


PROCEDURE = {  # shorter texts than the papers', a crop smaller than these images, a detector without a probe
    "mvp": "mvp:paths=2,caption_tokens=3,path_tokens=2",
    "vicrop": "vicrop:side=12",
    "guided": "guided:detector=token_probability,candidates=2,chunk=2",
    "erase": "erase:threshold=2",
    **{name: f"{name}:detector=token_probability" for name in ("flip", "drop", "reask")},
}


ASKING = {  # as few samples as show something
    "object_agreement": "object_agreement:samples=2",
    "answer_agreement": "answer_agreement:samples=3",
    "p_true": "p_true:samples=1",
}


def acting(name: str) -> Any:
    """An instance that must show on the tiny models: registered names enter by themselves."""
    return DECODERS.make(ACTING[name]() if name in ACTING else entry(name).acting or name)


def reason(family: str, method: str) -> str | None:
    """Why this pair makes no sense, or None."""
    return CANNOT.get((family, method)) or CANNOT.get(("*", method))


@cache
def outcome(family: str, method: str) -> str:
    """ "yes", or what went wrong: the pair is run once, in float64.

    A decoder must move the logits of every sample (or leave them, if that is what it is for); a detector must give
    every token a finite risk, the same in one teacher-forced pass as while generating; a procedure must give two
    images the same texts together as alone.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run(family, method)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def run(family: str, method: str) -> str:
    """The same, with its exceptions."""
    kinds = {DECODERS: _decoder, DETECTORS: _detector, PROCEDURES: _procedure}
    return next(kind(family, method) for registry, kind in kinds.items() if method in registry.names)


def _decoder(family: str, method: str) -> str:
    case = setting(family, torch.float64)
    built = case.once(method, acting(method)).logits
    moved = [difference_of_some_token(*pair) for pair in zip(built, case.plain(), strict=True)]
    if entry(method).acts:
        return YES if min(moved) > 1e-3 else f"moves logits by {min(moved):.1e} only"
    return YES if max(moved) == 0 else f"moves logits by {max(moved):.1e}, and should not"


def difference_of_some_token(a: Tensor, b: Tensor) -> float:
    """The largest difference of logits; a cut token is a difference of 1."""
    return float((a - b).nan_to_num(0.0, posinf=1.0, neginf=-1.0).abs().max())


def _detector(family: str, method: str) -> str:
    if asks(DETECTORS.type(method)):
        return _asking(family, method)
    case, built, inputs = reading(family, method)
    found = veridical.generate(case.lvlm, inputs, [], [built], max_new_tokens=3, do_sample=False)
    forced = veridical.score(case.lvlm, inputs, found.ids, [built])[method]
    if not found.risk[method].isfinite().all():
        return "a risk that is no number"
    error = difference(found.risk[method], forced)
    return YES if error <= 1e-5 else f"teacher-forced risk differs by {error:.1e}"


def _asking(family: str, method: str) -> str:
    lvlm = veridical.LVLM(setting(family, torch.float64).model, processor(family), name=family)
    options = {"detectors": [ASKING[method]], "max_new_tokens": 3}
    together = lvlm.answer(IMAGES, QUESTIONS, **options)
    alone = lvlm.answer(IMAGES, QUESTIONS, batch_size=1, **options)
    for one, other in zip(together, alone, strict=True):
        if one.details != other.details or len(one.risk[method]) != len(one.tokens):
            return "a batch is not each image alone"
        if max(abs(a - b) for a, b in zip(one.risk[method], other.risk[method], strict=True)) > 1e-5:
            return "risks in a batch are not those alone"
    return YES


def reading(family: str, method: str) -> tuple[Setting, Any, Mapping[str, Tensor]]:
    """A model, a detector that can rate it, and two prompts.

    A detector that cannot do without a probe gets a random one, and images of one shape, since a probe has a size.
    """
    case, built = setting(family, torch.float64), DETECTORS.make(method)
    if not getattr(built, "needs_probe", False):
        return case, built, case.inputs
    if method == "halp":
        size = torch.ones(case.lvlm.hidden_size)
        return case, built._with(Deep(0 * size, size, *folded(network(len(size)).eval())), {}), case.inputs
    inputs = batch(case.family, one_by_one(family))
    image = int(case.lvlm.image_mask(inputs["input_ids"])[0].sum())
    size, draw = len(case.layers) * case.lvlm.heads * image, torch.Generator().manual_seed(0)
    noise = lambda *shape: torch.randn(*shape, generator=draw)
    probe = MLP(torch.zeros(size), torch.ones(size), noise(8, size), noise(8), noise(2, 8), noise(2))
    return case, built._with(probe, {}), inputs


def one_by_one(family: str) -> list[dict[str, Tensor]]:
    """Two prompts of different length whose images have one shape."""
    return [cast(prompt(FAMILIES[family], 2, after, after), torch.float64) for after in (3, 6)]


def _procedure(family: str, method: str) -> str:
    lvlm = veridical.LVLM(setting(family, torch.float64).model, processor(family), name=family)
    requests = [PROCEDURES.make(PROCEDURE.get(method, method))]
    options = {"decoders": requests, "max_new_tokens": 3}
    together = lvlm.answer(IMAGES, QUESTIONS, **options)
    alone = lvlm.answer(IMAGES, QUESTIONS, batch_size=1, **options)
    if [answer.text for answer in together] != [answer.text for answer in alone]:
        return "a batch is not each image alone"
    return YES if all(answer.acted[method]["steps"] >= 1 for answer in together) else "no account of what it did"


def methods() -> list[str]:
    """Every decoder, procedure and detector of this package; a new decoder once the shared tests know it."""
    return [*covered(), *PROCEDURES.own, *DETECTORS.own]


def cells(families: Iterable[str] = tuple(FAMILIES)) -> dict[tuple[str, str], str]:
    """(family, method) -> "yes", or the reason why not."""
    return {
        (family, method): reason(family, method) or outcome(family, method)
        for family in families
        for method in methods()
    }


def table() -> str:
    """The support table in Markdown: a row per method, a column per family, reasons below."""
    found = {(f, m): value if value == YES else f"`{m}`: {value}" for (f, m), value in cells().items()}
    notes = list(dict.fromkeys(value for value in found.values() if value != YES))
    mark = lambda value: YES if value == YES else f"no [{notes.index(value) + 1}]"
    lines = ["| method | " + " | ".join(FAMILIES) + " |", "|---|" + "---|" * len(FAMILIES)]
    for method in methods():
        lines.append(f"| `{method}` | " + " | ".join(mark(found[family, method]) for family in FAMILIES) + " |")
    return "\n".join([*lines, *(f"\n[{number}] {note}" for number, note in enumerate(notes, 1))])


def document() -> str:
    """docs/support.md."""
    return f"{HEAD}\n\n{table()}\n"


HEAD = """# What works on which family

Made by the tests, from what they measured. To make it anew:

<!-- not run: needs a checkout -->
```bash
WRITE_SUPPORT=1 pytest tests/families/test_methods.py -k support
```

A "yes" is a run in float64 on a tiny model of the family with random weights, two left-padded prompts of different
length: a decoder moves the logits of every sample (`greedy` moves none), a detector gives every token a finite risk
that is the same while decoding as over the finished text (1e-5) or, if it asks again, in a batch as alone (samples
too), a procedure gives each image of a batch the text that it gets alone, through the family's own processor. The tests
in `tests/families` hold more of each pair: neutral strength is plain decoding (1e-6), a batch is each prompt alone
(1e-5), beams and sampling keep their tokens.

It says that a method is computed right on the family, not that it helps there. Methods that need something of yours
had a stand-in: `agla` and `ritual` a view that dims the image (`ritual`'s own transformations take whole images, not
tiles), `icd` its prefix as tokens, `code` a description of two or three tokens, `marine` a prompt that is one or two
tokens longer, `dhcp` and `halp` probes with random weights, `dhcp` images of one shape. Where a paper's values cannot
show on so small a model, others were taken (`ACTING`, `PROCEDURE` in tests/families/support.py). `veridical check
MODEL` measures on a real checkpoint what can be measured there."""
