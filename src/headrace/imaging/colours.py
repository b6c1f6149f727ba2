"""Changes of an image's colours and sharpness, in place. How strong one is drawn for an image is left to augment.

Pixels are uint8 [h, w, c], c = 1 or 3 (RGB).
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

from headrace.imaging.codec import Pixels

_LEVELS = np.arange(256)
_STEPS = 1 << 12  # of normal numbers that are told apart: up to 3.6 standard deviations


def look_up(out: Pixels, levels: NDArray[np.floating] | NDArray[np.integer]) -> None:
    """Each value by a table [256] of new ones, rounded and cut to 0..255."""
    cv2.LUT(out, np.clip(np.rint(levels), 0, 255).astype(np.uint8), dst=out)


def brighten(out: Pixels, factor: float) -> None:
    """All values times `factor`."""
    look_up(out, _LEVELS * factor)


def contrast(out: Pixels, factor: float) -> None:
    """Times `factor` away from the mean of the grey image."""
    look_up(out, (_LEVELS - (mean := float(grey(out).mean()))) * factor + mean)


def solarize(out: Pixels, threshold: float) -> None:
    """Inverts the values from `threshold` on."""
    look_up(out, np.where(threshold <= _LEVELS, 255 - _LEVELS, _LEVELS))


def posterize(out: Pixels, bits: int) -> None:
    """Keeps the highest `bits` (0 to 8) of each value."""
    look_up(out, _LEVELS & (0xFF00 >> bits & 0xFF))


def autocontrast(out: Pixels) -> None:
    """Stretches each channel to 0..255; one of a single value stays."""
    for k in range(out.shape[2]):
        low, high, *_ = cv2.minMaxLoc(channel := np.ascontiguousarray(out[..., k]))
        if high > low:
            look_up(channel, (_LEVELS - low) * (255 / (high - low)))
            out[..., k] = channel


def equalize(out: Pixels) -> None:
    """Makes each channel's values about equally frequent; one of a single value stays."""
    for k in range(out.shape[2]):
        channel = np.ascontiguousarray(out[..., k])
        if channel.min() < channel.max():
            out[..., k] = cv2.equalizeHist(channel)


def saturate(out: Pixels, factor: float) -> None:
    """Times `factor` away from grey: 0 is grey, 1 as it was."""
    if out.shape[2] == 3:
        cv2.addWeighted(out, factor, cv2.cvtColor(grey(out), cv2.COLOR_GRAY2RGB), 1 - factor, 0, dst=out)


def sharpen(out: Pixels, factor: float) -> None:
    """Times `factor` away from a smoothed image: 0 is smooth, 1 as it was, more is sharper."""
    smooth = cv2.filter2D(out, -1, _SMOOTH).reshape(out.shape)
    cv2.addWeighted(out, factor, smooth, 1 - factor, 0, dst=out)


def grey(out: Pixels) -> NDArray[np.uint8]:
    """uint8 [h, w]: how light it is (ITU-R BT.601)."""
    return out[..., 0] if out.shape[2] == 1 else np.asarray(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), np.uint8)


def blur(out: Pixels, sigma: float) -> None:
    """Gaussian blur of `sigma` pixels; OpenCV's own of 8 bits, which is the same to the bit on all machines."""
    side = 2 * round(3 * sigma) + 1
    out[:] = cv2.GaussianBlur(out, (side, side), sigma).reshape(out.shape)


def add_noise(out: Pixels, sigma: float, key: int) -> None:
    """Normal numbers of standard deviation `sigma` (of 255), other ones for each value and `key`, are added."""
    numbers = _bits(out.size, key, np.dtype(np.uint16)) >> np.uint16(4)
    added = np.rint(_normal() * sigma).astype(np.int16)[numbers].reshape(out.shape)
    out[:] = np.clip(out + added, 0, 255)


def fill_with_noise(part: Pixels, key: int) -> None:
    """Any values 0..255 alike, other ones for each place and `key`."""
    part[:] = _bits(part.size, key, np.dtype(np.uint8)).reshape(part.shape)


def _bits(n: int, key: int, dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> NDArray[np.integer]:
    """[n] numbers of all bits of Philox, which are the same in every version of NumPy."""
    raw = np.random.Philox(key=key).random_raw(-(-n * dtype.itemsize // 8))
    return raw.astype("<u8", copy=False).view(dtype.newbyteorder("<"))[:n]


@lru_cache(1)
def _normal() -> NDArray[np.float32]:
    """[_STEPS] normal numbers, each as likely as any other."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / _STEPS) for i in range(_STEPS)], np.float32)


_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13  # Pillow's ImageFilter.SMOOTH
