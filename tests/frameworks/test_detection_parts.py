"""The pure parts of detection: overlap, average precision by hand, loss, model, drawing, boxes back on the photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from drawn import exif, saved
from headrace.errors import NotThereError, UsageError
from headrace.imaging.geometry import Move
from headrace.imaging.prepare import ImageOptions
from headrace.learn import boxes, predict
from headrace.learn.backend import keras
from headrace.learn.boxes import Truth, average_precision, matches, suppressed
from headrace.learn.recipe import Options
from headrace.learn.tasks import detection
from headrace.learn.tasks.classification import Classification
from headrace.learn.tasks.detection import Detection
from headrace.load.photos import Framing, PhotoLoader, read_photo
from headrace.load.targets import Found, Grid, Labels

TASK = Detection(("face",))


def found(*rows: tuple[float, float, float, float, float], labels: list[int] | None = None) -> Found:
    """Rows of x0, y0, x1, y1, score."""
    array = np.array(rows, np.float32).reshape(-1, 5)
    return Found(array[:, :4], array[:, 4], np.array(labels or [0] * len(rows), np.int64))


def truth(*rows: tuple[float, float, float, float], labels: list[int] | None = None) -> Truth:
    return Truth(np.array(rows, np.float32).reshape(-1, 4), np.array(labels or [0] * len(rows), np.int64))


# --- overlap, suppression, matching


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),  # half-open: they only touch
        ((0, 0, 4, 4), (1, 1, 3, 3), 4 / 16),
        ((3, 3, 3, 3), (3, 3, 3, 3), 0.0),
    ],
)
def test_iou(one: tuple[float, ...], other: tuple[float, ...], expected: float) -> None:
    pair = np.array([one], np.float32), np.array([other], np.float32)
    assert boxes.iou(*pair) == pytest.approx(np.array([[expected]]), abs=1e-6)
    assert boxes.iou(*pair[::-1]) == pytest.approx(np.array([[expected]]), abs=1e-6)


def test_suppression_keeps_the_best_of_each_pile_and_label() -> None:
    pile = found((0, 0, 10, 10, 0.5), (1, 0, 11, 10, 0.9), (0, 0, 10, 9, 0.7), (40, 0, 50, 10, 0.6))
    kept = suppressed(pile)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.6])
    assert kept.boxes[:, 0].tolist() == [1, 40]
    labelled = suppressed(Found(pile.boxes, pile.scores, np.array([1, 0, 0, 0])))
    assert labelled.scores.tolist() == pytest.approx([0.9, 0.6, 0.5])
    # A chain: the second goes, so the third, which overlaps the second alone, stays.
    chain = suppressed(found((0, 0, 10, 10, 0.9), (3, 0, 13, 10, 0.8), (6, 0, 16, 10, 0.7)))
    assert chain.scores.tolist() == pytest.approx([0.9, 0.7])
    assert len(suppressed(found()).boxes) == 0


def test_matching_gives_each_true_box_to_one() -> None:
    there = truth((0, 0, 10, 10), (20, 0, 30, 10))
    assert matches(found((0, 0, 10, 9, 0.8), (0, 0, 10, 10, 0.9)), there).tolist() == [False, True]
    assert matches(found((20, 0, 30, 10, 0.1), (0, 0, 10, 5, 0.9)), there).tolist() == [True, True]
    assert matches(found((0, 0, 10, 4.9, 0.9)), there).tolist() == [False]
    assert matches(found((0, 0, 10, 10, 0.9), labels=[1]), there).tolist() == [False]
    assert matches(found((0, 0, 1, 1, 0.9)), truth()).tolist() == [False]


def test_average_precision_by_hand() -> None:
    there = [truth((0, 0, 100, 100)), truth((0, 0, 100, 100), (200, 200, 210, 210)), truth()]
    seen = [
        found((0, 0, 100, 100, 0.9)),  # true
        found((0, 0, 100, 72, 0.7)),  # true up to an overlap of 0.72; the small one is missed
        found((50, 50, 60, 60, 0.8)),  # false
    ]
    # At recall 1/3 the precision is 1, at 2/3 it is 2/3; recall is looked up at 0, 0.01 ... 1: 34 and 33 of 101 points.
    half = (34 + 33 * 2 / 3) / 101
    result = average_precision(seen, there)
    assert result.ap50 == pytest.approx(half)
    assert result.ap == pytest.approx((5 * half + 5 * 34 / 101) / 10)
    # By size of the true boxes: what is found of another size neither helps nor harms.
    assert result.by_size["large"] == (pytest.approx(1.0), 2)
    assert result.by_size["medium"] == (None, 0)
    assert result.by_size["small"] == (0.0, 1)
    np.testing.assert_allclose(result.curve, [1.0] * 34 + [2 / 3] * 33 + [0.0] * 34)


def test_average_precision_of_classes_is_their_mean() -> None:
    there = [truth((0, 0, 50, 50), (60, 60, 90, 90), labels=[0, 1])]
    seen = [found((0, 0, 50, 50, 0.9), (60, 60, 90, 90, 0.8), labels=[0, 0])]
    assert average_precision(seen, there, classes=3).ap50 == pytest.approx(0.5)  # the third class is nowhere


@pytest.mark.parametrize(
    ("seen", "there", "expected"),
    [
        ([found()], [truth()], None),
        ([found((0, 0, 9, 9, 0.5))], [truth()], None),
        ([found()], [truth((0, 0, 9, 9))], 0.0),
        ([found((0, 0, 9, 9, 0.1))], [truth((0, 0, 9, 9))], 1.0),
    ],
)
def test_average_precision_at_the_edges(seen: list[Found], there: list[Truth], expected: float | None) -> None:
    result = average_precision(seen, there)
    for ap in (result.ap50, result.ap):
        assert ap == (None if expected is None else pytest.approx(expected))
    assert len(result.curve) == 101


def test_average_precision_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    average_precision([found()], [truth()])
    assert capsys.readouterr() == ("", "")


# --- loss


def grids(*faces: tuple[float, float, float, float], side: int = 224, classes: int = 1) -> np.ndarray[Any, Any]:
    """The grid of one image of `side` pixels with these boxes."""
    box = np.array(faces, np.float32).reshape(-1, 4)
    n = len(box)
    labels = Labels(
        classes=np.array([-1]),
        size=(side, side),
        boxes=box,
        box_labels=np.arange(n) % classes,
        box_image=np.zeros(n, np.int64),
    )
    return Grid(side // 32, classes=classes).encode(labels)


FACE, OTHER = (40.0, 50.0, 90.0, 120.0), (150.0, 10.0, 200.0, 60.0)


@pytest.mark.parametrize("classes", [1, 3])
def test_the_loss_of_the_truth_is_nothing_and_grows_with_the_fault(classes: int) -> None:
    there = grids(FACE, OTHER, classes=classes)
    row, column = np.argwhere(there[0, ..., 4])[0]

    def loss(**changes: float) -> float:
        said = there.copy()
        for name, value in changes.items():
            said[0, row, column, {"height": 0, "y": 2, "score": 4, "kind": 6}[name]] = value
        return float(detection.loss(there, said))

    assert loss() == pytest.approx(0, abs=1e-4)
    height, y = there[0, row, column, 0], there[0, row, column, 2]
    assert 0.01 < loss(height=height * 0.9) < loss(height=height * 0.5)
    assert 0.01 < loss(y=y + 0.1) < loss(y=y + 0.2)
    assert 0.005 < loss(score=0.8) < loss(score=0.3)
    if classes == 3:
        assert loss(kind=0.5) > 0.1
    missed = there.copy()
    missed[0, 6, 0, 4] = 0.6  # a face where there is none
    assert float(detection.loss(there, missed)) > 0.1


def test_boxes_where_there_is_no_face_cost_nothing() -> None:
    there = grids(FACE)
    said = there.copy()
    said[there[..., 4] == 0, 0:4] = 0.7
    assert float(detection.loss(there, said)) == pytest.approx(float(detection.loss(there, there)))


def test_many_easy_cells_weigh_less_than_a_hard_one() -> None:
    """49 cells and one face: what nearly all cells have right already must not drown it."""
    there = grids(FACE)
    easy, hard = there.copy(), there.copy()
    easy[..., 4] = np.where(there[..., 4] == 1, 1, 0.1)
    hard[there[..., 4] == 1, 4] = 0.3
    assert float(detection.loss(there, hard)) > 5 * float(detection.loss(there, easy))


def test_no_face_at_all() -> None:
    empty = grids()
    assert float(detection.loss(empty, empty)) == pytest.approx(0, abs=1e-4)
    said = np.full_like(empty, 0.5)
    assert np.isfinite(float(detection.loss(empty, said))) and float(detection.loss(empty, said)) > 1
    assert float(detection.iou(empty, said)) == 0


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_iou_in_cells_is_iou_in_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 150, 2)
    there = grids((*low, *(low + rng.uniform(5, 70, 2))))
    said = rng.uniform(0.01, 1, there.shape).astype(np.float32)
    one, other = (
        Grid(7, classes=1).decode(np.where(there[..., 4:5] == 1, grid, 0), size=(224, 224), threshold=1e-3)[0].boxes
        for grid in (there, said)
    )
    assert float(detection.iou(there, said)) == pytest.approx(boxes.iou(one, other)[0, 0], abs=1e-4)


def test_far_boxes_are_drawn_nearer() -> None:
    """CIoU: also where boxes don't meet, the nearer one costs less."""
    there = grids((100, 100, 104, 104))
    row, column = np.argwhere(there[0, ..., 4])[0]
    costs = []
    for y in (0.9, 0.7, 0.5, 0.4):  # the centre is at 0.1875, the box a cell's eighth high
        said = there.copy()
        said[0, row, column, 2] = y
        costs.append(float(detection.loss(there, said)))
    assert costs[0] > costs[1] > costs[2] > costs[3] > 1


def test_of_equal_overlaps_the_right_shape_is_better() -> None:
    """CIoU: two boxes of half the area in the middle of the true one."""
    there = grids((90, 90, 130, 130))
    row, column = np.argwhere(there[0, ..., 4])[0]
    square, high = there.copy(), there.copy()
    square[0, row, column, 0:2] *= 0.5**0.5
    high[0, row, column, 1] *= 0.5
    assert float(detection.iou(there, square)) == pytest.approx(float(detection.iou(there, high)), abs=1e-4)
    assert float(detection.loss(there, square)) + 0.005 < float(detection.loss(there, high))


# --- model and task


@pytest.mark.parametrize(("side", "classes", "depth"), [(64, 1, 5), (96, 3, 8)])
def test_the_model_has_a_cell_per_32_pixels(side: int, classes: int, depth: int) -> None:
    task = Detection(tuple("abc"[:classes]))
    model = task.build("mobilenet_v2", (side, side, 3), {"alpha": 0.35})
    assert model.output_shape == (None, side // 32, side // 32, depth)
    assert model.get_layer("features").layers[-1].name == "block_16_project_BN"
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.9}
    said = model.predict_on_batch(np.zeros((1, side, side, 3), np.uint8))
    assert said[..., 4].max() < 0.2  # it begins with few boxes, not with half of all cells
    assert said.min() >= 0 and said.max() <= 1


def test_the_default_is_three_quarters_wide() -> None:
    model = TASK.build("mobilenet_v2", (224, 224, 3), {})
    assert model.output_shape == (None, 7, 7, 5)
    assert model.get_layer("features").output_shape == (None, 7, 7, 240)


def test_fault_a_normalisation_computed_and_thrown_away() -> None:
    """What the features see is what was normalised, not the pixels it was made from."""
    model = TASK.build("mobilenet_v2", (64, 64, 3), {"alpha": 0.35})
    features = model.get_layer("features")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    seen = keras.Model(model.inputs, model.get_layer("conv").input).predict_on_batch(pixels)
    scale = np.abs(seen).max()  # random weights: tiny numbers come out
    assert np.abs(seen - features.predict_on_batch(pixels / np.float32(127.5) - 1)).max() < 1e-3 * scale
    assert np.abs(seen - features.predict_on_batch(pixels.astype(np.float32))).max() > scale


def test_a_frozen_base_of_other_weights(tmp_path: Path) -> None:
    path = tmp_path / "base.weights.h5"
    keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, include_top=False).save_weights(path)
    options = {"alpha": 0.35, "weights": str(path), "frozen": True}
    model = TASK.build("mobilenet_v2", (64, 64, 3), options)
    assert len(model.trainable_variables) == 5  # conv, its norm's two, cells' two
    with pytest.raises(NotThereError):
        TASK.build("mobilenet_v2", (64, 64, 3), options | {"weights": "none"})


@pytest.mark.parametrize("size", [(224, 256), (100, 100), (16, 16)])
def test_sizes_that_cells_do_not_fit(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=f"size is {size[0]}x{size[1]}; detection wants square"):
        TASK.build("mobilenet_v2", (*size, 3), {})


@pytest.mark.parametrize(
    ("classes", "out", "cells"),
    [
        (("face",), (7, 7, 5), 7),
        (("face",), (14, 14, 5), 14),
        (("cat", "dog"), (7, 7, 7), 7),
        (("face",), (7, 7, 6), None),
        (("cat", "dog"), (7, 7, 5), None),
        (("face",), (7, 5, 5), None),
        (("face",), (245,), None),
        (("face",), (None, None, 5), None),
    ],
)
def test_what_a_network_must_say(classes: tuple[str, ...], out: tuple[int | None, ...], cells: int | None) -> None:
    if cells is None:
        depth = 5 if len(classes) == 1 else 5 + len(classes)
        with pytest.raises(UsageError, match=rf"mine says \[b, .*, wanted \[b, g, g, {depth}\]"):
            Detection(classes).for_model(out, (224, 224), ends_in="sigmoid", name="mine")
    else:
        fitted = Detection(classes).for_model(out, (224, 224), ends_in="sigmoid", name="mine")
        assert fitted.target((224, 224)) == Grid(cells, classes=len(classes))


def test_which_epoch_is_better() -> None:
    def rank(ap50: float, iou: float, loss: float) -> tuple[float, ...]:
        return TASK.rank({"loss": 9, "val_loss": loss, "val_iou": iou, "val_ap50": ap50})

    rows = [rank(0, 0.1, 1.0), rank(0, 0.2, 1.2), rank(0, 0.2, 1.1), rank(0.01, 0.1, 2.0), rank(0.5, 0.1, 1.5)]
    assert sorted(rows) == rows
    assert TASK.rank({"loss": 1.0}) > TASK.rank({"loss": 2.0})


def test_what_the_task_chooses_where_nobody_does() -> None:
    chosen = Options(batch_size=4).filled(Detection.defaults)
    assert (chosen.batch_size, chosen.learning_rate, chosen.schedule, chosen.size) == (4, 4e-3, "cosine", 224)
    assert chosen.augment == ("flip", "crop", "colour")
    assert Options(augment=()).filled(Detection.defaults).augment == ()
    chosen = Options().filled(Classification.defaults)
    assert (chosen.batch_size, chosen.learning_rate, chosen.schedule, chosen.size) == (32, 1e-3, "constant", None)


def test_a_threshold_is_for_detection() -> None:
    assert TASK.with_threshold(0.25).threshold == 0.25
    with pytest.raises(UsageError, match=r"threshold is 1\.5"):
        TASK.with_threshold(1.5)
    with pytest.raises(UsageError, match="is for detection, keypoints and multilabel, this run's"):
        Classification(("a", "b")).with_threshold(0.5)


# --- what is found, on the photo


def test_rows_right_and_tile() -> None:
    seen = found((1, 2, 3.5, 4.25, 0.75))
    assert TASK.rows(seen) == [
        {"score": "0.750000", "x0": "1.00", "y0": "2.00", "x1": "3.50", "y1": "4.25", "class": "face"}
    ]
    photo = np.full((60, 80, 3), 128, np.uint8)
    there = truth((10, 10, 30, 40), (50, 10, 70, 40))
    both = found((10, 10, 30, 41, 0.9), (50, 10, 70, 40, 0.8))
    assert TASK.is_correct(both, there)
    assert not TASK.is_correct(found((10, 10, 30, 40, 0.9)), there)
    assert not TASK.is_correct(found((10, 10, 30, 40, 0.9), (50, 10, 70, 40, 0.8), (0, 0, 5, 5, 0.6)), there)
    assert TASK.is_correct(found(), truth())
    tile = TASK.tile(photo, both, there)
    assert (tile.caption, tile.right) == ("2 of 2 boxes found, 0 false", True)
    assert TASK.tile(photo, both, None).right is None
    assert photo.max() == 128  # the photo itself is left alone


SOURCE = (70, 110)  # height, width of the upright photo
INSIDE = (38, 20, 71, 49)  # a rectangle in it


def _turned(orientation: int) -> bytes:
    """A photo that is upright once it is turned as its EXIF says, with a white rectangle."""
    upright = np.zeros((*SOURCE, 3), np.uint8)
    x0, y0, x1, y1 = INSIDE
    upright[y0:y1, x0:x1] = 255
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that undo them
    image = Image.fromarray(upright)
    stored = image if orientation == 1 else image.transpose(Image.Transpose(back[orientation]))
    return saved(stored, "JPEG", quality=95, subsampling=0, exif=exif(orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("packed", [{}, {"size": (128, 96), "fit": "crop"}, {"size": (96, 160), "fit": "pad"}])
def test_boxes_go_back_to_the_photo_to_a_pixel(
    tmp_path: Path, orientation: int, fit: Any, packed: dict[str, Any]
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(_turned(orientation))
    options = {"size": None, "fit": "stretch", "channels": None, "quality": 95, "max_pixels": 10**6} | packed
    ((batch, _, (view,)),) = PhotoLoader([path], pack_options=options, size=192, fit=fit)
    assert (view.height, view.width) == SOURCE
    rows, columns = np.nonzero(batch.images[0, ..., 0] > 127)
    seen = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    np.testing.assert_allclose(view.back(seen)[0], INSIDE, atol=1)
    photo = read_photo(path, ImageOptions(max_pixels=10**6))
    rows, columns = np.nonzero(photo[..., 0] > 127)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == INSIDE


def test_boxes_are_cut_to_the_photo() -> None:
    view = Framing(50, 80, (Move(2.0, 10.0, 2.0, 0.0),), (100, 170))
    assert view.back(np.array([[0, 0, 500, 500]], np.float32)).tolist() == [[0, 0, 80, 50]]
    output = np.zeros((1, 1, 5), np.float32)
    output[0, 0] = 0.2, 0.2, 0.5, 0.1, 0.9  # to the left of all that the photo reaches: x from 0 to 6.4
    task = TASK.for_model(output.shape, (32, 32), ends_in="sigmoid", name="mine")
    assert len(task.prediction(output, Framing(16, 8, (Move(1.0, 12.0, 1.0, 0.0),), (32, 32))).boxes) == 0
    assert len(task.prediction(output, Framing(16, 8, (Move(1.0, 2.0, 1.0, 0.0),), (32, 32))).boxes) == 1


def test_pictures_lie_as_the_photos_do_and_never_over_them(tmp_path: Path) -> None:
    names = ["a/x.jpg", "a/x.png", "b/x.JPEG", "b/../c.gif"]
    paths = [str(tmp_path / "in" / name) for name in names]
    pictures = predict._pictures(paths, tmp_path / "out")
    assert [str(path.relative_to(tmp_path / "out")) for path in pictures.values()] == [
        "a/x.jpg",
        "a/x.png.jpg",
        "b/x.JPEG",
        "c.gif.jpg",
    ]
    assert predict._pictures([paths[0]], tmp_path / "out") == {paths[0]: tmp_path / "out" / "x.jpg"}
    with pytest.raises(UsageError, match="its picture would replace it"):
        predict._pictures([str(tmp_path / "drawn" / "x.jpg")], tmp_path / "drawn")
