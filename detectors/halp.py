"""HALP: how likely a hallucination is before a single token is written, from one state of the prompt.

"HALP: Detecting Hallucinations in Vision-Language Models without Generating a Single Token", EACL 2026; released code
alliedbrother/HALP_EACL, from which all that is said here of the method was read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..pipelines.engine.record import Record
from ..pipelines.method import one_of, ruled
from .deep_probe import fit_deep
from .hidden_states import entry_of, of_prompt, state_reading
from .probe import Fitting, fit_linear
from .trained import Trained, prepared, training_record, weights_field


def entries(layers: int) -> list[int]:
    """The entries of the hidden states that the released code probes in a model with L layers: 0, ⌊L/4⌋, … L − 1.

    >>> entries(32)
    [0, 8, 16, 24, 31]
    """
    return [0, layers // 4, layers // 2, 3 * layers // 4, layers - 1]


def state_at(
    states: Float[Tensor, "batch query hidden"], image: Bool[Tensor, "batch prompt"], position: str
) -> Float[Tensor, "batch one hidden"]:
    """The state at the prompt's last position ("query") or its last image token ("image"); nothing behind the prompt.

    Raises:
        ValueError: a row without image tokens, or a pass that holds a part of the prompt.
    """
    prompt = of_prompt(states, image.shape[1], "halp")
    if prompt is None:
        return states[:, :0]
    if position == "query":
        return prompt[:, -1:]
    if not bool(image.any(1).all()):
        raise ValueError('halp with position="image" reads the last image token, and a row has none.')
    size = image.shape[1]
    places = (image * torch.arange(1, size + 1, device=image.device)).amax(1) - 1
    return prompt[torch.arange(len(prompt), device=prompt.device), places.to(prompt.device)][:, None]


@dataclass(frozen=True, eq=False)
class HALP(Trained):
    """Risk = P(the coming answer is hallucinated | h), a network's, the same for every token of the answer.

    h: entry `layer` of `hidden_states` (0 the embeddings, l the output of block l − 1, L the last after the final norm)
    at the prompt's last position or its last image token (`position`); (hidden,) per sample. The network (`weights`):
    hidden → 512 → 256 → 128 → 1, each hidden layer Linear, ReLU, BatchNorm, dropout 0.3 in training. It is known before
    the first token: `before` needs a prefill alone, and an answer holds it as `risk_before`. It needs a probe: that of
    the embedded LVLM is shipped, for yes/no answers.

    Raises:
        ValueError: a layer that the model does not have, or no probe for it.

    The released code reads five layers and lists the best on the test set; ours reads one, `layer=None`: entry ⌊3L/4⌋,
    which stood first or second there. Its "image token" is a guessed position, ours is found by the image mask. It
    feeds unscaled states, splits by question and trains 50 epochs; ours scales, holds a fifth of the images out and
    chooses the epoch there. `official()` takes layer L − 1; with it `fit(…, scaled=False, held_out=False)` is theirs.
    """

    layer: int | None = ruled(
        None, "entry of the hidden states", "a whole number, or None", "None: ⌊3·L/4⌋. Code: five, the best one counts."
    )
    position: Literal["query", "image"] = one_of(
        ("query", "image"), "where in the prompt", "query: its last position; image: its last image token."
    )
    weights: str | None = weights_field("none elsewhere: this detector needs one")

    name: ClassVar[str] = "halp"
    kind: ClassVar[str] = "deep"
    needs_probe: ClassVar[bool] = True
    is_before: ClassVar[bool] = True
    released: ClassVar[Mapping[str, Any] | None] = {"layer": -2}

    def validate(self) -> None:
        if self.layer is not None and (not isinstance(self.layer, int) or isinstance(self.layer, bool)):
            raise ValueError(f"layer={self.layer!r} is no whole number; give one, or None.")

    def sizes(self, lvlm: Any, size: int) -> Sequence[int]:
        """That of a state."""
        return [lvlm.hidden_size]

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        layer = entries(len(lvlm.layers))[3] if self.layer is None else entry_of(lvlm, "layer", self.layer)
        keep = partial(state_at, image=lvlm.image_mask(inputs["input_ids"]), position=self.position)
        yield state_reading(lvlm, "halp", layer, keep, "prompt")

    def features(self, lvlm: Any, inputs: Any, ids: Any = None) -> Float[Tensor, "batch hidden"]:
        """The state of each prompt, from a pass over the prompt alone. ids: of no use here."""
        from ..pipelines.engine.run import complete, prefill

        inputs = complete(lvlm, inputs)
        return prefill(lvlm, inputs, list(self.readings(lvlm, inputs))).latest("halp")[0, :, 0]

    def before(self, lvlm: Any, inputs: Any) -> Float[Tensor, " batch"]:
        """The risk of each prompt's coming answer, from one pass over the prompts; nothing is generated."""
        fitted = self if self.probe is not None else self.for_model(lvlm)
        assert fitted.probe is not None
        return fitted.probe(fitted.features(lvlm, inputs))

    def token_features(self, record: Record) -> Float[Tensor, "sample token hidden"]:
        """The prompt's state beside every token of its answer."""
        return record["halp"][:, :1, 0].expand(-1, record.ids.shape[1], -1)

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        if self.probe is None:
            raise ValueError('halp has no probe; `for_model` finds the shipped one, "halp:weights=FOLDER" yours.')
        return self.probe(record["halp"][:, :1, 0]).expand(-1, record.ids.shape[1])

    def fit(
        self, features: Any, labels: Any, groups: Sequence[Any] | None = None, *, lvlm: Any, kind: str = "deep",
        scaled: bool = True, held_out: bool = True, **fitting: Any,
    ) -> Self:  # fmt: skip
        """With a probe fitted to answers.

        features: (answer, hidden). labels: 1 hallucinated. groups: the image of each answer. lvlm: the model that the
        states are of. kind: "deep", or "linear", a logistic regression, for few answers. scaled, held_out: as in
        `fit_deep`. fitting: epochs (50), batch (32), seed and others of `Fitting`.

        Raises:
            ValueError: features and labels that do not match, labels of one class, a single group, or another kind.
        """
        if kind not in ("deep", "linear"):
            raise ValueError(f'kind={kind!r} is neither "deep" nor "linear".')
        known, truth, whose = prepared(features, labels, groups)
        how = Fitting(**{"epochs": 50, "batch": 32, **fitting})
        if kind == "linear":
            return self._with(fit_linear(known, truth), training_record(lvlm, known, truth, how.seed))
        probe, found = fit_deep(known, truth, whose, how, scaled, held_out)
        halves = {name: getattr(probe, name).half() for name in ("weight_1", "weight_2", "weight_3")}
        return self._with(replace(probe, **halves), training_record(lvlm, known, truth, how.seed, **found))
