"""Charts as SVG in HTML, for a file without scripts. Every text that comes in is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT = 340, 130
_DEEP = _HEIGHT - 32  # of the columns
_MOST_NAMES = 30


def text(value: object) -> str:
    """The value as text of HTML, or of an attribute in quotes."""
    # What no encoding can hold (a file name that is no UTF-8) is shown as it is escaped.
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode(), quote=True)


def bars(measure: Mapping[str, Any]) -> str:
    """A histogram as `measures` gives it: names as lines with bars, numbers as columns."""
    entries = measure["bars"]
    most = max(1, *(bar["count"] for bar in entries))
    if measure["kind"] == "names":
        shown = sorted(entries, key=lambda bar: -bar["count"])[:_MOST_NAMES] if len(entries) > _MOST_NAMES else entries
        rows = "".join(
            f'<tr><th scope="row">{text(bar["name"])}</th><td class="bar"><svg viewBox="0 0 100 8" '
            f'preserveAspectRatio="none"><rect width="{100 * bar["count"] / most:.2f}" height="8" rx="1"/></svg></td>'
            f'<td class="n">{bar["count"]:,}</td></tr>'
            for bar in shown
        )
        rest = f"<p>and {len(entries) - len(shown):,} more</p>" if len(shown) < len(entries) else ""
        return f'<table class="bars">{rows}</table>{rest}'
    if len(entries) == 1:
        return f"<p><b>{text(entries[0]['name'])}</b>: all {entries[0]['count']:,}</p>"
    step = _WIDTH / len(entries)
    columns = "".join(
        f'<rect x="{i * step:.2f}" y="{14 + _DEEP * (1 - bar["count"] / most):.2f}" width="{step - 1.5:.2f}" '
        f'height="{_DEEP * bar["count"] / most:.2f}"><title>{text(bar["name"])}: {bar["count"]:,}</title></rect>'
        for i, bar in enumerate(entries)
    )
    each = all(bar["name"] == str(bar["low"]) for bar in entries)
    ends = entries[0]["low"], entries[len(entries) // 2]["low"], entries[-1]["low" if each else "high"]
    marks = "".join(
        f'<text x="{x}" y="{_HEIGHT - 4}" text-anchor="{anchor}">{text(f"{end:.4g}")}</text>'
        for x, anchor, end in zip((0, _WIDTH / 2, _WIDTH), ("start", "middle", "end"), ends, strict=True)
    )
    return _svg(f'{columns}<text x="0" y="10">{most:,}</text>{marks}', str(measure["title"]))


def curves(name: str, lines: Mapping[str, Sequence[float]]) -> str:
    """One measure over epochs, a line for each part of the data; nothing where no number is known."""
    values = [value for line in lines.values() for value in line if math.isfinite(value)]
    if not values:
        return ""
    low, high = min(values), max(values)
    n = max(map(len, lines.values()))

    def at(i: int, value: float) -> str:
        x = 4 + (i / (n - 1) if n > 1 else 0.5) * (_WIDTH - 8)
        y = 16 + (1 - (value - low) / (high - low) if high > low else 0.5) * (_HEIGHT - 38)
        return f"{x:.1f},{y:.1f}"

    drawn = "".join(
        f'<polyline class="line-{k}" points="{" ".join(at(i, v) for i, v in enumerate(line) if math.isfinite(v))}"/>'
        for k, line in enumerate(lines.values())
    )
    ends = f'<text x="0" y="10">{high:.4g}</text><text x="0" y="{_HEIGHT - 4}">{low:.4g}; {n} epochs</text>'
    key = ", ".join(
        f'<span class="key-{k}">{text(part)} {line[-1]:.4g}</span>' for k, (part, line) in enumerate(lines.items())
    )
    return f"<figure><figcaption><b>{text(name)}</b> {key}</figcaption>{_svg(drawn + ends, name)}</figure>"


def table(rows: Sequence[Sequence[object]], head: Sequence[object] = ()) -> str:
    """A table; numbers stand at the right."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f'<td class="n">{value:.4g}</td>'
        return f'<td class="n">{value:,}</td>' if isinstance(value, int) else f"<td>{text(value)}</td>"

    top = f"<thead><tr>{''.join(f'<th>{text(name)}</th>' for name in head)}</tr></thead>" if head else ""
    lines = ("".join(map(cell, row)) for row in rows)
    return f"<table>{top}{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _svg(inside: str, title: str) -> str:
    return f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(title)}">{inside}</svg>'
