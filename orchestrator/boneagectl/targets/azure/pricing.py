"""Prices of GPU machines on Azure: a dated table in the wheel, a refreshed file, and the maximum cost of a job.

Prices are of one node with Linux, in micro-dollars per hour. Azure ML's low priority has a meter of its own;
spot prices belong to plain virtual machines and are never used here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from boneage_trainer.contract import write_json
from boneagectl import models, units
from boneagectl.errors import MachineError, ProviderRefused, UsageError
from boneagectl.paths import data_dir
from boneagectl.targets import http

ADDRESS = "https://prices.azure.com/api/retail/prices"
API_VERSION = "2023-01-01-preview"
REFRESH = "boneagectl prices refresh"
DAY_S = 86_400
_API = http.Provider(
    "Azure's price API", sign_in=REFRESH, refused=REFRESH, later="try again later; until then the older prices count"
)
_MOST_PAGES = 50
_SCHEMA = 1
_PREFIX = "Standard_"
_LOW = " Low Priority"
_SPOT = " Spot"

Page = Mapping[str, Any]
Fetch = Callable[[str], Page]


@dataclass(frozen=True, slots=True)
class Price:
    """One node's hour. `region` is empty where the source names none; `date` is as exact as the source is."""

    size: str
    region: str
    usd_micro_per_hour: int
    low_priority: bool
    source: str
    date: str

    @property
    def key(self) -> tuple[str, str, bool]:
        return self.size, self.region, self.low_priority


@dataclass(frozen=True, slots=True)
class MachineSize:
    """A machine size by Azure's own name, with its hardware."""

    size: str
    vcpus: int
    memory_gb: int
    gpu: str


@dataclass(frozen=True, slots=True)
class RetiredSeries:
    """A series that Azure ended; `date` is empty where the day is unknown."""

    series: str
    pattern: str
    date: str


@dataclass(frozen=True, slots=True)
class PriceTable:
    """What is shipped: known sizes, their fallback prices, and the retired series."""

    date: str
    sizes: tuple[MachineSize, ...]
    prices: tuple[Price, ...]
    retired: tuple[RetiredSeries, ...]

    @property
    def size_names(self) -> str:
        return ", ".join(size.size for size in self.sizes)


# ----------------------------------------------------------------------------------------- known prices
def load_table() -> PriceTable:
    """The shipped table, ``infra/azure-prices.json``, without its spot prices."""
    content = json.loads((data_dir("infra") / "azure-prices.json").read_text(encoding="utf-8"))
    return PriceTable(
        content["date"],
        tuple(MachineSize(**line) for line in content["sizes"]),
        tuple(_price_from(line) for line in content["prices"] if line["kind"] != "spot"),
        tuple(RetiredSeries(line["series"], line["pattern"], line["retired"] or "") for line in content["retired"]),
    )


def canonical_size(size: str, names: Iterable[str] | None = None) -> str:
    """`size` as Azure writes it: its price API is case-sensitive, and ``Standard_`` may be left out.

    `names` are the sizes to choose from; None takes the table's. An unknown size is returned with its prefix.
    """
    full = size if size.lower().startswith(_PREFIX.lower()) else _PREFIX + size
    names = [line.size for line in load_table().sizes] if names is None else names
    return next((name for name in names if name.lower() == full.lower()), full)


def find_price(size: str, region: str, low_priority: bool, refreshed: Path | None) -> Price:
    """The price to count with: the refreshed file's, else the table's, else the highest known price of that size.

    The last one may be another region's, and for low priority also the dedicated price, which is not below it;
    `source` then says so.

    Raises:
        UsageError: a retired or unknown size, or one without a price that is safe to use.
        MachineError: the refreshed file cannot be read.
    """
    shipped = load_table()
    prices = [*(_read_prices(refreshed) if refreshed else []), *shipped.prices]
    name = canonical_size(size, [*(line.size for line in shipped.sizes), *(price.size for price in prices)])
    _refuse_retired(name, shipped)
    own = [price for price in prices if price.size == name]
    if exact := next((price for price in own if price.key == (name, region, low_priority)), None):
        return exact
    if own:
        return _highest_price(own, name, region, low_priority)
    if name in {line.size for line in shipped.sizes}:
        raise UsageError(f"no price of {name} is known that holds for Azure ML", REFRESH)
    raise UsageError(f"unknown GPU size {name}", f"known: {shipped.size_names}")


def list_prices(refreshed: Path) -> list[Price]:
    """Every price that `find_price` finds by name: refreshed ones, and those of the table that were not refreshed."""
    own = _read_prices(refreshed)
    keys = {price.key for price in own}
    shipped = [price for price in load_table().prices if price.key not in keys]
    return sorted([*own, *shipped], key=lambda price: (price.size, price.low_priority, price.region))


def _highest_price(own: Sequence[Price], name: str, region: str, low_priority: bool) -> Price:
    """A low priority price is never taken for a dedicated one."""
    candidates = [price for price in own if low_priority or not price.low_priority]
    if not candidates:
        raise UsageError(f"only the low priority price of {name} is known", f"{REFRESH} --region {region}")
    top = max(candidates, key=lambda price: price.usd_micro_per_hour)
    wanted, kind = ("low priority" if is_low else "dedicated" for is_low in (low_priority, top.low_priority))
    note = f"no {wanted} price known for {region}: the highest known of {name}"
    source = f"{note}, {kind} in {top.region or 'an unnamed region'}; {top.source}"
    return Price(name, region, top.usd_micro_per_hour, low_priority, source, top.date)


def _refuse_retired(name: str, shipped: PriceTable) -> None:
    for series in shipped.retired:
        if re.fullmatch(series.pattern, name, re.IGNORECASE):
            when = f"on {series.date}" if series.date else f"before {shipped.date}"
            raise UsageError(
                f"Azure retired {name} (series {series.series}) {when}", f"use one of {shipped.size_names}"
            )


def _price_from(line: Mapping[str, Any]) -> Price:
    certainty = f" ({line['certainty']})" if "certainty" in line else ""
    return Price(
        line["size"],
        line["region"] or "",
        units.usd_micro(line["usd_per_hour"]),
        line["kind"] == "low_priority",
        line["source"] + certainty,
        line["date"],
    )


def _read_prices(path: Path) -> list[Price]:
    """What `refresh_prices` wrote; nothing where there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [_price_from(line) for line in content["prices"] if line["kind"] != "spot"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise MachineError(f"the price file {path} cannot be read: {error}", f"remove it, then {REFRESH}") from None


# ------------------------------------------------------------------------------------ retail price API
def get_page(address: str) -> Page:
    """The JSON at `address`.

    Raises:
        Unreachable: no answer, or none that is JSON, after several attempts. ProviderRefused: the API refuses.
    """
    with http.session() as session, http.translated_errors(_API, "asking for prices"):
        response = session.get(address)
        response.raise_for_status()
        page: Page = response.json()
        return page


def refresh_prices(
    path: Path, sizes: Iterable[str], region: str, fetch: Fetch = get_page, address: str = ADDRESS
) -> list[Price]:
    """Asks the retail price API for `sizes` in `region`, writes the answer to `path`, and returns it.

    Prices of other regions and sizes in `path` stay, with their own dates. Where several meters fit one size,
    the highest counts. A size that the API has no price for is missing from what is returned.

    Source: the API's page, learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices.

    Raises:
        UsageError: a retired size, or a size or region that is not a name.
        Unreachable: no answer after several attempts.
        ProviderRefused: an answer that cannot be understood. MachineError: a price file that cannot be read.
    """
    _check_name("region", region, r"[a-z0-9]+")
    before, shipped = _read_prices(path), load_table()
    today = models.format_iso(time.time())[:10]
    new: list[Price] = []
    for size in map(canonical_size, sizes):
        _check_name("size", size, r"Standard_[\w-]+")
        _refuse_retired(size, shipped)
        new += _highest_by_kind(_list_items(_first_page(address, size, region), fetch), size, region, today)
    fresh = {price.key for price in new}
    prices = sorted([*(price for price in before if price.key not in fresh), *new], key=lambda price: price.key)
    lines = [
        {
            "size": price.size,
            "region": price.region,
            "usd_per_hour": units.to_usd(price.usd_micro_per_hour),
            "kind": "low_priority" if price.low_priority else "dedicated",
            "date": price.date,
            "source": price.source,
        }
        for price in prices
    ]
    write_json(path, {"schema": _SCHEMA, "date": today, "prices": lines})
    return new


def _check_name(what: str, name: str, pattern: str) -> None:
    """Both names are put in quotes into a filter expression."""
    if not re.fullmatch(pattern, name, re.ASCII):
        raise UsageError(f"{name!r} is not the name of a {what}", "for example westeurope, Standard_NC4as_T4_v3")


def _first_page(address: str, size: str, region: str) -> str:
    wanted = {
        "serviceName": "Virtual Machines",
        "armRegionName": region,
        "armSkuName": size,
        "priceType": "Consumption",
    }
    expression = " and ".join(f"{name} eq '{value}'" for name, value in wanted.items())
    return f"{address}?{urlencode({'api-version': API_VERSION, '$filter': expression})}"


def _list_items(address: str, fetch: Fetch) -> Iterator[Mapping[str, Any]]:
    """The items of all pages; each next page must be on the same host."""
    host, seen = urlsplit(address).hostname, set[str]()
    while address:
        if address in seen or len(seen) == _MOST_PAGES or urlsplit(address).hostname != host:
            raise ProviderRefused(f"the price API's pages do not end, or are on another host: {address}", REFRESH)
        seen.add(address)
        page = fetch(address)
        if not isinstance(page, Mapping) or not isinstance(page.get("Items"), list):
            raise ProviderRefused(f"the price API's answer has no list of items: {address}", REFRESH)
        yield from page["Items"]
        address = page.get("NextPageLink") or ""


def _highest_by_kind(items: Iterable[Mapping[str, Any]], size: str, region: str, today: str) -> list[Price]:
    """The highest dedicated and low priority price among the meters that fit."""
    highest: dict[bool, Price] = {}
    for item in items:
        if not _fits(item, size, region):
            continue
        low = any(item[name].endswith(_LOW) for name in ("skuName", "meterName"))
        source = f"retail price API, meter {item['meterName']!r}, {item['productName']}"
        price = Price(size, region, units.usd_micro(item["retailPrice"]), low, source, today)
        highest[low] = max(price, highest.get(low, price), key=lambda candidate: candidate.usd_micro_per_hour)
    return [highest[low] for low in sorted(highest)]


def _fits(item: Mapping[str, Any], size: str, region: str) -> bool:
    """Whether `item` is the price of an hour of Linux without a contract, dedicated or low priority.

    An item that lacks one of these fields is refused, and so is a price of zero.
    """
    try:
        return (
            (item["armSkuName"], item["armRegionName"]) == (size, region)
            and (item["type"], item["unitOfMeasure"]) == ("Consumption", "1 Hour")
            and item.get("currencyCode", "USD") == "USD"
            and item["isPrimaryMeterRegion"] is True
            and "Windows" not in item["productName"]
            and not any(item[name].endswith(_SPOT) for name in ("skuName", "meterName"))
            and item["retailPrice"] > 0
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ProviderRefused(f"the price API sent an item that cannot be understood: {error!r}", REFRESH) from None


# ----------------------------------------------------------------------------------------- maximum cost
def maximum_cost_usd_micro(
    price: Price, nodes: int, time_limit_s: int, idle_s: int, startup_s: int, daily_usd_micro: int
) -> int:
    """The most that a job can cost, in micro-dollars, rounded up.

    ::

        billed_s = time_limit_s + startup_s + idle_s
        cost     = ceil(nodes * usd_micro_per_hour * billed_s / 3600) + ceil(billed_s / 86400) * daily_usd_micro

    Every node is billed from its start to the end of its idle time, and `daily_usd_micro` for each day that has
    begun in that time. Queueing costs nothing, because no node is up yet.

    Raises:
        UsageError: fewer than one node, or anything below zero.
    """
    if nodes < 1 or min(time_limit_s, idle_s, startup_s, daily_usd_micro, price.usd_micro_per_hour) < 0:
        raise UsageError(f"a maximum cost needs at least one node and no negative value, not {nodes} nodes")
    billed_s = time_limit_s + startup_s + idle_s
    machines = units.cost_usd_micro(nodes * price.usd_micro_per_hour, billed_s)
    return machines + -(-billed_s // DAY_S) * daily_usd_micro
