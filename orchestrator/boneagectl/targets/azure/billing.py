"""What Azure itself says was spent, by its Cost Management: late, and not for every kind of subscription.

Source: learn.microsoft.com/azure/cost-management-billing/costs/understand-cost-mgt-data.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from boneagectl import units
from boneagectl.errors import ProviderRefused
from boneagectl.models import Bill
from boneagectl.targets.azure import client

_VERSION = "2025-03-01"
LATE_S = 3 * 86_400
"""A day more than the longest that is documented."""
NOTE = "8 to 24 hours late, two days in a new subscription; a credit is not subtracted"


def this_month(arm: client.ArmClient, subscription: str) -> Bill:
    """Since the first of the month in UTC, all of the subscription.

    Raises:
        ProviderRefused: this offer is not supported, or the answer is not in dollars or cannot be understood.
    """
    path = f"/subscriptions/{subscription}/providers/Microsoft.CostManagement/query"
    said = arm.request("POST", path, _VERSION, _query())["properties"]
    names = [str(column["name"]) for column in said["columns"]]
    if not {"Cost", "ServiceName"} <= set(names):
        raise ProviderRefused(f"Cost Management's answer has other columns: {', '.join(names)}")
    rows = [dict(zip(names, row, strict=True)) for row in said["rows"]]
    if others := {row["Currency"] for row in rows if row.get("Currency", "USD") != "USD"}:
        raise ProviderRefused(f"Azure bills in {', '.join(sorted(others))}; the ledger counts dollars")
    start = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    by_service: dict[str, int] = {}
    for row in rows:
        name = str(row["ServiceName"] or "other")
        by_service[name] = by_service.get(name, 0) + units.usd_micro(max(0.0, float(row["Cost"])))
    return Bill(int(start.timestamp()), sum(by_service.values()), by_service, NOTE, LATE_S)


def _query() -> dict[str, Any]:
    return {
        "type": "ActualCost",
        "timeframe": "MonthToDate",
        "dataset": {
            "granularity": "None",
            "aggregation": {"totalCost": {"name": "Cost", "function": "Sum"}},
            "grouping": [{"type": "Dimension", "name": "ServiceName"}],
        },
    }
