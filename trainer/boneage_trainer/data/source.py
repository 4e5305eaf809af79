"""Reads a bone age data set as it was unpacked: one csv and the folders its radiographs lie in.

Three headers are known, in any case and with spaces around the names:

    id,boneage,male                      the training csv (True/False)
    Case ID,Sex                          the test csv (M/F, no ages)
    Image ID,male,Bone Age (months)      the official validation csv (TRUE/FALSE)

A file is only ever found by listing the tree, never by building a path from an id, so no id can
lead out of it.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from boneage_trainer.contract import ContractError

MAX_AGE_MONTHS = 240
_IDS = ("id", "case id", "image id")
_AGES = ("boneage", "bone age (months)", "boneage_months")
_SEXES = ("male", "sex")
_MALE = {"true": True, "m": True, "male": True, "1": True, "false": False, "f": False, "female": False, "0": False}
_SUFFIXES = (".png", ".jpg", ".jpeg")
_EXPECTED = "id,boneage,male or Case ID,Sex or Image ID,male,Bone Age (months)"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the csv; `problem` says why it cannot be used, and is empty where it can."""

    id: str
    male: bool
    boneage_months: float | None
    file: Path | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Labels:
    """A csv, read: its rows in file order. `labelled` is false where it has no age column."""

    path: Path
    labelled: bool
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """A data set on disk: `strays` are the images in its folders that no row names."""

    root: Path
    labels: Labels
    rows: tuple[Row, ...]
    strays: tuple[Path, ...]

    def relative(self, file: Path) -> str:
        return printable(file.relative_to(self.root).as_posix())


def printable(name: str) -> str:
    """A file name as text that every encoding takes; old archives unpack to names that are no UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def read_tree(root: Path, csv_name: str | None = None) -> Tree:
    """The data set under `root`; `csv_name` chooses among several csv files.

    Raises:
        ContractError: no folder, no usable csv, several of them, or none of the images it names.
    """
    labels = read_labels(find_csv(root, csv_name))
    images = _images_by_folder(root)
    used = _folders_of(labels, images)
    if not used:
        raise ContractError(_nothing_found(root, labels, images))
    files = {stem: file for folder in used for stem, file in images[folder].items()}
    named = {row.id for row in labels.rows}
    strays = tuple(file for stem, file in files.items() if stem not in named)
    return Tree(root, labels, tuple(_with_file(row, files) for row in labels.rows), strays)


def _with_file(row: Row, files: dict[str, Path]) -> Row:
    file = files.get(row.id)
    return replace(row, file=file, problem=row.problem or ("" if file else "missing"))


# ------------------------------------------------------------------------------------------- csv
def find_csv(root: Path, name: str | None = None) -> Path:
    """The csv to use: `name`, the only one, or the training one; ContractError where none is clear."""
    if not root.is_dir():
        raise ContractError(f"{root} is not a folder; give the one that holds the csv and the images")
    if name is not None:
        if (chosen := root / name).is_file():
            return chosen
        raise ContractError(f"there is no {name} in {root}; it has {_listed(_csv_files(root))}")
    readable = [path for path in _csv_files(root) if _columns(_header(path))]
    if not readable:
        raise ContractError(f"no csv with the columns {_EXPECTED} in {root}; it has {_listed(_csv_files(root))}")
    return _clear_choice(root, readable)


def _clear_choice(root: Path, candidates: list[Path]) -> Path:
    """The only candidate, the only one with ages, or the only such one called training."""
    with_age = [path for path in candidates if "age" in (_columns(_header(path)) or {})]
    training = [path for path in with_age if "train" in path.name.lower()]
    for some in (candidates, with_age, training):
        if len(some) == 1:
            return some[0]
    raise ContractError(f"{root} has several csv files ({_listed(candidates)}); choose one with --csv NAME")


def read_labels(path: Path) -> Labels:
    """The rows of the csv at `path`; those that cannot be used carry their problem.

    Raises:
        ContractError: unreadable text, an unknown header, or no row at all.
    """
    lines = _lines(path)
    header = next(lines, [])
    columns = _columns(header)
    if not columns:
        raise ContractError(f"{path.name} has the columns {','.join(header) or '(none)'}; expected {_EXPECTED}")
    rows = tuple(_without_repeats(_row(line, columns) for line in lines if any(cell.strip() for cell in line)))
    if not rows:
        raise ContractError(f"{path.name} has a header but no rows")
    return Labels(path, "age" in columns, rows)


def _lines(path: Path) -> Iterator[list[str]]:
    """The cells of each line; utf-8-sig drops the mark that spreadsheet programs put in front."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            yield from csv.reader(stream, skipinitialspace=True)
    except UnicodeDecodeError:
        raise ContractError(f"{path.name} is not UTF-8 text; save it as csv (UTF-8)") from None
    except csv.Error as error:
        raise ContractError(f"{path.name} is not a readable csv: {error}") from None


def _header(path: Path) -> list[str]:
    try:
        return next(_lines(path), [])
    except ContractError:
        return []


def _columns(header: list[str]) -> dict[str, int] | None:
    """Where id, sex and (if there) age stand; None without the first two."""
    names = [" ".join(cell.lower().split()) for cell in header]
    found = {
        key: next((at for at, name in enumerate(names) if name in known), -1)
        for key, known in (("id", _IDS), ("sex", _SEXES), ("age", _AGES))
    }
    columns = {key: at for key, at in found.items() if at >= 0}
    return columns if {"id", "sex"} <= columns.keys() else None


def _row(line: list[str], columns: dict[str, int]) -> Row:
    cells = {key: line[at].strip() if at < len(line) else "" for key, at in columns.items()}
    male = _MALE.get(cells["sex"].lower())
    months = _months(cells["age"]) if "age" in cells else None
    unusable = male is None or not cells["id"] or ("age" in cells and months is None)
    return Row(cells["id"], bool(male), months, problem="unlabelled" if unusable else "")


def _months(text: str) -> float | None:
    """An age in months, or None where `text` is none a child's hand can have."""
    try:
        months = float(text)
    except ValueError:
        return None
    return months if math.isfinite(months) and 0 <= months <= MAX_AGE_MONTHS else None


def _without_repeats(rows: Iterable[Row]) -> Iterator[Row]:
    seen: set[str] = set()
    for row in rows:
        yield replace(row, problem="duplicate") if row.id in seen else row
        seen.add(row.id)


def _csv_files(root: Path) -> list[Path]:
    return sorted(
        p for p in root.iterdir() if p.suffix.lower() == ".csv" and not p.name.startswith(".") and p.is_file()
    )


# ---------------------------------------------------------------------------------------- images
def _images_by_folder(root: Path) -> dict[Path, dict[str, Path]]:
    """Images by file stem, for `root` and the folders up to two below it (``X/X/<id>.png``)."""
    folders = {}
    for folder in _folders(root, depth=2):
        # Sorted with png last, so that of 1.jpg and 1.png the lossless one stays.
        files = sorted(_images(folder), key=lambda file: (file.suffix.lower() == ".png", file.name))
        if files:
            folders[folder] = {file.stem: file for file in files}
    return folders


def _folders(root: Path, depth: int) -> Iterator[Path]:
    yield root
    if depth:
        for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
            if entry.is_dir() and not entry.name.startswith((".", "__")):
                yield from _folders(Path(entry.path), depth - 1)


def _images(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.name.lower().endswith(_SUFFIXES) and not entry.name.startswith(".") and entry.is_file():
            yield Path(entry.path)


def _folders_of(labels: Labels, images: dict[Path, dict[str, Path]]) -> list[Path]:
    """The folders that hold the csv's images, fullest first.

    The official validation set comes in two; but a folder that repeats ids already found (a resized
    copy, say) is left alone, so that no image comes from it unnoticed.
    """
    wanted = {row.id for row in labels.rows}
    held = {folder: wanted & files.keys() for folder, files in images.items()}
    used: list[Path] = []
    found: set[str] = set()
    for folder in sorted(held, key=lambda folder: (-len(held[folder]), folder)):
        if held[folder] and not held[folder] & found:
            used.append(folder)
            found |= held[folder]
    return used


def _nothing_found(root: Path, labels: Labels, images: dict[Path, dict[str, Path]]) -> str:
    held = [f"{folder.relative_to(root).as_posix()} ({len(files)} images)" for folder, files in images.items()]
    return (
        f"none of the {len(labels.rows)} images that {labels.path.name} names lie in {root}"
        f" (there: {', '.join(held) or 'no images at all'}); unpack the images beside the csv or choose another --csv"
    )


def _listed(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths) or "no csv at all"
