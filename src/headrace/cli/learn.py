"""Verbs about learning: train, evaluate, predict."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.words import AsJson, Workers, parse_dataset, parse_size, parse_split
from headrace.errors import HeadraceError, UsageError

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that train has made.", readable=False)]


Network = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="FILE:FUNCTION",
        help="The network that RUN was trained with, where it has code of its own; it is run.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Adds this module's verbs to `app`."""
    app.command(
        epilog="Example: headrace train cats --out run --model vanilla --epochs 25\n\n"
        "Example: headrace train cats --out run --divide train=0.81,val=0.19 --model net.py:build --monitor val_loss"
        "\n\nExample: headrace train faces --val wider-val --out run --epochs 100 --patience 10"
    )(train)
    app.command(epilog="Example: headrace evaluate run cats:val --worst")(evaluate)
    app.command(
        epilog="Example: headrace predict run photos/test --out predicted\n\n"
        "Example: headrace predict run cats:val --out predicted"
    )(predict)


def train(
    dataset: Annotated[
        str, typer.Argument(metavar="DS[:SPLIT]", help="A dataset, or a split of it to train on; 'train' by default.")
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The folder to make: the model and all about it.")],
    val: Annotated[
        str | None,
        typer.Option(
            metavar="DS[:SPLIT]", help="Another dataset to validate on; its split 'val' by default.", show_default=False
        ),
    ] = None,
    divide: Annotated[
        str | None,
        typer.Option(
            help="train=0.81,val=0.19: divide DS by --seed, stratified by class; nothing is repacked.",
            show_default=False,
        ),
    ] = None,
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
            "mobilenet_v2_points (coordinates). Or your own, file.py:function: it gets input_shape (h, w, c) and the "
            "number of classes, and gives a Keras model for pixels of 0 to 255.",
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
    drop_last: Annotated[
        bool | None,
        typer.Option("--drop-last", help="Leave out a last, smaller batch (TPUs want that).", show_default=False),
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
    monitor: Annotated[
        str | None,
        typer.Option(
            help="What makes an epoch better: a column of history.csv, such as val_loss, val_auc:max; by default the "
            "task's own, such as val_accuracy.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="To train on; 'train' by default.", show_default=False)] = None,
    val_split: Annotated[
        str | None, typer.Option(help="To validate on; 'val', if there, by default.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="So many images of each part at most, evenly drawn; to try things out.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of weights, order, augmentation, --divide; 0 by default.", show_default=False)
    ] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic", help="The same bits each time; slower.", show_default=False)
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="memory: keep decoded images; nothing by default.", show_default=False)
    ] = None,
    options: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Options from a TOML file (epochs = 10) or another RUN's recipe.json; those given here go over them.",
            show_default=False,
        ),
    ] = None,
    workers: Workers = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from RUN's last checkpoint, with its own options; name a --model of your own again."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing RUN.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on a dataset. Stopped in any way, it goes on where it was with --resume."""
    with _hushed():
        from headrace.learn.recipe import Options, RunFolder
        from headrace.learn.train import train as run

    path, of = parse_dataset(dataset)
    if of is not None and split is not None:
        raise UsageError(f"{dataset} names the split to train on, and so does --split; leave one out")
    other, val_of = (None, None) if val is None else parse_dataset(val)
    if val_of is not None and val_split is not None:
        raise UsageError(f"{val} names the split to validate on, and so does --val-split; leave one out")
    asked = {
        "task": task,
        "epochs": epochs,
        "batch_size": batch_size,
        "drop_last": drop_last,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "size": parse_size(size),
        "fit": fit,
        "augment": None if augment is None else tuple(name for name in augment.split(",") if name),
        "patience": patience,
        "monitor": monitor,
        "split": split or of,
        "val_split": val_split or val_of,
        "divide": parse_split(divide, flag="--divide"),
        "limit": limit,
        "seed": seed,
        "deterministic": deterministic,
        "cache": cache,
        "workers": workers,
    }
    base = None
    if options is not None:
        if resume:
            raise UsageError("--resume goes on with the run's own options; leave --options out")
        base = Options.read(options, model=model)
    settings = _given(asked)
    if model_options := _given({"alpha": alpha, "weights": weights, "frozen": frozen}):
        before = base or (RunFolder(out).read_recipe().options if resume else Options())
        settings["model_options"] = {**before.model_options, **model_options}
    result = run(
        path,
        out=out,
        val=other,
        model=model,
        options=base,
        resume=resume,
        overwrite=overwrite,
        progress=None if as_json else True,
        **settings,
    )
    if as_json:
        print(json.dumps(result.json()))
        return
    best = {name: value for name, value in result.best.items() if name not in ("epoch", "learning_rate")}
    told = " ".join(f"{name} {value:.4f}" for name, value in best.items())
    print(f"{result.epochs} epochs, {result.images_per_second:.0f} images/s")
    if result.stopped_early:
        print(f"stopped early: no better epoch among the last {result.epochs - int(result.best['epoch'])}")
    print(f"kept epoch {result.best['epoch']}: {told}")
    print(f"{result.run}: model.keras, layers.txt, recipe.json, history.csv, curves.png, logs")


def evaluate(
    run: RunPath,
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DS[:SPLIT]",
            help="A dataset, or a split of it: by default what RUN was validated on, else 'val', else all.",
        ),
    ],
    split: Annotated[str | None, typer.Option(help="The split, as behind DS.", show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for evaluation.json and pictures; RUN/evaluations/DS-SPLIT by default.", show_default=False
        ),
    ] = None,
    worst: Annotated[
        bool, typer.Option("--worst", help="Show in examples.png what RUN is furthest off, the worst first.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="So many records at most, evenly drawn.", show_default=False)
    ] = None,
    network: Network = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Judge a trained model on a dataset: loss, accuracy, precision and recall per class; average precision; PCK.

    And show it: a figure, and in examples.png 32 records with what was observed and what was estimated.
    """
    with _hushed():
        from headrace.learn.evaluate import evaluate as judge

    path, of = parse_dataset(dataset)
    if of is not None and split is not None:
        raise UsageError(f"{dataset} names a split, and so does --split; leave one out")
    result = judge(run, path, split=split or of, out=out, worst=worst, limit=limit, network=network, workers=workers)
    if as_json:
        print(json.dumps(result.json()))
        return
    print(result.text)
    for figure in result.figures:
        print(f"picture: {figure}")


def predict(
    run: RunPath,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES…|DS[:SPLIT]", help="Image files, folders, globs; or a dataset.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for predictions.csv, predictions.png, rejects.jsonl and drawn: photos with boxes or points.",
        ),
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
            help="Dataset that says what is in the photos: their class, or boxes or points, drawn as well.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Least score of what is shown: 0.5 by default for detection, 0.3 for keypoints.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="The first so many images; of a dataset so many, evenly drawn.", show_default=False),
    ] = None,
    network: Network = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Ask a trained model about images, or about the records of a dataset. Makes a table and a sheet of pictures.

    What is known to be wrong is framed in red.
    """
    with _hushed():
        from headrace.learn.predict import predict as ask

    path, split = parse_dataset(images[0]) if len(images) == 1 else (None, None)
    result = ask(
        run,
        images if split is None or path is None else [path],
        out=out,
        split=split,
        pattern=pattern,
        by_folder=by_folder,
        truth=truth,
        threshold=threshold,
        limit=limit,
        network=network,
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
    print(f"table: {result.csv}")
    if result.picture:
        print(f"picture: {result.picture}")
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
