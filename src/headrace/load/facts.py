"""Facts: what a target may ask about the records of a view, as plain numbers and names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`records`: how many there are; `unlabelled` of them have no class. `keeps_y`: y is kept as it was given.

    `multi_label`: records of the dataset may have several classes; `without_labels`: records of which nothing is said
    of theirs. `value_range`: the least and the greatest number that is known of a record, None where none of them has
    one; `without_value` of them have none.

    `has_boxes`: the dataset has boxes at all; `without_boxes`: records of which nothing is said of boxes, which is not
    to say that there are none. `box_classes`: the names of what boxes hold, by index; `unlabelled_boxes` have none.

    `keypoints`: how many an object has, 0 where there are none; `keypoint_names` in their order, empty when nobody said
    them; `flip_pairs`: the numbers of those that change places in a mirror; `without_keypoints`: records of which
    nothing is said of keypoints. What single boxes and keypoints say is 0 for a target that wants neither.
    """

    records: int
    unlabelled: int = 0
    keeps_y: bool = False
    multi_label: bool = False
    without_labels: int = 0
    value_range: tuple[float, float] | None = None
    without_value: int = 0
    has_boxes: bool = False
    without_boxes: int = 0
    box_classes: tuple[str, ...] = ()
    unlabelled_boxes: int = 0
    keypoints: int = 0
    keypoint_names: tuple[str, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    without_keypoints: int = 0
