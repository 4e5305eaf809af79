"""The Azure emulator's money: retail prices in pages, what was spent, budgets."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import NAMESPACE_URL, uuid5

from emulators import azure_rules as rules
from emulators.azure_routes import route
from emulators.azure_wire import Answer, Problem, Reply, Request

if TYPE_CHECKING:
    from emulators.azure import Azure
    from emulators.azure_compute import Cluster

_ON_DEMAND = {"Standard_DS3_v2": 0.293, "Standard_NC4as_T4_v3": 0.526, "Standard_NC8as_T4_v3": 0.752,
              "Standard_NC24ads_A100_v4": 3.673}  # fmt: skip
_REGIONS = {"eastus": 1.0, "westeurope": 1.25, "uksouth": 1.17, "francecentral": 1.2}
_LOW, _SPOT = 0.234, 0.34
DAILY_USD = {
    "microsoft.containerregistry/registries": 0.167,
    "microsoft.storage/storageaccounts": 0.02,
    "microsoft.keyvault/vaults": 0.0,
    "microsoft.insights/components": 0.0,
    "microsoft.machinelearningservices/workspaces": 0.0,
    "microsoft.machinelearningservices/workspaces/computes": 0.33,
}
"""What each costs a day while nothing runs: a cluster's load balancer costs also at no nodes."""

_TERM = re.compile(r"\s*(?:(\w+) (eq|ne) '((?:[^']|'')*)'|contains\((\w+), ?'((?:[^']|'')*)'\))\s*")
_FIELDS = {"armRegionName", "armSkuName", "serviceName", "priceType", "skuName", "productName", "meterName",
           "serviceFamily", "currencyCode", "skuId", "serviceId", "productId", "meterId", "location"}  # fmt: skip


class Money:
    """`extra_usd` is spent besides: (day, service, USD), the day like 20261124."""

    def __init__(self, azure: Azure) -> None:
        self.azure = azure
        self.extra_usd: list[tuple[int, str, float]] = []
        self.budgets: dict[str, dict[str, Any]] = {}

    # -------------------------------------------------------------------------------- prices
    def hour_usd(self, size: str, region: str, is_low: bool = False) -> float | None:
        if region not in _REGIONS or size not in _ON_DEMAND:
            return None
        return round(_ON_DEMAND[size] * _REGIONS[region] * (_LOW if is_low else 1), 6)

    def price_of(self, cluster: Cluster) -> float:
        """What its nodes have cost so far."""
        usd = self.hour_usd(cluster.size.name, self.azure.region, cluster.is_low) or 0.0
        return cluster.node_seconds / 3600 * usd

    def _items(self) -> list[dict[str, Any]]:
        return [item for region in _REGIONS for size in _ON_DEMAND for item in self._of_size(size, region)]

    def _of_size(self, size: str, region: str) -> list[dict[str, Any]]:
        usd, name = self.hour_usd(size, region) or 0.0, size.removeprefix("Standard_").replace("_", " ")
        series = f"Virtual Machines {name.split(' ')[0]} Series"
        kinds = (
            ("", "", usd, "Consumption"), (" Spot", "", usd * _SPOT, "Consumption"),
            (" Low Priority", "", usd * _LOW, "Consumption"), ("", " Windows", usd * 1.35, "Consumption"),
            (" Spot", " Windows", usd * _SPOT * 1.35, "Consumption"), ("", "", usd * 0.8, "DevTestConsumption"),
            ("", "", usd * 5200, "Reservation"),
        )  # fmt: skip
        return [self._item(size, region, name + suffix, series + os, price, kind) for suffix, os, price, kind in kinds]

    def _item(self, size: str, region: str, sku: str, product: str, usd: float, kind: str) -> dict[str, Any]:
        more = {"reservationTerm": "1 Year"} if kind == "Reservation" else {}
        price = round(usd, 6)
        return {"currencyCode": "USD", "tierMinimumUnits": 0.0, "retailPrice": price, "unitPrice": price,
                "armRegionName": region, "location": region, "effectiveStartDate": "2026-11-01T00:00:00Z",
                "meterId": str(uuid5(NAMESPACE_URL, f"{size} {region} {sku} {product} {kind}")), "meterName": sku,
                "productName": product, "skuName": sku, "serviceName": "Virtual Machines", "serviceFamily": "Compute",
                "unitOfMeasure": "1 Hour", "type": kind, "isPrimaryMeterRegion": True, "armSkuName": size,
                **more}  # fmt: skip

    @route("GET", "/api/retail/prices")
    def list_prices(self, request: Request) -> Answer:
        """Unlike elsewhere, a region of a wrong spelling is no error but an empty page."""
        query, size = request.query, self.azure.prices_per_page
        found = [item for item in self._items() if _fits(item, query.get("$filter", ""))]
        first = int(query.get("$skip", 0))
        page = found[first : first + size]
        following = {**query, "$skip": str(first + size)}
        link = f"https://prices.azure.com:443/api/retail/prices?{urlencode(following)}"
        return {"BillingCurrency": "USD", "CustomerEntityId": "Default", "CustomerEntityType": "Retail", "Items": page,
                "NextPageLink": link if len(found) > first + size else None, "Count": len(page)}  # fmt: skip

    # --------------------------------------------------------------------------------- spend
    def spent_usd(self) -> dict[str, float]:
        """By service, until now, as the invoice would have it."""
        computes = self.azure.computes
        machines = sum(self.price_of(one) for one in list(computes.clusters.values()))
        said = {"Virtual Machines": machines + sum(computes.past_usd.values())}
        for _, service, usd in self.extra_usd:
            said[service] = said.get(service, 0.0) + usd
        return said

    def billed(self) -> list[tuple[str, float]]:
        """Each resource that is there, and what it costs a day even when nothing runs."""
        from emulators.azure_arm import kind_of

        found = [(one["id"], DAILY_USD.get(kind_of(one["id"]))) for one in self.azure.arm.resources.values()]
        return [(name, usd) for name, usd in found if usd is not None]

    @route("POST", "/subscriptions/{s}/providers/Microsoft.CostManagement/query")
    def query_costs(self, request: Request, s: str) -> Answer:
        return self._costs(request)

    @route("POST", "/subscriptions/{s}/resourceGroups/{group}/providers/Microsoft.CostManagement/query")
    def query_group_costs(self, request: Request, s: str, group: str) -> Answer:
        return self._costs(request)

    def _costs(self, request: Request) -> Answer:
        body = request.json
        dimension = {"type!": ("Dimension", "TagKey"), "name!": str}
        rules.check(body, {
            "type!": ("ActualCost", "AmortizedCost", "Usage"),
            "timeframe!": ("MonthToDate", "BillingMonthToDate", "TheLastMonth", "WeekToDate", "Custom"),
            "timePeriod": {"from!": str, "to!": str},
            "dataset": {"granularity": ("Daily", "Monthly", "None"), "grouping": [dimension], "filter": object,
                        "configuration": object, "sorting": object,
                        "aggregation": rules.Map({"name!": str, "function!": ("Sum",)})}})  # fmt: skip
        if not self.azure.costs_are_available:
            text = "Cost management data is not supported for subscription(s) of this offer type."
            raise Problem(400, "BadRequest", text)
        return {"id": request.path, "name": "query", "type": "Microsoft.CostManagement/query",
                "properties": self._table(body.get("dataset") or {})}  # fmt: skip

    def _table(self, dataset: dict[str, Any]) -> dict[str, Any]:
        """What is late is not in it; only grouping by the service is known."""
        today, spent = int(datetime.fromtimestamp(self.azure.now_s(), UTC).strftime("%Y%m%d")), self.azure.billed_usd()
        rows = [(usd, today, service, "USD") for service, usd in spent.items() if usd]
        names = [("Cost", "Number"), ("UsageDate", "Number"), ("ServiceName", "String"), ("Currency", "String")]
        keep = [0, 1, 2, 3] if dataset.get("granularity") == "Daily" else [0, 2, 3]
        if not dataset.get("grouping"):
            keep.remove(2)
            rows = [(sum(row[0] for row in rows), today, "", "USD")] if rows else []
        columns = [{"name": names[at][0], "type": names[at][1]} for at in keep]
        return {"nextLink": None, "columns": columns, "rows": [[row[at] for at in keep] for row in rows]}

    # ------------------------------------------------------------------------------- budgets
    def put_budget(self, budget: dict[str, Any]) -> None:
        said = budget["properties"]
        start = said["timePeriod"]["startDate"]
        if not re.match(r"\d{4}-\d\d-01", start):
            raise Problem(400, "400", "The start date of a budget must be the first day of a month.")
        if len(said.get("notifications") or {}) > 5:
            raise Problem(400, "400", "A budget has five notifications at most.")
        for alert in (said.get("notifications") or {}).values():
            if not 0 < alert["threshold"] <= 1000 or not (alert.get("contactEmails") or alert.get("contactRoles")):
                raise Problem(400, "400", "A notification needs a threshold above 0 and a contact.")
        said["currentSpend"] = {"amount": sum(self.azure.billed_usd().values()), "unit": "USD"}

    @route("PUT", "/subscriptions/{s}/providers/Microsoft.Consumption/budgets/{name}")
    def put_at_subscription(self, request: Request, s: str, name: str) -> Answer:
        self.azure.arm.check_write(request.path)
        body, is_new = request.json, request.path.lower() not in self.budgets
        rules.check(body, rules.BUDGET)
        made = {"id": request.path, "name": name, "type": "Microsoft.Consumption/budgets", "eTag": '"1"', **body}
        made["properties"] = {**body["properties"]}
        self.put_budget(made)
        self.budgets[request.path.lower()] = made
        return Reply(201 if is_new else 200, made)

    @route("GET", "/subscriptions/{s}/providers/Microsoft.Consumption/budgets/{name}")
    def get_at_subscription(self, request: Request, s: str, name: str) -> Answer:
        if request.path.lower() not in self.budgets:
            raise Problem(404, "404", f"Budget {name} was not found.")
        return self.budgets[request.path.lower()]

    @route("GET", "/subscriptions/{s}/providers/Microsoft.Consumption/budgets")
    def list_at_subscription(self, request: Request, s: str) -> Answer:
        return {"value": list(self.budgets.values())}

    @route("DELETE", "/subscriptions/{s}/providers/Microsoft.Consumption/budgets/{name}")
    def delete_at_subscription(self, request: Request, s: str, name: str) -> Answer:
        return Reply(200 if self.budgets.pop(request.path.lower(), None) else 204)


def _fits(item: dict[str, Any], text: str) -> bool:
    return any(all(_holds(item, term) for term in part.split(" and ")) for part in text.split(" or ")) if text else True


def _holds(item: dict[str, Any], term: str) -> bool:
    """Case matters, as it does there; `priceType` is called `type` in the answer."""
    found = _TERM.fullmatch(term.strip("() ") + (")" if "contains(" in term else ""))
    if found is None or (found[1] or found[4]) not in _FIELDS:
        raise Problem(400, "BadRequest", f"Invalid OData parameters supplied: {term}")
    name = {"priceType": "type"}.get(found[1] or found[4], found[1] or found[4])
    if found[4]:
        return found[5] in str(item.get(name, ""))
    return (str(item.get(name, "")) == found[3]) == (found[2] == "eq")
