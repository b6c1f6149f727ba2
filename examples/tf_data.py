"""A tf.data pipeline of one's own behind the loader: python examples/tf_data.py DATASET [EPOCHS]

DATASET is a folder that `headrace pack` made, of photos with a class. What tf.data does best is left to it: a map over
batches, prefetching, and a tf.function that trains. Order and augmentation are the loader's, the same in every run.
"""

import sys

import tensorflow as tf

import headrace as hr


def main(path: str, epochs: int = 3) -> None:
    tf.random.set_seed(0)
    ds = hr.Dataset(path)
    loader = ds.loader(batch_size=32, size=96, shuffle=True, seed=0, augment=hr.HorizontalFlip())
    batches = loader.to_tf()  # of (uint8 [b, 96, 96, 3], int64 [b])

    def thumbnails(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        small = tf.image.resize(tf.cast(images, tf.float32) / 127.5 - 1, (12, 12), antialias=True)
        return tf.reshape(small, (-1, 12 * 12 * 3)), labels

    batches = batches.map(thumbnails, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    weights = tf.Variable(tf.zeros((12 * 12 * 3, len(ds.class_names))))
    bias = tf.Variable(tf.zeros(len(ds.class_names)))

    @tf.function(reduce_retracing=True)
    def step(pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, pixels @ weights + bias)
            loss = tf.reduce_mean(losses)
        for variable, gradient in zip((weights, bias), tape.gradient(loss, (weights, bias)), strict=True):
            variable.assign_sub(0.01 * gradient)
        return tf.reduce_sum(losses)

    for epoch in range(epochs):
        total = sum(float(step(pixels, labels)) for pixels, labels in batches)  # each pass is the loader's next epoch
        print(f"epoch {epoch}: loss {total / len(ds):.4f}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
