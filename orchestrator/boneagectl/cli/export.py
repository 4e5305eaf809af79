"""export: a run's model for other runtimes, a run for experiment trackers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from boneagectl.cli import handover, options
from boneagectl.errors import UsageError


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
    run: handover.RunOrFolder = "last",
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
    handover.require("export", handover.MODEL_NEEDS, "train")
    for one in formats:
        handover.require(f"export --format {one}", _FORMAT_NEEDS.get(one, ()), "export")
    found = handover.finished(run)
    named = [word for one in formats for word in ("--format", one)]
    arguments = [*named, "--out", out or found.exports, *(["--data", pack] if pack else []), "--", found.folder]
    handover.run("handover.export", arguments, handover.MODEL_NEEDS, "train", json)


def _track(run: str, to: tuple[str, str], with_images: bool, json: bool) -> None:
    if to[0] not in _TRACKER_NEEDS:
        raise UsageError(f"--to must begin with {' or '.join(_TRACKER_NEEDS)}, not {to[0]!r}")
    handover.require("export", handover.MODEL_NEEDS, "train")
    handover.require(f"export --to {to[0]}", _TRACKER_NEEDS[to[0]], "mlflow")
    found = handover.finished(run)
    named = ["--name", found.name] if found.name else []
    arguments = ["--to", *to, *named, *(["--with-images"] if with_images else []), "--", found.folder]
    handover.run("handover.track", arguments, handover.MODEL_NEEDS, "train", json)
