"""Options that several commands share, and the settings and state they open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from boneagectl.cli.app import COMMANDS

if TYPE_CHECKING:  # --help needs none of these
    from boneagectl.config import Config
    from boneagectl.ledger.store import Ledger
    from boneagectl.paths import Home
    from boneagectl.runs import Workflow

Json = Annotated[bool, typer.Option("--json", help="Print JSON with documented field names.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to every question.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings file (default: the nearest boneage.toml).")]
Profile = Annotated[str | None, typer.Option("--profile", "-P", help="Use the settings of [profiles.NAME].")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, e.g. train.epochs=3.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Run name, a unique prefix of it, or 'last'.")]


def command_group(name: str, no_args_is_help: bool = False) -> typer.Typer:
    """A command with subcommands; its help line is the one that `boneagectl --help` shows."""
    return typer.Typer(
        name=name, help=COMMANDS[name][1], no_args_is_help=no_args_is_help, rich_markup_mode=None, add_completion=False
    )


def settings(
    file: Path | None = None, profile: str | None = None, assignments: list[str] | None = None, **flags: Any
) -> Config:
    """The merged settings; `flags` are those with an option of their own, None where not given."""
    from boneagectl import config

    given = dict(config.parse_assignment(text) for text in assignments or [])
    given.update({key.replace("__", "."): value for key, value in flags.items() if value is not None})
    return config.load(file, profile, given)


def open_page(path: Path) -> None:
    """Opens the page at `path` in the browser."""
    import webbrowser

    webbrowser.open(path.absolute().as_uri())


@contextmanager
def open_ledger() -> Iterator[tuple[Home, Ledger]]:
    """Opens the state folder and the ledger, without settings and targets, which take time to load."""
    from boneagectl.ledger import store
    from boneagectl.paths import Home

    home = Home.default()
    home.create()
    with store.opened(home.ledger) as ledger:
        yield home, ledger


@contextmanager
def workflow(merged: Config | None = None, may_write: bool = True) -> Iterator[Workflow]:
    """Opens the state folder and the ledger. With `may_write` false, nothing is created."""
    from boneagectl.ledger import store
    from boneagectl.paths import Home
    from boneagectl.runs import Workflow

    home = Home.default()
    merged = merged or settings()
    if may_write:
        home.create()
    path = home.ledger if may_write or home.ledger.exists() else Path(":memory:")
    with store.opened(path) as ledger:
        yield Workflow(home, merged, ledger)
