#!/usr/bin/env python3
"""Measure a watcher: how soon a change is in the report, and what it costs while nothing happens.

    watching.py DIR [--files 100000] [--directories 5000] [--changes 100] [--idle 60] [--dupfind PROGRAM] [--db-url URL]

DIR must not exist; a tree of small files, a third of them duplicates, is made in it and removed. A change is one file
that is written, so that it joins or leaves a group; its time is from the end of the write, when it becomes quiet,
until a report that began after shows it, the report's own time included. The rest of the wait is half a second of
debouncing. Linux only: memory and processor time are read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List

TICKS = os.sysconf("SC_CLK_TCK")


def make_tree(tree: Path, files: int, directories: int) -> List[Path]:
    """Small files, evenly over nested directories; every third has the content of the one before."""
    made: List[Path] = []
    for number in range(directories):
        (tree / str(number % 50) / str(number)).mkdir(parents=True, exist_ok=True)
    for number in range(files):
        home = number % directories
        path = tree / str(home % 50) / str(home) / f"{number}.txt"
        path.write_text(f"content {number - (number % 3 == 0):08}\n")
        made.append(path)
    return made


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(process: int, which: str) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(which + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


class Dupfind:
    def __init__(self, program: str, home: Path, url: str) -> None:
        self.program, self.environment = program, {"HOME": str(home), "PATH": os.environ["PATH"]}
        if url:
            self.environment["DUPFIND_DB_URL"] = url

    def run(self, *arguments: str) -> str:
        done = subprocess.run([self.program, *arguments], env=self.environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    def is_duplicate(self, path: Path) -> bool:
        """What the index knows of one file, as a report would show it."""
        told = json.loads(self.run("files", "--json", str(path)))["files"]
        return bool(told) and told[0]["duplicates"] > 0

    def redundant(self) -> int:
        """Redundant files, as a whole report counts them."""
        return int(json.loads(self.run("report", "--json", "-", "--limit", "1", "-q"))["summary"]["redundant_files"])

    def watch(self, tree: Path, log: Path) -> "subprocess.Popen[bytes]":
        with log.open("wb") as output:
            watcher = subprocess.Popen([self.program, "watch", "--json", str(tree)], env=self.environment, stdout=output)
        while '"ready"' not in log.read_text():
            if watcher.poll() is not None:
                sys.exit("watching.py: the watcher ended")
            time.sleep(0.02)
        return watcher


def latencies(dupfind: Dupfind, made: List[Path], changes: int) -> Dict[str, List[float]]:
    """Seconds from a write until `dupfind files` and until a whole report show it."""
    shuffled = random.Random(1).sample(range(1, len(made) - 1), len(made) - 2)
    joining = [number for number in shuffled if number % 3 == 1][: changes // 2]
    leaving = [number for number in shuffled if number % 3 == 0][: changes // 2]
    taken: Dict[str, List[float]] = {"one file": [], "whole report": []}
    for turn, number in enumerate(number for pair in zip(joining, leaving) for number in pair):
        path, joins = made[number], turn % 2 == 0
        before = dupfind.redundant()
        # It gets the content of its neighbour, or one that nobody has; either way its size has partners.
        path.write_text(f"content {number + 1:08}\n" if joins else f"CONTENT {number:08}\n")
        quiet = time.monotonic()
        if turn % 4 < 2:
            while dupfind.is_duplicate(path) != joins and time.monotonic() < quiet + 30:
                time.sleep(0.01)
            taken["one file"].append(time.monotonic() - quiet)
        else:
            while dupfind.redundant() == before and time.monotonic() < quiet + 30:
                time.sleep(0.01)
            taken["whole report"].append(time.monotonic() - quiet)
        time.sleep(0.3)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--directories", type=int, default=5_000)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--dupfind", default=str(Path(__file__).resolve().parents[1] / "target/release/dupfind"))
    parser.add_argument("--db-url", default="")
    args = parser.parse_args()
    args.dir.mkdir(parents=True)
    scratch = Path(tempfile.mkdtemp())
    try:
        made = make_tree(args.dir, args.files, args.directories)
        dupfind = Dupfind(os.path.abspath(args.dupfind), scratch, args.db_url)
        began = time.monotonic()
        watcher = dupfind.watch(args.dir, scratch / "log")
        print(f"ready after a first scan: {time.monotonic() - began:.2f} s")
        watcher.terminate()
        watcher.wait()
        began = time.monotonic()
        watcher = dupfind.watch(args.dir, scratch / "log")
        print(f"ready again: {time.monotonic() - began:.2f} s")
        time.sleep(15)
        used = processor_seconds(watcher.pid)
        time.sleep(args.idle)
        used = processor_seconds(watcher.pid) - used
        print(f"idle: {used:.2f} s of processor time in {args.idle:.0f} s ({100 * used / args.idle:.2f} %)")
        print(f"memory, {args.files} files in {args.directories} directories: {memory_mib(watcher.pid, 'VmRSS'):.0f} MiB")
        for what, taken in latencies(dupfind, made, args.changes).items():
            cuts = statistics.quantiles(taken, n=100, method="inclusive")
            print(f"from a write to {what}: median {statistics.median(taken):.2f} s, 99th percentile {cuts[98]:.2f} s, "
                  f"most {max(taken):.2f} s ({len(taken)} changes)")
        print(f"most memory: {memory_mib(watcher.pid, 'VmHWM'):.0f} MiB")
        watcher.terminate()
        watcher.wait()
        print(f"a scan afterwards: {dupfind.run('scan', '--json', '-q', str(args.dir))[:200]}")
    finally:
        shutil.rmtree(args.dir, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
