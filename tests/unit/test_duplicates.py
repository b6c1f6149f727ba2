"""Images that occur again, equal and near ones: of any dataset, by the command line, among real images."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import headrace as hr
from command import headrace
from drawn import saved, textured
from headrace.checking import duplicates as module
from headrace.checking.duplicates import Duplicates
from headrace.imaging import codec
from packed import flip, pack, shades, shard_of


def record(name: str, data: bytes, label: str | None = None, split: str | None = None) -> hr.Record:
    return hr.Record(id=name, encoded=data, label_name=label, split=split)


def photo(seed: int, quality: int = 95) -> bytes:
    return saved(textured(seed), "JPEG", quality=quality)


def halved(seed: int) -> bytes:
    return saved(cv2.resize(textured(seed), (160, 120), interpolation=cv2.INTER_AREA), "PNG")


def mirrored(seed: int) -> bytes:
    return saved(textured(seed)[:, ::-1], "PNG")


SOURCE = [
    record("a.jpg", photo(1), "cat", "train"),
    record("a again.jpg", photo(1), "cat", "train"),
    record("half a.png", halved(1), "cat", "val"),
    record("b.jpg", photo(2), "cat", "train"),
    record("b, said to be a dog.jpg", photo(2, 60), "dog", "train"),
    record("c.jpg", photo(3), "dog", "val"),
    record("c once more", photo(3), "dog", "val"),
    record("d.jpg", photo(4), "dog", "train"),
    record("d, mirrored.png", mirrored(4), "dog", "val"),
    *(record(f"{seed}.jpg", photo(seed), "cat", "train") for seed in range(10, 40)),
]


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(SOURCE, tmp_path_factory.mktemp("in") / "ds")


def ids(found: Duplicates) -> list[set[str]]:
    return [{image.id for image in group.images} for group in found.groups]


A, B, C, D = (
    {"a.jpg", "a again.jpg", "half a.png"},
    {"b.jpg", "b, said to be a dog.jpg"},
    {"c.jpg", "c once more"},
    {"d.jpg", "d, mirrored.png"},
)


def test_groups_the_gravest_first(ds: hr.Dataset) -> None:
    found = hr.duplicates(ds, progress=False)
    assert ids(found) == [A, B, C] and (found.records, found.images, dict(found.unread)) == (len(SOURCE), 7, {})
    across, contradicting, equal = found.groups
    assert (across.kind, across.splits, across.labels) == ("near", across.splits, ("cat",))
    assert {*across.splits} == {image.split for image in across.images[:2]} == {"train", "val"}
    assert (contradicting.kind, {*contradicting.labels}) == ("near", {"cat", "dog"})
    assert (equal.kind, equal.splits, equal.labels) == ("equal", ("val",), ("dog",))
    assert found.across_splits == (across,) and found.contradicting == (contradicting,)
    told = found.as_json()
    assert (told["across_splits"], told["contradicting"], told["images"]) == (1, 1, 7)
    assert json.loads(json.dumps(told))["groups"][0]["kind"] == "near"


def test_equal_ones_alone_and_mirrored_ones_too(ds: hr.Dataset) -> None:
    assert ids(hr.duplicates(ds, near=False, progress=False)) == [{"a.jpg", "a again.jpg"}, C]
    assert sorted(map(sorted, ids(hr.duplicates(ds, mirrored=True, progress=False)))) == sorted(
        map(sorted, [A, B, C, D])
    )
    with pytest.raises(hr.UsageError, match="near=False"):
        hr.duplicates(ds, near=False, mirrored=True)


def test_of_a_view_its_records_alone_count(ds: hr.Dataset) -> None:
    assert ids(hr.duplicates(ds.split("val"), progress=False)) == [C]
    assert ids(hr.duplicates(ds[["a.jpg" in id_ for id_ in ds.catalog["id"]]], progress=False)) == []
    twice = ds[[0, 0, 0]]
    assert hr.duplicates(twice, progress=False) == Duplicates(records=1, groups=(), unread={})
    assert hr.duplicates(ds[:0], progress=False).groups == ()


@pytest.mark.parametrize("near", [True, False])
def test_datasets_whose_catalog_says_nothing_are_looked_at(ds: hr.Dataset, tmp_path: Path, near: bool) -> None:
    hr.adopt(ds.path, tmp_path / "adopted")
    adopted = hr.Dataset(tmp_path / "adopted")
    assert adopted.catalog["look"].null_count() == len(ds)
    wanted = [A, B, C] if near else [{"a.jpg", "a again.jpg"}, C]
    assert sorted(map(sorted, ids(hr.duplicates(adopted, near=near, progress=False)))) == sorted(map(sorted, wanted))


def test_arrays_are_looked_at_too() -> None:
    x = np.stack([textured(1), textured(2), textured(1), np.clip(textured(1) * 0.9, 0, 255).astype(np.uint8)])
    found = hr.duplicates(hr.ArrayDataset(x, [0, 1, 1, 1]), progress=False)
    assert ids(found) == [{"0", "2", "3"}] and found.groups[0].labels == ("0", "1")
    grey = hr.ArrayDataset(x[..., :1], [0, 1, 1, 1])
    assert ids(hr.duplicates(grey, progress=False)) == [{"0", "2", "3"}]
    with pytest.raises(hr.UsageError, match="no pixels to compare"):
        hr.duplicates(hr.ArrayDataset(x.astype(np.float32), dtype="keep"))


def test_plain_images_are_one_group_for_each_shade(tmp_path: Path) -> None:
    """All have the same look. Shades of neighbouring levels are alike, as nobody sees the difference."""
    blank = [record(f"{level}-{k}", saved(np.full((50 + k, 60, 3), level, np.uint8), "PNG"))
             for level in (0, 100, 255) for k in range(20)]  # fmt: skip
    found = hr.duplicates(pack(blank, tmp_path / "ds"), progress=False)
    assert sorted(map(len, ids(found))) == [20, 20, 20]
    assert all(len({id_.split("-")[0] for id_ in group}) == 1 for group in ids(found))


def test_a_damaged_image_is_told_and_the_others_are_found(tmp_path: Path) -> None:
    ds = pack([record(f"{k}.png", saved(textured(k % 3), "PNG", compress_level=k)) for k in range(6)], tmp_path / "in")
    hr.adopt(ds.path, tmp_path / "adopted")
    path, _, offset, length = shard_of(ds, list(ds.catalog["id"]).index("4.png"))
    flip(path, offset + length // 2)
    found = hr.duplicates(hr.Dataset(tmp_path / "adopted"), progress=False)
    assert [*found.unread] == ["4.png"] and "CRC" in found.unread["4.png"]
    assert sorted(map(sorted, ids(found))) == [["0.png", "3.png"], ["2.png", "5.png"]]
    # Of a packed dataset the looks are known, and only those that may be alike are read.
    found = hr.duplicates(ds, progress=False)
    assert sorted(map(sorted, ids(found))) == [["0.png", "3.png"], ["2.png", "5.png"]]


def test_several_classes_contradict_by_all_of_them(tmp_path: Path) -> None:
    records = [hr.Record(id=f"{k}", encoded=photo(1, 80 + k), labels=labels)
               for k, labels in enumerate([("a", "b"), ("b", "a"), (), ("b",)])]  # fmt: skip
    (group,) = hr.duplicates(pack(records, tmp_path / "ds"), progress=False).groups
    assert {*group.labels} == {"a; b", "none of the classes", "b"}


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_verb(ds: hr.Dataset, tmp_path: Path) -> None:
    ended = headrace("duplicates", ds.path, "--out", tmp_path / "deep/sheet.png")
    assert ended.code == 0
    assert f"{ds.path}: 7 of {len(SOURCE)} images in 3 groups of duplicates" in ended.out
    assert "  1 of these groups in several splits" in ended.out
    assert (
        "b, said to be a dog.jpg (dog, train)" in ended.out and f"picture: {tmp_path / 'deep/sheet.png'}" in ended.out
    )
    sheet = codec.read_header((tmp_path / "deep/sheet.png").read_bytes())
    assert sheet.width > 300 and sheet.height > 3 * 160
    told = json.loads(headrace("duplicates", f"{ds.path}:val", "--equal", "--json").out)
    assert [[image["id"] for image in group["images"]] for group in told["groups"]] in (
        [[*sorted(C)]],
        [[*sorted(C)][::-1]],
    )
    assert told["picture"] is None
    assert headrace("duplicates", ds.path, "--out", tmp_path / "sheet.txt").code == 2
    assert headrace("duplicates", tmp_path / "none").code == 2


def test_the_verb_where_there_is_none(tmp_path: Path) -> None:
    ds = pack([record("a", photo(1)), record("b", photo(2))], tmp_path / "ds")
    ended = headrace("duplicates", ds.path, "--out", tmp_path / "sheet.png")
    assert (ended.code, ended.out.strip()) == (0, f"{ds.path}: 0 of 2 images in 0 groups of duplicates")
    assert not (tmp_path / "sheet.png").exists()


def test_hostile_ids_do_no_harm(tmp_path: Path) -> None:
    names = ["\x1b[31mred", "<img src=x onerror=alert(1)>", "a\nb", "../../etc/passwd"]
    ds = pack([record(name, photo(1, 80 + k), ascii(name)) for k, name in enumerate(names)], tmp_path / "ds")
    ended = headrace("duplicates", ds.path, "--out", tmp_path / "sheet.png")
    assert ended.code == 0 and "\x1b" not in ended.out and "\\x1b[31mred" in ended.out
    told = json.loads(headrace("duplicates", ds.path, "--json").out)
    assert {image["id"] for image in told["groups"][0]["images"]} == {*names}


def test_the_first_of_many_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import headrace.cli.duplicates as verb

    monkeypatch.setattr(verb, "_SHOWN", 1)
    monkeypatch.setattr(verb, "_OF_GROUP", 2)
    ds = pack([record(f"{k}", photo(k // 3, 80 + k), None) for k in range(6)], tmp_path / "ds")
    ended = headrace("duplicates", ds.path)
    assert ", and 1 more" in ended.out and "… 1 more; --json has all" in ended.out


# --- real images -----------------------------------------------------------------------------------------------------


def test_real_duplicates_against_brute_force(real_data: Path, tmp_path: Path) -> None:
    """Every pair of real MRI slices whose pixels correlate above 0.98 is found, and none that does below 0.9."""
    files = hr.sources.folders(real_data / "mri")
    ds = pack(files, tmp_path / "ds", splits={"train": 0.8, "val": 0.2})  # type: ignore[arg-type]
    greys = []
    for one in ds:
        grey = cv2.cvtColor(one.image, cv2.COLOR_RGB2GRAY) if one.channels == 3 else one.image[..., 0]
        greys.append(cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA).ravel().astype(np.float64))
    judged = np.corrcoef(np.stack(greys))
    names = ds.catalog["id"].to_list()
    true = {(i, j) for i, j in np.argwhere(np.triu(judged, 1) > 0.98).tolist()}
    groups = [[names.index(image.id) for image in group.images] for group in hr.duplicates(ds, progress=False).groups]
    of = {i: number for number, group in enumerate(groups) for i in group}
    assert len(true) > 40
    assert [(names[i], names[j]) for i, j in true if of.get(i, -1) != of.get(j, -2)] == []
    for group in groups:  # each is a copy of one other at least
        for i in group:
            assert max(judged[i, j] for j in group if j != i) > 0.9, names[i]


def test_altered_real_photos_are_found(real_data: Path, tmp_path: Path) -> None:
    """What the first column says is altered; and how many of the copies are found at least."""
    files = sorted((real_data / "catsdogs/train").glob("*.jpg"))[:150]
    photos = [codec.decode(data := path.read_bytes(), header=codec.read_header(data)) for path in files]

    def cut(pixels: np.ndarray, share: float) -> np.ndarray:
        h, w = pixels.shape[:2]
        return pixels[
            round(h * share / 2) : round(h * (1 - share / 2)), round(w * share / 2) : round(w * (1 - share / 2))
        ]

    altered = {
        "q50": ([saved(pixels, "JPEG", quality=50) for pixels in photos], 1.0),
        "half": ([saved(cv2.resize(pixels, None, fx=0.5, fy=0.5), "JPEG", quality=90) for pixels in photos], 0.99),
        "grey": ([saved(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), "PNG") for pixels in photos], 1.0),
        "cut": ([saved(cut(pixels, 0.02), "JPEG", quality=90) for pixels in photos], 0.85),
    }
    for name, (copies, least) in altered.items():
        records = [record(f"{k}", path.read_bytes()) for k, path in enumerate(files)]
        records += [record(f"{name} {k}", data) for k, data in enumerate(copies)]
        found = ids(hr.duplicates(pack(records, tmp_path / name), progress=False))
        right = sum({f"{k}", f"{name} {k}"} in found for k in range(len(files)))
        assert right >= least * len(files), f"{name}: {right} of {len(files)}"
        wrong = [group for group in found if len({id_.split()[-1] for id_ in group}) > 1]
        assert len(wrong) <= 1, wrong


def test_lots_are_any_number_of_images(ds: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOT", 3)
    hr.adopt(ds.path, tmp_path / "adopted")
    found = hr.duplicates(hr.Dataset(tmp_path / "adopted"), workers=3, progress=False)
    assert sorted(map(sorted, ids(found))) == sorted(map(sorted, [A, B, C]))
    with pytest.raises(hr.UsageError, match="workers is 0"):
        hr.duplicates(ds, workers=0)
    assert hr.duplicates(pack(shades(3, side=9), tmp_path / "few"), workers=1, progress=False).images == 3
