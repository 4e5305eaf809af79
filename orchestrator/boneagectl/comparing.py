"""From runs to their comparison: collect each, gather what the ledger knows, put them beside each other."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boneage_trainer.contract import RunFolder
from boneagectl import reporting
from boneagectl.errors import UsageError
from boneagectl.output import ComparisonFormat
from boneagectl.records import Run

if TYPE_CHECKING:
    from boneagectl.workflow import Workflow


def find(flow: Workflow, names: Sequence[str]) -> list[Run]:
    """The runs called so, in the order given: the first is the one the others are held against.

    Raises:
        UsageError: fewer than two, or one twice.
    """
    runs = [flow.ledger.find_run(name) for name in names]
    ids = [run.run_id for run in runs]
    if twice := sorted({run_id for run_id in ids if ids.count(run_id) > 1}):
        raise UsageError(f"{', '.join(twice)} is named twice", "compare RUN RUN, with two different runs")
    if len(runs) < 2:
        raise UsageError("a comparison needs two runs or more", "boneagectl ls shows them")
    return runs


def build(flow: Workflow, runs: Sequence[Run], wanted: ComparisonFormat) -> str:
    """Collects `runs` and renders their comparison.

    Raises:
        NotYet: no leg of a run has made anything.
    """
    from boneagectl.report import compare, compared

    found = [compared.load(RunFolder(flow.collect(run).folder), reporting.facts(flow, run)) for run in runs]
    command = shlex.join(["boneagectl", "compare", *(run.run_id for run in runs)])
    written = {
        ComparisonFormat.TEXT: compare.to_text,
        ComparisonFormat.HTML: compare.to_html,
        ComparisonFormat.CSV: compare.to_csv,
        ComparisonFormat.JSON: compare.to_json,
        ComparisonFormat.MARKDOWN: compare.to_markdown,
        ComparisonFormat.LATEX: compare.to_latex,
    }
    return written[wanted](compare.compared(found, command))
