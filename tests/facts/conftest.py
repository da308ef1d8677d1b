"""Both word families of CHAIR with the official synonyms; without the public data their tests skip."""

import pytest

from veridical.metrics.chair import Chair


@pytest.fixture
def synonyms(test_data, monkeypatch):
    """The official synonym file, with NLTK's data in reach."""
    nltk = pytest.importorskip("nltk")
    folder = test_data / "nltk_data"
    if not folder.is_dir():
        pytest.skip(f"no NLTK data at {folder}; set VERIDICAL_TEST_DATA")
    monkeypatch.setenv("NLTK_DATA", str(folder))
    monkeypatch.setattr(nltk.data, "path", [str(folder), *nltk.data.path])
    return test_data / "chair_synonyms.txt"


@pytest.fixture
def wordnet(synonyms):
    return Chair(synonyms)


@pytest.fixture
def pattern(synonyms):
    return Chair(synonyms, family="pattern")
