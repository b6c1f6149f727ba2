"""Words of the command line become values; errors and help spell the options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from command import headrace
from drawn import photos
from headrace.cli import app
from headrace.cli.command import spelled
from headrace.cli.options import (
    parse_bytes,
    parse_dataset,
    parse_devices,
    parse_names,
    parse_pairs,
    parse_paths,
    parse_rejects,
    parse_size,
    parse_split,
    parse_weights,
)
from headrace.cli.text import count_reasons
from headrace.errors import UsageError
from headrace.place.address import located
from headrace.record import Reject


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, None),
        ("train=1", {"train": 1.0}),
        ("train=0.8,val=0.2", {"train": 0.8, "val": 0.2}),
        (" train=.81 , val=19e-2", {"train": 0.81, "val": 0.19}),
        # what is no split is told by pack
        ("a=2,b=-1", {"a": 2.0, "b": -1.0}),
    ],
)
def test_parse_split(text: str | None, wanted: Any) -> None:
    assert parse_split(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "train", "train=", "=,", "train=x", "train:0.8", "train=0.8,", "train=0.5 val=0.5"]
)
def test_splits_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--split {text!r}: ")):
        parse_split(text)


def test_a_split_twice() -> None:
    with pytest.raises(UsageError, match="'a' occurs twice"):
        parse_split("a=0.5,a=0.5")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], None),
        (["a"], Path("a")),
        (["/a/train=b"], Path("/a/train=b")),
        (["train=a"], {"train": Path("a")}),
        (["train=a", "val=x=y"], {"train": Path("a"), "val": Path("x=y")}),
        (["not a name=b"], {"not a name": Path("b")}),  # which is told by pack
    ],
)
def test_parse_paths(given: list[str], wanted: Any) -> None:
    assert parse_paths(given, "SOURCE") == wanted


def test_what_is_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train=a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_paths(["train=a"], "SOURCE") == Path("train=a")
    assert parse_paths(["train=b"], "SOURCE") == {"train": Path("b")}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["a", "b"], "SOURCE: a, b: wanted one path, or all of them as SPLIT=PATH"),
        (["a", "val=b"], "SOURCE: a, val=b: wanted one path"),
        (["x=a", "x=b"], "SOURCE: split 'x' occurs twice, with a and b"),
    ],
)
def test_paths_that_are_none(given: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse_paths(given, "SOURCE")


@pytest.mark.parametrize(("text", "wanted"), [(None, None), ("160", 160), ("120x160", (120, 160)), ("0", 0)])
def test_parse_size(text: str | None, wanted: Any) -> None:
    assert parse_size(text) == wanted


def test_parse_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there:train").mkdir()
    for text, path, split in [
        ("cats:train", "cats", "train"),
        ("a/b:c/cats:val_2", "a/b:c/cats", "val_2"),
        ("there:train", "there:train", None),  # a path that exists is meant as it stands
        ("there:train:train", "there:train", "train"),
        ("cats", "cats", None),
        ("s3://bucket/cats", "s3://bucket/cats", None),
        ("s3://bucket/cats:val", "s3://bucket/cats", "val"),
        (r"C:\cats", r"C:\cats", None),
        (":train", ":train", None),
        ("cats:", "cats:", None),
        ("cats:no split", "cats:no split", None),
        ("x" * 5000 + ":val", "x" * 5000, "val"),  # longer than a path may be
    ]:
        assert parse_dataset(text) == (located(path), split)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, None),
        ("balanced", "balanced"),
        ("weight", "weight"),  # the name of a column, or none: the library says
        ("cat=2,dog=.5", {"cat": 2.0, "dog": 0.5}),
        ("a = b=1", {"a = b": 1.0}),  # a class may be called so
        ("cat=-1", {"cat": -1.0}),
    ],
)
def test_parse_weights(text: str | None, wanted: Any) -> None:
    assert parse_weights(text, flag="--sample") == wanted


@pytest.mark.parametrize("text", ["cat=", "cat=many", "=2", "cat=1,dog", "cat=nan", "cat=1,cat=2"])
def test_weights_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--sample '.*': '.*' (is not NAME=NUMBER, as in cat=2,dog=1|occurs twice)"):
        parse_weights(text, flag="--sample")


@pytest.mark.parametrize(
    ("text", "wanted"), [(None, None), ("all", "all"), ("2", 2), ("0", 0), ("0,1", (0, 1)), ("3,", (3,))]
)
def test_parse_devices(text: str | None, wanted: Any) -> None:
    assert parse_devices(text) == wanted


@pytest.mark.parametrize("text", ["", "-1", "1.5", "gpu:0", ",", "0,,1", "9" * 5000])
def test_devices_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--devices '.*: wanted how many, all, or numbers such as 0,1$"):
        parse_devices(text)


def test_parse_names_and_pairs() -> None:
    assert parse_names(None) is None
    assert parse_names(" a,b c ,d") == ["a", "b c", "d"]
    assert parse_pairs("1-2, 3-14") == [(1, 2), (3, 14)]


@pytest.mark.parametrize("text", ["", "1", "1-", "1:2", "a-b", "1-2,", "1-2-3"])
def test_pairs_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--flip-pairs {text!r}: wanted pairs of numbers")):
        parse_pairs(text)


@pytest.mark.parametrize("text", ["", "x", "160x", "x160", "-1", "1.5", "1x2x3", "160 x 120", "160px", "１６０"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--size {text!r}: wanted N or HEIGHTxWIDTH in pixels")):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("5", 5),
        (".5kB", 500),
        ("1.KB", 1000),
        ("128MB", 128_000_000),
        ("128 mb", 128_000_000),
        ("1GiB", 2**30),
        ("0.5kb", 500),
        ("1.5MiB", 3 * 2**19),
        ("2GB", 2 * 10**9),
        ("7KiB", 7 * 1024),
    ],
)
def test_parse_bytes(text: str | None, wanted: int | None) -> None:
    assert parse_bytes(text) == wanted


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1TB", "1e9", "1.2.3MB", ".", ".MB", "inf", "1M", f"{10**400}GB"])
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--shard-size {text!r:.60}: wanted a size such as 128MB or 1GiB")):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("10%", 0.1), ("0.1", 0.1), ("25", 25), ("0", 0), ("0%", 0.0), ("100%", 1.0), ("1", 1), ("1.0", 1.0)],
)
def test_parse_rejects(text: str, wanted: float) -> None:
    found = parse_rejects(text)
    assert found == pytest.approx(wanted) and type(found) is type(wanted)


@pytest.mark.parametrize("text", ["", "%", "few", "1,5", "10 percent", "²"])
def test_patience_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--max-rejects {text!r}: wanted a share such as 10% or a count")):
        parse_rejects(text)


def test_reasons_are_counted_by_kind() -> None:
    reasons = [
        "300 x 200 pixels are over the limit of 5 (max_pixels)",
        "truncated JPEG (Premature end of JPEG file)",
        "12 x 1000 pixels are over the limit of 5 (max_pixels)",
        "class 'a' is none of the given b, c",
        "truncated JPEG (image file is truncated (7 bytes not processed))",
        "class 'it' is none of the given b, c",
        "truncated JPEG (x)",
    ]
    rejects = [Reject(id="", origin="", stage="", reason=reason) for reason in reasons]
    assert list(count_reasons(rejects).items()) == [
        ("truncated JPEG …", 3),
        ("… x … pixels are over the limit of … …", 2),
        ("class … is none of the given b, c", 2),
    ]


# --- how errors and help spell options -------------------------------------------------------------------------------

FLAGS = {
    "overwrite": "--overwrite",
    "max_rejects": "--max-rejects",
    "class_names": "--classes",
    "images": "--images",
    "size": "--size",
    "pattern": "--pattern",
    "format": "--format",
    "split": "--split",
    "map": "--map",
}


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("out: holds a dataset already; pass overwrite=True to replace it", "pass --overwrite to replace it"),
        ("go on with it (overwrite=True), or not", "go on with it (--overwrite), or not"),
        ("pass overwrite=True", "pass --overwrite"),
        ("pass overwrite=True.", "pass --overwrite."),
        ("pass overwrite=True; or class_names=NAMES.", "pass --overwrite; or --classes NAMES."),
        ("pass images=DIR, where they are", "pass --images DIR, where they are"),
        ("needs pattern='^(?P<label>a b)' here", "needs --pattern '^(?P<label>a b)' here"),
        ("take size=224, max_rejects=0.5 or max_rejects=-1", "take --size 224, --max-rejects 0.5 or --max-rejects -1"),
        ("5 are allowed (max_rejects); no more", "5 are allowed (--max-rejects); no more"),
        ("size is 0, wanted more", "--size is 0, wanted more"),
        ("max_rejects is nan", "--max-rejects is nan"),
        (r"needs pattern='^\\d \\.' here", r"needs --pattern '^\d \.' here"),
        ("pass format='coco'", "pass --format coco"),
        ("pass class_names=['a', 'b c'], in", "pass --classes 'a,b c', in"),
        ("perhaps: map={'image': 'jpg', 'label': 'a b'}\nor", "perhaps: --map image=jpg --map 'label=a b'\nor"),
        ("map={'image': 'x'}: no such key", "--map image=x: no such key"),
        ("pass map={'boxes': 'KEY:xyxy'} or", "pass --map boxes=KEY:xyxy or"),
        # What is none of the verb's options stays as it is,
        ("pass labels='keep' or label_key=NAME", "pass labels='keep' or label_key=NAME"),
        ("the size is 0", "the size is 0"),
        ("the class (names) is not images", "the class (names) is not images"),
        # and so do paths, and what is of some other kind of text.
        ("/data/split=train/size=224: no such folder", "/data/split=train/size=224: no such folder"),
        ("size=224: no such folder", "size=224: no such folder"),
        ("in size=224/cats nothing", "in size=224/cats nothing"),
        ("in a/size=224 nothing", "in a/size=224 nothing"),
        ("--split split=0.5 is", "--split --split 0.5 is"),
        ("a split=train b", "a split=train b"),
        ("resize=224 and oversize=3", "resize=224 and oversize=3"),
        ("images were size", "images were size"),
    ],
)
def test_errors_spell_options(said: str, wanted: str) -> None:
    found = spelled(said, FLAGS)
    assert found.endswith(wanted)
    assert spelled(said, {}) == said


def test_an_error_of_a_verb_says_what_is_typed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "headrace.json").write_text("{}")
    photos(tmp_path / "in", 4)
    words = ["--pattern", "^(?P<label>cat|dog)"]
    ended = headrace("pack", tmp_path / "in", tmp_path / "out", *words)
    assert (ended.code, ended.err.splitlines()[-1]) == (
        2,
        f"headrace: {tmp_path}/out: holds a dataset already; pass --overwrite to replace it",
    )
    ended = headrace("pack", tmp_path / "in", tmp_path / "new", *words, "--classes", "cat,cow", "--max-rejects", "0")
    assert ended.code == 1 and "0 are allowed (--max-rejects)" in ended.err


VERBS = [
    "pack",
    "plan",
    "pack-part",
    "publish",
    "cache",
    "formats",
    "info",
    "verify",
    "adopt",
    "show",
    "train",
    "evaluate",
    "predict",
    "demo",
]


@pytest.mark.parametrize("verb", VERBS)
def test_help_for_strangers(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value has a name; no type of Python's is shown; a line of an example can be copied."""
    monkeypatch.setenv("COLUMNS", "100")
    shown = headrace(verb, "--help").out
    assert not re.search(r"<[a-z\[\]]+>|list\[", shown.partition("Example:")[0])
    params: list[Any] = get_command(app).commands[verb].params  # type: ignore[attr-defined]
    assert [param.name for param in params if param.metavar is None and not getattr(param, "is_flag", False)] == []
    examples = shown.partition("Example:\n")[2].splitlines()
    assert examples and all(line.startswith(f"  headrace {verb} ") for line in examples)
    assert max(map(len, shown.partition("Example:")[0].splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "at", "wanted"),
    [("headrace pac", 1, "pack pack-part"), ("headrace pack --form", 2, "--format"), ("headrace ver", 1, "verify")],
)
def test_a_shell_completes(words: str, at: int, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_HEADRACE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(at))
    assert headrace().out.split() == wanted.split()
