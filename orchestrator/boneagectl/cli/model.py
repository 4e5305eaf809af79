"""train: what is worth knowing of a trainer and its models without submitting anything."""

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

from boneage_trainer.contract import RunFolder
from boneagectl.cli import options
from boneagectl.errors import MachineError, NotYet, UsageError
from boneagectl.output import Printer, table

app = typer.Typer(
    name="train",
    help="List presets; check a trainer, evaluate a model.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def presets(json: options.Json = False) -> None:
    """List the presets: what each is, needs and has reached.

    Example: boneagectl train presets --json
    """
    from boneage_trainer.contract import PRESETS

    values = {
        name: {
            "description": one.description,
            "needs": one.needs,
            "reached": one.reached,
            "size_px": list(one.size_px),
            "settings": one.settings,
        }
        for name, one in PRESETS.items()
    }
    rows = [(name, "-".join(map(str, sorted({*one.size_px}))), one.needs) for name, one in PRESETS.items()]
    about = "\n\n".join(f"{name}: {one.description}.\n  reached: {one.reached}" for name, one in PRESETS.items())
    Printer(json).data({"presets": values}, f"{table(('PRESET', 'PX', 'NEEDS'), rows)}\n\n{about}")


@app.command()
def check(
    preset: Annotated[str, typer.Option("--preset", help="Whose network and phases to check.")] = "tiny",
    pack: Annotated[
        Path | None, typer.Option("--data", help="Take the first images of this pack; else drawn ones.")
    ] = None,
    size: Annotated[int, typer.Option("--size", metavar="PX", min=32, max=512, help="Side of drawn images.")] = 64,
    json: options.Json = False,
) -> None:
    """Run the whole trainer on 32 images, in seconds.

    Learns them by heart, pauses, goes on, saves, loads, predicts. Says nothing of accuracy.

    Example: boneagectl train check --preset tiny
    """
    from boneagectl.config import check_preset

    check_preset(preset)
    arguments = ["--preset", preset, "--size-px", size, *(["--data", pack] if pack else [])]
    run_trainer("check", arguments, MODEL_NEEDS, "train", json)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder that `collect` printed: it holds model.keras.")],
    pack: Annotated[Path, typer.Option("--data", help="The pack to predict.")],
    split: Annotated[str, typer.Option("--split", help="Only the test part of this split; or all.")] = "all",
    views: Annotated[int, typer.Option("--views", min=1, max=10, help="How many views to average over.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write evaluation.json and predictions.csv here.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Evaluate a model on any pack with ages.

    Says so where it was trained on some of the images.

    Example: boneagectl train evaluate "$(boneagectl collect last)" --data pack --split paper
    """
    arguments = [run, "--data", pack, "--split", split, "--views", views, *(["--out", out] if out else [])]
    run_trainer("evaluation.evaluate", arguments, MODEL_NEEDS, "train", json)


# == predict: predict: ages for image files by a run's model.

_SEXES = "A csv of id and male (or sex); an id is a file's name without its ending."
_OUT = "Write a table here instead of printing lines."


def predict(
    run: RunOrFolder,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG or DICOM files, or folders.")],
    sex: Annotated[str | None, typer.Option("--sex", metavar="male|female", help="Of all the images.")] = None,
    sexes: Annotated[Path | None, typer.Option("--sexes", metavar="FILE.csv", help=_SEXES)] = None,
    views: Annotated[
        int | None, typer.Option("--views", min=1, max=10, help="Views to average over; by default as the run's test.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.csv", help=_OUT)] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Take any picture for a radiograph of a hand.")] = False,
    json: options.Json = False,
) -> None:
    """Read ages off radiographs. Research only.

    Each with the 95 % limits that the run's own test images give. What is no radiograph of a hand is refused.

    Example: boneagectl predict last hand.png --sex female
    """
    if sex not in (None, "male", "female"):
        raise UsageError(f"--sex must be male or female, not {sex!r}")
    if sex and sexes:
        raise UsageError("--sex and --sexes say the same: give one of them")
    require("predict", MODEL_NEEDS, "train")
    found = finished(run)
    given = {"--sex": sex, "--sexes": sexes, "--views": views, "--out": out}
    named = [word for name, value in given.items() if value is not None for word in (name, value)]
    arguments = [*named, *(["--anyway"] if anyway else []), "--", found.folder, *images]
    run_trainer("inference.command", arguments, MODEL_NEEDS, "train", json)


# == export: export: a run's model for other runtimes, a run for experiment trackers.


class ModelFormat(StrEnum):
    KERAS = "keras"
    SAVEDMODEL = "savedmodel"
    ONNX = "onnx"
    TFLITE = "tflite"


_FORMAT_NEEDS = {ModelFormat.ONNX: ("onnx", "onnxruntime", "tf2onnx"), ModelFormat.TFLITE: ("ai_edge_litert",)}
_TRACKER_NEEDS = {"mlflow": ("mlflow", "sqlalchemy", "alembic"), "tensorboard": ()}
_TO = "Where its settings, figures and files go: mlflow sqlite:///PATH/mlflow.db, or tensorboard FOLDER."
_PACK = "Check on images of this pack; else on drawn ones."
_IMAGES = "MLflow: send gradcam.png as well, which contains radiographs."


def export(
    run: RunOrFolder = "last",
    formats: Annotated[list[ModelFormat] | None, typer.Option("--format", help="May be repeated.")] = None,
    to: Annotated[tuple[str, str] | None, typer.Option("--to", metavar="TRACKER PLACE", help=_TO)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="Of the files; by default beside the run.")
    ] = None,
    pack: Annotated[Path | None, typer.Option("--data", metavar="PACK", help=_PACK)] = None,
    with_images: Annotated[bool, typer.Option("--with-images", help=_IMAGES)] = False,
    json: options.Json = False,
) -> None:
    """Hand a model to other runtimes, a run to a tracker.

    Every file is checked to predict the same months as the run's model before it is left; its model card comes along.

    Example: boneagectl export last --format onnx --format tflite
    """
    if bool(formats) == bool(to):
        raise UsageError("give either --format or --to", "boneagectl export last --format onnx")
    if to:
        _track(run, to, with_images, json)
    else:
        _write(run, list(formats or []), out, pack, json)


def _write(run: str, formats: list[ModelFormat], out: Path | None, pack: Path | None, json: bool) -> None:
    require("export", MODEL_NEEDS, "train")
    for one in formats:
        require(f"export --format {one}", _FORMAT_NEEDS.get(one, ()), "export")
    found = finished(run)
    named = [word for one in formats for word in ("--format", one)]
    arguments = [*named, "--out", out or found.exports, *(["--data", pack] if pack else []), "--", found.folder]
    run_trainer("export.command", arguments, MODEL_NEEDS, "train", json)


def _track(run: str, to: tuple[str, str], with_images: bool, json: bool) -> None:
    if to[0] not in _TRACKER_NEEDS:
        raise UsageError(f"--to must begin with {' or '.join(_TRACKER_NEEDS)}, not {to[0]!r}")
    require("export", MODEL_NEEDS, "train")
    require(f"export --to {to[0]}", _TRACKER_NEEDS[to[0]], "mlflow")
    found = finished(run)
    named = ["--name", found.name] if found.name else []
    arguments = ["--to", *to, *named, *(["--with-images"] if with_images else []), "--", found.folder]
    run_trainer("export.track", arguments, MODEL_NEEDS, "train", json)


# == handover: Hands a command over to the trainer's own module, in a process of its own, which prints its own errors.

RunOrFolder = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, the beginning of one, 'last', or a folder with model.keras.")
]
MODEL_NEEDS = ("numpy", "pandas", "cv2", "keras", "tensorflow")
"""What whatever opens a model needs, all of it in the extra ``train``."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has a model: its folder, what it is called (None: by itself) and where its exports go."""

    folder: Path
    name: str | None
    exports: Path


def run_trainer(module: str, arguments: Sequence[object], needs: Sequence[str], extra: str, json: bool) -> None:
    """Runs ``boneage_trainer.MODULE`` and ends with its exit code.

    Raises:
        MachineError: a package in `needs` is missing; `extra` would bring it.
    """
    require(module.rpartition(".")[2], needs, extra)
    # First, since a name that begins with a dash can only follow after "--".
    command = [sys.executable, "-m", f"boneage_trainer.{module}", *(["--json"] if json else []), *map(str, arguments)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def require(what: str, needs: Sequence[str], extra: str) -> None:
    """Raises MachineError where a package in `needs` is missing; `extra` would bring it."""
    for package in needs:
        if importlib.util.find_spec(package) is None:
            raise MachineError(f"{what} needs {package}, which is not installed", f"pip install 'boneagectl[{extra}]'")


def finished(run: str) -> Finished:
    """A folder that holds model.keras, or the run of that name, which is collected.

    Raises:
        UsageError: neither. NotYet: the run has no model so far.
    """
    folder = RunFolder(Path(run))
    if folder.model.is_file():
        return Finished(folder.root, None, folder.root / "export")
    with options.workflow() as flow:
        flow.refresh()
        found = flow.ledger.find_run(run)
        collected = RunFolder(flow.collect(found).folder)
        if not collected.model.is_file():
            state = found.latest.state
            raise NotYet(f"{found.run_id} has no model yet: it is {state}", f"boneagectl watch {found.run_id}")
        return Finished(collected.root, found.run_id, flow.home.run(found.run_id) / "export")
