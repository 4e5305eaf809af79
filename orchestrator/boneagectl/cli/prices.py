"""prices: what an hour of a GPU machine on Azure costs, and since when that is known."""

from __future__ import annotations

from typing import Annotated

import typer

from boneagectl.cli import options, present_azure
from boneagectl.errors import UsageError
from boneagectl.output import Printer

app = typer.Typer(
    name="prices",
    help="List Azure's GPU prices; ask for today's.",
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def prices(context: typer.Context, json: options.Json = False) -> None:
    """List Azure's GPU prices; ask for today's.

    Those that quotes use: refreshed ones where there are any, else the table that came with boneagectl.

    Example: boneagectl prices
    """
    if context.invoked_subcommand:
        return
    from boneagectl.paths import Home
    from boneagectl.targets import azure_target
    from boneagectl.targets.azure import prices as known

    found = known.known(azure_target(Home.default(), options.settings()).prices_file)
    Printer(json).data({"prices": found}, present_azure.prices_text(found, known.table().sizes))


@app.command()
def refresh(
    size: Annotated[list[str] | None, typer.Option("--size", help="A machine size; by default all known.")] = None,
    region: Annotated[str | None, typer.Option("--region", help="By default targets.azure.region.")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask Azure's public price list, and keep the answer.

    Needs no login.

    Example: boneagectl prices refresh --region francecentral
    """
    from boneagectl.targets import azure_target
    from boneagectl.targets.azure import prices as known

    printer = Printer(json, quiet)
    with options.workflow() as flow:
        file = azure_target(flow.home, flow.config).prices_file
        where = region or flow.config["targets.azure.region"]
        sizes = size or [one.size for one in known.table().sizes]
        printer.talk(f"asking for {len(sizes)} sizes in {where} …")
        found = known.refresh(file, sizes, where)
        if not found:
            raise UsageError(f"no price of {', '.join(sizes)} in {where}", "is that a region, like westeurope?")
        printer.data({"prices": found}, present_azure.prices_text(found, known.table().sizes))
