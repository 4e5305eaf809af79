"""infra: what a target needs outside this machine, made, shown and taken away. Only azure needs any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from boneagectl import units
from boneagectl.cli import options, present_azure
from boneagectl.errors import BoneagectlError, LimitRefused, UsageError
from boneagectl.output import Printer

if TYPE_CHECKING:
    from boneagectl.targets.azure import AzureTarget
    from boneagectl.targets.azure.infra import Infra
    from boneagectl.targets.azure.template import IdleCost
    from boneagectl.workflow import Workflow

app = typer.Typer(
    name="infra",
    help="Make, show and remove what Azure needs.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)

_AZURE = "azure"
_MAIL = typer.Option("--email", metavar="ADDRESS", help="Who is told at 50, 75 and 90 % of the budget.")
_BUDGET = typer.Option("--budget-usd", min=1, help="The budget a month; by default the azure account's cap, or 100.")


@app.command()
def up(
    email: Annotated[str, _MAIL],
    budget_usd: Annotated[int | None, _BUDGET] = None,
    yes: options.Yes = False,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make the workspace, its storage and a cluster.

    Shows what would change first. Again, it changes only what the settings changed. Nodes come with jobs and go after.

    Example: boneagectl infra up --email me@example.org
    """
    printer = Printer(json, quiet)
    with _opened(config, set_) as (flow, target):
        infra = target.infra
        parameters = infra.parameters(email, budget_usd or _cap_usd(flow))
        for why in target.examination().why_not():
            printer.talk(f"warning: no GPU can run there: {why}")
        with _group(infra):
            for space in infra.register():
                printer.talk(f"registering {space} …")
            Printer().talk(present_azure.changes_text(infra.what_if(parameters)))
            printer.confirm(f"Make this in {infra.wishes.region}? {_question(infra)}", yes)
        printer.talk("making it; some minutes …")
        with _paid_by_the_day(flow, infra):
            infra.up(parameters)
        _show(infra, printer)
        printer.talk("next: boneagectl data push --target azure, then boneagectl submit --target azure")


@app.command()
def show(
    config: options.ConfigFile = None,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List what stands, with its cost a day when idle.

    Example: boneagectl infra show
    """
    with _opened(config, set_) as (_, target):
        _show(target.infra, Printer(json, quiet))


@app.command()
def down(
    yes: options.Yes = False,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Remove all of it, and prove that nothing is left.

    The cluster first. All data, logs and models there are deleted: collect what you want to keep.

    Example: boneagectl infra down --yes
    """
    printer = Printer(json, quiet)
    with _opened(config, set_) as (flow, target):
        infra = target.infra
        if at_work := [leg.leg_id for leg in flow.ledger.open_legs() if leg.target == _AZURE]:
            raise LimitRefused(f"at work there: {', '.join(at_work)}", "boneagectl stop RUN, then infra down again")
        standing = infra.standing()
        if standing:
            Printer().talk(present_azure.idle_text(_costs(standing)))
            place = infra.place
            printer.confirm(f"Delete all of {place.resource_group} in subscription {place.subscription}?", yes)
        for what in infra.down():
            printer.talk(f"deleting {what} …")
        flow.ledger.fall(_AZURE, infra.cluster_name)
        printer.data({"deleted": [one["name"] for one in standing], "left": []}, "nothing is left that bills")


@contextmanager
def _opened(config: Any, set_: Any) -> Iterator[tuple[Workflow, AzureTarget]]:
    from boneagectl.targets import azure_target

    merged = options.settings(config, None, set_)
    with options.workflow(merged) as flow:
        yield flow, azure_target(flow.home, merged)


@contextmanager
def _paid_by_the_day(flow: Workflow, infra: Infra) -> Iterator[None]:
    """Counts the cluster from before it is made; no more where it is certain that it was not."""
    flow.ledger.stand(_AZURE, infra.cluster_name, infra.daily_usd_micro)
    try:
        yield
    except BoneagectlError:
        if not infra.has_cluster():
            flow.ledger.fall(_AZURE, infra.cluster_name)
        raise


@contextmanager
def _group(infra: Infra) -> Iterator[None]:
    """A resource group to ask a what-if in; one that is new goes away again where the answer is no."""
    is_new = not infra.exists()
    if is_new:
        infra.make_group()
    try:
        yield
    except BoneagectlError:
        if is_new:
            infra.drop_group()
        raise


def _cap_usd(flow: Workflow) -> int:
    cap = flow.ledger.account(_AZURE).cap_usd_micro
    if cap is not None and cap < units.MICRO:
        raise UsageError(f"the azure account's cap is {units.format_usd(cap)}", "give --budget-usd")
    return 100 if cap is None else cap // units.MICRO


def _question(infra: Infra) -> str:
    daily = units.format_usd(infra.daily_usd_micro)
    return f"It costs at least {daily} a day from then on, also idle; that is booked on account azure."


def _costs(standing: list[dict[str, Any]]) -> list[IdleCost]:
    from boneagectl.targets.azure import template

    return template.idle_costs(standing)


def _show(infra: Infra, printer: Printer) -> None:
    costs = _costs(infra.standing())
    printer.data({"resources": costs}, present_azure.idle_text(costs))
