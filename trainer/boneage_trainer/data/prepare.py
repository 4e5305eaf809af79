"""Turns a tree of radiographs into a pack: one array of small gray squares, and what they are.

    python -m boneage_trainer.data.prepare SRC --out PACK [--size-px 128] [--csv NAME] [--workers N] [--json]

Killed at any moment, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import errno
import functools
import hashlib
import io
import shutil
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from boneage_trainer.console import ProgressLine, free_bytes, int_in_range, print_result, print_status, run_command
from boneage_trainer.contract import ContractError, PackFolder
from boneage_trainer.data.pack_writer import (
    PackWriter,
    PreparedRow,
    compute_fingerprint,
    hash_listing,
    matches_source,
    pack_identity,
)
from boneage_trainer.data.parallel import map_chunks
from boneage_trainer.data.pixels import decode_square
from boneage_trainer.data.source import Row, Tree, printable, read_tree

PROBLEMS = ("broken", "missing", "unlabelled", "duplicate")


class ScaledFile(NamedTuple):
    """One source file after the work: `pixels` are the bytes of (size_px, size_px), or None if broken."""

    row: int
    sha256: str
    pixels: bytes | None


class LeftOut(NamedTuple):
    """One line of the report: an image or a row that is not in the pack."""

    id: str
    file: str
    problem: str


# ------------------------------------------------------------------------------------ the command
def prepare(
    source: Path, out: Path, size_px: int = 128, csv_name: str | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Makes the pack `out` of the tree `source`, or finds it made.

    Returns:
        The pack's card with ``pack``, ``already_prepared``, ``left_out`` and ``elapsed_s``.

    Raises:
        ContractError: no usable data set, `out` holds something else, or no image could be read.
        OSError: the disk is full, or a file or folder cannot be read or written.
    """
    started_s = time.monotonic()
    tree, pack = read_tree(source, csv_name), PackFolder(out)
    card = _found(pack, tree, size_px)
    already = card is not None
    if card is None:
        card = _make(pack, tree, size_px, workers)
    elapsed_s = round(time.monotonic() - started_s, 3)
    left_out = sum(card["problems"].values())
    return {**card, "pack": str(out), "already_prepared": already, "left_out": left_out, "elapsed_s": elapsed_s}


def _make(pack: PackFolder, tree: Tree, size_px: int, workers: int | None) -> dict[str, Any]:
    usable = [at for at, row in enumerate(tree.rows) if not row.problem]
    if not usable:
        raise ContractError(f"none of the {len(tree.rows)} rows of {tree.labels.path.name} has a label and an image")
    plan = {**pack_identity(tree, size_px), "seen_sha256": hash_listing(tree, with_times=True)}
    _check_space(pack, len(usable) * size_px * size_px)
    with PackWriter(pack, plan, len(usable), size_px) as partial:
        _fill(partial, [tree.rows[at] for at in usable], size_px, workers)
        made = {usable[at]: one for at, one in partial.made.items()}
        good = _without_copies(made)
        if not good:
            raise ContractError(f"none of the {len(usable)} images of {tree.root} could be read: all are broken")
        left = _left_out(tree, made, good)
        rows = [(tree.rows[at], made[at].sha256) for at in good]
        card = _card(tree, size_px, rows, left)
        position = {at: place for place, at in enumerate(usable)}
        return partial.finish([position[at] for at in good], card, _index(rows), _csv(LeftOut._fields, left))


def _check_space(pack: PackFolder, needed_bytes: int) -> None:
    """Before the work, not after an hour of it; what an earlier run wrote is counted as free."""
    pack.partial.parent.mkdir(parents=True, exist_ok=True)
    there = sum(file.stat().st_blocks * 512 for file in pack.partial.glob("rows.npy")) if sys.platform != "win32" else 0
    if free_bytes(pack.partial.parent) + there < needed_bytes:
        raise OSError(errno.ENOSPC, f"the pack needs {needed_bytes / 1e6:,.0f} MB", str(pack.partial.parent))


# ------------------------------------------------------------------------------------- the pixels
def _fill(partial: PackWriter, rows: Sequence[Row], size_px: int, workers: int | None) -> None:
    """Shrinks every file that an earlier run has not."""
    todo = [(at, str(row.file)) for at, row in enumerate(rows) if at not in partial.made]
    if partial.made and todo:
        print_status(f"going on where an earlier run stopped: {len(partial.made):,} of {len(rows):,} images are done")
    progress = ProgressLine("prepared", len(rows), done=len(partial.made))
    for some in map_chunks(functools.partial(scale_files, size_px=size_px), todo, workers):
        made = [
            PreparedRow(one.row, one.sha256, "" if one.pixels else "broken", zlib.crc32(one.pixels or b""))
            for one in some
        ]
        partial.add(made, [rows[one.row].id for one in some], [one.pixels for one in some])
        progress.add(len(some))


def scale_files(jobs: list[tuple[int, str]], size_px: int) -> list[ScaledFile]:
    """Reads, hashes and shrinks the files of `jobs` (row, path); runs in the worker processes.

    A file that cannot be read at all raises: the disk or its rights are at fault, not the image.
    """
    done = []
    for row, path in jobs:
        data = Path(path).read_bytes()
        pixels = decode_square(data, size_px)
        done.append(ScaledFile(row, hashlib.sha256(data).hexdigest(), None if pixels is None else pixels.tobytes()))
    return done


def _without_copies(made: dict[int, PreparedRow]) -> list[int]:
    """The rows with a good image, ascending; of equal files only the first."""
    first: dict[str, int] = {}
    for at in sorted(made):
        if not made[at].problem:
            first.setdefault(made[at].sha256, at)
    return sorted(first.values())


def _left_out(tree: Tree, made: dict[int, PreparedRow], good: Sequence[int]) -> list[LeftOut]:
    """Everything that is not in the pack: rows in csv order, then files that no row names."""
    kept = set(good)
    left = []
    for at, row in enumerate(tree.rows):
        if at not in kept:
            problem = row.problem or made[at].problem or "duplicate"
            left.append(LeftOut(row.id, tree.relative(row.file) if row.file else "", problem))
    return left + [LeftOut(printable(file.stem), tree.relative(file), "unlabelled") for file in tree.strays]


# --------------------------------------------------------------------------------- what it says
def _card(tree: Tree, size_px: int, rows: Sequence[tuple[Row, str]], left: Sequence[LeftOut]) -> dict[str, Any]:
    made_of = pack_identity(tree, size_px)
    listing = made_of.pop("listing_sha256")
    counts = Counter(one.problem for one in left)
    return {
        **made_of,
        "fingerprint": compute_fingerprint(size_px, rows),
        "count": len(rows),
        "labelled": tree.labels.labelled,
        "opencv": cv2.__version__,
        "source": {
            "csv": tree.labels.path.name, "folder": tree.root.resolve().name, "listing_sha256": listing,
        },
        "problems": {kind: counts[kind] for kind in PROBLEMS},
    }  # fmt: skip


def _index(rows: Iterable[tuple[Row, str]]) -> str:
    lines = ([row.id, row.male, months_text(row.boneage_months), sha256] for row, sha256 in rows)
    return _csv(("id", "male", "boneage_months", "sha256"), lines)


def months_text(months: float | None) -> str:
    return "" if months is None else f"{months:g}" if months == round(months) else repr(months)


def _csv(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()


# ------------------------------------------------------------------------------- a pack that is there
def _found(pack: PackFolder, tree: Tree, size_px: int) -> dict[str, Any] | None:
    """The card of a pack that is already what would be made; None where nothing is there.

    Raises:
        ContractError: something else is there.
    """
    if not pack.root.exists() or (pack.root.is_dir() and not any(pack.root.iterdir())):
        return None
    way_out = "remove it or choose another --out"
    try:
        card = pack.read_card()
    except ContractError as error:
        raise ContractError(f"{error}, so it is left alone; {way_out}") from None
    if not matches_source(pack, card, tree, size_px):
        made = f"{card.get('count')} images of {card.get('image_size_px')} px"
        wanted = f"{size_px} px of {tree.root.resolve().name} as it is now"
        raise ContractError(f"{pack.root} holds another pack ({made}) than asked for ({wanted}); {way_out}")
    shutil.rmtree(pack.partial, ignore_errors=True)  # left by a kill between the last two steps
    return card


# ------------------------------------------------------------------------------------ command line
def _summary(result: dict[str, Any], pack: PackFolder) -> str:
    count, size_px = result["count"], result["image_size_px"]
    head = "already prepared" if result["already_prepared"] else "prepared"
    lines = [f"{head}: {count:,} images of {size_px} px in {result['pack']} ({result['elapsed_s']:.1f} s)"]
    if result["left_out"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in result["problems"].items() if count)
        lines.append(f"left out: {result['left_out']:,} ({kinds}), each named in {pack.problems}")
    return "\n".join([*lines, f"fingerprint: {result['fingerprint']}"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.data.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, metavar="SRC", help="the unpacked data set: a csv and its images")
    parser.add_argument("--out", type=Path, required=True, metavar="PACK", help="the folder to make")
    parser.add_argument("--size-px", type=int_in_range(8, 2048), default=128, help="side of the squares (128)")
    parser.add_argument("--csv", metavar="NAME", help="which csv, where there are several")
    parser.add_argument("--workers", type=int_in_range(1, 256), help="processes (one a core)")
    parser.add_argument("--json", action="store_true", help="print the pack's card as JSON")
    given = parser.parse_args(argv)

    def command() -> None:
        result = prepare(given.source, given.out, given.size_px, given.csv, given.workers)
        text = _summary(result, PackFolder(given.out))
        if given.json and result["left_out"]:
            print_status(text.split("\n")[1])
        print_result(result, text, given.json)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
