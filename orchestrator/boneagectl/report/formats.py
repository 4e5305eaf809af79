"""Tables as text, Markdown, LaTeX and CSV. What comes from a run stays text in each of them."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from boneage_trainer.contract import RESEARCH_ONLY
from boneagectl.output import table as aligned
from boneagectl.report.sheet import Table

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
