"""Files of published work, downloaded from its repositories at the user's request, each under its SHA-256."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from .downloads import Expected, download

# Repository, commit and path -> SHA-256: POPE's questions on COCO (MIT), and RePOPE's (no licence stated).
REPOPE = {
    "RUCAIBox/POPE/3df3ba1/output/coco/coco_pope_random.json":
        "ac25245170b975a5bdf9080b23fd431dfe6be458bc038259c1f4f09a6bef7994",
    "RUCAIBox/POPE/3df3ba1/output/coco/coco_pope_popular.json":
        "72c1a8ad45d0c13514f5f22598261df41d3b533854d29682e924db50ed8aa753",
    "RUCAIBox/POPE/3df3ba1/output/coco/coco_pope_adversarial.json":
        "420b3407db1fa9f1187a805dca41cb7b97fd91504e6c2179706188c107fb8ef8",
    "YanNeu/RePOPE/bcf22e5/annotations/coco_repope_random.json":
        "f464fcaf60b24ce2f280cf33f122e000dbdd35c8e88f77c4141c9c2cba864611",
    "YanNeu/RePOPE/bcf22e5/annotations/coco_repope_popular.json":
        "57832b055bae5fd6176278a4f104c98ddd84811f7d26dfcb93d481f6c9da09a5",
    "YanNeu/RePOPE/bcf22e5/annotations/coco_repope_adversarial.json":
        "8c346dbb060bf422ff92e769fa68e5ab3e8a777cb28a26e973387441e05c9ccf",
}  # fmt: skip


def repope(out: Path, host: str) -> Path:
    """POPE's questions on COCO and RePOPE's, three splits each.

    Args:
        host: address below which repository, commit and path follow.

    Raises:
        DownloadFailed: as `download`.
    """
    for path, digest in REPOPE.items():
        download(f"{host}/{path}", out / path.rsplit("/", 1)[-1], Expected(digest))
    return out


def released(
    out: Path, host: str, names: Sequence[str] = (), advance: Callable[[int], None] = lambda count: None
) -> tuple[int, int]:
    """Captions and answers that published methods released; those that are there already stay.

    Args:
        host: address below which repository, commit and path follow.
        names: beginnings of names, such as "opera"; none are all.
        advance: called with 1 for every file.

    Returns:
        How many were fetched, and how many were there.

    Raises:
        ValueError: a name that nothing begins with.
        DownloadFailed: as `download`.
    """
    from ..literature.folder import Released, index

    for name in names:
        if not any(one.startswith(name) for one in index()):
            known = ", ".join(dict.fromkeys(one.split("/")[0] for one in index()))
            raise ValueError(f"no released file begins with {name!r}. Known: {known}.")
    out.mkdir(parents=True, exist_ok=True)
    folder, fetched, there = Released(out), 0, 0
    for name, about in index().items():
        if names and not name.startswith(tuple(names)):
            continue
        if folder.path(name) is None:
            address = f"{host}/{about['repository']}/{about['commit']}/{quote(about['path'])}"
            download(address, out / about["file"], Expected(about["sha256"], size=about["bytes"]))
            fetched += 1
        else:
            folder.content(name)
            there += 1
        advance(1)
    return fetched, there
