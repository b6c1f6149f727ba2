"""Verbs about learning: train, evaluate, predict."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.words import AsJson, DatasetPath, Workers, parse_size
from headrace.errors import HeadraceError

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that train has made.", readable=False)]


def register(app: typer.Typer) -> None:
    """Adds this module's verbs to `app`."""
    app.command(epilog="Example: headrace train cats --out run --model vanilla --epochs 25")(train)
    app.command(epilog="Example: headrace evaluate run cats --split val")(evaluate)
    app.command(epilog="Example: headrace predict run photos/test --out predicted")(predict)


def train(
    dataset: DatasetPath,
    out: Annotated[Path, typer.Option(metavar="RUN", help="The folder to make: the model and all about it.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="classification, detection, keypoints; told from the dataset by default.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="vanilla (default) or mobilenet_v2; detection: mobilenet_v2; keypoints: mobilenet_v2 (heatmaps) or "
            "mobilenet_v2_points (coordinates).",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="mobilenet_v2: its width; 1 by default, 0.75 for detection and keypoints.", show_default=False
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="mobilenet_v2: 'imagenet' or a weights file; random by default.", show_default=False),
    ] = None,
    frozen: Annotated[
        bool | None,
        typer.Option("--frozen", help="mobilenet_v2: train nothing but what comes after it.", show_default=False),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Times through the training images; 25 by default.", show_default=False)
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Images per step; 32 by default, 16 for detection and keypoints.", show_default=False),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="0.001 by default, 0.004 for detection, 0.002 for keypoints.", show_default=False),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="constant (default), or cosine with a warm-up (default for detection and keypoints).",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="The model's input: N (square) or HxW pixels; as packed by default, 224 for detection and keypoints.",
            show_default=False,
        ),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(help="How images come to that size: stretch (default), crop, pad.", show_default=False),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Any of flip,crop,colour, or ''; none by default, all for detection and keypoints.", show_default=False
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many epochs without a better one; never by default.", show_default=False),
    ] = None,
    split: Annotated[str | None, typer.Option(help="To train on; 'train' by default.", show_default=False)] = None,
    val_split: Annotated[
        str | None, typer.Option(help="To validate on; 'val', if there, by default.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of weights, order, augmentation; 0 by default.", show_default=False)
    ] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help="The same bits each time; slower.", show_default=False)
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="memory: keep decoded images; nothing by default.", show_default=False)
    ] = None,
    workers: Workers = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from RUN's last checkpoint, with the run's own options.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing RUN.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on a packed dataset. Stopped in any way, it goes on where it was with --resume."""
    with _hushed():
        from headrace.learn.run import Options, Run
        from headrace.learn.train import train as run

    asked = {
        "task": task,
        "model": model,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "size": parse_size(size),
        "fit": fit,
        "augment": None if augment is None else tuple(name for name in augment.split(",") if name),
        "patience": patience,
        "split": split,
        "val_split": val_split,
        "seed": seed,
        "deterministic": deterministic,
        "cache": cache,
        "workers": workers,
    }
    options = Run(out).read_recipe().options if resume else Options()
    model_options = _given({"alpha": alpha, "weights": weights, "frozen": frozen})
    options = replace(options, **_given(asked), model_options={**options.model_options, **model_options})
    result = run(dataset, out=out, options=options, resume=resume, overwrite=overwrite)
    if as_json:
        print(json.dumps(result.json()))
        return
    best = {name: value for name, value in result.best.items() if name not in ("epoch", "learning_rate")}
    told = " ".join(f"{name} {value:.4f}" for name, value in best.items())
    print(f"{result.epochs} epochs, {result.images_per_second:.0f} images/s")
    if result.stopped_early:
        print(f"stopped early: no better epoch among the last {options.patience}")
    print(f"kept epoch {result.best['epoch']}: {told}")
    print(f"{result.run}: model.keras, recipe.json, history.csv, curves.png, logs")


def evaluate(
    run: RunPath,
    dataset: DatasetPath,
    split: Annotated[
        str | None, typer.Option(help="By default the run's validation split, or else all.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the picture; RUN by default.", show_default=False)
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Judge a trained model on a packed dataset: accuracy, precision and recall per class; average precision; PCK."""
    with _hushed():
        from headrace.learn.evaluate import evaluate as judge

    result = judge(run, dataset, split=split, out=out, workers=workers)
    if as_json:
        print(json.dumps(result.json()))
        return
    print(result.text)
    for path in result.figures:
        print(f"picture: {path}")


def predict(
    run: RunPath,
    images: Annotated[list[str], typer.Argument(metavar="IMAGES…", help="Image files, folders, globs.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for predictions.csv, predictions.png, drawn, rejects.jsonl.")
    ],
    pattern: Annotated[
        str | None,
        typer.Option(
            help="Where the class is known: regular expression with a group 'label', searched in the file name.",
            show_default=False,
        ),
    ] = None,
    by_folder: Annotated[
        bool, typer.Option("--by-folder", help="Where the class is known: it is the folder's name.")
    ] = False,
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="DS",
            help="Detection, keypoints: packed dataset whose boxes or points are drawn as well.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Least score of what is shown: 0.5 by default for detection, 0.3 for keypoints.", show_default=False
        ),
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Ask a trained model about image files. Makes a table and a picture, and marks what is known to be wrong."""
    with _hushed():
        from headrace.learn.predict import predict as ask

    result = ask(
        run,
        images,
        out=out,
        pattern=pattern,
        by_folder=by_folder,
        truth=truth,
        threshold=threshold,
        workers=workers,
    )
    if as_json:
        print(json.dumps(result.json()))
        return
    counts = ", ".join(f"{n} {name}" for name, n in result.classes.items())
    print(f"{result.predicted} images: {counts}")
    if result.accuracy is not None:
        print(f"share of images that are right, where the truth is known: {result.accuracy:.4f}")
    if result.rejects:
        print(f"{len(result.rejects)} files can't be used, see {result.rejects_file}")
    print(f"table: {result.csv}\npicture: {result.picture}")
    if result.pictures:
        print(f"photos with what was found: {result.pictures}")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def _hushed() -> Iterator[None]:
    """Imports a framework without what it says about itself; when the import fails, it is said after all."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    # TensorFlow's C++ writes some lines whatever its log level, straight to descriptor 2.
    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except HeadraceError:
            raise
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
