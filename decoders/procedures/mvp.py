"""Multi-View Multi-Path reasoning (MVP, "Look, Compare, Decide").

Qu et al., "Look, Compare, Decide: Alleviating Hallucination in Large Vision-Language Models via Multi-View Multi-Path
Reasoning", COLING 2025, arXiv 2408.17150.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from ...pipelines.checks import check_at_least
from ...pipelines.engine.logits import Forced
from ...pipelines.engine.record import confidence
from ...pipelines.inputs.prompts import DETAIL
from ...pipelines.method import count, number, one_of, ruled, share
from ...pipelines.procedures import Procedure
from ...pipelines.results import Answer

if TYPE_CHECKING:
    from ...pipelines.procedures import Call

BOTTOM_UP = (
    "Look closely at the pixels of this image: shapes, colours and textures. Detect the objects in it, then describe "
    "the image in detail."
)
TOP_DOWN = (
    "Look at this image as a whole first: the scene, its surroundings and context. Then describe the image in detail."
)
VIEWS = (BOTTOM_UP, TOP_DOWN, DETAIL)
PROMPT = "This is a description of the image: {caption}\nQuestion: {question}"


@dataclass(frozen=True)
class Path:
    """One continuation: probability of its first token, the answer that it reaches (None: none), and its certainty.

    certainty: largest minus second-largest probability where the answer is chosen. direct: its first token is the
    answer.
    """

    probability: float
    answer: str | None
    certainty: float = 0.0
    direct: bool = False


def path_scores(
    paths: Sequence[Path], answers: Sequence[str], threshold: float = 0.001, mode: str = "paper"
) -> dict[str, float]:
    """S[a] = Σ p·d over the paths that answer a and have p ≥ threshold.

    mode "official": a direct answer counts p whatever p is, and a path without an answer counts p for the first answer.
    """
    scores = dict.fromkeys(answers, 0.0)
    for path in paths:
        if mode == "official" and path.direct and path.answer is not None:
            scores[path.answer] += path.probability
        elif path.probability < threshold:
            continue
        elif path.answer is not None:
            scores[path.answer] += path.probability * path.certainty
        elif mode == "official":
            scores[answers[0]] += path.probability
    return scores


def decide(
    views: Sequence[Mapping[str, float]], weights: Sequence[float], answers: Sequence[str]
) -> tuple[str | None, dict[str, float]]:
    """The answer with the largest S[a] = Σ_v w_v·S_v[a], and S; of equals the last, None if every S is 0."""
    total = {a: sum(w * view[a] for w, view in zip(weights, views, strict=True)) for a in answers}
    best = max(reversed(list(answers)), key=lambda a: total[a])
    return (best if total[best] > 0 else None), total


def find_answer(pieces: Sequence[str], answers: Sequence[str]) -> tuple[str | None, int]:
    """The first of the answers that stands alone as a word of the text so far, and the token in which it begins.

    pieces: the text after each token. (None, 0) without one.
    """
    words = "|".join(re.escape(answer) for answer in answers)
    match = re.search(rf"(?<!\w)(?:{words})(?!\w)", pieces[-1] if pieces else "", re.IGNORECASE)
    if match is None:
        return None, 0
    place = next(at for at, text in enumerate(pieces) if len(text) > match.start())
    return next(answer for answer in answers if answer.lower() == match.group().lower()), place


def _weights(name: str, value: Any) -> tuple[float, ...]:
    found = tuple(check_at_least(name, weight, 0, "weight of a caption") for weight in value)
    if len(found) != len(VIEWS):
        raise ValueError(f"{name}={found} are {len(found)}; there are {len(VIEWS)} captions.")
    if not any(found):
        raise ValueError(f"{name}={found} are all 0, so that nothing would count; give one above 0.")
    return found


def _choices(name: str, value: Any) -> tuple[str, ...]:
    found = tuple(value)
    if len({str(choice).lower() for choice in found}) < 2:
        raise ValueError(f"{name}={found} are not two different answers to choose from.")
    return found


@dataclass(frozen=True)
class MVP(Procedure):
    r"""Ask a question beside three captions, follow several first tokens each, and add up their answers' certainty.

    S_v[a] = Σ_{k: a_k = a, p_k ≥ τ} p_k·d_k,   S[a] = Σ_v w_v·S_v[a],   answer = argmax_a S[a]

    v: bottom-up, top-down and regular caption; p_k: probability of the k-th likeliest first token; a_k: the first of
    `choices` in the continuation that it starts; d_k: largest minus second-largest probability where a_k is chosen.

    K: `paths`; τ: `threshold`; w: `weights`. Captions are of `caption_tokens`, drawn by `temperature` and `top_p`; a
    path has `path_tokens` after its first. `mode="official"` is the code's scoring (`path_scores`).

    Raises:
        ValueError: a value outside its range; when answering starts, something that is no
            question, beams, or a detector.

    Only the abstract of the paper could be read; formulas and values are those of the released code, which cannot run
    as it is, with two of its rules changed: there a direct Yes or No counts p without d, and a path without an answer
    counts for Yes. Our prompts are those of the code in other words. Paths are decoded as the run is (code: sampled).
    A question that no path answers gets the model's plain answer. Captions are drawn for each question, as in the code.
    """

    paths: int = count(3, "first tokens followed per view", "Released script: 3; its argparse default: 5.", low=1)
    threshold: float = share(0.001, "least probability of a path's first token", "Code: 0.001.")
    weights: Sequence[float] = ruled(
        (0.4, 0.4, 0.2), "weights of the three captions", "three numbers of 0 or more", "Code: 0.4, 0.4, 0.2.", _weights
    )
    caption_tokens: int = count(512, "new tokens of a caption", "Code: 512.", low=1)
    temperature: float = number(0.7, "of the captions", "0 is greedy. Code: 0.7.")
    top_p: float = share(0.95, "of the captions", "Code: 0.95.")
    path_tokens: int = count(50, "new tokens of a path after its first", "Code: 50.", low=1)
    choices: Sequence[str] = ruled(
        ("yes", "no"), "the closed set", "two words or more", 'Of equal sums the last wins (code: "No").', _choices
    )
    mode: Literal["paper", "official"] = one_of(("paper", "official"), "whose scoring")

    released = {"mode": "official"}  # it samples its paths: ask with do_sample=True and temperature=0.7

    def check(self, questions: Sequence[str], detectors: Sequence[Any], generation: Mapping[str, Any]) -> None:
        """Raise ValueError for something that is no question, for beams, and for detectors."""
        wrong = next((question for question in questions if "?" not in question), None)
        if wrong is not None:
            raise ValueError(
                f"MVP chooses between {' and '.join(self.choices)}: it takes closed questions, which have a question "
                f"mark; found {wrong!r}. For captions use a decoder, or vicrop"
            )
        if (generation.get("num_beams") or 1) > 1:
            raise ValueError("MVP follows single paths and reads their distributions: use num_beams=1")
        if detectors:
            raise ValueError("MVP's answer is a sum over many texts and has no tokens to rate: leave the detectors out")

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        views: list[list[list[Path]]] = []
        for place, view in enumerate(VIEWS):
            if not self.weights[place]:
                views.append([[] for _ in images])
                continue
            drawn = [seed * len(VIEWS) + place for seed in seeds]
            captions = self.captions(call, images, view, drawn)
            prompts = [
                PROMPT.format(caption=caption, question=question.lower())
                for caption, question in zip(captions, questions, strict=True)
            ]
            views.append(self.follow(call, call.inputs(images, prompts), drawn))
        plain = call.generate(call.inputs(images, questions), seeds).text
        scored = [[path_scores(paths, self.choices, self.threshold, self.mode) for paths in view] for view in views]
        out = []
        for row, answer in enumerate(plain):
            best, total = decide([view[row] for view in scored], self.weights, self.choices)
            usual = find_answer([answer], self.choices)[0]
            text = answer if best is None else best.capitalize()
            acted = {"steps": 1.0, "acted": float(best is not None), "flipped": float(best not in (None, usual))}
            out.append(Answer(text, [text], {}, {"mvp": {**acted, "kl": 0.0, **total}}))
        return out

    def captions(self, call: Call, images: Sequence[Any], prompt: str, seeds: Sequence[int]) -> list[str]:
        """One sampled caption per image."""
        options: dict[str, Any] = {"do_sample": False}
        if self.temperature:
            options = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        inputs = call.inputs(images, [prompt] * len(images))
        return call.generate(inputs, seeds, max_new_tokens=self.caption_tokens, **options).text

    def follow(self, call: Call, inputs: Mapping[str, Tensor], seeds: Sequence[int]) -> list[list[Path]]:
        """The paths of every row, likeliest first token first."""
        first = call.generate(inputs, seeds, return_logits=True, max_new_tokens=1).logits
        assert first is not None
        best = first[:, 0].softmax(1).topk(min(self.paths, first.shape[2]), dim=1)
        certainty = confidence(first[:, 0])[2]
        decode = call.lvlm.processor.tokenizer.decode
        out: list[list[Path]] = [[] for _ in seeds]
        for tokens, shares in zip(best.indices.T, best.values.T, strict=True):
            bare = [decode([int(token)]).strip(" \n.,!▁").lower() for token in tokens]
            direct = [next((a for a in self.choices if word == a.lower()), None) for word in bare]
            wanted = [a is None and float(p) >= self.threshold for a, p in zip(direct, shares, strict=True)]
            found = self.continued(call, inputs, tokens, seeds) if any(wanted) else [(None, 0.0)] * len(bare)
            for row, answer in enumerate(direct):
                probability = float(shares[row])
                if answer is not None:
                    out[row].append(Path(probability, answer, float(certainty[row]), direct=True))
                else:
                    out[row].append(Path(probability, *found[row]))
        return out

    def continued(
        self, call: Call, inputs: Mapping[str, Tensor], tokens: Tensor, seeds: Sequence[int]
    ) -> list[tuple[str | None, float]]:
        """(answer, certainty) of each row's text after this first token."""
        generation = call.generate(
            inputs, seeds, return_logits=True, max_new_tokens=1 + self.path_tokens,
            logits_processor=[*call.generation.get("logits_processor", ()), Forced(tokens[:, None].tolist())],
        )  # fmt: skip
        assert generation.logits is not None
        decode = call.lvlm.processor.tokenizer.decode
        out = []
        for ids, logits in zip(generation.ids, generation.logits, strict=True):
            pieces = [decode(ids[: count + 1], skip_special_tokens=True) for count in range(len(ids))]
            answer, place = find_answer(pieces, self.choices)
            out.append((answer, float(confidence(logits[place])[2]) if answer is not None else 0.0))
        return out
