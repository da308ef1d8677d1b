"""A tiny random model of every supported family, and prompts for it as the family's own processor lays them out.

Nothing is downloaded: each model is built from its configuration class, float32, on CPU. Every weight is drawn so that
activations keep unit size; what usual initialisation (sd 0.02, zeros in Gemma 3's projector and InstructBLIP's query
tokens) makes nearly constant then varies, the picture above all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn

PAD, BOS, IMAGE, VIDEO, START, END, FAKE, GLOBAL, NEWLINE, ROW = range(10)  # ROW + n: tile n of SmolVLM and Idefics3
FIRST_WORD, VOCAB = 16, 128
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 64, 6, 4, 2, 16
SIDE = 32  # pixels of a square picture or tile
WINDOW = 8  # Gemma 3's sliding window, shorter than every prompt here

ROW_NAMES = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels")
TILED = ("pixel_values", "pixel_attention_mask")  # second dimension: tiles, padded with zeros


@dataclass(frozen=True)
class Picture:
    """One picture in a prompt: its tokens, wrappers included, and what the processor returns for it."""

    tokens: list[int]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def placeholders(self) -> int:
        return self.tokens.count(IMAGE)


@dataclass(frozen=True)
class Family:
    """How to build one family and its inputs.

    picture: (seed, wide) -> Picture; `wide` asks for the other shape where the family has several.
    image_first: the processor puts the picture before BOS and before any padding of the text (InstructBLIP), or
    before BOS (PaliGemma). token_types: name of the row kinds its processor returns, and the kind of a placeholder.
    one_picture: why a prompt holds one picture only, or "".
    """

    name: str
    build: Callable[..., Any]
    picture: Callable[[int, bool], Picture]
    image_first: bool = False
    pads_inside: bool = False
    token_types: tuple[str, int] | None = None
    one_picture: str = ""
    tiled: bool = False


# -- weights -------------------------------------------------------------------------------------------------------
def fill(model: nn.Module, seed: int = 0, sharpness: float = 1.5) -> None:
    """Draw every weight again, in place, so that activations keep unit size.

    sharpness: gain of the decoder's query and key projections; attention scores then have a deviation of its square.
    """
    generator = torch.Generator().manual_seed(seed)
    for path, module in model.named_modules():
        kind = type(module).__name__
        for name, weight in module.named_parameters(recurse=False):
            noise = torch.randn(weight.shape, generator=generator)
            if "Norm" in kind:
                centre = 1.0 if name == "weight" and not kind.startswith("Gemma") else 0.0  # Gemma multiplies by 1 + w
                weight.data = centre + 0.1 * noise
            elif name.endswith("bias"):
                weight.data = 0.1 * noise
            elif isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
                decoder = "language_model" in path or "text_model" in path
                gain = sharpness if decoder and path.endswith(("q_proj", "k_proj")) else 1.0
                weight.data = gain * noise * (weight.numel() / weight.shape[0]) ** -0.5
            elif name == "mm_input_projection_weight":  # Gemma 3's projector, which starts at zero
                weight.data = noise * weight.shape[0] ** -0.5
            elif "lambda" in name:  # InternVL's layer scales
                weight.data = 0.5 + 0.1 * noise
            elif path.endswith("embed_tokens") and "Gemma" in type(model).__name__:
                weight.data = noise * weight.shape[1] ** -0.5  # the decoder multiplies by √hidden
            else:  # embeddings, class and query tokens, newlines: entries of size 1
                weight.data = noise


def finish(model: Any, seed: int = 0) -> Any:
    """Weights, and a vocabulary whose special tokens are never the largest; generation runs to its full length."""
    model = model.eval().requires_grad_(False)
    fill(model, seed)
    model.get_output_embeddings().weight[:FIRST_WORD] = 0
    for part in (model, getattr(model, "language_model", None)):
        config = getattr(part, "generation_config", None)
        if config is not None:
            config.eos_token_id, config.pad_token_id, config.bos_token_id = None, PAD, BOS
    return model


def text(kind: type, **changes: Any) -> Any:
    """A small decoder configuration of this class."""
    common = {
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "max_position_embeddings": 256,
        "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip
    return kind(**{**common, **changes})


def vision(kind: type, patch: int, **changes: Any) -> Any:
    """A small vision configuration of this class: two layers, 32 × 32 pixels."""
    common = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": SIDE, "patch_size": patch,
    }  # fmt: skip
    return kind(**{**common, **changes})


def pixels(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3000 + seed))


# -- the families --------------------------------------------------------------------------------------------------
def build(model: type, config: Any, attention: str | None, seed: int = 0) -> Any:
    if attention is not None:
        config._attn_implementation = attention
    return finish(model(config), seed)


def llava(attention: str | None = None) -> Any:
    config = tf.LlavaConfig(
        vision_config=vision(tf.CLIPVisionConfig, 16),
        text_config=text(tf.LlamaConfig, num_key_value_heads=HEADS),
        image_token_index=IMAGE, image_seq_length=4, vision_feature_layer=-2,
    )  # fmt: skip
    return build(tf.LlavaForConditionalGeneration, config, attention)


def llava_picture(seed: int, wide: bool) -> Picture:
    return Picture([IMAGE] * 4, {"pixel_values": pixels(1, 3, SIDE, SIDE, seed=seed)})


PINPOINTS = [[64, 32], [64, 64]]


def llava_next(attention: str | None = None) -> Any:
    config = tf.LlavaNextConfig(
        vision_config=vision(tf.CLIPVisionConfig, 16),
        text_config=text(tf.MistralConfig, sliding_window=None, head_dim=HEAD_DIM),
        image_token_index=IMAGE, image_grid_pinpoints=PINPOINTS, vision_feature_layer=-2,
    )  # fmt: skip
    return build(tf.LlavaNextForConditionalGeneration, config, attention)


def llava_onevision(attention: str | None = None) -> Any:
    config = tf.LlavaOnevisionConfig(
        vision_config=vision(tf.SiglipVisionConfig, 16, vision_use_head=False),
        text_config=text(tf.Qwen2Config),
        image_token_index=IMAGE, video_token_index=VIDEO, image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    return build(tf.LlavaOnevisionForConditionalGeneration, config, attention)


def anyres_picture(seed: int, wide: bool) -> Picture:
    """A base picture of 2 × 2 positions, then tiles of 2 × 2 as one grid with a newline at the end of each row.

    Tall: two tiles, 4 rows of 2 + newline = 12 positions. Wide: four tiles, 4 rows of 4 + newline = 20.
    """
    size, tiles, positions = ([64, 64], 4, 20) if wide else ([64, 32], 2, 12)
    tensors = {"pixel_values": pixels(1, 1 + tiles, 3, SIDE, SIDE, seed=seed), "image_sizes": torch.tensor([size])}
    return Picture([IMAGE] * (4 + positions), tensors)


def instructblip(attention: str | None = None) -> Any:
    config = tf.InstructBlipConfig(
        vision_config=vision(tf.InstructBlipVisionConfig, 16),
        qformer_config=tf.InstructBlipQFormerConfig(
            vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=64, cross_attention_frequency=1, encoder_hidden_size=32,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        ),
        text_config=text(tf.LlamaConfig, num_key_value_heads=HEADS),
        num_query_tokens=6, image_token_index=IMAGE,
    )  # fmt: skip
    return build(tf.InstructBlipForConditionalGeneration, config, attention)


def instructblip_picture(seed: int, wide: bool) -> Picture:
    return Picture([IMAGE] * 6, {"pixel_values": pixels(1, 3, SIDE, SIDE, seed=seed)})


MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
QWEN_IDS = {
    "image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END,
    "tie_word_embeddings": False,
}  # fmt: skip


def qwen2_vl(attention: str | None = None) -> Any:
    config = tf.Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2,
                       "patch_size": 8},
        text_config=text(dict, rope_parameters=MROPE),
        **QWEN_IDS,
    )  # fmt: skip
    return build(tf.Qwen2VLForConditionalGeneration, config, attention)


def qwen2_5_vl(attention: str | None = None) -> Any:
    config = tf.Qwen2_5_VLConfig(
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8,
                       "window_size": 32, "out_hidden_size": HIDDEN, "fullatt_block_indexes": [1]},
        text_config=text(dict, rope_parameters=MROPE),
        **QWEN_IDS,
    )  # fmt: skip
    return build(tf.Qwen2_5_VLForConditionalGeneration, config, attention)


def qwen3_vl(attention: str | None = None) -> Any:
    config = tf.Qwen3VLConfig(
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8,
                       "out_hidden_size": HIDDEN, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        text_config=text(dict, head_dim=HEAD_DIM, rope_parameters={**MROPE, "mrope_interleaved": True}),
        **QWEN_IDS,
    )  # fmt: skip
    return build(tf.Qwen3VLForConditionalGeneration, config, attention)


def qwen_picture(seed: int, wide: bool) -> Picture:
    """Patches of 8 × 8 pixels in two frames, flattened; four patches make one position."""
    grid = [1, 4, 8] if wide else [1, 4, 4]
    count = grid[1] * grid[2]
    tensors = {"pixel_values": pixels(count, 3 * 2 * 8 * 8, seed=seed), "image_grid_thw": torch.tensor([grid])}
    return Picture([START, *[IMAGE] * (count // 4), END], tensors)


def internvl(attention: str | None = None) -> Any:
    config = tf.InternVLConfig(
        vision_config=vision(tf.InternVLVisionConfig, 8, image_size=[SIDE, SIDE], patch_size=[8, 8]),
        text_config=text(tf.Qwen2Config),
        image_token_id=IMAGE, image_seq_length=4, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.InternVLForConditionalGeneration, config, attention)


def internvl_picture(seed: int, wide: bool) -> Picture:
    """A wide picture is two tiles and a thumbnail, one after another."""
    tiles = 3 if wide else 1
    return Picture([START, *[IMAGE] * 4 * tiles, END], {"pixel_values": pixels(tiles, 3, SIDE, SIDE, seed=seed)})


def smolvlm(attention: str | None = None) -> Any:
    config = tf.SmolVLMConfig(
        vision_config=vision(tf.SmolVLMVisionConfig, 8),
        text_config=text(tf.LlamaConfig),
        image_token_id=IMAGE, scale_factor=2, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.SmolVLMForConditionalGeneration, config, attention)


def idefics3(attention: str | None = None) -> Any:
    config = tf.Idefics3Config(
        vision_config=vision(tf.models.idefics3.Idefics3VisionConfig, 8),
        text_config=text(tf.LlamaConfig),
        image_token_id=IMAGE, scale_factor=2, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.Idefics3ForConditionalGeneration, config, attention)


def tiled_picture(seed: int, wide: bool) -> Picture:
    """A wide picture is two tiles and the whole, four positions each, with row tokens between them."""
    tiles = 3 if wide else 1
    tokens = [FAKE, ROW, *[IMAGE] * 4, FAKE, ROW + 1, *[IMAGE] * 4, NEWLINE] if wide else []
    tokens += [FAKE, GLOBAL, *[IMAGE] * 4, FAKE]
    mask = torch.ones(1, tiles, SIDE, SIDE, dtype=torch.long)
    return Picture(tokens, {"pixel_values": pixels(1, tiles, 3, SIDE, SIDE, seed=seed), "pixel_attention_mask": mask})


def paligemma(attention: str | None = None) -> Any:
    config = tf.PaliGemmaConfig(
        vision_config=vision(tf.SiglipVisionConfig, 16, vision_use_head=False, projection_dim=HIDDEN),
        text_config=text(tf.GemmaConfig, num_key_value_heads=1, head_dim=HEAD_DIM),
        image_token_index=IMAGE, projection_dim=HIDDEN, hidden_size=HIDDEN, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.PaliGemmaForConditionalGeneration, config, attention)


def paligemma2(attention: str | None = None) -> Any:
    """PaliGemma over Gemma 2: soft-capped scores and logits, sliding layers; transformers runs it eager."""
    config = tf.PaliGemmaConfig(
        vision_config=vision(tf.SiglipVisionConfig, 16, vision_use_head=False, projection_dim=HIDDEN),
        text_config=text(
            tf.Gemma2Config, head_dim=HEAD_DIM, query_pre_attn_scalar=HEAD_DIM, sliding_window=WINDOW,
            attn_logit_softcapping=5.0, final_logit_softcapping=3.0,
        ),
        image_token_index=IMAGE, projection_dim=HIDDEN, hidden_size=HIDDEN, tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.PaliGemmaForConditionalGeneration, config, attention)


def paligemma_picture(seed: int, wide: bool) -> Picture:
    return Picture([IMAGE] * 4, {"pixel_values": pixels(1, 3, SIDE, SIDE, seed=seed)})


def gemma3(attention: str | None = None) -> Any:
    config = tf.Gemma3Config(
        vision_config=vision(tf.SiglipVisionConfig, 8, vision_use_head=False),
        text_config=text(
            tf.Gemma3TextConfig, head_dim=HEAD_DIM, query_pre_attn_scalar=HEAD_DIM, sliding_window=WINDOW,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"] * (LAYERS // 3),
        ),
        image_token_index=IMAGE, boi_token_index=START, eoi_token_index=END, mm_tokens_per_image=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    return build(tf.Gemma3ForConditionalGeneration, config, attention)


def gemma3_picture(seed: int, wide: bool) -> Picture:
    return Picture([START, *[IMAGE] * 4, END], {"pixel_values": pixels(1, 3, SIDE, SIDE, seed=seed)})


MM = ("mm_token_type_ids", 1)
FAMILIES = {
    family.name: family
    for family in (
        Family("llava", llava, llava_picture),
        Family("llava_next", llava_next, anyres_picture),
        Family("llava_onevision", llava_onevision, anyres_picture),
        Family(
            "instructblip", instructblip, instructblip_picture, image_first=True, pads_inside=True,
            one_picture="its processor takes one picture per prompt",
        ),
        Family("qwen2_vl", qwen2_vl, qwen_picture, token_types=MM),
        Family("qwen2_5_vl", qwen2_5_vl, qwen_picture, token_types=MM),
        Family("qwen3_vl", qwen3_vl, qwen_picture, token_types=MM),
        Family("internvl", internvl, internvl_picture),
        Family("smolvlm", smolvlm, tiled_picture, tiled=True),
        Family("idefics3", idefics3, tiled_picture, tiled=True),
        Family("paligemma", paligemma, paligemma_picture, image_first=True, token_types=("token_type_ids", 0)),
        Family("gemma3", gemma3, gemma3_picture, token_types=("token_type_ids", 1)),
    )
}  # fmt: skip


# -- prompts -------------------------------------------------------------------------------------------------------
def words(count: int, seed: int) -> list[int]:
    """Random ordinary token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(FIRST_WORD, VOCAB, (count,), generator=generator).tolist()


def prompt(family: Family, before: int, after: int, seed: int = 0, wide: bool = False, pictures: int = 1) -> dict:
    """One unpadded prompt: BOS, words, picture, words; further pictures have two words between them.

    Where the family puts the picture first, the words before it stand behind BOS instead.
    """
    shown = [family.picture(seed + 10 * number, wide) for number in range(pictures)]
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
        if pictures > 1:
            raise ValueError("see several_pictures")
        out["batch_num_images"] = torch.tensor([pictures])
    if family.name == "instructblip":
        out["qformer_input_ids"] = torch.tensor([words(3 + after, 5000 + seed)])
        out["qformer_attention_mask"] = torch.ones_like(out["qformer_input_ids"])
    return out


def several_pictures(family: Family, seed: int = 0) -> dict:
    """A prompt with two pictures."""
    if family.name != "llava_onevision":
        return prompt(family, 2, 3, seed, pictures=2)
    picture = [IMAGE] * 5  # beside others a picture is not cut into tiles: 2 × 2 positions and one newline
    out = rows(family, [BOS, *words(2, seed), *picture, *words(2, seed + 1), *picture, *words(3, seed + 2)])
    return {
        **out, "pixel_values": pixels(2, 1, 3, SIDE, SIDE, seed=seed), "image_sizes": torch.tensor([[64, 32]] * 2),
        "batch_num_images": torch.tensor([2]),
    }  # fmt: skip


def text_only(family: Family, length: int, seed: int = 0) -> dict:
    """A prompt without a picture, as the processor returns it for text alone."""
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
    first = int((one["input_ids"][0] == IMAGE).sum())  # the text was padded before the picture was put in front
    return torch.cat([row[:, :first], filler, row[:, first:]], 1)


def two_prompts(family: Family) -> list[dict[str, Tensor]]:
    """Two prompts of different lengths with pictures of different shapes, the wide one first."""
    return [prompt(family, 2, 6, 1, wide=True), prompt(family, 3, 3, 2)]


def other_picture(inputs: Mapping[str, Tensor], seed: int = 77) -> dict[str, Tensor]:
    """The same prompts with other pixels; tiles that are padding stay zero."""
    old = inputs["pixel_values"]
    return {**inputs, "pixel_values": torch.where(old == 0, old, pixels(*old.shape, seed=seed).to(old.dtype))}
