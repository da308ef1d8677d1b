"""GLSim: whether a word's state resembles the scene as a whole and the patches in which the model reads the word.

Park and Li, "GLSim: Detecting Object Hallucinations in LVLMs via Global-Local Similarity", NeurIPS 2025, arXiv
2508.19972; released code deeplearning-wisc/glsim.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from ..pipelines.engine.record import Record
from ..pipelines.method import Detector, count, one_of, ruled, share
from ..pipelines.model.layout import where
from ..pipelines.per_model import for_model
from .hidden_states import entry_of, gathered, last_position, of_prompt, state_reading

TOGETHER = 64  # patches whose whole distribution is worked out at once


def pair(
    prompt_last: Float[Tensor, "*prompts hidden"], patches: Float[Tensor, "*samples image hidden"],
    patch_probs: Float[Tensor, "*tokens image"], obj_global: Float[Tensor, "*tokens hidden"],
    obj_local: Float[Tensor, "*tokens hidden"], k: int,
) -> tuple[Float[Tensor, "*tokens"], Float[Tensor, "*tokens"]]:  # fmt: skip
    """(g, loc): g = cos(prompt, object), loc = mean over the k patches of largest probability of cos(object, patch).

    patch_probs: probabilities, or anything in their order; −inf is no patch. Of equal ones the first counts. With fewer
    than k patches all count; without any loc is 0. The cosine of a zero state is 0.

    >>> e = torch.tensor
    >>> patches, object_ = e([[1., 0, 1], [0, 1, 0], [1, 1, 1]]), e([1., 0, 1])
    >>> g, loc = pair(e([1., 1, 0]), patches, e([.3, .01, .2]), object_, object_, 2)
    >>> round(float(g), 6), round(float(loc), 6)
    (0.5, 0.908248)
    """
    overall = (normalize(obj_global, dim=-1) * normalize(prompt_last, dim=-1)).sum(-1)
    alike = normalize(obj_local, dim=-1) @ normalize(patches, dim=-1).mT
    best = patch_probs.argsort(dim=-1, descending=True, stable=True)[..., :k]
    counts = patch_probs.gather(-1, best) > -torch.inf
    local = (alike.gather(-1, best) * counts).sum(-1) / counts.sum(-1).clamp(min=1)
    return overall, local


def log_normalisers(
    states: Float[Tensor, "batch image hidden"], head: Any, image: Bool[Tensor, "batch prompt"]
) -> Float[Tensor, "batch image"]:
    """ln Σ_v exp(head(h)[v]) of every patch, +inf where a row has none."""
    parts = states.to(where(head)).split(TOGETHER, dim=1)
    found = torch.cat([head(part).float().logsumexp(-1) for part in parts], 1).to(states.device)
    there = torch.arange(states.shape[1], device=states.device) < image.sum(1).to(states.device)[:, None]
    return found.masked_fill(~there, torch.inf)


@dataclass(frozen=True)
class GLSim(Detector):
    r"""Risk = (1 − s)/2, s = w·g + (1 − w)·loc, between 0 and 1.

    g = cos(h^l(p), h^l′(o));   loc = mean_{v ∈ top K} cos(h^l′(o), h^l(v)), by softmax(head(h^l(v)))[o]

    h^l(p), h^l(v): `layer` at the prompt's last position and at the image tokens; h^l′(o): `object_layer` at the row
    that produces the token o, which knows the words before it. w: `weight`; K: `patches`. Both layers count entries of
    `hidden_states` (0 the embeddings, −1 the last after the final norm), so that (−1, −2) is the paper's (32, 31). The
    lens is the head's weights alone, without a soft cap; inner layers are not normed.

    Raises:
        ValueError: fields outside their range, or a layer that the model does not have.

    The released code uses one pair of indices for two matrices with different axes, so that its global term takes the
    prompt from l′ and the object from l: `official()`, order="code". It scores the first token of an object's first
    occurrence; ours every token. What is kept of a prompt is N_image · hidden numbers.
    """

    layer: int = ruled(-1, "hidden state of prompt and patches, l", "a whole number", "Paper: 32 of 33.")
    object_layer: int = ruled(-2, "hidden state of the word, l′", "a whole number", "Paper: 31 of 33.")
    patches: int = count(32, "image tokens that the word is compared with, K", "Paper: 32.", low=1)
    weight: float = share(0.6, "of the global term, w", "Paper: 0.6.")
    order: Literal["paper", "code"] = one_of(("paper", "code"), "which layers the global term takes")

    released: ClassVar[Mapping[str, Any] | None] = {"order": "code"}
    by_model: ClassVar[Mapping[str, Mapping[str, Any]]] = {"shikra": {"layer": 30, "object_layer": 27}}
    unembedding: ClassVar[Any] = None  # the model's head, of an instance that `for_model` has made

    def validate(self) -> None:
        for name in ("layer", "object_layer"):
            if not isinstance(getattr(self, name), int) or isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} is no whole number.")

    def for_model(self, lvlm: Any) -> Self:
        """With the head of the model, whose rows are the lens, and the paper's layers for it."""
        bound = copy.copy(for_model(self, lvlm.name))
        object.__setattr__(bound, "unembedding", lvlm.model.get_output_embeddings())
        return bound

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        image = lvlm.image_mask(inputs["input_ids"])
        layer, word = entry_of(lvlm, "layer", self.layer), entry_of(lvlm, "object_layer", self.object_layer)
        prompt, overall = (layer, word) if self.order == "paper" else (word, layer)
        patches = partial(_patches, image=image)
        normalisers = partial(_patches, image=image, head=lvlm.model.get_output_embeddings())
        yield state_reading(lvlm, "glsim/patches", layer, patches, "prompt")
        yield state_reading(lvlm, "glsim/normalisers", layer, normalisers, "prompt")
        yield state_reading(lvlm, "glsim/prompt", prompt, last_position, "prompt")
        yield state_reading(lvlm, "glsim/local", word, _as_is)
        if overall != word:
            yield state_reading(lvlm, "glsim/global", overall, _as_is)

    def terms(self, record: Record) -> Float[Tensor, "sample token term"]:
        """g and loc of every token.

        Raises:
            ValueError: the detector does not know its model yet.
        """
        if self.unembedding is None:
            raise ValueError("glsim reads with the model's head: take the detector that for_model(lvlm) returns.")
        word = record["glsim/local"][:, :, 0]
        whole = record["glsim/global"][:, :, 0] if "glsim/global" in record.readings else word
        prompt, patches, norm = (record[f"glsim/{name}"][:, 0, 0] for name in ("prompt", "patches", "normalisers"))
        logits = (self._rows(record.ids).to(patches) @ patches.mT).float()
        if (bias := getattr(self.unembedding, "bias", None)) is not None:
            logits = logits + bias[record.ids.to(bias.device)].to(logits)[..., None]
        prompt, patches, whole, word = (states.to(logits.dtype) for states in (prompt, patches, whole, word))
        return torch.stack(pair(prompt[:, None], patches, logits - norm[:, None], whole, word, self.patches), -1)

    def features(self, lvlm: Any, inputs: Any, ids: Tensor) -> Float[Tensor, "sample token term"]:
        """g and loc of every token of a finished text, (batch, new, 2)."""
        from ..pipelines.generate import teacher_force

        bound = self.for_model(lvlm)
        return bound.terms(teacher_force(lvlm, inputs, ids, [bound]))

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        terms = self.terms(record)
        return (1 - (self.weight * terms[..., 0] + (1 - self.weight) * terms[..., 1])) / 2

    def _rows(self, ids: Tensor) -> Float[Tensor, "sample token hidden"]:
        weight = self.unembedding.weight
        return weight[ids.to(weight.device)]


def _patches(states: Tensor, image: Tensor, head: Any = None) -> Tensor:
    """(batch, 1, image, hidden) of the pass that holds the prompt, or (batch, 1, image) log-normalisers by `head`."""
    prompt = of_prompt(states, image.shape[1], "glsim")
    if prompt is None:
        most = int(image.sum(1).max())
        return states.new_zeros(len(states), 0, most, *([] if head is not None else [states.shape[2]]))
    kept = gathered(prompt, image)
    return (kept if head is None else log_normalisers(kept, head, image))[:, None]


def _as_is(states: Tensor) -> Tensor:
    return states
