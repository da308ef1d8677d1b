"""The site of the documents: built without a warning where its extra is installed; its parts also without."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from veridical.pipelines.registry import DECODERS

ROOT = Path(__file__).resolve().parents[3]


def test_the_navigation_names_pages_that_exist():
    named = re.findall(r"- ([\w/]+\.md)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / "docs" / name).exists()] == []


def test_no_file_of_the_site_is_in_the_repository():
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    done = subprocess.run(["git", "ls-files", "docs", "build"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not [name for name in done.stdout.split() if name.endswith((".html", ".css", ".js"))]


def test_the_site_is_built_without_a_warning_and_has_every_decoder(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed: make docs builds the site")
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed: make docs builds the site")
    command = [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "api" / "decoders" / "index.html").read_text(encoding="utf-8")
    rows = {name: f"{DECODERS.package}.{row.target.replace(':', '.')}" for name, row in DECODERS.own.items()}
    assert [name for name, path in rows.items() if f'id="{path}"' not in page] == []
    assert (tmp_path / "CONTRIBUTING" / "index.html").exists()
