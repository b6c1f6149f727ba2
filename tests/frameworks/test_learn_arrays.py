"""Training straight from arrays: the same history as from the packed dataset, resumed, judged and asked like any."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.errors import UsageError
from headrace.learn.backend import keras
from headrace.learn.evaluate import evaluate
from headrace.learn.predict import predict
from headrace.learn.recipe import Options, RunFolder
from headrace.learn.run import Run
from headrace.learn.train import train
from packed import pack

SHARES = {"train": 0.8, "val": 0.2}
QUICK = Options(epochs=2, deterministic=True, seed=3, augment=("flip", "crop", "colour"))


def blobs(n: int, *, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, side, side] of noise, every second with a bright disc in it, and which these are."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 90, (n, side, side), np.uint8), np.arange(n) % 2
    rows, columns = np.mgrid[:side, :side]
    for i in np.flatnonzero(y):
        cy, cx = rng.integers(8, side - 8, 2)
        x[i][(rows - cy) ** 2 + (columns - cx) ** 2 < 36] = 240
    return x, y


def as_arrays(ds: hr.Dataset) -> hr.ArrayDataset:
    """The pixels and labels of a packed dataset as arrays, in its order and with its ids."""
    x = np.stack([record.image for record in ds])  # type: ignore[attr-defined]
    rows = ds.catalog
    y, ids, splits = (rows[name].to_list() for name in ("label_name", "id", "split"))
    return hr.ArrayDataset(x, y, ids=ids, splits=splits)


def test_mri_trains_to_the_same_history_from_folders_and_from_arrays(tmp_path: Path, real_data: Path) -> None:
    source = hr.sources.folders(real_data / "mri")
    packed = pack(source, tmp_path / "mri", size=64, channels=1, splits=SHARES)  # type: ignore[arg-type]
    assert len(packed) == packed.manifest.seen == 253 and set(packed.catalog["channels"]) == {1}
    arrays = as_arrays(packed)
    assert arrays.store.stack.numbers.shape == (253, 64, 64, 1)
    train(packed, out=tmp_path / "folders", options=QUICK, progress=False)
    train(arrays, out=tmp_path / "arrays", options=QUICK, progress=False)
    histories = [(tmp_path / run / "history.csv").read_bytes() for run in ("folders", "arrays")]
    assert histories[0] == histories[1] and histories[0].count(b"\n") == 3
    judged = [evaluate(tmp_path / run, ds, progress=False) for run, ds in (("folders", packed), ("arrays", arrays))]
    assert judged[0].metrics == judged[1].metrics
    assert judged[1].split == "val" and judged[1].records == arrays.splits["val"]
    asked = [
        predict(tmp_path / run, [real_data / "mri/no"], out=tmp_path / f"of_{run}", progress=False)
        for run in ("folders", "arrays")
    ]
    # The packed run's photos go through the packer's JPEG at 64 x 64, the arrays' straight to that size.
    assert asked[0].predicted == asked[1].predicted == 98


@pytest.fixture(scope="module")
def arrays() -> hr.ArrayDataset:
    x, y = blobs(80)
    return hr.ArrayDataset(x, y, class_names=("no", "yes"), splits=SHARES)


@pytest.fixture(scope="module")
def run(arrays: hr.ArrayDataset, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("arrays") / "run")
    train(arrays, out=run.folder, options=QUICK, progress=False)
    return run


def test_a_training_on_arrays_goes_on_where_it_was(arrays: hr.ArrayDataset, run: RunFolder, tmp_path: Path) -> None:
    train(arrays, out=tmp_path / "run", options=replace(QUICK, epochs=1), progress=False)
    x, y = blobs(80)
    np.save(tmp_path / "x.npy", x)
    same = hr.ArrayDataset(tmp_path / "x.npy", y, class_names=("no", "yes"), splits=SHARES)
    train(same, out=tmp_path / "run", options=QUICK, resume=True, progress=False)
    assert RunFolder(tmp_path / "run").history_csv.read_bytes() == run.history_csv.read_bytes()
    x[0, 0, 0] ^= 1
    other = hr.ArrayDataset(x, y, class_names=("no", "yes"), splits=SHARES)
    with pytest.raises(UsageError, match="the dataset x is not the one the run began with"):
        train(other, out=tmp_path / "run", options=replace(QUICK, epochs=3), resume=True, progress=False)


def test_stopped_in_the_middle_of_an_epoch_it_goes_on_to_the_same_history(
    arrays: hr.ArrayDataset,
    run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain, done = keras.Model.train_on_batch, 0

    def stopped(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal done
        done += 1
        if done == 3:  # of 64 images in batches of 32: the first of the second epoch
            signal.raise_signal(signal.SIGINT)
        return plain(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(keras.Model, "train_on_batch", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(arrays, out=tmp_path / "run", options=QUICK, progress=False)
    again = f"train(dataset, out='{tmp_path / 'run'}', resume=True)"
    assert f"stopped in epoch 2 after 32 of 64 images; go on with: {again}" in caplog.text
    train(arrays, out=tmp_path / "run", resume=True, progress=False)
    assert RunFolder(tmp_path / "run").history_csv.read_bytes() == run.history_csv.read_bytes()


def test_arrays_of_another_kind_are_refused_by_evaluate(run: RunFolder) -> None:
    x, y = blobs(10)
    with pytest.raises(UsageError, match=r"its classes are 0, 1, the run .* was trained on no, yes"):
        evaluate(run.folder, hr.ArrayDataset(x, y), progress=False)
    with pytest.raises(UsageError, match="3 channels, the model takes 1"):
        evaluate(run.folder, hr.ArrayDataset(np.stack([x] * 3, -1), y, class_names=("no", "yes")), progress=False)


def test_a_photo_is_seen_as_the_array_was(arrays: hr.ArrayDataset, run: RunFolder, tmp_path: Path) -> None:
    """An image of the array saved as PNG gets the prediction that the array gets."""
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(arrays[i].encoded)
    asked = predict(run.folder, [tmp_path], out=tmp_path / "out", progress=False)
    outputs = np.concatenate([out for _, out in Run(run.folder).batches(arrays.where("id < '6'"))])
    found = {Path(str(row["path"])).stem: float(row["p_yes"]) for row in asked.rows}
    wanted = dict(zip(arrays.where("id < '6'").catalog["id"], outputs[:, 1], strict=True))
    assert len(found) == 6
    assert all(abs(found[id_] - wanted[id_]) < 1e-5 for id_ in found)


def test_every_feed_takes_arrays(arrays: hr.ArrayDataset) -> None:
    options = {"batch_size": 16, "size": 24, "seed": 1}
    wanted = list(arrays.loader(**options))
    keras_feed = arrays.loader(**options).to_keras()
    torch_feed = list(arrays.loader(**options).to_torch())
    tf_feed = list(arrays.loader(**options).to_tf())
    assert len(keras_feed) == len(torch_feed) == len(tf_feed) == len(wanted) == 5
    for i, batch in enumerate(wanted):
        assert np.array_equal(keras_feed[i][0], batch.images) and np.array_equal(keras_feed[i][1], batch.targets)
        assert np.array_equal(torch_feed[i][0].numpy(), batch.images.transpose(0, 3, 1, 2))
        assert np.array_equal(tf_feed[i][0].numpy(), batch.images) and np.array_equal(tf_feed[i][1], batch.targets)
