"""Metrics of runs from their predictions alone: evaluates run folders, and compares them image by image.

    python -m boneage_trainer.evaluation.predictions [--evaluate FOLDER ...] [--compare FOLDER FOLDER ...]

Prints one JSON object. It needs numpy, but no pack, no model and no Keras: the report calls it where a
run's ``evaluation.json`` is missing or older than a metric, and ``boneagectl compare`` for its pairs.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.console import run_command
from boneage_trainer.contract import RESEARCH_ONLY, SCHEMA, RunFolder
from boneage_trainer.evaluation import metrics

SETS = ("test", "validation")
_SAME_LABEL_MONTHS = 0.01
ImageKey = tuple[str, str]
"""An image's id, and the first digits of its sha256 as ``split.csv`` has them."""


# -------------------------------------------------------------------------------------- evaluation
def evaluate_folder(folder: RunFolder) -> dict[str, Any]:
    """`sets` and `parts` as in ``evaluation.json``, without baselines: those need the training set's ages.

    A set with a prediction that is not a finite number is left out: the rest alone would flatter the model.
    """
    columns = _read_columns(folder.predictions, ("id", "split", "male", "boneage_months", "predicted_months"))
    sets, parts = {}, {}
    for name in SETS:
        rows = [row for row in columns if row[1] == name]
        months, predicted = (np.array([_to_months(row[at]) for row in rows]) for at in (3, 4))
        if rows and np.isfinite(months).all() and np.isfinite(predicted).all():
            male = np.array([row[2].strip().lower() in ("true", "1") for row in rows])
            sets[name] = metrics.set_metrics([row[0] for row in rows], male, months, predicted)
            parts[name] = metrics.population(months, male)
    return {"sets": sets, "parts": parts}


def _read_columns(path: Path, names: Sequence[str]) -> list[list[str]]:
    """The columns `names` of each row of a csv; nothing where the file or a column is missing."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return _select_columns(list(csv.reader(stream)), names)


def _select_columns(table: list[list[str]], names: Sequence[str]) -> list[list[str]]:
    header, *rows = table or [[]]
    if not set(names) <= set(header):
        return []
    places = [header.index(name) for name in names]
    return [[row[place] for place in places] for row in rows if len(row) == len(header)]


def _to_months(text: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


# -------------------------------------------------------------------------------------- comparison
@dataclass(frozen=True)
class TestedImages:
    """Label and prediction of each test image of a run, in months; `why` says why there are none."""

    ages: Mapping[ImageKey, tuple[float, float]]
    why: str = ""


def compare_folders(folders: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """The absolute errors of each further run against those of the first, on the test images both have.

    Returns:
        For each further folder: n of its `own` and of the first run's `firsts` test images are in both;
        `relabelled` more have another label in one run and do not count. difference_months (negative: the
        run is better than the first), ci95_months and improved_share as `metrics.paired_metrics`
        has them, null with the reason in `why` where there is nothing to compare.
    """
    first, *others = map(_read_tested, folders)
    matches = [_match(first, other) for other in others]
    summaries = metrics.summarize_differences([differences for _, differences in matches])
    return [
        {
            **counts,
            "difference_months": summary["difference_months"],
            "ci95_months": None if None in summary["difference_ci95_months"] else summary["difference_ci95_months"],
            "improved_share": summary["improved_share"],
        }
        for (counts, _), summary in zip(matches, summaries, strict=True)
    ]


def _read_tested(folder: RunFolder) -> TestedImages:
    rows = _read_columns(folder.predictions, ("id", "split", "boneage_months", "predicted_months"))
    ages = {id_: (_to_months(label), _to_months(guess)) for id_, split, label, guess in rows if split == "test"}
    if not ages:
        return TestedImages({}, "no test predictions yet")
    if not folder.split.is_file():
        return TestedImages({}, "no split.csv, so its test images cannot be identified")
    hashes = _test_hashes(folder.split.read_text(encoding="utf-8"))
    return TestedImages({(id_, hashes[id_]): pair for id_, pair in ages.items() if id_ in hashes})


@functools.lru_cache(maxsize=4)
def _test_hashes(text: str) -> dict[str, str]:
    """The digits by id of a ``split.csv``'s test images; runs on the same split have the same text."""
    rows = _select_columns(list(csv.reader(text.splitlines())), ("id", "split", "sha256"))
    return {id_: sha256 for id_, split, sha256 in rows if split == "test" and sha256}


def _match(first: TestedImages, other: TestedImages) -> tuple[dict[str, Any], metrics.Floats]:
    """The counts of a pair, and the differences of the absolute errors on the shared images (n,), in months."""
    shared = [(first.ages[key], other.ages[key]) for key in first.ages if key in other.ages]
    values = np.array(shared, float).reshape(-1, 2, 2)
    labels, errors = values[:, :, 0], np.abs(values[:, :, 1] - values[:, :, 0])
    same = np.abs(labels[:, 0] - labels[:, 1]) < _SAME_LABEL_MONTHS
    differences = (errors[:, 1] - errors[:, 0])[same]
    why = f"first run: {first.why}" if first.why else other.why
    if not why and not len(differences):
        why = "no shared test image with the same label"
    if not np.isfinite(differences).all():
        why = "a prediction is not a number"
    counts = {"n": len(differences), "own": len(other.ages), "firsts": len(first.ages),
              "relabelled": int((~same).sum()), "why": why}  # fmt: skip
    return counts, differences


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.evaluation.predictions", description=RESEARCH_ONLY)
    parser.add_argument("--evaluate", type=Path, nargs="+", default=[], metavar="FOLDER", help="folders to evaluate")
    parser.add_argument("--compare", type=Path, nargs="+", default=[], metavar="FOLDER", help="compare with the first")
    options = parser.parse_args(argv)

    def command() -> None:
        document = {
            "schema": SCHEMA,
            "evaluations": [evaluate_folder(RunFolder(path)) for path in options.evaluate],
            "pairs": compare_folders([RunFolder(path) for path in options.compare]) if options.compare else [],
        }
        print(json.dumps(document, allow_nan=False))

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
