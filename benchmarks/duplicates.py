"""Searching near-duplicates among a million looks: seconds, memory, and how many planted pairs are found.

    python benchmarks/duplicates.py [--looks 1000000] [--planted 10000] [--repeats 3] [--json FILE]

No image is drawn: looks are random, or crowded, of 2000 prototypes each of whose bits is likely or unlikely to be 1, so
that many share bands, as those of photos do; or of a set of which a tenth shows next to nothing. In each, pairs are
planted that differ in 0 to 12 random bits. A process per measurement; one thread.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from _measure import Arm, Job, Result, child, facts, grown, markdown, publish, rounds, stopwatch
from headrace.imaging.alike import near
from headrace.imaging.look import NEAR


def planted(looks: NDArray[np.uint64], pairs: int, rng: np.random.Generator) -> set[tuple[int, int]]:
    """Makes pairs of these looks near, and says which."""
    chosen = rng.permutation(len(looks))[: 2 * pairs].reshape(-1, 2)
    for one, two in chosen.tolist():
        made = np.unpackbits(looks[one].view(np.uint8))
        made[rng.choice(128, rng.integers(0, NEAR + 1), replace=False)] ^= 1
        looks[two] = np.packbits(made).view(np.uint64)
    return {(min(pair), max(pair)) for pair in chosen.tolist()}


def measured(kind: str) -> Any:
    def measure(job: Job) -> Result:
        rng, n = np.random.default_rng(0), int(job["looks"])
        if kind == "crowded":
            likely = rng.beta(0.4, 0.4, (2000, 128)).astype(np.float32)
            looks = np.concatenate(
                [
                    np.packbits(rng.random((size, 128), np.float32) < likely[rng.integers(0, 2000, size)], axis=1)
                    for size in [10_000] * (n // 10_000)
                ]
            ).view(np.uint64)
        else:
            looks = rng.integers(0, 2**64, (n, 2), np.uint64, endpoint=False)
        if kind == "blank":
            few = np.packbits(rng.random((n // 10, 128), np.float32) < 0.02, axis=1).view(np.uint64)
            looks[rng.permutation(n)[: n // 10]] = few
        wanted = planted(looks, int(job["planted"]), rng)

        def work() -> tuple[Result, Any]:
            seconds, found = stopwatch(lambda: sum(len(pairs) for pairs in near(looks)))
            codes, there = np.array([one * n + two for one, two in wanted]), np.zeros(len(wanted), np.bool_)
            for pairs in near(looks):
                there |= np.isin(codes, pairs.min(axis=1) * n + pairs.max(axis=1))
            share = float(there.mean())
            return {"seconds": round(seconds, 2), "pairs": found, "planted_found": round(share, 4)}, None

        return grown(work)

    return measure


ARMS = {
    "random": Arm(what="128 random bits each", measure=measured("random")),
    "crowded": Arm(what="around 2000 prototypes", measure=measured("crowded")),
    "blank": Arm(what="a tenth has two bits or three", measure=measured("blank")),
}


def main() -> None:
    if child(ARMS):
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--looks", type=int, default=1_000_000)
    parser.add_argument("--planted", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    job = {"looks": asked.looks, "planted": asked.planted}
    report = facts("duplicates") | {"job": job}
    results = rounds([*ARMS], job, asked.repeats, told=lambda result: f"{result['seconds']:8.1f} s")
    report["arms"] = results
    rows = [
        (
            arm,
            f"{median(r['seconds'] for r in of):.1f}",
            f"{max(r['peak_mb'] for r in of):.0f}",
            f"{of[0]['pairs']}",
            f"{of[0]['planted_found']:.2%}",
            f"{max(r['others'] for r in of):.2f}",
            ARMS[arm].what,
        )
        for arm, of in results.items()
    ]
    header = ("looks", "s", "MB at most", "near pairs", "planted found", "others' cores", "what")
    publish(report, markdown(header, rows), asked.json)


if __name__ == "__main__":
    main()
