"""Evaluates a model: by the trainer at the end of a run, or later on any pack.

    python -m boneage_trainer.evaluation.evaluate RUN_FOLDER --data PACK
        [--split NAME] [--views N] [--out FOLDER] [--json]

Whatever images the model was trained on are counted and said, by the run's ``split.csv``.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.console import int_in_range, print_result, print_status, run_command
from boneage_trainer.contract import (
    RESEARCH_ONLY,
    SCHEMA,
    ContractError,
    PackFolder,
    RunFolder,
    parse_object,
    write_atomic,
    write_json,
)
from boneage_trainer.data import splits
from boneage_trainer.data.pack import Pack, open_pack
from boneage_trainer.data.splits import PART_NAMES, Split, make_split
from boneage_trainer.evaluation import metrics
from boneage_trainer.inference import model as inference_model
from boneage_trainer.inference.model import MOST

LABELS = (
    "ages as in the csv the pack was made from; in RSNA's training and validation csv they are single-rater readings."
    " Its 200-image test set has means of six raters, on which the same model errs less: figures on the two kinds"
    " of labels cannot be compared or mixed"
)
Rows = Mapping[str, Sequence[int]]


# ---------------------------------------------------------------------------------- what is written
def write(
    folder: RunFolder, pack: Pack, parts: Split, predicted: Mapping[str, Any], gradcam: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes ``predictions.csv`` and ``evaluation.json`` for the sets in `predicted`, and returns the latter.

    `predicted` has a part's name (validation, test) and its predictions in the part's order, in months:
    (n,), or (views, n) with the plain view first; the mean over views is the prediction. `gradcam` is
    what `gradcam.write` returned.
    """
    rows = {name: getattr(parts, name) for name in predicted}
    known = metrics.training_medians(pack.months[parts.train], pack.male[parts.train])
    document = {
        **_head({"name": parts.name, "sha256": parts.sha256, "counts": parts.counts()}),
        "parts": {
            name: metrics.population(pack.months[getattr(parts, name)], pack.male[getattr(parts, name)])
            for name in PART_NAMES
        },
        "training_medians_months": known,
        "sets": _sets(pack, rows, predicted, known, splits.parts_by_sha256(pack, parts)),
        **({"gradcam": gradcam} if gradcam is not None else {}),
    }
    write_atomic(folder.predictions, predictions_csv(pack, rows, predicted))
    write_json(folder.evaluation, document)
    return document


def _head(split_: Mapping[str, Any]) -> dict[str, Any]:
    return {"schema": SCHEMA, "research_only": RESEARCH_ONLY, "labels": LABELS, "split": split_}


def _sets(
    pack: Pack, rows: Rows, predicted: Mapping[str, Any], known: Mapping[str, Any], seen_: Mapping[str, str] | None
) -> dict[str, Any]:
    return {name: _set(pack, rows[name], views_of(predicted[name]), known, seen_) for name in predicted}


def _set(
    pack: Pack, rows: Sequence[int], views: Any, known: Mapping[str, Any], seen_: Mapping[str, str] | None
) -> dict[str, Any]:
    male, months, mean = pack.male[rows], pack.months[rows], views.mean(axis=0)
    return {
        **metrics.set_metrics([pack.ids[row] for row in rows], male, months, mean),
        **metrics.baseline_metrics(known, male, months, mean),
        **(metrics.view_metrics(months, views) if len(views) > 1 else {}),
        **splits.count_training_overlap(pack, rows, seen_),
    }


def views_of(predicted: Any) -> Any:
    """`predicted` (n,) or (views, n) as float64 (views, n)."""
    return np.atleast_2d(np.asarray(predicted, float))


def predictions_csv(pack: Pack, rows: Rows, predicted: Mapping[str, Any]) -> str:
    """One line an image, in the pack's own order; with several views, a column `disagreement_months`."""
    views = {name: views_of(values) for name, values in predicted.items()}
    several = any(len(one) > 1 for one in views.values())
    lines = sorted(line for name in views for line in _lines(pack, name, rows[name], views[name]))
    header = ("id", "split", "male", "boneage_months", "predicted_months", "disagreement_months")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows(line[: None if several else -1] for line in (header, *(cells for _, cells in lines)))
    return buffer.getvalue()


def _lines(pack: Pack, name: str, rows: Sequence[int], views: Any) -> list[tuple[int, tuple[Any, ...]]]:
    apart = [f"{sd:.3f}" for sd in metrics.view_disagreement(views)] if len(views) > 1 else [""] * len(rows)
    return [
        (row, (pack.ids[row], name, bool(pack.male[row]), f"{pack.months[row]:g}", f"{value:.3f}", sd))
        for row, value, sd in zip(rows, views.mean(axis=0), apart, strict=True)
    ]


# -------------------------------------------------------------------------------------- the command
def evaluate_run(run: RunFolder, data: Path, split_name: str, views: int, out: Path | None) -> dict[str, Any]:
    """Predicts the pack `data` with the model of `run`, and writes into `out` where that is given.

    Returns:
        what ``evaluation.json`` holds: one set, ``test``, or ``all`` where `split_name` is ``all``.

    Raises:
        ContractError: no model, one of other inputs, an unusable pack or split, or an `out` that is a run.
    """
    target = _target(out)
    pack = open_pack(data, PackFolder(data).read_card())
    split_, rows = _chosen(pack, split_name)
    earlier, seen_ = _earlier(run), splits.read_split_csv(run)
    model = inference_model.load(run.model)
    predicted = {name: inference_model.of_pack(model, pack, some, views) for name, some in rows.items()}
    sets = _sets(pack, rows, predicted, earlier.get("training_medians_months") or {}, seen_)
    document = {**_head(split_), "model": {"run": run.root.name, "split": earlier.get("split")}, "sets": sets}
    if target:
        write_atomic(target.predictions, predictions_csv(pack, rows, predicted))
        write_json(target.evaluation, document)
    return document


def _target(out: Path | None) -> RunFolder | None:
    if out is None:
        return None
    target = RunFolder(out)
    if taken := [path.name for path in (target.model, target.state, target.last) if path.exists()]:
        raise ContractError(f"{out} is a run's folder (it has {', '.join(taken)}); give --out another one")
    return target


def _chosen(pack: Pack, name: str) -> tuple[dict[str, Any], dict[str, list[int]]]:
    if name == "all":
        return {"name": "all", "sha256": None, "counts": {"all": len(pack.ids)}}, {"all": list(range(len(pack.ids)))}
    parts = make_split(name, pack.ids, pack.folder)
    return {"name": parts.name, "sha256": parts.sha256, "counts": parts.counts()}, {"test": parts.test}


def _earlier(run: RunFolder) -> dict[str, Any]:
    """The run's own evaluation, or nothing."""
    try:
        return parse_object(run.evaluation.read_text(encoding="utf-8"), str(run.evaluation))
    except (FileNotFoundError, NotADirectoryError):
        return {}


def warning(name: str, found: Mapping[str, Any]) -> str:
    """What must be said before the figures of a set: that the model had seen its images, or that nobody knows."""
    if found["trained_on"] is None:
        return f"WARNING: the run has no split.csv, so nobody knows whether the model was trained on these {found['n']}"
    if found["trained_on"]:
        return (
            f"WARNING: {found['trained_on_count']} of the {found['n']} images in {name} were TRAINED ON;"
            " these figures say nothing about new images"
        )
    if found["validated_on_count"]:
        count = found["validated_on_count"]
        return f"note: {count} of the {found['n']} images in {name} chose the epoch that was kept"
    return ""


def text_of(document: Mapping[str, Any]) -> str:
    """A line a set, for people."""
    lines = []
    for name, found in document["sets"].items():
        low, high = found["mae_ci95_months"]
        between = "" if low is None else f" (95 % interval {low:.2f}-{high:.2f})"
        lines.append(f"{name}: {found['n']} images, MAE {found['mae_months']:.2f} months{between}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.evaluation.evaluate", description=RESEARCH_ONLY)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="the folder with model.keras")
    parser.add_argument("--data", type=Path, required=True, metavar="PACK", help="the pack to predict")
    parser.add_argument(
        "--split", default="all", metavar="NAME", help="only the test part of this split (default: all)"
    )
    parser.add_argument("--views", type=int_in_range(1, MOST), default=1, metavar="N", help="views to average over")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write evaluation.json and predictions.csv")
    parser.add_argument("--json", action="store_true", help="print the evaluation as JSON")
    given = parser.parse_args(argv)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def command() -> None:
        document = evaluate_run(RunFolder(given.run), given.data, given.split, given.views, given.out)
        for line in filter(None, (warning(name, found) for name, found in document["sets"].items())):
            print_status(line)
        print_result(document, text_of(document), given.json)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
