"""MMVP's Questions.csv. Tong et al., 2024, arXiv 2401.06209. Scored by `metrics.mmvp`."""

import csv
import re
from pathlib import Path

from .base import ClosedQuestion

# Pairs whose answers are swapped in the published file: issues 14 and 30 of MMVP's repository, 1018 of lmms-eval's.
SWAPPED = (99, 100, 279, 280)
COLUMNS = ("Question", "Options", "Correct Answer")
OPTIONS = re.compile(r"\s*\(a\)\s*(.*?)\s*\(b\)\s*(.*?)\s*", re.DOTALL)


def read(path: Path, corrected: bool = False) -> list[ClosedQuestion]:
    """The rows, numbered from 1; rows 2k − 1 and 2k are a pair.

    Args:
        path: the file, or the folder that has it.
        corrected: swap the keys of the two pairs that are known to be wrong.

    Raises:
        FileNotFoundError: no such file.
        ValueError: columns or a row of another form, or an index out of order, which would pair strangers.
    """
    path = path / "Questions.csv" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no MMVP question file at {path}; it is Questions.csv in MMVP's data set on the Hub.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    found = []
    for number, row in enumerate(rows, start=1):
        missing = [name for name in COLUMNS if not row.get(name)]
        index = next((row[name] for name in ("lndex", "Index", "index") if row.get(name)), None)
        options = OPTIONS.fullmatch(row.get("Options") or "")
        letter = (row.get("Correct Answer") or "").strip().strip("()").lower()
        if missing or options is None or letter not in ("a", "b"):
            raise ValueError(f"{path}: row {number} has {row}; needed: a question, (a) and (b), and which is right.")
        if index is None or int(index) != number:
            raise ValueError(f"{path}: row {number} has index {index!r}; neighbours are pairs, so the order must stay.")
        if corrected and number in SWAPPED:
            letter = "b" if letter == "a" else "a"
        found.append(ClosedQuestion(
            str(number), f"{number}.jpg", f"{row['Question']} {row['Options']}", letter, "",
            str((number + 1) // 2), options.groups(),
        ))  # fmt: skip
    if not found or len(found) % 2:
        raise ValueError(f"{path} has {len(found)} rows; needed: pairs.")
    return found
