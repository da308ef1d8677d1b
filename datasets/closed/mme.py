"""MME's question files: `image<TAB>question<TAB>Yes|No`, two lines for an image, from the folder that the user has.

Fu et al., 2023, arXiv 2306.13394. Scored by `metrics.mme`. Neither questions nor images are part of this project: MME's
terms allow academic research alone, and no passing on.
"""

from collections.abc import Sequence
from pathlib import Path

from .base import ClosedQuestion

TASKS = ("existence", "count", "position", "color")
FOLDERS = ("", "Your_Results", "eval_tool/Your_Results")  # where the four files may lie
IMAGES = ("", "images")


def read(folder: Path, tasks: Sequence[str] = TASKS) -> list[ClosedQuestion]:
    """The questions of {task}.txt, or of {task}/{image}.txt as MME's release has them, in the order of their files.

    Raises:
        FileNotFoundError: no file of a task; says where it was looked for.
        ValueError: a line of another form, or an image that does not have a Yes and a No, one after the other.
    """
    found: list[ClosedQuestion] = []
    for task in tasks:
        there = lines(folder, task)
        for number, (where, cells) in enumerate(there):
            if len(cells) < 3 or cells[2].strip().lower() not in ("yes", "no"):
                raise ValueError(f"{where} is {'<TAB>'.join(cells)!r:.80}; needed: image<TAB>question<TAB>Yes|No.")
            image, text, label = cells[0], cells[1], cells[2].strip().lower()
            found.append(ClosedQuestion(
                f"{task}/{image}#{number % 2 + 1}", f"{task}/{image}", text, label, task, f"{task}/{image}"
            ))  # fmt: skip
        part = found[-len(there) :] if there else []
        for first, second in zip(part[::2], part[1::2], strict=False):
            if first.image != second.image or (first.label, second.label) != ("yes", "no"):
                raise ValueError(
                    f"{folder}: {task} asks about {first.image} ({first.label}) and then {second.image} "
                    f"({second.label}); two lines are one image, first Yes, then No."
                )
        if not part or len(part) % 2:
            raise ValueError(f"{folder}: {task} has {len(part)} questions; needed: two for each image.")
    return found


def lines(folder: Path, task: str) -> list[tuple[str, list[str]]]:
    """(where, columns) of each line of a task.

    Raises:
        FileNotFoundError: as `read`.
    """
    for inside in FOLDERS:
        path = folder / inside / f"{task}.txt"
        if path.is_file():
            text = path.read_text(encoding="utf-8-sig")
            return [
                (f"{path}: line {number}", line.split("\t"))
                for number, line in enumerate(text.split("\n"), start=1) if line.strip()
            ]  # fmt: skip
    for inside in (task, f"{task}/questions_answers_YN"):
        files = sorted((folder / inside).glob("*.txt")) if (folder / inside).is_dir() else []
        if files:
            suffix = next((p.suffix for p in (folder / task).rglob("*.*") if p.suffix in (".jpg", ".png")), ".jpg")
            return [
                (f"{path}: line {number}", [f"{path.stem}{suffix}", *line.split("\t")])
                for path in files
                for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1) if line.strip()
            ]  # fmt: skip
    raise FileNotFoundError(
        f"no {task}.txt in {folder}, its Your_Results or eval_tool/Your_Results, and no {task}/ with a text file for "
        "each image; MME's authors give both on request."
    )
