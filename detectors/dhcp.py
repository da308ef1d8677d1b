"""DHCP: whether an answer is hallucinated, from the attention that it paid to each image token.

Zhang et al., "DHCP: Detecting Hallucinations by Cross-modal Attention Pattern in Large Vision-Language Models", ACM MM
2025, arXiv 2411.18659. What its text does not say is from the released code (btzyd/DHCP).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from ..pipelines.engine.declarations import Reading
from ..pipelines.engine.record import Record
from ..pipelines.inputs.images import token_counts
from ..pipelines.method import one_of
from .probe import MLP, Fitting, fit_mlp
from .trained import Trained, items, prepared, training_record, weights_field

if TYPE_CHECKING:
    from ..pipelines.engine.call import AttentionCall


def columns(call: AttentionCall) -> Float[Tensor, "batch token head image"]:
    """Attention of every head to each image token, in their order, at the rows that produce tokens; not renormalised.

    Raises:
        ValueError: rows with different numbers of image tokens; a probe takes one number.
    """
    return at_image(call, call.probabilities(call.producing).float()).transpose(1, 2)


def total(call: AttentionCall) -> Float[Tensor, "batch 1 head image"]:
    """The same summed over the rows that produce real tokens; raises as `columns`."""
    parts = []
    for here, part in call.maps(call.producing):
        paid = at_image(call, part.transpose(2, 3), here[0]).unflatten(2, (call.groups, -1))
        parts.append((here, paid.mul_(call.real[here[0], None, None, :, None]).sum(3)))
    return call.joined(parts).flatten(1, 2)[:, None]


def at_image(call: AttentionCall, rows: Float[Tensor, "some head query key"], here: slice = slice(None)) -> Tensor:
    """The entries at image tokens: (row, head, query, image); raises as `columns`. here: which rows of the batch."""
    where = call.sequences
    places = where.once(("image places", rows.device), lambda: image_places(where.image).to(rows.device))
    dropped = max(0, where.seen - call.key.shape[2])  # a sliding window let these keys go: no attention to them
    first, size = where.once("image block", lambda: image_block(places))
    if first is not None and not dropped:
        return rows[..., first : first + size]
    index = places[here, None, None].expand(-1, rows.shape[1], rows.shape[2], -1)
    return (pad(rows, (dropped, 0)) if dropped else rows).gather(3, index)


def image_places(image: Bool[Tensor, "batch prompt"]) -> Int[Tensor, "batch image"]:
    """Where the image tokens are; raises as `columns`."""
    counts = image.sum(1)
    if bool((counts != counts[0]).any()):
        raise ValueError(
            f"DHCP needs equally many image tokens in every row; found {counts.unique().tolist()}: give all images "
            "one size, or one image at a time."
        )
    return image.nonzero()[:, 1].reshape(len(counts), -1)


def image_block(places: Int[Tensor, "batch image"]) -> tuple[int | None, int]:
    """(first, number) where the image tokens are the same unbroken block in every row; (None, number) elsewhere."""
    count = places.shape[1]
    first = int(places[0, 0]) if places.numel() else 0
    block = torch.arange(first, first + count, device=places.device)
    return (first if bool((places == block).all()) else None), count


def projected(
    call: AttentionCall, weight: Float[Tensor, "hidden layer head image"], read: Callable[[AttentionCall], Tensor]
) -> Float[Tensor, "batch token hidden"]:
    """What a layer's columns, or their total, add to the probe's first layer, which is linear. read: gives these."""
    found, mine = read(call), weight[:, call.layer].to(call.query.device)
    if found.shape[2:] != mine.shape[1:]:
        raise ValueError(
            f"this DHCP was trained on {mine.shape[2]} image tokens, and here are {found.shape[3]}: give images of "
            "the size that it was trained on."
        )
    return found.flatten(2) @ mine.flatten(1).T


def answer_class(answer: Literal["yes", "no"], truth: Literal["yes", "no"]) -> int:
    """0 right yes, 1 right no, 2 wrong no, 3 wrong yes; its half (0 or 1) is the binary label.

    The authors' README has 2 and 3 the other way round; this is their code. Their −1 for any other answer becomes
    "right" when halved; ours are left out before.

    >>> [answer_class(a, t) for a in ("yes", "no") for t in ("yes", "no")]
    [0, 3, 2, 1]
    """
    if answer == truth:
        return 0 if answer == "yes" else 1
    return 3 if answer == "yes" else 2


@dataclass(frozen=True, eq=False)
class DHCP(Trained):
    """An MLP on X[l, h, v], the attention of head h in layer l to image token v, averaged over the answer's rows.

    X = mean_t A_t[l, h, v], t over the rows that produce the answer's tokens, its end included; risk =
    P(hallucinated | X), flattened in this order → 128 ReLUs → softmax. Every token of an answer has the answer's risk;
    a gate, which cannot wait for its end, reads that of the answer so far. It needs a probe: that of the embedded LVLM
    is shipped, for yes/no answers.

    `rows="own"` takes the row of each token alone, for words of captions (ours). The probe is `weights`.

    Raises:
        ValueError: rows neither "mean" nor "own".

    What is kept is a text's (or a token's) part in the first layer, 128 numbers per layer, so that long texts cost
    kilobytes. Features are scaled and the epoch is chosen on held-out images; the released code does neither.
    """

    rows: Literal["mean", "own"] = one_of(("mean", "own"), "the rows of attention that a token is judged by")
    weights: str | None = weights_field("none elsewhere: this detector needs one")

    name: ClassVar[str] = "dhcp"
    kind: ClassVar[str] = "mlp"
    needs_probe: ClassVar[bool] = True

    @property
    def decides_at(self) -> str:
        """The token whose risk is the answer's."""
        return "last" if self.rows == "mean" else "first"

    def sizes(self, lvlm: Any, size: int) -> Sequence[int]:
        heads = len(lvlm.layers) * lvlm.heads
        counts = set(token_counts(lvlm.processor, _SIZES) or [])
        if len(counts) == 1 and (tokens := counts.pop()):
            return [heads * tokens]
        return [heads * max(1, size // heads)]  # images of other sizes have other numbers of tokens

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        layers, mean = range(len(lvlm.layers)), self.rows == "mean"
        if not isinstance(self.probe, MLP):
            yield Reading("dhcp/columns", layers, keep=columns)
            return
        weight = self.probe.folded[0].unflatten(1, (len(layers), lvlm.heads, -1))
        keep = partial(projected, weight=weight, read=total if mean else columns)
        yield Reading("dhcp", layers, keep=keep, total=mean)

    def features(self, lvlm: Any, inputs: Any, ids: Tensor) -> Float[Tensor, "batch layer head image"]:
        """X of finished answers, averaged inside each layer so that no token's columns are kept."""
        from ..pipelines.generate import teacher_force

        read = Reading("dhcp/total", range(len(lvlm.layers)), keep=total, total=True)
        record = teacher_force(lvlm, inputs, ids, [_Reads(read)])
        return record["dhcp/total"][:, 0] / record.mask.sum(1).to(record["dhcp/total"])[:, None, None, None]

    def token_features(self, record: Record) -> Float[Tensor, "sample token feature"]:
        """The columns of every token, (layer, head, image token) in this order; from a record read without a probe."""
        return record["dhcp/columns"].flatten(2)

    def score(self, record: Record) -> Float[Tensor, "sample token"]:
        if not isinstance(self.probe, MLP):
            raise ValueError('dhcp has no probe; `for_model` finds the shipped one, "dhcp:weights=FOLDER" yours.')
        before, mask = record["dhcp"].sum(2), record.mask
        if self.rows == "mean":
            real = mask.to(before)[..., None]
            if before.shape[1] > 1:  # a gate's, token by token
                before = (before * real).sum(1, keepdim=True)
            before = (before / real.sum(1, keepdim=True).clamp(min=1)).expand(-1, mask.shape[1], -1)
        return self.probe.hallucinated(before + self.probe.folded[1].to(before.device))

    def fit(
        self, features: Any, labels: Any, groups: Sequence[Any] | None = None, *, lvlm: Any, counts: Any = None,
        classes: int = 2, **fitting: Any,
    ) -> Self:  # fmt: skip
        """With an MLP fitted to answers (or tokens), every class drawn equally often.

        features: (item, layers · heads · image tokens) or unflattened; or the record of a pass, with labels per sample
        (rows="mean") or per token. labels: 1 hallucinated, or `answer_class` with classes=4. groups: the image of each
        item; the epoch is chosen on a fifth of them. lvlm: the model that the attention is of. counts: how often each
        item counts among those of its class, once by default. fitting: hidden (128 units: the probe's size, two bytes
        per feature and unit), epochs, seed and others of `Fitting`.

        Raises:
            ValueError: features and labels that do not match, a class without items, or a single group.
        """
        if isinstance(features, Record):
            columns_of = self.token_features(features)
            if self.rows == "own":
                features, labels, groups = items(features, columns_of, torch.as_tensor(labels), groups)
            else:
                weight = features.mask / features.mask.sum(1, keepdim=True)
                features = (columns_of * weight[..., None]).sum(1)
        known, truth, whose = prepared(features, labels, groups)
        how = Fitting(**fitting)
        often = None if counts is None else torch.as_tensor(counts).float()
        probe, found = fit_mlp(known, truth, whose, classes, often, how)
        probe = MLP(probe.mean, probe.scale, probe.weight_1.half(), *[getattr(probe, n) for n in _SMALL])
        return self._with(probe, training_record(lvlm, known, truth, how.seed, **found))


_SIZES = ((48, 48), (336, 336), (600, 200))  # images whose tokens are as many only if all images' are
_SMALL = ("bias_1", "weight_2", "bias_2")


@dataclass(frozen=True)
class _Reads:
    """One reading as a detector of its own."""

    reading: Reading

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Any]:
        yield self.reading
