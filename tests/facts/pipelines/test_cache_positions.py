"""Which positions a layer's keys stand for: with a cache that grows, one that slides and one of fixed size."""

import torch

from veridical.pipelines.engine.call import Sequences

SEEN = 5  # positions fed so far


def sequences():
    none = torch.zeros(1, 2, dtype=torch.bool)
    return Sequences(none, none, torch.zeros(1, dtype=torch.long), SEEN)


def mask(*values):
    return torch.tensor([values]).bool()


def test_keys_of_a_sliding_cache_are_the_last_positions_and_those_of_a_fixed_one_the_first():
    where = sequences()
    assert where.by_position(mask(1, 0, 1)).tolist() == mask(0, 0, 1, 0, 1).tolist()
    assert where.by_position(mask(1, 0, 0, 1, 0, 1, 1)).tolist() == mask(1, 0, 0, 1, 0).tolist()
    assert where.by_position(mask(1, 0, 0, 1, 0)).tolist() == mask(1, 0, 0, 1, 0).tolist()


def test_positions_are_found_again_among_the_keys():
    where, positions = sequences(), mask(1, 0, 1, 1, 0)
    assert where.by_key(positions, 3).tolist() == mask(1, 1, 0).tolist()
    assert where.by_key(positions, 5).tolist() == positions.tolist()
    assert where.by_key(positions, 7).tolist() == mask(1, 0, 1, 1, 0, 0, 0).tolist()


def test_each_query_has_the_key_of_its_own_position():
    """Two queries: positions 3 and 4 of 0 to 4."""
    own = {keys: sequences().own_key(2, keys).nonzero()[:, 1].tolist() for keys in (3, 5, 8)}
    assert own == {3: [1, 2], 5: [3, 4], 8: [3, 4]}
