"""What a model sees of arrays that are kept, on the backend of KERAS_BACKEND, as one JSON object of digests.

test_feed_kept judges it. The first layer writes down the bytes of what it is called with.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras
import numpy as np

import headrace as hr

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(20, 6, 5, 1)).astype(np.float32)
AGES = RNG.normal(size=20).astype(np.float32)
MASKS = RNG.integers(0, 2, (20, 6, 5, 1)).astype(np.float32)


class Seen(keras.layers.Layer):
    """Passes its input on, and writes down the digest of it."""

    digests: tuple[str, ...] = ()

    def call(self, inputs: Any) -> Any:
        try:
            found = keras.ops.convert_to_numpy(inputs)
        except Exception:  # the look at the shapes is symbolic on some backends
            return inputs
        Seen.digests += (digest(found),)
        return inputs


def digest(array: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()


def fit(x: np.ndarray[Any, Any]) -> dict[str, Any]:
    ds = hr.ArrayDataset(x, {"age": AGES, "mask": MASKS}, dtype="keep")
    loader = ds.loader(batch_size=8, seed=2)
    wanted = [digest(np.ascontiguousarray(batch.images, np.float32)) for batch in ds.loader(batch_size=8, seed=2)]
    seen = Seen()(inputs := keras.Input((6, 5, 1)))
    age = keras.layers.Dense(1, name="age")(keras.layers.Flatten()(seen))
    mask = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="mask")(seen)
    model = keras.Model(inputs, {"age": age, "mask": mask})
    model.compile("adam", {"age": "mse", "mask": "binary_crossentropy"}, run_eagerly=True)
    Seen.digests = ()
    history = model.fit(loader.to_keras(), epochs=1, verbose=0)
    return {"found": Seen.digests[-3:], "wanted": wanted, "loss": history.history["loss"][0]}


if __name__ == "__main__":
    print("RESULT", json.dumps({"native": fit(Z), "swapped": fit(Z.astype(">f4"))}))
