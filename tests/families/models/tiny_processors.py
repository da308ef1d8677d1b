"""A real processor for every tiny model: transformers' own classes, small images, a tokenizer of single letters.

Nothing is downloaded. Ids of special tokens are those of the tiny models, and the whole vocabulary fits into theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from .tiny_families import PINPOINTS
from .tiny_weights import END, FAKE, FIRST_WORD, GLOBAL, IMAGE, ROW, SIDE, START, VIDEO, VOCAB

# Why a family has no processor here, or nothing.
MISSING = {} if find_spec("num2words") else {"smolvlm": "its processor needs the package num2words"}

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}assistant:"
)


def tokenizer(special: Mapping[int, str], attributes: Mapping[str, str] | Sequence[str] = ()) -> Any:
    """Printable ASCII letter by letter. special: id -> token. attributes: as `extra_special_tokens` takes them."""
    names = {0: "<pad>", 1: "<s>", 2: "</s>", **special}
    first = [names.get(number, f"<unused_{number}>") for number in range(FIRST_WORD)]
    letters = sorted({pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(chr(n))[0][0][-1]
                      for n in range(32, 127)})  # fmt: skip
    vocabulary = {token: number for number, token in enumerate([*first, *letters])}
    assert len(vocabulary) <= VOCAB
    words = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    words.add_special_tokens([AddedToken(token, normalized=False) for token in names.values()])
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left",
        extra_special_tokens=attributes if attributes else list(special.values()),
    )  # fmt: skip


SQUARE = {"height": SIDE, "width": SIDE}
CLIP = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE}
PLAIN = {IMAGE: "<image>", VIDEO: "<video>"}


def llava() -> Any:
    return tf.LlavaProcessor(
        tf.CLIPImageProcessor(**CLIP), tokenizer(PLAIN), patch_size=16, num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
    )  # fmt: skip


def llava_next() -> Any:
    return tf.LlavaNextProcessor(
        tf.LlavaNextImageProcessor(**CLIP, image_grid_pinpoints=PINPOINTS), tokenizer(PLAIN), patch_size=16,
        num_additional_image_tokens=1, vision_feature_select_strategy="default",
    )  # fmt: skip


def llava_onevision() -> Any:
    return tf.LlavaOnevisionProcessor(
        tf.LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=PINPOINTS), tokenizer(PLAIN),
        video_processor=tf.LlavaOnevisionVideoProcessor(), num_image_tokens=4, vision_feature_select_strategy="full",
    )  # fmt: skip


def instructblip() -> Any:
    requests = tokenizer({})
    requests.padding_side = "right"
    return tf.InstructBlipProcessor(tf.BlipImageProcessor(size=SQUARE), tokenizer(PLAIN), requests, num_query_tokens=6)


QWEN = {IMAGE: "<|image_pad|>", VIDEO: "<|video_pad|>", START: "<|vision_start|>", END: "<|vision_end|>"}
QWEN_SIZES = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 256, "max_pixels": 2304}


def qwen(kind: str, video: str = "Qwen2VLVideoProcessor") -> Callable[[], Any]:
    return lambda: getattr(tf, kind)(
        tf.Qwen2VLImageProcessor(**QWEN_SIZES), tokenizer(QWEN), getattr(tf, video)(patch_size=8)
    )


def internvl() -> Any:
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
             "video_token": "<video>"}  # fmt: skip
    words = tokenizer({IMAGE: "<IMG_CONTEXT>", VIDEO: "<video>", START: "<img>", END: "</img>"}, names)
    images = tf.GotOcr2ImageProcessor(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=3)
    return tf.InternVLProcessor(images, words, tf.InternVLVideoProcessor(), image_seq_length=4)


TILES = {
    IMAGE: "<image>", FAKE: "<fake_token_around_image>", GLOBAL: "<global-img>", 15: "<end_of_utterance>",
    ROW: "<row_1_col_1>", ROW + 1: "<row_1_col_2>", ROW + 2: "<row_2_col_1>", ROW + 3: "<row_2_col_2>",
}  # fmt: skip
TILE_NAMES = {"fake_image_token": "<fake_token_around_image>", "image_token": "<image>",
              "global_image_token": "<global-img>", "end_of_utterance_token": "<end_of_utterance>"}  # fmt: skip
TILE_SIZES = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}


def smolvlm() -> Any:
    return tf.SmolVLMProcessor(
        tf.SmolVLMImageProcessor(**TILE_SIZES), tokenizer(TILES, TILE_NAMES),
        video_processor=tf.SmolVLMVideoProcessor(), image_seq_len=4,
    )  # fmt: skip


def idefics3() -> Any:
    return tf.Idefics3Processor(
        tf.Idefics3ImageProcessor(**TILE_SIZES), tokenizer(TILES, TILE_NAMES), image_seq_len=4
    )


def paligemma() -> Any:
    images = tf.SiglipImageProcessor(size=SQUARE)
    images.image_seq_length = 4
    return tf.PaliGemmaProcessor(images, tokenizer(PLAIN))


def gemma3() -> Any:
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    words = tokenizer({IMAGE: names["image_token"], START: names["boi_token"], END: names["eoi_token"]}, names)
    return tf.Gemma3Processor(tf.Gemma3ImageProcessor(size=SQUARE), words, image_seq_length=4)


IMAGE_TEXTS = {  # what a chat template writes for an image; None: the processor has no template
    "instructblip": None, "paligemma": None, "gemma3": "<start_of_image>", "internvl": "<IMG_CONTEXT>",
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "<|vision_start|><|image_pad|><|vision_end|>"),
}  # fmt: skip
BUILDERS: Mapping[str, Callable[[], Any]] = {
    "llava": llava, "llava_next": llava_next, "llava_onevision": llava_onevision, "instructblip": instructblip,
    "qwen2_vl": qwen("Qwen2VLProcessor"), "qwen2_5_vl": qwen("Qwen2_5_VLProcessor"),
    "qwen3_vl": qwen("Qwen3VLProcessor", "Qwen3VLVideoProcessor"), "internvl": internvl, "smolvlm": smolvlm,
    "idefics3": idefics3, "paligemma": paligemma, "gemma3": gemma3,
}  # fmt: skip


def processor(name: str) -> Any:
    """The processor of a family, with a chat template where its real ones have one."""
    built, image = BUILDERS[name](), IMAGE_TEXTS.get(name, "<image>")
    if image is not None:
        built.chat_template = TEMPLATE.replace("IMAGE", image)
    return built
