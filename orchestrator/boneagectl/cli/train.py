"""train: what is worth knowing of a trainer and its models without submitting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneagectl.cli import handover, options
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
    handover.run("check", arguments, handover.MODEL_NEEDS, "train", json)


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
    handover.run("evaluate", arguments, handover.MODEL_NEEDS, "train", json)
