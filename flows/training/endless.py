"""Endless numbered training examples, shared out among the workers of a data loader."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import IterableDataset, get_worker_info


class Endless(IterableDataset):
    """Examples from number `start` on, without an end. A subclass makes the one of a number in `lesson`.

    Of n workers of a data loader, the one of number k makes the examples start + k, start + k + n, …
    """

    def __init__(self, start: int = 0) -> None:
        self.start = start

    def __iter__(self) -> Iterator[dict]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        index = self.start + worker
        while True:
            yield self.lesson(index)
            index += workers

    def lesson(self, index: int) -> dict:
        raise NotImplementedError(f"{type(self).__name__} has no lesson().")
