"""Bytes to pixels: every kind of file that is let in, against Pillow as the judge, and a reason for all others."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import bombs
import deep
from drawn import Pixels, exif, image, jpeg, picture, saved
from headrace.imaging import codec


def decoded(data: bytes, channels: int | None = None) -> Pixels:
    return codec.decode(data, header=codec.read_header(data), channels=channels)


def judged(data: bytes, mode: str) -> Pixels:
    """What Pillow makes of the same bytes, palette and all, alpha dropped."""
    made = Image.open(io.BytesIO(data))
    if made.mode == "P" or "transparency" in made.info:
        made = made.convert("RGBA")
    made = made.convert(mode)
    return np.asarray(made).reshape(made.height, made.width, -1)


RGBA = np.dstack([picture(), picture(seed=3)[..., :1]])
FRAMES = [image(seed=seed) for seed in (1, 2)]

# name: (bytes, format, channels, plain)
GOOD = {
    "JPEG 4:2:0": (jpeg(subsampling="4:2:0"), "jpeg", 3, True),
    "JPEG 4:2:2": (jpeg(subsampling="4:2:2"), "jpeg", 3, True),
    "JPEG 4:4:4": (jpeg(subsampling="4:4:4", quality=95), "jpeg", 3, True),
    "JPEG of odd sides": (jpeg(41, 57), "jpeg", 3, True),
    "JPEG of one pixel": (jpeg(1, 1), "jpeg", 3, True),
    "JPEG of one column": (jpeg(70, 1), "jpeg", 3, True),
    "JPEG grey": (jpeg(mode="L"), "jpeg", 1, True),
    "JPEG progressive": (jpeg(progressive=True), "jpeg", 3, True),
    "JPEG with restarts": (jpeg(restart_marker_blocks=2), "jpeg", 3, True),
    "JPEG RGB, not YCbCr": (jpeg(keep_rgb=True), "jpeg", 3, True),
    "JPEG CMYK (Adobe)": (jpeg(mode="CMYK"), "jpeg", 3, False),
    "JPEG with upright EXIF": (jpeg(exif=exif(1)), "jpeg", 3, True),
    "JPEG with a wrong EXIF orientation": (jpeg(exif=exif(9)), "jpeg", 3, True),
    "PNG grey": (saved(image(mode="L"), "PNG"), "png", 1, True),
    "PNG RGB": (saved(image(), "PNG"), "png", 3, True),
    "PNG RGB, a transparent colour": (saved(image(), "PNG", transparency=(1, 2, 3)), "png", 3, False),
    "PNG grey, a transparent level": (saved(image(mode="L"), "PNG", transparency=7), "png", 1, False),
    "PNG RGBA": (saved(RGBA, "PNG"), "png", 3, False),
    "PNG LA": (saved(Image.fromarray(RGBA).convert("LA"), "PNG"), "png", 1, False),
    "PNG palette": (saved(image(mode="P"), "PNG"), "png", 3, False),
    "PNG palette, a transparent entry": (saved(image(mode="P"), "PNG", transparency=3), "png", 3, False),
    "PNG palette, alpha per entry": (saved(image(mode="P"), "PNG", transparency=bytes(range(200))), "png", 3, False),
    "PNG of one bit": (saved(image(mode="1"), "PNG"), "png", 1, False),
    "PNG of four bits": (saved(image(mode="P"), "PNG", bits=4), "png", 3, False),
    "PNG with EXIF": (saved(image(), "PNG", exif=exif(6)), "png", 3, False),
    "PNG animated": (saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "png", 3, False),
    "PNG animated, its image none of the frames": (
        saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:] * 2, default_image=True),
        "png",
        3,
        False,
    ),
    "BMP": (saved(image(), "BMP"), "bmp", 3, False),
    "BMP grey": (saved(image(mode="L"), "BMP"), "bmp", 1, False),
    "BMP palette": (saved(image(mode="P"), "BMP"), "bmp", 3, False),
    "BMP of one bit": (saved(image(mode="1"), "BMP"), "bmp", 1, False),
    "GIF": (saved(image(mode="P"), "GIF"), "gif", 3, False),
    "GIF of all greys": (saved(np.arange(256, dtype=np.uint8).reshape(16, 16), "GIF"), "gif", 1, False),
    "GIF transparent": (saved(image(mode="P"), "GIF", transparency=4), "gif", 3, False),
    "GIF animated: its first frame": (
        saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
        "gif",
        3,
        False,
    ),
    "TIFF": (saved(image(), "TIFF"), "tiff", 3, False),
    "TIFF grey": (saved(image(mode="L"), "TIFF"), "tiff", 1, False),
    "TIFF RGBA": (saved(RGBA, "TIFF"), "tiff", 3, False),
    "TIFF CMYK": (saved(image(mode="CMYK"), "TIFF"), "tiff", 3, False),
    "TIFF of one bit": (saved(image(mode="1"), "TIFF", compression="group4"), "tiff", 1, False),
    "TIFF LZW": (saved(image(), "TIFF", compression="tiff_lzw"), "tiff", 3, False),
    "TIFF JPEG": (saved(image(), "TIFF", compression="jpeg"), "tiff", 3, False),
    "TIFF of pages: its first": (
        saved(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]),
        "tiff",
        3,
        False,
    ),
    "TIFF big": (saved(image(), "TIFF", big_tiff=True), "tiff", 3, False),
    "WebP lossy": (saved(image(), "WEBP"), "webp", 3, False),
    "WebP lossless": (saved(image(), "WEBP", lossless=True), "webp", 3, False),
    "WebP with alpha": (saved(RGBA, "WEBP", lossless=True, exact=True), "webp", 3, False),
    "WebP animated: its first frame": (
        saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True),
        "webp",
        3,
        False,
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_pixels_are_what_pillow_reads(name: str) -> None:
    data, kind, channels, plain = GOOD[name]
    header = codec.read_header(data)
    made = Image.open(io.BytesIO(data))
    assert (header.format, header.channels, header.plain) == (kind, channels, plain)
    assert (header.height, header.width) == (made.height, made.width)
    assert header.orientation == (6 if name == "PNG with EXIF" else 1)
    for wanted, mode in ((None, "L" if channels == 1 else "RGB"), (1, "L"), (3, "RGB")):
        pixels = codec.decode(data, header=header, channels=wanted)
        judge = judged(data, mode)
        assert pixels.dtype == np.uint8 and pixels.shape == judge.shape
        # libjpeg takes the luma of the file for grey, where Pillow takes it from RGB; PNG: rounding of two libraries.
        near = 3 if kind == "jpeg" or wanted == 1 else 0
        assert np.abs(pixels.astype(int) - judge).max() <= near


@pytest.mark.parametrize("name", ["JPEG CMYK (Adobe)", "TIFF CMYK", "PNG palette", "WebP lossy", "GIF", "TIFF JPEG"])
def test_colours_are_those_that_were_painted(name: str) -> None:
    """Pillow is no judge where our decoder is Pillow: an inverted CMYK would pass."""
    painted = picture(seed=1 if "frame" in name else 0).astype(int)
    assert np.abs(decoded(GOOD[name][0]) - painted).mean() < 20
    assert np.abs(decoded(GOOD[name][0]) - (255 - painted)).mean() > 60


@pytest.mark.parametrize("name", ["GIF animated: its first frame", "TIFF of pages: its first"])
def test_an_animation_is_its_first_frame(name: str) -> None:
    pixels = decoded(GOOD[name][0]).astype(int)
    assert np.abs(pixels - picture(seed=1)).mean() < 14
    assert np.abs(pixels - picture(seed=2)).mean() > 25


def test_the_name_of_a_file_says_nothing() -> None:
    """Content decides: nothing in the codec knows a file's name (a PNG named .jpg is in shared/data/mri)."""
    assert codec.sniff(saved(image(), "PNG")) == "png"
    assert codec.sniff(jpeg()) == "jpeg"
    assert codec.sniff(b"BMs are two letters of a text") is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_and_turned_as_exif_numbers_it(kind: str, orientation: int) -> None:
    stored = image(24, 32)
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    data = saved(stored, kind, exif=exif(orientation), **options)
    header = codec.read_header(data)
    assert (header.height, header.width, header.orientation) == (24, 32, orientation)
    assert header.plain is (orientation == 1 and kind in ("JPEG", "PNG"))
    found = codec.upright(decoded(data), orientation)
    # Exif 2.32, tag 0x0112: where the stored picture's row 0 and column 0 are seen.
    methods = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    wanted = np.asarray(stored.transpose(methods[orientation]) if orientation > 1 else stored).astype(int)
    assert found.shape == wanted.shape and found.flags.c_contiguous
    assert np.abs(found - wanted).max() <= (30 if kind == "JPEG" else 0)
    assert np.abs(found - wanted).mean() < 3


def png_of(height: int, width: int, *, depth: int = 8, colour: int = 2, second: bytes = b"IEND") -> bytes:
    """A PNG that says this in its header and holds nothing; its chunk behind the first data is named `second`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(second, b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_of(height: int, width: int) -> bytes:
    """A JPEG of 8 x 8 pixels whose header claims another size."""
    data = bytearray(jpeg(8, 8))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif_of(height: int, width: int) -> bytes:
    """A GIF with a frame of this size and no pixels."""
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b",\0\0\0\0" + size + b"\0\x02\x02\x44\x01\0;"


def bmp_of(height: int, width: int) -> bytes:
    """A BMP of 8 x 8 pixels whose header claims another size."""
    data = bytearray(saved(image(8, 8), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def tiff_of(height: int, width: int) -> bytes:
    """A TIFF of 8 x 8 pixels whose tags claim another size."""
    data = bytearray(saved(image(8, 8), "TIFF"))
    for tag, value in ((256, width), (257, height), (278, height)):
        at = data.index(struct.pack("<HH", tag, 4)) if struct.pack("<HH", tag, 4) in data else -1
        if at < 0:
            at = data.index(struct.pack("<HH", tag, 3))
            data[at + 2 : at + 4] = struct.pack("<H", 4)
        data[at + 8 : at + 12] = struct.pack("<I", value)
    return bytes(data)


DEEP_TIFF = saved(Image.fromarray(picture(channels=1).squeeze().astype(np.uint16) * 257), "TIFF")
DEEP_PNG = saved(Image.fromarray(picture(channels=1).squeeze().astype(np.uint16) * 257), "PNG")
FLOAT_TIFF = saved(Image.fromarray(picture(channels=1).squeeze().astype(np.float32)), "TIFF")

# name: (bytes, stage, what the reason says)
BAD = {
    "nothing": (b"", "header", "empty file (0 bytes)"),
    "HTML": (b"\n<!DOCTYPE html><html><title>404</title>", "header", "not an image: an HTML page"),
    "HTML in capitals": (b"<HTML><BODY>Not found</BODY></HTML>", "header", "not an image: an HTML page"),
    "SVG": (b'<?xml version="1.0"?><svg/>', "header", "not an image: XML text"),
    "text": (b"Git LFS pointer\n", "header", "not an image: text"),
    "zeros": (bytes(500), "header", "not an image: unknown content, first bytes 00 00 00 00 00 00 00 00"),
    "AppleDouble": (b"\x00\x05\x16\x07\x00\x02", "header", "not an image: unknown content"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0", "header", "not an image: unknown content"),
    "JPEG cut in its pixels": (jpeg(200, 200)[:2000], "decode", "truncated JPEG"),
    "JPEG CMYK cut in its pixels": (jpeg(200, 200, mode="CMYK")[:3000], "decode", "truncated JPEG"),
    "JPEG progressive, cut": (jpeg(200, 200, progressive=True)[:1500], "decode", "truncated JPEG"),
    "JPEG cut by its last quarter": (jpeg(200, 200)[: len(jpeg(200, 200)) * 3 // 4], "decode", "truncated JPEG"),
    "JPEG cut in its header": (jpeg()[:100], "header", "JPEG"),
    "JPEG of two bytes more than its mark": (b"\xff\xd8\xff\xe0\0", "header", "JPEG"),
    "PNG cut": (saved(image(), "PNG")[:1500], "decode", "truncated PNG"),
    "PNG cut by its end": (saved(image(), "PNG")[:-30], "decode", "PNG"),
    "PNG RGBA cut": (saved(RGBA, "PNG")[:2000], "decode", "truncated PNG"),
    "PNG with a wrong checksum": (
        saved(image(), "PNG")[:200] + b"\0\0" + saved(image(), "PNG")[202:],
        "decode",
        "corrupt PNG",
    ),
    "PNG with rubbish between its chunks": (png_of(5, 5, second=b"\1\2\3\4"), "decode", "corrupt PNG"),
    "PNG RGBA with rubbish between its chunks": (png_of(5, 5, colour=6, second=b"\1\2\3\4"), "decode", "corrupt PNG"),
    "PNG cut in its header": (saved(image(), "PNG")[:20], "header", "PNG"),
    "GIF cut": (saved(image(mode="P"), "GIF")[:1000], "decode", "GIF"),
    "BMP cut": (saved(image(), "BMP")[:1000], "decode", "truncated BMP"),
    "TIFF cut": (saved(image(), "TIFF")[:1000], "decode", "TIFF"),
    "TIFF LZW cut": (saved(image(), "TIFF", compression="tiff_lzw")[:900], "header", "TIFF"),
    "WebP cut": (saved(image(), "WEBP")[:200], "header", "WEBP"),
    "PNG of 16 bits": (DEEP_PNG, "header", "more than 8 bits per sample (png, mode I;16); convert it"),
    "PNG RGB of 16 bits": (png_of(4, 4, depth=16), "header", "more than 8 bits per sample (png"),
    "TIFF of 16 bits": (DEEP_TIFF, "header", "more than 8 bits per sample (tiff"),
    "TIFF of floats": (FLOAT_TIFF, "header", "more than 8 bits per sample (tiff"),
    "JPEG of 30000 x 30000": (
        jpeg_of(30_000, 30_000),
        "header",
        "30000 x 30000 pixels are over the limit of 64000000",
    ),
    "PNG of 30000 x 30000": (png_of(30_000, 30_000), "header", "30000 x 30000 pixels are over the limit of 64000000"),
    "GIF of 30000 x 30000": (gif_of(30_000, 30_000), "header", "pixels"),
    "BMP of 30000 x 30000": (bmp_of(30_000, 30_000), "header", "30000 x 30000 pixels are over the limit"),
    "TIFF of 30000 x 30000": (tiff_of(30_000, 30_000), "header", "30000 x 30000 pixels are over the limit"),
    "PNG without width": (png_of(5, 0), "header", ""),
    "JPEG without height": (jpeg_of(0, 8), "header", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_image_has_its_reason(name: str) -> None:
    data, stage, reason = BAD[name]
    with pytest.raises(codec.BadImage) as caught:
        decoded(data)
    assert caught.value.stage == stage
    assert reason in caught.value.reason
    assert "\n" not in caught.value.reason


def test_the_limit_on_pixels_is_the_callers() -> None:
    data = jpeg(40, 50)
    assert codec.read_header(data, max_pixels=2000).width == 50
    with pytest.raises(codec.BadImage, match=r"50 x 40 pixels are over the limit of 1999 \(max_pixels\)"):
        codec.read_header(data, max_pixels=1999)


def test_a_huge_header_allocates_nothing() -> None:
    """In a process of its own, whose memory is measured: 30,000 x 30,000 pixels would be 2.7 GB."""
    bombs = [data for name, (data, _, _) in BAD.items() if "30000" in name]
    assert len(bombs) == 5
    code = f"""
import resource
from headrace.imaging import codec
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
for data in {bombs!r}:
    try:
        codec.read_header(data)
    except codec.BadImage:
        continue
    raise SystemExit("accepted")
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 30_000  # kB


# Files that bytes can be put into before the end marker, and where they can't be told from a damaged scan.
SCANS = {
    "JPEG": jpeg(),
    "grey": jpeg(mode="L"),
    "progressive": jpeg(progressive=True),
    "with restarts": jpeg(restart_marker_blocks=2),
    "CMYK": jpeg(mode="CMYK"),
    "whose scan ends in a stuffed zero": next(
        data
        for seed in range(2000)
        if (data := saved(deep.numbers(8, 8, 1, seed=seed, most=255).astype(np.uint8), "JPEG", quality=100)).endswith(
            b"\xff\0\xff\xd9"
        )
    ),
}


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize(
    "padding", [bytes(n) for n in (1, 2, 7, 20, 3000)] + [b"\x7f" * 12, b"\xff" * 7, bytes(9) + b"\xff"]
)
def test_padding_before_the_end_is_harmless(name: str, padding: bytes) -> None:
    """What libjpeg calls extraneous bytes before marker 0xd9, where they are all the same."""
    whole = SCANS[name]
    padded = whole[:-2] + padding + whole[-2:]
    assert (decoded(padded) == decoded(whole)).all()
    assert (decoded(padded + b"behind" * 50) == decoded(whole)).all()


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("n", [8, 20])
def test_padding_that_is_as_the_end_of_the_scan(name: str, n: int) -> None:
    whole = SCANS[name]
    padded = whole[:-2] + whole[-3:-2] * n + whole[-2:]
    assert (decoded(padded) == decoded(whole)).all()


def test_padding_wherever_pixels_go() -> None:
    whole = jpeg(200, 304)
    padded = np.frombuffer(whole[:-2] + bytes(30) + whole[-2:], np.uint8)
    out = np.zeros((200, 304, 3), np.uint8)
    codec.decode_jpeg(padded, height=200, width=304, channels=3, out=out)
    assert (out == decoded(whole)).all()
    for data in (whole, padded):
        small = codec.decode_jpeg(data, height=200, width=304, channels=1, min_size=(50, 50))
        assert small.shape == (50, 76, 1)


PROGRESSIVE = jpeg(100, 100, progressive=True)
SECOND_SCAN = PROGRESSIVE.index(b"\xff\xc4", PROGRESSIVE.index(b"\xff\xda"))
# What libjpeg only warns about, and what may be the rest of a damaged scan.
SUSPECT = {
    "bytes of a scan": jpeg()[:-2] + jpeg()[-90:-2] + jpeg()[-2:],
    "text": jpeg()[:-2] + b"made by a camera that writes" + jpeg()[-2:],
    "some bytes, then padding": jpeg()[:-2] + b"\x12\x34\x56" + bytes(40) + jpeg()[-2:],
    "padding, then a byte": jpeg()[:-2] + bytes(40) + b"\x12" + jpeg()[-2:],
    "padding between scans": PROGRESSIVE[:SECOND_SCAN] + bytes(40) + PROGRESSIVE[SECOND_SCAN:],
    "a scan that ends in zeros": jpeg(200, 200)[:-302] + bytes(300) + jpeg()[-2:],
    "a scan that lacks its end, and padding": jpeg(200, 200)[:-302] + b"\x7f" * 300 + jpeg()[-2:],
    "no end marker": jpeg(200, 200)[:-2],
    "padding for an end marker": jpeg(200, 200)[:-2] + bytes(40),
    "CMYK, bytes of a scan": jpeg(mode="CMYK")[:-2] + jpeg()[-90:],
}


@pytest.mark.parametrize("name", SUSPECT)
def test_what_may_be_damage_is_refused_unless_asked_for(name: str) -> None:
    data = SUSPECT[name]
    header = codec.read_header(data)
    with pytest.raises(codec.BadImage, match="JPEG") as bad:
        codec.decode(data, header=header)
    assert bad.value.stage == "decode"
    if name != "padding for an end marker":
        pixels = codec.decode(data, header=header, lenient=True)
        assert pixels.shape == (header.height, header.width, 3)


def test_what_no_decoder_reads_is_refused_even_so() -> None:
    data = jpeg()[:-2] + b"\xff\x02" + bytes(30) + jpeg()[-2:]
    for lenient in (False, True):
        with pytest.raises(codec.BadImage, match="corrupt JPEG"):
            codec.decode(data, header=codec.read_header(data), lenient=lenient)


@pytest.mark.parametrize(
    ("data", "scans"),
    [
        (jpeg(), 1),
        (jpeg(mode="L", progressive=True), 6),
        (jpeg(progressive=True), 10),
        (jpeg(progressive=True)[:-2] + b"\0\xff\xff", 10),
        (bombs.scans(64, 64, 9), 9),
        (bombs.scans(64, 64, 13), 11),
        (b"\xff\xd8\xff\xe1", 0),
        (b"\xff\xd8", 0),
    ],
)
def test_scans_are_counted(data: bytes, scans: int) -> None:
    assert codec.jpeg.layout(data, most=10).scans == scans
    assert not codec.jpeg.layout(data, most=10).exif


@pytest.mark.parametrize("before", [b"", b"\xff\xfe\0\x0a\xff\xda\xff\xd9Ex", b"\xff\xfe\0\0"])
def test_markers_in_comments_are_none(before: bytes) -> None:
    data = jpeg(exif=exif(6))
    data = data[:2] + before + data[2:]
    assert codec.jpeg.layout(data, most=10) == (1, True)
    assert codec.read_header(data).orientation == 6


def test_the_header_of_a_png_is_read_without_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    monkeypatch.setattr(codec.PngImagePlugin.PngImageFile, "load", lambda self: loaded.append(self))
    assert codec.read_header(saved(image(), "PNG")).orientation == 1
    assert not loaded


def test_an_unreadable_exif_block_is_no_reason_to_refuse() -> None:
    data = bytearray(jpeg(exif=exif(6)))
    at = data.index(b"Exif\0\0") + 6
    data[at : at + 8] = b"rubbish!"
    header = codec.read_header(bytes(data))
    assert (header.orientation, header.plain) == (1, True)


@pytest.mark.parametrize(
    ("least", "size"),
    [
        # of a source of 200 x 304: no smaller than asked, 1/2, 1/4 or 1/8 only
        ((0, 0), (200, 304)),
        ((101, 10), (200, 304)),
        ((100, 152), (100, 152)),
        ((100, 153), (200, 304)),
        ((51, 1), (100, 152)),
        ((50, 76), (50, 76)),
        ((25, 38), (25, 38)),
        ((1, 1), (25, 38)),
        ((500, 500), (200, 304)),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_scaled_decoding(least: tuple[int, int], size: tuple[int, int], mode: str) -> None:
    data = jpeg(200, 304, mode=mode, quality=95)
    header = codec.read_header(data)
    small = codec.decode(data, header=header, min_size=least)
    assert small.shape[:2] == size
    wanted = np.asarray(image(200, 304, mode=mode).resize(size[::-1], Image.Resampling.BOX)).reshape(small.shape)
    assert np.abs(small - wanted.astype(int)).mean() < 3


def test_straight_into_a_batch() -> None:
    data = jpeg(40, 56)
    batch = np.zeros((3, 40, 56, 3), np.uint8)
    codec.decode_jpeg(data, height=40, width=56, channels=3, out=batch[1])
    assert (batch[1] == decoded(data)).all()
    assert not batch[0].any() and not batch[2].any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (40, 57)])
def test_what_is_encoded_is_decoded(channels: int, size: tuple[int, int]) -> None:
    pixels = picture(*size, channels=channels)
    png = codec.encode_png(pixels)
    assert (decoded(png) == pixels).all()
    assert codec.read_header(png).plain
    data = codec.encode_jpeg(pixels)
    assert codec.read_header(data) == codec.Header("jpeg", *size, channels, 1, True)
    assert np.abs(decoded(data).astype(int) - pixels).mean() < 4
    assert len(codec.encode_jpeg(pixels, quality=20)) <= len(data)


def test_encoded_chroma_is_whole() -> None:
    """4:4:4: each component is sampled once per pixel (the frame header of a JPEG, ITU-T T.81 B.2.2)."""
    data = codec.encode_jpeg(picture())
    at = data.index(b"\xff\xc0")
    assert [data[at + 11 + 3 * i] for i in range(3)] == [0x11, 0x11, 0x11]


SEEDS = [
    jpeg(exif=exif(6)),
    jpeg(progressive=True),
    jpeg(mode="CMYK"),
    saved(image(), "PNG", exif=exif(3)),
    saved(image(mode="P"), "PNG", transparency=b"\1\2\3"),
    saved(image(), "BMP"),
    saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    saved(image(), "TIFF", exif=exif(5)),
    saved(image(), "TIFF", compression="tiff_lzw"),
    saved(image(), "TIFF", compression="jpeg"),
    saved(image(), "WEBP", exif=exif(8)),
    saved(RGBA, "WEBP", lossless=True),
    *(deep.png16(deep.numbers(20, 30, channels)) for channels in (1, 2, 3)),
    *(deep.tiff(deep.numbers(20, 30, channels)) for channels in (1, 3)),
    saved(Image.fromarray(picture()[..., 0].astype(np.float32)), "TIFF", compression="tiff_lzw"),
]


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """An image file with bits flipped, bytes overwritten, put in, taken out or cut off; or pure noise after a mark."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    if draw(st.integers(0, 9)) == 0:
        return bytes(data[:12]) + draw(st.binary(max_size=300))
    for _ in range(draw(st.integers(1, 5))):
        # More often where the headers are.
        at = draw(st.integers(0, min(len(data) - 1, draw(st.sampled_from([64, 700, 10**6])))))
        match draw(st.sampled_from(["flip", "set", "insert", "remove", "cut"])):
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "set":
                data[at] = draw(st.sampled_from([0, 1, 127, 128, 255]))
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=9))
            case "remove":
                del data[at : at + draw(st.integers(1, 9))]
            case "cut":
                del data[at:]
        if not data:
            break
    return bytes(data)


@settings(max_examples=400)
@given(
    data=broken() | st.binary(max_size=100),
    channels=st.sampled_from([None, 1, 3]),
    value_range=st.sampled_from([None, (0, 65535)]),
)
@pytest.mark.parametrize("filters", ["error", "ignore"])
def test_broken_bytes_decode_or_are_bad_images(
    filters: str, data: bytes, channels: int | None, value_range: tuple[int, int] | None
) -> None:
    """With Pillow's warnings as errors, and as users have them: then Pillow goes on, and gets further."""
    with warnings.catch_warnings():
        warnings.simplefilter(filters)  # type: ignore[arg-type]
        try:
            header = codec.read_header(data, max_pixels=1_000_000, value_range=value_range)
            pixels = codec.decode(data, header=header, channels=channels)
        except codec.BadImage as bad:
            said = bad
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape == (header.height, header.width, channels or header.channels)
            assert header.orientation in range(1, 9)
            return
    assert said.stage in ("header", "decode") and said.reason and "\n" not in said.reason


# --- more than 8 bits per sample -------------------------------------------------------------------------------------


def levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The formula that pack and arrays promise, in plain words."""
    return np.rint((values.astype(np.float64) - low) * 255 / (high - low)).astype(np.uint8)


GREY16, TWO16, RGB16, RGBA16 = (deep.numbers(channels=c, seed=c) for c in (1, 2, 3, 4))
SIGNED = GREY16.astype(np.int32) - 40_000

# name: (bytes, range, numbers that are in it)
DEEP: dict[str, tuple[bytes, tuple[float, float], np.ndarray]] = {
    "PNG grey": (deep.png16(GREY16), (0, 65535), GREY16),
    "PNG grey and alpha": (deep.png16(TWO16), (0, 65535), TWO16[..., :1]),
    "PNG RGB": (deep.png16(RGB16), (0, 65535), RGB16),
    "PNG RGB with a gamma": (deep.png16(RGB16, deep.chunk(b"gAMA", (45455).to_bytes(4))), (0, 65535), RGB16),
    "PNG RGB with a colour that is clear": (deep.png16(RGB16, deep.chunk(b"tRNS", bytes(6))), (0, 65535), RGB16),
    "PNG RGBA": (deep.png16(RGBA16), (0, 65535), RGBA16[..., :3]),
    "PNG of 12 bits": (deep.png16(GREY16 >> 4), (0, 4095), GREY16 >> 4),
    "PNG, all of it white": (deep.png16(np.full((2, 2, 1), 7, np.uint16)), (-3, 7), np.full((2, 2, 1), 7)),
    "TIFF of uint16": (deep.tiff(GREY16), (0, 65535), GREY16),
    "TIFF of int16": (deep.tiff((GREY16 >> 1).astype(np.int16) - 9), (-9, 40_000), (GREY16 >> 1).astype(int) - 9),
    "TIFF of int32": (deep.tiff(SIGNED), (-40_000, 70_000.5), SIGNED),
    "TIFF of uint32": (deep.tiff(GREY16.astype(np.uint32) << 16), (0, 2.0**32), GREY16.astype(np.int64) << 16),
    "TIFF of float32": (deep.tiff(GREY16.astype(np.float32) / 1e5), (0, 0.7), GREY16.astype(np.float32) / 1e5),
    "TIFF RGB": (deep.tiff(RGB16), (0, 65535), RGB16),
    "TIFF RGBA": (deep.tiff(RGBA16), (0, 65535), RGBA16[..., :3]),
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_by_their_range(name: str) -> None:
    data, value_range, values = DEEP[name]
    header = codec.read_header(data, value_range=value_range)
    assert header.value_range == value_range and not header.common
    assert header.channels == values.shape[2]
    assert np.array_equal(codec.decode(data, header=header), levels(values, *value_range))
    other = codec.decode(data, header=header, channels=4 - header.channels)
    assert other.shape == (*values.shape[:2], 4 - header.channels)
    with pytest.raises(codec.BadImage, match="to 8 bits, or pack it with value_range"):
        codec.read_header(data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("values", [GREY16, RGB16], ids=["grey", "RGB"])
def test_a_deep_tiff_that_is_to_be_turned(values: np.ndarray, orientation: int) -> None:
    """Both Pillow and OpenCV turn it by themselves; `decode` gives it as it is stored."""
    data = deep.tiff(values, orientation=orientation)
    header = codec.read_header(data, value_range=(0, 65535))
    assert (header.height, header.width, header.orientation) == (5, 7, orientation)
    assert np.array_equal(codec.decode(data, header=header), levels(values, 0, 65535))


@pytest.mark.parametrize(
    ("data", "value_range", "stage", "says"),
    [
        (deep.png16(GREY16), (0, 4095), "decode", "values from 0 to 65535, outside of value_range 0 to 4095"),
        (deep.png16(RGB16), (0, 65534), "decode", "values from 0 to 65535, outside of"),
        (deep.tiff(SIGNED), (0, 65535), "decode", "values from -40000 to 25535, outside of"),
        (deep.tiff(np.where(GREY16 > 9, np.nan, GREY16).astype(np.float32)), (0, 9), "decode", "holds NaN"),
        (deep.tiff(np.where(GREY16 > 9, np.inf, GREY16).astype(np.float32)), (0, 9), "decode", "holds infinity"),
        (deep.png16(deep.numbers(40, 40))[:-300], (0, 65535), "decode", "truncated PNG"),
        (deep.png16(deep.numbers(40, 40, 3))[:-300], (0, 65535), "decode", "truncated PNG"),
        (deep.tiff(GREY16, photometric=0), (0, 65535), "header", "of a kind that can't be read exactly"),  # 0 is white
        (deep.tiff(RGB16, planar=2), (0, 65535), "header", "of a kind that can't be read exactly"),
        (deep.tiff(GREY16.astype(np.float64)), (0, 65535), "header", "unknown pixel mode"),
        (deep.tiff(TWO16), (0, 65535), "header", "unknown pixel mode"),
    ],
)
def test_deep_images_that_are_refused(data: bytes, value_range: Any, stage: str, says: str) -> None:
    with pytest.raises(codec.BadImage) as bad:
        codec.decode(data, header=codec.read_header(data, value_range=value_range))
    assert bad.value.stage == stage and says in bad.value.reason


@pytest.mark.parametrize("data", [jpeg(), saved(image(), "PNG"), saved(image(mode="P"), "GIF"), saved(image(), "TIFF")])
def test_a_range_leaves_8_bits_alone(data: bytes) -> None:
    header = codec.read_header(data, value_range=(50, 60))
    assert header == codec.read_header(data) and header.value_range is None


@pytest.mark.parametrize(("side", "factor"), [(800, 8), (804, 4), (802, 2), (801, 1)])
def test_an_exact_decode_is_small_only_where_that_divides(side: int, factor: int) -> None:
    data = jpeg(side, 1600)
    header = codec.read_header(data)
    least = {"header": header, "min_size": (50, 50)}
    assert codec.decode(data, exact=True, **least).shape[0] == side // factor  # type: ignore[arg-type]
    assert codec.decode(data, **least).shape[0] == -(-side // 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("chroma", ["444", "420"])
def test_an_optimized_jpeg_is_smaller_and_says_the_same(channels: int, chroma: codec.Chroma) -> None:
    pixels = picture(120, 160, channels=channels, seed=3)
    plain, small = (codec.encode_jpeg(pixels, quality=90, chroma=chroma, optimize=some) for some in (False, True))
    assert len(small) < len(plain)
    with Image.open(io.BytesIO(plain)) as one, Image.open(io.BytesIO(small)) as other:
        assert one.layer == other.layer and one.quantization == other.quantization
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).mean() < 1  # but for how the DCT is rounded
