"""The command tree. A command's module is imported when the command is called, which keeps --help and ls fast."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import boneage_trainer

EPILOG = (
    "Exit codes: 0 ok, 2 usage, 3 this machine, 4 run failed, 5 limit refused, 6 not yet, 7 declined, 8 not signed in, "
    "9 provider refused, 10 unreachable, 11 submit uncertain, 130 interrupted (docs/guide.md explains them). "
    "For research and education only; not for diagnosis."
)

# Name: module and attribute, and the help line; the command's own help starts with the same (test_startup.py compares).
COMMANDS = {
    "init": ("setup:init", "Write a settings file for a project."),
    "doctor": ("setup:doctor", "Check this machine, its GPU and your accounts."),
    "config": ("setup:config_app", "List every setting with its value and origin."),
    "plan": ("plan:plan", "Estimate time and cost on each target and recommend one."),
    "calibrate": ("plan:calibrate", "Measure a target's speed with a short run."),
    "submit": ("runs:submit", "Submit a run; its maximum cost is reserved first."),
    "resume": ("runs:resume", "Resume a run from its last checkpoint."),
    "ls": ("runs:ls", "List runs, newest first."),
    "show": ("runs:show", "Show a run's state, metrics, legs and folder."),
    "watch": ("watch:watch", "Follow a run until it is over."),
    "logs": ("runs:logs", "Print the log of a run's latest leg."),
    "stop": ("runs:stop", "Stop a run after saving a checkpoint."),
    "collect": ("runs:collect", "Download a run's outputs and verify their checksums."),
    "report": ("report:report", "Write a run's report as HTML, JSON or CSV."),
    "compare": ("report:compare", "Compare runs: error, time, cost and settings."),
    "predict": ("model:predict", "Predict bone age from radiographs."),
    "export": ("model:export", "Export a model (ONNX, TFLite, ...) or log a run to MLflow or TensorBoard."),
    "rehearse": ("runs:rehearse", "Execute the generated job locally before submitting it."),
    "data": ("data:app", "Generate, download, prepare, describe and upload radiographs."),
    "train": ("model:app", "List presets, check the trainer, evaluate a model."),
    "infra": ("azure:app", "Create, show and delete the Azure resources."),
    "prices": ("azure:prices_app", "List or refresh Azure's GPU prices."),
    "budget": ("budget:app", "Show what is spent and reserved; set the caps."),
}


class LazyGroup(TyperGroup):
    """Lists the commands from `COMMANDS` and builds only the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Placeholders: typer suggests their names after a mistyped command.
        self.commands = {name: TyperCommand(name, short_help=line) for name, (_, line) in COMMANDS.items()}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"boneagectl.cli.{module}"), name)
        if not isinstance(command, typer.Typer):  # a function: typer builds commands from an app only
            app = typer.Typer(rich_markup_mode=None, add_completion=False)
            app.command()(command)
            command = app
        return typer.main.get_command(command)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(
    name="boneagectl",
    cls=LazyGroup,
    help="Train bone-age networks within a student's budget: plan, submit, watch, collect, compare.",
    epilog=EPILOG,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"boneagectl {boneage_trainer.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train bone-age networks within a student's budget: plan, submit, watch, collect, compare."""
