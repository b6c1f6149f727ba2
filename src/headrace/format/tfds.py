"""What TensorFlow Datasets writes beside its shards: dataset_info.json, features.json and files of class names.

Both are protobuf's JSON: camelCase or snake_case, numbers or texts of them. Reads what they say; what becomes of it is
left to those who know the records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from headrace.place.address import Place

INFO, FEATURES = "dataset_info.json", "features.json"
MOST_BYTES = 1 << 26  # of one such file
_MOST_SHARDS = 1 << 20
_DEEPEST = 32
_DEFAULT = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


class Leaf(NamedTuple):
    """A feature that is no container: its `key` in a record, its `kind` (the name of its class), what is said of it.

    `many`: how many sequences it is in. `names_file`: where the names of its classes are, if it is one of classes.
    """

    key: str
    kind: str
    said: Mapping[str, Any]
    many: int
    names_file: str


class Split(NamedTuple):
    """A split as TFDS calls it: the names of its files, and how many records each has."""

    name: str
    shards: tuple[tuple[str, int], ...]


class Info(NamedTuple):
    """`file_format` of the shards. `supervised`: the keys of input and output, where they are top-level features."""

    name: str
    file_format: str
    splits: tuple[Split, ...]
    supervised: tuple[str, str] | None


def get(said: Any, name: str, default: Any = None) -> Any:
    """A field by its name in snake_case, however it is spelled."""
    if not isinstance(said, Mapping):
        return default
    camel = re.sub("_([a-z])", lambda match: match[1].upper(), name)
    return said.get(camel, said.get(name, default))


def features(place: Place) -> list[Leaf]:
    """The features that features.json in a place says. Raises OSError; ValueError: it says none."""
    try:
        return list(_leaves(json.loads(place.content(FEATURES, MOST_BYTES)), "", "", 0, 0))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it describes no features ({type(error).__name__.lower()}: {str(error)[:60]})") from None


def _leaves(said: Mapping[str, Any], key: str, file: str, many: int, depth: int) -> Iterator[Leaf]:
    kind = str(get(said, "python_class_name")).rpartition(".")[2]
    if depth > _DEEPEST:
        raise ValueError("features in features")
    if kind == "FeaturesDict":
        for name, inner in get(get(said, "features_dict"), "features").items():
            plain = name.replace("/", ".")
            yield from _leaves(
                inner, f"{key}/{name}" if key else name, f"{file}-{plain}" if file else plain, many, depth + 1
            )
    elif kind == "Sequence":
        yield from _leaves(get(get(said, "sequence"), "feature"), key, file, many + 1, depth + 1)
    else:
        yield Leaf(key, kind, said, many, f"{file}.labels.txt")


def info(place: Place) -> Info:
    """What dataset_info.json in a place says. Raises OSError; ValueError: it makes no sense."""
    said = json.loads(place.content(INFO, MOST_BYTES))
    if not isinstance(said, Mapping) or not isinstance(get(said, "name"), str):
        raise ValueError("it names no dataset")
    file_format = str(get(said, "file_format") or "tfrecord")
    splits = get(said, "splits", [])
    if not isinstance(splits, list):
        raise ValueError(f"its splits are {splits!r:.60}, wanted a list")
    made = tuple(_split(one, said["name"], file_format) for one in splits)
    keys = get(said, "supervised_keys")
    supervised = (get(keys, "input"), get(keys, "output"))
    named = all(isinstance(key, str) for key in supervised)
    return Info(said["name"], file_format, made, supervised if named else None)


def _split(said: Any, dataset: str, file_format: str) -> Split:
    """Raises ValueError."""
    name = get(said, "name")
    lengths = get(said, "shard_lengths")
    if not isinstance(name, str) or not isinstance(lengths, list):
        raise ValueError(f"a split is {said!r:.80}, wanted a name and shardLengths")
    if len(lengths) > _MOST_SHARDS:
        raise ValueError(f"split {name}: {len(lengths)} shards")
    template = get(said, "filepath_template") or _DEFAULT
    n = len(lengths)
    shards = []
    for i, length in enumerate(lengths):
        if not re.fullmatch("[0-9]{1,18}", str(length)):
            raise ValueError(f"split {name}: shard {i} has {length!r:.40} records, wanted a number")
        words = {
            "DATASET": dataset,
            "SPLIT": name,
            "FILEFORMAT": file_format,
            "SHARD_INDEX": f"{i:05d}",
            "NUM_SHARDS": f"{n:05d}",
            "SHARD_X_OF_Y": f"{i:05d}-of-{n:05d}",
        }
        file = str(template)
        for word, meant in words.items():
            file = file.replace(f"{{{word}}}", meant)
        shards.append((file, int(length)))
    return Split(name, tuple(shards))


def class_names(place: Place, leaf: Leaf) -> tuple[str, ...] | None:
    """The names of a ClassLabel's classes, None where no file says them. Raises OSError; ValueError: no UTF-8."""
    try:
        data = place.held(leaf.names_file, MOST_BYTES)
    except FileNotFoundError:
        return None
    lines = data.decode("utf-8-sig").split("\n")
    return tuple(line.strip() for line in lines if line.strip())
