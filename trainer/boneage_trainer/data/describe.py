"""Describes a dataset: how many images, which ages, which sex, which split; and a sheet of sample images.

    python -m boneage_trainer.data.describe SRC [--csv NAME] [--split paper] [--samples FILE.png] [--json]

SRC is an unpacked tree, a csv alone, or a pack. The fields of the JSON are those of `describe`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from boneage_trainer.console import print_result, print_status, run_command
from boneage_trainer.contract import ContractError, PackFolder, write_atomic
from boneage_trainer.data.pixels import Gray, decode_square, fit_square
from boneage_trainer.data.source import Row, read_index, read_labels, read_tree
from boneage_trainer.data.splits import MIN_IMAGES, make_split

_BIN_MONTHS = 12
_BAR_CELLS = 46
_COUNTS = {
    "images_found": "images found",
    "images_missing": "images missing",
    "images_without_row": "images without a row in the csv",
    "rows_unlabelled": "rows without a usable age or sex",
    "rows_duplicate": "rows that repeat an id",
}
_CELL_PX, _MARGIN_PX, _CAPTION_PX = 160, 4, 18
_BAND_MONTHS = 30
_BANDS = 8


@dataclass(frozen=True, slots=True)
class DataSet:
    """What SRC holds: usable `subjects` in file order, `facts` that only its kind has, and its images."""

    kind: str
    subjects: list[Row]
    facts: dict[str, Any] = field(default_factory=dict)
    image: Callable[[int], Gray | None] | None = None
    """The image of a subject, by position, as (side, side) gray; None where it is missing or broken."""


def open_data_set(source: Path, csv_name: str | None = None) -> DataSet:
    """Raises ContractError where `source` is neither tree nor csv nor pack."""
    if source.is_file():
        labels = read_labels(source)
        return DataSet("csv", [row for row in labels.rows if not row.problem], _count_problems(labels.rows))
    pack = PackFolder(source)
    if pack.card.exists():
        card, images = pack.read_card(), np.load(pack.images, mmap_mode="r")
        facts = {key: card[key] for key in ("fingerprint", "image_size_px", "problems")}
        subjects = [row for row, _ in read_index(pack)]
        return DataSet("pack", subjects, facts, lambda position: np.array(images[position]))
    tree = read_tree(source, csv_name)
    rows = [row for row in tree.rows if row.problem in ("", "missing")]
    found = sum(row.file is not None for row in rows)

    def image(position: int) -> Gray | None:
        file = rows[position].file
        return None if file is None else decode_square(file.read_bytes(), 128)

    facts = {"images_found": found, "images_missing": len(rows) - found, "images_without_row": len(tree.strays)}
    return DataSet("tree", rows, {**_count_problems(tree.rows), **facts}, image)


def _count_problems(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows of the csv that are not counted as subjects."""
    return {f"rows_{kind}": sum(row.problem == kind for row in rows) for kind in ("unlabelled", "duplicate")}


# ------------------------------------------------------------------------------------- statistics
def describe(data: DataSet, split: str | None = None) -> dict[str, Any]:
    """The statistics of `data`.

    Returns:
        kind (tree, csv, pack), count, male, female, ages (None without labels, see `_describe_ages`),
        histogram (from_months, to_months exclusive, male, female), split (see `_describe_split`), and
        of a tree images_found, images_missing, images_without_row, rows_unlabelled, rows_duplicate,
        of a csv the last two, of a pack fingerprint, image_size_px, problems.
    """
    known = [(subject.boneage_months, subject.male) for subject in data.subjects if subject.boneage_months is not None]
    ages, bins = [age for age, _ in known], [(int(age // _BIN_MONTHS), male) for age, male in known]
    return {
        "kind": data.kind,
        **_count_by_sex(data.subjects),
        "ages": _describe_ages(np.array(ages)) if ages else None,
        "histogram": [
            {
                "from_months": number * _BIN_MONTHS, "to_months": (number + 1) * _BIN_MONTHS,
                "male": bins.count((number, True)), "female": bins.count((number, False)),
            }
            for number in range(max((number for number, _ in bins), default=-1) + 1)
        ],
        "split": _describe_split(data.subjects, split) if split and len(data.subjects) >= MIN_IMAGES else None,
        **data.facts,
    }  # fmt: skip


def _count_by_sex(subjects: Sequence[Row]) -> dict[str, int]:
    male = sum(subject.male for subject in subjects)
    return {"count": len(subjects), "male": male, "female": len(subjects) - male}


def _describe_ages(months: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
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


def _describe_split(subjects: Sequence[Row], name: str) -> dict[str, Any]:
    """Counts and mean ages of a split's training side (train and validation) and test set, and its hash."""
    parts = make_split(name, [subject.id for subject in subjects])
    train, test = ([subjects[row] for row in rows] for rows in (parts.validation + parts.train, parts.test))
    return {
        "name": name,
        "train": _describe_part(train),
        "test": _describe_part(test),
        "validation_count": len(parts.validation),
        "test_ids_sha256": parts.sha256,
    }


def _describe_part(subjects: Sequence[Row]) -> dict[str, Any]:
    figures: dict[str, Any] = {**_count_by_sex(subjects)}
    for name, male in (("male", True), ("female", False)):
        of_sex = (subject.boneage_months for subject in subjects if subject.male is male)
        ages = [age for age in of_sex if age is not None]
        figures[f"{name}_mean_months"] = round(float(np.mean(ages)), 2) if ages else None
    return figures


# ------------------------------------------------------------------------------------------ text
def format_description(description: dict[str, Any]) -> str:
    """`description` for people: a few lines, a histogram, and the split."""
    share = description["male"] / max(description["count"], 1)
    lines = [
        f"{description['count']:,} {description['kind']} rows: "
        f"{description['male']:,} boys ({share:.0%}), {description['female']:,} girls"
    ]
    lines += [f"{description[key]:,} {text}" for key, text in _COUNTS.items() if description.get(key)]
    if "fingerprint" in description:
        lines.append(f"{description['image_size_px']} px, fingerprint {description['fingerprint']}")
    if ages := description["ages"]:
        lines.append(
            f"age {ages['min_months']:g}-{ages['max_months']:g} months, mean {ages['mean_months']:.2f},"
            f" SD {ages['sd_months']:.2f}, median {ages['median_months']:g};"
            f" {ages['distinct']} distinct, {ages['multiples_of_6_share']:.0%} multiples of 6"
        )
    else:
        lines.append("no ages")
    lines += _format_histogram(description["histogram"])
    if split := description["split"]:
        lines += ["", f"split {split['name']}   count    boys   girls  mean age boys, girls"]
        for name in ("train", "test"):
            part = split[name]
            means = ", ".join("-" if part[f"{sex}_mean_months"] is None else f"{part[f'{sex}_mean_months']:.1f}"
                              for sex in ("male", "female"))  # fmt: skip
            lines.append(f"  {name:<8} {part['count']:>7,} {part['male']:>7,} {part['female']:>7,}  {means}")
        lines.append(f"  test ids sha256 {split['test_ids_sha256']}")
    return "\n".join(lines)


def _format_histogram(bins: Sequence[dict[str, int]]) -> list[str]:
    if not bins:
        return []
    cells = _BAR_CELLS / max(entry["male"] + entry["female"] for entry in bins)
    lines = ["", " months   boys  girls  (# boys, = girls)"]
    for entry in bins:
        boys = round(entry["male"] * cells)
        girls = round((entry["male"] + entry["female"]) * cells) - boys
        span = f"{entry['from_months']:>3}-{entry['to_months'] - 1:<3}"
        lines.append(f"{span} {entry['male']:>6} {entry['female']:>6}  {'#' * boys}{'=' * girls}".rstrip())
    return lines


# --------------------------------------------------------------------------------- contact sheet
def contact_sheet(subjects: Sequence[Row], image: Callable[[int], Gray | None]) -> bytes:
    """PNG bytes: boys above girls, a column for every 30 months; `image` gives a subject's, by position."""
    rows = [[_draw_cell(subjects, image, male, band) for band in range(_BANDS)] for male in (True, False)]
    encoded, data = cv2.imencode(".png", np.vstack([np.hstack(cells) for cells in rows]))
    if not encoded:
        raise ContractError("OpenCV could not encode the sheet of samples")
    return bytes(data)


def _draw_cell(subjects: Sequence[Row], image: Callable[[int], Gray | None], male: bool, band: int) -> Gray:
    """The subject in the middle of an age band; where its image is missing or broken, the next one."""
    cell = np.full((_CELL_PX + _CAPTION_PX + _MARGIN_PX, _CELL_PX + _MARGIN_PX), 32, np.uint8)
    caption = f"{'boys' if male else 'girls'} {band * _BAND_MONTHS}-{(band + 1) * _BAND_MONTHS - 1}: none"
    low, high = band * _BAND_MONTHS, (band + 1) * _BAND_MONTHS + (band == _BANDS - 1)
    ages = {position: subject.boneage_months for position, subject in enumerate(subjects) if subject.male is male}
    youngest_first = sorted((age, position) for position, age in ages.items() if age is not None and low <= age < high)
    middle = len(youngest_first) // 2
    for age, position in (*youngest_first[middle:], *reversed(youngest_first[:middle])):
        if (gray := image(position)) is not None:
            cell[:_CELL_PX, :_CELL_PX] = fit_square(gray, _CELL_PX)
            caption = f"{'boy' if male else 'girl'}, {age:g} months"
            break
    below = (2, _CELL_PX + _CAPTION_PX - 4)
    cv2.putText(cell, caption, below, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 230.0, 1, cv2.LINE_AA)
    return cell


# ---------------------------------------------------------------------------------- command line
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.data.describe", description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, metavar="SRC", help="an unpacked tree, a csv, or a pack")
    parser.add_argument("--csv", metavar="NAME", help="csv of a tree that has several")
    parser.add_argument("--split", help="also describe this split: paper, holdout:FRACTION:SEED or a csv")
    parser.add_argument("--samples", type=Path, metavar="FILE.png", help="also save a sheet of images by sex and age")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)

    def command() -> None:
        data = open_data_set(arguments.source, arguments.csv)
        if arguments.samples:
            if data.image is None:
                raise ContractError("a csv alone has no images; give --samples a tree or a pack")
            write_atomic(arguments.samples, contact_sheet(data.subjects, data.image))
            print_status(f"samples: {arguments.samples}")
        description = describe(data, arguments.split)
        print_result(description, format_description(description), arguments.json)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
