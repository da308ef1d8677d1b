"""What a budget of time allows: the setting that was chosen, its evidence, and their file beside a job's job.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..captioning.job import sha256_of
from ..files import atomic

NAME = "budget.json"


@dataclass(frozen=True)
class Setting:
    """A decoder, gated or not, as it was timed.

    detector: None without a gate. share: of the steps, at which the decoder acted. ratio: to plain decoding's time,
    with its ends `low` and `high`. pairs: of runs. fits: whether it is within the budget.
    """

    decoder: str
    detector: str | None
    share: float
    ratio: float
    low: float
    high: float
    pairs: int
    fits: bool


@dataclass(frozen=True)
class Choice:
    """What a budget allows, and the evidence.

    Args:
        budget: times plain decoding's time. decoder: that was named.
        chosen: the setting with the largest share of steps among those that fit. tried: all, in the order of timing.
        images, skipped: that were captioned; that could not be used.
        worth: how many plain captions take as long as finding out took.
    """

    budget: float
    decoder: str
    chosen: Setting
    tried: tuple[Setting, ...]
    images: int
    skipped: int
    seconds: float
    worth: float

    def record(self) -> dict[str, Any]:
        """As plain values. The reverse is `from_record`."""
        return {**asdict(self), "tried": [asdict(one) for one in self.tried]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Choice:
        """
        Raises:
            KeyError, TypeError: it is no such record.
        """
        tried = tuple(Setting(**one) for one in record["tried"])
        return cls(**{**record, "chosen": Setting(**record["chosen"]), "tried": tried})

    @property
    def prediction(self) -> str:
        """One sentence: what was chosen, and what it is predicted to cost."""
        one = self.chosen
        how = f"{one.decoder} acts at {one.share:.1%} of the steps" if one.detector else f"{one.decoder} needs no gate"
        time = f"×{one.ratio:.2f} (up to ×{one.high:.2f}) of plain decoding's time"
        return f"budget {self.budget:g}: {how}, predicted {time}."

    @property
    def evidence(self) -> str:
        """One sentence: from what it was chosen, and how long that took."""
        without = f", without {self.skipped} that cannot be used" if self.skipped else ""
        tried = f"{len(self.tried)} settings were" if len(self.tried) > 1 else "1 setting was"
        return (
            f"{tried} timed on {self.images} images{without}, which took as long as {self.worth:.0f} plain captions."
        )

    def paid(self, acted: Iterable[Mapping[str, Mapping[str, float]]]) -> str:
        """One sentence: at which share of the steps of these answers the decoder acted, beside what was predicted."""
        return self.sentence(*map(sum, zip(*map(steps_of, acted), strict=True)))

    def of_job(self, steps: float = 0.0, acted: float = 0.0) -> dict[str, Any]:
        """What a job's summary has of it. share: of its steps, that was paid for; None where none was counted."""
        return {
            "budget": self.budget, "decoder": self.decoder, "chosen": self.chosen.decoder,
            "predicted_ratio": self.chosen.ratio, "predicted_share": self.chosen.share,
            "share": acted / steps if steps else None, "sentence": self.sentence(steps, acted),
        }  # fmt: skip

    def sentence(self, steps: float = 0.0, acted: float = 0.0) -> str:
        """The same, of steps and of those at which it acted; what was predicted alone where no step was counted."""
        one = self.chosen
        predicted = f"predicted {one.share:.1%} and ×{one.ratio:.2f} of plain decoding's time"
        found = f"was paid for at {acted / steps:.1%} of the steps; {predicted}" if steps else predicted
        return f"budget {self.budget:g}: {self.decoder} {found}."


def steps_of(acted: Mapping[str, Mapping[str, float]]) -> tuple[float, float]:
    """Steps of an answer, and those at which its one method acted; none where no method was counted.

    >>> steps_of({"gate": {"steps": 20.0, "acted": 3.0}}), steps_of({})
    ((20.0, 3.0), (0.0, 0.0))
    """
    counts = next(iter(acted.values()), {})
    return counts.get("steps", 0.0), counts.get("acted", 0.0)


def write(folder: Path, choice: Choice, request: Mapping[str, Any]) -> None:
    """Write the choice of a job that does not run yet. request: what it was chosen for."""
    record = {"version": 1, "request": dict(request), "choice": choice.record()}
    atomic.write_json(folder / NAME, {**record, "sha256": sha256_of(record)})


def read(folder: Path) -> tuple[Choice, dict[str, Any]] | None:
    """The choice that a job's folder holds, and what it was chosen for; None without one.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        record = atomic.read_json(path)
        if record.pop("sha256") != sha256_of(record):
            raise KeyError("its checksum is another")
        return Choice.from_record(record["choice"]), record["request"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): restore it; or go on without --budget, with the decoder that job.json has."
        ) from error
