"""Logs a run to an experiment tracker: an MLflow store in SQLite, or TensorBoard's event files.

    python -m boneage_trainer.export.track RUN_FOLDER --to mlflow sqlite:///PATH/mlflow.db [--with-images]
    python -m boneage_trainer.export.track RUN_FOLDER --to tensorboard FOLDER [--name NAME] [--json]

Logging the same run again updates it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boneage_trainer.console import print_result, print_status, run_keras_command
from boneage_trainer.contract import RESEARCH_ONLY, ContractError, RunFolder, unknown_name
from boneage_trainer.export import run_record
from boneage_trainer.export.run_record import RunRecord


def log_to_mlflow(record: RunRecord, run: RunFolder, uri: str, with_images: bool) -> tuple[dict[str, Any], str]:
    from boneage_trainer.export import mlflow

    result = mlflow.write_run(record, run, uri, with_images)
    verb = "updated" if result["updated"] else "added"
    return result, (
        f"{verb} {record.name} in {result['store']}, {result['figures']} new metric values, files in"
        f" {result['artifacts']}\nview: mlflow ui --backend-store-uri {result['store']}"
    )


def log_to_tensorboard(record: RunRecord, _run: RunFolder, folder: str, _images: bool) -> tuple[dict[str, Any], str]:
    from boneage_trainer.export import tensorboard

    path = tensorboard.write_events(record, Path(folder))
    return {"file": str(path), "figures": len(record.metrics)}, f"{path}\nview: tensorboard --logdir {folder}"


TRACKERS = {"mlflow": log_to_mlflow, "tensorboard": log_to_tensorboard}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.export.track", description=RESEARCH_ONLY)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--to", nargs=2, required=True, metavar=("TRACKER", "DESTINATION"), help=", ".join(TRACKERS))
    parser.add_argument("--name", help="name of the run in the tracker (default: its id)")
    parser.add_argument("--with-images", action="store_true", help="MLflow: also log gradcam.png (has radiographs)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    logging.disable(logging.WARNING)  # MLflow and its database library log their own housekeeping
    warnings.filterwarnings("ignore")

    def command() -> None:
        tracker, destination = arguments.to
        if tracker not in TRACKERS:
            raise ContractError(unknown_name("tracker", tracker, TRACKERS))
        run = RunFolder(arguments.run)
        with contextlib.redirect_stdout(sys.stderr):
            record = run_record.read_record(run, arguments.name)
            result, text = TRACKERS[tracker](record, run, destination, arguments.with_images)
        print_status(RESEARCH_ONLY)
        print_result({**result, "research_only": RESEARCH_ONLY}, text, arguments.json)

    return run_keras_command(command)


if __name__ == "__main__":
    sys.exit(main())
