"""A comparison as tables of words: which columns stand in which table, and what a reader must know beside them."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boneage_trainer.contract import RESEARCH_ONLY
from boneagectl.output import table as aligned
from boneagectl.report import text
from boneagectl.report.comparison_run import Compared
from boneagectl.report.paired import Pair
from boneagectl.report.text import UNKNOWN

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
    return text.plain(value, 3)


def _two(value: Any) -> str:
    return text.plain(value, 2)


def _dollars(value: Any) -> str:
    """Four digits after the point where two would hide a cost."""
    known = text.number(value)
    return text.dollars(value) if known is None or known == 0 or known >= 0.1 else f"US$ {text.plain(known, 4)}"


_ACCURACY = (
    Column("target", "Target", _words),
    Column("gpu", "GPU really given", _words),
    Column("epochs", "Epochs", text.count),
    Column("n", "Test radiographs", text.count),
    Column("mae_months", "MAE (months)", _two),
    Column("rmse_months", "RMSE (months)", _two),
    Column("r2", "R²", _three),
    Column("bias_months", "Bias (months)", lambda value: text.signed(value, 2)),
    Column("within_12_months", "Within 12 months", text.share),
    Column("baseline_median_mae_months", "Median baseline (months)", _two),
)
_TIME = (
    Column("total_s", "Total", text.duration),
    Column("prepare_s", "Prepare", text.duration),
    Column("startup_s", "Start-up", text.duration),
    Column("compile_s", "First steps", text.duration),
    Column("load_s", "Load", text.duration),
    Column("compute_s", "Compute", text.duration),
    Column("validate_s", "Validate", text.duration),
    Column("checkpoint_s", "Save", text.duration),
    Column("evaluate_s", "Evaluate", text.duration),
    Column("rest_s", "Other", text.duration),
    Column("epoch_s", "An epoch", text.duration),
    Column("load_ms_per_image", "Load (ms an image)", _two),
    Column("compute_ms_per_image", "Compute (ms an image)", _two),
)
_COST = (
    Column("sessions", "Sessions", text.count),
    Column("interruptions", "Interrupted", text.count),
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
    rows = tuple((*row[:at], text.interval(end, 2), *row[at:]) for row, end in zip(table.rows, ends, strict=True))
    return Table(table.key, table.caption, (*table.columns[:at], "95 % interval", *table.columns[at:]), rows)


def _with_reference(table: Table) -> Table:
    """The paper's own rows below; what it did not tell stays empty."""
    rows = tuple(_reference(timing, len(table.columns)) for timing in TIMINGS)
    return Table(table.key, table.caption, table.columns, table.rows + rows, f"{table.note} {NOTE}")


def _reference(timing: Timing, width: int) -> tuple[str, ...]:
    gpu = f", {timing.gpu}" if timing.gpu else ""
    remark = f" ({timing.remark})" if timing.remark else ""
    name = f"Paper {READ}: {timing.environment}{gpu}{remark}"
    return (name, text.duration(timing.total_s), *["not told"] * (width - 2))


def _against(first: str, pairs: Sequence[Pair]) -> Table:
    rows = tuple(
        (
            pair.run_id,
            f"{text.count(pair.n)} of {text.count(pair.own)} and {text.count(pair.firsts)}",
            text.signed(pair.difference_months, 2),
            text.interval(pair.ci95_months, 2),
            text.share(pair.improved_share),
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
    shown = list(dict.fromkeys(map(text.listed, found)))
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


# == reference: The student paper's own times, to stand beside a comparison: what it told, when that was read, and

READ = "2026-11"
NOTE = (
    "The paper's rows are the student paper's own times, as read in November 2026; they were not measured here and "
    "cannot be compared in detail: another network input, another loader, one whole run each. It never measured a "
    "mean absolute error, so none stands here, and most of its time went into decoding full-size PNG files (32.5 ms an "
    "image on Colab). On Azure it used 75 of 100 dollars in all, at $1.17 an hour; for the single run no cost is told."
)


@dataclass(frozen=True, slots=True)
class Timing:
    """One environment of the paper; `remark` says how exact the time is."""

    environment: str
    gpu: str | None
    total_s: int
    epochs: int
    remark: str = ""


TIMINGS = (
    Timing("Azure", "Tesla K80", 16_800, 15),
    Timing("Kaggle", None, 16_800, 15, "about the same as Azure"),
    Timing("local", "GTX 1650", 12_600, 15),
    Timing("Colab", None, 5_940, 15, "its notebook says 1 h 24 min"),
)


# == formats: Tables as text, Markdown, LaTeX and CSV. What comes from a run stays text in each of them.

_TEXT_WIDTH = 110
_PLAIN = str.maketrans({"−": "-", "\u202f": " ", "–": "-", "…": "...", "²": "2", "·": "-"})
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$])")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "−": "$-$", "\u202f": r"\,", "²": r"\textsuperscript{2}",
    "<": r"\textless{}", ">": r"\textgreater{}", '"': r"\textquotedbl{}",
}  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
"""What a spreadsheet takes for the start of a formula or a command."""


def one_line(text: str) -> str:
    """`text` without line breaks, control characters or what turns the direction of writing."""
    return "".join(" " if char.isspace() and char != "\u202f" else char for char in text if _is_plain(char))


def _is_plain(char: str) -> bool:
    return char.isprintable() or char.isspace()


# ------------------------------------------------------------------------------------ text
def to_text(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """For a terminal, ASCII but for what the runs' own names hold."""
    parts = [RESEARCH_ONLY, "\n".join(_wrapped(f"- {one_line(note)}") for note in notes)]
    return "\n\n".join([*parts, *map(_text, tables)]).translate(_PLAIN) + "\n"


def _text(one: Table) -> str:
    rows = [[one_line(cell) for cell in row] for row in one.rows]
    note = f"\n{_wrapped(one.note)}" if one.note else ""
    return f"{one.caption}\n{aligned(one.columns, rows)}{note}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _TEXT_WIDTH, subsequent_indent="  " if text.startswith("- ") else "")


# ---------------------------------------------------------------------------------- Markdown
def to_markdown(title: str, tables: Sequence[Table], notes: Sequence[str]) -> str:
    listed = "\n".join(f"- {markdown_text(note)}" for note in notes)
    parts = [f"# {markdown_text(title)}", f"**{RESEARCH_ONLY}**", listed]
    return "\n\n".join([*parts, *map(_markdown, tables)]) + "\n"


def markdown_text(text: str) -> str:
    """`text` as Markdown shows it, HTML included."""
    safe = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", safe)


def _markdown(one: Table) -> str:
    heads = _markdown_row(one.columns)
    rule = "|" + "---|" * len(one.columns)
    note = f"\n\n{markdown_text(one.note)}" if one.note else ""
    return "\n".join([f"## {markdown_text(one.caption)}", "", heads, rule, *map(_markdown_row, one.rows)]) + note


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(markdown_text, cells))} |"


# ------------------------------------------------------------------------------------- LaTeX
def to_latex(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """A ``table`` environment for each table, with the rules of the booktabs package."""
    said = [RESEARCH_ONLY, "Needs \\usepackage{booktabs,graphicx}.", *map(one_line, notes)]
    return "\n".join([*(f"% {line}" for line in said), *map(_latex, tables)]) + "\n"


def latex_text(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in one_line(text))


def _latex(one: Table) -> str:
    caption = latex_text(f"{one.caption}. {one.note} {RESEARCH_ONLY}".replace(".. ", ". ").replace("  ", " "))
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{tab:boneage-{one.key}}}",
        r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{l{'r' * (len(one.columns) - 1)}}}", r"\toprule",
        _latex_row(one.columns), r"\midrule", *map(_latex_row, one.rows), r"\bottomrule", r"\end{tabular}}",
        r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines)


def _latex_row(cells: Iterable[str]) -> str:
    # A row that began with a bracket would be read as an argument of the line break before it.
    return " & ".join(f"{{}}{latex_text(cell)}" for cell in cells) + r" \\"


# --------------------------------------------------------------------------------------- CSV
def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a run with its numbers in full; an empty cell is not known. ``note`` ends each line."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*rows[0], "note"])
    for row in rows:
        writer.writerow([*map(csv_cell, row.values()), RESEARCH_ONLY])
    return stream.getvalue()


def csv_cell(value: Any) -> str:
    """A number in full, or a text that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    text = one_line(str(value))
    return f"'{text}" if not isinstance(value, int) and text.lstrip().startswith(_FORMULA) else text
