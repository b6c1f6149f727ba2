"""Object stores by obstore: opening one by its URL, waiting for its answers, and saying in one line what went wrong.

What is read of a store is left to remote, what is written to one to publication.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from headrace.errors import HeadraceError, MissingExtraError, NotThereError, StorageError, UsageError
from headrace.place.address import Url

if TYPE_CHECKING:
    from obstore.store import ObjectStore

CONNECT = 5  # seconds that a connection may take
REQUEST = 30  # seconds that a request may take, from connecting to the last byte of its answer
RETRIES = 10
PATIENCE = 180  # seconds after which a request that failed is not tried again
SLOWEST = 1 << 20  # bytes a second: an upload may take a second more for each of these
ONE_PUT = 256 << 20  # bytes that are uploaded at once, so that a kill leaves nothing: larger files go in parts
QUIET = 5.0  # seconds that an answer is waited for without a word

BUCKETS = frozenset(("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"))
_WEB = frozenset(("http", "https"))
_NAMED_ACCOUNTS = ("abfs", "abfss", "azure", "az", "adl")  # abfs://CONTAINER@ACCOUNT…
# Hosts whose store obstore knows by the whole URL, with bucket or container in its path.
_KNOWN_HOSTS = ("amazonaws.com", "windows.net", "fabric.microsoft.com", "r2.cloudflarestorage.com")

_log = logging.getLogger("headrace")
_T = TypeVar("_T")


class ConditionError(StorageError):
    """A conditional put was refused: the object is there already, or is another by now."""


@dataclass(frozen=True, slots=True)
class Store:
    """An open store: `key` of what stands at the URL itself. `reads_only`: a web server, which takes no uploads."""

    api: ObjectStore
    key: str
    reads_only: bool

    def key_of(self, name: str) -> str:
        """The key of the file `name` below the URL."""
        return "/".join(filter(None, (self.key, name)))


def opened(url: Url, options: Mapping[str, Any] | None = None, *, upload: bool = False) -> Store:
    """The store of a URL; processes share the connections of one. Nothing is asked of it yet.

    options: of obstore's from_url: `client_options`, `retry_config`, `endpoint`, `access_key_id` and so on, which go
    before the environment. upload: requests may take as long as a large file does.
    Raises UsageError (no such kind of store, options that it doesn't know), MissingExtraError, StorageError (the
    credentials of a profile can't be had).
    """
    root, key = _parts(url)
    try:
        known = pickle.dumps(sorted((options or {}).items()))
    except Exception as error:  # whatever an object's own pickling raises
        raise UsageError(f"storage_options can't be handed to other processes: {error}") from error
    said = tuple(sorted((name, os.environ[name]) for name in os.environ if name.startswith(_SAID)))
    with _opening:
        api = _api(root, known, said, upload)
    return Store(api, key, urlsplit(root).scheme in _WEB and type(api).__name__ == "HTTPStore")


_SAID = ("AWS_", "GOOGLE_", "AZURE_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "HOME")
_opening = threading.Lock()


def _parts(url: Url) -> tuple[str, str]:
    """(what obstore opens, the key below it). Raises UsageError."""
    split = urlsplit(str(url))
    if split.password is not None or (split.username is not None and split.scheme not in _NAMED_ACCOUNTS):
        # Not said again: what is an address goes into messages, logs and manifests.
        raise UsageError(
            f"{split.scheme}://…@{split.netloc.rpartition('@')[2]}: keys and passwords are no part of an address; set "
            "them in the environment, in a profile or in storage_options"
        )
    if split.scheme not in BUCKETS | _WEB:
        raise UsageError(
            f"{url}: no store is called {split.scheme}://; wanted s3://, gs://, az://, or https:// for reading"
        )
    if not split.netloc:
        raise UsageError(
            f"{url}: names no {'host' if split.scheme in _WEB else 'bucket'}, as {split.scheme}://NAME/PATH"
        )
    if split.scheme in _WEB:
        if split.query or split.fragment:
            # What stands behind a ? may be a signature, which belongs into no message.
            raise UsageError(
                f"{split.scheme}://{split.netloc}{split.path}: has a ? or # behind it, and what stands below it would "
                "have none; pass an address without"
            )
        if (split.hostname or "").endswith(_KNOWN_HOSTS):
            return str(url), ""
        return f"{split.scheme}://{split.netloc}", unquote(split.path.strip("/"))
    # A key is what it is: not percent-encoded, and it may hold a ? or #.
    root, _, key = str(url).partition("://")[2].partition("/")
    for part in key.strip("/").split("/") if key.strip("/") else ():
        if part in ("", ".", ".."):
            raise UsageError(f"{url}: {part!r} is no part of a key; wanted names between single slashes")
    return f"{split.scheme}://{root}", key.strip("/")


def check_takes_uploads(url: Url) -> None:
    """Raises UsageError: no such kind of store, or a web server. Nothing is opened for it."""
    _parts(url)
    split = urlsplit(str(url))
    if split.scheme in _WEB and not (split.hostname or "").endswith(_KNOWN_HOSTS):
        raise UsageError(f"{url}: a web server takes no uploads; choose s3://, gs:// or az://, or a folder")


@functools.lru_cache(maxsize=64)
def _api(root: str, known: bytes, said: tuple[tuple[str, str], ...], upload: bool) -> ObjectStore:
    options = dict(pickle.loads(known))
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise MissingExtraError(
            f"{root}: needs obstore, which is not installed: pip install 'headrace[remote]'"
        ) from error
    scheme = urlsplit(root).scheme
    most = REQUEST + ONE_PUT // SLOWEST if upload else REQUEST
    client: dict[str, Any] = {"connect_timeout": f"{CONNECT}s", "timeout": f"{most}s"}
    client |= dict(options.pop("client_options", None) or {})
    if scheme == "http" or _is_plain(options):
        client.setdefault("allow_http", True)
    retry: dict[str, Any] = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=PATIENCE)}
    retry |= dict(options.pop("retry_config", None) or {})
    if scheme in ("s3", "s3a") and (provider := _of_profile(root, options)) is not None:
        options["credential_provider"] = provider
    try:
        open_: Any = from_url  # its types are those of four stores
        api: ObjectStore = open_(root, client_options=client, retry_config=retry, **options)
    except Exception as error:  # BaseError, ValueError, TypeError: whatever option it is about
        raise UsageError(f"{root}: can't be opened: {_first_line(error)}{_advice(scheme, error)}") from error
    _log.info(
        "%s: a request may take %s, and is tried again for %d seconds at most", root, client["timeout"],
        retry["retry_timeout"].total_seconds(),
    )  # fmt: skip
    return api


def _is_plain(options: Mapping[str, Any]) -> bool:
    """Whether an endpoint without TLS is asked for."""
    given = dict(options.get("config") or {}) | dict(options)
    found = [value for name, value in given.items() if "endpoint" in name.lower()]
    found += [os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")]
    return any(str(value).lower().startswith("http://") for value in found)


def _advice(scheme: str, error: Exception) -> str:
    if "Account must be specified" in str(error):
        return "; set AZURE_STORAGE_ACCOUNT_NAME, or name it: abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"
    return ""


def _of_profile(root: str, options: Mapping[str, Any]) -> Any:
    """The credentials of a profile or single sign-on, by boto3; None where keys are given, or nothing is to be had.

    Raises StorageError: the profile is not there, or its credentials can't be had.
    """
    given = dict(options.get("config") or {}) | dict(options)
    own = ("access_key_id", "credential_provider", "skip_signature", "web_identity_token_file", "container_credentials")
    named = [name.lower().removeprefix("aws_") for name in given] + [
        name.lower().removeprefix("aws_") for name in os.environ if name.startswith("AWS_")
    ]
    if any(name.startswith(own) for name in named):
        return None
    files = [
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ]
    if "AWS_PROFILE" not in os.environ and not any(Path(file).expanduser().is_file() for file in files):
        return None
    if importlib.util.find_spec("boto3") is None:
        if "AWS_PROFILE" in os.environ:
            raise MissingExtraError(f"{root}: credentials of a profile (AWS_PROFILE) need boto3: pip install boto3")
        return None
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError:  # the files say nothing of credentials: a machine's own role, perhaps
        return None
    except BotoCoreError as error:
        raise StorageError(f"{root}: the credentials of the profile can't be had: {error}") from error


# --- asking -----------------------------------------------------------------------------------------------------------


def _in_child() -> None:
    """A forked child has no threads but one, and obstore waits for those of its parent for ever."""
    global _is_dead
    _is_dead = _is_dead or "obstore" in sys.modules
    _opening._at_fork_reinit()  # type: ignore[attr-defined]


_is_dead = False
os.register_at_fork(after_in_child=_in_child)


def ask(address: str, call: Callable[[], _T], *, here: bool = False) -> _T:
    """What a request to a store gives, with its errors as ours. Waited for so that Ctrl-C ends it, and not in silence.

    `here`: in the thread of the caller, whose own code it calls. Raises UsageError (in a forked child), NotThereError,
    ConditionError, StorageError.
    """
    if _is_dead:
        raise UsageError(
            f"{address}: object stores can't be read in a forked child of a process that has opened one; start the "
            "process by spawn or forkserver (multiprocessing_context='spawn')"
        )
    with explained(address):
        if here or threading.current_thread() is not threading.main_thread():
            return call()
        began, waiting = time.monotonic(), _Waiting(call)
        if not waiting.done.wait(QUIET):
            _log.warning(
                "waiting for %s: no answer yet, it is tried for some %d seconds; Ctrl-C gives up", address, PATIENCE
            )
            while not waiting.done.wait(1):  # a wait without an end would not see Ctrl-C on every system
                pass
            _log.info("%s: answered after %.0f seconds", address, time.monotonic() - began)
        found: _T = waiting.result()
        return found


class _Waiting:
    """A call in a thread of its own: obstore waits without looking at signals."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.done = threading.Event()
        self._call = call
        self._found: Any = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="headrace-request", daemon=True).start()

    def _run(self) -> None:
        try:
            self._found = self._call()
        except BaseException as error:
            self._error = error
        finally:
            self.done.set()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._found


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turns what obstore raises about an object into an error of ours of one line, which begins with its address."""
    try:
        yield
    except HeadraceError:
        raise
    except Exception as error:
        kind, why = _explanation(error)
        if kind is None:
            raise
        raise kind(f"{address}: {why}") from error


_EXPIRED = ("ExpiredToken", "TokenRefreshRequired", "Token has expired", "SSO session", "expired and refresh failed")
_UNKNOWN_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthenticationFailed")
# Where the credentials of a machine's own role are asked for, by what is in the address.
_NO_CREDENTIALS = (
    *("169.254.169.254", "169.254.170.2", "latest/api/token", "latest/meta-data", "metadata.google.internal"),
    *("computeMetadata", "metadata/identity", "token request", "oauth2"),
)
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")


def _explanation(error: Exception) -> tuple[type[HeadraceError] | None, str]:
    """The kind of error and what it means; (None, "") of what is none of a store's."""
    name, text = type(error).__name__, str(error)
    if isinstance(error, UnicodeEncodeError) or (isinstance(error, ValueError) and "parse path" in text):
        return StorageError, f"no object can be called so ({_first_line(error)})"
    of_store = type(error).__module__.startswith("obstore") or isinstance(error, FileNotFoundError)
    if not of_store and not type(error).__module__.startswith("botocore"):
        return None, ""
    status = _matched(r"status code: (\d+)", text)
    code = _matched(r"<Code>([\w.]+)</Code>", text) or _matched(r'"reason": "(\w+)"', text)
    message = _matched(r"<Message>([^<\n]{1,200})", text)
    says = ": ".join(filter(None, (" ".join(filter(None, (status, code))), message)))
    tries = _matched(r"after (\d+) retries", text)
    tried = f" after {int(tries) + 1} tries" if tries else ""
    if any(word in text for word in _EXPIRED):
        return StorageError, f"the credentials have expired ({says or _first_line(error)}); renew them, and go on"
    if any(word in text for word in _UNKNOWN_KEYS):
        return StorageError, f"the store does not know these credentials ({says}); check the keys, and whose they are"
    if any(word in text for word in _NO_CREDENTIALS) or type(error).__module__.startswith("botocore"):
        return StorageError, (
            f"found no credentials for the store ({_first_line(error, 160)}); set them in the environment "
            "(AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY and such), in a profile of "
            "~/.aws (with boto3 installed), or in storage_options"
        )
    if any(word in text for word in _NO_BUCKET):
        return NotThereError, "the bucket is not there; make it, or mend its name"
    if name in ("PermissionDeniedError", "UnauthenticatedError") or status in ("401", "403"):
        return StorageError, (
            f"the store permits no such request with the credentials in use ({says or name}); use others, or have them "
            "permitted"
        )
    if isinstance(error, FileNotFoundError):
        return NotThereError, "no such object"
    if name in ("AlreadyExistsError", "PreconditionError", "NotModifiedError"):
        return ConditionError, f"is there already, or another by now ({says or name})"
    if name == "NotSupportedError" or "non-partial response" in text:
        return StorageError, (
            "the server gives no parts of files (no Range requests, as Python's http.server); serve them by nginx or "
            "such, or copy them to a disk"
        )
    if parts := _matched(r"(Requested \d+\.\.\d+, got \d+\.\.\d+)", text):
        return StorageError, f"the server sent another part than was asked for ({parts}); try again"
    if status == "416":
        return _PastTheEnd, "ends before that"
    if "incorrectly configured region" in text or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return StorageError, "the bucket is in another region; set AWS_REGION to its own"
    if status == "501" or code == "NotImplemented":
        return StorageError, f"the store has no such request ({says})"
    if status is not None:
        busy = "is busy or broken" if status[0] == "5" or status == "429" else "refuses the request"
        return StorageError, f"the store {busy} ({says}{tried}); try again later"
    for word, reason in _CAUSES.items():
        if word in text:
            host = _matched(r"https?://([^/\s]+)", text)
            return StorageError, f"{reason.format(host or 'the store')}{tried}"
    return StorageError, _first_line(error)


# What the causes in obstore's own words mean.
_CAUSES = {
    "Connection refused": "{} refuses connections; is the address right, and the server up?",
    "dns error": "no machine is called {}; mend the address",
    "failed to lookup address": "no machine is called {}; mend the address",
    "certificate": "the certificate of {} is not trusted",
    "BadScheme": "the address is http://, without TLS",
    "TimedOut": "{} did not answer within the time limits",
    "timed out": "{} did not answer within the time limits",
    "IncompleteMessage": "{} dropped the connection",
    "Connection reset": "{} dropped the connection",
    "connection closed": "{} dropped the connection",
    "unexpected end of file": "{} dropped the connection",
    "UnexpectedEof": "{} dropped the connection",
    "Broken pipe": "{} dropped the connection",
    "error decoding response body": "{} sent less than it said",
    "Connect": "{} can't be reached",
}


class _PastTheEnd(StorageError):
    """A range begins where the object has ended."""


def is_past_the_end(error: StorageError) -> bool:
    """Whether it says that a range begins at the object's end or behind it."""
    return isinstance(error, _PastTheEnd)


def _matched(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None


def _first_line(error: BaseException, most: int = 300) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:most]
