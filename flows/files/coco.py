"""COCO at the user's request: the annotations of one split, and those of its images that a benchmark uses.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, arXiv 1405.0312; annotations CC BY 4.0, images under
their photographers' terms.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from ...datasets import coco
from ...datasets.pope import STRATEGIES
from . import atomic
from .downloads import DownloadFailed, Expected, download, sweep
from .lock import locked

HOST = "https://s3.amazonaws.com/images.cocodataset.org"  # images.cocodataset.org itself has no certificate
LEDGER = "checksums.jsonl"
THREADS, MB = 8, 1e6
LARGEST_IMAGE, LARGEST_ANNOTATION = 20_000_000, 4_000_000_000

# Sizes and SHA-256 as TensorFlow Datasets, CVAT and others have them for these addresses.
ARCHIVES: Mapping[str, Expected] = {
    year: Expected(digest, limit=size, size=size)
    for year, size, digest in (
        ("2014", 252_872_794, "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"),
        ("2017", 252_907_541, "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"),
    )
}
SPLITS = tuple(part + year for year in ARCHIVES for part in ("train", "val"))

Bar = Callable[[str, int, str], Any]


@dataclass
class Fetched:
    """What a download did. found: files that were there already; fetched: those that were not."""

    folder: Path
    split: str
    images: int = 0
    found: int = 0
    fetched: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def fetch(
    out: Path, split: str = "val2014", images: str | Collection[int | str] | None = None, limit: int | None = 500,
    seed: int = 0, host: str = HOST, verify: bool = False, bar: Bar | None = None,
) -> Fetched:  # fmt: skip
    """Make a COCO folder that `evaluate --coco` reads, or complete one; what is there is not fetched again.

    Args:
        images: a list as `coco.choose` takes it; None is what chair and pope of `evaluate` take with this limit and
            seed, which are two draws.
        host: another server with the same files.
        verify: read every file again and compare it with its SHA-256 in checksums.jsonl, which a file that was there
            before has from now on.
        bar: title, total, unit -> a context that gives what advances it.

    Raises:
        DownloadFailed: annotations that could not be fetched, or images (the others are there; run it again).
        ValueError: an unknown split, or a list with images that the annotations lack.
        InUse: another process fills the folder.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r} of COCO to download; possible: {', '.join(SPLITS)}.")
    with locked(out):
        sweep(out)
        ledger = Ledger(out, verify)
        instances = _annotations(out, split, host.rstrip("/"), ledger, bar)
        content = coco.load_json(instances)
        (out / split).mkdir(exist_ok=True)
        wanted = chosen(out, content, split, images, limit, seed)
        return _images(out, split, host.rstrip("/"), wanted, ledger, bar)


def chosen(
    out: Path, content: Mapping[str, Any], split: str, images: str | Collection[int | str] | None, limit: int | None,
    seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """The entries of the images that a benchmark will use, by id."""
    if images is not None:
        ids = set(coco.choose(content, limit, seed, images))
    else:
        ids = set(coco.choose(content, limit, seed))
        ids |= {int(e.image_id) for s in STRATEGIES for e in coco.coco_pope(out, limit, s, seed, split)}
    return sorted((image for image in content["images"] if image["id"] in ids), key=lambda image: image["id"])


class Ledger:
    """SHA-256 and size of every file of the folder that was checked, a line each."""

    def __init__(self, folder: Path, verify: bool) -> None:
        self.folder, self.verify = folder, verify
        self.known = {line["file"]: line for line in atomic.lines(folder / LEDGER).records}

    def holds(self, name: str, right: Callable[[Path], bool]) -> bool:
        """Whether a file is there and as it was. right: looks at a file that is not in the ledger yet."""
        path, known = self.folder / name, self.known.get(name)
        if not path.is_file():
            return False
        if known is None:
            if not right(path):
                return False
            self.add(name)
        elif path.stat().st_size != known["bytes"]:
            return False
        return not self.verify or atomic.digest(path) == self.known[name]["sha256"]

    def add(self, name: str, sha256: str | None = None) -> None:
        path = self.folder / name
        line = {"file": name, "bytes": path.stat().st_size, "sha256": sha256 or atomic.digest(path)}
        atomic.append(self.folder / LEDGER, line)
        self.known[name] = line


# -- annotations ---------------------------------------------------------------------------------------------------
def _annotations(out: Path, split: str, host: str, ledger: Ledger, bar: Bar | None) -> Path:
    """Instances and captions of a split, cut out of the archive that has all of a year."""
    names = [f"annotations/{kind}_{split}.json" for kind in ("instances", "captions")]
    missing = [name for name in names if not ledger.holds(name, _is_json)]
    if missing:
        archive = out / "annotations" / f"annotations_trainval{split[-4:]}.zip"
        expected = ARCHIVES[split[-4:]]
        if not (archive.is_file() and atomic.digest(archive) == expected.sha256):
            with _shown(bar, archive.name, round((expected.size or 0) / MB), "MB") as advance:
                download(f"{host}/annotations/{archive.name}", archive, expected, lambda count: advance(count / MB))
        _extract(archive, missing, out)
        for name in missing:
            ledger.add(name)
        archive.unlink()
    return out / names[0]


def _extract(archive: Path, names: Sequence[str], out: Path) -> None:
    """
    Raises:
        DownloadFailed: a file that is not in the archive, is damaged or too large.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            for name in names:
                if content.getinfo(name).file_size > LARGEST_ANNOTATION:
                    raise DownloadFailed(f"{archive.name}: {name} says it has more than {LARGEST_ANNOTATION:,} bytes")
                with content.open(name) as source, atomic.replacing(out / name) as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DownloadFailed(f"{archive} cannot be unpacked: {error}; delete it and fetch it again") from error


def _is_json(path: Path) -> bool:
    try:
        coco.load_json(path)
    except ValueError:
        return False
    return True


# -- images --------------------------------------------------------------------------------------------------------
def _images(
    out: Path, split: str, host: str, wanted: Sequence[Mapping[str, Any]], ledger: Ledger, bar: Bar | None
) -> Fetched:
    done = Fetched(out, split, len(wanted))
    missing = []
    for image in wanted:
        there = ledger.holds(f"{split}/{image['file_name']}", lambda path, image=image: not _unlike(path, image))  # type: ignore[misc]
        if not there:
            missing.append(image)
    done.found = len(wanted) - len(missing)
    with _shown(bar, f"images of {split}", len(wanted), "images") as advance, ThreadPoolExecutor(THREADS) as pool:
        advance(done.found)
        tasks = {pool.submit(_image, out, split, host, image): image["file_name"] for image in missing}
        try:
            for task in as_completed(tasks):
                name = tasks[task]
                try:
                    ledger.add(f"{split}/{name}", task.result())
                    done.fetched += 1
                except DownloadFailed as error:
                    done.failed[name] = str(error)
                advance(1)
        except BaseException:  # stopped: what is on its way may end, nothing new begins
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if done.failed:
        first = next(iter(done.failed.values()))
        raise DownloadFailed(
            f"{len(done.failed)} of {len(wanted)} images are missing; {len(wanted) - len(done.failed)} are there, and "
            f"the same command goes on. {first}"
        )
    return done


def _image(out: Path, split: str, host: str, image: Mapping[str, Any]) -> str:
    """Fetch one image; its size in pixels must be the annotated one."""
    path = out / split / image["file_name"]
    if path.parent != out / split:
        raise DownloadFailed(f"{image['file_name']!r} is no plain file name")
    url = f"{host}/{split}/{quote(image['file_name'])}"
    fresh = path.with_name(path.name + ".new")
    found = download(url, fresh, Expected(limit=LARGEST_IMAGE))
    if wrong := _unlike(fresh, image):
        fresh.unlink()
        raise DownloadFailed(f"{url} is not the image of the annotations: {wrong}")
    fresh.replace(path)
    return found


def _unlike(path: Path, image: Mapping[str, Any]) -> str:
    """In what a file differs from what the annotations say of the image; "" if in nothing."""
    try:
        with Image.open(path) as opened:
            size = opened.size
            opened.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"it cannot be read ({error})"
    wanted = (image.get("width", size[0]), image.get("height", size[1]))
    return "" if size == wanted else f"it has {size[0]}×{size[1]} pixels, not {wanted[0]}×{wanted[1]}"


# -- helpers -------------------------------------------------------------------------------------------------------
class _Quiet:
    def __enter__(self) -> Callable[[float], None]:
        return lambda count: None

    def __exit__(self, *error: object) -> None:
        return None


def _shown(bar: Bar | None, title: str, total: int, unit: str) -> Any:
    return _Quiet() if bar is None else bar(title, total, unit)
