"""Keras's fit that goes on where it was stopped: python examples/keras_fit.py DATASET [EPOCHS]

DATASET is a folder that `headrace pack` made, of photos with a class. fit.npz is written every 20 batches and at the
end of each epoch; start it again after whatever ended it, and its history is that of a training that never was.
KERAS_BACKEND says on which framework.
"""

import sys

import keras

import headrace as hr


def main(path: str, epochs: int = 3) -> None:
    train, val = hr.Dataset(path).divide({"train": 0.8, "val": 0.2})
    feed = train.loader(batch_size=16, size=96, shuffle=True, augment=hr.HorizontalFlip()).to_keras(
        sample_weight="balanced"  # the rarer a class, the more each of its records weighs
    )
    val_feed = val.loader(batch_size=16, size=96, shuffle=False).to_keras()

    model = keras.Sequential(
        [
            keras.Input((96, 96, train.channels)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 5, strides=4, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(len(train.class_names), activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    resume = hr.Resume("fit.npz", feed, every=20)
    history = model.fit(feed, epochs=epochs, validation_data=val_feed, callbacks=[resume], verbose=0)
    for epoch, loss, val_loss in zip(history.epoch, history.history["loss"], history.history["val_loss"], strict=True):
        print(f"epoch {epoch}: loss {loss:.4f}, val_loss {val_loss:.4f}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
