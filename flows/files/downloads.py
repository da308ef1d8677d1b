"""Public data, downloaded on request: by `pooch`, over https, limited in size, checked before it is kept."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

CHAIR_SYNONYMS = "https://raw.githubusercontent.com/LisaAnne/Hallucination/6e4d33c/data/synonyms.txt"
CHAIR_DIGEST = "b685537b36fe21b791c87151b96a991ceb582edff19f3da204dcc7a7905502f2"
NLTK_PACKAGES = ("punkt_tab", "averaged_perceptron_tagger_eng", "wordnet")
LIMIT, CHUNK, TIMEOUT, RETRIES = 10_000_000, 1 << 16, 60.0, 3
UNFINISHED = ".download-"
_MD5 = re.compile(r'"([0-9a-f]{32})"')  # the ETag of a file that was stored in one piece
Advance = Callable[[float], None]


class DownloadFailed(OSError):
    """Nothing was written; the message says what was asked for and what to do instead."""


@dataclass(frozen=True)
class Expected:
    """What a file must be. sha256: if published. limit: bytes that are never exceeded. size: bytes, if known."""

    sha256: str | None = None
    limit: int = LIMIT
    size: int | None = None


def download(
    url: str, out: Path, expected: Expected = Expected(), advance: Advance = lambda count: None, retries: int = RETRIES
) -> str:
    """Write the file behind an https address to `out`. Returns its SHA-256.

    Without a published SHA-256, the MD5 counts that the server names as the file's ETag.

    Args:
        advance: called with every number of bytes that comes in.
        retries: after a connection that broke or a server that is busy.

    Raises:
        DownloadFailed: no https, no connection, an answer other than the file, or another content than expected. The
            file that was there before, if any, is still there.
    """
    import pooch
    from requests.exceptions import RequestException

    _check_scheme(url)
    pooch.get_logger().setLevel("WARNING")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=out.parent, ignore_cleanup_errors=True) as folder:
        registry = {out.name: None if expected.sha256 is None else f"sha256:{expected.sha256}"}
        one = pooch.create(
            path=folder, base_url="", registry=registry, urls={out.name: url}, retry_if_failed=retries
        )  # fmt: skip
        try:
            fresh = Path(one.fetch(out.name, downloader=_Limited(expected, advance)))
        except RequestException as error:
            raise DownloadFailed(
                f"{url} could not be fetched ({error}); try again later, or fetch it elsewhere and give its path"
            ) from error
        except ValueError as error:  # pooch's word for another digest
            raise DownloadFailed(f"{url} is not the published file: {error}") from error
        found = expected.sha256 or pooch.file_hash(str(fresh), "sha256")
        fresh.chmod(0o644)
        os.replace(fresh, out)
    return found


def sweep(folder: Path) -> None:
    """Delete what killed downloads left below a folder. Only for one that no other process works in."""
    for path in folder.glob(f"**/{UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def chair_synonyms(out: Path) -> Path:
    """CHAIR's official synonym file (Rohrbach et al., BSD 2-Clause)."""
    download(CHAIR_SYNONYMS, out, Expected(CHAIR_DIGEST))
    return out


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


# -- helpers -------------------------------------------------------------------------------------------------------
class _Limited:
    """pooch's downloader, with a limit of bytes, no way to plain http, and the server's own checksum compared.

    It is its progress bar, too, by which it hears how much has come in.
    """

    def __init__(self, expected: Expected, advance: Advance) -> None:
        self.expected, self.advance = expected, advance
        self.url, self.tag = "", ""
        self.received = self.shown = self._total = 0
        self.finished = False

    def __call__(self, url: str, output_file: str, mirror: Any) -> None:
        import pooch

        self.advance(-self.shown)  # of a try that failed
        self.url, self.received, self.shown, self.finished = url, 0, 0, False
        headers = {"User-Agent": "veridical", "Accept-Encoding": "identity"}
        get = pooch.HTTPDownloader(
            progressbar=self, chunk_size=CHUNK, timeout=TIMEOUT, headers=headers, hooks={"response": self.answered}
        )
        get(url, output_file, mirror)
        size, named = Path(output_file).stat().st_size, _MD5.fullmatch(self.tag)
        if self.expected.size is not None and size != self.expected.size:
            raise DownloadFailed(
                f"{url} is not the published file: it has {size:,} bytes, not {self.expected.size:,}"
            )
        if size > self.expected.limit:
            raise DownloadFailed(f"{url} has {size:,} bytes; at most {self.expected.limit:,} are taken")
        if self.expected.sha256 is None and named:
            md5 = pooch.file_hash(output_file, "md5")
            if md5 != named[1]:
                raise DownloadFailed(f"{url}: its MD5 is {md5[:12]}…, and the server says {named[1][:12]}…")

    def answered(self, answer: Any, **_: Any) -> None:
        """Look at every answer, those that redirect too."""
        if answer.is_redirect:
            _check_scheme(urljoin(answer.url, answer.headers["Location"]), self.url)
        elif 400 <= answer.status_code < 500 and answer.status_code != 429:  # asking again does not help
            raise DownloadFailed(
                f"{self.url} could not be fetched: the server answered {answer.status_code} ({answer.reason})"
            )
        else:
            self.tag = answer.headers.get("ETag") or ""

    # -- what pooch calls on a progress bar
    @property
    def total(self) -> int:
        return self._total

    @total.setter
    def total(self, count: int) -> None:
        if count > self.expected.limit:
            raise DownloadFailed(f"{self.url} has {count:,} bytes; at most {self.expected.limit:,} are taken")
        self._total = count

    def update(self, count: int) -> None:
        if self.finished:  # its last call has the whole, 0 where the server did not say
            count = count - self.shown if count else 0
            self.advance(count)
            self.shown += count
            return
        self.received += count
        if self.received - count > self.expected.limit:  # a chunk counts as full though it is not
            raise DownloadFailed(f"{self.url} has more than {self.expected.limit:,} bytes")
        self.advance(count)
        self.shown += count

    def reset(self) -> None:
        self.finished = True

    def close(self) -> None:
        """There is nothing to close."""


def _check_scheme(url: str, origin: str | None = None) -> None:
    if not url.lower().startswith("https://"):
        via = f", to which {origin} redirects," if origin else ""
        raise DownloadFailed(f"{url}{via} is no https address; only those are fetched")
