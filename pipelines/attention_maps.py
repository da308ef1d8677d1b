"""Where a model looks when it writes each token of a text: attention over the image, by token, layer and head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .arguments import check_questions
from .checks import check_layers
from .engine.call import AttentionCall
from .engine.declarations import Reading
from .generate import teacher_force
from .inputs.images import many_images, passed_on
from .inputs.prompts import DETAIL, caption_prompt
from .inputs.seen_area import WHOLE, Area, seen_area
from .inputs.text_alignment import answer_tokens
from .inputs.token_spans import spans
from .model import families
from .results import words_of

Choice = int | None


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """The attention of one text's tokens over its image.

    values: at the position that produces each token, after the softmax; image positions in their order in the prompt.
    probability: of each token in the model's own distribution, without any decoder. grids: (rows, columns) of the
    image, or of its tiles; empty where `no_grid` gives the reason. whole: which of several shows the whole image.
    area: (left, top, right, bottom) of what the model sees of the image, as shares of its sides.
    """

    text: str
    tokens: Sequence[str]
    values: Float[Tensor, "token layer head image"]
    probability: Float[Tensor, " token"]
    layers: Sequence[int]
    grids: Sequence[families.Grid] = ()
    no_grid: str = ""
    whole: int | None = None
    area: Area = WHOLE

    def token(self, which: int | str) -> int:
        """The number of a token, or of the first token of a word of the text.

        Raises:
            ValueError: no such token or word.
        """
        if isinstance(which, str):
            start = self.text.find(which)
            found = [number for number, (a, b) in enumerate(self.places()) if a <= start < b]
            if start < 0 or not which or not found:
                raise ValueError(f"{which!r} is not in the text {self.text!r}.")
            return found[0]
        if not -len(self.tokens) <= which < len(self.tokens):
            raise ValueError(f"token={which} of a text of {len(self.tokens)} tokens, 0 to {len(self.tokens) - 1}.")
        return which % len(self.tokens)

    def places(self) -> list[tuple[int, int]]:
        """Where each token stands in the text, (start, end) in characters."""
        return spans(self.text, self.tokens)

    def share(self, token: int | str | None = None) -> Float[Tensor, "layer head"]:
        """Σ of attention over image positions, of every layer and head: of one token, or the mean over all."""
        found = self.values.sum(-1)
        return found.mean(0) if token is None else found[self.token(token)]

    def overlay(self, token: int | str, layer: Choice = None, head: Choice = None) -> Float[Tensor, "rows columns"]:
        """The attention of a token over the grid of the image. layer, head: None is the mean over all.

        Of an image that is cut into tiles, it is the tile that shows the whole.

        Raises:
            families.NoGrid: the image positions are no rectangle, with the reason.
            ValueError: no such token, layer or head; heads that were averaged when they were read.
        """
        return self._place(self._chosen(token, layer, head))

    def _chosen(self, token: int | str, layer: Choice, head: Choice) -> Float[Tensor, " image"]:
        values = self.values[self.token(token)]
        if layer is not None:
            if layer not in self.layers:
                raise ValueError(f"layer={layer} was not read; there are {', '.join(map(str, self.layers))}.")
            values = values[[list(self.layers).index(layer)]]
        if head is not None:
            if not 0 <= head < values.shape[1]:
                raise ValueError(
                    f"head={head} is not there: {values.shape[1]} were kept, 0 to {values.shape[1] - 1}; read the maps "
                    'with heads="all" to choose one.'
                )
            values = values[:, [head]]
        return values.mean((0, 1))

    def _place(self, values: Float[Tensor, " image"]) -> Float[Tensor, "rows columns"]:
        if self.no_grid:
            raise families.NoGrid(self.no_grid)
        if len(self.grids) > 1 and self.whole is None:
            raise families.NoGrid(f"the image has {len(self.grids)} rectangles of positions, and none shows all of it.")
        number = range(len(self.grids))[self.whole if len(self.grids) > 1 and self.whole is not None else 0]
        start = sum(rows * columns for rows, columns in self.grids[:number])
        rows, columns = self.grids[number]
        return values[start : start + rows * columns].reshape(rows, columns)


def attention_maps(
    lvlm: Any, image: Any, text: str, question: str = DETAIL, layers: Sequence[int] | None = None, heads: str = "all",
) -> AttentionMaps:  # fmt: skip
    """Where the model looks at an image when it writes a text about it, in one teacher-forced pass without decoders.

    Args:
        image: path, PIL image or array. text: the model's answer, or any other. question: that the text answers.
        layers: that are read; None is all. heads: "all", or "mean", which needs less memory.

    Raises:
        ValueError: an empty text, no such layer, or a model without processor. BadImage: an image that cannot be used.
    """
    (found,) = maps_of_texts(lvlm, [image], [caption_prompt(question)], [text], layers=layers, heads=heads)
    return found


def maps_of_texts(
    lvlm: Any, images: Sequence[Any], questions: Sequence[str], texts: Sequence[str], system: str | None = None,
    layers: Sequence[int] | None = None, heads: str = "all",
) -> list[AttentionMaps]:  # fmt: skip
    """As `attention_maps`, of one text about each of several images in one pass."""
    if heads not in ("all", "mean"):
        raise ValueError(f"heads={heads!r} is neither 'all' nor 'mean'.")
    images = [passed_on(image) for image in many_images(images)]
    questions = [str(one) for one in check_questions(list(questions), len(images))]
    ids = [answer_tokens(lvlm, question, text, system)[0] for question, text in zip(questions, texts, strict=True)]
    longest = max(map(len, ids))
    padded = torch.stack([torch.nn.functional.pad(one, (0, longest - len(one)), value=lvlm.pad_token) for one in ids])
    inputs = lvlm.prepare(images, questions, system)
    found = maps_of(lvlm, inputs, padded, layers, heads)
    areas = [seen_area(lvlm.processor, *image.size) for image in images]
    return [
        replace(one, text=text.strip(), area=area) for one, text, area in zip(found, texts, areas, strict=True)
    ]


@torch.no_grad()
def maps_of(
    lvlm: Any, inputs: Mapping[str, Tensor], ids: Tensor, layers: Sequence[int] | None = None, heads: str = "all"
) -> list[AttentionMaps]:
    """The maps of every row of prepared inputs. ids: (batch, token), padded on the right after the end."""
    chosen = check_layers(range(len(lvlm.layers)) if layers is None else layers, len(lvlm.layers), "attention_maps")
    record = teacher_force(lvlm, inputs, ids, [_Maps(tuple(chosen), heads == "all")])
    values, counts = record["attention_maps"], lvlm.image_mask(inputs["input_ids"]).sum(1).tolist()
    try:
        grids, reason = lvlm.grid(inputs), ""
    except families.NoGrid as refused:
        grids, reason = [()] * len(counts), str(refused)
    tokenizer = getattr(lvlm.processor, "tokenizer", None)
    out = []
    for row, count in enumerate(counts):
        kept = words_of(lvlm, record.ids[row].tolist())
        pieces = [str(token) if tokenizer is None else tokenizer.decode([token]) for token in kept]
        out.append(AttentionMaps(
            "".join(pieces).strip(), pieces, values[row, : len(kept), :, :, :count].cpu(),
            record.log_probability[row, : len(kept)].exp().cpu(), tuple(sorted(chosen)), grids[row], reason,
            families.family(lvlm.model).whole,
        ))  # fmt: skip
    return out


@dataclass(frozen=True)
class _Maps:
    """Asks for the maps as a detector asks for its readings."""

    layers: Sequence[int]
    heads: bool

    def readings(self, lvlm: Any, inputs: Any) -> Iterator[Reading]:
        yield Reading("attention_maps", self.layers, keep=partial(image_columns, heads=self.heads))


def image_columns(call: AttentionCall, heads: bool = True) -> Float[Tensor, "row token head image"]:
    """Attention of the rows that produce tokens to the image positions, in their order, 0 behind a row's last.

    heads: each by itself; otherwise their mean.
    """
    attention = call.probabilities(call.producing).float()
    if not heads:
        attention = attention.mean(1, keepdim=True)
    index = call.image.int().argsort(dim=1, descending=True, stable=True)[:, : int(call.image.sum(1).max())]
    there = call.image.gather(1, index)[:, None, None]
    kept = attention.gather(3, index[:, None, None].expand(*attention.shape[:3], -1)) * there
    return kept.transpose(1, 2)
