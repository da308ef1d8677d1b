"""Renders the sprite sheet of the embedded world from Debian's fonts-noto-color-emoji (OFL-1.1).

Run once, when a category is added: `python -m veridical.datasets.render_sprites`. The sheet is a grid of square cells,
one emoji each, in the order of `categories.CATEGORIES`; beside it lies the font's licence.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .categories import CATEGORIES

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
SHEET = Path(__file__).parent / "sprites" / "sheet.png"
CELL, COLUMNS = 96, 10
FORK_AND_KNIFE = "🍴"  # the font has no fork alone: its left half is one
BITMAP = 109  # the one size at which the font holds its bitmaps


def draw(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji, cropped to what is drawn and scaled so that its longer side fills a cell."""
    canvas = Image.new("RGBA", (2 * BITMAP, 2 * BITMAP))
    ImageDraw.Draw(canvas).text((BITMAP // 2, BITMAP // 2), emoji, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"the font draws nothing for {emoji!r}")
    sprite = canvas.crop(box)
    if emoji == FORK_AND_KNIFE:
        sprite = sprite.crop((0, 0, sprite.width // 2, sprite.height))
    scale = CELL / max(sprite.size)
    return sprite.resize((round(sprite.width * scale), round(sprite.height * scale)), Image.Resampling.LANCZOS)


def sheet(font: ImageFont.FreeTypeFont) -> Image.Image:
    every = [emoji for category in CATEGORIES.values() for emoji in category.emoji]
    out = Image.new("RGBA", (COLUMNS * CELL, -(-len(every) // COLUMNS) * CELL))
    for index, emoji in enumerate(every):
        row, column = divmod(index, COLUMNS)
        out.paste(draw(emoji, font), (column * CELL, row * CELL))
    return out


def main() -> None:
    if not FONT.exists():
        sys.exit(f"no font at {FONT}; install Debian's fonts-noto-color-emoji")
    SHEET.parent.mkdir(exist_ok=True)
    sheet(ImageFont.truetype(str(FONT), BITMAP)).save(SHEET, optimize=True)
    print(f"wrote {SHEET}")


if __name__ == "__main__":
    main()
