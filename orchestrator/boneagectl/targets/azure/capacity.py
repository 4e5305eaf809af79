"""What a subscription may run where: cores by family and tier, allowed regions, prices; for doctor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneagectl.errors import MachineError
from boneagectl.targets.azure import prices, rest
from boneagectl.targets.azure.rendering import Wishes

_POLICIES = "2022-06-01"
_LOCATIONS = "listOfAllowedLocations"


@dataclass(frozen=True, slots=True)
class Offer:
    """What one region has for the size that is wished for. Cores and prices None: nobody tells.

    `fits` are the known GPU sizes of which one node has room in the quota, dedicated or low priority.
    """

    region: str
    allowed: bool
    offered: bool
    cores_needed: int
    cores_free: int | None
    low_priority_cores_free: int | None
    usd_micro_per_hour: int | None
    low_priority_usd_micro_per_hour: int | None
    price_date: str
    fits: tuple[str, ...]


def allowed_regions(arm: rest.Arm, subscription: str) -> list[str] | None:
    """The only regions that the subscription's policies allow, or None where none of them says so."""
    path = f"/subscriptions/{subscription}/providers/Microsoft.Authorization/policyAssignments"
    found: list[set[str]] = []
    for policy in arm.listed(path, _POLICIES):
        given = (policy.get("properties", {}).get("parameters") or {}).get(_LOCATIONS) or {}
        if isinstance(given.get("value"), list):
            found.append({str(region).lower().replace(" ", "") for region in given["value"]})
    return sorted(set.intersection(*found)) if found else None


def offer(
    arm: rest.Arm, subscription: str, region: str, wishes: Wishes, allowed: list[str] | None, file: Path
) -> Offer:
    """Asks Azure ML for sizes and quota, and the price API for prices; `file` keeps those.

    Raises:
        MachineError: Azure refuses to tell. UsageError: a size that Azure retired.
    """
    base = f"/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{region}"
    sizes = {str(one.get("name")): one for one in arm.listed(f"{base}/vmSizes", rest.COMPUTES)}
    usages = arm.listed(f"{base}/usages", rest.COMPUTES)
    own = next((one for name, one in sizes.items() if name.lower() == wishes.size.lower()), None)
    low_free, priced = _free(usages, "lowpriority"), _prices(wishes.size, region, file)
    dedicated, low = priced.get(False), priced.get(True)
    return Offer(
        region,
        allowed is None or region in allowed,
        own is not None,
        int(own["vCPUs"]) * wishes.nodes if own else 0,
        _free(usages, str(own["family"])) if own else None,
        low_free,
        dedicated.usd_micro_per_hour if dedicated else None,
        low.usd_micro_per_hour if low else None,
        dedicated.date if dedicated else "",
        tuple(_fitting(sizes, usages, low_free)),
    )


def _free(usages: Iterable[dict[str, Any]], family: str) -> int | None:
    """Cores that are left; Azure writes a family's name with and without blanks, and adds words to it."""
    wanted = _plain(family)
    for one in usages:
        if wanted in _plain(str(one.get("name", {}).get("value", ""))):
            return max(0, int(one.get("limit", 0)) - int(one.get("currentValue", 0)))
    return None


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "")


def _fitting(sizes: dict[str, dict[str, Any]], usages: list[dict[str, Any]], low_free: int | None) -> list[str]:
    gpus = {name: one for name, one in sizes.items() if int(one.get("gpus") or 0) > 0}
    return sorted(
        name
        for name, one in gpus.items()
        if max(_free(usages, str(one["family"])) or 0, low_free or 0) >= int(one["vCPUs"])
    )


def _prices(size: str, region: str, file: Path) -> dict[bool, prices.Price]:
    """By whether it is low priority: today's price where the price API answers, else that region's newest known."""
    with contextlib.suppress(MachineError):  # the date that is shown tells how old the price is
        prices.refresh(file, [size], region)
    name = prices.canonical(size)
    return {one.low_priority: one for one in prices.known(file) if (one.size, one.region) == (name, region)}
