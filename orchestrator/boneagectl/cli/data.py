"""data: synthetic hands, packs and their figures. The work is the trainer's, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_trainer.contract import PackFolder, write_atomic
from boneagectl import units
from boneagectl.cli import model, options
from boneagectl.errors import UsageError
from boneagectl.output import Printer
from boneagectl.paths import Home
from boneagectl.targets import azure_target, kaggle_target

_RSNA = "kmader/rsna-bone-age"
_TERMS = {
    _RSNA: "The RSNA 2017 bone age set is for non-commercial use, with attribution: Halabi et al., Radiology 2019;"
    "290(2):498-503. It may not be passed on, and nobody may try to identify a child. Its terms:\n"
    "rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone-age-challenge-2017"
}
_PUSH_TO = {"kaggle": "Kaggle, as a private data set", "azure": "the Azure workspace"}
_PRIVATE = "The terms of the data still apply; most forbid to make it public."

app = typer.Typer(
    name="data",
    help="Draw, fetch, prepare, describe and push images.",
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
    _run("data.synth", str(dest), "--n", str(n), "--size-px", str(size), "--seed", str(seed), json=json)


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
    _run("data.prepare", str(source), "--out", str(out), "--size-px", str(size), *optional, json=json)


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
    _run("data.describe", str(source), "--split", split, *optional, json=json)


@app.command()
def fetch(
    dest: Annotated[Path, typer.Argument(help="Folder for the images and their csv.")],
    dataset: Annotated[str, typer.Option("--dataset", metavar="OWNER/NAME", help="Kaggle data set.")] = _RSNA,
    yes: options.Yes = False,
    quiet: options.Quiet = False,
) -> None:
    """Download a set of radiographs from Kaggle.

    Shows the data's terms first, once. Broken off, the same command goes on.

    Example: boneagectl data fetch rsna-bone-age
    """
    printer = Printer(quiet=quiet)
    home = _home()
    accepted = home.root / "terms" / f"{dataset.replace('/', '-')}.txt"
    if not accepted.exists():
        printer.talk(_TERMS.get(dataset, f"Its terms stand at kaggle.com/datasets/{dataset}."))
        printer.confirm("Do you accept these terms?", yes)
        write_atomic(accepted, f"accepted {dataset}\n")
    kaggle_target(home, options.settings()).fetch(dataset, dest)
    printer.data({}, str(dest))
    printer.talk(f"next: boneagectl data prepare {dest} --out pack --size 256")


@app.command()
def push(
    pack: Annotated[Path, typer.Argument(help="The pack to upload.")] = Path("pack"),
    target: Annotated[str, typer.Option("--target", "-t", help="Where to: kaggle or azure.")] = "kaggle",
    config: options.ConfigFile = None,
    set_: options.Set = None,
    yes: options.Yes = False,
    quiet: options.Quiet = False,
) -> None:
    """Upload a pack as a private data set.

    Later legs there need not prepare the images again. The same pack is uploaded once.

    Example: boneagectl data push pack --target kaggle
    """
    if target not in _PUSH_TO:
        raise UsageError(f"a pack cannot be pushed to {target!r}", "--target kaggle or --target azure")
    printer, merged = Printer(quiet=quiet), options.settings(config, None, set_)
    place = azure_target(_home(), merged) if target == "azure" else kaggle_target(_home(), merged)
    size = units.format_bytes(sum(file.stat().st_size for file in PackFolder(pack).files()))
    printer.confirm(f"Upload {pack}, {size}, to {_PUSH_TO[target]}? {_PRIVATE}", yes)
    printer.talk("uploading …")
    ref = place.push_pack(pack)
    printer.data({}, ref)
    found_there = "" if target == "azure" else f" --set targets.kaggle.dataset={ref}"
    printer.talk(f"next: boneagectl submit --target {target}{found_there}")


def _home() -> Home:
    home = Home.default()
    home.create()
    return home


def _run(module: str, *arguments: str, json: bool) -> None:
    model.run_trainer(module, arguments, ("numpy", "pandas", "cv2"), "data", json)
