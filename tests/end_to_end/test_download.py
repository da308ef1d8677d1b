"""Downloads are checked before anything is written."""

import hashlib

import pytest

from veridical.flows.files.downloads import DownloadFailed, fetch


def test_a_file_with_the_known_digest_is_written(tmp_path):
    source = tmp_path / "source.txt"
    source.write_bytes(b"person, people\n")
    digest = hashlib.sha256(b"person, people\n").hexdigest()
    assert fetch(source.as_uri(), digest, tmp_path / "out" / "synonyms.txt").read_bytes() == b"person, people\n"


def test_other_content_is_refused_and_nothing_is_written(tmp_path):
    source = tmp_path / "source.txt"
    source.write_bytes(b"tampered")
    with pytest.raises(DownloadFailed, match="not the published file"):
        fetch(source.as_uri(), "0" * 64, tmp_path / "synonyms.txt")
    assert not (tmp_path / "synonyms.txt").exists()


def test_more_than_the_limit_is_refused(tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(b"x" * 100)
    with pytest.raises(DownloadFailed):
        fetch(source.as_uri(), hashlib.sha256(b"x" * 100).hexdigest(), tmp_path / "out", limit=50)


def test_no_connection_says_what_to_do(tmp_path):
    with pytest.raises(DownloadFailed, match="give its path"):
        fetch((tmp_path / "missing").as_uri(), "0" * 64, tmp_path / "out")
