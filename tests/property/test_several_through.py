"""Several classes and values, whatever they are: through packing, views and loaders to the targets of a batch."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from drawn import TINY_PNG
from headrace.load.targets import Labels
from packed import pack

NAMES = ("a", "b", "c", "d", "e")
some_labels = st.none() | st.lists(st.sampled_from(NAMES), unique=True, max_size=5).map(tuple)
some_value = st.none() | st.floats(allow_nan=False, allow_infinity=False)


class Raw(hr.Target):
    """The labels as they are."""

    wants_boxes = False
    wants_keypoints = False

    def check(self, facts: hr.Facts) -> None:
        pass

    def encode(self, labels: Labels) -> Labels:
        return labels


@settings(max_examples=25, deadline=None)
@given(said=st.lists(st.tuples(some_labels, some_value), min_size=1, max_size=12), data=st.data())
def test_what_is_said_comes_back(said: list[tuple[tuple[str, ...] | None, float | None]], data: st.DataObject) -> None:
    records = [
        hr.Record(id=str(k), encoded=TINY_PNG, labels=labels, value=value) for k, (labels, value) in enumerate(said)
    ]
    with tempfile.TemporaryDirectory() as folder:
        ds = pack(records, Path(folder) / "ds")
        assert ds.multi_label == any(labels is not None for labels, _ in said)
        assert ds.has_values == any(value is not None for _, value in said)
        for record in ds:
            labels, value = said[int(record.id)]
            assert (record.labels is None) == (labels is None) and set(record.labels or ()) == set(labels or ())
            assert record.value == value
        chosen = data.draw(st.lists(st.integers(0, len(said) - 1), min_size=1, max_size=20), "rows")
        view = ds[chosen]
        of = [said[int(id_)] for id_ in view.catalog["id"]]
        counts = {name: sum(name in (labels or ()) for labels, _ in of) for name in ds.class_names}
        assert view.class_counts == counts
        found = view.loader(batch_size=20, shuffle=False, target=Raw())[0].targets
        if ds.multi_label:
            hot = [[name in (labels or ()) for name in ds.class_names] for labels, _ in of]
            assert found.several.tolist() == hot
        else:
            assert found.several.shape == (0, 0)
        if ds.has_values:
            assert np.array_equal(found.values, [math.nan if v is None else v for _, v in of], equal_nan=True)
        else:
            assert found.values.shape == (0,)
        facts = view.selection.facts(objects=False)
        known = [value for _, value in of if value is not None]
        assert facts.value_range == ((min(known), max(known)) if known else None)
        assert facts.without_labels == (sum(labels is None for labels, _ in of) if ds.multi_label else 0)
        assert facts.without_value == (len(of) - len(known) if ds.has_values else 0)


@given(hot=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=6))
def test_multi_label_is_undone(hot: list[list[bool]]) -> None:
    given_ = np.array(hot, bool).reshape(-1, 3)
    target = hr.MultiLabel()
    encoded = target.encode(Labels(classes=np.full(len(hot), -1), size=(1, 1), several=given_))
    names = target.decode(encoded, ("a", "b", "c"))
    assert [[name in row for name in "abc"] for row in names] == hot
