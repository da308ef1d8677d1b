"""Prompts with different numbers of images in one batch, and runs of one method between runs of another."""

import pytest
import torch

import veridical

from ..parity.tiny import IMAGE, IMAGE_TOKENS, batch
from .setting import MODES, STEPS, difference, scale

CLOSE = 1e-5  # of the largest logit, as in test_neutral.py

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


@pytest.fixture(scope="module")
def prompts(tiny):
    """One with two images, a few words between them, and one with one."""
    first, second = tiny.prompts[0], tiny.prompts[1]
    tail = torch.tensor([[21, *[IMAGE] * IMAGE_TOKENS, 33, 34]])
    two = {
        "input_ids": torch.cat([first["input_ids"], tail], 1),
        "attention_mask": torch.ones(1, first["input_ids"].shape[1] + tail.shape[1], dtype=torch.long),
        "pixel_values": torch.cat([first["pixel_values"], tiny.prompts[2]["pixel_values"]]),
    }
    return [two, second]


def test_a_prompt_with_two_images_in_a_batch_is_that_prompt_alone(tiny, prompts, name):
    both, decoder = batch(prompts), tiny.acting(name)
    assert tiny.lvlm.image_mask(both["input_ids"]).sum(1).tolist() == [2 * IMAGE_TOKENS, IMAGE_TOKENS]
    together = tiny.logits([decoder], both)
    for row, prompt in enumerate(prompts):
        assert difference(tiny.logits([decoder], prompt)[0], together[row]) <= CLOSE * scale(together)


def test_the_second_image_counts(tiny, prompts, name):
    """Else the test above would say nothing of it."""
    two = prompts[0]
    other = {**two, "pixel_values": torch.cat([two["pixel_values"][:1], two["pixel_values"][1:].flip(-1)])}
    one, changed = (tiny.logits([tiny.acting(name)], given)[:, 0] for given in (two, other))
    finite = one.isfinite() & changed.isfinite()
    assert float((one - changed)[finite].abs().max()) > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_two_images_go_through_transformers_generate_too(tiny, prompts, name, mode):
    """Greedy and beams; sampling with a seed per row."""
    both, decoder, seeds = batch(prompts), tiny.acting(name), [7, 8]
    seed = {"seed": seeds} if mode == "sampling" else {}
    out = tiny.model.generate(
        **both, custom_generate=veridical.mitigate([decoder], **seed), max_new_tokens=STEPS, **MODES[mode]
    )
    assert torch.equal(out[:, both["input_ids"].shape[1] :], tiny.tokens([decoder], both, mode, seeds))


def test_a_method_run_again_after_each_other_method_gives_the_same_bits(tiny, name):
    """X, Y, X: what one method finds or leaves must not reach the next run of another."""
    decoder = tiny.acting(name)
    first = tiny.logits([decoder], max_new_tokens=2)
    for other in ("vcd", "var", "vhr", "vista", "pai", "avc"):
        tiny.logits([tiny.acting(other)], max_new_tokens=2)
        assert torch.equal(tiny.logits([decoder], max_new_tokens=2), first), other


def test_a_method_run_again_after_another_gives_the_same_tokens_inside_transformers(tiny, name):
    run = lambda decoder: tiny.model.generate(
        **tiny.inputs, custom_generate=veridical.mitigate([decoder]), max_new_tokens=STEPS, do_sample=False
    )
    decoder = tiny.acting(name)
    first, _, again = run(decoder), run(tiny.acting("vista")), run(decoder)
    assert torch.equal(first, again)
