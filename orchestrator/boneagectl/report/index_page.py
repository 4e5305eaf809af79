"""The page over all runs: one line each, with a link to its report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder
from boneagectl.report import budget_figures, charts, comparison_run, data, text
from boneagectl.report.text import number
from boneagectl.templates import fill

TEMPLATE = "report/index.html.j2"
COLUMNS = (
    ("Run", True), ("State", True), ("Target", True), ("GPU really given", True), ("Epochs", False),
    ("Validation MAE by epoch", False), ("Lowest (months)", False), ("Test MAE (months)", False),
    ("95 % interval", False), ("Time", False), ("Cost", False), ("Quota hours", False), ("Created", True),
)  # fmt: skip
"""Headings, and whether the column is of words."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown, and what it is sorted by; an unknown number sorts last in both directions."""

    shown: str
    key: str
    is_drawing: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One run: its cells after the name, and where its report lies, if it has one."""

    run_id: str
    href: str
    cells: tuple[Cell, ...]


def entry(folder: RunFolder | None, facts: Mapping[str, Any], report: Path, page: Path) -> Entry:
    """The line of one run; `folder` is what was collected, if anything was.

    Raises:
        ContractError: a file is there and broken.
    """
    read = data.load_run(folder, facts, with_predictions=False) if folder else _empty(facts)
    href = quote(os.path.relpath(report, page.parent).replace(os.sep, "/")) if report.exists() else ""
    return Entry(read.run_id, href, _cells(read))


def _empty(facts: Mapping[str, Any]) -> data.ReportData:
    return data.ReportData(facts, (), (), {}, {}, {}, ())


def _cells(read: data.ReportData) -> tuple[Cell, ...]:
    values, best = comparison_run.values(read), read.best_epoch
    latest = (read.facts.get("legs") or [{}])[-1]
    lowest = number(best["val_mae_months"]) if best else None
    ends = (values["mae_ci95_low_months"], values["mae_ci95_high_months"])
    return (
        _text(latest.get("state")),
        _text(values["target"]),
        _text(values["gpu"]),
        _number(values["epochs"], text.count(values["epochs"])),
        _curve(read, lowest),
        _number(lowest, text.plain(lowest, 2)),
        _number(values["mae_months"], text.plain(values["mae_months"], 2)),
        _number(ends[0], text.interval(ends, 2)),
        _number(values["total_s"], text.duration(values["total_s"])),
        _number(values["cost_usd"], text.dollars(values["cost_usd"])),
        _number(values["quota_hours"], text.plain(values["quota_hours"], 2)),
        Cell(str(read.facts.get("created") or text.UNKNOWN)[:10], str(read.facts.get("created") or "")),
    )


def _text(value: Any) -> Cell:
    shown = text.UNKNOWN if value in (None, "") else str(value)
    return Cell(shown, "" if shown == text.UNKNOWN else shown)


def _number(value: float | None, shown: str) -> Cell:
    return Cell(shown, "" if value is None else repr(float(value)))


def _curve(read: data.ReportData, lowest: float | None) -> Cell:
    curve = [number(epoch.get("val_mae_months")) for epoch in read.epochs]
    if lowest is None:
        return Cell("no epoch yet", "")
    told = f"Validation error over {len(curve)} epochs, lowest {text.months(lowest)}"
    return Cell(charts.drawing(curve, told), repr(lowest), is_drawing=True)


def render(entries: Sequence[Entry], accounts: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page; it needs nothing beside it but the reports, and reads without its script, which only sorts.

    `accounts` are what `burndown.of` made, each of which becomes a figure.
    """
    heads = [{"name": name, "is_words": is_words} for name, is_words in COLUMNS]
    return fill(TEMPLATE, research_only=RESEARCH_ONLY, heads=heads, entries=entries, unknown=text.UNKNOWN,
                left=budget_figures.figures(accounts))  # fmt: skip
