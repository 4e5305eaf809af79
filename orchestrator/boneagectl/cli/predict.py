"""predict: ages for image files by a run's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneagectl.cli import handover, options
from boneagectl.errors import UsageError

_SEXES = "A csv of id and male (or sex); an id is a file's name without its ending."
_OUT = "Write a table here instead of printing lines."


def predict(
    run: handover.RunOrFolder,
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
    handover.require("predict", handover.MODEL_NEEDS, "train")
    found = handover.finished(run)
    given = {"--sex": sex, "--sexes": sexes, "--views": views, "--out": out}
    named = [word for name, value in given.items() if value is not None for word in (name, value)]
    arguments = [*named, *(["--anyway"] if anyway else []), "--", found.folder, *images]
    handover.run("handover.predict", arguments, handover.MODEL_NEEDS, "train", json)
