"""Tables that are open: columns read when they are asked for, replaced and cut files, forked children, pickles."""

from __future__ import annotations

import contextlib
import copy
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import headrace as hr
from forged import forge_catalog, sign
from headrace.errors import DamageError, UsageError
from headrace.format import catalog, frames, index
from headrace.format.index import Index
from headrace.format.tables import Tables
from headrace.place.open import at
from packed import flip, pack, photos, shades


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = photos(12, grey=(3,), png=(4, 5), boxes=True, unlabelled=(6,))
    return pack(records, tmp_path_factory.mktemp("sound") / "ds", shards=2, splits={"train": 0.7, "val": 0.3}).path


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "ds")


# --- columns ---------------------------------------------------------------------------------------------------------


def test_columns_of_both_tables_by_name(sound: Path) -> None:
    tables = Tables(at(sound))
    every = tables.frame()
    assert tuple(every.columns) == tables.columns == tuple(catalog.SCHEMA)
    assert {name: every[name].dtype for name in every.columns} == catalog.SCHEMA
    rows = np.array([7, 0, 7])
    for names in (["height"], ["label", "height"], ["shard", "boxes", "format"], ["id"], []):
        assert tables.frame(names).equals(every.select(names))
        assert tables.frame(names, rows).equals(every[rows].select(names))
    assert [tables.row(i) for i in range(12)] == every.to_dicts()
    assert tables.ids(rows) == tuple(every["id"][rows].to_list())
    assert tables.where("height > 30 AND label IS NOT NULL").tolist() == [
        i for i, row in enumerate(every.to_dicts()) if row["height"] > 30 and row["label"] is not None
    ]
    assert tables.where("id = 'nobody'", rows).tolist() == []
    with pytest.raises(UsageError, match=r"no column 'size'; the columns are id, split, shard"):
        tables.where("size > 3")


def test_only_the_columns_that_are_asked_for_are_read(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read = catalog.read_columns

    def spied(path: Path, columns: Any, *rest: Any) -> pl.DataFrame:
        asked.extend(columns)
        return read(path, columns, *rest)

    monkeypatch.setattr(catalog, "read_columns", spied)
    tables = Tables(at(sound))
    tables.frame(["height", "shard"])
    tables.where("width > 3")
    assert asked == []
    tables.frame(["label", "height"])
    tables.where("split = 'val'")
    assert asked == ["label", "split"]


def test_opening_reads_no_catalog(folder: Path) -> None:
    """What is damaged in it is told when it is asked for."""
    flip(folder / catalog.FILE, 300)
    ds = hr.Dataset(folder)
    assert len(ds) == 12 and ds.split("val").splits == {"val": 4}
    with pytest.raises(DamageError, match=r"catalog\.parquet: CRC-32C is"):
        ds.where("label = 0")


# --- another file, under an open dataset ------------------------------------------------------------------------------


def test_a_catalog_that_is_replaced(folder: Path, tmp_path: Path) -> None:
    """The old columns never mix with new ones: it is a DamageError, or what was read before."""
    tables = Tables(at(folder))
    labels = tables.frame(["label"])
    other = pack(photos(12, boxes=True), tmp_path / "other", shards=2).path
    shutil.copy(other / catalog.FILE, folder / "next")
    (folder / "next").rename(folder / catalog.FILE)
    for ask in (lambda: tables.frame(["label"]), lambda: tables.frame(["id"]), lambda: tables.row(3)):
        with pytest.raises(DamageError, match=r"CRC-32C is .*; where the dataset was packed anew meanwhile open it"):
            ask()
    shutil.copy(folder / catalog.FILE, tmp_path / "kept")
    assert tables.frame(["height"]).height == len(labels)


@pytest.mark.parametrize("other", ["garbage", "of other rows"])
def test_a_catalog_that_is_replaced_amid_the_reading(
    folder: Path, tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables(at(folder))
    if other == "garbage":
        (folder / "next").write_bytes(b"PAR1" + bytes(200) + b"PAR1")
    else:
        shutil.copy(pack(photos(5), tmp_path / "other").path / catalog.FILE, folder / "next")

    def read(path: Path, *args: Any, plain: Any = catalog.read_columns) -> Any:
        (folder / "next").rename(path)
        return plain(path, *args)

    monkeypatch.setattr(catalog, "read_columns", read)
    with pytest.raises(DamageError, match=r"catalog.parquet: was replaced while it was read; open the dataset again"):
        tables.frame(["label"])


def test_a_dataset_that_is_packed_over(tmp_path: Path) -> None:
    """Its records are told from those of the new one, and it says what to do; opened again all is well."""
    ds = pack(shades(20), tmp_path / "ds", shards=2)
    first = ds[3].encoded
    pack([r for r in shades(40, classes=("x",)) if int(r.id) % 2], tmp_path / "ds", shards=2, overwrite=True)
    wanted = [record.encoded for record in shades(20)]
    assert ds[3].encoded in wanted  # its shard is open still
    with pytest.raises(DamageError, match="the dataset was replaced or removed since it was opened: open it again"):
        ds[19]
    fresh = hr.Dataset(tmp_path / "ds")
    assert len(fresh) == 20 and fresh[3].encoded != first and fresh.verify().ok


@pytest.mark.parametrize("size", [0, 10, 500])
def test_an_index_that_is_cut_ends_no_process(size: int, folder: Path) -> None:
    """In a process of its own: reading on in the map would be a SIGBUS."""
    code = f"""
import os, sys, headrace as hr
ds = hr.Dataset(sys.argv[1])
loader = ds.loader(batch_size=4, size=16, workers=2)
os.truncate(os.path.join(sys.argv[1], {index.FILE!r}), {size})
try:
    print(len(list(loader)))
except hr.errors.DamageError as error:
    print("damage", error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and done.stdout.startswith("damage") and index.FILE in done.stdout, done.stderr


# --- values that can't be, each column --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", None),
        ("split", None),
        ("split", "other"),
        ("origin", None),
        ("label", 3),
        ("label", -1),
        ("box_labels", [9]),
        ("box_labels", [-1]),
        ("box_labels", [None]),
        ("box_labels", [0] * 7),
        ("box_label_names", ["left"] * 7),
        ("keypoints", [[[0.0, 0.0, 2.0]]]),
    ],
)
def test_a_value_that_cant_be(column: str, value: object, folder: Path) -> None:
    kind = catalog.WHAT[column]
    lie = pl.lit(pl.Series([value], dtype=kind).first(), dtype=kind)
    forge_catalog(folder, {column: pl.when(pl.int_range(pl.len()) == 3).then(lie).otherwise(pl.col(column))})
    tables = Tables(at(folder))
    for ask in (lambda: tables.frame([column, "boxes"]), lambda: tables.row(0), lambda: tables.group(0)):
        with pytest.raises(DamageError, match=r"catalog\.parquet: the .* of row 3 can't be"):
            ask()


def test_a_catalog_without_a_column(folder: Path) -> None:
    frame = pl.read_parquet(folder / catalog.FILE).drop("label")
    (folder / catalog.FILE).write_bytes(catalog.to_bytes(frame))
    sign(folder)
    with pytest.raises(DamageError, match=r"not the columns of a catalog: label None"):
        hr.Dataset(folder).labels  # noqa: B018


# --- forked children --------------------------------------------------------------------------------------------------

# What is asked of a dataset in a child; each must answer as in the parent.
ASKED: dict[str, Callable[[hr.Dataset], Any]] = {
    "where": lambda ds: ds.where("height > 30 AND label = 1").labels.tolist(),
    "catalog": lambda ds: ds.catalog.to_dicts(),
    "repr": repr,
    "record": lambda ds: [(ds[i].id, ds[i].boxes is None, ds[i].encoded) for i in range(len(ds))],
    "divide": lambda ds: [len(part) for part in ds.divide({"a": 0.5, "b": 0.5})],
    "loader": lambda ds: ds.loader(batch_size=4, size=16, workers=2, shuffle=False)[1].images.sum(),
    "error": lambda ds: _refusal(ds, "nosuch = 1"),
}


def _refusal(ds: hr.Dataset, condition: str) -> str:
    with pytest.raises(UsageError) as caught:
        ds.where(condition)
    return str(caught.value)


FORKED = """
import os, pickle, signal, sys, warnings
warnings.simplefilter("ignore")  # of newer Pythons: that fork and threads don't go together, which is the question
sys.path.insert(0, sys.argv[2])
sys.path.insert(0, os.path.join(sys.argv[2], "unit"))
import headrace as hr
import test_tables
ds = hr.Dataset(sys.argv[1])
if sys.argv[3] == "used":
    wanted = {name: ask(ds) for name, ask in test_tables.ASKED.items()}
child = os.fork()
if not child:
    signal.alarm(500)
    code = 1
    try:
        answers = {name: ask(ds) for name, ask in test_tables.ASKED.items()}
        with open(sys.argv[4], "wb") as file:
            pickle.dump(answers, file)
        code = 0
    finally:
        os._exit(code)
_, status = os.waitpid(child, 0)
with open(sys.argv[4], "rb") as file:
    found = pickle.load(file)
if sys.argv[3] != "used":
    wanted = {name: ask(ds) for name, ask in test_tables.ASKED.items()}
print(status, [name for name in wanted if found[name] != wanted[name]])
"""


@pytest.mark.parametrize("used", ["used", "fresh"])
def test_a_forked_child_answers_as_its_parent(used: str, sound: Path, tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", FORKED, str(sound), tests, used, str(tmp_path / "answers")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.stdout == "0 []\n", done.stderr


FORKED_VERBS = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[2])
import headrace as hr, headrace.adopting.adopt, headrace.checking.verify, headrace.packing.pack
from packed import shades
out = sys.argv[1] + "/"
if sys.argv[3] == "used":
    hr.pack(list(shades(4)), out + "parent", progress=False)
if child := os.fork():
    print(os.waitpid(child, 0)[1])
    os._exit(0)
signal.alarm(500)
for verb in (
    lambda: hr.pack(list(shades(4)), out + "child", progress=False),
    lambda: hr.adopt(out + "child", out + "adopted", progress=False),
    lambda: headrace.checking.verify.verify(headrace.place.open.at(out + "child")),
):
    try:
        verb()
        print("done", flush=True)
    except hr.UsageError as error:
        print(str(error).partition(";")[0], flush=True)
if sys.argv[3] == "used":
    print(len(hr.Dataset(out + "parent").catalog), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which threads there are")
@pytest.mark.parametrize("used", ["used", "fresh"])
def test_a_forked_child_packs_or_says_why_not(used: str, tmp_path: Path) -> None:
    """Where its parent had no threads of Polars it has its own; else it would wait for those for ever."""
    command = [sys.executable, "-c", FORKED_VERBS, str(tmp_path), str(Path(__file__).parents[1]), used]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    why = "this process was forked from one in which Polars had started its threads, and here they are gone"
    said = [f"{verb}: {why}" for verb in ("pack", "adopt", "verify")] + ["4"] if used == "used" else ["done"] * 3
    assert done.stdout.splitlines() == [*said, "0"], done.stderr


# --- sent elsewhere ---------------------------------------------------------------------------------------------------


def views(ds: hr.Dataset) -> dict[str, hr.Dataset]:
    return {"whole": ds, "split": ds.split("val"), "where": ds.where("label = 1"), "divided": ds.divide({"a": 0.5})[0]}


@pytest.mark.parametrize("send", [lambda value: pickle.loads(pickle.dumps(value)), copy.deepcopy, copy.copy])
@pytest.mark.parametrize("name", ["whole", "split", "where", "divided"])
def test_a_dataset_sent_is_the_same(name: str, send: Callable[[Any], Any], sound: Path) -> None:
    ds = views(hr.Dataset(sound))[name]
    _ = ds.labels, ds[0]
    other = send(ds)
    assert repr(other) == repr(ds) and other.fingerprint == ds.fingerprint
    assert other.labels.tolist() == ds.labels.tolist() and other.rows.tolist() == ds.rows.tolist()
    assert [other[i].encoded for i in range(len(ds))] == [ds[i].encoded for i in range(len(ds))]
    loader = ds.loader(batch_size=4, size=16, workers=2, seed=3)
    wanted = [batch.images for batch in loader]
    sent = send(ds.loader(batch_size=4, size=16, workers=2, seed=3))
    assert all(np.array_equal(a.images, b) for a, b in zip(sent, wanted, strict=True))


def test_a_pickle_is_small_and_finds_its_way(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a path, which is absolute, and no columns, however many were read."""
    monkeypatch.chdir(sound.parent)
    ds = hr.Dataset(sound.name)
    _ = ds.catalog, ds[0].boxes, ds.labels
    data = pickle.dumps(ds)
    assert len(data) < 2000
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(data)[0].encoded == ds[0].encoded


def test_a_pickle_knows_another_dataset(folder: Path, tmp_path: Path) -> None:
    data = pickle.dumps(hr.Dataset(folder))
    shutil.rmtree(folder)
    pack(shades(12), folder)
    with pytest.raises(DamageError, match="holds another dataset than was opened; open it again"):
        pickle.loads(data)


def test_threads_ask_at_once(sound: Path) -> None:
    tables, errors = Tables(at(sound)), []
    wanted = [Tables(at(sound)).row(i) for i in range(12)]

    def ask(i: int) -> None:
        try:
            for k in range(30):
                assert tables.row((i + k) % 12) == wanted[(i + k) % 12]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not errors and not any(thread.is_alive() for thread in threads)


def test_no_descriptor_is_left_open(sound: Path) -> None:
    def held() -> int:
        """How many of this process's descriptors are of the dataset's files: others may have others meanwhile."""
        found = 0
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found += link.readlink().is_relative_to(sound)
        return found

    for _ in range(3):  # what stays is kept once
        hr.Dataset(sound)[0]
    before = held()
    for _ in range(5):
        ds = hr.Dataset(sound)
        _ = ds[0].boxes, ds.catalog
        assert held() > before
        del ds
    assert held() <= before


def test_what_is_replaced_while_it_is_opened_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the reading of the manifest and that of the index."""
    path, other = (pack(shades(n), tmp_path / f"{n}").path for n in (6, 7))
    opened = Index.open

    def replaced(*arguments: Any, **options: Any) -> Index:
        shutil.rmtree(path)
        other.rename(path)
        return opened(*arguments, **options)

    monkeypatch.setattr(Index, "open", replaced)
    with pytest.raises(DamageError, match=f"^{path}: was replaced while it was opened; open it again$"):
        Tables(at(path))
    monkeypatch.undo()
    assert len(Tables(at(path))) == 7


def test_what_is_replaced_says_so_to_a_forked_child(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which asks another process: there the tables are opened anew."""
    tables = Tables(at(folder))
    shutil.rmtree(folder)
    pack(shades(3), tmp_path / "other").path.rename(folder)
    monkeypatch.setattr(frames, "_forked", True)
    with pytest.raises(DamageError, match="holds another dataset than was opened; open it again"):
        tables.frame(["label"])
