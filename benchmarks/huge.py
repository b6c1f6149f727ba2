"""Seconds and memory of a dataset of ten million records: opening, where, divide, batches, a loader's state, planning.

    python benchmarks/huge.py [--records 10000000] [--few 10000] [--folder DIR] [--repeats 3] [--json [FILE]]

Two datasets of tiny PNGs are made first, below DIR (6 GB for ten million): of RECORDS and of FEW records, otherwise
alike, as the packer would have written them. Each figure is taken in a fresh process, several times in turns, and the
median told. There it is taken of the small dataset first, so that everything is imported that is imported late, and
then of the large one: memory is what that adds. Anonymous memory is this process's own; mapped pages of files lie in
the page cache, and processes share them. Page cache warm.

Planning is make_plan over a generator of records with a path and a class; what the generator takes alone is measured in
the same process and subtracted. It is taken of RECORDS and of a tenth of them: its memory should not grow.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from _measure import (
    Arm,
    Job,
    Result,
    child,
    clocked,
    facts,
    grown,
    in_child,
    markdown,
    publish,
    rounds,
    stopwatch,
    warm_page_cache,
)

BATCH_SIZE = 32
WARM_UP, TIMED, EPOCHS = 30, 250, 8  # batches of an epoch before the clock and on it, and from how many epochs
SHOWN = ("seconds", "anonymous_mb", "peak_mb", "mapped_mb")

Taken = tuple[Result, Any]  # what was found, and what was made, to be kept until its memory is measured


def opening(path: str) -> Taken:
    import headrace as hr

    seconds, dataset = stopwatch(lambda: hr.Dataset(path))
    return {"seconds": seconds, "records": len(dataset)}, dataset


def where(path: str) -> Taken:
    import headrace as hr

    dataset = hr.Dataset(path)
    seconds, view = stopwatch(lambda: dataset.where("label = 3"))
    return {"seconds": seconds, "records": len(view)}, (dataset, view)


def divide(path: str) -> Taken:
    import headrace as hr

    dataset = hr.Dataset(path)
    seconds, views = stopwatch(lambda: dataset.divide({"train": 0.8, "val": 0.2}))
    return {"seconds": seconds, "records": sum(map(len, views))}, (dataset, views)


def batches(path: str) -> Taken:
    """Seconds per batch inside of an epoch: its first batches don't count, in which threads have nothing ready yet."""
    import headrace as hr

    loader = hr.Dataset(path).loader(batch_size=BATCH_SIZE, shuffle=True)
    seconds = []
    for epoch in range(EPOCHS):
        loader.epoch = epoch
        iteration = iter(loader)
        deque(islice(iteration, WARM_UP), maxlen=0)
        spent, images = stopwatch(lambda: sum(len(batch.images) for batch in islice(iteration, TIMED)))  # noqa: B023
        if images != TIMED * BATCH_SIZE:
            raise SystemExit(f"{images} images in {TIMED} batches of {BATCH_SIZE}")
        seconds.append(spent / TIMED)
        iteration.close()
    return {"seconds": median(seconds), "records": len(loader.view)}, loader


def loader_and_state(path: str) -> Taken:
    """Opening, a loader with an augmentation, its first batch and its state."""
    import headrace as hr

    opened, dataset = stopwatch(lambda: hr.Dataset(path))
    made, loader = stopwatch(lambda: dataset.loader(batch_size=BATCH_SIZE, augment=(hr.HorizontalFlip(),)))
    first, batch = stopwatch(lambda: loader[0])
    taken, state = stopwatch(loader.state_dict)
    steps = {"open": opened, "loader": made, "first batch": first, "state": taken}
    return {"seconds": sum(steps.values()), "steps": steps, "records": len(dataset)}, (loader, batch, state)


def of_both(figure: Callable[[str], Taken]) -> Callable[[Job], Result]:
    """Take a figure of the small dataset, once to warm up and once more, and then of the large one, with its memory."""

    def measure(job: Job) -> Result:
        figure(job["few"])
        few, _ = figure(job["few"])
        return grown(lambda: figure(job["many"])) | {"few_seconds": few["seconds"]}

    return measure


class Listed:
    """Records of image files that nobody opens while planning."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        import headrace as hr

        names = [f"class {i}" for i in range(10)]
        for i in range(self.n):
            yield hr.Record(id=f"{i:08d}.jpg", path=f"/photos/{i:08d}.jpg", label_name=names[i * 7 % 10])


def planning(n: Callable[[Job], int]) -> Callable[[Job], Result]:
    def measure(job: Job) -> Result:
        from headrace.imaging.prepare import ImageOptions
        from headrace.packing.plan import make_plan

        def planned(records: int) -> tuple[float, Any]:
            with TemporaryDirectory(dir=Path(job["few"]).parent) as folder:
                return stopwatch(
                    lambda: make_plan(
                        Listed(records),
                        Path(folder) / "plan",
                        out=Path(folder) / "out",
                        options=ImageOptions(),
                        splits=None,
                        shards=16,
                        shard_bytes=None,
                        seed=0,
                    )
                )

        planned(job["few_records"])
        few_alone, _ = stopwatch(lambda: deque(Listed(job["few_records"]), maxlen=0))
        few, _ = planned(job["few_records"])
        alone, _ = stopwatch(lambda: deque(Listed(n(job)), maxlen=0))

        def plan() -> Taken:
            seconds, made = planned(n(job))
            answer = {
                "seconds": seconds - alone,
                "listing_seconds": alone,
                "records": n(job),
                "us_per_record": 1e6 * (seconds - alone) / n(job),
            }
            return answer, made

        return grown(plan) | {"few_seconds": few - few_alone}

    return measure


def make(job: Job) -> Result:
    """Writes the datasets, in a process of its own: what it leaves in memory is nobody's."""
    import _synthetic
    import headrace as hr

    def work() -> int:
        _synthetic.write(Path(job["few"]), job["few_records"])
        verdict = hr.Dataset(job["few"]).verify()
        if not verdict.ok:
            raise SystemExit(f"what was made is no sound dataset: {verdict}")
        _synthetic.write(Path(job["many"]), job["records"])
        return int(job["records"])

    return clocked(work)


FIGURES = {
    "opening": Arm(what="hr.Dataset(path)", measure=of_both(opening)),
    "where": Arm(what='ds.where("label = 3"); memory with opening', measure=of_both(where)),
    "divide": Arm(what="ds.divide in 0.8 and 0.2, stratified by class; memory with opening", measure=of_both(divide)),
    "a batch": Arm(
        what=f"shuffled, {BATCH_SIZE} images, all threads, in the middle of an epoch; memory with opening",
        measure=of_both(batches),
    ),
    "loader and state": Arm(
        what="opening, a loader with HorizontalFlip, its first batch, its state_dict()",
        measure=of_both(loader_and_state),
    ),
    "plan, a tenth": Arm(
        what="make_plan of a tenth of the records, listing them excluded",
        measure=planning(lambda job: job["records"] // 10),
    ),
    "plan": Arm(what="make_plan, listing the records excluded", measure=planning(lambda job: job["records"])),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the datasets are made; default: that of temporary files")
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="FIGURE")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, nargs="?", const=Path("-"))
    args = parser.parse_args()
    if args.few < (WARM_UP + TIMED) * BATCH_SIZE or args.records < args.few:
        parser.error(f"--few is at least {(WARM_UP + TIMED) * BATCH_SIZE}, --records at least as many")

    report = facts("huge")
    with TemporaryDirectory(prefix="headrace-bench-", dir=args.folder) as scratch:
        few, many = Path(scratch, "few"), Path(scratch, "many")
        job: Job = {"few": str(few), "many": str(many), "few_records": args.few, "records": args.records}
        made = in_child("make", job)
        tables = [path for path in many.iterdir() if path.suffix != ".tfrecord"]
        report["job"] = {
            "records": args.records,
            "few": args.few,
            "repeats": args.repeats,
            "seconds_to_make": round(made["seconds"], 1),
            "bytes_of_shards": warm_page_cache([*many.glob("*.tfrecord")]),
            "bytes_of_tables": warm_page_cache([path for path in tables if path.suffix != ".idx"]),
        }
        warm_page_cache([*few.iterdir()])
        report["figures"] = summarise(rounds(args.figures, job, args.repeats, told))
    publish(report, table(report["figures"]), args.json)


def told(result: Result) -> str:
    return f"{result['seconds']:10.4f} s  {result['anonymous_mb']:8.1f} MB"


def summarise(results: dict[str, list[Result]]) -> dict[str, Any]:
    """By figure: medians of all numbers, what others used at worst."""
    return {
        figure: {
            "what": FIGURES[figure].what,
            **{
                name: median(r[name] for r in found)
                for name, value in found[0].items()
                if isinstance(value, int | float) and name != "others"
            },
            "few_over_this": round(median(r["few_seconds"] for r in found) / median(r["seconds"] for r in found), 3),
            "others": max(r["others"] for r in found),
            "measurements": found,
        }
        for figure, found in results.items()
    }


def table(figures: dict[str, Any]) -> str:
    header = (
        "figure",
        "s",
        "s of few",
        "us per record",
        "anonymous MB",
        "at most",
        "mapped MB",
        "others' cores",
        "what",
    )
    return markdown(
        header,
        [
            (
                figure,
                f"{of['seconds']:.5f}",
                f"{of['few_seconds']:.5f}",
                f"{of['us_per_record']:.2f}" if "us_per_record" in of else "",
                *(f"{of[name]:.1f}" for name in SHOWN[1:]),
                f"{of['others']:.2f}",
                of["what"],
            )
            for figure, of in figures.items()
        ],
    )


if __name__ == "__main__" and not child({**FIGURES, "make": Arm(what="make", measure=make)}):
    main()
