"""Models that leave: ONNX, TorchScript and SavedModel say of photos what the run itself says of them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from command import headrace
from faces import Faces
from headrace.errors import EngineError, MissingExtraError, NotThereError, StorageError, UsageError
from headrace.imaging.geometry import iou
from headrace.learn import export as exporting
from headrace.learn.backend import keras, precision
from headrace.learn.run import Run
from headrace.load.photos import PhotoLoader

HERE = Path(__file__).parent
N, SIDE = 60, 64
TASKS = ("classification", "value", "multilabel", "keypoints", "detection", "pyramid")

# Networks of a user's own, one for each task: classes without a softmax, two classes by one number and so on are in
# test_export_model_parts. The layer of classification's is no layer of Keras's.
NETS = """
import keras

class Half(keras.layers.Layer):
    def call(self, x):
        return x / 2

def features(pixels, depth):
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    for filters in (8, 16, 24, 32, 32)[:depth]:
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    return x

def pooled(pixels):
    return keras.layers.GlobalAveragePooling2D()(features(pixels, 3))

def classification(shape, classes):
    pixels = keras.Input(shape)
    return keras.Model(pixels, keras.layers.Dense(classes)(Half()(pooled(pixels))))

def value(shape, classes):
    pixels = keras.Input(shape)
    return keras.Model(pixels, keras.layers.Dense(1)(pooled(pixels)))

def multilabel(shape, classes):
    pixels = keras.Input(shape)
    return keras.Model(pixels, keras.layers.Dense(classes, activation="sigmoid")(pooled(pixels)))

def keypoints(shape, classes):
    pixels = keras.Input(shape)
    x = keras.layers.Conv2D(classes, 1)(features(pixels, 2))
    cells = keras.layers.Reshape((-1, classes))(x)
    maps = keras.layers.Reshape(x.shape[1:])(keras.layers.Softmax(axis=1)(cells))
    return keras.Model(pixels, keras.layers.Rescaling(20.0)(maps))

def detection(shape, classes):
    pixels = keras.Input(shape)
    cells = keras.layers.Conv2D(5 + classes, 3, padding="same", activation="sigmoid")(features(pixels, 5))
    return keras.Model(pixels, cells)

def pyramid(shape, classes):
    pixels = keras.Input(shape)
    scales = []
    for strides in (3, 4, 5):
        cells = keras.layers.Conv2D(5 + classes, 3, padding="same", activation="sigmoid")(features(pixels, strides))
        scales.append(keras.layers.Reshape((-1, 5 + classes))(cells))
    return keras.Model(pixels, keras.layers.Concatenate(axis=1)(scales))
"""


def records(folder: Path, n: int, *, several: bool) -> list[hr.Record]:
    """Faces with a class, a value and names, and `several` classes instead of the one."""
    made = []
    for i, record in enumerate(list.__iter__(Faces(folder, n, size=(SIDE, SIDE)))):
        kind = ("a", "b", "c")[i % 3]
        record = hr.Record(
            id=record.id,
            path=record.path,
            boxes=record.boxes,
            box_labels=(("face", "head")[i % 2],),
            keypoints=record.keypoints,
            value=100.0 + 10 * (i % 7),
            label_name=None if several else kind,
            labels=tuple("abc"[: i % 4]) if several else None,
        )
        made.append(record)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for each task, by their names; `photos`, and the networks that they were trained with."""
    folder = tmp_path_factory.mktemp("export")
    for name, several in (("one", False), ("several", True)):
        hr.pack(records(folder / "photos", N, several=several), folder / name, progress=False)
    (folder / "nets.py").write_text(textwrap.dedent(NETS))
    options: dict[str, Any] = {"epochs": 2, "size": SIDE, "batch_size": 8, "learning_rate": 0.01, "augment": ()}
    for task in TASKS:
        hr.train(
            folder / ("several" if task == "multilabel" else "one"),
            out=folder / task,
            task="detection" if task == "pyramid" else task,
            model=f"{folder / 'nets.py'}:{task}",
            progress=False,
            **options,
        )
    return folder


@pytest.fixture(scope="module")
def by_torch(folder: Path) -> dict[str, Any]:
    """What the exports said that PyTorch makes, all in one process, by the name of their files."""
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, str(HERE / "run_export_model.py"), str(folder), *TASKS],
        env=os.environ | {"KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.fixture(scope="module")
def images(folder: Path) -> Any:
    """The photos as the models take them."""
    photos = [str(path) for path in sorted((folder / "photos").iterdir())]
    assert len(photos) == N
    return np.concatenate([photos.batch.images for photos in PhotoLoader(photos, size=SIDE)])


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Run]:
    return {task: Run(folder / task, network=f"{folder / 'nets.py'}:{task}") for task in TASKS}


Ask = Callable[[Any], dict[str, Any]]


def check(run: Run, images: Any, ask: Ask) -> None:
    """What a file says of all images, one by one and seven at a time, is what the run says of them."""
    one_by_one = [ask(image[np.newaxis]) for image in images[:5]]
    sevens = [ask(images[i : i + 7]) for i in range(0, len(images), 7)]  # and four at the end
    for parts, n in ((one_by_one, 5), (sevens, len(images))):
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert all(tensor.dtype == np.float32 and len(tensor) == n for tensor in found.values())
        JUDGES[run.recipe.task](run, images[:n], found)


def _probabilities(run: Run, images: Any, found: dict[str, Any]) -> None:
    wanted = [list(answer.probabilities.values()) for answer in run.predict(images)]
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-3)
    assert np.ptp(found["probabilities"], axis=0).max() > 0.01  # they differ from photo to photo


def _value(run: Run, images: Any, found: dict[str, Any]) -> None:
    np.testing.assert_allclose(found["value"], run.predict(images), atol=1e-3)


def _keypoints(run: Run, images: Any, found: dict[str, Any]) -> None:
    wanted = np.stack([answer.points for answer in run.predict(images, threshold=0)])
    np.testing.assert_allclose(found["keypoints"] / [SIDE, SIDE, 1], wanted / [SIDE, SIDE, 1], atol=1e-3)


def _detection(run: Run, images: Any, found: dict[str, Any]) -> None:
    """All boxes of `predict` are there, of their class; and what else reaches the threshold overlaps a better one."""
    threshold, names, seen = 0.05, run.recipe.class_names, 0
    for answer, boxes, scores in zip(
        run.predict(images, threshold=threshold), found["boxes"], found["scores"], strict=True
    ):
        boxes = np.clip(boxes, 0, SIDE)
        labels, best = scores.argmax(axis=1), scores.max(axis=1)
        kept = []
        for box, score, name in zip(answer.boxes, answer.scores, answer.class_names, strict=True):
            off = np.abs(boxes - box).max(axis=1) / SIDE + np.abs(best - score)
            kept.append(int(off.argmin()))
            assert off.min() < 1e-3 and names[labels[kept[-1]]] == name
            seen += 1
        assert len(set(kept)) == len(kept)
        for i in set(np.flatnonzero(best >= threshold + 1e-3).tolist()) - set(kept):
            rivals = [k for k in kept if labels[k] == labels[i]]
            assert iou(boxes[[i]], boxes[rivals]).max() > 0.4
    assert seen > len(images)


JUDGES = {
    "classification": _probabilities,
    "multilabel": _probabilities,
    "value": _value,
    "keypoints": _keypoints,
    "detection": _detection,
}


def by_onnx(path: Path) -> tuple[Ask, dict[str, Any]]:
    """What onnxruntime makes of a file, and what stands in it beside the model."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [SIDE, SIDE, 3])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["headrace"])
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True)), metadata


@pytest.mark.parametrize("task", TASKS)
def test_onnx(task: str, folder: Path, by_torch: dict[str, Any], runs: dict[str, Run], images: Any) -> None:
    ask, metadata = by_onnx(folder / f"{task}.onnx")
    check(runs[task], images, ask)
    said = by_torch[f"{task}.onnx"]
    assert said["difference"] <= 1e-3 and said["unchecked"] is None and said["framework"] == "torch"
    assert said["bytes"] == (folder / f"{task}.onnx").stat().st_size
    _check_metadata(metadata, runs[task], said)
    assert str(folder).encode() not in (folder / f"{task}.onnx").read_bytes()  # nor which line of which disk made it


def _check_metadata(metadata: dict[str, Any], run: Run, said: dict[str, Any]) -> None:
    """They say all that a consumer must know; and what PhotoLoader needs, to make of a photo what the model takes."""
    assert (metadata["format"], metadata["version"], metadata["headrace"]) == ("headrace model", 1, hr.__version__)
    assert metadata["task"] == run.recipe.task and metadata["class_names"] == list(run.recipe.class_names)
    assert metadata["inputs"]["images"] == {
        "dtype": "uint8",
        "shape": [None, SIDE, SIDE, 3],
        "values": "0 to 255",
        "channels": "RGB",
    }
    assert {name: {k: v for k, v in facts.items() if k != "is"} for name, facts in metadata["outputs"].items()} == (
        said["outputs"]
    )
    way = metadata["preparation"]
    assert (way["size"], way["fit"], way["channels"]) == ([SIDE, SIDE], "stretch", 3)
    photos = [run.recipe.train.dataset.replace("several", "one").removesuffix("one") + "photos/000.jpg"]
    (mine,) = PhotoLoader(photos, **way | {"size": tuple(way["size"])})
    (theirs,) = PhotoLoader(photos, like=run.recipe)
    np.testing.assert_array_equal(mine.batch.images, theirs.batch.images)


def test_torchscript_without_keras(
    folder: Path, by_torch: dict[str, Any], runs: dict[str, Run], images: Any, tmp_path: Path
) -> None:
    """Loaded where there is neither Keras nor Headrace."""
    pytest.importorskip("torch")
    np.save(tmp_path / "images.npy", images)
    code = """
        import json, sys
        for name in ("keras", "headrace", "tensorflow"):
            sys.modules[name] = None
        import numpy as np, torch
        folder, out, *tasks = sys.argv[1:]
        images = torch.from_numpy(np.load(f"{out}/images.npy"))
        for task in tasks:
            beside = {"headrace.json": ""}
            model = torch.jit.load(f"{folder}/{task}.pt", _extra_files=beside)
            assert json.loads(beside["headrace.json"])["task"] == {"pyramid": "detection"}.get(task, task)
            parts = [images[i : i + 1] for i in range(5)] + list(images.split(7))
            found = [model(part) for part in parts]
            assert not any(tensor.requires_grad for part in found for tensor in part.values())
            floats = model(images.float())
            for name, tensor in floats.items():
                assert torch.allclose(tensor, torch.cat([part[name] for part in found[5:]]), atol=1e-3)
            found = {f"{name}/{i}": t for i, part in enumerate(found) for name, t in part.items()}
            np.savez(f"{out}/{task}.npz", **found)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), str(folder), str(tmp_path), *TASKS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for task in TASKS:
        assert by_torch[f"{task}.pt"]["difference"] <= 1e-3
        with np.load(tmp_path / f"{task}.npz") as found:
            said = iter(range(len(found)))
            names = list(by_torch[f"{task}.pt"]["outputs"])

            def ask(_: Any, found: Any = found, said: Any = said, names: Any = names) -> dict[str, Any]:
                i = next(said)
                return {name: found[f"{name}/{i}"] for name in names}

            check(runs[task], images, ask)


@pytest.mark.parametrize("task", TASKS)
def test_saved_model(task: str, folder: Path, runs: dict[str, Run], images: Any, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the others are written by processes of their own, as test_the_verb shows")
    made = runs[task].export(tmp_path / "out", format="saved_model")
    assert made.difference is not None and made.difference <= 1e-3 and made.framework == "tensorflow"
    assert {path.name for path in made.path.iterdir()} >= {"saved_model.pb", "variables", "headrace.json"}
    assert not any(path.name.startswith(".") for path in (*tmp_path.iterdir(), *made.path.iterdir()))
    loaded = tf.saved_model.load(made.path)
    check(runs[task], images, lambda some: {name: t.numpy() for name, t in loaded.serve(some).items()})
    served = loaded.signatures["serving_default"](images=tf.constant(images[:3]))  # what TensorFlow Serving calls
    assert set(served) == set(made.outputs)
    _check_metadata(json.loads((made.path / "headrace.json").read_text()), runs[task], made.json())
    with pytest.raises(UsageError, match="holds an exported model already; pass overwrite=True"):
        runs[task].export(made.path, format="saved_model")


def test_the_verb_has_another_framework_write(folder: Path, runs: dict[str, Run], images: Any, tmp_path: Path) -> None:
    """Keras runs on one framework in a process, and a format is written by one."""
    torch = pytest.importorskip("torch")
    out = tmp_path / "made" / "model.pt"
    words = ("export-model", folder / "classification", out, "--format", "torchscript", "--json")
    refused = headrace(*words)
    assert refused.code == 2 and "holds code that is not Keras's (Half of own_nets)" in refused.err
    assert not out.exists()
    model = ("--model", f"{folder / 'nets.py'}:classification")
    ended = headrace(*words, *model)
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert said["out"] == str(out) and said["framework"] == "torch" and said["difference"] <= 1e-3
    assert said["inputs"] == {"images": {"dtype": "uint8", "shape": [None, SIDE, SIDE, 3]}}
    assert said["outputs"] == {"probabilities": {"dtype": "float32", "shape": [None, 3]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch wants nobody to begin with it any more
        found = torch.jit.load(out)(torch.from_numpy(images))["probabilities"].numpy()
    _probabilities(runs["classification"], images, {"probabilities": found})
    assert [path.name for path in out.parent.iterdir()] == ["model.pt"]
    again = headrace(*words, *model)
    assert again.code == 2 and "pass --overwrite to replace it" in again.err


def test_arrays_as_they_are_and_classes_by_one_number(tmp_path: Path) -> None:
    """Of 16 bits: a model takes what the run was trained on."""
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("is written by TensorFlow")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 60_000, (40, 6, 5), np.uint16)
    y = np.arange(40) % 2
    x[y == 1] //= 2

    def network(shape: tuple[int, ...], classes: int) -> Any:
        scaled = [keras.layers.Rescaling(1 / 60_000), keras.layers.Flatten()]
        return keras.Sequential([keras.Input(shape), *scaled, keras.layers.Dense(1)])

    arrays = hr.ArrayDataset(x, y, dtype="keep", class_names=("dark", "light"))
    run = hr.train(arrays, model=network, out=tmp_path / "run", epochs=1, progress=False).run
    made = Run(run, network=network).export(tmp_path / "out", format="saved_model")
    assert made.inputs == {"images": {"dtype": "uint16", "shape": [None, 6, 5]}}
    assert json.loads((made.path / "headrace.json").read_text())["preparation"] is None
    loaded = tf.saved_model.load(made.path)
    found = loaded.serve(x)["probabilities"].numpy()
    wanted = [list(answer.probabilities.values()) for answer in Run(run, network=network).predict(x)]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the framework at work here the one that writes "onnx", by a function of one's own."""

    def take(write: Callable[[Any, Path], None], load: Callable[[Path], Any], runtime: str = "numpy") -> None:
        form = exporting._Format(
            framework=keras.backend.backend(),
            needs=(),
            runtime=runtime,
            extras="onnx",
            one_file=True,
            write=write,
            load=load,
        )
        monkeypatch.setitem(exporting.FORMATS, "onnx", form)

    return take


def _write(served: Any, path: Path) -> None:
    path.write_text(served.metadata)


def _says(probabilities: Any) -> Callable[[Path], Any]:
    return lambda path: lambda images: {"probabilities": np.asarray(probabilities[: len(images)], np.float32)}


def test_what_says_other_than_keras_is_not_written(
    writer: Callable[..., None], runs: dict[str, Run], tmp_path: Path
) -> None:
    run, out = runs["classification"], tmp_path / "model.onnx"
    right = run.task.probabilities(run.outputs(exporting.drawn(run.recipe)))  # type: ignore[attr-defined]

    def loaded(by: float, shape: slice = slice(None)) -> Callable[[Path], Any]:
        said = iter([right[:1], right[1:]])
        return lambda path: lambda images: {"probabilities": next(said)[:, shape] + np.float32(by)}

    writer(_write, loaded(0.0005))
    assert run.export(out, format="onnx").difference == pytest.approx(0.0005, rel=0.01)
    out.unlink()
    for load, message in (
        (loaded(0.002), r"says other probabilities of drawn images than Keras does, by 0\.002, wanted 0\.001 at most"),
        (loaded(float("nan")), "than Keras does, by inf"),
        (loaded(0, slice(2)), "than Keras does, by inf"),
        (lambda path: {}["gone"], r"wrote can't be used \('gone'\); nothing was written"),
    ):
        writer(_write, load)
        with pytest.raises(EngineError, match=message):
            run.export(out, format="onnx")
        assert list(tmp_path.iterdir()) == []
    writer(_write, loaded(0), runtime="no_such_runtime")
    made = run.export(out, format="onnx")
    assert made.difference is None
    assert made.unchecked == "no_such_runtime is not installed; pip install 'headrace[onnx]'"


def test_what_a_framework_refuses_leaves_nothing(
    writer: Callable[..., None], runs: dict[str, Run], tmp_path: Path
) -> None:
    def fails(served: Any, path: Path) -> None:
        path.write_bytes(b"half a model")
        try:
            raise ValueError(
                "Exception encountered when calling Half.call().\n\n\x1b[1mno such operation\x1b[0m\n\nadvice"
            )
        except ValueError as error:
            raise RuntimeError("see the stack above") from error

    writer(fails, _says([]))
    with pytest.raises(UsageError, match=r"says: Exception encountered when calling Half.call\(\). no such operation$"):
        runs["classification"].export(tmp_path / "model.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(writer: Callable[..., None], runs: dict[str, Run], tmp_path: Path) -> None:
    def fails(served: Any, path: Path) -> None:
        path.write_bytes(b"half a model")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer(fails, _says([]))
    with pytest.raises(StorageError, match=r"model.onnx: no space left on device$"):
        runs["classification"].export(tmp_path / "model.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_torchscript_on_a_full_disk_does_not_end_the_process() -> None:
    """As PyTorch's own writer does, by std::terminate."""
    torch = pytest.importorskip("torch")
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")

    class Model(torch.nn.Module):  # type: ignore[misc]
        def forward(self, images: Any, training: bool) -> Any:
            return {"value": images * 2.0}

    served = exporting._Served(Model(), ("value",), np.ones((2, 3), np.float32), "{}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DeprecationWarning, and of the tracer
        with pytest.raises(OSError, match="No space left"):
            exporting._write_torchscript(served, Path("/dev/full"))


def test_bfloat16_is_left_out_where_no_runtime_has_it() -> None:
    with precision("mixed_bfloat16"):
        pixels = keras.Input((8, 8, 3))
        inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
        model = keras.Model(pixels, keras.layers.Dense(2, dtype="float32")(inner(pixels)))
    conv = inner.layers[-1]
    with exporting._without_bfloat16(model):
        assert conv.compute_dtype == "float32"
    assert conv.compute_dtype == "bfloat16"


def test_only_what_was_exported_is_replaced(writer: Callable[..., None], runs: dict[str, Run], tmp_path: Path) -> None:
    run, out = runs["classification"], tmp_path / "model.onnx"
    writer(_write, _says([]), runtime="no_such_runtime")
    run.export(out, format="onnx")
    with pytest.raises(UsageError, match=r"model.onnx: is there already; pass overwrite=True to replace it"):
        run.export(out, format="onnx")
    run.export(out, format="onnx", overwrite=True)
    kept = out.read_bytes()
    for name, content in (("photo.jpg", b"\xff\xd8\xff"), ("empty", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is a file that export-model didn't write, and is not replaced"):
            run.export(path, format="onnx", overwrite=True)
        assert path.read_bytes() == content
    (tmp_path / "link").symlink_to(out)
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(UsageError, match="exists and is no file; choose another place"):
            run.export(path, format="onnx", overwrite=True)
    with pytest.raises(UsageError, match="is a folder with other files in it"):
        run.export(tmp_path, format="saved_model", overwrite=True)
    with pytest.raises(UsageError, match="a model is written to a disk of this machine"):
        run.export("s3://bucket/model.onnx", format="onnx")
    with pytest.raises(UsageError, match=r"format is 'tflite', wanted one of onnx, saved_model, torchscript"):
        run.export(out, format="tflite")
    assert out.read_bytes() == kept


def test_what_is_not_there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = headrace("export-model", tmp_path / "none", tmp_path / "m", "--format", "saved_model")
    assert (ended.code, ended.out) == (2, "") and "none: there is no such run; train makes one" in ended.err
    ended = headrace("export-model", folder / "value", tmp_path / "m")
    assert ended.code == 2 and "--format" in ended.err
    there = exporting._installed
    monkeypatch.setattr(exporting, "_installed", lambda name: name not in ("torch", "onnxscript") and there(name))
    ended = headrace("export-model", folder / "value", tmp_path / "m", "--format", "onnx")
    assert ended.code == 2 and ended.err == (
        "headrace: PyTorch writes --format onnx, and torch, onnxscript are not installed; run: pip install "
        "'headrace[torch,onnx]'\n"
    )
    with pytest.raises(MissingExtraError, match=r"torch is not installed; run: pip install 'headrace\[torch\]'"):
        exporting.export(folder / "value", tmp_path / "m", format="torchscript")
    with pytest.raises(NotThereError):
        exporting.export(tmp_path / "none", tmp_path / "m", format="saved_model")


def test_the_other_process(runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can't be given what is in this one's memory; and one that dies is told of."""
    form = exporting.FORMATS["onnx"]
    other = next(name for name in ("jax", "tensorflow", "torch") if name != keras.backend.backend())
    monkeypatch.setitem(exporting.FORMATS, "onnx", replace(form, framework=other, needs=()))
    with pytest.raises(UsageError, match=r"name that as file.py:function, or begin with KERAS_BACKEND="):
        exporting.export(
            runs["value"].folder.folder, tmp_path / "m", format="onnx", network=lambda shape, classes: None
        )
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\necho out of memory >&2\nexit 3\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    with pytest.raises(EngineError, match=r"m: its process on .* died \(3\)\nout of memory"):
        runs["value"].export(tmp_path / "m", format="onnx")
    assert not (tmp_path / "m").exists()
    with pytest.raises(NotThereError, match="there is no such run"):
        exporting.export(tmp_path / "none", tmp_path / "m", format="onnx")


def test_real_photos(real_data: Path, tmp_path: Path) -> None:
    """60 photos of all sizes, a built-in network: what onnxruntime says of them is what the run says."""
    pytest.importorskip("onnxscript")
    photos = sorted((real_data / "catsdogs/train").glob("*.jpg"))[:N]
    assert len(photos) == N
    source = [hr.Record(id=f"{i}.jpg", path=str(path), label_name="ab"[i % 2]) for i, path in enumerate(photos)]
    hr.pack(source, tmp_path / "ds", size=96, fit="crop", max_rejects=1.0, progress=False)
    quick: dict[str, Any] = {"model": "mobilenet_v2", "model_options": {"alpha": 0.35}, "size": SIDE, "batch_size": 8}
    hr.train(tmp_path / "ds", out=tmp_path / "run", epochs=1, progress=False, **quick)
    run = hr.Run(tmp_path / "run")
    made = run.export(tmp_path / "model.onnx", format="onnx")
    assert made.difference is not None and made.difference <= 1e-3
    ask, metadata = by_onnx(made.path)
    way = metadata["preparation"]
    loader = PhotoLoader(photos, **way | {"size": tuple(way["size"])}, batch_size=7)
    found = [ask(some.batch.images)["probabilities"] for some in loader]
    wanted = [list(answer.probabilities.values()) for answer in run.predict(photos)]
    np.testing.assert_allclose(np.concatenate(found), wanted, atol=1e-3)
