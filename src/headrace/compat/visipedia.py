"""visipedia/tfrecords' `create` without TensorFlow: its arguments, its files, its keys, and none of its faults.

What differs from it, on purpose, is listed in docs/visipedia.md. As a command: python -m headrace.compat.visipedia
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headrace import order, parallel
from headrace.errors import HeadraceError, UsageError
from headrace.format import example, tfrecord
from headrace.format.example import Feature, Floats, Ints, Strings
from headrace.imaging import codec
from headrace.imaging.placement import draw, place
from headrace.imaging.prepare import ImageOptions
from headrace.place import local, publish
from headrace.progress import bar
from headrace.sources import walking
from headrace.sources.visipedia import BadItem, Item, read_item, read_json

# What visipedia makes of a PNG; we make it of what not every reader decodes alike, and comes from no lossless format.
_QUALITY = 100
_LOSSLESS = ("png", "bmp", "gif", "tiff")


def create(
    dataset: Iterable[Mapping[str, Any]],
    dataset_name: str,
    output_directory: str | os.PathLike[str],
    num_shards: int,
    num_threads: int,
    shuffle: bool = True,
    store_images: bool = True,
    *,
    seed: int = 0,
    max_side: int | None = None,
    png_to_jpeg: bool = False,
) -> list[dict[str, Any]]:
    """Writes images of visipedia's list of dicts into TFRecord files `NAME-00000-of-00010`; gives those that failed.

    The failed are copies of the caller's dicts, in their order, each with an `error_msg`; the list itself is left
    alone. Any number of shards and threads: there are empty files where there are more shards than images, and the
    bytes are the same for any number of threads. `shuffle`: by `seed`, and the same every time.

    JPEG and PNG files are stored byte by byte, EXIF included, with the size and coordinates of the pixels as stored;
    what readers decode differently (palettes, alpha, CMYK, other formats) is converted. `encoded` bytes are stored as
    they are, and what the dict says of them must be so.
    max_side: pixels to bring the longer side of larger images to; what is normalised stays as it is. png_to_jpeg: make
    a JPEG of what would be stored as PNG. Both hold for `encoded` bytes too. What they make knows no EXIF, and its
    pixels lie as they were stored. With `store_images` False `image/encoded` is one empty value:
    readers load the file that `image/filename` names. It need not be here then if the dict gives height and width.

    All files appear when all are done; files of these names are replaced. Missing folders are made.
    Raises UsageError (an argument), StorageError (the file system refused).
    """
    threads = parallel.check_workers(num_threads)
    if num_shards < 1:
        raise UsageError(f"num_shards is {num_shards}, wanted at least 1")
    if not dataset_name or "/" in dataset_name or "\0" in dataset_name:
        raise UsageError(f"dataset_name is {dataset_name!r}, wanted the beginning of a file name")
    if isinstance(dataset, str | bytes | os.PathLike | Mapping):
        raise UsageError(f"dataset is a {type(dataset).__name__}, wanted a list of dicts")
    if not store_images and (max_side is not None or png_to_jpeg):
        raise UsageError("max_side and png_to_jpeg are for images that are stored; pass store_images=True")
    storing = _Storing(store_images, ImageOptions(max_side=max_side, quality=_QUALITY), png_to_jpeg)
    items = list(dataset)
    n = len(items)
    walk = order.permute(np.arange(n), n=n, seed=seed, epoch=0).tolist() if shuffle and n else list(range(n))
    folder = Path(output_directory)
    with local.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def make(number: int) -> bytes | str:
        """The record of an item, or why there is none."""
        try:
            return tfrecord.frame(example.serialize(_features(read_item(items[number]), storing)))
        except (BadItem, codec.BadImage) as error:
            return f"dataset[{number}]: {error.reason}"
        except OSError as error:
            return f"dataset[{number}]: {error.filename!r}: {(error.strerror or str(error)).lower()}"

    failed: dict[int, str] = {}
    made = parallel.ordered(make, walk, workers=threads, ahead=4 * threads)
    try:
        with (
            publish.Scratch(folder, dataset_name) as scratch,
            local.explained(folder),
            bar(total=n, unit="img", desc=dataset_name) as shown,
        ):
            for shard in range(num_shards):
                members = walk[n * shard // num_shards : n * (shard + 1) // num_shards]
                with (scratch / f"{dataset_name}-{shard:05d}-of-{num_shards:05d}").open("wb") as file:
                    for number, record in zip(members, made, strict=False):
                        if isinstance(record, str):
                            failed[number] = record
                        else:
                            file.write(record)
                        shown.update(1)
    finally:
        made.close()
    return [_failed(items[number], failed[number]) for number in sorted(failed)]


def _failed(item: Any, why: str) -> dict[str, Any]:
    return {**(item if isinstance(item, Mapping) else {"item": item}), "error_msg": why}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """The image of an item: its bytes, `format` and so on as they are written, and the sha256 (hex) of its file."""

    encoded: bytes
    format: str
    height: int
    width: int
    channels: int
    colorspace: str
    sha256: str


@dataclass(frozen=True, slots=True)
class _Storing:
    """Whether images are stored at all, of what size, and whether a JPEG takes a PNG's place."""

    images: bool
    options: ImageOptions
    png_to_jpeg: bool


def _features(item: Item, storing: _Storing) -> dict[str, Feature]:
    """visipedia's keys, all of them, whatever the item holds: one value for what is one value, lists of their kind."""
    image = _given(item, storing) if item.encoded is not None else _read(item, storing)
    lists = item.lists
    labels, texts = Ints(lists["bbox/label"]), _texts(lists["bbox/text"])
    return {
        "image/height": Ints([image.height]),
        "image/width": Ints([image.width]),
        "image/colorspace": _texts([image.colorspace]),
        "image/channels": Ints([image.channels]),
        "image/format": _texts([image.format]),
        "image/filename": _texts([item.filename]),
        "image/id": _texts([item.id]),
        "image/encoded": Strings([image.encoded if storing.images else b""]),
        "image/extra": _texts([item.extra or ""]),
        "image/class/label": Ints([-1 if item.label is None else item.label]),
        "image/class/text": _texts([item.text or ""]),
        "image/class/conf": Floats([1.0 if item.conf is None else item.conf]),
        **{f"image/object/bbox/{side}": Floats(lists[f"bbox/{side}"]) for side in ("xmin", "xmax", "ymin", "ymax")},
        "image/object/bbox/label": labels,
        "image/object/bbox/text": texts,
        "image/object/bbox/conf": Floats(lists["bbox/conf"]),
        "image/object/bbox/score": Floats(lists["bbox/score"]),
        "image/object/parts/x": Floats(lists["parts/x"]),
        "image/object/parts/y": Floats(lists["parts/y"]),
        "image/object/parts/v": Ints(lists["parts/v"]),
        "image/object/parts/score": Floats(lists["parts/score"]),
        "image/object/count": Ints([item.count]),
        "image/object/area": Floats(lists["area"]),
        "image/object/id": _texts(lists["id"]),
        # What its code writes for the TF Object Detection API and its README doesn't name; labels count from 0 here.
        "image/source_id": _texts([item.id]),
        "image/key/sha256": _texts([image.sha256]),
        "image/object/class/label": labels,
        "image/object/class/text": texts,
        "image/object/is_crowd": Ints(lists["is_crowd"]),
    }


def _texts(values: Iterable[str]) -> Strings:
    return Strings(value.encode() for value in values)


def _given(item: Item, storing: _Storing) -> _Image:
    """Bytes that the item brings, with what it says of them, or what they say where it doesn't. Raises BadItem."""
    assert item.encoded is not None
    header = codec.read_header(item.encoded)
    image = _stored(item.encoded, header, storing, keep=True)
    for name, said, found in (("height", item.height, header.height), ("width", item.width, header.width)):
        if said is not None and said != found:
            raise BadItem(f"{name} is {said}, the encoded image has {found}")
    kind = "jpeg" if item.format is None else item.format.lower().removeprefix("image/").replace("jpg", "jpeg")
    if item.format is not None and kind != header.format:
        raise BadItem(f"format is {item.format!r}, the encoded image is a {header.format.upper()}")
    grey = header.channels == 1
    if item.channels is not None and item.channels not in ((1, 2) if grey else (3, 4)):
        raise BadItem(f"channels is {item.channels}, the encoded image is {'grey' if grey else 'in colour'}")
    if image.encoded is not item.encoded:
        return image
    return replace(
        image,
        format=item.format or image.format,
        channels=item.channels or image.channels,
        colorspace=item.colorspace or image.colorspace,
    )


def _read(item: Item, storing: _Storing) -> _Image:
    """The image of the file that the item names. Raises BadItem, BadImage, OSError."""
    path = Path(item.filename)
    if not storing.images and item.height is not None and item.width is not None and not path.exists():
        # To be read elsewhere, as visipedia has it: what the item says of it is all that is known.
        channels = item.channels or 3
        return _Image(
            encoded=b"",
            format=item.format or "JPEG",
            height=item.height,
            width=item.width,
            channels=channels,
            colorspace=item.colorspace or _colorspace(channels),
            sha256="",
        )
    if refused := walking.refusal(item.filename, None):
        raise BadItem(refused, stage="read")
    data = path.read_bytes()
    header = codec.read_header(data)
    return _stored(data, header, storing, keep=header.common or not storing.images)


def _stored(data: bytes, header: codec.Header, storing: _Storing, *, keep: bool) -> _Image:
    """What is stored of an image: itself, if it may be kept and nothing asks for a change. Raises BadImage."""
    height, width = storing.options.size_of(header.height, header.width)
    placement = place(header.height, header.width, (height, width), "stretch")
    least = placement.least(header.height, header.width)
    pixels = codec.decode(data, header=header, min_size=least, exact=True)
    encoded, kind = data, str(header.format)
    if not keep or (height, width) != (header.height, header.width) or (storing.png_to_jpeg and kind == "png"):
        kind = "png" if kind in _LOSSLESS and not storing.png_to_jpeg else "jpeg"
        out = np.empty((height, width, header.channels), np.uint8)
        draw(pixels, placement, header.height, header.width, out)
        encoded = codec.encode_png(out) if kind == "png" else storing.options.jpeg(out)
    return _Image(
        encoded=encoded,
        format=kind.upper(),
        height=height,
        width=width,
        channels=header.channels,
        colorspace=_colorspace(header.channels),
        sha256=hashlib.sha256(encoded).hexdigest(),
    )


def _colorspace(channels: int) -> str:
    return "grayscale" if channels < 3 else "RGB"


# --- as a command ----------------------------------------------------------------------------------------------------


def _bool(text: str) -> bool:
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r}: wanted true or false")
    return values[text.lower()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m headrace.compat.visipedia",
        description="Make TFRecord files as visipedia/tfrecords' create_tfrecords.py does, without TensorFlow.",
        epilog="Example: python -m headrace.compat.visipedia --dataset_path train.json --prefix train "
        "--output_dir records --shards 10 --threads 4 --shuffle --store_images",
    )
    parser.add_argument("--dataset_path", required=True, help="JSON file with the list of images.")
    parser.add_argument("--prefix", required=True, help="What the files are called: train makes train-00000-of-00010.")
    parser.add_argument("--output_dir", required=True, help="Folder for the files.")
    parser.add_argument("--shards", required=True, type=int, help="Number of files.")
    parser.add_argument("--threads", required=True, type=int, help="Number of threads.")
    flag: dict[str, Any] = {"nargs": "?", "const": True, "default": False, "type": _bool, "metavar": "true|false"}
    parser.add_argument("--shuffle", help="Shuffle the images; off by default.", **flag)
    parser.add_argument(
        "--store_images", help="Store the images; by default the records only name their files.", **flag
    )
    parser.add_argument("--max_side", type=int, help="Bring the longer side of larger images to so many pixels.")
    parser.add_argument("--png_to_jpeg", help="Store JPEGs in place of PNGs.", **flag)
    parser.add_argument("--seed", type=int, default=0, help="Of the shuffling; 0 by default.")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command. Exit codes: 0 done (failed images are named), 1 no image could be used, 2 the call is wrong."""
    args = _parser().parse_args(arguments)
    try:
        items = read_json(args.dataset_path)
        failed = create(
            items,
            args.prefix,
            args.output_dir,
            args.shards,
            args.threads,
            shuffle=args.shuffle,
            store_images=args.store_images,
            seed=args.seed,
            max_side=args.max_side,
            png_to_jpeg=args.png_to_jpeg,
        )
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    for line in _lines(failed):
        print(line, file=sys.stderr)
    print(f"{args.output_dir}: {len(items) - len(failed)} images in {args.shards} files, {len(failed)} failed")
    sys.exit(1 if items and len(failed) == len(items) else 0)


def _lines(failed: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for item in failed:
        yield f"headrace: {item.get('id', '(no id)')}: {item['error_msg']}"


if __name__ == "__main__":
    main()
