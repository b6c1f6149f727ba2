"""Bytes <-> pixels: one policy for every image that comes in or goes out.

The type is detected from content, sizes are checked before anything is decoded, only six decoders are ever reached, and
what can't be decoded is a BadImage with its stage and reason. Turning boxes along with pixels is left to geometry.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from headrace.imaging import jpeg
from headrace.imaging.levels import Range, scaled, unfit

Pixels = NDArray[np.uint8]
ImageFormat = Literal["jpeg", "png", "bmp", "gif", "tiff", "webp"]
Chroma = Literal["444", "420"]

MAX_PIXELS = 64_000_000  # decoding takes at most 16 bytes a pixel (WebP), so that this is one GiB
# Scans of a JPEG: each is a pass over all pixels for a few bytes of file. libjpeg-turbo advises the first limit; real
# ones have about ten.
MAX_SCANS = 500
_DENSEST, _DENSE_SHARE = 25, 0.4  # pixels a byte, and the part of max_pixels up to which there may be more
MAX_SCANNED = 1_500_000_000  # pixels times scans
JPEG_QUALITY = 95
MOST_SIDE = 65500  # pixels, of a JPEG; libjpeg's own limit
_MOST_PNG_SIDE = 1_000_000  # libpng's own

# The plugins themselves and not PIL.Image.open: no other decoder can be reached by crafted bytes, and Pillow's
# process-wide pixel limit (a warning, then an error) does not stand before ours (but for GIF and WebP, whose plugins
# ask for it themselves).
_PLUGINS: dict[str, Any] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
}
_EXIF_ORIENTATION = 0x0112
_PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")  # where a PNG may have it
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262  # 1: grey, 0 is black; 2: RGB
_TIFF_PLANAR = 284  # 1: the samples of a pixel lie together
_TIFF_SAMPLE_FORMAT = 339  # 1: unsigned, 2: signed, 3: float


class BadImage(ValueError):
    """An image that can't be used: `stage` ("header", "decode", or "label" where it is not what its label says) and
    `reason`. Becomes a Reject."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> Any:
        return BadImage, (self.stage, self.reason)


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an image before it is decoded. `height`, `width` as stored, before its EXIF orientation.

    `orientation` 1 to 8 as EXIF numbers them. `channels` 1 or 3: grey, or anything with colour.
    `common`: every reader of the shards decodes the bytes to the same pixels, but for the turn: a grey or YCbCr/RGB
    JPEG, or an 8-bit grey or RGB PNG without palette, transparency or frames. Our fast decoders take just these.
    `value_range`: the values of black and white of an image of more than 8 bits per sample; None for all others.
    """

    format: ImageFormat
    height: int
    width: int
    channels: int
    orientation: int
    common: bool
    value_range: Range | None = None

    @property
    def plain(self) -> bool:
        """Whether the bytes may be stored as they are: common, and upright."""
        return self.common and self.orientation == 1

    @property
    def kind(self) -> str:
        """The format, or "other jpeg", "other png" for those that our fast decoders don't take."""
        return self.format if self.common or self.format not in ("jpeg", "png") else f"other {self.format}"


def sniff(data: bytes) -> ImageFormat | None:
    """The format that the first bytes announce, or None."""
    head = data[:12]
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    # "BM" alone is two letters of text: the four reserved bytes of a bitmap file header are zero.
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0":
        return "bmp"
    return None


def read_header(data: bytes, *, max_pixels: int = MAX_PIXELS, value_range: Range | None = None) -> Header:
    """Format, size, channels and orientation of image bytes, without decoding them.

    `value_range` (low, high): black and white of images of more than 8 bits per sample. Batches are uint8, and 16 bits
    are never silently squeezed to 8.
    Raises BadImage: empty, not an image, a broken header, more than `max_pixels`, more scans than MAX_SCANS or
    MAX_SCANNED, or more than 8 bits per sample without a range, or in a kind of TIFF that our decoders don't read
    exactly.
    """
    if not data:
        raise BadImage("header", "empty file (0 bytes)")
    kind = sniff(data)
    if kind is None:
        raise BadImage("header", f"not an image: {_what_it_looks_like(data)}")
    scans, exif = jpeg.layout(data, most=MAX_SCANS) if kind == "jpeg" else (1, False)
    if kind == "jpeg" and (header := _jpeg_header(data, exif)) is not None:
        _check_size(header.height, header.width, max_pixels, scans)
        return header
    image = _pillow(data, kind)
    _check_size(image.height, image.width, max_pixels, scans)
    deep = (
        image.mode.startswith(("I", "F"))
        or (kind == "png" and data[24] == 16)
        or (kind == "tiff" and max(np.atleast_1d(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, 1))) > 8)
    )
    if deep:
        found = f"more than 8 bits per sample ({kind}, mode {image.mode})"
        if value_range is None:
            raise BadImage(
                "header",
                f"{found}; convert it to 8 bits, or pack it with value_range, its values of black and white",
            )
        if kind == "tiff" and not _is_exact(image):
            raise BadImage("header", f"{found}, of a kind that can't be read exactly; convert it to 8 bits")
    # Of a PNG Pillow decodes the pixels to see whether an EXIF block comes behind them.
    orientation = 1 if kind == "png" and not any(mark in data for mark in _PNG_EXIF) else _orientation(image)
    common = kind == "png" and image.mode in ("L", "RGB") and data[24] == 8 and "transparency" not in image.info
    common = common and not _is_animated_png(data)
    grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith(("I", "F")) or _is_grey_png(data, kind)
    height, width = image.height, image.width
    if kind == "tiff" and orientation in (5, 6, 7, 8):  # Pillow gives the size, and later the pixels, turned
        height, width = width, height
    return Header(kind, height, width, 1 if grey else 3, orientation, common, value_range if deep else None)


def decode(
    data: bytes,
    *,
    header: Header,
    channels: int | None = None,
    min_size: tuple[int, int] = (0, 0),
    exact: bool = False,
    lenient: bool = False,
) -> Pixels:
    """uint8 [h, w, c] of image bytes, as stored (not turned), c = `channels` or the header's own.

    `min_size` (height, width), where given, lets a JPEG come out 2, 4 or 8 times smaller, but no smaller than that.
    `exact`: only where that divides both its sides, so that nothing moves by the part of a pixel that was made up.
    Alpha is dropped, as TensorFlow, Keras and torchvision do; of an animation it is the first frame.
    What has more than 8 bits per sample is brought to 8 by `header.value_range`, as levels.scaled has it.
    `lenient`: of a JPEG that the decoder only warns about, whatever it makes of it.
    Raises BadImage: truncated or corrupt data, a value outside of the range.
    """
    channels = channels or header.channels
    height, width = header.height, header.width
    if header.format == "jpeg" and header.common:
        return decode_jpeg(
            data, height=height, width=width, channels=channels, min_size=min_size, exact=exact, lenient=lenient
        )
    if header.common:
        return decode_png(data, channels=channels, strict=True)
    if header.format == "jpeg" and not lenient and _turbo_header(data)[2]:
        # Pillow says nothing of what libjpeg warns about. Small, as all of the scans is read for that, too.
        decode_jpeg(data, height=height, width=width, channels=4, min_size=(1, 1))
    image = _pillow(data, header.format)
    try:
        if header.value_range is not None:
            pixels = _squeezed(data, image, header.value_range, header.channels)
            if channels != header.channels:
                pixels = np.asarray(Image.fromarray(pixels).convert("L" if channels == 1 else "RGB"))
        else:
            if image.mode in ("P", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        pixels = pixels.reshape(*pixels.shape[:2], channels)
        if header.format == "tiff":  # which Pillow has turned upright, and no other format
            pixels = upright(pixels, {6: 8, 8: 6}.get(header.orientation, header.orientation))
        return pixels
    except (MemoryError, BadImage):
        raise
    except Exception as error:  # a decoder fed with broken bytes raises whatever it stumbles upon
        raise BadImage("decode", _reason(header.format, error)) from error


def decode_jpeg(
    data: bytes | NDArray[np.uint8],
    *,
    height: int,
    width: int,
    channels: int,
    min_size: tuple[int, int] = (0, 0),
    exact: bool = False,
    lenient: bool = False,
    out: Pixels | None = None,
) -> Pixels:
    """uint8 [h, w, channels] of a JPEG of `height` x `width`, grey (1), YCbCr or RGB (3), CMYK or YCCK (4).

    `min_size`, `exact`, `lenient`: see `decode`. Written straight into `out`, contiguous uint8 [height, width,
    channels], where given (then at full size). Padding behind the last scan is no damage: see jpeg.without_padding.
    Raises BadImage: truncated or corrupt data.
    """
    factor = 1
    if out is None and min(min_size) > 0:
        # Only these have SIMD transforms in libjpeg-turbo; 3/8, 5/8 and 3/4 are slower than decoding in full.
        factors = [f for f in (8, 4, 2) if not exact or height % f == width % f == 0]
        factor = next((f for f in factors if -(-height // f) >= min_size[0] and -(-width // f) >= min_size[1]), 1)
    least = (-(-height // factor), -(-width // factor)) if factor > 1 else (0, 0)

    def run(stream: bytes | NDArray[np.uint8], strict: bool = True) -> Pixels:
        pixels: Pixels = simplejpeg.decode_jpeg(
            stream,
            _COLORSPACES[channels],
            min_height=least[0],
            min_width=least[1],
            min_factor=factor,
            buffer=out,
            strict=strict,
        )
        return pixels

    try:
        return run(data)
    except ValueError as error:
        for stream, short in jpeg.without_padding(bytes(data)):
            if _is_sound(stream, channels) and not _is_sound(short, channels):
                return run(stream)
        if lenient:
            with contextlib.suppress(ValueError):
                return run(data, strict=False)
        raise BadImage("decode", _reason("jpeg", error)) from error


_COLORSPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}


def _is_sound(stream: bytes, channels: int) -> bool:
    """Whether libjpeg finds nothing to warn about in a JPEG. As small as can be: all of its scans is read for that."""
    try:
        simplejpeg.decode_jpeg(stream, _COLORSPACES[channels], min_height=1, min_width=1, min_factor=8)
    except ValueError:
        return False
    return True


_READ_GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
_READ_COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode_png(data: bytes | NDArray[np.uint8], *, channels: int, strict: bool = False) -> Pixels:
    """uint8 [h, w, channels] of a plain PNG. `strict` checks the PNG's own checksums too. Raises BadImage."""
    if strict:
        # OpenCV gives what it could read of a cut PNG, without a word.
        try:
            _pillow(bytes(data), "png").load()
        except BadImage:
            raise
        except Exception as error:  # see decode
            raise BadImage("decode", _reason("png", error)) from error
    encoded = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    pixels: Pixels | None = cv2.imdecode(encoded, _READ_GREY if channels == 1 else _READ_COLOUR)
    if pixels is None:
        raise BadImage("decode", "corrupt PNG")
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """uint8 [h, w, c] turned so that EXIF `orientation` becomes 1 (Exif 2.32, tag 0x0112)."""
    channels = pixels.shape[2]
    if orientation in (5, 6, 7, 8):
        pixels = cv2.transpose(pixels)
    if (across := orientation in (2, 3, 6, 7)) | (down := orientation in (3, 4, 7, 8)):
        pixels = cv2.flip(pixels, -1 if across and down else int(across))
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], channels))


def encode_jpeg(
    pixels: Pixels, *, quality: int = JPEG_QUALITY, chroma: Chroma = "444", optimize: bool = False
) -> bytes:
    """JPEG bytes of uint8 [h, w, 1|3]. `chroma`: "444" keeps every pixel's colour, "420" one of four.

    `optimize` fits the Huffman tables to the image (ITU-T T.81, K.2): some percent smaller, and slower to make.
    Raises BadImage: a side is longer than a JPEG's can be.
    """
    if max(pixels.shape[:2]) > MOST_SIDE:
        height, width = pixels.shape[:2]
        raise BadImage("header", f"{width} x {height} pixels are too many a side for a JPEG, which takes {MOST_SIDE}")
    grey = pixels.shape[2] == 1
    if optimize:
        subsampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if chroma == "444" else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
        settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        settings += [] if grey else [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, subsampling]
        ok, made = cv2.imencode(".jpg", pixels if grey else pixels[:, :, ::-1], settings)
        if not ok:
            raise ValueError(f"no JPEG could be made of an array {pixels.shape}")
        return bytes(made)
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels),
        quality=quality,
        colorspace="GRAY" if grey else "RGB",
        colorsubsampling="Gray" if grey else chroma,
    )
    return data


def encode_png(pixels: Pixels) -> bytes:
    """PNG bytes of uint8 [h, w, 1|3]. Raises BadImage: a side is longer than libpng takes."""
    if max(pixels.shape[:2]) > _MOST_PNG_SIDE:
        height, width = pixels.shape[:2]
        raise BadImage(
            "header", f"{width} x {height} pixels are too many a side for a PNG, which takes {_MOST_PNG_SIDE}"
        )
    ok, data = cv2.imencode(".png", pixels if pixels.shape[2] == 1 else pixels[:, :, ::-1])
    if not ok:
        raise ValueError(f"no PNG could be made of an array {pixels.shape}")
    return bytes(data)


def _turbo_header(data: bytes) -> tuple[int, int, str]:
    """(height, width, colours) of a JPEG as libjpeg-turbo's fast path has it; "" for colours that it does not take."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # no JPEG, or one whose colours are subsampled in an odd way
        return 0, 0, ""
    return height, width, colours


def _jpeg_header(data: bytes, exif: bool) -> Header | None:
    """Header of a JPEG that our fast decoder takes; None for CMYK, YCCK and odd subsamplings, which are Pillow's."""
    height, width, colours = _turbo_header(data)
    if colours not in ("Gray", "YCbCr", "RGB"):
        return None
    orientation = _orientation(_pillow(data, "jpeg")) if exif else 1
    return Header("jpeg", height, width, 1 if colours == "Gray" else 3, orientation, True)


def _pillow(data: bytes, kind: ImageFormat) -> Any:
    try:
        return _PLUGINS[kind](io.BytesIO(data))
    except Exception as error:  # see decode
        raise BadImage("header", _reason(kind, error)) from error


def _is_animated_png(data: bytes) -> bool:
    """Whether a PNG has frames beside its image, of which OpenCV shows the first, and all others the image."""
    at = 8
    while data[at + 4 : at + 8] not in (b"IDAT", b""):
        if data[at + 4 : at + 8] == b"acTL":
            return True
        at += 12 + int.from_bytes(data[at : at + 4])
    return False


def _is_grey_png(data: bytes, kind: ImageFormat) -> bool:
    """Whether it is a PNG of 16 bits that is grey; with alpha it has colours to Pillow."""
    return kind == "png" and data[24] == 16 and data[25] in (0, 4)


def _is_exact(image: Any) -> bool:
    """Whether a TIFF of more than 8 bits is read number by number: grey with 0 for black, or 16-bit RGB."""
    tags = image.tag_v2
    bits, kinds = (np.atleast_1d(tags.get(tag, 1)).tolist() for tag in (_TIFF_BITS_PER_SAMPLE, _TIFF_SAMPLE_FORMAT))
    if tags.get(_TIFF_PHOTOMETRIC) == 1:  # of 64 bits Pillow leaves 32
        return len(bits) == 1 and bits[0] <= 32 and image.mode.startswith(("I", "F"))
    colour = tags.get(_TIFF_PHOTOMETRIC) == 2 and tags.get(_TIFF_PLANAR, 1) == 1
    return colour and len(bits) in (3, 4) and {*bits} == {16} and {*kinds} == {1}


def _squeezed(data: bytes, image: Any, value_range: Range, channels: int) -> Pixels:
    """uint8 [h, w] or [h, w, 3] of an image of more than 8 bits per sample. Raises BadImage: outside of the range."""
    image.load()  # OpenCV gives what it could read of a cut file, without a word
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if (
            image.mode == "I"
            and image.format == "TIFF"
            and 1 in np.atleast_1d(image.tag_v2.get(_TIFF_SAMPLE_FORMAT, 1))
        ):
            values = values.view(np.uint32)  # which Pillow takes for signed
    else:  # Pillow has 8 bits left of them
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None or found.dtype != np.uint16 or found.shape[:2] != image.size[::-1] or found.ndim != 3:
            raise ValueError("no 16-bit samples in it")
        values = found[..., 0] if channels == 1 else found[..., 2::-1]
    if (reason := unfit(float(values.min()), float(values.max()), value_range)) is not None:
        raise BadImage("decode", reason)
    return scaled(values, value_range)


def _orientation(image: Any) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # an unreadable EXIF block says nothing about the orientation; the pixels are good all the same
        return 1
    return value if value in range(1, 9) else 1


def check_pixels(height: int, width: int, max_pixels: int) -> None:
    """Raises BadImage: more pixels than that, or none."""
    if height < 1 or width < 1:
        raise BadImage("header", f"a size of {width} x {height} pixels")
    if height * width > max_pixels:
        raise BadImage("header", f"{width} x {height} pixels are over the limit of {max_pixels} (max_pixels)")


def check_density(header: Header, size: int, max_pixels: int) -> None:
    """Raises BadImage: a file of `size` bytes that unfolds as no photo does, to more than a part of `max_pixels`.

    So a small file can cost no more than two seconds: large ones that are cheap to send are of one colour.
    """
    height, width = header.height, header.width
    share = _DENSE_SHARE if header.value_range is None else _DENSE_SHARE / 2  # of 16 bits a sample each costs twice
    most = int(max_pixels * share)
    if height * width > max(most, size * _DENSEST):
        raise BadImage(
            "header",
            f"{width} x {height} pixels in {size} bytes: more than {_DENSEST} a byte, which only images of at most "
            f"{most} pixels may have ({share:.0%} of max_pixels)",
        )


def _check_size(height: int, width: int, max_pixels: int, scans: int) -> None:
    check_pixels(height, width, max_pixels)
    most = min(MAX_SCANS, MAX_SCANNED // (height * width)) if scans > 1 else 1
    if scans > most:
        raise BadImage("header", f"over {most} scans of {width} x {height} pixels: no camera's or encoder's JPEG")


def _reason(kind: str, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "premature end" in text.lower() or "truncated" in text.lower():
        return f"truncated {kind.upper()} ({text})"
    return f"corrupt {kind.upper()} ({text})"


def _what_it_looks_like(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if head.startswith((b"<?xml", b"<svg")):
        return "XML text"
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "text"
    return f"unknown content, first bytes {data[:8].hex(' ')}"
