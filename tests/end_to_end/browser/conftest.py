"""Chromium without a window: what it logs and asks for is read after each test, and no name is ever resolved."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-dev-shm-usage", "--disable-default-apps", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--window-size=1280,1000",
)  # fmt: skip


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A driver of selenium. Skipped where chromium, chromedriver or selenium are not installed."""
    selenium = pytest.importorskip("selenium", reason="selenium is not installed (extra dev)")
    browser, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not (browser and driver):
        pytest.skip("no chromium and chromedriver here: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    running = webdriver.Chrome(options, webdriver.ChromeService(driver, log_output=subprocess.DEVNULL))
    assert selenium
    yield running
    running.quit()


@pytest.fixture
def page(chromium: Any) -> Any:
    """open(path or address), seen(): addresses asked for and errors logged since; axe(): serious faults."""

    def opened(address: str | Path) -> None:
        seen()
        chromium.get(address.as_uri() if isinstance(address, Path) else address)

    def seen() -> SimpleNamespace:
        messages = [json.loads(line["message"])["message"] for line in chromium.get_log("performance")]
        requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        errors = [line for line in chromium.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]
        return SimpleNamespace(requests=requests, errors=errors)

    chromium.set_window_size(1280, 1000)
    colours(chromium, "light")
    return SimpleNamespace(driver=chromium, open=opened, seen=seen, axe=lambda: axe(chromium))


def colours(driver: Any, scheme: str) -> None:
    """Light or dark, as the system asks for."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def axe(driver: Any) -> list[str]:
    """Serious and critical faults that axe-core finds; skipped without it.

    It is looked for where VERIDICAL_AXE says, and among npm's packages here and of this machine.
    """
    places = [Path("node_modules"), Path("/usr/lib/node_modules"), Path("/usr/local/lib/node_modules")]
    found = [Path(named)] if (named := os.environ.get("VERIDICAL_AXE")) else []
    found += [place / "axe-core" / "axe.min.js" for place in places]
    script = next((path for path in found if path.is_file()), None)
    if script is None:
        pytest.skip("axe-core is not installed: npm install axe-core, or VERIDICAL_AXE=…/axe.min.js")
    driver.execute_script(script.read_text(encoding="utf-8") + ";window.axe = axe;")
    result = driver.execute_async_script("axe.run(document).then(arguments[0], e => arguments[0]({error: String(e)}))")
    assert "error" not in result, result
    serious = [one for one in result["violations"] if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {one['nodes'][0]['html'][:160]} {one['nodes'][0].get('failureSummary')}" for one in serious]
