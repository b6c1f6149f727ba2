"""Prediction: image files through what the training images went through, then the model; table and picture."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import DataError, NotThereError, UsageError
from headrace.format.manifest import REJECTS_FILE
from headrace.format.storage import explained, write_atomic
from headrace.imaging.codec import Pixels, encode_jpeg
from headrace.imaging.transforms import draw, place
from headrace.learn import inference, plots
from headrace.learn.run import filled
from headrace.learn.tasks import Task
from headrace.load.dataset import Dataset
from headrace.load.photos import PhotoLoader, View, read_photo
from headrace.progress import bar
from headrace.record import Reject
from headrace.sources.files import natural, walk
from headrace.sources.names import compile_pattern

SHEET = 60  # images on the contact sheet at most: more could not be told apart
PHOTO_SHEET, PHOTO_SIDE = 24, 480  # the same for photos with what was found drawn on them, and their longer side there

PICTURES = "drawn"  # the folder of photos with what was found drawn on them

Observe = Callable[[str, View], Any]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """`rows` as in `csv`: path, class, probability, p_<class> …, observed for classification; path, score, x0, y0, x1,
    y1, class for detection, a row per box; path, keypoint, score, x, y for keypoints, a row per point; in pixels of the
    photo turned upright. seen == predicted + len(rejects).

    `classes` counts what was predicted. `accuracy` is the share of right images among those of which the truth is
    known, None where it is of none. `pictures` is the folder of photos with what was found drawn on them, None without.
    """

    run: Path
    task: str
    seen: int
    predicted: int
    rows: tuple[Mapping[str, Any], ...]
    rejects: tuple[Reject, ...]
    classes: Mapping[str, int]
    accuracy: float | None
    csv: Path
    picture: Path
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
            "picture": str(self.picture),
            "pictures": None if self.pictures is None else str(self.pictures),
            "rejects": str(self.rejects_file),
        }


def predict(
    run: Path | str,
    images: Sequence[Path | str],
    *,
    out: Path | str,
    pattern: str | None = None,
    by_folder: bool = False,
    truth: Dataset | Path | str | None = None,
    threshold: float | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Predictions:
    """Ask a run's best model about image files, folders and globs; write table, pictures and Rejects into `out`.

    The observed class, where it is known, is group `label` of the regular expression `pattern` searched in the
    file's name, or with `by_folder` the name of the file's folder. The boxes or keypoints that are there are those of
    the packed dataset `truth` for the record whose id the path ends with. `threshold` is the least score of what is
    shown: by default 0.5 for a box, 0.3 for a keypoint.
    Files that can't be read are Rejects.
    Raises NotThereError (a path), UsageError (no run, or options of another task), DataError (nothing readable),
    StorageError.
    """
    asked = inference.load(run)
    task = asked.task if threshold is None else asked.task.at(threshold)
    observe = _observer(task, pattern, by_folder, truth)
    paths, rejects = find_images(images)
    recipe, folder = asked.recipe, Path(out)
    pictures = _pictures(paths, folder / PICTURES) if task.on_photo else {}
    most = PHOTO_SHEET if task.on_photo else SHEET
    drawn = {paths[i] for i in np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)}
    loader = PhotoLoader(
        paths,
        pack_options=recipe.pack_options,
        size=recipe.size,
        fit=recipe.options.fit,
        channels=recipe.channels,
        batch_size=filled(recipe.options.batch_size),
        workers=workers,
    )
    rows: list[dict[str, Any]] = []
    tiles: list[plots.Tile] = []
    known = right = predicted = 0
    with bar(total=len(paths), unit="img", desc="predict", show=None if progress else False) as shown:
        for batch, refused, views in loader:
            rejects += refused
            outputs = asked.outputs(batch) if batch.ids else ()
            for path, image, output, view in zip(batch.ids, batch.images, outputs, views, strict=True):
                found, observed = task.found(output, view), observe(path, view)
                also = {"observed": observed} if isinstance(observed, str) else {}
                rows += [{"path": path} | row | also for row in task.rows(found)]
                if observed is not None:
                    known += 1
                    right += task.right(found, observed)
                if task.on_photo:
                    options = loader.options
                    photo = read_photo(path, max_pixels=options.max_pixels, value_range=options.value_range)
                    tile = task.tile(photo, found, observed)
                    _write(pictures[path], encode_jpeg(tile.image, quality=90))
                    if path in drawn:
                        tiles.append(replace(tile, image=_small(tile.image)))
                elif path in drawn:
                    tiles.append(task.tile(image, found, observed))
            predicted += len(batch.ids)
            shown.update(len(batch.ids) + len(refused))
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    result = Predictions(
        run=asked.run.folder,
        task=recipe.task,
        seen=predicted + len(rejects),
        predicted=predicted,
        rows=tuple(rows),
        rejects=tuple(rejects),
        classes=dict.fromkeys(recipe.class_names, 0) | Counter(row[task.counted] for row in rows),
        accuracy=right / known if known else None,
        csv=folder / "predictions.csv",
        picture=folder / "predictions.png",
        pictures=folder / PICTURES if task.on_photo else None,
        rejects_file=folder / REJECTS_FILE,
    )
    lines = (json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects)
    write_atomic(result.rejects_file, "".join(lines).encode(errors="backslashreplace"))
    if not predicted:
        raise DataError(f"none of {len(rejects)} files could be read as an image, the first: {rejects[0]}")
    write_atomic(result.csv, _csv(rows, task.columns))
    if tiles:
        sheet = plots.contact_sheet(tiles, title=_title(result, len(tiles)), large=task.on_photo)
        write_atomic(result.picture, plots.png(sheet))
    return result


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
    if task.on_photo and (by_folder or pattern is not None):
        raise UsageError("pattern and by_folder say a photo's class; what is in it says truth, a packed dataset")
    if truth is not None:
        dataset = truth if isinstance(truth, Dataset) else Dataset(truth)
        return _stored(dataset, task.observer(dataset))
    if by_folder:
        if pattern is not None:
            raise UsageError("the observed class comes from a pattern or from the folder, not from both")
        return lambda path, _: Path(path).absolute().parent.name or None
    if pattern is None:
        return lambda path, _: None
    compiled = compile_pattern(pattern)

    def observe(path: str, _: View) -> str | None:
        match = compiled.search(Path(path).name)
        return (match["label"] or None) if match else None

    return observe


def _stored(dataset: Dataset, observed: Callable[[Mapping[str, Any], View], Any]) -> Observe:
    """What `observed` says of the dataset's record whose id a photo's path ends with, None without such a record."""
    fit = dataset.manifest.pack_options["fit"]
    catalog = dataset.catalog
    rows = {id_: row for row, id_ in enumerate(catalog["id"])}

    def observe(path: str, view: View) -> Any:
        parts = Path(path).parts
        row = next((rows[end] for i in range(len(parts)) if (end := "/".join(parts[i:])) in rows), None)
        if row is None:
            return None
        stored = catalog.row(row, named=True)
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
        raise UsageError(f"{clash}: is one of the photos, and its picture would replace it; choose another --out")
    return pictures


def _write(path: Path, data: bytes) -> None:
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _small(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    scale = min(1.0, PHOTO_SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    out = np.empty((*size, image.shape[2]), np.uint8)
    draw(image, place(height, width, size, "stretch"), height, width, out)
    return out


def _csv(rows: Sequence[Mapping[str, Any]], first: Sequence[str]) -> bytes:
    columns = list(dict.fromkeys(("path", *first, *(name for row in rows for name in row))))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode(errors="backslashreplace")


def _title(result: Predictions, shown: int) -> str:
    title = f"{result.predicted} images"
    if shown < result.predicted:
        title += f", {shown} of them shown"
    counts = [f"{n} {name}" for name, n in result.classes.items() if n]
    title += ": " + ", ".join(counts[:6] + ["…"] * (len(counts) > 6))
    if result.accuracy is not None:
        title += f"; {result.accuracy:.1%} right where it is known"
    return title
