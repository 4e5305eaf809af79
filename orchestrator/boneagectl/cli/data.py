"""data: synthetic hands, downloads, packs and their statistics."""

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
    _RSNA: "The RSNA 2017 bone age dataset is for non-commercial use, with attribution: Halabi et al., Radiology 2019;"
    "290(2):498-503. It must not be redistributed, and identifying a child is forbidden. Terms:\n"
    "rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone-age-challenge-2017"
}
_PUSH_TO = {"kaggle": "Kaggle, as a private dataset", "azure": "the Azure workspace"}
_SAMPLES = "Also write a contact sheet of sample images."
_PRIVATE = "The terms of the data still apply; most forbid making it public."

app = options.command_group("data", no_args_is_help=True)

_Size = Annotated[int, typer.Option("--size", metavar="PX", min=16, max=2048, help="Side of the square images.")]
_Csv = Annotated[str | None, typer.Option("--csv", metavar="NAME", help="Csv to use if the folder has several.")]


@app.command()
def synth(
    dest: Annotated[Path, typer.Argument(help="Folder to create.")],
    n: Annotated[int, typer.Option("--n", min=1, max=100_000, help="Number of radiographs.")] = 600,
    size: _Size = 128,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed; the same seed gives the same bytes.")] = 1,
    json: options.Json = False,
) -> None:
    """Generate synthetic hand radiographs.

    In the folder tree of the Kaggle dataset; the relation of image and age differs by sex.

    Example: boneagectl data synth hands --n 600 --size 96
    """
    _run("data.synth", str(dest), "--n", str(n), "--size-px", str(size), "--seed", str(seed), json=json)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="Folder with a csv and images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Pack to write.")] = Path("pack"),
    size: _Size = 128,
    csv: _Csv = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes (default: one per core).")] = None,
    json: options.Json = False,
) -> None:
    """Prepare a folder of radiographs as a pack.

    A pack is one uint8 array, an index and a fingerprint. Resumes where an interrupted call stopped.

    Example: boneagectl data prepare rsna-bone-age --out pack --size 256
    """
    optional = [*(["--csv", csv] if csv else []), *(["--workers", str(workers)] if workers else [])]
    _run("data.prepare", str(source), "--out", str(out), "--size-px", str(size), *optional, json=json)


@app.command()
def describe(
    source: Annotated[Path, typer.Argument(help="Folder of radiographs, csv or pack.")],
    split: Annotated[str, typer.Option("--split", help="paper, holdout:FRACTION:SEED, or a csv (id,split).")] = "paper",
    samples: Annotated[Path | None, typer.Option("--samples", metavar="PNG", help=_SAMPLES)] = None,
    csv: _Csv = None,
    json: options.Json = False,
) -> None:
    """Show counts, ages, a histogram and the split.

    Example: boneagectl data describe pack --json
    """
    optional = [*(["--samples", str(samples)] if samples else []), *(["--csv", csv] if csv else [])]
    _run("data.describe", str(source), "--split", split, *optional, json=json)


@app.command()
def fetch(
    dest: Annotated[Path, typer.Argument(help="Folder for the images and their csv.")],
    dataset: Annotated[str, typer.Option("--dataset", metavar="OWNER/NAME", help="Kaggle dataset.")] = _RSNA,
    yes: options.Yes = False,
    quiet: options.Quiet = False,
) -> None:
    """Download a dataset of radiographs from Kaggle.

    Asks once to accept the dataset's terms. Resumes an interrupted download.

    Example: boneagectl data fetch rsna-bone-age
    """
    printer = Printer(quiet=quiet)
    home = _home()
    accepted = home.root / "terms" / f"{dataset.replace('/', '-')}.txt"
    if not accepted.exists():
        printer.talk(_TERMS.get(dataset, f"Terms: kaggle.com/datasets/{dataset}"))
        printer.confirm("Do you accept these terms?", yes)
        write_atomic(accepted, f"accepted {dataset}\n")
    kaggle_target(home, options.settings()).download_dataset(dataset, dest)
    printer.data({}, str(dest))
    printer.talk(f"next: boneagectl data prepare {dest} --out pack --size 256")


@app.command()
def push(
    pack: Annotated[Path, typer.Argument(help="Pack to upload.")] = Path("pack"),
    target: Annotated[str, typer.Option("--target", "-t", help="kaggle or azure.")] = "kaggle",
    config: options.ConfigFile = None,
    set_: options.Set = None,
    yes: options.Yes = False,
    quiet: options.Quiet = False,
) -> None:
    """Upload a pack as a private dataset.

    Later legs need not prepare the images again. A pack is uploaded once.

    Example: boneagectl data push pack --target kaggle
    """
    if target not in _PUSH_TO:
        raise UsageError(f"--target must be kaggle or azure, not {target!r}")
    printer, merged = Printer(quiet=quiet), options.settings(config, None, set_)
    destination = azure_target(_home(), merged) if target == "azure" else kaggle_target(_home(), merged)
    size = units.format_bytes(sum(file.stat().st_size for file in PackFolder(pack).files()))
    printer.confirm(f"Upload {pack}, {size}, to {_PUSH_TO[target]}? {_PRIVATE}", yes)
    printer.talk("uploading …")
    ref = destination.push_pack(pack)
    printer.data({}, ref)
    setting = "" if target == "azure" else f" --set targets.kaggle.dataset={ref}"
    printer.talk(f"next: boneagectl submit --target {target}{setting}")


def _home() -> Home:
    home = Home.default()
    home.create()
    return home


def _run(module: str, *arguments: str, json: bool) -> None:
    model.run_trainer(module, arguments, ("numpy", "pandas", "cv2"), "data", json)
