"""Downloads public data when the user asks for it: over https, limited in size, checked against a known digest."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

CHAIR_SYNONYMS = "https://raw.githubusercontent.com/LisaAnne/Hallucination/6e4d33c/data/synonyms.txt"
CHAIR_DIGEST = "b685537b36fe21b791c87151b96a991ceb582edff19f3da204dcc7a7905502f2"
NLTK_PACKAGES = ("punkt_tab", "averaged_perceptron_tagger_eng", "wordnet")
LIMIT = 10_000_000


class DownloadFailed(OSError):
    """Nothing was written; the message says what was asked for and what to do instead."""


def fetch(url: str, digest: str, out: Path, limit: int = LIMIT) -> Path:
    """Write the file behind `url` to `out` if its SHA-256 is `digest`.

    Raises:
        DownloadFailed: no connection, more than `limit` bytes, or other content.
    """
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read(limit + 1)
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise DownloadFailed(f"{url} could not be fetched ({error}); fetch it elsewhere and give its path") from error
    found = hashlib.sha256(content).hexdigest()
    if len(content) > limit or found != digest:
        raise DownloadFailed(f"{url} is not the published file: SHA-256 {found[:12]}…, expected {digest[:12]}…")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.write_bytes(content)
    partial.replace(out)
    return out


def chair_synonyms(out: Path) -> Path:
    """CHAIR's official synonym file (Rohrbach et al., BSD 2-Clause)."""
    return fetch(CHAIR_SYNONYMS, CHAIR_DIGEST, out)


def nltk_data(out: Path) -> Path:
    """NLTK's tokenizer, tagger and WordNet, through its own downloader.

    Raises:
        DownloadFailed: a package that could not be fetched.
    """
    import nltk

    out.mkdir(parents=True, exist_ok=True)
    for package in NLTK_PACKAGES:
        if not nltk.download(package, download_dir=str(out), quiet=True):
            raise DownloadFailed(f"NLTK's {package} could not be fetched; copy it to {out} from another machine")
    return out
