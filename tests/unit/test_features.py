"""ds.features: chosen features of every record of a view, as its tf.train.Example holds them, each read checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace.errors import DamageError, UsageError
from packed import flip, pack, photos, shard_of


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    out = tmp_path_factory.mktemp("features") / "ds"
    return pack(photos(20, boxes=True, unlabelled=(6,)), out, shards=3, splits={"train": 0.7, "val": 0.3})


NAMES = ("image/id", "image/class/label", "image/object/bbox/xmin", "image/object/class/text")


def test_one_value_or_an_array(ds: hr.Dataset) -> None:
    found = list(ds.features(*NAMES, "image/height", "image/encoded", "image/object/bbox/label"))
    assert len(found) == len(ds)
    for i, values in enumerate(found):
        record = ds[i]
        assert values["image/id"] == record.id.encode() and values["image/encoded"] == record.encoded
        assert type(values["image/height"]) is int and values["image/height"] == record.height
        assert values["image/class/label"] == (-1 if record.label is None else record.label)
        x0, text, label = (values[f"image/object/{key}"] for key in ("bbox/xmin", "class/text", "bbox/label"))
        assert isinstance(x0, np.ndarray) and isinstance(text, np.ndarray) and isinstance(label, np.ndarray)
        assert (x0.dtype, text.dtype, label.dtype) == (np.float32, object, np.int64)
        assert record.boxes is not None and np.allclose(x0 * record.width, record.boxes[:, 0], atol=1e-4)
        assert tuple(one.decode() for one in text) == record.box_labels
        assert len(label) == len(record.boxes)
    assert {len(values["image/object/bbox/label"]) for values in found} == {0, 1, 2, 3}  # type: ignore[arg-type]


def test_in_the_order_of_the_view(ds: hr.Dataset) -> None:
    for view in (ds.split("val"), ds.where("label_name = 'bee'"), ds.divide({"a": 0.5}, seed=3)[0]):
        assert [values["image/id"].decode() for values in view.features("image/id")] == view.catalog["id"].to_list()  # type: ignore[union-attr]
        assert 0 < len(view) < len(ds)
    assert list(ds.where("width > 9999").features("image/id")) == []


def test_only_what_is_named(ds: hr.Dataset) -> None:
    assert {tuple(values) for values in ds.features(*NAMES)} == {NAMES}


def test_unknown_names_are_told_at_once(ds: hr.Dataset) -> None:
    for names in [("image/idd",), ("image/id", "image/idd")]:
        with pytest.raises(
            UsageError, match=r"no feature 'image/idd'; the records have image/channels, .*, objects/label"
        ):
            ds.features(*names)
    with pytest.raises(UsageError, match=r"wants names; the records of .* have image/channels, "):
        ds.features()


def test_read_when_its_turn_comes(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    payload = ds.store.payload
    monkeypatch.setattr(ds.store, "payload", lambda row: read.append(row) or payload(row))
    found = ds.features("image/id")
    assert isinstance(found, Iterator)
    next(found), next(found)
    assert read == [0, 0, 1]  # the first for its names


def test_every_read_is_checked(tmp_path: Path) -> None:
    ds = pack(photos(6), tmp_path / "ds")
    path, number, offset, _ = shard_of(ds, 2)
    flip(path, offset + 40)
    found = hr.Dataset(ds.path).features("image/id")
    assert next(found) and next(found)
    with pytest.raises(DamageError, match=rf"{path.name}, record {number}, byte {offset + 12}: payload CRC"):
        next(found)
