"""How a verb shows its help, and how an error of the library names what was typed."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from headrace.cli.options import OPTIONS
from headrace.errors import HeadraceError

_ARGUMENTS = "Arguments"
_WIDTH = 100  # of help, where the terminal is that wide
_COLUMN = 26  # the longest option that has its help beside it

# The values of arguments, as library errors spell them: overwrite=True, images=DIR, pattern='^(?P<label>a)',
# map={'image': 'jpg'}.
_LITERAL = r"True|False|None|'[^']*'|\"[^\"]*\"|-?[0-9.]*[0-9]|\{[^{}]*\}|\[[^\[\]]*\]"
_PLACEHOLDER = r"[A-Z]+\b"


class Verb(TyperCommand):
    """A verb. Its epilog are examples, a line each, which are shown as they are: they can be copied."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.context_settings = {"max_content_width": _WIDTH, **self.context_settings}

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(_argument(param) for param in self.get_params(ctx) if not _is_option(param))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        params: list[Any] = self.get_params(ctx)
        for param in params:
            if not param.hidden:
                name = (getattr(param, "rich_help_panel", None) or OPTIONS) if _is_option(param) else _ARGUMENTS
                sections.setdefault(name, []).append(_row(param))
        sections |= {OPTIONS: sections.pop(OPTIONS)}  # the general ones last
        column = _column(row for name, rows in sections.items() for row in rows if name != _ARGUMENTS)
        for name, rows in sections.items():
            with formatter.section(name):
                write_rows(formatter, rows, None if name == _ARGUMENTS else column)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        write_examples(formatter, self.epilog)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HeadraceError as error:
            error.args = (spelled(str(error), self.flags(ctx)), *error.args[1:])
            raise

    def flags(self, ctx: Any) -> dict[str, str]:
        """Argument -> option."""
        return {param.name: param.opts[-1] for param in self.get_params(ctx) if _is_option(param)}


class Verbs(TyperGroup):
    """All verbs."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        write_examples(formatter, self.epilog)


def write_rows(formatter: Any, rows: Sequence[tuple[str, str]], column: int | None = None) -> None:
    """Names and what they are, side by side; beside a name that reaches over the column, below it. Unlike Click's own
    list it never cuts an option in two at a hyphen."""
    column = _column(rows) if column is None else column
    for name, text in rows:
        left = " " * (formatter.current_indent + column)
        lines = textwrap.wrap(
            text, max(20, formatter.width), initial_indent=left, subsequent_indent=left, break_on_hyphens=False
        )
        head = " " * formatter.current_indent + name
        if lines and len(head) + 2 <= len(left):
            lines[0] = head + lines[0][len(head) :]
        else:
            lines.insert(0, head)
        formatter.write("".join(f"{line}\n" for line in lines))


def _column(rows: Iterable[tuple[str, str]]) -> int:
    return max((len(name) for name, _ in rows if len(name) <= _COLUMN), default=0) + 2


def write_examples(formatter: Any, examples: str | None) -> None:
    """Commands as they are, a line each."""
    if examples:
        formatter.write_paragraph()
        formatter.write("Example:\n" + "".join(f"  {line}\n" for line in examples.splitlines()))


def spelled(message: str, flags: dict[str, str]) -> str:
    """A library error's message with the arguments in it as options: `overwrite=True` is `--overwrite`.

    Arguments are recognised by their names, those in `flags` and no others, where a value stands behind them; or alone
    in brackets, or before "is" at the beginning. A path is left alone, though it holds `size=224`.
    """
    if not flags:
        return message
    names = "|".join(map(re.escape, flags))

    def option(match: re.Match[str]) -> str:
        flag, word = flags[match[1]], match[2]
        try:
            value = ast.literal_eval(word)
        except (ValueError, SyntaxError):  # a placeholder
            return f"{flag} {word}"
        if value is True:
            return flag
        if isinstance(value, dict):
            return " ".join(f"{flag} {shlex.quote(f'{key}={one}')}" for key, one in value.items())
        words = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        return f"{flag} {shlex.quote(words)}"

    message = re.sub(rf"(?<=[ (])({names})=({_LITERAL}|{_PLACEHOLDER})(?![\w/=])", option, message)
    message = re.sub(rf"^({names})=(\{{[^{{}}]*\}})", option, message)
    message = re.sub(rf"(?<=\()({names})(?=\))", lambda match: flags[match[1]], message)
    return re.sub(rf"^({names})(?= is )", lambda match: flags[match[1]], message)


def _is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def _argument(param: Any) -> str:
    name = param.metavar or param.name.upper()
    name = name if param.nargs == 1 else f"{name}..."
    return name if param.required else f"[{name}]"


def _row(param: Any) -> tuple[str, str]:
    """What is typed, and what for."""
    if not _is_option(param):
        return _argument(param), param.help or ""
    name = ", ".join(param.opts)
    if not (param.is_flag or param.count):
        name += f" {param.metavar or param.name.upper()}"
    notes = ["required"] if param.required else []
    if param.default not in (None, False, ()) and not callable(param.default):
        notes.append(f"default {param.default}")
    return name, " ".join(_with_notes(param.help or "", notes))


def _with_notes(help: str, notes: list[str]) -> Iterable[str]:
    yield help
    if notes:
        yield f"[{', '.join(notes)}]"
