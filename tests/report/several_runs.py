"""Several run folders of the same test images, each a little worse than the one before; always the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RunFolder
from report.sample_run import ENVIRONMENT, FACTS, epoch_lines, write_csv, write_lines

DATA = {"fingerprint": "9eab" * 16, "count": 12611, "image_size_px": 128}
BASELINE_MONTHS = 33.0


def rows_of(count: int, worse_months: float = 0.0, first: int = 0) -> list[dict[str, Any]]:
    """`count` test images; errors of 6 to 12 months, and `worse_months` more."""
    rows = []
    for number in range(first, first + count):
        age, sign = 30 + (number * 37) % 190, 1 if number % 2 else -1
        size = 6 + (number * 7919 % 600) / 100 + worse_months * (1 + (number % 3 - 1) / 2)
        rows.append({"id": str(1000 + number), "split": "test", "male": number % 3 > 0, "boneage_months": age,
                     "predicted_months": round(age + sign * size, 3)})  # fmt: skip
    return rows


def write_split(path: Path, rows: list[dict[str, Any]], other: str = "") -> None:
    lines = [f"{row['id']},test,{other or 'ab'}{int(row['id']):014d}" for row in rows]
    path.write_text("\n".join(["id,split,sha256", *lines]) + "\n", encoding="utf-8")


def fill(folder: RunFolder, rows: list[dict[str, Any]], epochs: int = 24, leg: str = "a-1") -> RunFolder:
    """A complete run in `folder` that was tested on `rows`."""
    folder.root.mkdir(parents=True, exist_ok=True)
    lines = [{**epoch_lines()[place % 24], "epoch": place + 1, "leg": leg, "compile_s": 5.0 if place == 0 else 0.0,
              "elapsed_s": 40.0 + 110.0 * (place + 1)} for place in range(epochs)]  # fmt: skip
    write_lines(folder.metrics, lines)
    write_csv(folder.predictions, rows)
    write_split(folder.split, rows)
    errors = [abs(row["predicted_months"] - row["boneage_months"]) for row in rows]
    mae = sum(errors) / len(errors)
    test = {"n": len(rows), "mae_months": mae, "mae_ci95_months": [mae - 0.4, mae + 0.4], "rmse_months": mae + 2,
            "r2": 0.94, "bias_months": -0.2, "within_6_months": 0.4, "within_12_months": 0.9, "within_24_months": 1.0,
            "baseline_median_mae_months": BASELINE_MONTHS}  # fmt: skip
    split = {"name": "paper", "sha256": "77aa" * 16, "counts": {"test": len(rows)}}
    document = {"schema": 1, "labels": "single reader", "split": split, "sets": {"test": test}}
    folder.evaluation.write_text(json.dumps(document), encoding="utf-8")
    times = {"startup_s": 40.0, "evaluate_s": 21.5}
    folder.environment.write_text(json.dumps({**ENVIRONMENT, "data": DATA, "times": times}), encoding="utf-8")
    folder.state.write_text(json.dumps({"state": "complete", "epoch": epochs, "epochs": epochs}), encoding="utf-8")
    return folder


def facts(run_id: str, **more: Any) -> dict[str, Any]:
    """What the ledger knows about a run of two sessions that cost 1.50 dollars."""
    legs = [
        {"number": 1, "target": "azure", "state": "paused", "elapsed_s": 1500, "trainer_s": 1400.0},
        {"number": 2, "target": "azure", "state": "complete", "elapsed_s": 1600, "trainer_s": 1550.0},
    ]
    known = {"run_id": run_id, "legs": legs, "cost_usd": 1.5, "quota_hours": 0.0, "data": DATA,
             "created": "2026-11-24T10:00:00Z"}  # fmt: skip
    return {**FACTS, **known, **more}
