"""A comparison as plain text, Markdown, LaTeX, CSV and JSON. Text from a run stays text in each of them."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from boneage_trainer.contract import RESEARCH_ONLY
from boneagectl.output import table as aligned
from boneagectl.report.comparison import Comparison
from boneagectl.report.comparison_tables import PAPER_NOTE, PAPER_TIMINGS, ComparisonTable, differing_settings
from boneagectl.report.evaluation import RunPair
from boneagectl.report.export import csv_number, to_finite

SCHEMA = 1
_TEXT_WIDTH = 110
_ASCII = str.maketrans({"−": "-", "\u202f": " ", "–": "-", "…": "...", "²": "2", "·": "-"})
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$])")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "−": "$-$", "\u202f": r"\,", "²": r"\textsuperscript{2}",
    "<": r"\textless{}", ">": r"\textgreater{}", '"': r"\textquotedbl{}", "–": "--",
}  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
"""What a spreadsheet takes for the start of a formula or a command."""


def _one_line(text: str) -> str:
    """`text` without line breaks, control characters and changes of the writing direction."""
    allowed = (char for char in text if char.isprintable() or char.isspace())
    return "".join(" " if char.isspace() and char != "\u202f" else char for char in allowed)


# ------------------------------------------------------------------------------------ text
def format_text(comparison: Comparison) -> str:
    """For a terminal; ASCII except for the runs' own names."""
    parts = [RESEARCH_ONLY, "\n".join(_wrap(f"- {_one_line(note)}") for note in comparison.notes)]
    for table in comparison.tables:
        rows = [[_one_line(cell) for cell in row] for row in table.rows]
        note = f"\n{_wrap(_one_line(table.note))}" if table.note else ""
        parts.append(f"{_one_line(table.caption)}\n{aligned(table.columns, rows)}{note}")
    return "\n\n".join(parts).translate(_ASCII) + "\n"


def _wrap(text: str) -> str:
    return textwrap.fill(text, _TEXT_WIDTH, subsequent_indent="  " if text.startswith("- ") else "")


# ---------------------------------------------------------------------------------- Markdown
def format_markdown(comparison: Comparison) -> str:
    notes = "\n".join(f"- {_markdown_text(note)}" for note in comparison.notes)
    parts = [f"# {_markdown_text(comparison.title)}", f"**{RESEARCH_ONLY}**", notes]
    for table in comparison.tables:
        rows = [_markdown_row(table.columns), "|" + "---|" * len(table.columns), *map(_markdown_row, table.rows)]
        parts += [f"## {_markdown_text(table.caption)}", "\n".join(rows)]
        parts += [_markdown_text(table.note)] if table.note else []
    return "\n\n".join(parts) + "\n"


def _markdown_text(text: str) -> str:
    """`text` as Markdown shows it, HTML included."""
    safe = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", safe)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_markdown_text, cells))} |"


# ------------------------------------------------------------------------------------- LaTeX
def format_latex(comparison: Comparison) -> str:
    """A ``table`` environment for each table, with the rules of the booktabs package."""
    comments = [RESEARCH_ONLY, "Requires \\usepackage{booktabs,graphicx}.", *map(_one_line, comparison.notes)]
    return "\n".join([*(f"% {line}" for line in comments), *map(_latex_table, comparison.tables)]) + "\n"


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in _one_line(text))


def _latex_table(table: ComparisonTable) -> str:
    caption = _latex_text(f"{table.caption}. {table.note} {RESEARCH_ONLY}".replace(".. ", ". ").replace("  ", " "))
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{tab:boneage-{table.key}}}",
        r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", r"\toprule",
        _latex_row(table.columns), r"\midrule", *map(_latex_row, table.rows), r"\bottomrule", r"\end{tabular}}",
        r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines)


def _latex_row(cells: Iterable[str]) -> str:
    # A row that began with a bracket would be read as an argument of the line break before it.
    return " & ".join(f"{{}}{_latex_text(cell)}" for cell in cells) + r" \\"


# --------------------------------------------------------------------------------------- CSV
def format_csv(comparison: Comparison) -> str:
    """One line per run with its numbers in full; an empty cell is unknown. ``note`` ends each line.

    The pair with the first run is in the ``against_first_*`` columns, which are empty for the first run.
    """
    pairs = [dict.fromkeys(_pair_values(comparison.pairs[0])), *map(_pair_values, comparison.pairs)]
    rows = [{**run.values, **pair} for run, pair in zip(comparison.runs, pairs, strict=True)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*rows[0], "note"])
    writer.writerows([*map(_csv_cell, row.values()), RESEARCH_ONLY] for row in rows)
    return stream.getvalue()


def _pair_values(pair: RunPair) -> dict[str, Any]:
    low, high = pair.ci95_months or (None, None)
    return {
        "against_first_n": pair.n, "against_first_difference_months": pair.difference_months,
        "against_first_ci95_low_months": low, "against_first_ci95_high_months": high,
        "against_first_improved_share": pair.improved_share,
    }  # fmt: skip


def _csv_cell(value: Any) -> str:
    """A number in full, or a text that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, float):
        return csv_number(value)
    text = _one_line(str(value))
    return f"'{text}" if not isinstance(value, int) and text.lstrip().startswith(_FORMULA) else text


# -------------------------------------------------------------------------------------- JSON
def format_json(comparison: Comparison) -> str:
    """One object; what is unknown is null.

    ``schema``, ``research_only``, ``command``, ``notes``; ``runs`` with each run's numbers, units in the names;
    ``pairs`` with the first run; ``differing_settings`` with each run's value; ``reference``: the paper's times.
    """
    document = {
        "schema": SCHEMA,
        "research_only": RESEARCH_ONLY,
        "command": comparison.command,
        "notes": comparison.notes,
        "runs": [to_finite(run.values) for run in comparison.runs],
        "pairs": [{**asdict(pair), "verdict": pair.verdict} for pair in comparison.pairs],
        "differing_settings": differing_settings(comparison.runs),
        "reference": {"note": PAPER_NOTE, "timings": [asdict(timing) for timing in PAPER_TIMINGS]},
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
