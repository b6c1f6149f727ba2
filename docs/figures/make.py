"""Makes the figures of the documentation, out of drawn photos: python docs/figures/make.py [FOLDER]"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

import headrace as hr  # noqa: E402
from faces import face  # noqa: E402
from headrace.imaging.drawing import FOUND, with_boxes, with_cells  # noqa: E402
from headrace.imaging.lettering import font  # noqa: E402
from headrace.load.targets import Labels  # noqa: E402

CELLS, HEIGHT, WIDTH, SEED = 7, 420, 560, 8
INK, GREY = (31, 38, 45), (91, 101, 112)
LEFT, TOP, APART = 84, 96, 200  # where the photo lies, and how far right of it the cell
ZOOM = 4


def grid(path: Path) -> None:
    """A face in a photo and its five numbers in a Grid: the centre relative to the photo, and to its cell."""
    photo, box, _ = face(np.random.default_rng(SEED), HEIGHT, WIDTH)
    photo = cv2.medianBlur(photo, 9)  # without its noise the file is small
    labels = Labels(classes=np.array([-1]), size=(HEIGHT, WIDTH), boxes=box[None], box_labels=np.array([0]),
                    box_image=np.array([0]), box_classes=1)  # fmt: skip
    (numbers,) = hr.Grid(CELLS).encode(labels)
    ((row, column),) = np.argwhere(numbers[..., 4] == 1)
    h, w, y, x, _ = numbers[row, column].tolist()
    cell_h, cell_w = HEIGHT / CELLS, WIDTH / CELLS
    centre = np.array([[(column + x) * cell_w, (row + y) * cell_h]], np.float32)
    drawn = with_boxes(with_cells(photo, numbers[..., 4] == 1, centre), box[None], [""])

    right = LEFT + WIDTH + APART
    size = round(cell_w * ZOOM), round(cell_h * ZOOM)
    cell_top = TOP + (HEIGHT - size[1]) // 2
    canvas = Image.new("RGB", (right + size[0] + 40, TOP + HEIGHT + 108), "white")
    draw = ImageDraw.Draw(canvas)
    canvas.paste(Image.fromarray(drawn), (LEFT, TOP))
    corner = LEFT + round(column * cell_w), TOP + round(row * cell_h)
    part = photo[corner[1] - TOP : corner[1] - TOP + round(cell_h), corner[0] - LEFT : corner[0] - LEFT + round(cell_w)]
    inside = cv2.resize(part, size, interpolation=cv2.INTER_CUBIC)
    inside = with_cells(inside, np.ones((1, 1), bool), np.array([[x * size[0], y * size[1]]], np.float32))
    canvas.paste(Image.fromarray(inside), (right, cell_top))
    draw.rectangle((right - 1, cell_top - 1, right + size[0], cell_top + size[1]), outline=FOUND, width=2)
    for edge, there in ((corner[1], cell_top), (corner[1] + round(cell_h), cell_top + size[1])):
        draw.line((corner[0] + round(cell_w), edge, right - 2, there), fill=FOUND, width=1)

    x0, y0, x1, y1 = (round(float(side)) for side in box)
    point = LEFT + round(float(centre[0, 0])), TOP + round(float(centre[0, 1]))
    _across(draw, LEFT, LEFT + WIDTH, TOP - 46, "W", INK)
    _across(draw, LEFT + x0, LEFT + x1, TOP - 20, "w", FOUND)
    _down(draw, TOP, TOP + HEIGHT, LEFT - 56, "H", INK)
    _down(draw, TOP + y0, TOP + y1, LEFT - 24, "h", FOUND)
    for i in range(CELLS):
        small = font(11)
        draw.text((LEFT + WIDTH + 8, TOP + (i + 0.5) * cell_h), str(i), GREY, small, anchor="lm")
        draw.text((LEFT + (i + 0.5) * cell_w, TOP + HEIGHT + 8), str(i), GREY, small, anchor="mt")
    dot = right + round(x * size[0]), cell_top + round(y * size[1])
    _across(draw, right, dot[0], cell_top - 20, f"x = {x:.2f}", FOUND)
    _down(draw, cell_top, dot[1], right - 54, f"y = {y:.2f}", FOUND)
    for (a, b), ends in ((dot, ((dot[0], cell_top), (right, dot[1]))), (point, ((point[0], TOP), (LEFT, point[1])))):
        for end in ends:
            draw.line((a, b, *end), fill="white", width=1)

    said, code = font(14), font(15, bold=True)
    below = TOP + HEIGHT + 36
    share = f"{(point[1] - TOP) / HEIGHT:.2f} of H from the top, {(point[0] - LEFT) / WIDTH:.2f} of W from the left"
    draw.text((LEFT, below), f"The centre of the box in the photo: {share}", INK, said)
    draw.text((right, cell_top + size[1] + 12), f"the same point in cell ({row}, {column}),", INK, said)
    draw.text((right, cell_top + size[1] + 32), "from the cell's top left, 0 to 1", INK, said)
    told = f"grid[{row}, {column}] = h / H {h:.2f},  w / W {w:.2f},  y {y:.2f},  x {x:.2f},  1"
    draw.text((LEFT, below + 28), told, FOUND, code)
    canvas.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def _across(draw: ImageDraw.ImageDraw, x0: int, x1: int, y: int, text: str, colour: tuple[int, int, int]) -> None:
    """A measure from x0 to x1 with its name in the middle."""
    draw.line((x0, y, x1, y), fill=colour, width=1)
    for x in (x0, x1):
        draw.line((x, y - 5, x, y + 5), fill=colour, width=1)
    _name(draw, (x0 + x1) / 2, y, text, colour)


def _down(draw: ImageDraw.ImageDraw, y0: int, y1: int, x: int, text: str, colour: tuple[int, int, int]) -> None:
    """The same from y0 down to y1."""
    draw.line((x, y0, x, y1), fill=colour, width=1)
    for y in (y0, y1):
        draw.line((x - 5, y, x + 5, y), fill=colour, width=1)
    _name(draw, x, (y0 + y1) / 2, text, colour)


def _name(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, colour: tuple[int, int, int]) -> None:
    letters = font(15, bold=True)
    left, top, right, bottom = draw.textbbox((x, y), text, letters, anchor="mm")
    draw.rectangle((left - 4, top - 2, right + 4, bottom + 2), fill="white")
    draw.text((x, y), text, colour, letters, anchor="mm")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    grid(folder / "grid.png")
