"""Label maps: those of the TF Object Detection API, and our own, as protobuf reads them."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.adopting import classes
from headrace.format import manifest

# (a label map, the names it gives by their numbers)
LABEL_MAPS: list[tuple[str, dict[int, str]]] = [
    # as mscoco_label_map.pbtxt, and as CenterNet's with keypoints, whose ids come before the item's own
    ('item {\n  name: "/m/01g317"\n  id: 1\n  display_name: "person"\n}\n', {1: "person"}),
    (
        "item {\n  keypoints {\n    id: 0\n    label: 'nose'\n  }\n  keypoints { id: 7 label: 'eye' }\n"
        "  display_name: 'Person'\n  id: 3\n}\nitem { name: 'cat' id: 5 }",
        {3: "Person", 5: "cat"},
    ),
    ("item: < id: 2, name: 'a' > item { id: 0; name: 'b' }", {0: "b", 2: "a"}),
    ("# item { id: 8 name: 'no' }\nitem { id: 1 name: 'a # } b' }", {1: "a # } b"}),
    ("item { id: 1 name: 'x' frequency: RARE ancestor_ids: [1, 2] lvis { n: 1.5 } }", {1: "x"}),
    ("item { id: 0x10 name: 'K\\303\\244tz' \"chen\" }", {16: "Kätzchen"}),
]


@pytest.mark.parametrize(("text", "wanted"), LABEL_MAPS)
def test_a_label_map_is_read_as_protobuf_reads_it(text: str, wanted: dict[int, str], tmp_path: Path) -> None:
    (tmp_path / "map.pbtxt").write_text(text)
    names = classes.names_given(tmp_path / "map.pbtxt")
    assert names is not None and names.numbers == wanted and names.names == tuple(wanted[n] for n in sorted(wanted))


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=("Cs",)), min_size=1), unique=True))
def test_our_own_label_map_is_read_back(names: list[str]) -> None:
    made = replace(hr.ArrayDataset(np.zeros((1, 2, 2, 1), np.uint8)).manifest, classes=tuple(names))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / manifest.LABEL_MAP_FILE
        path.write_bytes(manifest.side_files(made, name="x")[manifest.LABEL_MAP_FILE])
        if names:
            read = classes.names_given(path)
            assert read is not None and read.numbers == dict(enumerate(names, start=1))
