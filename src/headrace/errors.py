"""What goes wrong, by whose fault. Each error is also a builtin kind, so `except ValueError` works too."""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the CLI ends with (1 data, 2 the call)."""

    exit_code = 2


class UsageError(HeadraceError, ValueError):
    """The call is at fault: an argument, an option, a name that is not there."""


class UnknownIdError(UsageError, KeyError):
    """There is no record of this id; the message names those that are near."""

    __str__ = Exception.__str__  # KeyError quotes its message


class ConflictError(UsageError):
    """The dataset was edited since by somebody else: the message says who, when, why and what. Nothing was changed."""


class NotThereError(HeadraceError, FileNotFoundError):
    """A file or folder that the call names does not exist."""


class StorageError(HeadraceError, OSError):
    """The file system refused: no permission, a full disk, a folder in the way."""


class MissingExtraError(HeadraceError, ImportError):
    """An optional package is not installed; the message holds the install line."""

    __str__ = Exception.__str__  # ImportError keeps a message of its own, which the command line can't reword


class EngineError(HeadraceError, RuntimeError):
    """What does the work beside this process failed: an engine can't be reached, or its workers die."""


class DataError(HeadraceError, ValueError):
    """The data is at fault: nothing usable in it, or more Rejects than allowed."""

    exit_code = 1


class DamageError(DataError):
    """Bytes on disk are not what was promised: names shard, record and byte."""
