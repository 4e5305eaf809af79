"""A comparison as tables of words: which columns stand in which table, and what a reader must know beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boneagectl.report import reference, words
from boneagectl.report.compared import Compared
from boneagectl.report.tested import Pair
from boneagectl.report.words import UNKNOWN

_HASH_DIGITS = 12
_MOST_VALUES = 6
_MOST_LETTERS = 60


@dataclass(frozen=True, slots=True)
class Table:
    """A table ready to print; the first cell of a row names it."""

    key: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a run: its key, its heading with the unit, and how it is shown."""

    key: str
    heading: str
    shown: Callable[[Any], str]


def _words(value: Any) -> str:
    return UNKNOWN if value in (None, "") else str(value)


def _first_words(value: Any) -> str:
    """The first clause of a sentence: the whole of it stands in the run's own report and in JSON."""
    return _words(value).partition(";")[0][:_MOST_LETTERS]


def _hash(value: Any) -> str:
    return UNKNOWN if not value else str(value)[:_HASH_DIGITS]


def _three(value: Any) -> str:
    return words.plain(value, 3)


def _two(value: Any) -> str:
    return words.plain(value, 2)


def _dollars(value: Any) -> str:
    """Four digits after the point where two would hide a cost."""
    known = words.number(value)
    return words.dollars(value) if known is None or known == 0 or known >= 0.1 else f"US$ {words.plain(known, 4)}"


_ACCURACY = (
    Column("target", "Target", _words),
    Column("gpu", "GPU really given", _words),
    Column("epochs", "Epochs", words.count),
    Column("n", "Test radiographs", words.count),
    Column("mae_months", "MAE (months)", _two),
    Column("rmse_months", "RMSE (months)", _two),
    Column("r2", "R²", _three),
    Column("bias_months", "Bias (months)", lambda value: words.signed(value, 2)),
    Column("within_12_months", "Within 12 months", words.share),
    Column("baseline_median_mae_months", "Median baseline (months)", _two),
)
_TIME = (
    Column("total_s", "Total", words.duration),
    Column("prepare_s", "Prepare", words.duration),
    Column("startup_s", "Start-up", words.duration),
    Column("compile_s", "First steps", words.duration),
    Column("load_s", "Load", words.duration),
    Column("compute_s", "Compute", words.duration),
    Column("validate_s", "Validate", words.duration),
    Column("checkpoint_s", "Save", words.duration),
    Column("evaluate_s", "Evaluate", words.duration),
    Column("rest_s", "Other", words.duration),
    Column("epoch_s", "An epoch", words.duration),
    Column("load_ms_per_image", "Load (ms an image)", _two),
    Column("compute_ms_per_image", "Compute (ms an image)", _two),
)
_COST = (
    Column("sessions", "Sessions", words.count),
    Column("interruptions", "Interrupted", words.count),
    Column("cost_usd", "Cost", _dollars),
    Column("quota_hours", "Quota hours", _two),
    Column("usd_per_epoch", "Cost an epoch", _dollars),
    Column("gained_months", "Months below the median baseline", _two),
    Column("usd_per_month_gained", "Cost a month gained", _dollars),
)
_IDENTITY = (
    Column("state", "State", _words),
    Column("settings_sha256", "Settings", _hash),
    Column("data_fingerprint", "Data fingerprint", _hash),
    Column("test_sha256", "Test images", _hash),
    Column("labels", "Labels", _first_words),
)
_TIME_NOTE = (
    "Total is the sessions' own time. Prepare is the part of it beside the trainer: setting up the machine, making the "
    "pack there, bringing results back; a pack that was made before is not in it. Start-up goes from the trainer's "
    "start to its first epoch, first steps wait for the trace; other is what no part explains, lost epochs among it. "
    "Per image: the training's own loading and computing."
)
_COST_NOTE = (
    "Costs are of the sessions alone: what stands and is paid by the day is not in them. A month gained is a month of "
    "mean absolute error below always answering the training median."
)


def tables(runs: Sequence[Compared], pairs: Sequence[Pair]) -> list[Table]:
    """All tables, each with a row a run."""
    accuracy = _of("accuracy", "Accuracy on each run's own test set", _ACCURACY, runs)
    return [
        _with_interval(accuracy, runs),
        _against(runs[0].run_id, pairs),
        _with_reference(_of("time", "Where the time went", _TIME, runs, _TIME_NOTE)),
        _of("cost", "Sessions and cost", _COST, runs, _COST_NOTE),
        _of("same", "What was compared", _IDENTITY, runs, "Equal entries mean the same; the first digits are shown."),
    ]


def _of(key: str, caption: str, columns: Sequence[Column], runs: Sequence[Compared], note: str = "") -> Table:
    rows = tuple((run.run_id, *(column.shown(run.values.get(column.key)) for column in columns)) for run in runs)
    return Table(key, caption, ("Run", *(column.heading for column in columns)), rows, note)


def _with_interval(table: Table, runs: Sequence[Compared]) -> Table:
    """The interval of the MAE beside it."""
    at = table.columns.index("MAE (months)") + 1
    ends = [(run.values["mae_ci95_low_months"], run.values["mae_ci95_high_months"]) for run in runs]
    rows = tuple((*row[:at], words.interval(end, 2), *row[at:]) for row, end in zip(table.rows, ends, strict=True))
    return Table(table.key, table.caption, (*table.columns[:at], "95 % interval", *table.columns[at:]), rows)


def _with_reference(table: Table) -> Table:
    """The paper's own rows below; what it did not tell stays empty."""
    rows = tuple(_reference(timing, len(table.columns)) for timing in reference.TIMINGS)
    return Table(table.key, table.caption, table.columns, table.rows + rows, f"{table.note} {reference.NOTE}")


def _reference(timing: reference.Timing, width: int) -> tuple[str, ...]:
    gpu = f", {timing.gpu}" if timing.gpu else ""
    remark = f" ({timing.remark})" if timing.remark else ""
    name = f"Paper {reference.READ}: {timing.environment}{gpu}{remark}"
    return (name, words.duration(timing.total_s), *["not told"] * (width - 2))


def _against(first: str, pairs: Sequence[Pair]) -> Table:
    rows = tuple(
        (
            pair.run_id,
            f"{words.count(pair.n)} of {words.count(pair.own)} and {words.count(pair.firsts)}",
            words.signed(pair.difference_months, 2),
            words.interval(pair.ci95_months, 2),
            words.share(pair.improved_share),
            pair.verdict,
        )
        for pair in pairs
    )
    note = (
        "Paired: the difference of the absolute errors on the same test images, by id and content; below zero the run "
        "errs less. The interval is a bootstrap over these images, a thousand draws; it says nothing of another seed."
    )
    columns = ("Run", "Images in both", "Difference (months)", "95 % interval", "Closer on", "Verdict")
    return Table("against", f"Against the first run, {first}", columns, rows, note)


# ------------------------------------------------------------------------------------ notes
def notes(runs: Sequence[Compared], pairs: Sequence[Pair]) -> list[str]:
    """What is the same and what is not, the unfair first."""
    told = [_settings(runs), _same(runs, "data_fingerprint", "data"), _same(runs, "test_sha256", "test images")]
    if len({run.values["labels"] for run in runs} - {None}) > 1:
        told.append("NOT THE SAME labels: figures on different kinds of labels cannot be compared.")
    open_ = [run.run_id for run in runs if run.values["state"] != "complete"]
    if open_:
        told.append(f"Not complete: {', '.join(open_)}. Their figures are those so far.")
    if relabelled := [pair.run_id for pair in pairs if pair.relabelled]:
        told.append(f"Other labels for some of the same images, left out of the pairs: {', '.join(relabelled)}.")
    return sorted(told, key=lambda note: not note.startswith("NOT"))


def differing(runs: Sequence[Compared]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, with each run's value."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    values = {key: [run.config.get(key) for run in runs] for key in keys}
    return {key: found for key, found in values.items() if any(one != found[0] for one in found)}


def _settings(runs: Sequence[Compared]) -> str:
    if any(not run.config for run in runs):
        return "NOT KNOWN whether the settings are the same: a run's are missing."
    different = differing(runs)
    if not different:
        return f"Same settings in all runs ({_hash(runs[0].values['settings_sha256'])})."
    shown = "; ".join(f"{key} {_distinct(found)}" for key, found in different.items())
    return f"NOT THE SAME settings, so differences need not come from the environments: {shown}."


def _distinct(found: Sequence[Any]) -> str:
    """The different values, the first few of many."""
    shown = list(dict.fromkeys(map(words.listed, found)))
    more = f" and {len(shown) - _MOST_VALUES} others" if len(shown) > _MOST_VALUES else ""
    return " | ".join(shown[:_MOST_VALUES]) + more


def _same(runs: Sequence[Compared], key: str, what: str) -> str:
    found: Mapping[Any, None] = dict.fromkeys(run.values[key] for run in runs)
    if None in found:
        lacking = [run.run_id for run in runs if run.values[key] is None]
        return f"NOT KNOWN whether the {what} are the same: not told by {', '.join(lacking)}."
    if len(found) > 1:
        return f"NOT THE SAME {what}: {', '.join(map(_hash, found))}."
    return f"Same {what} in all runs ({_hash(runs[0].values[key])})."
