"""Ages for image files by a run's model, each with how far such answers were off on the run's own test set.

    python -m boneage_trainer.inference.command RUN_FOLDER FILE|FOLDER... [--sex male|female | --sexes FILE.csv]
        [--views N] [--out FILE.csv] [--anyway] [--json]

PNG, JPEG and DICOM. Exit code 2 where any file got no answer; the others got theirs.
For research and education only; not a medical device.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_trainer.console import ProgressLine, int_in_range, print_result, print_status, run_command
from boneage_trainer.contract import RESEARCH_ONLY, ContractError, RunFolder, parse_object, write_atomic
from boneage_trainer.data.source import printable, read_labels
from boneage_trainer.evaluation.metrics import AGE_BANDS
from boneage_trainer.evaluation.model_card import part
from boneage_trainer.inference.model import MOST

if TYPE_CHECKING:
    from boneage_trainer.inference.reader import Answer, Request

_ROW = ("file", "months", "years", "low_months", "high_months", "test_images", "band", "views_sd_months", "problem")
_MANY = 10


def requests(given: argparse.Namespace) -> list[Request]:
    """The files that are asked about, with the sex of each; raises ContractError where a list is unusable."""
    from boneage_trainer.inference import intake
    from boneage_trainer.inference.reader import Request

    files = intake.files_in(given.images)
    if given.sexes is None:
        male = None if given.sex is None else float(given.sex == "male")
        return [Request(file, male) for file in files]
    known = {row.id: float(row.male) for row in read_labels(given.sexes).rows if row.problem != "unlabelled"}
    return [Request(file, known.get(file.stem)) for file in files]


def views_of(run: RunFolder) -> int:
    """As many as the run's test set was predicted with, so that its errors tell of these answers."""
    if not run.evaluation.exists():
        return 1
    evaluation = parse_object(run.evaluation.read_text(encoding="utf-8"), str(run.evaluation))
    return int(part(evaluation, "sets", "test").get("views") or 1)


def row(answer: Answer, tested: OwnErrors) -> dict[str, Any]:
    """What is told of one file; every value but the name is None where there is no answer."""
    file = printable(str(answer.file))
    if answer.problem:
        return {**dict.fromkeys(_ROW), "file": file, "problem": answer.problem}
    months = sum(answer.months) / len(answer.months)
    around = tested.around(months)
    return {
        "file": file, "months": round(months, 2), "years": years(months),
        "low_months": around and round(around.low_months, 1), "high_months": around and round(around.high_months, 1),
        "test_images": around and around.images, "band": around and around.band,
        "views_sd_months": _sd(answer.months), "problem": None,
    }  # fmt: skip


def years(months: float) -> str:
    """E.g. ``8 y 7 m``; a network's answer below birth is told as birth, its months stay what they are."""
    whole = max(0, round(months))
    return f"{whole // 12} y {whole % 12} m"


def _sd(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return round(statistics.stdev(values), 2)


# ------------------------------------------------------------------------------------ for people
def text_of(found: dict[str, Any]) -> str:
    if found["problem"]:
        return f"no answer: {found['problem']}  {found['file']}"
    spread = f", views differ by {found['views_sd_months']:.1f} (SD)" if found["views_sd_months"] is not None else ""
    between = "limits unknown"
    if found["low_months"] is not None:
        between = f"95 % limits {found['low_months']:.0f} to {found['high_months']:.0f}"
    return f"{found['months']:6.1f} months ({found['years']}), {between}{spread}  {found['file']}"


def meaning(rows: Sequence[dict[str, Any]]) -> str:
    """What the limits are, once for all rows."""
    bands = sorted({(one["band"], one["test_images"]) for one in rows if one["band"]})
    if not bands:
        return f"limits: unknown; the run has no test set of {FEWEST} images whose errors would tell them"
    told = ", ".join(f"{count} given {'any age' if name == 'all' else f'{name} months'}" for name, count in bands)
    return (
        f"limits: 95 % limits of agreement on the run's own test images ({told}): the age less their bias, +- 1.96 SD"
        " of their errors. They hold for radiographs like those only."
    )


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, (*_ROW, "note"), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**one, "note": RESEARCH_ONLY} for one in rows)
    return buffer.getvalue()


# -------------------------------------------------------------------------------------- the command
def predicted(run: RunFolder, given: argparse.Namespace) -> list[dict[str, Any]]:
    asked, tested = requests(given), of(run)  # what is wrong with them is told before TensorFlow's seconds
    from boneage_trainer.inference import model
    from boneage_trainer.inference.reader import Reader

    reader = Reader(model.load(run.model), given.views or views_of(run), given.anyway)
    progress = ProgressLine("read", len(asked)) if len(asked) >= _MANY else None
    rows = []
    for some in reader.answers(asked):
        rows += [row(one, tested) for one in some]
        if progress:
            progress.add(len(some))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(argv)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def command() -> None:
        rows = predicted(RunFolder(given.run), given)
        print_status(RESEARCH_ONLY)
        print_status(meaning(rows))
        text = "\n".join(map(text_of, rows))
        if given.out:
            write_atomic(given.out, csv_of(rows))
            text = str(given.out)
        print_result({"predictions": rows, "limits": meaning(rows), "research_only": RESEARCH_ONLY}, text, given.json)
        if missing := sum(bool(one["problem"]) for one in rows):
            raise ContractError(f"{missing} of {len(rows)} files got no answer; --anyway takes any picture")

    return run_command(command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.inference.command", description=RESEARCH_ONLY)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="the folder with model.keras")
    parser.add_argument("images", type=Path, nargs="+", metavar="FILE", help="PNG, JPEG or DICOM, or folders of them")
    sex = parser.add_mutually_exclusive_group()
    sex.add_argument("--sex", choices=("male", "female"), help="of all the images; needed if the model reads it")
    sex.add_argument("--sexes", type=Path, metavar="FILE.csv", help="id and sex of each; an id is a name without .png")
    parser.add_argument("--views", type=int_in_range(1, MOST), help="how many views to average (as the run's test)")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write a table instead of lines")
    parser.add_argument("--anyway", action="store_true", help="take any picture for a radiograph of a hand")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


# == limits: How far a predicted age may be off, by the errors that the same run made on its own test set.

FEWEST = 20
"""With fewer images in its band, an answer is judged by the whole test set; with fewer there, not at all."""
_REACH = 1.96


@dataclass(frozen=True, slots=True)
class Limits:
    """Where the true age lies for 95 % of `images` test images that were given an age in `band`, in months."""

    low_months: float
    high_months: float
    images: int
    band: str


@dataclass(frozen=True, slots=True)
class OwnErrors:
    """The test images' predicted ages and errors (predicted minus actual), in months."""

    predicted_months: Sequence[float]
    error_months: Sequence[float]

    def around(self, months: float) -> Limits | None:
        """The limits for an answer of `months`; None where the test set is too small to tell."""
        name, low, high = next((band for band in AGE_BANDS if band[1] <= months < band[2]), AGE_BANDS[0])
        pairs = zip(self.predicted_months, self.error_months, strict=True)
        errors = [error for predicted, error in pairs if low <= predicted < high]
        if len(errors) < FEWEST:
            name, errors = "all", list(self.error_months)
        if len(errors) < FEWEST:
            return None
        bias, reach = statistics.fmean(errors), _REACH * statistics.stdev(errors)
        middle = months - bias
        return Limits(max(0.0, middle - reach), max(0.0, middle + reach), len(errors), name)


def of(run: RunFolder) -> OwnErrors:
    """What `run` was tested on, by its ``predictions.csv``; nothing where it has none."""
    if not run.predictions.exists():
        return OwnErrors([], [])
    with open(run.predictions, encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    predicted = [float(row["predicted_months"]) for row in rows]
    actual = [float(row["boneage_months"]) for row in rows]
    return OwnErrors(predicted, [one - other for one, other in zip(predicted, actual, strict=True)])


if __name__ == "__main__":
    sys.exit(main())
