"""Multi-View Multi-Path reasoning (MVP, "Look, Compare, Decide").

Qu et al., "Look, Compare, Decide: Alleviating Hallucination in Large Vision-Language Models via Multi-View Multi-Path
Reasoning", COLING 2025, arXiv 2408.17150.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from ...pipelines.checks import check_at_least, check_choice, check_integers, check_range
from ...pipelines.engine.record import sureness
from ...pipelines.results import Answer

if TYPE_CHECKING:
    from ...pipelines.procedures import Call

MODES = ("paper", "official")
BOTTOM_UP = (
    "Look closely at the pixels of this image: shapes, colours and textures. Detect the objects in it, then describe "
    "the image in detail."
)
TOP_DOWN = (
    "Look at this image as a whole first: the scene, its surroundings and context. Then describe the image in detail."
)
REGULAR = "Please describe this image in detail."
VIEWS = (BOTTOM_UP, TOP_DOWN, REGULAR)
PROMPT = "This is a description of the image: {caption}\nQuestion: {question}"


@dataclass(frozen=True)
class Path:
    """One continuation: probability of its first token, the answer that it reaches (None: none), and how sure.

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


class FirstToken(LogitsProcessor):
    """Leaves one token possible at the first step, another for each row; branches get their row's too."""

    def __init__(self, tokens: Tensor, prompt: int) -> None:
        self.tokens, self.prompt = tokens, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] > self.prompt:
            return scores
        tokens = self.tokens.repeat(scores.shape[0] // self.tokens.shape[0]).to(scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


@dataclass(frozen=True)
class MVP:
    r"""Ask a question beside three captions, follow several first tokens each, and add up how surely they answer.

    S_v[a] = Σ_{k: a_k = a, p_k ≥ τ} p_k·d_k,   S[a] = Σ_v w_v·S_v[a],   answer = argmax_a S[a]

    v: bottom-up, top-down and regular caption; p_k: probability of the k-th likeliest first token; a_k: the first of
    `choices` in the continuation that it starts; d_k: largest minus second-largest probability where a_k is chosen.

    Args:
        paths: first tokens followed per view (K), 1 or more. Released script: 3 (its argparse default: 5).
        threshold: τ, least p_k of a path, 0 to 1. Code: 0.001.
        weights: of the three captions. Code: 0.4, 0.4, 0.2.
        caption_tokens, temperature, top_p: of the captions, which are sampled. Code: 512, 0.7, 0.95. temperature 0 is
            greedy.
        path_tokens: new tokens of a path after its first, 1 or more. Code: 50.
        choices: the closed set; of equal sums the last wins (code: "No").
        mode: "paper", or "official" for the code's scoring (`path_scores`).

    Raises:
        ValueError: a value outside its range; when asked, something that is no question, beams, or a detector.

    Only the abstract of the paper could be read; formulas and values are those of the released code, which cannot run
    as it is, with two of its rules changed: there a direct Yes or No counts p without d, and a path without an answer
    counts for Yes. Our prompts say what the code's say in other words. Paths are decoded as the run is (code: sampled).
    A question that no path answers gets the model's plain answer. Captions are drawn for each question, as in the code.
    """

    paths: int = 3
    threshold: float = 0.001
    weights: Sequence[float] = (0.4, 0.4, 0.2)
    caption_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 0.95
    path_tokens: int = 50
    choices: Sequence[str] = ("yes", "no")
    mode: Literal["paper", "official"] = "paper"

    paper: ClassVar[str] = "arXiv 2408.17150"
    changes: ClassVar[str] = "nothing inside: asks beside three captions and adds up several answers"
    cost: ClassVar[str] = "3 captions, and 3 · (1 + paths) short answers per question"
    differs: ClassVar[str] = (
        "The code counts a direct Yes or No without its certainty and a path without an answer as Yes; as released it "
        "cannot run. official() scores as it does; the paper's formulas could not be read."
    )

    def __post_init__(self) -> None:
        check_integers("paths", (self.paths,), "first tokens followed per view")
        check_at_least("paths", self.paths, 1, "first tokens followed per view")
        check_range("threshold", self.threshold, 0, 1, "least probability of a path's first token")
        for name, values in (("weights", self.weights), ("choices", self.choices)):
            object.__setattr__(self, name, tuple(values))
        if len(self.weights) != len(VIEWS):
            raise ValueError(f"weights={self.weights} are {len(self.weights)}; there are {len(VIEWS)} captions.")
        for weight in self.weights:
            check_at_least("weights", weight, 0, "weight of a caption")
        if not any(self.weights):
            raise ValueError(f"weights={self.weights} are all 0, so that nothing would count; give one above 0.")
        check_integers("caption_tokens", (self.caption_tokens,), "new tokens of a caption")
        check_at_least("caption_tokens", self.caption_tokens, 1, "new tokens of a caption")
        check_at_least("temperature", self.temperature, 0, "of the captions")
        check_range("top_p", self.top_p, 0, 1, "of the captions")
        check_integers("path_tokens", (self.path_tokens,), "new tokens of a path")
        check_at_least("path_tokens", self.path_tokens, 1, "new tokens of a path")
        if len({str(choice).lower() for choice in self.choices}) < 2:
            raise ValueError(f"choices={self.choices} are not two different answers to choose from.")
        check_choice("mode", self.mode, MODES, "whose scoring")

    @classmethod
    def official(cls) -> MVP:
        """The scoring of the released code; it samples its paths: ask with do_sample=True and temperature=0.7."""
        return cls(mode="official")

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
        for number, view in enumerate(VIEWS):
            if not self.weights[number]:
                views.append([[] for _ in images])
                continue
            drawn = [seed * len(VIEWS) + number for seed in seeds]
            captions = self.captions(call, images, view, drawn)
            asked = [
                PROMPT.format(caption=caption, question=question.lower())
                for caption, question in zip(captions, questions, strict=True)
            ]
            views.append(self.follow(call, call.inputs(images, asked), drawn))
        plain = call.generate(call.inputs(images, questions), seeds).text
        scored = [[path_scores(paths, self.choices, self.threshold, self.mode) for paths in view] for view in views]
        out = []
        for row, said in enumerate(plain):
            best, total = decide([view[row] for view in scored], self.weights, self.choices)
            usual = find_answer([said], self.choices)[0]
            text = said if best is None else best.capitalize()
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
        certainty = sureness(first[:, 0])[2]
        decode = call.lvlm.processor.tokenizer.decode
        out: list[list[Path]] = [[] for _ in seeds]
        for tokens, shares in zip(best.indices.T, best.values.T, strict=True):
            said = [decode([int(token)]) for token in tokens]
            bare = [word.strip(" \n.,!▁").lower() for word in said]
            direct = [next((a for a in self.choices if word == a.lower()), None) for word in bare]
            wanted = [a is None and float(p) >= self.threshold for a, p in zip(direct, shares, strict=True)]
            found = self.continued(call, inputs, tokens, seeds) if any(wanted) else [(None, 0.0)] * len(said)
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
        """(answer, certainty) of what each row says after the given first token."""
        force = FirstToken(tokens, inputs["input_ids"].shape[1])
        made = call.generate(
            inputs, seeds, return_logits=True, max_new_tokens=1 + self.path_tokens,
            logits_processor=[*call.generation.get("logits_processor", ()), force],
        )  # fmt: skip
        assert made.logits is not None
        decode = call.lvlm.processor.tokenizer.decode
        out = []
        for ids, logits in zip(made.ids, made.logits, strict=True):
            pieces = [decode(ids[: count + 1], skip_special_tokens=True) for count in range(len(ids))]
            answer, place = find_answer(pieces, self.choices)
            out.append((answer, float(sureness(logits[place])[2]) if answer is not None else 0.0))
        return out
