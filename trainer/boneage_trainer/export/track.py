"""Hands a run over to an experiment tracker: an MLflow store in SQLite, or TensorBoard's event files.

    python -m boneage_trainer.export.track RUN_FOLDER --to mlflow sqlite:///PATH/mlflow.db [--with-images]
    python -m boneage_trainer.export.track RUN_FOLDER --to tensorboard FOLDER [--name NAME] [--json]

The same run again updates what is there.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boneage_trainer.console import print_result, print_status, run_command
from boneage_trainer.contract import RESEARCH_ONLY, ContractError, RunFolder
from boneage_trainer.errors import unknown_name
from boneage_trainer.export import run_record
from boneage_trainer.export.run_record import Record


def to_mlflow(found: Record, run: RunFolder, uri: str, with_images: bool) -> tuple[dict[str, Any], str]:
    from boneage_trainer.export import mlflow

    done = mlflow.write(found, run, uri, with_images)
    verb = "updated" if done["updated"] else "added"
    return done, (
        f"{verb} {found.name} in {done['store']}, {done['figures']} new figures, files in {done['artifacts']}\n"
        f"look at it with: mlflow ui --backend-store-uri {done['store']}"
    )


def to_tensorboard(found: Record, _run: RunFolder, folder: str, _with_images: bool) -> tuple[dict[str, Any], str]:
    from boneage_trainer.export import tensorboard

    path = tensorboard.write(found, Path(folder))
    done = {"file": str(path), "figures": len(found.figures)}
    return done, f"{path}\nlook at it with: tensorboard --logdir {folder}"


TRACKERS = {"mlflow": to_mlflow, "tensorboard": to_tensorboard}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.export.track", description=RESEARCH_ONLY)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--to", nargs=2, required=True, metavar=("TRACKER", "PLACE"), help=", ".join(TRACKERS))
    parser.add_argument("--name", help="what the run is called there; by default its own id")
    parser.add_argument("--with-images", action="store_true", help="MLflow: also gradcam.png, which has radiographs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(argv)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.disable(logging.WARNING)  # MLflow and its database library tell their own housekeeping
    warnings.filterwarnings("ignore")

    def command() -> None:
        tracker, place = given.to
        if tracker not in TRACKERS:
            raise ContractError(unknown_name("tracker", tracker, TRACKERS))
        run = RunFolder(given.run)
        with contextlib.redirect_stdout(sys.stderr):
            done, text = TRACKERS[tracker](run_record.of(run, given.name), run, place, given.with_images)
        print_status(RESEARCH_ONLY)
        print_result({**done, "research_only": RESEARCH_ONLY}, text, given.json)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
