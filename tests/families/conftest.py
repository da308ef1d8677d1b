"""Shared settings of the family tests, each model built once per test run."""

import pytest
import torch

from .models.tiny_families import FAMILIES
from .setting import Setting, setting


@pytest.fixture(params=FAMILIES, scope="session")
def case(request) -> Setting:
    """A tiny model of every family, in float32."""
    return setting(request.param)


@pytest.fixture(params=FAMILIES, scope="session")
def exact(request) -> Setting:
    """The same in float64, for comparisons that float32 would blur."""
    return setting(request.param, torch.float64)
