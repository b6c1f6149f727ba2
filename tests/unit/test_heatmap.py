"""Targets Heatmap and Points: what stands in a map, whose points they are, what is lost, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import jpeg
from faces import NAMES, Faces
from headrace.errors import DataError, UsageError
from headrace.load.targets import Labels
from packed import pack

Point = tuple[float, float, float]


def labels(*images: list[tuple[float, list[Point]]], size: tuple[int, int] = (32, 48)) -> Labels:
    """The objects of each image: the side of the box and the points."""
    objects = [thing for things in images for thing in things]
    return Labels(
        classes=np.full(len(images), -1),
        size=size,
        boxes=np.array([[0, 0, side, side] for side, _ in objects], np.float32).reshape(-1, 4),
        box_labels=np.zeros(len(objects), np.int64),
        box_image=np.repeat(np.arange(len(images)), [len(things) for things in images]),
        keypoints=np.array([points for _, points in objects], np.float32).reshape(len(objects), -1, 3),
    )


NOTHING: Point = (0, 0, 0)


def test_what_stands_in_a_map() -> None:
    maps = hr.Heatmap(stride=4, sigma=2.0).encode(labels([(9, [(14, 22, 2), NOTHING, (0, 32, 1)])]))
    assert (maps.shape, maps.dtype) == ((1, 8, 12, 3), np.float32)
    # 14 pixels are the middle of cell 3 (12 to 16), 22 of cell 5
    assert maps[0, 5, 3, 0] == 1
    assert maps[0, 5, 5, 0] == pytest.approx(np.exp(-(2**2) / (2 * 2.0**2)))
    assert maps[0, 4, 2, 0] == pytest.approx(np.exp(-2 / 8))
    assert not maps[..., 1].any()
    # a hidden point counts; in the corner it is half a cell from the corner cell's middle, both ways
    assert maps[0, 7, 0, 2] == maps[..., 2].max() == pytest.approx(np.exp(-0.5 / 8))


def test_there_and_back_to_a_hundredth_of_a_pixel() -> None:
    wanted = [(14.3, 22.9, 2), NOTHING, (48, 0, 1), (0.1, 31.9, 2)]
    found = hr.Heatmap().decode(hr.Heatmap().encode(labels([(9, wanted)])))[0]
    assert found[1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(found[[0, 2, 3], :2], np.array(wanted)[[0, 2, 3], :2], atol=0.01)
    assert (found[[0, 2, 3], 2] > 0.93).all()


def test_a_peak_is_found_between_cells_that_are_no_gaussian() -> None:
    maps = np.zeros((1, 5, 5, 1), np.float32)
    maps[0, 2, 1:4, 0] = 0.5, 0.8, 0.5
    assert hr.Heatmap(4).decode(maps)[0, 0] == pytest.approx([10, 10, 0.8])
    maps[0, 2, 3, 0] = 0.8  # as high to the right: half a cell between the two
    assert hr.Heatmap(4).decode(maps)[0, 0] == pytest.approx([12, 10, 0.8])
    maps[0, 2, 3, 0] = 1.7
    assert hr.Heatmap(4).decode(maps)[0, 0, 2] == 1


def test_the_points_are_those_of_the_largest_object_that_has_any() -> None:
    small, large, bare = (5, [(10, 10, 2), (20, 20, 2)]), (9, [(30, 30, 2), NOTHING]), (20, [NOTHING, NOTHING])
    given = labels([small, large, bare], [], [bare], [small, small, (5, [(1, 1, 2), (2, 2, 2)])])
    points = hr.Points().decode(hr.Points().encode(given), size=given.size)
    assert np.allclose(points, [[(30, 30, 1), NOTHING], [NOTHING] * 2, [NOTHING] * 2, [(10, 10, 1), (20, 20, 1)]])
    maps = hr.Heatmap().encode(given)
    assert maps.any(axis=(1, 2)).tolist() == [[True, False], [False] * 2, [False] * 2, [True, True]]
    assert hr.Heatmap().lost(given) == hr.Points().lost(given) == 1 + 2  # one without a point has nothing to lose


def test_nobody_there() -> None:
    none = Labels(classes=np.full(2, -1), size=(12, 12), keypoints=np.zeros((0, 3, 3), np.float32))
    assert hr.Heatmap().encode(none).shape == (2, 3, 3, 3) and not hr.Heatmap().encode(none).any()
    assert hr.Points().encode(none).tolist() == np.zeros((2, 3, 3)).tolist()
    assert hr.Heatmap().lost(none) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [({"stride": 0}, "stride is 0, wanted at least 1"), ({"sigma": 0.1}, "sigma is 0.1"), ({"sigma": 1e9}, "sigma is")],
)
def test_options_check_themselves(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        hr.Heatmap(**options)


def test_shapes_that_maps_do_not_fit() -> None:
    for size in ((30, 48), (32, 46), (8, 48)):
        with pytest.raises(UsageError, match="heatmaps want multiples of 4 pixels, 12 at least"):
            hr.Heatmap().encode(labels([(9, [NOTHING])], size=size))
    for shape in ((8, 8, 3), (1, 2, 8, 3)):
        with pytest.raises(UsageError, match=r"wanted \[b, rows, columns, k\], 3 cells or more"):
            hr.Heatmap().decode(np.zeros(shape, np.float32))
    with pytest.raises(UsageError, match=r"wanted \[b, k, 3\]"):
        hr.Points().decode(np.zeros((2, 3, 2), np.float32), size=(8, 8))


# --- through the loader


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    folder = tmp_path_factory.mktemp("faces")
    return pack(Faces(folder / "photos", 20, size=(90, 120)), folder / "ds")


def test_both_targets_say_the_same_of_a_batch(ds: hr.Dataset) -> None:
    augment = (hr.HorizontalFlip(), hr.RandomResizedCrop())
    maps, shares = (
        ds.loader(batch_size=8, size=(64, 96), target=target, augment=augment) for target in (hr.Heatmap(), hr.Points())
    )
    for i in range(3):
        assert maps[i].targets.shape == (len(maps[i].ids), 16, 24, 5)
        found, wanted = (
            hr.Heatmap().decode(maps[i].targets),
            hr.Points().decode(shares[i].targets, size=(64, 96)),
        )
        assert np.array_equal(found[..., 2] > 0, wanted[..., 2] > 0) and 0 < (wanted[..., 2] > 0).mean() < 1
        np.testing.assert_allclose(found[..., :2], wanted[..., :2], atol=0.02)


def test_left_stays_left_when_a_picture_is_mirrored(ds: hr.Dataset) -> None:
    """The drawn faces hardly turn: what is called left is left in every picture, mirrored or not."""
    points = ds.loader(batch_size=20, size=96, target=hr.Points(), augment=(hr.HorizontalFlip(p=1),))[0].targets
    for left, right in (("left_eye", "right_eye"), ("left_mouth", "right_mouth")):
        pair = points[:, [NAMES.index(left), NAMES.index(right)]]
        there = pair[..., 2].all(axis=1)
        assert there.any() and (pair[there, 0, 0] < pair[there, 1, 0]).all()


def test_what_is_lost_is_told(tmp_path: Path) -> None:
    one, two = Faces(tmp_path / "photos", 2)
    both = hr.Record(
        id="both",
        encoded=one.read(),
        boxes=np.concatenate([one.boxes, two.boxes]),  # type: ignore[list-item]
        box_labels=("face", "face"),
        keypoints=np.concatenate([one.keypoints, two.keypoints]),  # type: ignore[list-item]
    )
    loader = pack([one, both], tmp_path / "ds").loader(size=64, target=hr.Heatmap())
    assert loader.lost() == 1


def test_a_dataset_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    plain = hr.Record(id="plain", encoded=jpeg())
    for target in (hr.Heatmap(), hr.Points()):
        with pytest.raises(UsageError, match="the dataset has no keypoints; leave target out"):
            pack([plain], tmp_path / f"{type(target)}").loader(size=64, target=target)
    some = pack([*Faces(tmp_path / "photos", 3), plain], tmp_path / "some")
    with pytest.raises(DataError, match=r"of 1 of 4 records nothing is said of keypoints; leave them out with"):
        some.loader(size=64, target=hr.Heatmap())
    assert len(some.where("keypoints IS NOT NULL").loader(size=64, target=hr.Heatmap())) == 1


@pytest.mark.frameworks
@pytest.mark.parametrize("target", [hr.Heatmap(), hr.Points()], ids=["maps", "shares"])
def test_every_feed_carries_them(ds: hr.Dataset, target: Any) -> None:
    loader = ds.loader(batch_size=8, size=64, shuffle=False, target=target)
    wanted = loader[0].targets
    pytest.importorskip("torch", reason="torch is not installed")
    images, given = next(iter(loader.to_torch()))
    assert tuple(images.shape) == (8, 3, 64, 64) and np.array_equal(given.numpy(), wanted)
    loader.epoch = 0
    pytest.importorskip("keras", reason="keras is not installed")
    assert np.array_equal(loader.to_keras()[0][1], wanted)
    pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    assert np.array_equal(next(iter(loader.to_tf()))[1].numpy(), wanted)
