"""A painted rectangle and its box go through the packer and the loader, and still agree to one pixel at the end.

One of the output or of the stored image, whichever is larger there: between two stored pixels an edge is a ramp, and a
change of contrast that saturates moves its half along it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import event, example, given
from hypothesis import strategies as st

import headrace as hr
from amount import examples
from drawn import exif, saved
from headrace.imaging.codec import Pixels
from headrace.imaging.geometry import Array
from packed import pack
from painted import assert_painted_at, can_be_told, fits, painted, rectangle, whiteness

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


@examples(20, 80)
@given(
    scene=painted(sides=st.integers(30, 120)),
    enlarged=st.sampled_from([2, 3, 8]),
    kind=st.sampled_from(["JPEG", "PNG"]),
    packing=packings,
    loading=loadings,
)
@example(  # 13 stored rows are drawn as 54: a ramp is 4 pixels long, and its half a pixel from where it was
    scene=rectangle(43, 110, (0, 0, 49, 6)),
    enlarged=2,
    kind="JPEG",
    packing={"max_side": 70, "enlarge": False},
    loading={"size": (54, 24), "fit": "crop", "seed": 0, "augment": (AUGMENT["colour"], AUGMENT["crop"])},
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
        loader = ds.loader(batch_size=8, shuffle=False, min_visible=0, **loading)
        batch, moves = loader[0], [placement.move for placement in loader._draft(0, 0).placements]
        stored = {ds[i].id: ds[i].boxes for i in range(8)}
    for id_, image, boxes, mask, move in zip(
        batch.ids, batch.images, batch.targets["boxes"], batch.targets["mask"], moves, strict=True
    ):
        within = max(1.0, abs(float(move.scale_x))), max(1.0, float(move.scale_y))
        if mask.any():
            assert len(stored[id_]) == mask.sum() == 1
            # A line of less than two stored pixels has none that is white all over: enlarged, its half is anywhere.
            if can_be_told(boxes[0]) and np.ptp(stored[id_].reshape(2, 2), axis=0).min() >= 2:
                assert_painted_at(image, boxes[0], within=within)
                event("told")
        elif len(stored[id_]):
            white = whiteness(image) >= 0.5
            assert white.any(0).sum() <= within[0] or white.any(1).sum() <= within[1]
            event("cut away")
