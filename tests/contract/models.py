"""The models that a test with the fixture `setting` runs on: each is a row, and a test's marker says which rows.

Without a marker a test runs on the quick rows. `@every_model` adds embedded-smollm2, which is slow: 30 layers, 9 query
and 3 key-value heads, a vocabulary of 49,152. `make test` leaves slow rows out, and `make test-slow` runs them alone.
"""

from functools import cache

import pytest

from veridical.models import EMBEDDED

from . import setting as settings

SECOND = "embedded-smollm2"
MAKERS = {
    "mha": cache(lambda: settings.tiny(8, 8)),
    "gqa": cache(lambda: settings.tiny(8, 2)),
    "embedded": cache(settings.embedded),
    SECOND: cache(settings.smollm2),
}
QUICK = [name for name in MAKERS if name != SECOND and (name != "embedded" or (EMBEDDED / "config.json").exists())]

every_model = pytest.mark.models(*QUICK, SECOND)
tiny_ones_and_smollm2 = pytest.mark.models("mha", "gqa", SECOND)
tiny_and_smollm2 = pytest.mark.models("gqa", SECOND)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One case per model of the test's marker, or per quick one."""
    if "setting" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("models")
        rows = [
            pytest.param(name, marks=pytest.mark.slow) if name == SECOND else name
            for name in (marker.args if marker else QUICK)
        ]
        metafunc.parametrize("setting", rows, indirect=True, scope="session")


@pytest.fixture(scope="session")
def setting(request: pytest.FixtureRequest) -> settings.Setting:
    """The model of this case, with its prompts; it is built once per test run."""
    return MAKERS[request.param]()
