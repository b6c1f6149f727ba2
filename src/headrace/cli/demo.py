"""Verb demo: draws labelled photos and runs the whole way on them, by the very commands a user would type."""

from __future__ import annotations

import math
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.command import Verb
from headrace.errors import HeadraceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHAPES = {"circle": 40, "triangle": 3, "square": 4}
_SIDE = 96


def register(app: typer.Typer) -> None:
    """Adds this module's verb to `app`."""
    app.command(cls=Verb, epilog="headrace demo /tmp/demo")(demo)


def demo(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to work in; demo by default.")] = Path("demo"),
    photos: Annotated[int, typer.Option(metavar="N", help="Training images to draw of each class.")] = 300,
    epochs: Annotated[int, typer.Option(metavar="N", help="Number of epochs.")] = 15,
) -> None:
    """Draw images, pack them, train and predict, in two minutes."""
    mark = out / ".headrace-demo"
    if out.exists():
        if not mark.exists() and any(out.iterdir()):
            raise UsageError(f"{out}: holds other files; name a new folder for the demo")
        shutil.rmtree(out)
    mark.parent.mkdir(parents=True)
    mark.touch()
    train, test = out / "photos" / "train", out / "photos" / "test"
    typer.echo(f"Drawing {photos * len(_SHAPES)} photos of {', '.join(_SHAPES)} in {train}, and 24 more in {test}")
    _draw_all(train, photos, first=0, seed=1)
    _draw_all(test, 8, first=photos, seed=2)
    data, run, seen = out / "shapes", out / "run", out / "predictions"
    pattern = r"^(?P<label>[a-z]+)\."
    options = ["--format", "names", "--pattern", pattern, "--size", "64", "--split", "train=0.8,val=0.2"]
    _run("pack", train, data, *options)
    _run("info", data)
    _run("verify", data)
    _run("train", data, "--out", run, "--model", "vanilla", "--epochs", epochs, "--batch-size", 16)
    _run("evaluate", run, data)
    _run("predict", run, test, "--out", seen, "--pattern", pattern)
    typer.echo(f"\nDone. Predictions on images that were not used for training: {seen / 'predictions.png'}")


def _run(*words: object) -> None:
    """One headrace command, shown and run. Raises HeadraceError when it fails; its own words stand above."""
    arguments = [str(word) for word in words]
    typer.echo(f"\n$ headrace {shlex.join(arguments)}")
    sys.stdout.flush()
    code = subprocess.run([sys.executable, "-m", "headrace", *arguments], check=False).returncode
    if code:
        raise HeadraceError(f"'headrace {arguments[0]}' ended with exit code {code}")


def _draw_all(folder: Path, per_class: int, *, first: int, seed: int) -> None:
    import numpy as np

    from headrace.imaging.codec import encode_jpeg

    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in _SHAPES:
        for i in range(first, first + per_class):
            (folder / f"{name}.{i}.jpg").write_bytes(encode_jpeg(draw(name, rng), quality=90))


def draw(name: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [96, 96, 3]: one shape of random colour, place, size and turn on a soft ground with a few strewn lines."""
    import cv2
    import numpy as np

    ground = rng.integers(0, 64, (3, 3, 3), np.uint8)
    image = cv2.resize(ground, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC) + rng.integers(0, 64, 3, np.uint8)
    for _ in range(3):
        ends = rng.integers(0, _SIDE, (2, 2)).tolist()
        cv2.line(image, ends[0], ends[1], rng.integers(0, 256, 3).tolist(), 1, cv2.LINE_AA)
    radius = rng.uniform(20, 34)
    centre = rng.uniform(radius, _SIDE - radius, 2)
    corners, turn = _SHAPES[name], rng.uniform(0, 2 * math.pi)
    angles = turn + np.arange(corners) * 2 * math.pi / corners
    points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cv2.fillPoly(image, [np.round(points * 16).astype(np.int32)], rng.integers(160, 256, 3).tolist(), cv2.LINE_AA, 4)
    noise = rng.normal(0, 6, image.shape)
    drawn: NDArray[np.uint8] = np.clip(image + noise, 0, 255).astype(np.uint8)
    return drawn
