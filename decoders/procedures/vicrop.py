"""ViCrop: the question once more, beside a crop of what the model attends to.

Zhang et al., "MLLMs Know Where to Look: Training-free Perception of Small Visual Details with Multimodal LLMs",
ICLR 2025, arXiv 2502.17422.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ...pipelines.checks import check_at_least
from ...pipelines.engine.declarations import Branch, Reading
from ...pipelines.engine.run import complete, prefill
from ...pipelines.inputs.images import read_image
from ...pipelines.method import count, one_of, ruled
from ...pipelines.model.gradients import attention_gradient, pixel_gradient
from ...pipelines.procedures import Procedure
from ...pipelines.results import Answer, answers_of
from ..image_tokens import last_row
from .crop import Crop, best_crop, edges, pooled, relative, tiles, weighted

if TYPE_CHECKING:
    from ...pipelines.model.layout import Layout
    from ...pipelines.procedures import Call

GENERIC = "Write a general description of the image."
SHORT = "Answer the question using a single word or phrase."
MAPS = ("rel_att", "grad_att", "pure_grad")
SIDE = 224  # pixels of a crop where the vision encoder has no size of its own
MEDIAN = {"paper": 3, "official": 7}


def default_layer(count: int) -> int:
    """Layer 14 of 32 from 0 (LLaVA-1.5), in proportion in other models."""
    return min(count - 1, round(count * 14 / 32))


def _ratios(name: str, value: Any) -> tuple[float, ...]:
    if not (found := tuple(value)):
        raise ValueError(f"{name} is empty: give at least one size of crop")
    return tuple(check_at_least(name, ratio, 0.01, "size of a crop in units of side") for ratio in found)


def _question(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is empty; the map is measured against a general question: give one")
    return value


@dataclass(frozen=True)
class ViCrop(Procedure):
    r"""Find what the model attends to under the question, crop it, and answer about image and crop together.

    rel_att: A(q)/A(q′), A = mean_h attention of the last prompt token in one layer to the image tokens
    grad_att: mean_h A·max(∂v/∂A, 0), v = log-probability of the likeliest first token
    pure_grad: ‖∂v/∂pixels‖(q)/‖∂v/∂pixels‖(q′) over colours, where `edges` are, means over patches
    then `best_crop` of the map, and the answer to the question about [image, crop]

    q: the question; q′: `generic` in the same prompt, with `suffix` behind it where the question ends in it.

    `importance` is one of the three maps, of layer `layer`; windows have `side` times one of `ratios`; images above
    `tile` are mapped in tiles. `mode="official"`: what the released code does with flat maps, small and oblong images.

    Raises:
        ValueError: a value outside its range; when answering starts, a model whose image positions are no
            single rectangle, or (pure_grad) whose pixels are no whole images.

    Values are those of the released code; the paper's were read second-hand. Our departures, all undone by
    `mode="official"`: a map in which no window stands out, and an image no larger than the crop, give the plain answer
    (code: a crop at the top left, the image twice); an oblong image that the processor would crop is mapped as a
    square (code: the middle's map stretched over the whole). Median filter 3 (code: 7). The map is the plain model's;
    decoders behind ViCrop act on the answer. Pass `suffix` with the question, as the prompt "@vicrop" does: it is not
    added to a question that lacks it. InstructBLIP, whose map needs its Q-Former, is not done.
    """

    importance: Literal["rel_att", "grad_att", "pure_grad"] = one_of(MAPS, "where the map comes from")
    layer: int | None = count(
        None, "layer that is read, 0-based", "By default 14 of 32 in proportion (paper, LLaVA-1.5); Qwen2.5-VL-3B: 22."
    )
    side: int | None = count(
        None, "side of the smallest crop, pixels of the image",
        "By default what the vision encoder reads, or 224. Paper: 336 LLaVA-1.5, 224 Qwen2.5-VL.", low=1,
    )  # fmt: skip
    ratios: Sequence[float] = ruled(
        (1.0, 1.2, 1.4, 1.6, 1.8, 2.0), "sizes of crops in units of side", "numbers above 0",
        "Paper: 1 to 2 in steps of 0.2.", _ratios,
    )  # fmt: skip
    generic: str = ruled(GENERIC, "the question of q′", "a text", "", _question)
    suffix: str = ruled(
        SHORT, "the instruction for short answers that stands in both prompts or in neither", "a text",
        'Paper, LLaVA-1.5: "Answer the question using a single word or phrase."',
    )  # fmt: skip
    tile: int | None = count(
        None, "pixels above which an image is mapped in tiles",
        "By default never. Paper's high-resolution variant: 1024.", low=1,
    )  # fmt: skip
    mode: Literal["paper", "official"] = one_of(("paper", "official"), "whose rules")

    two_images = True
    released = {"mode": "official"}
    by_model = {r"qwen2\.5-vl-3b": {"layer": 22}}

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        opened = [read_image(image) for image in images]
        crops = [self.crop(call, image, question) for image, question in zip(opened, questions, strict=True)]
        used = [self.mode == "official" or (not crop.whole and crop.sharpness > 0) for crop in crops]
        out: dict[int, Answer] = {}
        for cropped in (False, True):  # prompts of one image and of two
            rows = [row for row, use in enumerate(used) if use == cropped]
            if not rows:
                continue
            shown = [[opened[row], opened[row].crop(crops[row].box)][: 1 + cropped] for row in rows]
            inputs = call.inputs(shown, [questions[row] for row in rows])
            generation = call.generate(inputs, [seeds[row] for row in rows])
            out |= dict(zip(rows, answers_of(call.lvlm, generation), strict=True))
        for row, crop in enumerate(crops):
            box = dict(zip(("left", "top", "right", "bottom"), map(float, crop.box), strict=True))
            acted = {"steps": 1.0, "acted": float(used[row]), "flipped": 0.0, "kl": 0.0}
            out[row].acted = {"vicrop": {**acted, "sharpness": crop.sharpness, **box}, **out[row].acted}
        return [out[row] for row in range(len(images))]

    def crop(self, call: Call, image: Image.Image, question: str) -> Crop:
        """Where to crop one image for one question."""
        side = self.side or _encoder_side(call.lvlm)
        return best_crop(self.map(call, image, question), image.size, side, self.ratios)

    def map(self, call: Call, image: Image.Image, question: str) -> Float[Tensor, "row column"]:
        """How much each part of the image matters to the question; tiles of a large image side by side."""
        rows, columns = (1, 1) if self.tile is None else tiles(image.size, self.tile)
        xs, ys = (
            [round(edge * number / count) for number in range(count + 1)]
            for edge, count in zip(image.size, (columns, rows), strict=True)
        )
        part = lambda x, y: image.crop((xs[x], ys[y], xs[x + 1], ys[y + 1]))
        return torch.cat([
            torch.cat([self.map_of(call, part(x, y), question) for x in range(columns)], 1) for y in range(rows)
        ])  # fmt: skip

    def map_of(self, call: Call, part: Image.Image, question: str) -> Float[Tensor, "row column"]:
        """The map of one image, on the grid of its image positions."""
        lvlm = call.lvlm
        shown = self.whole(lvlm, part)
        specific, generic = (call.inputs([shown], [text]) for text in (question, self.generic_for(question)))
        grid = _one_grid(lvlm, specific)
        if self.importance == "pure_grad":
            slope = relative(pixel_gradient(lvlm, specific), pixel_gradient(lvlm, generic))
            values = np.asarray(shown.resize((slope.shape[1], slope.shape[0])), np.float32) / 255
            changing = edges(torch.from_numpy(values).permute(2, 0, 1).to(slope), MEDIAN[self.mode])
            return pooled(slope * changing, grid)
        layer = default_layer(len(lvlm.layers)) if self.layer is None else self.layer
        if not layer < len(lvlm.layers):
            raise ValueError(f"ViCrop asks for layer {layer}, but this model's layers are 0 to {len(lvlm.layers) - 1}.")
        if self.importance == "grad_att":
            attention, gradient = attention_gradient(lvlm, specific, layer)  # head key
            image = lvlm.image_mask(specific["input_ids"])[0].to(attention.device)
            return weighted(attention[:, image], gradient[:, image]).reshape(grid)
        reading = Reading("vicrop", [layer], keep=last_row, branch="all")
        beside = Branch("generic", complete(lvlm, generic))
        rows = prefill(lvlm, specific, [reading, beside]).latest("vicrop")[0]  # block key
        of_question, of_general = (
            row[-block["input_ids"].shape[1] :][lvlm.image_mask(block["input_ids"])[0].to(row.device)]
            for row, block in zip(rows, (specific, generic), strict=True)
        )
        return relative(of_question, of_general).reshape(grid)

    def generic_for(self, question: str) -> str:
        """The general question in the prompt of another: what separates that question from its suffix is kept.

        >>> ViCrop().generic_for("Is it red?")
        'Write a general description of the image.'
        >>> ViCrop(generic="Describe it.", suffix="Be brief.").generic_for("Is it red? Be brief.")
        'Describe it. Be brief.'
        """
        bare = question.removesuffix(self.suffix)
        gap = bare[len(bare.rstrip()) :]
        return f"{self.generic}{gap}{self.suffix}" if self.suffix and bare != question else self.generic

    def whole(self, lvlm: Layout, image: Image.Image) -> Image.Image:
        """The image that is mapped: a square where the processor would cut an oblong one."""
        cuts = getattr(getattr(lvlm.processor, "image_processor", None), "do_center_crop", False)
        if self.mode == "official" or not cuts or image.width == image.height:
            return image
        return image.resize((max(image.size),) * 2)


def _encoder_side(lvlm: Layout) -> int:
    size = getattr(getattr(lvlm.model.config, "vision_config", None), "image_size", None)
    return size if isinstance(size, int) else SIDE


def _one_grid(lvlm: Layout, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
    (grids,) = lvlm.grid(inputs)
    if len(grids) != 1:
        raise ValueError(
            f"ViCrop cuts where one rectangle of image positions says; {lvlm.name} has {len(grids)} for this image "
            "(tiles): switch tiling off in its image processor, or use another method"
        )
    return grids[0]
