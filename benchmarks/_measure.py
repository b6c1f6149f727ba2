"""What the benchmarks share: a process per measurement, rotating rounds, medians, machine, JSON and a table.

Every measurement runs in a fresh process, alone: no thread pool, worker process or allocator of one arm is
alive while another is measured. Importing, building and warming up happen in that process before its clock
starts. One round measures each arm once; the next round begins one arm later, so that a drift of the machine
meets all arms alike. What an arm does is the benchmark's own business.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import psutil

Job = dict[str, Any]  # what a child is told, as JSON on its standard input
Result = dict[str, Any]  # what it answers, as JSON: at least `images` and `seconds`

JPEG_SUFFIXES = {".jpg", ".jpeg"}
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
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One contestant: `what` it is, in a line, and how it is measured (in a child process)."""

    what: str
    measure: Callable[[Job], Result]


def cores() -> int:
    """CPU cores this process may use (`taskset` counts)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jpegs(folder: Path) -> list[Path]:
    """JPEG files under `folder`, sorted, without hidden ones."""
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in JPEG_SUFFIXES and not p.name.startswith(".")
    )


def warm_page_cache(paths: Sequence[Path]) -> int:
    """Total bytes of the files, each read once."""
    return sum(len(p.read_bytes()) for p in paths)


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


def rounds(arms: Sequence[str], job: Job, repeats: int) -> dict[str, list[Result]]:
    """Results of `repeats` rounds by arm, in the order of `arms`."""
    results: dict[str, list[Result]] = {arm: [] for arm in arms}
    for k in range(repeats):
        first = k % len(arms)
        for arm in [*arms[first:], *arms[:first]]:
            result = in_child(arm, job)
            result["rate"] = result["images"] / result["seconds"]
            results[arm].append(result)
            print(f"round {k + 1}/{repeats}  {arm:<22} {result['rate']:8.0f} images/s", file=sys.stderr)
    return results


def summarise(arms: Mapping[str, Arm], results: Mapping[str, list[Result]], ours: str) -> dict[str, Any]:
    """By arm: the median, lowest and highest images/s, and how many times its median `ours` reaches."""
    medians = {arm: median(r["rate"] for r in of_arm) for arm, of_arm in results.items()}
    return {
        arm: {
            "what": arms[arm].what,
            "images_per_second": round(medians[arm], 1),
            "lowest": round(min(r["rate"] for r in of_arm), 1),
            "highest": round(max(r["rate"] for r in of_arm), 1),
            f"{ours}_over_this": round(medians[ours] / medians[arm], 3),
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
    """Print the facts and the table (Markdown); write the whole report as JSON where wanted."""
    machine = report["machine"]
    print(f"\n{report['command']}")
    print(
        f"{report['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"load average before: {machine['load_average_before']}"
    )
    print(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in report["job"].items()))
    print(f"\n{table}")
    if json_path is not None:
        json_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


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
