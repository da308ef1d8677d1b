"""The cache with room holds, after every kind of step, what transformers' dynamic cache holds."""

import torch
from transformers import DynamicCache

from veridical.pipelines.prefill.growing import ROOM, growing
from veridical.testing import prompt, tiny_llava


def states(positions, seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, positions, 4, generator=draw), torch.randn(3, 2, positions, 6, generator=draw)


def alike(ours, theirs):
    mine, other = ours.layers[0], theirs.layers[0]
    assert torch.equal(mine.keys, other.keys)
    assert torch.equal(mine.values, other.values)
    assert ours.get_seq_length() == theirs.get_seq_length()


def test_steps_cuts_and_rows_in_another_order_leave_what_the_dynamic_cache_has():
    ours, theirs = growing(), DynamicCache()
    changes = [
        lambda cache: cache.update(*states(30, 1), 0),
        lambda cache: cache.update(*states(1, 2), 0),
        lambda cache: cache.crop(-3),
        lambda cache: cache.update(*states(2, 3), 0),
        lambda cache: cache.reorder_cache(torch.tensor([2, 0, 0])),
        lambda cache: cache.update(*states(1, 4), 0),
        lambda cache: cache.update(*states(2 * ROOM, 5), 0),
        lambda cache: cache.update(*states(1, 6), 0),
        lambda cache: cache.batch_select_indices(torch.tensor([0, 2, 1])),
        lambda cache: cache.update(*states(1, 7), 0),
    ]
    for change in changes:
        change(ours)
        change(theirs)
        alike(ours, theirs)


def test_what_a_step_returned_stays_as_it_was():
    cache = growing()
    first, _ = cache.update(*states(5, 1), 0)
    kept = first.clone()
    for seed in range(ROOM + 2):
        cache.update(*states(1, seed), 0)
    assert torch.equal(first, kept)


def test_keys_are_copied_once_in_many_steps():
    cache = growing()
    cache.update(*states(100, 0), 0)
    places = [cache.update(*states(1, seed), 0)[0].data_ptr() for seed in range(2 * ROOM)]
    assert len(set(places)) == 2


def test_a_model_that_decodes_with_it_gives_the_same_logits():
    model, inputs = tiny_llava(8, 2), prompt(tiny_llava(8, 2), 3, [50, 60, 77], 1)
    options = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    ours = model.generate(**inputs, **options, cache=growing())
    theirs = model.generate(**inputs, **options)
    torch.testing.assert_close(torch.stack(ours.logits), torch.stack(theirs.logits), rtol=0, atol=1e-6)
