"""Evaluates a model: at the end of a run, or later on any pack.

    python -m boneage_trainer.evaluation.evaluate RUN_FOLDER --data PACK
        [--split NAME] [--views N] [--out FOLDER] [--json]

Images that the model was trained on are counted and reported, by the run's ``split.csv``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boneage_trainer.console import int_in_range, print_result, print_status, run_keras_command
from boneage_trainer.contract import (
    RESEARCH_ONLY,
    SCHEMA,
    ContractError,
    PackFolder,
    RunFolder,
    format_csv,
    parse_object,
    write_atomic,
    write_json,
)
from boneage_trainer.data import splits
from boneage_trainer.data.pack import Pack, open_pack
from boneage_trainer.data.splits import PART_NAMES, Split, make_split
from boneage_trainer.evaluation import metrics
from boneage_trainer.inference.views import MAX_VIEWS

LABELS = (
    "ages as in the csv that the pack was made from. In RSNA's training and validation csv they are single-rater"
    " readings; its 200-image test set has means of six raters, on which the same model has a lower error. Results on"
    " the two kinds of labels cannot be compared or mixed"
)
Rows = Mapping[str, Sequence[int]]


def write_evaluation(
    folder: RunFolder, pack: Pack, parts: Split, predicted: Mapping[str, Any], gradcam: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes ``predictions.csv`` and ``evaluation.json`` for the sets in `predicted`, and returns the latter.

    `predicted` maps a part's name (validation, test) to its predictions in months, in the part's order:
    (n,), or (views, n) with the plain view first; the mean over views is the prediction. `gradcam` is
    what `gradcam.write_gradcam` returned.
    """
    rows = {name: getattr(parts, name) for name in predicted}
    medians = metrics.training_medians(pack.months[parts.train], pack.male[parts.train])
    document = {
        **_header({"name": parts.name, "sha256": parts.sha256, "counts": parts.counts()}),
        "parts": {
            name: metrics.population(pack.months[getattr(parts, name)], pack.male[getattr(parts, name)])
            for name in PART_NAMES
        },
        "training_medians_months": medians,
        "sets": _evaluate_sets(pack, rows, predicted, medians, splits.parts_by_sha256(pack, parts)),
        **({"gradcam": gradcam} if gradcam is not None else {}),
    }
    write_atomic(folder.predictions, format_predictions(pack, rows, predicted))
    write_json(folder.evaluation, document)
    return document


def _header(split_: Mapping[str, Any]) -> dict[str, Any]:
    return {"schema": SCHEMA, "research_only": RESEARCH_ONLY, "labels": LABELS, "split": split_}


def _evaluate_sets(
    pack: Pack,
    rows: Rows,
    predicted: Mapping[str, Any],
    medians: Mapping[str, Any],
    membership: Mapping[str, str] | None,
) -> dict[str, Any]:
    """`medians` are those of the training set, `membership` tells which images were trained on; None: unknown."""
    sets = {}
    for name, values in predicted.items():
        views, at = as_views(values), rows[name]
        male, months, mean = pack.male[at], pack.months[at], views.mean(axis=0)
        sets[name] = {
            **metrics.set_metrics([pack.ids[row] for row in at], male, months, mean),
            **metrics.baseline_metrics(medians, male, months, mean),
            **(metrics.view_metrics(months, views) if len(views) > 1 else {}),
            **splits.count_training_overlap(pack, at, membership),
        }
    return sets


def as_views(predicted: Any) -> Any:
    """`predicted` (n,) or (views, n) as float64 (views, n)."""
    return np.atleast_2d(np.asarray(predicted, float))


def format_predictions(pack: Pack, rows: Rows, predicted: Mapping[str, Any]) -> str:
    """A csv with one line per image, in pack order; with several views, it has a column `disagreement_months`."""
    lines: list[tuple[int, tuple[Any, ...]]] = []
    for name, values in predicted.items():
        views = as_views(values)
        spread = [f"{sd:.3f}" for sd in metrics.view_disagreement(views)] if len(views) > 1 else [""] * len(rows[name])
        lines += [
            (row, (pack.ids[row], name, bool(pack.male[row]), f"{pack.months[row]:g}", f"{months:.3f}", sd))
            for row, months, sd in zip(rows[name], views.mean(axis=0), spread, strict=True)
        ]
    header = ("id", "split", "male", "boneage_months", "predicted_months", "disagreement_months")
    columns = None if any(cells[-1] for _, cells in lines) else -1
    return format_csv(header[:columns], (cells[:columns] for _, cells in sorted(lines)))


# ---------------------------------------------------------------------------------------- command
def evaluate_run(run: RunFolder, data: Path, split_name: str, views: int, out: Path | None) -> dict[str, Any]:
    """Predicts the pack `data` with the model of `run`, and writes the results into `out` if that is given.

    Returns:
        the content of ``evaluation.json``, with one set: ``test``, or ``all`` if `split_name` is ``all``.

    Raises:
        ContractError: no usable model, pack or split, or `out` is a run's folder.
    """
    target = RunFolder(out) if out else None
    if target and (taken := [path.name for path in (target.model, target.state, target.last) if path.exists()]):
        raise ContractError(f"{out} is a run's folder (it has {', '.join(taken)}). Set: --out to another folder")
    pack = open_pack(data, PackFolder(data).read_card())
    if split_name == "all":
        rows = {"all": list(range(len(pack.ids)))}
        split_ = {"name": "all", "sha256": None, "counts": {"all": len(pack.ids)}}
    else:
        parts = make_split(split_name, pack.ids, pack.folder)
        rows = {"test": parts.test}
        split_ = {"name": parts.name, "sha256": parts.sha256, "counts": parts.counts()}
    own, membership = {}, splits.read_split_csv(run)
    if run.evaluation.is_file():
        own = parse_object(run.evaluation.read_text(encoding="utf-8"), str(run.evaluation))
    from boneage_trainer.inference.model import AgePredictor, load_model

    predictor = AgePredictor(load_model(run.model))
    predicted = {name: predictor.predict_pack(pack, at, views) for name, at in rows.items()}
    sets = _evaluate_sets(pack, rows, predicted, own.get("training_medians_months") or {}, membership)
    document = {**_header(split_), "model": {"run": run.root.name, "split": own.get("split")}, "sets": sets}
    if target:
        write_atomic(target.predictions, format_predictions(pack, rows, predicted))
        write_json(target.evaluation, document)
    return document


def describe_leakage(name: str, result: Mapping[str, Any]) -> str:
    """The warning to read before a set's results: the model was trained on its images, or that is unknown."""
    if result["trained_on"] is None:
        return f"WARNING: the run has no split.csv; the model may have been trained on these {result['n']} images"
    if result["trained_on"]:
        return (
            f"WARNING: {result['trained_on_count']} of the {result['n']} images in {name} were TRAINED ON;"
            " these results say nothing about new images"
        )
    if result["validated_on_count"]:
        count = result["validated_on_count"]
        return f"note: {count} of the {result['n']} images in {name} were used to select the best epoch"
    return ""


def format_results(document: Mapping[str, Any]) -> str:
    """One line per set."""
    lines = []
    for name, result in document["sets"].items():
        low, high = result["mae_ci95_months"]
        interval = "" if low is None else f" (95 % CI {low:.2f} to {high:.2f})"
        lines.append(f"{name}: {result['n']} images, MAE {result['mae_months']:.2f} months{interval}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.evaluation.evaluate", description=RESEARCH_ONLY)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="folder with model.keras")
    parser.add_argument("--data", type=Path, required=True, metavar="PACK", help="pack to evaluate on")
    parser.add_argument("--split", default="all", metavar="NAME", help="use only this split's test part (default: all)")
    parser.add_argument("--views", type=int_in_range(1, MAX_VIEWS), default=1, metavar="N", help="views to average")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write evaluation.json and predictions.csv")
    parser.add_argument("--json", action="store_true", help="print the evaluation as JSON")
    arguments = parser.parse_args(argv)

    def command() -> None:
        run = RunFolder(arguments.run)
        document = evaluate_run(run, arguments.data, arguments.split, arguments.views, arguments.out)
        for name, result in document["sets"].items():
            if warning := describe_leakage(name, result):
                print_status(warning)
        print_result(document, format_results(document), arguments.json)

    return run_keras_command(command)


if __name__ == "__main__":
    sys.exit(main())
