"""Which images are trained on, validated on and tested on, by name; reproducible on every machine.

A run records its split in ``split.csv`` by the content of the source files, not by their names, so that a later
evaluation on any pack can count the images that the model was trained on.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.config import parse_holdout
from boneage_trainer.contract import ContractError, RunFolder, format_csv, write_atomic
from boneage_trainer.data.pack import Pack

PART_NAMES = ("train", "validation", "test")
MIN_IMAGES = 10
_DIGITS = 16  # of sha256: two of a million images share them with a chance of 3 in 100 million


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers of each part, in the order in which the split drew them."""

    name: str
    train: list[int]
    validation: list[int]
    test: list[int]
    sha256: str

    def counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in PART_NAMES}


def make_split(name: str, ids: Sequence[str], folder: Path | None = None) -> Split:
    """Splits the rows with these `ids`; a csv's path is relative to `folder`.

    `sha256` is that of the test ids in split order, joined by newlines: two models were tested on the
    same images if it is equal.

    Raises:
        ContractError: an unknown name, too few rows, or a csv that does not fit.
    """
    if len(ids) < MIN_IMAGES:
        raise ContractError(f"{len(ids)} images are too few to split; at least {MIN_IMAGES} are needed")
    if name == "paper":
        parts = _draw_parts(len(ids), 0.2, 2018)
    elif name.startswith("holdout:"):
        parts = _draw_parts(len(ids), *parse_holdout(name))
    else:
        parts = _read_parts((folder or Path()) / name, ids)
    digest = hashlib.sha256("\n".join(ids[row] for row in parts[2]).encode()).hexdigest()
    return Split(name, *parts, digest)


def _draw_parts(count: int, fraction: float, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Draws train and test as scikit-learn's train_test_split does, then cuts validation as Keras' validation_split
    does: the *first* rows of the shuffled train frame."""
    order = np.random.RandomState(seed).permutation(count).tolist()
    test_count = math.ceil(fraction * count)
    kept = order[test_count : test_count + math.floor((1 - fraction) * count)]
    validation_count = max(1, int(fraction * len(kept)))
    return kept[validation_count:], kept[:validation_count], order[:test_count]


def _read_parts(path: Path, ids: Sequence[str]) -> tuple[list[int], list[int], list[int]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = [(row["id"], row["split"]) for row in csv.DictReader(stream)]
    except OSError as error:
        raise ContractError(
            f"split is neither paper, holdout:FRACTION:SEED nor a csv: {path}: {error.strerror}"
        ) from None
    except (KeyError, UnicodeDecodeError):
        raise ContractError(f"split csv {path} must have the columns id,split") from None
    unused = {id_: row for row, id_ in enumerate(ids)}
    parts: dict[str, list[int]] = {part: [] for part in PART_NAMES}
    for id_, part in rows:
        if part not in parts:
            raise ContractError(f"split csv {path}: image {id_!r} has split {part!r}; known: {', '.join(PART_NAMES)}")
        if id_ not in unused:
            raise ContractError(f"split csv {path}: image {id_!r} is not in the pack, or has two rows")
        parts[part].append(unused.pop(id_))
    if empty := [part for part in PART_NAMES if not parts[part]]:
        raise ContractError(f"split csv {path} leaves {', '.join(empty)} empty")
    return parts["train"], parts["validation"], parts["test"]


# ----------------------------------------------------------------------------- training membership
def write_split_csv(folder: RunFolder, pack: Pack, parts: Split) -> None:
    """Writes ``split.csv``: id,split,sha256 (its first 16 digits) of every image of `parts`, in pack order."""
    part_of_row = {row: name for name in PART_NAMES for row in getattr(parts, name)}
    rows = ((pack.ids[row], part_of_row[row], pack.sha256[row][:_DIGITS]) for row in sorted(part_of_row))
    write_atomic(folder.split, format_csv(("id", "split", "sha256"), rows))


def parts_by_sha256(pack: Pack, parts: Split) -> dict[str, str]:
    """The part of each image of `parts`, by the digits of its sha256; training overrides the other parts."""
    return {pack.sha256[row][:_DIGITS]: name for name in reversed(PART_NAMES) for row in getattr(parts, name)}


def read_split_csv(folder: RunFolder) -> dict[str, str] | None:
    """As `parts_by_sha256`, from the ``split.csv`` of a run; None where it has none.

    Raises:
        ContractError: the file is not a ``split.csv``.
    """
    try:
        with open(folder.split, encoding="utf-8", newline="") as stream:
            rows = [(row["sha256"], row["split"]) for row in csv.DictReader(stream)]
    except FileNotFoundError:
        return None
    except (KeyError, UnicodeDecodeError, csv.Error):
        raise ContractError(f"{folder.split} must have the columns id,split,sha256") from None
    if unknown := {name for _, name in rows} - set(PART_NAMES):
        raise ContractError(f"{folder.split} has the split {min(unknown)!r}; known: {', '.join(PART_NAMES)}")
    return {sha256: name for part in reversed(PART_NAMES) for sha256, name in rows if name == part}


def count_training_overlap(pack: Pack, rows: Sequence[int], membership: Mapping[str, str] | None) -> dict[str, Any]:
    """Counts the images among `rows` that the model was trained or validated on.

    Returns:
        trained_on, trained_on_count, and validated_on_count: images that decided which epoch was saved.
        All None where `membership` is None, since then it is unknown.
    """
    if membership is None:
        return {"trained_on": None, "trained_on_count": None, "validated_on_count": None}
    counts = Counter(membership.get(pack.sha256[row][:_DIGITS]) for row in rows)
    return {
        "trained_on": counts["train"] > 0,
        "trained_on_count": counts["train"],
        "validated_on_count": counts["validation"],
    }
