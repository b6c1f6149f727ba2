"""Whatever a list of visipedia's holds: each item is a Record or a Reject, a record in a shard or a failed one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import headrace as hr
from amount import examples
from drawn import jpeg
from headrace.compat.visipedia import create
from listed import FULL, boxes, item, records

IMAGE = jpeg(8, 8)
NAMES = ["filename", "id", "encoded", "height", "width", "format", "colorspace", "channels", "class", "object", "extra"]
NAMES += [
    "label",
    "text",
    "conf",
    "count",
    "area",
    "is_crowd",
    "bbox",
    "parts",
    "xmin",
    "xmax",
    "ymin",
    "ymax",
    "score",
]
NAMES += ["x", "y", "v"]

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.sampled_from(["1", "0.5", " 2 ", "nan", "1e400", "\ud800", "a\nb", "/", "."]),
    st.sampled_from(
        [np.float32(0.5), np.int64(3), np.array(0.25), np.zeros((2, 2)), np.array(["a"]), 1j, {1}, object()]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    ),
    max_leaves=6,
)
FRACTIONS = st.lists(st.floats(-0.2, 1.2), min_size=2, max_size=2)


@st.composite
def items(draw: st.DrawFn) -> Any:
    """A sound item in which some things are replaced by anything."""
    raw: dict[str, Any] = {
        "filename": "none.jpg",
        "id": draw(st.sampled_from(["a", 1])),
        "encoded": IMAGE,
        "class": {"label": 1, "text": "x", "conf": 0.5},
        "object": {
            "count": 2,
            "bbox": {side: draw(FRACTIONS) for side in ("xmin", "xmax", "ymin", "ymax")} | {"label": [0, 1]},
            "parts": {"x": draw(FRACTIONS), "y": draw(FRACTIONS), "v": [1, 2]},
        },
    }
    for _ in range(draw(st.integers(0, 3))):
        part = draw(st.sampled_from([raw, raw.get("class"), raw.get("object")]))
        if isinstance(part, dict) and part:
            inner = part.get("bbox")
            part = inner if isinstance(inner, dict) and inner and draw(st.booleans()) else part
            part[draw(st.sampled_from([*part, "extra", "height", "score"]))] = draw(VALUES)
    return raw


@examples(60, 300)
@given(st.lists(st.one_of(items(), VALUES), max_size=3))
@example([item(object=FULL["object"])])
@example([{}])
def test_nothing_is_lost_and_nothing_falls_over(tmp_path_factory: pytest.TempPathFactory, raw: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("any")
    before = repr(raw)
    found = list(hr.sources.visipedia(raw))
    assert len(found) == len(raw) and all(isinstance(one, hr.Record | hr.Reject) for one in found)
    for one in found:
        if isinstance(one, hr.Record):
            assert one.boxes is None or (np.isfinite(one.boxes).all() and (one.boxes[:, 2:] >= one.boxes[:, :2]).all())
            assert json.dumps(dict(one.attributes))  # which the catalog holds as JSON
        else:
            assert one.reason and one.origin and "\n" not in one.reason
    failed = create(raw, "train", folder, 2, 1)
    assert len(failed) + len(records(folder)) == len(raw) and all(one["error_msg"] for one in failed)
    assert repr(raw) == before
    # What the source takes, create takes, unless the item says of its image what isn't so.
    taken = {f"dataset[{i}]" for i, one in enumerate(found) if isinstance(one, hr.Record)}
    messages = [one["error_msg"] for one in failed if "the encoded image" not in one["error_msg"]]
    assert not taken & {message.partition(":")[0] for message in messages}


SIDES = st.tuples(*[st.floats(0, 1)] * 4).map(
    lambda s: (min(s[0], s[2]), min(s[1], s[3]), max(s[0], s[2]), max(s[1], s[3]))
)


@given(st.lists(SIDES, max_size=5), st.integers(1, 200), st.integers(1, 200))
def test_boxes_are_in_pixels_of_the_image(corners: list[Any], height: int, width: int) -> None:
    (record,) = hr.sources.visipedia([item(height=height, width=width, object=boxes(*corners))])
    assert isinstance(record, hr.Record) and record.boxes is not None
    wanted = np.array(corners, np.float64).reshape(-1, 4) * [width, height, width, height]
    assert record.boxes.shape == wanted.shape and np.allclose(record.boxes, wanted, rtol=1e-6, atol=1e-5)


def test_packed_whatever_it_is(tmp_path: Path) -> None:
    """A list in which every second item is no item."""
    raw = [item(k) if k % 2 else {"id": k, "filename": k} for k in range(20)]
    report = hr.pack(hr.sources.visipedia(raw), tmp_path / "ds", max_rejects=1.0, progress=False)
    assert (report.seen, report.stored, len(report.rejects)) == (20, 10, 10)
