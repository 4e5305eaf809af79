"""The command tree. A command's module is imported when the command is called, so that --help and ls start fast."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import boneage_trainer

EPILOG = (
    "Exit codes: 0 ok, 2 usage, 3 this machine, 4 run failed, 5 limit refused, 6 not yet, 7 declined, 8 not signed in, "
    "9 provider refused, 10 unreachable, 11 submit uncertain, 130 interrupted. "
    "Research only: no result is fit for diagnosis."
)

# Name: where its function or sub-app lives, and its help line: the first of its own help (test_startup.py compares).
COMMANDS = {
    "init": ("setup:init", "Write a commented boneage.toml, unless there is one."),
    "doctor": ("setup:doctor", "Tell the truth about this machine and its GPU."),
    "config": ("setup:config", "List every setting with its value and origin."),
    "plan": ("plan:plan", "Tell what a training will take where, and choose."),
    "calibrate": ("plan:calibrate", "Measure a target's speed by a short training."),
    "submit": ("runs:submit", "Plan a training, book its worst case, start it."),
    "resume": ("runs:resume", "Go on with a run from its last checkpoint."),
    "ls": ("runs:ls", "List runs, newest first."),
    "show": ("runs:show", "Show one run: state, newest metrics, legs, folder."),
    "watch": ("watch:watch", "Follow a run until it is over."),
    "logs": ("runs:logs", "Print the log of a run's latest leg."),
    "stop": ("runs:stop", "Have a run save and end; it can be resumed later."),
    "collect": ("runs:collect", "Bring what a run has made into one folder, checked."),
    "report": ("report:report", "Write a run's report: HTML, JSON or CSV."),
    "compare": ("report:compare", "Compare runs: error, time, cost, what was the same."),
    "predict": ("model:predict", "Read ages off radiographs. Research only."),
    "export": ("model:export", "Hand a model to other runtimes, a run to a tracker."),
    "rehearse": ("runs:rehearse", "Run here what a target would be sent, first."),
    "data": ("data:app", "Draw, fetch, prepare, describe and push images."),
    "train": ("model:app", "List presets; check a trainer, evaluate a model."),
    "infra": ("azure:app", "Make, show and remove what Azure needs."),
    "prices": ("azure:prices_app", "List Azure's GPU prices; ask for today's."),
    "budget": ("budget:app", "Show what is spent and reserved; set the caps."),
}


class LazyGroup(TyperGroup):
    """Knows each command by name and help line, and builds only the one that is asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Stand-ins: typer lists these names and suggests them after a typing error.
        self.commands = {name: TyperCommand(name, short_help=line) for name, (_, line) in COMMANDS.items()}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _build(COMMANDS[cmd_name][0]) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _build(place: str) -> Any:
    module, _, name = place.partition(":")
    found = getattr(importlib.import_module(f"boneagectl.cli.{module}"), name)
    if not isinstance(found, typer.Typer):  # a function: typer builds commands from an app only
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command()(found)
        found = app
    return typer.main.get_command(found)


app = typer.Typer(
    name="boneagectl",
    cls=LazyGroup,
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
