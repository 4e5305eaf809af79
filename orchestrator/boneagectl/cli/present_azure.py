"""How Azure's infrastructure, prices, regions and bill look to people. Words only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from boneagectl import units
from boneagectl.output import table
from boneagectl.records import Bill

if TYPE_CHECKING:
    from boneagectl.targets.azure.capacity import Offer
    from boneagectl.targets.azure.prices import Price, Size
    from boneagectl.targets.azure.template import IdleCost


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
