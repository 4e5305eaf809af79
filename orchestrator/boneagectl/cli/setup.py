"""init, doctor and config: a project's settings, and what this machine and the accounts can do."""

from __future__ import annotations

import json as json_module
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
from boneagectl.target_settings import OPTIONS, default_of, editor_schema, help_line
from boneagectl.targets import check_name

SCHEMA_FILE = "boneage.schema.json"
"""Beside boneage.toml, whose first line names it, so that editors complete and check the settings."""


def init(
    folder: Annotated[Path, typer.Argument(help="Project folder.")] = Path(),
    pack: Annotated[str, typer.Option("--data", help="Pack that the project trains on.")] = "pack",
    preset: Annotated[str, typer.Option("--preset", help="Training preset.")] = "tiny",
    full: Annotated[bool, typer.Option("--full", help="Write every setting, commented out, with its meaning.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a settings file for a project.

    Writes boneage.toml, unless it exists, and a JSON schema beside it with which editors complete and check it.

    Example: boneagectl init my-project
    """
    from boneagectl.templates import fill

    path = folder / configuration.PROJECT_FILE
    if path.exists():
        raise UsageError(f"{path} exists already", "edit it; boneagectl config shows the result")
    configuration.check_preset(preset)
    name = "full" if full else "boneage"
    given = {"target": "local", "data.pack": pack, "train.preset": preset}
    text = fill(f"init/{name}.toml.j2", schema=SCHEMA_FILE, given=given, sections=_sections(given) if full else [])
    write_atomic(folder / SCHEMA_FILE, _schema_text())
    write_atomic(path, text)
    printer = Printer(quiet=quiet)
    printer.data({}, str(path))
    printer.talk("next: boneagectl data prepare SOURCE --out PACK, then boneagectl submit")


def _sections(given: dict[str, str]) -> dict[str, list[tuple[str, str]]]:
    """By table, each setting's comment and its line, which is a comment too unless `given` has a value for it."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for key, option in OPTIONS.items():
        section, _, name = key.rpartition(".")
        marks = option.metadata
        accepts = f". One of: {', '.join(marks['choices'])}" if marks["choices"] else ""
        if marks["low"] is not None:
            accepts = f". From {marks['low']:g} to {marks['high']:.10g}"
        line = f"{name} = {json_module.dumps(given.get(key, default_of(key)), ensure_ascii=False)}"
        sections.setdefault(section, []).append((help_line(key) + accepts, line if key in given else f"# {line}"))
    return sections


def doctor(
    target: Annotated[str | None, typer.Option("--target", "-t", help="Check only this target.")] = None,
    regions: Annotated[str | None, typer.Option("--regions", metavar="A,B", help="Compare Azure regions.")] = None,
    file: options.ConfigFile = None,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check this machine, its GPU and your accounts.

    Shows the GPU, or why there is none, cores, memory, disk and installed packages; for a cloud target, whether a GPU
    is available and its price. Exits with 3 if something prevents a run.

    Example: boneagectl doctor --target azure --regions westeurope,francecentral
    """
    from boneagectl import doctor as checks

    if target:
        check_name(target)
    printer, settings = Printer(json, quiet), options.settings(file, None, set_)
    if regions:
        _compare_regions(regions, target, settings, printer)
        return
    if target in (None, "local"):
        printer.talk("checking; TensorFlow takes some seconds to start …")
    findings = checks.examine(Home.default(), settings, target)
    printer.data({"findings": findings}, format_runs.findings_text(findings))
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(3)


def _compare_regions(regions: str, target: str | None, settings: Config, printer: Printer) -> None:
    from boneagectl.targets import azure_target

    if target != "azure":
        raise UsageError("--regions compares Azure regions", "boneagectl doctor --target azure --regions A,B,C")
    names = [name for text in regions.split(",") if (name := text.strip().lower())]
    offers = []
    for offer in azure_target(Home.default(), settings).offers(names):
        printer.talk(f"{offer.region}: {'checked' if offer.allowed else 'not allowed'}")
        offers.append(offer)
    printer.data({"offers": offers}, azure.offers_text(offers))


config_app = options.command_group("config")


@config_app.callback(invoke_without_command=True)
def config(
    context: typer.Context,
    file: options.ConfigFile = None,
    profile: options.Profile = None,
    set_: options.Set = None,
    json: options.Json = False,
) -> None:
    """List every setting with its value and origin.

    Every value is checked. An origin is a file, a profile, an environment variable, a flag or the default.

    Example: boneagectl config --profile quick
    """
    if context.invoked_subcommand:
        return
    settings = options.settings(file, profile, set_).settings
    rows = [(key, item.shown(key), item.origin) for key, item in sorted(settings.items())]
    value = {key: {"value": item.shown(key), "origin": item.origin} for key, item in settings.items()}
    Printer(json).data({"settings": value}, table(("KEY", "VALUE", "ORIGIN"), rows))


@config_app.command()
def schema(
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it here instead.")] = None,
) -> None:
    """Print the JSON schema of the settings file.

    Editors use it to complete and check boneage.toml: its first line is "#:schema ./boneage.schema.json".

    Example: boneagectl config schema --out boneage.schema.json
    """
    if out:
        write_atomic(out, _schema_text())
    Printer().data({}, str(out) if out else _schema_text().rstrip())


def _schema_text() -> str:
    return json_module.dumps(editor_schema(), indent=2) + "\n"
