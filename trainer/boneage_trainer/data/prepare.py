"""Turns a tree of radiographs into a pack: one array of small gray squares, an index and a card.

    python -m boneage_trainer.data.prepare SRC --out PACK [--size-px 128] [--csv NAME] [--workers N] [--json]

If it is killed, the same command resumes.
"""

from __future__ import annotations

import argparse
import errno
import functools
import hashlib
import shutil
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from boneage_trainer.console import ProgressLine, free_bytes, int_in_range, print_result, print_status, run_command
from boneage_trainer.contract import ContractError, PackFolder, format_csv
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


class LeftOut(NamedTuple):
    """One line of ``problems.csv``: an image or a row that is not in the pack."""

    id: str
    file: str
    problem: str


def prepare(
    source: Path, out: Path, size_px: int = 128, csv_name: str | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Makes the pack `out` of the tree `source`, unless it is there already.

    Returns:
        The pack's card with ``pack``, ``already_prepared``, ``left_out`` and ``elapsed_s``.

    Raises:
        ContractError: no usable dataset, `out` holds something else, or no image could be read.
        OSError: the disk is full, or a file or folder cannot be read or written.
    """
    started_s = time.monotonic()
    tree, pack = read_tree(source, csv_name), PackFolder(out)
    card = _read_existing_card(pack, tree, size_px)
    already_prepared = card is not None
    if card is None:
        card = _make_pack(pack, tree, size_px, workers)
    elapsed_s = round(time.monotonic() - started_s, 3)
    left_out = sum(card["problems"].values())
    result = {"already_prepared": already_prepared, "left_out": left_out, "elapsed_s": elapsed_s}
    return {**card, "pack": str(out), **result}


def _read_existing_card(pack: PackFolder, tree: Tree, size_px: int) -> dict[str, Any] | None:
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
        raise ContractError(f"{error}, so it is not overwritten; {way_out}") from None
    if not matches_source(pack, card, tree, size_px):
        existing = f"{card.get('count')} images of {card.get('image_size_px')} px"
        requested = f"{size_px} px of {tree.root.resolve().name} as it is now"
        raise ContractError(f"{pack.root} holds another pack ({existing}) than requested ({requested}); {way_out}")
    shutil.rmtree(pack.partial, ignore_errors=True)  # left by a kill between the last two steps
    return card


def _make_pack(pack: PackFolder, tree: Tree, size_px: int, workers: int | None) -> dict[str, Any]:
    rows = [(position, row) for position, row in enumerate(tree.rows) if not row.problem]
    if not rows:
        raise ContractError(f"none of the {len(tree.rows)} rows of {tree.labels.path.name} has a label and an image")
    plan = {**pack_identity(tree, size_px), "seen_sha256": hash_listing(tree, with_times=True)}
    _check_space(pack, len(rows) * size_px * size_px)
    with PackWriter(pack, plan, len(rows), size_px) as writer:
        _scale_rows(writer, [row for _, row in rows], size_px, workers)
        # Of equal files only the first is kept.
        first: dict[str, int] = {}
        for index in sorted(writer.prepared):
            if not writer.prepared[index].problem:
                first.setdefault(writer.prepared[index].sha256, index)
        kept = sorted(first.values())
        if not kept:
            raise ContractError(f"none of the {len(rows)} images of {tree.root} could be read: all are broken")
        # Everything that is not in the pack: rows in csv order, then files without a row.
        entries = {position: writer.prepared[index] for index, (position, _) in enumerate(rows)}
        left_out, positions = [], {rows[index][0] for index in kept}
        for position, row in enumerate(tree.rows):
            if position not in positions:
                problem = row.problem or entries[position].problem or "duplicate"
                left_out.append(LeftOut(row.id, tree.relative(row.file) if row.file else "", problem))
        left_out += [LeftOut(printable(file.stem), tree.relative(file), "unlabelled") for file in tree.strays]
        contents = [(rows[index][1], writer.prepared[index].sha256) for index in kept]
        card = _make_card(tree, size_px, contents, left_out)
        lines = ([row.id, row.male, format_months(row.boneage_months), sha256] for row, sha256 in contents)
        index_csv = format_csv(("id", "male", "boneage_months", "sha256"), lines)
        return writer.finish(kept, card, index_csv, format_csv(LeftOut._fields, left_out))


def _check_space(pack: PackFolder, needed_bytes: int) -> None:
    """Checks before the work, not after an hour of it; what an earlier process wrote counts as free."""
    pack.partial.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    if sys.platform != "win32":
        written = sum(file.stat().st_blocks * 512 for file in pack.partial.glob("rows.npy"))
    if free_bytes(pack.partial.parent) + written < needed_bytes:
        raise OSError(errno.ENOSPC, f"the pack needs {needed_bytes / 1e6:,.0f} MB", str(pack.partial.parent))


# ------------------------------------------------------------------------------------- the pixels
def _scale_rows(writer: PackWriter, rows: Sequence[Row], size_px: int, workers: int | None) -> None:
    """Scales every file that an earlier process has not."""
    todo = [(index, str(row.file)) for index, row in enumerate(rows) if index not in writer.prepared]
    if writer.prepared and todo:
        print_status(f"resuming: {len(writer.prepared):,} of {len(rows):,} images are prepared")
    progress = ProgressLine("prepared", len(rows), done=len(writer.prepared))
    for files in map_chunks(functools.partial(scale_files, size_px=size_px), todo, workers):
        entries, pixels = zip(*files, strict=True)
        writer.add(entries, [rows[entry.row].id for entry in entries], pixels)
        progress.add(len(files))


def scale_files(jobs: list[tuple[int, str]], size_px: int) -> list[tuple[PreparedRow, bytes | None]]:
    """Reads, hashes and scales the files of `jobs` (row, path); runs in the worker processes.

    Returns:
        for each file its entry, and the bytes of its (size_px, size_px) pixels, None if it is broken.

    Raises:
        OSError: a file cannot be read at all: the disk or its permissions are at fault, not the image.
    """
    files = []
    for row, path in jobs:
        data = Path(path).read_bytes()
        square = decode_square(data, size_px)
        pixels = None if square is None else square.tobytes()
        problem = "" if pixels else "broken"
        files.append((PreparedRow(row, hashlib.sha256(data).hexdigest(), problem, zlib.crc32(pixels or b"")), pixels))
    return files


# --------------------------------------------------------------------------------- what it writes
def _make_card(
    tree: Tree, size_px: int, contents: Sequence[tuple[Row, str]], left_out: Sequence[LeftOut]
) -> dict[str, Any]:
    identity = pack_identity(tree, size_px)
    listing_sha256 = identity.pop("listing_sha256")
    counts = Counter(entry.problem for entry in left_out)
    return {
        **identity,
        "fingerprint": compute_fingerprint(size_px, contents),
        "count": len(contents),
        "labelled": tree.labels.labelled,
        "opencv": cv2.__version__,
        "source": {"csv": tree.labels.path.name, "folder": tree.root.resolve().name, "listing_sha256": listing_sha256},
        "problems": {kind: counts[kind] for kind in PROBLEMS},
    }


def format_months(months: float | None) -> str:
    return "" if months is None else f"{months:g}" if months == round(months) else repr(months)


# ------------------------------------------------------------------------------------ command line
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.data.prepare", description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, metavar="SRC", help="the unpacked dataset: a csv and its images")
    parser.add_argument("--out", type=Path, required=True, metavar="PACK", help="folder to create")
    parser.add_argument("--size-px", type=int_in_range(8, 2048), default=128, help="image side in pixels (128)")
    parser.add_argument("--csv", metavar="NAME", help="csv to use, where there are several")
    parser.add_argument("--workers", type=int_in_range(1, 256), help="number of processes (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print the pack's card as JSON")
    arguments = parser.parse_args(argv)

    def command() -> None:
        result = prepare(arguments.source, arguments.out, arguments.size_px, arguments.csv, arguments.workers)
        count, size_px = result["count"], result["image_size_px"]
        head = "already prepared" if result["already_prepared"] else "prepared"
        lines = [f"{head}: {count:,} images of {size_px} px in {result['pack']} ({result['elapsed_s']:.1f} s)"]
        if result["left_out"]:
            kinds = ", ".join(f"{count} {kind}" for kind, count in result["problems"].items() if count)
            problems = PackFolder(arguments.out).problems
            lines.append(f"left out: {result['left_out']:,} ({kinds}), listed in {problems}")
            if arguments.json:
                print_status(lines[1])
        lines.append(f"fingerprint: {result['fingerprint']}")
        print_result(result, "\n".join(lines), arguments.json)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
