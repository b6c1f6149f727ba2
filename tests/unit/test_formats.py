"""The registry of formats: each says truly what it takes, and the command line is made of what it says."""

from __future__ import annotations

import inspect
import json
import shlex
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from command import headrace
from drawn import files, jpeg
from headrace.cli import formats, pack
from headrace.cli.options import flag_of
from headrace.errors import UsageError
from headrace.sources import registry
from headrace.sources.formats import Format, Option
from headrace.sources.registry import FORMATS, find_format, guess

EVERY = pytest.mark.parametrize("entry", FORMATS.values(), ids=FORMATS)
ONE = '{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [], "annotations": []}'


@EVERY
def test_options_are_the_arguments(entry: Format) -> None:
    """By name, default, choices, and what is required; those left out are for Python alone."""
    _, *arguments = inspect.signature(entry.make).parameters.values()
    known = {argument.name: argument for argument in arguments}
    assert [option.name for option in entry.options if option.name not in known] == []
    assert {name for name in known if not entry.option(name)} <= {"ids"}
    for option in entry.options:
        default = known[option.name].default
        assert option.required == (default is inspect.Parameter.empty), option.name
        assert option.required or option.default == default, option.name
        assert not get_args(option.type) or option.default in (None, *get_args(option.type)), option.name
        assert option.help[0].isupper() and option.help.endswith("."), option.name


@EVERY
def test_examples_say_what_is_required(entry: Format) -> None:
    path, options = entry.example
    assert path and set(options) <= {option.name for option in entry.options}
    assert {option.name for option in entry.options if option.required} <= set(options)


def test_options_of_one_name_are_written_alike() -> None:
    """They are one flag of pack."""
    for flag in formats.flags():
        options = [option for entry in FORMATS.values() if (option := entry.option(flag.name))]
        assert len({(str(option.type), option.per_split) for option in options}) == 1, flag.name


PATHS: dict[str, dict[str, bytes]] = {
    "folders": {"in/a/1.jpg": jpeg()},
    "wider": {"in": b"p/a.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"},
    "coco": {"in": ONE.encode()},
    "voc": {"in/Annotations/1.xml": b"<annotation></annotation>", "in/JPEGImages/1.jpg": jpeg()},
    "yolo": {"in/data.yaml": b"names: [cat]", "in/images/1.jpg": jpeg(), "in/labels/1.txt": b"0 .5 .5 .1 .1"},
    "visipedia": {"in": b'[{"filename": "a.jpg", "id": "1"}]'},
    "files": {"in/1.jpg": jpeg()},
    "csv": {"in": b"a.jpg,1,2,3,4,cat\n"},
    "openimages": {"in": b"ImageID,Source,LabelName,Confidence\n1,x,/m/0,1\n"},
    "imagefolder": {"in/1.jpg": jpeg(), "in/metadata.csv": b"file_name,label\n1.jpg,cat\n"},
}


@pytest.mark.parametrize("name", PATHS)
def test_one_format_recognises_a_path(name: str, tmp_path: Path) -> None:
    path = files(tmp_path, PATHS[name]) / "in"
    takes = [entry for entry in FORMATS.values() if entry.takes in ("folder" if path.is_dir() else "file", "either")]
    takes = [
        entry for entry in takes if name == entry.name or entry.name not in ("folders", "files")
    ]  # which come last
    assert [entry.name for entry in takes if entry.recognise(path)] == [name]
    assert guess(path)[0] == FORMATS[name]


def test_an_option_tells_the_format(tmp_path: Path) -> None:
    path = files(tmp_path, PATHS["folders"]) / "in"
    assert guess(path, ["pattern"]) == (FORMATS["names"], "a pattern for file names is given")
    assert guess(path, ["class_names"])[0].name == "folders"


def test_no_such_format() -> None:
    with pytest.raises(UsageError, match="format is 'wide', wanted one of files, names, folders, coco, voc"):
        find_format("wide")


def test_a_format_more_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guessed, listed, its options parsed, and its errors said, by its entry alone."""
    seen: dict[str, Any] = {}

    def lines(path: Path, *, depth: int, roots: Any = None, order: Any = None) -> list[Any]:
        seen.update(path=path, depth=depth, roots=roots, order=order)
        return []

    entry = Format(
        name="lines",
        reads="A file of lines",
        takes="file",
        make=lines,
        recognise=lambda path: "it ends in .lines" if path.suffix == ".lines" else None,
        example=("all.lines", {"depth": 3}),
        options=(
            Option(name="depth", type=int, help="How deep they are.", required=True),
            Option(name="roots", type=Path, help="Where they start.", per_split=True),
            Option(name="order", type=list[str], help="Which come."),
        ),
    )
    monkeypatch.setitem(registry.FORMATS, "lines", entry)
    for made in (formats.flags, pack._all_flags, pack._parameters):
        monkeypatch.setattr(inspect.getmodule(made), made.__name__, made.__wrapped__)  # type: ignore[attr-defined]
    flags = pack._parameters()
    monkeypatch.setattr(pack, "_parameters", lambda: flags)  # the same ones each time, which parsing goes by
    path = files(tmp_path, {"x.lines": b""}) / "x.lines"
    ended = headrace("pack", path, tmp_path / "out", "--depth", 0, "--roots", "r", "--order", "b", "--order", "a")
    assert ended.err.startswith("headrace: taking --format lines: it ends in .lines\n") and ended.code == 1
    assert seen == {"path": path, "depth": 0, "roots": Path("r"), "order": ["b", "a"]}
    ended = headrace("pack", path, tmp_path / "out", "--format", "lines")
    assert ended.err == "headrace: --format lines needs --depth, how deep they are, e.g. --depth 3\n"
    ended = headrace("pack", path, tmp_path / "out", "--depth", "x")
    assert ended.code == 2 and "--depth" in ended.err
    ended = headrace("formats", "lines")
    assert "--roots [SPLIT=]PATH  Where they start." in ended.out
    assert ended.out.endswith("Example:\n  headrace pack all.lines out --format lines --depth 3\n")


# --- on the command line ---------------------------------------------------------------------------------------------


@EVERY
def test_the_page_of_a_format(entry: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (60, 80, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        ended = headrace("formats", entry.name)
        assert (ended.code, ended.err) == (0, "")
        text, _, rest = ended.out.partition("Example:\n  ")  # behind it stands what is written of the format
        assert all(f"  {flag_of(option.name)}" in text for option in entry.options)
        assert max(map(len, text.splitlines())) <= width
    words = shlex.split(rest.splitlines()[0])
    assert words[:2] == ["headrace", "pack"] and words[3:6] == ["out", "--format", entry.name]


@EVERY
def test_formats_in_json(entry: Format) -> None:
    ended = headrace("formats", entry.name, "--json")
    assert (ended.code, ended.err) == (0, "") and ended.out.count("\n") == 1
    found = json.loads(ended.out)
    assert (found["name"], found["reads"], found["takes"]) == (entry.name, entry.reads, entry.takes)
    assert [option["name"] for option in found["options"]] == [option.name for option in entry.options]
    every = json.loads(headrace("formats", "--json").out)
    assert found in every["formats"] and len(every["formats"]) == len(FORMATS)


def test_an_option_in_json() -> None:
    found = {option["name"]: option for option in json.loads(headrace("formats", "coco", "--json").out)["options"]}
    assert found["segmentation"] == {
        "name": "segmentation",
        "flag": "--segmentation",
        "value": "[drop|keep]",
        "choices": ["drop", "keep"],
        "default": "keep",
        "required": False,
        "per_split": False,
        "help": "What becomes of masks: kept, or dropped.",
    }
    assert found["images"]["per_split"] and found["skip_crowd"]["value"] is None


@pytest.mark.parametrize("width", range(60, 101, 5))
def test_the_list_of_formats(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ended = headrace("formats")
    assert (ended.code, ended.err) == (0, "")
    listed = [line.split()[0] for line in ended.out.splitlines() if line[:1].isalpha()]
    assert listed == [*FORMATS, "The"]
    for entry in FORMATS.values():  # whole, wherever a line ends
        assert all(flag_of(option.name) in ended.out for option in entry.options)
    assert ended.out.endswith("The options of one format: headrace formats NAME\n")
    assert headrace("formats", "wide").code == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--format", "wider", "--pattern", "x"], "--pattern is for --format names, the format is wider"),
        (["--max-faces", "3"], "--max-faces is for --format wider, the format is folders"),
        (["--unlabelled", "keep"], "--unlabelled is for --format names, the format is folders"),
        (
            ["--format", "names"],
            "--format names needs --pattern, a regular expression with a group named label, ",
        ),
        (["--format", "names"], r"e.g. --pattern '^(?P<label>cat|dog)'"),
        (
            ["--format", "wider"],
            "--format wider needs --images, the folder that the names in the file start from, e.g. ",
        ),
        (["--format", "xml"], "headrace: --format is 'xml', wanted one of files, names, folders, coco"),
        (["--pattern", "x"], "pattern 'x' has no group 'label'"),
        (["--patern", "x"], "--pattern"),  # near misses are named, of hidden options too
        (["--skip-crowds"], "--skip-crowd"),
        (["--max-faces", "few"], "Invalid value for '--max-faces'"),
        (["--margin", "0", "--format", "folders"], "--margin is for --format coco"),  # 0 is a value
    ],
)
def test_calls_at_fault(words: list[str], says: str, tmp_path: Path) -> None:
    source = files(tmp_path, {"in/a/1.jpg": jpeg()}) / "in"
    ended = headrace("pack", source, tmp_path / "out", *words)
    assert (ended.code, ended.out) == (2, "") and says in ended.err
    assert not (tmp_path / "out").exists()


def test_general_options_have_the_defaults_they_name() -> None:
    from headrace.packing.pack import pack as run

    arguments = inspect.signature(run).parameters
    named = {}
    for flag in pack._FLAGS:
        assert flag.name in arguments
        if (at := flag.help.find("[default ")) >= 0:
            word = flag.help[at + len("[default ") :].rstrip("]")
            named[flag.name] = flag.parse(word) if flag.parse else flag.type(word)
    assert named.pop("shard_size") == 128_000_000
    assert named == {name: arguments[name].default for name in named} and len(named) > 5


@pytest.mark.parametrize("width", [80, 90, 100, 200])
def test_pack_help_is_one_screen(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ended = headrace("pack", "--help")
    assert ended.code == 0 and len(ended.out.splitlines()) <= 40
    assert max(map(len, ended.out.splitlines())) <= width
    assert "headrace formats NAME" in ended.out and "Usage: headrace pack [OPTIONS] SOURCE... OUT" in ended.out
    assert all(flag_of(flag.name) + " " in ended.out.replace("\n", " \n") for flag in pack._FLAGS)
    of_formats = {flag_of(option.name) for entry in FORMATS.values() for option in entry.options}
    shown = {word for word in ended.out.split() if word.startswith("--")}
    assert shown & of_formats == {"--value-range"}


def test_arrays_take_their_own_range_and_the_packer_that_of_files(tmp_path: Path) -> None:
    """One flag, which is an option of a format and a general one."""
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 4)))
    images = files(tmp_path, {"in/a/1.jpg": jpeg()}) / "in"
    general = frozenset({"value_range"})
    _, left = formats.open_sources(tmp_path / "x.npy", "arrays", {"value_range": (0, 1)}, general=general)
    assert left == {}
    _, left = formats.open_sources(images, "folders", {"value_range": (0, 1)}, general=general)
    assert left == {"value_range": (0, 1)}
    _, left = formats.open_sources(
        {"a": tmp_path / "x.npy", "b": images}, None, {"value_range": (0, 1)}, general=general
    )
    assert left == {"value_range": (0, 1)}
