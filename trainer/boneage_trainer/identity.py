"""When two packs are the same: what one is made of, and the fingerprint of what it holds."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.contract import SCHEMA, PackFolder, sha256_of
from boneage_trainer.pixels import ALGORITHM
from boneage_trainer.tree import Row, Tree


def identity(tree: Tree, size_px: int) -> dict[str, Any]:
    """What a pack is made of and how; two packs with the same are the same."""
    return {
        "schema": SCHEMA, "algorithm": ALGORITHM, "image_size_px": size_px,
        "listing_sha256": listing_sha256(tree),
    }  # fmt: skip


def listing_sha256(tree: Tree, with_times: bool = False) -> str:
    """Hash of the labels and of each file's name and size, not of its content: that takes minutes.

    `with_times` adds the times of change, which are exact but differ from one copy to the next.
    """
    digest = hashlib.sha256()
    for row in tree.rows:
        digest.update(_line(row.id, row.male, row.boneage_months, row.problem, *_stat(tree, row.file, with_times)))
    for file in tree.strays:
        digest.update(_line(tree.relative(file)))
    return digest.hexdigest()


def _stat(tree: Tree, file: Path | None, with_times: bool) -> tuple[object, ...]:
    if file is None:
        return ()
    stat = file.stat()
    return (tree.relative(file), stat.st_size, *([stat.st_mtime_ns] if with_times else []))


def _line(*cells: object) -> bytes:
    return (json.dumps(cells) + "\n").encode()


def fingerprint(size_px: int, rows: Iterable[tuple[Row, str]]) -> str:
    """Names the pack's content: the same source gives the same one on any machine."""
    digest = hashlib.sha256(_line(SCHEMA, ALGORITHM, size_px))
    for row, sha256 in rows:
        digest.update(_line(row.id, row.male, row.boneage_months, sha256))
    return digest.hexdigest()


def is_made_of(pack: PackFolder, card: dict[str, Any], tree: Tree, size_px: int) -> bool:
    """Same labels, names and sizes; and files changed after the pack was made still hash to its index."""
    try:
        made_of = {key: card[key] for key in ("schema", "algorithm", "image_size_px")}
        made_of["listing_sha256"] = card["source"]["listing_sha256"]
        whole = np.load(pack.images, mmap_mode="r").shape == (card["count"], size_px, size_px)
        return made_of == identity(tree, size_px) and whole and _is_unchanged(pack, tree)
    except (OSError, ValueError, KeyError, TypeError):  # a pack that somebody took apart
        return False


def _is_unchanged(pack: PackFolder, tree: Tree) -> bool:
    with open(pack.index, encoding="utf-8", newline="") as stream:
        indexed = {row["id"]: row["sha256"] for row in csv.DictReader(stream)}
    made_ns = pack.card.stat().st_mtime_ns
    files = {row.id: row.file for row in tree.rows if row.file and not row.problem}
    newer = {id_: file for id_, file in files.items() if file.stat().st_mtime_ns > made_ns}
    return all(indexed.get(id_) == sha256_of(file) for id_, file in newer.items())
