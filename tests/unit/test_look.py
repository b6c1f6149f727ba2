"""Looks: near for copies of an image, far for others; which of them are near, and what counts as the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import headrace as hr
from drawn import Pixels, picture, saved, textured
from headrace.checking.verify import verify
from headrace.format import catalog, index
from headrace.imaging import alike, codec
from headrace.imaging.alike import Groups, as_looks, distance, join_alike, near
from headrace.imaging.look import BYTES, NEAR, SIDE, SURE, look, thumb
from headrace.place.open import at
from packed import pack, photos, rewrite_manifest


def look_of(pixels: Pixels) -> bytes:
    return look(thumb(pixels))


def apart(one: bytes, two: bytes) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 3), (2000, 3, 1), (72, 72, 3), (145, 143, 3), (143, 288, 1)])
def test_any_size_has_a_look(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert thumb(pixels).shape == (SIDE, SIDE) and len(look_of(pixels)) == BYTES
    assert look_of(np.full(shape, 77, np.uint8)) == bytes(BYTES)


def test_bits_say_where_it_grows_lighter() -> None:
    across = np.broadcast_to(np.arange(0, 180, dtype=np.uint8)[np.newaxis, :, np.newaxis], (180, 180, 1))
    down = np.ascontiguousarray(across.transpose(1, 0, 2))
    assert look_of(np.ascontiguousarray(across)) == b"\xff" * 8 + bytes(8)
    assert look_of(down) == bytes(8) + b"\xff" * 8
    assert look_of(down[::-1]) == bytes(16)


def test_faint_noise_on_a_plain_ground_is_none() -> None:
    noise = np.random.default_rng(1).integers(-2, 3, (200, 300, 3))
    assert look_of((128 + noise).astype(np.uint8)) == bytes(BYTES)


def as_jpeg(pixels: Pixels, quality: int) -> Pixels:
    data = codec.encode_jpeg(pixels, quality=quality)
    return codec.decode(data, header=codec.read_header(data))


def with_logo(pixels: Pixels) -> Pixels:
    made = pixels.copy()
    made[:30, :50] = 255
    return made


ALTERED: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG of quality 50": lambda pixels: as_jpeg(pixels, 50),
    "half the size": lambda pixels: cv2.resize(pixels, (160, 120), interpolation=cv2.INTER_AREA),
    "another ratio": lambda pixels: cv2.resize(pixels, (300, 300), interpolation=cv2.INTER_AREA),
    "grey": lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., np.newaxis],
    "a logo in a corner": with_logo,
    "a little darker": lambda pixels: (pixels * 0.9).astype(np.uint8),
}


@pytest.mark.parametrize("how", ALTERED)
def test_copies_look_alike_and_others_do_not(how: str) -> None:
    for seed in range(10):
        one, other = textured(seed), textured(seed + 100)
        assert apart(look_of(one), look_of(ALTERED[how](one))) <= NEAR
        assert apart(look_of(other), look_of(ALTERED[how](one))) > 2 * NEAR


# --- which are near --------------------------------------------------------------------------------------------------


@st.composite
def some_looks(draw: st.DrawFn) -> NDArray[np.uint64]:
    """Looks of which many are a few bits from each other, or the same."""
    base = draw(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 127), max_size=16)
    out = []
    for which, bits in draw(st.lists(st.tuples(st.integers(0, len(base) - 1), flips), max_size=30)):
        made = bytearray(base[which])
        for bit in bits:
            made[bit // 8] ^= 1 << bit % 8
        out.append(bytes(made))
    return as_looks(out)[0]


def found(looks: NDArray[np.uint64], most: int = NEAR) -> set[tuple[int, int]]:
    return {(min(pair), max(pair)) for some in near(looks, most) for pair in map(tuple, some.tolist())}


@given(some_looks(), st.sampled_from([0, SURE, NEAR]))
def test_near_against_brute_force(looks: NDArray[np.uint64], most: int) -> None:
    """All that share a band, which those do that differ in 7 bits, and none that is further off."""
    data = [bytes(row) for row in looks.view(np.uint8).reshape(-1, 16)]
    all_ = {(i, j): apart(data[i], data[j]) for j in range(len(data)) for i in range(j)}
    got = found(looks, most)
    assert {pair for pair, bits in all_.items() if bits <= min(most, 7)} <= got
    assert got <= {pair for pair, bits in all_.items() if bits <= most}


def test_hardly_any_pair_of_twelve_bits_is_missed() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (2000, 128), np.uint8)
    other = bits.copy()
    for row in other:
        row[rng.choice(128, NEAR, replace=False)] ^= 1
    looks = np.packbits(np.concatenate([bits, other]), axis=1).view(np.uint64)
    planted = {(i, i + 2000) for i in range(2000)}
    assert len(planted & found(looks)) >= 0.985 * len(planted)


def test_a_crowd_costs_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal looks each meets the next in its band, and not all others."""
    monkeypatch.setattr(alike, "NEIGHBOURS", 3)
    looks = np.zeros((500, 2), np.uint64)
    pairs = [len(some) for some in near(looks)]
    assert sum(pairs) == 16 * (499 + 498 + 497)


def test_bits_are_counted_without_numpy_2_too() -> None:
    words = np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64, endpoint=False)
    assert alike._counted(words).tolist() == [int(word).bit_count() for word in words.tolist()]
    assert alike._bits(words).tolist() == alike._counted(words).tolist()


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_groups_are_what_pairs_connect(case: tuple[int, list[tuple[int, int]]]) -> None:
    n, pairs = case
    groups = Groups(n)
    groups.join(pairs)
    wanted = [{i} for i in range(n)]
    for i, j in pairs:
        if wanted[i] is not wanted[j]:
            joined = wanted[i] | wanted[j]
            for k in joined:
                wanted[k] = joined
    assert groups.of().tolist() == [min(of) for of in wanted]
    some = np.arange(0, n, 2)
    assert groups.of(some).tolist() == [min(wanted[i]) for i in some]


# --- by their pixels -------------------------------------------------------------------------------------------------


def groups_of(thumbs: list[NDArray[np.uint8]], *, mirrored: bool = False, bad: tuple[int, ...] = ()) -> list[int]:
    """What join_alike makes of images that all look the same by their bits, so that only their pixels tell them."""

    def draw(numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        return np.stack([thumbs[i] for i in numbers.tolist()]), ~np.isin(numbers, bad)

    groups, looks = Groups(len(thumbs)), np.zeros((len(thumbs), 2), np.uint64)
    join_alike(groups, looks, draw, mirrored=looks if mirrored else None)
    return groups.of().tolist()


def plain(level: int) -> NDArray[np.uint8]:
    return np.full((SIDE, SIDE), level, np.uint8)


def test_pixels_confirm_what_looks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (thumb(textured(seed)) for seed in (1, 2))
    darker = (one * 0.7 + 20).astype(np.uint8)
    assert groups_of([one, other, darker, other]) == [0, 1, 0, 1]
    assert groups_of([one, one, one], bad=(1,)) == [0, 1, 0]
    assert groups_of([one, other, np.ascontiguousarray(one[:, ::-1])]) == [0, 1, 2]
    assert groups_of([one, other, np.ascontiguousarray(one[:, ::-1])], mirrored=True) == [0, 1, 0]
    assert groups_of([plain(0), plain(255), one, plain(1), plain(254)]) == [0, 1, 2, 0, 1]
    monkeypatch.setattr(alike, "_DRAWN", 2)
    monkeypatch.setattr(alike, "_HELD", 3)
    monkeypatch.setattr(alike, "_CHUNK", 2)
    assert groups_of([one, other, darker, other] * 5) == [0, 1, 0, 1] * 5


def test_of_many_that_are_alike_few_pairs_are_looked_at() -> None:
    drawn = 0

    def draw(numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        nonlocal drawn
        drawn += len(numbers)
        return np.zeros((len(numbers), SIDE, SIDE), np.uint8), np.ones(len(numbers), np.bool_)

    n = 5000
    groups = Groups(n)
    join_alike(groups, np.zeros((n, 2), np.uint64), draw)
    assert not groups.of().any() and drawn < 2 * n


# --- in the catalog --------------------------------------------------------------------------------------------------


def test_the_catalog_has_the_look_of_each_stored_image(tmp_path: Path) -> None:
    """That of the stored pixels where the bytes are kept or exact, and near it where a JPEG was made."""
    kept = pack(photos(20, grey=[1], png=[3]), tmp_path / "kept")
    assert kept.catalog["look"].to_list() == [look_of(record.image) for record in kept]
    made = pack(photos(20, grey=[1], png=[3]), tmp_path / "made", size=48)
    looks, known = as_looks(made.catalog["look"].to_list())
    now, _ = as_looks([look_of(record.image) for record in made])
    assert known.all() and distance(looks, now).max() <= NEAR
    assert kept.where("look IS NULL")[:].rows.tolist() == []


def test_pictures_turned_by_exif_have_the_look_of_what_is_seen(tmp_path: Path) -> None:
    from drawn import exif, image

    data = saved(image(60, 90), "PNG", exif=exif(6))
    (record,) = pack([hr.Record(id="a", encoded=data)], tmp_path / "ds")
    assert pack([hr.Record(id="a", encoded=data)], tmp_path / "2").catalog["look"].to_list() == [look_of(record.image)]


def test_verify_holds_the_looks_against_the_images(tmp_path: Path) -> None:
    records = [hr.Record(id=f"{k}.png", encoded=saved(textured(k), "PNG")) for k in range(6)]
    ds = pack(records, tmp_path / "ds")
    assert verify(at(ds.path)).ok
    path = ds.path / catalog.FILE
    frame = hr.Dataset(ds.path).store.table.frame([*catalog.WHAT])
    changed = frame.with_columns(look=frame["look"].reverse())
    path.write_bytes(catalog.to_bytes(changed))
    rewrite_tables(ds.path)
    faults = verify(at(ds.path)).damaged
    assert [fault.record for fault in faults] == [*range(6)]
    assert all(fault.reason == "the look of the image is not the catalog's" for fault in faults)


def test_a_look_of_another_length_can_not_be(tmp_path: Path) -> None:
    ds = pack([hr.Record(id="a.png", encoded=saved(picture(), "PNG"))], tmp_path / "ds")
    frame = ds.store.table.frame([*catalog.WHAT]).with_columns(look=b"short")
    (ds.path / catalog.FILE).write_bytes(catalog.to_bytes(frame))
    rewrite_tables(ds.path)
    with pytest.raises(hr.DamageError, match="the look of row 0 can't be"):
        _ = hr.Dataset(ds.path).catalog


def rewrite_tables(folder: Path) -> None:
    """The manifest, once the catalog was changed."""
    import google_crc32c

    from headrace.format import manifest

    promised = manifest.read(at(folder))
    data = (folder / catalog.FILE).read_bytes()
    rewrite_manifest(
        folder,
        files={**promised.files, catalog.FILE: hashlib.sha256(data).hexdigest()},
        crc32c={index.FILE: promised.crc32c[index.FILE], catalog.FILE: google_crc32c.value(data)},
    )
