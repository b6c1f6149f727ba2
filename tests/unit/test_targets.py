"""Targets: labels into arrays and back, padding, and what a dataset lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace.errors import DataError, UsageError
from headrace.load.targets import Boxes, Class, Labels, default_target
from packed import pack, photos, shades


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(rows, np.float32).reshape(-1, 4)


def labels(*found: np.ndarray[tuple[int, int], np.dtype[np.float32]], kinds: list[list[int]]) -> Labels:
    return Labels(
        classes=np.full(len(found), -1),
        size=(10, 10),
        boxes=np.concatenate([boxes(), *found]),
        box_labels=np.array([kind for row in kinds for kind in row], np.int64),
        box_image=np.repeat(np.arange(len(found)), [len(some) for some in found]),
    )


def test_class() -> None:
    target = Class()
    found = target.encode(Labels(classes=np.array([2, 0, 1]), size=(1, 1)))
    assert found.dtype == np.int64 and found.tolist() == [2, 0, 1] and not target.wants_boxes
    assert target.decode(np.eye(3)[found]).tolist() == [2, 0, 1]


def test_one_hot() -> None:
    target = Class(one_hot=True)
    found = target.encode(Labels(classes=np.array([2, 0, -1]), size=(1, 1), class_count=3))
    assert found.dtype == np.float32 and found.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert target.decode(found[:2]).tolist() == [2, 0] and target != Class() == Class(one_hot=False)
    with pytest.raises(UsageError, match="one_hot is 3, wanted True or False"):
        Class(one_hot=3)  # type: ignore[arg-type]


def test_boxes_are_padded() -> None:
    target = Boxes(most=3)
    found = target.encode(labels(boxes((1, 2, 3, 4)), boxes(), kinds=[[5], []]))
    assert {name: (value.dtype.name, value.shape) for name, value in found.items()} == {
        "boxes": ("float32", (2, 3, 4)),
        "labels": ("int64", (2, 3)),
        "mask": ("bool", (2, 3)),
    }
    assert found["boxes"].tolist() == [[[1, 2, 3, 4], [0] * 4, [0] * 4], [[0] * 4] * 3]
    assert found["labels"].tolist() == [[5, -1, -1], [-1] * 3]
    assert found["mask"].tolist() == [[True, False, False], [False] * 3]


def test_the_largest_boxes_are_kept_in_their_order() -> None:
    some = boxes((0, 0, 2, 2), (0, 0, 9, 9), (0, 0, 1, 1), (0, 0, 3, 3), (5, 5, 7, 7))
    found = Boxes(most=3).encode(labels(some, kinds=[[0, 1, 2, 3, 4]]))
    assert found["labels"].tolist() == [[0, 1, 3]]  # of two equals the first
    assert found["boxes"][0].tolist() == some[[0, 1, 3]].tolist() and found["mask"].all()


def test_boxes_round_trip() -> None:
    given = [boxes((1, 2, 3, 4), (0, 0, 9, 9)), boxes(), boxes((4, 4, 5, 6))]
    kinds = [[1, 0], [], [-1]]
    decoded = Boxes().decode(Boxes().encode(labels(*given, kinds=kinds)))
    assert [found.tolist() for found, _ in decoded] == [some.tolist() for some in given]
    assert [kind.tolist() for _, kind in decoded] == kinds


def test_no_images() -> None:
    found = Boxes(most=7).encode(labels(kinds=[]))
    assert [found[name].shape for name in ("boxes", "labels", "mask")] == [(0, 7, 4), (0, 7), (0, 7)]
    assert Class().encode(Labels(classes=np.zeros(0, np.int64), size=(1, 1))).shape == (0,)


@pytest.mark.parametrize("most", [0, -1])
def test_most(most: int) -> None:
    with pytest.raises(UsageError, match=f"most is {most}, wanted at least 1"):
        Boxes(most=most)


def test_records_without_a_label_are_refused_with_the_remedy(tmp_path: Path) -> None:
    ds = pack(photos(20, unlabelled=(2, 6)), tmp_path / "ds")
    with pytest.raises(DataError, match=r"4 of 20 records have no label; leave them out with where\('label IS NOT"):
        ds.loader(size=8)
    remedied = ds.where("label IS NOT NULL").loader(size=8, batch_size=16)
    assert remedied[0].targets.min() >= 0
    assert ds.where("label IS NULL").loader(size=8)[0].targets is None


def test_a_dataset_without_boxes_is_refused(tmp_path: Path) -> None:
    ds = pack(shades(3), tmp_path / "ds")
    with pytest.raises(UsageError, match="the dataset has no boxes; leave target out"):
        ds.loader(target=Boxes())


def test_the_target_a_dataset_brings(tmp_path: Path) -> None:
    assert default_target(pack(shades(3), tmp_path / "classes").selection.facts(objects=False)) == Class()
    assert default_target(pack(photos(6, boxes=True), tmp_path / "boxes").selection.facts(objects=False)) == Boxes()
    assert default_target(pack(shades(3, classes=()), tmp_path / "none").selection.facts(objects=False)) is None


def test_another_target_than_its_own(tmp_path: Path) -> None:
    ds = pack(photos(6, boxes=True), tmp_path / "ds")
    batch = ds.loader(size=8, shuffle=False, target=Class())[0]
    assert batch.targets.tolist() == ds.labels.tolist()
    few = ds.loader(size=8, shuffle=False, target=Boxes(most=1))[0].targets
    assert few["mask"].shape == (6, 1)


def test_a_target_of_ones_own(tmp_path: Path) -> None:
    class Half(hr.Target):
        wants_boxes = False
        wants_keypoints = False

        def check(self, facts: object) -> None:
            pass

        def encode(self, labels: Labels) -> object:
            return {"half": labels.classes / 2}

    ds = pack(shades(4), tmp_path / "ds")
    batch = ds.loader(shuffle=False, target=Half())[0]
    assert batch.targets["half"].tolist() == (ds.labels / 2).tolist()
