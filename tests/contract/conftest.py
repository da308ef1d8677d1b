"""Shared settings of the contract tests, each built once per test run."""

from functools import cache

import pytest

from veridical.models import EMBEDDED

from . import setting as settings
from . import table
from .setting import READING

grouped = cache(lambda: settings.tiny(8, 2))
MAKERS = {"mha": lambda: settings.tiny(8, 8), "gqa": grouped}
if (EMBEDDED / "config.json").exists():
    MAKERS["embedded"] = settings.embedded


@pytest.fixture(params=MAKERS, scope="session")
def setting(request):
    return MAKERS[request.param]()


@pytest.fixture(scope="session")
def tiny():
    """One tiny model, grouped-query attention, for what does not depend on the model: it is six times as fast."""
    return grouped()


@pytest.fixture(params=table.covered())
def name(request):
    """Every registered decoder with a line in the table, each as a case of its own."""
    return request.param


@pytest.fixture(params=READING)
def detector(request):
    return request.param
