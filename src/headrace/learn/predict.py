"""Prediction: photos prepared as those trained on, or a dataset, then the model; table and pictures."""

from __future__ import annotations

import csv
import glob
import io
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headrace import order
from headrace.errors import DataError, NotThereError, UsageError
from headrace.format import manifest
from headrace.format.manifest import REJECTS_FILE
from headrace.format.versions import addressed
from headrace.imaging.codec import encode_jpeg
from headrace.imaging.placement import place
from headrace.imaging.sheet import Tile, contact_sheet, png
from headrace.learn import networks, parts, pictures
from headrace.learn.run import Run
from headrace.learn.tasks import Hits, Task
from headrace.load.dataset import Dataset
from headrace.load.photos import Framing, Photo, read_photo
from headrace.place.address import located
from headrace.place.local import explained
from headrace.place.open import at
from headrace.place.publish import write_atomic
from headrace.progress import bar
from headrace.record import Reject
from headrace.sources.names import compile_pattern
from headrace.sources.walking import natural, walk

log = logging.getLogger(__name__)

SHEET = 60  # images on the contact sheet at most: more could not be told apart
PHOTO_SHEET = 24  # the same for photos with what was found drawn on them

TABLE, SHEET_FILE = "predictions.csv", "predictions.png"
PICTURES = "drawn"  # the folder of photos with what was found drawn on them

Observe = Callable[[str, Framing], Any]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """`rows` as in `csv`: path, class, probability, p_<class> …, observed for classification; path, score, x0, y0, x1,
    y1, class for detection, a row per box; path, keypoint, score, x, y for keypoints, a row per point; in pixels of the
    photo turned upright; path, classes (with "; " between), p_<class> … for several classes; path, value for values.
    seen == predicted + len(rejects).

    Of a dataset, id and split stand in the place of path, and what was observed beside what was found: observed,
    estimated, probability, p_<class> … (for several classes without probability, for values observed and estimated);
    right (1 or 0) behind a box; observed_x, observed_y behind a point; pixels are those of the stored image.

    `text` says for people what was found and how much of it is right. `classes` counts what was predicted. `accuracy`
    is the share of right images among those of which the truth is known, None where it is of none, and for values,
    which are only near or far: `text` says how far. `picture` is the
    sheet, None where there are no pixels to show; `pictures` the folder of photos with what was found drawn on them,
    None without.
    """

    run: Path
    task: str
    seen: int
    predicted: int
    rows: tuple[Mapping[str, Any], ...]
    rejects: tuple[Reject, ...]
    text: str
    classes: Mapping[str, int]
    accuracy: float | None
    csv: Path
    picture: Path | None
    pictures: Path | None
    rejects_file: Path

    def json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "run": str(self.run),
            "seen": self.seen,
            "predicted": self.predicted,
            "rejected": len(self.rejects),
            "classes": dict(self.classes),
            "accuracy": self.accuracy,
            "csv": str(self.csv),
            "picture": None if self.picture is None else str(self.picture),
            "pictures": None if self.pictures is None else str(self.pictures),
            "rejects": str(self.rejects_file),
        }


def predict(
    run: Run | Path | str,
    images: Dataset | Photo | Sequence[Photo],
    *,
    out: Path | str,
    split: str | None = None,
    pattern: str | None = None,
    by_folder: bool = False,
    truth: Dataset | Path | str | None = None,
    threshold: float | None = None,
    limit: int | None = None,
    network: networks.Network | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Predictions:
    """Ask a run's best model about images, and write table, pictures and Rejects into `out`.

    `images`: paths of files, folders and globs; arrays or PIL images (see PhotoLoader); or a dataset, its path or a
    view, with what was observed beside what is found: all of it, or its `split`, which may be a share that the run
    divided. For plain objects without a folder see `Run.predict`.

    Of photos the observed class, where it is known, is group `label` of the regular expression `pattern` searched in
    the file's name, or with `by_folder` the name of the file's folder; with `truth`, a packed dataset, it is what that
    says of the record whose id the path ends with: its class or classes, boxes, keypoints or value. `threshold` is the
    least score of what is shown: by default 0.5 for a box or one of several classes, 0.3 for a keypoint. `limit`: of
    photos the first so many, of a dataset so many evenly drawn. `network`: see `Run`. Photos that can't be used are
    Rejects.
    Raises NotThereError (a path), UsageError (no run, options of another task, an empty view), DataError (nothing
    readable), StorageError.
    """
    run = run if isinstance(run, Run) else Run(run, network=network)
    task = run.task if threshold is None else run.task.with_threshold(threshold)
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}, wanted 1 or more")
    _warn_of_guesses(run)
    table = _Table(run, task, Path(out))
    images = _dataset(images)
    if isinstance(images, Dataset):
        chosen = parts.Chosen(images) if split is None else parts.judged(images, split, run.recipe)
        if given := [name for name, value in _options(pattern, by_folder, truth) if value]:
            raise UsageError(f"{', '.join(given)}: of a dataset's records it says itself what was observed")
        _of_dataset(table, chosen, limit, workers, progress)
    elif split is not None:
        raise UsageError(f"split is {split!r}, and the images are no dataset")
    else:
        _of_photos(table, images, _observer(task, pattern, by_folder, truth), limit, workers, progress)
    return table.written()


def _warn_of_guesses(run: Run) -> None:
    """Says that a run has learnt next to nothing, where its validation did: its boxes look like those of a good one."""
    if (guessing := run.task.guessing()) is None:
        return
    name, most = guessing
    values = run.folder.history(f"val_{name}")
    if values and max(values) <= most:
        log.warning(
            "%s has learnt next to nothing, so that what it says is hardly more than guessed: val_%s is %.4f at best, "
            "in %d epoch%s; train it for longer",
            run.folder.folder, name, max(values), len(values), "s" * (len(values) != 1),
        )  # fmt: skip


class _Table:
    """What was found, as it grows: rows, counts, tiles."""

    def __init__(self, run: Run, task: Task, folder: Path) -> None:
        self.run, self.task, self.folder = run, task, folder
        self.first: tuple[str, ...] = ()
        self.rows: list[dict[str, Any]] = []
        self.rejects: list[Reject] = []
        self.counts: Counter[str] = Counter()
        self.predicted = self.known = self.right = 0
        self.off = 0.0  # how far all are, where the task knows nothing else
        self.hits: Hits | None = None  # of the objects whose truth is known
        self.tiles: list[Tile] = []
        self.title = ""
        self.drawn = False

    def add(self, named: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], found: Any, observed: Any) -> None:
        """What was found in one image, and the rows that tell it."""
        self.predicted += 1
        self.rows += [{**named, **row} for row in rows]
        self.counts.update(self.task.counted(found))
        if observed is not None:
            self.known += 1
            right = self.task.is_correct(found, observed)
            if right is None:
                self.off += self.task.wrong(found, observed)
            self.right += bool(right)
            if hits := self.task.hits(found, observed):
                self.hits = hits if self.hits is None else Hits(*map(sum, zip(self.hits, hits, strict=True)))

    def written(self) -> Predictions:
        """All files, once all is known. Raises DataError, StorageError."""
        run, folder, rejects = self.run, self.folder, self.rejects
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects)
        write_atomic(folder / REJECTS_FILE, "".join(lines).encode(errors="backslashreplace"))
        if not self.predicted:
            raise DataError(f"none of {len(rejects)} files could be read as an image, the first: {rejects[0]}")
        write_atomic(folder / TABLE, _csv(self.rows, self.first))
        if self.tiles:
            picture = contact_sheet(self.tiles, title=self._title(), large=self.task.draw_on_original)
            write_atomic(folder / SHEET_FILE, png(picture))
        return Predictions(
            run=run.folder.folder,
            task=run.recipe.task,
            seen=self.predicted + len(rejects),
            predicted=self.predicted,
            rows=tuple(self.rows),
            rejects=tuple(rejects),
            text="\n".join(self._lines()),
            classes=dict.fromkeys(run.recipe.class_names, 0) | self.counts,
            accuracy=self.right / self.known if self.known and self.task.right_means is not None else None,
            csv=folder / TABLE,
            picture=folder / SHEET_FILE if self.tiles else None,
            pictures=folder / PICTURES if self.drawn else None,
            rejects_file=folder / REJECTS_FILE,
        )

    def _lines(self) -> list[str]:
        """What was found, and how much of it is right, where anybody knows."""
        found = self.task.count_text(self.counts, self.predicted) or "nothing found"
        lines = [f"{self.predicted} image{'s' * (self.predicted != 1)}: {found}"]
        if not self.known:
            return lines
        if self.task.right_means is None:
            return [*lines, self.task.off_text(self.known, self.off / self.known)]
        return [*lines, self.task.right_text(self.right, self.known, self.hits)]

    def _title(self) -> str:
        shown = f" ({len(self.tiles)} images shown)" if len(self.tiles) < self.predicted else ""
        return f"{self.title}{'; '.join(self._lines())}{shown}"


def _of_dataset(table: _Table, chosen: parts.Chosen, limit: int | None, workers: int | None, progress: bool) -> None:
    task, dataset = table.task, chosen.view
    if not len(dataset):
        raise UsageError(f"{dataset.path}: {dataset.what or 'the dataset'} holds no records")
    if limit is not None:
        dataset = dataset.sample(limit)
    there = type(task).of(dataset)
    observe = task.ground_truth(dataset) if there is not None and there.class_names == task.class_names else None
    table.first = ("id", "split", *task.compared_columns)
    table.title = f"{dataset.path.name}{f', {dataset.what}' if dataset.is_view else ''}: "
    records = pictures.Records(table.run, task, dataset, n=PHOTO_SHEET if task.draw_on_original else SHEET)
    with bar(total=len(dataset), unit="img", desc="predict", show=None if progress else False) as shown:
        for number, answer in enumerate(table.run.answers(dataset, task, workers=workers)):
            row = dataset.store.table.row(int(dataset.rows[number]))
            observed = pictures.observed(observe, row)
            named = {"id": answer.id, "split": chosen.name or row["split"]}
            table.add(named, task.compared(answer.found, observed), answer.found, observed)
            if records.wants(number):
                records.add(number, answer, observed)
            shown.update(1)
    table.tiles = records.tiles()


def _of_photos(
    table: _Table,
    images: Photo | Sequence[Photo],
    observe: Observe,
    limit: int | None,
    workers: int | None,
    progress: bool,
) -> None:
    task = table.task
    table.run.check_photos()
    photos, refused = _photos(images)
    table.rejects += refused
    if not photos and not refused:
        raise UsageError("no images are given to predict")
    loader = table.run.photos(photos[:limit], workers=workers)
    names = loader.names
    table.first = ("path", *task.columns)
    table.drawn = task.draw_on_original
    drawings = _pictures(names, table.folder / PICTURES) if task.draw_on_original else {}
    most = PHOTO_SHEET if task.draw_on_original else SHEET
    drawn = {names[i] for i in order.evenly(len(names), most)}
    of = dict(zip(names, loader.photos, strict=True))
    with bar(total=len(names), unit="img", desc="predict", show=None if progress else False) as shown:
        for batch, rejects, views in loader:
            table.rejects += rejects
            outputs = table.run.outputs(batch.images) if batch.ids else ()
            for path, image, output, view in zip(batch.ids, batch.images, outputs, views, strict=True):
                found, observed = task.prediction(output, view), observe(path, view)
                also = {"observed": observed} if isinstance(observed, str) else {}
                table.add({"path": path}, [{**row, **also} for row in task.rows(found)], found, observed)
                if task.draw_on_original:
                    tile = task.tile(read_photo(of[path], loader.options), found, observed)
                    _write(drawings[path], encode_jpeg(tile.image, quality=90))
                    if path in drawn:
                        table.tiles.append(replace(tile, image=pictures.small(tile.image)))
                elif path in drawn:
                    table.tiles.append(task.tile(image, found, observed))
            shown.update(len(batch.ids) + len(rejects))


def _photos(images: Photo | Sequence[Photo]) -> tuple[list[Photo], list[Reject]]:
    """The photos one by one, files of folders and globs too; Rejects for what has no usable name. Raises UsageError."""
    if isinstance(images, str | os.PathLike | Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4):
        images = [images]
    paths = [photo for photo in images if isinstance(photo, str | os.PathLike)]
    if paths and len(paths) < len(images):
        raise UsageError("images are paths and pixels at once; ask about the one, then about the other")
    if not paths:
        return list(images), []
    found, rejects = find_images([os.fspath(path) for path in paths])
    return list(found), rejects


def _dataset(images: Any) -> Any:
    """The dataset that a path names, or what is given. Raises UsageError: several at once."""
    if isinstance(images, Dataset | np.ndarray | Image.Image):
        return images
    given = [images] if isinstance(images, str | os.PathLike) else list(images)
    named = [path for path in given if isinstance(path, str | os.PathLike) and _is_dataset(path)]
    if named and len(given) > 1:
        raise UsageError(f"{named[0]}: is a dataset; ask about one dataset, or about images, at a time")
    return Dataset(named[0]) if named else given


def _is_dataset(path: str | os.PathLike[str]) -> bool:
    where = located(addressed(path)[0])
    if isinstance(where, Path):
        return (where / manifest.FILE).is_file()
    try:
        return at(where).size(manifest.FILE) > 0
    except NotThereError:
        return False


def _options(pattern: str | None, by_folder: bool, truth: Any) -> list[tuple[str, bool]]:
    return [("pattern", pattern is not None), ("by_folder", by_folder), ("truth", truth is not None)]


def find_images(images: Iterable[Path | str]) -> tuple[list[str], list[Reject]]:
    """Paths of the files that files, folders and globs name, each once; and Rejects for what has no usable name.

    Raises NotThereError, UsageError (nothing in it).
    """
    paths: dict[str, None] = {}
    rejects: list[Reject] = []
    for given in map(str, images):
        path = Path(given)
        if path.is_dir():
            for found in walk(path, Counter()):
                if isinstance(found, Reject):
                    rejects.append(found)
                else:
                    paths[str(path / found)] = None
        elif path.exists():
            paths[given] = None
        elif matches := sorted(glob.glob(given, recursive=True), key=natural):  # noqa: PTH207 (also absolute)
            paths |= dict.fromkeys(match for match in matches if Path(match).is_file())
        else:
            raise NotThereError(f"{given}: no such file or folder")
    if not paths and not rejects:
        raise UsageError(f"{', '.join(map(str, images))}: holds no images")
    return list(paths), rejects


def _observer(task: Task, pattern: str | None, by_folder: bool, truth: Dataset | Path | str | None) -> Observe:
    """What says of a photo what is known about it, None where nothing is."""
    if not task.one_name and (by_folder or pattern is not None):
        raise UsageError(f"pattern and by_folder say the one class of an image; for {task.learns_from} pass truth=DS")
    if truth is not None and (by_folder or pattern is not None):
        raise UsageError(
            "what is observed comes from truth, a packed dataset, or from pattern or by_folder, not from both"
        )
    if truth is not None:
        dataset = truth if isinstance(truth, Dataset) else Dataset(truth)
        return _stored(dataset, task.ground_truth(dataset))
    if by_folder:
        if pattern is not None:
            raise UsageError("the observed class comes from a pattern or from the folder, not from both")
        return lambda path, _: Path(path).absolute().parent.name or None
    if pattern is None:
        return lambda path, _: None
    compiled = compile_pattern(pattern)

    def observe(path: str, _: Framing) -> str | None:
        match = compiled.search(Path(path).name)
        return (match["label"] or None) if match else None

    return observe


def _stored(dataset: Dataset, observed: Callable[[Mapping[str, Any], Framing], Any]) -> Observe:
    """What `observed` says of the dataset's record whose id a photo's path ends with, None without such a record."""
    fit = dataset.manifest.pack_options["fit"]
    store = dataset.store

    def observe(path: str, view: Framing) -> Any:
        parts = Path(path).parts
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        row = next((row for end in ends if (row := store.row_of(end)) is not None), None)
        if row is None:
            return None
        stored = store.table.row(row)
        size = stored["height"], stored["width"]
        packed = place(view.height, view.width, size, fit)
        return observed(stored, replace(view, moves=(packed.move,), size=size))

    return observe


def _pictures(paths: Sequence[str], folder: Path) -> dict[str, Path]:
    """Path -> where its picture goes: as the photos lie below the folder that holds them all, as JPEG.

    Raises UsageError: a picture would replace a photo.
    """
    absolute = {path: os.path.abspath(path) for path in paths}  # noqa: PTH100 (".." must go: it would lead elsewhere)
    root = os.path.commonpath([os.path.dirname(path) for path in absolute.values()] or ["/"])  # noqa: PTH120
    pictures = {}
    for path, full in absolute.items():
        picture = folder / Path(full).relative_to(root)
        if picture.suffix.lower() not in (".jpg", ".jpeg"):
            picture = picture.with_name(f"{picture.name}.jpg")
        pictures[path] = picture
    photos = {os.path.realpath(path) for path in paths}
    if clash := next((picture for picture in pictures.values() if os.path.realpath(picture) in photos), None):
        raise UsageError(f"{clash}: is one of the photos, and its picture would replace it; choose another place (out)")
    return pictures


def _write(path: Path, data: bytes) -> None:
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _csv(rows: Sequence[Mapping[str, Any]], first: Sequence[str]) -> bytes:
    columns = list(dict.fromkeys((*first, *(name for row in rows for name in row))))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode(errors="backslashreplace")
