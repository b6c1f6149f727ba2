"""Writing into object stores: what a dataset consists of is uploaded, and published by one conditional put.

A store has no rename. So the files of a dataset come first, under names that nobody reads yet, and the file that says
what the dataset consists of comes last, on the condition that nobody else was quicker. What is there already is never
touched: who reads the old dataset goes on reading it.

The first packing of a place writes its files at the place itself, where other tools look for them. It must be alone in
that, so it makes a small object first, the claim, on the condition that there is none. Whoever comes second, and every
replacement, writes into a folder of its own, runs/ID. What packings that did not end have left, and what was replaced,
the next packing clears when it and the dataset are older than a day, by the store's clock. A packing that is at work
renews its claim, and nothing of it is cleared.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import mmap
import os
import platform
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from headrace import parallel
from headrace.errors import HeadraceError, NotThereError, StorageError, UsageError
from headrace.place import lock, stores
from headrace.place.local import explained
from headrace.place.remote import Object, RemotePlace
from headrace.place.stores import ONE_PUT, ConditionError, Store

CLAIM = "headrace.claim"
RUNS = "runs"
DAY = timedelta(days=1)
BEAT = 3600.0  # seconds after which a packing that is at work renews its claim
TRIES = 3
_UPLOADS = 4  # files on their way at once
_PART = 16 << 20  # bytes of a part of a larger file

_RUN = re.compile(rf"{RUNS}/\d{{8}}-\d{{6}}-[0-9a-f]{{8}}/")
# What a packing writes at the place itself. Whatever else stands there is somebody else's, and never touched.
_OWN = re.compile(
    r"[^/]+-\d{5,}-of-\d{5,}\.(tfrecord|idx)|headrace\.(index|claim)|headrace\.json\.unpublished-[0-9a-f]{8}|"
    r"catalog\.parquet|rejects\.jsonl|features\.json|dataset_info\.json|label_map\.pbtxt|[^/]+\.labels\.txt"
)

_log = logging.getLogger("headrace")


class StoreSink:
    """Where finished files of a dataset are put: below a folder of a place, "" for the place itself. Pickles.

    `run`: of the packing that they are for; nothing is put once its claim is gone, as who is cut off from an engine
    may go on for a while.
    """

    def __init__(self, place: RemotePlace, folder: str, run: str | None = None) -> None:
        self.place, self.folder, self.run = place, folder, run

    def scratch(self) -> Path:
        """A new folder of this machine to write files in before they are put; who asked for it removes it, and what the
        killed have left is cleared. Raises StorageError."""
        root = _scratch_root(os.getpid())
        with explained(root):
            return Path(tempfile.mkdtemp(dir=root))

    def put(self, path: Path, name: str) -> None:
        """Uploads the finished file at `path`, which is gone then, as the file `name`: whole or not at all. The same
        again is fine, other bytes of the same name are not. Raises StorageError."""
        name = "/".join(filter(None, (self.folder, name)))
        if self.run is not None and not _is_claimed(self.place, self.folder, self.run):
            raise StorageError(f"{self.place.address(name)}: is not uploaded, as its packing has ended")
        for left in range(TRIES - 1, -1, -1):
            try:
                _upload(self.place, path, name)
                break
            except ConditionError as error:
                is_same = _is_same(self.place, path, name)
                if is_same:
                    break
                if is_same is False or not left:
                    raise StorageError(
                        f"{self.place.address(name)}: is there already, with other bytes; is another packing at work?"
                    ) from error
            except StorageError:
                if not left:
                    raise
            time.sleep(0.1 * (TRIES - left))  # the client itself has tried again for as long as it may
        path.unlink(missing_ok=True)


def _mark_of(folder: str) -> str:
    """The object that says that somebody is at work in a folder of a place."""
    return "/".join(filter(None, (folder, CLAIM)))


def _is_claimed(place: RemotePlace, folder: str, run: str) -> bool:
    """Whether a packing has the claim on a folder of a place. Raises StorageError."""
    name = _mark_of(folder)
    place.forget(name)
    try:
        return bool(json.loads(place.content(name, 1 << 16)).get("run") == run)
    except (NotThereError, ValueError, AttributeError):
        return False
    finally:
        place.forget(name)


def _upload(place: RemotePlace, path: Path, name: str) -> None:
    """One upload, on the condition that there is no such object. Raises ConditionError, NotThereError, StorageError."""
    import obstore

    store = _uploading(place)
    key, address = store.key_of(name), place.address(name)
    with explained(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            stores.ask(address, lambda: obstore.put(store.api, key, b"", mode="create"))
        elif size <= ONE_PUT:
            # Mapped, so that its pages are the system's to take back: it is a file of our own.
            # Not closed here: after Ctrl-C a request may still be at it.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            stores.ask(address, lambda: obstore.put(store.api, key, data, mode="create", use_multipart=False))
        else:
            with contextlib.suppress(NotThereError):  # parts know no condition
                place.stat(name)
                raise ConditionError(f"{address}: is there already")
            # Obstore ends an upload that fails, or whose iterator does; Ctrl-C is seen between two blocks.
            stores.ask(address, lambda: obstore.put(store.api, key, _parts(file), chunk_size=_PART), here=True)
            if (there := place.stat(name).size) != size:
                raise StorageError(f"{address}: has {there} bytes of {size} after its upload")


def _parts(file: Any) -> Iterator[bytes]:
    while block := file.read(_PART):
        yield block


def _is_same(place: RemotePlace, path: Path, name: str) -> bool | None:
    """Whether an object has the bytes of a file; None where it is not there after all. Raises StorageError."""
    place.forget(name)
    with explained(path), path.open("rb") as file:
        try:
            if place.stat(name).size != os.fstat(file.fileno()).st_size:
                return False
            return all(file.read(len(block)) == block for block in place.blocks(name))
        except NotThereError:  # somebody's upload that was on its way, and did not come
            return None
        finally:
            place.forget(name)


def _uploading(place: RemotePlace) -> Store:
    """The store of a place, with more time for its requests."""
    return stores.opened(place.path, place.options, upload=True)


@functools.lru_cache(maxsize=1)
def _scratch_root(pid: int) -> Path:
    """The folder of this process for what it uploads: locked while the process lives. Raises StorageError."""
    above = Path(tempfile.gettempdir())
    # Whoever clears leftovers must not meet a folder between its making and its locking.
    with explained(above), lock.locked(above):
        for left in lock.abandoned(above, _SCRATCH):
            shutil.rmtree(left, ignore_errors=True)
        root = above / f"{_SCRATCH}{lock.tag()}"
        root.mkdir(mode=0o700)
        lock.hold(os.open(root, os.O_RDONLY | os.O_CLOEXEC))  # until the process ends
    atexit.register(_clear_scratch, root, pid)
    return root


def _clear_scratch(root: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(root, ignore_errors=True)


_SCRATCH = ".headrace-"


class RemoteChange:
    """A Change of what stands below a URL (see changing): the head by a put on the condition that it is as it was. What
    was uploaded by a change that did not end is never named, nor read."""

    def __init__(self, place: RemotePlace, head: str) -> None:
        self.place, self.head = place, head
        self.tag = f"-{secrets.token_hex(4)}"  # no lock keeps two changes apart

    def __enter__(self) -> Path:
        if self.place.store.reads_only:
            raise UsageError(f"{self.place.path}: a web server takes no uploads; copy it to a folder, and edit that")
        Publication(self.place, overwrite=True, replaceable=self.head).probe()
        self._scratch = StoreSink(self.place, "").scratch()
        return self._scratch

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def commit(self, folder: str, files: Mapping[str, str], data: bytes, *, expected: bytes) -> bool:
        before = self.place.stat(self.head)
        if self._now() != expected or self.place.version(self.head) != (before.e_tag or before.modified.isoformat()):
            return False
        sink = StoreSink(self.place, folder)

        def put(names: tuple[str, str]) -> None:
            sink.put(self._scratch / names[0], names[1])

        for _ in parallel.ordered(put, files.items(), workers=_UPLOADS, ahead=_UPLOADS):
            pass
        import obstore

        key, mode = self.place.store.key_of(self.head), _as_it_was(before)
        try:
            stores.ask(
                self.place.address(self.head),
                lambda: obstore.put(self.place.store.api, key, data, mode=mode, use_multipart=False),  # type: ignore[arg-type]
            )
        except ConditionError:
            return self._now() == data  # the answer to our own put was lost, and it was put again
        finally:
            self.place.forget(self.head)
        return True

    def _now(self) -> bytes:
        """The head as it is now."""
        self.place.forget(self.head)
        return self.place.content(self.head, 1 << 32)


class Publication:
    """A folder of this machine whose files become a dataset in a store at once, or nothing that anybody reads.

    `with Publication(place, overwrite=..., replaceable=FILE) as folder: ...` uploads what is in `folder` when the block
    ends well, beside what was put by `sink`, and FILE last. `folder_name`: the folder below the place that all files
    but FILE go to, "" for the place itself. `what` stands there then, for people. `movable`: files may go to a folder,
    and FILE says to which; else they stand at the place itself, where nothing is ever replaced.

    A kill at any moment leaves the old dataset, the new one, or none where there was none, and objects that the next
    publication clears after a day. What was finished and can't be published is kept, and the error says where.

    Raises UsageError: something is in the way, the store does not keep to conditions, or somebody else has published
    there meanwhile. NotThereError: no such bucket. StorageError.
    """

    def __init__(
        self, place: RemotePlace, *, overwrite: bool, replaceable: str, what: str = "a dataset", movable: bool = True
    ) -> None:
        self.place, self.out = place, place.path
        self.overwrite, self.replaceable, self.what, self.movable = overwrite, replaceable, what, movable
        self.run = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
        self.folder_name = ""
        self._before: Object | None = None  # what is replaced
        self._finished: Collection[str] = ()  # names of the files that lay in the folder at its end
        self._is_publishing = False
        self._ended = threading.Event()
        self._beats: threading.Thread | None = None

    @property
    def sink(self) -> StoreSink:
        """Where other processes put files, by their names in the dataset."""
        return StoreSink(self.place, self.folder_name, self.run)

    def __enter__(self) -> Path:
        stores.check_takes_uploads(self.out)
        self._before = self._current()
        there = self._left()
        self._check_free(there)
        now = self.probe()
        if self._before is not None and now - self._before.modified > DAY:
            self._clear(orphans(self.place, replaceable=self.replaceable, there=there, now=now), now)
        self._claim(there)
        self._beats = threading.Thread(target=self._beat, name="headrace-claim", daemon=True)
        self._beats.start()
        try:
            self.folder = StoreSink(self.place, "").scratch()
        except BaseException:
            self._give_up()
            raise
        return self.folder

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        is_kept = False
        try:
            if kind is None:
                try:
                    self._finish()
                except HeadraceError as failed:
                    is_kept = True
                    kept = Path(tempfile.gettempdir(), f"{self.out.name}.unpublished-{self.run}")
                    with contextlib.suppress(OSError):
                        self.folder = self.folder.rename(kept)
                    raise self._unpublished(failed) from failed
                except BaseException:  # Ctrl-C; the one put that counts may be on its way
                    if not self._is_publishing:
                        self._give_up()
                    raise
            else:
                self._give_up()
        finally:
            self._end_beats()
            if not is_kept:
                shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, HeadraceError):
            where = error.filename or self.folder
            raise StorageError(f"{where}: {(error.strerror or str(error)).lower()}; nothing was published") from error

    # --- beginning ----------------------------------------------------------------------------------------------------

    def _current(self) -> Object | None:
        """The object that says what the dataset consists of, as it is now."""
        try:
            return self.place.stat(self.replaceable)
        except NotThereError:
            return None

    def _left(self) -> list[Object]:
        """What packings have left, or are at; of what else is there, which may be a bucket of millions, nothing is kept
        in memory. Raises UsageError: there is something else, and no dataset."""
        found = []
        for one in self.place.objects():
            if _run_of(one.name) is not None:
                found.append(one)
            elif self._before is None and one.name != self.replaceable:  # that one has come since
                raise self._in_the_way(one)
        return found

    def _check_free(self, there: Collection[Object]) -> None:
        """Raises UsageError unless nothing, what packings left, or (with overwrite) an older dataset is there."""
        if self._before is not None:
            if not self.movable:
                raise UsageError(
                    f"{self.out}: holds {self.what} already, and a store can't replace all of its files at once; "
                    "choose another place, or remove it first"
                )
            if not self.overwrite:
                raise UsageError(f"{self.out}: holds {self.what} already; pass overwrite=True to replace it")
            return
        is_claimed = any(one.name == CLAIM for one in there)
        if is_claimed and not self.movable:
            raise UsageError(
                f"{self.out}: somebody is writing there, or has not ended it ({CLAIM}); remove what is there, or "
                "choose another place"
            )
        for one in there:
            if not is_claimed and not _RUN.match(one.name):
                raise self._in_the_way(one)

    def _in_the_way(self, one: Object) -> UsageError:
        return UsageError(
            f"{self.out}: other objects stand there ({one.name}), which are not replaced; choose another place"
        )

    def probe(self) -> datetime:
        """The store's time. Raises UsageError: it doesn't keep to conditions, so two publishers would not notice."""
        name = f"{RUNS}/{self.run}/probe"
        try:
            self._put(name, b"1", "create")
            first = self.place.stat(name)
            ignored = None if self._is_refused(name, b"2", "create") else "create only what is not there"
            if ignored is None:
                self._put(name, b"3", _as_it_was(first))
                if not self._is_refused(name, b"4", _as_it_was(first)):
                    ignored = "replace only what is as it was"
        except ConditionError as error:
            raise UsageError(f"{self.out}: the store refuses conditions that hold ({error}); {_ELSEWHERE}") from error
        finally:
            with contextlib.suppress(StorageError, NotThereError):
                self._delete([name])
        if ignored is not None:
            raise UsageError(
                f"{self.out}: the store doesn't keep to conditions of a put ({ignored}), so "
                f"that two who publish there could destroy each other's work; {_ELSEWHERE}"
            )
        return first.modified

    def _is_refused(self, name: str, data: bytes, mode: Any) -> bool:
        try:
            self._put(name, data, mode)
        except ConditionError:
            return True
        return False

    def _claim(self, there: Collection[Object]) -> None:
        """Decides where files go, and says that somebody is at it. Raises UsageError."""
        self.folder_name = f"{RUNS}/{self.run}"
        if self._before is None and not any(one.name == CLAIM for one in there) and self._is_taken(""):
            self.folder_name = ""
        if self.folder_name == "":
            # Who had the claim before has published by now, if he ever does.
            self._before = self._current()
            if self._before is None:
                return
            self.folder_name = f"{RUNS}/{self.run}"
            self._delete([CLAIM])
            self._check_free(there)
        if not self.movable:
            raise UsageError(f"{self.out}: somebody else is writing there; choose another place")
        if not self._is_taken(self.folder_name):
            raise StorageError(f"{self.place.address(self._mark)}: is there already; pack again")
        _log.info("%s: files go to %s", self.out, self.place.address(self.folder_name))

    def _is_taken(self, folder: str) -> bool:
        """Whether the claim on a folder is ours from now on, as nobody had it. Raises StorageError."""
        try:
            self._put(_mark_of(folder), self._said(), "create")
        except ConditionError:  # an answer may be lost, and the put that was sent again refused for our own sake
            return _is_claimed(self.place, folder, self.run)
        return True

    @property
    def _is_ours(self) -> bool:
        """Whether the claim is still ours: who takes this packing for dead may have removed it, and begun his own.

        Raises StorageError.
        """
        return _is_claimed(self.place, self.folder_name, self.run)

    @property
    def _mark(self) -> str:
        """The object that says that this packing is at work."""
        return _mark_of(self.folder_name)

    def _said(self) -> bytes:
        said = {"run": self.run, "host": platform.node(), "pid": os.getpid(), "at": f"{datetime.now(UTC):%FT%TZ}"}
        return json.dumps(said).encode()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(HeadraceError):
                if self._is_ours:
                    self._put(self._mark, self._said(), "overwrite")

    def _end_beats(self) -> None:
        self._ended.set()
        if self._beats is not None:
            self._beats.join()

    # --- ending -------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Uploads all, and publishes it. Raises UsageError, StorageError."""
        sink, last = StoreSink(self.place, self.folder_name), self.folder / self.replaceable
        with explained(last):
            data = last.read_bytes()

        def put(path: Path) -> None:
            sink.put(path, path.relative_to(self.folder).as_posix())

        files = [path for path in sorted(self.folder.rglob("*")) if path != last and path.is_file()]
        self._finished = {path.relative_to(self.folder).as_posix() for path in files}
        for _ in parallel.ordered(put, files, workers=_UPLOADS, ahead=_UPLOADS):
            pass
        self._check_complete(data)
        self._publish(data)
        self._end_beats()
        with contextlib.suppress(HeadraceError):  # it is published
            self._unclaim()

    def _check_complete(self, data: bytes) -> None:
        """Raises StorageError: somebody has removed what was uploaded."""
        there = {one.name: one.size for one in self.place.objects(self.folder_name)}
        for name, size in _promised(data, self.folder_name).items():
            if name not in there or size not in (None, there[name]):
                raise StorageError(
                    f"{self.place.address(name)}: was uploaded, and is {'another now' if name in there else 'gone'}: "
                    "somebody has cleared it away; pack again"
                )

    def _publish(self, data: bytes) -> None:
        """The one put that counts. Raises UsageError: somebody was quicker. StorageError."""
        self._is_publishing = True
        try:
            self._put(self.replaceable, data, "create" if self._before is None else _as_it_was(self._before))
        except StorageError as error:
            # An answer may be lost, and the put that was sent again for it is refused for our own sake.
            if self._is_there(data):
                return
            if not isinstance(error, ConditionError):
                raise
            raise UsageError(
                f"{self.out}: somebody else has published {self.what} there meanwhile, which stays as it is"
            ) from error

    def _is_there(self, data: bytes) -> bool:
        self.place.forget(self.replaceable)
        with contextlib.suppress(HeadraceError):
            return self.place.content(self.replaceable, len(data)) == data
        return False

    def _unpublished(self, error: HeadraceError) -> HeadraceError:
        """The error with where the finished work lies."""
        where = f"{self.place.address(self.folder_name)} and {self.folder}"
        if isinstance(error, UsageError):  # all is uploaded but what would have published it
            self._end_beats()
            name = f"{self.replaceable}.unpublished-{self.run[-8:]}"
            name = "/".join(filter(None, (self.folder_name, name)))
            with contextlib.suppress(HeadraceError):
                self._put(name, (self.folder / self.replaceable).read_bytes(), "create")
                self._unclaim()
                where = self.place.address(self.folder_name)
                shutil.rmtree(self.folder, ignore_errors=True)
                return type(error)(
                    f"{error}\nnothing is lost: what was made lies in {where} for a day at least; to put it in the "
                    f"place of theirs, copy {self.place.address(name)} to {self.place.address(self.replaceable)}"
                )
        return type(error)(f"{error}\nnothing was published; what was made lies in {where}")

    def _give_up(self) -> None:
        """Removes what was uploaded, as far as the store lets; nothing once the claim is somebody else's, or gone: who
        has taken it may have published under the same names."""
        self._end_beats()
        with contextlib.suppress(HeadraceError):
            if not self._is_ours:
                return
            # From now on no sink of ours puts anything; until the last is removed nobody else writes here.
            self._put(self._mark, json.dumps({"ended": self.run}).encode(), "overwrite")
            there = [one.name for one in self.place.objects(self.folder_name)]
            if self.folder_name:
                there = [f"{self.folder_name}/{name.removeprefix(f'{self.folder_name}/')}" for name in there]
            else:
                there = [name for name in there if _OWN.fullmatch(name) or name in self._finished]
            self._delete([name for name in there if name != self._mark])
            self._delete([self._mark])

    def _unclaim(self) -> None:
        """Raises StorageError."""
        if self._is_ours:
            self._delete([self._mark])

    # --- objects ------------------------------------------------------------------------------------------------------

    def _put(self, name: str, data: bytes, mode: Any) -> None:
        """An object, at once. Raises ConditionError, NotThereError, StorageError."""
        import obstore

        store = self.place.store if len(data) < stores.SLOWEST else _uploading(self.place)
        key = store.key_of(name)
        stores.ask(self.place.address(name), lambda: obstore.put(store.api, key, data, mode=mode, use_multipart=False))

    def _delete(self, names: Collection[str]) -> None:
        """Removes objects. Raises StorageError."""
        _delete(self.place, names)

    def _clear(self, found: Iterable[Object], now: datetime) -> None:
        old = [one.name for one in found if now - one.modified > DAY]
        if old:
            _log.info("%s: clearing %d objects of packings that were replaced, or did not end", self.out, len(old))
            self._delete(old)


_ELSEWHERE = "pack into a folder and copy that there, or choose a store that does (S3, Google Cloud Storage, Azure)"


def _delete(place: RemotePlace, names: Collection[str]) -> None:
    import obstore

    keys = [place.store.key_of(name) for name in names]
    if keys:
        with contextlib.suppress(NotThereError):  # some stores mind
            stores.ask(str(place.path), lambda: obstore.delete(place.store.api, keys))


def _as_it_was(one: Object) -> dict[str, str]:
    """The condition that an object is this version of it."""
    return {name: value for name, value in (("e_tag", one.e_tag), ("version", one.version)) if value is not None}


def _promised(data: bytes, folder: str) -> dict[str, int | None]:
    """Name below the place -> bytes, where they are said, of the files that a manifest speaks of."""
    try:
        raw = json.loads(data)
        names: dict[str, int | None] = dict.fromkeys(raw["files"])
        for entry in raw["shards"]:
            if "foreign" not in entry:
                names[entry["name"]] = entry["bytes"]
                names[entry["name"].removesuffix(".tfrecord") + ".idx"] = None
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {"/".join(filter(None, (folder, name))): size for name, size in names.items()}


def orphans(
    place: RemotePlace,
    *,
    replaceable: str = "headrace.json",
    there: Iterable[Object] | None = None,
    now: datetime | None = None,
) -> list[Object]:
    """What packings have left at a place that is no part of its dataset: of versions that were replaced, and of those
    that did not end. Those that are at work are left out. Raises NotThereError, StorageError, UsageError."""
    place.forget(replaceable)
    try:
        data = place.content(replaceable, 1 << 32)
        folder = str(json.loads(data).get("folder", ""))
        if not (kept := _promised(data, folder)):
            return []  # of another version, perhaps: nobody here knows what it needs
    except NotThereError:
        data, folder, kept = b"", "", {}
    except (ValueError, AttributeError):
        return []
    finally:
        place.forget(replaceable)
    found = [one for one in (place.objects() if there is None else there) if _run_of(one.name) is not None]
    now = now or datetime.now(UTC)
    alive = {_run_of(one.name) for one in found if _is_mark(one.name) and now - one.modified <= DAY}
    if kept and _is_edited(data):  # earlier versions need what this one does not name
        alive.add(f"{folder}/" if folder else "")
    return [one for one in found if one.name not in kept and _run_of(one.name) not in alive]


def _is_edited(data: bytes) -> bool:
    return bool(json.loads(data).get("version", 1) != 1)


def _run_of(name: str) -> str | None:
    """The folder of the packing that wrote an object, "" for the place itself; None of what no packing did."""
    if found := _RUN.match(name):
        return found[0]
    return "" if _OWN.fullmatch(name) else None


def _is_mark(name: str) -> bool:
    return name.rpartition("/")[2] == CLAIM
