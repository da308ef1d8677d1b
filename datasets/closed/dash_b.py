"""DASH-B's lists of images. Augustin et al., 2025, arXiv 2503.23573. Scored by `metrics.dash_b`."""

import json
from itertools import zip_longest
from pathlib import Path

from .base import ClosedQuestion

PROMPT = "Can you see a {object} in this image? Please answer only with yes or no."
LISTS = {"no": ("neg", "dash_benchmark_neg.json"), "yes": ("pos", "dash_benchmark_pos.json")}


def read(folder: Path) -> list[ClosedQuestion]:
    """The images by source and object, one without and one with it in turn; id is "label/source/object/name".

    Args:
        folder: with both lists, or with images/ that has them.

    Raises:
        FileNotFoundError: no such list.
        ValueError: another form.
    """
    found: dict[str, list[ClosedQuestion]] = {}
    for label, (short, name) in LISTS.items():
        path = next((p for p in (folder / name, folder / "images" / name) if p.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"no {name} in {folder} or its images/; DASH-B's repository has both lists.")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict) or not all(isinstance(objects, dict) for objects in content.values()):
            raise ValueError(f"{path} is no list of DASH-B; needed: {{source: {{object: [file names]}}}}.")
        for source, objects in content.items():
            for thing, names in objects.items():
                group = f"{source}/{thing}"
                for image in names:
                    found.setdefault(label, []).append(ClosedQuestion(
                        f"{label}/{group}/{image}", f"{short}/{group}/{image}", PROMPT.format(object=thing), label,
                        source, group, (), {"object": thing},
                    ))  # fmt: skip
    if not found:
        raise ValueError(f"{folder} lists no images.")
    return [question for pair in zip_longest(*found.values()) for question in pair if question is not None]
