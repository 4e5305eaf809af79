"""Says what a data set holds: how many, which ages, which sex, which images, which split.

    python -m boneage_trainer.data.describe SRC [--csv NAME] [--split paper] [--samples FILE.png] [--json]

SRC is an unpacked tree, a csv alone, or a pack. The fields of the JSON are those of `describe`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from boneage_trainer.console import print_result, print_status, run_command
from boneage_trainer.contract import ContractError, PackFolder, write_atomic
from boneage_trainer.data.pixels import Gray, decode_square, fit_square
from boneage_trainer.data.source import Row, read_labels, read_tree
from boneage_trainer.data.splits import MIN_IMAGES
from boneage_trainer.data.splits import make_split as split_rows

_BIN_MONTHS = 12
_BAR_CELLS = 46
_COUNTS = {
    "images_found": "images found",
    "images_missing": "images missing",
    "images_without_row": "images that no row names",
    "rows_unlabelled": "rows without a usable age or sex",
    "rows_duplicate": "rows that repeat an id",
}


class Subject(NamedTuple):
    id: str
    male: bool
    boneage_months: float | None


@dataclass(frozen=True, slots=True)
class DataSet:
    """What SRC holds: usable `subjects` in file order, figures only its kind has, and its images."""

    kind: str
    subjects: list[Subject]
    facts: dict[str, Any] = field(default_factory=dict)
    image: Callable[[int], Gray | None] | None = None
    """The image of a subject, by position, as (side, side) gray; None where it is missing or broken."""


# ------------------------------------------------------------------------------------------ read
def open_data_set(source: Path, csv_name: str | None = None) -> DataSet:
    """Raises ContractError where `source` is neither tree nor csv nor pack."""
    if source.is_file():
        labels = read_labels(source)
        return DataSet("csv", [_subject(row) for row in labels.rows if not row.problem], _problems(labels.rows))
    return _open_pack(PackFolder(source)) if PackFolder(source).card.exists() else _open_tree(source, csv_name)


def _open_tree(source: Path, csv_name: str | None) -> DataSet:
    tree = read_tree(source, csv_name)
    rows = [row for row in tree.rows if row.problem in ("", "missing")]
    found = sum(row.file is not None for row in rows)

    def image(at: int) -> Gray | None:
        file = rows[at].file
        return None if file is None else decode_square(file.read_bytes(), 128)

    facts = {"images_found": found, "images_missing": len(rows) - found, "images_without_row": len(tree.strays)}
    return DataSet("tree", [_subject(row) for row in rows], {**_problems(tree.rows), **facts}, image)


def _open_pack(pack: PackFolder) -> DataSet:
    card = pack.read_card()
    with open(pack.index, encoding="utf-8", newline="") as stream:
        subjects = [
            Subject(row["id"], row["male"] == "True", float(row["boneage_months"]) if row["boneage_months"] else None)
            for row in csv.DictReader(stream)
        ]
    images = np.load(pack.images, mmap_mode="r")
    facts = {key: card[key] for key in ("fingerprint", "image_size_px", "problems")}
    return DataSet("pack", subjects, facts, lambda at: np.array(images[at]))


def _subject(row: Row) -> Subject:
    return Subject(row.id, row.male, row.boneage_months)


def _problems(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows of the csv that no figure counts."""
    return {f"rows_{kind}": sum(row.problem == kind for row in rows) for kind in ("unlabelled", "duplicate")}


# --------------------------------------------------------------------------------------- figures
def describe(data: DataSet, split: str | None = None) -> dict[str, Any]:
    """The figures of `data`.

    Returns:
        kind (tree, csv, pack), count, male, female, ages (None without labels, see `_ages`),
        histogram (from_months, to_months exclusive, male, female), split (see `_split`), and
        of a tree images_found, images_missing, images_without_row, rows_unlabelled, rows_duplicate,
        of a csv the last two, of a pack fingerprint, image_size_px, problems.
    """
    ages = [one.boneage_months for one in data.subjects if one.boneage_months is not None]
    return {
        "kind": data.kind,
        **_by_sex(data.subjects),
        "ages": _ages(np.array(ages)) if ages else None,
        "histogram": _histogram(data.subjects),
        "split": _split(data.subjects, split) if split and len(data.subjects) >= MIN_IMAGES else None,
        **data.facts,
    }


def _by_sex(subjects: Sequence[Subject]) -> dict[str, int]:
    male = sum(one.male for one in subjects)
    return {"count": len(subjects), "male": male, "female": len(subjects) - male}


def _ages(months: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    """min, max, mean, sd (of the population), median in months; distinct values; share of half years."""
    return {
        "min_months": float(months.min()),
        "max_months": float(months.max()),
        "mean_months": round(float(months.mean()), 4),
        "sd_months": round(float(months.std()), 4),
        "median_months": float(np.median(months)),
        "distinct": len(np.unique(months)),
        "multiples_of_6_share": round(float(np.mean(months % 6 == 0)), 4),
    }


def _histogram(subjects: Sequence[Subject]) -> list[dict[str, int]]:
    bins = [(int(one.boneage_months // _BIN_MONTHS), one.male) for one in subjects if one.boneage_months is not None]
    return [
        {
            "from_months": at * _BIN_MONTHS, "to_months": (at + 1) * _BIN_MONTHS,
            "male": bins.count((at, True)), "female": bins.count((at, False)),
        }
        for at in range(max((at for at, _ in bins), default=-1) + 1)
    ]  # fmt: skip


def _split(subjects: Sequence[Subject], name: str) -> dict[str, Any]:
    """Counts and mean ages of a split's training side (train and validation) and test set, and its hash."""
    parts = split_rows(name, [one.id for one in subjects])
    train, test = ([subjects[at] for at in part] for part in (parts.validation + parts.train, parts.test))
    return {
        "name": name,
        "train": _part(train),
        "test": _part(test),
        "validation_count": len(parts.validation),
        "test_ids_sha256": parts.sha256,
    }


def _part(subjects: Sequence[Subject]) -> dict[str, Any]:
    return {
        **_by_sex(subjects),
        "male_mean_months": _mean_months(subjects, male=True),
        "female_mean_months": _mean_months(subjects, male=False),
    }


def _mean_months(subjects: Sequence[Subject], male: bool) -> float | None:
    ages = [one.boneage_months for one in subjects if one.male is male and one.boneage_months is not None]
    return round(float(np.mean(ages)), 2) if ages else None


# ------------------------------------------------------------------------------------------ text
def format_description(found: dict[str, Any]) -> str:
    """`found` for people: a few lines and a histogram."""
    share = found["male"] / max(found["count"], 1)
    lines = [
        f"{found['count']:,} {found['kind']} rows: {found['male']:,} boys ({share:.0%}), {found['female']:,} girls"
    ]
    for key, words in _COUNTS.items():
        if found.get(key):
            lines.append(f"{found[key]:,} {words}")
    if "fingerprint" in found:
        lines.append(f"{found['image_size_px']} px, fingerprint {found['fingerprint']}")
    lines += _ages_text(found["ages"]) + _histogram_text(found["histogram"])
    return "\n".join(lines + (_split_text(found["split"]) if found["split"] else []))


def _ages_text(ages: dict[str, Any] | None) -> list[str]:
    if ages is None:
        return ["no ages"]
    return [
        f"age {ages['min_months']:g}-{ages['max_months']:g} months, mean {ages['mean_months']:.2f},"
        f" SD {ages['sd_months']:.2f}, median {ages['median_months']:g};"
        f" {ages['distinct']} distinct, {ages['multiples_of_6_share']:.0%} multiples of 6"
    ]


def _histogram_text(bins: Sequence[dict[str, int]]) -> list[str]:
    if not bins:
        return []
    cells = _BAR_CELLS / max(one["male"] + one["female"] for one in bins)
    lines = ["", " months   boys  girls  (# boys, = girls)"]
    for one in bins:
        boys = round(one["male"] * cells)
        girls = round((one["male"] + one["female"]) * cells) - boys
        span = f"{one['from_months']:>3}-{one['to_months'] - 1:<3}"
        lines.append(f"{span} {one['male']:>6} {one['female']:>6}  {'#' * boys}{'=' * girls}".rstrip())
    return lines


def _split_text(split: dict[str, Any]) -> list[str]:
    lines = ["", f"split {split['name']}   count    boys   girls  mean age boys, girls"]
    for name in ("train", "test"):
        part = split[name]
        means = ", ".join("-" if part[f"{sex}_mean_months"] is None else f"{part[f'{sex}_mean_months']:.1f}"
                          for sex in ("male", "female"))  # fmt: skip
        lines.append(f"  {name:<8} {part['count']:>7,} {part['male']:>7,} {part['female']:>7,}  {means}")
    return [*lines, f"  test ids sha256 {split['test_ids_sha256']}"]


# ---------------------------------------------------------------------------------- command line
def _save_samples(data: DataSet, path: Path) -> None:
    if data.image is None:
        raise ContractError("a csv alone has no images; give --samples a tree or a pack")
    write_atomic(path, contact_sheet(data.subjects, data.image))
    print_status(f"samples: {path}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.data.describe", description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, metavar="SRC", help="an unpacked tree, a csv, or a pack")
    parser.add_argument("--csv", metavar="NAME", help="which csv of a tree, where there are several")
    parser.add_argument("--split", help="also the figures of this split: paper, holdout:FRACTION:SEED or a csv")
    parser.add_argument("--samples", type=Path, metavar="FILE.png", help="also save a sheet of images by sex and age")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args(argv)

    def command() -> None:
        data = open_data_set(given.source, given.csv)
        if given.samples:
            _save_samples(data, given.samples)
        found = describe(data, given.split)
        print_result(found, format_description(found), given.json)

    return run_command(command)


# == samples: A contact sheet: one image for each sex and age band.

_CELL_PX, _MARGIN_PX, _CAPTION_PX = 160, 4, 18
_BAND_MONTHS = 30
_BANDS = 8


class SamplesSubject(Protocol):
    @property
    def male(self) -> bool: ...
    @property
    def boneage_months(self) -> float | None: ...


def contact_sheet(subjects: Sequence[SamplesSubject], image: Callable[[int], Gray | None]) -> bytes:
    """PNG bytes: boys above girls, a column for every 30 months; `image` gives a subject's, by position."""
    rows = [[_cell(subjects, image, male, band) for band in range(_BANDS)] for male in (True, False)]
    done, data = cv2.imencode(".png", np.vstack([np.hstack(cells) for cells in rows]))
    if not done:
        raise ContractError("OpenCV could not encode the sheet of samples")
    return bytes(data)


def _cell(subjects: Sequence[SamplesSubject], image: Callable[[int], Gray | None], male: bool, band: int) -> Gray:
    cell = np.full((_CELL_PX + _CAPTION_PX + _MARGIN_PX, _CELL_PX + _MARGIN_PX), 32, np.uint8)
    caption = f"{'boys' if male else 'girls'} {band * _BAND_MONTHS}-{(band + 1) * _BAND_MONTHS - 1}: none"
    for at in _from_the_middle(_band(subjects, male, band)):
        if (gray := image(at)) is not None:
            cell[:_CELL_PX, :_CELL_PX] = fit_square(gray, _CELL_PX)
            caption = f"{'boy' if male else 'girl'}, {subjects[at].boneage_months:g} months"
            break
    below = (2, _CELL_PX + _CAPTION_PX - 4)
    cv2.putText(cell, caption, below, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 230.0, 1, cv2.LINE_AA)
    return cell


def _band(subjects: Sequence[SamplesSubject], male: bool, band: int) -> list[int]:
    """Positions of the subjects of one sex in a band, youngest first."""
    low, high = band * _BAND_MONTHS, (band + 1) * _BAND_MONTHS + (band == _BANDS - 1)
    ages = {at: one.boneage_months for at, one in enumerate(subjects) if one.male is male}
    inside = [(months, at) for at, months in ages.items() if months is not None and low <= months < high]
    return [at for _, at in sorted(inside)]


def _from_the_middle(positions: list[int]) -> Iterator[int]:
    """The middle one first, then its neighbours: the next best where an image is missing or broken."""
    middle = len(positions) // 2
    yield from positions[middle:]
    yield from reversed(positions[:middle])


if __name__ == "__main__":
    sys.exit(main())
