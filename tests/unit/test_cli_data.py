"""The verbs about data: what their options mean, what they print where, and how fast a door they are."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import deep
import headrace as hr
from command import headrace
from drawn import files, jpeg, photos
from headrace.cli.text import safe_output
from headrace.progress import bar

NONE = {"sets": 0, "first": []}
NO_EQUAL = {"images": 0, "sets": 0, "labels": NONE, "splits": NONE, "near": NONE}
PATTERN = r"^(?P<label>cat|dog)\."


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = photos(tmp_path_factory.mktemp("source"), 20)
    return files(root, {"17.jpg": jpeg(), "cat.99.jpg": b"", "notes.txt": b""})


@pytest.fixture(scope="module")
def packed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "ds"
    options = ["--split", "train=0.7,val=0.3", "--shards", "2", "--max-rejects", "1"]
    assert headrace("pack", source, out, "--format", "names", "--pattern", PATTERN, *options).code == 0
    return out


def test_pack_json(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "ds"
    ended = headrace("pack", source, out, "--format", "names", "--pattern", PATTERN, "--json", "--size", "16x20")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("\n") == 1
    found = json.loads(ended.out)
    seconds, rate = found.pop("seconds"), found.pop("images_per_second")
    assert seconds > 0 and rate > 0
    assert found == {
        "seen": 22,
        "stored": 21,
        "warned": 0,
        "rejected": 1,
        "rejected_by_reason": {"empty file …": 1},
        "splits": {"train": 21},
        "classes": ["cat", "dog"],
        "box_classes": [],
        "boxes": 0,
        "boxes_clipped": 0,
        "boxes_dropped": {},
        "keypoint_sets": 0,
        "keypoints_dropped": {},
        "shards": 1,
        "bytes_in": sum(p.stat().st_size for p in source.glob("*.jpg")),
        "bytes_out": sum(p.stat().st_size for p in out.iterdir()),
        "passed_over": {".txt": 1},
        "notes": [],
        "equal_images": NO_EQUAL,
        "out": str(out),
    }


def test_pack_says_what_it_did(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "ds"
    ended = headrace("pack", source, out, "--pattern", PATTERN)
    assert ended.code == 0
    # The only thing it may say beside the result, when nobody looks: what it guessed.
    assert ended.err == "headrace: taking --format names: a pattern for file names is given\n"
    lines = ended.out.splitlines()
    assert lines[0] == f"{out}: 22 seen = 21 stored + 1 rejected"
    assert lines[1:5] == [
        "  rejected 1: empty file (0 bytes)",
        f"  each with its reason in {out}/rejects.jsonl",
        "  passed over 1: .txt 1",
        "  train 21; 1 shards; classes: cat, dog",
    ]
    assert re.fullmatch(r"  \d+(\.\d+)? kB in, \d+(\.\d+)? kB out; \d+\.\d s, \d+ images/s", lines[5])
    assert len(lines) == 6


def test_a_group_that_no_image_has(source: Path, tmp_path: Path) -> None:
    words = ("--format", "names", "--pattern", PATTERN, "--group", "patient")
    ended = headrace("pack", source, tmp_path / "ds", *words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "headrace: --group is 'patient', and none of the records has one\n"


def test_every_option_of_pack_arrives(source: Path, tmp_path: Path) -> None:
    words = {
        "--format": "names",
        "--pattern": PATTERN,
        "--unlabelled": "reject",
        "--classes": "dog, bird,cat",
        "--split": "b=0.6,a=0.4",
        "--size": "12x16",
        "--fit": "pad",
        "--channels": "1",
        "--quality": "71",
        "--chroma": "420",
        "--shards": "3",
        "--workers": "1",
        "--seed": "9",
        "--max-rejects": "2",
        "--max-pixels": "1000000",
        "--on-warning": "keep",
    }
    ended = headrace("pack", source, tmp_path / "ds", "--optimize", *[word for pair in words.items() for word in pair])
    assert ended.code == 0, ended.err
    manifest = json.loads((tmp_path / "ds" / "headrace.json").read_text())
    assert manifest["pack_options"] == {
        "size": [12, 16],
        "fit": "pad",
        "max_side": None,
        "min_side_to": None,
        "enlarge": False,
        "value_range": None,
        "channels": 1,
        "quality": 71,
        "chroma": "420",
        "optimize": True,
        "max_pixels": 1_000_000,
        "on_warning": "keep",
        "splits": {"b": 0.6, "a": 0.4},
        "shards": 3,
        "shard_size": None,
        "seed": 9,
        "group": None,
        "guard": None,
    }
    assert manifest["classes"] == ["dog", "bird", "cat"] and manifest["channels"] == 1
    assert [shard["name"] for shard in manifest["shards"]][2:4] == [
        "b-00002-of-00003.tfrecord",
        "a-00000-of-00003.tfrecord",
    ]
    assert (manifest["seen"], manifest["stored"], manifest["rejected"]) == (22, 20, 2)
    # As from Python, byte by byte.
    hr.pack(
        hr.sources.names(source, pattern=PATTERN, unlabelled="reject", class_names=("dog", "bird", "cat")),
        tmp_path / "python" / "ds",
        splits={"b": 0.6, "a": 0.4},
        size=(12, 16),
        fit="pad",
        channels=1,
        quality=71,
        chroma="420",
        optimize=True,
        shards=3,
        seed=9,
        max_rejects=2,
        max_pixels=1_000_000,
        on_warning="keep",
    )
    assert (tmp_path / "python" / "ds" / "headrace.json").read_text() == (tmp_path / "ds" / "headrace.json").read_text()
    words = ["--shard-size", "2KB", "--max-rejects", "1", "--overwrite"]
    assert headrace("pack", source, tmp_path / "ds", "--pattern", PATTERN, *words).code == 0
    manifest = json.loads((tmp_path / "ds" / "headrace.json").read_text())
    assert manifest["pack_options"]["shard_size"] == 2000 and len(manifest["shards"]) > 5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", "0"], "--size is 0, wanted an int or (height, width)"),
        (["--size", "big"], "--size 'big': wanted N or HEIGHTxWIDTH"),
        (["--fit", "cover"], "--fit is 'cover', wanted one of stretch, crop, pad"),
        (["--channels", "2"], "--channels is 2, wanted 1, 3 or None"),
        (["--quality", "0"], "--quality is 0, wanted 1 to 100"),
        (["--chroma", "422"], "--chroma is '422', wanted one of 444, 420"),
        (["--workers", "0"], "--workers is 0, wanted at least 1"),
        (["--shards", "0"], "--shards is 0, wanted 1 to 99999"),
        (["--shard-size", "0"], "the shard size is 0 bytes, wanted at least 1"),
        (["--max-rejects", "nan"], "--max-rejects is nan, wanted a share"),
        (["--max-rejects", "150%"], "--max-rejects is 1.5, wanted a share"),
        (["--max-rejects=-1"], "--max-rejects is -1.0, wanted a share"),
        (["--max-pixels", "0"], "--max-pixels is 0, wanted at least 1"),
        (["--split", "a/b=1"], "split name 'a/b': wanted letters, digits and '_'"),
        (["--seed", "x"], "Invalid value for '--seed'"),
        (["--nonsense"], "No such option"),
    ],
)
def test_options_that_are_none(words: list[str], says: str, source: Path, tmp_path: Path) -> None:
    ended = headrace("pack", source, tmp_path / "ds", "--format", "names", "--pattern", PATTERN, *words)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err and "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())


def test_sides_arrive(source: Path, tmp_path: Path) -> None:
    words = ["--format", "names", "--pattern", PATTERN, "--max-rejects", "1"]
    for more, options in (
        (["--max-side", "20"], {"max_side": 20}),
        (["--min-side-to", "30", "--enlarge"], {"min_side_to": 30, "enlarge": True}),
    ):
        out = tmp_path / more[0]
        assert headrace("pack", source, out, *words, *more).code == 0
        hr.pack(hr.sources.names(source, pattern=PATTERN), tmp_path / "py" / more[0], max_rejects=1, **options)
        assert (out / "headrace.json").read_text() == (tmp_path / "py" / more[0] / "headrace.json").read_text()
    sides = hr.Dataset(tmp_path / "--max-side").catalog.select("height", "width").max_horizontal()
    assert sides.max() == 20
    assert (
        hr.Dataset(tmp_path / "--min-side-to").catalog.select("height", "width").min_horizontal().to_list() == [30] * 21
    )


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two photo folders, of which some names are in both."""
    root = tmp_path_factory.mktemp("halves")
    photos(root / "a", 20)
    photos(root / "b", 6)
    files(root, {"c/cat.7.jpg": jpeg(), "x=y/cat.1.jpg": jpeg()})
    return root


def test_a_source_per_split(halves: Path, tmp_path: Path) -> None:
    out = tmp_path / "ds"
    ended = headrace("pack", f"train={halves}/a", f"val={halves}/b", out, "--pattern", PATTERN, "--json")
    found = json.loads(ended.out)
    assert (ended.code, found["splits"], found["seen"]) == (0, {"train": 20, "val": 6}, 26)
    assert ended.err == "".join(
        f"headrace: taking --format names for split {split!r}: a pattern for file names is given\n"
        for split in ("train", "val")
    )
    sources = {
        split: hr.sources.names(halves / name, pattern=PATTERN) for split, name in (("train", "a"), ("val", "b"))
    }
    hr.pack(sources, tmp_path / "python" / "ds")
    assert (tmp_path / "python" / "ds" / "headrace.json").read_text() == (out / "headrace.json").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a", "b", "out"], "SOURCE: a, b: wanted one path, or all of them as SPLIT=PATH"),
        (["train=a", "b", "out"], "SOURCE: b, train=a: wanted one path"),
        (["train=a", "train=b", "out"], "SOURCE: split 'train' occurs twice, with a and b"),
        (["train=a", "val=b", "out", "--split", "train=0.5,val=0.5"], "comes divided into train, val already"),
        (["tr ain=a", "out"], "split name 'tr ain': wanted letters, digits and '_'"),
        (["train=a", "val=gone", "out"], "gone: no such folder"),
        (["train=a", "out", "--images", "val=b"], "--images val=b: no split 'val', the sources have the splits train"),
        (["a", "out", "--images", "val=b"], "--images val=b: no split 'val', the sources have no splits"),
        (["train=a", "out", "--images", "a", "--images", "b"], "--images: a, b: wanted one path"),
        (["train=a", "out", "--images", "a"], "--images is for --format coco and voc and yolo and "),
        (["train=a", "out", "--labels", "train=a"], "--labels is for --format arrays"),
        (["a"], "Missing argument"),
        (["a", "out", "--max-side", "9", "--size", "9"], "give size or max_side, not both"),
        (["a", "out", "--max-side", "9", "--fit", "crop"], "--fit is 'crop': it is for size"),
        (["a", "out", "--enlarge"], "enlarge is for max_side and min_side_to"),
        (["a", "out", "--value-range", "5"], "--value-range '5': wanted the values of black and white"),
        (["a", "out", "--value-range", "5,4"], "--value-range is (5.0, 4.0), wanted two finite numbers"),
    ],
)
def test_divided_calls_that_are_at_fault(
    words: list[str], says: str, halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(halves)
    ended = headrace("pack", *words, "--format", "names", "--pattern", PATTERN)
    assert (ended.code, ended.out) == (2, "") and says in ended.err and "Traceback" not in ended.err
    assert not (halves / "out").exists()


def test_a_path_with_an_equals_sign(halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(halves)
    assert headrace("pack", "x=y", tmp_path / "one", "--pattern", PATTERN).code == 0
    assert hr.Dataset(tmp_path / "one").splits == {"train": 1}
    assert headrace("pack", "val=x=y", tmp_path / "two", "--pattern", PATTERN).code == 0
    assert hr.Dataset(tmp_path / "two").splits == {"val": 1}


def test_arrays_per_split(tmp_path: Path) -> None:
    """--labels for each; --value-range is the source's, and the packer's where the source takes none."""
    for name, n in (("a", 4), ("b", 2)):
        np.save(tmp_path / f"{name}.npy", np.linspace(0, 1, n * 16).reshape(n, 4, 4))
        np.save(tmp_path / f"{name}-y.npy", np.arange(n) % 2)
    words = [f"train={tmp_path}/a.npy", f"val={tmp_path}/b.npy", tmp_path / "ds", "--value-range", "0,1"]
    labels = ["--labels", f"train={tmp_path}/a-y.npy", "--labels", f"val={tmp_path}/b-y.npy"]
    ended = headrace("pack", *words, *labels, "--classes", "no,yes")
    assert ended.code == 0, ended.err
    ds = hr.Dataset(tmp_path / "ds")
    assert ds.splits == {"train": 4, "val": 2} and ds.class_counts == {"no": 3, "yes": 3}
    assert sorted(ds.catalog["id"]) == ["2", "3", "train/0", "train/1", "val/0", "val/1"]
    assert ds.manifest.pack_options["value_range"] is None


def test_16_bit_files_by_their_range(tmp_path: Path) -> None:
    content = {f"cat/{k}.png": deep.png16(deep.numbers(most=4095, seed=k)) for k in range(5)}
    root = files(tmp_path / "in", content | {"dog/bright.png": deep.png16(deep.numbers()), "dog/8.jpg": jpeg()})
    ended = headrace("pack", root, tmp_path / "ds", "--max-rejects", 6)
    assert (
        ended.code == 0 and "rejected 6: more than … bits per sample …; convert it to … bits, or pack it" in ended.out
    )
    words = ["--value-range", "0,4095", "--max-rejects", 1, "--overwrite", "--json"]
    found = json.loads(headrace("pack", root, tmp_path / "ds", *words).out)
    assert (found["stored"], found["rejected"]) == (6, 1)
    assert list(found["rejected_by_reason"]) == ["values from … to …, outside of value_range … to …"]
    assert hr.Dataset(tmp_path / "ds").manifest.pack_options["value_range"] == [0, 4095]


def test_verbose_names_rejects_and_files(source: Path, tmp_path: Path) -> None:
    words = ["--pattern", PATTERN, "--format", "names", "--shards", 2, "--json", "--overwrite"]
    ended = headrace("pack", source, tmp_path / "ds", *words, "--verbose")
    assert ended.code == 0 and ended.out.count("\n") == 1
    assert ended.err.splitlines() == [
        f"rejected {source}/cat.99.jpg: empty file (0 bytes) (header)",
        f"{tmp_path}/ds/train-00000-of-00002.tfrecord: 10 records",
        f"{tmp_path}/ds/train-00001-of-00002.tfrecord: 11 records",
    ]
    assert headrace("pack", source, tmp_path / "ds", *words).err == ""  # and nothing stays behind
    # One that fails has named them all the same.
    ended = headrace("pack", source, tmp_path / "no", *words, "--max-rejects", "0", "--verbose")
    assert ended.code == 1 and ended.err.startswith(f"rejected {source}/cat.99.jpg: empty")


def test_adopt_verbose(packed: Path, tmp_path: Path) -> None:
    shards = sorted(packed.glob("*.tfrecord"))
    ended = headrace("adopt", packed, tmp_path / "ds", "--verbose", "--max-pixels", 800, "--max-rejects", 20, "--json")
    rejected = json.loads(ended.out)["rejected"]
    assert ended.code == 0 and 0 < rejected < 21
    lines = ended.err.splitlines()
    assert [line.split(":")[0] for line in lines[rejected:]] == [str(shard) for shard in shards]
    assert all(line.startswith("rejected ") for line in lines[:rejected])
    assert sum(int(line.split()[-2]) for line in lines[rejected:]) == 21 - rejected


def test_info(packed: Path) -> None:
    ended = headrace("info", packed, "--json")
    assert (ended.code, ended.err) == (0, "") and ended.out.count("\n") == 1
    found = json.loads(ended.out)
    shards = list(packed.glob("*.tfrecord"))
    assert len(found.pop("fingerprint")) == 64
    found["equal_images"].pop("near")  # of drawings as smooth as these many look alike
    assert found == {
        "version": 1,
        "records": 21,
        "splits": {"train": 14, "val": 7},
        "classes": {"cat": 10, "dog": 10},
        "multi_label": False,
        "unlabelled": 1,
        "values": None,
        "boxes": 0,
        "boxes_clipped": 0,
        "boxes_dropped": {},
        "keypoints": 0,
        "keypoint_sets": 0,
        "keypoint_names": [],
        "flip_pairs": [],
        "keypoints_dropped": {},
        "shards": len(shards),
        "bytes": sum(path.stat().st_size for path in shards),
        "rejects": 1,
        "image_size": None,
        "channels": 3,
        "equal_images": {name: NO_EQUAL[name] for name in ("images", "sets", "labels", "splits")},
        "missing_classes": {},
        "box_statistics": None,
    }
    ended = headrace("info", packed)
    assert (ended.code, ended.err) == (0, "")
    for line in (
        f"{packed}: 21 records",
        "  splits   train 14, val 7",
        "  classes  cat 10, dog 10",
        "  without a label 1",
        "  rejects  1",
    ):
        assert line in ended.out


def test_info_lists_shards(packed: Path) -> None:
    found = json.loads(headrace("info", packed, "--json", "--shards").out)
    assert len(found["shard_list"]) == found["shards"] == 4
    first = found["shard_list"][0]
    assert first == {
        "file": "train-00000-of-00002.tfrecord",
        "split": "train",
        "records": 7,
        "bytes": (packed / "train-00000-of-00002.tfrecord").stat().st_size,
    }
    assert sum(shard["records"] for shard in found["shard_list"]) == 21
    plain, shown = headrace("info", packed).out, headrace("info", packed, "--shards").out
    assert shown.startswith(plain) and shown.count("\n  shard    ") == 4 and "shard    " not in plain
    assert "  shard    train-00000-of-00002.tfrecord: train, 7 records, " in shown


def test_verify_a_sound_dataset(packed: Path) -> None:
    ended = headrace("verify", packed, "--json")
    assert (ended.code, ended.err) == (0, "") and ended.out.count("\n") == 1
    assert json.loads(ended.out) == {"ok": True, "records": 21, "damaged": []}
    ended = headrace("verify", packed, "--workers", 1)
    assert (ended.code, ended.out, ended.err) == (0, f"{packed}: 21 records, all sound\n", "")


def test_verify_a_damaged_dataset(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "ds"
    assert headrace("pack", source, out, "--pattern", PATTERN).code == 0
    shard = out / "train-00000-of-00001.tfrecord"
    offset = int((out / "train-00000-of-00001.idx").read_text().splitlines()[3].split()[0])
    content = bytearray(shard.read_bytes())
    content[offset + 100] ^= 4
    shard.write_bytes(content)
    ended = headrace("verify", out, "--json")
    assert (ended.code, ended.err) == (1, "") and ended.out.count("\n") == 1
    found = json.loads(ended.out)
    assert set(found) == {"ok", "records", "damaged"} and found["ok"] is False
    (damage,) = found["damaged"]
    assert damage.pop("reason").startswith("payload CRC is 0x")
    assert damage == {"shard": shard.name, "record": 3, "offset": offset + 12}
    ended = headrace("verify", out)
    assert ended.code == 1 and ended.err == ""
    assert f"{shard.name}, record 3, byte {offset + 12}: payload CRC" in ended.out


def test_no_words() -> None:
    ended = headrace()
    assert ended.code in (0, 2) and "Usage:" in ended.out + ended.err


def test_version() -> None:
    assert headrace("--version").out == f"headrace {hr.__version__}\n"


VERBS = [
    *("pack", "cache", "formats", "plan", "publish", "info", "verify", "duplicates", "adopt", "show", "view", "report"),
    *("train", "evaluate", "export", "predict", "demo"),
    *("relabel", "drop", "move", "append", "history", "diff", "undo", "restore", "compact"),
]


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_has_an_example(verb: str | None) -> None:
    ended = headrace(*([verb] if verb else []), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert re.search(rf"Example:\s+headrace\s+{verb or 'pack'}\b", ended.out)
    if verb is None:
        listed = re.findall(r"^  ([a-z]+)  ", ended.out.partition("Commands:")[2], re.MULTILINE)
        assert sorted(listed) == sorted(VERBS)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import headrace", ["numpy", "polars", "cv2", "PIL", "typer"]),
        ("import headrace; headrace.sources; headrace.Record; headrace.HeadraceError", ["polars", "cv2", "PIL"]),
        ("import headrace.cli", ["numpy", "polars", "cv2", "PIL", "simplejpeg"]),
        ("import headrace; headrace.pack; headrace.Dataset; headrace.Loader; headrace.sources", []),
    ],
)
def test_what_an_import_brings(code: str, absent: list[str]) -> None:
    """No framework ever; and a door that opens fast brings no heavy library either."""
    absent = [*absent, "tensorflow", "keras", "torch", "jax", "matplotlib", "tensorflow_datasets"]
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert not [name for name in absent if name in loaded]


def test_as_a_module(packed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "info", packed, "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["records"] == 21 and done.stderr == ""


def test_a_reader_that_goes_away(packed: Path) -> None:
    """`headrace info DS | head -0` is no reason for a traceback."""
    done = subprocess.run(
        f"{sys.executable} -m headrace info {packed} --json | true",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


# Names as in a folder that somebody made for the terminal of whoever packs it.
ATTACKS = {
    "a\x1b[31mred": r"a\x1b[31mred",
    "b\x1b]0;title\x07": r"b\x1b]0;title\x07",
    "c\x9b2J": r"c\x9b2J",
    "d\u202egpj.exe": r"d\u202egpj.exe",
    "e\x0bover\x08\x7f": r"e\x0bover\x08\x7f",
    "ü猫\t": "ü猫\t",
}
CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_no_control_character_reaches_the_terminal(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ATTACKS:
        files(source / name, {f"{name[:2]}{i}.jpg": jpeg() for i in range(3)} | {f"bad{name}.jpg": b"no image"})
    out = tmp_path / "out\x1b[2J"
    packing = headrace("pack", source, out, "--format", "folders", "--max-rejects", "50%", "--verbose")
    info, again = headrace("info", out), headrace("pack", source, out, "--format", "folders")
    nothing = headrace("info", tmp_path / "no\x1b[2J\rwhere")
    assert [ended.code for ended in (packing, info, again, nothing)] == [0, 0, 2, 2]
    for shown in ATTACKS.values():
        assert shown in packing.out and shown in info.out and f"bad{shown}" in packing.err
    assert r"no\x1b[2J\x0dwhere: no such folder" in nothing.err and r"out\x1b[2J: holds a dataset" in again.err
    for ended in (packing, info, again, nothing):
        assert not CONTROLS.search(ended.out + ended.err)
    assert headrace("pack", source, out, "--\x1b[2J").err.count(r"\x1b[2J")
    # What programs read is as it was.
    assert list(json.loads(headrace("info", out, "--json").out)["classes"]) == sorted(ATTACKS)


def test_no_control_character_reaches_the_terminal_of_a_process(tmp_path: Path) -> None:
    """With streams as a shell makes them, whatever their encoding; and a warning of the library."""
    files(tmp_path / "source", {f"a\x1b[31mred/{i}.jpg": jpeg() for i in range(3)})
    for encoding in ("utf-8", "ascii"):
        out = tmp_path / encoding
        done = subprocess.run(
            [sys.executable, "-m", "headrace", "pack", tmp_path / "source", out, "--format", "folders"],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        assert rb"a\x1b[31mred" in done.stdout and b"\x1b" not in done.stdout + done.stderr


def test_a_progress_bar_is_drawn_over_and_over() -> None:
    err = io.StringIO()
    with contextlib.redirect_stderr(err), safe_output(), bar(total=2, unit="img", desc="pack", show=True) as shown:
        shown.update(2)
        sys.stderr.writelines(["\x1b[2J"])
    assert "\rpack:" in err.getvalue() and "\x1b" not in err.getvalue() and r"\x1b[2J" in err.getvalue()


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_a_dataset_that_was_caught_between_two_renames_is_pointed_to(verb: str, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / ".ds.replaced-0123abcd")
    ended = headrace(verb, tmp_path / "ds")
    wanted = f"the dataset that stood there is {tmp_path}/.ds.replaced-0123abcd: rename it to {tmp_path}/ds"
    assert (ended.code, ended.err) == (2, f"headrace: {tmp_path}/ds: no such folder; {wanted}\n")
