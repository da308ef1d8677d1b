"""Any image file, read as a person would see it, or refused with one sentence that says which and why."""

import importlib.machinery
import importlib.util
import io
import struct
import sys
import types
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from veridical.pipelines.inputs import images
from veridical.pipelines.inputs.images import BadImage, read_image

RED, WHITE, GREY = (255, 0, 0), (255, 255, 255), (128, 128, 128)


def two_halves(size=(6, 4)):
    """Left half red, right half blue."""
    image = Image.new("RGB", size, RED)
    image.paste((0, 0, 255), (size[0] // 2, 0, *size))
    return image


def saved(path, image, **options):
    image.save(path, **options)
    return path


def bomb(path, width=60_000, height=60_000):
    """A PNG that says it is huge and is a hundred bytes long."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b""))
    return path


def near(found, expected, tolerance=3):
    """JPEG and CMYK are not exact: three of 255."""
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= tolerance


# ---------------------------------------------------------------------- refused


def missing(folder):
    return folder / "nowhere.png", r"nowhere\.png does not exist"


def directory(folder):
    return folder, "is not a file"


def empty(folder):
    path = folder / "empty.png"
    path.touch()
    return path, r"empty\.png has 0 bytes"


def text(folder):
    path = folder / "notes.png"
    path.write_text("a dog, a cat")
    return path, r"notes\.png is not an image that can be read \(PNG, JPEG"


def truncated_png(folder):
    whole = saved(folder / "whole.png", Image.effect_noise((64, 64), 50)).read_bytes()
    path = folder / "half.png"
    path.write_bytes(whole[: len(whole) // 2])
    return path, r"half\.png cannot be read as an image: "


def truncated_jpeg(folder):
    whole = saved(folder / "whole.jpg", Image.effect_noise((64, 64), 50)).read_bytes()
    path = folder / "half.jpg"
    path.write_bytes(whole[: len(whole) // 2])
    return path, r"half\.jpg cannot be read as an image: "


def header_alone(folder):
    path = folder / "header.png"
    path.write_bytes(saved(folder / "whole.png", two_halves()).read_bytes()[:8])
    return path, r"header\.png"


def many_pixels(folder):
    return bomb(folder / "big.png", 10_000, 10_000), r"10000×10000 pixels; at most 50,000,000 are read"


def far_too_many_pixels(folder):
    return bomb(folder / "bomb.png"), r"bomb\.png"


def vector_graphics(folder):
    path = folder / "drawing.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    return path, "is not an image that can be read"


def postscript(folder):
    """Pillow would start Ghostscript for it."""
    path = folder / "page.eps"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    return path, "is not an image that can be read"


BAD_FILES = [missing, directory, empty, text, truncated_png, truncated_jpeg, header_alone, many_pixels,
             far_too_many_pixels, vector_graphics, postscript]  # fmt: skip


@pytest.mark.parametrize("make", BAD_FILES, ids=lambda make: make.__name__)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path, make):
    path, message = make(tmp_path)
    for source in (path, str(path)):
        with pytest.raises(BadImage, match=message):
            read_image(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://example.org/a.png", "is a URL; nothing is fetched from the network: download it and give its path"),
        ("http://example.org/a.png", "is a URL"),
        (None, "an image is a path, a PIL image or an array; found NoneType"),
        (3, "found int"),
        (b"\x89PNG", "found bytes"),
        (np.zeros(4), r"found shape \(4,\)"),
        (np.zeros((2, 2, 2)), r"found shape \(2, 2, 2\)"),
        (np.zeros((1, 2, 2, 3)), r"found shape \(1, 2, 2, 3\)"),
        (torch.zeros(3, 8, 9), r"\(height, width\) or \(height, width, 1, 3 or 4\); found shape \(3, 8, 9\)"),
        (np.full((2, 2), 300.0), r"an image array is uint8, or float in 0 to 1; found float64 up to 300"),
        (np.full((2, 2), -0.5), "float in 0 to 1"),
        (np.full((2, 2, 3), 200, np.int64), "found int64 up to 200"),
        (np.full((2, 2), np.nan), "float in 0 to 1"),
        (np.zeros((0, 5, 3)), "0"),
        (np.zeros((0, 5, 3), np.uint8), "0"),
    ],
    ids=lambda value: str(getattr(value, "shape", value))[:30] + str(getattr(value, "dtype", "")),
)
def test_a_thing_that_is_no_image_is_refused_with_what_is_one(source, message):
    with pytest.raises(BadImage, match=message):
        read_image(source)


def test_an_opened_image_that_turns_out_to_be_cut_off_is_refused_too(tmp_path):
    """Pillow reads pixels when they are first asked for."""
    path, _ = truncated_png(tmp_path)
    with Image.open(path) as image, pytest.raises(BadImage, match="cannot be read"):
        read_image(image)


def test_an_opened_image_has_to_keep_to_the_pixel_limit_too():
    with pytest.raises(BadImage, match="9×9 pixels; at most 80"):
        read_image(Image.new("RGB", (9, 9)), max_pixels=80)
    with pytest.raises(BadImage, match="9×9 pixels; at most 80"):
        read_image(np.zeros((9, 9, 3), np.uint8), max_pixels=80)


@pytest.mark.filterwarnings("error")
def test_an_image_over_the_limit_is_one_error_without_a_warning_beside_it(tmp_path):
    """Pillow warns of its own accord from 89 million pixels."""
    path, message = many_pixels(tmp_path)
    with pytest.raises(BadImage, match=message):
        read_image(path)


def test_the_limits_are_arguments(tmp_path):
    path = saved(tmp_path / "a.png", two_halves((9, 9)))
    assert read_image(path, max_pixels=81).size == (9, 9)
    with pytest.raises(BadImage, match="9×9 pixels; at most 80"):
        read_image(path, max_pixels=80)
    with pytest.raises(BadImage, match="bytes; possible: 1 to 10"):
        read_image(path, max_bytes=10)


# ---------------------------------------------------------------------- read


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp", "tiff", "gif", "ppm"])
def test_the_usual_files_are_read(tmp_path, kind):
    image = read_image(saved(tmp_path / f"a.{kind}", Image.new("RGB", (6, 4), GREY)))
    assert (image.mode, image.size) == ("RGB", (6, 4))
    near(image.getpixel((3, 2)), GREY)


def test_the_suffix_does_not_matter(tmp_path):
    path = tmp_path / "a.png"
    two_halves().save(path, format="JPEG")
    assert read_image(path).size == (6, 4)


def test_a_printers_image_is_read_in_its_colours(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    image = read_image(path)
    assert image.mode == "RGB"
    near(image.getpixel((4, 4)), RED)


def test_a_16_bit_image_keeps_its_shades(tmp_path):
    """Half of 65,535 is half of 255."""
    values = np.array([[0, 32768, 65535]], np.uint16)
    image = read_image(saved(tmp_path / "a.png", Image.fromarray(values)))
    assert image.mode == "RGB"
    near(image.getpixel((0, 0)), (0, 0, 0), 1)
    near(image.getpixel((1, 0)), GREY, 1)
    near(image.getpixel((2, 0)), WHITE, 1)


def test_a_dark_16_bit_image_stays_dark(tmp_path):
    """A night scene is no daylight scene: 1,000 of 65,535 is 4 of 255."""
    values = np.full((4, 4), 1000, np.uint16)
    near(read_image(saved(tmp_path / "a.png", Image.fromarray(values))).getpixel((1, 1)), (4, 4, 4), 1)


def test_what_is_transparent_shows_the_white_page_behind_it(tmp_path):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    clear.putpixel((1, 0), (0, 0, 0, 128))
    image = read_image(saved(tmp_path / "a.png", clear))
    assert image.mode == "RGB"
    assert image.getpixel((3, 3)) == WHITE
    assert image.getpixel((0, 0)) == RED
    near(image.getpixel((1, 0)), (127, 127, 127), 1)


def test_a_palette_with_a_transparent_entry_shows_the_white_page_too(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    read = read_image(saved(tmp_path / "a.png", image, transparency=1))
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


def test_grey_with_transparency_is_read(tmp_path):
    image = read_image(saved(tmp_path / "a.png", Image.new("LA", (2, 2), (0, 0))))
    assert image.getpixel((0, 0)) == WHITE


def test_black_and_white_is_read(tmp_path):
    assert read_image(saved(tmp_path / "a.png", Image.new("1", (2, 2), 1))).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize(("orientation", "size", "corner"), [(1, (6, 4), RED), (3, (6, 4), (0, 0, 255)),
                                                             (6, (4, 6), RED), (8, (4, 6), (0, 0, 255))])  # fmt: skip
def test_a_photograph_is_turned_as_its_camera_says(tmp_path, orientation, size, corner):
    """Left is red and right is blue; 3 is upside down, 6 and 8 lie on their sides."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", two_halves(), exif=exif)
    image = read_image(path)
    assert image.size == size
    assert image.getpixel((0, 0)) == corner


def test_an_animation_is_its_first_image(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    image = read_image(path)
    assert image.size == (4, 4)
    near(image.getpixel((2, 2)), RED)
    assert getattr(image, "n_frames", 1) == 1


@pytest.mark.parametrize("one", [np.asarray, lambda image: torch.from_numpy(np.array(image))], ids=["numpy", "torch"])
def test_arrays_are_read(one):
    assert list(read_image(one(two_halves())).getdata()) == list(two_halves().getdata())


def test_floats_and_single_channels_are_read():
    assert read_image(np.full((2, 3, 3), 0.5)).getpixel((0, 0)) == GREY
    assert read_image(np.full((2, 3, 1), 128, np.uint8)).getpixel((0, 0)) == GREY
    assert read_image(np.full((2, 3), 128, np.uint8)).size == (3, 2)
    assert read_image(np.ones((2, 3), bool)).getpixel((0, 0)) == WHITE
    assert read_image(np.zeros((2, 3, 4), np.uint8)).getpixel((0, 0)) == WHITE


def test_tensors_that_learn_or_are_of_half_precision_are_read():
    assert read_image(torch.full((2, 3), 0.5, requires_grad=True)).getpixel((0, 0)) == GREY
    assert read_image(torch.full((2, 3), 0.5, dtype=torch.bfloat16)).getpixel((0, 0)) == GREY


def test_a_pil_image_is_read_and_left_as_it_is():
    given = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read_image(given).getpixel((0, 0)) == WHITE
    assert given.mode == "RGBA"


def test_the_image_is_whole_after_its_file_is_gone(tmp_path):
    path = saved(tmp_path / "a.png", two_halves())
    image = read_image(path)
    path.unlink()
    assert image.getpixel((0, 0)) == RED


def test_bytes_of_a_file_in_memory_are_refused_and_not_guessed():
    with pytest.raises(BadImage, match="found BytesIO"):
        read_image(io.BytesIO(b"x"))


# -- formats that not every Pillow reads ---------------------------------------------------------------------------
def test_avif_is_read(tmp_path):
    path = saved(tmp_path / "a.avif", two_halves((64, 32)), quality=100)
    image = read_image(path)
    assert image.size == (64, 32)
    assert np.abs(np.asarray(image, int)[16, 8] - RED).max() < 12


HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40)


@pytest.fixture
def _formats_anew():
    """Which formats there are is found out once per process."""
    images._formats.cache_clear()
    yield
    images._formats.cache_clear()


@pytest.mark.usefixtures("_formats_anew")
def test_heic_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if "heif" in name else find(name, *more))
    (tmp_path / "a.heic").write_bytes(HEIC)
    for read in (lambda: read_image(tmp_path / "a.heic"), lambda: images.read_bytes(HEIC, "a.heic")):
        with pytest.raises(BadImage, match=r"a\.heic is a HEIC image, .* pip install 'veridical\[heic"):
            read()


@pytest.mark.usefixtures("_formats_anew")
def test_with_its_package_heic_is_among_the_formats(monkeypatch):
    registered = []
    stand_in = types.ModuleType("pillow_heif")
    stand_in.register_heif_opener = lambda: registered.append(True)
    stand_in.__spec__ = importlib.machinery.ModuleSpec("pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", stand_in)
    with pytest.raises(BadImage, match=r"is not an image that can be read .*AVIF, HEIF"):
        images.read_bytes(b"no image", "a.heic")
    assert registered == [True]


@pytest.mark.usefixtures("_formats_anew")
def test_heic_is_read_where_its_package_is_installed(tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    path = saved(tmp_path / "a.heic", two_halves((64, 32)), quality=95)
    assert read_image(path).size == (64, 32)
    assert images.read_size(path.read_bytes(), "a.heic") == (32, 64)
