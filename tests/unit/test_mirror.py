"""Which keypoints change places in a mirror: told from their names, and never guessed where the names don't say."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.imaging import mirror

SIDED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO = ["nose", *(f"{side}_{part}" for part in SIDED for side in ("left", "right"))]

# names, their pairs, and those of which nobody can say what a mirror makes of them
NAMES = {
    "COCO": (COCO, [(i, i + 1) for i in range(1, 17, 2)], ()),
    "right first": (["right_eye", "left_eye"], [(0, 1)], ()),
    "far from each other": (["left_eye", "nose", "chin", "right_eye"], [(0, 3)], ()),
    "side last": (["eye_left", "eye_right"], [(0, 1)], ()),
    "a letter first": (["l_eye", "r_eye"], [(0, 1)], ()),
    "a letter last": (["eye_l", "eye_r", "nose"], [(0, 1)], ()),
    "words": (["Left Eye", "Right Eye"], [(0, 1)], ()),
    "hyphens": (["Left-Eye", "right-eye"], [(0, 1)], ()),
    "capitals": (["LEFT_EYE", "RIGHT_EYE"], [(0, 1)], ()),
    "camel": (["leftEye", "rightEye", "LeftEar", "RightEar"], [(0, 1), (2, 3)], ()),
    "camel letters": (["LEye", "REye", "earL", "earR"], [(0, 1), (2, 3)], ()),
    "one word": (["lefteye", "righteye"], [(0, 1)], ()),
    "one word with a letter": (["lankle", "rankle", "Rwrist", "Lwrist"], [(0, 1), (2, 3)], ()),
    "in the middle": (["upper_left_lip", "upper_right_lip"], [(0, 1)], ()),
    "twice": (["left_eye_left", "left_eye_right", "right_eye_left", "right_eye_right"], [(0, 3), (1, 2)], ()),
    "numbers": (["left1", "right1", "left2", "right2"], [(0, 1), (2, 3)], ()),
    "letters of others": (["œil_left", "œil_right"], [(0, 1)], ()),
    "no sides": (["nose", "chin", "bright spot", "leftover", "l", "r", "alpha_r_b", "0"], [], ()),
    "none": ([], [], ()),
    # a side without its partner is no pair, and can't be mirrored
    "half": (["left_eye", "nose"], [], ("left_eye",)),
    "halves": (["left_eye", "right_ear", "eye_l", "eye_r"], [(2, 3)], ("left_eye", "right_ear")),
}


@pytest.mark.parametrize("name", NAMES)
def test_pairs_of_names(name: str) -> None:
    names, pairs, unpaired = NAMES[name]
    assert mirror.pairs(names) == tuple(pairs)
    assert mirror.unpaired(len(names), names, tuple(pairs)) == unpaired


@pytest.mark.parametrize(
    ("k", "names", "pairs", "wanted"),
    [
        (0, (), (), ()),
        (1, (), (), ()),  # there is nothing it could change places with
        (3, (), (), ("0", "1", "2")),
        (3, (), ((0, 2),), ("1",)),
        (3, (), ((0, 2), (1, 1)), ()),
        (2, ("left_eye", "nose"), ((0, 0),), ()),
        (2, ("left_eye", "nose"), ((0, 1),), ()),
    ],
)
def test_what_can_not_be_told(k: int, names: tuple[str, ...], pairs: mirror.Pairs, wanted: tuple[str, ...]) -> None:
    assert mirror.unpaired(k, names, pairs) == wanted


def test_order() -> None:
    found = mirror.order(5, ((1, 3), (0, 0)))
    assert found.dtype == np.int64 and found.tolist() == [0, 3, 2, 1, 4]
    assert found[found].tolist() == [0, 1, 2, 3, 4]
