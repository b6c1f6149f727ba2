"""The viewer's server: which address gives what. What is shown is made by the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from headrace.errors import ConflictError, HeadraceError, UnknownIdError, UsageError
from headrace.load.store import Shards
from headrace.viewing import differences, edits, pictures, rejects
from headrace.viewing.cells import cells, record, strict
from headrace.viewing.edits import NeedsYes
from headrace.viewing.groups import is_quick
from headrace.viewing.guard import Guard
from headrace.viewing.measures import measures
from headrace.viewing.query import SORTS, Query
from headrace.viewing.session import Session

STATIC = Path(__file__).parent / "static"
PAGES = ("", "record", "classes", "rejects", "predictions", "duplicates", "history", "diff")
MOST = 500  # records of an answer

_FOREVER = "private, max-age=31536000, immutable"
# What an image that can't be shown is: one transparent pixel, by which a page knows to ask why.
_NOTHING = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")


def application(
    session: Session, *, token: str, cookie: str, hosts: Collection[str], any_address: bool = False
) -> Starlette:
    """The server over what a session looks at; who may ask it says `Guard`."""
    pages = _Answers(session)
    routes = [
        *(Route(f"/{page}", _page) for page in PAGES),
        Route("/favicon.ico", _favicon),
        Route("/api/dataset", pages.dataset),
        Route("/api/records", pages.records),
        Route("/api/record", pages.record),
        Route("/api/measures", pages.measures),
        Route("/api/rejects", pages.rejects),
        Route("/api/groups", pages.groups),
        Route("/api/run", pages.run),
        Route("/api/state", pages.state),
        Route("/api/damage", pages.damage),
        Route("/api/history", pages.history),
        Route("/api/diff", pages.diff),
        Route("/api/reopen", pages.reopen, methods=["POST"]),
        Route("/api/edit", pages.edit, methods=["POST"]),
        Route("/api/undo", pages.undo, methods=["POST"]),
        Route("/api/restore", pages.restore, methods=["POST"]),
        Route("/thumbnail/{row:int}", pages.thumbnail),
        Route("/image/{row:int}", pages.image),
        Route("/left/{number:int}", pages.left),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    guard = Middleware(Guard, token=token, cookie=cookie, hosts=hosts, any_address=any_address)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers={HeadraceError: _refused})
    app.router.redirect_slashes = False  # which would name a host, and behind a proxy the wrong one
    return app


def _page(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


def _favicon(request: Request) -> Response:
    return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml", headers={"cache-control": "no-cache"})


def _refused(request: Request, error: Exception) -> Response:
    known = 400 if isinstance(error, UsageError) and not isinstance(error, ConflictError) else 409
    status = 404 if isinstance(error, UnknownIdError) else known
    said: dict[str, Any] = {"error": str(error)}
    if isinstance(error, NeedsYes):
        said |= {"hits": error.hits, "records": error.records}
    return JSONResponse(said, status, {"cache-control": "no-store"})


def _error(reason: str, status: int) -> Response:
    return JSONResponse({"error": reason}, status, {"cache-control": "no-store"})


def _json(value: Any) -> Response:
    return JSONResponse(value, headers={"cache-control": "no-store"})


class _Answers:
    """A method for each address; Starlette calls them on threads of its own."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def dataset(self, request: Request) -> Response:
        session = self._session
        dataset = session.dataset
        promised = dataset.manifest
        return _json(
            {
                "title": dataset.title,
                "name": dataset.path.absolute().name,
                "path": str(dataset.path),
                "what": dataset.what,
                "is_view": dataset.is_view,
                "records": len(dataset),
                "splits": dataset.splits,
                "classes": dataset.class_counts,
                "multi_label": dataset.multi_label,
                "box_classes": list(dataset.box_class_names),
                "has_boxes": dataset.has_boxes,
                "has_values": dataset.has_values,
                "keypoint_names": list(dataset.keypoint_names) or [str(i) for i in range(dataset.keypoints)],
                "kept": dataset.keeps,
                "columns": list(dataset.store.table.columns),
                "sorts": [name for name in SORTS if session.run is not None or name != "wrong"],
                "rejected": promised.rejected,
                "bytes": sum(shard.bytes for shard in promised.shards),
                "shards": len(promised.shards),
                "adopted": promised.adopted is not None,
                "run": None if session.run is None else session.run.folder.name,
                "sides": pictures.SIDES,
                "fingerprint": dataset.fingerprint[:12],
                "version": dataset.version,
                "edit": session.edit,
                "pinned": session.pinned,
                "has_versions": isinstance(dataset.store, Shards),
                "editable": {
                    "label": bool(dataset.class_names)
                    or not (dataset.has_boxes or dataset.has_values or dataset.has_keypoints),
                    "boxes": dataset.has_boxes,
                },
                "all_splits": list(promised.splits),
            }
        )

    def records(self, request: Request) -> Response:
        first, n = _span(request)
        dataset, rows, judged = self._session.rows(Query.of(request.query_params))
        found = cells(dataset, rows[first : first + n], judged)
        return _json({"total": len(rows), "first": first, "cells": found, "fingerprint": dataset.fingerprint[:12]})

    def record(self, request: Request) -> Response:
        dataset, rows, judged = self._session.rows(Query.of(request.query_params))
        id_ = request.query_params.get("id", "")
        row = dataset.store.row_of(id_)
        if row is None:
            raise UnknownIdError(f"{dataset.title}: no record {id_!r:.200}")
        at = self._session.position(rows, row)
        beside = {}
        if at is not None:
            for name, other in (("previous", at - 1), ("next", at + 1)):
                if 0 <= other < len(rows):
                    (beside[name],) = dataset.store.ids_of(rows[other : other + 1])
        return _json(record(dataset, row, judged) | {"position": at, "total": len(rows), **beside})

    def measures(self, request: Request) -> Response:
        session = self._session
        dataset, rows, _ = session.rows(Query.of(request.query_params))
        return _json({"total": len(rows), "measures": measures(dataset, rows, session.boxes(dataset))})

    def rejects(self, request: Request) -> Response:
        first, n = _span(request)
        known, asked = self._session.rejects(), request.query_params
        found = list(rejects.chosen(known, asked.get("stage"), asked.get("reason")))
        return _json(
            {
                "rejected": self._session.dataset.manifest.rejected,
                "kinds": rejects.kinds(known),
                "total": len(found),
                "rejects": [
                    {"number": i, "id": one.id, "origin": one.origin, "stage": one.stage, "reason": one.reason}
                    for i, one in found[first : first + n]
                ],
            }
        )

    def groups(self, request: Request) -> Response:
        first, n = _span(request)
        session = self._session
        dataset = session.dataset
        if request.query_params.get("anyhow") is None and not session.has_groups and not is_quick(dataset):
            return _json({"groups": None, "records": len(dataset)})
        found = session.groups()
        only = request.query_params.get("only")
        some = [group for group in found if only is None or (only in ("splits", "labels") and getattr(group, only))]
        return _json(
            {
                "groups": len(found),
                "across_splits": sum(group.splits for group in found),
                "contradicting": sum(group.labels for group in found),
                "total": len(some),
                "found": [
                    {
                        "kind": group.kind,
                        "splits": group.splits,
                        "labels": group.labels,
                        "size": len(group.rows),
                        "cells": cells(dataset, group.rows[:MOST]),
                    }
                    for group in some[first : first + n]
                ],
            }
        )

    def run(self, request: Request) -> Response:
        session = self._session
        if session.run is None:
            raise UsageError("no run was given to look at; start the viewer with run=RUN")
        recipe = session.run.recipe
        shown = {name: recipe.get(name) for name in ("task", "model", "versions", "shape", "class_names")}
        evaluations = [one.facts() for one in session.evaluations()]
        return _json(
            strict(
                {
                    "name": session.run.folder.name,
                    "recipe": shown,
                    "history": session.run.history(),
                    "evaluations": evaluations,
                }
            )
        )

    def state(self, request: Request) -> Response:
        return _json(self._session.state())

    def history(self, request: Request) -> Response:
        dataset = self._session.dataset
        return _json({"version": dataset.version, "versions": [edits.shown(one) for one in dataset.history[::-1]]})

    def diff(self, request: Request) -> Response:
        first, n = _span(request)
        version = self._session.dataset.version
        after = _number(request, "after", version)
        before = _number(request, "before", max(1, after - 1))
        old, new, found = self._session.difference(before, after)
        said = differences.counts(found)
        kind = request.query_params.get("kind")
        if kind is None:  # the first that there are any of
            kind = next((name for name, count in said["kinds"].items() if count), differences.KINDS[0])
        if kind not in differences.KINDS:
            raise UsageError(f"kind is {kind!r:.60}, wanted one of {', '.join(differences.KINDS)}")
        return _json(said | {"kind": kind, "pairs": differences.pairs(found, kind, first, n, old, new)})

    async def edit(self, request: Request) -> Response:
        return await self._change(request, lambda asked: self._session.save(asked))

    async def undo(self, request: Request) -> Response:
        return await self._change(request, lambda asked: self._session.undo(edits.number(asked, "version")))

    async def restore(self, request: Request) -> Response:
        return await self._change(
            request, lambda asked: self._session.restore(edits.number(asked, "version"), edits.number(asked, "to"))
        )

    async def _change(self, request: Request, make: Callable[[dict[str, Any]], int | None]) -> Response:
        """What came of an edit: the number of the version that was made, null where nothing differs."""
        if not self._session.edit:
            return _error("this viewer only looks; start it with --edit to change anything", 403)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _error("the request is no application/json", 415)
        data = await self._body(request)
        return data if isinstance(data, Response) else await run_in_threadpool(self._made, data, make)

    @staticmethod
    async def _body(request: Request) -> bytes | Response:
        """What was sent, or why it is not read."""
        data = b""
        async for block in request.stream():
            data += block
            if len(data) > edits.MOST_BYTES:
                return _error(f"the request is larger than {edits.MOST_BYTES} bytes; save fewer changes at once", 413)
        return data

    def _made(self, data: bytes, make: Callable[[dict[str, Any]], int | None]) -> Response:
        asked, dataset = edits.parsed(data), self._session.dataset
        try:
            made = make(asked)
        except ConflictError as error:
            try:
                said = {
                    "later": edits.later(dataset, edits.number(asked, "version")),
                    "touched": edits.touched(dataset, asked),
                }
            except HeadraceError:  # by now another dataset
                said = {"later": [], "touched": []}
            return JSONResponse({"error": str(error), **said}, 409, {"cache-control": "no-store"})
        return _json({"made": made, **self._session.state()})

    def damage(self, request: Request) -> Response:
        dataset = self._session.dataset
        row = _number(request, "row", -1, most=len(dataset.store) - 1)
        return _json({"reason": pictures.damage(dataset, row)})

    async def reopen(self, request: Request) -> Response:
        """Looks at what is there now; `touched`: which records of the draft in the request were changed there, too."""
        data = await self._body(request)
        return data if isinstance(data, Response) else await run_in_threadpool(self._reopened, data)

    def _reopened(self, data: bytes) -> Response:
        asked, dataset = edits.parsed(data) if data else {}, self._session.dataset
        touched = edits.touched(dataset, asked) if asked.get("changes") and not dataset.is_view else []
        self._session.reopen()
        return _json({"touched": touched, **self._session.state()})

    def thumbnail(self, request: Request) -> Response:
        side = _number(request, "side", pictures.SIDES[2], most=pictures.SIDES[-1])
        return self._image(request, lambda dataset, row: (pictures.thumbnail(dataset, row, side), "image/jpeg"))

    def image(self, request: Request) -> Response:
        return self._image(request, pictures.whole)

    def _image(self, request: Request, make: Any) -> Response:
        version = _number(request, "at", 0, most=(1 << 31) - 1) or None
        dataset, row = self._session.at(version), int(request.path_params["row"])
        if row >= len(dataset.store):
            return Response(status_code=404)
        try:
            data, media = make(dataset, row)
        except HeadraceError:
            return Response(_NOTHING, headers={"cache-control": "no-store"}, media_type="image/gif")
        # An address holds the fingerprint, so that it means another image once the dataset is another.
        lasting = request.query_params.get("v") == dataset.fingerprint[:12]
        return Response(data, headers={"cache-control": _FOREVER if lasting else "no-store"}, media_type=media)

    def left(self, request: Request) -> Response:
        known, number = self._session.rejects(), int(request.path_params["number"])
        if number >= len(known):
            return Response(status_code=404)
        data = pictures.left_of(known[number], pictures.SIDES[3])
        media = "image/gif" if data is None else "image/jpeg"
        return Response(data or _NOTHING, headers={"cache-control": "no-store"}, media_type=media)


def _span(request: Request) -> tuple[int, int]:
    """The first record that is wanted, and how many. Raises UsageError."""
    return _number(request, "first", 0), _number(request, "n", 100, most=MOST)


def _number(request: Request, name: str, default: int, *, most: int = 1 << 40) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text[:20]) > most:
        raise UsageError(f"{name} is {text!r:.40}, wanted a whole number from 0 to {most}")
    return int(text)
