"""Training and judging detectors, as plain functions: write texts, fit, rate, measure.

As in `flows.evaluation.steps` only names, paths and numbers go in and out, and each step reads what it needs from the
folder, so that it can be repeated alone and a stopped run goes on. `flows.detectors` runs the same functions under
Prefect.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...datasets.examples import Example
from ..benchmarks.base import Benchmark, Mark, Source, digest
from ..benchmarks.registry import BENCHMARKS
from ..evaluation import answer_file
from ..files.progress import progress
from .span_labels import Unit, mentions, units

TASKS = {"captions": "chair", "pope": "pope"}
REQUEST, RISKS = "request.json", "risks.json"
PARTS = ("train", "test")


@dataclass(frozen=True)
class Request:
    """Everything that was asked for, in plain values.

    Args:
        task: "captions", units are mentions of objects; or "pope", units are answers.
        detectors: rated on the test part, beside the position control and a random risk.
        trained: the detector to train, or None. unit: what of a caption it is trained on.
        classes: of the MLP on answers, 2 or 4.
        images, test_images: how many images; 0 for no training part.
        split, test_split: of the world, or of a COCO folder; the same one is cut in two by image.
    """

    task: str = "captions"
    detectors: Sequence[str] = ()
    trained: str | None = None
    unit: str = "words"
    classes: int = 2
    images: int = 0
    test_images: int = 1000
    model: str = "embedded"
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    coco: str | None = None
    split: str | None = None
    test_split: str | None = None
    synonyms: str | None = None
    seed: int = 0
    batch_size: int = 32
    max_new_tokens: int | None = None

    @classmethod
    def read(cls, out: str) -> Request:
        return cls(**answer_file.read_json(Path(out) / REQUEST))

    @property
    def benchmark(self) -> Benchmark:
        if self.task not in TASKS:
            raise ValueError(f'no task "{self.task}". Known: {", ".join(TASKS)}.')
        return BENCHMARKS[TASKS[self.task]]

    def source(self, part: str, limit: int) -> Source:
        split = self.split if part == "train" else self.test_split
        default = None if self.coco else part
        return Source(
            coco=self.coco, split=split or default, limit=limit, seed=self.seed, synonyms=self.synonyms
        )

    def examples(self, part: str) -> Sequence[Example]:
        """What is asked in a part.

        Raises:
            ValueError: the parts share an image.
        """
        same = self.images and self.source("train", 1).split == self.source("test", 1).split
        if same:  # one split for both: cut by image
            every = self.benchmark.examples(self.source("test", self.images + self.test_images))
            names = list(dict.fromkeys(example.image_id for example in every))
            tested = set(names[: self.test_images])
            return [e for e in every if (e.image_id in tested) == (part == "test")]
        found = {p: self.benchmark.examples(self.source(p, n)) for p, n in self._sizes.items() if n}
        if len(found) == 2 and (shared := {e.image for e in found["train"]} & {e.image for e in found["test"]}):
            raise ValueError(
                f"{len(shared)} images are in the training and in the test part, such as {sorted(shared)[0]}: choose "
                "another --split or --test-split."
            )
        return found[part]

    @property
    def _sizes(self) -> dict[str, int]:
        return {"train": self.images, "test": self.test_images}


# -- the steps -----------------------------------------------------------------------------------------------------
def prepare(out: str, request: Mapping[str, Any]) -> str:
    """Check all that can be checked before the first text, and write the request. Returns the folder.

    Raises:
        UnknownName, ValueError: a name or a setting that does not exist.
    """
    from ...pipelines.registry import DETECTORS

    asked = Request(**request)
    units(asked.unit, "", [], [])
    if asked.test_images < 1 or (asked.trained and asked.images < 1):
        raise ValueError(f"{asked.images} images to train on and {asked.test_images} to test on: give 1 or more.")
    if asked.trained and not hasattr(DETECTORS.make(asked.trained), "fit"):
        able = [name for name in DETECTORS.names if hasattr(DETECTORS.type(name), "fit")]
        raise ValueError(f"{asked.trained} has nothing to train. Trainable: {', '.join(able)}.")
    DETECTORS.make_all(asked.detectors)
    if asked.trained and asked.task == "captions" and getattr(DETECTORS.make(asked.trained), "rows", "") == "mean":
        raise ValueError(f'{asked.trained} judges whole answers: train it on --task pope, or "dhcp:rows=own" on words.')
    asked.examples("test")
    answer_file.write_json(Path(out) / REQUEST, asdict(asked))
    return out


def write_texts(out: str, part: str) -> str:
    """Let the model write the texts of a part, greedily: a JSON line each, with its tokens. Returns the path."""
    from ...pipelines.generate import generate, real
    from ...pipelines.model.identity import identity

    request = Request.read(out)
    benchmark, asked = request.benchmark, request.examples(part)
    path, lvlm = texts_path(out, part), _model(request)
    settings = {
        **identity(lvlm), "task": request.task, "data_sha256": digest(asked),
        "max_new_tokens": request.max_new_tokens or benchmark.max_new_tokens, "seed": request.seed,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with answer_file.continued(path, settings, [e.id for e in asked]) as (there, append):
        title = f"{part}: {request.task}"
        with progress(title, len(asked), benchmark.unit, len(there)) as advance:
            for group in _batches([e for e in asked if e.id not in there], request.batch_size):
                inputs = lvlm.prepare([e.open() for e in group], [e.question or benchmark.prompt or "" for e in group])
                made = generate(lvlm, inputs, max_new_tokens=settings["max_new_tokens"], do_sample=False)
                rows = zip(group, made.ids, real(made.ids, lvlm.end_tokens), made.text, strict=True)
                append([_text_row(lvlm, e, ids[kept].tolist(), text) for e, ids, kept, text in rows])
                advance(len(group))
    return str(path)


def fit(out: str) -> str:
    """Train the detector on the units of the training part and save it in the folder, which is returned.

    Raises:
        ValueError: too few units, or all of one kind.
    """
    import torch

    from ...detectors.dhcp import DHCP
    from ...pipelines.registry import DETECTORS

    request, lvlm = Request.read(out), _model(Request.read(out))
    detector = replace(DETECTORS.make(request.trained), weights=None)
    features, labels, groups, counts = [], [], [], []
    for pairs, record in _records(out, "train", [detector]):
        known = detector.token_features(record).float().cpu()
        for place, (example, row) in enumerate(pairs):
            for unit, label in _trained_units(request, detector, example, row):
                features.append(known[place, list(unit.tokens)].mean(0))
                labels.append(label)
                counts.append(unit.weight)
                groups.append(example.image_id)
    if len(set(labels)) < 2:
        raise ValueError(f"{len(labels)} units of {request.images} images are all alike; train on more images.")
    more: dict[str, Any] = {"classes": request.classes} if isinstance(detector, DHCP) else {}
    more |= {"counts": counts} if len(set(counts)) > 1 else {}
    made = detector.fit(torch.stack(features), labels, groups, lvlm=lvlm, seed=request.seed, **more)
    data = {
        "task": request.task, "unit": "answers" if request.task == "pope" else request.unit,
        "source": request.source("train", request.images).name, "images": len(set(groups)),
        "texts_sha256": hashlib.sha256(texts_path(out, "train").read_bytes()).hexdigest(),
    }  # fmt: skip
    return str(made.save_pretrained(out, data=data))


def rate(out: str) -> str:
    """Rate the units of the test part with every detector, and write risks.json. Returns its path."""
    from ...pipelines.generate import ready

    request, lvlm = Request.read(out), _model(Request.read(out))
    named = list(dict.fromkeys(["position", *request.detectors, *_own(request, out)]))
    detectors = dict(zip(named, ready(named, lvlm), strict=True))
    found: dict[str, Any] = {"labels": [], "images": [], "positions": [], "risks": {name: [] for name in named}}
    for number, together in enumerate(_rounds(detectors)):
        for pairs, record in _records(out, "test", list(together.values())):
            risks = {name: detector.score(record) for name, detector in together.items()}
            for place, (example, row) in enumerate(pairs):
                for unit in judged_units(request, example, row):
                    for name, detector in together.items():
                        at = unit.tokens[-1 if getattr(detector, "decides_at", "first") == "last" else 0]
                        found["risks"][name].append(float(risks[name][place, at]))
                    if not number:
                        found["labels"].append(unit.label)
                        found["images"].append(example.image_id)
                        found["positions"].append(unit.tokens[0])
    found["detectors"] = {
        name: {"repr": repr(one), "probability": bool(getattr(one, "is_probability", False)), "trained": _trained(one)}
        for name, one in detectors.items()
    }
    path = Path(out) / RISKS
    answer_file.write_json(path, found)
    return str(path)


def measure(out: str) -> str:
    """Figures with intervals from risks.json, into results.json and, where one was trained, its config.json."""
    from .table import measured

    return measured(out)


def save(out: str, folder: str) -> str:
    """The trained detector of a run, its figures included, alone in another folder, which is returned."""
    from ...detectors.trained import CONFIG, TENSORS

    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, TENSORS):
        shutil.copyfile(Path(out) / name, Path(folder) / name)
    return folder


Step = Callable[..., str]


@dataclass(frozen=True)
class Steps:
    """The steps, plain or as tasks of a flow."""

    prepare: Step = prepare
    write_texts: Step = write_texts
    fit: Step = fit
    rate: Step = rate
    measure: Step = measure


def detection(out: str, steps: Steps = Steps(), **request: Any) -> str:
    """Train a detector, if one is named, and judge detectors on images that it has not seen. Returns the folder.

    Run again with the same arguments it goes on where it was stopped. Arguments as `Request`.
    """
    out = str(out)
    steps.prepare(out, request)
    if request.get("trained"):
        steps.write_texts(out, "train")
        steps.fit(out)
    steps.write_texts(out, "test")
    steps.rate(out)
    steps.measure(out)
    return out


# -- helpers -------------------------------------------------------------------------------------------------------
def texts_path(out: str, part: str) -> Path:
    return Path(out) / "texts" / f"{part}.jsonl"


def judged_units(request: Request, example: Example, row: Mapping[str, Any]) -> list[Unit]:
    """The mentions of a caption; or the whole answer, if it is a yes or a no."""
    if request.task == "captions":
        return mentions(row["text"], row["tokens"], _marks(request, example, row["text"]))
    said = answered(row["text"])
    return [Unit(range(len(row["ids"])), int(said != example.label))] if said else []


def answered(text: str) -> str | None:
    """ "yes" or "no", if that is what a text begins with.

    >>> answered("Yes, there is."), answered("No"), answered("Nothing")
    ('yes', 'no', None)
    """
    words = "".join(sign if sign.isalpha() else " " for sign in text.lower()).split()
    return words[0] if words and words[0] in ("yes", "no") else None


def _trained_units(
    request: Request, detector: Any, example: Example, row: Mapping[str, Any]
) -> Iterator[tuple[Unit, int]]:
    """Units of the training part with the class that the probe is to tell."""
    from ...detectors.dhcp import answer_class

    if request.task == "captions":
        found = units(request.unit, row["text"], row["tokens"], _marks(request, example, row["text"]))
        yield from ((unit, unit.label) for unit in found)
        return
    last = getattr(detector, "decides_at", "first") == "last"
    for unit in judged_units(request, example, row):
        kept = unit if last else unit._replace(tokens=unit.tokens[:1])
        said: Any = answered(row["text"])
        truth: Any = example.label
        yield kept, answer_class(said, truth) if request.classes == 4 else unit.label


def _marks(request: Request, example: Example, text: str) -> list[Mark]:
    return request.benchmark.marks(request.source("test", 1), example, text)


def _rounds(detectors: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Detectors that read together: two of one class would read under one name, so they take turns."""
    out: list[dict[str, Any]] = []
    for name, detector in detectors.items():
        free = (part for part in out if type(detector) not in map(type, part.values()))
        part = next(free, None)
        if part is None:
            out.append(part := {})
        part[name] = detector
    return out


Pairs = Sequence[tuple[Example, Mapping[str, Any]]]


def _records(out: str, part: str, detectors: Sequence[Any]) -> Iterator[tuple[Pairs, Any]]:
    """Batches of texts, (example, row) each, with the record of what detectors read of them, teacher-forced."""
    import torch

    from ...pipelines.generate import teacher_force

    request = Request.read(out)
    lvlm, examples = _model(request), {e.id: e for e in request.examples(part)}
    rows = [row for row in answer_file.read_rows(texts_path(out, part)) if row["ids"]]
    rows.sort(key=lambda row: len(row["ids"]))  # texts of one length together
    with progress(f"{part}: reading", len(rows), request.benchmark.unit) as advance:
        for group in _batches(rows, request.batch_size):
            asked = [examples[row["id"]] for row in group]
            inputs = lvlm.prepare(
                [e.open() for e in asked], [e.question or request.benchmark.prompt or "" for e in asked]
            )
            ids = torch.full((len(group), max(len(row["ids"]) for row in group)), lvlm.pad_token)
            for place, row in enumerate(group):
                ids[place, : len(row["ids"])] = torch.tensor(row["ids"])
            yield list(zip(asked, group, strict=True)), teacher_force(lvlm, inputs, ids, detectors)
            advance(len(group))


def _text_row(lvlm: Any, example: Example, ids: list[int], text: str) -> answer_file.Row:
    shown = [token for token in ids if token not in lvlm.end_tokens]
    pieces = [lvlm.processor.tokenizer.decode([token]) for token in shown]
    return {"id": example.id, "image_id": example.image_id, "text": text, "ids": ids, "tokens": pieces, "error": None}


def _own(request: Request, out: str) -> list[str]:
    if not request.trained:
        return []
    name, _, fields = request.trained.partition(":")
    kept = [field for field in fields.split(",") if field and not field.startswith("weights=")]
    return [f"{name}:{','.join([*kept, f'weights={json.dumps(str(out))}'])}"]


def _trained(detector: Any) -> str | None:
    """What it was trained on, if it was."""
    if getattr(detector, "probe", None) is None:
        return None
    return str(detector.about.get("data", {}).get("unit", "unknown"))


def _model(request: Request) -> Any:
    from ...pipelines.model.spec import ModelSpec, load

    return load(ModelSpec(request.model, request.device, request.dtype, request.revision))


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
