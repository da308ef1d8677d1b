"""One tiny model for the tests that need one."""

import pytest

from ..contract import setting as settings


@pytest.fixture(scope="session")
def tiny():
    return settings.tiny(8, 2)
