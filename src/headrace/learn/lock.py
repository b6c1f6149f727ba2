"""One training at a time in a RUN folder."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from headrace.errors import UsageError
from headrace.place.local import explained

log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock file `path` until the block or the process ends, with process and host in it.

    The file stays: whoever removed it could remove one that another has just locked. Raises UsageError: another has
    it. StorageError.
    """
    with explained(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 300, 0).decode(errors="replace").strip() or "another process"
            raise UsageError(
                f"{path.parent}: a training is at work in it ({owner}); wait for its end, or choose another place (out)"
            ) from None
        except OSError as error:  # some network file systems know no locks
            log.warning("%s: can't be locked (%s): nothing keeps a second training out", path.parent, error.strerror)
        with explained(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
