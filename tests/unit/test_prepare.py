"""One image through the packer: what is kept, what is converted and into what, and its boxes along with it."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import deep
from drawn import exif, image, jpeg, picture, saved
from headrace.errors import UsageError
from headrace.imaging import codec, geometry
from headrace.imaging.prepare import ImageOptions, Prepared, prepare
from painted import assert_painted_at

RGBA = np.dstack([picture(), picture(seed=3)[..., :1]])


def pixels_of(made: Prepared) -> np.ndarray:
    return codec.decode(made.encoded, header=codec.read_header(made.encoded))


# name: (bytes, channels asked for, what is stored: "kept" or a format, its channels)
CASES = {
    "JPEG": (jpeg(), None, "kept", 3),
    "JPEG grey": (jpeg(mode="L"), None, "kept", 1),
    "JPEG progressive": (jpeg(progressive=True), None, "kept", 3),
    "JPEG, 3 asked": (jpeg(), 3, "kept", 3),
    "JPEG, 1 asked": (jpeg(), 1, "jpeg", 1),
    "JPEG grey, 1 asked": (jpeg(mode="L"), 1, "kept", 1),
    "JPEG grey, 3 asked": (jpeg(mode="L"), 3, "jpeg", 3),
    "JPEG CMYK": (jpeg(mode="CMYK"), None, "jpeg", 3),
    "JPEG CMYK, 1 asked": (jpeg(mode="CMYK"), 1, "jpeg", 1),
    "JPEG to be turned": (jpeg(exif=exif(6)), None, "jpeg", 3),
    "JPEG upright by EXIF": (jpeg(exif=exif(1)), None, "kept", 3),
    "JPEG with stray bytes": (jpeg()[:-2] + bytes(7) + jpeg()[-2:], None, "kept", 3),
    "PNG": (saved(image(), "PNG"), None, "kept", 3),
    "PNG grey": (saved(image(mode="L"), "PNG"), None, "kept", 1),
    "PNG grey, 3 asked": (saved(image(mode="L"), "PNG"), 3, "png", 3),
    "PNG RGBA": (saved(RGBA, "PNG"), None, "png", 3),
    "PNG LA": (saved(image(mode="L").convert("LA"), "PNG"), None, "png", 1),
    "PNG palette": (saved(image(mode="P"), "PNG"), None, "png", 3),
    "PNG of one bit": (saved(image(mode="1"), "PNG"), None, "png", 1),
    "BMP": (saved(image(), "BMP"), None, "png", 3),
    "GIF": (saved(image(mode="P"), "GIF"), None, "png", 3),
    "TIFF": (saved(image(), "TIFF"), None, "png", 3),
    "TIFF to be turned": (saved(image(), "TIFF", exif=exif(8)), None, "png", 3),
    "WebP": (saved(image(), "WEBP"), None, "jpeg", 3),
    "WebP, 1 asked": (saved(image(), "WEBP"), 1, "jpeg", 1),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_stored_at_its_own_size(name: str) -> None:
    data, asked, wanted, channels = CASES[name]
    made = prepare(data, ImageOptions(channels=asked))
    assert (made.encoded == data) is (wanted == "kept")
    header = codec.read_header(made.encoded)
    assert header.format == made.format == (name.replace(",", " ").split()[0].lower() if wanted == "kept" else wanted)
    assert (header.height, header.width, header.channels) == (made.height, made.width, made.channels)
    # Whatever came in, every reader can read what goes out.
    assert header.plain and header.orientation == 1 and made.channels == channels
    seen = Image.open(io.BytesIO(data))
    upright = seen.transpose(Image.Transpose.ROTATE_270) if "JPEG to be turned" in name else seen  # a TIFF is turned
    upright = upright.convert("RGBA").convert("L" if channels == 1 else "RGB")
    judge = np.asarray(upright).reshape(made.height, made.width, channels)
    assert np.abs(pixels_of(made).astype(int) - judge).mean() < (3 if made.format == "jpeg" else 0.6)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_what_is_stored_when_resized(name: str, fit: Any) -> None:
    data, asked, _, channels = CASES[name]
    made = prepare(data, ImageOptions(size=(20, 30), fit=fit, channels=asked))
    assert (made.format, made.height, made.width, made.channels) == ("jpeg", 20, 30, channels)
    header = codec.read_header(made.encoded)
    assert header == codec.Header("jpeg", 20, 30, channels, 1, True)


@pytest.mark.parametrize("name", CASES)
def test_the_same_bytes_for_the_same_input(name: str) -> None:
    data, asked, _, _ = CASES[name]
    for options in (ImageOptions(channels=asked), ImageOptions(size=(16, 16), fit="pad", channels=asked)):
        assert prepare(data, options).encoded == prepare(data, options).encoded


def test_bytes_of_the_asked_size_are_kept() -> None:
    data = jpeg(30, 40)
    assert prepare(data, ImageOptions(size=(30, 40))).encoded == data
    assert prepare(data, ImageOptions(size=(30, 40), channels=1)).encoded != data
    assert prepare(data, ImageOptions(size=(40, 30))).encoded != data
    # Sideways in the file, but of the asked size once upright.
    turned = prepare(jpeg(40, 30, exif=exif(6), quality=95), ImageOptions(size=(30, 40)))
    assert (turned.height, turned.width) == (30, 40)
    stored = np.asarray(image(40, 30).transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(pixels_of(turned) - stored).mean() < 3
    exact = prepare(saved(image(40, 30), "PNG", exif=exif(6)), ImageOptions(size=(30, 40)))
    assert (exact.format, exact.height, exact.width) == ("png", 30, 40)
    assert (pixels_of(exact) == stored).all()
    # The asked size in the file, but not once upright.
    resized = prepare(jpeg(40, 30, exif=exif(6)), ImageOptions(size=(40, 30)))
    assert (resized.height, resized.width) == (40, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_decoded_small_but_large_enough(orientation: int) -> None:
    """What a scaled decode may leave out is reckoned on the upright image, and asked for on the stored one.

    Stripes of two pixels across 240: asked for 60 x 150 (h x w), a stored width halved to 120 would blur them.
    """
    stripes = np.zeros((320, 240, 1), np.uint8)
    stripes[:, np.arange(240) % 4 < 2] = 255
    stored = codec.upright(stripes, {6: 8, 8: 6}.get(orientation, orientation))
    data = saved(stored, "JPEG", quality=95, exif=exif(orientation))
    assert pixels_of(prepare(data, ImageOptions(size=(60, 150)))).std() > 95


def test_chroma_is_of_what_is_made() -> None:
    data = jpeg(40, 30, subsampling="4:2:0")
    for chroma in ("444", "420"):
        made = prepare(data, ImageOptions(size=(20, 20), chroma=chroma)).encoded
        assert simplejpeg.decode_jpeg_header(made)[3] == chroma
    assert prepare(data, ImageOptions(chroma="444")).encoded == data


def test_quality_is_of_what_is_made() -> None:
    data = saved(image(), "WEBP")
    low, high = (len(prepare(data, ImageOptions(quality=q)).encoded) for q in (30, 95))
    assert low < high * 0.6
    kept = jpeg()
    assert prepare(kept, ImageOptions(quality=30)).encoded == kept


def test_recompressed_chroma_is_whole() -> None:
    """Red beside blue, pixel by pixel: with 4:2:0 both would become purple."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, 0::2, 0] = stripes[:, 1::2, 2] = 255
    made = prepare(saved(stripes, "WEBP", lossless=True), ImageOptions())
    assert np.abs(pixels_of(made).astype(int) - stripes).mean() < 4


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_resizing_is_what_pillow_makes_of_it(fit: Any) -> None:
    source = image(200, 304)
    made = pixels_of(prepare(saved(source, "JPEG", quality=95), ImageOptions(size=(50, 60), fit=fit)))
    if fit == "stretch":
        judge = source.resize((60, 50), Image.Resampling.BOX)
    elif fit == "crop":
        judge = source.crop((32, 0, 272, 200)).resize((60, 50), Image.Resampling.BOX)
    else:
        judge = Image.new("RGB", (60, 50))
        judge.paste(source.resize((60, 39), Image.Resampling.BOX), (0, 5))
    difference = np.abs(made.astype(int) - np.asarray(judge)).mean()
    assert difference < (5 if fit == "pad" else 3)


def test_boxes_follow_the_image() -> None:
    boxes = np.array([[0, 0, 100, 100], [10, 10, 20, 30], [120, 40, 180, 60], [150, 0, 150, 50]], np.float32)
    points = np.array([[[50, 50, 2], [150, 50, 1], [0, 0, 0]]] * 4, np.float32)
    points[1:3, 0, 0], points[2, 1, 1] = 49.9, 100.1
    made = prepare(jpeg(100, 200), ImageOptions(size=50, fit="crop"), boxes=boxes, keypoints=points)  # type: ignore[arg-type]
    # The middle 100 x 100 at half the size; what lies left of it is cut, the second box is gone, the last has no area.
    assert (made.kept, made.clipped) == ([0, 2], 0) and made.dropped.total() == 2
    assert made.boxes is not None and made.keypoints is not None
    assert made.boxes.dtype == np.float32
    assert made.boxes.tolist() == [[0, 0, 25, 50], [35, 20, 50, 30]]
    # A point on the border is in the picture; the third box's are cut off or never were in it.
    assert made.keypoints.tolist() == [[[0, 25, 2], [50, 25, 1], [0, 0, 0]], [[0, 0, 0]] * 3]
    assert made.points_dropped == {"cut off by fit": 1, "outside of the image": 1, "of dropped boxes": 4}


def test_boxes_beyond_the_image_are_cut_when_its_bytes_are_kept_too() -> None:
    data = jpeg(30, 40)
    made = prepare(
        data, ImageOptions(), boxes=np.array([[-5, -5, 10, 10], [41, 0, 50, 9], [30, 20, 99, 99]], np.float32)
    )
    assert made.encoded == data
    assert made.boxes is not None
    assert made.boxes.tolist() == [[0, 0, 10, 10], [30, 20, 40, 30]]
    assert (made.kept, made.clipped) == ([0, 2], 2) and made.dropped.total() == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_cut_to_the_image_as_stored(orientation: int) -> None:
    """30 high and 40 wide in the file, whatever it will be once turned; a reversed box is none."""
    boxes = np.array([[-5, 20, 15, 30], [0, 0, 41, 30], [35, 0, 40, 30], [0, 31, 9, 35], [9, 9, 3, 3]], np.float32)
    made = prepare(jpeg(30, 40, exif=exif(orientation)), ImageOptions(), boxes=boxes)
    assert (made.kept, made.clipped) == ([0, 1, 2], 2) and made.dropped == {"reversed": 1, "outside of the image": 1}
    assert made.boxes is not None
    inside = geometry.turn_boxes(np.clip(boxes[:3], 0, [40, 30, 40, 30]), orientation, 30, 40)
    assert made.boxes.tolist() == inside.tolist()


def test_no_boxes_and_nothing_said_of_boxes() -> None:
    made = prepare(jpeg(), ImageOptions(size=8), boxes=np.zeros((0, 4), np.float32))  # type: ignore[arg-type]
    assert made.boxes is not None
    assert made.boxes.shape == (0, 4) and made.kept == []
    made = prepare(jpeg(), ImageOptions(size=8))  # type: ignore[arg-type]
    assert made.boxes is None and made.kept is None and made.keypoints is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, (40, 30)])
def test_a_window_of_the_image(orientation: int, size: Any) -> None:
    """Pixels 10 to 31 across and 5 to 25 down, as the bytes are stored, are all there is of it."""
    given = picture(30, 40)
    boxes = np.array([[12, 10, 20, 20], [0, 0, 12, 10], [33, 0, 40, 30]], np.float32)
    points = np.array([[[12, 10, 2], [31, 25, 1]], [[11, 9, 2], [9, 9, 2]], [[39, 9, 2], [0, 0, 0]]], np.float32)
    made = prepare(
        saved(given, "PNG", exif=exif(orientation)),
        ImageOptions(size=size),
        boxes=boxes,
        keypoints=points,
        window=(10.2, 5.9, 30.1, 24.5),
    )
    part = codec.upright(given[5:25, 10:31], orientation)
    if size is None:
        assert made.format == "png" and (pixels_of(made) == part).all()
    else:
        assert (made.height, made.width, made.format) == (40, 30, "jpeg")
    scale = np.array([made.width / part.shape[1], made.height / part.shape[0]], np.float32)
    assert made.boxes is not None and made.keypoints is not None and made.kept == [0]
    wanted = geometry.turn_boxes(boxes[:1] - [10, 5, 10, 5], orientation, 20, 21) * np.tile(scale, 2)
    assert np.allclose(made.boxes, wanted, atol=1e-4) and made.dropped == {"cut off by window or fit": 2}
    spots = geometry.turn_points(points[:1] - np.array([10, 5, 0], np.float32), orientation, 20, 21)
    assert np.allclose(made.keypoints, spots * [*scale, 1], atol=1e-4)
    assert made.points_dropped == {"of dropped boxes": 3}


def test_a_window_and_bytes() -> None:
    """All of the image, and more, is the image; nothing of it is none."""
    data = jpeg(30, 40)
    assert prepare(data, ImageOptions(), window=(-5, 0.5, 45, 29.5)).encoded == data
    made = prepare(data, ImageOptions(), keypoints=np.array([[[1, 2, 2]]], np.float32), window=(2, 0, 40, 30))
    assert (made.width, made.format, made.points_dropped) == (38, "jpeg", {"cut off by window or fit": 1})
    for window in ((41, 0, 45, 9), (5, 5, 5, 5), (9, 9, 3, 3), (float("nan"), 0, 5, 5)):
        with pytest.raises(codec.BadImage, match=r"the window \[.*\] shows nothing of the image"):
            prepare(data, ImageOptions(), window=window)


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1)])
@pytest.mark.parametrize("source", [(1, 1), (1, 90), (90, 1)])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_single_rows_and_columns(source: tuple[int, int], size: tuple[int, int], fit: Any) -> None:
    y, x = (source[0] - 1) // 2, (source[1] - 1) // 2  # the middle, which every fit shows
    made = prepare(jpeg(*source), ImageOptions(size=size, fit=fit), boxes=np.array([[x, y, x + 1, y + 1]], np.float32))
    assert pixels_of(made).shape == (*size, 3)
    assert made.boxes is not None and made.kept == [0]


def test_a_limit_on_pixels() -> None:
    assert prepare(jpeg(40, 50), ImageOptions(max_pixels=2000)).height == 40
    with pytest.raises(codec.BadImage, match="50 x 40 pixels are over the limit of 1999"):
        prepare(jpeg(40, 50), ImageOptions(max_pixels=1999))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": (10, 0)}, r"size is \(10, 0\)"),
        ({"fit": "cover"}, "fit is 'cover'"),
        ({"channels": 2}, "channels is 2, wanted 1, 3 or None"),
        ({"channels": 4}, "channels is 4"),
        ({"quality": 0}, "quality is 0, wanted 1 to 100"),
        ({"quality": 101}, "quality is 101"),
        ({"chroma": "422"}, "chroma is '422', wanted one of 444, 420"),
        ({"max_pixels": 0}, "max_pixels is 0"),
    ],
)
def test_options_check_themselves(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ImageOptions(**options)


@pytest.mark.parametrize("options", [ImageOptions(), ImageOptions(size=(3, 5), fit="pad", channels=1, quality=7)])
def test_options_there_and_back(options: ImageOptions) -> None:
    raw = json.loads(json.dumps(options.as_json()))
    assert ImageOptions.from_json(raw | {"seed": 0, "splits": {}}) == options


SEEDS = [data for data, _, _, _ in CASES.values()]


@settings(max_examples=150)
@given(
    data=st.sampled_from(SEEDS),
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 400),
    size=st.none() | st.integers(1, 40),
    channels=st.sampled_from([None, 1, 3]),
)
def test_broken_bytes_are_stored_readable_or_refused(
    data: bytes, flips: list[tuple[int, int]], cut: int, size: int | None, channels: int | None
) -> None:
    broken = bytearray(data[: len(data) - cut] if cut % 3 == 0 else data)
    for at, change in flips:
        broken[at % len(broken)] ^= change
    try:
        made = prepare(bytes(broken), ImageOptions(size=size, channels=channels, max_pixels=10**6))  # type: ignore[arg-type]
    except codec.BadImage:
        return
    assert pixels_of(made).shape == (made.height, made.width, made.channels)
    assert codec.read_header(made.encoded).plain


# --- a side, and not a size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "given", "wanted"),
    [
        ({"max_side": 100}, (400, 300), (100, 75)),
        ({"max_side": 100}, (300, 400), (75, 100)),
        ({"max_side": 100}, (100, 100), (100, 100)),
        ({"max_side": 100}, (99, 40), (99, 40)),
        ({"max_side": 100, "enlarge": True}, (50, 40), (100, 80)),
        ({"max_side": 100}, (101, 51), (100, 50)),  # 50.495
        ({"max_side": 100}, (1000, 3), (100, 1)),
        ({"max_side": 7}, (3, 1000), (1, 7)),
        ({"min_side_to": 100}, (400, 300), (133, 100)),
        ({"min_side_to": 100}, (300, 99), (300, 99)),
        ({"min_side_to": 100, "enlarge": True}, (300, 99), (303, 100)),
        ({"min_side_to": 100}, (100, 5000), (100, 5000)),
        ({"size": 64}, (300, 99), (64, 64)),
        ({}, (300, 99), (300, 99)),
    ],
)
def test_sizes_by_a_side(options: dict[str, Any], given: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert ImageOptions(**options).size_of(*given) == wanted


@given(
    height=st.integers(1, 5000), width=st.integers(1, 5000), side=st.integers(1, 6000), enlarge=st.booleans(),
    which=st.sampled_from(["max_side", "min_side_to"]),
)  # fmt: skip
def test_a_side_keeps_the_ratio(height: int, width: int, side: int, enlarge: bool, which: str) -> None:
    options = ImageOptions(**{which: side, "enlarge": enlarge}, max_pixels=10**9)  # type: ignore[arg-type]
    pick = max if which == "max_side" else min
    try:
        made = options.size_of(height, width)
    except codec.BadImage:
        assert enlarge and side * max(height, width) / min(height, width) > 30_000
        return
    if pick(height, width) == side or (pick(height, width) < side and not enlarge):
        assert made == (height, width)
    else:
        scale = side / pick(height, width)
        assert pick(made) == side and min(made) >= 1
        assert all(abs(a - b * scale) <= 0.5 or a == 1 for a, b in zip(made, (height, width), strict=True))


def test_bytes_are_kept_where_no_side_changes() -> None:
    for data in (jpeg(30, 40), saved(image(30, 40), "PNG")):
        for options in ({"max_side": 40}, {"max_side": 900}, {"min_side_to": 30}, {"min_side_to": 31}):
            assert prepare(data, ImageOptions(**options)).encoded == data  # type: ignore[arg-type]
    made = prepare(jpeg(30, 40), ImageOptions(max_side=80, enlarge=True))
    assert (made.height, made.width) == (60, 80)


def test_a_side_is_of_the_upright_image_and_of_its_window() -> None:
    box = np.array([[10, 20, 30, 60]], np.float32)
    made = prepare(jpeg(80, 40, exif=exif(6)), ImageOptions(max_side=40), boxes=box)
    assert (made.height, made.width) == (20, 40)
    assert made.boxes is not None and np.allclose(made.boxes, geometry.turn_boxes(box, 6, 80, 40) / 2)
    made = prepare(jpeg(80, 40), ImageOptions(max_side=30), boxes=box, window=(0, 10, 40, 70))
    assert (made.height, made.width) == (30, 20)
    assert made.boxes is not None and np.allclose(made.boxes, [[5, 5, 15, 25]])


@pytest.mark.parametrize(("height", "width"), [(1600, 1200), (1601, 1203), (6401, 1999), (801, 640)])
@pytest.mark.parametrize("options", [{"max_side": 800}, {"min_side_to": 250}])
def test_boxes_of_smaller_images_are_right_to_half_a_pixel(height: int, width: int, options: dict[str, Any]) -> None:
    """Up to the far edge, where an image decoded at a part of its size that its sides can't be divided by is worst."""
    box = np.array([[width // 7, height // 5, width - 11, height - 12]], np.float32)
    pixels = np.zeros((height, width, 1), np.uint8)
    pixels[height // 5 : height - 12, width // 7 : width - 11] = 255
    made = prepare(saved(pixels, "JPEG", quality=95), ImageOptions(**options), boxes=box)
    assert made.boxes is not None
    assert_painted_at(pixels_of(made), made.boxes[0], within=0.5)


def test_an_image_that_would_become_too_large_is_a_bad_one() -> None:
    with pytest.raises(codec.BadImage, match="2 x 2000 pixels would become 100 x 100000, wanted at most 65500 a side"):
        prepare(jpeg(2000, 2), ImageOptions(min_side_to=100, enlarge=True))
    with pytest.raises(codec.BadImage, match=r"and 5000 in all \(max_pixels\)"):
        prepare(jpeg(40, 40), ImageOptions(max_side=80, enlarge=True, max_pixels=5000))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 9, "max_side": 9}, "give size or max_side, not both"),
        ({"size": 9, "min_side_to": 9}, "give size or min_side_to, not both"),
        ({"max_side": 9, "min_side_to": 9}, "give max_side or min_side_to, not both"),
        ({"max_side": 0}, "max_side is 0, wanted 1 to 65500 pixels"),
        ({"min_side_to": 65501}, "min_side_to is 65501, wanted"),
        ({"max_side": 9.5}, "max_side is 9.5, wanted"),
        ({"max_side": 9, "fit": "pad"}, "fit is 'pad': it is for size, max_side keeps the ratio"),
        ({"enlarge": True}, "enlarge is for max_side and min_side_to"),
        ({"size": 9, "enlarge": True}, "enlarge is for max_side and min_side_to"),
        ({"value_range": (1, 1)}, r"value_range is \(1, 1\), wanted two finite numbers, the smaller first"),
        ({"value_range": 5}, r"value_range is 5, wanted \(low, high\)"),
    ],
)
def test_options_that_can_not_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ImageOptions(**options)


def test_options_survive_a_manifest() -> None:
    for options in (
        ImageOptions(max_side=5, enlarge=True, value_range=(0, 4095)),
        ImageOptions(size=(3, 4), fit="pad"),
        ImageOptions(),
    ):
        assert ImageOptions.from_json(json.loads(json.dumps(options.as_json() | {"seed": 1}))) == options
    assert ImageOptions.from_json({"size": None, "fit": "stretch"}) == ImageOptions()  # of an earlier version


# --- more than 8 bits per sample -------------------------------------------------------------------------------------


def test_16_bits_become_8_and_stay_exact() -> None:
    values = deep.numbers(40, 56, 3, most=4095)
    wanted = np.rint(values.astype(float) * 255 / 4095).astype(np.uint8)
    data = deep.png16(values, deep.chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")))
    made = prepare(data, ImageOptions(value_range=(0, 4095)))
    assert (made.format, made.height, made.width) == ("png", 56, 40)
    assert np.array_equal(pixels_of(made), codec.upright(wanted, 6))
    made = prepare(data, ImageOptions(value_range=(0, 4095), max_side=28))
    assert (made.format, made.height, made.width) == ("jpeg", 28, 20)
    with pytest.raises(codec.BadImage, match="pack it with value_range, its values"):
        prepare(data, ImageOptions())


@pytest.mark.parametrize("name", CASES)
def test_a_range_changes_nothing_of_8_bits(name: str) -> None:
    data, asked, _, _ = CASES[name]
    ranged = ImageOptions(channels=asked, value_range=(100, 101))
    assert prepare(data, ranged).encoded == prepare(data, ImageOptions(channels=asked)).encoded


def test_optimized_jpegs_are_what_is_stored() -> None:
    data = saved(picture(90, 120, seed=2), "PNG")
    plain, small = (prepare(data, ImageOptions(size=(60, 80), optimize=some)) for some in (False, True))
    assert len(small.encoded) < len(plain.encoded) and (small.format, small.height, small.width) == ("jpeg", 60, 80)
    kept = jpeg(60, 80)
    assert prepare(kept, ImageOptions(optimize=True)).encoded == kept  # what needs no change is not touched
