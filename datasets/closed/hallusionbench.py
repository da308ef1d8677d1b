"""HallusionBench.json. Guan et al., 2023, arXiv 2310.14566. Scored by `metrics.hallusionbench`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .base import ClosedQuestion

KEY = ("category", "subcategory", "set_id", "figure_id", "question_id")
FACTS = (*KEY, "visual_input", "gt_answer")
NEEDED = (*KEY, "visual_input", "question", "gt_answer")


def read(path: Path, images_only: bool = False) -> list[ClosedQuestion]:
    """The rows in the order of the file; id is "category/subcategory/set/figure/question".

    Args:
        path: the file, or the folder that has it.
        images_only: leave the questions out that are asked without an image.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another form, or a question that comes twice.
    """
    path = path / "HallusionBench.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no HallusionBench question file at {path}; its repository has HallusionBench.json.")
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno} is not JSON ({error.msg}).") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply to be HallusionBench.json.") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path} holds no array of questions, as HallusionBench.json does.")
    found: dict[str, ClosedQuestion] = {}
    for number, row in enumerate(rows, start=1):
        missing = [name for name in NEEDED if not isinstance(row, Mapping) or name not in row]
        if missing or str(row["gt_answer"]) not in ("0", "1"):
            raise ValueError(f"{path}: question {number} has no {', '.join(missing) or 'gt_answer of 0 or 1'}.")
        name = name_of(row)
        if name in found:
            raise ValueError(f"{path}: question {number} is {name}, which comes twice.")
        image = row.get("filename")
        if image is None and images_only:
            continue
        found[name] = ClosedQuestion(
            name, None if image is None else str(image).removeprefix("./"), row["question"],
            "yes" if str(row["gt_answer"]) == "1" else "no", row["category"],
            "/".join(str(row[part]) for part in KEY[:3]), (), {part: row[part] for part in FACTS},
        )  # fmt: skip
    return list(found.values())


def name_of(row: Mapping[str, Any]) -> str:
    """A row's id."""
    return "/".join(str(row[name]) for name in KEY)
