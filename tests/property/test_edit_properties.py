"""Any edits, one after the other, against a dict that the same is done to: tables, counts, history and the way back."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headrace as hr
from packed import pack, photos, shades

N = 8
Row = list[Any]  # label, split, boxes, their labels
Known = dict[str, Row]

LABELS = st.sampled_from(["ant", "bee", "cow", "dog", None])
BOXES = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(10, 20), st.integers(10, 20), st.sampled_from("lr")),
    max_size=3,
)
STEPS = st.one_of(
    st.tuples(st.just("relabel"), st.integers(0, 99), LABELS),
    st.tuples(st.just("relabel where"), LABELS, LABELS),
    st.tuples(st.just("drop"), st.integers(0, 99)),
    st.tuples(st.just("move"), st.integers(0, 99), st.sampled_from(["train", "val", "test"])),
    st.tuples(st.just("boxes"), st.integers(0, 99), BOXES),
    st.tuples(st.just("append"), LABELS),
)
BLOCKS = st.one_of(st.lists(STEPS, min_size=1, max_size=4), st.just("undo"), st.integers(1, 9))


def do(e: Any, now: Known, added: Known, step: tuple[Any, ...], number: int) -> None:
    """One step, in the dataset and in the dict; records that are added can be changed by the next edit."""
    op, of = step[0], sorted(now)
    id_ = of[step[1] % len(of)] if isinstance(step[1], int) else ""
    if op == "relabel":
        e.relabel(step[2], ids=id_)
        now[id_][0] = step[2]
    elif op == "relabel where":
        hit = [one for one in of if now[one][0] == step[1]]
        if hit:
            condition = "label IS NULL" if step[1] is None else f"label_name = '{step[1]}'"
            e.relabel(step[2], where=condition, yes=True)
            for one in hit:
                now[one][0] = step[2]
    elif op == "drop" and len(of) > 1:
        e.drop(ids=[id_])
        del now[id_]
    elif op == "move":
        e.move(step[2], ids=id_)
        now[id_][1] = step[2]
    elif op == "boxes":
        boxes, labels = [list(map(float, box[:4])) for box in step[2]], [box[4] for box in step[2]]
        e.boxes(id_, boxes, labels)
        now[id_][2:] = boxes, labels
    elif op == "append":
        name = f"new{number}-{len(added)}"
        e.append([hr.Record(id=name, encoded=shades(1, side=30)[0].encoded, label_name=step[1])], progress=False)
        added[name] = [step[1], "train", None, None]


def rows(ds: hr.Dataset) -> Known:
    columns = ds.catalog.select("id", "label_name", "split", "boxes", "box_label_names").iter_rows()
    return {
        id_: [label, split, None if boxes is None else [list(box) for box in boxes], names]
        for id_, label, split, boxes, names in columns
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(BLOCKS, max_size=6))
def test_edits_do_what_they_say(blocks: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cats"
        pack(photos(N, boxes=True), path, shards=2)
        versions = [rows(hr.Dataset(path))]
        for number, block in enumerate(blocks):
            now = deepcopy(versions[-1])
            if block == "undo":
                try:
                    made: int | None = hr.undo(path)
                except hr.UsageError:
                    assert versions[-1] == versions[0]
                    continue
                now = versions[hr.Dataset(path).history[-1].what[0]["version"] - 1]
            elif isinstance(block, int):
                if block >= len(versions):
                    continue
                made, now = hr.restore(path, block), versions[block - 1]
            else:
                added: Known = {}
                with hr.edit(path, why="any") as e:
                    for step in block:
                        do(e, now, added, step, number)
                now |= added
                made = e.version
            if made is None:
                assert now == versions[-1]
                continue
            versions.append(now)
            assert made == len(versions)
        ds = hr.Dataset(path)
        assert ds.version == len(ds.history) == len(versions) and ds.verify().ok
        for number, known in enumerate(versions, 1):
            one = hr.Dataset(path, version=number)
            found = rows(one)
            assert {id_: [row[:2], row[2] or [], row[3] or []] for id_, row in found.items()} == {
                id_: [row[:2], row[2] or [], row[3] or []] for id_, row in known.items()
            }
            assert sum(one.splits.values()) == len(one) == len(known)
            assert one.manifest.boxes == sum(len(row[2] or []) for row in known.values())
        first, last = versions[0], versions[-1]
        diff = hr.diff(path, 1)
        new = {id_ for id_ in last if id_ not in first}
        assert ({*diff.added}, {*diff.dropped}) == (new, {id_ for id_ in first if id_ not in last})
        assert {one.id for one in diff.relabelled} == {i for i in first if i in last and first[i][0] != last[i][0]}
        assert {one.id for one in diff.moved} == {i for i in first if i in last and first[i][1] != last[i][1]}
        hr.compact(path, Path(folder) / "made", progress=False)
        made_of = hr.Dataset(Path(folder) / "made")
        assert made_of.verify().ok and rows(made_of) == rows(ds)
