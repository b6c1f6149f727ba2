"""A painted rectangle and its box go through the packer and the loader, and still agree to one pixel at the end."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

import headrace as hr
from drawn import exif, saved
from headrace.imaging.codec import Pixels
from headrace.imaging.geometry import Array
from packed import pack
from painted import assert_painted_at, can_be_told, fits, painted, whiteness

AUGMENT = {
    "flip": hr.HorizontalFlip(),
    "crop": hr.RandomResizedCrop(scale=(0.3, 1)),
    "colour": hr.ColorJitter(brightness=0.4, contrast=0.4),
}
ORIENTATIONS = range(1, 9)
# Not much larger than what they are made of: of a blurred edge that is cut, nobody can tell where it was.
sizes = st.tuples(st.integers(24, 120), st.integers(24, 120))
sides = st.integers(70, 160)
packings = (
    st.fixed_dictionaries({"size": st.none() | sizes.map(lambda hw: (hw[0] + 40, hw[1] + 40)), "fit": fits})
    | st.fixed_dictionaries({"max_side": sides, "enlarge": st.booleans()})
    | st.fixed_dictionaries({"min_side_to": sides, "enlarge": st.booleans()})
)
loadings = st.fixed_dictionaries(
    {
        "size": sizes,
        "fit": fits,
        "seed": st.integers(0, 99),
        "augment": st.lists(st.sampled_from(sorted(AUGMENT)), unique=True).map(
            lambda names: tuple(AUGMENT[name] for name in names)
        ),
    }
)


@settings(max_examples=80)
@given(
    scene=painted(sides=st.integers(30, 120)),
    enlarged=st.sampled_from([2, 3, 8]),
    kind=st.sampled_from(["JPEG", "PNG"]),
    packing=packings,
    loading=loadings,
)
def test_a_painted_rectangle_stays_in_its_box(
    scene: tuple[Pixels, Array], enlarged: int, kind: str, packing: dict[str, Any], loading: dict[str, Any]
) -> None:
    """All eight EXIF orientations of one picture; enlarged, so that the loader decodes it 2, 4 or 8 times smaller."""
    pixels, box = scene
    pixels, box = np.kron(pixels, np.ones((enlarged, enlarged, 1), np.uint8)), box * enlarged
    records = [
        hr.Record(
            id=str(orientation),
            encoded=saved(pixels, kind, exif=exif(orientation), **({"quality": 95} if kind == "JPEG" else {})),
            boxes=box,
            box_labels=("painted",),
        )
        for orientation in ORIENTATIONS
    ]
    with tempfile.TemporaryDirectory() as folder:
        ds = pack(records, Path(folder) / "ds", **packing)
        batch = ds.loader(batch_size=8, shuffle=False, min_visible=0, **loading)[0]
        stored = {ds[i].id: ds[i].boxes for i in range(8)}
    for id_, image, boxes, mask in zip(
        batch.ids, batch.images, batch.targets["boxes"], batch.targets["mask"], strict=True
    ):
        if mask.any():
            assert len(stored[id_]) == mask.sum() == 1
            # A line of less than two stored pixels has none that is white all over: enlarged, its half is anywhere.
            if can_be_told(boxes[0]) and np.ptp(stored[id_].reshape(2, 2), axis=0).min() >= 2:
                assert_painted_at(image, boxes[0])
                event("told")
        elif len(stored[id_]):
            white = whiteness(image) >= 0.5
            assert min(white.any(0).sum(), white.any(1).sum()) <= 1  # to one pixel
            event("cut away")
