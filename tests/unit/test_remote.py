"""Reading from stores and web servers: the right bytes, or an error of one line that says where; never others."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import re
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stored
from headrace.errors import HeadraceError, MissingExtraError, NotThereError, StorageError, UsageError
from headrace.place import remote, stores
from headrace.place.address import Url
from headrace.place.open import at
from headrace.place.remote import RemotePlace
from stored import QUICK, Bucket, Faults

DATA = np.random.default_rng(0).bytes(100_000)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with stored.s3() as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return stored.bucket(endpoint, monkeypatch)


@pytest.fixture
def place(bucket: Bucket) -> RemotePlace:
    bucket.put("cats/file", DATA)
    return RemotePlace(Url(f"{bucket.url}/cats"), QUICK)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))


# --- what is read -----------------------------------------------------------------------------------------------------


def test_ranges_are_those_of_the_object(place: RemotePlace) -> None:
    n = len(DATA)
    for offset, length in ((0, 10), (0, n), (n - 5, 5), (n - 5, 50), (n, 5), (n + 5, 5), (7, 0), (0, 10 * n)):
        assert place.read("file", offset, length) == DATA[offset : offset + length]
        fresh = RemotePlace(place.path, place.options)
        assert fresh.read("file", offset, length) == DATA[offset : offset + length]
    assert place.record("file", 100, 50, 0) == DATA[100:150]


def test_whole_objects(place: RemotePlace, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("cats/empty", b"")
    monkeypatch.setattr(remote, "BLOCK", 1 << 14)
    assert list(place.blocks("file", 30_000)) == [DATA[i : i + 30_000] for i in range(0, len(DATA), 30_000)]
    assert place.content("file", len(DATA)) == DATA
    with pytest.raises(StorageError, match=r"cats/file: 100000 bytes, wanted at most 99999"):
        place.content("file", len(DATA) - 1)
    assert place.content("empty", 10) == b"" and list(place.blocks("empty")) in ([], [b""])
    assert place.size("file") == len(DATA) and place.size("empty") == 0
    assert place.digest("file") == hashlib.sha256(DATA).hexdigest()
    assert place.digest_ends("file") == hashlib.sha256(DATA[: 1 << 16] + DATA[1 << 16 :][-(1 << 16) :]).hexdigest()


def test_the_ends_of_files_are_told_as_on_a_disk(place: RemotePlace, bucket: Bucket, tmp_path: Path) -> None:
    for n in (1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 1 << 17, 200_000):
        data = np.random.default_rng(n).bytes(n)
        (tmp_path / f"{n}").write_bytes(data)
        bucket.put(f"cats/{n}", data)
        assert place.digest_ends(f"{n}") == at(tmp_path).digest_ends(f"{n}")
        assert place.digest(f"{n}") == at(tmp_path).digest(f"{n}")


def test_a_copy_is_kept_and_mended(place: RemotePlace, bucket: Bucket) -> None:
    sha256 = hashlib.sha256(DATA).hexdigest()
    path = place.whole("file", sha256)
    assert path.read_bytes() == DATA
    bucket.delete("cats/file")
    assert place.whole("file", sha256) == path  # nobody is asked
    bucket.put("cats/file", DATA)
    path.write_bytes(DATA[:-1] + b"?")
    assert RemotePlace(place.path, QUICK).whole("file", sha256, anew=True).read_bytes() == DATA
    with pytest.raises(StorageError, match="cats/file"):
        place.whole("file", hashlib.sha256(b"other").hexdigest())


def test_what_there_is(place: RemotePlace, bucket: Bucket) -> None:
    names = ["a b.jpg", "ü.jpg", "100%25.jpg", "what?.jpg", "a#b.jpg", "deep/er/x"]
    for name in names:
        bucket.put(f"cats/{name}", name.encode())
    assert sorted(place.names()) == sorted(["file", *names[:-1]])
    assert {one.name: one.size for one in place.objects()} == {"file": len(DATA)} | {
        name: len(name.encode()) for name in names
    }
    assert set(bucket.objects) == {f"cats/{name}" for name in ["file", *names]}
    for name in names:
        assert place.content(name, 100) == name.encode()
    below = place.within("deep/er")
    assert below.names() == ["x"] and below.content("x", 100) == b"deep/er/x"
    assert place.exists() and below.exists() and not place.within("shallow").exists()
    assert place.within("") is place
    assert place.address("file") == f"{bucket.url}/cats/file"


def test_many_objects_are_all_listed(place: RemotePlace, bucket: Bucket) -> None:
    for i in range(1100):  # a page has a thousand
        bucket.put(f"cats/many/{i}", b"1")
    assert len(place.within("many").names()) == 1100
    assert len(list(place.objects("many"))) == 1100


def test_a_pickled_place_is_the_same(place: RemotePlace) -> None:
    other = pickle.loads(pickle.dumps(place))
    assert other.path == place.path and other.read("file", 5, 5) == DATA[5:10]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "s3://other/secret"])
def test_what_a_record_names_lies_below(place: RemotePlace, name: str) -> None:
    with pytest.raises(StorageError, match="leads out of s3://"):
        place.held(name, 100)
    assert place.held("file", len(DATA)) == DATA


# --- what has changed -------------------------------------------------------------------------------------------------


def test_an_object_that_changes_is_not_read_on(place: RemotePlace, bucket: Bucket) -> None:
    assert place.read("file", 0, 5) == DATA[:5]
    bucket.put("cats/file", DATA[::-1])  # of the same size
    with pytest.raises(StorageError, match=r"s3://\S+/cats/file: was replaced since it was first read .* open the"):
        place.read("file", 5, 5)
    with pytest.raises(StorageError, match="was replaced"):
        list(place.blocks("file", 1000))
    place.forget("file")
    assert place.read("file", 5, 5) == DATA[::-1][5:10]


def test_versions_tell_objects_apart(place: RemotePlace, bucket: Bucket) -> None:
    before = place.version("file")
    assert place.version("file") == before
    bucket.put("cats/file", DATA[::-1])
    place.forget("file")
    assert place.version("file") != before


# --- what goes wrong --------------------------------------------------------------------------------------------------

KINDS = ("http", "s3")


def faulty_place(address: str, kind: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> RemotePlace:
    for name, value in stored.KEYS.items():
        monkeypatch.setenv(name, value)
    url = Url(f"{address}/bucket") if kind == "http" else Url("s3://bucket")
    return RemotePlace(url, QUICK | options | ({} if kind == "http" else {"endpoint": address}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("obstore", reason="obstore is not installed")
    made = tmp_path / "served"
    made.mkdir()
    (made / "file").write_bytes(DATA)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["503", "drop", "cut", "stall"])
def test_what_goes_wrong_once_is_not_noticed(
    kind: str, how: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A limit that what stalls goes over soon, and what does not stall doesn't, however busy this machine is.
    stalls = how == "stall"
    faults = Faults(folder, lambda n: how if n == 1 or (n % 2 and not stalls) else None)
    with stored.serving(stored.faulty(faults)) as address:
        options = {"client_options": {"timeout": "4s"}} if stalls else {}
        place = faulty_place(address, kind, monkeypatch, **options)
        for offset in (0, 1000, 99_000):
            assert place.read("file", offset, 3000) == DATA[offset : offset + 3000]
        assert place.content("file", 1 << 20) == DATA
        assert faults.asked["file"] == (5 if stalls else 8)
        faults.ended.set()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("503", r"the store is busy or broken .503 after 3 tries.; try again later"),
        ("403", r"the store permits no such request with the credentials in use .403\S*; use others"),
        ("drop", r"127.0.0.1:\d+ dropped the connection after 3 tries"),
        ("cut", r"dropped the connection"),
        ("stall", r"did not answer within the time limits"),
        ("short", r"the server sent another part than was asked for .Requested 0..1000, got 0..500"),
        ("whole", r"the server gives no parts of files .no Range requests"),
    ],
)
def test_what_stays_wrong_is_said_in_a_line(
    kind: str, how: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(folder, lambda n: how)
    with stored.serving(stored.faulty(faults)) as address:
        options = {"client_options": {"timeout": "200ms"}} if how == "stall" else {}
        place = faulty_place(address, kind, monkeypatch, **options)
        with pytest.raises(StorageError, match=f"^{place.address('file')}: .*{said}") as caught:
            place.read("file", 0, 1000)
        assert "\n" not in str(caught.value) and "Debug source" not in str(caught.value)
        faults.ended.set()


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_is_read_than_was_asked_for(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stored.serving(stored.faulty(Faults(folder, lambda n: "long"))) as address:
        place = faulty_place(address, kind, monkeypatch)
        assert place.read("file", 10, 1000) == DATA[10:1010]
        assert list(place.blocks("file", 30_000)) == [DATA[i : i + 30_000] for i in range(0, len(DATA), 30_000)]
        part = place.view("file", 10, 1000)
        assert part == DATA[10:1010] and part.readonly


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changes_on_a_web_server(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stored.serving(stored.faulty(Faults(folder))) as address:
        place = faulty_place(address, kind, monkeypatch)
        assert place.read("file", 0, 5) == DATA[:5]
        (folder / "file").write_bytes(DATA[:-1])
        with pytest.raises(StorageError, match="/file: was replaced since it was first read"):
            place.read("file", 5, 5)


def test_a_web_server_lists_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stored.serving(stored.faulty(Faults(folder))) as address:
        place = faulty_place(address, "http", monkeypatch)
        assert not place.exists()
        for ask in (place.names, lambda: list(place.objects())):
            with pytest.raises(UsageError, match="a web server doesn't say what files there are; name the files"):
                ask()
        with pytest.raises(NotThereError, match=f"{address}/bucket/none: no such object"):
            place.read("none", 0, 5)


def test_names_on_a_web_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a b").mkdir()
    (folder / "a b" / "ü#%?.jpg").write_bytes(b"here")
    with stored.serving(stored.faulty(Faults(folder))) as address:
        place = RemotePlace(Url(f"{address}/bucket/a%20b"), QUICK)  # an address is encoded, a name is not
        assert place.content("ü#%?.jpg", 10) == b"here"


def test_what_is_not_there(place: RemotePlace) -> None:
    for ask in (
        lambda: place.read("none", 0, 5),
        lambda: place.size("none"),
        lambda: place.content("none", 5),
        lambda: place.digest("none"),
        lambda: place.version("none"),
    ):
        with pytest.raises(NotThereError, match="cats/none: no such object"):
            ask()
    elsewhere = RemotePlace(Url("s3://no-such-bucket/cats"), QUICK)
    with pytest.raises(NotThereError, match="s3://no-such-bucket/cats/file: the bucket is not there; make it, or mend"):
        elsewhere.read("file", 0, 5)
    assert not elsewhere.exists()


@pytest.mark.parametrize("name", ["a//b", "a/../b", "\udcff"])
def test_names_that_no_object_has(place: RemotePlace, name: str) -> None:
    for ask in (lambda: place.read(name, 0, 1), lambda: place.size(name), lambda: list(place.objects(name))):
        with pytest.raises(StorageError, match=r"^s3://.*: no object can be called so"):
            ask()


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    place = faulty_place("http://127.0.0.1:1", "s3", monkeypatch)
    with pytest.raises(StorageError, match=r"s3://bucket/x: 127.0.0.1:1 refuses connections; .* after 3 tries"):
        place.read("x", 0, 1)
    soon = QUICK | {"client_options": {"timeout": "2s", "connect_timeout": "1s"}}  # where no server of names answers
    place = RemotePlace(Url("https://no.such.host.invalid/x"), soon)
    with pytest.raises(StorageError, match=r"https://no.such.host.invalid/x/y: .*no.such.host.invalid"):
        place.read("y", 0, 1)


# What stores say of credentials: status, code, message, and what we say.
REFUSALS = [
    (403, "AccessDenied", "Access Denied", "permits no such request with the credentials in use .403 AccessDenied"),
    (400, "ExpiredToken", "The provided token has expired.", "the credentials have expired .400 ExpiredToken"),
    (403, "InvalidAccessKeyId", "does not exist in our records", "does not know these credentials .403 InvalidAccess"),
    (403, "SignatureDoesNotMatch", "…", "does not know these credentials .403 SignatureDoesNotMatch"),
    (301, "PermanentRedirect", "must be addressed using the specified endpoint", "is in another region"),
    (501, "NotImplemented", "A header you provided", "has no such request .501 NotImplemented"),
    (404, "NoSuchBucket", "The specified bucket does not exist", "the bucket is not there"),
]


@pytest.mark.parametrize(("status", "code", "message", "said"), REFUSALS)
def test_what_stores_refuse_is_said_in_a_line(
    status: int, code: str, message: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()

    class Refusing(stored.faulty(Faults(tmp_path))):  # type: ignore[misc]
        def do_GET(self) -> None:
            self.answer(status, body)

    with stored.serving(Refusing) as address:
        place = faulty_place(address, "s3", monkeypatch)
        with pytest.raises(HeadraceError, match=f"^s3://bucket/x: .*{said}") as caught:
            place.read("x", 0, 1)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, NotThereError if status == 404 else StorageError)


# --- opening ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("s3://bucket/a//b", {}, "s3://bucket/a//b: '' is no part of a key; wanted names between single slashes"),
        ("s3://bucket/a/../b", {}, "s3://bucket/a/../b: '..' is no part of a key"),
        ("ftp://host/cats", {}, "ftp://host/cats: no store is called ftp://; wanted s3://, gs://, az://, or https://"),
        ("s3:///cats", {}, "s3:///cats: names no bucket"),
        ("https:///cats", {}, "https:///cats: names no host"),
        ("https://host/cats?key=1", {}, "https://host/cats: has a . or # behind it"),
        ("s3://bucket/cats", {"banana": 1}, "s3://bucket: can't be opened: .*banana"),
        ("s3://bucket/cats", {"client_options": {"banana": 1}}, "s3://bucket: can't be opened: .*banana"),
        ("az://container/cats", {}, "az://container: can't be opened: .*; set AZURE_STORAGE_ACCOUNT_NAME"),
        ("s3://bucket/cats", {"credential_provider": lambda: None}, "storage_options can't be handed to other proc"),
    ],
)
def test_what_can_not_be_opened(url: str, options: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match=said) as caught:
        RemotePlace(Url(url), options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options", "kind", "key"),
    [
        ("s3://bucket", {}, "S3Store", ""),
        ("s3a://bucket/a/b c/", {}, "S3Store", "a/b c"),
        ("s3://bucket/100%25", {}, "S3Store", "100%25"),  # a key is what it is
        ("gs://bucket/a", {"skip_signature": True}, "GCSStore", "a"),
        ("az://container/a", {"account_name": "me", "account_key": "a2V5"}, "AzureStore", "a"),
        ("abfs://container@me.dfs.core.windows.net/a", {"account_key": "a2V5"}, "AzureStore", "a"),
        ("https://example.org/a%20b/c", {}, "HTTPStore", "a b/c"),
        ("http://localhost:80/a", {}, "HTTPStore", "a"),
        ("https://me.blob.core.windows.net/container/a", {"account_key": "a2V5"}, "AzureStore", ""),
        ("https://bucket.s3.us-east-1.amazonaws.com/a", {}, "S3Store", ""),
    ],
)
def test_urls_open_their_stores(
    url: str, options: Any, kind: str, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    for name, value in stored.KEYS.items():
        monkeypatch.setenv(name, value)
    store = stores.opened(Url(url), options)
    assert (type(store.api).__name__, store.key) == (kind, key)
    assert store.reads_only is (kind == "HTTPStore")


def test_places_share_connections(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stores.opened(Url(f"{bucket.url}/a"), QUICK)
    assert stores.opened(Url(f"{bucket.url}/b"), dict(reversed(QUICK.items()))).api is one.api
    assert stores.opened(Url(f"{bucket.url}/a")).api is not one.api
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    assert stores.opened(Url(f"{bucket.url}/a"), QUICK).api is not one.api


def test_limits_are_those_that_were_given(bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "headrace")
    for options, upload, said in (
        ({}, False, "30s"),
        ({}, True, "286s"),
        ({"client_options": {"timeout": "7s"}}, False, "7s"),
        ({"client_options": {"timeout": "8s"}}, True, "8s"),
    ):
        caplog.clear()
        stores.opened(Url(f"s3://{bucket.name}-{said}/a"), options, upload=upload)
        assert f"a request may take {said}, and is tried again for 180 seconds at most" in caplog.text


def test_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"s3://never-opened: needs obstore.*pip install 'headrace\[remote\]'"):
        at("s3://never-opened/cats")


def test_options_are_for_stores(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder of this machine, which takes no storage_options"):
        at(tmp_path, {"endpoint": "http://localhost"})


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of nobody: no keys anywhere."""
    pytest.importorskip("obstore", reason="obstore is not installed")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    return tmp_path


def test_keys_of_a_profile(home: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed")
    (home / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = one\naws_secret_access_key = 1\n"
        "[mine]\naws_access_key_id = two\naws_secret_access_key = 2\n"
    )
    asked: list[str] = []

    class Asking(stored.faulty(Faults(home))):  # type: ignore[misc]
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.answer(404, b"")

    with stored.serving(Asking) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        for profile, key in ((None, "one"), ("mine", "two")):
            if profile is not None:
                monkeypatch.setenv("AWS_PROFILE", profile)
            with pytest.raises(NotThereError):
                RemotePlace(Url("s3://bucket"), QUICK).read("x", 0, 1)
            assert f"Credential={key}/" in asked[-1]
        # Keys in the environment or the options go before those of a profile.
        options = QUICK | {"access_key_id": "three", "secret_access_key": "3"}
        with pytest.raises(NotThereError):
            RemotePlace(Url("s3://bucket"), options).read("x", 0, 1)
        assert "Credential=three/" in asked[-1]


def test_a_profile_that_is_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match=r"s3://bucket: the credentials of the profile can't be had: .*nobody"):
        RemotePlace(Url("s3://bucket"))


def test_no_credentials_anywhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stored.serving(stored.faulty(Faults(home))) as address:  # a machine's own role: it has none
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", address)
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(
            StorageError, match=r"^s3://bucket/x: found no credentials for the store .*AWS_ACCESS_KEY_ID"
        ):
            RemotePlace(Url("s3://bucket"), QUICK).read("x", 0, 1)


class Expiring:
    """Somebody's own way to credentials, which has come to its end."""

    def __call__(self) -> Any:
        from botocore.exceptions import UnauthorizedSSOTokenError

        raise UnauthorizedSSOTokenError


def test_a_session_that_has_expired(home: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed")
    options = QUICK | {"credential_provider": Expiring(), "endpoint": endpoint}
    with pytest.raises(StorageError, match=r"^s3://bucket/x: .*credentials .*SSO") as caught:
        RemotePlace(Url("s3://bucket"), options).read("x", 0, 1)
    assert "\n" not in str(caught.value)


# --- processes, and waiting -------------------------------------------------------------------------------------------


def _read_in(place: RemotePlace | None, url: str, found: Any) -> None:
    try:
        found.put((place or RemotePlace(Url(url), QUICK)).read("file", 0, 5))
    except HeadraceError as error:
        found.put(f"{type(error).__name__}: {error}")


def _in_process(method: str, place: RemotePlace | None, url: str) -> Any:
    context = multiprocessing.get_context(method)
    found = context.Queue()
    child = context.Process(target=_read_in, args=(place, url, found))
    child.start()
    try:
        return found.get(timeout=600)
    finally:
        child.kill()
        child.join()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_other_processes(place: RemotePlace) -> None:
    place.read("file", 0, 5)
    assert _in_process("spawn", place, "") == DATA[:5]
    for there in (place, None):  # the one of the parent, and one of its own
        said = _in_process("fork", there, str(place.path))
        assert re.match(
            r"UsageError: s3://\S+/file: .* forked child .*; start the process by spawn or forkserver", said
        )


def test_a_wait_is_not_silent_and_ends_with_ctrl_c(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Obstore itself looks at signals when its waiting is over."""
    import signal

    monkeypatch.setattr(stores, "QUIET", 0.01)
    faults = Faults(folder, lambda n: "stall")
    with stored.serving(stored.faulty(faults)) as address:
        options = {"client_options": {"timeout": "600s"}, "retry_config": {"max_retries": 0}}
        place = faulty_place(address, "s3", monkeypatch, **options)

        interrupted, in_time = threading.Event(), list[bool]()

        def interrupt() -> None:
            stored.until(lambda: "no answer yet" in caplog.text)
            os.kill(os.getpid(), signal.SIGINT)
            in_time.append(interrupted.wait(120))
            faults.ended.set()  # only now there is an answer, and an end of the waiting that sees no signals

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            place.read("file", 0, 100)
        interrupted.set()
        thread.join()
        assert in_time == [True]
    assert (
        "waiting for s3://bucket/file: no answer yet, it is tried for some 180 seconds; Ctrl-C gives up" in caplog.text
    )


def test_threads_ask_at_once(place: RemotePlace) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(place.read("file", 10 * i, 10) == DATA[10 * i : 10 * i + 10]))
        for i in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 32
    assert timedelta(seconds=stores.PATIENCE) < timedelta(minutes=5)  # requests are signed for 5 minutes


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/x", "s3://secret@bucket/x", "https://user:secret@host/x"])
def test_keys_are_no_part_of_an_address(url: str) -> None:
    """It goes into messages, logs and, of adopted shards, manifests."""
    with pytest.raises(UsageError, match=r"^\w+://…@(bucket|host): keys and passwords are no part of an address; set"):
        RemotePlace(Url(url))


def test_what_stands_behind_an_address_is_not_said_again() -> None:
    with pytest.raises(UsageError, match=r"^https://host/x: has a \? or # behind it"):
        RemotePlace(Url("https://host/x?X-Amz-Signature=secret"))
