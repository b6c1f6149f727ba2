"""The pure parts of task keypoints: PCK and OKS by hand, losses, models, drawing, points back on the photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import exif, jpeg, saved
from faces import NAMES, Faces
from headrace.errors import UsageError
from headrace.imaging.geometry import Move
from headrace.learn import plots, points
from headrace.learn.backend import keras
from headrace.learn.recipe import Options
from headrace.learn.tasks import keypoints
from headrace.learn.tasks.keypoints import HEATMAP, Keypoints, Observed
from headrace.load.photos import Framing, PhotoLoader
from headrace.load.targets import Labels, Points
from packed import pack

ops = keras.ops
TASK = Keypoints(NAMES)
SAYS_POINTS = replace(TASK, coordinates=True)


def array(*sets: list[tuple[float, float, float]]) -> np.ndarray[Any, Any]:
    return np.array(sets, np.float32)


BOX = np.array([[10, 10, 60, 110]], np.float32)  # 50 x 100: right is what is within 20 pixels


# --- PCK


def test_pck_by_hand() -> None:
    truth = array([(20, 20, 2), (40, 20, 1), (30, 80, 2), (0, 0, 0)])
    found = array([(40, 20, 0.1), (40, 41, 0.9), (33, 84, 0.5), (7, 7, 0.9)])
    off = points.distances(found, truth, BOX)
    assert np.allclose(off, [[0.2, 0.21, 0.05, np.nan]], equal_nan=True)
    assert points.pck(off) == pytest.approx(2 / 3)
    assert points.pck(off, alpha=0.1) == pytest.approx(1 / 3)
    assert points.pck(off[:, 3:]) is None  # nothing labelled, nothing to be judged


def test_pck_is_of_the_larger_side() -> None:
    truth, found = array([(20, 20, 2)]), array([(20, 38, 1)])
    wide = BOX[:, [1, 0, 3, 2]]
    assert points.pck(points.distances(found, truth, BOX)) == points.pck(points.distances(found, truth, wide)) == 1
    assert points.pck(points.distances(found, truth, BOX * 0.8)) == 0


def test_an_object_without_extent_is_not_judged() -> None:
    """One labelled point and no box: nothing says how far off is far."""
    truth = array([(20, 20, 2), (0, 0, 0)], [(20, 20, 2), (20, 30, 2)])
    boxes = np.array([[20, 20, 20, 20], [20, 20, 20, 30]], np.float32)
    off = points.distances(truth, truth, boxes)
    assert np.isnan(off[0]).all() and off[1].tolist() == [0, 0]
    assert points.similarity(truth, truth, boxes, sigmas=points.sigmas("ab")).oks == 1


# --- OKS


def test_oks_by_hand() -> None:
    truth = array([(20, 20, 2), (40, 20, 1), (0, 0, 0)])
    found = array([(20, 25, 0.9), (40, 20, 0.9), (50, 50, 0.9)])
    area, sigma = 50 * 100, 0.05
    expected = (np.exp(-(5**2) / (2 * area * (2 * sigma) ** 2)) + 1) / 2
    result = points.similarity(found, truth, BOX, sigmas=points.sigmas("abc"))
    assert result.oks == pytest.approx(expected)
    assert 0.85 < expected < 0.9  # so of the ten thresholds 0.5, 0.55 ... 0.95 it passes the first eight
    assert (result.ap50, result.ap) == (pytest.approx(1), pytest.approx(0.8))


def test_average_precision_is_over_images_by_score() -> None:
    """The surer set is wrong, the other one right: precision 1/2 at all recalls up to 1/2."""
    truth = array([(20, 20, 2)], [(20, 20, 2)])
    found = array([(90, 90, 0.9)], [(20, 20, 0.3)])
    both = np.concatenate([BOX, BOX])
    result = points.similarity(found, truth, both, sigmas=points.sigmas("a"))
    assert result.oks == pytest.approx(0.5, abs=1e-3)
    assert result.ap50 == result.ap == pytest.approx(51 * 0.5 / 101)
    found[:, 0, 2] = 0.3, 0.9
    assert points.similarity(found, truth, both, sigmas=points.sigmas("a")).ap50 == pytest.approx(51 / 101)


def test_objects_without_points_change_nothing() -> None:
    truth = array([(20, 20, 2), (30, 30, 2)], [(0, 0, 0), (0, 0, 0)])
    found = array([(20, 20, 0.5), (30, 30, 0.5)], [(50, 50, 0.9), (1, 1, 0.9)])
    boxes = np.concatenate([BOX, 0 * BOX])
    assert points.similarity(found, truth, boxes, sigmas=points.sigmas("ab")) == points.Similarity(
        oks=1.0, ap50=pytest.approx(1.0), ap=pytest.approx(1.0)
    )
    nobody = points.similarity(found[1:], truth[1:], boxes[1:], sigmas=points.sigmas("ab"))
    assert (nobody.oks, nobody.ap50, nobody.ap) == (None, None, None)


def test_sigmas_are_cocos_for_cocos_points() -> None:
    found = points.sigmas(points.COCO_NAMES)
    assert found[:5] == pytest.approx([0.026, 0.025, 0.025, 0.035, 0.035]) and len(found) == 17
    assert found[-1] == pytest.approx(0.089)  # ankles
    assert points.sigmas(points.COCO_NAMES[::-1]).tolist() == [0.05] * 17
    assert points.sigmas(NAMES).tolist() == [0.05] * 5


@pytest.mark.parametrize("per_object", [False, True], ids=["photos", "cut out"])
def test_the_persons_of_coco_are_themselves(real_data: Path, tmp_path: Path, per_object: bool) -> None:
    """Packed, loaded, and said as they are: OKS 1, the persons without a labelled point left out; moved, much less."""
    source = hr.sources.coco(
        real_data / "coco_keypoints" / "test_coco.json", images=real_data / "coco_keypoints", per_object=per_object
    )
    ds = pack(source, tmp_path / "ds")
    task = Keypoints.of(ds)
    assert task is not None and task.class_names == points.COCO_NAMES
    judge = points.sigmas(task.class_names)
    loader = ds.loader(batch_size=100, size=640, fit="pad", shuffle=False, target=task.truth(ds, (640, 640)))
    there = loader[0].targets
    truth, boxes = there["points"], there["boxes"]
    assert len(truth) == (14 if per_object else 4)
    assert int((truth[..., 2] > 0).any(axis=1).sum()) == (12 if per_object else 4)
    assert loader.options.target is not None and hr.Heatmap().lost(loader.labels(0)) == (0 if per_object else 8)
    said = truth.copy()
    said[..., 2] = 1
    result = points.similarity(said, truth, boxes, sigmas=judge)
    assert (result.oks, result.ap50, result.ap) == (1.0, pytest.approx(1.0), pytest.approx(1.0))
    assert points.pck(points.distances(said, truth, boxes)) == 1
    # what a model that had learnt everything would say, back out of its maps
    maps = hr.Heatmap().encode(keypoints._labels(loader[0]))
    result = points.similarity(hr.Heatmap().decode(maps), truth, boxes, sigmas=judge)
    assert result.oks is not None and result.oks > 0.999 and result.ap == pytest.approx(1.0)
    said[..., 0] += 0.5 * (boxes[:, 2] - boxes[:, 0])[:, np.newaxis]
    result = points.similarity(said, truth, boxes, sigmas=judge)
    assert result.oks is not None and result.oks < 0.2


# --- losses


def labels(*sets: list[tuple[float, float, float]], size: tuple[int, int] = (32, 32)) -> Labels:
    n = len(sets)
    return Labels(
        classes=np.full(n, -1),
        size=size,
        boxes=np.tile(np.array([[0, 0, 9, 9]], np.float32), (n, 1)),
        box_labels=np.zeros(n, np.int64),
        box_image=np.arange(n),
        keypoints=np.array(sets, np.float32),
    )


SETS = labels([(10, 12, 2), (20, 20, 1)], [(5, 30, 2), (0, 0, 0)], [(0, 0, 0), (0, 0, 0)])


def test_the_loss_of_the_true_maps_is_nothing_and_grows_with_the_distance() -> None:
    truth = HEATMAP.encode(SETS)
    said = truth + 1e-9  # what a softmax gives is never 0
    assert float(keypoints.heatmap_loss(truth, said)) == pytest.approx(0, abs=1e-4)
    assert float(keypoints.heatmap_loss(truth, 3 * said)) == pytest.approx(0, abs=1e-4)  # whatever its height
    costs = [float(keypoints.heatmap_loss(truth, np.roll(said, n, axis=2))) for n in (1, 2, 3)]
    assert 0.05 < costs[0] < costs[1] < costs[2]
    flat = float(keypoints.heatmap_loss(truth, np.full_like(truth, 0.1)))
    zeros = float(keypoints.heatmap_loss(truth, np.zeros_like(truth)))
    assert zeros > flat > 0.5  # to say nothing is no way out


def test_the_loss_of_true_coordinates_is_nothing_and_grows_with_the_distance() -> None:
    truth = Points().encode(SETS)
    assert float(keypoints.coordinate_loss(truth, truth)) == pytest.approx(0, abs=1e-4)
    said = truth.copy()
    said[..., 0] += 0.1
    assert float(keypoints.coordinate_loss(truth, said)) == pytest.approx(
        1.0, abs=1e-4
    )  # ten tenths of the image are 10
    said[..., 1] -= 0.1
    assert float(keypoints.coordinate_loss(truth, said)) == pytest.approx(2.0, abs=1e-4)
    doubt = truth.copy()
    doubt[..., 2] = 0.5
    assert float(keypoints.coordinate_loss(truth, doubt)) == pytest.approx(np.log(2), abs=1e-4)


@pytest.mark.parametrize("head", ["maps", "points"])
def test_what_is_said_of_unlabelled_points_costs_nothing(head: str) -> None:
    target, loss = (HEATMAP, keypoints.heatmap_loss) if head == "maps" else (Points(), keypoints.coordinate_loss)
    truth = target.encode(SETS)  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    said = rng.uniform(0.1, 0.9, truth.shape).astype(np.float32)
    other = said.copy()
    absent = [(1, 1), (2, 0), (2, 1)]
    for image, k in absent:
        if head == "maps":
            other[image, ..., k] = rng.uniform(0.1, 0.9, truth.shape[1:3])
        else:
            other[image, k, :2] = rng.uniform(0.1, 0.9, 2)
    other[2, ..., :] = 0.5  # nothing is labelled in the third image: all of it is left alone, scores too
    assert float(loss(truth, other)) == float(loss(truth, said))
    # and it is a mean over the labelled points alone: images without any don't dilute it
    assert float(loss(truth[:2], said[:2])) == pytest.approx(float(loss(truth, said)), rel=1e-5)
    assert np.isfinite(float(loss(truth[2:], said[2:]))) and float(loss(truth[2:], said[2:])) == 0


# --- model and task


@pytest.mark.parametrize(("size", "k"), [((64, 96), 5), ((96, 64), 1)])
def test_heatmaps_have_a_cell_per_four_pixels(size: tuple[int, int], k: int) -> None:
    task = Keypoints(NAMES[:k])
    model = task.build("mobilenet_v2", (*size, 3), {"alpha": 0.35})
    assert model.output_shape == (None, size[0] // 4, size[1] // 4, k)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.9}
    said = model.predict_on_batch(np.random.default_rng(0).integers(0, 255, (2, *size, 3), np.uint8))
    assert said.min() >= 0
    # as much in each map as in one that is drawn, away from the edges
    drawn = HEATMAP.encode(labels([(size[1] / 2, size[0] / 2, 2)], size=size)).sum()
    np.testing.assert_allclose(said.sum(axis=(1, 2)), drawn, rtol=1e-3)


def test_coordinates_are_shares_of_the_image() -> None:
    model = SAYS_POINTS.build("mobilenet_v2_points", (64, 96, 3), {"alpha": 0.35})
    assert model.output_shape == (None, 5, 3)
    said = model.predict_on_batch(np.full((2, 64, 96, 3), 90, np.uint8))
    assert said.min() >= 0 and said.max() <= 1
    assert SAYS_POINTS.decoded(said, size=(64, 96))[..., :2] == pytest.approx(said[..., :2] * [96, 64])


def test_a_frozen_base_of_other_weights(tmp_path: Path) -> None:
    path = tmp_path / "base.weights.h5"
    keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, include_top=False).save_weights(path)
    options = {"alpha": 0.35, "weights": str(path), "frozen": True}
    model = TASK.build("mobilenet_v2", (64, 64, 3), options)
    assert len(model.trainable_variables) == 4 * 3 + 2  # four layers with their norms, and the maps


@pytest.mark.parametrize("name", Keypoints.models)
def test_sizes_that_the_features_do_not_fit(name: str) -> None:
    with pytest.raises(UsageError, match="size is 64x100; keypoints want multiples of 32 pixels"):
        TASK.build(name, (64, 100, 3), {})


@pytest.mark.parametrize(
    ("out", "target"),
    [
        ((16, 24, 5), HEATMAP),
        ((8, 12, 5), replace(HEATMAP, stride=8)),
        ((5, 3), Points()),
        ((16, 24, 4), None),
        ((16, 16, 5), None),
        ((15, 24, 5), None),
        ((4, 3), None),
        ((15,), None),
        ((None, None, 5), None),
    ],
)
def test_what_a_network_must_say(out: tuple[int | None, ...], target: Any) -> None:
    if target is None:
        with pytest.raises(UsageError, match=r"mine says \[b, .*, wanted heatmaps .* or coordinates \[b, 5, 3\]"):
            TASK.for_model(out, (64, 96), ends_in=None, name="mine")
    else:
        assert TASK.for_model(out, (64, 96), ends_in=None, name="mine").target((64, 96)) == target


def test_which_epoch_is_better() -> None:
    def rank(pck: float, oks: float, loss: float) -> tuple[float, ...]:
        return TASK.rank({"loss": 9, "val_loss": loss, "val_pck": pck, "val_oks": oks})

    rows = [rank(0.1, 0.9, 1.0), rank(0.2, 0.1, 1.2), rank(1, 0.4, 1.1), rank(1, 0.5, 2.0), rank(1, 0.5, 1.5)]
    assert sorted(rows) == rows
    assert TASK.rank({"loss": 1.0}) > TASK.rank({"loss": 2.0})


def test_what_the_task_chooses_where_nobody_does() -> None:
    chosen = Options(batch_size=4).filled(Keypoints.defaults)
    assert (chosen.batch_size, chosen.learning_rate, chosen.schedule, chosen.size) == (4, 2e-3, "cosine", 224)
    assert chosen.augment == ("flip", "crop", "colour")


def test_photos_are_not_mirrored_where_nobody_knows_left_from_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faces = Faces(tmp_path / "photos", 4)
    named, nameless = pack(faces, tmp_path / "named"), pack(list(faces), tmp_path / "nameless")
    task = Keypoints.of(named)
    assert task is not None and task.class_names == NAMES
    assert task.defaults_for(named)["augment"] == ("flip", "crop", "colour") and not caplog.text
    task = Keypoints.of(nameless)
    assert task is not None and task.class_names == ("0", "1", "2", "3", "4")
    assert task.defaults_for(nameless)["augment"] == ("crop", "colour")
    assert "photos are not mirrored: nobody said which keypoint is the partner of 0, 1, 2, 3, 4" in caplog.text


def test_a_task_that_knows_its_models() -> None:
    assert TASK.target((64, 64)) == HEATMAP and SAYS_POINTS.target((64, 64)) == Points()
    assert SAYS_POINTS.with_threshold(0.7) == Keypoints(NAMES, threshold=0.7, coordinates=True)
    with pytest.raises(UsageError, match="threshold is -1"):
        TASK.with_threshold(-1)


# --- what is found, on the photo


FOUND = np.array([(10, 20, 0.9), (30.25, 20, 0.5), (20, 30, 0.3), (15, 40, 0.29), (0, 0, 0)], np.float32)


def test_rows_right_and_tile() -> None:
    rows = TASK.rows(FOUND)
    assert rows[1] == {"keypoint": "right_eye", "score": "0.500000", "x": "30.25", "y": "20.00"}
    assert [row["keypoint"] for row in rows] == ["left_eye", "right_eye", "nose"]
    assert [row["keypoint"] for row in TASK.with_threshold(0).rows(FOUND)] == list(
        NAMES[:4]
    )  # what is absent has no place
    photo = np.full((60, 80, 3), 128, np.uint8)
    box = np.array([0, 0, 40, 50], np.float32)  # right is within 10 pixels

    def seen(*found: tuple[float, float, float]) -> Observed:
        return Observed(np.array([*found, *[(0, 0, 0)] * (5 - len(found))], np.float32), box)

    assert TASK.is_correct(FOUND, seen((10, 20, 2), (30, 29, 1)))
    assert not TASK.is_correct(FOUND, seen((10, 20, 2), (30, 31, 2)))
    unsure = seen((10, 20, 2), (30, 20, 2), (20, 30, 2), (15, 40, 2))  # the fourth is where it should be, but not shown
    assert not TASK.is_correct(FOUND, unsure) and TASK.with_threshold(0.2).is_correct(FOUND, unsure)
    tile = TASK.tile(photo, FOUND, seen((10, 20, 2), (30, 31, 2)))
    assert (tile.caption, tile.right) == ("1 of 2 keypoints found", False)
    tile = TASK.tile(photo, FOUND, None)
    assert (tile.caption, tile.right) == ("3 of 5 keypoints", None)
    assert photo.min() == photo.max() == 128  # the photo itself is left alone


SOURCE = (70, 110)  # height, width of the upright photo


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("packed", [{}, {"size": (128, 96), "fit": "crop"}, {"size": (96, 160), "fit": "pad"}])
def test_points_go_back_to_the_photo_to_a_pixel(
    tmp_path: Path, orientation: int, fit: Any, packed: dict[str, Any]
) -> None:
    from PIL import Image

    upright = np.zeros((*SOURCE, 3), np.uint8)
    upright[36:41, 52:57] = 255  # its middle is 54.5, 38.5
    back = {3: 3, 6: 2, 8: 4}
    image = Image.fromarray(upright)
    stored = image if orientation == 1 else image.transpose(Image.Transpose(back[orientation]))
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(stored, "JPEG", quality=95, subsampling=0, exif=exif(orientation)))
    options = {"size": None, "fit": "stretch", "channels": None, "quality": 95, "max_pixels": 10**6} | packed
    ((batch, _, (view,)),) = PhotoLoader([path], pack_options=options, size=192, fit=fit)
    assert view.size == (192, 192)
    weights = batch.images[0, ..., 0].astype(float) ** 2
    row, column = ((weights.sum(axis) * (np.arange(192) + 0.5)).sum() / weights.sum() for axis in (1, 0))
    seen = np.array([(column, row, 0.5), (0, 0, 0)], np.float32)
    found = view.back_points(seen)
    np.testing.assert_allclose(found[0], (54.5, 38.5, 0.5), atol=1)
    assert found[1].tolist() == [0, 0, 0]


def test_points_beside_the_photo_go_to_its_border() -> None:
    view = Framing(50, 80, (Move(2.0, 10.0, 2.0, 0.0),), (100, 170))
    assert view.back_points(np.array([[4, 200, 0.4]], np.float32)).tolist() == [[0, 50, pytest.approx(0.4)]]


def test_what_is_known_of_a_photo(tmp_path: Path) -> None:
    """The largest object with a labelled point, in pixels of the photo; nothing, where nothing is labelled."""
    sets = np.array([[(20, 20, 2), (30, 30, 1)], [(50, 40, 2), (0, 0, 0)], [(0, 0, 0), (0, 0, 0)]], np.float32)
    boxes = np.array([[18, 18, 34, 38], [40, 20, 70, 50], [0, 0, 80, 60]], np.float32)
    image = jpeg(60, 80)
    records = [
        hr.Record(id="boxes", encoded=image, boxes=boxes, box_labels=("a",) * 3, keypoints=sets),
        hr.Record(id="points", encoded=image, keypoints=sets),
        hr.Record(id="bare", encoded=image, keypoints=sets[2:]),
        hr.Record(id="dot", encoded=image, keypoints=sets[1:2]),
        hr.Record(id="plain", encoded=image),
    ]
    ds = pack(records, tmp_path / "ds", size=(30, 40))
    task = Keypoints.of(ds)
    assert task is not None
    observe = task.ground_truth(ds)
    rows = {row["id"]: row for row in ds.catalog.iter_rows(named=True)}
    view = Framing(60, 80, (Move(0.5, 0.0, 0.5, 0.0),), (30, 40))
    seen = {id_: observe(row, view) for id_, row in rows.items()}
    assert seen["bare"] is seen["dot"] is seen["plain"] is None
    assert seen["boxes"].points.tolist() == sets[1].tolist() and seen["boxes"].box.tolist() == boxes[1].tolist()
    # without boxes an object is as large as its points lie apart
    assert seen["points"].points.tolist() == sets[0].tolist() and seen["points"].box.tolist() == [20, 20, 30, 30]
    with pytest.raises(UsageError, match=r"its keypoints are 0, 1, the run's are left_eye, .* the same names"):
        TASK.ground_truth(ds)
    with pytest.raises(UsageError, match="has no keypoints to compare with"):
        TASK.ground_truth(pack(records[-1:], tmp_path / "plain"))


def test_pck_is_drawn() -> None:
    off = np.array([[0.1, np.nan], [0.3, np.nan]])
    figure = plots.pck(off, ("seen", "$never$"), alpha=0.2)
    curve, bars = figure.axes
    assert curve.lines[0].get_ydata()[[0, 20, 40, 60, 100]].tolist() == [0, 0.5, 0.5, 1, 1]
    assert [bar.get_width() for bar in bars.patches] == [0.5, 0]
    assert len(plots.png(figure)) > 5000
    assert len(plots.png(plots.pck(np.full((2, 1), np.nan), ("a",), alpha=0.2))) > 5000
