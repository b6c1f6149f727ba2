"""WIDER FACE text files become records: what a file says, and what is made of one that is not as it should be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drawn import files
from headrace import sources
from headrace.errors import DataError, NotThereError, UsageError
from headrace.record import Record, Reject
from headrace.sources.info import SourceInfo, collect
from headrace.sources.registry import FORMATS, guess
from headrace.sources.wider import ATTRIBUTES

A = "p/a.jpg\n1\n1 2 10 20 2 1 1 0 2 1 \n"
B = "p/b.jpg\n2\n3 4 5 6 0 0 0 1 0 0 \n7 8 9 10 1 0 0 0 0 0 \n"
C = "p/c.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n"
ZEROS = "0 0 0 0 0 0 0 0 0 0\n"
ROW = "1 2 3 4 0 0 0 0 0 0\n"


def source(folder: Path, text: str | bytes, **options: Any) -> Any:
    """The source of `text`, beside images a to e in the folder p. A source doesn't look into them."""
    files(folder / "images", dict.fromkeys((f"p/{name}.jpg" for name in "abcde"), b""))
    files(folder, {"wider.txt": text if isinstance(text, bytes) else text.encode()})
    return sources.wider(folder / "wider.txt", images=folder / "images", **options)


def gist(items: Any) -> list[str]:
    """Of a Record its id and number of boxes, of a Reject its id and line."""
    return [
        f"{item.id} {len(item.boxes)}" if isinstance(item, Record) else f"{item.id} :{item.origin.rpartition(':')[2]}"
        for item in items
    ]


def to_the_fault(made: Any) -> tuple[list[str], str | None]:
    """All that comes, and the error that ends it."""
    items = []
    try:
        for item in made:
            items.append(item)
    except DataError as error:
        return gist(items), str(error)
    return gist(items), None


def test_a_record(tmp_path: Path) -> None:
    made = source(tmp_path, A + B)
    first, second = made
    assert (first.id, first.origin) == ("p/a.jpg", "wider.txt:1")
    assert first.path == str(tmp_path / "images" / "p" / "a.jpg")
    assert (first.label, first.label_name, first.encoded, first.keypoints) == (None, None, None, None)
    assert first.boxes.dtype == np.float32
    assert first.boxes.tolist() == [[1, 2, 11, 22]]
    assert first.box_labels == ("face",)
    assert list(first.attributes) == list(ATTRIBUTES)
    assert {name: value[0] for name, value in first.attributes.items()} == {
        "blur": 2,
        "expression": 1,
        "illumination": 1,
        "invalid": 0,
        "occlusion": 2,
        "pose": 1,
    }
    assert (second.id, second.origin) == ("p/b.jpg", "wider.txt:4")
    assert second.boxes.tolist() == [[3, 4, 8, 10], [7, 8, 16, 18]]
    assert second.attributes["invalid"] == [1, 0] and second.attributes["blur"] == [0, 1]
    assert second.box_labels == ("face", "face")
    assert collect(made)[1] == SourceInfo(root=str(made.root))


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        # FORMATS.md section 5: a count of 0 and a row of zeros; a count of 1 and a row of zeros
        ("p/a.jpg\n0\n" + ZEROS, 0),
        ("p/a.jpg\n1\n" + ZEROS, 0),
        # without the row of zeros, with several, with nothing after
        ("p/a.jpg\n0\n", 0),
        ("p/a.jpg\n0", 0),
        ("p/a.jpg\n00\n" + 3 * ZEROS, 0),
        # no face is left, which is a loss and is counted
        ("p/a.jpg\n2\n" + 2 * ZEROS, 2),
        ("p/a.jpg\n1\n5 5 0 3 0 0 0 0 0 0\n", 1),
        ("p/a.jpg\n3\n5 5 3 0 0 0 0 0 0 0\n5 5 -3 9 0 0 0 0 0 0\n5 5 9 -1 0 0 0 0 0 0\n", 3),
    ],
)
@pytest.mark.parametrize("then", ["", B])
def test_images_without_faces(text: str, dropped: int, then: str, tmp_path: Path) -> None:
    made = source(tmp_path, text + ("" if text.endswith("\n") else "\n") * bool(then) + then)
    first, *rest = made
    assert gist(rest) == (["p/b.jpg 2"] if then else [])
    assert first.boxes.shape == (0, 4) and first.boxes.dtype == np.float32
    assert first.box_labels == () and first.attributes == {name: [] for name in ATTRIBUTES}
    assert collect(made)[1].boxes_dropped == ({"without width or height": dropped} if dropped else {})


def test_faces_that_are_dropped_take_their_attributes_along(tmp_path: Path) -> None:
    rows = "1 1 5 5 0 0 0 0 0 0\n1 1 0 5 1 1 1 1 1 1\n2 2 5 5 2 0 0 0 0 0\n1 1 5 -5 1 1 1 1 1 1\n"
    made = source(tmp_path, f"p/a.jpg\n4\n{rows}")
    for _ in range(2):  # counted anew each time
        (record,) = made
        assert record.boxes.tolist() == [[1, 1, 6, 6], [2, 2, 7, 7]]
        assert record.attributes == {name: [0, 0] for name in ATTRIBUTES} | {"blur": [0, 2]}
        assert record.box_labels == ("face", "face")
        assert collect(made)[1].boxes_dropped == {"without width or height": 2}


FACES = (
    "p/a.jpg\n3\n0 0 10 20 0 0 0 0 0 0\n0 0 20 9 0 0 0 1 0 0\n0 0 0 9 0 0 0 1 0 0\n"
    "p/b.jpg\n1\n0 0 9 9 0 0 0 1 0 0\n"
    "p/c.jpg\n0\n"
)


@pytest.mark.parametrize(
    ("options", "wanted", "dropped"),
    [
        ({}, ["p/a.jpg 2", "p/b.jpg 1", "p/c.jpg 0"], {"without width or height": 1}),
        # an image whose faces are all dropped stays
        (
            {"skip_invalid": True},
            ["p/a.jpg 1", "p/b.jpg 0", "p/c.jpg 0"],
            {"without width or height": 1, "invalid": 2},
        ),
        (
            {"min_side": 10},
            ["p/a.jpg 1", "p/b.jpg 0", "p/c.jpg 0"],
            {"without width or height": 1, "a side under 10 pixels": 2},
        ),
        ({"min_side": 9}, ["p/a.jpg 2", "p/b.jpg 1", "p/c.jpg 0"], {"without width or height": 1}),
        ({"min_side": 0}, ["p/a.jpg 2", "p/b.jpg 1", "p/c.jpg 0"], {"without width or height": 1}),
        # a row without extent is no face, and what is left out altogether drops none
        ({"max_faces": 2}, ["p/a.jpg 2", "p/b.jpg 1", "p/c.jpg 0"], {"without width or height": 1}),
        ({"max_faces": 1}, ["p/b.jpg 1", "p/c.jpg 0"], {}),
        ({"max_faces": 0}, ["p/c.jpg 0"], {}),
        # a crowd stays a crowd, however small its faces
        ({"max_faces": 1, "min_side": 10}, ["p/b.jpg 0", "p/c.jpg 0"], {"a side under 10 pixels": 1}),
        # each is counted once
        (
            {"min_side": 10, "skip_invalid": True},
            ["p/a.jpg 1", "p/b.jpg 0", "p/c.jpg 0"],
            {"without width or height": 1, "invalid": 2},
        ),
    ],
)
def test_filters(options: dict[str, Any], wanted: list[str], dropped: dict[str, int], tmp_path: Path) -> None:
    made = source(tmp_path, FACES, **options)
    for _ in range(2):
        items, info = collect(made)
        assert gist(items) == wanted
        assert info.boxes_dropped == dropped
        left_out = 3 - len(wanted)
        assert info.skipped == ({f"images of more than {options['max_faces']} faces": left_out} if left_out else {})


@pytest.mark.parametrize("name", ["max_faces", "min_side"])
def test_filters_that_are_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{name} is -1, wanted at least 0"):
        source(tmp_path, A, **{name: -1})


@pytest.mark.parametrize(
    "text",
    [
        A + B + C,
        (A + B + C).replace("\n", "\r\n"),
        "\ufeff" + A + B + C,
        "\ufeff" + (A + B + C).replace("\n", "\r\n"),
        (A + B + C).rstrip(),
        # the .bak of the real file ends in 22,144 blank lines
        A + B + C + "\n" * 22_144,
        "\n \n" + A + "\n\t\n" + B.replace("\n", "\n\n") + C,
        (A + B + C).replace(" ", "\t"),
        (A + B + C).replace("\n", " \t\n"),
        (A + B + C).replace("1 2 10 20", "  01  2 0010 20"),
        (A + B + C).replace("p/", "./p//"),
    ],
)
@pytest.mark.parametrize("lenient", [False, True])
def test_spellings_of_the_same(text: str, lenient: bool, tmp_path: Path) -> None:
    made = source(tmp_path, text, lenient=lenient)
    assert gist(made) == ["p/a.jpg 1", "p/b.jpg 2", "p/c.jpg 0"]
    assert [record.boxes.sum() for record in made] == [36, 74, 0]


# What stands between A and B: (text, the lines where it goes wrong, ids of what can't be told, what the error says).
# A has lines 1 to 3.
OUT_OF_STEP = {
    "too few rows": ("p/d.jpg\n3\n" + 2 * ROW, 8, "p/d.jpg", "comes after 2 of the 3 rows that line 5 says"),
    "no row": ("p/d.jpg\n1\n", 6, "p/d.jpg", "the next file name comes after 0 of the 1 rows that line 5 says"),
    "too many rows": ("p/d.jpg\n1\n" + 3 * ROW, 7, "p/d.jpg", "found '1 2 3 4 0 0 0 0 0 0', a row more than the 1 "),
    "a row for no face": ("p/d.jpg\n0\n" + ROW, 6, "p/d.jpg", "a row more than the 0 that line 5 says"),
    "no count": ("p/d.jpg\n", 5, "p/d.jpg", "the next file name comes where the number of faces was wanted"),
    "a row for a count": ("p/d.jpg\n" + ROW, 5, "p/d.jpg", "wanted the number of faces, 0 to 100000"),
    "count -1": ("p/d.jpg\n-1\n" + ROW, 5, "p/d.jpg", "found '-1', wanted the number of faces, 0 to 100000"),
    "count 1_000": ("p/d.jpg\n1_000\n" + ROW, 5, "p/d.jpg", "found '1_000', wanted the number"),
    "count 1e3": ("p/d.jpg\n1e3\n" + ROW, 5, "p/d.jpg", "found '1e3', wanted"),
    "count 1.0": ("p/d.jpg\n1.0\n" + ROW, 5, "p/d.jpg", "found '1.0', wanted"),
    "count +1": ("p/d.jpg\n+1\n" + ROW, 5, "p/d.jpg", "found '+1', wanted"),
    "count 10^9": ("p/d.jpg\n1000000000\n" + ROW, 5, "p/d.jpg", "found '1000000000', wanted"),
    "count 10^999": (f"p/d.jpg\n1{'0' * 999}\n" + ROW, 5, "p/d.jpg", "'1000000000000000000000000000000000000000000"),
    "one more than the most": ("p/d.jpg\n100001\n" + ROW, 5, "p/d.jpg", "found '100001', wanted"),
    "digits of another script": ("p/d.jpg\n٣\n" + 3 * ROW, 5, "p/d.jpg", "found '٣', wanted"),
    "NUL for a count": ("p/d.jpg\n\0\n" + ROW, 5, "p/d.jpg", r"found '\x00', wanted"),
    "a name without an extension": ("p/d\n1\n" + ROW, 4, "p/d", "found 'p/d', wanted the name of an image, such as"),
    "an extension alone": ("jpg\n1\n" + ROW, 4, "jpg", "found 'jpg', wanted the name of an image"),
    "text": ("# 3 images follow\n", 4, "# 3 images follow", "found '# 3 images follow', wanted the name of an image"),
    "a name beyond all measure": (
        f"{'d' * 5000}.jpg\n1\n" + ROW,
        4,
        "d" * 4097,
        f"'{'d' * 60}' and more than 4096 bytes,",
    ),
    "a name as far as it is read": (
        f"{'d' * 4093}.jpg.old\n1\n" + ROW,
        4,
        f"{'d' * 4093}.jpg",
        f"'{'d' * 60}' and more than 4096 bytes, wanted the name of an image",
    ),
    "a row beyond all measure": (
        f"p/d.jpg\n1\n{ROW}{' ' * 4096}{ROW}",
        7,
        "p/d.jpg",
        "and more than 4096 bytes, a row more than the 1 that line 5 says",
    ),
}


@pytest.mark.parametrize("name", OUT_OF_STEP)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_out_of_step(name: str, end: str, tmp_path: Path) -> None:
    text, line, id_, says = OUT_OF_STEP[name]
    text = (A + text + B + C).replace("\n", end)
    found, error = to_the_fault(source(tmp_path, text))
    assert found == ["p/a.jpg 1"]
    assert error is not None
    assert error.startswith(f"{tmp_path}/wider.txt:{line}: ") and says in error and "lenient=True" in error
    # It goes on at the next file name, and nothing of what follows is lost or mixed up.
    items = list(source(tmp_path, text, lenient=True))
    assert gist(items) == ["p/a.jpg 1", f"{id_} :{line}", "p/b.jpg 2", "p/c.jpg 0"]
    assert (items[1].origin, items[1].stage) == (f"wider.txt:{line}", "annotation")
    assert says in items[1].reason
    # At the end of the file nothing is lost but this.
    for lenient in (False, True):
        items = list(source(tmp_path, (A + OUT_OF_STEP[name][0]).replace("\n", end), lenient=lenient))
        assert gist(items)[0] == "p/a.jpg 1" and [item.id for item in items[1:]] == [id_]
        assert isinstance(items[1], Reject) and items[1].stage == "annotation"


@pytest.mark.parametrize(
    ("text", "ids", "line", "says"),
    [
        # the real train file: 214 faces are declared, 89 rows follow
        (
            A + "p/b.jpg\n214\n" + 89 * ROW,
            ["p/a.jpg", "p/b.jpg"],
            94,
            "the file ends after 89 of the 214 rows that line 5",
        ),
        (A + "p/b.jpg\n", ["p/a.jpg", "p/b.jpg"], 4, "the file ends where the number of faces was wanted"),
        (A + "p/b.j", ["p/a.jpg", "p/b.j"], 4, "found 'p/b.j', wanted the name of an image"),
        (
            A + "p/b.jpg\n2\n" + ROW + "1 2 3",
            ["p/a.jpg", "p/b.jpg"],
            7,
            "found '1 2 3', wanted ten whole numbers: x y w h",
        ),
        ("hello\n", ["hello"], 1, "found 'hello', wanted the name of an image"),
        ("\0" * 9999, ["'" + r"\x00" * 60 + "' and more than 4096 bytes"], 1, "wanted the name of an image"),
    ],
)
@pytest.mark.parametrize("lenient", [False, True])
def test_the_end_is_missing(text: str, ids: list[str], line: int, says: str, lenient: bool, tmp_path: Path) -> None:
    *records, last = source(tmp_path, text, lenient=lenient)
    assert gist(records) == ["p/a.jpg 1"][: len(ids) - 1]
    assert isinstance(last, Reject)
    assert (last.id, last.origin, last.stage) == (ids[-1], f"wider.txt:{line}", "annotation")
    assert says in last.reason


@pytest.mark.parametrize("lenient", [False, True])
def test_a_file_cut_at_any_byte(lenient: bool, tmp_path: Path) -> None:
    """What was whole stays, and at most one Reject says what is not: but for a cut inside of a number, which is one."""
    text = B + A
    whole = [record.boxes.tolist() for record in source(tmp_path, text)]
    for cut in range(len(text)):
        items = list(source(tmp_path, text[:cut], lenient=lenient))
        rejects = [item for item in items if isinstance(item, Reject)]
        records = [item.boxes.tolist() for item in items if isinstance(item, Record)]
        assert records[:1] == whole[:1] or cut < len(B)
        assert len(rejects) <= 1 and len(items) <= 2
        assert all(boxes in whole for boxes in records)


@pytest.mark.parametrize(
    "row",
    [
        "1 2 3 x 0 0 0 0 0 0",
        "1 2 3 4 0 0 0 0 0",
        "1 2 3 4 0 0 0 0 0 0 0",
        "1 2 3 4",
        "1.5 2 3 4 0 0 0 0 0 0",
        "1 2 3 1_000 0 0 0 0 0 0",
        "1 2 3 4 0 0 0 0 0 nan",
        "1 2 3 ４ 0 0 0 0 0 0",
        "1,2,3,4,0,0,0,0,0,0",
        "1 2 3 4 0 0 0 0 0 0\0",
        "9999999999 2 3 4 0 0 0 0 0 0",
        "1 2 3 9999999999 0 0 0 0 0 0",
        "- 2 3 4 0 0 0 0 0 0",
        "0x1 2 3 4 0 0 0 0 0 0",
        "1" * 5000,
        # a row as far as it is read
        "1 2 3 4 0 0 0 0 0" + " " * 4079 + "567",
        "1" + " " * 5000 + "2 3 4 0 0 0 0 0 0",
    ],
)
@pytest.mark.parametrize("lenient", [False, True])
def test_a_row_that_is_none(row: str, lenient: bool, tmp_path: Path) -> None:
    """The file is still in step: only this image is lost, and never stored with a face too few."""
    text = A + f"p/d.jpg\n4\n{ROW}{row}\n{ROW}?\n" + B
    items = list(source(tmp_path, text, lenient=lenient))
    assert gist(items) == ["p/a.jpg 1", "p/d.jpg :7", "p/b.jpg 2"]
    assert items[1].stage == "annotation"
    assert "wanted ten whole numbers: x y w h blur expression illumination invalid occlusion pose" in items[1].reason
    assert len(items[1].reason) < 250


def test_the_most_faces(tmp_path: Path) -> None:
    (record,) = source(tmp_path, "p/a.jpg\n100000\n" + 100_000 * ROW)
    assert record.boxes.shape == (100_000, 4)


def test_great_and_negative_numbers_are_read(tmp_path: Path) -> None:
    """What lies outside of the image is for packing to say, which knows its size."""
    (record,) = source(tmp_path, "p/a.jpg\n1\n-5 999999999 999999999 7 0 0 0 0 0 0\n")
    assert record.boxes.tolist() == np.array([[-5, 999999999, 999999994, 1000000006]], np.float32).tolist()


@pytest.mark.parametrize(
    ("name", "id_", "reason"),
    [
        ("p/none.jpg", "p/none.jpg", "no such file or directory: "),
        ("none/a.jpg", "none/a.jpg", "no such file or directory: "),
        ("p/a.jpg/a.jpg", "p/a.jpg/a.jpg", "not a directory: "),
        (f"p/{'a' * 300}.jpg", f"p/{'a' * 300}.jpg", "file name too long: "),
        ("p/folder.jpg", "p/folder.jpg", "not a regular file: "),
        ("p/pipe.jpg", "p/pipe.jpg", "not a regular file: "),
        ("p/self.jpg", "p/self.jpg", "too many levels of symbolic links: "),
        ("p/nowhere.jpg", "p/nowhere.jpg", "no such file or directory: "),
        ("../outside/x.jpg", "../outside/x.jpg", "the name leads out of the folder of images"),
        ("p/../../outside/x.jpg", "p/../../outside/x.jpg", "the name leads out"),
        ("p/../p/a.jpg", "p/../p/a.jpg", "the name leads out"),
        ("/etc/x.jpg", "/etc/x.jpg", "the name leads out"),
        ("//etc/x.jpg", "//etc/x.jpg", "the name leads out"),
        ("p/link.jpg", "p/link.jpg", "a link leads out of the folder of images: "),
        ("away/x.jpg", "away/x.jpg", "a link leads out of the folder of images: "),
        ("beside/x.jpg", "beside/x.jpg", "a link leads out of the folder of images: "),
        ("p/\0a.jpg", r"'p/\x00a.jpg'", "the name holds control characters"),
        ("p/\x1b[2Ja.jpg", r"'p/\x1b[2Ja.jpg'", "the name holds control characters"),
        ("p/\udcffa.jpg", r"'p/\\xffa.jpg'", "the name is not UTF-8"),
    ],
)
def test_images_that_cannot_be_taken(name: str, id_: str, reason: str, tmp_path: Path) -> None:
    """Each costs its own image alone, and none is ever looked into outside of the folder of images."""
    files(tmp_path, {"outside/x.jpg": b"", "images-beside/x.jpg": b"", "images/p/folder.jpg/x": b""})
    inside = tmp_path / "images"
    os.mkfifo(inside / "p" / "pipe.jpg")
    (inside / "p" / "self.jpg").symlink_to("self.jpg")
    (inside / "p" / "nowhere.jpg").symlink_to("nothing.jpg")
    (inside / "p" / "link.jpg").symlink_to(tmp_path / "outside" / "x.jpg")
    (inside / "away").symlink_to("../outside")
    (inside / "beside").symlink_to("../images-beside")
    text = (A + f"{name}\n2\n{ROW}{ROW}" + B).encode(errors="surrogateescape")
    items = list(source(tmp_path, text))
    assert gist(items) == ["p/a.jpg 1", f"{id_} :4", "p/b.jpg 2"]
    refused = items[1]
    assert refused.origin == "wider.txt:4" and refused.reason.startswith(reason)
    assert refused.stage == ("read" if reason.endswith(": ") else "annotation")
    str(refused).encode()


def test_links_inside_of_the_folder_are_followed(tmp_path: Path) -> None:
    """And the folder itself may be reached by one."""
    made = source(tmp_path, A + "q/x.jpg\n0\n")
    (tmp_path / "images" / "q").mkdir()
    (tmp_path / "images" / "q" / "x.jpg").symlink_to("../p/b.jpg")
    (tmp_path / "linked").symlink_to("images")
    assert gist(made) == gist(sources.wider(tmp_path / "wider.txt", images=tmp_path / "linked"))
    assert gist(made) == ["p/a.jpg 1", "q/x.jpg 0"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("lenient", [False, True])
def test_utf16(encoding: str, lenient: bool, tmp_path: Path) -> None:
    made = source(tmp_path, (A + B).encode(encoding), lenient=lenient)
    if encoding in ("utf-16", "utf-32"):  # with its mark
        with pytest.raises(DataError, match=r"wider\.txt:1: the file is UTF-16, wanted UTF-8; convert it: iconv"):
            list(made)
    else:
        found, error = to_the_fault(made)
        assert len(found) == 1 and error is None and ":1" in found[0]


def test_an_empty_file(tmp_path: Path) -> None:
    assert list(source(tmp_path, "")) == []
    assert list(source(tmp_path, "\n \n\t\n")) == []


def test_a_name_with_spaces_and_letters_of_any_kind(tmp_path: Path) -> None:
    files(tmp_path / "images", {"0--Ä b/猫 1.JPEG": b""})
    (record,) = source(tmp_path, "0--Ä b/猫 1.JPEG\n1\n" + ROW)
    assert record.id == "0--Ä b/猫 1.JPEG"


def test_calls_that_are_at_fault(tmp_path: Path) -> None:
    source(tmp_path, A)
    with pytest.raises(NotThereError, match=r"none\.txt: no such file"):
        sources.wider(tmp_path / "none.txt", images=tmp_path / "images")
    with pytest.raises(NotThereError, match="none: no such folder"):
        sources.wider(tmp_path / "wider.txt", images=tmp_path / "none")
    with pytest.raises(UsageError, match="is no regular file, wanted the text file"):
        sources.wider(tmp_path, images=tmp_path / "images")
    with pytest.raises(UsageError, match="is a file, wanted a folder of images"):
        sources.wider(tmp_path / "wider.txt", images=tmp_path / "wider.txt")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is no regular file"):
        sources.wider(tmp_path / "pipe", images=tmp_path / "images")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (A, "line 1 names an image, 'p/a.jpg', and line 2 counts its faces"),
        ("\ufeff\r\n" + A.replace("\n", "\r\n"), "line 2 names an image, 'p/a.jpg', and line 3 counts its faces"),
        ("x.png\n0", "line 1 names an image, 'x.png'"),
        # what goes wrong later doesn't make it another format
        ("p/a.jpg\n7\n", "line 1 names an image"),
        # the test split holds names only; other texts
        ("p/a.jpg\np/b.jpg\n", None),
        ("p/a.jpg\n", None),
        ("a.jpg,1,2,30,40,cat\nb.jpg,,,,,\n", None),
        ("0 0.5 0.5 0.2 0.4\n", None),
        ("", None),
        ("\0" * 9999, None),
    ],
)
def test_guess(text: str, says: str | None, tmp_path: Path) -> None:
    path = files(tmp_path, {"some.txt": text.encode()}) / "some.txt"
    if says is not None:
        found, why = guess(path)
        assert found.name == "wider" and why.startswith(says)
    else:
        assert FORMATS["wider"].recognise(path) is None


def repeated(path: Path, text: str, size: int, *, begins: str = "") -> Path:
    """A file of `begins` and then about `size` bytes of `text` over and over."""
    chunk = text * (1 + (1 << 20) // len(text))
    with path.open("w") as file:
        file.write(begins)
        file.writelines([chunk] * (size // len(chunk)))
    return path


def sparse(path: Path, size: int, *, begins: bytes = b"") -> Path:
    """A file of `begins` and then NULs, which takes no place on the disk."""
    with path.open("wb") as file:
        file.write(begins)
        file.truncate(size)
    return path


PEAK = """
import sys
from headrace import sources

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024

images, small, *paths = sys.argv[1:]
read = lambda path: sum(1 for _ in sources.wider(path, images=images, lenient=True))
assert read(small) == 1
base = peak()
counts = [read(path) for path in paths]
print(*counts, peak() - base)
"""


def test_memory_has_a_bound(tmp_path: Path) -> None:
    """Whatever the file: a line, a count, rows or names without end, nothing but blank lines."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc to read the peak of memory from")
    files(tmp_path, {"a.jpg": b"", "small.txt": b"a.jpg\n0\n"})
    paths = {
        sparse(tmp_path / "line", 1 << 28): 1,
        sparse(tmp_path / "row", 1 << 28, begins=b"a.jpg\n999999999\n1 2 "): 1,
        repeated(tmp_path / "rows", ROW, 40_000_000, begins="a.jpg\n999999999\n"): 1,
        repeated(tmp_path / "more", ROW, 40_000_000, begins="a.jpg\n100000\n"): 1,
        repeated(tmp_path / "full", ROW, 0, begins="a.jpg\n100000\n" + 100_000 * ROW.replace("0", "999")): 1,
        repeated(tmp_path / "names", f"{'n' * 2000}/a.jpg\n0\n", 80_000_000): 38_000,
        repeated(tmp_path / "blank", " \n", 5_000_000): 0,
    }
    command = [sys.executable, "-c", PEAK, str(tmp_path), str(tmp_path / "small.txt"), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1000)
    *counts, peak = map(int, done.stdout.split())
    assert all(n == least or n > least > 1 for n, least in zip(counts, paths.values(), strict=True)), counts
    assert peak < 64 << 20
