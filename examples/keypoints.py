"""Records of one's own, keypoints, a network of one's own, and what it finds: python examples/keypoints.py OUT

Draws 240 arrows, packs them into OUT/arrows, trains into OUT/run, and says how far off the points of new arrows are.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

import headrace as hr


def arrow(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [64, 64, 3] with a line that grows brighter to its end, and float32 [2, 3]: x, y, visible of both ends."""
    rng = np.random.default_rng(seed)
    tail, tip = rng.uniform(8, 56, (2, 2))
    y, x = np.mgrid[0:64, 0:64] + 0.5
    image = rng.integers(0, 60, (64, 64, 3))
    for share in np.linspace(0, 1, 40):
        near = np.hypot(x - (tail + share * (tip - tail))[0], y - (tail + share * (tip - tail))[1]) < 1 + 3 * share
        image[near] = (60 + 190 * share, 120, 250 - 190 * share)
    return image.astype(np.uint8), np.array([(*tail, 2), (*tip, 2)], np.float32)


def records() -> Iterator[hr.Record]:
    for i in range(240):
        image, points = arrow(i)
        png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        yield hr.Record(id=f"{i}.png", encoded=png, keypoints=points[None])  # one object; boxes are told from points


def network(input_shape: tuple[int, ...], points: int):
    import keras

    pixels = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 255)(pixels)
    for filters in (16, 32, 64):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Dense(3 * points, activation="sigmoid")(keras.layers.Flatten()(x))  # x / w, y / h, is it there
    return keras.Model(pixels, keras.layers.Reshape((points, 3))(x))


def main(out: str, epochs: int = 12) -> None:
    hr.pack(records(), Path(out, "arrows"), splits={"train": 0.9, "val": 0.1}, overwrite=True)
    options = {"size": 64, "augment": (), "learning_rate": 2e-3, "epochs": epochs}
    hr.train(Path(out, "arrows"), out=Path(out, "run"), model=network, overwrite=True, **options)
    new = [arrow(1000 + i) for i in range(50)]
    found = hr.Run(Path(out, "run")).predict([image for image, _ in new], threshold=0)
    off = [np.hypot(*(one.points[:, :2] - points[:, :2]).T) for one, (_, points) in zip(found, new, strict=True)]
    print(f"off by {np.mean(off):.1f} pixels of 64 on average")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
