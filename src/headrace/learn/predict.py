"""Prediction: image files through what the training images went through, then the model; table and picture."""

from __future__ import annotations

import csv
import glob
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import DataError, NotThereError, UsageError
from headrace.format.manifest import REJECTS_FILE
from headrace.format.storage import explained, write_atomic
from headrace.learn import inference, plots
from headrace.load.photos import PhotoLoader
from headrace.progress import bar
from headrace.record import Reject
from headrace.sources.files import natural, walk

SHEET = 60  # images on the contact sheet at most: more could not be told apart

Observe = Callable[[str], str | None]


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """`rows` as in `csv` (path, class, probability, p_<class> …, observed). seen == predicted + len(rejects).

    `classes` counts what was predicted; `accuracy` is over images whose class is known, None where none is.
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
            "rejects": str(self.rejects_file),
        }


def predict(
    run: Path | str,
    images: Sequence[Path | str],
    *,
    out: Path | str,
    pattern: str | None = None,
    by_folder: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Predictions:
    """Ask a run's best model about image files, folders and globs; write table, picture and Rejects into `out`.

    The observed class, where it is known, is group `label` of the regular expression `pattern` searched in the
    file's name, or with `by_folder` the name of the file's folder. Files that can't be read are Rejects.
    Raises NotThereError (a path), UsageError (no run, pattern), DataError (nothing readable), StorageError.
    """
    asked = inference.load(run)
    observe = _observer(pattern, by_folder)
    paths, rejects = find_images(images)
    recipe, folder = asked.recipe, Path(out)
    drawn = {paths[i] for i in np.linspace(0, len(paths) - 1, min(SHEET, len(paths))).astype(int)}
    loader = PhotoLoader(
        paths,
        pack_options=recipe.pack_options,
        size=recipe.size,
        fit=recipe.options.fit,
        channels=recipe.channels,
        batch_size=recipe.options.batch_size,
        workers=workers,
    )
    rows: list[dict[str, Any]] = []
    tiles: list[plots.Tile] = []
    known = right = predicted = 0
    with bar(total=len(paths), unit="img", desc="predict", show=None if progress else False) as shown:
        for batch, refused in loader:
            rejects += refused
            outputs = asked.outputs(batch) if batch.ids else ()
            for path, image, output in zip(batch.ids, batch.images, outputs, strict=True):
                observed = observe(path)
                found = asked.task.rows(output)
                rows += [{"path": path} | row | ({"observed": observed} if observed else {}) for row in found]
                if observed:
                    known += 1
                    right += observed == found[0]["class"]
                if path in drawn:
                    tiles.append(asked.task.tile(image, output, observed))
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
        classes=dict.fromkeys(recipe.class_names, 0) | Counter(row["class"] for row in rows),
        accuracy=right / known if known else None,
        csv=folder / "predictions.csv",
        picture=folder / "predictions.png",
        rejects_file=folder / REJECTS_FILE,
    )
    lines = (json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects)
    write_atomic(result.rejects_file, "".join(lines).encode(errors="backslashreplace"))
    if not predicted:
        raise DataError(f"none of {len(rejects)} files could be read as an image, the first: {rejects[0]}")
    write_atomic(result.csv, _csv(rows))
    if tiles:
        write_atomic(result.picture, plots.png(plots.contact_sheet(tiles, title=_title(result, len(tiles)))))
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


def _observer(pattern: str | None, by_folder: bool) -> Observe:
    if by_folder:
        if pattern is not None:
            raise UsageError("the observed class comes from a pattern or from the folder, not from both")
        return lambda path: Path(path).absolute().parent.name or None
    if pattern is None:
        return lambda path: None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"pattern {pattern!r} is no regular expression: {error}") from error
    if "label" not in compiled.groupindex:
        raise UsageError(f"pattern {pattern!r} has no group 'label'; wanted e.g. '^(?P<label>cat|dog)\\.'")

    def observe(path: str) -> str | None:
        match = compiled.search(Path(path).name)
        return (match["label"] or None) if match else None

    return observe


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode(errors="backslashreplace")


def _title(result: Predictions, shown: int) -> str:
    title = f"{result.predicted} images"
    if shown < result.predicted:
        title += f", {shown} of them shown"
    title += ": " + ", ".join(f"{n} {name}" for name, n in result.classes.items() if n)
    if result.accuracy is not None:
        title += f"; {result.accuracy:.1%} right where the class is known"
    return title
