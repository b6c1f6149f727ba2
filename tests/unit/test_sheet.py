"""Contact sheets: where pictures, frames and captions lie, and that any text can be one."""

from __future__ import annotations

import io
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

import headrace as hr
from headrace.imaging import lettering
from headrace.imaging.lettering import font, shortened, wrapped
from headrace.imaging.sheet import Tile, contact_sheet, png

RED, GREEN, GREY = (198, 40, 40), (27, 127, 59), (91, 101, 112)
BLUE = (10, 20, 250)


def blue(height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.array(BLUE, np.uint8), (height, width, 3))


def places(sheet: Image.Image, colour: tuple[int, int, int] = BLUE) -> np.ndarray:
    """[n, 2]: the rows and columns of the pixels of this very colour."""
    return np.argwhere((np.asarray(sheet) == colour).all(axis=-1))


# The images' sizes, then the size of each one's picture: the longer side is the tile's, the ratio the image's.
@pytest.mark.parametrize(
    ("image", "large", "picture"),
    [
        ((40, 40), False, (160, 160)),
        ((1, 1), False, (160, 160)),
        ((300, 400), False, (120, 160)),
        ((80, 640), True, (60, 480)),
        ((640, 80), True, (480, 60)),
        ((1, 5000), True, (1, 480)),
    ],
)
def test_pictures_keep_their_ratio(image: tuple[int, int], large: bool, picture: tuple[int, int]) -> None:
    found = places(contact_sheet([Tile(blue(*image), "")], title="one", large=large))
    assert (np.ptp(found, axis=0) + 1).tolist() == list(picture) and len(found) == picture[0] * picture[1]


def test_rows_are_as_high_as_their_pictures() -> None:
    flat, square = Tile(blue(20, 160), "a"), Tile(blue(160, 160), "a")

    def height(*tiles: Tile) -> int:
        return contact_sheet(tiles, title="t", columns=2).height

    assert height(square, square, flat, flat) - height(square, square) == height(flat) - height()
    assert height(square, flat) - height(flat, flat) == 140
    two = Tile(flat.image, "a\nb")
    assert height(flat, two) - height(flat, flat) == 16  # a line of caption


def test_pictures_of_a_row_end_on_one_line() -> None:
    found = places(contact_sheet([Tile(blue(20, 160), "a"), Tile(blue(160, 20), "b")], title="t"))
    left = found[found[:, 1] < found[:, 1].mean()]
    right = found[found[:, 1] > found[:, 1].mean()]
    assert left[:, 0].max() == right[:, 0].max()


@pytest.mark.parametrize(
    ("n", "large", "columns", "expected"),
    [(24, False, None, 6), (25, False, None, 10), (9, True, None, 4), (9, False, 3, 3), (2, False, None, 2)],
)
def test_columns(n: int, large: bool, columns: int | None, expected: int) -> None:
    sheet = contact_sheet([Tile(blue(4, 4), "")] * n, title="", large=large, columns=columns)
    lines = (np.asarray(sheet) == BLUE).all(axis=-1)
    assert np.diff(lines.any(axis=0).astype(int)).tolist().count(1) == expected
    assert np.diff(lines.any(axis=1).astype(int)).tolist().count(1) == -(-n // expected)


@pytest.mark.parametrize(("right", "colour", "width"), [(None, GREY, 1), (True, GREEN, 3), (False, RED, 3)])
def test_frames(right: bool | None, colour: tuple[int, int, int], width: int) -> None:
    sheet = contact_sheet([Tile(blue(160, 160), "caption", right)], title="t")
    (top, left), (bottom, last) = places(sheet).min(axis=0), places(sheet).max(axis=0)
    pixels = np.asarray(sheet)
    for line in (pixels[80 + top, left - width : left], pixels[80 + top, last + 1 : last + 1 + width],
                 pixels[top - width : top, 80 + left], pixels[bottom + 1 : bottom + 1 + width, 80 + left]):  # fmt: skip
        assert (line == colour).all() and len(line) == width
    assert (pixels[80 + top, left - width - 1] == 255).all()
    assert len(places(sheet.crop((0, int(bottom) + 5, sheet.width, sheet.height)), colour)) > 4  # the caption has it
    for other in {RED, GREEN, GREY} - {colour}:
        assert not len(places(sheet, other))


def test_grey_images_are_shown_as_they_are() -> None:
    image = np.arange(4, dtype=np.uint8).reshape(2, 2, 1) * 50
    pixels = np.asarray(contact_sheet([Tile(image, "")], title=""))
    for value in (50, 100, 150):  # each pixel of a small image is a square of its own, without anything in between
        assert (pixels == value).all(axis=-1).sum() == 80 * 80


@pytest.mark.parametrize("found", ["system", "matplotlib", "pillow"])
@pytest.mark.parametrize(
    "name", ["$", "a$b$", "犬", "عربي", "a\tb\x00\x1b[31m", "\udcff", "x" * 100_000, "", " ", "\n\n"]
)
def test_any_caption_and_any_font(name: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ImageFont.truetype

    def truetype(file: Any, size: int, **options: Any) -> ImageFont.FreeTypeFont:
        if isinstance(file, str) and (found == "pillow" or (found == "matplotlib" and "/" not in file)):
            raise OSError("no such font")
        return real(file, size, **options)

    monkeypatch.setattr(ImageFont, "truetype", truetype)
    with mock.patch("headrace.imaging.sheet.font", font.__wrapped__):
        sheet = contact_sheet([Tile(blue(160, 160), name, False)], title=name)
    assert Image.open(io.BytesIO(png(sheet))).size == sheet.size == (320, sheet.height)
    left, right = places(sheet, RED)[:, 1].min(), places(sheet, RED)[:, 1].max()
    assert right - left <= 172  # a long caption stays below its own picture


@given(st.text(max_size=60), st.integers(8, 300))
def test_shortened_fits_and_keeps_both_ends(text: str, width: int) -> None:
    letters = font(12)
    line = shortened(text, width, letters)
    plain = lettering.printable(text)
    first, _, last = line.partition("…")
    assert line == plain or (plain.startswith(first) and plain.endswith(last))
    assert letters.getlength(line) <= width or line == "…"
    if line != plain:
        assert letters.getlength(plain) > width
    for line in wrapped(text, width, letters):
        assert letters.getlength(line) <= width or line == "…"


def test_long_captions_differ_in_their_ends() -> None:
    lines = {shortened(f"scans/ward 7/2024/IM-0115-{i:04d}.jpeg", 120, font(12)) for i in range(100)}
    assert len(lines) == 100 and all(line.startswith("scans/") and line.endswith(".jpeg") for line in lines)


def test_wrapped() -> None:
    letters = font(12)
    assert wrapped("aa bb  cc", letters.getlength("aa bb"), letters) == ["aa bb", "cc"]
    assert wrapped("", 100, letters) == []


def test_no_columns() -> None:
    with pytest.raises(hr.errors.UsageError, match="columns is 0, wanted 1 or more"):
        contact_sheet([Tile(blue(4, 4), "")], title="", columns=0)
