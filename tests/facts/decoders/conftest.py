"""What the facts of several decoders run: a tiny model, one prompt, two tokens."""

from collections.abc import Callable

import pytest
from torch import Tensor

import veridical
from veridical.testing.tiny import prompt, tiny_llava


@pytest.fixture(scope="session")
def two_steps() -> Callable[..., Tensor]:
    """(1, 2, vocab) logits of two greedy tokens on a tiny LLaVA of eight layers, with these decoders."""
    lvlm = veridical.LVLM(tiny_llava(8, 2))
    inputs = prompt(lvlm.model, 3, 5, 1)

    def run(*decoders: object) -> Tensor:
        return veridical.generate(
            lvlm, inputs, decoders, return_logits=True, max_new_tokens=2, do_sample=False
        ).logits

    return run
