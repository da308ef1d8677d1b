"""Single words as the tokens that they are inside a sentence, and what a text alone begins with."""

from __future__ import annotations

from ..model.layout import Layout

BEFORE = "a"  # a word in front, so that the one behind it is spelt as behind a space


def word_tokens(lvlm: Layout, word: str) -> tuple[int, ...]:
    """The tokens of a word behind a space, without special tokens.

    Raises:
        ValueError: no processor, or a word without tokens.
    """
    if lvlm.processor is None:
        raise ValueError(f"{lvlm.name} has no processor, which turns the word {word!r} into tokens; give token ids")
    encode = lambda text: lvlm.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    before, whole = encode(BEFORE), encode(f"{BEFORE} {word.strip()}")
    found = whole[len(before) :] if whole[: len(before)] == before else encode(word.strip())
    if not found:
        raise ValueError(f"{word!r} has no tokens in the vocabulary of {lvlm.name}.")
    return tuple(found)


def start_of(lvlm: Layout) -> tuple[int, ...]:
    """The model's start token as a tuple, empty for a model without one.

    It is the configuration's, with or without a processor: chat templates write it where a tokenizer alone does not.
    """
    tokenizer = getattr(lvlm.processor, "tokenizer", None)
    sources = (lvlm.text_config, lvlm.generation_config, tokenizer)
    found = (getattr(source, "bos_token_id", None) for source in sources)
    return next(((token,) for token in found if isinstance(token, int)), ())
