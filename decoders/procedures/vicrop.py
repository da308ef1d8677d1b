"""ViCrop: ask again beside a crop of what the model itself looks at.

Zhang et al., "MLLMs Know Where to Look: Training-free Perception of Small Visual Details with Multimodal LLMs",
ICLR 2025, arXiv 2502.17422.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ...pipelines.checks import check_at_least, check_choice, check_integers
from ...pipelines.engine.declarations import Branch, Reading
from ...pipelines.engine.run import complete, prefill
from ...pipelines.inputs.images import read_image
from ...pipelines.model.gradients import attention_gradient, pixel_gradient
from ...pipelines.results import Answer, answers_of
from .crop import Crop, best_crop, edges, pooled, relative, tiles, weighted

if TYPE_CHECKING:
    from ...pipelines.engine.attention import AttentionCall
    from ...pipelines.lvlm import LVLM
    from ...pipelines.procedures import Call

GENERIC = "Write a general description of the image."
SHORT = "Answer the question using a single word or phrase."
MAPS = ("rel_att", "grad_att", "pure_grad")
MODES = ("paper", "official")
SIDE = 224  # pixels of a crop where the vision encoder has no size of its own
MEDIAN = {"paper": 3, "official": 7}


def last_row(call: AttentionCall) -> Float[Tensor, "batch key"]:
    """Attention of the row that produces the next token, mean over heads, in float32."""
    return call.scores(call.producing).softmax(-1, dtype=torch.float32).mean((1, 2))


def default_layer(count: int) -> int:
    """Layer 14 of 32 from 0 (LLaVA-1.5), in proportion in other models."""
    return min(count - 1, round(count * 14 / 32))


@dataclass(frozen=True)
class ViCrop:
    r"""Find what the question makes the model look at, cut it out, and ask about picture and crop together.

    rel_att: A(q)/A(q′), A = mean_h attention of the last prompt token in one layer to the image tokens
    grad_att: mean_h A·max(∂v/∂A, 0), v = log-probability of the likeliest first token
    pure_grad: ‖∂v/∂pixels‖(q)/‖∂v/∂pixels‖(q′) over colours, where `edges` are, means over patches
    then `best_crop` of the map, and the answer to the question about [picture, crop]

    q: the question; q′: `generic` in the same prompt, with `suffix` behind it where the question ends in it.

    Args:
        importance: "rel_att", "grad_att" or "pure_grad".
        layer: 0-based; None is 14 of 32 in proportion (paper, LLaVA-1.5). Paper, Qwen2.5-VL-3B: 22.
        side: of the smallest crop in pixels of the picture; None is what the vision encoder reads, or 224. Paper: 336
            LLaVA-1.5, 224 Qwen2.5-VL.
        ratios: of crop sides tried to `side`. Paper: 1 to 2 in steps of 0.2.
        generic: the question of q′.
        suffix: the instruction for short answers that stands in both prompts or in neither. Paper, LLaVA-1.5: "Answer
            the question using a single word or phrase."
        tile: pixels above which a picture is mapped in tiles; None never. Paper's high-resolution variant: 1024.
        mode: "paper", or "official" for what the released code does with flat maps, small and oblong pictures.

    Raises:
        ValueError: a value outside its range; when asked, a model whose image positions are no single rectangle, or
            (pure_grad) whose pixels are no whole pictures.

    Values are those of the released code; the paper's were read second-hand. Our departures, all undone by
    `mode="official"`: a map in which no window stands out, and a picture no larger than the crop, give the plain answer
    (code: a crop at the top left, the picture twice); an oblong picture that the processor would crop is mapped as a
    square (code: the middle's map stretched over the whole). Median filter 3 (code: 7). The map is the plain model's;
    decoders behind ViCrop act on the answer. Pass `suffix` with the question, as the prompt "@vicrop" does: it is not
    added to a question that lacks it. InstructBLIP, whose map needs its Q-Former, is not done.
    """

    importance: Literal["rel_att", "grad_att", "pure_grad"] = "rel_att"
    layer: int | None = None
    side: int | None = None
    ratios: Sequence[float] = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    generic: str = GENERIC
    suffix: str = SHORT
    tile: int | None = None
    mode: Literal["paper", "official"] = "paper"

    paper: ClassVar[str] = "arXiv 2502.17422"
    by_model: ClassVar[Mapping[str, Mapping[str, Any]]] = {r"qwen2\.5-vl-3b": {"layer": 22}}
    changes: ClassVar[str] = "nothing inside: adds a crop of the picture to the prompt"
    cost: ClassVar[str] = "1 extra prefill of two rows (with gradients: 1 or 2 passes back), twice the image tokens"
    differs: ClassVar[str] = (
        "The code crops at the top left where no window stands out, shows pictures smaller than the crop twice, "
        "stretches a centre crop's map over oblong pictures, and filters edges by 7 pixels, not 3. official() does so."
    )
    families: ClassVar[str] = (
        "models with one rectangle of image positions per picture and room for two pictures; not InstructBLIP, "
        "LLaVA-NeXT, LLaVA-OneVision, or pictures cut into tiles"
    )

    def __post_init__(self) -> None:
        check_choice("importance", self.importance, MAPS, "where the map comes from")
        check_choice("mode", self.mode, MODES, "whose rules")
        for name, least in (("layer", 0), ("side", 1), ("tile", 1)):
            if (value := getattr(self, name)) is not None:
                check_integers(name, (value,), "layer, or pixels")
                check_at_least(name, value, least, "layer, or pixels")
        object.__setattr__(self, "ratios", tuple(self.ratios))
        if not self.ratios:
            raise ValueError("ratios is empty: give at least one size of crop")
        for ratio in self.ratios:
            check_at_least("ratios", ratio, 0.01, "size of a crop in units of side")
        if not self.generic.strip():
            raise ValueError("generic is empty; the map is measured against a general question: give one")

    @classmethod
    def official(cls) -> ViCrop:
        """What the released code does."""
        return cls(mode="official")

    def check(self, questions: Sequence[str], detectors: Sequence[Any], generation: Mapping[str, Any]) -> None:
        """Nothing is impossible before the model is known."""

    def answers(
        self, call: Call, images: Sequence[Any], questions: Sequence[str], seeds: Sequence[int]
    ) -> list[Answer]:
        pictures = [read_image(image) for image in images]
        crops = [self.crop(call, picture, question) for picture, question in zip(pictures, questions, strict=True)]
        used = [self.mode == "official" or (not crop.whole and crop.sharpness > 0) for crop in crops]
        out: dict[int, Answer] = {}
        for cropped in (False, True):  # prompts of one picture and of two
            rows = [row for row, use in enumerate(used) if use == cropped]
            if not rows:
                continue
            shown = [[pictures[row], pictures[row].crop(crops[row].box)][: 1 + cropped] for row in rows]
            inputs = call.inputs(shown, [questions[row] for row in rows])
            made = call.generate(inputs, [seeds[row] for row in rows])
            out |= dict(zip(rows, answers_of(call.lvlm, made), strict=True))
        for row, crop in enumerate(crops):
            box = dict(zip(("left", "top", "right", "bottom"), map(float, crop.box), strict=True))
            acted = {"steps": 1.0, "acted": float(used[row]), "flipped": 0.0, "kl": 0.0}
            out[row].acted = {"vicrop": {**acted, "sharpness": crop.sharpness, **box}, **out[row].acted}
        return [out[row] for row in range(len(images))]

    def crop(self, call: Call, picture: Image.Image, question: str) -> Crop:
        """Where to cut one picture for one question."""
        side = self.side or _encoder_side(call.lvlm)
        return best_crop(self.map(call, picture, question), picture.size, side, self.ratios)

    def map(self, call: Call, picture: Image.Image, question: str) -> Float[Tensor, "row column"]:
        """How much each part of the picture matters to the question; tiles of a large picture side by side."""
        rows, columns = (1, 1) if self.tile is None else tiles(picture.size, self.tile)
        xs, ys = (
            [round(edge * number / count) for number in range(count + 1)]
            for edge, count in zip(picture.size, (columns, rows), strict=True)
        )
        part = lambda x, y: picture.crop((xs[x], ys[y], xs[x + 1], ys[y + 1]))
        return torch.cat([
            torch.cat([self.map_of(call, part(x, y), question) for x in range(columns)], 1) for y in range(rows)
        ])  # fmt: skip

    def map_of(self, call: Call, picture: Image.Image, question: str) -> Float[Tensor, "row column"]:
        """The map of one picture, on the grid of its image positions."""
        lvlm = call.lvlm
        shown = self.whole(lvlm, picture)
        asked, generic = (call.inputs([shown], [text]) for text in (question, self.generic_for(question)))
        grid = _one_grid(lvlm, asked)
        if self.importance == "pure_grad":
            slope = relative(pixel_gradient(lvlm, asked), pixel_gradient(lvlm, generic))
            values = np.asarray(shown.resize((slope.shape[1], slope.shape[0])), np.float32) / 255
            changing = edges(torch.from_numpy(values).permute(2, 0, 1).to(slope), MEDIAN[self.mode])
            return pooled(slope * changing, grid)
        layer = default_layer(len(lvlm.layers)) if self.layer is None else self.layer
        if not layer < len(lvlm.layers):
            raise ValueError(f"ViCrop asks for layer {layer}, but this model's layers are 0 to {len(lvlm.layers) - 1}.")
        if self.importance == "grad_att":
            attention, gradient = attention_gradient(lvlm, asked, layer)  # head key
            image = lvlm.image_mask(asked["input_ids"])[0].to(attention.device)
            return weighted(attention[:, image], gradient[:, image]).reshape(grid)
        reading = Reading("vicrop", [layer], keep=last_row, branch="all")
        beside = Branch("generic", complete(lvlm, generic))
        seen = prefill(lvlm, asked, [reading, beside]).latest("vicrop")[0]  # block key
        specific, general = (
            row[-block["input_ids"].shape[1] :][lvlm.image_mask(block["input_ids"])[0].to(row.device)]
            for row, block in zip(seen, (asked, generic), strict=True)
        )
        return relative(specific, general).reshape(grid)

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

    def whole(self, lvlm: LVLM, picture: Image.Image) -> Image.Image:
        """The picture as the map sees it: a square where the processor would cut an oblong one."""
        cuts = getattr(getattr(lvlm.processor, "image_processor", None), "do_center_crop", False)
        if self.mode == "official" or not cuts or picture.width == picture.height:
            return picture
        return picture.resize((max(picture.size),) * 2)


def _encoder_side(lvlm: LVLM) -> int:
    size = getattr(getattr(lvlm.model.config, "vision_config", None), "image_size", None)
    return size if isinstance(size, int) else SIDE


def _one_grid(lvlm: LVLM, inputs: Mapping[str, Tensor]) -> tuple[int, int]:
    (grids,) = lvlm.grid(inputs)
    if len(grids) != 1:
        raise ValueError(
            f"ViCrop cuts where one rectangle of image positions says; {lvlm.name} has {len(grids)} for this picture "
            "(tiles): switch tiling off in its image processor, or use another method"
        )
    return grids[0]
