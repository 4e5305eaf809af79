"""What Azure itself has billed, by its Cost Management: late, and not for every kind of subscription.

Source: learn.microsoft.com/azure/cost-management-billing/costs/understand-cost-mgt-data.
"""

from __future__ import annotations

from datetime import UTC, datetime

from boneagectl import units
from boneagectl.errors import ProviderRefused
from boneagectl.models import Bill
from boneagectl.targets.azure.client import ArmClient

_VERSION = "2025-03-01"
LATE_S = 3 * 86_400
"""A day more than the longest delay that is documented."""
NOTE = "8 to 24 hours late, two days in a new subscription; credit is not subtracted"
_QUERY = {
    "type": "ActualCost",
    "timeframe": "MonthToDate",
    "dataset": {
        "granularity": "None",
        "aggregation": {"totalCost": {"name": "Cost", "function": "Sum"}},
        "grouping": [{"type": "Dimension", "name": "ServiceName"}],
    },
}


def get_month_to_date(arm: ArmClient, subscription: str) -> Bill:
    """The costs of the whole subscription since the first of the month in UTC.

    Raises:
        ProviderRefused: this offer is not supported, or the answer is not in dollars or has other columns.
    """
    path = f"/subscriptions/{subscription}/providers/Microsoft.CostManagement/query"
    table = arm.request("POST", path, _VERSION, _QUERY)["properties"]
    names = [str(column["name"]) for column in table["columns"]]
    if not {"Cost", "ServiceName"} <= set(names):
        raise ProviderRefused(f"Cost Management's answer has unknown columns: {', '.join(names)}")
    rows = [dict(zip(names, row, strict=True)) for row in table["rows"]]
    if others := {row["Currency"] for row in rows if row.get("Currency", "USD") != "USD"}:
        raise ProviderRefused(f"Azure bills in {', '.join(sorted(others))}; the ledger counts dollars")
    start = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    by_service: dict[str, int] = {}
    for row in rows:
        name = str(row["ServiceName"] or "other")
        by_service[name] = by_service.get(name, 0) + units.usd_micro(max(0.0, float(row["Cost"])))
    return Bill(int(start.timestamp()), sum(by_service.values()), by_service, NOTE, LATE_S)
