"""Values out of a file as frozen dataclasses: kinds by their annotations here, ranges by their own `__post_init__`.

By hand, as of libraries msgspec passes over a dataclass's unknown names and refuses NumPy's numbers, and cattrs takes
no union like `int | tuple[int, int]`; what an option's error says would be left to write for both.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from headrace.errors import UsageError

T = TypeVar("T")


def read(kind: type[T], values: Any, *, where: str, noun: str = "field") -> T:
    """A dataclass of `values` by name, with the dataclasses in it; `where` begins an error, `noun` is what it calls a
    name. Raises UsageError: unknown, missing, of a wrong kind, or what the dataclass itself refuses."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: is {_brief(values)}, wanted {noun}s by name")
    given = checked(kind, values, where=f"{where}: ", noun=noun)
    if missing := [f.name for f in _fields(kind) if f.name not in given and not _has_default(f)]:
        raise UsageError(f"{where}: has no {noun} {', '.join(missing)}")
    try:
        return kind(**given)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def checked(kind: type[Any], values: Mapping[str, Any], *, where: str = "", noun: str = "field") -> dict[str, Any]:
    """Some of a dataclass's values by name, of the kinds that it wants: lists are tuples where those are. Raises
    UsageError, which begins with `where`."""
    annotations = {f.name: f.type for f in _fields(kind)}
    if unknown := [str(name) for name in values if name not in annotations]:
        raise UsageError(f"{where}there is no {noun} {', '.join(unknown)}; there are {', '.join(annotations)}")
    kinds = get_type_hints(kind)
    given = {}
    for name, value in values.items():
        try:
            given[name] = _fitted(value, kinds[name], f"{where}{name}")
        except _Misfit:
            raise UsageError(f"{where}{name} is {_brief(value)}, wanted {annotations[name]}") from None
    return given


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the kind that an annotation says."""
    try:
        _fitted(value, kind, "")
    except (_Misfit, UsageError):
        return False
    return True


class _Misfit(Exception):
    """A value is of another kind."""


def _fitted(value: Any, kind: Any, where: str) -> Any:
    """The value as `kind`, an annotation, wants it. Raises _Misfit; UsageError in a dataclass, which has fields."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for one in args:
            try:
                return _fitted(value, one, where)
            except _Misfit:
                continue
        raise _Misfit
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _Misfit
        kinds = [args[0]] * len(value) if args[-1] is ... else list(args)
        if len(kinds) != len(value):
            raise _Misfit
        return tuple(_fitted(part, one, where) for part, one in zip(value, kinds, strict=True))
    if origin in (abc.Mapping, dict):
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise _Misfit
        return {name: _fitted(part, args[1], where) for name, part in value.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise _Misfit
        return read(kind, value, where=where)
    if isinstance(value, np.integer | np.floating):
        value = value.item()
    if not _is(value, kind, origin, args):
        raise _Misfit
    return value


def _is(value: Any, kind: Any, origin: Any, args: tuple[Any, ...]) -> bool:
    """Whether a value is one of the choices of a Literal, or of a plain kind; a bool is no number."""
    if origin is Literal:
        return isinstance(value, str) and value in args
    if kind is Any or kind is type(None):
        return kind is Any or value is None
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)
    return isinstance(value, kind)


def _fields(kind: type[Any]) -> tuple[Field[Any], ...]:
    return fields(kind)


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
