"""The tables of a comparison, the notes above them, and the times of the student paper beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boneagectl.report import text
from boneagectl.report.comparison_run import ComparedRun
from boneagectl.report.evaluation import RunPair
from boneagectl.report.text import UNKNOWN

_HASH_DIGITS = 12
_MAX_VALUES = 6
_MAX_LABEL_LETTERS = 60
_Column = tuple[str, str, Callable[[Any], str]]
"""One number of a run: its key, its heading with the unit, and how it is shown."""
_TEXT_COLUMNS = frozenset(
    ("Run", "Target", "GPU", "State", "Settings", "Data fingerprint", "Test images", "Reference ages", "Verdict")
)


@dataclass(frozen=True, slots=True)
class ComparisonTable:
    """A table ready to print; the first cell of a row names it. Columns of text are not aligned as numbers."""

    key: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def text_columns(self) -> frozenset[str]:
        return _TEXT_COLUMNS


@dataclass(frozen=True, slots=True)
class PaperTiming:
    """One environment of the student paper; `remark` says how exact the time is."""

    environment: str
    gpu: str | None
    total_s: int
    epochs: int
    remark: str = ""


PAPER_TIMINGS = (
    PaperTiming("Azure", "Tesla K80", 16_800, 15),
    PaperTiming("Kaggle", None, 16_800, 15, "about the same as Azure"),
    PaperTiming("local", "GTX 1650", 12_600, 15),
    PaperTiming("Colab", None, 5_940, 15, "its notebook says 1 h 24 min"),
)
PAPER_NOTE = (
    "The paper rows are the times in the student paper as of November 2026. They were not measured here and are not "
    "directly comparable: different network input, different loader, one full run each. The paper reports no mean "
    "absolute error. Most of its time went into decoding full-size PNG files (32.5 ms/image on Colab). On Azure it "
    "used US$ 75 of 100 in total at US$ 1.17 per hour; it gives no cost per run."
)
_PAPER_DATE = "2026-11"


# ------------------------------------------------------------------------------------ columns
def _text(value: Any) -> str:
    return UNKNOWN if value in (None, "") else str(value)


def _short_hash(value: Any) -> str:
    return UNKNOWN if not value else str(value)[:_HASH_DIGITS]


def _two_digits(value: Any) -> str:
    return text.plain(value, 2)


def _dollars(value: Any) -> str:
    """Four digits after the point where two would hide a cost."""
    known = text.number(value)
    return text.dollars(value) if known is None or known == 0 or known >= 0.1 else f"US$ {text.plain(known, 4)}"


TIME_PARTS = (
    ("prepare_s", "Prepare"), ("startup_s", "Start-up"), ("compile_s", "Compile"), ("load_s", "Load"),
    ("compute_s", "Compute"), ("validate_s", "Validate"), ("checkpoint_s", "Save"), ("evaluate_s", "Evaluate"),
    ("rest_s", "Other"),
)  # fmt: skip
"""The parts of a run's total time, which add up to it."""
_ACCURACY: tuple[_Column, ...] = (
    ("target", "Target", _text),
    ("gpu", "GPU", _text),
    ("epochs", "Epochs", text.count),
    ("n", "Test radiographs", text.count),
    ("mae_months", "MAE (months)", _two_digits),
    ("rmse_months", "RMSE (months)", _two_digits),
    ("r2", "R²", lambda value: text.plain(value, 3)),
    ("bias_months", "Bias (months)", lambda value: text.signed(value, 2)),
    ("within_12_months", "Within 12 months", text.share),
    ("baseline_median_mae_months", "Median baseline (months)", _two_digits),
)
_TIME: tuple[_Column, ...] = (
    ("total_s", "Total", text.duration),
    *((key, name, text.duration) for key, name in TIME_PARTS),
    ("epoch_s", "Time/epoch", text.duration),
    ("load_ms_per_image", "Load (ms/image)", _two_digits),
    ("compute_ms_per_image", "Compute (ms/image)", _two_digits),
)
_COST: tuple[_Column, ...] = (
    ("sessions", "Sessions", text.count),
    ("interruptions", "Interruptions", text.count),
    ("cost_usd", "Cost", _dollars),
    ("quota_hours", "Quota hours", _two_digits),
    ("usd_per_epoch", "Cost/epoch", _dollars),
    ("gained_months", "MAE improvement (months)", _two_digits),
    ("usd_per_month_gained", "Cost per month of MAE improvement", _dollars),
)
_IDENTITY: tuple[_Column, ...] = (
    ("state", "State", _text),
    ("settings_sha256", "Settings", _short_hash),
    ("data_fingerprint", "Data fingerprint", _short_hash),
    ("test_sha256", "Test images", _short_hash),
    # The first clause only: the run's own report and JSON have the rest.
    ("labels", "Reference ages", lambda value: _text(value).partition(";")[0][:_MAX_LABEL_LETTERS]),
)
_PAIR_COLUMNS = ("Run", "Shared test images", "Difference (months)", "95 % CI", "Win rate", "Verdict")
_PAIR_NOTE = (
    "Paired difference of absolute errors on the shared test images (same id and content); negative means that the run "
    "is better. The win rate is the share of images on which the run is closer. The interval is a bootstrap over "
    "images with 1,000 draws; it does not cover variation between seeds."
)
_TIME_NOTE = (
    "Total is session time. Prepare is the time outside the trainer: setting up the machine, making the pack there, "
    "uploading outputs; a pack made earlier is not included. Start-up lasts from the trainer's start to its first "
    "epoch, compile is the tracing of the first steps, other is the rest, lost epochs included. Times per image are "
    "those of training steps."
)
_COST_NOTE = (
    "Cost is the cost of the sessions; recurring charges are not included. MAE improvement is relative to always "
    "predicting the median training age."
)


# ------------------------------------------------------------------------------------- tables
def build_tables(runs: Sequence[ComparedRun], pairs: Sequence[RunPair]) -> list[ComparisonTable]:
    """All tables, each with one row per run."""
    note = "Equal entries are identical; only the first digits are shown."
    return [
        accuracy_table(runs),
        pair_table(runs[0].run_id, pairs),
        time_table(runs),
        _table("cost", "Sessions and cost", _COST, runs, _COST_NOTE),
        _table("same", "Settings and data", _IDENTITY, runs, note),
    ]


def _table(
    key: str, caption: str, columns: Sequence[_Column], runs: Sequence[ComparedRun], note: str = ""
) -> ComparisonTable:
    rows = tuple((run.run_id, *(show(run.values.get(key)) for key, _, show in columns)) for run in runs)
    return ComparisonTable(key, caption, ("Run", *(heading for _, heading, _ in columns)), rows, note)


def accuracy_table(runs: Sequence[ComparedRun]) -> ComparisonTable:
    """The accuracy of each run, with the interval of the MAE beside it."""
    table = _table("accuracy", "Accuracy on each run's own test set", _ACCURACY, runs)
    at = table.columns.index("MAE (months)") + 1
    intervals = [(run.values["mae_ci95_low_months"], run.values["mae_ci95_high_months"]) for run in runs]
    rows = tuple(
        (*row[:at], text.interval(interval, 2), *row[at:]) for row, interval in zip(table.rows, intervals, strict=True)
    )
    return ComparisonTable(table.key, table.caption, (*table.columns[:at], "95 % CI", *table.columns[at:]), rows)


def time_table(runs: Sequence[ComparedRun]) -> ComparisonTable:
    """The times of each run; the paper's rows below have a total only."""
    table = _table("time", "Time by activity", _TIME, runs)
    paper = []
    for timing in PAPER_TIMINGS:
        gpu = f", {timing.gpu}" if timing.gpu else ""
        remark = f" ({timing.remark})" if timing.remark else ""
        name = f"Paper {_PAPER_DATE}: {timing.environment}{gpu}{remark}"
        paper.append((name, text.duration(timing.total_s), *[UNKNOWN] * (len(table.columns) - 2)))
    return ComparisonTable(table.key, table.caption, table.columns, (*table.rows, *paper), f"{_TIME_NOTE} {PAPER_NOTE}")


def pair_table(first: str, pairs: Sequence[RunPair]) -> ComparisonTable:
    """Each further run against the run `first`, image by image."""
    rows = []
    for pair in pairs:
        images = f"{text.count(pair.n)} of {text.count(pair.own)} ({first}: {text.count(pair.firsts)})"
        difference, interval = text.signed(pair.difference_months, 2), text.interval(pair.ci95_months, 2)
        rows.append((pair.run_id, images, difference, interval, text.share(pair.improved_share), pair.verdict))
    return ComparisonTable("against", f"Paired comparison with {first}", _PAIR_COLUMNS, tuple(rows), _PAIR_NOTE)


# ------------------------------------------------------------------------------------- notes
def build_notes(runs: Sequence[ComparedRun], pairs: Sequence[RunPair], problem: str = "") -> list[str]:
    """What is the same and what is not; what makes the comparison unfair comes first."""
    warnings: list[str] = []
    notes: list[str] = []
    for is_warning, note in (
        _settings_note(runs),
        _identity_note(runs, "data_fingerprint", "data"),
        _identity_note(runs, "test_sha256", "test images"),
    ):
        (warnings if is_warning else notes).append(note)
    if len({run.values["labels"] for run in runs} - {None}) > 1:
        warnings.append("Reference ages differ: errors on different kinds of labels cannot be compared.")
    if incomplete := [run.run_id for run in runs if run.values["state"] != "complete"]:
        notes.append(f"Not complete: {', '.join(incomplete)}. Their numbers are preliminary.")
    if relabelled := [pair.run_id for pair in pairs if pair.relabelled]:
        notes.append(
            f"Some shared images have a different label and are excluded from the pairs: {', '.join(relabelled)}."
        )
    if problem:
        notes.append(f"Some metrics are missing: {problem}")
    return warnings + notes


def differing_settings(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, with each run's value."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    values = {key: [run.config.get(key) for run in runs] for key in keys}
    return {key: own for key, own in values.items() if any(value != own[0] for value in own)}


def _settings_note(runs: Sequence[ComparedRun]) -> tuple[bool, str]:
    """Whether the note is a warning, and the note."""
    if lacking := [run.run_id for run in runs if not run.config]:
        return True, f"Unknown whether the settings are the same: missing for {', '.join(lacking)}."
    different = differing_settings(runs)
    if not different:
        return False, f"Same settings in all runs ({_short_hash(runs[0].values['settings_sha256'])})."
    differences = []
    for key, values in different.items():
        distinct = list(dict.fromkeys(map(text.inline, values)))
        more = f" and {len(distinct) - _MAX_VALUES} others" if len(distinct) > _MAX_VALUES else ""
        differences.append(f"{key} {' | '.join(distinct[:_MAX_VALUES])}{more}")
    shown = "; ".join(differences)
    return True, f"Settings differ: results are not attributable to the environment alone ({shown})."


def _identity_note(runs: Sequence[ComparedRun], key: str, what: str) -> tuple[bool, str]:
    """Whether the note is a warning, and the note."""
    values: Mapping[Any, None] = dict.fromkeys(run.values[key] for run in runs)
    if None in values:
        lacking = [run.run_id for run in runs if run.values[key] is None]
        return True, f"Unknown whether the {what} are the same: missing for {', '.join(lacking)}."
    if len(values) > 1:
        return True, f"{what.capitalize()} differ: {', '.join(map(_short_hash, values))}."
    return False, f"Same {what} in all runs ({_short_hash(runs[0].values[key])})."
