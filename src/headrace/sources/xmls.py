"""Large XML files, element by element: of a file of any size no more than one child of its root is in memory at once.

The files are strangers': entities and what lies outside are refused. What elements mean is left to the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from headrace.errors import DataError, StorageError

CHUNK = 1 << 16  # bytes read at once
DEEPEST = 32  # elements in one another: far beyond any annotation


@dataclass(slots=True, eq=False)
class Element:
    """An element that begins on `line`; `text` is all that stands directly in it."""

    tag: str
    attributes: dict[str, str]
    line: int
    children: list[Element] = field(default_factory=list)
    text: str = ""


def walk(path: Path, *, root: str, inside: Collection[str] = ()) -> Iterator[tuple[Element, Element | None]]:
    """(element, None) of each child of the element `root` that the file holds, and before a child whose tag is among
    `inside`, (element, child) of each of its own children, which that child then comes without.

    Raises StorageError, and DataError with its line: no XML, cut short, another root, an entity that is defined in it,
    or elements too deep in one another.
    """
    target = _Target(path, root, inside)
    parser: Any = DefusedXMLParser(target=target)
    target.line = lambda: int(parser.parser.CurrentLineNumber)
    try:
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                parser.feed(data)
                yield from target.taken()
            parser.close()
            yield from target.taken()
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error
    except ParseError as error:
        line, column = error.position
        reason = str(error).partition(":")[0]
        if "no element found" in reason or "unclosed" in reason:
            reason += "; is the file cut short?"
        raise DataError(f"{path}:{line}: column {column + 1}: no sound XML: {reason}") from None
    except DefusedXmlException as error:
        raise DataError(f"{path}:{target.line()}: it defines entities, which is refused ({error!r:.80})") from None
    except (ValueError, LookupError) as error:  # an encoding that nobody knows, or of many bytes
        raise DataError(f"{path}:{target.line()}: no sound XML: {str(error).lower()}") from None


class _Target:
    """Gathers what the parser finds. `path`: the file, for errors."""

    def __init__(self, path: Path, root: str, inside: Collection[str]) -> None:
        self.path, self.root, self.inside = path, root, inside
        self.line: Callable[[], int] = lambda: 0
        self._open: list[Element] = []
        self._texts: list[list[str]] = []
        self._done: list[tuple[Element, Element | None]] = []

    def taken(self) -> list[tuple[Element, Element | None]]:
        """What is complete since this was asked for the last time."""
        done, self._done = self._done, []
        return done

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._open and tag != self.root:
            raise DataError(f"{self.path}:{self.line()}: the element is <{tag:.40}>, wanted <{self.root}>")
        if len(self._open) >= DEEPEST:
            raise DataError(f"{self.path}:{self.line()}: more than {DEEPEST} elements in one another")
        self._open.append(Element(tag, attributes, self.line()))
        self._texts.append([])

    def data(self, text: str) -> None:
        if len(self._texts) > 1:  # nothing is kept of what stands between the elements of the root
            self._texts[-1].append(text)

    def end(self, tag: str) -> None:
        made, texts = self._open.pop(), self._texts.pop()
        made.text = "".join(texts)
        depth = len(self._open)
        if depth == 1:
            self._done.append((made, None))
        elif depth == 2 and self._open[-1].tag in self.inside:
            self._texts[-1].clear()
            self._done.append((made, self._open[-1]))
        elif depth > 1:
            self._open[-1].children.append(made)

    def close(self) -> None:
        """The parser asks for what was made; it was taken already."""
