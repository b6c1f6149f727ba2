"""Damaged images, 1,080 of them: refused, or shown as they were, or as every decoder shows them without a word."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

import headrace as hr
from command import headrace
from damaged import KINDS, SOURCES, Damaged, damaged
from drawn import Pixels, files
from headrace.imaging import codec
from headrace.imaging.prepare import ImageOptions, prepare

EACH = 12  # of each source and kind of damage
VISIBLE = 12  # levels that the mean of 8 x 8 pixels may be off


def judged(data: bytes) -> Pixels:
    """The pixels as Pillow reads them."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def off_by(found: Pixels, wanted: Pixels) -> float:
    """The worst mean difference of any 8 x 8 pixels."""
    if found.shape != wanted.shape:
        return 255
    height, width = (side // 8 * 8 for side in found.shape[:2])
    differences = np.abs(found.astype(int) - wanted)[:height, :width].mean(axis=2)
    return float(differences.reshape(height // 8, 8, width // 8, 8).mean(axis=(1, 3)).max())


def warns(file: Damaged) -> bool:
    """Whether the decoder has something to say of it."""
    if file.source.startswith("PNG"):
        return True  # whose checksums tell
    try:
        simplejpeg.decode_jpeg(file.data, "CMYK" if "CMYK" in file.source else "RGB")
    except ValueError:
        return True
    return False


# Kind of damage: at least so many of 120 files, 12 of each source, are refused. What is not has no word said against
# it by the decoder: a bit or some bytes that are as good as others to it.
REFUSED = {
    "512 zeros": 105,
    "16 random bytes": 65,
    "one bit": 25,
    "a part cut out": 100,
    "a part twice": 100,
    "two parts changed round": 60,
    "cut off": 120,
    "cut off and ended": 120,
    "stray bytes": 108,
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_is_swallowed(kind: str) -> None:
    """Pillow, which knows nothing of our rules, says what the file was and what it is now."""
    counts = Counter[str]()
    for file in damaged(kind, EACH):
        try:
            made = prepare(file.data, ImageOptions(channels=3))
        except codec.BadImage:
            counts["refused"] += 1
            continue
        found = judged(made.encoded)
        wrong = off_by(found, judged(file.whole)) > VISIBLE
        counts["wrong"] += wrong
        assert not (wrong and warns(file)), file[:2]
        assert made.warning is None
        assert off_by(found, judged(file.data)) <= VISIBLE, file[:2]
    assert counts["refused"] >= REFUSED[kind], counts


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_whole_is_taken(source: str) -> None:
    for seed in range(EACH):
        data = SOURCES[source](seed)
        made = prepare(data, ImageOptions(channels=3))
        assert made.warning is None and off_by(judged(made.encoded), judged(data)) <= VISIBLE


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_is_marked_and_every_reader_shows_the_same(kind: str) -> None:
    kept = 0
    for file in damaged(kind, 3):
        try:
            made = prepare(file.data, ImageOptions(on_warning="keep", channels=3))
        except codec.BadImage:
            continue
        if made.warning is not None:
            kept += 1
            assert file.source.startswith("JPEG") and warns(file)
            assert made.encoded != file.data and codec.read_header(made.encoded).plain
            ours = codec.decode(made.encoded, header=codec.read_header(made.encoded))
            assert off_by(ours, judged(made.encoded)) < 2
            assert ours.shape[:2] == judged(file.whole).shape[:2]
        elif off_by(judged(made.encoded), judged(file.whole)) > VISIBLE:
            assert not warns(file)
    assert kept >= 2


def folder_of_photos(root: Path) -> Path:
    """Six photos, of which the second is damaged, and the third has padding before its end."""
    whole = [SOURCES["JPEG"](seed) for seed in range(6)]
    whole[1] = KINDS["a part cut out"](whole[1], np.random.default_rng(0))
    whole[2] = whole[2][:-2] + bytes(60) + whole[2][-2:]
    return files(root, {f"cat/{i}.jpg": data for i, data in enumerate(whole)})


def test_a_damaged_photo_is_refused_or_marked(tmp_path: Path) -> None:
    source = hr.sources.folders(folder_of_photos(tmp_path / "in"))
    report = hr.pack(source, tmp_path / "strict", max_rejects=1, progress=False)
    assert (report.stored, report.warned) == (5, 0)
    assert [(reject.id, reject.stage) for reject in report.rejects] == [("cat/1.jpg", "decode")]
    reason = report.rejects[0].reason
    assert hr.Dataset(tmp_path / "strict").catalog["warning"].is_null().all()

    report = hr.pack(source, tmp_path / "kept", max_rejects=0, on_warning="keep", progress=False)
    assert (report.stored, report.warned, report.rejects) == (6, 1, ())
    ds = hr.Dataset(tmp_path / "kept")
    marked = {row["id"]: row["warning"] for row in ds.catalog.select("id", "warning").rows(named=True)}
    assert marked.pop("cat/1.jpg") == reason
    assert set(marked.values()) == {None}
    assert len(ds.where("warning IS NULL")) == 5 and ds.verify().ok
    assert ds.manifest.pack_options["on_warning"] == "keep"
    batch = next(iter(ds.loader(batch_size=6, size=64)))
    assert batch.images.shape == (6, 64, 64, 3)
    padded = next(record for record in ds if record.id == "cat/2.jpg")
    assert padded.encoded == (tmp_path / "in/cat/2.jpg").read_bytes()


def test_the_command_line_says_what_it_kept(tmp_path: Path) -> None:
    root = folder_of_photos(tmp_path / "in")
    ended = headrace("pack", root, tmp_path / "ds", "--on-warning", "keep")
    assert ended.code == 0
    assert "kept 1 that may be damaged: the column warning of the catalog says why" in ended.out
    ended = headrace("pack", root, tmp_path / "json", "--on-warning", "keep", "--json")
    assert json.loads(ended.out)["warned"] == 1
    ended = headrace("pack", root, tmp_path / "no", "--on-warning", "ask")
    assert ended.code == 2 and "on-warning is 'ask', wanted one of reject, keep" in ended.err
