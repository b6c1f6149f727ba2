"""What the benchmarks share: a process per measurement, rotating rounds, medians, machine, JSON and a table.

Every measurement runs in a fresh process, alone: no thread pool, worker process or allocator of one arm is
alive while another is measured. Importing, building and warming up happen in that process before its clock
starts. One round measures each arm once; the next round begins one arm later, so that a drift of the machine
meets all arms alike. What an arm does is the benchmark's own business.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata, util
from pathlib import Path
from statistics import mean, median
from typing import Any, TypeVar

import psutil

Made = TypeVar("Made")
Job = dict[str, Any]  # what a child is told, as JSON on its standard input
Result = dict[str, Any]  # what it answers, as JSON: `clocked`'s facts and the arm's own

QUIET = 0.1  # cores that others may use before a measurement is called not alone
JPEG_SUFFIXES = {".jpg", ".jpeg"}
OURS = "headrace"
HEADER = ("arm", "images/s", "lowest - highest", "headrace / this", "others' cores")
PACKAGES = (
    "headrace",
    "numpy",
    "simplejpeg",
    "opencv-python-headless",
    "pillow",
    "polars",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "torch",
    "torchvision",
    "albumentations",
    "grain",
    "array_record",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One contestant: `what` it is, in a line, how it is measured (in a child process), and the modules it `needs`."""

    what: str
    measure: Callable[[Job], Result]
    needs: tuple[str, ...] = ()


def skipped(arms: Mapping[str, Arm]) -> dict[str, str]:
    """Why an arm can't be measured here, by arm: a module that it needs is not installed."""
    absent = {name: [module for module in arm.needs if util.find_spec(module) is None] for name, arm in arms.items()}
    return {
        name: f"{', '.join(modules)} not installed; pip install 'headrace[bench]'"
        for name, modules in absent.items()
        if modules
    }


def cores() -> int:
    """CPU cores this process may use (`taskset` counts)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jpegs(folder: Path) -> list[Path]:
    """JPEG files under `folder`, sorted, without hidden ones."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in JPEG_SUFFIXES and not p.name.startswith("."))


def warm_page_cache(paths: Sequence[Path]) -> int:
    """Total bytes of the files, each read once."""
    return sum(len(p.read_bytes()) for p in paths)


def forget(paths: Sequence[Path]) -> None:
    """Drops the files from the page cache (what of them is written to disk, and mapped by nobody)."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def clocked(work: Callable[[], int]) -> Result:
    """What `work` says it did (`images`), its wall `seconds`, and the cores that `others` used meanwhile."""
    begin, busy, own = time.perf_counter(), _machine_busy(), _own_busy()
    images = work()
    seconds = time.perf_counter() - begin
    others = (_machine_busy() - busy) - (_own_busy() - own)
    return {"images": images, "seconds": seconds, "others": round(max(0.0, others) / seconds, 2)}


def megabytes() -> dict[str, float]:
    """What this process holds itself (`anonymous`), and the pages of files that it has mapped (`mapped`), which others
    share: /proc/self/smaps_rollup, in MB."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    of = {line[0]: int(line[1]) * 1024 / 1e6 for line in lines}
    return {"anonymous": of["Anonymous:"], "mapped": of["Rss:"] - of["Anonymous:"]}


def grown(work: Callable[[], tuple[Result, Any]]) -> Result:
    """What `work` answers, beside what it made and is kept here, and by how many MB this process has grown.

    `anonymous_mb` and `mapped_mb` at the end, over `before_mb`, the anonymous memory of the imports; `peak_mb` the most
    anonymous memory at any time, looked at every 10 ms; cores that `others` used.
    """
    gc.collect()
    before, peak, over = megabytes(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.01):
            lines = Path("/proc/self/status").read_text().splitlines()  # smaps_rollup walks all pages, this does not
            peak = max(peak, next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon")))

    answer: Result = {}
    made: Any = None

    def run() -> int:
        nonlocal answer, made
        answer, made = work()
        return 1

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    others = clocked(run)["others"]
    after = megabytes()
    del made  # not before: what it holds is what is measured
    over.set()
    watcher.join()
    return answer | {
        "before_mb": round(before["anonymous"], 1),
        "anonymous_mb": round(after["anonymous"] - before["anonymous"], 1),
        "peak_mb": round(max(peak, after["anonymous"]) - before["anonymous"], 1),
        "mapped_mb": round(after["mapped"] - before["mapped"], 1),
        "others": others,
    }


def stopwatch(work: Callable[[], Made]) -> tuple[float, Made]:
    """The wall seconds of `work`, and what it made."""
    begin = time.perf_counter()
    made = work()
    return time.perf_counter() - begin, made


def child(arms: Mapping[str, Arm]) -> bool:
    """Whether this process is a child of `in_child`; if so, it has measured its arm and answered."""
    if sys.argv[1:2] != ["--arm"]:
        return False
    result = arms[sys.argv[2]].measure(json.load(sys.stdin))
    print(json.dumps(result), flush=True)
    return True


def in_child(arm: str, job: Job) -> Result:
    """The arm's answer to the job, from a fresh process. Raises SystemExit with its errors if it fails."""
    os.sync()  # what the arm before has written must not be flushed on this one's time
    done = subprocess.run(
        [sys.executable, sys.argv[0], "--arm", arm],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if done.returncode:
        raise SystemExit(f"arm {arm!r} failed with exit code {done.returncode}:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rounds(
    arms: Sequence[str], job: Job, repeats: int, told: Callable[[Result], str] | None = None
) -> dict[str, list[Result]]:
    """Results of `repeats` rounds by arm, in the order of `arms`; `told` says what each found, by default its rate."""
    results: dict[str, list[Result]] = {arm: [] for arm in arms}
    for k in range(repeats):
        first = k % len(arms)
        for arm in [*arms[first:], *arms[:first]]:
            result = in_child(arm, job)
            if told is None:
                result["rate"] = result["images"] / result["seconds"]
            results[arm].append(result)
            said = f"{result['rate']:8.0f} images/s" if told is None else told(result)
            line = f"round {k + 1}/{repeats}  {arm:<18}{said}"
            if result["others"] > QUIET:
                line += f"  not alone: others used {result['others']:.2f} cores"
            print(line, file=sys.stderr)
    return results


def summarise(arms: Mapping[str, Arm], results: Mapping[str, list[Result]]) -> dict[str, Any]:
    """By arm: median, lowest and highest images/s, cores that others used at worst, our median over it."""
    medians = {arm: median(r["rate"] for r in of_arm) for arm, of_arm in results.items()}
    return {
        arm: {
            "what": arms[arm].what,
            "images_per_second": round(medians[arm], 1),
            "lowest": round(min(r["rate"] for r in of_arm), 1),
            "highest": round(max(r["rate"] for r in of_arm), 1),
            "others": max(r["others"] for r in of_arm),
            "headrace_over_this": round(medians[OURS] / medians[arm], 3),
            "measurements": of_arm,
        }
        for arm, of_arm in results.items()
    }


def facts(benchmark: str) -> dict[str, Any]:
    """What the run was: command line, time, machine, versions."""
    return {
        "benchmark": benchmark,
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu_model(),
            "cores": cores(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "system": f"{platform.system()} {platform.machine()}",
            "load_average_before": round(os.getloadavg()[0], 2),
        },
        "versions": {"python": platform.python_version(), **_versions()},
    }


def publish(report: Mapping[str, Any], table: str, json_path: Path | None) -> None:
    """Print the facts and the table (Markdown); write the whole report as JSON where wanted ("-": print that alone)."""
    if json_path == Path("-"):
        print(json.dumps(report, indent=2))
        return
    machine = report["machine"]
    print(f"\n{report['command']}")
    print(
        f"{report['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"load average before: {machine['load_average_before']}"
    )
    print(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in report["job"].items()))
    for arm, reason in report.get("skipped", {}).items():
        print(f"skipped: {arm}: {reason}")
    print(f"\n{table}")
    if json_path is not None:
        json_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def row(arm: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells under HEADER of an arm of `summarise`."""
    return (
        arm,
        f"{facts['images_per_second']:.0f}",
        f"{facts['lowest']:.0f} - {facts['highest']:.0f}",
        f"{facts['headrace_over_this']:.2f}",
        f"{facts['others']:.2f}",
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def by_seed(arms: Mapping[str, Arm], runs: Sequence[Result], shown: str, means: Mapping[str, str]) -> str:
    """A table of runs, a row per arm: `shown` of each seed, then per heading in `means` the mean of what it names."""
    seeds = sorted({run["seed"] for run in runs})
    rows = []
    for arm in arms:
        mine = {run["seed"]: run for run in runs if run["arm"] == arm}
        if mine:
            cells = [f"{mine[seed][shown]:.4f}" if seed in mine else "" for seed in seeds]
            cells += [f"{mean(run[name] for run in mine.values()):.4f}" for name in means.values()]
            rows.append([arm, *cells, f"{mean(run['seconds'] for run in mine.values()):.0f}"])
    return markdown(["arm", *(f"seed {seed}" for seed in seeds), *means, "s per run"], rows)


def _machine_busy() -> float:
    """CPU seconds that anyone on this machine has used, or that the host has taken from it."""
    times = psutil.cpu_times()._asdict()
    return sum(times.get(kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))


def _own_busy() -> float:
    """CPU seconds of this process and its living children."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def by_bytes(arms: dict[str, Any]) -> str:
    """The table of arms whose measurements say their bytes: MB/s beside images/s."""

    def mb_per_second(of_arm: dict[str, Any]) -> str:
        return f"{median(m['bytes'] / m['seconds'] for m in of_arm['measurements']) / 1e6:.0f}"

    return markdown(
        (*HEADER, "MB/s", "what"),
        [(*row(arm, of_arm), mb_per_second(of_arm), of_arm["what"]) for arm, of_arm in arms.items()],
    )
