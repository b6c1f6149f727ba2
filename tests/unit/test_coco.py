"""COCO files become records: what a file says, and what is made of one that is not as it should be."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_arrays

import headrace as hr
from command import headrace
from drawn import exif, files, jpeg
from headrace import sources
from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.imaging.masks import encode_runs
from headrace.record import Record, Reject, check_record
from headrace.sources import jsons, segmentations
from headrace.sources.coco import FORMAT, _Elements, _read, recognise
from headrace.sources.info import SourceInfo, collect
from headrace.sources.registry import guess
from mutated import mutated
from packed import Keep

PERSON = {"id": 1, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2]]}
CAR = {"id": 4, "name": "car"}
SIZE = {"width": 40, "height": 30}


def image(id_: Any, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": id_, "file_name": name or f"{id_}.jpg", **SIZE, **more}


def thing(id_: Any, image_id: Any, category_id: Any = 4, bbox: Any = (2, 3, 10, 8), **more: Any) -> dict[str, Any]:
    made = {"id": id_, "image_id": image_id, "category_id": category_id, "bbox": bbox, "area": 5.5, "iscrowd": 0}
    return made | more


def person(id_: Any, image_id: Any, points: Any = (5, 6, 2, 0, 0, 0, 7, 8, 1), **more: Any) -> dict[str, Any]:
    return thing(id_, image_id, 1, keypoints=points, num_keypoints=2) | more


def source(folder: Path, said: Any, **options: Any) -> Any:
    """The source of `said` (or of its text), beside files for the images 7, 8 and 9, into which it doesn't look."""
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    files(folder / "images", {f"{i}.jpg": b"" for i in (7, 8, 9)})
    files(folder, {"x.json": data})
    return sources.coco(folder / "x.json", images=folder / "images", **options)


def coco(*annotations: Any, images: Any = None, categories: Any = (PERSON, CAR), **more: Any) -> dict[str, Any]:
    images = [image(7), image(8), image(9)] if images is None else images
    return {"images": images, "categories": categories, "annotations": annotations} | more


def gist(items: Any) -> list[str]:
    """Of a Record its id and number of boxes, of a Reject its id and where in the file."""
    return [
        f"{item.id} {'-' if item.boxes is None else len(item.boxes)}"
        if isinstance(item, Record)
        else f"{item.id} :{item.origin.rpartition(':')[2]}"
        for item in items
    ]


def test_a_record(tmp_path: Path) -> None:
    made = source(tmp_path, coco(person(11, 7, area=9), thing(12, 7, bbox=[0.5, 1, 4, 2.25], iscrowd=1), thing(13, 8)))
    first, second, third = made
    assert (first.id, first.origin, first.size) == ("7.jpg", "x.json:images[0]", (30, 40))
    assert first.path == str(tmp_path / "images" / "7.jpg")
    assert (first.label, first.label_name, first.encoded) == (None, None, None)
    assert first.boxes.dtype == first.keypoints.dtype == np.float32
    assert first.boxes.tolist() == [[2, 3, 12, 11], [0.5, 1, 4.5, 3.25]]
    assert first.box_labels == ("person", "car")
    # an object without keypoints has them all absent
    assert first.keypoints.tolist() == [[[5, 6, 2], [0, 0, 0], [7, 8, 1]], [[0, 0, 0]] * 3]
    assert first.attributes == {"image_id": 7, "annotation_id": [11, 12], "area": [9, 5.5], "is_crowd": [0, 1]}
    assert second.boxes.tolist() == [[2, 3, 12, 11]] and second.keypoints.shape == (1, 3, 3)
    # an image without annotations is a negative
    assert (third.id, third.boxes.shape, third.keypoints.shape, third.box_labels) == ("9.jpg", (0, 4), (0, 3, 3), ())
    assert collect(made)[1] == SourceInfo(
        box_class_names=("person", "car"), keypoint_names=tuple(PERSON["keypoints"]), root=str(made.root)
    )


def test_any_order_of_lists_and_annotations(tmp_path: Path) -> None:
    some = [person(1, 7), thing(2, 8), thing(3, 7), person(4, 9), thing(5, 9), thing(6, 7)]
    wanted = None
    for seed in range(6):
        said = list(coco(*some, info={"year": 2017}, licenses=[{"id": 1}]).items())
        random.Random(seed).shuffle(said)
        records = list(source(tmp_path, dict(said)))
        found = [(r.id, r.boxes.tolist(), r.keypoints.tolist(), r.attributes) for r in records]
        assert wanted in (None, found)
        wanted = found
    assert [r[3]["annotation_id"] for r in wanted or []] == [[1, 3, 6], [2], [4, 5]]


def test_classes_are_in_the_order_of_category_ids(tmp_path: Path) -> None:
    """With gaps between them; two of one name are one class."""
    names = {90: "b", 2: "zebra", 13: "a", 7: "zebra", 10: "nobody"}
    said = coco(*(thing(i, 7, c) for i, c in enumerate(names)), categories=[{"id": i, "name": names[i]} for i in names])
    made = source(tmp_path, said)
    assert [r.box_labels for r in made] == [("b", "zebra", "a", "zebra", "nobody"), (), ()]
    assert collect(made)[1].box_class_names == ("zebra", "nobody", "a", "b")
    files(tmp_path / "images", {f"{i}.jpg": jpeg(30, 40) for i in (7, 8, 9)})
    hr.pack(made, tmp_path / "ds", progress=False)
    ds = hr.Dataset(tmp_path / "ds")
    assert ds.box_class_names == ("zebra", "nobody", "a", "b") and ds.keypoints == 0
    assert ds.catalog.filter(ds.catalog["id"] == "7.jpg")["box_labels"].to_list() == [[3, 0, 2, 0, 1]]


# what a file says -> (records and rejects, what was dropped)
QUIRKS: dict[str, tuple[dict[str, Any], list[str], dict[str, int]]] = {
    "no width or height": (
        coco(thing(1, 7, bbox=[1, 1, 0, 5]), thing(2, 7, bbox=[1, 1, 5, -1]), thing(3, 7)),
        ["7.jpg 1", "8.jpg 0", "9.jpg 0"],
        {"without width or height": 2},
    ),
    "the same annotation twice": (
        coco(thing(1, 7), thing(2, 7), thing(1, 7), thing(1, 7, area=1)),
        ["7.jpg 2", "8.jpg 0", "9.jpg 0"],
        {"said twice": 2},
    ),
    # ids that are not unique, but of other objects
    "an annotation id twice": (
        coco(thing(1, 7), thing(1, 8), thing(1, 7, 1), thing(1, 7, bbox=[2, 3, 10, 9])),
        ["7.jpg 3", "8.jpg 1", "9.jpg 0"],
        {},
    ),
    "annotations without an id": (
        coco(*[{k: v for k, v in thing(0, 7).items() if k != "id"}] * 2),
        ["7.jpg 2", "8.jpg 0", "9.jpg 0"],
        {},
    ),
    "no iscrowd, no area": (
        coco({"id": 1, "image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4]}),
        ["7.jpg 1", "8.jpg 0", "9.jpg 0"],
        {},
    ),
    "an image id twice, the same file": (
        coco(thing(1, 7), images=[image(7), image(8), image(7)]),
        ["7.jpg 1", "8.jpg 0", "7.jpg :images[2]"],
        {},
    ),
    # whose are the annotations?
    "an image id twice, two files": (
        coco(thing(1, 7), images=[image(7), image(8), image(7, "9.jpg")]),
        ["7.jpg :images[0]", "8.jpg 0", "9.jpg :images[2]"],
        {},
    ),
    "ids as text": (
        coco(thing(1, "7"), thing(2, 8.0, "4"), thing("x", 9), images=[image(7), image("8"), image(9)]),
        ["7.jpg 1", "8.jpg 1", "9.jpg 1"],
        {},
    ),
    "an annotation of no image": (
        coco(thing(1, 99), thing(2, 7), thing(3, None), 5, thing(4, 98, bbox=[])),
        [
            "7.jpg 1",
            "8.jpg 0",
            "9.jpg 0",
            *(f"annotation {i} :annotations[{i}]" for i in (0, 2, 3, 4)),
        ],
        {},
    ),
    "images that are none": (
        coco(thing(1, 7), images=[image(7), 5, {"file_name": "8.jpg"}, {"id": 3}, image(True), image(9)]),
        ["7.jpg 1", *(f"image {i} :images[{i}]" for i in (1, 2, 3, 4)), "9.jpg 0"],
        {},
    ),
    # as LVIS names its images; nothing is fetched
    "only a URL": (
        coco(thing(1, 7), images=[{"id": 7, "coco_url": "http://images.cocodataset.org/train2017/7.jpg"}]),
        ["7.jpg 1"],
        {},
    ),
    "no annotations, and none named": ({"images": [image(7)], "categories": [CAR]}, ["7.jpg -"], {}),
    "empty lists": (coco(), ["7.jpg 0", "8.jpg 0", "9.jpg 0"], {}),
    "no images": (coco(images=[]), [], {}),
}


@pytest.mark.parametrize("name", QUIRKS)
def test_quirks(tmp_path: Path, name: str) -> None:
    said, wanted, dropped = QUIRKS[name]
    made = source(tmp_path, said)
    for _ in range(2):  # counted anew each time
        items, info = collect(made)
        assert gist(items) == wanted
        assert info.boxes_dropped == dropped


# an annotation, and why its image is a Reject
BAD: dict[str, tuple[Any, str]] = {
    "unknown category": (thing(1, 7, 99), "category 99 is not among the categories (image 7)"),
    "no category": (thing(1, 7, None), "category_id is None, wanted a number (image 7)"),
    "no box": (thing(1, 7, bbox=None), "bbox is None, wanted numbers: x, y, width and height (image 7)"),
    "a short box": (thing(1, 7, bbox=[1, 2, 3]), "bbox is [1, 2, 3], wanted numbers: x, y, width and height"),
    "a long box": (thing(1, 7, bbox=[1, 2, 3, 4, 5]), "bbox is [1, 2, 3, 4, 5], wanted"),
    "numbers as text": (thing(1, 7, bbox=["1", "2", "3", "4"]), "bbox is ['1', '2', '3', '4'], wanted numbers"),
    "NaN": (thing(1, 7, bbox=[1, float("nan"), 3, 4]), "bbox is [1, nan, 3, 4], wanted numbers"),
    "infinity": (thing(1, 7, bbox=[1, 2, float("inf"), 4]), "bbox is [1, 2, inf, 4], wanted numbers"),
    "a number beyond floats": (thing(1, 7, bbox=[1, 2, 10**400, 4]), "bbox is [1, 2, 1000"),
    "yes and no": (thing(1, 7, bbox=[1, 2, True, 4]), "bbox is [1, 2, True, 4], wanted numbers"),
    "a box that is none": (thing(1, 7, bbox={"x": 1}), "bbox is {'x': 1}, wanted numbers"),
    "crowd": (thing(1, 7, iscrowd="no"), "iscrowd is 'no', wanted 0 or 1"),
    "too few keypoints": (person(1, 7, [1, 2, 2]), "keypoints holds 3 numbers, wanted 3 for each of 3 points"),
    "two thirds of a keypoint": (person(1, 7, [1, 2]), "keypoints are [1, 2], wanted x, y and v (0 to 2) of each"),
    "keypoints as text": (person(1, 7, ["1"] * 9), "keypoints is ['1', "),
    "keypoints with NaN": (person(1, 7, [float("nan"), 1, 2] * 3), "keypoints is [nan, 1, 2, nan"),
    "visibility above": (person(1, 7, [1, 2, 3] * 3), "keypoints are [1, 2, 3, 1, "),
    "visibility below": (person(1, 7, [1, 2, -1] * 3), "keypoints are [1, 2, -1, 1, "),
}


@pytest.mark.parametrize("name", BAD)
def test_an_annotation_that_can_not_be_used(tmp_path: Path, name: str) -> None:
    """Its image would lie without it; nothing else is lost."""
    bad, says = BAD[name]
    first, second, third = source(tmp_path, coco(thing(5, 8), thing(6, 7), bad))
    assert isinstance(first, Reject) and gist([second, third]) == ["8.jpg 1", "9.jpg 0"]
    assert (first.id, first.origin, first.stage) == ("7.jpg", "x.json:annotations[2]", "annotation")
    assert first.reason.startswith(says)


def test_a_box_of_points(tmp_path: Path) -> None:
    """Of those that are labelled; an object of one point, or of none, has a box without width or height."""
    bare = [{"bbox": None}, {"bbox": None}, {}, {"bbox": None}]
    points = [(5, 6, 2, 0, 0, 0, 7, 9, 1), (1, 1, 2, 0, 0, 0, 0, 0, 0), (1, 2, 2, 3, 4, 2, 5, 6, 2), (0,) * 9]
    some = [person(i, 7, of, **more) for i, (of, more) in enumerate(zip(points, bare, strict=True))]
    del some[2]["bbox"]
    items, info = collect(source(tmp_path, coco(*some, thing(9, 8))))
    assert isinstance(items[0], Record) and items[0].boxes is not None and items[0].keypoints is not None
    assert items[0].boxes.tolist() == [[5, 6, 7, 9], [1, 2, 5, 6]] and len(items[0].keypoints) == 2
    assert info.boxes_dropped == {"without width or height": 2}
    assert info.notes == ("4 objects have no bbox: their box is the extent of their keypoints",)
    assert collect(source(tmp_path, coco(thing(9, 8))))[1].notes == ()


def test_a_box_that_is_none_in_float32(tmp_path: Path) -> None:
    items, info = collect(source(tmp_path, coco(thing(1, 7, bbox=[500.3, 1, 1e-6, 4]), thing(2, 7))))
    assert gist(items)[0] == "7.jpg 1" and info.boxes_dropped == {"without width or height": 1}


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"id": 1, "image_id": 7, "segments_info": [], "file_name": "7.png"}, "panoptic segments"),
        ({"id": 1, "image_id": 7, "category_id": 4}, "labels of whole images"),
    ],
)
def test_annotations_of_another_kind(entry: Any, kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"x\.json: COCO's {kind}, with no boxes in it; pass the file of instances"):
        list(source(tmp_path, coco(entry, entry)))
    # One among objects is a fault of its own.
    assert gist(source(tmp_path, coco(entry, thing(2, 8)))) == ["7.jpg :annotations[0]", "8.jpg 1", "9.jpg 0"]


def test_captions(tmp_path: Path) -> None:
    """Of a file that has nothing else, nothing is said of boxes; beside objects, both come."""
    texts = ["A cat.", "Zwei Mädchen\nim Regen", "", "A cat."]
    some = [
        {"id": i, "image_id": of, "caption": text} for i, (of, text) in enumerate(zip((7, 8, 7, 7), texts, strict=True))
    ]
    alone = coco(*some, {"id": 9, "image_id": 5, "caption": "nobody"}, info={"year": 2017})
    del alone["categories"]
    (first, second, third, stray), info = collect(source(tmp_path, alone))
    assert (first.captions, second.captions, third.captions) == (("A cat.", "", "A cat."), (texts[1],), ())
    assert first.boxes is None and first.masks is None and info.box_class_names == ()
    assert stray.origin == "x.json:annotations[4]" and stray.reason == "image 5 is not among the images"
    (first, second, third), _ = collect(source(tmp_path, coco(thing(1, 7), *some)))
    assert (first.captions, len(first.boxes), second.captions, len(second.boxes)) == (
        ("A cat.", "", "A cat."),
        1,
        (texts[1],),
        0,
    )
    assert next(iter(source(tmp_path, coco(thing(1, 7))))).captions is None
    for bad in (5, None, "half \ud800"):
        items = source(tmp_path, coco(thing(1, 7), {"image_id": 8, "caption": bad}, *some[:1]))
        assert gist(items) == ["7.jpg 1", "8.jpg :annotations[1]", "9.jpg 0"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x.json", "the name leads out of the folder of images"),
        ("/etc/hostname", "the name leads out of the folder of images"),
        ("a/../../x.json", "the name leads out of the folder of images"),
        ("none.jpg", "no such file or directory: "),
        ("link.jpg", "a link leads out of the folder of images: "),
        ("folder", "not a regular file: "),
        ("a\nb.jpg", "the name holds control characters"),
        ("a\ud800.jpg", "the name holds halves of characters"),
    ],
)
def test_names_that_can_not_be_used(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "images" / "folder").mkdir(parents=True)
    (tmp_path / "images" / "link.jpg").symlink_to(tmp_path / "x.json")
    first, second = source(tmp_path, coco(images=[image(1, name), image(7)]))
    assert isinstance(first, Reject) and gist([second]) == ["7.jpg 0"]
    assert first.origin == "x.json:images[0]" and first.reason.startswith(reason)
    assert first.reason.endswith("(image 1)") == (first.stage == "read")
    first.reason.encode(), first.id.encode()


def test_fractions_of_visibility(tmp_path: Path) -> None:
    """What is labelled stays labelled: up to 1 hidden, above visible; the numbers are kept where they say more."""
    points = [1, 1, 0, 2, 2, 0.001, 3, 3, 1.5]
    said = coco(person(1, 7, points), thing(2, 7), person(3, 8, [1, 1, 2.0, 2, 2, 1, 3, 3, 0]), person(4, 9, [9] * 9))
    said["annotations"] = said["annotations"][:3]
    first, second, _ = source(tmp_path, said)
    assert first.keypoints[..., 2].tolist() == [[0, 1, 2], [0, 0, 0]]
    assert first.keypoints[0, :, :2].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert first.attributes["visibility"] == [[0, 0.001, 1.5], [0, 0, 0]]
    assert second.keypoints[..., 2].tolist() == [[2, 1, 0]] and "visibility" not in second.attributes


RLE = {"size": [30, 40], "counts": [3, 2, 1194, 1]}

# a segmentation -> the mask's polygons or its runs, None for none; why it is none
SEGMENTATIONS: dict[str, tuple[Any, Any, str | None]] = {
    "a polygon": ([[2, 3, 12, 3, 12, 11.5]], [[[2, 3], [12, 3], [12, 11.5]]], None),
    "two": (
        [[0, 0, 1, 0, 0, 1], [5, 5, 6, 5, 6, 6, 5, 6]],
        [[[0, 0], [1, 0], [0, 1]], [[5, 5], [6, 5], [6, 6], [5, 6]]],
        None,
    ),
    # as some tools write it, though COCO has a list of lists
    "one without brackets of its own": ([2, 3, 12, 3, 12, 11], [[[2, 3], [12, 3], [12, 11]]], None),
    "run lengths": (RLE, RLE["counts"], None),
    # pycocotools' text of the same runs
    "run lengths as a text": ({"size": [30, 40], "counts": "32ZU1O"}, RLE["counts"], None),
    "nothing": ([], None, None),
    "no polygons": ([[]], None, "fewer than three corners"),
    "a line": ([[1, 2, 3, 4]], None, "fewer than three corners"),
    "a line beside a polygon": ([[1, 2, 3, 4], [2, 3, 12, 3, 12, 11]], [[[2, 3], [12, 3], [12, 11]]], None),
    "half a corner": ([[1, 2, 3, 4, 5, 6, 7]], None, "a polygon of it is no list of x, y of each corner"),
    "numbers as text": ([["1", "2", "3", "4", "5", "6"]], None, "a polygon of it holds what is no number"),
    "NaN": ([[1, 2, 3, 4, 5, float("nan")]], None, "a polygon of it holds numbers that are not finite"),
    "beyond floats": ([[1, 2, 3, 4, 5, 10**400]], None, "a polygon of it holds numbers beyond all images"),
    "beyond float32": ([[1, 2, 3, 4, 5, 1e39]], None, "a polygon of it holds numbers that are not finite"),
    "a text": ("polygon", None, "wanted polygons or run lengths"),
    "runs that end too early": ({"size": [30, 40], "counts": [3, 2]}, None, "its runs sum to 5, wanted 30 x 40 pixels"),
    "runs of a negative length": (
        {"size": [30, 40], "counts": [1201, -1]},
        None,
        "its counts are [1201, -1], wanted whole",
    ),
    "runs of another image": (
        {"size": [40, 30], "counts": [1200]},
        None,
        "it is for 30 x 40 pixels, the image has 40 x 30",
    ),
    "runs of no size": ({"counts": [1200]}, None, "its size is None, wanted [height, width] in pixels"),
    "an image of no pixels": ({"size": [0, 40], "counts": []}, None, "its size is 0 x 40, wanted height and width"),
    "a size beyond memory": ({"size": [1 << 40, 1 << 40], "counts": [1 << 40]}, None, "its size is 1099511627776 x"),
    "a sum that comes around": ({"size": [30, 40], "counts": "0" + "PPPPPPPP0" * 4}, None, "its runs"),
    "a text cut short": ({"size": [30, 40], "counts": "32ZU"}, None, "counts is no text of run lengths, or it was cut"),
    "letters that no runs have": ({"size": [30, 40], "counts": "32 ä"}, None, "counts holds characters that no run"),
    "a number without an end": ({"size": [30, 40], "counts": "o" * 400 + "0"}, None, "counts holds a number beyond"),
}


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_segmentations(tmp_path: Path, name: str) -> None:
    """The box is kept whatever its mask is; a mask that is none is None, counted, and the first of them named."""
    said, wanted, why = SEGMENTATIONS[name]
    (first, second, third), info = collect(
        source(tmp_path, coco(thing(1, 7, segmentation=said), thing(2, 8, segmentation=RLE)))
    )
    assert len(first.boxes) == len(first.masks) == 1 and "segmentation" not in first.attributes
    assert second.masks[0].runs.tolist() == RLE["counts"] and second.masks[0].size == (30, 40) and third.masks == ()
    mask = first.masks[0]
    if wanted is None:
        assert mask is None
    elif isinstance(wanted[0], list):
        assert [polygon.tolist() for polygon in mask.polygons] == wanted and mask.runs is None
        assert all(polygon.dtype == np.float32 for polygon in mask.polygons)
    else:
        assert mask.runs.tolist() == wanted and mask.runs.dtype == np.int64 and mask.size == (30, 40)
    assert check_record(first) is None
    few = why == "fewer than three corners"
    assert info.skipped == (
        {} if why is None else {f"segmentations {'of fewer than three corners' if few else 'that are none'}": 1}
    )
    assert len(info.notes) == (why is not None and not few)
    for note in info.notes:
        assert note.startswith("objects come without a mask, the first is x.json:annotations[0]: segmentation is ")
        assert why is not None and f": {why}" in note


def test_segmentations_and_what_is_left_out(tmp_path: Path) -> None:
    """A mask stays with its box, and may be left out itself."""
    some = [
        thing(8, 7, bbox=[1, 1, 0, 0], segmentation=[[9, 9, 9, 8, 8, 8]]),
        thing(9, 7),
        thing(10, 7, segmentation=RLE),
    ]
    made = source(tmp_path, coco(*some, thing(11, 8, segmentation=[])))
    (first, second, _), info = collect(made)
    assert [None if mask is None else mask.runs.tolist() for mask in first.masks] == [None, RLE["counts"]]
    assert second.masks == (None,) and info.boxes_dropped == {"without width or height": 1} and not info.skipped
    one, other, _ = source(tmp_path, coco(*some, thing(11, 8)), per_object=True)
    assert one.masks == (None,) and other.masks[0].runs.tolist() == RLE["counts"]
    made = source(tmp_path, coco(*some), segmentation="drop")
    assert next(iter(made)).masks is None and collect(made)[1].skipped == {"segmentations": 2}
    assert next(iter(source(tmp_path, coco(thing(1, 7))))).masks is None
    with pytest.raises(UsageError, match="segmentation is 'rle', wanted one of drop, keep"):
        source(tmp_path, coco(), segmentation="rle")


@settings(max_examples=100)
@given(covered=hypothesis_arrays.arrays(np.bool_, st.tuples(st.integers(1, 30), st.integers(1, 30))))
def test_texts_of_run_lengths_are_those_of_pycocotools(covered: Any) -> None:
    from pycocotools import mask as judge

    text = judge.encode(np.asfortranarray(covered.astype(np.uint8)))["counts"].decode()
    assert segmentations.decode_counts(text).tolist() == encode_runs(covered).tolist()


def test_what_else_an_annotation_says(tmp_path: Path) -> None:
    """Attributes of their own names, those that CVAT and datumaro put into one of theirs too."""
    some = [
        thing(1, 7, score=0.5, attributes={"Track_ID": 5, "occluded": True, "truncated": "no", "Hair colour": "red"}),
        thing(2, 7, note=["a", {"b": 1}]),
        thing("x-1", 7, attributes=None),
        thing(1 << 70, 8),
    ]
    first, second, _ = source(tmp_path, coco(*some))
    assert first.attributes == {
        "image_id": 7,
        "annotation_id": [1, 2, "x-1"],
        "area": [5.5] * 3,
        "is_crowd": [0, 0, 0],
        "score": [0.5, None, None],
        "track": [5, None, None],
        "occluded": [1, -1, -1],
        "truncated": [-1, -1, -1],
        "hair_colour": ["red", None, None],
        "note": [None, ["a", {"b": 1}], None],
    }
    assert second.attributes["annotation_id"] == [1 << 70] and "score" not in second.attributes
    assert check_record(first) is None


@pytest.mark.parametrize("change", ["another", "shorter", "gone"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, change: str) -> None:
    made = source(tmp_path, coco(thing(1, 7, segmentation=RLE), thing(2, 8, segmentation=RLE)))
    reading = iter(made)
    next(reading)
    path = tmp_path / "x.json"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"1194", b"1195") if change == "another" else b"")
    with pytest.raises(
        DataError if change != "gone" else StorageError, match=r"changed while it was read|no such file"
    ):
        list(reading)


def test_places_in_a_file_that_is_no_ascii(tmp_path: Path) -> None:
    """They are bytes of the file and not letters; a byte order mark counts."""
    said = coco(*(thing(i, of, name="ä" * i, segmentation=[[i, 2, 3, 4, 5, 6]]) for i, of in enumerate((7, 8, 7, 9))))
    said["images"] = [image(7), image(8, "Größe.jpg", note="𝄞"), image(9)]
    files(tmp_path / "images", {"Größe.jpg": b""})
    whole, jsons.CHUNK = jsons.CHUNK, 64
    try:
        for start in (b"", b"\xef\xbb\xbf"):
            records = list(source(tmp_path, start + json.dumps(said, ensure_ascii=False).encode()))
            assert [r.id for r in records] == ["7.jpg", "Größe.jpg", "9.jpg"]
            assert [[m.polygons[0][0, 0] for m in r.masks] for r in records] == [[0, 2], [1], [3]]
            assert [r.attributes["name"] for r in records] == [["", "ää"], ["ä"], ["äää"]]
    finally:
        jsons.CHUNK = whole


@pytest.mark.parametrize("seed", range(200))
def test_damaged_files(tmp_path: Path, seed: int) -> None:
    """Whatever it has become: records that can be, Rejects, or an error that names it; nothing outside is read."""
    said = coco(
        person(1, 7, attributes={"occluded": True}, segmentation=[[2, 3, 12, 3, 12, 11.5]]),
        thing("x", 8, segmentation=RLE, iscrowd=1),
        thing(3, 9, segmentation={"size": [30, 40], "counts": "32ZU1O"}),
        {"id": 4, "image_id": 8, "caption": "Zwei Mädchen"},
    )
    (tmp_path / "secret.jpg").write_bytes(b"")
    made = source(tmp_path, mutated(json.dumps(said, ensure_ascii=False, indent=1).encode(), seed))
    items: list[Any] = []
    told = ""
    try:
        items = list(made)
    except (DataError, UsageError) as error:
        told = str(error)
    assert told == "" or "x.json" in told
    for item in items:
        if isinstance(item, Record):
            assert check_record(item) is None
            assert item.path is not None and Path(item.path).resolve().parent == tmp_path / "images"
        else:
            assert item.reason and item.origin.startswith("x.json:")


def test_crowds_may_be_left_out(tmp_path: Path) -> None:
    made = source(tmp_path, coco(person(1, 7, iscrowd=1), thing(2, 7), thing(3, 8, iscrowd=True)), skip_crowd=True)
    assert gist(made) == ["7.jpg 1", "8.jpg 0", "9.jpg 0"]
    info = collect(made)[1]
    assert info.boxes_dropped == {"crowd": 2} and info.keypoints_dropped == {"of dropped boxes": 2}


DOG = {"id": 5, "name": "dog", "keypoints": ["nose", "tail"]}


def test_categories_of_different_keypoints(tmp_path: Path) -> None:
    said = coco(person(1, 7), thing(2, 7, 5, keypoints=[1, 2, 2, 3, 4, 2]), thing(3, 8), categories=[PERSON, CAR, DOG])
    with pytest.raises(UsageError, match=r"left_eye, right_eye; dog: nose, tail\); take one by category="):
        list(source(tmp_path, said))
    made = source(tmp_path, said, category="person")
    assert gist(made) == ["7.jpg 1", "8.jpg 0", "9.jpg 0"]
    info = collect(made)[1]
    assert info.boxes_dropped == {"of other categories": 2}
    assert info.box_class_names == ("person",) and not info.keypoints_dropped
    made = source(tmp_path, said, category=("dog", "car"))
    assert [r.keypoints.shape for r in made] == [(1, 2, 3), (1, 2, 3), (0, 2, 3)]
    info = collect(made)[1]
    assert info.box_class_names == ("car", "dog") and info.keypoint_names == ("nose", "tail")
    assert [r.keypoints for r in source(tmp_path, said, category="car")] == [None] * 3
    with pytest.raises(UsageError, match=r"category 'cat': .*x\.json has person, car, dog"):
        list(source(tmp_path, said, category="cat"))
    # of the same keypoints, there is nothing to choose
    said["categories"][2] = {"id": 5, "name": "dog", "keypoints": PERSON["keypoints"]}
    said["annotations"] = said["annotations"][:1]
    assert [r.keypoints.shape for r in source(tmp_path, said)] == [(1, 3, 3), (0, 3, 3), (0, 3, 3)]


def test_keypoints_without_names(tmp_path: Path) -> None:
    """As many as most annotations have."""
    some = [thing(i, 7, keypoints=[1, 2, 2] * 2) for i in range(2)]
    made = source(tmp_path, coco(*some, thing(3, 8, keypoints=[1, 2, 2]), thing(4, 9), categories=[CAR]))
    (first, second, third), info = collect(made)
    assert (first.keypoints.shape, third.keypoints.shape, info.keypoint_names) == ((2, 2, 3), (1, 2, 3), None)
    assert second.reason == "keypoints holds 3 numbers, wanted 3 for each of 2 points (image 8)"


# text, what the error says
NO_COCO = {
    "a detector's results": (
        [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}],
        "a list, such as",
    ),
    "an empty list": ([], "a list, such as a detector's results, and no COCO annotations"),
    "a number": (5, "one value, such as"),
    "no images": ({"annotations": [], "categories": []}, "it has annotations, categories, and no images"),
    "no categories": ({"annotations": [], "images": []}, "it has annotations, images, and no categories"),
    "something else": ({"shapes": [], "imagePath": "a.jpg"}, "it has imagePath, shapes, and no images"),
    "an object of images": ({"images": {"7": "a.jpg"}}, "images is {'7': 'a.jpg'}, wanted a list"),
    "a category without a name": (coco(categories=[CAR, {"id": 1}]), r"categories\[1\]: found {'id': 1}, wanted a cat"),
    "a name of two lines": (
        coco(categories=[{"id": 1, "name": "a\nb"}]),
        r"categories\[0\]: found .*wanted a category",
    ),
    "a category id twice": (
        coco(categories=[CAR, {"id": 4, "name": "bus"}]),
        "category id 4 occurs twice, for 'car'",
    ),
    "keypoints that are no names": (coco(categories=[{**CAR, "keypoints": 17}]), "keypoints of category 'car' are 17"),
    "cut short": (b'{"images": [{"id": 7, "file_na', r"x\.json:1: column 23: no sound JSON: .*; is the file cut short"),
    "broken": (b'{"images": [\n{"id": 7,, 3}]}', r"x\.json:2: column 10: no sound JSON"),
    "nothing": (b"", r"x\.json:1: column 1: no sound JSON: expecting value; is the file cut short"),
}


@pytest.mark.parametrize("name", NO_COCO)
def test_files_that_are_none(tmp_path: Path, name: str) -> None:
    said, says = NO_COCO[name]
    with pytest.raises(DataError, match=says):
        list(source(tmp_path, said))
    ended = headrace("pack", tmp_path / "x.json", tmp_path / "out", "--format", "coco", "--images", tmp_path / "images")
    assert ended.code == 1 and "x.json" in ended.err and not (tmp_path / "out").exists()


def test_a_byte_order_mark(tmp_path: Path) -> None:
    made = source(tmp_path, b"\xef\xbb\xbf" + json.dumps(coco(thing(1, 7))).encode())
    assert gist(made) == ["7.jpg 1", "8.jpg 0", "9.jpg 0"]
    assert guess(tmp_path / "x.json") == (
        FORMAT,
        "it is JSON with a list of images and of annotations and of categories",
    )


def test_calls_that_are_at_fault(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=r"x\.json: no such file"):
        sources.coco(tmp_path / "x.json")
    with pytest.raises(UsageError, match="is no regular file, wanted a COCO JSON file"):
        sources.coco(tmp_path)
    (tmp_path / "x.json").touch()
    with pytest.raises(NotThereError, match="none: no such folder"):
        sources.coco(tmp_path / "x.json", images=tmp_path / "none")
    assert sources.coco(tmp_path / "x.json").images == tmp_path


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"info": {}, "images" : [', "it is JSON with a list of images"),
        ('  {"annotations":[', "it is JSON with a list of annotations"),
        ('[{"images": []}]', None),
        ('{"shapes": []}', None),
        ("images", None),
        ("", None),
    ],
)
def test_recognise(tmp_path: Path, text: str, wanted: str | None) -> None:
    assert recognise(files(tmp_path, {"x": text.encode()}) / "x") == wanted


# --- packed --------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    files(tmp_path, {f"{i}.jpg": jpeg(30, 40, seed=i) for i in (7, 8, 9)})
    said = coco(
        person(1, 7), thing(2, 7, bbox=[30, 20, 20, 20]), person(3, 8, iscrowd=1), thing(4, 9, bbox=[1, 1, 0, 1])
    )
    files(tmp_path, {"x.json": json.dumps(said).encode()})
    ended = headrace("pack", tmp_path / "x.json", tmp_path / "all", "--json")  # told by its content, images beside it
    assert "taking --format coco: it is JSON with a list of images" in ended.err
    report = json.loads(ended.out)
    assert (report["seen"], report["stored"], report["boxes"], report["boxes_clipped"]) == (3, 3, 3, 1)
    assert report["boxes_dropped"] == {"without width or height": 1} and report["keypoint_sets"] == 2
    info = json.loads(headrace("info", tmp_path / "all", "--json").out)
    assert (info["keypoints"], info["keypoint_sets"], info["flip_pairs"]) == (3, 2, [[1, 2]])

    words = ("--category", "person", "--skip-crowd", "--flip-pairs", "0-1", "--segmentation", "keep")
    ended = headrace("pack", tmp_path / "x.json", tmp_path / "some", *words, "--images", tmp_path)
    assert ": 1, 2 dropped (of other categories), 1 dropped (crowd)" in ended.out
    ds = hr.Dataset(tmp_path / "some")
    assert ds.flip_pairs == ((0, 1),) and ds.box_class_names == ("person",)
    for words, says in [(("--flip-pairs", "1,2"), "wanted pairs of numbers, as in 1-2,3-4"), (("--lenient",), "wider")]:
        ended = headrace("pack", tmp_path / "x.json", tmp_path / "no", *words)
        assert ended.code == 2 and says in ended.err


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_the_annotation(tmp_path: Path, orientation: int) -> None:
    """That of the file, or that of the picture upright, in which the places are then; any other is a Reject.

    The file is 30 high and 40 wide; a box that lies in the upper left of the upright picture stays there.
    """
    stored, upright, other = {"height": 30, "width": 40}, {"height": 40, "width": 30}, {"height": 60, "width": 80}
    turned = orientation > 4
    unknown = {"height": None, "width": 0}
    some = [image(i, f"{i}.jpg") | size for i, size in enumerate((stored, upright, other, unknown))]
    files(tmp_path, {f"{i}.jpg": jpeg(30, 40, seed=i, exif=exif(orientation)) for i in range(4)})
    said = coco(*(person(i, i, [3, 2, 2, 29, 1, 1, 0, 0, 0], bbox=[1, 2, 5, 6]) for i in range(4)), images=some)
    files(tmp_path, {"x.json": json.dumps(said).encode()})
    report = hr.pack(sources.coco(tmp_path / "x.json"), tmp_path / "ds", max_rejects=2, progress=False)
    rejects = {reject.id: reject for reject in report.rejects}
    assert set(rejects) == ({"2.jpg"} if turned else {"1.jpg", "2.jpg"})
    assert rejects["2.jpg"].stage == "label" and rejects["2.jpg"].reason.startswith(
        "the image is 40 x 30 pixels, its annotation is for 80 x 60"
    )
    ds = hr.Dataset(tmp_path / "ds")
    found = {record.id: record for record in (ds[i] for i in range(len(ds)))}
    assert found["0.jpg"].boxes.tolist() == found["3.jpg"].boxes.tolist()
    if turned:
        assert found["1.jpg"].boxes.tolist() == [[1, 2, 6, 8]] != found["0.jpg"].boxes.tolist()
        assert found["1.jpg"].keypoints.tolist() == [[[3, 2, 2], [29, 1, 1], [0, 0, 0]]]
        assert report.keypoints_dropped == {}


def test_each_object_by_itself(tmp_path: Path) -> None:
    """Cut out with a margin, whatever is around it; an image without one is passed over."""
    files(tmp_path, {f"{i}.jpg": jpeg(30, 40, seed=i) for i in (7, 8, 9)})
    some = [person(11, 7, bbox=[4, 4, 8, 16]), thing(12, 7, bbox=[30, 20, 20, 20]), thing(13, 8, bbox=[1, 1, 0, 5])]
    files(tmp_path, {"x.json": json.dumps(coco(*some, person(14, 9, bbox=[0, 0, 40, 30]), images=None)).encode()})
    made = sources.coco(tmp_path / "x.json", per_object=True, margin=0.25)
    first, second, third = made
    assert (first.id, first.window, second.id, second.window) == (
        "7.jpg#11",
        (2, 0, 14, 24),
        "7.jpg#12",
        (25, 15, 55, 45),
    )
    assert third.id == "9.jpg#14" and collect(made)[1].skipped == {"images without objects": 1}
    assert first.boxes.tolist() == [[4, 4, 12, 20]] and first.box_labels == ("person",)
    assert first.attributes == {"image_id": 7, "annotation_id": [11], "area": [5.5], "is_crowd": [0]}
    ended = headrace("pack", tmp_path / "x.json", tmp_path / "ds", "--per-object", "--margin", 0.25, "--size", "48x24")
    assert ended.code == 0 and "passed over 1: images without objects 1" in ended.out
    ds = hr.Dataset(tmp_path / "ds")
    stored = {record.id: record for record in (ds[i] for i in range(len(ds)))}
    # twice as large as the window, which begins at (2, 0)
    assert stored["7.jpg#11"].boxes.tolist() == [[4, 8, 20, 40]]
    assert stored["7.jpg#11"].keypoints.tolist() == [[[6, 12, 2], [0, 0, 0], [10, 16, 1]]]
    assert stored["7.jpg#11"].image.shape == (48, 24, 3)
    whole = hr.Record(id="a", path=str(tmp_path / "7.jpg"))
    hr.pack([whole], tmp_path / "whole", progress=False)
    cut = hr.Dataset(tmp_path / "whole")[0].image[0:24, 2:14]
    assert np.abs(stored["7.jpg#11"].image[::2, ::2].astype(int) - cut).mean() < 8
    with pytest.raises(UsageError, match=r"margin is -0\.1, wanted at least 0"):
        sources.coco(tmp_path / "x.json", margin=-0.1)


# --- what the bytes cost -------------------------------------------------------------------------------------------


def test_memory_of_annotations(tmp_path: Path) -> None:
    """Less than 100 bytes for each, and 5 for each number of its keypoints, however long its mask is."""
    n, points = 20_000, [5, 6, 2] * 17
    category = {"id": 1, "name": "person", "keypoints": [f"p{i}" for i in range(17)]}
    with (tmp_path / "x.json").open("w") as file:
        file.write(json.dumps({"images": [image(7)], "categories": [category]})[:-1] + ', "annotations": [')
        for i in range(n):
            made = thing(i, 7, 1, keypoints=points, segmentation=[[float(k) for k in range(100)]])
            file.write("," * (i > 0) + json.dumps(made))
        file.write("]}")
    assert (tmp_path / "x.json").stat().st_size > 15 * 10**6
    tracemalloc.start()
    with _Elements(tmp_path / "x.json") as elements:
        read = _read(elements)
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(read.image) == n
    assert held < n * (100 + 5 * 51) and peak < held + 16 * 10**6


# --- against a plain reading of the same ---------------------------------------------------------------------------

numbers = st.integers(-5, 60) | st.floats(-5, 60, width=32)
annotations = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 6),
            "image_id": st.integers(0, 4),
            "category_id": st.sampled_from([1, 4]),
            "bbox": st.lists(numbers, min_size=4, max_size=4),
        },
        optional={
            "iscrowd": st.integers(0, 1),
            "area": numbers,
            "keypoints": st.lists(st.tuples(numbers, numbers, st.integers(0, 2)), min_size=3, max_size=3).map(
                lambda points: [number for point in points for number in point]
            ),
        },
    ),
    max_size=12,
)


@settings(max_examples=100)
@given(some=annotations, order=st.permutations([0, 1, 2, 3]))
def test_what_a_plain_reading_finds(tmp_path_factory: pytest.TempPathFactory, some: Any, order: list[int]) -> None:
    folder = tmp_path_factory.mktemp("coco")
    files(folder / "images", {f"{i}.jpg": b"" for i in range(4)})
    made = source(folder, coco(*some, images=[image(i) for i in order]))
    wanted: dict[int, list[Any]] = {i: [] for i in range(5)}
    seen = set()
    for made_of in some:
        key = (made_of["id"], made_of["image_id"], made_of["category_id"], *map(float, made_of["bbox"]))
        x, y, w, h = made_of["bbox"]
        box = np.array([x, y, x + w, y + h], np.float32).tolist()
        if key not in seen and box[2] > box[0] and box[3] > box[1]:
            points = made_of.get("keypoints", [0] * 9)
            wanted[made_of["image_id"]].append(
                (box, np.array(points, np.float32).reshape(3, 3).tolist(), made_of["id"])
            )
        seen.add(key)
    items, info = collect(made)
    records = [item for item in items if isinstance(item, Record)]
    assert [record.attributes["image_id"] for record in records] == order
    for record in records:
        assert record.boxes is not None and record.keypoints is not None
        found = zip(record.boxes.tolist(), record.keypoints.tolist(), record.attributes["annotation_id"], strict=True)
        assert list(found) == wanted[record.attributes["image_id"]]
    stray = [item for item in items if isinstance(item, Reject)]
    assert len(stray) == sum(made_of["image_id"] == 4 for made_of in some)
    kept = sum(len(record.boxes) for record in records if record.boxes is not None)
    assert len(some) == kept + len(stray) + sum(info.boxes_dropped.values())


# --- the real file -------------------------------------------------------------------------------------------------


def test_the_real_persons(real_data: Path, tmp_path: Path) -> None:
    """FORMATS.md section 5: 14 persons, v 57, 17 and 164 times 0, 1 and 2, two without any keypoint.

    Through pack, catalog and shards, and back: pycocotools says what they are.
    """
    from pycocotools.coco import COCO

    path = real_data / "coco_keypoints" / "test_coco.json"
    judge = COCO(path)
    report = hr.pack(sources.coco(path), tmp_path / "ds", shards=2, progress=False)
    assert (report.seen, report.stored, report.boxes, report.keypoint_sets) == (4, 4, 14, 12)
    assert not report.keypoints_dropped and not report.boxes_dropped
    ds = hr.Dataset(tmp_path / "ds")
    assert ds.verify().ok and ds.keypoints == 17 and ds.flip_pairs == tuple((i, i + 1) for i in range(1, 17, 2))
    visible: Counter[float] = Counter()
    for record in (ds[i] for i in range(4)):
        ids = record.attributes["annotation_id"]
        assert sorted(ids) == sorted(judge.getAnnIds(record.attributes["image_id"]))
        for box, points, said in zip(record.boxes, record.keypoints, judge.loadAnns(ids), strict=True):
            x, y, w, h = said["bbox"]
            assert np.abs(box - [x, y, x + w, y + h]).max() < 0.01
            assert np.abs(points - np.reshape(said["keypoints"], (17, 3))).max() < 0.01
            visible.update(points[:, 2].tolist())
    assert visible == {0: 57, 1: 17, 2: 164}


@pytest.mark.parametrize("size", [(192, 256), (425, 640)])
def test_the_real_persons_in_a_mirror(real_data: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    """A flip swaps the eight pairs, and nothing else; each person stays with its box."""
    hr.pack(sources.coco(real_data / "coco_keypoints" / "test_coco.json"), tmp_path / "ds", progress=False)
    ds = hr.Dataset(tmp_path / "ds")
    options: dict[str, Any] = {"size": size, "shuffle": False, "batch_size": 4, "target": Keep()}
    plain, flipped = (ds.loader(augment=some, **options)[0].targets for some in ((), (hr.HorizontalFlip(p=1),)))
    assert len(plain.keypoints) == len(flipped.keypoints) == 14
    swapped = plain.keypoints[:, [0, *(i + 1 if i % 2 else i - 1 for i in range(1, 17))]]
    seen = swapped[..., 2] > 0
    assert (flipped.keypoints[..., 2] == swapped[..., 2]).all()
    assert np.allclose(flipped.keypoints[seen][:, 0], size[1] - swapped[seen][:, 0], atol=1e-3)
    assert np.allclose(flipped.keypoints[seen][:, 1], swapped[seen][:, 1], atol=1e-3)
    assert not flipped.keypoints[~seen].any()
    assert np.allclose(flipped.boxes[:, 0], size[1] - plain.boxes[:, 2], atol=1e-3)


def test_the_real_persons_cut_out(real_data: Path, tmp_path: Path) -> None:
    """Each lies in its own picture where the whole one has it; none loses a keypoint that its margin shows."""
    path = real_data / "coco_keypoints" / "test_coco.json"
    report = hr.pack(sources.coco(path, per_object=True), tmp_path / "ds", size=128, fit="pad", progress=False)
    assert (report.stored, report.boxes, report.keypoint_sets) == (14, 14, 12) and not report.boxes_dropped
    whole: dict[int, Any] = {}
    for photo in sources.coco(path):
        assert isinstance(photo, Record) and photo.boxes is not None and photo.keypoints is not None
        objects = zip(photo.boxes, photo.keypoints, strict=True)
        whole |= zip(photo.attributes["annotation_id"], objects, strict=True)
    ds = hr.Dataset(tmp_path / "ds")
    lost = 0
    for record in (ds[i] for i in range(14)):
        box, points = whole[record.attributes["annotation_id"][0]]
        scale = np.ptp(record.boxes[0].reshape(2, 2), axis=0) / np.ptp(box.reshape(2, 2), axis=0)
        seen = record.keypoints[0, :, 2] > 0
        lost += int((points[:, 2] > 0).sum() - seen.sum())
        assert (record.keypoints[0, seen, 2] == points[seen, 2]).all()
        moved = (points[seen, :2] - box[:2]) * scale + record.boxes[0, :2]
        assert np.abs(record.keypoints[0, seen, :2] - moved).max(initial=0) < 0.01
    assert report.keypoints_dropped == ({"cut off by window or fit": lost} if lost else {})


def test_the_real_masks(real_data: Path) -> None:
    """Polygons as pycocotools has them, of the same objects; one has four."""
    from pycocotools.coco import COCO

    path = real_data / "coco_keypoints" / "test_coco.json"
    judge = COCO(path)
    polygons = Counter[int]()
    for record in sources.coco(path):
        assert isinstance(record, Record) and record.masks is not None and check_record(record) is None
        for mask, id_ in zip(record.masks, record.attributes["annotation_id"], strict=True):
            said = judge.anns[id_]["segmentation"]
            assert mask is not None and len(mask.polygons) == len(said)
            assert all(np.allclose(of.ravel(), wanted) for of, wanted in zip(mask.polygons, said, strict=True))
            polygons[len(said)] += 1
    assert polygons == {1: 13, 4: 1}
