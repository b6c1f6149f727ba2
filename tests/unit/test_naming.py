"""Ids as names of files: safe everywhere, each its own, unchanged where they are good."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.exporting.naming import Names, image_name, safe_part

DIGEST = "[0-9a-f]{8}"


@pytest.mark.parametrize(
    ("id_", "format", "name"),
    [
        # Good names stay as they are, of any alphabet and with any folders; the case of an extension too.
        ("a.jpg", "jpeg", "a.jpg"),
        ("0--Parade/a b.JPEG", "jpeg", "0--Parade/a b.JPEG"),
        ("é/猫.png", "png", "é/猫.png"),
        # The extension is that of the bytes.
        ("a.bmp", "png", "a.png"),
        ("a.jpg", "png", "a.png"),
        ("000", "jpeg", "000.jpg"),
        ("photo.2021", "jpeg", "photo.2021.jpg"),  # no image's: a part of the name
        ("a.jfif", "jpeg", "a.jpg"),  # a JPEG's own, that torchvision and Ultralytics don't take
        ("a", "tiff", "a.tif"),
        # No way out.
        ("../../x.jpg", "jpeg", "__/__/x.jpg"),
        ("..", "png", "_..png"),
        ("/etc/passwd", "png", "etc/passwd.png"),
        ("a//./b.png", "png", "a/b.png"),
        ("/", "png", "image.png"),
        (r"C:\x.png", "png", "C__x.png"),
        (r"\\server\share\x.png", "png", "__server_share_x.png"),
        ("~/x.png", "png", "~/x.png"),  # no shell looks at it
        # Characters that a terminal, a list of names or Windows takes for something else.
        ("a\0b\n\x1b[31m.png", "png", "a_b__[31m.png"),
        ("a\u202egnp.exe.png", "png", "a_gnp.exe.png"),
        ("a\u2028b\x85c.png", "png", "a_b_c.png"),
        ('<img src="x" onerror=1>.png', "png", "_img src=_x_ onerror=1_.png"),
        # Names that Windows reserves, hidden ones and what systems leave behind.
        ("con.jpg", "jpeg", "_con.jpg"),
        ("aux/COM1.tar.png", "png", "_aux/_COM1.tar.png"),
        ("console.png", "png", "console.png"),
        (".hidden/.x.png", "png", "_hidden/_x.png"),
        ("__MACOSX/a.png", "png", "___MACOSX/a.png"),
        (".jpg", "jpeg", "_jpg.jpg"),
        # Ends that Windows drops, and lists of names.
        ("dir. /a .png", "png", "dir__/a .png"),
        (" a.png", "png", "_a.png"),
    ],
)
def test_what_an_id_becomes(id_: str, format: str, name: str) -> None:
    assert image_name(id_, format) == name
    assert image_name(name, format) == name


@pytest.mark.parametrize(
    ("id_", "wanted"),
    [
        ("x" * 300 + ".png", rf"x{{187}}~{DIGEST}\.png"),  # 200 bytes
        ("猫" * 100 + ".png", rf"猫{{62}}~{DIGEST}\.png"),  # never half a character
        ("/".join(["abcd"] * 200) + "/e.png", rf"e~{DIGEST}\.png"),  # too many folders: the last name alone
    ],
)
def test_too_long_names_end_in_a_digest(id_: str, wanted: str) -> None:
    name = image_name(id_, "png")
    assert re.fullmatch(wanted, name), name
    assert name != image_name(id_.replace(".png", "!.png"), "png")


def test_without_dots() -> None:
    assert image_name("v1.2/a.b.jpg", "jpeg", dots=False) == "v1.2/a_b.jpg"


def test_two_ids_of_one_name() -> None:
    names = Names()
    taken = [names.take("", id_, "jpeg") for id_ in ("A.jpg", "a.jpg", "é.jpg", "e\u0301.jpg", "a:b.jpg", "a|b.jpg")]
    assert taken[0] == "A.jpg" and taken[2] == "é.jpg" and taken[4] == "a_b.jpg"
    assert re.fullmatch(rf"a~{DIGEST}\.jpg", taken[1])
    assert re.fullmatch(rf"e\u0301~{DIGEST}\.jpg", taken[3])
    assert re.fullmatch(rf"a_b~{DIGEST}\.jpg", taken[5])
    assert names.take("other", "a.jpg", "jpeg") == "a.jpg"  # another folder


def test_what_stands_beside_an_image_is_its_own_too() -> None:
    names = Names(beside=(".xml",))
    assert names.take("", "a.jpg", "jpeg") == "a.jpg"
    assert re.fullmatch(rf"a~{DIGEST}\.png", names.take("", "a.png", "png"))
    assert Names().take("", "a.png", "png") == "a.png"


def test_a_file_is_no_folder() -> None:
    names = Names(reserved=("table.csv",))
    assert names.take("", "a.jpg", "jpeg") == "a.jpg"
    assert re.fullmatch(rf"a\.jpg_b~{DIGEST}\.jpg", names.take("", "a.jpg/b.jpg", "jpeg"))
    assert re.fullmatch(rf"table\.csv_b~{DIGEST}\.jpg", names.take("", "Table.csv/b.jpg", "jpeg").lower())
    assert names.take("", "dir.jpg/b.jpg", "jpeg") == "dir.jpg/b.jpg"
    assert re.fullmatch(rf"dir~{DIGEST}\.jpg", names.take("", "dir.jpg", "jpeg"))


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=400), unique=True, max_size=8))
def test_any_ids_have_safe_names_of_their_own(ids: list[str]) -> None:
    names = Names(beside=(".txt",))
    taken = [names.take("", id_, "png") for id_ in ids]
    assert len({name.casefold() for name in taken}) == len(ids)
    for name in taken:
        path = PurePosixPath(name)
        assert str(path) == name and not path.is_absolute() and path.suffix == ".png"
        assert len(name.encode()) <= 700
        for part in path.parts:
            assert part not in (".", "..") and part == safe_part(part) and not part.startswith(".")
            assert len(os.fsencode(part)) <= 255 and not re.search(r'[<>:"\\|?*\x00-\x1f\x7f]', part)
