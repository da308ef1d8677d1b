"""Single files are downloaded and checked before anything is written."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from veridical.flows.files import downloads
from veridical.flows.files.downloads import DownloadFailed, Expected, download

CONTENT = b"person, people\n"


@pytest.fixture
def url(tmp_path, tls, monkeypatch):
    """The address of a file with CONTENT, on a server whose certificate is trusted."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "synonyms.txt").write_bytes(CONTENT)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.file))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path / "served"))
    server.socket = tls.context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}/synonyms.txt"
    server.shutdown()
    server.server_close()


def test_a_file_with_the_known_digest_is_written(url, tmp_path):
    digest, out = hashlib.sha256(CONTENT).hexdigest(), tmp_path / "out" / "synonyms.txt"
    assert download(url, out, Expected(digest)) == digest
    assert out.read_bytes() == CONTENT
    assert out.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in out.parent.iterdir()] == ["synonyms.txt"]


def test_other_content_is_refused_and_nothing_is_written(url, tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    with pytest.raises(DownloadFailed, match="not the published file"):
        download(url, tmp_path / "out" / "synonyms.txt", Expected("0" * 64))
    assert not list((tmp_path / "out").iterdir())


def test_more_than_the_limit_is_refused(url, tmp_path):
    with pytest.raises(DownloadFailed, match="has 15 bytes; at most 9 are taken"):
        download(url, tmp_path / "out" / "x", Expected(hashlib.sha256(CONTENT).hexdigest(), limit=9))
    assert not list((tmp_path / "out").iterdir())


def test_no_connection_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    with pytest.raises(DownloadFailed, match="give its path"):
        download("https://127.0.0.1:9/missing", tmp_path / "out")


def test_chairs_synonyms_are_fetched_under_the_published_digest(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(downloads, "download", lambda *arguments: fetched.append(arguments))
    assert downloads.chair_synonyms(tmp_path / "x") == tmp_path / "x"
    assert fetched == [(downloads.CHAIR_SYNONYMS, tmp_path / "x", Expected(downloads.CHAIR_DIGEST))]
