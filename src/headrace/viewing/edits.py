"""Edits that pages ask for: a draft of changes as JSON, checked and committed as one version. What edits are says
`revising`; who may ask is said by `guard` and `server`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from headrace.errors import ConflictError, UsageError
from headrace.format import versions
from headrace.format.tables import Tables, holds
from headrace.load.dataset import Dataset
from headrace.load.store import Shards
from headrace.place.address import Place
from headrace.revising.diff import between
from headrace.revising.edit import MOST, Edit, edit
from headrace.viewing.query import Query, Rows

MOST_BYTES = 8 << 20  # of a request: a hundred thousand ids
_FIELDS = {
    "relabel": {"op", "label", "ids", "query"},
    "drop": {"op", "ids", "query"},
    "move": {"op", "split", "ids", "query"},
    "boxes": {"op", "id", "objects"},
}

Ask = Callable[[Query], Rows]  # the rows that a query asks for


class NeedsYes(UsageError):
    """What is asked for hits `hits` of `records` records, and nobody said that all of them are meant."""

    def __init__(self, hits: int, records: int) -> None:
        super().__init__(f"it would change {hits} of {records} records; pass yes if all of these are meant")
        self.hits, self.records = hits, records


def home_of(dataset: Dataset) -> Place:
    """Where the dataset that is edited lies. Raises UsageError: it can't be edited here."""
    if not isinstance(dataset.store, Shards):
        raise UsageError(f"{dataset.title}: has no versions; edit=True is of a packed or adopted dataset")
    if dataset.is_view:
        raise UsageError(
            f"{dataset.title}: is a part of a dataset, and edit=True edits a whole one; open that, and narrow it down "
            "in the viewer"
        )
    return dataset.store.tables.home


def check_editable(dataset: Dataset) -> None:
    """Raises UsageError: it can't be edited here."""
    home_of(dataset)
    if not dataset.store.is_current():
        raise UsageError(
            f"{dataset.title}: version {dataset.version} is not the one that holds now, and can only be looked at; "
            "open the dataset without a version to edit it"
        )


def check_same(dataset: Dataset) -> None:
    """Raises ConflictError: another dataset was put into its place, whose version may have the same number."""
    assert isinstance(dataset.store, Shards)
    if not holds(dataset.store.tables.home, dataset.manifest):
        raise ConflictError(
            f"{dataset.path}: is another dataset than was opened, and nothing was changed; open it anew"
        )


def options(home: Place) -> Mapping[str, Any] | None:
    """What the store of a place was opened with; None for a folder."""
    return getattr(home, "options", None) or None


def parsed(data: bytes) -> dict[str, Any]:
    """The JSON object of a request's body. Raises UsageError."""
    try:
        read = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise UsageError("the request is no JSON") from None
    if not isinstance(read, dict):
        raise UsageError("the request is no JSON object")
    try:
        json.dumps(read, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UsageError("the request holds halves of characters") from None
    return read


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def number(asked: Mapping[str, Any], name: str) -> int:
    """A whole number of a request. Raises UsageError."""
    value = asked.get(name)
    if type(value) is not int or not 0 < value < 1 << 31:
        raise UsageError(f"{name} is {value!r:.60}, wanted the number of a version")
    return value


def text(asked: Mapping[str, Any], name: str) -> str:
    """A text of a request. Raises UsageError."""
    value = asked.get(name)
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise UsageError(f"{name} is {value!r:.60}, wanted a text of at most {_LONGEST} characters")
    return value


_LONGEST = 2000


def save(dataset: Dataset, asked: Mapping[str, Any], rows: Ask) -> int | None:
    """Makes one version of a draft: its number, None where nothing differs.

    asked: the `version` that was looked at, `why`, `changes` one after the other, and `yes`, without which no query
    changes more than a tenth of all records. A change is {"op": "relabel", "label": …}, {"op": "drop"} or
    {"op": "move", "split": …} of "ids" or of a "query", which means what an address does, or {"op": "boxes", "id": …,
    "objects": [{"of": number of the box before, "box": [x0, y0, x1, y1], "name": …}, …]}; "of" is null for a new box,
    "box" for one that stays where it is. Raises UsageError, NeedsYes, UnknownIdError, ConflictError, DamageError,
    StorageError.
    """
    home = home_of(dataset)
    changes = asked.get("changes")
    if not isinstance(changes, list) or not changes:
        raise UsageError("changes is empty, wanted one at least")
    with edit(home.path, why=text(asked, "why"), version=number(asked, "version"), storage_options=options(home)) as e:
        check_same(dataset)  # only now: what is edited is fixed
        # A query asks the version that is looked at, which is the one that is edited.
        for change in changes:
            _change(e, dataset, change, rows, yes=asked.get("yes") is True)
    return e.version


def _change(e: Edit, dataset: Dataset, change: Any, rows: Ask, *, yes: bool) -> None:
    op = change.get("op") if isinstance(change, dict) else None
    fields = _FIELDS.get(op) if isinstance(op, str) else None
    if fields is None or (unknown := change.keys() - fields):
        what = f"{op!r:.40} with {sorted(unknown)!r:.80}" if fields else repr(op)[:40]
        raise UsageError(f"a change is {what}, wanted one of {', '.join(_FIELDS)}")
    if op == "boxes":
        _boxes(e, dataset, text(change, "id"), change.get("objects"))
        return
    ids = _ids(dataset, change, rows, yes=yes)
    if op == "relabel":
        label = change.get("label")
        if not (label is None or isinstance(label, str | list)):
            raise UsageError(f"label is {label!r:.60}, wanted a class, classes, or none")
        e.relabel(label, ids=ids)
    elif op == "move":
        e.move(text(change, "split"), ids=ids)
    else:
        e.drop(ids=ids)


def _ids(dataset: Dataset, change: Mapping[str, Any], rows: Ask, *, yes: bool) -> Sequence[str]:
    """The records that a change is about. Raises UsageError, NeedsYes."""
    if ("ids" in change) == ("query" in change):
        raise UsageError("a change has either ids or a query: which records are meant")
    if "ids" in change:
        ids: Any = change["ids"]
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise UsageError(f"ids is {ids!r:.60}, wanted a list of texts")
        return ids
    query = change["query"]
    if not isinstance(query, dict) or not all(isinstance(part, str) for pair in query.items() for part in pair):
        raise UsageError(f"query is {query!r:.60}, wanted texts by their names")
    hit = rows(Query.of(query))
    if not len(hit):
        raise UsageError("the query finds no record any more")
    if len(hit) > MOST * len(dataset) and not yes:
        raise NeedsYes(len(hit), len(dataset))
    return dataset.store.ids_of(hit)


def _is_side(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9


def _boxes(e: Edit, dataset: Dataset, id_: str, objects: Any) -> None:
    row = dataset.store.row_of(id_)
    before = [] if row is None else dataset.store.table.row(row)["boxes"] or []
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        raise UsageError(f"objects is {objects!r:.60}, wanted a list of boxes")
    boxes, names, of = [], [], []
    for one in objects:
        source, box, name = one.get("of"), one.get("box"), one.get("name")
        known = type(source) is int and 0 <= source < len(before)
        if box is None and known:
            box = list(before[source])
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_side, box))):
            raise UsageError(f"box is {box!r:.60}, wanted four numbers")
        if not (name is None or isinstance(name, str)):
            raise UsageError(f"name is {name!r:.60}, wanted a class")
        boxes.append(box)
        names.append(name)
        of.append(source)
    some = [name for name in names if name is not None]
    if some and len(some) != len(names):
        raise UsageError(f"boxes of {id_!r}: {len(names) - len(some)} of {len(names)} have no class; each needs one")
    # Where boxes have no classes at all, there are none to be given.
    e.boxes(id_, boxes, some if some or dataset.box_class_names else None, of=of)


def touched(dataset: Dataset, asked: Mapping[str, Any]) -> list[str]:
    """The ids in a draft of which what is there now says something else than the version that it was made of. Raises
    UsageError: it doesn't say which that is."""
    ids: set[str] = set()
    changes = asked.get("changes")
    for change in changes if isinstance(changes, list) else ():
        if isinstance(change, dict):
            several = change.get("ids")
            named = [*(several if isinstance(several, list) else ()), change.get("id")]
            ids.update(one for one in named if isinstance(one, str))
    if not isinstance(dataset.store, Shards) or not holds(dataset.store.tables.home, dataset.manifest):
        return sorted(ids)  # another dataset
    home = dataset.store.tables.home
    found = between(Tables(home, number(asked, "version")), Tables(home))
    changed = {one.id for one in (*found.relabelled, *found.boxes, *found.moved)} | {*found.dropped, *found.added}
    return sorted(ids & changed)


def later(dataset: Dataset, version: int) -> list[dict[str, Any]]:
    """The versions after this one, oldest first; none of another dataset that was put into its place."""
    assert isinstance(dataset.store, Shards)
    home = dataset.store.tables.home
    return [shown(one) for one in versions.since(home, version)] if holds(home, dataset.manifest) else []


def shown(version: versions.Version) -> dict[str, Any]:
    """A version for a page: what it holds, and `told` in words."""
    return {
        "number": version.number,
        "records": version.records,
        "by": version.by,
        "at": version.at,
        "why": version.why,
        "ops": [str(one["op"]) for one in version.what],
        "told": [versions.told(one) for one in version.what],
    }
