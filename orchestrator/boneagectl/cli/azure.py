"""infra and prices: the Azure resources that the azure target needs, and what its machines cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from boneagectl import units
from boneagectl.cli import options
from boneagectl.cli.format_runs import none_text
from boneagectl.errors import BoneagectlError, LimitRefused, UsageError
from boneagectl.models import Bill
from boneagectl.output import Printer, table

if TYPE_CHECKING:
    from boneagectl.runs import Workflow
    from boneagectl.targets.azure import AzureTarget
    from boneagectl.targets.azure.infra import IdleCost, Infra
    from boneagectl.targets.azure.preflight import RegionOffer
    from boneagectl.targets.azure.pricing import MachineSize, Price

app = options.command_group("infra", no_args_is_help=True)

_AZURE = "azure"
_MAIL = typer.Option("--email", metavar="ADDRESS", help="Recipient of Azure's alerts at 50, 75 and 90 % of the budget.")
_BUDGET = typer.Option("--budget-usd", min=1, help="Monthly budget (default: the azure account's cap, or 100).")


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
    """Create the workspace, its storage and a cluster.

    Shows the changes first. Called again, it applies changed settings. Nodes run only while jobs do.

    Example: boneagectl infra up --email me@example.org
    """
    printer = Printer(json, quiet)
    with _opened(config, set_) as (flow, target):
        infra = target.infra
        parameters = infra.parameters(email, budget_usd or _cap_usd(flow))
        for reason in target.subscription_check.obstacles():
            printer.talk(f"warning: no GPU can run there: {reason}")
        with _group(infra):
            for space in infra.register_providers():
                printer.talk(f"registering {space} …")
            Printer().talk(changes_text(infra.what_if(parameters)))
            daily = units.format_usd(infra.idle_usd_micro_per_day)
            cost = f"It costs at least {daily} per day from then on, also when idle; account azure is charged for it."
            printer.confirm(f"Create this in {infra.settings.region}? {cost}", yes)
        printer.talk("creating; this takes some minutes …")
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
    """List the resources with their daily cost when idle.

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
    """Delete all resources and verify that nothing is left.

    Starts with the cluster. All data, logs and models there are deleted: collect what you want to keep first.

    Example: boneagectl infra down --yes
    """
    printer = Printer(json, quiet)
    with _opened(config, set_) as (flow, target):
        infra = target.infra
        if running := [leg.leg_id for leg in flow.ledger.open_legs() if leg.target == _AZURE]:
            raise LimitRefused(f"legs are running: {', '.join(running)}", "boneagectl stop RUN, then infra down again")
        standing = infra.list_resources()
        if standing:
            Printer().talk(idle_text(_costs(standing)))
            workspace = infra.workspace
            printer.confirm(f"Delete all of {workspace.resource_group} in subscription {workspace.subscription}?", yes)
        for what in infra.delete_all():
            printer.talk(f"deleting {what} …")
        flow.ledger.stop_charge(_AZURE, infra.cluster_name)
        printer.data(
            {"deleted": [resource["name"] for resource in standing], "left": []}, "nothing is left that is billed"
        )


@contextmanager
def _opened(config: Any, set_: Any) -> Iterator[tuple[Workflow, AzureTarget]]:
    from boneagectl.targets import azure_target

    merged = options.settings(config, None, set_)
    with options.workflow(merged) as flow:
        yield flow, azure_target(flow.home, merged)


@contextmanager
def _paid_by_the_day(flow: Workflow, infra: Infra) -> Iterator[None]:
    """Starts the cluster's daily charge before it is created; stops it only if the cluster certainly does not exist."""
    flow.ledger.start_charge(_AZURE, infra.cluster_name, infra.idle_usd_micro_per_day)
    try:
        yield
    except BoneagectlError:
        if not infra.has_cluster():
            flow.ledger.stop_charge(_AZURE, infra.cluster_name)
        raise


@contextmanager
def _group(infra: Infra) -> Iterator[None]:
    """A resource group for the what-if; a new one is deleted again if the question is declined."""
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


def _costs(standing: list[dict[str, Any]]) -> list[IdleCost]:
    from boneagectl.targets.azure import infra as azure_infra

    return azure_infra.estimate_idle_costs(standing)


def _show(infra: Infra, printer: Printer) -> None:
    costs = _costs(infra.list_resources())
    printer.data({"resources": costs}, idle_text(costs))


prices_app = options.command_group("prices")


@prices_app.callback(invoke_without_command=True)
def prices(context: typer.Context, json: options.Json = False) -> None:
    """List or refresh Azure's GPU prices.

    These are the prices that quotes use: refreshed ones, else those of the table in this release.

    Example: boneagectl prices
    """
    if context.invoked_subcommand:
        return
    from boneagectl.paths import Home
    from boneagectl.targets import azure_target
    from boneagectl.targets.azure import pricing

    known = pricing.list_prices(azure_target(Home.default(), options.settings()).prices_file)
    Printer(json).data({"prices": known}, prices_text(known, pricing.load_table().sizes))


@prices_app.command()
def refresh(
    size: Annotated[list[str] | None, typer.Option("--size", help="VM size, may be repeated (default: all).")] = None,
    region: Annotated[str | None, typer.Option("--region", help="Region (default: targets.azure.region).")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download current prices from Azure's public price list.

    Needs no sign-in.

    Example: boneagectl prices refresh --region francecentral
    """
    from boneagectl.targets import azure_target
    from boneagectl.targets.azure import pricing

    printer = Printer(json, quiet)
    with options.workflow() as flow:
        file = azure_target(flow.home, flow.config).prices_file
        where = region or flow.config["targets.azure.region"]
        sizes = size or [entry.size for entry in pricing.load_table().sizes]
        printer.talk(f"requesting prices of {len(sizes)} sizes in {where} …")
        refreshed = pricing.refresh_prices(file, sizes, where)
        if not refreshed:
            raise UsageError(f"no price of {', '.join(sizes)} in {where}", "check the region's name, e.g. westeurope")
        printer.data({"prices": refreshed}, prices_text(refreshed, pricing.load_table().sizes))


def changes_text(changes: Sequence[tuple[str, str]]) -> str:
    """The changes of a deployment, kind of change first."""
    return table(("CHANGE", "RESOURCE"), sorted(changes)) if changes else "nothing would change"


def idle_text(costs: Sequence[IdleCost]) -> str:
    """The resources and what each costs per day while nothing runs; an unknown cost is not zero."""
    if not costs:
        return "no resources; create them with boneagectl infra up"
    rows = [(_usd_text(cost.usd_micro_per_day), cost.certainty, cost.name, cost.type, cost.note) for cost in costs]
    total = units.format_usd(sum(cost.usd_micro_per_day or 0 for cost in costs))
    unknown = sum(cost.usd_micro_per_day is None for cost in costs)
    listed = table(("USD PER DAY", "CERTAINTY", "NAME", "TYPE", "NOTE"), rows)
    return f"{listed}\n\nat least {total} per day when idle; the cost of {unknown} is unknown"


def _usd_text(usd_micro: int | None) -> str:
    return "unknown" if usd_micro is None else units.format_usd(usd_micro)


def prices_text(prices: Sequence[Price], sizes: Sequence[MachineSize]) -> str:
    gpus = {size.size: size.gpu for size in sizes}
    rows = [
        (price.size, gpus.get(price.size, ""), price.region or "unnamed",
         "low priority" if price.low_priority else "dedicated", units.format_usd(price.usd_micro_per_hour),
         price.date, price.source)
        for price in prices
    ]  # fmt: skip
    return table(("SIZE", "GPU", "REGION", "TIER", "USD PER HOUR", "DATE", "SOURCE"), rows)


def offers_text(offers: Sequence[RegionOffer]) -> str:
    headings = ("REGION", "ALLOWED", "CORES NEEDED", "DEDICATED FREE", "LOW PRIORITY FREE", "USD PER HOUR",
                "LOW PRIORITY", "PRICE DATE", "GPU SIZES THAT FIT")  # fmt: skip
    rows = []
    for offer in offers:
        needed = str(offer.cores_needed) if offer.offered else "not offered"
        cores = ["unknown" if free is None else str(free) for free in (offer.cores_free, offer.low_priority_cores_free)]
        usd = map(_usd_text, (offer.usd_micro_per_hour, offer.low_priority_usd_micro_per_hour))
        rows.append((offer.region, "yes" if offer.allowed else "no", needed, *cores, *usd,
                     offer.price_date or none_text(), ", ".join(offer.fits) or "none"))  # fmt: skip
    return table(headings, rows)


def bill_text(name: str, bill: Bill, ours_usd_micro: int) -> str:
    """A provider's own figure of what was spent, beside ours."""
    since = units.format_local(bill.since_s)
    by_service = sorted(bill.by_service_usd_micro.items())
    services = ", ".join(f"{service} {units.format_usd(usd)}" for service, usd in by_service)
    theirs, ours = units.format_usd(bill.usd_micro), units.format_usd(ours_usd_micro)
    difference = bill.usd_micro - ours_usd_micro
    sign = "less" if difference < 0 else "more"
    return (
        f"{name} reports since {since}: {theirs}{f' ({services})' if services else ''}; {bill.note}\n"
        f"our count since then: {ours} spent; {name} reports {units.format_usd(abs(difference))} {sign}"
    )
