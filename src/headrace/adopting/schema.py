"""The keys of records that someone else wrote, as a table: kinds, counts, examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from headrace.format import example
from headrace.imaging import codec

_SHOWN = 24  # characters of an example value


@dataclass(slots=True)
class Key:
    """What was seen of one key: its kind, in how many records, how many values it has, and one of them.

    `images`: how many of its values begin as an image file does. `numbers`, `texts`: some of its values.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    records: int = 0
    low: int = 1 << 62
    high: int = 0
    example: str = ""
    images: int = 0
    image_format: str = ""
    numbers: list[float] = field(default_factory=list)
    texts: tuple[bytes, ...] = ()

    @property
    def kind(self) -> str:
        """The kind it has most often; an empty list's counts little, as some writers get it wrong."""
        return max(self.kinds, key=self.kinds.__getitem__)

    @property
    def is_image(self) -> bool:
        return self.images * 2 > self.records

    @property
    def is_empty(self) -> bool:
        """Whether no record has a value of it but empty bytes."""
        return self.kind == "bytes" and self.example in ("", "''")

    @property
    def is_text(self) -> bool:
        return self.kind == "bytes" and not self.images and self.example.startswith("'")


@dataclass(slots=True)
class Schema:
    """The keys of the `records` that were looked at, by name. `no_example`: how many were no tf.train.Example."""

    keys: dict[str, Key] = field(default_factory=dict)
    records: int = 0
    no_example: int = 0

    def has(self, key: str, *kinds: str) -> bool:
        return key in self.keys and (not kinds or self.keys[key].kind in kinds)

    def table(self) -> str:
        """The schema for people: key, kind, values per record, in how many records, an example."""
        rows = [("key", "kind", "values", "records", "example")]
        for name in sorted(self.keys):
            key = self.keys[name]
            values = str(key.low) if key.low == key.high else f"{key.low} to {key.high}"
            kind = " or ".join(sorted(key.kinds, key=lambda kind: (-key.kinds[kind], kind)))
            kind += f", {key.image_format} image" if key.is_image else ""
            rows.append((name, kind, values, f"{key.records} of {self.records}", key.example))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows]
        lines.insert(1, "-" * max(map(len, lines)))
        if self.no_example:
            lines.append(f"{self.no_example} of {self.records} records are no tf.train.Example")
        return "\n".join(f"  {line.rstrip()}" for line in lines)


def look(payloads: Iterable[bytes]) -> Schema:
    """The schema of these records."""
    schema = Schema()
    for payload in payloads:
        schema.records += 1
        try:
            features = example.parse(payload)
        except ValueError:
            schema.no_example += 1
            continue
        for name, values in features.items():
            key = schema.keys.setdefault(name, Key())
            key.kinds[_kind(values)] += 1000 if values else 1
            key.records += 1
            key.low, key.high = min(key.low, len(values)), max(key.high, len(values))
            if not values:
                continue
            first = values[0]
            if not isinstance(first, bytes):
                key.numbers += [float(v) for v in values[:64] if not isinstance(v, bytes)]
            elif (found := codec.sniff(first)) is not None:
                key.images += 1
                key.image_format = found
            if not key.example:
                key.example = _shown(values)
                if isinstance(values, example.Strings) and len(values) > 1:
                    key.texts = tuple(values)
    return schema


def _kind(values: example.Feature) -> str:
    if isinstance(values, example.Strings):
        return "bytes"
    return "float" if isinstance(values, example.Floats) else "int64"


def _shown(values: example.Feature) -> str:
    first = values[0]
    if isinstance(first, bytes):
        if codec.sniff(first) is None:
            try:
                text = repr(first.decode())
                return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…'"
            except UnicodeDecodeError:
                pass
        return f"{len(first)} bytes, {first[:4].hex(' ')} …"
    shown = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values[:3])
    return shown + (", …" if len(values) > 3 else "")
