"""Verbs about learning: train, evaluate, predict, export-model."""

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

from headrace.cli.command import Verb
from headrace.cli.options import AsJson, Workers, parse_dataset, parse_devices, parse_size, parse_split, parse_weights
from headrace.cli.text import amount
from headrace.errors import HeadraceError, UsageError

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A folder made by train.", readable=False)]
Network = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="FILE:FUNCTION",
        help="The network that RUN was trained with, if it is your own; its code is run.",
    ),
]

_DOUBTS = 10  # labels in doubt that are printed
_DATA, _MODEL, _TRAINING = "Data", "Model", "Training"


def register(app: typer.Typer) -> None:
    """Adds this module's verbs to `app`."""
    app.command(
        cls=Verb,
        epilog="headrace train cats --out run --model vanilla --epochs 25\n"
        "headrace train cats --out run --divide train=0.81,val=0.19 --model net.py:build --monitor val_loss\n"
        "headrace train faces --val wider-val --out run --epochs 100 --patience 10",
    )(train)
    app.command(cls=Verb, epilog="headrace evaluate run cats:val --worst")(evaluate)
    app.command(
        cls=Verb,
        epilog="headrace predict run photos/test --out predicted\nheadrace predict run cats:val --out predicted",
    )(predict)
    app.command("export-model", cls=Verb, epilog="headrace export-model run cats.onnx --format onnx")(export_model)


def train(
    dataset: Annotated[
        str, typer.Argument(metavar="DS[:SPLIT]", help="A dataset, or the split of it to train on; train by default.")
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder to make, with the model and its history.")],
    val: Annotated[
        str | None,
        typer.Option(
            metavar="DS[:SPLIT]",
            help="Another dataset to validate on; its split val by default.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    divide: Annotated[
        str | None,
        typer.Option(
            metavar="train=SHARE,val=SHARE",
            help="Divide DS at random, by --seed and stratified by class; nothing is repacked.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="SPLIT", help="Split to train on; train by default.", rich_help_panel=_DATA),
    ] = None,
    val_split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT", help="Split to validate on; val by default, if there is one.", rich_help_panel=_DATA
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Use at most N images of each split, for a quick try.", rich_help_panel=_DATA),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="N|HxW",
            help="Input size of the model; as packed by default, 224 for detection and keypoints.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="[stretch|crop|pad]",
            help="How images come to that size; stretch by default.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Any of flip, crop, colour, affine, blur, noise, erase, grey, randaugment, or ''; the first three by "
            "default for detection and keypoints, else none.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option(
            metavar="[mixup|cutmix|mosaic]",
            help="Make each image of several: mixup and cutmix for classes and values, mosaic for boxes and keypoints.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            metavar="[full|windows]",
            help="What is shuffled: everything, or windows of neighbouring records, for sets larger than the cache; "
            "full by default.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="balanced|NAME=X,…|COLUMN",
            help="How often images are drawn: each class as often as any other, by class, or by a column of numbers; "
            "each once by default.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(metavar="[memory]", help="Keep decoded images in memory; off by default.", rich_help_panel=_DATA),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="[classification|detection|keypoints|multilabel|value]",
            help="What to learn; inferred from the dataset by default.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE:FUNCTION",
            help="vanilla (default for classes and values), mobilenet_v2 (default for boxes and keypoints), or any of "
            "keras.applications, such as ResNet50 or efficientnetv2-b0; for boxes with _multiscale behind it: for many "
            "and small ones, else a grid; for keypoints with _points behind it: coordinates, else heatmaps. Or your "
            "own function: it gets input_shape (h, w, c) and the number of classes, and returns a Keras model for "
            "pixels from 0 to 255.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Width multiplier of MobileNets; 1 by default, 0.75 of mobilenet_v2 for detection and keypoints.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="[imagenet|FILE]",
            help="Initial weights of a network of keras.applications; random by default.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    frozen: Annotated[
        bool | None,
        typer.Option("--frozen", help="Keep these weights as they are.", rich_help_panel=_MODEL),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of epochs; 25 by default.", rich_help_panel=_TRAINING),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images per step; 32 by default, 16 for detection and keypoints.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    drop_last: Annotated[
        bool | None,
        typer.Option(
            "--drop-last",
            help="Skip a last batch that is smaller than the others (TPUs want that).",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="0.001 by default, 0.004 for detection, 0.002 for keypoints.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="[constant|cosine]",
            help="Learning rate schedule, cosine with a warm-up; constant by default, cosine for detection and "
            "keypoints.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    class_weights: Annotated[
        str | None,
        typer.Option(
            metavar="balanced|NAME=X,…",
            help="How much an image of a class counts in the loss, as in cat=2,dog=1; 1 by default.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="[float32|mixed_float16|mixed_bfloat16]",
            help="What the network computes in; float32 by default.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="N|all|I,J,…",
            help="Share each batch among N devices, all, or those of these numbers (JAX, TensorFlow); one by default.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Stop after N epochs without improvement; off by default.", rich_help_panel=_TRAINING
        ),
    ] = None,
    monitor: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC[:max|:min]",
            help="Metric that the best epoch is chosen by, as in val_loss or val_auc:max; val_accuracy or the task's "
            "own by default.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Random seed of weights, order, augmentation and --divide; 0 by default.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    deterministic: Annotated[
        bool | None,
        typer.Option("--deterministic", help="Make runs repeatable bit by bit; slower.", rich_help_panel=_TRAINING),
    ] = None,
    options: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read options from a TOML file (epochs = 10) or another run's recipe.json; those of the command line "
            "take precedence.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue RUN from its last checkpoint, with its options; repeat --model if it is your own.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing RUN.")] = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Train a model on a dataset.

    A run that was interrupted continues with --resume.
    """
    with _quiet_stderr():
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
        "order": order,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "size": parse_size(size),
        "fit": fit,
        "augment": None if augment is None else tuple(name for name in augment.split(",") if name),
        "mix": mix,
        "class_weights": parse_weights(class_weights, flag="--class-weights"),
        "sample": parse_weights(sample, flag="--sample"),
        "precision": precision,
        "devices": parse_devices(devices),
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
    metrics = " ".join(f"{name} {value:.4f}" for name, value in best.items())
    print(f"{result.epochs} epochs, {result.images_per_second:.0f} images/s")
    if result.stopped_early:
        print(f"stopped early: no improvement in the last {result.epochs - int(result.best['epoch'])} epochs")
    print(f"kept epoch {result.best['epoch']}: {metrics}")
    made = ("model.keras", "layers.txt", "recipe.json", "history.csv", "curves.png", "logs")
    print(f"{result.run}: {', '.join(name for name in made if (result.run / name).exists())}")


def evaluate(
    run: RunPath,
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DS[:SPLIT]",
            help="A dataset, or a split of it; by default the one RUN was validated on, else val, else all.",
        ),
    ],
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="The same as DS:SPLIT.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for evaluation.json and figures; RUN/evaluations/DS-SPLIT by default."
        ),
    ] = None,
    worst: Annotated[
        bool, typer.Option("--worst", help="Show the largest errors in examples.png, the worst first.")
    ] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Use at most N records, evenly spaced.")] = None,
    doubts: Annotated[
        int | None,
        typer.Option(metavar="N", help="Also list at most N records whose labels may be wrong: doubts.csv and .png."),
    ] = None,
    network: Network = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a trained model on a dataset.

    Reports loss, accuracy, precision and recall per class; average precision for boxes and for several classes; PCK for
    keypoints; mean absolute error for values. Writes a figure, and examples.png: 32 records with ground truth and
    prediction.
    """
    with _quiet_stderr():
        from headrace.learn.evaluate import evaluate as judge

    path, of = parse_dataset(dataset)
    if of is not None and split is not None:
        raise UsageError(f"{dataset} names a split, and so does --split; leave one out")
    result = judge(
        run,
        path,
        split=split or of,
        out=out,
        worst=worst,
        limit=limit,
        doubts=doubts,
        network=network,
        workers=workers,
    )
    if as_json:
        print(json.dumps(result.json()))
        return
    print(result.text)
    if result.doubts is not None:
        n = len(result.doubts)
        print(f"{n} label{'s' * (n != 1)} in doubt{', the most doubtful first:' if n else ''}")
        for doubt in result.doubts[:_DOUBTS]:
            print(f"  {doubt.id}: {doubt.observed or 'none'}, seems to be {doubt.estimated or 'none'}")
    for figure in result.figures:
        print(f"picture: {figure}")


def predict(
    run: RunPath,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES|DS[:SPLIT]", help="Image files, folders, globs; or a dataset.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for predictions.csv, predictions.png, rejects.jsonl, and images with boxes or points drawn.",
        ),
    ],
    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Regular expression with a group named label, for images whose file name tells the true class.",
        ),
    ] = None,
    by_folder: Annotated[
        bool, typer.Option("--by-folder", help="The name of an image's folder is its true class.")
    ] = False,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="DS", help="Dataset with the true labels of the same images."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Lowest score to show; 0.5 by default for detection and multilabel, 0.3 for keypoints."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Use at most N images: the first, or evenly spaced ones of a dataset."),
    ] = None,
    network: Network = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Run a trained model on images, or on the records of a dataset.

    Writes a table and a contact sheet. Where the truth is known, wrong predictions are framed in red.
    """
    with _quiet_stderr():
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
    print(result.text)
    if result.rejects:
        print(f"{len(result.rejects)} files rejected, see {result.rejects_file}")
    print(f"table: {result.csv}")
    if result.picture:
        print(f"picture: {result.picture}")
    if result.pictures:
        print(f"images with predictions drawn: {result.pictures}")


def export_model(
    run: RunPath,
    out: Annotated[str, typer.Argument(metavar="OUT", help="File to make; for saved_model a folder.")],
    format: Annotated[str, typer.Option(metavar="[onnx|saved_model|torchscript]", help="What to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what export-model wrote.")] = False,
    network: Network = None,
    as_json: AsJson = False,
) -> None:
    """Write a trained model for programs that have neither Headrace nor Keras.

    Raw pixels go in, predictions come out. What is written must say the same of drawn images as Keras does.
    """
    with _quiet_stderr():
        from headrace.learn.export import DRAWN, export

    made = export(run, out, format=format, overwrite=overwrite, network=network)
    if as_json:
        print(json.dumps(made.json()))
        return
    print(f"{made.path}: {made.format}, {amount(made.bytes)}, written by {made.framework}")
    for what, tensors in (("takes", made.inputs), ("says", made.outputs)):
        for name, facts in tensors.items():
            print(f"  {what} {name}: {facts['dtype']} {['b', *facts['shape'][1:]]}".replace("'", ""))
    if made.unchecked is None:
        print(f"  off Keras by {made.difference:.2g} at most, of {DRAWN} drawn images")
    else:
        print(f"  not compared with Keras: {made.unchecked}")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def _quiet_stderr() -> Iterator[None]:
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
