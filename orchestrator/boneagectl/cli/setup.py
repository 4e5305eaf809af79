"""init, doctor and config: a project's settings, and the truth about this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneage_trainer.contract import write_atomic
from boneagectl import config as configuration
from boneagectl.cli import azure, format_runs, options
from boneagectl.config import Config
from boneagectl.errors import UsageError
from boneagectl.output import Printer, table
from boneagectl.paths import Home
from boneagectl.targets import check_name


def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path(),
    pack: Annotated[str, typer.Option("--data", help="The pack the project trains on.")] = "pack",
    preset: Annotated[str, typer.Option("--preset", help="The training preset.")] = "tiny",
    quiet: options.Quiet = False,
) -> None:
    """Write a commented boneage.toml, unless there is one.

    Example: boneagectl init my-project
    """
    from boneagectl.templates import fill

    path = folder / configuration.PROJECT_FILE
    if path.exists():
        raise UsageError(f"{path} exists already", "edit it; boneagectl config shows what it means")
    configuration.check_preset(preset)
    write_atomic(path, fill("init/boneage.toml.j2", pack=pack, preset=preset))
    printer = Printer(quiet=quiet)
    printer.data({}, str(path))
    printer.talk("next: boneagectl data prepare SOURCE --out PACK, then boneagectl submit")


def doctor(
    target: Annotated[str | None, typer.Option("--target", "-t", help="Check only this target.")] = None,
    regions: Annotated[str | None, typer.Option("--regions", metavar="A,B", help="Compare Azure regions.")] = None,
    file: options.ConfigFile = None,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Tell the truth about this machine and its GPU.

    GPU or why none, cores, memory, disk, what is installed; for a cloud, whether a GPU can run there and at what
    price. Exits with 3 where something stands in the way.

    Example: boneagectl doctor --target azure --regions westeurope,francecentral
    """
    from boneagectl import doctor as examination

    if target:
        check_name(target)
    printer, settings = Printer(json, quiet), options.settings(file, None, set_)
    if regions:
        _compare(regions, target, settings, printer)
        return
    if target in (None, "local"):
        printer.talk("looking; starting TensorFlow takes some seconds …")
    findings = examination.examine(Home.default(), settings, target)
    printer.data({"findings": findings}, format_runs.findings_text(findings))
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(3)


def _compare(regions: str, target: str | None, settings: Config, printer: Printer) -> None:
    """Azure's regions side by side."""
    from boneagectl.targets import azure_target

    if target != "azure":
        raise UsageError("--regions compares regions of Azure", "boneagectl doctor --target azure --regions A,B,C")
    names = [name for text in regions.split(",") if (name := text.strip().lower())]
    offers = []
    for offer in azure_target(Home.default(), settings).offers(names):
        printer.talk(f"{offer.region}: {'looked at' if offer.allowed else 'not allowed'}")
        offers.append(offer)
    printer.data({"offers": offers}, azure.offers_text(offers))


def config(
    file: options.ConfigFile = None,
    profile: options.Profile = None,
    set_: options.Set = None,
    json: options.Json = False,
) -> None:
    """List every setting with its value and origin.

    Example: boneagectl config --profile quick
    """
    settings = options.settings(file, profile, set_).settings
    rows = [(key, item.shown(key), item.origin) for key, item in sorted(settings.items())]
    value = {key: {"value": item.shown(key), "origin": item.origin} for key, item in settings.items()}
    Printer(json).data({"settings": value}, table(("KEY", "VALUE", "FROM"), rows))
