"""CHAIR with a cache on disk: a caption is tagged once, however often the page is made."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from importlib.metadata import version
from pathlib import Path

import platformdirs

from ...metrics import chair_parser, chair_words
from ...metrics.chair import Chair
from ...metrics.chair_parser import Words


def default_folder() -> Path:
    """$VERIDICAL_CACHE, or this program's folder where the platform keeps caches; captions/ below it."""
    named = os.environ.get("VERIDICAL_CACHE")
    folder = Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("veridical", appauthor=False))
    return folder / "captions"


class CachedChair(Chair):
    """CHAIR whose `read` looks on disk first.

    What is kept depends on the caption, the vocabulary, the word family, NLTK's version and this project's own code, so
    that none of them can change without the captions being tagged anew.
    """

    def __init__(self, synonyms: Path, family: str, folder: Path):
        super().__init__(synonyms, family)
        folder.mkdir(parents=True, exist_ok=True)
        sources = [Path(module.__file__ or "").read_bytes() for module in (chair_parser, chair_words)]
        parts = [Path(synonyms).read_bytes(), family.encode(), version("nltk").encode(), *sources]
        self._scorer = hashlib.sha256(b"\0".join(parts)).hexdigest()
        self._store = sqlite3.connect(folder / "words.sqlite", isolation_level=None, timeout=60)
        self._store.execute("PRAGMA journal_mode=WAL")
        self._store.execute("PRAGMA synchronous=OFF")  # a cache: what a crash loses is tagged anew
        self._store.execute("CREATE TABLE IF NOT EXISTS words (key TEXT PRIMARY KEY, found TEXT)")

    def read(self, caption: str) -> Words:
        """As `Chair.read`."""
        digest = hashlib.sha256(caption.encode("utf-8", "surrogatepass"))
        key = f"{self._scorer}:{digest.hexdigest()}"
        row = self._store.execute("SELECT found FROM words WHERE key = ?", (key,)).fetchone()
        if row is not None:
            raw, tokens, starts, spans = json.loads(row[0])
            return Words(raw, tokens, starts, [(start, end) for start, end in spans])
        words = super().read(caption)
        self._store.execute("INSERT OR REPLACE INTO words VALUES (?, ?)", (key, json.dumps(words)))
        return words
