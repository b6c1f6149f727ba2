"""Every byte against what was promised: no flipped bit, cut or swapped file passes, each is named with its place."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import headrace as hr
from amount import bits
from drawn import TINY_PNG
from forged import forge_catalog, forge_ids, forge_index, read_index, write_index
from headrace.checking.damage import Damage
from headrace.checking.verify import Verdict, verify
from headrace.errors import DamageError, HeadraceError, NotThereError, UsageError
from headrace.format import catalog, example, index, manifest, tfrecord
from headrace.place.open import at
from packed import flip, pack, photos, rewrite_manifest, shades, shard_of

REJECT = hr.Reject(id="bad", origin="bad.jpg", stage="decode", reason="truncated JPEG")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve records and a Reject in two splits of two shards each."""
    records = [*photos(12, grey=(3,), png=(4, 5), boxes=True, unlabelled=(6,)), REJECT]
    return pack(records, tmp_path_factory.mktemp("sound") / "ds", shards=2, splits={"train": 0.7, "val": 0.3}).path


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(sound, tmp_path / "ds")


def faults(folder: Path, **options: Any) -> list[tuple[str, int | None, int | None, str]]:
    verdict = verify(at(folder), **options)
    return [(d.shard, d.record, d.offset, d.reason) for d in verdict.damaged]


# --- sound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_sound_dataset(sound: Path, workers: int) -> None:
    assert hr.Dataset(sound).verify(workers=workers) == Verdict(records=12, damaged=())
    assert hr.Dataset(sound).verify().ok


@pytest.mark.filterwarnings("error")
def test_a_value_that_the_records_cannot_hold(tmp_path: Path) -> None:
    """The catalog has 64 bits of it; the record says infinity, and nobody is warned of that."""
    hr.pack([hr.Record(id="a.png", encoded=TINY_PNG, value=1e300)], tmp_path / "ds", progress=False)
    assert faults(tmp_path / "ds") == []


def test_a_view_verifies_the_whole(sound: Path) -> None:
    assert hr.Dataset(sound).split("val").verify().records == 12


def test_progress_is_told_of_every_record(tmp_path: Path) -> None:
    ds = pack(shades(100, side=2), tmp_path / "ds", shards=1)
    told: list[int] = []
    assert verify(at(ds.path), workers=2, progress=told.append).ok
    assert sum(told) == 100 and len(told) > 2  # one shard, yet several tasks


def test_many_faults_come_in_the_order_of_the_records(tmp_path: Path) -> None:
    ds = pack(shades(100, side=2), tmp_path / "ds", shards=1)
    rows = ds.catalog.rows(named=True)
    for number in range(0, 100, 3):
        flip(ds.path / rows[number]["shard"], rows[number]["image_offset"], 3)
    damaged = ds.verify(workers=3).damaged
    assert [d.record for d in damaged] == list(range(0, 100, 3))
    assert [d.offset for d in damaged] == [rows[n]["offset"] + tfrecord.HEADER_BYTES for n in range(0, 100, 3)]


@pytest.mark.parametrize("workers", [1, 4])
def test_shard_after_shard_on_any_number_of_workers(folder: Path, workers: int) -> None:
    (folder / "val-00000-of-00002.tfrecord").unlink()
    (folder / "train-00001-of-00002.idx").write_bytes(b"")
    path, number, offset, _ = shard_of(hr.Dataset(folder), 6)
    flip(path, offset + 40)
    found = [(d.shard, d.record) for d in hr.Dataset(folder).verify(workers=workers).damaged]
    assert found == [
        ("train-00001-of-00002.idx", None),
        (path.name, number),
        ("val-00000-of-00002.tfrecord", None),
    ]


# --- bits ------------------------------------------------------------------------------------------------------------


def turn(path: Path, bit: int) -> None:
    """Turns a bit over in place, so that open memory maps see it."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


@pytest.mark.exhaustive
def test_every_bit_of_a_shard(tmp_path: Path) -> None:
    """Each bit of a shard of two records, in one or the other of 64 shards at a time.

    verify names shard, record and byte, and nothing else; `ds[i]` raises with the same address where the bit is the
    payload's, and does not care where it is the header's or the CRC's behind it: the index knows both.
    """
    ds = pack(shades(128, side=1), tmp_path / "ds", shards=64)
    entries = ds.manifest.shards
    assert [entry.records for entry in entries] == [2] * 64
    paths = [ds.path / entry.name for entry in entries]
    offsets = ds.catalog["offset"].to_numpy().reshape(64, 2)
    begins = [dict(enumerate(some)) for some in offsets.tolist()]
    assert min(entry.bytes for entry in entries) > 800
    chosen = list(bits(8 * max(entry.bytes for entry in entries), 64))
    flips = 0
    for some in chosen:
        turned = {s: bit for s, bit in enumerate(some) if bit < 8 * entries[s].bytes}
        for s, bit in turned.items():
            turn(paths[s], bit)
        wanted, raising = [], []
        for s, bit in turned.items():
            record = int(bit // 8 >= offsets[s, 1])
            begin = int(offsets[s, record])
            header = bit // 8 < begin + tfrecord.HEADER_BYTES
            wanted.append((entries[s].name, record, begin if header else begin + tfrecord.HEADER_BYTES))
            footer = bit // 8 >= (begins[s] | {2: entries[s].bytes})[record + 1] - tfrecord.FOOTER_BYTES
            raising += [] if header or footer else [2 * s + record]
        verdict = ds.verify(workers=2)
        assert [(d.shard, d.record, d.offset) for d in verdict.damaged] == wanted
        for i in range(128):
            if i in raising:
                with pytest.raises(DamageError) as caught:
                    ds[i]
                place = f"{paths[i // 2]}, record {i % 2}, byte {offsets[i // 2, i % 2] + tfrecord.HEADER_BYTES}: "
                assert str(caught.value).startswith(f"{place}payload CRC is 0x")
            else:
                assert ds[i].label is not None
        for s, bit in turned.items():
            turn(paths[s], bit)
        flips += len(turned)
    assert flips > 0.9 * sum(map(len, chosen)) > 0.9 * 6400 / 7  # the shards differ by some bytes
    assert ds.verify().ok


def some_bits(path: Path, most: int) -> Iterator[tuple[int, int]]:
    bits = 8 * path.stat().st_size
    for bit in np.unique(np.linspace(0, bits - 1, min(bits, most)).astype(int)).tolist():
        yield bit // 8, bit % 8


FILES = {
    index.FILE: 120,
    catalog.FILE: 120,
    "dataset_info.json": 40,
    "features.json": 40,
    "image.class.label.labels.txt": 96,
    "objects-label.labels.txt": 88,
    "label_map.pbtxt": 40,
    manifest.REJECTS_FILE: 40,
    "train-00000-of-00002.idx": 60,
    "val-00001-of-00002.idx": 60,
}


@pytest.mark.parametrize("name", FILES)
def test_bits_of_the_other_files(folder: Path, name: str) -> None:
    ds = hr.Dataset(folder)
    for byte, bit in some_bits(folder / name, FILES[name]):
        flip(folder / name, byte, bit)
        damaged = ds.verify(workers=1).damaged
        assert [(d.shard, d.record, d.offset) for d in damaged] == [(name, None, None)]
        if name in (index.FILE, catalog.FILE):
            with pytest.raises(DamageError, match=rf"{name}: CRC-32C is"):
                hr.Dataset(folder).catalog.height  # noqa: B018
        flip(folder / name, byte, bit)
    assert ds.verify().ok


def test_no_file_of_a_dataset_goes_unchecked(sound: Path) -> None:
    entries = hr.Dataset(sound).manifest.shards
    shards = {entry.name for entry in entries} | {entry.index_name for entry in entries}
    assert {path.name for path in sound.iterdir()} == {*FILES, *shards, manifest.FILE}


def test_bits_of_the_manifest(folder: Path) -> None:
    ds = hr.Dataset(folder)
    for byte, bit in some_bits(folder / manifest.FILE, 200):
        flip(folder / manifest.FILE, byte, bit)
        with pytest.raises((DamageError, UsageError), match=r"headrace\.json: "):
            ds.verify()
        flip(folder / manifest.FILE, byte, bit)


def test_a_flip_reaches_the_loader_with_its_address(folder: Path) -> None:
    ds = hr.Dataset(folder)
    path, number, offset, _ = shard_of(ds, 6)
    flip(path, ds.catalog["image_offset"][6] + 5, 7)
    loader = ds.loader(batch_size=4, size=16, workers=2)
    with pytest.raises(DamageError) as caught:
        list(loader)
    byte = offset + tfrecord.HEADER_BYTES
    assert number > 0
    assert str(caught.value).startswith(f"{path}, record {number}, byte {byte}: payload CRC is 0x")
    assert str(caught.value).endswith(f"; run 'headrace verify {folder}'")


def test_a_flip_in_a_header_does_not_stop_the_loader(folder: Path) -> None:
    ds = hr.Dataset(folder)
    wanted = [batch.images for batch in ds.loader(size=16, shuffle=False, workers=1)]
    for row in ds.catalog.rows(named=True):
        flip(folder / row["shard"], row["offset"] + 2)
        flip(folder / row["shard"], row["offset"] + 9)
    found = [batch.images for batch in hr.Dataset(folder).loader(size=16, shuffle=False, workers=1)]
    assert np.array_equal(np.concatenate(found), np.concatenate(wanted))
    wanted_faults = [(path.name, number, offset) for path, number, offset, _ in (shard_of(ds, i) for i in range(12))]
    assert [(d.shard, d.record, d.offset) for d in ds.verify().damaged] == wanted_faults


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [0, 1, 11, 12, 400, -1])
def test_truncated(folder: Path, end: int) -> None:
    path = folder / "train-00001-of-00002.tfrecord"
    data = path.read_bytes()
    path.write_bytes(data[:end])
    ds = hr.Dataset(folder)
    rows = ds.where(f"shard = '{path.name}'").catalog.rows(named=True)
    size = len(data[:end])
    cut = [n for n, row in enumerate(rows) if row["offset"] + row["length"] + tfrecord.OVERHEAD_BYTES > size]
    found = faults(folder)
    assert found[0] == (path.name, None, None, f"{size} bytes, the manifest says {len(data)}")
    assert [(name, record) for name, record, _, _ in found[1:]] == [(path.name, n) for n in cut]
    assert [offset for _, _, offset, _ in found[1:]] == [rows[n]["offset"] for n in cut]
    if end == -1:  # a byte of the CRC behind the last payload, which the index has too
        assert len(list(ds.loader(size=16, shuffle=False))) > 0
        return
    with pytest.raises(DamageError, match=rf"{path.name}, record {cut[0]}, byte \d+: the file ends here, the record"):
        list(ds.loader(size=16, shuffle=False))


def test_truncated_between_records(folder: Path) -> None:
    """What TensorFlow reads without a word."""
    path = folder / "train-00001-of-00002.tfrecord"
    row = hr.Dataset(folder).where(f"shard = '{path.name}'").catalog.row(2, named=True)
    path.write_bytes(path.read_bytes()[: row["offset"]])
    assert faults(folder)[1][:3] == (path.name, 2, row["offset"])


def test_extended(folder: Path) -> None:
    path = folder / "train-00001-of-00002.tfrecord"
    data = path.read_bytes()
    path.write_bytes(data + tfrecord.frame(b"one more"))
    assert faults(folder) == [(path.name, None, None, f"{len(data) + 24} bytes, the manifest says {len(data)}")]


@pytest.mark.parametrize("name", ["train-00001-of-00002.tfrecord", "train-00001-of-00002.idx", "features.json"])
def test_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    ((shard, record, offset, reason),) = faults(folder)
    assert (shard, record, offset) == (name, None, None) and "no such file" in reason.lower()


def test_missing_shard_in_the_loader(folder: Path) -> None:
    (folder / "train-00001-of-00002.tfrecord").unlink()
    with pytest.raises(DamageError, match=r"train-00001-of-00002\.tfrecord, record \d, .*no such file"):
        list(hr.Dataset(folder).loader(size=16))


def test_missing_catalog(folder: Path) -> None:
    (folder / catalog.FILE).rename(folder / "elsewhere")
    verdict = verify(at(folder))
    assert [(d.shard, d.record) for d in verdict.damaged] == [(catalog.FILE, None)] and verdict.records == 0


def test_without_its_catalog_a_damaged_shard_is_still_named(folder: Path) -> None:
    flip(folder / catalog.FILE, 100)
    flip(folder / "val-00000-of-00002.tfrecord", 100)
    assert [d.shard for d in verify(at(folder)).damaged] == [catalog.FILE, "val-00000-of-00002.tfrecord"]


def test_swapped_shards(folder: Path) -> None:
    one, two = folder / "train-00000-of-00002.tfrecord", folder / "train-00001-of-00002.tfrecord"
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)
    named = {(name, record) for name, record, _, _ in faults(folder)}
    assert {name for name, _ in named} == {one.name, two.name}
    assert all((path.name, number) in named for path in (one, two) for number in (1, 2))


def test_a_shard_of_the_same_layout(tmp_path: Path) -> None:
    """All sizes agree, only the pixels are others."""
    a, b = (
        pack(shades(4, side=1)[half], tmp_path / name, shards=1) for name, half in (("a", slice(2)), ("b", slice(2, 4)))
    )
    assert a.manifest.shards[0].bytes == b.manifest.shards[0].bytes
    name = a.manifest.shards[0].name
    shutil.copy(b.path / name, a.path / name)
    damaged = a.verify().damaged
    assert {d.record for d in damaged} == {0, 1}
    assert all(d.shard == name for d in damaged)
    for part in ("the index says 0x", "sha256 of the image is not the catalog's", "the record's image/id is [b'002']"):
        assert any(part in d.reason for d in damaged)


def test_sound_records_that_are_not_the_ones_that_were_written(tmp_path: Path) -> None:
    """A feature that the catalog does not know, added with fresh CRCs, to the index too: only the shard's digest
    tells."""
    ds = pack(shades(2, side=1), tmp_path / "ds", shards=1)
    path = ds.path / ds.manifest.shards[0].name
    good = path.read_bytes()
    payloads = []
    for _, payload in tfrecord.scan(good):
        features = example.parse(bytes(payload))
        features["image/colorspacf"] = features.pop("image/colorspace")  # of the same length, at the same place
        payloads.append(example.serialize(features))
    path.write_bytes(b"".join(map(tfrecord.frame, payloads)))
    assert path.stat().st_size == len(good)
    assert [(record, "the index says 0x" in reason) for _, record, _, reason in faults(ds.path)] == [
        (0, True), (0, False), (1, True), (1, False)
    ]  # fmt: skip
    payloads = [
        example.serialize(example.parse(bytes(one)) | {"more": example.Ints()}) for _, one in tfrecord.scan(good)
    ]
    path.write_bytes(b"".join(map(tfrecord.frame, payloads)))
    table = read_index(ds.path)
    sizes = [len(payload) for payload in payloads]
    table["length"][:], table["offset"][:] = sizes, [0, sizes[0] + tfrecord.OVERHEAD_BYTES]
    table["crc"][:] = [tfrecord.masked_crc(payload) for payload in payloads]
    images = [example.parse(payload)["image/encoded"][0] for payload in payloads]
    table["image_offset"][:] = [
        tfrecord.HEADER_BYTES + payload.index(image)  # type: ignore[arg-type]
        for payload, image in zip(payloads, images, strict=True)
    ]
    write_index(ds.path, table)
    lines = "".join(f"{start} {size + 16}\n" for start, size in zip(table["offset"].tolist(), sizes, strict=True))
    (ds.path / ds.manifest.shards[0].index_name).write_text(lines)
    rewrite_manifest(ds.path, shards=(replace(ds.manifest.shards[0], bytes=path.stat().st_size),))
    (info, *_), (name, record, offset, reason) = faults(ds.path)
    assert info == "dataset_info.json"  # which says the shard's size
    assert (name, record, offset) == (path.name, None, None) and "though every record is sound" in reason


def test_swapped_catalog(folder: Path, tmp_path: Path) -> None:
    other = pack(photos(12), tmp_path / "other")
    shutil.copy(other.path / catalog.FILE, folder / catalog.FILE)
    assert [d.shard for d in verify(at(folder)).damaged] == [catalog.FILE]
    with pytest.raises(DamageError, match=r"catalog\.parquet: CRC-32C is"):
        hr.Dataset(folder).where("label = 0")


# --- tables that lie, though they are the ones that the manifest promises ---------------------------------------------

SHARD = "train-00000-of-00002.tfrecord"
FIRST = pl.int_range(pl.len()) == 0
# (column, what the catalog says of record 0, file and record of the fault, what verify says)
CATALOG: list[tuple[str, object, str, int | None, str]] = [
    ("label", 0, SHARD, 0, "the record's image/class/label is [2], the catalog says [0]"),
    ("label", None, SHARD, 0, "the record's image/class/label is [2], the catalog says [-1]"),
    ("label", 7, catalog.FILE, None, "the label of row 0 can't be"),
    ("label", -1, catalog.FILE, None, "the label of row 0 can't be"),
    ("label_name", "?", SHARD, 0, "the record's image/class/text is [b'cow'], the catalog says [b'?']"),
    ("id", "other", SHARD, 0, "the catalog says [b'other']"),
    ("id", "other", catalog.FILE, None, "row 0 is 'other' of 'train', in the index it is 'dir/"),
    ("id", None, catalog.FILE, None, "the id of row 0 can't be"),
    ("split", "val", catalog.FILE, None, "of 'val', in the index it is"),
    ("split", "no", catalog.FILE, None, "the split of row 0 can't be"),
    ("sha256", "00", SHARD, 0, "sha256 of the image is not the catalog's"),
    ("boxes", [[0, 0, 1, 1]] * 9, catalog.FILE, None, "the number of box_labels of row 0 can't be"),
    ("box_labels", [5] * 1, catalog.FILE, None, "the box_labels of row 0 can't be"),
]


@pytest.mark.parametrize(("column", "value", "file", "record", "reason"), CATALOG)
def test_the_catalog_lies(column: str, value: object, file: str, record: int | None, reason: str, folder: Path) -> None:
    lie = pl.lit(pl.Series([value], dtype=catalog.WHAT[column]).first(), dtype=catalog.WHAT[column])
    forge_catalog(folder, {column: pl.when(FIRST).then(lie).otherwise(pl.col(column))})
    found = faults(folder)
    assert any((name, number) == (file, record) and reason in why for name, number, _, why in found), found
    assert all(number == 0 for name, number, *_ in found if name != catalog.FILE)


def test_boxes_that_lie(folder: Path) -> None:
    moved = pl.Series([None if some is None else [[a + 1, b, c + 1, d] for a, b, c, d in some]
                       for some in pl.read_parquet(folder / catalog.FILE)["boxes"].to_list()])  # fmt: skip
    forge_catalog(folder, {"boxes": pl.lit(moved)})
    boxed = [row["boxes"] for row in pl.read_parquet(folder / catalog.FILE).to_dicts()]
    found = faults(folder)
    assert len({(name, number) for name, number, *_ in found}) == sum(len(some) > 0 for some in boxed)
    assert any("the record's image/object/bbox/xmin is [" in why for *_, why in found)
    forge_catalog(folder, {"boxes": pl.lit([], dtype=catalog.WHAT["boxes"])} | {
        name: pl.lit([], dtype=catalog.WHAT[name]) for name in ("box_labels", "box_label_names")
    })  # fmt: skip
    assert any(
        name == catalog.FILE and why.startswith("0 boxes, the manifest says") for name, _, _, why in faults(folder)
    )


# (column, what the index says of record 0, what verify says, of record 0 or of the index as a whole)
INDEX: list[tuple[str, int, str, int | None]] = [
    ("height", 5, "49 x 20 pixels are over the limit of 245", 0),
    ("height", 500, "the index says png of (500", 0),
    ("height", 0, "the height of row 0 (train-00000-of-00002.tfrecord, record 0, byte 0) can't be", None),
    ("width", 1 << 31, "the width of row 0", None),
    ("channels", 2, "the number of channels of row 0", None),
    ("channels", 1, "the index says png of (20, 49, 1)", 0),
    ("format", 2, ", the index says gif of", 0),
    ("format", 200, "the format of row 0", None),
    ("image_offset", 13, "the index's image bytes are not the record's image/encoded", 0),
    ("image_offset", 3, "the place of the image of row 0", None),
    ("image_length", 3, "the index's image bytes are not the record's image/encoded", 0),
    ("image_length", (1 << 32) - 1, "the place of the image of row 0", None),
    ("length", 3, "the offset of row 1", None),
    ("length", 60_000, "the offset of row 1", None),
    ("offset", 7, "the offset of row 0", None),
    ("offset", (1 << 64) - 7, "the offset of row 0", None),
    ("record", 1, "the number of the record of row 0", None),
    ("crc", 1, "the index says 0x00000001: another record", 0),
    ("key", 1, "the key of row 0 is not that of its id", None),
]


@pytest.mark.parametrize(("column", "value", "reason", "record"), INDEX)
def test_the_index_lies(column: str, value: int, reason: str, record: int | None, folder: Path) -> None:
    forge_index(folder, 0, **{column: value})
    found = faults(folder)
    assert [(name, number) for name, number, _, why in found if reason in why] == [
        (index.FILE if record is None else SHARD, record)
    ], found


def test_rows_that_are_missing(folder: Path) -> None:
    """Of either table: then shards are held against their digests alone."""
    flip(folder / "val-00000-of-00002.tfrecord", 100)
    forge_catalog(folder, rows=slice(-1))
    found = verify(at(folder))
    assert found.records == 0
    assert [(d.shard, d.record) for d in found.damaged] == [(catalog.FILE, None), ("val-00000-of-00002.tfrecord", None)]
    assert "11 rows, the manifest says 12 records" in found.damaged[0].reason
    with pytest.raises(DamageError, match="11 rows, the manifest says 12"):
        hr.Dataset(folder).where("label = 0")
    table = read_index(folder)
    fewer = index.Index({name: column[:-1] for name, column in table.columns.items()}, index.Texts.of(
        [table.ids[i] for i in range(11)]
    ))  # fmt: skip
    write_index(folder, fewer)
    assert "11 rows, the manifest says 12 records" in verify(at(folder)).damaged[0].reason
    with pytest.raises(DamageError, match="11 rows, the manifest says 12"):
        hr.Dataset(folder)


def test_ids_of_the_index_that_lie(folder: Path) -> None:
    sound = (folder / index.FILE).read_bytes()
    for row in (0, 5, 11):
        for other in ("x", "dir/00ü.jpeg"):
            (folder / index.FILE).write_bytes(sound)
            forge_ids(folder, lambda ids, row=row, other=other: [*ids[:row], other, *ids[row + 1 :]])  # type: ignore[misc]
            told = [why for name, _, _, why in faults(folder) if name == catalog.FILE]
            assert len(told) == 1 and told[0].startswith(f"row {row} is 'dir/") and repr(other) in told[0]


def test_an_id_that_occurs_twice(folder: Path) -> None:
    forge_ids(folder, lambda ids: [ids[1], *ids[1:]])
    table = read_index(folder)
    table["key"][0] = table["key"][1]
    write_index(folder, table)
    assert any(name == index.FILE and "occurs twice" in why for name, _, _, why in faults(folder))


def test_splits_of_the_manifest_that_lie(folder: Path) -> None:
    other = {"train": "val", "val": "train"}
    entries = manifest.read(at(folder)).shards
    rewrite_manifest(folder, shards=tuple(replace(entry, split=other[entry.split]) for entry in entries))
    assert any(name == catalog.FILE and why.endswith("of 'val'") for name, _, _, why in faults(folder))


# --- files that are none, and must not hold anyone up -----------------------------------------------------------------

HOLD_UP = """
import os, sys
from pathlib import Path
from headrace.place.open import at
from headrace.checking.verify import verify
from headrace.errors import HeadraceError
folder = Path(sys.argv[1])
for name in sys.argv[2:]:
    good = (folder / name).read_bytes()
    for what in ("fifo", "/dev/zero", "folder", "loop"):
        (folder / name).unlink()
        if what == "fifo":
            os.mkfifo(folder / name)
        elif what == "folder":
            (folder / name).mkdir()
        else:
            (folder / name).symlink_to(what if what != "loop" else name)
        print(name, what, end=": ", flush=True)
        try:
            print(*verify(at(folder)).damaged)
        except HeadraceError as error:
            print(error)
        (folder / name).rename(folder.parent / f"{name}-{what.replace('/', '')}")
        (folder / name).write_bytes(good)
print(verify(at(folder)).ok)
"""


def test_what_is_no_file_holds_nobody_up(folder: Path) -> None:
    names = [manifest.FILE, index.FILE, catalog.FILE, SHARD, "train-00000-of-00002.idx", "features.json"]
    command = [sys.executable, "-c", HOLD_UP, str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    *told, sound = done.stdout.splitlines()
    assert sound == "True" and len(told) == 4 * len(names)
    for line in told:
        case, _, said = line.partition(": ")
        assert case.split()[0] in said, line


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("image.class.label.labels.txt", b"cow\nbee\nant\n", "does not say what the manifest says"),
        ("features.json", b"{}", "does not say what the manifest says"),
        ("label_map.pbtxt", b"", "does not say what the manifest says"),
        ("dataset_info.json", b'{"name": "ds"}', "does not say what the manifest says"),
        ("dataset_info.json", b"{}", "names no dataset"),
        ("dataset_info.json", b"[" * 100_000, "names no dataset"),
        ("dataset_info.json", b"\xff", "names no dataset"),
        ("dataset_info.json", b'{"name": 7}', "names no dataset"),
    ],
)
def test_side_files_that_lie_with_right_digests(name: str, data: bytes, says: str, folder: Path) -> None:
    (folder / name).write_bytes(data)
    rewrite_manifest(folder, files={**manifest.read(at(folder)).files, name: hashlib.sha256(data).hexdigest()})
    ((file, record, offset, reason),) = faults(folder)
    assert (file, record, offset) == (name, None, None) and says in reason


def test_side_files_of_another_version_are_its_own(folder: Path) -> None:
    rewrite_manifest(
        folder,
        headrace_version="0.0.1",
        files={**manifest.read(at(folder)).files, "features.json": hashlib.sha256(b"{}").hexdigest()},
    )
    (folder / "features.json").write_bytes(b"{}")
    assert faults(folder) == []


def test_a_dataset_may_be_renamed(sound: Path, tmp_path: Path) -> None:
    assert verify(at(shutil.copytree(sound, tmp_path / "another"))).ok


# --- the call --------------------------------------------------------------------------------------------------------


def test_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(NotThereError):
        verify(at(tmp_path / "nowhere"))
    with pytest.raises(UsageError):
        verify(at(tmp_path))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (Damage(shard="a", record=None, offset=None, reason="x"), "a: x"),
        (Damage(shard="a", record=0, offset=0, reason="x"), "a, record 0, byte 0: x"),
    ],
)
def test_damage_in_words(damage: Damage, text: str) -> None:
    assert str(damage) == text


def test_the_exit_code_and_the_json(folder: Path) -> None:
    command = [sys.executable, "-m", "headrace", "verify", str(folder), "--json"]
    assert subprocess.run(command, capture_output=True, check=True).returncode == 0
    row = hr.Dataset(folder).catalog.row(1, named=True)
    flip(folder / row["shard"], row["image_offset"])
    done = subprocess.run(command, capture_output=True, text=True)
    said = json.loads(done.stdout)
    assert done.returncode == 1 and not said["ok"] and said["records"] == 12
    (damage,) = said["damaged"]
    assert (damage["shard"], damage["record"]) == (row["shard"], 1)
    assert damage["offset"] == row["offset"] + tfrecord.HEADER_BYTES and "payload CRC" in damage["reason"]


def test_random_damage_never_crashes(folder: Path) -> None:
    """Bytes of all files overwritten, cut out and doubled: a verdict that is not ok, or an error of ours."""
    rng = np.random.default_rng(0)
    names = sorted(path.name for path in folder.iterdir())
    told: list[tuple[str, str]] = []
    for _ in range(150):
        name = names[rng.integers(len(names))]
        path = folder / name
        good = path.read_bytes()
        start = int(rng.integers(len(good)))
        stop = min(len(good), start + int(rng.integers(1, 40)))
        middle = (rng.bytes(stop - start), b"", good[start:stop] * 2)[rng.integers(3)]
        path.write_bytes(good[:start] + middle + good[stop:])
        try:
            ds = hr.Dataset(folder)
            assert not ds.verify(workers=1).ok
            for i in range(len(ds)):
                try:
                    _ = ds[i].image
                except HeadraceError:
                    continue
        except HeadraceError as error:
            told.append((name, str(error)))
        path.write_bytes(good)
    assert len(told) > 10 and all(name in error for name, error in told)
