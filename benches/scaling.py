#!/usr/bin/env python3
"""Measure how dupfind's time and memory grow with the number of files.

    scaling.py DIR [--files 30000,300000,3000000] [--rows 300000,3000000,10000000] [--runs 3] [--svg PREFIX]

DIR must not exist; trees of tiny files are made in it, one after the other, and removed. In a filesystem in memory,
3 million of them take 16 GB, and a tmpfs with nr_inodes=4m. --rows are written straight into an index, without files, by
the benchmark of the index.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

sys.dont_write_bytecode = True  # leave no cache beside the sources
from chart import draw_lines  # noqa: E402
from compare import REPORT, REPOSITORY, SCAN, SETTLED, Entry, Row, measure  # noqa: E402
from trees import make  # noqa: E402

Series = Dict[str, List[Tuple[float, float]]]
STEPS = {"first scan": (SCAN, True), "scan again": (SCAN, False), "report": (REPORT, False)}


def measure_tree(tree: str, args: argparse.Namespace, scratch: str) -> Dict[str, Tuple[float, float]]:
    """Median seconds and the highest peak (MiB) of each step on one tree."""
    runs: Dict[str, List[Dict[str, float]]] = {step: [] for step in STEPS}
    entry = Entry(Row("dupfind", "dupfind", SCAN, "dupfind"), os.path.abspath(args.dupfind), tree, f"{scratch}/work")
    for _ in range(args.runs):
        for step, (command, is_fresh) in STEPS.items():
            if is_fresh:
                entry.empty()
            runs[step].append(measure(entry, command))
            if entry.failure:
                sys.exit(f"scaling.py: {step}: {entry.failure}")
    return {step: (statistics.median(run["wall"] for run in taken), max(run["peak_mib"] for run in taken))
            for step, taken in runs.items()}


def measure_rows(rows: int) -> Iterator[Tuple[str, float, float]]:
    """Seconds and peak (MiB) of each step of the index alone."""
    bench = ["cargo", "bench", "--quiet", "--bench", "index", "--", "--database", "sqlite", "--rounds", "1", "--files", str(rows)]
    done = subprocess.run(bench, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    for step, seconds, peak in re.findall(r"^\| SQLite: (.+?) \| \d+ \| ([\d.]+) \| \d+ \| (\d+) \|$", done.stdout, re.M):
        yield step, float(seconds), float(peak)


def numbers(text: str) -> List[int]:
    """A list such as 30000,300000."""
    return [int(number) for number in text.split(",") if number]


def main() -> None:
    """Measure everything, print tables and draw charts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dir", metavar="DIR")
    parser.add_argument("--files", type=numbers, default=[30_000, 300_000, 3_000_000])
    parser.add_argument("--rows", type=numbers, default=[300_000, 3_000_000, 10_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dupfind", default=str(REPOSITORY / "target" / "release" / "dupfind"))
    parser.add_argument("--svg", metavar="PREFIX", help="write PREFIX-time.svg and PREFIX-memory.svg")
    args = parser.parse_args()
    times: Series = {}
    peaks: Series = {}

    def note(step: str, count: int, seconds: float, peak: float) -> None:
        times.setdefault(step, []).append((count, seconds / count * 1e6))
        peaks.setdefault(step, []).append((count, peak))
        print(f"| {step} | {count:,} | {seconds:.2f} | {seconds / count * 1e6:.2f} | {peak:.0f} |", flush=True)
    print("| step | files | seconds | µs a file | peak MiB |\n|---|--:|--:|--:|--:|")
    if os.path.exists(args.dir):
        sys.exit(f"scaling.py: {args.dir} exists; name a directory to be made")
    os.makedirs(args.dir)
    try:
        for count in args.files:
            tree = f"{args.dir}/{count}"
            with open(os.devnull, "w") as nowhere, tempfile.TemporaryDirectory(prefix="scaling-") as scratch:
                said, sys.stdout = sys.stdout, nowhere
                make(argparse.Namespace(dir=tree, shape="tiny", files=count, seed=1, duplicates=0.3))
                sys.stdout = said
                time.sleep(SETTLED)
                for step, (seconds, peak) in measure_tree(tree, args, scratch).items():
                    note(step, count, seconds, peak)
            shutil.rmtree(tree)
    finally:
        shutil.rmtree(args.dir)
    for count in args.rows:
        for step, seconds, peak in measure_rows(count):
            note(f"index: {step}", count, seconds, peak)
    if args.svg:
        Path(f"{args.svg}-time.svg").write_text(draw_lines("Time a file", "µs", times, is_log=True))
        Path(f"{args.svg}-memory.svg").write_text(draw_lines("Peak memory", "MiB", peaks))


if __name__ == "__main__":
    main()
