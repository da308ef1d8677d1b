"""Shared settings of the contract tests, each built once per test run."""

import pytest

from . import table
from .models import MAKERS, pytest_generate_tests, setting
from .setting import READING

__all__ = ["pytest_generate_tests", "setting"]


@pytest.fixture(scope="session")
def tiny():
    """One tiny model, grouped-query attention, for what does not depend on the model: it is six times as fast."""
    return MAKERS["gqa"]()


@pytest.fixture(params=table.covered())
def name(request):
    """Every registered decoder with a line in the table, each as a case of its own."""
    return request.param


@pytest.fixture(params=READING)
def detector(request):
    return request.param
