"""The reader of WIDER FACE files, whatever it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amount import examples
from headrace import sources
from headrace.errors import DataError
from headrace.record import Record, Reject
from headrace.sources.info import collect
from headrace.sources.wider import ATTRIBUTES

NAMES = ("a.jpg", "p/b.JPG", "p/c d.png", "0--ü/e.jpeg")
LINES = (
    *(name.encode() for name in NAMES),
    b"none.jpg",
    b"../a.jpg",
    b"/a.jpg",
    b"p/../a.jpg",
    b"x\0.jpg",
    b"\xff.jpg",
    b"p/b",
    b"a" * 4097,
    *(b"0", b"1", b"2", b"3", b"-1", b"1_000", b"1000000000", b"\xd9\xa3", b"1.5"),
    b"0 0 0 0 0 0 0 0 0 0",
    b"1 2 3 4 0 1 0 1 2 0 ",
    b"5 6 0 4 2 0 0 0 0 0",
    b"1 2 3",
    b"x y w h",
    *(b"", b" ", b"\0", b"\xef\xbb\xbf", b"\xff\xfe"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images of NAMES in `in/images`, and one outside of that."""
    folder = tmp_path_factory.mktemp("wider")
    for name in (*NAMES, "../a.jpg"):
        image = folder / "in" / "images" / name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    return folder


def source(root: Path, content: bytes, **options: Any) -> Any:
    (root / "wider.txt").write_bytes(content)
    return sources.wider(root / "wider.txt", images=root / "in" / "images", **options)


def drained(made: Any) -> tuple[list[Record | Reject], str | None]:
    """What comes, and what the error says that ends it."""
    items = []
    try:
        for item in made:
            items.append(item)
    except DataError as error:
        return items, str(error)
    return items, None


def is_sound(item: Record | Reject, made: Any, lines: int) -> bool:
    """Inside of the folder, with all that belongs to a box in step, and told where it comes from."""
    file, _, line = item.origin.rpartition(":")
    if file != "wider.txt" or not 1 <= int(line) <= lines:
        return False
    if isinstance(item, Reject):
        return bool(item.id and item.reason) and item.stage in ("annotation", "read")
    n = len(item.boxes)
    return (
        item.id in NAMES
        and item.path == f"{made.images}/{item.id}"
        and item.boxes.shape == (n, 4)
        and item.boxes.dtype == np.float32
        and bool((item.boxes[:, 2:] > item.boxes[:, :2]).all())
        and item.box_labels == ("face",) * n
        and [len(item.attributes[name]) for name in ATTRIBUTES] == [n] * 6
    )


anything = st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass"))
nearly = st.builds(
    lambda lines, end, tail: end.join(lines) + tail,
    st.lists(st.sampled_from(LINES), max_size=25),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([b"", b"\n", b"\n\n"]),
)


@examples(100, 400)
@given(content=nearly | anything)
@example(content=b"")
def test_whatever_the_file_there_come_records_and_rejects(root: Path, content: bytes) -> None:
    made = source(root, content)
    strict, error = drained(made)
    lenient, no_error = drained(sources.wider(made.root, images=made.images, lenient=True))
    lines = content.count(b"\n") + 1
    assert all(is_sound(item, made, lines) for item in strict + lenient)
    if error is not None:
        line, _, reason = error.removeprefix(f"{made.root}:").partition(": ")
        assert 1 <= int(line) <= lines and reason
    if error is None or "UTF-16" in error:
        assert (no_error, [str(item) for item in lenient]) == (error, [str(item) for item in strict])
    else:
        # The same up to the fault; that is the next Reject, and something follows it.
        assert no_error is None
        assert [str(item) for item in lenient[: len(strict)]] == [str(item) for item in strict]
        fault = lenient[len(strict)]
        assert isinstance(fault, Reject) and fault.origin == f"wider.txt:{line}" and reason.startswith(fault.reason)
        assert len(lenient) > len(strict) + 1


side = st.integers(-3, 40)
row = st.tuples(st.integers(-99, 2000), st.integers(-99, 2000), side, side, *[st.integers(0, 2)] * 6)
entry = st.tuples(st.sampled_from(NAMES), st.lists(row, max_size=6))


@examples(60, 200)
@given(
    entries=st.lists(entry, max_size=5),
    end=st.sampled_from(["\n", " \n", "\r\n"]),
    mark=st.booleans(),
    max_faces=st.none() | st.integers(0, 4),
    min_side=st.none() | st.integers(0, 30),
    skip_invalid=st.booleans(),
)
def test_what_is_written_is_read(
    root: Path,
    entries: list[tuple[str, list[tuple[int, ...]]]],
    end: str,
    mark: bool,
    max_faces: int | None,
    min_side: int | None,
    skip_invalid: bool,
) -> None:
    text = "\ufeff" if mark else ""
    wanted, lines, line, left_out, lost = [], [], 1, 0, 0
    for name, rows in entries:
        written = rows or [(0,) * 10]
        text += "".join(f"{part}{end}" for part in (name, len(rows), *(" ".join(map(str, r)) for r in written)))
        faces = [r for r in rows if min(r[2:4]) > 0]
        if max_faces is None or len(faces) <= max_faces:
            kept = [r for r in faces if min(r[2:4]) >= (min_side or 0) and not (skip_invalid and r[7])]
            lost += len(rows) - len(kept) - (rows == [(0,) * 10])
            wanted.append((name, kept))
            lines.append(line)
        else:
            left_out += 1
        line += 2 + len(written)
    options = {"max_faces": max_faces, "min_side": min_side, "skip_invalid": skip_invalid}
    made = source(root, text.encode(), **options)
    items, info = collect(made)
    assert [item.id for item in items] == [name for name, _ in wanted]
    assert [item.origin for item in items] == [f"wider.txt:{n}" for n in lines]
    for item, (_, rows) in zip(items, wanted, strict=True):
        assert item.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h, *_ in rows]
        assert [*zip(*item.attributes.values(), strict=True)] == [r[4:] for r in rows]
    assert sum(info.boxes_dropped.values()) == lost
    assert sum(info.skipped.values()) == left_out


@examples(60, 200)
@given(
    before=st.lists(entry, max_size=3),
    noise=st.lists(st.sampled_from(LINES), max_size=6),
    after=st.lists(entry, min_size=1, max_size=3),
)
def test_lenient_loses_nothing_behind_a_fault(root: Path, before: Any, noise: list[bytes], after: Any) -> None:
    """Whatever stands between, the entries behind it come as they would without it."""

    def text(entries: Any) -> bytes:
        parts = [[name, len(rows), *(" ".join(map(str, r)) for r in rows)] for name, rows in entries]
        return "".join(f"{part}\n" for lines in parts for part in lines).encode()

    def gist(items: Any) -> list[tuple[str, Any]]:
        return [(item.id, item.boxes.tolist()) for item in items if isinstance(item, Record)]

    alone = gist(source(root, text(after)))
    noise = [line for line in noise if line != b"\xff\xfe"]
    made = source(root, text(before) + b"".join(line + b"\n" for line in noise) + text(after), lenient=True)
    assert gist(made)[-len(alone) :] == alone
