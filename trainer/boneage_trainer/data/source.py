"""Reads a bone age dataset as it was unpacked: one csv and the folders with its radiographs.

Three headers are supported, in any case and with spaces around the names:

    id,boneage,male                      the training csv (True/False)
    Case ID,Sex                          the test csv (M/F, no ages)
    Image ID,male,Bone Age (months)      the official validation csv (TRUE/FALSE)

Files are only ever found by listing the tree, never by building a path from an id, so no id can
lead out of it.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from boneage_trainer.contract import ContractError, PackFolder

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
    """The content of a csv: its rows in file order. `labelled` is false where it has no age column."""

    path: Path
    labelled: bool
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """A dataset on disk: `strays` are the images in its folders without a row in the csv."""

    root: Path
    labels: Labels
    rows: tuple[Row, ...]
    strays: tuple[Path, ...]

    def relative(self, file: Path) -> str:
        return printable(file.relative_to(self.root).as_posix())


def printable(name: str) -> str:
    """A file name as text that every encoding can print; old archives contain names that are not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def read_tree(root: Path, csv_name: str | None = None) -> Tree:
    """The dataset under `root`; `csv_name` chooses among several csv files.

    Raises:
        ContractError: no folder, no usable csv, several of them, or none of the images it names.
    """
    labels = read_labels(find_csv(root, csv_name))
    images = _images_by_folder(root)
    used = _choose_folders(labels, images)
    if not used:
        found = [f"{folder.relative_to(root).as_posix()} ({len(files)} images)" for folder, files in images.items()]
        raise ContractError(
            f"none of the {len(labels.rows)} images of {labels.path.name} are in {root}"
            f" (found: {', '.join(found) or 'no images at all'});"
            " unpack the images beside the csv or choose another --csv"
        )
    files = {stem: file for folder in used for stem, file in images[folder].items()}
    ids = {row.id for row in labels.rows}
    strays = tuple(file for stem, file in files.items() if stem not in ids)
    rows = (
        replace(row, file=files.get(row.id), problem=row.problem or ("" if row.id in files else "missing"))
        for row in labels.rows
    )
    return Tree(root, labels, tuple(rows), strays)


# ------------------------------------------------------------------------------------------- csv
def find_csv(root: Path, name: str | None = None) -> Path:
    """The csv to use: `name`, the only one, the only one with ages, or the only such one named after training.

    Raises:
        ContractError: none, or several to choose from.
    """
    if not root.is_dir():
        raise ContractError(f"{root} is not a folder; give the one with the csv and the images")
    csv_files = sorted(
        path
        for path in root.iterdir()
        if path.suffix.lower() == ".csv" and not path.name.startswith(".") and path.is_file()
    )
    existing = _join_names(csv_files) or "no csv at all"
    if name is not None:
        if (chosen := root / name).is_file():
            return chosen
        raise ContractError(f"there is no {name} in {root}; it has {existing}")
    columns: dict[Path, dict[str, int]] = {}
    for path in csv_files:
        with suppress(ContractError):  # not a readable csv
            columns[path] = _find_columns(next(_read_lines(path), []))
    usable = [path for path, found in columns.items() if found]
    if not usable:
        raise ContractError(f"no csv with the columns {_EXPECTED} in {root}; it has {existing}")
    with_age = [path for path in usable if "age" in columns[path]]
    training = [path for path in with_age if "train" in path.name.lower()]
    for candidates in (usable, with_age, training):
        if len(candidates) == 1:
            return candidates[0]
    raise ContractError(f"{root} has several csv files ({_join_names(usable)}); choose one with --csv NAME")


def _join_names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


def read_labels(path: Path) -> Labels:
    """The rows of the csv at `path`; those that cannot be used have a problem.

    Raises:
        ContractError: unreadable text, an unknown header, or no row at all.
    """
    lines = _read_lines(path)
    header = next(lines, [])
    columns = _find_columns(header)
    if not columns:
        raise ContractError(f"{path.name} has the columns {','.join(header) or '(none)'}; expected {_EXPECTED}")
    rows: list[Row] = []
    ids: set[str] = set()
    for line in lines:
        if any(cell.strip() for cell in line):
            row = _parse_row(line, columns)
            rows.append(replace(row, problem="duplicate") if row.id in ids else row)
            ids.add(row.id)
    if not rows:
        raise ContractError(f"{path.name} has a header but no rows")
    return Labels(path, "age" in columns, tuple(rows))


def _read_lines(path: Path) -> Iterator[list[str]]:
    """The cells of each line; utf-8-sig drops the byte order mark of spreadsheet programs."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            yield from csv.reader(stream, skipinitialspace=True)
    except UnicodeDecodeError:
        raise ContractError(f"{path.name} is not UTF-8 text; save it as csv (UTF-8)") from None
    except csv.Error as error:
        raise ContractError(f"{path.name} is not a readable csv: {error}") from None


def _find_columns(header: list[str]) -> dict[str, int]:
    """The positions of id, sex and (if present) age; empty without the first two."""
    names = [" ".join(cell.lower().split()) for cell in header]
    columns = {
        key: next(position for position, name in enumerate(names) if name in known)
        for key, known in (("id", _IDS), ("sex", _SEXES), ("age", _AGES))
        if any(name in known for name in names)
    }
    return columns if {"id", "sex"} <= columns.keys() else {}


def _parse_row(line: list[str], columns: dict[str, int]) -> Row:
    cells = {key: line[position].strip() if position < len(line) else "" for key, position in columns.items()}
    male = _MALE.get(cells["sex"].lower())
    months: float | None = None
    with suppress(KeyError, ValueError):
        months = float(cells["age"])
        if not 0 <= months <= MAX_AGE_MONTHS:  # NaN too
            months = None
    unusable = male is None or not cells["id"] or ("age" in cells and months is None)
    return Row(cells["id"], bool(male), months, problem="unlabelled" if unusable else "")


def read_index(pack: PackFolder) -> list[tuple[Row, str]]:
    """The rows of a pack's index, each with the sha256 of its source file.

    Raises:
        OSError, ValueError, KeyError: the index cannot be read, or is damaged.
    """
    rows = []
    with open(pack.index, encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream):
            male, months = line["male"] == "True", line["boneage_months"]
            rows.append((Row(line["id"], male, float(months) if months else None), line["sha256"]))
    return rows


# ---------------------------------------------------------------------------------------- images
def _images_by_folder(root: Path) -> dict[Path, dict[str, Path]]:
    """Images by file stem, for `root` and the folders up to two below it (``X/X/<id>.png``)."""
    folders = {}
    for folder in _list_folders(root, depth=2):
        files = [
            Path(entry.path)
            for entry in os.scandir(folder)
            if entry.name.lower().endswith(_SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
        ]
        if files:
            # Sorted with png last, so that of 1.jpg and 1.png the lossless one is used.
            files.sort(key=lambda file: (file.suffix.lower() == ".png", file.name))
            folders[folder] = {file.stem: file for file in files}
    return folders


def _list_folders(root: Path, depth: int) -> Iterator[Path]:
    yield root
    if depth:
        for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
            if entry.is_dir() and not entry.name.startswith((".", "__")):
                yield from _list_folders(Path(entry.path), depth - 1)


def _choose_folders(labels: Labels, images: dict[Path, dict[str, Path]]) -> list[Path]:
    """The folders that hold the csv's images, the one with the most first.

    The official validation set has two folders; but a folder that repeats ids already found (a resized
    copy, say) is not used, so that no image is taken from it unnoticed.
    """
    ids = {row.id for row in labels.rows}
    ids_of = {folder: ids & files.keys() for folder, files in images.items()}
    used: list[Path] = []
    found: set[str] = set()
    for folder in sorted(ids_of, key=lambda folder: (-len(ids_of[folder]), folder)):
        if ids_of[folder] and not ids_of[folder] & found:
            used.append(folder)
            found |= ids_of[folder]
    return used
