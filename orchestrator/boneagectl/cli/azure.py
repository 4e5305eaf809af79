"""infra: what a target needs outside this machine, made, shown and taken away. Only azure needs any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from boneagectl import units
from boneagectl.cli import options
from boneagectl.errors import BoneagectlError, LimitRefused, UsageError
from boneagectl.models import Bill
from boneagectl.output import Printer, table

if TYPE_CHECKING:
    from boneagectl.runs import Workflow
    from boneagectl.targets.azure import AzureTarget
    from boneagectl.targets.azure.infra import IdleCost, Infra
    from boneagectl.targets.azure.preflight import Offer
    from boneagectl.targets.azure.pricing import Price, Size

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
            for space in infra.register_providers():
                printer.talk(f"registering {space} …")
            Printer().talk(changes_text(infra.what_if(parameters)))
            printer.confirm(f"Make this in {infra.settings.region}? {_question(infra)}", yes)
        printer.talk("making it; some minutes …")
        with _paid_by_the_day(flow, infra):
            infra.deploy(parameters)
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
        standing = infra.list_resources()
        if standing:
            Printer().talk(idle_text(_costs(standing)))
            workspace = infra.workspace
            printer.confirm(f"Delete all of {workspace.resource_group} in subscription {workspace.subscription}?", yes)
        for what in infra.delete_all():
            printer.talk(f"deleting {what} …")
        flow.ledger.stop_charge(_AZURE, infra.cluster_name)
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
    flow.ledger.start_charge(_AZURE, infra.cluster_name, infra.idle_usd_micro_per_day)
    try:
        yield
    except BoneagectlError:
        if not infra.has_cluster():
            flow.ledger.stop_charge(_AZURE, infra.cluster_name)
        raise


@contextmanager
def _group(infra: Infra) -> Iterator[None]:
    """A resource group to ask a what-if in; one that is new goes away again where the answer is no."""
    is_new = not infra.has_group()
    if is_new:
        infra.create_group()
    try:
        yield
    except BoneagectlError:
        if is_new:
            infra.delete_group()
        raise


def _cap_usd(flow: Workflow) -> int:
    cap = flow.ledger.account(_AZURE).cap_usd_micro
    if cap is not None and cap < units.MICRO:
        raise UsageError(f"the azure account's cap is {units.format_usd(cap)}", "give --budget-usd")
    return 100 if cap is None else cap // units.MICRO


def _question(infra: Infra) -> str:
    daily = units.format_usd(infra.idle_usd_micro_per_day)
    return f"It costs at least {daily} a day from then on, also idle; that is booked on account azure."


def _costs(standing: list[dict[str, Any]]) -> list[IdleCost]:
    from boneagectl.targets.azure import infra as azure_infra

    return azure_infra.estimate_idle_costs(standing)


def _show(infra: Infra, printer: Printer) -> None:
    costs = _costs(infra.list_resources())
    printer.data({"resources": costs}, idle_text(costs))


# == prices: prices: what an hour of a GPU machine on Azure costs, and since when that is known.

prices_app = typer.Typer(
    name="prices",
    help="List Azure's GPU prices; ask for today's.",
    rich_markup_mode=None,
    add_completion=False,
)


@prices_app.callback(invoke_without_command=True)
def prices(context: typer.Context, json: options.Json = False) -> None:
    """List Azure's GPU prices; ask for today's.

    Those that quotes use: refreshed ones where there are any, else the table that came with boneagectl.

    Example: boneagectl prices
    """
    if context.invoked_subcommand:
        return
    from boneagectl.paths import Home
    from boneagectl.targets import azure_target
    from boneagectl.targets.azure import pricing as known

    found = known.known(azure_target(Home.default(), options.settings()).prices_file)
    Printer(json).data({"prices": found}, prices_text(found, known.table().sizes))


@prices_app.command()
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
    from boneagectl.targets.azure import pricing as known

    printer = Printer(json, quiet)
    with options.workflow() as flow:
        file = azure_target(flow.home, flow.config).prices_file
        where = region or flow.config["targets.azure.region"]
        sizes = size or [one.size for one in known.table().sizes]
        printer.talk(f"asking for {len(sizes)} sizes in {where} …")
        found = known.refresh(file, sizes, where)
        if not found:
            raise UsageError(f"no price of {', '.join(sizes)} in {where}", "is that a region, like westeurope?")
        printer.data({"prices": found}, prices_text(found, known.table().sizes))


# == present_azure: How Azure's infrastructure, prices, regions and bill look to people. Words only.


def changes_text(changes: Sequence[tuple[str, str]]) -> str:
    """What a deployment would do, the kind of change first."""
    return table(("CHANGE", "RESOURCE"), sorted(changes)) if changes else "nothing would change"


def idle_text(costs: Sequence[IdleCost]) -> str:
    """What stands, and what each costs a day while nothing runs; unknown is not nothing."""
    if not costs:
        return "nothing stands; boneagectl infra up makes it"
    rows = [(_day_usd(one), one.certainty, one.name, one.type, one.note) for one in costs]
    total = units.format_usd(sum(one.usd_micro_per_day or 0 for one in costs))
    unknown = sum(one.usd_micro_per_day is None for one in costs)
    listed = table(("USD A DAY", "HOW SURE", "NAME", "TYPE", "NOTE"), rows)
    return f"{listed}\n\nat least {total} a day when idle; of {unknown} no figure is known"


def _day_usd(one: IdleCost) -> str:
    return "unknown" if one.usd_micro_per_day is None else units.format_usd(one.usd_micro_per_day)


def prices_text(prices: Sequence[Price], sizes: Sequence[Size]) -> str:
    gpus = {one.size: one.gpu for one in sizes}
    rows = [
        (one.size, gpus.get(one.size, ""), one.region or "unnamed", "low priority" if one.low_priority else "dedicated",
         units.format_usd(one.usd_micro_per_hour), one.date, one.source)
        for one in prices
    ]  # fmt: skip
    return table(("SIZE", "GPU", "REGION", "TIER", "USD AN HOUR", "DATE", "SOURCE"), rows)


def offers_text(offers: Sequence[Offer]) -> str:
    headings = ("REGION", "ALLOWED", "CORES NEEDED", "DEDICATED FREE", "LOW PRIORITY FREE", "USD AN HOUR",
                "LOW PRIORITY", "PRICE OF", "GPU SIZES THAT FIT")  # fmt: skip
    return table(headings, [_offer_row(one) for one in offers])


def _offer_row(one: Offer) -> tuple[object, ...]:
    cores = ["unknown" if free is None else str(free) for free in (one.cores_free, one.low_priority_cores_free)]
    usd = [
        "unknown" if price is None else units.format_usd(price)
        for price in (one.usd_micro_per_hour, one.low_priority_usd_micro_per_hour)
    ]
    needed = str(one.cores_needed) if one.offered else "not offered"
    return (one.region, "yes" if one.allowed else "no", needed, *cores, *usd, one.price_date or "-",
            ", ".join(one.fits) or "none")  # fmt: skip


def bill_text(name: str, bill: Bill, ours_usd_micro: int) -> str:
    """A provider's own count of money beside ours."""
    since = units.format_local(bill.since_s)
    services = ", ".join(
        f"{service} {units.format_usd(usd)}" for service, usd in sorted(bill.by_service_usd_micro.items())
    )
    theirs, ours = units.format_usd(bill.usd_micro), units.format_usd(ours_usd_micro)
    difference = bill.usd_micro - ours_usd_micro
    sign = "less" if difference < 0 else "more"
    return "\n".join(
        (
            f"{name}'s own count since {since}: {theirs}{f' ({services})' if services else ''}; {bill.note}",
            f"our count since then: {ours} spent; {name} counts {units.format_usd(abs(difference))} {sign}",
        )
    )
