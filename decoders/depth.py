"""Layers that were published for models of 32 layers, in a model of any depth."""


def scaled_layers(first: int, last: int, count: int) -> range:
    """Layers ⌊first·D/32⌋ to ⌊last·D/32⌋, both included, D = min(count, 32): deeper models keep the numbers.

    >>> list(scaled_layers(5, 18, 6)), scaled_layers(5, 18, 40)
    ([0, 1, 2, 3], range(5, 19))
    """
    depth = min(count, 32)
    return range(first * depth // 32, last * depth // 32 + 1)
