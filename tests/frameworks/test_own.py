"""Any view, any network, callbacks: what those bring along who have trained elsewhere before."""

from __future__ import annotations

import csv
import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headrace as hr
from command import headrace
from drawn import saved
from foreign import payload, write
from headrace.errors import DataError, NotThereError, UsageError
from headrace.imaging.prepare import ImageOptions
from headrace.learn import networks
from headrace.learn.backend import keras
from headrace.learn.recipe import Options, RunFolder
from headrace.load.loader import Loader
from headrace.load.photos import read_photo

SIDE, N = 16, 80


def discs(n: int, *, seed: int = 0) -> list[hr.Record]:
    """`n` pictures, every second one with a bright left half: what any network learns at once."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(n):
        image = rng.integers(0, 90, (SIDE, SIDE, 3), np.uint8)
        if i % 2:
            image[:, : SIDE // 2] += 150
        records.append(
            hr.Record(id=f"{seed}/{i:03d}.png", encoded=saved(image, "PNG"), label_name=("dark", "light")[i % 2])
        )
    return records


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """One split, as adopted files have it."""
    out = tmp_path_factory.mktemp("own") / "ds"
    hr.pack(discs(N), out, progress=False)
    return hr.Dataset(out)


@pytest.fixture(scope="module")
def other(ds: hr.Dataset) -> hr.Dataset:
    hr.pack(discs(24, seed=1), ds.path.parent / "other", progress=False)
    return hr.Dataset(ds.path.parent / "other")


QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 16, "progress": False, "checkpoint_seconds": 0}


def tiny(shape: tuple[int, ...], classes: int) -> Any:
    """A network without a loss."""
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )


def one_number(shape: tuple[int, ...], classes: int) -> Any:
    """The article's way: one sigmoid for two classes, compiled."""
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC(name="auc")]
    )
    return model


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """The two above in a file, and some that are no good."""
    path = tmp_path / "net.py"
    path.write_text(
        textwrap.dedent(
            """
            import keras
            from dataclasses import dataclass

            @dataclass
            class Settings:
                units: "int" = 4

            def build(input_shape, classes):
                pixels = keras.Input(input_shape)
                x = keras.layers.Rescaling(1 / 255)(pixels)
                x = keras.layers.Flatten()(x)
                x = keras.layers.Dense(Settings().units, activation="relu")(x)
                return keras.Model(pixels, keras.layers.Dense(classes, activation="softmax")(x), name="mine")

            def with_neighbour(input_shape, classes):
                from blocks import head

                return head(input_shape, classes)

            def broken(input_shape, classes):
                return build(input_shape, classes).no_such_thing

            def nothing(input_shape, classes):
                return None

            class Half(keras.layers.Layer):
                def call(self, x):
                    return x / 2

            def own_layer(input_shape, classes):
                return keras.Sequential([
                    keras.Input(input_shape), Half(), keras.layers.Flatten(),
                    keras.layers.Dense(classes, activation="softmax"),
                ])
            """
        )
    )
    return path


def _table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


# --- any view


def test_a_divided_view_and_another_dataset(ds: hr.Dataset, other: hr.Dataset, tmp_path: Path) -> None:
    train, val = ds.divide({"train": 0.8, "val": 0.2}, seed=3)
    first = hr.train(train, out=tmp_path / "views", val=val, seed=3, **QUICK)
    recipe = RunFolder(first.run).read_recipe()
    assert (recipe.train.records, recipe.train.fingerprint) == (64, train.view_fingerprint)
    assert recipe.val is not None and (recipe.val.records, recipe.val.view) == (16, val.what)
    # The same division by name: the same run.
    named = hr.train(ds.path, out=tmp_path / "divided", divide={"train": 0.8, "val": 0.2}, seed=3, **QUICK)
    assert named.history == first.history
    # And it is what the run is judged by, of the same dataset.
    judged = hr.evaluate(named.run, ds.path, progress=False)
    assert judged.records == 16 and judged.metrics["loss"] == pytest.approx(named.best["val_loss"], abs=1e-5)
    assert hr.evaluate(named.run, ds.path, split="train", progress=False).records == 64
    # Another dataset, by its path, one split: all of it.
    second = hr.train(ds.path, out=tmp_path / "other", val=other.path, **QUICK)
    recipe = RunFolder(second.run).read_recipe()
    assert recipe.val is not None and (recipe.val.dataset, recipe.val.records) == (str(other.path), 24)
    assert recipe.train.records == N
    third = hr.train(ds.path, out=second.run, resume=True, epochs=2, progress=False)  # which finds it again
    assert len(third.history) == 2
    other.path.rename(tmp_path / "away")
    try:
        with pytest.raises(UsageError, match=r"pass it again \(val\)"):
            hr.train(ds.path, out=second.run, resume=True, epochs=3, progress=False)
    finally:
        (tmp_path / "away").rename(other.path)


def test_arrays_adopted_and_filtered(ds: hr.Dataset, tmp_path: Path) -> None:
    x = np.stack([ds[i].image for i in range(N)])
    arrays = hr.ArrayDataset(x, ds.labels, class_names=ds.class_names)
    train, val = arrays.divide({"train": 0.5, "val": 0.5})
    run = hr.train(train, out=tmp_path / "arrays", val=val, **QUICK).run
    assert hr.evaluate(run, val, progress=False).records == len(val)
    records = [payload(image=ds[i].read(), **{"class": int(ds[i].label or 0)}) for i in range(N)]
    write(tmp_path / "all.tfrec", records)
    hr.adopt([tmp_path / "all.tfrec"], tmp_path / "adopted", classes=["dark", "light"], progress=False)
    adopted = hr.Dataset(tmp_path / "adopted")
    told = hr.train(adopted, out=tmp_path / "run", divide={"train": 0.81, "val": 0.19}, **QUICK)
    assert hr.evaluate(told.run, adopted, progress=False).records == 15
    light = adopted.where("label_name = 'light'")
    assert hr.evaluate(told.run, light, progress=False).records == 40
    found = hr.predict(told.run, light, out=tmp_path / "found", progress=False)
    assert found.predicted == 40 and {row["observed"] for row in found.rows} == {"light"}


def test_a_split_of_two_datasets_trains_as_one(tmp_path: Path) -> None:
    """Data that came divided: in one dataset or in two, the first epoch is the same."""
    a, b = discs(40, seed=5), discs(16, seed=6)
    hr.pack({"train": a, "val": b}, tmp_path / "both", progress=False)
    hr.pack(a, tmp_path / "a", progress=False)
    hr.pack(b, tmp_path / "b", progress=False)
    options = QUICK | {"augment": ("flip", "crop", "colour"), "deterministic": True}
    one = hr.train(tmp_path / "both", out=tmp_path / "one", **options)
    two = hr.train(tmp_path / "a", val=tmp_path / "b", out=tmp_path / "two", **options)
    assert one.history == two.history


def test_resumed_with_a_limit_the_other_dataset_is_found(ds: hr.Dataset, other: hr.Dataset, tmp_path: Path) -> None:
    hr.train(ds, val=other, out=tmp_path / "run", limit=16, **QUICK)
    result = hr.train(ds, out=tmp_path / "run", resume=True, epochs=2, progress=False)
    assert (result.epochs, RunFolder(result.run).read_recipe().val.records) == (2, 16)  # type: ignore[union-attr]


def test_shares_of_a_view_are_not_taken_for_those_of_the_whole(tmp_path: Path) -> None:
    hr.pack(discs(60), tmp_path / "ds", splits={"train": 0.5, "test": 0.5}, progress=False)
    ds = hr.Dataset(tmp_path / "ds")
    shares = {"train": 0.7, "val": 0.3}
    # The whole is divided already, which is nothing that this run could stumble over.
    run = hr.train(ds.split("train"), divide=shares, out=tmp_path / "run", **QUICK).run
    assert hr.evaluate(run, ds, split="test", progress=False).records == 30
    assert hr.evaluate(run, ds.split("test"), progress=False).records == 30
    # Other shares would come of all records than of some: in these would be some that were trained on.
    test = ds.split("test")
    hr.pack(((test[i]) for i in range(len(test))), tmp_path / "one", progress=False)
    one = hr.Dataset(tmp_path / "one")
    run = hr.train(one.where("id > '0/020'"), divide=shares, out=tmp_path / "where", **QUICK).run
    with pytest.raises(UsageError, match="has no split 'val'"):
        hr.evaluate(run, one, split="val", progress=False)


def test_the_name_of_another_datasets_split_says_nothing_of_this_one(other: hr.Dataset, tmp_path: Path) -> None:
    hr.pack(discs(60), tmp_path / "ds", splits={"train": 0.5, "val": 0.5}, progress=False)
    run = hr.train(tmp_path / "ds", val=other, out=tmp_path / "run", **QUICK).run  # its one split is "train", too
    assert hr.evaluate(run, tmp_path / "ds", progress=False).split == "val"
    assert hr.evaluate(run, other, progress=False).split == "train"


def test_records_seen_are_counted_with_a_limit(
    ds: hr.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = hr.train(ds, limit=20, out=tmp_path / "run", **QUICK).run
    hr.evaluate(run, ds, progress=False)
    assert "20 of these 80 records are what the run was trained on" in caplog.text


def test_what_is_in_both_parts_is_told(
    ds: hr.Dataset, other: hr.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        UsageError, match=r"80 of the 80 records to validate on are trained on too, such as '0/.*divide"
    ):
        hr.train(ds, val=ds, out=tmp_path / "run", **QUICK)
    with pytest.raises(UsageError, match="16 of the 16 records"):
        hr.train(ds, val=ds.divide({"a": 0.2})[0], out=tmp_path / "run", **QUICK)
    leak = [replace(discs(N)[7], id="again.png"), *discs(24, seed=1)]
    leak[3] = replace(leak[3], id=discs(N)[9].id)
    hr.pack(leak, tmp_path / "leak", progress=False)
    hr.train(ds, val=tmp_path / "leak", out=tmp_path / "run", **QUICK)
    assert "1 of the 25 images to validate on are trained on too, byte by byte, such as 0/007.png and again.png" in (
        caplog.text
    )
    assert (
        "1 of the 25 records to validate on have the id of one trained on, such as 0/009.png, and another"
        in caplog.text
    )
    caplog.clear()
    hr.train(ds, val=other, out=tmp_path / "clean", **QUICK)
    assert "trained on" not in caplog.text


def test_validation_that_does_not_fit(ds: hr.Dataset, tmp_path: Path) -> None:
    def refused(records: list[hr.Record], message: str, **options: Any) -> None:
        hr.pack(records, tmp_path / "val", progress=False, overwrite=True, **options)
        with pytest.raises(UsageError, match=message):
            hr.train(ds, val=tmp_path / "val", out=tmp_path / "run", **QUICK)
        assert not (tmp_path / "run").exists()

    refused(
        [replace(r, label_name=f"very {r.label_name}") for r in discs(8)],
        "classes are very dark, very light, .* dark, light",
    )
    refused([replace(r, label_name=None) for r in discs(8)], "has no labels for classification")
    refused(discs(8), "images have 1 channels, the model takes 3", channels=1)
    hr.pack(discs(20, seed=4), tmp_path / "parts", splits={"a": 0.5, "b": 0.5}, progress=False)
    with pytest.raises(UsageError, match=r"has no split 'val'; pass the one to validate on .*: a, b"):
        hr.train(ds, val=tmp_path / "parts", out=tmp_path / "run", **QUICK)
    assert hr.train(ds, val=tmp_path / "parts", val_split="b", out=tmp_path / "run", **QUICK).best["val_loss"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"divide": {"train": 0.8, "val": 0.2}, "val_split": "train"}, "divide says what to validate on"),
        ({"divide": {"train": 0.8, "val": 0.2}, "val": "other"}, "divide says what to validate on, and so does val"),
        ({"divide": {"val": 0.2}}, "wanted a share called train"),
        ({"divide": {"train": 0.99, "val": 0.001}}, "val gets none of 80 records"),
        ({"divide": {"train": 0.9, "val": 0.2}}, "sum to 1.1"),
        ({"limit": 0}, "limit is 0"),
        ({"batch_size": 99, "drop_last": True}, "80 records make no batch of 99"),
        ({"monitor": "val_accuracy"}, r"monitor is 'val_accuracy'; this run has loss, accuracy$"),
        ({"monitor": "loss:most"}, "monitor is 'loss:most', wanted a name"),
        ({"epoch": 3}, "there is no option epoch; there are task, model"),
        ({"epochs": "3"}, "epochs is '3', wanted int"),
    ],
)
def test_train_refuses(
    ds: hr.Dataset, other: hr.Dataset, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    if "val" in options:
        options = options | {"val": other}
    with pytest.raises(UsageError, match=message):
        hr.train(ds, out=tmp_path / "run", **{**QUICK, **options})
    assert not (tmp_path / "run").exists()


def test_order_of_windows(ds: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training records come in windows, also when the run goes on, and those to validate on as they lie."""
    made: list[Loader] = []
    init = Loader.__init__

    def seen(self: Loader, *args: Any) -> None:
        init(self, *args)
        made.append(self)

    monkeypatch.setattr(Loader, "__init__", seen)
    options = {**QUICK, "order": "windows", "divide": {"train": 0.5, "val": 0.5}}
    result = hr.train(ds, out=tmp_path / "run", **options)
    assert [(loader.order, loader.options.shuffle) for loader in made[:2]] == [("windows", True), ("full", False)]
    made.clear()
    hr.train(ds, out=result.run, resume=True, epochs=2, progress=False)
    assert made[0].order == "windows"


def test_limit_and_drop_last(ds: hr.Dataset, tmp_path: Path) -> None:
    seen: list[int] = []

    class Count(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(batch)

    hr.train(ds, out=tmp_path / "run", limit=20, callbacks=[Count()], **{**QUICK, "batch_size": 8})
    assert seen == [0, 1, 2]
    seen.clear()
    result = hr.train(
        ds, out=tmp_path / "last", limit=20, drop_last=True, callbacks=[Count()], **{**QUICK, "batch_size": 8}
    )
    assert seen == [0, 1]
    recipe = RunFolder(result.run).read_recipe()
    assert recipe.train.records == 20 and ds.sample(20).view_fingerprint == recipe.train.fingerprint
    judged = hr.evaluate(result.run, ds, limit=7, progress=False)
    assert judged.records == 7 and judged.examples is not None
    assert judged.examples.parent.name == "ds-limit-7"  # it is not the evaluation of all


# --- any network


@pytest.mark.parametrize("build", [tiny, one_number])
def test_a_function_trains_resumes_and_is_asked(ds: hr.Dataset, tmp_path: Path, build: Any) -> None:
    options = QUICK | {"divide": {"train": 0.75, "val": 0.25}, "deterministic": True}
    if build is tiny:
        options["learning_rate"] = 0.01
    whole = hr.train(ds, out=tmp_path / "whole", model=build, **{**options, "epochs": 3})
    assert whole.model == build.__name__ and whole.best["val_accuracy"] == 1
    hr.train(ds, out=tmp_path / "run", model=build, **options)
    with pytest.raises(UsageError, match=rf"its network is {build.__name__}, .* name it again \(model\)"):
        hr.train(ds, out=tmp_path / "run", resume=True, epochs=3, progress=False)
    after = hr.train(ds, out=tmp_path / "run", model=build, resume=True, epochs=3, progress=False)
    assert after.history == whole.history
    judged = hr.evaluate(after.run, ds, progress=False)
    assert judged.metrics["accuracy"] == after.best["val_accuracy"]
    assert judged.metrics["loss"] == pytest.approx(after.best["val_loss"], abs=1e-4)
    run = hr.Run(after.run)
    light = run.predict(ds.where("label_name = 'light'")[0].image)
    assert light.class_name == "light" and sum(light.probabilities.values()) == pytest.approx(1)
    assert RunFolder(after.run).read_recipe().own_loss is (build is one_number)


def test_a_model_as_it_is(ds: hr.Dataset, tmp_path: Path) -> None:
    model = tiny((SIDE, SIDE, 3), 2)
    before = [weight.copy() for weight in model.get_weights()]
    result = hr.train(ds, out=tmp_path / "run", model=model, learning_rate=0.01, **QUICK)
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))
    saved_model = keras.saving.load_model(result.run / "model.keras")  # no loss of ours in it
    np.testing.assert_array_equal(saved_model.get_weights()[0], model.get_weights()[0])
    again = tiny((SIDE, SIDE, 3), 2)
    assert again.name != model.name  # Keras counts the models that a process makes
    resumed = hr.train(ds, out=result.run, model=again, resume=True, epochs=2, learning_rate=0.01, progress=False)
    assert resumed.epochs == 2


def test_logits_are_told_from_probabilities(ds: hr.Dataset, tmp_path: Path) -> None:
    def raw(shape: tuple[int, ...], classes: int) -> Any:
        return keras.Sequential(
            [keras.Input(shape), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(classes)]
        )

    options = QUICK | {"divide": {"train": 0.75, "val": 0.25}, "epochs": 3, "learning_rate": 0.01}
    result = hr.train(ds, out=tmp_path / "run", model=raw, **options)
    assert result.best["val_accuracy"] == 1
    judged = hr.evaluate(result.run, ds, progress=False)
    assert judged.metrics["loss"] == pytest.approx(result.best["val_loss"], abs=1e-4)


def test_a_network_from_a_file(ds: hr.Dataset, net: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", ds.path, "--out", run, "--divide", "train=0.81,val=0.19", "--epochs", 1, "--batch-size", 16)
    ended = headrace(*words, "--model", f"{net}:build", "--monitor", "val_loss")
    assert ended.code == 0, ended.err
    assert "mine" in (run / "layers.txt").read_text() and "training on 65 records" in ended.err
    assert ended.err.count("epoch 1/1: 65 images in ") == 1  # off a terminal, a line an epoch
    recipe = RunFolder(run).read_recipe()
    assert (recipe.model, recipe.own_model, recipe.own_loss) == (f"{net}:build", True, False)
    ended = headrace("train", ds.path, "--out", run, "--resume", "--epochs", 2)
    assert ended.code == 2 and "a run by itself never runs any code" in ended.err
    ended = headrace("train", ds.path, "--out", run, "--resume", "--epochs", 2, "--model", f"{net}:build", "--json")
    assert (ended.code, ended.err) == (0, "") and json.loads(ended.out)["epochs"] == 2
    (net.parent / "blocks.py").write_text("from net import build as head\n")
    ended = headrace("train", ds.path, "--out", tmp_path / "two", "--epochs", 1, "--model", f"{net}:with_neighbour")
    assert ended.code == 0, ended.err
    with pytest.raises(UsageError, match="is code, and that is only run when the caller names it"):
        Options.read(run / "recipe.json")
    net.unlink()  # what is Keras's own alone needs no code
    ended = headrace("evaluate", run, f"{ds.path}:val", "--json")
    told = json.loads(ended.out)
    assert (told["records"], told["split"]) == (15, "val") and told["loss"] > 0
    assert headrace("predict", run, f"{ds.path}:train", "--out", tmp_path / "p").code == 0


def test_a_recipe_runs_no_code(ds: hr.Dataset, tmp_path: Path) -> None:
    run = RunFolder(hr.train(ds, out=tmp_path / "run", **QUICK).run)
    (tmp_path / "net.py").write_text("raise SystemExit('it ran')")
    recipe = json.loads(run.recipe_json.read_text())
    recipe["options"]["model"] = f"{tmp_path}/net.py:build"  # by other hands than train's, which says own_model
    run.recipe_json.write_text(json.dumps(recipe))
    assert hr.train(ds, out=run.folder, resume=True, epochs=2, progress=False).model == "vanilla"


def test_code_of_its_own_runs_only_when_it_is_named(ds: hr.Dataset, net: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", ds.path, "--out", run, "--epochs", 1, "--model", f"{net}:own_layer")
    assert headrace(*words).code == 0
    ended = headrace("evaluate", run, ds.path)
    assert ended.code == 2 and "holds code that is not Keras's (Half of own_net)" in ended.err
    ended = headrace("evaluate", run, ds.path, "--model", f"{net}:own_layer")
    assert ended.code == 0, ended.err
    assert hr.Run(run, network=networks.from_file(f"{net}:own_layer")).predict(ds[0].image).class_name
    ended = headrace("evaluate", run, ds.path, "--model", f"{net}:build")
    assert ended.code == 2 and "its weights don't fit the network" in ended.err
    # A module that lies about must not be imported because a saved model names it.
    import zipfile

    (tmp_path / "evil.py").write_text("open('ran', 'w')\n")
    with zipfile.ZipFile(run / "model.keras") as file:
        parts = {name: file.read(name) for name in file.namelist()}
    parts["config.json"] = parts["config.json"].replace(b'"own_net"', b'"evil"')
    with zipfile.ZipFile(run / "model.keras", "w") as file:
        for name, data in parts.items():
            file.writestr(name, data)
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(UsageError, match="Half of evil"):
            hr.Run(run)
    finally:
        sys.path.remove(str(tmp_path))
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("none.py:build", "none.py: there is no such file"),
        ("{net}", "wanted the function in it too, such as .*net.py:build"),
        ("{net}:design", "has no function 'design'; it has build, with_neighbour, broken, nothing, own_layer"),
        ("{net}:broken", r"(?s)raised\nTraceback.*net.py\", line \d+, in broken.*no_such_thing"),
        ("{net}:nothing", "gave None, wanted a keras.Model"),
        ("{bad}:build", r"(?s)can't be run, it raised\nTraceback.*ZeroDivisionError"),
    ],
)
def test_files_that_are_no_good(ds: hr.Dataset, net: Path, tmp_path: Path, model: str, message: str) -> None:
    (tmp_path / "bad.py").write_text("1 / 0\n")
    with pytest.raises((UsageError, NotThereError), match=message) as raised:
        hr.train(ds, out=tmp_path / "run", model=model.format(net=net, bad=tmp_path / "bad.py"), **QUICK)
    assert "headrace/learn" not in str(raised.value)  # the traceback is theirs, not ours
    assert not (tmp_path / "run").exists()


def _dense(units: int, **options: Any) -> Any:
    def build(shape: tuple[int, ...], classes: int) -> Any:
        return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(units, **options)])

    return build


def _other_size(shape: tuple[int, ...], classes: int) -> Any:
    return tiny((8, 8, 3), classes)


def _two_outputs(shape: tuple[int, ...], classes: int) -> Any:
    pixels = keras.Input(shape)
    flat = keras.layers.Flatten()(pixels)
    return keras.Model(pixels, [keras.layers.Dense(2)(flat), keras.layers.Dense(2)(flat)])


def _bad_loss(shape: tuple[int, ...], classes: int) -> Any:
    model = tiny(shape, classes)
    model.compile("adam", "categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (_dense(5, activation="softmax"), {}, r"says \[b, 5\], wanted \[b, 2\]: .* \(dark, light\), or \[b, 1\]"),
        (_other_size, {}, r"takes images \[8, 8, 3\], these are \[16, 16, 3\]"),
        (_two_outputs, {}, "has 2 outputs in a list, wanted one array"),
        (_bad_loss, {}, r"(?s)its loss or metrics fail on targets int64 \[16\], it raised.*shape"),
        (one_number, {"learning_rate": 0.1}, "comes compiled, with an optimizer of its own; leave learning_rate out"),
        (tiny, {"model_options": {"alpha": 1.0}}, "alpha: options of built-in models"),
        (7, {}, "model is 7, wanted a name, a Keras model or a function"),
    ],
)
def test_networks_that_do_not_fit(ds: hr.Dataset, tmp_path: Path, model: Any, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        hr.train(ds, out=tmp_path / "run", model=model, **QUICK, **options)
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_no_probabilities(ds: hr.Dataset, tmp_path: Path) -> None:
    result = hr.train(ds, out=tmp_path / "run", model=_dense(2, activation="tanh"), **QUICK)
    with pytest.raises(UsageError, match="outputs are no probabilities; end it in a softmax"):
        hr.Run(result.run).predict(np.zeros((SIDE, SIDE, 3), np.uint8) + 255)


def test_monitor_chooses_the_epoch(ds: hr.Dataset, tmp_path: Path) -> None:
    options = QUICK | {"divide": {"train": 0.75, "val": 0.25}, "epochs": 3, "patience": 1}

    class Rate(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["mine"] = 3 - epoch

    result = hr.train(ds, out=tmp_path / "run", model=one_number, monitor="val_auc:min", **options)
    best = min(range(len(result.history)), key=lambda i: result.history[i]["val_auc"])
    assert result.best["epoch"] == best + 1


def test_damage_is_not_blamed_on_the_loss(ds: hr.Dataset, tmp_path: Path) -> None:
    hr.pack(discs(8, seed=5), tmp_path / "bad", progress=False)
    (shard,) = (tmp_path / "bad").glob("*.tfrecord")
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(DataError, match="record 0"):
        hr.train(ds, val=tmp_path / "bad", monitor="val_loss", out=tmp_path / "run", **QUICK)


# --- callbacks


def test_callbacks_are_told_as_keras_tells_them(ds: hr.Dataset, tmp_path: Path) -> None:
    """Hook by hook what `fit` would call, for a training of two epochs of two batches with validation."""

    def teller(said: list[str]) -> Any:
        class Tell(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
            pass

        for hook in ("train", "epoch", "train_batch", "test", "test_batch"):
            for end in ("begin", "end"):
                name = f"on_{hook}_{end}"

                def told(self: Any, *arguments: Any, name: str = name) -> None:
                    logs = arguments[-1] or {}
                    numbers = list(arguments[:-1])
                    said.append(" ".join([name, *map(str, numbers), *sorted(logs)]))

                if hook in ("train", "test"):
                    setattr(Tell, name, lambda self, logs=None, name=name, told=told: told(self, logs))
                else:
                    setattr(Tell, name, lambda self, i, logs=None, name=name, told=told: told(self, i, logs))
        return Tell()

    ours: list[str] = []
    options = QUICK | {"epochs": 2, "divide": {"train": 0.5, "val": 0.5}, "batch_size": 20, "learning_rate": None}
    callback = teller(ours)
    hr.train(ds, out=tmp_path / "run", model=tiny, callbacks=[callback], **options)
    assert callback.params["epochs"] == 2 and callback.params["steps"] == 2 and callback.model is not None

    theirs: list[str] = []
    model = tiny((SIDE, SIDE, 3), 2)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    train, val = (view.loader(batch_size=20, target=hr.Class()).to_keras() for view in ds.divide({"t": 0.5, "v": 0.5}))
    model.fit(train, validation_data=val, epochs=2, verbose=0, callbacks=[teller(theirs)])
    strip = [line.split(" ")[0] if "test_batch_end" in line else line for line in theirs]
    assert [line.split(" ")[0] if "test_batch_end" in line else line for line in ours] == strip


def test_a_callback_ends_the_training(ds: hr.Dataset, tmp_path: Path) -> None:
    class Stop(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = epoch == 1

    class StopAmid(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = batch == 1

    result = hr.train(ds, out=tmp_path / "a", callbacks=[Stop()], **{**QUICK, "epochs": 5})
    assert result.epochs == 2 and result.stopped_early
    result = hr.train(ds, out=tmp_path / "b", callbacks=[StopAmid()], **{**QUICK, "epochs": 5})
    assert result.epochs == 1
    after = hr.train(ds, out=tmp_path / "b", resume=True, epochs=2, progress=False)
    assert [row["epoch"] for row in after.history] == [1, 2]


def test_callbacks_that_set_the_rate(ds: hr.Dataset, tmp_path: Path) -> None:
    rate = keras.callbacks.LearningRateScheduler(lambda epoch, _: 0.01 / (epoch + 1))
    with pytest.raises(UsageError, match="a callback sets the learning rate, and so does schedule 'cosine'"):
        hr.train(ds, out=tmp_path / "run", callbacks=rate, schedule="cosine", **QUICK)
    faces = [
        replace(record, boxes=np.array([[2, 2, 9, 9]], np.float32), box_labels=("x",), label_name=None)
        for record in discs(8)
    ]
    hr.pack(faces, tmp_path / "faces", progress=False)

    def cells(shape: tuple[int, ...], classes: int) -> Any:
        return keras.Sequential([keras.Input(shape), keras.layers.Conv2D(5, 8, 8, activation="sigmoid")])

    options = {**QUICK, "epochs": 2, "size": 16, "batch_size": 4}  # detection would have cosine by default
    result = hr.train(tmp_path / "faces", out=tmp_path / "run", model=cells, callbacks=rate, **options)
    assert [row["learning_rate"] for row in result.history] == [0.01, 0.005]
    assert RunFolder(result.run).read_recipe().options.schedule == "constant"


# --- options from a file


def test_options_from_a_file(ds: hr.Dataset, net: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        '[options]\nepochs = 2\nbatch_size = 16\naugment = ["flip"]\nsize = [8, 8]\ndivide = {train = 0.5, val = 0.5}\n'
    )
    assert headrace("train", ds.path, "--out", tmp_path / "a", "--options", file, "--epochs", 1, "--json").code == 0
    options = RunFolder(tmp_path / "a").read_recipe().options
    assert (options.epochs, options.batch_size, options.augment, options.size) == (1, 16, ("flip",), (8, 8))
    # Another run's recipe is such a file.
    again = Options.read(tmp_path / "a" / "recipe.json")
    assert again == options
    for text, message in (
        ("epochs = [", "run.toml: "),
        ("epoch = 1", "run.toml: there is no option epoch; there are task"),
        ("epochs = true", "run.toml: epochs is True, wanted int"),
        ('epochs = "3"', "run.toml: epochs is '3', wanted int"),
        ("divide = {train = 'x'}", "divide is {'train': 'x'}, wanted Mapping"),
        (f'model = "{net}:build"', "is code, and that is only run when the caller names it"),
    ):
        file.write_text(text)
        ended = headrace("train", ds.path, "--out", tmp_path / "b", "--options", file)
        assert ended.code == 2 and message in ended.err, ended.err
    ended = headrace("train", ds.path, "--out", tmp_path / "b", "--options", tmp_path / "none.toml")
    assert ended.code == 2 and "no such file of options" in ended.err


# --- a run asked from Python


def test_images_in_memory_are_seen_as_the_command_sees_files(ds: hr.Dataset, tmp_path: Path) -> None:
    run = hr.Run(hr.train(ds, out=tmp_path / "run", **QUICK).run)
    rng = np.random.default_rng(0)
    photos = []
    for i, (kind, size) in enumerate([("png", (40, 30)), ("jpg", (25, 31)), ("png", (25, 61))]):
        photos.append(tmp_path / f"{i}.{kind}")
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 2 else 1
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(photos[-1], exif=exif)
    table = hr.predict(tmp_path / "run", photos, out=tmp_path / "p", progress=False)
    rows = _table(table.csv)
    for photo, row in zip(photos, rows, strict=True):
        with Image.open(photo) as image:
            image.load()
        for given in (photo, str(photo), read_photo(photo, ImageOptions()), image):
            found = run.predict(given)
            # Pillow decodes a JPEG to other last digits than we do.
            near = 0.02 if given is image and photo.suffix == ".jpg" else 1e-6
            assert (found.class_name, found.probability) == (
                row["class"],
                pytest.approx(float(row["probability"]), abs=near),
            )
    several = run.predict(photos)
    assert [one.class_name for one in several] == [row["class"] for row in rows]
    same = run.predict(np.stack([read_photo(photos[0], ImageOptions())] * 3))
    assert len(same) == 3 and same[0].probabilities == same[2].probabilities
    grey = run.predict(np.full((20, 20), 200, np.uint8))
    assert grey == run.predict(np.full((20, 20, 3), 200, np.uint8))
    several = run.predict(np.full((2, 20, 20), 200, np.uint8))
    assert [one.probability for one in several] == [pytest.approx(grey.probability, abs=1e-6)] * 2


def test_images_in_memory_that_are_no_good(ds: hr.Dataset, tmp_path: Path) -> None:
    run = hr.Run(hr.train(ds, out=tmp_path / "run", **QUICK).run)
    (tmp_path / "bad.jpg").write_bytes(b"no")
    for given, error, message in (
        (tmp_path / "bad.jpg", DataError, "bad.jpg: not an image"),
        (tmp_path / "none.jpg", DataError, "no such file"),
        (np.zeros((8, 8, 3), np.float32), DataError, "image 0: an array of float32, wanted uint8"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 2), np.uint8)], DataError, r"image 1: an array \[8, 8, 2\]"),
        (np.zeros((2, 2, 8, 8, 3), np.uint8), UsageError, r"an array \[2, 2, 8, 8, 3\], wanted an image"),
        (np.zeros((8, 8, 4), np.uint8), UsageError, r"an array \[8, 8, 4\], wanted an image"),
        ([3], UsageError, "a photo is 3"),
        (ds, UsageError, "is a dataset; ask headrace.predict or evaluate about it"),
    ):
        with pytest.raises(error, match=message):
            run.predict(given)


def test_photos_as_a_loader_has_them(ds: hr.Dataset, tmp_path: Path) -> None:
    """For a network that is trained by one's own `fit`."""
    hr.pack(discs(12), tmp_path / "packed", size=12, fit="crop", progress=False)
    packed = hr.Dataset(tmp_path / "packed")
    loader = packed.loader(batch_size=4, size=10, shuffle=False)
    photos = []
    for record in discs(12):
        photos.append(tmp_path / record.id.replace("/", "-"))
        photos[-1].write_bytes(record.read())
    order = [Path(f"0-{id_.partition('/')[2]}").name for id_ in packed.catalog["id"]]
    made = hr.PhotoLoader([tmp_path / name for name in order], like=loader, batch_size=4)
    for (batch, rejects, _), expected in zip(made, loader, strict=True):
        assert not rejects
        np.testing.assert_array_equal(batch.images, expected.images)
    run = hr.Run(hr.train(packed, out=tmp_path / "run", size=10, **QUICK).run)
    for (one, *_), (two, *_) in zip(hr.PhotoLoader(photos, like=run.recipe), run.photos(photos), strict=True):
        np.testing.assert_array_equal(one.images, two.images[: len(one.images)])
    with pytest.raises(UsageError, match="pass like, a Loader or the recipe of a Run, or the size"):
        hr.PhotoLoader(photos)
    with pytest.raises(UsageError, match="leave out size, fit"):
        hr.PhotoLoader(photos, like=loader, size=3)
    with pytest.raises(UsageError, match="like says how photos are prepared: leave out size, fit"):
        hr.PhotoLoader(photos, like=loader, fit="pad")
    with pytest.raises(UsageError, match="wanted a list of them"):
        hr.PhotoLoader("photo.jpg", like=loader)


# --- arrays as they are


def test_z_scores_are_learnt_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(0, 1, (60, 6, 7, 4)).astype(np.float32)
    x += np.where(y == 1, 1, -1)[:, None, None, None].astype(np.float32)
    ds = hr.ArrayDataset(x, y, class_names=("low", "high"), dtype="keep", splits={"train": 0.7, "val": 0.3})
    with pytest.raises(UsageError, match="built-in models take pixels of 0 to 255; pass a model of your own"):
        hr.train(ds, out=tmp_path / "run", **QUICK)

    def build(shape: tuple[int, ...], classes: int) -> Any:
        assert shape == (6, 7, 4)
        return keras.Sequential(
            [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes, activation="softmax")]
        )

    result = hr.train(ds, out=tmp_path / "run", model=build, learning_rate=0.01, **{**QUICK, "epochs": 8})
    assert result.best["val_accuracy"] > 0.9
    judged = hr.evaluate(result.run, ds, progress=False)
    assert judged.metrics["accuracy"] == result.best["val_accuracy"] and judged.examples is None
    run = hr.Run(result.run)
    assert [one.class_name for one in run.predict(x[:4])] == ["low", "high", "low", "high"]
    assert run.predict(x[1]).class_name == "high"
    table = hr.predict(result.run, ds, out=tmp_path / "p", progress=False)
    assert table.predicted == 60 and table.picture is None
    with pytest.raises(UsageError, match="trained on arrays as they are"):
        hr.predict(result.run, [tmp_path / "a.jpg"], out=tmp_path / "q", progress=False)
    with pytest.raises(UsageError, match=r"image 0 is an array \[7, 6, 4\], wanted numbers of shape \[6, 7, 4\]"):
        run.predict([x[0].transpose(1, 0, 2)])
    kept = hr.ArrayDataset(x, y.astype(np.float32), labels="keep", dtype="keep")
    with pytest.raises(UsageError, match="its y is kept as it is, which no task here learns"):
        hr.train(kept, out=tmp_path / "q", model=build, **QUICK)
    with pytest.raises(UsageError, match=r"image 0 is an array \[6, 7\], wanted"):
        run.predict(x[0, ..., 0])
    assert run.predict([]) == []
    with pytest.raises(UsageError, match=r"holds float64 \[6, 7, 4\], the model is for float32"):
        hr.evaluate(
            result.run, hr.ArrayDataset(x.astype(float), y, class_names=("low", "high"), dtype="keep"), progress=False
        )


def test_whole_numbers_are_not_made_of_others(tmp_path: Path) -> None:
    x = np.zeros((20, 4, 4, 1), np.int16)
    x[1::2] = 300
    ds = hr.ArrayDataset(x, np.arange(20) % 2, class_names=("low", "high"), dtype="keep")
    run = hr.Run(hr.train(ds, out=tmp_path / "run", model=tiny, **QUICK).run)
    assert run.predict(x[1].astype(np.int64)) == run.predict(x[1])
    for image in (np.full((4, 4, 1), 0.9), np.full((4, 4, 1), 100_000), np.full((4, 4, 1), np.nan)):
        with pytest.raises(UsageError, match=r"image 0 is .*int16, as those trained on, can't hold its numbers"):
            run.predict(image)
    # Arrays in memory have no names of their own.
    parts = [
        hr.ArrayDataset(x[a:b], np.arange(10) % 2, class_names=("low", "high"), dtype="keep")
        for a, b in ((0, 10), (10, 20))
    ]
    x[11] = 299
    folders = [hr.evaluate(run, part, progress=False).figures[0].parent for part in (*parts, parts[0])]
    assert folders[0] == folders[2] != folders[1]


# --- tables and sheets


def test_no_images_are_no_table(ds: hr.Dataset, tmp_path: Path) -> None:
    run = hr.train(ds, out=tmp_path / "run", **QUICK).run
    for none in ([], np.zeros((0, SIDE, SIDE, 3), np.uint8)):
        with pytest.raises(UsageError, match="no images"):
            hr.predict(run, none, out=tmp_path / "p", progress=False)


def test_predictions_of_a_split_as_a_table(ds: hr.Dataset, tmp_path: Path) -> None:
    run = hr.train(ds, out=tmp_path / "run", divide={"train": 0.75, "val": 0.25}, **QUICK).run
    ended = headrace("predict", run, f"{ds.path}:train", "--out", tmp_path / "p", "--json")
    told = json.loads(ended.out)
    rows = _table(Path(told["csv"]))
    assert list(rows[0]) == ["id", "split", "observed", "estimated", "probability", "p_dark", "p_light"]
    train, _ = ds.divide({"train": 0.75, "val": 0.25})  # the run's own shares stand for splits
    assert [row["id"] for row in rows] == train.catalog["id"].to_list()
    val = hr.predict(run, ds.path, split="val", out=tmp_path / "v", progress=False)
    assert val.predicted == 20 and {row["split"] for row in val.rows} == {"val"}
    right = sum(row["observed"] == row["estimated"] for row in rows)
    assert told["accuracy"] == pytest.approx(right / 60)
    with Image.open(told["picture"]) as sheet:
        assert sheet.width > 300
    with pytest.raises(UsageError, match="holds no records"):
        hr.predict(run, ds.where("width > 999"), out=tmp_path / "q", progress=False)
    with pytest.raises(UsageError, match="pattern: of a dataset's records it says itself"):
        hr.predict(run, ds, out=tmp_path / "q", pattern="(?P<label>x)", progress=False)
    ended = headrace("predict", run, ds.path, ds.path, "--out", tmp_path / "q")
    assert ended.code == 2 and "ask about one dataset, or about images, at a time" in ended.err
    assert hr.predict(run, ds.path, out=tmp_path / "r", limit=9, progress=False).predicted == 9
    with pytest.raises(UsageError, match="no split 'dev'; it has train"):
        hr.predict(run, ds.path, out=tmp_path / "r", split="dev", progress=False)


def test_examples_show_the_worst_first(ds: hr.Dataset, tmp_path: Path) -> None:
    run = hr.train(ds, out=tmp_path / "run", **QUICK).run
    first = hr.evaluate(run, ds, progress=False)
    assert first.examples is not None and first.examples.parent == tmp_path / "run" / "evaluations" / "ds"
    assert {path.name for path in first.examples.parent.iterdir()} == {
        "confusion.png",
        "examples.png",
        "evaluation.json",
        "records.jsonl",
    }
    report = json.loads((first.examples.parent / "evaluation.json").read_text())
    assert report["accuracy"] == first.metrics["accuracy"] and report["fingerprint"] == ds.view_fingerprint
    hr.pack(discs(8, seed=2), tmp_path / "far" / "ds", progress=False)  # another of that name
    second = hr.evaluate(run, tmp_path / "far" / "ds", progress=False)
    assert second.examples is not None and second.examples.parent.name == "ds-2"
    assert hr.evaluate(run, ds, progress=False).examples == first.examples

    from headrace.learn import pictures

    asked = hr.Run(run)
    worst = pictures.Records(asked, asked.task, ds, n=5, worst=True)
    observe = asked.task.ground_truth(ds)
    off = []
    for number, answer in enumerate(asked.answers(ds, asked.task)):
        assert worst.wants(number)
        observed = pictures.observed(observe, ds.catalog.row(number, named=True))
        off.append(asked.task.wrong(answer.found, observed))
        worst.add(number, answer, observed)
    expected = sorted(range(N), key=lambda i: (-off[i], i))[:5]
    assert [tile.caption.split("\n")[-1] for tile in worst.tiles()] == [ds.catalog["id"][i] for i in expected]
