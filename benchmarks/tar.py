"""Images/s of packing a tar of samples as they are, beside reading the same tar with WebDataset.

    python benchmarks/tar.py FOLDER [--megabytes 500] [--workers N] [--repeats 5] [--json FILE]

FOLDER holds JPEG files; the benchmark makes a tar of them, each with a class, over and over until it is as large as
wanted. Page cache warm; a process per measurement, imports before its clock.
Packing reads every image, decodes it to judge it, hashes it and its shard, writes shards, index and catalog, syncs all
of it to disk and publishes; reading gives each sample's bytes to nobody. How far the source itself is from WebDataset's
reader `read` says: bytes of each image, and its class. `decode` is WebDataset with Pillow, which packing does too.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from _measure import (
    Arm,
    Job,
    Result,
    by_bytes,
    child,
    clocked,
    facts,
    jpegs,
    publish,
    rounds,
    skipped,
    summarise,
    warm_page_cache,
)

Read = Callable[[], int]


def pack(job: Job, scratch: Path) -> Read:
    import headrace as hr

    hr.pack  # noqa: B018 - names are imported when first used: before the clock
    return lambda: int(hr.pack(hr.sources.webdataset(job["tar"]), scratch / "out", workers=job["workers"]).stored)


def read(job: Job, scratch: Path) -> Read:
    import headrace as hr

    source = hr.sources.webdataset(job["tar"])
    return lambda: sum(isinstance(item, hr.Record) and len(item.read()) > 0 for item in source)


def webdataset(job: Job, scratch: Path) -> Read:
    import webdataset as wds

    dataset = wds.WebDataset(job["tar"], shardshuffle=False)
    return lambda: sum(len(sample["jpg"]) > 0 and len(sample["cls"]) > 0 for sample in dataset)


def decoded(job: Job, scratch: Path) -> Read:
    import webdataset as wds

    dataset = wds.WebDataset(job["tar"], shardshuffle=False).decode("rgb8")
    return lambda: sum(sample["jpg"].ndim == 3 for sample in dataset)


def timed(start: Callable[[Job, Path], Read]) -> Callable[[Job], Result]:
    def measure(job: Job) -> Result:
        with TemporaryDirectory(prefix="headrace-bench-", dir=job["scratch"]) as scratch:
            result = clocked(start(job, Path(scratch)))
        if result["images"] != job["images"]:
            raise SystemExit(f"{result['images']} images, wanted {job['images']}")
        return result | {"bytes": job["bytes"]}

    return measure


ARMS = {
    "headrace": Arm(what="hr.pack: decoded, hashed, catalogued, synced, published", measure=timed(pack)),
    "read": Arm(what="hr.sources.webdataset alone: each image's bytes and class", measure=timed(read)),
    "webdataset": Arm(what="each sample's bytes", measure=timed(webdataset), needs=("webdataset",)),
    "decode": Arm(what="the same, decoded by Pillow", measure=timed(decoded), needs=("webdataset",)),
}


def made(path: Path, photos: list[Path], size: int) -> int:
    """Writes a tar of about `size` bytes, and says how many samples it holds."""
    data = [photo.read_bytes() for photo in photos]
    n = 0
    with tarfile.open(path, "w") as tar:
        while tar.offset < size:
            for name, content in ((f"{n:07d}.jpg", data[n % len(data)]), (f"{n:07d}.cls", b"%d" % (n % 10))):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            n += 1
    return n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=500, help="size of the tar")
    parser.add_argument("--workers", type=int, help="of Headrace; default: its own")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="where the tar and what is packed lie for a while")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    report = facts("tar")
    photos = jpegs(args.folder)
    if not photos:
        parser.error(f"{args.folder}: no JPEG files there")
    report["skipped"] = skipped(ARMS)
    arms = [arm for arm in ARMS if arm not in report["skipped"]]
    with TemporaryDirectory(prefix="headrace-bench-", dir=args.scratch) as folder:
        path = Path(folder, "samples.tar")
        images = made(path, photos, args.megabytes * 1_000_000)
        size = warm_page_cache([path])
        job: Job = {"tar": str(path), "images": images, "bytes": size, "workers": args.workers, "scratch": folder}
        report["job"] = {"photos": len(photos), "images": images, "bytes": size, "repeats": args.repeats}
        report["arms"] = summarise(ARMS, rounds(arms, job, args.repeats))
    publish(report, by_bytes(report["arms"]), args.json)


if __name__ == "__main__" and not child(ARMS):
    main()
