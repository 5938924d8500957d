#!/usr/bin/env python3
"""Generate file trees and measure dupfind against other duplicate finders.

    compare.py make DIR --shape small --files 300000 --seed 1
    compare.py peers [--into DIR]
    compare.py run DIR... [--runs 5] [--cold] [--tools yadf,fclones,...]
    compare.py chart JSON... [--svg FILE]
    compare.py check DIR

Needs Python 3.9 and nothing else. Every tool only reports; none is ever asked to change a file.
What is like for like and what is not is written in the README beside this file.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

sys.dont_write_bytecode = True  # leave no cache beside the sources
from chart import draw  # noqa: E402
from trees import KIB, MIB, SHAPES, change, count_by_sha256, load_manifest, make, regular_files, sha256  # noqa: E402

Groups = List[List[str]]

# --------------------------------------------------------------------------- the tools

@dataclass(frozen=True)
class Row:
    """One line of the table: how a tool is called and how its report is read.

    In commands, {dir} is the tree, {work} the row's own directory, {out} the report it writes, and {postgres} the
    URL of the row's own database.
    """

    name: str
    tool: str
    command: Tuple[str, ...]
    parser: str
    fresh: bool = True  # {work} is emptied before every run; otherwise a first run fills it
    fill: Tuple[str, ...] = ()  # the first run, where it is another command
    after: Tuple[str, ...] = ()  # unmeasured, writes {out} when the command itself does not


URL = "sqlite://{work}/index.db"
SCAN = ("scan", "--db-url", URL, "{dir}")
REPORT = ("report", "--db-url", URL, "--json", "{out}")
PG_SCAN = ("scan", "--db-url", "{postgres}", "{dir}")
PG_REPORT = ("report", "--db-url", "{postgres}", "--json", "{out}")
FCLONES = ("group", "--min", "1", "--hidden", "--no-ignore", "-f", "json", "-o", "{out}", "{dir}")
CZKAWKA = ("dup", "-m", "1", "-d", "{dir}", "-W", "-N", "-M", "-C", "{out}")
DUPEREMOVE = ("-q", "-r", "-b", "4096", "--hashfile={work}/hashes.db", "{dir}")
ROWS = (
    Row("dupfind first", "dupfind", SCAN, "dupfind", after=REPORT),
    Row("dupfind again", "dupfind", SCAN, "dupfind", fresh=False, after=REPORT),
    Row("dupfind report", "dupfind", REPORT, "dupfind", fresh=False, fill=SCAN),
    Row("dupfind postgres first", "dupfind-postgres", PG_SCAN, "dupfind", after=PG_REPORT),
    Row("dupfind postgres again", "dupfind-postgres", PG_SCAN, "dupfind", fresh=False, after=PG_REPORT),
    Row("yadf", "yadf", ("-n", "-f", "json", "-o", "{out}", "{dir}"), "lists"),
    Row("yadf blake3", "yadf-blake3", ("-n", "-a", "blake3", "-f", "json", "-o", "{out}", "{dir}"), "lists"),
    Row("fclones", "fclones", FCLONES, "fclones"),
    Row("fclones blake3", "fclones-blake3", (*FCLONES, "--hash-fn", "blake3"), "fclones"),
    Row("fclones cached", "fclones", (*FCLONES, "--cache"), "fclones", fresh=False),
    # 32 readers at once, which is what its manual calls for on a disk that many may ask.
    Row("fclones tuned", "fclones-tuned", (*FCLONES, "--threads", "32", "--threads", "unknown:32", "--threads", "hdd:32"),
        "fclones"),
    Row("czkawka", "czkawka_cli", (*CZKAWKA, "-H"), "czkawka"),
    Row("czkawka tuned", "czkawka_cli-tuned", (*CZKAWKA, "-H", "-T", "32"), "czkawka"),
    Row("czkawka cached", "czkawka_cli", (*CZKAWKA, "-c", "1", "-u", "-Z", "1"), "czkawka", fresh=False),
    Row("rmlint", "rmlint", ("-T", "df", "-r", "-F", "-L", "-V", "-o", "json:{out}", "{dir}"), "rmlint"),
    Row("jdupes", "jdupes", ("-r", "-q", "{dir}"), "blank-lines"),
    Row("fdupes", "fdupes", ("-r", "-q", "-n", "{dir}"), "blank-lines"),
    Row("rdfind", "rdfind", ("-dryrun", "true", "-outputname", "{out}", "{dir}"), "rdfind"),
    Row("duperemove", "duperemove", DUPEREMOVE, "none"),
    Row("duperemove again", "duperemove", DUPEREMOVE, "none", fresh=False),
)
ONLY_WHEN_ASKED = ("fclones-blake3", "fdupes", "dupfind-postgres")
REPOSITORY = Path(__file__).resolve().parent.parent
PEERS = REPOSITORY / "target" / "peers"


def find_tool(tool: str, args: argparse.Namespace) -> Optional[str]:
    """The absolute path of a tool's program, or None."""
    if tool.startswith("dupfind"):
        return shutil.which(os.path.abspath(args.dupfind))
    program = tool.split("-")[0]
    places = (f"{args.peers_dir}/bin", str(args.peers_dir), os.environ.get("PATH", os.defpath))
    found = shutil.which(program, path=os.pathsep.join(places))
    return found and os.path.abspath(found)


def version(program: str) -> str:
    """The first line in which a program names its version."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", env=tool_env(home))
    lines = [] if done.returncode else done.stdout.splitlines()
    line = next((line for line in lines if any(c.isdigit() for c in line)), "?")
    return line.split(" compiled")[0].replace("This is ", "").replace("version ", "").strip()


# --------------------------------------------------------------------------- what the tools found

def blank_line_groups(text: str) -> Groups:
    """Groups of lines with an empty line between them."""
    return [block.splitlines() for block in text.split("\n\n") if block.strip()]


def rmlint_groups(text: str) -> Groups:
    """rmlint lists every group from its original on."""
    groups: Groups = []
    for item in json.loads(text):
        if item.get("type") == "duplicate_file":
            if item["is_original"]:
                groups.append([])
            groups[-1].append(item["path"])
    return groups


def rdfind_groups(text: str) -> Groups:
    """rdfind lists every group from its first occurrence on; the path is the eighth field."""
    groups: Groups = []
    for line in text.splitlines():
        if line.startswith("DUPTYPE_"):
            if line.startswith("DUPTYPE_FIRST_OCCURRENCE"):
                groups.append([])
            groups[-1].append(line.split(" ", 7)[7])
    return groups


PARSERS: Dict[str, Callable[[str], Groups]] = {
    "lists": lambda text: json.loads(text, object_hook=lambda name: base64.b64decode(name["bytes"])),
    "fclones": lambda text: [group["files"] for group in json.loads(text)["groups"]],
    "czkawka": lambda text: [[file["path"] for file in group]
                             for groups in json.loads(text).values() for group in groups],
    "dupfind": lambda text: [[next(entry_paths(file)) for file in group["files"]]
                             for group in json.loads(text)["groups"]],
    "rmlint": rmlint_groups,
    "rdfind": rdfind_groups,
    "blank-lines": blank_line_groups,
}


def count(args: argparse.Namespace) -> None:
    """Print how many groups and redundant files a report has, by name and by physical file.

    Runs as a process of its own, so that the measuring process stays small and undisturbed.
    """
    groups = PARSERS[args.parser](Path(args.file).read_text(errors="surrogateescape"))
    physical = [{(stat.st_dev, stat.st_ino) for stat in map(os.stat, group)} for group in groups]

    def totals(sizes: Iterable[int]) -> List[int]:
        extra = [size - 1 for size in sizes if size > 1]
        return [len(extra), sum(extra)]
    print(json.dumps({"names": totals(map(len, groups)), "physical": totals(map(len, physical))}))


def verdict(row: Row, report: str, manifest: Optional[Dict[str, int]]) -> str:
    """What the groups column says: "ok" or the deviation from the manifest."""
    if row.parser == "none":
        return "n/a: compares blocks"
    done = subprocess.run([sys.executable, __file__, "_count", row.parser, report],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        return "report unreadable: " + (done.stderr.strip().splitlines() or ["?"])[-1]
    counts = json.loads(done.stdout)
    if manifest is None:
        return "{} groups, {} redundant".format(*counts["physical"])
    expected = [manifest["groups"], manifest["redundant_files"]]
    if counts["physical"] != expected:
        return "{:+d} groups, {:+d} redundant".format(*(a - b for a, b in zip(counts["physical"], expected)))
    return "ok" if counts["names"] == expected else "ok, lists hard links too"


# --------------------------------------------------------------------------- run

@dataclass
class Entry:
    """A row being measured on one tree."""

    row: Row
    program: str
    tree: str
    work: str
    server: Optional[str] = None  # a PostgreSQL server for the rows that need one
    runs: List[Dict[str, float]] = field(default_factory=list)
    failure: str = ""
    groups: str = ""

    def argv(self, command: Tuple[str, ...]) -> List[str]:
        """The command line of one of the row's commands."""
        places = {"dir": self.tree, "work": self.work, "out": f"{self.work}/out", "postgres": self.database()}
        return [self.program] + [part.format(**places) for part in command]

    def database(self) -> str:
        """The URL of the row's own database."""
        return f"{(self.server or '').rsplit('/', 1)[0]}/compare_{self.row.name.replace(' ', '_')}"

    def empty(self) -> None:
        """Make the row's directory, and its database if it has one, new and empty."""
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work)
        if self.row.tool == "dupfind-postgres":
            self.say("drop database if exists {0} with (force)", "create database {0}")

    def say(self, *statements: str) -> None:
        """Say something about the row's database to its server."""
        name = self.database().rsplit("/", 1)[1]
        said = [part for statement in statements for part in ("-c", statement.format(name))]
        subprocess.run(["psql", "-q", str(self.server), *said], check=True, stderr=subprocess.DEVNULL)

    def median(self, key: str) -> float:
        """The median of one figure over all runs."""
        return statistics.median(run[key] for run in self.runs)


def tool_env(home: str) -> Dict[str, str]:
    """The environment with every cache and configuration in `home`."""
    homes = {"HOME": "", "XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config", "XDG_DATA_HOME": ".local/share",
             "XDG_STATE_HOME": ".local/state"}
    return {**os.environ, **{name: os.path.join(home, below) for name, below in homes.items()}, "LC_ALL": "C.UTF-8"}


# On Linux a child's peak RSS starts at that of the process that spawned it. So a bare interpreter does that,
# not this one: it holds less than nearly every tool, and its own start is not part of the figures.
LAUNCHER = """
import posix, sys, time
started = time.perf_counter()
pid = posix.posix_spawn(sys.argv[1], sys.argv[1:], posix.environ)
_, status, usage = posix.wait4(pid, 0)
wall = time.perf_counter() - started
print(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, usage.ru_inblock, status, file=open("usage", "w"))
"""


def measure(entry: Entry, command: Tuple[str, ...]) -> Dict[str, float]:
    """Run a command as a whole process: wall and CPU seconds, peak RSS, and what was read from the disk."""
    for name in ("out", "usage"):
        Path(entry.work, name).unlink(missing_ok=True)
    with open(f"{entry.work}/stdout", "wb") as out, open(f"{entry.work}/stderr", "wb") as err:
        subprocess.run([sys.executable, "-I", "-S", "-c", LAUNCHER, *entry.argv(command)], check=True, cwd=entry.work,
                       env=tool_env(entry.work), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    wall, cpu, rss, blocks, status = map(float, Path(entry.work, "usage").read_text().split())
    if status:
        ending = f"signal {int(status) & 127}" if int(status) & 127 else f"exit code {int(status) >> 8}"
        said = Path(entry.work, "stderr").read_text(errors="replace").strip().splitlines() or [""]
        entry.failure = f"failed, {ending}: {said[-1][:100]}".replace("|", "/")
    peak = rss / (MIB if sys.platform == "darwin" else KIB)
    return {"wall": wall, "cpu": cpu, "peak_mib": peak, "disk_mib": blocks * 512 / MIB}


# A virtual machine's host may have taken back what is free; then whoever fills the page cache first pays for each page
# (3 µs here, more than for reading it). So as much as a run may need is touched once, and given back.
TOUCH = """
import contextlib, mmap, sys
free = next(int(line.split()[1]) * 1024 for line in open("/proc/meminfo") if line.startswith("MemFree:"))
pages = min(int(sys.argv[1]), free * 9 // 10) // mmap.PAGESIZE
memory = mmap.mmap(-1, pages * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
with contextlib.suppress(OSError):  # a system without large pages takes longer
    memory.madvise(mmap.MADV_HUGEPAGE)
memory[::mmap.PAGESIZE] = bytes(pages)
"""
RUN_NEEDS = 2 << 30  # beside the tree


def make_cold(tree: str) -> None:
    """Drop the page cache, so that the next run has to read from the disk, into memory that is there."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    if "hypervisor" in Path("/proc/cpuinfo").read_text().split():
        manifest = load_manifest(tree)
        needed = RUN_NEEDS + manifest["bytes"] if manifest else sys.maxsize
        subprocess.run([sys.executable, "-I", "-S", "-c", TOUCH, str(needed)], check=True)


def prepare(entry: Entry, cold: bool) -> None:
    """The uncounted first run: warms the page cache and fills the row's own cache or index."""
    entry.empty()
    if not cold or not entry.row.fresh:
        measure(entry, entry.row.fill or entry.row.command)
        if entry.row.fill and not cold and not entry.failure:
            measure(entry, entry.row.command)


def run_once(entry: Entry, cold: bool) -> None:
    """One counted run, in an emptied directory where the row wants that."""
    if entry.row.fresh:
        entry.empty()
    if cold:
        make_cold(entry.tree)
    figures = measure(entry, entry.row.command)
    if not entry.failure:
        entry.runs.append(figures)


def check_groups(entry: Entry, manifest: Optional[Dict[str, int]]) -> None:
    """Compare what the last run found with the manifest."""
    if entry.row.after:
        measure(entry, entry.row.after)
    if entry.failure:
        entry.groups = entry.failure
        return
    writes_out = "{out}" in " ".join(entry.row.command + entry.row.after)
    entry.groups = verdict(entry.row, f"{entry.work}/" + ("out" if writes_out else "stdout"), manifest)


# Seconds after a change in which a file is not taken for quiet: dupfind would read it again next time.
SETTLED = 3


def measure_tree(tree: str, tools: Dict[str, str], args: argparse.Namespace, scratch: str) -> List[Entry]:
    """All rounds on one tree: every round runs every row once, in an order of its own."""
    entries = [Entry(row, tools[row.tool], tree, f"{scratch}/{row.name.replace(' ', '-')}", args.postgres)
               for row in ROWS if row.tool in tools and not (args.change and row.fill)]  # that would know nothing of it
    for entry in entries:
        progress(f"{tree}: preparing {entry.row.name}")
        prepare(entry, args.cold)
    for number in range(args.runs):
        if args.change:
            progress(f"{tree}: changing files")
            change(tree, args.change / 100, number)
            time.sleep(SETTLED)
        # What ran before leaves its mark on memory and disk, so nobody may always follow the same.
        for entry in random.Random(number).sample(entries, len(entries)):
            progress(f"{tree}: round {number + 1} of {args.runs}, {entry.row.name}")
            if not entry.failure:
                run_once(entry, args.cold)
    manifest = count_by_sha256(tree) if args.change else load_manifest(tree)
    for entry in entries:
        check_groups(entry, manifest)
        shutil.rmtree(entry.work, ignore_errors=True)
        if entry.row.tool == "dupfind-postgres":
            entry.say("drop database if exists {0} with (force)")
    progress("")
    return entries


def progress(text: str) -> None:
    """Show what is being done, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def table(entries: List[Entry], cold: bool, manifest: Optional[Dict[str, int]]) -> Iterator[str]:
    """The Markdown table of one tree."""
    peers = [e for e in entries if not e.row.tool.startswith("dupfind") and e.runs and e.groups.startswith("ok")]
    fastest = min(peers, key=lambda e: e.median("wall"), default=None)
    yadf = next((e for e in entries if e.row.name == "yadf" and e.runs), None)

    def ratio(entry: Entry, other: Optional[Entry]) -> str:
        return f"{entry.median('wall') / other.median('wall'):.2f}" if other else "–"
    yield "| tool | median s | min–max s | CPU s | peak MiB | disk MiB | × fastest peer | × yadf | groups |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|---|"
    for entry in entries:
        if not entry.runs:
            yield f"| {entry.row.name} | – | – | – | – | – | – | – | {entry.groups} |"
            continue
        walls = [run["wall"] for run in entry.runs]
        yield (f"| {entry.row.name} | {entry.median('wall'):.3f} | {min(walls):.3f}–{max(walls):.3f} "
               f"| {entry.median('cpu'):.2f} | {entry.median('peak_mib'):.0f} | {entry.median('disk_mib'):.0f} "
               f"| {ratio(entry, fastest)} | {ratio(entry, yadf)} | {entry.groups} |")
    # Its own index or cache, which may have left the page cache meanwhile, is a small part of any tree.
    much = max(1, (manifest or {}).get("bytes", 0) / MIB / 20)
    if not cold and any(entry.runs and entry.median("disk_mib") > much for entry in entries):
        yield "\n**Not warm**: tools read from the disk (see the column), so the page cache did not keep the tree."
    if fastest:
        yield f"\nFastest peer with the right groups: {fastest.row.name}."


def proc_text(path: str) -> str:
    """A file of /proc, empty where there is none."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def filesystem(path: str) -> str:
    """The type of the filesystem a path lies on."""
    mounts = [line.split() for line in proc_text("/proc/self/mounts").splitlines()]
    over = [m for m in mounts if os.path.commonpath([path, m[1]]) == m[1]]
    return max(over, key=lambda m: len(m[1]))[2] if over else "unknown filesystem"


def environment(tools: Dict[str, str]) -> Dict[str, object]:
    """The machine and the versions, as they are printed above the tables."""
    models = [line.split(":", 1)[1].strip() for line in proc_text("/proc/cpuinfo").splitlines()
              if line.startswith("model name")]
    return {"cpu": models[0] if models else platform.processor(), "cores": os.cpu_count(),
            "kernel": f"{platform.system()} {platform.release()}",
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "load": round(os.getloadavg()[0], 2), "versions": {tool: version(at) for tool, at in tools.items()}}


def chosen_tools(args: argparse.Namespace) -> Dict[str, str]:
    """The programs to run, by tool; those not found are named on standard output."""
    known = list(dict.fromkeys(row.tool for row in ROWS))
    asked = args.tools.split(",") if args.tools else [tool for tool in known if tool not in ONLY_WHEN_ASKED]
    if args.postgres and "dupfind-postgres" not in asked:
        asked.append("dupfind-postgres")
    if "dupfind-postgres" in asked and not args.postgres:
        sys.exit("compare.py: dupfind-postgres needs --postgres URL")
    asked = ["czkawka_cli" if tool == "czkawka" else tool for tool in asked]
    if set(asked) - set(known):
        sys.exit(f"compare.py: unknown tool; known are {', '.join(known)}")
    found = {tool: find_tool(tool, args) for tool in asked}
    missing = [tool for tool, program in found.items() if not program]
    if missing:
        print(f"Missing, skipped: {', '.join(missing)}\n")
    return {tool: program for tool, program in found.items() if program}


def run(args: argparse.Namespace) -> None:
    """Measure every tool on every tree and print the tables."""
    if args.cold and not (os.geteuid() == 0 and os.access("/proc/sys/vm/drop_caches", os.W_OK)):
        print("Cannot drop the page cache without root: measuring warm instead.\n")
        args.cold = False
    tools = chosen_tools(args)
    if not tools:
        sys.exit("compare.py: no tool to run")
    facts = environment(tools)
    print("{cpu}, {cores} cores, {kernel}, {date}, load {load} at the start".format(**facts))
    print("Versions: " + "; ".join(f"{tool}: {text}" for tool, text in facts["versions"].items()))  # type: ignore
    trees = []
    for tree in map(os.path.realpath, args.dirs):
        if not os.path.isdir(tree):
            sys.exit(f"compare.py: {tree} is no directory")
        if args.change and load_manifest(tree):
            sys.exit(f"compare.py: --change alters the tree; give it a copy without a manifest of {tree}")
        with tempfile.TemporaryDirectory(prefix="compare-") as scratch:
            changed = f", {args.change:g} % of files changed or added before each round" if args.change else ""
            kind = f"{'cold' if args.cold else 'warm'}, {args.runs} runs, {filesystem(tree)}, " \
                f"work on {filesystem(os.path.realpath(scratch))}{changed}"
            entries = measure_tree(tree, tools, args, scratch)
        manifest = load_manifest(tree)
        size = "{names} names, {bytes} bytes, {groups} groups".format(**manifest) if manifest else "no manifest"
        print(f"\n### {os.path.basename(tree)}: {size} ({kind})\n")
        print("\n".join(table(entries, args.cold, manifest)), flush=True)
        rows = [{"name": e.row.name, "command": e.argv(e.row.command), "groups": e.groups, "runs": e.runs}
                for e in entries]
        trees.append({"name": os.path.basename(tree), "cold": args.cold, "change": args.change, "conditions": kind, "manifest": manifest, "rows": rows})
    if args.json:
        Path(args.json).write_text(json.dumps({"environment": facts, "trees": trees}, indent=2) + "\n")
    sys.exit(any(e["groups"].startswith("failed") for tree in trees for e in tree["rows"]))


# --------------------------------------------------------------------------- chart

# Peers that tell files apart by a hash nobody can forge, or byte by byte, as dupfind does.
CAREFUL = ("blake3", "czkawka", "rmlint", "jdupes", "fdupes", "rdfind")


def chart(args: argparse.Namespace) -> None:
    """Print one table of ratios from what --json wrote, and draw it."""
    trees = [tree for file in args.files for tree in json.loads(Path(file).read_text())["trees"]]
    works = [work for tree in trees for work in works_of(tree)]
    if not any(work["peers"] for work in works):
        sys.exit(f"compare.py: no peer was run in {', '.join(args.files)}: there is nothing to compare with")
    print("| work | dupfind s | peak MiB | fastest peer, s | of it | fastest careful peer, s | of it |")
    print("|---|--:|--:|---|--:|---|--:|")
    for work in works:
        careful = [peer for peer in work["peers"] if any(word in peer[0] for word in CAREFUL)]
        cells = [f"{peers[0][0]} {peers[0][1]:.2f} | **{work['seconds'] / peers[0][1]:.2f}**" if peers else "– | –"
                 for peers in (work["peers"], careful)]
        print(f"| {work['title']} | {work['seconds']:.2f} | {work['peak']:.0f} | {' | '.join(cells)} |")
    if args.svg:
        Path(args.svg).write_text(draw([(work["title"], work["seconds"], work["peers"]) for work in works if work["peers"]]))


def works_of(tree: Dict) -> Iterator[Dict]:
    """What dupfind did on a tree, beside the peers that found the same; a first scan beside those without a cache."""
    rows = {row["name"]: row["runs"] for row in tree["rows"] if row["groups"].startswith("ok") and row["runs"]}

    def median(name: str, key: str = "wall") -> float:
        return statistics.median(run[key] for run in rows[name])
    peers = sorted(((name, median(name)) for name in rows if not name.startswith("dupfind")), key=lambda peer: peer[1])
    for name in (name for name in rows if name.startswith("dupfind") and name != "dupfind report"):
        what, is_first = name.replace("dupfind ", "").replace("postgres", "PostgreSQL"), name.endswith("first")
        if tree["change"] and is_first:
            continue
        if tree["change"]:
            what += f", {tree['change']:g} % of files changed"
        title = f"{tree['name']}, {'cold' if tree['cold'] else 'cached'}, {what}"
        fair = [peer for peer in peers if not (is_first and peer[0].endswith("cached"))]
        yield {"title": title, "seconds": median(name), "peak": median(name, "peak_mib"), "peers": fair}


# --------------------------------------------------------------------------- check

def expected_groups(root: bytes) -> Set[frozenset]:
    """Every group of equal files: all names of two or more physical files with one hash."""
    names: Dict[Tuple[int, int], List[bytes]] = defaultdict(list)
    for path, identity in regular_files(root):
        names[identity].append(path)
    by_hash: Dict[str, List[List[bytes]]] = defaultdict(list)
    for paths in names.values():
        by_hash[sha256(paths[0])].append(paths)
    return {frozenset(path for paths in files for path in paths) for files in by_hash.values() if len(files) > 1}


def entry_paths(file: object) -> Iterator[bytes]:
    """All names in one file of dupfind's report: its own and those of its hard links."""
    if isinstance(file, str):
        yield os.fsencode(file)
    elif isinstance(file, dict):
        yield base64.b64decode(file["path_base64"]) if file.get("path_base64") else os.fsencode(file["path"])
        for link in file.get("hard_links") or []:
            yield from entry_paths(link)


def check(args: argparse.Namespace) -> None:
    """Compare dupfind's groups with those of a plain SHA-256 of everything."""
    root, program = os.path.realpath(args.dir), find_tool("dupfind", args)
    if not program:
        sys.exit(f"compare.py: {args.dupfind} not found")
    with tempfile.TemporaryDirectory(prefix="compare-") as work:
        places = {"dir": root, "work": work, "out": "-"}
        for command in (SCAN, REPORT):
            done = subprocess.run([program] + [part.format(**places) for part in command], cwd=work,
                                  env=tool_env(work), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            if done.returncode:
                sys.exit(f"compare.py: dupfind {command[0]} ended with {done.returncode}")
    report = json.loads(done.stdout)
    found = [frozenset(path for file in group["files"] for path in entry_paths(file)) for group in report["groups"]]
    expected = expected_groups(os.fsencode(root))
    wrong, lacking = set(found) - expected, expected - set(found)
    for title, groups in (("only in dupfind", wrong), ("only by SHA-256", lacking)):
        for group in sorted(map(sorted, groups))[:args.show]:
            print(f"{title}: " + "  ".join(map(os.fsdecode, group)).encode("utf-8", "backslashreplace").decode())
    twice, complete = len(found) - len(set(found)), report.get("complete")
    print(f"{len(expected)} groups expected, {len(found)} reported, {len(wrong)} wrong, {len(lacking)} lacking, "
          f"{twice} twice, complete: {complete}, problems: {report['summary'].get('problems')}")
    sys.exit(bool(wrong or lacking or twice or not complete))


# --------------------------------------------------------------------------- peers

def peers(args: argparse.Namespace) -> None:
    """Install the other duplicate finders, as far as this machine lets us."""
    crates, packages = ["yadf", "fclones", "czkawka_cli"], ["rmlint", "jdupes", "fdupes", "rdfind", "duperemove"]
    wanted = [crate for crate in crates if not find_tool(crate, args)]
    if wanted and shutil.which("cargo"):
        for crate in wanted:
            subprocess.run(["cargo", "install", "--locked", "--root", str(args.peers_dir), crate])
    absent = [package for package in packages if not find_tool(package, args)]
    if absent and shutil.which("apt-get") and os.geteuid() == 0:
        for package in absent:  # one by one: an unknown package must not keep the others out
            subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", package])
    for tool in crates + packages:
        program = find_tool(tool, args)
        print(f"{tool}: {version(program)} ({program})" if program else f"{tool}: missing, install it yourself")


# --------------------------------------------------------------------------- the command line

def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    verbs = top.add_subparsers(dest="verb", required=True, metavar="make | run | chart | check | peers")

    def verb(name: str, function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, description=function.__doc__)
        sub.set_defaults(function=function, dupfind=str(REPOSITORY / "target" / "release" / "dupfind"), peers_dir=PEERS)
        return sub
    sub = verb("make", make)
    sub.add_argument("dir", metavar="DIR")
    sub.add_argument("--shape", choices=(*SHAPES, "usr"), default="small")
    sub.add_argument("--files", type=int, help="number of names; the default depends on the shape")
    sub.add_argument("--seed", type=int, default=1)
    sub.add_argument("--duplicates", type=float, default=0.3, metavar="SHARE", help="share of redundant files")
    sub = verb("run", run)
    sub.add_argument("dirs", nargs="+", metavar="DIR")
    sub.add_argument("--runs", type=int, default=5, help="counted runs of every row")
    sub.add_argument("--tools", metavar="A,B", help=f"by default all but {', '.join(ONLY_WHEN_ASKED)}")
    sub.add_argument("--postgres", metavar="URL", help="a PostgreSQL server: also measure dupfind with its index there")
    sub.add_argument("--cold", action="store_true", help="drop the page cache before every run (root)")
    sub.add_argument("--dupfind", metavar="PATH", default=argparse.SUPPRESS)
    sub.add_argument("--change", type=float, default=0, metavar="PERCENT",
                     help="change so many files before each round: the tree must be a copy that nobody needs")
    sub.add_argument("--json", metavar="FILE", help="write every single run, for chart")
    sub.add_argument("--peers-dir", type=Path, default=argparse.SUPPRESS, metavar="DIR", help="look here before PATH")
    sub = verb("chart", chart)
    sub.add_argument("files", nargs="+", metavar="JSON", help="what run --json wrote")
    sub.add_argument("--svg", metavar="FILE", help="draw it, too")
    sub = verb("check", check)
    sub.add_argument("dir", metavar="DIR")
    sub.add_argument("--dupfind", metavar="PATH", default=argparse.SUPPRESS)
    sub.add_argument("--show", type=int, default=10, metavar="N", help="deviating groups to print")
    sub = verb("peers", peers)
    sub.add_argument("--into", dest="peers_dir", type=Path, default=argparse.SUPPRESS, metavar="DIR")
    sub = verb("_count", count)
    sub.add_argument("parser")
    sub.add_argument("file")
    return top


if __name__ == "__main__":
    arguments = parser().parse_args()
    arguments.function(arguments)
