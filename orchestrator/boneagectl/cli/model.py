"""train, predict and export: a run's model, and the trainer itself, without submitting anything.

The work is done by the trainer's own modules in a process of their own, which print their own errors.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from boneage_trainer.contract import PRESETS, RunFolder
from boneagectl.cli import options
from boneagectl.errors import MachineError, NotYet, UsageError
from boneagectl.output import Printer, table

app = options.command_group("train", no_args_is_help=True)

MODEL_NEEDS = ("numpy", "pandas", "cv2", "keras", "tensorflow")
"""Packages that every command with a model needs; the extra ``train`` installs them."""
_RUN = "Run name, a unique prefix of it, 'last', or a folder with model.keras."
RunOrFolder = Annotated[str, typer.Argument(metavar="RUN", help=_RUN)]


class ModelFormat(StrEnum):
    KERAS = "keras"
    SAVEDMODEL = "savedmodel"
    ONNX = "onnx"
    TFLITE = "tflite"


_FORMAT_NEEDS = {ModelFormat.ONNX: ("onnx", "onnxruntime", "tf2onnx"), ModelFormat.TFLITE: ("ai_edge_litert",)}
_TRACKER_NEEDS = {"mlflow": ("mlflow", "sqlalchemy", "alembic"), "tensorboard": ()}
_CHECK_PACK = "Use the first images of this pack (default: synthetic hands)."
_CHECK_SIZE = "Side of the synthetic images."
_EVALUATE_OUT = "Also write evaluation.json and predictions.csv here."
_SEXES = "Csv with the columns id and male (or sex); an id is a file name without its extension."
_OUT = "Write a csv instead of printing lines."
_VIEWS = "Views per image to average (default: as in the run's test)."
_ANYWAY = "Accept any picture as a hand radiograph."
_TO = "Log settings, metrics and files: mlflow sqlite:///PATH/mlflow.db, or tensorboard FOLDER."
_EXPORT_OUT = "Output folder (default: beside the run)."
_CHECK_ON = "Check the exported model on this pack (default: synthetic hands)."
_IMAGES = "MLflow: also log gradcam.png, which contains radiographs."


@app.command()
def presets(json: options.Json = False) -> None:
    """List the presets with their requirements and results.

    Example: boneagectl train presets --json
    """
    values = {
        name: {"description": preset.description, "needs": preset.needs, "reached": preset.reached,
               "size_px": list(preset.size_px), "settings": preset.settings}
        for name, preset in PRESETS.items()
    }  # fmt: skip
    rows = [(name, "-".join(map(str, sorted({*preset.size_px}))), preset.needs) for name, preset in PRESETS.items()]
    texts = [f"{name}: {preset.description}.\n  result: {preset.reached}" for name, preset in PRESETS.items()]
    about = "\n\n".join(texts)
    Printer(json).data({"presets": values}, f"{table(('PRESET', 'PX', 'NEEDS'), rows)}\n\n{about}")


@app.command()
def check(
    preset: Annotated[str, typer.Option("--preset", help="Preset whose network and phases are checked.")] = "tiny",
    pack: Annotated[Path | None, typer.Option("--data", help=_CHECK_PACK)] = None,
    size: Annotated[int, typer.Option("--size", metavar="PX", min=32, max=512, help=_CHECK_SIZE)] = 64,
    json: options.Json = False,
) -> None:
    """Run the whole trainer on 32 images, in seconds.

    Overfits a small batch, pauses, resumes, saves, reloads and predicts. Says nothing about accuracy.

    Example: boneagectl train check --preset tiny
    """
    from boneagectl.config import check_preset

    check_preset(preset)
    arguments = ["--preset", preset, "--size-px", size, *(["--data", pack] if pack else [])]
    run_trainer("check", arguments, MODEL_NEEDS, "train", json)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder with model.keras, as printed by `collect`.")],
    pack: Annotated[Path, typer.Option("--data", help="Pack to predict.")],
    split: Annotated[str, typer.Option("--split", help="Evaluate the test part of this split only.")] = "all",
    views: Annotated[int, typer.Option("--views", min=1, max=10, help="Views per image to average.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", help=_EVALUATE_OUT)] = None,
    json: options.Json = False,
) -> None:
    """Evaluate a model on any pack with ages.

    Warns if the model was trained on some of the images.

    Example: boneagectl train evaluate "$(boneagectl collect last)" --data pack --split paper
    """
    arguments = [run, "--data", pack, "--split", split, "--views", views, *(["--out", out] if out else [])]
    run_trainer("evaluation.evaluate", arguments, MODEL_NEEDS, "train", json)


def predict(
    run: RunOrFolder,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG or DICOM files, or folders.")],
    sex: Annotated[str | None, typer.Option("--sex", metavar="male|female", help="Sex for all images.")] = None,
    sexes: Annotated[Path | None, typer.Option("--sexes", metavar="FILE.csv", help=_SEXES)] = None,
    views: Annotated[int | None, typer.Option("--views", min=1, max=10, help=_VIEWS)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.csv", help=_OUT)] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help=_ANYWAY)] = False,
    json: options.Json = False,
) -> None:
    """Predict bone age from radiographs.

    Each prediction has bias-corrected 95 % limits of agreement from the run's test set. Images that do not look like
    a hand radiograph are refused. For research only.

    Example: boneagectl predict last hand.png --sex female
    """
    if sex not in (None, "male", "female"):
        raise UsageError(f"--sex must be male or female, not {sex!r}")
    if sex and sexes:
        raise UsageError("--sex and --sexes exclude each other")
    require("predict", MODEL_NEEDS, "train")
    folder = find_model(run).folder
    given = {"--sex": sex, "--sexes": sexes, "--views": views, "--out": out}
    named = [word for name, value in given.items() if value is not None for word in (name, value)]
    arguments = [*named, *(["--anyway"] if anyway else []), "--", folder, *images]
    run_trainer("inference.command", arguments, MODEL_NEEDS, "train", json)


def export(
    run: RunOrFolder = "last",
    formats: Annotated[list[ModelFormat] | None, typer.Option("--format", help="May be repeated.")] = None,
    to: Annotated[tuple[str, str] | None, typer.Option("--to", metavar="TRACKER LOCATION", help=_TO)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FOLDER", help=_EXPORT_OUT)] = None,
    pack: Annotated[Path | None, typer.Option("--data", metavar="PACK", help=_CHECK_ON)] = None,
    with_images: Annotated[bool, typer.Option("--with-images", help=_IMAGES)] = False,
    json: options.Json = False,
) -> None:
    """Export a model (ONNX, TFLite, ...) or log a run to MLflow or TensorBoard.

    Each exported model is verified against the run's own predictions, and a model card is written beside it.

    Example: boneagectl export last --format onnx --format tflite
    """
    if bool(formats) == bool(to):
        raise UsageError("give either --format or --to", "boneagectl export last --format onnx")
    if to:
        _track(run, to, with_images, json)
        return
    require("export", MODEL_NEEDS, "train")
    for name in formats or []:
        require(f"export --format {name}", _FORMAT_NEEDS.get(name, ()), "export")
    model = find_model(run)
    named = [word for name in formats or [] for word in ("--format", name)]
    arguments = [*named, "--out", out or model.exports, *(["--data", pack] if pack else []), "--", model.folder]
    run_trainer("export.command", arguments, MODEL_NEEDS, "train", json)


def _track(run: str, to: tuple[str, str], with_images: bool, json: bool) -> None:
    if to[0] not in _TRACKER_NEEDS:
        raise UsageError(f"--to must start with {' or '.join(_TRACKER_NEEDS)}, not {to[0]!r}")
    require("export", MODEL_NEEDS, "train")
    require(f"export --to {to[0]}", _TRACKER_NEEDS[to[0]], "mlflow")
    model = find_model(run)
    named = ["--name", model.run_id] if model.run_id else []
    arguments = ["--to", *to, *named, *(["--with-images"] if with_images else []), "--", model.folder]
    run_trainer("export.track", arguments, MODEL_NEEDS, "train", json)


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """The folder with model.keras, its run's name (None: a folder without a run) and where exports are written."""

    folder: Path
    run_id: str | None
    exports: Path


def find_model(run: str) -> ModelLocation:
    """A folder with model.keras, or the run of that name, whose outputs are collected.

    Raises:
        UsageError: neither. NotYet: the run has no model yet.
    """
    folder = RunFolder(Path(run))
    if folder.model.is_file():
        return ModelLocation(folder.root, None, folder.root / "export")
    with options.workflow() as flow:
        flow.refresh()
        selected = flow.ledger.find_run(run)
        outputs = RunFolder(flow.collect(selected).folder)
        run_id = selected.run_id
        if not outputs.model.is_file():
            raise NotYet(f"{run_id} has no model yet: it is {selected.latest.state}", f"boneagectl watch {run_id}")
        return ModelLocation(outputs.root, run_id, flow.home.run(run_id) / "export")


def run_trainer(module: str, arguments: Sequence[object], needs: Sequence[str], extra: str, json: bool) -> None:
    """Runs ``boneage_trainer.MODULE`` in a process of its own and exits with its exit code.

    Raises:
        MachineError: a package in `needs` is not installed; `extra` installs it.
    """
    require(module.rpartition(".")[2], needs, extra)
    # --json comes first: names that start with a dash can only follow "--".
    command = [sys.executable, "-m", f"boneage_trainer.{module}", *(["--json"] if json else []), *map(str, arguments)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def require(what: str, needs: Sequence[str], extra: str) -> None:
    """Raises MachineError if a package in `needs` is not installed; `extra` installs it."""
    for package in needs:
        if importlib.util.find_spec(package) is None:
            raise MachineError(f"{what} needs {package}, which is not installed", f"pip install 'boneagectl[{extra}]'")
