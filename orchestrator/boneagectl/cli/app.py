"""The command tree."""

from __future__ import annotations

from typing import Annotated

import typer

import boneage_trainer
from boneagectl.cli import data, money, runs, setup

EPILOG = (
    "Exit codes: 0 ok, 2 usage, 3 machine, 4 run failed, 5 limit refused, 6 not yet, 7 declined, 130 interrupted. "
    "Research only: no result is fit for diagnosis."
)

app = typer.Typer(
    name="boneagectl",
    help="Train bone age networks within a student's budget: plan, submit, watch, collect, compare.",
    epilog=EPILOG,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"boneagectl {boneage_trainer.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train bone age networks within a student's budget: plan, submit, watch, collect, compare."""


setup.register(app)
app.add_typer(data.app, name="data")
runs.register(app)
app.add_typer(money.app, name="budget")
