"""Images in NumPy arrays, batches on demand, no framework at all: python examples/arrays.py [X.npy Y.npy]

X is [n, h, w] or [n, h, w, c], Y the labels. Without them 400 slices are drawn; every second has a spot.
A softmax regression learns from batches; what is asked of the loader is the same for any model.
"""

import sys

import numpy as np

import headrace as hr


def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-1:1:32j, -1:1:32j]
    x, y = np.empty((n, 32, 32), np.uint8), np.arange(n) % 2
    for i in range(n):
        down, right = rng.uniform(-0.3, 0.3, 2)
        spot = y[i] * 120 * (np.hypot(columns - right, rows - down) < 0.2)
        x[i] = np.clip(90 * (np.hypot(columns, rows) < 0.9) + spot + rng.normal(0, 8, (32, 32)), 0, 255)
    return x, y


def main(*paths: str) -> None:
    x, y = paths or draw(400)  # a path of a .npy file is read image by image
    ds = hr.ArrayDataset(x, y)
    train, val = ds.divide({"train": 0.8, "val": 0.2}, seed=0)
    loader = train.loader(batch_size=32, seed=0, augment=(hr.HorizontalFlip(),))
    classes = len(ds.class_names)
    weights = np.zeros((int(np.prod((*loader.size, ds.channels))) + 1, classes))

    def features(images: np.ndarray) -> np.ndarray:
        return np.column_stack([images.reshape(len(images), -1) / 255, np.ones(len(images))])

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        powers = np.exp(pixels @ weights - (pixels @ weights).max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    for epoch in range(10):
        for images, labels in ((batch.images, batch.targets) for batch in loader):  # the loader counts its epochs
            pixels = features(images)
            weights -= 0.02 * pixels.T @ (probabilities(pixels) - np.eye(classes)[labels]) / len(images)
        right = [
            (probabilities(features(batch.images)).argmax(axis=1) == batch.targets).sum()
            for batch in val.loader(batch_size=64, shuffle=False)
        ]
        print(f"epoch {epoch}: {sum(right)} of {len(val)} right")


if __name__ == "__main__":
    main(*sys.argv[1:])
