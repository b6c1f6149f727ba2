"""Who is at work where: locks on folders, and hidden names that say whose they are.

A process marks what it writes twice: by an flock, which ends with the process, and by a name that says its machine and
boot. In one boot of a machine the lock decides, across containers too; what an earlier boot left is abandoned. Other
machines don't see the lock (NFS keeps that of a folder with the client that took it), so of what they left only that
which showed no sign of life for SILENCE seconds is abandoned: whoever is at work touches his folder every BEAT.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
import platform
import re
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from headrace.errors import StorageError

BEAT = 60.0  # seconds
SILENCE = 3600.0
QUIET = 1.0  # seconds that a lock is waited for without a word
PATIENCE = 600.0  # seconds that it is waited for at all

# What file systems without flock say, as some parallel ones do.
_NO_LOCKS = frozenset((errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EINVAL))
_TAG = re.compile("([0-9a-f]{8})-([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}")

_log = logging.getLogger("headrace")


def tag() -> str:
    """What makes a hidden name this process's own: MACHINE-BOOT-PID-RANDOM, 34 bytes at most."""
    return f"{'-'.join(_here())}-{os.getpid()}-{secrets.token_hex(4)}"


@functools.cache
def _here() -> tuple[str, str]:
    """This machine and its boot, eight digits each."""

    def said(path: str) -> str:
        with contextlib.suppress(OSError):
            return Path(path).read_text().strip()
        return ""

    machine = f"{platform.node()} {said('/etc/machine-id')} "
    # Where no boot has a number, the lock alone decides on one machine.
    boot = said("/proc/sys/kernel/random/boot_id") or f"{machine}{uuid.getnode()}"
    return _digits(machine), _digits(boot)


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]


def abandoned(folder: Path, begin: str, *, silence: float = SILENCE) -> Iterator[Path]:
    """What stands in `folder` under a name of `begin` and a tag, and nobody is at work in. On this machine it is locked
    while the caller has it. What vanishes meanwhile is none. Raises OSError."""
    # Of a folder of a million names few are looked at twice.
    for name in sorted(name for name in os.listdir(folder) if name.startswith(begin)):  # noqa: PTH208
        path = folder / name
        found = _TAG.fullmatch(name.removeprefix(begin))
        if found is None:
            continue
        machine, boot = _here()
        # Gone, locked or not ours to open: somebody else's.
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            if found[2] == boot:
                handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
                stack.callback(os.close, handle)
                gone = _take(handle) or _is_silent(path, silence)
            else:
                gone = found[1] == machine or _is_silent(path, silence)
            if gone:
                yield path


def _is_silent(path: Path, silence: float) -> bool:
    return time.time() - path.lstat().st_mtime > silence


def runs(path: Path) -> bool:
    """Whether a process has the number that this name's tag says: of files, which are made before they are locked."""
    found = _TAG.search(path.name)
    try:
        os.kill(int(found[3]) if found else 0, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """While it lasts, `folder` is nobody else's: locked, and touched every BEAT seconds. Raises OSError."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(folder)  # by the clock of the disk's own machine

    beats = threading.Thread(target=beat, daemon=True, name="headrace-beat")
    with locked(folder):
        beats.start()
        try:
            yield
        finally:
            ended.set()
            beats.join()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds an advisory lock on a folder, which ends with the process; where there are no locks, nothing. Waited for
    aloud, and not for ever. Raises OSError, StorageError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        began, silent = time.monotonic(), True
        while not _has(handle):
            waited = time.monotonic() - began
            if waited > PATIENCE:
                raise StorageError(
                    f"{folder}: {_holder(handle)} has held a lock on it for {PATIENCE:.0f} seconds; end it, or choose "
                    "another folder"
                )
            if waited > QUIET and silent:
                silent = False
                _log.warning("waiting for %s, on which %s holds a lock; Ctrl-C gives up", folder, _holder(handle))
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def _has(handle: int) -> bool:
    """Whether the lock is ours now, or needless. Raises OSError."""
    try:
        _take(handle)
    except BlockingIOError:
        return False
    return True


def _take(handle: int) -> bool:
    """Whether there are locks; then this one is ours. Raises BlockingIOError: it is another's."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def hold(handle: int) -> None:
    """Locks an open file until it is closed, where that can be done."""
    with contextlib.suppress(OSError):
        _take(handle)


def _holder(handle: int) -> str:
    """Who holds the lock, as far as the system tells."""
    status = os.fstat(handle)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if len(words) > 5 and words[1] == "FLOCK" and words[5] == device:
                with contextlib.suppress(OSError):
                    return f"process {words[4]} ({Path(f'/proc/{words[4]}/comm').read_text().strip()})"
                return f"process {words[4]}"
    return "another process"
