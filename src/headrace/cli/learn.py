"""The verbs train, evaluate and predict: parse, call one function of headrace.learn, print."""

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

from headrace.errors import HeadraceError, UsageError

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
_Workers = Annotated[int | None, typer.Option(help="Threads that decode; by default one per core.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    app.command("train")(_train)
    app.command("evaluate")(_evaluate)
    app.command("predict")(_predict)


@contextmanager
def _hushed() -> Iterator[None]:
    """Import a framework without what it says about itself; when that import fails, it is said after all."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow's C++ writes some lines whatever its log level, straight to descriptor 2.
    sys.stderr.flush()
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


def _numbers(text: str) -> int | tuple[int, int]:
    """160 or 120x160 (height x width)."""
    try:
        sides = tuple(int(side) for side in text.lower().split("x"))
    except ValueError:
        sides = ()
    if len(sides) == 1:
        return sides[0]
    if len(sides) == 2:
        return sides[0], sides[1]
    raise UsageError(f"--size is {text!r}, wanted a number or HEIGHTxWIDTH")


def _train(
    dataset: Annotated[Path, typer.Argument(metavar="DS", help="A packed dataset.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The folder for the model and all that belongs to it.")],
    task: Annotated[str | None, typer.Option(help="classification; by default told from the dataset.")] = None,
    model: Annotated[str | None, typer.Option(help="vanilla or mobilenet_v2. [default: vanilla]")] = None,
    alpha: Annotated[float | None, typer.Option(help="mobilenet_v2: its width. [default: 1.0]")] = None,
    weights: Annotated[
        str | None, typer.Option(help="mobilenet_v2: 'imagenet' or a weights file. [default: random]")
    ] = None,
    frozen: Annotated[
        bool | None,
        typer.Option("--frozen", help="mobilenet_v2: train the last layer alone.", show_default=False),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the training images. [default: 25]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step. [default: 32]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam. [default: 0.001]")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="constant, or cosine with a warm-up. [default: constant]")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Pixels of the model's input: 160 or 120x160. [default: as packed]")
    ] = None,
    fit: Annotated[str | None, typer.Option(help="stretch, crop or pad to that size. [default: stretch]")] = None,
    augment: Annotated[str | None, typer.Option(help="Any of flip,crop,colour.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without a better one.")] = None,
    split: Annotated[str | None, typer.Option(help="The split to train on. [default: train]")] = None,
    val_split: Annotated[str | None, typer.Option(help="The split to validate on. [default: val, if there]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation. [default: 0]")] = None,
    deterministic: Annotated[
        bool | None,
        typer.Option("--deterministic", help="The same bits each time, slower.", show_default=False),
    ] = None,
    cache: Annotated[str | None, typer.Option(help="memory: keep the decoded images.")] = None,
    workers: _Workers = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from RUN's last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older RUN.")] = False,
    as_json: _Json = False,
) -> None:
    """Train a model on a packed dataset.

    Stopped (Ctrl-C, SIGTERM, kill) it goes on where it was with --resume; other options are then the run's own.

    Example: headrace train catsdogs --out runs/first --model vanilla --epochs 25
    """
    with _hushed():
        from headrace.learn.run import Options, Run
        from headrace.learn.train import train
    given: dict[str, Any] = {
        "task": task,
        "model": model,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "size": None if size is None else _numbers(size),
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
    given = {name: value for name, value in given.items() if value is not None}
    asked = {"alpha": alpha, "weights": weights, "frozen": frozen}
    model_options = {name: value for name, value in asked.items() if value is not None}
    options = Run(out).read_recipe().options if resume else Options()
    options = replace(options, **given, model_options={**options.model_options, **model_options})
    trained = train(dataset, out=out, options=options, resume=resume, overwrite=overwrite)
    if as_json:
        print(json.dumps(trained.json()))
        return
    best = " ".join(
        f"{name} {value:.4f}" for name, value in trained.best.items() if name not in ("epoch", "learning_rate")
    )
    print(
        f"{trained.epochs} epochs at {trained.images_per_second:.0f} images/s"
        if trained.seconds
        else "nothing was left"
    )
    if trained.stopped_early:
        print(f"stopped early: no better epoch in the last {options.patience}")
    print(f"kept epoch {trained.best['epoch']}: {best}")
    print(f"in {trained.run}: model.keras, recipe.json, history.csv, curves.png, logs")


def _evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="What train made.")],
    dataset: Annotated[Path, typer.Argument(metavar="DS", help="A packed dataset with the same classes.")],
    split: Annotated[str | None, typer.Option(help="[default: the run's validation split, else all]")] = None,
    out: Annotated[Path | None, typer.Option(help="Where pictures go. [default: RUN]")] = None,
    workers: _Workers = None,
    as_json: _Json = False,
) -> None:
    """Judge a trained model on a packed dataset: accuracy, per class, confusion.

    Example: headrace evaluate runs/first catsdogs --split val
    """
    with _hushed():
        from headrace.learn.evaluate import evaluate
    found = evaluate(run, dataset, split=split, out=out, workers=workers)
    if as_json:
        print(json.dumps(found.json()))
        return
    print(found.text)
    for path in found.figures:
        print(f"drawn in {path}")


def _predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="What train made.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES…", help="Image files, folders of them, globs.")],
    out: Annotated[Path, typer.Option(help="The folder for predictions.csv, predictions.png and rejects.jsonl.")],
    pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression whose group 'label' is the true class in a file's name."),
    ] = None,
    by_folder: Annotated[bool, typer.Option("--by-folder", help="The true class is the name of the folder.")] = False,
    workers: _Workers = None,
    as_json: _Json = False,
) -> None:
    """Ask a trained model about image files: a table, and a picture that marks what is known to be wrong.

    Example: headrace predict runs/first photos/*.jpg --out predicted
    """
    with _hushed():
        from headrace.learn.predict import predict
    found = predict(run, images, out=out, pattern=pattern, by_folder=by_folder, workers=workers)
    if as_json:
        print(json.dumps(found.json()))
        return
    counts = ", ".join(f"{n} {name}" for name, n in found.classes.items())
    print(f"{found.predicted} images: {counts}")
    if found.accuracy is not None:
        print(f"accuracy where the class is known: {found.accuracy:.4f}")
    if found.rejects:
        print(f"{len(found.rejects)} files could not be read, see {found.rejects_file}")
    print(f"table {found.csv}, picture {found.picture}")
