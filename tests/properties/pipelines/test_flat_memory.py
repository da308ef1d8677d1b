"""A job of many images keeps no tensor of those that are done."""

import gc

import torch

import veridical
from veridical.datasets.world import scene


def held():
    """Bytes of all tensors that Python can reach."""
    gc.collect()
    return sum(one.untyped_storage().nbytes() for one in gc.get_objects() if type(one) is torch.Tensor)


def test_no_tensor_is_left_of_images_that_are_done():
    """Rows end at different steps, a branch and a detector's readings run along."""
    lvlm, sizes = veridical.load("embedded", device="cpu"), []
    for start in range(0, 240, 8):
        images = [scene("test", index).image for index in range(start, start + 8)]
        lvlm.caption(images, ["vcd"], ["lookback_lens"], max_new_tokens=4)
        if start in (40, 232):
            sizes.append(held())
    assert sizes[1] <= sizes[0]
