"""The page over all runs: one line each, with a link to its report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder
from boneagectl.report import budget_figures, charts, text
from boneagectl.report.comparison_run import run_values
from boneagectl.report.data import ReportData, load_run
from boneagectl.report.text import number
from boneagectl.templates import fill

TEMPLATE = "report/index.html.j2"
COLUMNS = (
    ("Run", True), ("State", True), ("Target", True), ("GPU", True), ("Epochs", False),
    ("Validation MAE by epoch", False), ("Lowest (months)", False), ("Test MAE (months)", False),
    ("95 % CI", False), ("Time", False), ("Cost", False), ("Quota hours", False), ("Created", True),
)  # fmt: skip
"""Headings, and whether the column holds text."""


@dataclass(frozen=True, slots=True)
class IndexCell:
    """What is shown, and what it is sorted by; an unknown number sorts last in both directions."""

    shown: str
    key: str
    is_drawing: bool = False


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One run: its cells after the name, and the link to its report, if it has one."""

    run_id: str
    href: str
    cells: tuple[IndexCell, ...]


def build_row(folder: RunFolder | None, facts: Mapping[str, Any], report: Path, page: Path) -> IndexRow:
    """The line of one run; `folder` is what was collected, if anything was.

    Raises:
        ContractError: a file is there and broken.
    """
    data = ReportData(facts, (), (), {}, {}, {}, ())
    if folder:
        data = load_run(folder, facts, with_predictions=False)
    href = quote(os.path.relpath(report, page.parent).replace(os.sep, "/")) if report.exists() else ""
    values, best = run_values(data), data.best_epoch
    last_leg, created = (facts.get("legs") or [{}])[-1], str(facts.get("created") or "")
    lowest = number(best["val_mae_months"]) if best else None
    interval = (values["mae_ci95_low_months"], values["mae_ci95_high_months"])
    cells = (
        _text_cell(last_leg.get("state")),
        _text_cell(values["target"]),
        _text_cell(values["gpu"]),
        _number_cell(values["epochs"], text.count(values["epochs"])),
        _curve_cell(data, lowest),
        _number_cell(lowest, text.plain(lowest, 2)),
        _number_cell(values["mae_months"], text.plain(values["mae_months"], 2)),
        _number_cell(interval[0], text.interval(interval, 2)),
        _number_cell(values["total_s"], text.duration(values["total_s"])),
        _number_cell(values["cost_usd"], text.dollars(values["cost_usd"])),
        _number_cell(values["quota_hours"], text.plain(values["quota_hours"], 2)),
        IndexCell(created[:10] or text.UNKNOWN, created),
    )
    return IndexRow(data.run_id, href, cells)


def _text_cell(value: Any) -> IndexCell:
    return IndexCell(text.UNKNOWN, "") if value in (None, "") else IndexCell(str(value), str(value))


def _number_cell(value: float | None, shown: str) -> IndexCell:
    return IndexCell(shown, "" if value is None else repr(float(value)))


def _curve_cell(data: ReportData, lowest: float | None) -> IndexCell:
    curve = [number(epoch.get("val_mae_months")) for epoch in data.epochs]
    if lowest is None:
        return IndexCell("no epoch yet", "")
    label = f"Validation error over {len(curve)} epochs, lowest {text.months(lowest)}"
    return IndexCell(charts.sparkline_svg(curve, label), repr(lowest), is_drawing=True)


def render_index(rows: Sequence[IndexRow], accounts: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page; it needs nothing beside it but the reports, and its script does nothing but sort.

    `accounts` are what `burndown.limit_series` made, each of which becomes a figure.
    """
    heads = [{"name": name, "is_words": is_text} for name, is_text in COLUMNS]
    left = [*map(budget_figures.draw_burndown, accounts)]
    return fill(TEMPLATE, research_only=RESEARCH_ONLY, heads=heads, entries=rows, left=left)
