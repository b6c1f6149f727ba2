"""Raw photos to batches: the same pixels as packing and loading give, and a Reject for what is no photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deep
import headrace as hr
from drawn import exif, files, image, jpeg, saved
from headrace.errors import UsageError
from headrace.imaging import codec
from headrace.imaging.prepare import ImageOptions
from headrace.load.photos import PhotoLoader, read_photo
from packed import threads, threads_left
from painted import whiteness

FILES = {
    "a.jpg": jpeg(60, 90, seed=1),
    "b.jpg": jpeg(33, 200, seed=2),
    "c.png": saved(image(50, 40, mode="RGBA", seed=3), "PNG"),
    "d.jpg": jpeg(40, 70, seed=4, exif=exif(6)),
    "e.jpg": jpeg(41, 41, mode="L", seed=5),
    "f.gif": saved(image(45, 60, mode="P", seed=6), "GIF"),
}
OPTIONS = [
    ({}, "stretch", 32),
    ({"size": 48, "fit": "crop"}, "stretch", (20, 30)),
    ({"size": (40, 56), "fit": "pad", "quality": 70}, "pad", 24),
    ({"channels": 1}, "crop", 16),
    ({"max_side": 50}, "stretch", 32),
    ({"min_side_to": 45, "enlarge": True}, "pad", 40),
    ({"value_range": (0, 4095)}, "stretch", 24),
]


@pytest.mark.parametrize(("pack_options", "fit", "size"), OPTIONS)
def test_the_pixels_are_those_of_packing_and_loading(
    tmp_path: Path, pack_options: dict[str, object], fit: str, size: int
) -> None:
    photos = files(tmp_path / "photos", FILES)
    hr.pack(hr.sources.names(photos, pattern="^(?P<label>.)"), tmp_path / "ds", progress=False, **pack_options)
    ds = hr.Dataset(tmp_path / "ds")
    batch = ds.loader(size=size, fit=fit, shuffle=False)[0]  # type: ignore[arg-type]
    paths = [photos / id_ for id_ in batch.ids]
    raw = PhotoLoader(
        paths,
        pack_options=ds.manifest.pack_options,
        size=size,
        fit=fit,  # type: ignore[arg-type]
        channels=ds.channels,
    )
    ((found, rejects, _),) = raw
    assert rejects == [] and found.targets is None and found.ids == tuple(map(str, paths))
    assert np.array_equal(found.images, batch.images)


def test_16_bit_photos_as_packed(tmp_path: Path) -> None:
    content = {f"{k}.png": deep.png16(deep.numbers(20, 30, 3, most=4095, seed=k)) for k in range(3)}
    photos = files(tmp_path / "photos", content | {"bright.png": deep.png16(deep.numbers(20, 30))})
    source = hr.sources.names(photos, pattern="^(?P<label>.)")
    report = hr.pack(source, tmp_path / "ds", value_range=(0, 4095), max_rejects=1, progress=False)
    assert [reject.id for reject in report.rejects] == ["bright.png"]
    ds = hr.Dataset(tmp_path / "ds")
    batch = ds.loader(size=16, shuffle=False)[0]
    options = ds.manifest.pack_options
    paths = [photos / id_ for id_ in (*batch.ids, "bright.png")]
    ((found, rejects, views),) = PhotoLoader(paths, pack_options=options, size=16)
    assert np.array_equal(found.images, batch.images) and len(views) == 3
    assert [reject.reason for reject in rejects] == [report.rejects[0].reason]
    ((_, refused, _),) = loader(paths)
    assert len(refused) == 4 and "value_range" in refused[0].reason
    photo = read_photo(paths[0], ImageOptions(max_pixels=1000, value_range=(0, 4095)))
    assert np.array_equal(photo, codec.decode(ds[0].encoded, header=codec.read_header(ds[0].encoded)))  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("pack_options", [{"max_side": 50}, {"min_side_to": 130, "enlarge": True}])
def test_a_view_leads_back(tmp_path: Path, orientation: int, pack_options: dict[str, object]) -> None:
    """Where a box of the photo is painted in the batch, there its view takes it from."""
    pixels = np.zeros((90, 120, 1), np.uint8)
    pixels[20:60, 30:90] = 255
    path = tmp_path / "a.png"
    path.write_bytes(saved(codec.upright(pixels, {6: 8}.get(orientation, orientation)), "PNG", exif=exif(orientation)))
    options = ImageOptions(**pack_options).as_json()  # type: ignore[arg-type]
    ((batch, _, (view,)),) = PhotoLoader([path], pack_options=options, size=(64, 80), fit="pad")
    assert (view.height, view.width) == (90, 120)
    white = whiteness(batch.images[0]) >= 0.5
    (y0, *_, y1), (x0, *_, x1) = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    back = view.back(np.array([[x0, y0, x1 + 1, y1 + 1]], np.float32))
    assert np.allclose(back, [[30, 20, 90, 60]], rtol=0, atol=1.6)  # a pixel of the batch is 1.5 of the photo


@pytest.fixture
def bad(tmp_path: Path) -> list[Path]:
    """Seven files: the second, the fourth and the last are none."""
    content = {
        "0.jpg": jpeg(seed=0),
        "1.jpg": b"<html>no</html>",
        "2.jpg": jpeg(seed=2),
        "3.jpg": jpeg(seed=3)[:-30],
        "4.jpg": jpeg(seed=4),
        "5.jpg": jpeg(seed=5),
    }
    files(tmp_path, content)
    return [tmp_path / name for name in [*content, "6.jpg"]]


def loader(paths: list[Path], **options: object) -> PhotoLoader:
    pack_options = ImageOptions().as_json() | {"seed": 3}
    return PhotoLoader(paths, pack_options=pack_options, size=16, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_what_is_no_photo_is_a_reject(bad: list[Path], workers: int) -> None:
    run = loader(bad, batch_size=3, workers=workers)
    assert len(run) == 3
    (one, two, three) = run
    assert [batch.ids for batch, _, _ in (one, two, three)] == [
        (str(bad[0]), str(bad[2])),
        (str(bad[4]), str(bad[5])),
        (),
    ]
    assert [batch.images.shape for batch, _, _ in (one, two, three)] == [(2, 16, 16, 3), (2, 16, 16, 3), (0, 16, 16, 3)]
    rejects = [reject for _, some, _ in (one, two, three) for reject in some]
    assert [(reject.id, reject.stage) for reject in rejects] == [
        (str(bad[1]), "header"),
        (str(bad[3]), "decode"),
        (str(bad[6]), "read"),
    ]
    assert [reject.reason for reject in rejects][0::2] == ["not an image: an HTML page", "no such file or directory"]
    assert "truncated" in rejects[1].reason


def test_good_ones_stand_where_bad_ones_left_room(bad: list[Path]) -> None:
    ((all_, _, _),) = loader(bad, batch_size=10)
    for i, path in enumerate(all_.ids):
        ((alone, _, _),) = loader([Path(path)])
        assert np.array_equal(alone.images[0], all_.images[i])


def test_no_photos() -> None:
    assert len(loader([])) == 0 and list(loader([])) == []


def test_leaving_early_leaves_no_thread(bad: list[Path]) -> None:
    before = threads()
    for _ in loader(bad * 10, batch_size=2, workers=3):
        break
    assert not threads_left(before)


@pytest.mark.parametrize("options", [{"workers": 0}, {"fit": "squeeze"}, {"batch_size": 0}])
def test_options_that_can_not_be(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        loader([], **options)
