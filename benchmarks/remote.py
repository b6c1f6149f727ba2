"""Images/s of an epoch whose images lie behind 30 ms of latency: ours, beside the local rate and other loaders.

    python benchmarks/remote.py FOLDER [--copies 4] [--latency 0.03] [--repeats 5] [--json FILE]
    python benchmarks/remote.py FOLDER --memory             # memory over epochs of a set twice as large as the cache

A server of its own process answers GET and HEAD with ranges, each after LATENCY seconds, as fast as it can: a web
server, and to those who ask so a bucket of S3 (it looks at no signature). The photos of FOLDER lie there --copies times
in each form: packed, as tars, as MDS shards and as files. Every arm is a fresh process with an empty cache that reads
one epoch: shuffled batches of 32 at 224 x 224, as many workers as there are cores; imports, construction and the
decoding of 32 photos from memory come before its clock. The server takes its part of the same cores, at most of whom
asks most often.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import io
import itertools
import json
import mmap
import os
import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _measure import (
    HEADER,
    Arm,
    Job,
    Result,
    child,
    clocked,
    cores,
    facts,
    in_child,
    jpegs,
    markdown,
    megabytes,
    publish,
    rounds,
    row,
    skipped,
    summarise,
    warm_page_cache,
)

BUCKET = "data"
MEMORY_EPOCHS = 8
SIDE, BATCH = 224, 32


# --- the server -------------------------------------------------------------------------------------------------------


class Far(asyncio.Protocol):
    """A connection: each request is answered after a while, in its turn."""

    root: Path
    latency: float
    requests = 0
    sent = 0
    files: dict[str, memoryview] = {}  # noqa: RUF012

    def connection_made(self, transport: Any) -> None:
        self.transport, self.asked = transport, b""

    def data_received(self, data: bytes) -> None:
        self.asked += data
        while (end := self.asked.find(b"\r\n\r\n")) >= 0:
            head, self.asked = self.asked[:end].decode("latin-1"), self.asked[end + 4 :]
            self._answer(head)

    def _answer(self, head: str) -> None:
        method, path, _ = head.split("\r\n", 1)[0].split(" ")
        path = path.partition("?")[0].lstrip("/")
        if path == "-counts":
            body = memoryview(json.dumps([Far.requests, Far.sent]).encode())
            self._send(200, "OK", "", body, "GET")
            return
        body, status, extra = self._file(path), (200, "OK"), ""
        if body is None:
            status, body = (404, "Not Found"), memoryview(b"")
        elif found := re.search(r"\r\nrange: *bytes=(\d+)-(\d*)", head, re.IGNORECASE):
            size, start = len(body), int(found[1])
            stop = min(size, int(found[2]) + 1 if found[2] else size)
            status, body = (206, "Partial Content"), body[start:stop]
            extra = f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n"
        Far.requests += 1
        Far.sent += len(body) if method == "GET" else 0
        asyncio.get_running_loop().call_later(self.latency, self._send, *status, extra, body, method)

    def _send(self, code: int, text: str, extra: str, body: memoryview, method: str) -> None:
        head = (
            f'HTTP/1.1 {code} {text}\r\nContent-Length: {len(body)}\r\nAccept-Ranges: bytes\r\nETag: "1"\r\n{extra}'
            "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        self.transport.write(head.encode())
        if method == "GET" and len(body):
            self.transport.write(body)

    def _file(self, path: str) -> memoryview | None:
        if path not in self.files:
            try:
                with (self.root / path).open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):
                return None
            self.files[path] = memoryview(mapped)
        return self.files[path]


async def serve(root: Path, latency: float) -> None:
    Far.root, Far.latency = root, latency
    server = await asyncio.get_running_loop().create_server(Far, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def serving(root: Path, latency: float) -> Iterator[str]:
    """The address of a server of a folder."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(root), str(latency)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def counts(job: Job) -> tuple[int, int]:
    """Requests that the server has answered, and bytes that it has sent."""
    connection = http.client.HTTPConnection(job["url"].removeprefix("http://"))
    connection.request("GET", "/-counts")
    requests, sent = json.loads(connection.getresponse().read())
    connection.close()
    return requests, sent


# --- the arms ---------------------------------------------------------------------------------------------------------


def image(encoded: bytes) -> Any:
    """uint8 [224, 224, 3], as the peers make it."""
    import cv2
    import numpy as np

    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def stacked(images: Any) -> Any:
    import numpy as np

    return np.stack(images)


def first(batches: Any) -> Callable[[], int]:
    return lambda: sum(len(batch) for batch in batches)


def of_dataset(dataset: Any) -> Callable[[], int]:
    loader = dataset.loader(batch_size=BATCH, size=SIDE, fit="stretch", shuffle=True)
    return lambda: sum(len(batch.images) for batch in loader)


def headrace_local(job: Job, scratch: Path) -> Callable[[], int]:
    import headrace as hr

    return of_dataset(hr.Dataset(Path(job["root"], BUCKET, "packed")))


def headrace(job: Job, scratch: Path) -> Callable[[], int]:
    import headrace as hr

    return of_dataset(hr.Dataset(f"{job['url']}/{BUCKET}/packed", cache_dir=scratch / "cache"))


def headrace_again(job: Job, scratch: Path) -> Callable[[], int]:
    run = headrace(job, scratch)
    run()
    return run


def torch_loader(dataset: Any, **options: Any) -> Any:
    import torch

    return torch.utils.data.DataLoader(dataset, num_workers=cores(), **options)


def webdataset(job: Job, scratch: Path) -> Callable[[], int]:
    import webdataset as wds

    urls = [f"{job['url']}/{BUCKET}/{name}" for name in job["tars"]]
    made = wds.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000).to_tuple("jpg").map_tuple(image)
    return first(torch_loader(made.batched(BATCH, collation_fn=lambda some: stacked([one for one, in some])),
                              batch_size=None))  # fmt: skip


def streaming(job: Job, scratch: Path) -> Callable[[], int]:
    from streaming import StreamingDataset

    class Photos(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: int) -> Any:
            return image(super().__getitem__(at)["jpg"])

    made = Photos(remote=f"s3://{BUCKET}/mds", local=str(scratch / "mds"), shuffle=True, batch_size=BATCH)
    return first(torch_loader(made, batch_size=BATCH, collate_fn=stacked))


class Objects:
    """Photos by number, read as whole objects by `read`."""

    def __init__(self, read: Callable[[str], bytes], names: list[str]) -> None:
        self.read, self.names = read, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, at: int) -> Any:
        return image(self.read(self.names[at]))


def fsspec_torch(job: Job, scratch: Path) -> Callable[[], int]:
    import fsspec

    def read(name: str) -> bytes:
        return bytes(fsspec.filesystem("http").cat_file(f"{job['url']}/{BUCKET}/files/{name}"))

    made = Objects(read, job["names"])
    return first(torch_loader(made, batch_size=BATCH, shuffle=True, collate_fn=stacked))


def s3torch(job: Job, scratch: Path) -> Callable[[], int]:
    from s3torchconnector import S3ClientConfig, S3MapDataset

    made = S3MapDataset.from_objects(
        [f"s3://{BUCKET}/files/{name}" for name in job["names"]],
        region="us-east-1",
        endpoint=job["url"],
        transform=lambda one: image(one.read()),
        s3client_config=S3ClientConfig(force_path_style=True),
    )
    return first(torch_loader(made, batch_size=BATCH, shuffle=True, collate_fn=stacked))


def epoch(start: Callable[[Job, Path], Callable[[], int]]) -> Callable[[Job], Result]:
    """Measures an arm: one epoch, with an empty cache."""

    def measure(job: Job) -> Result:
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1",
            "S3_ENDPOINT_URL": job["url"], "AWS_ENDPOINT_URL": job["url"],
        }  # fmt: skip
        for path in Path(job["root"], BUCKET, "files").iterdir():
            image(path.read_bytes())
            if path.name.startswith("31-"):
                break
        with TemporaryDirectory(prefix="headrace-bench-", dir=job["root"]) as scratch:
            run = start(job, Path(scratch))
            before = counts(job)
            result = clocked(run)
            requests, sent = (now - then for now, then in zip(counts(job), before, strict=True))
        if result["images"] != job["images"]:
            raise SystemExit(f"{result['images']} images in an epoch, wanted {job['images']}")
        return result | {"requests": requests, "mb_sent": round(sent / 1e6, 1)}

    return measure


def memory(job: Job) -> Result:
    """MB of this process's own after each epoch, of a set twice as large as its cache."""
    import headrace as hr

    with TemporaryDirectory(prefix="headrace-bench-", dir=job["root"]) as scratch:
        half = sum(path.stat().st_size for path in Path(job["root"], BUCKET, "packed").glob("*.tfrecord")) // 2
        url = f"{job['url']}/{BUCKET}/packed"
        run = of_dataset(hr.Dataset(url, cache_dir=Path(scratch, "cache"), cache_bytes=half))
        anonymous, asked = [], []
        for _ in range(MEMORY_EPOCHS):
            before = counts(job)
            run()
            anonymous.append(round(megabytes()["anonymous"], 1))
            asked.append([now - then for now, then in zip(counts(job), before, strict=True)])
    return {"anonymous_mb": anonymous, "asked": asked, "cache_bytes": half}


ARMS = {
    "headrace": Arm(what="epoch 0 of a dataset at a URL, with an empty cache", measure=epoch(headrace),
                    needs=("obstore",)),
    "headrace, epoch 1": Arm(what="the epoch after it", measure=epoch(headrace_again), needs=("obstore",)),
    "headrace, local": Arm(what="epoch 0 of the same dataset in a folder", measure=epoch(headrace_local)),
    "WebDataset": Arm(what="tars over HTTP by curl, shuffle(1000), cv2, DataLoader", measure=epoch(webdataset),
                      needs=("webdataset", "torch")),
    "MosaicML Streaming": Arm(what="MDS shards from S3, shuffled, cv2, DataLoader", measure=epoch(streaming),
                              needs=("streaming", "torch")),
    "s3torchconnector": Arm(what="S3MapDataset, an object per photo, cv2, DataLoader", measure=epoch(s3torch),
                            needs=("s3torchconnector", "torch")),
    "fsspec + torch": Arm(what="an HTTP request per photo, cv2, DataLoader", measure=epoch(fsspec_torch),
                          needs=("fsspec", "aiohttp", "torch")),
}  # fmt: skip


def prepare(folder: Path, out: Path, copies: int, skip: dict[str, str]) -> Job:
    """The photos in each form, below `out`."""
    import headrace as hr

    photos = [(f"{k}-{path.name}", path.read_bytes()) for k in range(copies) for path in jpegs(folder)]
    random.Random(0).shuffle(photos)
    files = out / "files"
    files.mkdir(parents=True)
    for name, data in photos:
        (files / name).write_bytes(data)
    hr.pack((hr.Record(id=name, encoded=data) for name, data in photos), out / "packed", shards=16, progress=False)
    kept = set(hr.Dataset(out / "packed").catalog["id"])
    photos = [(name, data) for name, data in photos if name in kept]
    tars = []
    for k in range(16):
        tars.append(f"photos-{k:05d}.tar")
        with tarfile.open(out / tars[-1], "w") as tar:
            for name, data in photos[k::16]:
                info = tarfile.TarInfo(name.removesuffix(".jpg").replace(".", "_") + ".jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    if "MosaicML Streaming" not in skip:
        from streaming import MDSWriter

        with MDSWriter(out=str(out / "mds"), columns={"jpg": "bytes"}, size_limit=1 << 23) as writer:
            for _, data in photos:
                writer.write({"jpg": data})
    warm_page_cache([path for path in out.rglob("*") if path.is_file()])
    return {"images": len(photos), "names": [name for name, _ in photos], "tars": tars}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--arms", nargs="*", help="only these")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    report = facts("remote")
    report["skipped"] = skipped(ARMS)
    arms = [arm for arm in ARMS if arm not in report["skipped"] and (not args.arms or arm in args.arms)]
    with TemporaryDirectory(prefix="headrace-bench-") as scratch:
        job = prepare(args.folder, Path(scratch, BUCKET), args.copies, report["skipped"])
        job["root"] = scratch
        with serving(Path(scratch), args.latency) as job["url"]:
            report["job"] = {"images": job["images"], "copies": args.copies, "latency": args.latency}
            if args.memory:
                report["memory"] = found = in_child("memory", job)
                rows = zip(itertools.count(), found["anonymous_mb"], *zip(*found["asked"], strict=True), strict=False)
                cells = [(str(k), f"{mb:.1f}", str(n), f"{sent / 1e6:.1f}") for k, mb, n, sent in rows]
                table = markdown(("epoch", "MB", "requests", "MB sent"), cells)
            else:
                report["arms"] = summarise(ARMS, rounds(arms, job, args.repeats))
                table = rate_table(report["arms"])
    publish(report, table, args.json)


def rate_table(arms: dict[str, Any]) -> str:
    found = []
    for arm, of_arm in arms.items():
        asked = of_arm["measurements"][-1]
        found.append((*row(arm, of_arm), str(asked["requests"]), f"{asked['mb_sent']:.0f}", of_arm["what"]))
    return markdown((*HEADER, "requests", "MB sent", "what"), found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(Path(sys.argv[2]), float(sys.argv[3])))
    elif not child({**ARMS, "memory": Arm(what="memory", measure=memory)}):
        main()
