"""Packing photos that lie behind a server which answers after 30 ms, beside packing them from a folder.

    python benchmarks/stored.py FOLDER --json FILE [--latency 0.03] [--size 160] [--repeats 5]

FOLDER holds JPEG files. The server is Python's own, in a process of its own on the same machine, and takes cores of it,
as a store far away would not. Each image is one request. Arms: from the folder; from the server, as packing does it (64
requests on their way); from the server with a request at a time for each core, which is what reading in the packing's
own threads would give. All make the same shards.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import http.server
import json
import subprocess
import sys
import time
import urllib.parse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import headrace as hr
from _measure import (
    HEADER,
    JPEG_SUFFIXES,
    Arm,
    Job,
    Result,
    child,
    clocked,
    cores,
    facts,
    markdown,
    publish,
    rounds,
    summarise,
)
from _measure import row as cells
from headrace.packing import fetch


def serve(folder: Path, latency: float) -> None:
    """Serves the files of a folder, each answer after `latency` seconds; says its address first."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(latency)
            data = (folder / urllib.parse.unquote(self.path[1:])).read_bytes()
            first, _, last = (self.headers.get("Range") or "").removeprefix("bytes=").partition("-")
            begin, end = int(first or 0), min(int(last or len(data) - 1), len(data) - 1)
            self.send_response(206 if first else 200)
            self.send_header("ETag", f'"{len(data)}"')
            self.send_header("Last-Modified", "Sun, 29 Nov 2026 12:00:00 GMT")
            self.send_header("Content-Length", str(end + 1 - begin))
            if first:
                self.send_header("Content-Range", f"bytes {begin}-{end}/{len(data)}")
            self.end_headers()
            self.wfile.write(data[begin : end + 1])

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def pack(requests: int | None, job: Job) -> Result:
    """Packs all photos, from the server by so many requests at once, or from the folder."""
    names = sorted(path.name for path in Path(job["folder"]).iterdir() if path.suffix.lower() in JPEG_SUFFIXES)
    root = job["folder"] if requests is None else job["server"]
    if requests is not None:
        fetch.THREADS = requests
    records = [hr.Record(id=name, path=f"{root}/{name}") for name in names]

    def run() -> int:
        with TemporaryDirectory() as out:
            made = hr.pack(records, Path(out, "ds"), size=job["size"], shards=4, progress=False)
        return int(made.stored)

    run()  # threads and connections have begun
    return clocked(run)


ARMS = {
    "headrace": Arm(what="from the folder", measure=partial(pack, None)),
    "server": Arm(what="64 requests on their way", measure=partial(pack, fetch.THREADS)),
    "server, one a core": Arm(what="a request at a time per core", measure=partial(pack, cores())),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", json.dumps([str(given.folder), given.latency])],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        job = {"folder": str(given.folder.resolve()), "server": address, "size": given.size, "latency": given.latency}
        arms = summarise(ARMS, rounds([*ARMS], job, given.repeats))
    finally:
        server.kill()
        server.wait()
    table = markdown((*HEADER, "what"), [(*cells(arm, of), of["what"]) for arm, of in arms.items()])
    publish(facts("stored") | {"job": job, "arms": arms}, table, given.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        folder, latency = json.loads(sys.argv[2])
        serve(Path(folder), latency)
    elif not child(ARMS):
        main()
