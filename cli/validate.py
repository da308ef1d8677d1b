"""What options stand for, checked before anything is loaded: names of methods, lists of images, prompts, folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..pipelines.entry_points import OURS


def check_names(decoders: list[str], detectors: list[str], benchmarks: list[str], model: str = "") -> None:
    """Names and settings first: they are wrong more often than anything else, and known without a model."""
    from ..flows.benchmarks.registry import BENCHMARKS
    from ..pipelines.chain import chain
    from ..pipelines.registry import DETECTORS

    for name in decoders:
        chain(name, model)
    DETECTORS.make_all(detectors)
    for name in benchmarks:
        BENCHMARKS[name]


def check_judges(detectors: list[str]) -> None:
    """Only detectors whose risk depends on the word itself can judge a text that the model did not write.

    Raises:
        ValueError: another one; names those that can.
    """
    from ..pipelines.registry import DETECTORS

    judges = lambda detector: getattr(detector, "judges_texts", False)
    unfit = [name for name in detectors if not judges(DETECTORS.make(name))]
    if unfit:
        able = [name for name, row in DETECTORS.names.items() if row.origin == OURS and judges(DETECTORS.type(name))]
        raise ValueError(
            f"--text with {', '.join(unfit)}: the risk is read at the step before each word and is the same whatever "
            f"word follows, so that a text that the model did not write cannot be judged by it. Use -t "
            f"{' or -t '.join(able)}, or leave --text out to judge what the model itself writes."
        )


def refuse_results(out: Path) -> None:
    """A folder of captions is not mixed with the results of an evaluation.

    Raises:
        ValueError: `out` holds such results.
    """
    if (out / "manifest.json").is_file() and not (out / "job.json").exists():
        raise ValueError(f"{out} holds the results of an evaluation ({out / 'manifest.json'}): choose another --out.")


def refuse_captions(out: Path) -> None:
    """Results of an evaluation are not mixed with the captions of a job.

    Raises:
        ValueError: `out` holds such captions.
    """
    if (out / "job.json").is_file() and not (out / "manifest.json").exists():
        raise ValueError(f"{out} holds the captions of a job ({out / 'job.json'}): choose another --out.")


def need_coco(images: str | None, coco: Path | None) -> None:
    """A list of images is a choice among those of a COCO folder.

    Raises:
        ValueError: there is no such folder.
    """
    if images is not None and coco is None:
        raise ValueError(f"--images {images} chooses among the images of a COCO folder: add --coco FOLDER.")


def number_of(images: str | None, default: int = 500) -> int:
    """How many images "first-500-sorted" or a file of ids names; the default without either.

    Raises:
        FileNotFoundError, ValueError: no such file or list, or a file without ids.
    """
    if images is None:
        return default
    from ..datasets.coco import FIRST
    from ..flows.scoring.files import read_ids

    named = FIRST.fullmatch(images)
    if named is None and not Path(images).is_file():
        raise FileNotFoundError(f'--images {images}: no such file, nor a list like "first-500-sorted".')
    return int(named[1]) if named else len(read_ids(Path(images)))


def prompt_fields(prompts: Sequence[str], system: str | None, benchmarks: Sequence[str]) -> dict[str, Any]:
    """Fields of `Source`, a benchmark's questions in other words: for prompts, "@name" or texts, and a system prompt.

    Benchmarks that describe images take the first caption prompt, those that ask questions the first frame, each its
    own where none is given.

    Raises:
        UnknownName: no prompt of that name.
        ValueError: a prompt that no benchmark here can use, or a frame that puts words in front of the question.
    """
    from ..flows.benchmarks.registry import BENCHMARKS
    from ..pipelines.inputs import prompts as known

    out: dict[str, Any] = {}
    describing = [name for name in benchmarks if BENCHMARKS[name].prompt is not None]
    asking = [name for name in benchmarks if name not in describing]
    for wanted in prompts:
        caption, frame = known.caption_of(wanted), known.frame_of(wanted)
        used = (caption is not None and describing) or (frame is not None and asking)
        if not used:
            kind = "requests a caption" if frame is None else "frames questions"
            raise ValueError(f"--prompt {wanted!r} {kind}, which {' and '.join(benchmarks)} cannot use; leave it out.")
        if caption is not None and describing:
            out.setdefault("prompt", caption)
        if frame is not None and asking:
            out.setdefault("suffix", _suffix(wanted, frame))
    if prompts:
        out["prompt_name"] = " ".join(prompts)
    return out | ({"system": system} if system else {})


def _suffix(wanted: str, frame: str) -> str:
    """What a frame puts behind the question.

    Raises:
        ValueError: it puts words in front of the question, which benchmarks do not take.
    """
    from ..pipelines.inputs.prompts import SLOT

    front, _, behind = frame.partition(SLOT)
    if front:
        raise ValueError(
            f"--prompt {wanted!r} puts {front!r} in front of the question; a benchmark's question can only be followed "
            "by other words. `veridical answer` takes it."
        )
    return behind
