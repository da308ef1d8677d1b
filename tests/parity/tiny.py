"""The tiny LLaVA of `veridical.testing`, under the name that the tests of parity have for it."""

from veridical.testing.tiny import (
    BOS,
    FIRST_WORD,
    IMAGE,
    IMAGE_TOKENS,
    PAD,
    VOCAB,
    batch,
    plant_sinks,
    prompt,
    tiny_llava,
    words,
)

__all__ = [
    "BOS", "FIRST_WORD", "IMAGE", "IMAGE_TOKENS", "PAD", "VOCAB", "batch", "plant_sinks", "prompt", "tiny_llava",
    "words",
]  # fmt: skip
