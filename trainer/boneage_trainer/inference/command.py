"""Predicts bone age from image files with a run's model, with the limits of error that the run's test set gives.

    python -m boneage_trainer.inference.command RUN_FOLDER FILE|FOLDER... [--sex male|female | --sexes FILE.csv]
        [--views N] [--out FILE.csv] [--anyway] [--json]

PNG, JPEG and DICOM. Exit code 2 if any file was skipped; the others are predicted.
For research and education only; not a medical device.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_trainer.console import ProgressLine, int_in_range, print_result, print_status, run_keras_command
from boneage_trainer.contract import RESEARCH_ONLY, ContractError, RunFolder, format_csv, parse_object, write_atomic
from boneage_trainer.data.source import printable, read_labels
from boneage_trainer.evaluation.metrics import AGE_BANDS
from boneage_trainer.evaluation.model_card import get_nested
from boneage_trainer.inference.views import MAX_VIEWS

if TYPE_CHECKING:
    from boneage_trainer.inference.reader import FilePrediction, FileRequest

MIN_TEST_IMAGES = 20
"""With fewer test images in the age band, the whole test set gives the limits; with fewer in that, nothing does."""
_COLUMNS = (
    "file", "months", "years", "low_months", "high_months", "test_images", "band", "views_sd_months", "problem",
)  # fmt: skip
_PROGRESS_FROM = 10


# ----------------------------------------------------------------------------------------- limits
@dataclass(frozen=True, slots=True)
class ErrorLimits:
    """95 % limits of agreement in months, from `images` test images with a predicted age in `band`."""

    low_months: float
    high_months: float
    images: int
    band: str


@dataclass(frozen=True, slots=True)
class RunErrors:
    """Predicted ages and errors (predicted minus reference age) of a run's test images, in months."""

    predicted_months: Sequence[float]
    error_months: Sequence[float]

    def limits_for(self, months: float) -> ErrorLimits | None:
        """Bias-corrected limits, the errors' mean and 1.96 SD, for a prediction of `months`; None: too few images."""
        name, low, high = next((band for band in AGE_BANDS if band[1] <= months < band[2]), AGE_BANDS[0])
        pairs = zip(self.predicted_months, self.error_months, strict=True)
        errors = [error for predicted, error in pairs if low <= predicted < high]
        if len(errors) < MIN_TEST_IMAGES:
            name, errors = "all", list(self.error_months)
        if len(errors) < MIN_TEST_IMAGES:
            return None
        centre, half_width = months - statistics.fmean(errors), 1.96 * statistics.stdev(errors)
        return ErrorLimits(max(0.0, centre - half_width), max(0.0, centre + half_width), len(errors), name)


def read_errors(run: RunFolder) -> RunErrors:
    """The errors in the ``predictions.csv`` of `run`; none if it has no such file."""
    if not run.predictions.exists():
        return RunErrors([], [])
    with open(run.predictions, encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    predicted = [float(row["predicted_months"]) for row in rows]
    errors = [months - float(row["boneage_months"]) for months, row in zip(predicted, rows, strict=True)]
    return RunErrors(predicted, errors)


# ------------------------------------------------------------------------------------- prediction
def list_requests(arguments: argparse.Namespace) -> list[FileRequest]:
    """The files to predict, each with its sex; raises ContractError for an unusable folder or table."""
    from boneage_trainer.inference import intake
    from boneage_trainer.inference.reader import FileRequest

    files = intake.list_images(arguments.images)
    if arguments.sexes is None:
        male = None if arguments.sex is None else float(arguments.sex == "male")
        return [FileRequest(file, male) for file in files]
    males = {row.id: float(row.male) for row in read_labels(arguments.sexes).rows if row.problem != "unlabelled"}
    return [FileRequest(file, males.get(file.stem)) for file in files]


def predict_files(run: RunFolder, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per file, with the columns of the table.

    Raises:
        ContractError: no usable model, files or table.
    """
    requests, errors = list_requests(arguments), read_errors(run)  # checked before TensorFlow takes its seconds
    from boneage_trainer.inference import model
    from boneage_trainer.inference.reader import FilePredictor

    views = arguments.views or 1
    if not arguments.views and run.evaluation.exists():  # the test set's errors hold for its own number of views only
        evaluation = parse_object(run.evaluation.read_text(encoding="utf-8"), str(run.evaluation))
        views = int(get_nested(evaluation, "sets", "test").get("views") or 1)
    predictor = FilePredictor(model.load_model(run.model), views, arguments.anyway)
    progress = ProgressLine("read", len(requests)) if len(requests) >= _PROGRESS_FROM else None
    rows = []
    for predictions in predictor.predict(requests):
        rows += [_row(prediction, errors) for prediction in predictions]
        if progress:
            progress.add(len(predictions))
    return rows


def _row(prediction: FilePrediction, errors: RunErrors) -> dict[str, Any]:
    """The table's values for one file; all but its name are None if it was skipped."""
    row = {**dict.fromkeys(_COLUMNS), "file": printable(str(prediction.file))}
    if prediction.problem:
        return {**row, "problem": prediction.problem}
    months = statistics.fmean(prediction.months)
    row.update(months=round(months, 2), years=format_years(months))
    if len(prediction.months) > 1:
        row["views_sd_months"] = round(statistics.stdev(prediction.months), 2)
    if limits := errors.limits_for(months):
        row.update(low_months=round(limits.low_months, 1), high_months=round(limits.high_months, 1),
                   test_images=limits.images, band=limits.band)  # fmt: skip
    return row


# ------------------------------------------------------------------------------------------ output
def format_years(months: float) -> str:
    """E.g. ``8 y 7 m``; negative months, which a network can predict, are shown as 0."""
    whole = max(0, round(months))
    return f"{whole // 12} y {whole % 12} m"


def format_row(row: dict[str, Any]) -> str:
    if row["problem"]:
        return f"skipped: {row['problem']}  {row['file']}"
    limits = "no limits"
    if row["low_months"] is not None:
        limits = f"95 % limits {row['low_months']:.0f} to {row['high_months']:.0f}"
    spread = f", SD of views {row['views_sd_months']:.1f}" if row["views_sd_months"] is not None else ""
    return f"{row['months']:6.1f} months ({row['years']}), {limits}{spread}  {row['file']}"


def describe_limits(rows: Sequence[dict[str, Any]]) -> str:
    """What the limits in `rows` are, once for all of them."""
    bands = sorted({(row["band"], row["test_images"]) for row in rows if row["band"]})
    if not bands:
        return f"limits: unknown; the run has fewer than {MIN_TEST_IMAGES} test images"
    counts = ", ".join(
        f"{count} images of {'all ages' if band == 'all' else f'{band} months'}" for band, count in bands
    )
    return (
        f"limits: bias-corrected 95 % limits of agreement from the run's test set ({counts}). They hold only for"
        " radiographs like those of the test set."
    )


# ---------------------------------------------------------------------------------------- command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.inference.command", description=RESEARCH_ONLY)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="folder with model.keras")
    parser.add_argument("images", type=Path, nargs="+", metavar="FILE", help="PNG, JPEG or DICOM files, or folders")
    sex = parser.add_mutually_exclusive_group()
    sex.add_argument("--sex", choices=("male", "female"), help="sex for all images; required if the model uses sex")
    sex.add_argument("--sexes", type=Path, metavar="FILE.csv", help="table of id and sex; an id is a name without .png")
    parser.add_argument("--views", type=int_in_range(1, MAX_VIEWS), help="views to average (default: as in the test)")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write a table instead of printing lines")
    parser.add_argument("--anyway", action="store_true", help="accept images that do not look like a hand radiograph")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)

    def command() -> None:
        rows = predict_files(RunFolder(arguments.run), arguments)
        limits = describe_limits(rows)
        print_status(RESEARCH_ONLY)
        print_status(limits)
        text = "\n".join(map(format_row, rows))
        if arguments.out:
            lines = ((*(row[column] for column in _COLUMNS), RESEARCH_ONLY) for row in rows)
            write_atomic(arguments.out, format_csv((*_COLUMNS, "note"), lines))
            text = str(arguments.out)
        print_result({"predictions": rows, "limits": limits, "research_only": RESEARCH_ONLY}, text, arguments.json)
        if skipped := sum(bool(row["problem"]) for row in rows):
            raise ContractError(f"{skipped} of {len(rows)} files were skipped; --anyway accepts any image")

    return run_keras_command(command)


if __name__ == "__main__":
    sys.exit(main())
