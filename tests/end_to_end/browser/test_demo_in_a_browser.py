"""The page to try, in a real browser where there is one, else through Gradio's own client."""

import base64
import io

import pytest
from PIL import Image

import veridical
from veridical.cli.demo import describe as describing
from veridical.datasets.world import scene

CSS = "css selector"


@pytest.fixture(scope="module")
def lvlm():
    return veridical.load("embedded")


@pytest.fixture(scope="module")
def address(lvlm):
    pytest.importorskip("gradio", reason="Gradio is not installed (extra demo)")
    from veridical.cli.demo.page import launch

    app = launch(lvlm, wait=False)
    yield app.local_url
    app.close()


def wait(driver, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 90).until(condition)


def test_an_image_is_described_and_a_clicked_word_shows_its_attention(page, address, tmp_path):
    scene("test", 1).image.save(tmp_path / "scene.png")
    driver = page.driver
    page.open(address)
    field = wait(driver, lambda d: d.find_elements(CSS, "#image input[type=file]"))[0]
    field.send_keys(str(tmp_path / "scene.png"))
    wait(driver, lambda d: d.find_elements(CSS, "#image img"))
    driver.execute_script("document.querySelector('#describe').click()")
    words = lambda box: [w for w in driver.find_elements(CSS, f"#{box} .textspan, #{box} .token") if w.text.strip()]
    wait(driver, lambda d: len(words("plain")) > 3 and len(words("mitigated")) > 3)
    assert not driver.find_elements(CSS, "#overlay img")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", words("mitigated")[4])
    words("mitigated")[4].click()
    wait(driver, lambda d: d.find_elements(CSS, "#overlay img"))
    line = wait(driver, lambda d: d.find_element(CSS, "#word textarea, #word input").get_attribute("value"))
    assert "(vcd): risk by entropy" in line
    requests = page.seen().requests
    assert [one for one in requests if one.startswith(("http:", "https:")) and not one.startswith(address)] == []


def test_gradios_client_gets_the_same_texts(address, tmp_path, lvlm):
    from gradio_client import Client, handle_file

    path = tmp_path / "scene.png"
    scene("test", 1).image.save(path)
    found = Client(address, verbose=False).predict(
        handle_file(path), "Please describe this image in detail.", ["vcd"], ["entropy"], 24, api_name="/describe"
    )
    texts = [" ".join(piece["token"] for piece in side) for side in found if isinstance(side, list)]
    expected = [
        lvlm.caption(path, decoders=one, max_new_tokens=24)[0].text for one in ([], ["vcd"])
    ]  # fmt: skip
    assert texts == [" ".join(text.split()) for text in expected]


# -- without the page ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def sides(lvlm):
    return describing.describe(lvlm, scene("test", 1).image, ["vcd"], ["entropy"], "Describe the image.", 24)


def test_both_sides_have_words_with_risks(sides):
    assert [side.name for side in sides] == ["plain", "vcd"]
    for side in sides:
        assert [piece for piece, _ in side.pieces] == side.text.split()
        assert all(0 <= shade <= 1 for _, shade in side.pieces)
        assert len(side.risk["entropy"]) == len(side.words)


def test_a_clicked_word_covers_the_image_where_the_model_looks(sides):
    image = scene("test", 1).image
    shown, line = describing.clicked(image, sides[1], 2)
    assert line.startswith(f"{sides[1].words[2].text} (vcd): risk by entropy ")
    values = sides[1].maps.overlay(sides[1].words[2].text).numpy()
    assert shown.size == image.size
    change = [abs(a - b) for a, b in zip(shown.convert("L").tobytes(), image.convert("L").tobytes(), strict=True)]
    assert any(change)
    rows, columns = values.shape
    peak = divmod(int(values.argmax()), columns)
    x, y = (peak[1] + 0.5) * image.width / columns, (peak[0] + 0.5) * image.height / rows
    red, green, _ = shown.getpixel((int(x), int(y)))
    assert red > 150 > green


def test_a_family_without_a_grid_says_so_in_place_of_an_overlay(sides):
    from dataclasses import replace

    image = scene("test", 1).image
    side = replace(sides[0], maps=replace(sides[0].maps, no_grid="query tokens have no place"))
    shown, line = describing.clicked(image, side, 0)
    assert shown is image
    assert "no overlay: query tokens have no place" in line


def test_what_cannot_be_described_is_refused(lvlm):
    with pytest.raises(ValueError, match="there is no question"):
        describing.describe(lvlm, scene("test", 1).image, [], [], " ", 8)
    with pytest.raises(ValueError, match=r"25,?000,?000"):
        describing.describe(lvlm, Image.new("RGB", (6000, 5000)), [], [], "What?", 8)


def test_the_page_is_this_machines_alone_and_takes_no_large_files(address):
    import urllib.error
    import urllib.request

    assert address.startswith("http://127.0.0.1:")
    body = io.BytesIO()
    boundary = "x1x"
    large = base64.b64encode(bytes(8_000_000))
    body.write(f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode())
    body.write(large + f"\r\n--{boundary}--\r\n".encode())
    request = urllib.request.Request(
        f"{address}gradio_api/upload", body.getvalue(),
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )  # fmt: skip
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 413


def test_without_gradio_the_command_says_what_to_install(veridical, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    without = lambda name, *more: None if name == "gradio" else find(name, *more)
    monkeypatch.setattr(importlib.util, "find_spec", without)
    shown = veridical("demo")
    assert shown.exit_code == 2
    assert "pip install 'veridical[demo]'" in shown.stderr
