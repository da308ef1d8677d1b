"""Greedy, beams and sampling: all branches follow the same tokens, and a sample's tokens are its own affair."""

import pytest
import torch

from veridical.detectors.vhd import VHD
from veridical.pipelines.engine.declarations import LogitsEdit
from veridical.pipelines.engine.logits import Draw
from veridical.pipelines.engine.run import Observers, run

from . import table
from .setting import MODES, SEEDS, STEPS, Declares, seeded

pytestmark = pytest.mark.filterwarnings("ignore::veridical.pipelines.generate.NeverActed")


@pytest.mark.parametrize("mode", MODES)
def test_all_branches_stay_token_identical(setting, name, mode):
    """The VHD detector adds an image-free branch, so that there are two blocks at least, whatever the method."""
    readings = list(VHD().readings(setting.lvlm, setting.inputs))
    output, fold, prompt = run(
        setting.lvlm, setting.inputs, [setting.acting(name)], Observers(readings), max_new_tokens=STEPS,
        **MODES[mode], **seeded(mode, SEEDS),
    )  # fmt: skip
    blocks = output[:, prompt:].chunk(len(fold.arranged.names))
    assert len(blocks) >= 2
    assert blocks[0].shape == (len(setting.prompts), STEPS)
    for branch, block in zip(fold.arranged.names, blocks, strict=True):
        assert torch.equal(block, blocks[0]), branch


@pytest.mark.parametrize("mode", MODES)
def test_the_same_run_twice_gives_the_same_tokens(tiny, name, mode):
    one, two = tiny.acting_tokens(name, mode), tiny.tokens([tiny.acting(name)], mode=mode)
    assert torch.equal(one, two)


@pytest.mark.parametrize("mode", MODES)
def test_a_samples_tokens_do_not_depend_on_the_batch(tiny, name, mode):
    """With a seed per sample this holds for sampling too."""
    together = tiny.acting_tokens(name, mode)
    for row, prompt in enumerate(tiny.prompts):
        alone = tiny.tokens([tiny.acting(name)], prompt, mode, SEEDS[row : row + 1])
        assert torch.equal(alone[0], together[row])


def test_one_seed_stands_for_one_per_sample_counted_up(tiny, name):
    counted = tiny.generate([tiny.acting(name)], **MODES["sampling"], seed=SEEDS[0]).ids
    assert torch.equal(counted, tiny.acting_tokens(name, "sampling"))


def test_another_seed_draws_other_tokens(tiny, name):
    first, *others = ([seed] * 3 for seed in range(8))
    draw = lambda seeds: tiny.tokens([tiny.acting(name)], mode="sampling", seeds=seeds)
    drawn = draw(first)
    assert any(not torch.equal(draw(seeds), drawn) for seeds in others)


def test_neutral_beams_and_samples_are_those_of_plain_decoding(tiny, name):
    for mode in MODES:
        assert torch.equal(tiny.tokens([table.neutral(name)], mode=mode), tiny.plain_tokens(mode)), mode


@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_plain_decoding_gives_the_tokens_of_transformers(setting, mode):
    theirs = setting.model.generate(**setting.inputs, max_new_tokens=STEPS, **MODES[mode])
    assert torch.equal(setting.tokens([], mode=mode), theirs[:, setting.inputs["input_ids"].shape[1] :])


@pytest.mark.parametrize("mode", MODES)
def test_what_is_chosen_depends_on_probabilities_and_not_on_the_height_of_the_logits(setting, mode):
    """A constant on every logit, another one for each row and step. Beams add up log-probabilities."""
    lift = Declares([LogitsEdit(lambda logits, step: logits + 3 * logits[:, 9:10] + step.index)])
    assert torch.equal(setting.tokens([lift], mode=mode), setting.tokens([], mode=mode))


def test_sampling_draws_in_proportion_to_the_probabilities():
    """20,000 draws from one row: no frequency is off by more than 0.018, five standard errors of a half."""
    count, logits = 20_000, torch.tensor([2.0, 1.0, 0.0, -torch.inf, 0.5])
    chosen = Draw(blocks=1, batch=count, seed=0)(torch.zeros(count, 1, dtype=torch.long), logits.expand(count, -1))
    found = torch.bincount(chosen.argmax(1), minlength=5) / count
    assert float((found - logits.softmax(0)).abs().max()) < 0.018
    assert found[3] == 0


def test_a_draw_is_one_token_for_all_branches():
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))  # three branches of two samples
    chosen = Draw(blocks=3, batch=2, seed=[4, 5])(torch.zeros(6, 1, dtype=torch.long), logits)
    assert (chosen.isfinite().sum(1) == 1).all()
    for block in chosen.chunk(3):
        assert torch.equal(block, chosen[:2])
