"""From a run to its report: collect, gather what the ledger knows, render, write."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_trainer.contract import RunFolder, write_atomic
from boneagectl import units
from boneagectl.output import Format
from boneagectl.records import Leg, Run, as_json

if TYPE_CHECKING:
    from boneagectl.workflow import Workflow


def build(flow: Workflow, run: Run, wanted: Format) -> str:
    """Collects `run` and renders its report.

    Raises:
        NotYet: no leg of the run has made anything.
    """
    from boneagectl.report import build as report

    data = report.load_run(RunFolder(flow.collect(run).folder), facts(run))
    if wanted is Format.HTML:
        return report.render_html(data)
    return report.to_csv(data) if wanted is Format.CSV else json.dumps(report.to_json(data), indent=2) + "\n"


def facts(run: Run) -> dict[str, Any]:
    """What the ledger knows of a run and its folder does not."""
    return {
        "run_id": run.run_id,
        "legs": [_leg_facts(leg) for leg in run.legs],
        "cost_usd": units.to_usd(sum(leg.spent_usd_micro or 0 for leg in run.legs)),
        "quota_hours": 0.0,
        "config": as_json(run.config),
        "bundle_sha256": run.bundle_sha256,
        "command": f"boneagectl report {run.run_id}",
    }


def _leg_facts(leg: Leg) -> dict[str, Any]:
    return {
        "id": leg.leg_id,
        "number": leg.number,
        "target": leg.target,
        "state": str(leg.state),
        "reason": leg.reason,
        "started": leg.created,
        "hours": leg.elapsed_s / 3600,
    }


def deliver(content: str, path: Path | None) -> None:
    """Writes `path` atomically, or stdout where there is none."""
    if path:
        write_atomic(path, content)
    else:
        sys.stdout.write(content)
