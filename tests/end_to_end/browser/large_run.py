"""The folder of an evaluation of 1,000 images without a model: captions are the scenes' own, some with a wrong word."""

import base64
import json
from pathlib import Path

from veridical.flows.benchmarks.registry import BENCHMARKS
from veridical.flows.evaluation import answer_file, attention, steps
from veridical.flows.evaluation.request import Evaluation

ABSENT = ("zebra", "toilet", "giraffe")
SIDE = 12


def large_run(folder: Path, count: int = 1000, maps: int = 1000) -> Path:
    """Turns the folder of a small run into one of `count` images of chair, with maps for the first ones."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["request"] |= {"benchmarks": ["chair"], "detectors": ["entropy", "vhd"]}
    manifest["request"]["source"]["limit"] = count
    (folder / "manifest.json").write_text(json.dumps(manifest))
    request = Evaluation.read(folder)
    examples = BENCHMARKS["chair"].examples(request.source)
    from veridical.datasets.world import scene

    captions = [" ".join(scene("test", place).captions[:2]) for place in range(count)]
    for number, decoder in enumerate(request.decoders):
        lines, seen = [], []
        for place, example in enumerate(examples):
            text = captions[place] + " There is a quiet feeling over it all."
            if (place + number) % (3 + 2 * number) == 0:
                text += f" There is also a <b>{ABSENT[place // 3 % 3]}</b> & a \u2028 mark."
            words = text.split()
            risk = [round((7 * at + place) % 11 / 11, 3) for at in range(len(words))]
            lines.append({
                "id": example.id, "image_id": example.image_id, "image": example.image, "question": None, "label": None,
                "text": text, "error": None, "seconds": 0.1 * (number + 1), "acted": {}, "tokens": words,
                "risk": {"entropy": risk, "vhd": risk[::-1]},
            })  # fmt: skip
            if place < maps:
                seen.append(_maps(example.id, text, words, place))
        path = answer_file.answers_path(folder, "chair", decoder)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        path = attention.attention_path(folder, "chair", decoder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in seen))
    steps.score(str(folder))
    steps.report(str(folder))
    return folder


def _maps(name: str, text: str, words: list[str], place: int) -> dict:
    spans, here = [], 0
    for word in words:
        here = text.index(word, here)
        spans.append([here, here + len(word)])
        here += len(word)
    maps = [base64.b64encode(bytes((at * 37 + place + p) % 256 for p in range(SIDE * SIDE))).decode()
            for at in range(len(words))]  # fmt: skip
    return {
        "id": name, "text": text, "spans": spans, "probability": [0.5] * len(words), "grid": [SIDE, SIDE],
        "area": [0, 0, 1, 1], "maps": maps,
    }  # fmt: skip
