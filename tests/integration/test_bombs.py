"""Small files that cost much: none of less than a megabyte takes over two seconds of a core, or a GiB."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bombs
import headrace as hr

# Each image in a fork of its own, whose time and memory end: by a signal, or a MemoryError.
CODE = """
import os, pathlib, resource, sys
from headrace.imaging import codec
from headrace.imaging.prepare import ImageOptions, prepare
for name in sys.argv[1:]:
    if not (child := os.fork()):
        data = pathlib.Path(name).read_bytes()
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 3,) * 2)
        held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 30),) * 2)
        try:
            prepare(data, ImageOptions(value_range=(0, 65535)))
            print("stored", flush=True)
        except codec.BadImage as bad:
            print(bad.reason, flush=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status:
        print("ended by", status, flush=True)
"""

# name: (the file, what comes of it)
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG RGBA": (lambda: bombs.png(5000, 5000), "stored"),
    "PNG palette": (lambda: bombs.png(5000, 5000, colour=3), "stored"),
    "PNG RGBA of 16 bits": (lambda: bombs.png(3500, 3500, depth=16), "stored"),
    "GIF": (lambda: bombs.flat("GIF", "P", 380, 65535), "stored"),
    "WebP of 34 bytes": (lambda: bombs.flat("WEBP", "RGBA", 1500, 16383, lossless=True, method=0), "stored"),
    "TIFF": (lambda: bombs.flat("TIFF", "P", 5000, 5000, compression="tiff_lzw"), "stored"),
    "TIFF turned": (lambda: bombs.turned("TIFF", 5000, 5000, compression="tiff_adobe_deflate"), "stored"),
    "JPEG turned": (lambda: bombs.turned("JPEG", 5000, 5000, quality=30), "stored"),
    "JPEG of 60 scans": (lambda: bombs.scans(4992, 4992, 60), "stored"),
    "JPEG of 60 scans that look at everything": (lambda: bombs.scans(4992, 4992, 60, refining=True), "corrupt JPEG"),
    "JPEG of 61 scans": (lambda: bombs.scans(4992, 4992, 61), "over 60 scans of 4992 x 4992 pixels"),
    "JPEG of 501 scans": (lambda: bombs.scans(64, 64, 501), "over 500 scans of 64 x 64 pixels"),
    "JPEG of 2000 scans": (lambda: bombs.scans(7936, 7936, 2000), "over 23 scans of 7936 x 7936 pixels"),
    "JPEG of fill bytes": (lambda: bombs.filled(900_000, progressive=False), "stored"),
    "JPEG of fill bytes behind its scans": (lambda: bombs.filled(900_000, progressive=True), "stored"),
    "PNG of more pixels": (lambda: bombs.png(6000, 6000, colour=0), "6000 x 6000 pixels in"),
    "PNG of more pixels of 16 bits": (lambda: bombs.png(4000, 4000, depth=16, colour=0), "more than 25 a byte, which"),
    "GIF of more pixels": (lambda: bombs.flat("GIF", "P", 400, 65535), "images of at most 25600000 pixels"),
    "WebP of more pixels": (lambda: bombs.flat("WEBP", "RGB", 3900, 16383, lossless=True, method=0), "in 34 bytes:"),
}


def test_no_small_image_takes_much(tmp_path: Path) -> None:
    paths = []
    for i, (make, _) in enumerate(BOMBS.values()):
        paths.append(tmp_path / str(i))
        paths[-1].write_bytes(make())
        assert paths[-1].stat().st_size < 1_000_000
    done = subprocess.run(
        [sys.executable, "-c", CODE, *paths], capture_output=True, text=True, check=True, timeout=1000
    )
    said = done.stdout.splitlines()
    assert len(said) == len(BOMBS), done.stderr
    for (name, (_, wanted)), found in zip(BOMBS.items(), said, strict=True):
        assert wanted in found, (name, found, done.stderr)


@pytest.mark.parametrize("sides", [(1, 200_000), (200_000, 1), (1, 1_500_000)])
def test_an_array_asks_for_its_pixels_too(tmp_path: Path, sides: tuple[int, int]) -> None:
    images = np.zeros((2, *sides), np.uint8)
    with pytest.raises(hr.DataError, match=r"pixels are over the limit of 100000 \(max_pixels\)"):
        hr.pack(hr.sources.arrays(images), tmp_path / "ds", max_pixels=100_000, max_rejects=2, progress=False)


def test_an_array_that_no_png_can_hold_is_a_reject(tmp_path: Path) -> None:
    images = np.zeros((1, 1, 1_500_000), np.uint8)
    with pytest.raises(hr.DataError, match="1500000 x 1 pixels are too many a side for a PNG, which takes 1000000"):
        hr.pack(hr.sources.arrays(images), tmp_path / "ds", max_rejects=1, progress=False)
