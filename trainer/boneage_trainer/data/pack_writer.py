"""Writes a pack so that a kill at any time loses nothing; it appears under its name only when complete.

The folder beside the pack holds ``plan.json`` (what the pack is made of), ``rows.npy`` (one row per
image), ``done.jsonl`` (a line per row, appended after the row) and at the end ``pack``, the pack. Two packs made of
the same files have the same identity; two with the same content have the same fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any, NamedTuple

import numpy as np

from boneage_trainer.console import attach_path
from boneage_trainer.contract import SCHEMA, ContractError, PackFolder, sha256_of, write_atomic, write_json
from boneage_trainer.data.pixels import ALGORITHM
from boneage_trainer.data.source import Row, Tree, read_index

if sys.platform != "win32":  # where two processes that write one pack are not kept apart
    import fcntl


class PreparedRow(NamedTuple):
    """The result for one source file: `crc32` of its row in the array, or the problem with it."""

    row: int
    sha256: str
    problem: str
    crc32: int


class PackWriter:
    """The finished rows of a pack of `count` images of `size_px`, made as `plan` describes."""

    def __init__(self, pack: PackFolder, plan: Mapping[str, Any], count: int, size_px: int) -> None:
        self._pack, self._plan, self._count, self._size_px = pack, dict(plan), count, size_px
        self._folder = pack.partial
        self._plan_path = self._folder / "plan.json"
        self._rows_path = self._folder / "rows.npy"
        self._log_path = self._folder / "done.jsonl"
        self._complete = PackFolder(self._folder / "pack")
        self._header = _npy_header(count, size_px)
        self._row_bytes = size_px * size_px
        self._array_bytes = len(self._header) + count * self._row_bytes
        self.prepared: dict[int, PreparedRow] = {}

    # ------------------------------------------------------------------------------------- open
    def __enter__(self) -> PackWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._log: IO[str] = stack.enter_context(open(self._log_path, "a+", encoding="utf-8"))
            if sys.platform != "win32":
                try:
                    fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise ContractError(f"another process is preparing {self._pack.root}; wait for it") from None
            if not self._has_same_plan():  # start over
                self._log.truncate(0)
                shutil.rmtree(self._complete.root, ignore_errors=True)
                self._rows_path.unlink(missing_ok=True)  # not overwritten: it may be a link to a finished pack's array
                with attach_path(self._rows_path), open(self._rows_path, "wb") as stream:
                    stream.write(self._header)
                    stream.truncate(self._array_bytes)
                write_json(self._plan_path, self._plan)
            self._array: IO[bytes] = stack.enter_context(open(self._rows_path, "r+b"))
            # After a power cut the log may have lines whose pixels never reached the disk.
            for entry in self._read_log():
                if entry.problem or zlib.crc32(self._read_row(entry.row)) == entry.crc32:
                    self.prepared[entry.row] = entry
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with attach_path(self._rows_path):  # closing flushes what a full disk refused before
            self._opened.close()

    def _has_same_plan(self) -> bool:
        """Whether an earlier process left rows of this very pack."""
        try:
            plan, rows = json.loads(self._plan_path.read_text(encoding="utf-8")), self._rows_path.stat()
            is_linked_elsewhere = rows.st_nlink > 1 and not self._complete.root.exists()
            return bool(plan == self._plan) and rows.st_size == self._array_bytes and not is_linked_elsewhere
        except (OSError, ValueError):
            return False

    def _read_log(self) -> Iterator[PreparedRow]:
        """The log's complete lines; a kill may have cut the last one, which is then dropped."""
        self._log.seek(0)
        text = self._log.read()
        complete = text[: text.rfind("\n") + 1]
        if complete != text:
            self._log.truncate(len(complete.encode()))
        for line in complete.splitlines():
            row, _, sha256, problem, crc32 = json.loads(line)
            yield PreparedRow(row, sha256, problem, crc32)

    def _read_row(self, row: int) -> bytes:
        self._array.seek(len(self._header) + row * self._row_bytes)
        return self._array.read(self._row_bytes)

    # ------------------------------------------------------------------------------------- fill
    def add(self, entries: Sequence[PreparedRow], ids: Sequence[str], pixels: Sequence[bytes | None]) -> None:
        """Writes finished rows: the pixels first, then the lines that vouch for them."""
        with attach_path(self._rows_path):
            for entry, data in zip(entries, pixels, strict=True):
                if data is not None:
                    self._array.seek(len(self._header) + entry.row * self._row_bytes)
                    self._array.write(data)
            self._array.flush()
        with attach_path(self._log_path):
            for entry, id_ in zip(entries, ids, strict=True):
                self._log.write(json.dumps([entry.row, id_, entry.sha256, entry.problem, entry.crc32]) + "\n")
            self._log.flush()
        self.prepared.update((entry.row, entry) for entry in entries)

    # ----------------------------------------------------------------------------------- finish
    def finish(self, kept: Sequence[int], card: Mapping[str, Any], index: str, problems: str) -> dict[str, Any]:
        """Writes the pack of the `kept` rows (ascending) and moves it to its name.

        Returns:
            The card as written, with ``images_sha256``.
        """
        with attach_path(self._rows_path):
            self._write_array(kept)
        card = {**card, "images_sha256": sha256_of(self._complete.images)}
        write_atomic(self._complete.index, index)
        write_atomic(self._complete.problems, problems)
        write_json(self._complete.card, card)
        if self._pack.root.is_dir():
            self._pack.root.rmdir()  # empty, or it would have been refused
        self._complete.root.rename(self._pack.root)
        shutil.rmtree(self._folder, ignore_errors=True)
        return card

    def _write_array(self, kept: Sequence[int]) -> None:
        """The array of the `kept` rows: a hard link where that is all of them and the file system allows it."""
        shutil.rmtree(self._complete.root, ignore_errors=True)
        self._complete.root.mkdir()
        if len(kept) == self._count:
            try:
                os.link(self._rows_path, self._complete.images)
            except OSError:
                pass
            else:
                os.fsync(self._array.fileno())
                return
        with open(self._complete.images, "wb") as stream:
            stream.write(_npy_header(len(kept), self._size_px))
            for row in kept:
                stream.write(self._read_row(row))
            stream.flush()
            os.fsync(stream.fileno())


def _npy_header(count: int, size_px: int) -> bytes:
    """The start of an .npy file of uint8 (count, size_px, size_px), the same from every numpy."""
    shape = f"({count}, {size_px}, {size_px})"
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"  # with the ten bytes before it 128, to which numpy aligns the data
    return np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text.encode("ascii")


# -------------------------------------------------------------------------------------- identity
def pack_identity(tree: Tree, size_px: int) -> dict[str, Any]:
    """What a pack is made of and how; two packs with the same identity are the same."""
    return {"schema": SCHEMA, "algorithm": ALGORITHM, "image_size_px": size_px, "listing_sha256": hash_listing(tree)}


def hash_listing(tree: Tree, with_times: bool = False) -> str:
    """Hash of the labels and of each file's name and size, not of its content: that would take minutes.

    `with_times` adds the modification times, which are exact but differ from one copy to the next.
    """
    digest = hashlib.sha256()
    for row in tree.rows:
        cells: tuple[object, ...] = (row.id, row.male, row.boneage_months, row.problem)
        if row.file is not None:
            stat = row.file.stat()
            cells = (*cells, tree.relative(row.file), stat.st_size, *([stat.st_mtime_ns] if with_times else []))
        digest.update(_json_line(*cells))
    for file in tree.strays:
        digest.update(_json_line(tree.relative(file)))
    return digest.hexdigest()


def _json_line(*cells: object) -> bytes:
    return (json.dumps(cells) + "\n").encode()


def compute_fingerprint(size_px: int, rows: Iterable[tuple[Row, str]]) -> str:
    """Identifies the pack's content: the same source gives the same fingerprint on any machine."""
    digest = hashlib.sha256(_json_line(SCHEMA, ALGORITHM, size_px))
    for row, sha256 in rows:
        digest.update(_json_line(row.id, row.male, row.boneage_months, sha256))
    return digest.hexdigest()


def matches_source(pack: PackFolder, card: dict[str, Any], tree: Tree, size_px: int) -> bool:
    """Whether labels, names and sizes are the same; files changed after the pack was made are hashed again."""
    try:
        identity = {key: card[key] for key in ("schema", "algorithm", "image_size_px")}
        identity["listing_sha256"] = card["source"]["listing_sha256"]
        if identity != pack_identity(tree, size_px):
            return False
        if np.load(pack.images, mmap_mode="r").shape != (card["count"], size_px, size_px):
            return False
        indexed = {row.id: sha256 for row, sha256 in read_index(pack)}
        made_ns = pack.card.stat().st_mtime_ns
        files = {row.id: row.file for row in tree.rows if row.file and not row.problem}
        newer = {id_: file for id_, file in files.items() if file.stat().st_mtime_ns > made_ns}
        return all(indexed.get(id_) == sha256_of(file) for id_, file in newer.items())
    except (OSError, ValueError, KeyError, TypeError):  # a pack with missing or changed parts
        return False
