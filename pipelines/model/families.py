"""What differs between model families beyond what a model's configuration states: one row per model type.

Locating things needs no row: image positions, layers, norm and head are found in the model. A type without a row has
none of these differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KINDS = ("token_type_ids", "mm_token_type_ids")  # row inputs that give the kind of each token

Grid = tuple[int, int]


class NoGrid(ValueError):
    """The image positions of this family are no rectangles; the message gives the reason."""


@dataclass(frozen=True)
class Family:
    """The differences of one model type.

    appended: `token_type_ids` of a token behind the prompt. PaliGemma attends both ways at 0 (prefix) and backwards
    only at 1; Gemma 3 attends both ways within a run of 1 (image). `mm_token_type_ids` are 0, text, everywhere.
    around: attributes of the configuration, and around_names: beginnings of names in the tokenizer, of tokens that
    stand around an image and mean nothing without it; the image-free prompt is without them too.
    inside_names: beginnings of names of tokens that say that more of the same image follows: another tile or row.
    generates: the attribute that holds the model whose `generate` does the work, and whose settings therefore count:
    InstructBLIP hands embedded prompts to its language model's.
    needs_image: its forward pass fails without pixels, so that text alone gets a blank image that has no position.
    template: the prompt of one question for a processor without chat template; {image} once per image.
    grid: configuration -> (rows, columns) of one image or tile, all alike. no_grid: why there is none.
    whole: which of several tiles shows the whole image; None where an image is never cut into tiles.
    """

    appended: int = 0
    around: tuple[str, ...] = ()
    around_names: tuple[str, ...] = ()
    inside_names: tuple[str, ...] = ()
    generates: str = ""
    needs_image: bool = False
    template: str | None = None
    grid: Callable[[Any], Grid] | None = None
    no_grid: str = ""
    whole: int | None = None


def _square(side: int) -> Grid:
    return side, side


def _patches(config: Any) -> Grid:
    return _square(config.vision_config.image_size // config.vision_config.patch_size)


def _shuffled(config: Any) -> Grid:
    return _square(_patches(config)[0] // config.scale_factor)


_QWEN = Family(around=("vision_start_token_id", "vision_end_token_id"))
_TILED = Family(
    around_names=("<fake_token_around_image>", "<global-img>", "<row_"), inside_names=("<row_",), grid=_shuffled,
    whole=-1,
)  # fmt: skip
_NEWLINES = "a base image is followed by tiles whose rows end in newline positions"
FAMILIES: Mapping[str, Family] = {
    "aya_vision": Family(
        around_names=("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>", "TILE"),
        inside_names=tuple(f"TILE_{number}" for number in range(1, 10)),
        no_grid="an image is cut into tiles that are followed by the whole",
    ),
    "gemma3": Family(
        around=("boi_token_index", "eoi_token_index"),
        grid=lambda config: _square(round(config.mm_tokens_per_image**0.5)),
    ),
    "glm4v": Family(around=("image_start_token_id", "image_end_token_id")),
    "idefics3": _TILED,
    "instructblip": Family(
        generates="language_model", needs_image=True, template="{question}",
        no_grid="its image positions are query tokens, which have no place"
    ),
    "internvl": Family(
        around_names=("<img>", "</img>"), grid=lambda config: _square(round(config.image_seq_length**0.5)), whole=-1
    ),
    "llava": Family(template="USER: {image}\n{question} ASSISTANT:", grid=_patches),
    "llava_next": Family(no_grid=_NEWLINES),
    "llava_onevision": Family(no_grid=_NEWLINES),
    "mistral3": Family(
        around_names=("[IMG_BREAK]", "[IMG_END]"), inside_names=("[IMG_BREAK]",),
        no_grid="rows of image positions end in breaks",
    ),
    "paligemma": Family(appended=1, template="{image}{question}", grid=_patches),
    "qwen2_5_vl": _QWEN,
    "qwen2_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "smolvlm": _TILED,
}  # fmt: skip


def family(model: Any) -> Family:
    """The row of a model's type; an empty one where it has none."""
    return FAMILIES.get(model.config.model_type, Family())


def generator(model: Any) -> Any:
    """The model whose `generate` and generation settings are in force."""
    return getattr(model, family(model).generates, model)


def appended(model: Any, name: str) -> int:
    """The kind of a token behind the prompt, in `token_type_ids` or `mm_token_type_ids`."""
    return family(model).appended if name == "token_type_ids" else 0


def around(model: Any, tokenizer: Any = None) -> tuple[int, ...]:
    """Ids of the tokens around an image. Without a tokenizer, those that the configuration knows."""
    row, config = family(model), model.config
    known = [getattr(config, name, None) for name in row.around]
    return tuple(sorted({id for id in known if id is not None} | _named(tokenizer, row.around_names)))


def inside(model: Any, tokenizer: Any = None) -> tuple[int, ...]:
    """Ids of the tokens between the tiles or rows of one image. Without a tokenizer none is known."""
    return tuple(sorted(_named(tokenizer, family(model).inside_names)))


def _named(tokenizer: Any, names: tuple[str, ...]) -> set[int]:
    """Ids of the added tokens whose names begin so."""
    if tokenizer is None or not names:
        return set()
    return {id for token, id in tokenizer.get_added_vocab().items() if token.startswith(names)}


def with_blank_image(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs that this model's forward accepts: text alone gets a blank image where the family cannot do without."""
    out = dict(inputs)
    if not family(model).needs_image or "pixel_values" in inputs:
        return out
    side, ids = model.config.vision_config.image_size, inputs["input_ids"]
    height, width = (side, side) if isinstance(side, int) else side
    out["pixel_values"] = torch.zeros(1, 3, height, width, device=ids.device, dtype=model.dtype)
    out["qformer_input_ids"] = out["qformer_attention_mask"] = ids.new_ones(1, 1)
    return out


def q_former_first(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs in which Q-Former tokens (InstructBLIP) stand before their padding, as one prompt alone has them.

    The processor passes the text tokenizer's padding side, left, on to the Q-Former, which counts positions from the
    edge, so that its answer would depend on the other prompts of a batch.
    """
    out = dict(inputs)
    if "qformer_attention_mask" in inputs:
        order = inputs["qformer_attention_mask"].argsort(dim=1, descending=True, stable=True)
        for name in ("qformer_input_ids", "qformer_attention_mask"):
            out[name] = inputs[name].gather(1, order)
    return out


def direct_positions(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`position_ids` for a pass outside generate, counted as generate counts them: real tokens only, from 0.

    Without them a pass counts padding too, which matters where padding stands inside a row (InstructBLIP's processor
    puts the image in front of padded text). M-RoPE models (Qwen) compute their own where there is an image.
    """
    if hasattr(model.base_model, "get_rope_index") and "image_grid_thw" in inputs:
        return {}
    mask = inputs["attention_mask"]
    return {"position_ids": (mask.long().cumsum(1) - 1).masked_fill(mask == 0, 0)}


def check_positions(model: Any, inputs: Mapping[str, Tensor], positions: Tensor) -> None:
    """Raise ValueError unless `positions` are those that the model's generate counts itself.

    Every branch has a prompt of its own, so that there is no honouring others. Those of padding do not matter.
    """
    base = model.base_model
    stored = getattr(base, "rope_deltas", None)
    counted = generator(model)._prepare_position_ids_for_generation(inputs["input_ids"], dict(inputs))
    if hasattr(base, "rope_deltas"):  # Qwen's are overwritten
        base.rope_deltas = stored
    if counted.dim() == 3 and positions.dim() == 3 and len(positions) == len(counted) - 1:
        counted = counted[1:]  # without those of the text alone
    rows, length = counted.shape[-2:]
    fits = positions.dim() == counted.dim() and positions.shape[-1] == length and positions.shape[-2] in (1, rows)
    if not fits or bool(((positions != counted) & (inputs["attention_mask"] != 0)).any()):
        raise ValueError(
            f"position_ids {tuple(positions.shape)} are other than those that {type(model).__name__} counts from the "
            "attention mask. A method's branches have prompts and positions of their own, so that positions cannot be "
            "given: leave position_ids out, and mark padding in the attention mask."
        )


def grid(model: Any, inputs: Mapping[str, Tensor], image: Tensor) -> list[list[Grid]]:
    """Per row of the batch, the (rows, columns) of its images or tiles, in the order of their positions.

    Args:
        image: (row, position) bool, the image mask.

    Raises:
        NoGrid: the positions are no rectangles, or their number does not fit the configuration.
    """
    row, kind = family(model), model.config.model_type
    counts = image.sum(1).tolist()
    if "image_grid_thw" in inputs:
        merge = model.config.vision_config.spatial_merge_size
        shapes = [(t * h // merge, w // merge) for t, h, w in inputs["image_grid_thw"].tolist()]
    elif row.grid is not None:
        rows, columns = row.grid(model.config)
        shapes = [(rows, columns)] * (sum(counts) // (rows * columns))
    else:
        raise NoGrid(f"{kind} has no grid of image positions: {row.no_grid or 'its layout is not known here'}")
    out: list[list[Grid]] = []
    for count in counts:
        mine: list[Grid] = []
        while shapes and sum(r * c for r, c in mine) < count:
            mine.append(shapes.pop(0))
        if sum(r * c for r, c in mine) != count:
            raise NoGrid(f"{count} image positions of a {kind} row are no whole number of images: {mine}")
        out.append(mine)
    return out
