"""The report in a real browser: opened from disk, filtered, read word by word; nothing is loaded, nothing fails."""

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from .conftest import colours
from .large_run import large_run

CSS = "css selector"
SHOTS = os.environ.get("VERIDICAL_SCREENSHOTS")  # a folder: screenshots to look at


@pytest.fixture(scope="module")
def report(small_run, tmp_path_factory) -> Path:
    """Of 1,000 examples."""
    folder = tmp_path_factory.mktemp("large") / "run"
    shutil.copytree(small_run, folder)
    return large_run(folder) / "report.html"


@pytest.fixture
def opened(page, report):
    page.open(report)
    return page


def find(page, selector):
    return page.driver.find_elements(CSS, selector)


def test_a_thousand_examples_fit_into_30_megabytes(report):
    text = report.read_text(encoding="utf-8")
    assert len(text.encode()) < 30_000_000
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert len(data["examples"]) == 1000
    assert data["attention"] == 1000
    assert sum(map(bool, data["images"])) == 1000


def test_nothing_is_loaded_and_nothing_fails(opened):
    seen = opened.seen()
    assert seen.errors == []
    assert [one for one in seen.requests if not one.startswith(("file:", "data:"))] == []
    assert [one for one in seen.requests if one.startswith("file:")] == [opened.driver.current_url]
    assert opened.driver.execute_script("return fetch('https://example.org').then(() => 1, () => 0)") == 0


def test_a_text_is_never_markup(opened):
    """A caption that holds a tag shows the tag."""
    assert not find(opened, ".text b")
    found = opened.driver.execute_script(
        "const d = JSON.parse(document.getElementById('data').textContent);"
        "return d.examples.findIndex(one => one.answers[0].text.includes('<b>'))"
    )
    opened.driver.execute_script(f"location.hash = '#example-{found + 1}'")
    assert any("<b>" in word.text for word in find(opened, ".word"))


def test_a_prompt_is_shown_as_the_model_reads_it(opened):
    text = find(opened, ".facts")[0].text
    assert "USER: <image>" in text
    assert "\\u003c" not in text


def test_filters_leave_the_examples_that_they_name(opened):
    from selenium.webdriver.support.ui import Select

    assert find(opened, "#count")[0].text == "1000 of 1000 examples"
    assert len(find(opened, "#list a")) == 1000
    Select(find(opened, "#filter-change")[0]).select_by_visible_text("fixed by vcd")
    fixed = len(find(opened, "#list a"))
    assert 0 < fixed < 1000
    assert find(opened, "#count")[0].text == f"{fixed} of 1000 examples"
    assert "fixed by vcd" in find(opened, "#list a")[0].text
    Select(find(opened, "#filter-category")[0]).select_by_value("w:zebra")
    assert 0 < len(find(opened, "#list a")) < fixed
    assert find(opened, ".word.wrong"), "the example that is shown passes too"
    Select(find(opened, "#filter-method")[0]).select_by_visible_text("vcd")
    assert [one.text for one in find(opened, "#texts h4")] == ["vcd"]
    find(opened, "#reset")[0].click()
    assert len(find(opened, "#list a")) == 1000


def test_a_word_shows_its_attention_its_risks_and_what_changed(opened):
    assert not find(opened, "#overlay")[0].is_displayed()
    word = find(opened, ".text")[1].find_elements(CSS, ".word")[1]
    word.click()
    overlay = find(opened, "#overlay")[0]
    assert overlay.is_displayed()
    pixels = opened.driver.execute_script(
        "const c = arguments[0]; return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]", overlay
    )
    assert len(set(pixels[3::4])) > 4, "some places are covered more than others"
    assert overlay.size["width"] == pytest.approx(find(opened, "#image")[0].size["width"], abs=1)
    detail = find(opened, "#detail")[0].text
    for part in (word.text, "risk by entropy: 0.", "risk by vhd: 0.", "greedy has", "without decoders: 0.500"):
        assert part in detail
    assert opened.driver.execute_script("return document.activeElement.className").endswith("chosen")


def test_it_is_used_by_keyboard_alone(opened):
    from selenium.webdriver.common.keys import Keys

    driver = opened.driver
    first = find(opened, ".word")[0]
    driver.execute_script("arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_RIGHT)
    active = driver.switch_to.active_element
    assert active.text == find(opened, ".text")[0].find_elements(CSS, ".word")[1].text
    assert find(opened, "#overlay")[0].get_attribute("data-word") == "1"
    active.send_keys(Keys.END)
    assert driver.switch_to.active_element.text == find(opened, ".text")[0].find_elements(CSS, ".word")[-1].text
    driver.switch_to.active_element.send_keys(Keys.TAB)
    assert driver.switch_to.active_element.text == find(opened, ".text")[1].find_elements(CSS, ".word")[0].text
    driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not find(opened, "#overlay")[0].is_displayed()


def test_every_example_has_an_address(opened, report):
    find(opened, "#next")[0].click()
    assert opened.driver.current_url.endswith("#example-2")
    title = find(opened, "#viewer-title")[0].text
    opened.open(f"{report.as_uri()}#example-2")
    assert find(opened, "#viewer-title")[0].text == title
    assert find(opened, '#list a[aria-current="true"]')[0].text.startswith(title.split(": ")[1][:12])


LABELS = """
const stage = document.querySelector('.stage').getBoundingClientRect();
return [...document.querySelectorAll('#labels span')].map(one => {
  const { left, top, right, bottom } = one.getBoundingClientRect();
  return [one.textContent, left - stage.left, top - stage.top, right - stage.left, bottom - stage.top];
}).concat([['', 0, 0, stage.width, stage.height]])
"""


@pytest.mark.parametrize("width", [1280, 600])
def test_boxes_have_their_names_inside_the_image_and_none_covers_another(opened, report, width):
    data = json.loads(report.read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0])
    opened.driver.set_window_size(width, 1000)
    named = 0
    for number in range(1, 9):
        opened.driver.execute_script(f"location.hash = '#example-{number}'")
        opened.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        *labels, (_, _, _, wide, high) = opened.driver.execute_script(LABELS)
        categories = [box[0] for box in data["examples"][number - 1]["boxes"]]
        assert labels
        for name in {label[0] for label in labels}:
            assert [label[0] for label in labels].count(name) <= categories.count(name)
        for place, (_, left, top, right, bottom) in enumerate(labels):
            assert (left >= -0.5, top >= -0.5, right <= wide + 0.5, bottom <= high + 0.5) == (True,) * 4
            for _, a, b, c, d in labels[:place]:
                assert right <= a + 0.5 or c <= left + 0.5 or bottom <= b + 0.5 or d <= top + 0.5
        named += len(labels) / len(categories)
    assert named / 8 > 0.7, "most boxes have a name"
    find(opened, "#with-boxes")[0].click()
    assert not find(opened, "#labels")[0].is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_serious_fault(opened, scheme, width):
    colours(opened.driver, scheme)
    opened.driver.set_window_size(max(width, 500), 1000)
    opened.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        find(opened, ".text")[1].find_elements(CSS, ".word")[1].click()
        wide = opened.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        if SHOTS:
            _shoot(opened.driver, f"{scheme}-{width}")
        assert wide <= 0, "nothing stands out of a narrow screen"
        assert opened.axe() == []
    finally:
        opened.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def _shoot(driver, name):
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    Path(SHOTS, f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
    if name == "light-1280":
        Path(SHOTS, "print.pdf").write_bytes(base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {})["data"]))
