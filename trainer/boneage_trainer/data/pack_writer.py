"""A pack in the making: survives a kill at any instant, appears under its name only when whole.

The folder beside the pack holds ``plan.json`` (what is being made of what), ``rows.npy`` (one row
an image), ``done.jsonl`` (appended after the rows it speaks of) and at the end ``pack``, the pack.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from boneage_trainer.console import attach_path
from boneage_trainer.contract import SCHEMA, ContractError, PackFolder, sha256_of, write_atomic, write_json
from boneage_trainer.data.pixels import ALGORITHM
from boneage_trainer.data.source import Row, Tree

if sys.platform != "win32":  # where two runs into one pack are not kept apart
    import fcntl


class PreparedRow(NamedTuple):
    """What became of one source file: `crc32` of its row in the array, or why there is none."""

    row: int
    sha256: str
    problem: str
    crc32: int


class PackWriter:
    """The rows finished so far of a pack of `count` images of `size_px`, as `plan` describes it."""

    def __init__(self, pack: PackFolder, plan: Mapping[str, Any], count: int, size_px: int) -> None:
        self._pack, self._plan, self._count, self._size_px = pack, dict(plan), count, size_px
        self._folder = pack.partial
        self._rows = self._folder / "rows.npy"
        self._log_path = self._folder / "done.jsonl"
        self._whole = PackFolder(self._folder / "pack")
        self._header = _npy_header(count, size_px)
        self._row_bytes = size_px * size_px
        self.made: dict[int, PreparedRow] = {}

    @property
    def bytes_needed(self) -> int:
        """What the array takes, were nothing of it there."""
        return len(self._header) + self._count * self._row_bytes

    # ------------------------------------------------------------------------------------- open
    def __enter__(self) -> PackWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            self._log: IO[str] = opened.enter_context(open(self._log_path, "a+", encoding="utf-8"))
            self._lock()
            if not self._is_ours():
                self._start_afresh()
            self._array: IO[bytes] = opened.enter_context(open(self._rows, "r+b"))
            self.made = {made.row: made for made in self._verified(self._logged())}
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with attach_path(self._rows):  # closing writes what a full disk refused before
            self._opened.close()

    def _lock(self) -> None:
        if sys.platform != "win32":
            try:
                fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ContractError(f"another process is preparing {self._pack.root}; wait for it") from None

    def _is_ours(self) -> bool:
        try:
            plan, rows = json.loads(self._plan_path.read_text(encoding="utf-8")), self._rows.stat()
            linked_elsewhere = rows.st_nlink > 1 and not self._whole.root.exists()
            return bool(plan == self._plan) and rows.st_size == self.bytes_needed and not linked_elsewhere
        except (OSError, ValueError):
            return False

    @property
    def _plan_path(self) -> Path:
        return self._folder / "plan.json"

    def _start_afresh(self) -> None:
        self._log.truncate(0)
        shutil.rmtree(self._whole.root, ignore_errors=True)
        self._rows.unlink(missing_ok=True)  # not overwritten: it may be one file with a finished pack's array
        with attach_path(self._rows), open(self._rows, "wb") as stream:
            stream.write(self._header)
            stream.truncate(self.bytes_needed)
        write_json(self._plan_path, self._plan)

    def _logged(self) -> Iterator[PreparedRow]:
        """The log's whole lines; a kill may have cut the last one, which is then dropped."""
        self._log.seek(0)
        text = self._log.read()
        kept = text[: text.rfind("\n") + 1]
        if kept != text:
            self._log.truncate(len(kept.encode()))
        for line in kept.splitlines():
            row, _, sha256, problem, crc32 = json.loads(line)
            yield PreparedRow(row, sha256, problem, crc32)

    def _verified(self, logged: Iterable[PreparedRow]) -> Iterator[PreparedRow]:
        """Those whose pixels really reached the disk: after a power cut the log may know more."""
        for made in logged:
            if made.problem or zlib.crc32(self._read(made.row)) == made.crc32:
                yield made

    def _read(self, row: int) -> bytes:
        self._array.seek(len(self._header) + row * self._row_bytes)
        return self._array.read(self._row_bytes)

    # ------------------------------------------------------------------------------------- fill
    def add(self, made: Sequence[PreparedRow], ids: Sequence[str], pixels: Sequence[bytes | None]) -> None:
        """Keeps finished rows: the pixels first, then the lines that vouch for them."""
        with attach_path(self._rows):
            for one, data in zip(made, pixels, strict=True):
                if data is not None:
                    self._array.seek(len(self._header) + one.row * self._row_bytes)
                    self._array.write(data)
            self._array.flush()
        with attach_path(self._log_path):
            lines = ([one.row, id_, one.sha256, one.problem, one.crc32] for one, id_ in zip(made, ids, strict=True))
            self._log.write("".join(json.dumps(line) + "\n" for line in lines))
            self._log.flush()
        self.made.update((one.row, one) for one in made)

    # ----------------------------------------------------------------------------------- finish
    def finish(self, kept: Sequence[int], card: Mapping[str, Any], index: str, problems: str) -> dict[str, Any]:
        """Writes the pack of the `kept` rows (ascending) and gives it its name.

        Returns:
            The card as written, with ``images_sha256``.
        """
        with attach_path(self._rows):
            self._keep(kept)
        whole = {**card, "images_sha256": sha256_of(self._whole.images)}
        write_atomic(self._whole.index, index)
        write_atomic(self._whole.problems, problems)
        write_json(self._whole.card, whole)
        if self._pack.root.is_dir():
            self._pack.root.rmdir()  # empty, or it would have been refused
        self._whole.root.rename(self._pack.root)
        shutil.rmtree(self._folder, ignore_errors=True)
        return whole

    def _keep(self, kept: Sequence[int]) -> None:
        """Makes the array of the `kept` rows; a link where that is all of them, no second copy."""
        shutil.rmtree(self._whole.root, ignore_errors=True)
        self._whole.root.mkdir()
        if len(kept) == self._count and _linked(self._rows, self._whole.images):
            os.fsync(self._array.fileno())
            return
        with open(self._whole.images, "wb") as stream:
            stream.write(_npy_header(len(kept), self._size_px))
            for row in kept:
                stream.write(self._read(row))
            stream.flush()
            os.fsync(stream.fileno())


def _linked(source: Path, target: Path) -> bool:
    """Whether a hard link could be made; some file systems know none."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def _npy_header(count: int, size_px: int) -> bytes:
    """The start of an .npy file of uint8 (count, size_px, size_px), the same from every numpy."""
    shape = f"({count}, {size_px}, {size_px})"
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"  # with the ten bytes before it 128, where numpy wants the data aligned
    return np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text.encode("ascii")


# == identity: When two packs are the same: what one is made of, and the fingerprint of what it holds.


def pack_identity(tree: Tree, size_px: int) -> dict[str, Any]:
    """What a pack is made of and how; two packs with the same are the same."""
    return {
        "schema": SCHEMA, "algorithm": ALGORITHM, "image_size_px": size_px,
        "listing_sha256": hash_listing(tree),
    }  # fmt: skip


def hash_listing(tree: Tree, with_times: bool = False) -> str:
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


def compute_fingerprint(size_px: int, rows: Iterable[tuple[Row, str]]) -> str:
    """Names the pack's content: the same source gives the same one on any machine."""
    digest = hashlib.sha256(_line(SCHEMA, ALGORITHM, size_px))
    for row, sha256 in rows:
        digest.update(_line(row.id, row.male, row.boneage_months, sha256))
    return digest.hexdigest()


def matches_source(pack: PackFolder, card: dict[str, Any], tree: Tree, size_px: int) -> bool:
    """Same labels, names and sizes; and files changed after the pack was made still hash to its index."""
    try:
        made_of = {key: card[key] for key in ("schema", "algorithm", "image_size_px")}
        made_of["listing_sha256"] = card["source"]["listing_sha256"]
        whole = np.load(pack.images, mmap_mode="r").shape == (card["count"], size_px, size_px)
        return made_of == pack_identity(tree, size_px) and whole and _is_unchanged(pack, tree)
    except (OSError, ValueError, KeyError, TypeError):  # a pack that somebody took apart
        return False


def _is_unchanged(pack: PackFolder, tree: Tree) -> bool:
    with open(pack.index, encoding="utf-8", newline="") as stream:
        indexed = {row["id"]: row["sha256"] for row in csv.DictReader(stream)}
    made_ns = pack.card.stat().st_mtime_ns
    files = {row.id: row.file for row in tree.rows if row.file and not row.problem}
    newer = {id_: file for id_, file in files.items() if file.stat().st_mtime_ns > made_ns}
    return all(indexed.get(id_) == sha256_of(file) for id_, file in newer.items())
