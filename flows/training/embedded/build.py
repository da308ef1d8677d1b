"""Builds the embedded LVLM before training: a small LLaVA, its tokenizer, its processor with a chat template."""

from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from ....datasets import captions
from ....datasets.categories import CATEGORIES
from ....datasets.world import scene

IMAGE_SIZE, PATCH = 96, 12
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% for part in message['content'] %}{{ part['text'] }} {% endfor %}"
    "{% elif message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %} "
    "{% else %}ASSISTANT:{% for part in message['content'] %} {{ part['text'] }}{% endfor %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def _corpus(scenes: int) -> Iterator[str]:
    rng = np.random.default_rng(0)
    for index in range(scenes):
        view = scene("train", index)
        for prompt, answer in (
            captions.habitual_caption(view, rng),
            captions.habitual_question(view, rng),
            captions.count_question(view, rng),
            captions.place_question(view),
        ):
            yield f"USER: \n{prompt} ASSISTANT: {answer}"
    for category in CATEGORIES.values():
        yield f" {captions.phrase(category.name)} and {' and '.join(category.words)} or no two three four five six"


def tokenizer(scenes: int = 1500, vocabulary: int = 900) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the world's own language; any text can still be written in it."""
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    words.train_from_iterator(_corpus(scenes), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"}, padding_side="left",
    )  # fmt: skip


def processor() -> LlavaProcessor:
    """Images to 96 × 96 pixels, prompts to ids with 64 image placeholders each."""
    images = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )
    return LlavaProcessor(
        image_processor=images, tokenizer=tokenizer(), patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def model(tokens: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """6 M parameters: five vision layers and eight language layers of width 192."""
    vision = CLIPVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=5, num_attention_heads=6, image_size=IMAGE_SIZE,
        patch_size=PATCH, projection_dim=192,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokens), hidden_size=192, intermediate_size=512, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=1024, tie_word_embeddings=True,
        pad_token_id=tokens.pad_token_id, bos_token_id=tokens.bos_token_id, eos_token_id=tokens.eos_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokens.vocab["<image>"],
        vision_feature_layer=-1, vision_feature_select_strategy="default", tie_word_embeddings=True,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)
