"""Tables of images become records: what each kind of row and column says, and what is made of rows that say nothing."""

from __future__ import annotations

import csv as standard
import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawn import exif, files, jpeg, saved
from headrace import sources
from headrace.errors import DataError, NotThereError, UsageError
from headrace.imaging import codec
from headrace.record import Record, Reject, check_record
from headrace.sources.info import collect
from headrace.sources.registry import guess
from mutated import mutated
from painted import assert_painted_at, painted, sides

KEPT = ("label_name", "labels", "value", "captions", "box_labels", "size", "split", "group")
PHOTO = jpeg()
RETINANET = "a.jpg,1,2,30,40,cat\n"
TF_OD = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def source(folder: Path, text: str | bytes, name: str = "t.csv", **options: Any) -> Any:
    """The source of `text`, beside images a to e of 56 x 40 pixels, and f/g.png."""
    files(folder / "in", dict.fromkeys((f"{name}.jpg" for name in "abcde"), PHOTO) | {"f/g.png": saved(_grey(), "PNG")})
    files(folder / "in", {name: text if isinstance(text, bytes) else text.encode()})
    return sources.csv(folder / "in" / name, **options)


def _grey() -> Any:
    return np.zeros((40, 56, 1), np.uint8)


def seen(record: Record) -> codec.Pixels:
    """The image of a record, upright."""
    data = record.read()
    header = codec.read_header(data)
    return codec.upright(codec.decode(data, header=header, channels=1), header.orientation)


def gist(item: Record | Reject) -> Any:
    """Of a Record what it says beside its image, of a Reject its line and reason."""
    if isinstance(item, Reject):
        return f"{item.id} :{item.origin.partition(':')[2]} {item.reason}"
    assert check_record(item) is None
    said = {name: value for name in KEPT if (value := getattr(item, name)) is not None}
    if item.boxes is not None:
        assert item.boxes.dtype == np.float32
        said["boxes"] = item.boxes.tolist()
    if item.attributes:
        said["attributes"] = dict(item.attributes)
    return item.id, said


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # RetinaNet: no header, pixels from 0 on, half-open; rows of an image anywhere; a negative
        (
            RETINANET + "b.jpg,,,,,\nc.jpg,0,0,5.5,6,dog\na.jpg,3,4,5,6,dog\n",
            [
                ("a.jpg", {"boxes": [[1, 2, 30, 40], [3, 4, 5, 6]], "box_labels": ("cat", "dog")}),
                ("b.jpg", {"boxes": [], "box_labels": ()}),
                ("c.jpg", {"boxes": [[0, 0, 5.5, 6]], "box_labels": ("dog",)}),
            ],
        ),
        # a negative whose cells are all empty, those of its size too
        (
            TF_OD + "a.jpg,56,40,cat,1,2,3,4\nb.jpg,,,,,,,\n",
            [
                ("a.jpg", {"boxes": [[1, 2, 3, 4]], "box_labels": ("cat",), "size": (40, 56)}),
                ("b.jpg", {"boxes": [], "box_labels": ()}),
            ],
        ),
        # TF Object Detection: a header, corners as they stand, sizes; columns that it doesn't have are attributes
        (
            TF_OD.strip() + ",difficult,iscrowd,pose,track_id\r\na.jpg,56,40,cat,1,2,30,40,1,,Left,7\r\n"
            "a.jpg,56,40,dog,0,0,1,1,,0,,\r\nb.jpg,56,40,,,,,,,,,\r\n",
            [
                (
                    "a.jpg",
                    {
                        "boxes": [[1, 2, 30, 40], [0, 0, 1, 1]],
                        "box_labels": ("cat", "dog"),
                        "size": (40, 56),
                        "attributes": {
                            "difficult": [1, -1],
                            "is_crowd": [-1, 0],
                            "pose": ["Left", None],
                            "track": [7, None],
                        },
                    },
                ),
                (
                    "b.jpg",
                    {
                        "boxes": [],
                        "box_labels": (),
                        "size": (40, 56),
                        "attributes": {"difficult": [], "is_crowd": [], "pose": [], "track": []},
                    },
                ),
            ],
        ),
        # classes of whole images: without a header, with one; no label; said twice
        ("a.jpg,cat\nb.jpg,\n", [("a.jpg", {"label_name": "cat"}), ("b.jpg", {})]),
        ("Image,Class\na.jpg,cat\nb.jpg,\na.jpg,cat\n", [("a.jpg", {"label_name": "cat"}), ("b.jpg", {})]),
        ("image,class\na.jpg,cat\na.jpg,dog\n", ["a.jpg :3 the label is 'dog', in a row before it is 'cat'"]),
        # several classes; none of them; rows that add some
        (
            "path,labels\na.jpg,cat|dog\nb.jpg,\na.jpg,fox\n",
            [("a.jpg", {"labels": ("cat", "dog", "fox")}), ("b.jpg", {"labels": ()})],
        ),
        ('path,tags\na.jpg,"cat, dog"\n', [("a.jpg", {"labels": ("cat", "dog")})]),
        ("path\ttags\na.jpg\tcat;dog\n", [("a.jpg", {"labels": ("cat", "dog")})]),
        # numbers, splits by their usual names, groups, captions of several rows
        (
            "path,value,split,group,caption\na.jpg,-1.5e1,validation,p1,A cat.\n"
            'a.jpg,-15,val,p1,"A dog, and\nmore."\nb.jpg,,my_part,,\n',
            [
                ("a.jpg", {"value": -15.0, "captions": ("A cat.", "A dog, and\nmore."), "split": "val", "group": "p1"}),
                ("b.jpg", {"split": "my_part"}),
            ],
        ),
        # attributes of an image: as they are written, None of the empty ones is kept
        (
            "path,label,Who Did It,n,x,nothing\na.jpg,cat,me,3,-0.50,\nb.jpg,dog,007,1e5,nan,\n",
            [
                ("a.jpg", {"label_name": "cat", "attributes": {"who_did_it": "me", "n": 3, "x": -0.5}}),
                ("b.jpg", {"label_name": "dog", "attributes": {"who_did_it": "007", "n": "1e5", "x": "nan"}}),
            ],
        ),
        # BOM, quotes, semicolons, a folder, a name without extension, blank rows, white space
        (
            '\ufeff"path";"label"\n"a.jpg";cat\n\n;\n f/g ; dog \n',
            [("a.jpg", {"label_name": "cat"}), ("f/g.png", {"label_name": "dog"})],
        ),
        # columns that are two of a box, or one of a size, are nothing of the kind
        (
            "path,label,x1,y1,width\na.jpg,cat,1,2,3\n",
            [("a.jpg", {"label_name": "cat", "attributes": {"x1": 1, "y1": 2, "width": 3}})],
        ),
    ],
)
def test_what_rows_say(text: str, wanted: list[Any], tmp_path: Path) -> None:
    made = source(tmp_path, text)
    assert [gist(item) for item in made] == wanted
    assert guess(made.root)[0].name == "csv"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        # what stands where numbers are wanted
        ("b.jpg,nan,2,3,4,cat", "xmin is 'nan', wanted a number"),
        ("b.jpg,1,inf,3,4,cat", "ymin is 'inf', wanted a number"),
        ("b.jpg,1,2,1e39,4,cat", "xmax is '1e39', wanted a number"),
        ("b.jpg,1,2,3,,cat", "ymax is '', wanted a number"),
        ("b.jpg,one,2,3,4,cat", "xmin is 'one', wanted a number"),
        ("b.jpg,1_0,2,30,4,cat", "xmin is '1_0', wanted a number"),
        ("b.jpg,١,2,30,4,cat", "xmin is '١', wanted a number"),
        ("b.jpg," + "9" * 400 + ",2,30,4,cat", "xmin is '999"),
        # boxes
        ("b.jpg,9,2,3,4,cat", "the box is reversed: 9 to 3, 2 to 4; wanted xmin < xmax"),
        ("b.jpg,1,5,3,4,cat", "the box is reversed: 1 to 3, 5 to 4"),
        ("b.jpg,1,2,3,4,", "a box without a class"),
        ("b.jpg,,,,,cat", "an object of class 'cat' without a box"),
        ('b.jpg,1,2,3,4,"c\nt"', r"the class: 'c\nt' holds a line break"),
        # rows
        ("b.jpg,1,2,3,4", "5 cells, wanted 6"),
        ("b.jpg,1,2,3,4,cat,dog", "7 cells, wanted 6"),
        ('b.jpg,1,2,3,4,"cat', "a quote that is not closed"),
        # names
        ("../b.jpg,1,2,3,4,cat", "the name leads out of the folder of images"),
        ("/etc/passwd,1,2,3,4,cat", "the name leads out of the folder of images"),
        ("\\\\host\\share\\b.jpg,1,2,3,4,cat", "no such file or directory"),
        ("C:\\b.jpg,1,2,3,4,cat", "no such file or directory"),
        ("http://x/b.jpg,1,2,3,4,cat", "no such file or directory"),
        ("b\0.jpg,1,2,3,4,cat", "the name holds control characters"),
        ("\x1b[31m.jpg,1,2,3,4,cat", "the name holds control characters"),
        ("gone.jpg,1,2,3,4,cat", "no such file or directory"),
        ("f,1,2,3,4,cat", "not a regular file"),
        (",1,2,3,4,cat", "no path in the row"),
    ],
)
def test_a_row_that_is_none_is_a_reject_with_its_line(row: str, says: str, tmp_path: Path) -> None:
    """And takes nothing good with it, but for the other boxes of its image."""
    made = source(tmp_path, f"{RETINANET}b.jpg,1,1,2,2,cat\n{row}\nc.jpg,1,1,2,2,cat\n")
    items = list(made)
    bad = [item for item in items if isinstance(item, Reject)]
    assert len(bad) == 1 and says in bad[0].reason and bad[0].origin == "t.csv:3"
    mine = row.startswith("b.jpg")
    assert [item.id for item in items if isinstance(item, Record)] == ["a.jpg", *([] if mine else ["b.jpg"]), "c.jpg"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("b.jpg,0,40,cat,1,2,3,4", "width is '0', wanted whole pixels"),
        ("b.jpg,56,,cat,1,2,3,4", "height is '', wanted a number"),
        ("a.jpg,57,40,cat,1,2,3,4", "the size is (40, 57), in a row before it is (40, 56)"),
    ],
)
def test_sizes_that_are_none(row: str, says: str, tmp_path: Path) -> None:
    made = source(tmp_path, f"{TF_OD}a.jpg,56,40,cat,1,2,3,4\n{row}\n")
    assert [item.reason for item in made if isinstance(item, Reject)] == [says]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("b.jpg,1,train,2,", "difficult is '2', wanted 0 or 1, or -1 for unknown"),
        ("b.jpg,1,train,,x", "track is 'x', wanted a whole number"),
        ("b.jpg,x,train,,", "the value is 'x', wanted a number"),
        ("b.jpg,1,../x,,", "split name '../x': wanted letters, digits and '_'"),
    ],
)
def test_cells_that_are_none(row: str, says: str, tmp_path: Path) -> None:
    made = source(tmp_path, f"path,value,split,difficult,track\na.jpg,1,train,0,3\n{row}\n")
    assert [gist(item) for item in made] == [
        ("a.jpg", {"value": 1.0, "split": "train", "attributes": {"difficult": 0, "track": 3}}),
        f"b.jpg :3 {says}",
    ]


def test_mixed_encodings(tmp_path: Path) -> None:
    rows = "path,label\na.jpg,Käfer\n".encode() + "b.jpg,Käfer\nä.jpg,cat\n".encode("latin-1") + b"c.jpg,cat\n"
    items = list(source(tmp_path, rows))
    assert [gist(item) for item in items if isinstance(item, Record)] == [
        ("a.jpg", {"label_name": "Käfer"}),
        ("c.jpg", {"label_name": "cat"}),
    ]
    assert [(item.origin, item.reason) for item in items if isinstance(item, Reject)] == [
        ("t.csv:3", "the row is not UTF-8"),
        ("t.csv:4", "the name holds halves of characters"),
    ]


@pytest.mark.parametrize(
    ("text", "options", "error", "says"),
    [
        ("", {}, DataError, "t.csv: the table is empty"),
        ("\n\n", {}, DataError, "t.csv: the table is empty"),
        ("photo,kind\na.jpg,cat\n", {}, DataError, "t.csv:1: no header that is known: 'photo', 'kind'; say"),
        ("photo,label\na.jpg,cat\n", {}, DataError, "t.csv:1: no header that is known"),
        ("photo,kind\n", {"columns": {"label": "kind"}}, DataError, "which column names the image\\? It has photo"),
        ("path,label\n", {"columns": {"label": "kind"}}, UsageError, "columns: label=kind, and .*t.csv has the col"),
        ("path,label\n", {"columns": ["kind"]}, UsageError, "columns is 'kind', wanted ROLE=NAME"),
        ("path,label\n", {"columns": ["kind=label"]}, UsageError, "columns: no role 'kind', wanted one of path, label"),
        ("path,a,label\n", {"columns": ["xmin=a"]}, UsageError, "columns: xmin of a box, wanted all of xmin, ymin"),
        ("a.jpg,cat\n", {"columns": ["path=1", "label=3"]}, UsageError, "columns: label=3, and line 1 of .* has 2 c"),
        ("a.jpg,cat\n", {"columns": ["label=kind"]}, UsageError, "t.csv has no header; wanted numbers from 1 on"),
        ("path,label\n", {"one_hot": ["cat"]}, UsageError, "one_hot: 'cat', and .*t.csv has the columns path, label"),
        ("path,label\n", {"separator": ";;"}, UsageError, "separator is ';;', wanted one character"),
        ("a.jpg,0.1,0.2,0.3,0.4,cat\n", {}, DataError, "boxes are fractions .*, 0.4 at most, .*normalised=True"),
        ("path,label\n".encode("utf-16"), {}, DataError, "t.csv:1: the file is UTF-16, wanted UTF-8; convert it"),
        ("path,label\ra.jpg,cat\r", {}, DataError, "lines end in carriage returns alone"),
    ],
)
def test_one_clear_error(text: Any, options: Any, error: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        list(source(tmp_path, text, **options))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="no such file"):
        sources.csv(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="is no regular file"):
        sources.csv(tmp_path)
    files(tmp_path, {"t.csv": b"a.jpg,cat\n"})
    with pytest.raises(NotThereError, match="no such folder"):
        sources.csv(tmp_path / "t.csv", images=tmp_path / "none")


def test_columns_by_other_names_and_by_numbers(tmp_path: Path) -> None:
    wanted = [("a.jpg", {"label_name": "cat"})]
    made = source(tmp_path, "label;photo;kind\n1;a.jpg;cat\n", columns={"path": "photo", "label": "KIND"})
    assert [gist(item) for item in made] == [("a.jpg", {"label_name": "cat", "attributes": {"label": 1}})]
    assert collect(made)[1].notes == (
        "columns taken: path = photo, label = kind; attributes: label",
        "cells are separated by ;",
    )
    made = source(tmp_path, "7,cat,a\n8,,b.jpg\n", columns=["path=3", "label=2"])
    assert [gist(item) for item in made] == [*wanted, ("b.jpg", {})]
    assert collect(made)[1].notes[0] == "no header; columns taken: 3 = path, 2 = label"


def test_one_hot_columns(tmp_path: Path) -> None:
    text = "id,cat,dog,note\na,1,0,x\nb,0,0.0,\nc,1.0,1,\nd,2,0,\ne,-1,0,\n"
    made = source(tmp_path, text, one_hot=["dog", "cat"])
    items, info = collect(made)
    assert [gist(item) for item in items] == [
        ("a.jpg", {"labels": ("cat",), "attributes": {"note": "x"}}),
        ("b.jpg", {"labels": ()}),
        ("c.jpg", {"labels": ("dog", "cat")}),
        "d :5 column cat is '2', wanted 1 or 0",
        "e :6 column cat is '-1', wanted 1 or 0",
    ]
    assert info.class_names == ("dog", "cat") and "3 names without an extension" in info.notes[-1]


def test_classes_of_a_file(tmp_path: Path) -> None:
    files(tmp_path, {"classes.csv": b"dog,1\r\ncat,0\r\n"})
    for names in (tmp_path / "classes.csv", (str(tmp_path / "classes.csv"),)):
        items, info = collect(source(tmp_path, f"{RETINANET}b.jpg,1,2,3,4,fox\n", class_names=names))
        assert info.box_class_names == ("cat", "dog") and info.class_names is None
        assert gist(items[1]) == "b.jpg :2 class 'fox' is not among class_names"
    items, info = collect(source(tmp_path, "a.jpg,cat\nb.jpg,fox\n", class_names=["dog", "cat"]))
    assert info.class_names == ("dog", "cat") and len(items) == 2 and isinstance(items[1], Reject)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cat,0\ndog\n", "classes.csv:2: found 'dog', wanted a class and its index, as cat,0"),
        ("cat,0\ndog,x\n", "classes.csv:2: found 'dog,x', wanted a class"),
        ("cat,0\ndog,0\n", "classes.csv:2: dog,0: the class or the index occurs twice"),
        ("cat,0\ndog,2\n", r"the indices are \[0, 2\], wanted 0, 1, 2, … without a gap"),
        ("", "without a gap"),
    ],
)
def test_files_of_classes_that_are_none(text: str, says: str, tmp_path: Path) -> None:
    files(tmp_path, {"classes.csv": text.encode()})
    with pytest.raises(DataError, match=says):
        source(tmp_path, RETINANET, class_names=tmp_path / "classes.csv")


# --- coordinates -----------------------------------------------------------------------------------------------------


@given(painted(sides=sides))
def test_painted_rectangles_in_pixels(tmp_path_factory: pytest.TempPathFactory, drawn: Any) -> None:
    pixels, box = drawn
    x0, y0, x1, y1 = map(int, box[0])
    h, w = pixels.shape[:2]
    folder = tmp_path_factory.mktemp("in")
    files(folder, {"a.png": saved(pixels, "PNG")})
    for text in (f"a.png,{x0},{y0},{x1},{y1},cat\n", f"{TF_OD}a.png,{w},{h},cat,{x0},{y0},{x1},{y1}\n"):
        files(folder, {"t.csv": text.encode()})
        (record,) = sources.csv(folder / "t.csv")
        assert isinstance(record, Record) and record.boxes is not None and not record.upright
        assert_painted_at(seen(record), record.boxes[0], within=1e-3)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("sized", [False, True])
def test_painted_rectangles_in_fractions_of_the_upright_image(orientation: int, sized: bool, tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 1), np.uint8)  # as it is seen
    pixels[10:20, 15:45] = 255
    turned = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    image = saved(np.rot90(pixels[..., 0], turned).copy(), "PNG", exif=exif(orientation))
    size, header = ("60,40,", "width,height,") if sized else ("", "")
    text = f"path,{header}class,x1,y1,x2,y2\na.png,{size}cat,0.25,0.25,0.75,0.5\nb.png,{size}cat,0,0,1,5\n"
    files(tmp_path, {"a.png": image, "b.png": image, "t.csv": text.encode()})
    record, reject = sources.csv(tmp_path / "t.csv", normalised=True)
    assert isinstance(record, Record) and record.boxes is not None
    assert (record.size, record.upright) == ((40, 60), True)
    assert seen(record).shape[:2] == (40, 60)
    assert_painted_at(seen(record), record.boxes[0], within=1e-3)
    assert gist(reject) == "b.png :3 the box has 5, wanted fractions of the image from 0 to 1"


def test_fractions_of_what_is_no_image(tmp_path: Path) -> None:
    made = source(tmp_path, "t.csv,0,0,1,1,cat\na.jpg,0,0,1,1,cat\n", columns={}, normalised=True)
    with pytest.raises(DataError):
        list(made)
    made = source(tmp_path, "a.jpg,0,0,1,1,cat\nt.csv,0,0,1,1,cat\n", normalised=True)
    record, reject = made
    assert isinstance(reject, Reject) and (reject.stage, reject.origin) == ("header", "t.csv:2")
    assert record.boxes.tolist() == [[0, 0, 56, 40]]


# --- strangers' files ------------------------------------------------------------------------------------------------

SAMPLES = [
    RETINANET + "b.jpg,,,,,\nc.jpg,0,0,5.5,6,dog\na.jpg,3,4,5,6,dog\n",
    TF_OD + 'a.jpg,56,40,cat,1,2,30,40\nb.jpg,56,40,"d,o""g",1,2,3,4\na.jpg,56,40,cat,3,4,5,6\n',
    'path;labels;split;value;caption;difficult\na.jpg;cat|dog;train;1.5;"A\ncat";1\nb.jpg;;val;;;\n',
]


@pytest.mark.parametrize("sample", SAMPLES)
def test_mutated_files(sample: str, tmp_path: Path) -> None:
    """Records that are sound, of images inside, Rejects with a line, or one error; never anything else."""
    files(tmp_path, {"secret.jpg": jpeg(), "x": jpeg()})
    ends = {"records": 0, "rejects": 0, "errors": 0}
    made = source(tmp_path, "")
    for seed in range(200):
        made.root.write_bytes(mutated(sample.encode(), seed))
        items: list[Record | Reject] = []
        try:
            items += made
        except (DataError, UsageError):
            ends["errors"] += 1
        for item in items:
            assert item.origin.startswith("t.csv:") and item.origin[6:].isdecimal()
            if isinstance(item, Record):
                assert check_record(item) is None and item.path is not None
                assert Path(item.path).resolve().is_relative_to(tmp_path / "in")
                ends["records"] += 1
            else:
                ends["rejects"] += 1
    assert min(ends.values()) > 5, ends


def test_a_link_that_leads_out(tmp_path: Path) -> None:
    files(tmp_path, {"secret.jpg": jpeg()})
    made = source(tmp_path, "link.jpg,cat\na.jpg,cat\n")
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    reject, record = made
    assert "a link leads out of the folder of images" in reject.reason and record.id == "a.jpg"


def test_memory_is_that_of_numbers(tmp_path: Path) -> None:
    """20,000 rows of 5 images, one after the other in turn, with a long column: 28 bytes each, and little more."""
    n = 20_000
    text = io.StringIO()
    text.write("path,label,x1,y1,x2,y2,note\n")
    for i in range(n):
        text.write(f"{'abcde'[i % 5]}.jpg,cat,{i % 7},2,{i % 7 + 3},4,{'x' * 40}{i}\n")
    made = source(tmp_path, text.getvalue())
    reading = iter(made)
    tracemalloc.start()
    first = next(reading)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(first.boxes) == n // 5
    own = n // 5 * 600  # of the one record that is being made
    assert peak < 60 * n + own, peak / n


# --- there and back --------------------------------------------------------------------------------------------------

texts = st.text(st.sampled_from("ab;,|\"'é \t0"), min_size=1, max_size=6).filter(lambda text: text.strip() == text)
corners = st.floats(2, 500, width=32).map(float)
boxes = st.tuples(corners, corners, corners, corners, texts).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]), b[4])
)


@given(
    st.dictionaries(st.sampled_from("abcde"), st.lists(boxes, min_size=1, max_size=3), min_size=1),
    st.sampled_from(",;\t"),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_boxes_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, list[Any]], separator: str, header: bool, draw: Any
) -> None:
    """What the standard library writes, rows in any order, is read as the same boxes of the same images."""
    rows = [(f"{name}.jpg", *map(repr, box[:4]), box[4]) for name, some in wanted.items() for box in some]
    draw.shuffle(rows)
    out = io.StringIO()
    writer = standard.writer(out, delimiter=separator)
    writer.writerows([("path", "x1", "y1", "x2", "y2", "class")] * header + rows)
    made = source(tmp_path_factory.mktemp("t"), out.getvalue(), separator=separator)
    found = {}
    for record in made:
        assert isinstance(record, Record) and record.boxes is not None and record.box_labels is not None
        found[record.id] = sorted(
            (*box, name) for box, name in zip(record.boxes.tolist(), record.box_labels, strict=True)
        )
    assert found == {f"{name}.jpg": sorted(some) for name, some in wanted.items()}
