"""A run folder as the trainer writes it: 24 epochs in two legs, 2,523 predictions, always the same."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder
from boneage_trainer.evaluation import metrics

EPOCHS, LEG_ENDS_AFTER = 24, 13
COUNTS = {"validation": 2017, "test": 2523}
COLUMNS = ("male", "boneage_months", "predicted_months")
BASELINES = {"baseline_median_mae_months": 33.04, "baseline_median_by_sex_mae_months": 30.9}

FACTS: dict[str, Any] = {
    "run_id": "paper-resnet-7f3a",
    "legs": [
        {"id": "7f3a-1", "number": 1, "target": "kaggle", "state": "paused", "reason": "deadline",
         "started": "2026-11-20T08:12:00Z", "hours": 0.41},
        {"id": "7f3a-2", "number": 2, "target": "kaggle", "state": "complete", "reason": None,
         "started": "2026-11-20T09:02:00Z", "hours": 0.37},
    ],
    "cost_usd": 0.0,
    "quota_hours": 0.78,
    "config": {"preset": "tiny", "epochs": 24, "batch_size": 32, "learning_rate": 0.002, "use_sex": True,
               "augment": "light", "split": "paper", "seed": 2018},
    "bundle_sha256": "5c1d" * 16,
    "command": "boneagectl report paper-resnet-7f3a",
}  # fmt: skip

ENVIRONMENT: dict[str, Any] = {
    "python": "3.12.4", "platform": "Linux 6.6 x86_64", "cpu": "Intel Xeon 2.0 GHz", "cores": 4, "ram_gb": 31.4,
    "packages": {"keras": "3.15.1", "tensorflow": "2.20.0", "numpy": "2.4.6"}, "backend": "tensorflow",
    "gpus": [{"name": "Tesla T4", "memory_gb": 15.6}],
    "data": {"fingerprint": "9eab" * 16, "count": 12611, "image_size_px": 128},
    "provenance": {"boneagectl": "0.1.0", "git_commit": "80396f4" + "0" * 33, "git_dirty_sha256": None},
    "times": {"startup_s": 41.5},
}  # fmt: skip


def epoch_lines() -> list[dict[str, Any]]:
    """24 lines; the first epoch is far off, validation wobbles, the second leg's clock starts at zero."""
    chance, lines = Random(7), []  # noqa: S311
    for epoch in range(1, EPOCHS + 1):
        leg = 1 if epoch <= LEG_ENDS_AFTER else 2
        training = 9.5 + 27 * math.exp(-epoch / 4)
        lines.append({
            "epoch": epoch, "leg": f"7f3a-{leg}", "images": 8071, "loss": 0.04 + 0.9 * math.exp(-epoch / 3),
            "mae_months": training, "val_mae_months": training + 1.4 + chance.uniform(-1, 2) * math.exp(-epoch / 15),
            "learning_rate": 0.001 * (1 + math.cos(math.pi * epoch / EPOCHS)), "epoch_s": 110.0, "load_s": 12.5,
            "compute_s": 84.0, "validate_s": 12.0, "checkpoint_s": 0.6, "load_ms_per_image": 1.5,
            "compute_ms_per_image": 10.4, "elapsed_s": 110.0 * epoch, "time_s": 1.79e9 + 110 * epoch,
        })  # fmt: skip
    return lines


def predictions(counts: dict[str, int] = COUNTS) -> list[dict[str, Any]]:
    """Rows as in the csv: ages near the data set's, a model with regression to the mean."""
    chance, rows = Random(2018), []  # noqa: S311
    for split, count in counts.items():
        for number in range(count):
            male = chance.random() < 0.54
            age = min(228, max(1, chance.gauss(134 if male else 118, 40)))
            age = round(age / 6) * 6 if chance.random() < 0.8 else round(age)
            error = chance.gauss(0.05 * (127 - age), 10.5 + (4 if age < 60 else 0))
            rows.append({"id": str(1377 + len(rows)), "split": split, "male": male, "boneage_months": max(age, 1),
                         "predicted_months": round(max(age, 1) + error, 4), "number": number})  # fmt: skip
    return rows


def evaluation(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the trainer writes of `rows`; the training set is unknown, so its baselines are fixed here."""
    sets, parts = {}, {}
    for name in COUNTS:
        own = [row for row in rows if row["split"] == name]
        male, months, predicted = (np.array([row[key] for row in own]) for key in COLUMNS)
        sets[name] = metrics.set_metrics([row["id"] for row in own], male, months, predicted) | BASELINES
        parts[name] = metrics.population(months, male)
    split = {"name": "paper", "sha256": "77aa" * 16, "counts": {"train": 8071, **COUNTS}}
    return {
        "schema": 1,
        "research_only": RESEARCH_ONLY,
        "labels": "single reader (training csv)",
        "split": split,
        "parts": parts,
        "sets": sets,
    }


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    lines = [
        f"{row['id']},{row['split']},{row['male']},{row['boneage_months']},{row['predicted_months']}" for row in rows
    ]
    path.write_text("\n".join(["id,split,male,boneage_months,predicted_months", *lines]) + "\n", encoding="utf-8")


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def fill(folder: RunFolder) -> RunFolder:
    """A complete run in `folder`."""
    folder.root.mkdir(parents=True, exist_ok=True)
    rows = predictions()
    write_lines(folder.metrics, epoch_lines())
    write_csv(folder.predictions, rows)
    folder.evaluation.write_text(json.dumps(evaluation(rows)), encoding="utf-8")
    folder.environment.write_text(json.dumps(ENVIRONMENT), encoding="utf-8")
    state = {"state": "complete", "reason": None, "epoch": EPOCHS, "epochs": EPOCHS, "leg": "7f3a-2"}
    folder.state.write_text(json.dumps(state), encoding="utf-8")
    return folder
