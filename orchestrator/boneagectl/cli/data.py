"""data: synthetic hands, packs and their figures. The work is the trainer's, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneagectl.cli import handover, options

app = typer.Typer(
    name="data",
    help="Draw, prepare and describe radiographs.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)

_Size = Annotated[int, typer.Option("--size", metavar="PX", min=16, max=2048, help="Edge length of the square images.")]
_Csv = Annotated[str | None, typer.Option("--csv", metavar="NAME", help="Which csv, where the folder holds several.")]


@app.command()
def synth(
    dest: Annotated[Path, typer.Argument(help="New folder.")],
    n: Annotated[int, typer.Option("--n", min=1, max=100_000, help="How many radiographs.")] = 600,
    size: _Size = 128,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same bytes.")] = 1,
    json: options.Json = False,
) -> None:
    """Draw synthetic hand radiographs.

    They lie in the tree of the Kaggle set; the age signal differs by sex.

    Example: boneagectl data synth hands --n 600 --size 96
    """
    _run("synth", str(dest), "--n", str(n), "--size-px", str(size), "--seed", str(seed), json=json)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="Folder with a csv and images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The pack to make.")] = Path("pack"),
    size: _Size = 128,
    csv: _Csv = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; by default one a core.")] = None,
    json: options.Json = False,
) -> None:
    """Turn a tree of radiographs into a pack.

    One gray array, an index, a fingerprint. Goes on where it was cut off.

    Example: boneagectl data prepare rsna-bone-age --out pack --size 256
    """
    optional = [*(["--csv", csv] if csv else []), *(["--workers", str(workers)] if workers else [])]
    _run("prepare", str(source), "--out", str(out), "--size-px", str(size), *optional, json=json)


@app.command()
def describe(
    source: Annotated[Path, typer.Argument(help="A tree, a csv or a pack.")],
    split: Annotated[
        str, typer.Option("--split", help="paper, holdout:FRACTION:SEED, or a csv of id,split.")
    ] = "paper",
    samples: Annotated[
        Path | None, typer.Option("--samples", metavar="PNG", help="Also write a sheet of sample images.")
    ] = None,
    csv: _Csv = None,
    json: options.Json = False,
) -> None:
    """Show the counts, ages, histogram and split of a set.

    Example: boneagectl data describe pack --json
    """
    optional = [*(["--samples", str(samples)] if samples else []), *(["--csv", csv] if csv else [])]
    _run("describe", str(source), "--split", split, *optional, json=json)


def _run(module: str, *arguments: str, json: bool) -> None:
    handover.run(module, arguments, ("numpy", "pandas", "cv2"), "data", json)
