"""Files of published work, downloaded from its repositories at the user's request, each under its SHA-256."""

from __future__ import annotations

from pathlib import Path

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
