"""The commands and snippets of README and tutorials run, in their order, on photos drawn for it."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headrace as hr
from browsing import Client
from foreign import payload, write
from headrace.cli.demo import draw
from headrace.imaging.codec import encode_jpeg
from vision import albumentations, torchvision_v2

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/classify.md"])
def test_page_runs(page: str, tmp_path: Path) -> None:
    _draw_photos(tmp_path / "photos")
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert {kind for kind, _ in blocks} == {"bash", "python"}
    shell = [code for kind, code in blocks if kind == "bash"]
    # As written, but for the number of epochs: what is shown is that it runs, not that it learns.
    assert any("--epochs 25" in code for code in shell)
    _run(["bash", "-euo", "pipefail", "-c", "\n".join(shell).replace("--epochs 25", "--epochs 1")], tmp_path)
    _run([sys.executable, "-c", "\n".join(code for kind, code in blocks if kind == "python")], tmp_path)
    assert (tmp_path / "run" / "model.keras").exists()
    assert (tmp_path / "predictions" / "predictions.csv").read_text().count("\n") == 1 + 4
    assert (tmp_path / "predictions" / "predictions.png").stat().st_size > 1000


def test_edit_runs(tmp_path: Path) -> None:
    _draw_photos(tmp_path / "photos")
    blocks = BLOCK.findall((ROOT / "docs/tutorials/edit.md").read_text())
    said, python = [], ""
    for kind, code in blocks:  # in their order: each edits what those before it made
        if kind == "python":  # a page is one session; what was made stays made
            code, python = f"{'import headrace as hr' if python else ''}\n{code}", code
        words = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [sys.executable, "-c", code]
        said.append(_run(words, tmp_path))
    assert "relabel to 'dog': 1 record ('cat.0.jpg')" in said[2] and "cat.4.jpg cat -> None" in said[3]
    assert "was edited meanwhile, and nothing was changed: version" in said[4] and "by ben" in said[4]
    assert "not in the shards" in said[5] and "all sound" in said[5]


def test_detect_faces_runs(tmp_path: Path, real_data: Path) -> None:
    _some_of_wider(real_data / "wider", tmp_path, "train", 24)
    _some_of_wider(real_data / "wider", tmp_path, "val", 6)
    blocks = BLOCK.findall((ROOT / "docs/tutorials/detect-faces.md").read_text())
    shell = "\n".join(code for kind, code in blocks if kind == "bash")
    # As written, but for how long and how large: what is shown is that it runs, not that it learns.
    assert "--epochs 25" in shell
    quick = shell.replace("--epochs 25", "--epochs 1 --size 64 --alpha 0.35")
    _run(["bash", "-euo", "pipefail", "-c", quick], tmp_path)
    _run([sys.executable, "-c", "\n".join(code for kind, code in blocks if kind == "python")], tmp_path)
    assert len(list((tmp_path / "found" / "drawn").rglob("*.jpg"))) == 24
    _check_evaluation(tmp_path / "run" / "evaluations" / "faces-val", "precision.png")
    header = (tmp_path / "found-val" / "predictions.csv").read_text().splitlines()[0].split(",")
    assert header[:3] == ["id", "split", "score"] and "right" in header
    assert hr.Run(tmp_path / "crowds").recipe.model == "mobilenet_v2_multiscale"
    for name in ("faces.png", "batch.png", "pyramid.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert (tmp_path / "all-faces" / "headrace.json").exists()


def test_keras_and_jax_runs(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    blocks = BLOCK.findall((ROOT / "docs/tutorials/keras-and-jax.md").read_text())
    assert {kind for kind, _ in blocks} == {"python"}
    said = _run([sys.executable, "-c", "\n".join(code for _, code in blocks)], tmp_path, {"KERAS_BACKEND": "jax"})
    assert said.splitlines()[-1] == "1 1" and (tmp_path / "fit.npz").exists()


def test_figures_are_made(tmp_path: Path) -> None:
    """By their script, of drawn photos, as those that are there; fonts differ between machines, so pixels may."""
    _run([sys.executable, str(ROOT / "docs/figures/make.py"), str(tmp_path)], tmp_path)
    made = {path.name: Image.open(io.BytesIO(path.read_bytes())).size for path in tmp_path.glob("*.png")}
    kept = list((ROOT / "docs/figures").glob("*.png"))
    assert made == {path.name: Image.open(io.BytesIO(path.read_bytes())).size for path in kept} != {}
    assert all(path.stat().st_size < 150_000 for path in kept)


def test_pictures_of_pages_are_made(tmp_path: Path) -> None:
    """By their script and Chromium, as those that are there."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("there is no Chromium: apt-get install chromium chromium-driver")
    _run([sys.executable, str(ROOT / "docs/figures/pages.py"), str(tmp_path)], tmp_path)
    made = {path.name: Image.open(io.BytesIO(path.read_bytes())).size for path in tmp_path.glob("*.png")}
    kept = list((ROOT / "docs/figures/pages").glob("*.png"))
    assert made == {path.name: Image.open(io.BytesIO(path.read_bytes())).size for path in kept} != {}
    assert all(path.stat().st_size < 150_000 for path in kept)


def test_look_and_mend_runs(tmp_path: Path) -> None:
    """A viewer is asked for its page, and ended by Ctrl-C."""
    blocks = BLOCK.findall((ROOT / "docs/tutorials/look-and-mend.md").read_text())
    shown = 0
    for kind, code in blocks:
        if kind == "python":
            _run([sys.executable, "-c", code], tmp_path)
            continue
        for line in code.replace("--epochs 25", "--epochs 1").splitlines():
            if line.startswith("headrace view"):
                _look([sys.executable, "-m", *line.split(), "--no-browser"], tmp_path)
                shown += 1
            else:
                _run(["bash", "-euo", "pipefail", "-c", line], tmp_path)
    assert shown == 4
    assert hr.Dataset(tmp_path / "harbour").version == 2
    assert (tmp_path / "harbour.html").read_text().count("<img") > 20
    said = (tmp_path / "run/evaluations/harbour-val/records.jsonl").read_text()
    assert len(said.splitlines()) == hr.Dataset(tmp_path / "harbour").splits["val"]


def _look(command: list[str], folder: Path) -> None:
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ask = Client(process.stdout.readline().strip()).enter()
        assert ask("").status == 200 and ask("api/records").json["total"] > 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 0


def test_keypoints_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs/tutorials/keypoints.md").read_text()
    assert "--epochs 25" in page
    for kind, code in BLOCK.findall(page):  # in their order: the first draws what the others are about
        quick = code.replace("--epochs 25", "--epochs 1 --alpha 0.35").replace("range(300)", "range(40)")
        _run(["bash", "-euo", "pipefail", "-c", quick] if kind == "bash" else [sys.executable, "-c", quick], tmp_path)
    _check_evaluation(tmp_path / "run" / "evaluations" / "faces-val", "pck.png")
    assert len(list((tmp_path / "found" / "drawn").glob("*.jpg"))) == 40
    assert (tmp_path / "found" / "predictions.csv").read_text().startswith("path,keypoint,score,x,y\n")


def test_sampling_runs(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs/tutorials/sampling.md").read_text())
    assert {kind for kind, _ in blocks} == {"python"}
    said = _run([sys.executable, "-W", "error", "-c", "\n".join(code for _, code in blocks)], tmp_path).splitlines()
    assert said[0] == "{'go': 495, 'stop': 5}" and "'go': 250" in said[1] and "'stop': 250" in said[1]
    assert said[2] == str([50] * 20) and said[3].endswith("of 500 seen in two epochs, 500 in four")
    assert said[4] == "3 batches an epoch; 500 records in four, 500 of them different"
    assert said[5:] == ["{'go': 562, 'stop': 72, 'bike': 66} bike 72", str([15] * 14)]


def test_multilabel_and_values_run(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs/tutorials/multilabel-and-values.md").read_text())
    shell = [code for kind, code in blocks if kind == "bash"]
    assert sum("--epochs 25" in code for code in shell) == 2
    for kind, code in blocks:  # in their order: the first draws what the others are about
        quick = code.replace("--epochs 25", "--epochs 1").replace("range(400)", "range(60)")
        _run(["bash", "-euo", "pipefail", "-c", quick] if kind == "bash" else [sys.executable, "-c", quick], tmp_path)
    _check_evaluation(tmp_path / "run" / "evaluations" / "shapes-val", "classes.png")
    _check_evaluation(tmp_path / "light-run" / "evaluations" / "light-val", "values.png")
    header = (tmp_path / "found" / "predictions.csv").read_text().splitlines()[0]
    assert header == "id,split,observed,estimated,p_circle,p_square,p_triangle"


def test_formats_runs(tmp_path: Path) -> None:
    _write_voc(tmp_path / "street")
    page = (ROOT / "docs/tutorials/formats.md").read_text()
    blocks = BLOCK.findall(page)
    shell, python = ("\n".join(code for kind, code in blocks if kind == wanted) for wanted in ("bash", "python"))
    said = _run(["bash", "-euo", "pipefail", "-c", shell], tmp_path)
    # What the page shows is what is said, but for bytes and seconds.
    for shown in re.findall(r"^    (.+)$", BLOCK.sub("", page), re.MULTILINE):
        if " in " not in shown:
            assert shown in said
    assert "clear: 8 records as yolo" in said and (tmp_path / "street.png").stat().st_size > 1000
    _run([sys.executable, "-c", python], tmp_path)


def _write_voc(folder: Path) -> None:
    """Twelve photos of three cameras with two shapes each, in VOC's folders and splits; in some one is cut off."""
    rng = np.random.default_rng(0)
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for k in range(12):
        stem = f"cam{k % 3}-{k:02d}"
        lists["val" if k % 3 == 2 else "train"].append(stem)
        (folder / "JPEGImages" / f"{stem}.jpg").write_bytes(encode_jpeg(draw("circle", rng)))
        objects = "".join(
            f"<object><name>{name}</name><pose>Left</pose><truncated>{int(k % 3 == 0 and x == 1)}</truncated>"
            f"<difficult>0</difficult><bndbox><xmin>{x}</xmin><ymin>{3 + k}</ymin><xmax>{x + 20}</xmax>"
            f"<ymax>{23 + k}</ymax></bndbox></object>"
            for name, x in (("car", 1), ("dog", 30))
        )
        (folder / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{objects}</annotation>")
    for split, stems in lists.items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")


def test_visipedia_runs(tmp_path: Path) -> None:
    _draw_photos(tmp_path / "photos")
    blocks = BLOCK.findall((ROOT / "docs/tutorials/visipedia.md").read_text())
    for i in range(len(blocks)):  # each in its turn; a Python one knows what those before it made
        before = [code for kind, code in blocks[:i] if kind == "python"] if blocks[i][0] == "python" else []
        code = "\n".join([*before, blocks[i][1]])
        command = ["bash", "-euo", "pipefail"] if blocks[i][0] == "bash" else [sys.executable]
        _run([*command, "-c", code], tmp_path)
    assert len(list((tmp_path / "records").glob("train-000??-of-00010"))) == 10
    assert (tmp_path / "birds" / "headrace.json").exists()


def test_every_bug_of_visipedia_has_its_test() -> None:
    table = (ROOT / "docs/visipedia.md").read_text()
    tests = (ROOT / "tests/unit/test_compat_visipedia.py").read_text()
    named = re.findall(r"`(test_\w+)` \|$", table, re.MULTILINE)
    assert sorted(set(named)) == sorted(re.findall(r"^def (test_bug_\w+)", tests, re.MULTILINE))
    assert sorted(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == list(range(1, 12))


def test_arrays_run(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs/tutorials/arrays.md").read_text())
    python, shell = ("\n".join(code for kind, code in blocks if kind == wanted) for wanted in ("python", "bash"))
    # As written, but for the number of epochs. The commands need the arrays that the snippets make.
    assert python.count("epochs=25") == 2 and "--epochs 25" in shell
    _run([sys.executable, "-c", python.replace("epochs=25", "epochs=2")], tmp_path)
    _run(["bash", "-euo", "pipefail", "-c", shell.replace("--epochs 25", "--epochs 2")], tmp_path)
    assert (tmp_path / "run" / "history.csv").read_text().count("\n") == 3
    assert (tmp_path / "packed-run" / "model.keras").exists()


def test_adopt_runs(tmp_path: Path) -> None:
    _write_shards(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*.tfrecord")}
    blocks = BLOCK.findall((ROOT / "docs/tutorials/adopt.md").read_text())
    shell = "\n".join(code for kind, code in blocks if kind == "bash")
    assert "--epochs 25" in shell
    quick = shell.replace("--epochs 25", "--epochs 1")
    said = _run(["bash", "-euo", "pipefail", "-c", quick], tmp_path)
    assert "exit code 2" in said and "exit code 1" in said and "perhaps: --map image=jpg --map label=y" in said
    assert "rescued: 11 seen = 11 stored + 0 rejected" in said and "shapes: 48 records, all sound" in said
    _run([sys.executable, "-c", "\n".join(code for kind, code in blocks if kind == "python")], tmp_path)
    assert re.search(r"training on 9 records of /.*/circles \(train 0.75", said)
    assert (tmp_path / "run" / "model.keras").exists()
    assert {path: path.read_bytes() for path in before} == before


def _check_evaluation(folder: Path, figure: str) -> None:
    """An evaluation has left its files where the pages say."""
    assert {path.name for path in folder.iterdir()} == {figure, "examples.png", "evaluation.json", "records.jsonl"}


def _write_shards(folder: Path) -> None:
    """Shards of a known layout in two splits, and a file of keys that nobody knows."""
    rng = np.random.default_rng(0)
    photos = [encode_jpeg(draw(("circle", "square")[k % 2], rng)) for k in range(48)]
    known = [
        payload(image__encoded=photo, image__class__label=k % 2, image__class__text=("circle", "square")[k % 2])
        for k, photo in enumerate(photos)
    ]
    for name, some in (("train-0-of-2", known[:20]), ("train-1-of-2", known[20:36]), ("val-0-of-1", known[36:])):
        write(folder / "shards" / f"{name}.tfrecord", some)
    write(folder / "mine" / "data.tfrecord", [payload(jpg=photo, y=1 + k % 2) for k, photo in enumerate(photos[:12])])


def _some_of_wider(wider: Path, folder: Path, split: str, n: int) -> None:
    """The first `n` photos of a split of at most 5 faces, in the layout of the download."""
    lines = (wider / f"wider_face_split/wider_face_{split}_bbx_gt.here.txt").read_text().splitlines()
    kept: list[str] = []
    while n:
        faces = max(1, int(lines[1]))
        if faces <= 5:
            kept += lines[: 2 + faces]
            photo = folder / f"WIDER_{split}/images" / lines[0]
            photo.parent.mkdir(parents=True, exist_ok=True)
            photo.write_bytes((wider / f"WIDER_{split}/images" / lines[0]).read_bytes())
            n -= 1
        lines = lines[2 + faces :]
    (folder / "wider_face_split").mkdir(exist_ok=True)
    (folder / f"wider_face_split/wider_face_{split}_bbx_gt.txt").write_text("\n".join(kept) + "\n")


def test_your_own_runs(tmp_path: Path) -> None:
    """As it stands: what is written there learns."""
    python, (net, *shell) = _your_own()
    _run(["bash", "-euo", "pipefail", "-c", net], tmp_path)
    said = _run([sys.executable, "-c", "\n".join(python)], tmp_path)
    assert "402\n400\nreadings.txt:402: '400.jpg;80;60;97', wanted name;cx;cy;tipx;tipy (annotation)" in said
    off = re.search(r"off by ([0-9.]+) degrees", said)
    assert off is not None and float(off[1]) < 25  # 7.3, and 90 by chance
    accuracy = re.search(r"accuracy ([0-9.]+) \([0-9]+ of 100\)", said)
    assert accuracy is not None and float(accuracy[1]) > 0.75  # 0.94, and 0.5 by chance
    _run(["bash", "-euo", "pipefail", "-c", "\n".join(shell)], tmp_path)
    assert (tmp_path / "shell-run" / "model.keras").exists()


def test_your_own_is_typed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """mypy takes its classes for a Source, a Target and an Augmentation, as strictly as it looks at ours."""
    python, _ = _your_own()
    typed = [*takewhile(lambda code: "import keras" not in code, python)]
    page = tmp_path / "page.py"
    page.write_text("\n".join(typed))
    assert request.config.cache is not None
    cache = request.config.cache.mkdir("mypy")
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache)]
    for name in ("source: hr.Source", "target: hr.Target", "change: hr.Augmentation"):
        assert name in page.read_text()
    _run([sys.executable, "-m", "mypy", *options, str(page)], tmp_path, {"MYPYPATH": str(ROOT / "src")})


def _your_own() -> tuple[list[str], list[str]]:
    """The Python and the shell blocks of the page."""
    blocks = BLOCK.findall((ROOT / "docs/tutorials/your-own.md").read_text())
    return [code for kind, code in blocks if kind == "python"], [code for kind, code in blocks if kind == "bash"]


def test_pytorch_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    blocks = [
        code for kind, code in BLOCK.findall((ROOT / "docs/tutorials/pytorch.md").read_text()) if kind == "python"
    ]
    assert len(blocks) == 5 and "torchdata" in blocks[-1]
    if importlib.util.find_spec("torchdata") is None:
        del blocks[-1]
    said = _run([sys.executable, "-c", "\n".join(blocks)], tmp_path)
    assert [line for line in said.splitlines() if line[0].isdigit() or line.startswith("torch.Size")] == [
        "torch.Size([32, 3, 96, 96]) torch.float32 torch.int64",
        "4 batches are left of 6",
        *["3 batches are left"][: len(blocks) - 4],
    ]


def test_transforms_run(tmp_path: Path) -> None:
    """As it stands, but for what is about a library that is not installed."""
    blocks = BLOCK.findall((ROOT / "docs/tutorials/transforms.md").read_text())
    python = [code for kind, code in blocks if kind == "python"]
    theirs = [code for code in python if "hr.augment." in code]
    assert len(theirs) == 2
    ours = "\n".join(code for code in python if code not in theirs)
    said = _run([sys.executable, "-c", ours], tmp_path)
    assert "augment: <lambda>: record '" in said and "gave back pixels float64 [64, 64, 3]" in said
    _run(["bash", "-euo", "pipefail", "-c", "\n".join(code for kind, code in blocks if kind == "bash")], tmp_path)
    for name in ("shifted.png", "batch.png", "mosaic.png"):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.parametrize("library", ["torchvision", "albumentations"])
def test_transforms_of_others_run(tmp_path: Path, library: str) -> None:
    made = {"torchvision": torchvision_v2, "albumentations": albumentations}[library]
    made()  # or a skip
    blocks = [
        code for kind, code in BLOCK.findall((ROOT / "docs/tutorials/transforms.md").read_text()) if kind == "python"
    ]
    (theirs,) = (code for code in blocks if f"hr.augment.{library}(" in code)
    before = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import vision; vision.{made.__name__}()\n"
    assert "(16, 128, 128, 3)" in _run([sys.executable, "-c", before + blocks[0] + theirs], tmp_path)


def test_pages_name_what_exists() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def _draw_photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shape in (("cat", "circle"), ("dog", "square")):
        (folder / "train").mkdir(parents=True, exist_ok=True)
        for i in range(24):
            (folder / "train" / f"{name}.{i}.jpg").write_bytes(encode_jpeg(draw(shape, rng)))
    (folder / "test").mkdir()
    for i in range(4):
        (folder / "test" / f"{i}.jpg").write_bytes(encode_jpeg(draw("circle", rng)))


def _run(command: list[str], folder: Path, also: Mapping[str, str] | None = None) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path} | dict(also or {})
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=1000
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_export_model_runs(tmp_path: Path) -> None:
    """Shell and Python in their order; the second half of the Python is what a consumer does, in one session."""
    for library in ("onnxruntime", "onnxscript", "torch"):
        pytest.importorskip(library)
    blocks = BLOCK.findall((ROOT / "docs/tutorials/export-model.md").read_text())
    assert [kind for kind, _ in blocks] == ["python", "bash", "python", "python"]
    (_, made), (_, shell), *asked = blocks
    _run([sys.executable, "-c", made], tmp_path)
    said = _run(["bash", "-euo", "pipefail", "-c", shell], tmp_path)
    assert said.count("off Keras by") == 3
    assert "'disc': " in _run([sys.executable, "-c", "\n".join(code for _, code in asked)], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"discs", "run", "discs.onnx", "discs.pt", "discs-saved"}
