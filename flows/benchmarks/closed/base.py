"""What benchmarks of published closed questions share: files of their own, a reader, an answer that is right or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ....datasets.closed.base import ClosedQuestion, examples
from ....datasets.examples import Example
from ..base import Benchmark, Mark, Source, followed


class FromFiles(Benchmark):
    """A benchmark whose questions and images the user has.

    readers: the protocols that it knows. default: the one that reads where `--protocol` names none of them. need: what
    the folder has to hold, for messages. folders: where images may lie, below the folder or beside it.
    """

    version = "1"
    max_new_tokens = 16
    readers: Sequence[str] = ()
    default = "official"
    need = ""
    folders: Sequence[str] = ("", "images")

    def questions(self, folder: Path) -> Sequence[ClosedQuestion]:
        """The questions of the user's folder."""
        raise NotImplementedError

    def examples(self, source: Source) -> Sequence[Example]:
        if source.data is None:
            raise ValueError(f"{self.name} has questions and images of its own: give their folder (data). {self.need}")
        return _examples(self, source)

    def reader(self, source: Source) -> str:
        """The protocol that reads answers."""
        return source.pope if source.pope in self.readers else self.default

    def right(self, source: Source, example: Example, text: str) -> bool:
        """Whether an answer is right."""
        raise NotImplementedError

    def marks(self, source: Source, example: Example, text: str) -> list[Mark]:
        return [Mark(0, len(text), self.right(source, example, text))] if text else []

    def protocol(self, source: Source) -> dict[str, Any]:
        """How answers are read, what follows every question, and what constant answers score."""
        return {
            "name": self.reader(source), "suffix": source.suffix or "", "constant answers": self.constants(source),
        }  # fmt: skip

    def constants(self, source: Source) -> Mapping[str, Any]:
        """Figures of models that always say the same."""
        found = self.examples(source)
        always = {word: self.estimates(source, found, [word] * len(found)) for word in ("yes", "no")}
        return {
            f"always {word}": {name: round(table[name].value, 6) for name in self.headline if name in table}
            for word, table in always.items()
        }


@lru_cache(maxsize=4)
def _examples(benchmark: FromFiles, source: Source) -> tuple[Example, ...]:
    folder = Path(source.data or "")
    base = folder.parent if folder.is_file() else folder
    places = [where / inside for where in (base, base.parent) for inside in benchmark.folders]
    found = examples(benchmark.questions(folder), places, source.limit, benchmark.name, benchmark.need)
    if not found:
        raise ValueError(f"{source.name} holds no question about an image for {benchmark.name}.")
    return followed(found, source.suffix or "")
