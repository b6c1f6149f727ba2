"""Packing on Ray, three nodes on this machine: the same bytes as here, whatever dies, and nothing is left of it."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import headrace as hr
import stored
from drawn import files, jpeg, photos
from headrace.errors import EngineError, UsageError
from headrace.packing.runners import ShardResult, Tasks
from headrace.place import publish
from killing import Full, Killing, puts
from packed_there import OPTIONS, PATTERN, SHARDS, headrace_process, interrupted_by, shard, source_of, state

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'headrace[ray]'")

pytestmark = pytest.mark.cluster

# Of one node on this machine: no more than it needs.
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}


DEATHS = {
    shard(1, "idx"): "before",
    shard(2): "before",
    shard(4): "after",
    shard(5, "idx"): "before",
    shard(9): "before",
    shard(11): "after",
}


@pytest.fixture(scope="module", autouse=True)
def apart() -> Iterator[None]:
    """Ray as it is nobody else's: no home, no token, no statistics, its sockets in a folder with a short name."""
    folder = tempfile.mkdtemp(prefix="ray-")
    said = {
        "HOME": folder,
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    with mock.patch.dict(os.environ, said):
        os.environ.pop("RAY_ADDRESS", None)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of a core each; this process is connected to them."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE)
    made.workers = [made.add_node(**NODE) for _ in range(2)]
    made.wait_for_nodes()
    ray.init(made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def losing(cluster: Any, after: int) -> Callable[[Tasks], Iterator[ShardResult]]:
    """Ray, of which a node is lost without a word when so many results have come."""

    def run(tasks: Tasks) -> Iterator[ShardResult]:
        for n, result in enumerate(hr.runners.ray()(tasks)):
            if n == after:
                cluster.remove_node(cluster.workers.pop(), allow_graceful=False)
                cluster.workers.append(cluster.add_node(wait=False, **NODE))
            yield result

    return run


def commands() -> list[list[str]]:
    """The words of all processes of this machine."""
    import psutil

    return [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]


# First of all: where the cluster of the others is there already, it would be taken.
def test_a_ray_of_its_own_ends_with_it(pictures: Path, packed_here: dict[str, bytes], out: Path) -> None:
    words = ["pack", str(pictures), str(out), "--format", "names", "--pattern", PATTERN, "--max-rejects", "50%"]
    words += ["--shards", str(SHARDS), "--runner", "ray", "--workers", "1"]
    with mock.patch.dict(os.environ, {"RAY_TMPDIR": tempfile.mkdtemp(prefix="ray-", dir=os.environ["HOME"])}):
        done = headrace_process(words)
        assert (done.returncode, done.stderr) == (0, "")
        assert state(out) == packed_here
        shutil.rmtree(out)
        interrupted_by("ray", pictures, out)
        # What Ray has told to end takes a moment for it.
        stored.until(lambda: not [words for words in commands() if os.environ["RAY_TMPDIR"] in " ".join(words)])


def test_six_workers_killed_and_a_node_lost(
    cluster: Any,
    pictures: Path,
    packed_here: dict[str, bytes],
    out: Path,
    marks: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publish, "FolderSink", functools.partial(Killing, marks=marks, deaths=DEATHS))
    report = hr.pack(source_of(pictures), out, runner=losing(cluster, 3), **OPTIONS)
    assert {path.name.removeprefix("once-") for path in marks.iterdir()} == {*DEATHS, "puts"}
    assert state(out) == packed_here
    assert [path.name for path in out.parent.iterdir()] == ["ds"]
    assert (report.seen, report.stored, len(report.rejects)) == (62, 60, 2)
    assert ray.is_initialized()  # as it was found


def test_workers_are_of_a_ray_of_its_own(
    cluster: Any, pictures: Path, packed_here: dict[str, bytes], out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hr.pack(source_of(pictures), out, runner=hr.runners.ray(workers=1), **OPTIONS)
    assert state(out) == packed_here
    assert "workers=1 is for a Ray of its own: one that is there already is taken" in caplog.text


def test_a_result_lost_after_success(
    cluster: Any, tmp_path: Path, out: Path, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large results lie on the node that made them. When it goes before they were fetched its tasks run again."""
    from headrace.packing.runners.on_ray import _Ray

    texts = np.random.default_rng(0).integers(40, 120, (40, 40_000), np.uint8)
    records = [
        hr.Record(id=f"{k:02d}", encoded=jpeg(seed=k), label_name="x", attributes={"text": bytes(text).decode()})
        for k, text in enumerate(texts)
    ]
    hr.pack(records, tmp_path / "here" / "ds", shards=4, progress=False)
    first = _Ray.first

    def lost(self: _Ray, running: Collection[Any]) -> Any:
        if not (marks / "lost").exists():
            ray.wait([*running], num_returns=len(running), fetch_local=False)
            (marks / "lost").touch()
            for node in cluster.workers:
                cluster.remove_node(node, allow_graceful=False)
            cluster.workers[:] = [cluster.add_node(**NODE), cluster.add_node(**NODE)]
        return first(self, running)

    monkeypatch.setattr(_Ray, "first", lost)
    monkeypatch.setattr(publish, "FolderSink", functools.partial(Killing, marks=marks, deaths={}))
    hr.pack(records, out, shards=4, progress=False, runner=hr.runners.ray())
    assert state(out) == state(tmp_path / "here" / "ds")
    put = [name for name in puts(marks) if name.endswith(".tfrecord")]
    assert len(set(put)) == 4 < len(put)


def test_a_disk_that_is_full_once(
    cluster: Any,
    pictures: Path,
    packed_here: dict[str, bytes],
    out: Path,
    marks: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publish, "FolderSink", functools.partial(Full, marks=marks, shard=shard(3)))
    hr.pack(source_of(pictures), out, runner=hr.runners.ray(), **OPTIONS)
    assert state(out) == packed_here and puts(marks).count(shard(3)) == 2


def test_no_cluster_there(pictures: Path, out: Path) -> None:
    ray.shutdown()
    with pytest.raises(EngineError, match=r"^127\.0\.0\.1:1: no Ray answers there: "):
        hr.pack(source_of(pictures), out, runner=hr.runners.ray("127.0.0.1:1"), **OPTIONS)
    with pytest.raises(UsageError, match=r"^workers is 2: it is for a local Ray, and auto has its own$"):
        hr.runners.ray("auto", workers=2)
    assert not [*out.parent.iterdir()]


def test_the_page_on_clusters_runs(tmp_path: Path) -> None:
    """docs/tutorials/cluster.md, as it is written: all its ways to pack make the same dataset."""
    page = (Path(__file__).parents[2] / "docs/tutorials/cluster.md").read_text()
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    photos(tmp_path / "photos" / "train", 48)
    script = tmp_path / "page.py"  # a file, as processes that are spawned read it again
    script.write_text("\n".join(code for kind, code in blocks if kind == "python"))
    run = f'exec {shlex.quote(sys.executable)} -m headrace "$@"'
    files(tmp_path / "bin", {"headrace": f"#!/bin/sh\n{run}\n".encode()})
    (tmp_path / "bin" / "headrace").chmod(0o755)
    said = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    said["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-", dir=os.environ["HOME"])
    shell = "\n".join(code for kind, code in blocks if kind == "bash")
    out = ""
    for command in ([sys.executable, str(script)], ["bash", "-euo", "pipefail", "-c", shell]):
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | said, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        out += done.stdout
    assert out.count("48 images in 8 shards") == 2
    assert [line for line in out.splitlines() if line.endswith(": the same")] == [
        f"by-{how}: the same" for how in ("ray", "dask", "array")
    ]
    assert state(tmp_path / "by-processes" / "cats") == state(tmp_path / "here" / "cats")
