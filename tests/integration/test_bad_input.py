"""What the issue calls bad input: one clear line, the exit code of the contract, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import PIL
import pytest

import headrace as hr
from command import headrace
from drawn import files, image, jpeg, photos, saved

PATTERN = r"^(?P<label>cat|dog)\."
NAMES = ("--format", "names", "--pattern", PATTERN)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", 10)


def everything(folder: Path) -> dict[str, bytes | None]:
    """All that lies in a folder, hidden things too; folders as None."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        # The call is at fault: 2
        (["missing", "out"], 2, "missing: no such file or folder"),
        (["missing", "out", *NAMES], 2, "missing: no such folder"),
        (["missing", "out", "--format", "folders"], 2, "missing: no such folder"),
        (["photos/cat.0.jpg", "out"], 2, "no format reads this file; pass --format NAME, one of "),
        (["photos/cat.0.jpg", "out", *NAMES], 2, "photos/cat.0.jpg: is a file, wanted a folder of images"),
        (["photos", "out", "--format", "names"], 2, "--format names needs --pattern"),
        (["photos", "out", "--format", "names", "--pattern", "cat"], 2, "pattern 'cat' has no group 'label'"),
        (["photos", "out", "--format", "names", "--pattern", "(cat"], 2, "is no regular expression: missing )"),
        (["photos", "out", "--format", "xml"], 2, "--format is 'xml', wanted one of files, names, folders"),
        (
            ["photos", "out"],
            2,
            "photos: this looks like images whose names tell the class: cat (5), dog (5); pass --pattern ",
        ),
        (["photos", "out", *NAMES, "--split", "train=0.9,val=0.2"], 2, "fractions of the splits sum to 1.1, wanted 1"),
        (["photos", "out", *NAMES, "--split", "train=0.5"], 2, "fractions of the splits sum to 0.5, wanted 1"),
        (["photos", "out", *NAMES, "--split", "train=0.96,val=0.04"], 2, "0.04 of 10 records is none; give it more"),
        (["photos", "out", *NAMES, "--unlabelled", "drop"], 2, "unlabelled is 'drop', wanted keep or reject"),
        (["photos", "out", *NAMES, "--classes", "cat,cat"], 2, "class names cat, cat: one occurs twice"),
        (["photos", "out", *NAMES, "--shards", "2", "--shard-size", "1MB"], 2, "give shards or a shard size, not both"),
        (["photos", "photos", *NAMES, "--overwrite"], 2, "photos: is a folder with other files in it"),
        (["photos", "photos/cat.0.jpg", *NAMES], 2, "cat.0.jpg: exists and is no folder; choose another place"),
        (["photos", "photos/cat.0.jpg/out", *NAMES], 2, "cat.0.jpg: file exists"),
        (["photos", "/proc/out", *NAMES], 2, "no such file or directory"),
        # The data is at fault: 1
        (["empty", "out"], 1, "empty: holds no images"),
        (["empty", "out", *NAMES], 1, "empty: holds no images"),
        (["empty", "out", "--format", "folders"], 1, "empty: holds no images"),
        (["texts", "out"], 1, "texts: holds no images"),
        (["texts", "out", *NAMES], 1, "texts: holds no images (passed over: 2 .txt)"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_one_clear_line_and_nothing_written(
    words: list[str], code: int, says: str, as_json: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    files(tmp_path / "texts", {"a.txt": b"", "b.txt": b""})
    before = everything(tmp_path)
    ended = headrace("pack", *words, *(["--json"] if as_json else []))
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith("headrace: ") and ended.err.count("\n") == 1
    assert says in ended.err
    assert everything(tmp_path) == before


# name: (bytes, reason as counted over all)
DEEP = "more than … bits per sample …; convert it to … bits, or pack it with value_range, its values of black and white"
BAD = {
    "cat.90.jpg": (b"", "empty file …"),
    "cat.91.jpg": (b"<!doctype html><html>404 Not found</html>", "not an image: an HTML page"),
    "cat.92.jpg": (jpeg(200, 200)[:1800], "truncated JPEG …"),
    "cat.93.jpg": (
        jpeg(8, 8).replace(b"\x08\x00\x08\x00\x08\x03", b"\x08\x75\x30\x75\x30\x03"),
        "… x … pixels are over the limit of … …",
    ),
    "cat.94.png": (saved(image(mode="I;16"), "PNG"), DEEP),
    "cat.95.gif": (b"GIF89a", "corrupt GIF …"),
}


def test_bad_files_are_rejects_with_their_reasons_and_the_rest_is_packed(source: Path, tmp_path: Path) -> None:
    files(source, {name: data for name, (data, _) in BAD.items()})
    out = tmp_path / "out"
    ended = headrace("pack", source, out, *NAMES, "--max-rejects", 6, "--json")
    assert (ended.code, ended.err) == (0, "")
    report = json.loads(ended.out)
    assert (report["seen"], report["stored"], report["rejected"]) == (16, 10, 6)
    assert set(report["rejected_by_reason"]) == {reason for _, reason in BAD.values()}
    lines = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == set(BAD)
    assert len({line["reason"] for line in lines}) == 6
    assert any("30000 x 30000 pixels" in line["reason"] for line in lines)
    assert json.loads(headrace("verify", out, "--json").out)["ok"]


def test_too_many_rejects(source: Path, tmp_path: Path) -> None:
    files(source, {name: data for name, (data, _) in BAD.items()})
    before = everything(tmp_path)
    ended = headrace("pack", source, tmp_path / "out", *NAMES)
    assert (ended.code, ended.out) == (1, "")
    first, *rest = ended.err.splitlines()
    assert re.match(r"headrace: \d of 16 records are rejected, 1 are allowed \(--max-rejects\); nothing was", first)
    assert len(rest) == int(first.split()[1]) > 1 and all(line.startswith(f"  {source}/cat.9") for line in rest)
    assert everything(tmp_path) == before


def test_an_existing_dataset_is_refused_without_overwrite(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert headrace("pack", source, out, *NAMES).code == 0
    before = everything(tmp_path)
    ended = headrace("pack", source, out, *NAMES, "--seed", 1)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"headrace: {out}: holds a dataset already; pass --overwrite to replace it\n"
    assert everything(tmp_path) == before
    assert headrace("pack", source, out, *NAMES, "--seed", 1, "--overwrite").code == 0
    assert everything(out)["catalog.parquet"] != before["out/catalog.parquet"]


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_what_is_no_dataset(verb: str, source: Path, tmp_path: Path) -> None:
    for path, says in (
        (tmp_path / "none", "no such folder"),
        (source, "not a packed dataset (it has no headrace.json); make one with 'headrace pack'"),
        (source / "cat.0.jpg", ""),
    ):
        ended = headrace(verb, path, "--json")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"headrace: {path}") and ended.err.count("\n") == 1
        assert says in ended.err


def apart(*words: str | Path, preexec: object = None, unprivileged: bool = False) -> subprocess.CompletedProcess[str]:
    """`headrace WORDS...` in a process of its own, for which permissions count even when root runs the tests."""
    command = [sys.executable, "-m", "headrace", *map(str, words)]
    if unprivileged and os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("run by root, and without setpriv to give its powers up")
        powers = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, preexec_fn=preexec)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("closed", "mode", "words", "says"),
    [
        ("photos", 0o000, ["photos", "out", *NAMES], "photos: permission denied"),
        ("photos", 0o000, ["photos", "out"], "photos: permission denied"),
        ("there", 0o555, ["photos", "there/out", *NAMES], "permission denied"),
        ("there", 0o000, ["photos", "there/out", *NAMES], "permission denied"),
    ],
)
def test_no_permission(closed: str, mode: int, words: list[str], says: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    before = everything(tmp_path)
    (tmp_path / closed).chmod(mode)
    try:
        done = apart("pack", tmp_path / words[0], tmp_path / words[1], *words[2:], unprivileged=True)
    finally:
        (tmp_path / closed).chmod(0o755)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("headrace: ") and done.stderr.count("\n") == 1
    assert says in done.stderr
    assert everything(tmp_path) == before


def test_a_file_without_permission_is_a_reject(source: Path, tmp_path: Path) -> None:
    (source / "cat.0.jpg").chmod(0)
    done = apart("pack", source, tmp_path / "out", *NAMES, "--json", unprivileged=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["rejected_by_reason"] == {"permission denied": 1}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 kB, which only root can have made."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small file system can't be mounted here: {made.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("shards", [1, 9])
@pytest.mark.parametrize("old", [False, True])
def test_a_full_disk(old: bool, shards: int, small_disk: Path, tmp_path: Path) -> None:
    few, many = photos(tmp_path / "few", 4), photos(tmp_path / "many", 40, side=160)
    out = small_disk / "out"
    if old:
        assert headrace("pack", few, out, *NAMES).code == 0
    before = everything(small_disk)
    ended = headrace("pack", many, out, *NAMES, "--overwrite", "--shards", shards)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"headrace: {out}") and ended.err.count("\n") == 1
    assert "no space left on device; nothing was published" in ended.err
    assert everything(small_disk) == before
    if old:
        assert hr.Dataset(out).verify().ok


@pytest.mark.parametrize(
    ("shards", "limit", "file"),
    [
        (1, 100, "train-00000-of-00001.tfrecord"),
        (10, 100, "train-00000-of-00010.tfrecord"),
        (10, 4000, "catalog.parquet"),
    ],
)
def test_files_may_not_grow(shards: int, limit: int, file: str, source: Path, tmp_path: Path) -> None:
    """As by a quota, which strikes at the first file that is too large."""
    out = tmp_path / "out"
    assert headrace("pack", source, out, *NAMES, "--shards", shards).code == 0
    too_large = [path.name for path in out.iterdir() if path.stat().st_size > limit]
    assert file in too_large and (limit == 100 or "train-00000-of-00010.tfrecord" not in too_large)
    before = everything(tmp_path)
    done = apart(
        "pack",
        source,
        out,
        *NAMES,
        "--overwrite",
        "--shards",
        str(shards),
        preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "file too large; nothing was published" in done.stderr and done.stderr.count("\n") == 1
    assert everything(tmp_path) == before


def test_odd_metadata_is_not_spoken_of(source: Path, tmp_path: Path) -> None:
    """Pillow warns of it on lines of its own; a script that reads standard error would stumble over them."""
    block = image().getexif()
    block[0x010E] = "a description of some length"
    damaged = bytearray(saved(image(), "TIFF", exif=block))
    at = damaged.index(b"\x0e\x01\x02\x00")  # tag 270, ASCII: now longer than the file
    damaged[at + 4 : at + 8] = b"\xff\xff\xff\x00"
    cut = bytearray(jpeg(exif=block))
    at = cut.index(b"Exif\0\0") + 6
    cut[at + 8] = 200  # an IFD of many more tags than there are
    files(source, {"cat.80.tif": bytes(damaged), "dog.81.jpg": bytes(cut)})
    done = apart("pack", source, tmp_path / "out", *NAMES, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    refused = int(PIL.__version__.partition(".")[0]) < 13  # the TIFF, by older versions of Pillow
    assert json.loads(done.stdout)["stored"] == 12 - refused


def test_names_that_are_no_utf8(source: Path, tmp_path: Path) -> None:
    """In the folder's own name too: what is printed and written stays readable."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff"))
    try:
        shutil.copytree(source, root)
        Path(os.fsdecode(os.fsencode(root) + b"/cat.\xfe.jpg")).write_bytes(jpeg())
    except OSError as error:
        pytest.skip(f"this file system takes no such names: {error}")
    (root / "cat.70.jpg").write_bytes(b"")
    out = root / "out"
    done = apart("pack", root, out, *NAMES, "--json", "--max-rejects", "2")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["stored"], report["rejected"]) == (10, 2) and report["out"] == str(out)
    lines = [json.loads(line) for line in (out / "rejects.jsonl").read_text("utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["cat.70.jpg", r"cat.\xfe.jpg"]
    assert lines[0]["origin"] == str(root / "cat.70.jpg")
    done = apart("verify", out)
    assert done.returncode == 0 and r"b\udcff/out: 10 records, all sound" in done.stdout
