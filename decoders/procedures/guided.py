"""Guided decoding: of several sampled chunks keep the one that a detector trusts most.

Chuang et al., "Lookback Lens: Detecting and Mitigating Contextual Hallucinations in Large Language Models Using Only
Attention Maps", EMNLP 2024, arXiv 2407.07071, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...pipelines.engine.logits import Forced
from ...pipelines.inputs.rows import repeated
from ...pipelines.method import count, method, number, share
from ...pipelines.procedures import Procedure
from ...pipelines.registry import DETECTORS
from ...pipelines.risk.asking import refuse_asking

if TYPE_CHECKING:
    from ...pipelines.procedures import Call
    from ...pipelines.results import Answer, Generation

STREAM = 1_000_003  # candidate j of a sample with seed s draws with s + j·STREAM


def chunk_risk(
    risk: Float[Tensor, "candidate sample token"], real: Bool[Tensor, "candidate sample token"]
) -> Float[Tensor, "candidate sample"]:
    """Mean risk of the chunk's real tokens; infinite for a chunk without one."""
    count = real.sum(-1)
    mean = torch.where(real, risk, 0.0).sum(-1) / count.clamp(min=1)
    return torch.where(count > 0, mean, torch.inf)


def choose(risk: Float[Tensor, "candidate sample"]) -> Int[Tensor, " sample"]:
    """The candidate with the lowest risk, the first of equals.

    >>> choose(torch.tensor([[0.331812], [0.5], [0.310026]])).tolist()
    [2]
    """
    return risk.argmin(0)


@dataclass(frozen=True)
class Guided(Procedure):
    r"""Sample k continuations of c tokens, keep the one with the lowest mean risk, go on from it, to the end.

    k: `candidates`; c: `chunk`; the risk: of `detector`; sampling is by `temperature` and `top_p`, without top-k.

    Raises:
        UnknownName, ValueError: no such detector, or a value outside its range; when answering starts, beams,
            settings of sampling beside these, or the same detector with other settings to read along.

    A text ends at its end token or at the most new tokens, which the released code overruns. The paper averages the
    features of a chunk and rates the mean; here any detector's risks are averaged, token by token. Candidate j of image
    i draws from a stream of its own (seed and j), so that a text depends on its image and seed alone, and with k = 1 it
    is the one that plain sampling draws. Decoders behind it are in place in every candidate.
    Cost: all candidates of a round are one batch. There is no cache between rounds: each decodes the text so far again,
    with its tokens forced, so that every decoder and detector reads one text from its prompt on. T tokens are about
    k·T/2·(T/c + 1) token passes, k·T of which a cache kept between rounds would leave.
    """

    detector: Any = method("lookback_lens", DETECTORS, "whose risk guides")
    candidates: int = count(8, "continuations sampled per round", "1 is plain sampling. Paper: 8.", low=1)
    chunk: int = count(8, "tokens of a continuation", "Paper: 8; its code's default: 5.", low=1)
    temperature: float = number(0.9, "of the sampling", "Code: 0.9.", low=0.01)
    top_p: float = share(0.95, "of the sampling", "Code: 0.95.")

    released = {"chunk": 5}

    def check(self, questions: Sequence[str], detectors: Sequence[Any], generation: Mapping[str, Any]) -> None:
        """Raise ValueError for beams, settings of sampling, and a detector of the same name with other settings."""
        if (generation.get("num_beams") or 1) > 1:
            raise ValueError("guided decoding samples its candidates: use num_beams=1")
        named = [name for name in ("temperature", "top_p", "top_k") if generation.get(name) is not None]
        wanted = {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        if other := [name for name in named if generation[name] != wanted[name]]:
            raise ValueError(
                f"{other[0]}={generation[other[0]]} is a setting of sampling, and guided decoding has its own: give "
                f'"guided:temperature={self.temperature:g},top_p={self.top_p:g}" the values'
            )
        guide = DETECTORS.make(self.detector)
        refuse_asking([guide], "guided decoding, which goes on from parts of it,")
        if any(type(one) is type(guide) and one != guide for one in detectors):
            raise ValueError(f"{guide!r} guides: let the same detector read along with the same settings")

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        from ...pipelines.results import answers_of

        kept, rounds, taken = self.generate(call, call.inputs(images, questions), seeds)
        requested = {DETECTORS.name_of(one) for one in DETECTORS.make_all(call.detectors)}
        kept.risk = {name: risk for name, risk in kept.risk.items() if name in requested}
        answers = answers_of(call.lvlm, kept)
        for answer, steps, other in zip(answers, rounds, taken, strict=True):
            acted = {"steps": float(steps), "acted": float(other), "flipped": float(other), "kl": 0.0}
            answer.acted = {"guided": acted, **answer.acted}
        return answers

    def generate(
        self, call: Call, inputs: Mapping[str, Tensor], seeds: Sequence[int]
    ) -> tuple[Generation, list[int], list[int]]:
        """The kept texts, and per sample the number of rounds and of those that did not keep the first candidate.

        inputs: rows as `LVLM.prepare` makes them. seeds: one per row. Risks are those of the detector and of the
        call's own.
        """
        guide, size = DETECTORS.make(self.detector), len(seeds)
        name = DETECTORS.name_of(guide)
        reading = [*(one for one in DETECTORS.make_all(call.detectors) if one != guide), guide]
        call = replace(call, detectors=reading)
        rows = repeated(inputs, self.candidates, call.lvlm.pad_token)
        drawn = [seed + number * STREAM for number in range(self.candidates) for seed in seeds]
        texts: list[list[int]] = [[] for _ in seeds]
        rounds, taken, open_ = [0] * size, [0] * size, set(range(size))
        most = call.generation["max_new_tokens"]
        for start in range(0, most, self.chunk):
            generation = call.generate(
                rows, drawn, do_sample=True, temperature=self.temperature, top_p=self.top_p, top_k=0,
                max_new_tokens=min(start + self.chunk, most),
                logits_processor=[*call.generation.get("logits_processor", ()), Forced(texts * self.candidates)],
            )  # fmt: skip
            chunk = generation.risk[name][:, start:].unflatten(0, (self.candidates, size))
            best = choose(chunk_risk(chunk, ~chunk.isnan())).tolist()
            best = [number if row in open_ else 0 for row, number in enumerate(best)]
            kept = [number * size + row for row, number in enumerate(best)]
            for row in sorted(open_):
                rounds[row], taken[row] = rounds[row] + 1, taken[row] + (best[row] != 0)
                ids = generation.ids[kept[row]].tolist()
                real = int((~generation.risk[name][kept[row]].isnan()).sum())
                texts[row] = ids[:real]
                if real < min(start + self.chunk, most) or ids[real - 1] in call.lvlm.end_tokens:
                    open_.discard(row)
            if not open_:
                break
        return _rows(generation, kept), rounds, taken


def _rows(generation: Generation, rows: Sequence[int]) -> Generation:
    """Some rows of a generation."""
    index = torch.tensor(rows)
    some: Callable[[Any], Any] = lambda value: None if value is None else value[index.to(value.device)]
    return replace(
        generation, ids=some(generation.ids), text=[generation.text[row] for row in rows],
        broken=some(generation.broken),
        acted={
            name: type(one)(**{k: some(v) for k, v in vars(one).items()}) for name, one in generation.acted.items()
        },
        risk={name: some(risk) for name, risk in generation.risk.items()},
    )  # fmt: skip
