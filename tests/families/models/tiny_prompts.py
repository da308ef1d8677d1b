"""Prompts for the tiny models, laid out as each family's own processor does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .tiny_families import Family
from .tiny_weights import BOS, FIRST_WORD, IMAGE, PAD, SIDE, VOCAB, pixels

ROW_NAMES = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels")
TILED = ("pixel_values", "pixel_attention_mask")  # second dimension: tiles, padded with zeros


def words(count: int, seed: int) -> list[int]:
    """Random ordinary token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(FIRST_WORD, VOCAB, (count,), generator=generator).tolist()


def prompt(family: Family, before: int, after: int, seed: int = 0, wide: bool = False, images: int = 1) -> dict:
    """One unpadded prompt: BOS, words, image, words; further images have two words between them.

    Where the family puts the image first, the words before it stand behind BOS instead.
    """
    shown = [family.image(seed + 10 * number, wide) for number in range(images)]
    head, tail = [BOS, *words(before, 1000 + seed)], words(after, 2000 + seed)
    if family.image_first:
        tokens = [token for one in shown for token in one.tokens] + head + tail
    else:
        middle = list(shown[0].tokens)
        for number, one in enumerate(shown[1:]):
            middle += [*words(2, 4000 + seed + number), *one.tokens]
        tokens = head + middle + tail
    out = rows(family, tokens)
    for name in shown[0].tensors:
        parts = [one.tensors[name] for one in shown]
        out[name] = torch.cat(parts, dim=1 if family.tiled else 0)
    if family.name == "llava_onevision":
        if images > 1:
            raise ValueError("see several_images")
        out["batch_num_images"] = torch.tensor([images])
    if family.name == "instructblip":
        out["qformer_input_ids"] = torch.tensor([words(3 + after, 5000 + seed)])
        out["qformer_attention_mask"] = torch.ones_like(out["qformer_input_ids"])
    return out


def several_images(family: Family, seed: int = 0) -> dict:
    """A prompt with two images."""
    if family.name != "llava_onevision":
        return prompt(family, 2, 3, seed, images=2)
    image = [IMAGE] * 5  # beside others an image is not cut into tiles: 2 × 2 positions and one newline
    out = rows(family, [BOS, *words(2, seed), *image, *words(2, seed + 1), *image, *words(3, seed + 2)])
    return {
        **out, "pixel_values": pixels(2, 1, 3, SIDE, SIDE, seed=seed), "image_sizes": torch.tensor([[64, 32]] * 2),
        "batch_num_images": torch.tensor([2]),
    }  # fmt: skip


def text_only(family: Family, length: int, seed: int = 0) -> dict:
    """A prompt without an image, as the processor returns it for text alone."""
    return rows(family, [BOS, *words(length, 6000 + seed)])


def rows(family: Family, tokens: Sequence[int]) -> dict[str, Tensor]:
    ids = torch.tensor([list(tokens)])
    out = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if family.token_types is not None:
        name, kind = family.token_types
        out[name] = torch.where(ids == IMAGE, kind, 0)
    if family.name == "paligemma":  # its processor adds labels whenever it returns token types
        out["labels"] = torch.full_like(ids, -100)
    return out


def batch(family: Family, prompts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Several prompts as one left-padded batch, laid out as the processor does it."""
    longest = max(one["input_ids"].shape[1] for one in prompts)
    fills = {"input_ids": PAD, "labels": -100}
    out = {}
    for name in prompts[0]:
        parts = [one[name] for one in prompts]
        if name in ROW_NAMES:
            parts = [_padded(family, one, name, longest, fills.get(name, 0)) for one in prompts]
        elif name.startswith("qformer"):  # padded on the right, as BERT's tokenizer does
            width = max(part.shape[1] for part in parts)
            parts = [nn.functional.pad(part, (0, width - part.shape[1])) for part in parts]
        elif name in TILED and parts[0].dim() + (name != "pixel_values") == 5:
            most = max(part.shape[1] for part in parts)
            parts = [torch.cat([p, p.new_zeros(p.shape[0], most - p.shape[1], *p.shape[2:])], 1) for p in parts]
        out[name] = torch.cat(parts)
    return out


def _padded(family: Family, one: Mapping[str, Tensor], name: str, length: int, value: int) -> Tensor:
    row, short = one[name], length - one["input_ids"].shape[1]
    filler = row.new_full((1, short), value)
    if not family.pads_inside:
        return torch.cat([filler, row], 1)
    first = int((one["input_ids"][0] == IMAGE).sum())  # the text was padded before the image was put in front
    return torch.cat([row[:, :first], filler, row[:, first:]], 1)


def two_prompts(family: Family) -> list[dict[str, Tensor]]:
    """Two prompts of different lengths with images of different shapes, the wide one first."""
    return [prompt(family, 2, 6, 1, wide=True), prompt(family, 3, 3, 2)]


def other_image(inputs: Mapping[str, Tensor], seed: int = 77) -> dict[str, Tensor]:
    """The same prompts with other pixels; tiles that are padding stay zero."""
    old = inputs["pixel_values"]
    return {**inputs, "pixel_values": torch.where(old == 0, old, pixels(*old.shape, seed=seed).to(old.dtype))}
