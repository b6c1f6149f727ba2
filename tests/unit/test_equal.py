"""Equal images are counted, and named where they have two classes or lie in two splits."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from command import headrace
from drawn import files, jpeg, saved, textured
from headrace.checking.statistics import equal_images as of_dataset
from headrace.format import catalog
from headrace.format.equal import EqualImages, Image, Parts, Sets, equal_images
from packed import pack, shades

ROWS = st.lists(
    st.tuples(
        st.sampled_from([None, *"abcd"]), st.sampled_from([None, "cat", "dog"]), st.sampled_from(["train", "val"])
    )
)


def sha(name: str | None) -> str | None:
    """Of `c` and `d` the first 15 digits alone are equal."""
    if name is None:
        return None
    of = hashlib.sha256(("c" if name == "d" else name).encode()).hexdigest()
    return of[:40] + "0" * 24 if name == "d" else of


def parts_of(rows: Sequence[tuple[str | None, str | None, str]], size: int = 4) -> Parts:
    frame = pl.DataFrame(
        {
            "id": [f"r{i}" for i in range(len(rows))],
            "label_name": [row[1] for row in rows],
            "split": [row[2] for row in rows],
            "sha256": [sha(row[0]) for row in rows],
        },
        schema=dict.fromkeys(("id", "label_name", "split", "sha256"), pl.String),
    ).with_columns(label_names=pl.lit(None, pl.List(pl.String)), look=pl.lit(None, pl.Binary))

    def parts(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        for first in range(0, len(frame), size):
            yield frame[first : first + size].select(columns)

    return parts


@given(ROWS, st.integers(1, 9), st.integers(0, 20))
def test_counts(rows: list[tuple[str | None, str | None, str]], size: int, taken: int) -> None:
    some = np.arange(len(rows))[:taken]
    for chosen in (None, some):
        sets = defaultdict(list)
        for i, (name, *rest) in enumerate(rows if chosen is None else rows[:taken]):
            if name is not None:
                sets[name].append((f"r{i}", *rest))
        wanted = [found for found in sets.values() if len(found) > 1]
        found = equal_images(parts_of(rows, size), chosen)
        assert (found.sets, found.images) == (len(wanted), sum(map(len, wanted)))
        assert found.labels.sets == sum(len({row[1] for row in one} - {None}) > 1 for one in wanted)
        assert found.splits.sets == sum(len({row[2] for row in one}) > 1 for one in wanted)
        for image in (image for one in (*found.labels.first, *found.splits.first) for image in one):
            assert (image.id, image.label, image.split) in [row for one in wanted for row in one]
        assert all(len({image.label for image in one}) > 1 for one in found.labels.first)
        assert all(len({image.split for image in one}) > 1 for one in found.splits.first)


def test_the_first_of_them_are_named() -> None:
    rows = [("a", "cat", "train")] * 5 + [("a", "dog", "val"), ("b", None, "val"), ("b", "cat", "val")]
    cat, dog = Image("r0", "cat", "train"), Image("r5", "dog", "val")
    sets = Sets(1, ((cat, dog, Image("r1", "cat", "train")),))
    assert equal_images(parts_of(rows)) == EqualImages(images=8, sets=2, labels=sets, splits=sets)


def test_images_of_several_classes_are_the_same_where_all_of_them_are(tmp_path: Path) -> None:
    """Whatever their order; one without any says something else, one of which nothing is said says nothing."""
    said = [("a", "b"), ("b", "a"), ("b",)], [(), None, ()], [("b",), ()]
    records = [
        hr.Record(id=f"{shade}{k}.png", encoded=saved(np.full((9, 9, 3), shade, np.uint8), "PNG"), labels=labels)
        for shade, some in enumerate(said)
        for k, labels in enumerate(some)
    ]
    found = hr.pack(records, tmp_path / "ds", progress=False).equal
    assert (found.sets, found.labels.sets) == (3, 2)
    assert {image.label for some in found.labels.first for image in some} == {"a; b", "b", "none of the classes"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    same, other = jpeg(seed=1), jpeg(seed=2)
    names = {"train/a/x.jpg": same, "train/a/dup.jpg": same, "train/b/mislabel.jpg": same, "train/b/y.jpg": other}
    return files(tmp_path / "in", names | {"val/b/leak.jpg": other, "val/b/z.jpg": jpeg(seed=3)})


def test_pack_and_info_say_them(root: Path, tmp_path: Path) -> None:
    lines = [
        "  equal images: 5, in 2 sets of the same bytes",
        "    1 of these sets with several classes: ",
        "    1 of these sets in several splits: ",
    ]
    ended = headrace("pack", root, tmp_path / "ds", "--size", 16)
    assert ended.code == 0 and [line for line in lines if line not in ended.out] == []
    said = [line for line in ended.out.splitlines() if "set" in line]
    assert said == [line for line in headrace("info", tmp_path / "ds").out.splitlines() if "set" in line]
    for image, line in (("train/b/mislabel.jpg (b, train)", said[1]), ("val/b/leak.jpg (b, val)", said[2])):
        assert image in line
    found = json.loads(headrace("info", tmp_path / "ds", "--json").out)["equal_images"]
    told = json.loads(headrace("pack", root, tmp_path / "ds", "--size", 16, "--overwrite", "--json").out)
    assert found == told["equal_images"]
    assert (found["images"], found["sets"], found["labels"]["sets"], found["splits"]["sets"]) == (5, 2, 1, 1)
    assert {"id": "val/b/leak.jpg", "label": "b", "split": "val"} in found["splits"]["first"][0]


def test_of_a_view(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "PART", 2)
    ds = pack(hr.sources.folders(root), tmp_path / "ds")  # type: ignore[arg-type]
    assert of_dataset(ds).images == 5
    assert of_dataset(ds.split("train")) == of_dataset(ds.where("split = 'train'"))
    assert (of_dataset(ds.split("train")).images, of_dataset(ds.split("val")).images) == (3, 0)


def test_where_nothing_is_said_of_bytes_nothing_is_equal(tmp_path: Path) -> None:
    ds = pack([*shades(4), hr.Record(id="again", encoded=shades(1)[0].encoded)], tmp_path / "ds")
    assert of_dataset(ds).images == 2
    assert "equal images: 2, in 1 set of the same bytes" in headrace("info", ds.path).out
    hr.adopt(ds.path, tmp_path / "adopted")
    assert of_dataset(hr.Dataset(tmp_path / "adopted")) == EqualImages()
    assert "equal" not in headrace("info", tmp_path / "adopted").out
    assert equal_images(parts_of([])) == EqualImages()


def near_ones(tmp_path: Path) -> hr.Dataset:
    """Two copies of photo 1 in two splits, two of photo 2 in one, an equal pair and blank pages in two."""
    blank = [saved(np.full((40, 40 + k, 3), 250, np.uint8), "PNG") for k in range(2)]
    data = {
        "a.jpg": (saved(textured(1), "JPEG", quality=95), "train"),
        "a, small.jpg": (saved(textured(1)[::2, ::2], "JPEG", quality=80), "val"),
        "b.jpg": (saved(textured(2), "JPEG", quality=95), "train"),
        "b, small.jpg": (saved(textured(2), "JPEG", quality=60), "train"),
        "c.jpg": (saved(textured(3), "JPEG"), "train"),
        "c again.jpg": (saved(textured(3), "JPEG"), "val"),
        "blank.png": (blank[0], "train"),
        "blank too.png": (blank[1], "val"),
    }
    records = [hr.Record(id=id_, encoded=bytes_, split=split) for id_, (bytes_, split) in data.items()]
    return pack(records, tmp_path / "ds")


def test_near_ones_in_two_splits_are_told_by_their_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = near_ones(tmp_path)
    found = of_dataset(ds)
    assert found.near is not None and found.splits.sets == 1
    assert found.near.sets == 1
    assert {(image.id, image.split) for image in found.near.first[0]} == {("a.jpg", "train"), ("a, small.jpg", "val")}
    assert of_dataset(ds.split("train")).near == Sets()
    said = headrace("info", ds.path).out
    assert "near-duplicates in several splits: 1 set, as it seems: " in said and "a, small.jpg (val)" in said
    monkeypatch.setattr("headrace.format.equal.MOST_NEAR", 3)
    assert of_dataset(ds).near is None
    assert of_dataset(ds.split("train")).near == Sets()  # in one split there is nothing to tell
    assert json.loads(json.dumps(found.as_json()))["near"]["sets"] == 1


def test_too_many_to_compare_are_said_to_be() -> None:
    from headrace.cli.text import equal_lines

    assert [*equal_lines(EqualImages(near=None))] == [
        "near-duplicates: not looked for among so many images; headrace duplicates finds them"
    ]
