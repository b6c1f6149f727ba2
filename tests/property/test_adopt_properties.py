"""Damage of every kind in shards of somebody else: found, named, and survived with nothing good lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from amount import bits
from drawn import TINY_PNG
from foreign import payload, write
from headrace.errors import DamageError, DataError
from headrace.format import example, tfrecord

RECORDS = 3
AT_ONCE = 64  # shards that are damaged at a time, each at another place


def tiny(k: int) -> bytes:
    return payload(image=TINY_PNG, label=k % 2, id=f"{k:04d}")


def shards(folder: Path, n: int = AT_ONCE) -> list[Path]:
    return [write(folder / f"{i:02d}.tfrecord", [tiny(RECORDS * i + k) for k in range(RECORDS)]) for i in range(n)]


def change(path: Path, data: bytes) -> None:
    """Writes a file in place and sets its time back, so that nothing but its content tells."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(data)
        file.truncate(len(data))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.exhaustive
def test_every_bit_of_a_shard(tmp_path: Path) -> None:
    """Each bit of a shard of three records, in one or the other of 64 shards at a time.

    verify names shard, record and byte; what the bit is not in is read as before; --salvage loses the hit record only
    and says which bytes; without it nothing is made.
    """
    paths = shards(tmp_path / "shards")
    hr.adopt(paths, tmp_path / "ds", progress=False)
    ds = hr.Dataset(tmp_path / "ds")
    assert len(ds) == RECORDS * AT_ONCE and ds.verify().ok
    sound = [path.read_bytes() for path in paths]
    (size,) = {len(data) for data in sound}
    (ends,) = {tuple(span.end for span in tfrecord.walk(data) if isinstance(span, tfrecord.Span)) for data in sound}
    begins = (0, *ends[:-1])
    ids = ds.catalog["id"].to_list()
    flips = 0
    for turn, some in enumerate(bits(8 * size, AT_ONCE)):
        hits: list[tuple[int, int, int, bool]] = []  # shard, record, byte of the contradiction, whether in the header
        for s, number in enumerate(some):
            byte, bit = divmod(number, 8)
            data = bytearray(sound[s])
            data[byte] ^= 1 << bit
            change(paths[s], bytes(data))
            record = sum(byte >= end for end in ends)
            header = byte < begins[record] + tfrecord.HEADER_BYTES
            hits.append((s, record, begins[record] + (0 if header else tfrecord.HEADER_BYTES), header))
        found = [(d.shard, d.record, d.offset) for d in ds.verify(workers=2).damaged]
        assert found == [(f"../shards/{paths[s].name}", record, offset) for s, record, offset, _ in hits]

        fresh = hr.Dataset(tmp_path / "ds")  # size and times are as they were
        lost = {RECORDS * s + record for s, record, _, _ in hits}
        for s, record, offset, header in hits:
            if header or some[s] // 8 >= ends[record] - tfrecord.FOOTER_BYTES:  # the index knows these
                assert fresh[RECORDS * s + record].label is not None
                continue
            with pytest.raises(DamageError) as caught:
                fresh[RECORDS * s + record]
            assert str(caught.value).startswith(f"{paths[s]}, record {record}, byte {offset}: payload CRC is 0x")

        report = hr.adopt(paths, tmp_path / "saved", salvage=True, overwrite=True, progress=False, workers=2)
        saved = hr.Dataset(tmp_path / "saved")
        assert saved.catalog["id"].to_list() == [id_ for i, id_ in enumerate(ids) if i not in lost]
        assert [saved[i].encoded for i in range(0, len(saved), 7)] == [TINY_PNG] * len(range(0, len(saved), 7))
        assert [(one.shard, one.record, one.begin, one.end, one.offset) for one in report.skipped] == [
            (str(paths[s]), record, begins[record], ends[record], offset) for s, record, offset, _ in hits
        ]
        assert report.skipped_bytes == sum(ends[record] - begins[record] for _, record, _, _ in hits)
        assert saved.verify().ok
        if turn % 64 == 0:
            with pytest.raises(DamageError, match=rf"damage in {len(hits)} places:\n  .*00\.tfrecord, record "):
                hr.adopt(paths, tmp_path / "none", progress=False)
            assert not (tmp_path / "none").exists()
        for s, data in enumerate(sound):
            change(paths[s], data)
        flips += len(hits)
    assert flips == sum(map(len, bits(8 * size))) and size > 375
    assert hr.Dataset(tmp_path / "ds").verify().ok


def test_every_cut_of_a_shard(tmp_path: Path) -> None:
    """At a record's end a cut can't be seen, as TensorFlow can't see it; elsewhere it is named, and what stands before
    it is kept."""
    data = write(tmp_path / "x.tfrecord", [tiny(k) for k in range(RECORDS)]).read_bytes()
    ends = [span.end for span in tfrecord.walk(data) if isinstance(span, tfrecord.Span)]
    cuts = list(range(1, len(data)))
    for first in range(0, len(cuts), AT_ONCE):
        some = cuts[first : first + AT_ONCE]
        paths = []
        for size in some:
            path = tmp_path / "cut" / f"{size:06d}.tfrecord"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data[:size])
            paths.append(path)
        whole = [sum(end <= size for end in ends) for size in some]
        if sum(whole) == 0:
            with pytest.raises(DataError, match="no sound record in any of"):
                hr.adopt(paths, tmp_path / "ds", salvage=True, progress=False)
            continue
        report = hr.adopt(paths, tmp_path / "ds", salvage=True, overwrite=True, progress=False)
        assert report.stored == sum(whole)
        assert [entry.records for entry in hr.Dataset(tmp_path / "ds").manifest.shards] == whole
        wanted = {
            str(path): (max([0, *(e for e in ends if e <= size)]), size)
            for path, size in zip(paths, some, strict=True)
            if size not in ends
        }
        assert {one.shard: (one.begin, one.end) for one in report.skipped} == wanted
        for path in paths:
            path.unlink()


payloads = st.lists(st.binary(max_size=40), max_size=6)
garbage = (
    st.binary(min_size=1, max_size=60) | st.integers(1, 300).map(bytes) | st.integers(1, 40).map(lambda n: b"\xff" * n)
)


@given(st.lists(st.tuples(st.binary(max_size=60), st.none() | garbage), max_size=8))
def test_what_lies_between_garbage_is_found(parts: list[tuple[bytes, bytes | None]]) -> None:
    """Every byte is in one piece, every sound record is a Span, and what is no record is in the Gaps."""
    data = b""
    wanted = []
    for record, junk in parts:
        wanted.append((len(data), len(record)))
        data += tfrecord.frame(record) + (junk or b"")
    pieces = list(tfrecord.walk(data))
    assert [tuple(piece) for piece in pieces if isinstance(piece, tfrecord.Span)] == wanted
    bounds = [(p.offset, p.end) if isinstance(p, tfrecord.Span) else (p.begin, p.end) for p in pieces]
    assert [end for _, end in bounds[:-1]] == [begin for begin, _ in bounds[1:]]
    assert not bounds or (bounds[0][0], bounds[-1][1]) == (0, len(data))


@given(st.binary(max_size=3000) | st.integers(0, 3000).map(bytes))
def test_any_bytes_are_walked_to_their_end(data: bytes) -> None:
    pieces = list(tfrecord.walk(data))
    assert sum(p.end - (p.offset if isinstance(p, tfrecord.Span) else p.begin) for p in pieces) == len(data)


@given(st.binary(max_size=30), st.integers(0, 4), st.integers(0, 4))
def test_a_length_that_swallows_records_gives_them_back(junk: bytes, before: int, inside: int) -> None:
    """The rest of a cut file in front of a sound one: its last length reaches into the other's records."""
    small = [tfrecord.frame(bytes([k]) * k) for k in range(before)]
    others = [tfrecord.frame(b"other" * k) for k in range(inside)]
    cut = tfrecord.frame(bytes(500))[: 12 + len(junk)]
    data = b"".join([*small, cut, *others, bytes(600)])
    spans = [piece for piece in tfrecord.walk(data) if isinstance(piece, tfrecord.Span)]
    starts = [sum(map(len, small[:k])) for k in range(before)]
    starts += [sum(map(len, small)) + len(cut) + sum(map(len, others[:k])) for k in range(inside)]
    assert [span.offset for span in spans] == starts


@given(st.binary(max_size=200), payloads, st.binary(max_size=40))
def test_resync_is_the_first_whole_record(junk: bytes, records: list[bytes], tail: bytes) -> None:
    """Against a search that looks at one byte after the other."""
    data = junk + b"".join(map(tfrecord.frame, records)) + tail

    def plain(start: int) -> int:
        for offset in range(start, len(data)):
            try:
                tfrecord.payload_at(data, offset, tfrecord.length_at(data, offset))
            except tfrecord.BadRecord:
                continue
            return offset
        return len(data)

    for start in {0, 1, len(junk), len(junk) + 1, len(data)}:
        assert tfrecord.resync(data, min(start, len(data))) == plain(min(start, len(data)))


def test_a_file_made_to_keep_us_busy_ends() -> None:
    """A million lengths with sound CRCs, each of a record nearly as long as what is left of the file: to check all of
    them would take a quarter of an hour."""
    headers = []
    for k in range(1_000_000, 0, -1):
        length = (12 * k).to_bytes(8, "little")
        headers.append(length + tfrecord.masked_crc(length).to_bytes(4, "little"))
    data = tfrecord.frame(b"first") + b"".join(headers) + bytes(200)
    first, *rest = tfrecord.walk(data)
    assert first == tfrecord.Span(0, 5)
    assert [(piece.begin, piece.end) for piece in rest if isinstance(piece, tfrecord.Gap)] == [(21, len(data))]


names = st.sampled_from(["image", "img", "a", "z", "imag", "image2", "\u00fc"])
feature_lists = st.one_of(
    st.lists(st.binary(max_size=8), max_size=3).map(example.Strings),
    st.sampled_from([4000, 4096, 4097, 20_000]).map(lambda n: example.Strings([bytes([n % 251]) * n])),
    st.just(example.Strings([b"x" * 5000, b"y"])),
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=3).map(example.Ints),
    st.lists(st.floats(width=32, allow_nan=False), max_size=3).map(example.Floats),
)


@given(st.dictionaries(names, feature_lists, max_size=6))
def test_the_image_cut_out_and_the_rest_are_the_record(features: dict[str, example.Feature]) -> None:
    """Against protobuf's own parse of all of it."""
    data = example.serialize(features)
    cut = example.message_without(data, b"image")
    image = features.get("image", example.Ints())
    large = isinstance(image, example.Strings) and len(image) == 1 and len(image[0]) > 4096
    assert (cut is not None) == large
    if cut is not None:
        rest, begin, length = cut
        assert data[begin : begin + length] == image[0]
        assert set(rest) == set(features) - {"image"}
        for key, message in example.message(data).items():
            assert key == "image" or rest[key] == message


def test_a_key_that_comes_twice_means_its_last() -> None:
    one, two = (example.serialize({"image": example.Strings([bytes([k]) * 5000])})[3:] for k in (1, 2))
    for first, second in ((one, two), (two, one)):
        both = first + second
        data = b"\x0a" + example._as_varint(len(both)) + both
        assert example.parse(data)["image"][0] == (b"\2" if second is two else b"\1") * 5000  # type: ignore[operator]
        assert example.message_without(data, b"image") is None


@given(st.integers(0, 90), st.integers(0, 255))
def test_a_wire_that_is_odd_is_left_to_protobuf(at: int, value: int) -> None:
    """Any byte of the framing changed: what is cut out, if anything, is what protobuf reads."""
    data = bytearray(example.serialize({"a": example.Ints([3]), "image": example.Strings([b"i" * 5000])}))
    data[min(at, 60)] = value
    cut = example.message_without(bytes(data), b"image")
    if cut is not None:
        try:
            wanted = example.parse(bytes(data))
        except ValueError:
            raise AssertionError("protobuf refuses what was cut out") from None
        assert wanted["image"] == [bytes(data[cut[1] : cut[1] + cut[2]])]
        assert set(cut[0]) == set(wanted) - {"image"}
