"""Deterministic file trees for compare.py: the same arguments give the same names and contents."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SHAPES = {"small": 300_000, "media": 800, "same-size": 40_000, "hardlinks": 100_000, "large": 8,
          "tiny": 3_000_000}  # files by default
GENERATOR = 1  # raise it when the same arguments give another tree
MTIME = 1_600_000_000  # 2020-09-13, so that no file looks freshly modified
BLOCK = 4 * MIB  # one random block that all contents are slices of
STAMP = 8
HEADER = 256 * KIB
SAME_SIZE = 64 * KIB
SNAPSHOTS = 20
DEPTH = 6
DIR_WORDS = "archive backup camera clients docs drafts exports invoices library mail music notes old " \
    "photos projects reports scans shared src travel videos work".split()
FILE_WORDS = "agenda budget copy cover draft final image index letter list main memo minutes notes " \
    "offer page photo plan report scan sheet summary table track".split()
EXTENSIONS = "txt md pdf jpg png docx xlsx html json xml csv py rs c h css js log mp3 zip".split()


@dataclass(frozen=True)
class Content:
    """What one original holds: equal only to its own copies, whatever its size."""

    number: int
    size: int


class Writer:
    """Writes contents of one shape, all cut from one random block."""

    def __init__(self, shape: str, rng: random.Random) -> None:
        self.shape = shape
        self.block = rng.randbytes(BLOCK)
        self.headers = [rng.randbytes(HEADER) for _ in range(8)]

    def pieces(self, content: Content) -> Iterator[bytes]:
        """The bytes of `content`, in order."""
        stamp = (content.number + 1).to_bytes(STAMP, "little")
        if self.shape == "same-size":  # one prefix for all; the difference lies in the last 8 KiB
            at = SAME_SIZE - 8 * KIB + content.number * 4099 % KIB * STAMP
            yield self.block[:at] + stamp + self.block[at + STAMP:SAME_SIZE]
            return
        left, at = content.size - 2 * STAMP, content.number * 4099 % (BLOCK // 2)
        if self.shape == "media":
            yield self.headers[content.number % len(self.headers)]
            left -= HEADER
        yield stamp
        while left > 0:
            piece = self.block[at:at + left]
            yield piece
            left, at = left - len(piece), 0
        yield stamp

    def joined(self, content: Content) -> Iterator[memoryview]:
        """The same in few pieces, of which none is large."""
        if content.size <= BLOCK:
            yield memoryview(b"".join(self.pieces(content)))
        else:
            yield from map(memoryview, self.pieces(content))

    def write(self, path: str, content: Content) -> None:
        """Create the file `path` with the content and the fixed date."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            for data in self.joined(content):
                while data:
                    data = data[os.write(handle, data):]
            os.utime(handle, (MTIME, MTIME))
        finally:
            os.close(handle)


def size_chooser(shape: str, originals: int, rng: random.Random) -> Callable[[], int]:
    """A function giving the size of the next original; sizes repeat among different files."""
    if shape == "same-size":
        return lambda: SAME_SIZE
    if shape == "large":
        return lambda: GIB
    if shape == "tiny":  # so that millions fit anywhere; a thousand sizes, as among millions of files
        return lambda: rng.randint(2 * STAMP, KIB)
    if shape == "media":  # log-uniform from 1 to 20 MiB, about four originals to a size
        pool = [int(MIB * 20 ** rng.random()) for _ in range(max(1, originals // 4))]
        return lambda: rng.choice(pool)

    def small() -> int:
        size = int(rng.lognormvariate(0, 1.2) * 4 * KIB)
        if rng.random() < 0.2:  # files padded to whole kibibytes
            size = -(-size // KIB) * KIB
        return min(max(size, 2 * STAMP), 128 * KIB)
    return small


def group_size(rng: random.Random) -> int:
    """How many equal files a group has: mostly few, up to 10, now and then up to 100."""
    return rng.randint(11, 100) if rng.random() < 0.002 else 2 + min(8, int(rng.expovariate(0.6)))


def plan_contents(shape: str, files: int, share: float, rng: random.Random) -> List[Content]:
    """One content for each file, shuffled; `share` of the files repeat an earlier one."""
    if shape == "large":  # half of them are one half of a pair
        contents = [Content(number, GIB) for number in range(files - files // 4)]
        return contents + contents[:files // 4]
    redundant, repeats = int(files * share), []
    while redundant > 0:
        repeats.append(min(group_size(rng) - 1, redundant))
        redundant -= repeats[-1]
    originals = files - sum(repeats)
    if len(repeats) > originals:
        sys.exit("compare.py: --duplicates is too high for so few files")
    choose = size_chooser(shape, originals, rng)
    contents = [Content(number, choose()) for number in range(originals)]
    contents += [contents[at] for at, count in enumerate(repeats) for _ in range(count)]
    rng.shuffle(contents)
    return contents


def directories(rng: random.Random) -> Iterator[Tuple[str, int]]:
    """Endless directories, parents first, each with the number of files that go into it."""
    shallow: List[Tuple[str, int]] = [("", 0)]
    number = 0
    while True:
        parent, depth = rng.choice(shallow[-400:])
        name = f"{rng.choice(DIR_WORDS)}-{number:05d}"
        path = f"{parent}/{name}" if parent else name
        if depth + 1 < DEPTH:
            shallow.append((path, depth + 1))
        number += 1
        yield path, rng.randint(15, 20)


def place(contents: List[Content], rng: random.Random) -> Iterator[Tuple[str, List[Tuple[str, Content]]]]:
    """Spread the contents over directories, under realistic names."""
    at = 0
    for directory, room in directories(rng):
        if at >= len(contents):
            return
        names = (f"{rng.choice(FILE_WORDS)}_{rng.choice(FILE_WORDS)}_{n:06d}.{rng.choice(EXTENSIONS)}"
                 for n in range(at, at + room))
        yield directory, list(zip((f"{directory}/{name}" for name in names), contents[at:at + room]))
        at += room


def write_tree(root: str, contents: List[Content], writer: Writer, rng: random.Random) -> int:
    """Write the files and return the number of directories."""
    count = 0
    for directory, files in place(contents, rng):
        os.mkdir(f"{root}/{directory}")
        count += 1
        for path, content in files:
            writer.write(f"{root}/{path}", content)
    return count


def write_snapshots(root: str, contents: List[Content], writer: Writer, rng: random.Random) -> Tuple[int, int]:
    """Write a tree and snapshots of it by hard link; returns directories and names."""
    layout = list(place(contents, rng))
    for snapshot in range(SNAPSHOTS):
        for directory, files in layout:
            os.makedirs(f"{root}/snapshot-{snapshot:02d}/{directory}")
            for path, content in files:
                target = f"{root}/snapshot-{snapshot:02d}/{path}"
                if snapshot == 0:
                    writer.write(target, content)
                else:
                    os.link(f"{root}/snapshot-00/{path}", target)
    return SNAPSHOTS * (len(layout) + 1), SNAPSHOTS * len(contents)


def manifest_path(root: str) -> Path:
    """The manifest lies beside the tree, so that no tool finds it."""
    return Path(root.rstrip("/") + ".json")


def load_manifest(tree: str) -> Optional[Dict[str, int]]:
    """The manifest of a generated tree; None for any other directory."""
    return json.loads(manifest_path(tree).read_text()) if manifest_path(tree).exists() else None


def copy_usr(root: str) -> None:
    """Copy /usr with its hard links, but for names that dupfind passes over unless it is told not to."""
    os.makedirs(root)
    passed_over = [f"--exclude={glob}" for glob in (".[A-Za-z0-9_-]*", "*~", "*.tmp", "*.temp", "Thumbs.db")]
    tar = ["tar", "--one-file-system", "--no-anchored", *passed_over, "-C", "/usr", "-cf", "-", "."]
    with subprocess.Popen(tar, stdout=subprocess.PIPE) as packed:
        subprocess.run(["tar", "-C", root, "-xf", "-"], stdin=packed.stdout, check=True)
    manifest_path(root).write_text(json.dumps({"shape": "usr", **count_by_sha256(root)}, indent=2) + "\n")


def count_by_sha256(root: str) -> Dict[str, int]:
    """Reads every file of a tree whose duplicates nobody knows, and counts them."""
    names: Dict[Tuple[int, int], List[bytes]] = defaultdict(list)
    for path, identity in regular_files(os.fsencode(root)):
        names[identity].append(path)
    by_hash: Dict[str, int] = defaultdict(int)
    for paths in names.values():
        by_hash[sha256(paths[0])] += 1
    return {"names": sum(map(len, names.values())), "physical_files": len(names),
            "bytes": sum(os.stat(paths[0]).st_size for paths in names.values()),
            "groups": sum(count > 1 for count in by_hash.values()),
            "redundant_files": len(names) - len(by_hash)}


def ignored(name: bytes) -> bool:
    """dupfind's default ignores, for files and directories alike."""
    return name.startswith(b".") or name.endswith((b"~", b".tmp", b".temp")) or name == b"Thumbs.db"


def regular_files(root: bytes) -> Iterator[Tuple[bytes, Tuple[int, int]]]:
    """All regular, non-empty files of interest below `root` with the identity of each."""
    for directory, below, names in os.walk(root):
        below[:] = [name for name in below if not ignored(name)]
        for entry in (os.path.join(directory, name) for name in names if not ignored(name)):
            stat = os.lstat(entry)
            if stat.st_mode & 0o170000 == 0o100000 and stat.st_size:
                yield entry, (stat.st_dev, stat.st_ino)


def sha256(path: bytes) -> str:
    """The SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(MIB), b""):
            digest.update(piece)
    return digest.hexdigest()


def change(root: str, share: float, seed: int) -> None:
    """Write into half of the share of the files of a tree, and add copies of as many others."""
    rng = random.Random(f"change {seed}")
    files = sorted(path for path, _ in regular_files(os.fsencode(root)))
    chosen = rng.sample(files, 2 * max(1, int(len(files) * share / 2)))
    for path in chosen[::2]:
        with open(path, "r+b") as file:
            file.write(rng.randbytes(STAMP))
    for path in chosen[1::2]:
        shutil.copyfile(path, path + b".%d" % seed)


def make(args: argparse.Namespace) -> None:
    """Generate a tree and its manifest, unless they are there already."""
    root = os.path.abspath(args.dir)
    wanted = {"generator": GENERATOR, "shape": args.shape, "seed": args.seed, "duplicates": args.duplicates,
              "files": args.files or SHAPES.get(args.shape, 0)}
    if args.shape == "usr":
        copy_usr(root)
        return
    if args.shape == "hardlinks":
        wanted["files"] -= wanted["files"] % SNAPSHOTS
    if manifest_path(root).exists():
        found = json.loads(manifest_path(root).read_text())
        if os.path.isdir(root) and all(found.get(key) == value for key, value in wanted.items()):
            print(f"{root} is there already: {json.dumps(found)}")
            return
    if os.path.exists(root) or manifest_path(root).exists():
        sys.exit(f"compare.py: {root} or its manifest exists and is another tree; remove both first")
    started = time.monotonic()
    rng = random.Random(f"{args.shape} {args.seed}")
    physical = wanted["files"] // (SNAPSHOTS if args.shape == "hardlinks" else 1)
    contents = plan_contents(args.shape, physical, args.duplicates, rng)
    writer = Writer(args.shape, rng)
    os.makedirs(root)
    if args.shape == "hardlinks":
        dirs, names = write_snapshots(root, contents, writer, rng)
    else:
        dirs, names = write_tree(root, contents, writer, rng), physical
    os.sync()
    copies: Dict[int, int] = defaultdict(int)
    for content in contents:
        copies[content.number] += 1
    manifest = {**wanted, "directories": dirs, "names": names, "physical_files": physical,
                "bytes": sum(content.size for content in contents),
                "groups": sum(count > 1 for count in copies.values()),
                "redundant_files": physical - len(copies)}
    manifest_path(root).write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{root}: {json.dumps(manifest)} in {time.monotonic() - started:.1f} s")
