"""Checks of the engine's properties: plain is plain, edits act, batches and caches change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..engine.declarations import AttentionEdit, Branch, Declaration, HeadEdit, LogitsEdit, ResidualEdit
from ..generate import generate, score
from ..inputs.rows import extended
from ..model import families
from ..registry import DECODERS
from .case import MOVED, Case, Declares, Finding, distance, forced, tolerance


def plain(case: Case) -> Finding:
    """Our engine without methods is transformers' generate."""
    error = distance(case.logits()[0], case.plain)
    return Finding("no method = transformers' generate", error, tolerance(case.lvlm.dtype, same=True))


def _same(values: Tensor, *rest: Any) -> Tensor:
    return values.clone()


def _without_image(scores: Tensor, call: Any) -> Tensor:
    return scores.masked_fill(call.image[:, None, None], torch.finfo(scores.dtype).min)


EDITS: Mapping[str, tuple[Callable[[Sequence[int], Callable], Declaration], Callable]] = {
    "scores": (lambda layers, apply: AttentionEdit(layers, apply, on="scores"), _without_image),
    "probabilities": (
        lambda layers, apply: AttentionEdit(layers, apply),
        lambda weights, call: weights * ~call.image[:, None, None],
    ),
    "heads": (HeadEdit, lambda heads, call: 0 * heads),
    "layer inputs": (
        lambda layers, apply: ResidualEdit(layers, apply, at="input"),
        lambda states, call: states.roll(1, -1),
    ),
    "MLP outputs": (lambda layers, apply: ResidualEdit(layers, apply, at="mlp"), lambda states, call: 0 * states),
    "blocks": (ResidualEdit, lambda states, call: states.roll(1, -1)),
}


def edits(case: Case) -> Iterator[Finding]:
    """An edit of each kind changes nothing where it returns its input, and changes the logits where it does not."""
    layers = range(len(case.lvlm.layers))
    for name, (make, strong) in EDITS.items():
        error = distance(case.logits([Declares([make(layers, _same)])])[0], case.plain)
        yield Finding(f"an edit of {name} that changes nothing is plain", error, tolerance(case.lvlm.dtype))
        error = distance(case.logits([Declares([make(layers, strong)])])[0, :1], case.plain[:1])
        yield Finding(f"an edit of {name} acts", error, MOVED, at_least=True)
    branch = Branch("checkup", case.inverted)
    recorded: list[Tensor] = []

    def record(logits: Tensor, step: Any) -> Tensor:
        recorded.append(step.branches["checkup"].float().cpu())
        return logits

    error = distance(case.logits([Declares([branch, LogitsEdit(record)])])[0], case.plain)
    yield Finding("a branch leaves the main rows alone", error, tolerance(case.lvlm.dtype))
    expected = case.logits(inputs=case.inverted)[0]
    error = distance(torch.cat(recorded), expected)
    yield Finding("a branch is its own prompt alone", error, tolerance(case.lvlm.dtype))


def batch(case: Case) -> Finding:
    """Two prompts of different lengths, padded on the left, are each prompt alone."""
    together = case.logits(inputs=case.inputs, tokens=case.chosen)
    alone = [case.logits(inputs=one, tokens=case.chosen[[row]])[0] for row, one in enumerate(case.alone)]
    errors = [distance(*pair) for pair in zip(together, alone, strict=True)]
    short = int((case.inputs["attention_mask"] == 0).sum())
    where = f"row {errors.index(max(errors))} of 2; {short} padded positions"
    return Finding("batch = single", max(errors), tolerance(case.lvlm.dtype), where)


def cached(case: Case, decoder: str = "vcd:beta=0") -> Finding:
    """Decoding with a cache is a pass over the whole text for every token, with a method whose branch sees it too."""
    method = DECODERS.make(decoder)
    with_cache = case.logits([method])[0]
    steps, kind = [], families.appended(case.lvlm.model, "token_type_ids")
    for count in range(with_cache.shape[0]):
        longer = extended(case.alone[0], case.chosen[:1, :count], kind)
        steps.append(case.logits([method], longer, case.chosen[:1, count : count + 1])[0, 0])
    error = distance(with_cache, torch.stack(steps))
    return Finding(f"cached = uncached ({decoder})", error, tolerance(case.lvlm.dtype), f"{len(steps)} tokens")


def neutral(case: Case, decoder: str, settings: Sequence[str]) -> Finding:
    """A decoder at settings that change nothing is plain decoding. settings: as on the command line.

    Log-probabilities are compared: some methods give these in place of logits.
    """
    plain = case.plain.log_softmax(-1)
    errors = [distance(case.logits([one])[0].log_softmax(-1), plain) for one in settings]
    worst = settings[errors.index(max(errors))]
    return Finding(f"neutral {decoder} = plain", max(errors), tolerance(case.lvlm.dtype), worst)


def runs(case: Case, name: str, decoders: Sequence[Any]) -> Finding:
    """Decoders at their own settings leave a token to choose at every step, and no logit that is no number."""
    logits = case.logits(decoders)[0]
    bad = logits.isnan().any(-1) | (logits.amax(-1) == -torch.inf) | (logits == torch.inf).any(-1)
    return Finding(f"{name} runs", float(bad.sum()), 0, f"bad steps of {len(logits)}")


def detector(case: Case, name: str) -> Finding:
    """A detector gives the same finite risk while decoding and over the finished text."""
    tokens = case.chosen[:1]
    while_decoding = generate(case.lvlm, case.alone[0], [], [name], **forced(tokens)).risk[name]
    finished = score(case.lvlm, case.alone[0], tokens, [name])[name]
    wrong = (while_decoding.double() - finished.double()).abs().cpu()
    spread = max(1.0, float(finished.abs().max()))
    error = float("inf") if not bool(wrong.isfinite().all()) else wrong.max().item() / spread
    return Finding(f"{name}: decoding = finished text", error, tolerance(case.lvlm.dtype))
