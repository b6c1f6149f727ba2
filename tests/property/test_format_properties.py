"""For any features, payloads, rows and garbage: what is written is read, and what is not is refused in words."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.format import catalog, example, tfrecord
from headrace.format.catalog import Row
from headrace.format.example import Floats, Ints, Strings
from headrace.place.local import LocalPlace
from headrace.record import Mask

KEYS = st.text(st.characters(codec="utf-8"), max_size=8)
FEATURES = st.dictionaries(
    KEYS,
    st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4).map(Ints),
        st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(Floats),
        st.lists(st.binary(max_size=20), max_size=4).map(Strings),
    ),
    max_size=5,
)


@given(FEATURES)
def test_features_come_back(features: dict[str, example.Feature]) -> None:
    found = example.parse(example.serialize(features))
    assert found == features
    assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in features.items()}


@given(FEATURES, st.randoms(use_true_random=False))
def test_their_order_changes_no_byte(features: dict[str, example.Feature], random: Any) -> None:
    keys = list(features)
    random.shuffle(keys)
    assert example.serialize({key: features[key] for key in keys}) == example.serialize(features)


@given(st.binary(max_size=60))
def test_garbage_is_no_example_or_one(data: bytes) -> None:
    try:
        example.parse(data)
    except ValueError:
        return


@given(FEATURES, st.data())
def test_a_damaged_example_is_no_example_or_another(features: dict[str, example.Feature], data: st.DataObject) -> None:
    wire = bytearray(example.serialize(features))
    assume(wire)
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        example.parse(bytes(wire))
    except ValueError:
        return


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_payloads_come_back(payloads: list[bytes]) -> None:
    records = [tfrecord.frame(payload) for payload in payloads]
    for data in (b"".join(records), np.frombuffer(b"".join(records), np.uint8)):
        found = list(tfrecord.scan(data))
        assert [bytes(payload) for _, payload in found] == payloads
        assert [offset for offset, _ in found] == [sum(map(len, records[:i])) for i in range(len(records))]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=3), st.data())
def test_no_flipped_bit_passes(payloads: list[bytes], data: st.DataObject) -> None:
    file = bytearray(b"".join(map(tfrecord.frame, payloads)))
    bit = data.draw(st.integers(0, 8 * len(file) - 1))
    file[bit // 8] ^= 1 << bit % 8
    with pytest.raises(tfrecord.BadRecord) as caught:
        list(tfrecord.scan(bytes(file)))
    begins = [sum(len(p) + 16 for p in payloads[:i]) for i in range(len(payloads))]
    record = max(begin for begin in begins if begin <= bit // 8)
    assert caught.value.offset == (record if bit // 8 < record + 12 else record + 12)


@given(st.binary(max_size=100))
def test_garbage_is_no_record(data: bytes) -> None:
    try:
        assert all(tfrecord.frame(bytes(payload)) in data for _, payload in tfrecord.scan(data))
    except tfrecord.BadRecord as error:
        assert 0 <= error.offset <= len(data)  # noqa: PT017


FLOATS = st.floats(0, 1e4, width=32)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    n = draw(st.none() | st.integers(0, 3))
    label = draw(st.none() | st.integers(0, 9))

    def array(*shape: int) -> NDArray[np.float32]:
        values = draw(st.lists(FLOATS, min_size=math.prod(shape), max_size=math.prod(shape)))
        return np.array(values, np.float32).reshape(shape)

    several = draw(st.none() | st.lists(st.integers(0, 9), max_size=3))
    polygons = st.lists(st.lists(FLOATS, min_size=6, max_size=6), max_size=2).map(
        lambda found: Mask(polygons=tuple(np.array(corners, np.float32).reshape(-1, 2) for corners in found))
    )
    runs = st.lists(st.integers(0, 9), max_size=4).map(lambda found: Mask(runs=np.array(found, np.int64), size=(1, 1)))
    names = st.sets(st.sampled_from([*catalog.ATTRIBUTES]))
    masks, flags = st.none() | polygons | runs, st.none() | st.integers(-1, 1)
    numbers = {name: draw(st.integers(0, 2**40)) for name in ("offset", "length", "image_offset", "image_length")}
    return Row(
        id=draw(TEXT),
        split=draw(TEXT),
        shard=draw(TEXT),
        format=draw(st.sampled_from(["jpeg", "png"])),
        height=draw(st.integers(1, 65500)),
        width=draw(st.integers(1, 65500)),
        channels=draw(st.sampled_from([1, 3])),
        origin=draw(TEXT),
        sha256=draw(TEXT),
        label=label,
        label_name=None if label is None else draw(TEXT),
        boxes=None if n is None else array(n, 4),
        box_labels=None if n is None else [draw(st.integers(0, 99)) for _ in range(n)],
        box_label_names=None if n is None else [draw(TEXT) for _ in range(n)],
        keypoints=None if n is None else array(n, 2, 3),
        masks=None if n is None else draw(st.none() | st.just([draw(masks) for _ in range(n)])),
        group_id=draw(st.none() | TEXT),
        labels=several,
        label_names=None if several is None else [draw(TEXT) for _ in several],
        value=draw(st.none() | st.floats(allow_nan=False)),
        captions=draw(st.none() | st.lists(TEXT, max_size=2)),
        attributes=draw(st.dictionaries(TEXT, st.integers() | st.none() | TEXT | st.lists(st.booleans()), max_size=3))
        | {name: [draw(flags) for _ in range(n or 0)] for name in draw(names)},
        **numbers,
    )  # fmt: skip


@given(st.lists(rows(), max_size=4))
def test_rows_come_back(given_rows: list[Row]) -> None:
    frame = catalog.table(given_rows)
    data = catalog.to_bytes(frame)
    assert catalog.to_bytes(frame.clone()) == data
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, catalog.FILE).write_bytes(data)
        file = catalog.File(
            LocalPlace(Path(folder)), sha256="", crc32c=google_crc32c.value(data), records=len(given_rows)
        )
        found = file.read([*catalog.WHAT])
    assert found.equals(frame) and dict(found.schema) == catalog.WHAT
    for row, values in zip(given_rows, found.rows(named=True), strict=True):
        known = catalog.known_of(values, (row.height, row.width), 2)
        masks = known.pop("masks")
        assert (masks is None) == (row.masks is None) and all(map(_same_mask, masks or (), row.masks or ()))
        for name, value in known.items():
            wanted = getattr(row, name)
            assert np.array_equal(value, wanted) if isinstance(wanted, np.ndarray) else value == wanted


def _same_mask(one: Mask | None, two: Mask | None) -> bool:
    if one is None or two is None:
        return one is two
    if one.runs is not None and two.runs is not None:
        return np.array_equal(one.runs, two.runs)
    return one.runs is two.runs and all(map(np.array_equal, one.polygons, two.polygons))


FRAME = pl.DataFrame({"id": ["a", "b"], "label": [0, None], "boxes": [[1], None], "label_name": ["x", None]})
WORDS = st.sampled_from(
    [
        "label",
        "id",
        "boxes",
        "nosuch",
        "=",
        "<",
        "1",
        "'a'",
        "NULL",
        "IS",
        "NOT",
        "AND",
        "OR",
        "(",
        ")",
        "LIKE",
        ",",
        "-",
        "SELECT",
        "FROM",
        "CASE",
        "WHEN",
        "THEN",
        "END",
        "IN",
        "*",
        ";",
        "--",
        "COUNT",
        "/",
        "0",
        "CAST",
        "AS",
        "INT",
    ]
)


@given(st.lists(WORDS, max_size=7).map(" ".join) | st.text(max_size=12))
def test_a_condition_holds_for_rows_or_is_refused(condition: str) -> None:
    try:
        found = catalog.where(FRAME, condition)
    except UsageError:
        return
    assert found.dtype == np.int64 and set(found.tolist()) <= {0, 1}
