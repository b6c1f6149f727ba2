"""Contact sheets: images in a grid with their captions, as one picture. What is drawn on an image is drawing's."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from headrace.errors import UsageError
from headrace.imaging.codec import Pixels
from headrace.imaging.lettering import font, shortened, wrapped

SMALL, LARGE = 160, 480  # the longer side of a picture on the sheet, in pixels: plain, and with drawings on it

_PAPER, _INK, _GREY = "#ffffff", "#1f262d", "#5b6570"
_RIGHT, _WRONG = "#1b7f3b", "#c62828"
_MARGIN, _GAP, _FRAME = 16, 12, 3
_NARROWEST = 320  # of a sheet, so that its title has room


@dataclass(frozen=True)
class Tile:
    """One image uint8 [h, w, c] of a contact sheet, c = 1 or 3; `right` None where nobody knows."""

    image: Pixels
    caption: str
    right: bool | None = None


def contact_sheet(tiles: Sequence[Tile], *, title: str, large: bool = False, columns: int | None = None) -> Image.Image:
    """RGB: all tiles in rows, captions below; wrong ones framed in red, right ones in green, the rest in grey.

    Every image is brought to a longer side of 160 pixels, 480 with `large`, and a row is as high as its highest one.
    Columns are 6 by default, 10 with more than 24 tiles, 4 with `large`. Raises UsageError.
    """
    if columns is not None and columns < 1:
        raise UsageError(f"columns is {columns}, wanted 1 or more")
    most = columns or (4 if large else 10 if len(tiles) > 24 else 6)
    return sheet_of_rows([tiles[i : i + most] for i in range(0, len(tiles), most)], title=title, large=large)


def sheet_of_rows(rows_of: Sequence[Sequence[Tile]], *, title: str, large: bool = False) -> Image.Image:
    """The same with the tiles of each row given."""
    side, letters = (LARGE, 15) if large else (SMALL, 12)
    step = side + 2 * _FRAME + _GAP
    rows = [_Row(tiles, side, letters) for tiles in rows_of]
    width = max(_NARROWEST, 2 * _MARGIN - _GAP + step * max(map(len, rows_of), default=0))
    heading = font(17, bold=True)
    lines = wrapped(title, width - 2 * _MARGIN, heading)
    above = _MARGIN + 24 * len(lines) + 6 * bool(lines)
    height = above + sum(row.height + _GAP for row in rows) - _GAP + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + 24 * i), line, _INK, heading)
    y = above
    for row in rows:
        row.draw(sheet, draw, y, step)
        y += row.height + _GAP
    return sheet


class _Row:
    """Tiles side by side: their pictures end on one line, their captions begin on it."""

    def __init__(self, tiles: Sequence[Tile], side: int, letters: int) -> None:
        self.tiles, self.side, self.letters = tiles, side, letters
        self.pictures = [Image.fromarray(fitted(tile.image, side)) for tile in tiles]
        self.line = round(1.3 * letters)
        self.above = max(picture.height for picture in self.pictures) + 2 * _FRAME
        self.height = self.above + max(len(_lines(tile)) for tile in tiles) * self.line

    def draw(self, sheet: Image.Image, draw: ImageDraw.ImageDraw, top: int, step: int) -> None:
        for i, (tile, picture) in enumerate(zip(self.tiles, self.pictures, strict=True)):
            colour = {None: _GREY, True: _RIGHT, False: _WRONG}[tile.right]
            middle = _MARGIN + i * step + (step - _GAP) // 2
            x, y = middle - picture.width // 2, top + self.above - _FRAME - picture.height
            frame = 1 if tile.right is None else _FRAME
            draw.rectangle(
                (x - frame, y - frame, x + picture.width - 1 + frame, y + picture.height - 1 + frame), colour
            )
            sheet.paste(picture, (x, y))
            letters = font(self.letters, bold=tile.right is False)
            for n, text in enumerate(_lines(tile)):
                line = shortened(text, self.side + _GAP // 2, letters)
                place = middle - letters.getlength(line) / 2, top + self.above + n * self.line
                draw.text(place, line, colour, letters)


def _lines(tile: Tile) -> list[str]:
    return tile.caption.split("\n") if tile.caption else []


def fitted(image: Pixels, side: int) -> Pixels:
    """uint8 [h, w, 3] of an image uint8 [h, w, c], c = 1 or 3, brought to a longer side of `side` pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Of a small image every pixel is shown as it is; in between, linear. Pillow's shrinking looks at all pixels.
    method = Image.Resampling.NEAREST if scale >= 3 else Image.Resampling.BILINEAR
    whole = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("RGB")
    return np.array(whole if whole.size == size else whole.resize(size, method))


def png(image: Image.Image) -> bytes:
    """The image as PNG bytes."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
