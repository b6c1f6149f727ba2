"""How an image looks, in 128 bits: a difference hash, near for images that look alike. Which are near is left to alike.

The difference hash is Krawetz's ("Kind of Like That", hackerfactor.com, 2013), by rows and by columns as in Hoyt's
`dhash` (2015): an image of 9 x 9 greys, of which each is held against its right and against its lower neighbour.
"""

from __future__ import annotations

import cv2
import numpy as np

from headrace.imaging.codec import Pixels

BYTES = 16
# Bits that images differ in which may be copies, and those which are hardly anything else. Of 1629 real photos all 60
# pairs of copies differ in 6 bits at most; copies as JPEGs of quality 50, of half the size, in grey and with a logo in
# a corner in 11; cut by 2%, 99% of them in 12. 11 pairs of others differ in 12, and none in 8.
NEAR, SURE = 12, 8
SIDE = 72  # pixels of a thumb's side: 8 for each grey

_GREYS = 9  # a side
_NOISE = 1  # level


def thumb(pixels: Pixels) -> Pixels:
    """uint8 [72, 72], grey, of uint8 [h, w, 1 or 3]: all of the image, whatever its ratio.

    In whole numbers, so that every machine comes to the same: halved as means of 2 x 2 pixels, as often as two thumbs
    would fit in, of an odd side without its last pixel, and then brought to size by OpenCV's bit-exact method.
    """
    height, width = pixels.shape[:2]
    while height >= 2 * SIDE or width >= 2 * SIDE:
        down, across = 1 + (height >= 2 * SIDE), 1 + (width >= 2 * SIDE)
        height, width = height // down, width // across
        pixels = cv2.resize(
            pixels[: height * down, : width * across], (width, height), interpolation=cv2.INTER_AREA
        ).reshape(height, width, -1)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.shape[2] == 3 else pixels
    made: Pixels = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR_EXACT)
    return made


def look(thumb: Pixels) -> bytes:
    """16 bytes for a thumb: 8 x 8 bits by rows, then by columns, 1 where the next grey is lighter by more than a level.

    A grey is the mean of 8 x 8 pixels, rounded: so what a JPEG does to a plain ground is mostly nothing.
    """
    greys = cv2.resize(thumb, (_GREYS, _GREYS), interpolation=cv2.INTER_AREA).astype(np.int16)
    plain = greys[:-1, :-1] + _NOISE
    return np.packbits((plain < greys[:-1, 1:], plain < greys[1:, :-1])).tobytes()
