"""Peers write and ours reads, record by record: tars of WebDataset, Parquet of Hugging Face's datasets, TFDS's own."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import image, jpeg, saved
from headrace.record import Record
from headrace.sources import parquet, tfds, webdataset
from headrace.sources.info import SourceInfo, collect

CLASSES = ["cat", "dog", "cow"]


def records(source: Any) -> tuple[list[Record], SourceInfo]:
    items, info = collect(source)
    assert all(isinstance(item, Record) for item in items), items
    return items, info  # type: ignore[return-value]


def photo(i: int) -> bytes:
    """Small JPEGs, some large PNGs, and a WebP."""
    if i % 7 == 3:
        return saved(image(200, 300, seed=i), "PNG")
    return saved(image(seed=i), "WEBP", lossless=True) if i % 7 == 5 else jpeg(seed=i)


# --- WebDataset ------------------------------------------------------------------------------------------------------


def samples(n: int) -> list[dict[str, Any]]:
    extension = {3: "png", 5: "webp"}
    return [
        {
            "__key__": f"part.1/{i:05d}" if i % 2 else f"{'d' * 120}/{i:05d}",
            extension.get(i % 7, "jpg"): photo(i),
            "cls": i % 3,
            "txt": f"caption {i}, é",
            "json": {
                "objects": {"bbox": [[i, 1, 2.5, 3]] * (i % 3), "category": [CLASSES[i % 3]] * (i % 3)},
                "url": str(i),
            },
        }
        for i in range(n)
    ]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # its own
@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_shards_of_webdataset(kind: str, tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    made = samples(40)
    with wds.ShardWriter(str(tmp_path / f"train-%06d.{kind}"), maxcount=15, verbose=0) as out:
        for sample in made[:30]:
            out.write(sample)
    with wds.TarWriter(str(tmp_path / f"val.{kind}")) as out:
        for sample in made[30:]:
            out.write(sample)
    ours, info = records(webdataset(tmp_path))
    assert info.split_names == ("train", "val") and len(ours) == 40
    urls = [str(tmp_path / name) for name in (f"train-000000.{kind}", f"train-000001.{kind}", f"val.{kind}")]
    theirs = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [len(theirs)] == [40]
    for sample, record in zip(theirs, ours, strict=True):
        extension = next(name for name in ("jpg", "png", "webp") if name in sample)
        assert record.id == f"{sample['__key__']}.{extension}"
        assert record.read() == sample[extension]
        assert record.label == int(sample["cls"])
        assert record.captions == (sample["txt"].decode(),)
        assert record.split == ("train" if Path(sample["__url__"]).name.startswith("train") else "val")
    for sample, record in zip(made, ours, strict=True):
        boxes = [[x, y, x + w, y + h] for x, y, w, h in sample["json"]["objects"]["bbox"]]
        assert record.boxes is not None and record.boxes.tolist() == boxes
        assert record.box_labels == tuple(sample["json"]["objects"]["category"])
        assert record.attributes == {"url": sample["json"]["url"]}


def test_keys_are_those_of_webdataset(tmp_path: Path) -> None:
    """What a key is and what an extension, of names of every kind but hidden ones, which ours passes over."""
    wds = pytest.importorskip("webdataset")
    from headrace.sources.webdataset import _named

    names = [
        "a.jpg",
        "a.b.jpg",
        "d.e/a.jpg",
        "d.e/a.b.c",
        "./a.jpg",
        "/a/b.jpg",
        "a",
        "d.e/a",
        "a.",
        "é.jpg",
    ]
    for name in names:
        key, extension = wds.tariterators.base_plus_ext(name)
        assert _named(name, Counter()) == (None if key is None else (key, extension)), name


# --- Hugging Face ----------------------------------------------------------------------------------------------------


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, with nothing in its cache and nobody asked over the network."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets")


def test_parquet_of_datasets(datasets: Any, tmp_path: Path) -> None:
    """Shards as push_to_hub names them, read back by both."""
    hf = datasets
    features = hf.Features(
        {
            "image": hf.Image(),
            "label": hf.ClassLabel(names=CLASSES),
            "tags": hf.Sequence(hf.ClassLabel(names=["a", "b"])),
            "caption": hf.Value("string"),
            "score": hf.Value("float32"),
            "objects": {
                "bbox": hf.Sequence(hf.Sequence(hf.Value("float32"), length=4)),
                "category": hf.Sequence(hf.ClassLabel(names=["x", "y"])),
                "difficult": hf.Sequence(hf.Value("bool")),
            },
        }
    )
    n = {"train": 30, "validation": 11}
    (tmp_path / "set" / "data").mkdir(parents=True)
    for split, rows in n.items():
        first = 0 if split == "train" else 100
        made = hf.Dataset.from_dict(
            {
                "image": [{"bytes": photo(i), "path": f"{i}.img"} for i in range(first, first + rows)],
                "label": [-1 if i == 3 else i % 3 for i in range(rows)],
                "tags": [[0, 1][: i % 3] for i in range(rows)],
                "caption": [f"caption {i}, é" if i % 4 else None for i in range(rows)],
                "score": [i / 4 for i in range(rows)],
                "objects": [
                    {"bbox": [[i, 1, 2.5, 3]] * (i % 3), "category": [1] * (i % 3), "difficult": [True] * (i % 3)}
                    for i in range(rows)
                ],
            },
            features=features,
        )
        for index in range(2):
            shard = made.shard(2, index, contiguous=True)
            shard.to_parquet(str(tmp_path / "set" / "data" / f"{split}-{index:05d}-of-00002.parquet"), batch_size=4)
    ours, info = records(parquet(tmp_path / "set"))
    assert info.class_names == tuple(CLASSES) and info.box_class_names == ("x", "y")
    assert info.split_names == ("train", "val") and len(ours) == sum(n.values())
    theirs = hf.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache")).cast_column(
        "image", hf.Image(decode=False)
    )
    rows_ = [(split, row) for split in theirs for row in theirs[split]]
    for (split, row), record in zip(rows_, ours, strict=True):
        assert record.split == {"train": "train", "validation": "val"}[split]
        assert record.read() == row["image"]["bytes"] and record.id == row["image"]["path"]
        assert record.label_name == (None if row["label"] == -1 else CLASSES[row["label"]])
        assert record.captions == (None if row["caption"] is None else (row["caption"],))
        assert record.boxes is not None
        assert record.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h in row["objects"]["bbox"]]
        assert record.box_labels == tuple("xy"[number] for number in row["objects"]["category"])
        assert record.attributes["difficult"] == [int(one) for one in row["objects"]["difficult"]]
        assert record.attributes["score"] == row["score"] and record.attributes["tags"] == row["tags"]


def test_a_column_cast_to_images(datasets: Any, tmp_path: Path) -> None:
    """Paths of files, whose bytes are taken along as push_to_hub does it."""
    paths = []
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(seed=i))
        paths.append(str(tmp_path / f"{i}.jpg"))
    made = datasets.Dataset.from_dict({"image": paths, "label": [0.5 * i for i in range(5)]})
    made = made.cast_column("image", datasets.Image())
    embedded = made.with_format("arrow").map(datasets.table.embed_table_storage)
    embedded.to_parquet(str(tmp_path / "x.parquet"))
    ours, _ = records(parquet(tmp_path / "x.parquet"))
    assert [(record.id, record.read(), record.value) for record in ours] == [
        (f"{i}.jpg", jpeg(seed=i), 0.5 * i) for i in range(5)
    ]


# --- TFDS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(the builder, and the folder that it wrote)."""
    pytest.importorskip("tensorflow")
    theirs = pytest.importorskip("tensorflow_datasets")
    f = theirs.features

    class Shapes(theirs.core.GeneratorBasedBuilder):  # type: ignore[misc, name-defined]
        VERSION = theirs.core.Version("1.0.0")

        def _info(self) -> Any:
            objects = {
                "bbox": f.BBoxFeature(),
                "label": f.ClassLabel(names=["x", "y", "z"]),
                "is_crowd": np.bool_,
                "area": np.int64,
            }
            return theirs.core.DatasetInfo(
                builder=self,
                features=f.FeaturesDict(
                    {
                        "image": f.Image(),
                        "image/filename": f.Text(),
                        "label": f.ClassLabel(names=CLASSES),
                        "mask": f.Image(shape=(None, None, 1)),
                        "depth": np.float32,
                        "tags": f.Sequence(f.ClassLabel(names=["a", "b"])),
                        "vector": f.Tensor(shape=(2, 3), dtype=np.int64),
                        "objects": f.Sequence(objects),
                    }
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            return {"train": self._generate_examples(0, 30), "validation": self._generate_examples(100, 9)}

        def _generate_examples(self, first: int, n: int) -> Any:
            for i in range(first, first + n):
                data = jpeg(seed=i) if i % 3 else saved(image(200, 300, seed=i), "PNG")
                yield (
                    i,
                    {
                        "image": io.BytesIO(data),
                        "image/filename": f"{i}.jpg",
                        "label": i % 3 if i % 5 else -1,
                        "mask": np.zeros((4, 4, 1), np.uint8),
                        "depth": i / 2,
                        "tags": [0, 1][: i % 3],
                        "vector": np.arange(6).reshape(2, 3) + i,
                        "objects": [
                            {
                                "bbox": theirs.features.BBox(ymin=0.1 * k, xmin=0.25, ymax=0.5, xmax=1.0),
                                "label": k % 3,
                                "is_crowd": bool(k % 2),
                                "area": k,
                            }
                            for k in range(i % 4)
                        ],
                    },
                )

    made = Shapes(data_dir=str(tmp_path_factory.mktemp("tfds")))
    made.download_and_prepare(download_config=theirs.download.DownloadConfig(num_shards=3))
    return theirs, made, Path(made.data_dir)


def test_a_builder_of_tfds(shapes: Any) -> None:
    theirs, made, folder = shapes
    ours, info = records(tfds(folder))
    assert info.class_names == tuple(CLASSES) and info.box_class_names == ("x", "y", "z")
    assert info.skipped == {"feature mask (Image)": 39}
    found = {record.id: record for record in ours}
    assert len(found) == len(ours) == 39
    decoders = {"image": theirs.decode.SkipDecoding()}
    for split in ("train", "validation"):
        for row in theirs.as_numpy(made.as_dataset(split=split, decoders=decoders)):
            record = found.pop(row["image/filename"].decode())
            assert record.split == {"train": "train", "validation": "val"}[split]
            assert record.part is not None and record.read() == row["image"]
            assert record.label_name == (None if row["label"] == -1 else CLASSES[row["label"]])
            boxes = row["objects"]["bbox"]
            height, width = record.size or (0, 0)
            assert record.boxes is not None and record.boxes.shape == boxes.shape
            assert np.allclose(record.boxes, boxes[:, [1, 0, 3, 2]] * [width, height, width, height], atol=1e-4)
            assert record.box_labels == tuple("xyz"[number] for number in row["objects"]["label"])
            assert record.attributes == {
                "is_crowd": row["objects"]["is_crowd"].astype(int).tolist(),
                "area": row["objects"]["area"].tolist(),
                "depth": row["depth"],
                "tags": ["ab"[number] for number in row["tags"]],
                "vector": row["vector"].tolist(),
            }
    assert not found


def test_our_own_datasets_are_of_tfds_too(tmp_path: Path) -> None:
    """What packing writes for TFDS says the same to this source, once it is no dataset of ours any more."""
    made = [
        hr.Record(
            id=f"{i}.jpg",
            encoded=jpeg(40, 56, seed=i),
            label_name=CLASSES[i % 3],
            boxes=np.array([[1, 2, 30, 20]] * (i % 3), np.float32).reshape(-1, 4),
            box_labels=("x",) * (i % 3),
        )
        for i in range(9)
    ]
    hr.pack(made, tmp_path / "ds", splits={"train": 0.5, "val": 0.5})
    (tmp_path / "ds" / "headrace.json").unlink()
    ours, _ = records(tfds(tmp_path / "ds"))
    assert {record.id: record.label_name for record in ours} == {record.id: record.label_name for record in made}
    for record in ours:
        i = int(record.id.partition(".")[0])
        assert record.read() == made[i].encoded and record.box_labels == made[i].box_labels
        assert record.boxes is not None and np.allclose(record.boxes, made[i].boxes, atol=1e-4)
