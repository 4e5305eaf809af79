"""What a GPU machine on Azure costs an hour: a dated table in the wheel, a refreshed file, and the worst case of a job.

Prices are of one node with Linux, in micro-dollars an hour. Azure ML's low priority has a meter of its own;
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

from boneage_trainer.contract import write_json
from boneagectl import models, units
from boneagectl.errors import MachineError, ProviderRefused, Unreachable, UsageError
from boneagectl.paths import data_dir
from boneagectl.targets.http import retry_after_s

# == retail: Azure's retail price API: its query, its pages, and what to do where it does not answer.

ADDRESS = "https://prices.azure.com/api/retail/prices"
API_VERSION = "2023-01-01-preview"
REFRESH = "boneagectl prices refresh"
TIMEOUT_S = (10.0, 60.0)
PAUSES_S = (0.5, 2.0)
_LONGEST_PAUSE_S = 30.0
_AGAIN = (429, 500, 502, 503, 504)
_MOST_PAGES = 50

Page = Mapping[str, Any]
Fetch = Callable[[str], Page]


def query(address: str, size: str, region: str) -> str:
    """The first page of what an hour of `size` costs in `region`; both are case-sensitive."""
    from urllib.parse import urlencode

    wanted = {
        "serviceName": "Virtual Machines",
        "armRegionName": region,
        "armSkuName": size,
        "priceType": "Consumption",
    }
    expression = " and ".join(f"{name} eq '{value}'" for name, value in wanted.items())
    return f"{address}?{urlencode({'api-version': API_VERSION, '$filter': expression})}"


def items(address: str, fetch: Fetch) -> Iterator[Mapping[str, Any]]:
    """Every item of every page; the next page must lie on the same host."""
    from urllib.parse import urlsplit

    host, seen = urlsplit(address).hostname, set[str]()
    while address:
        if address in seen or len(seen) == _MOST_PAGES or urlsplit(address).hostname != host:
            raise ProviderRefused(f"the price API's pages do not end, or lead elsewhere: {address}", REFRESH)
        seen.add(address)
        page = fetch(address)
        if not isinstance(page, Mapping) or not isinstance(page.get("Items"), list):
            raise ProviderRefused(f"the price API's answer has no list of items: {address}", REFRESH)
        yield from page["Items"]
        address = page.get("NextPageLink") or ""


def get_json(address: str) -> Page:
    """What `address` answers, as JSON, with time limits and further tries.

    Raises:
        Unreachable: no answer, or 429 or a server's error, after several tries.
        ProviderRefused: it refuses, or its answer is not JSON.
    """
    import requests

    said = ""
    for pause_s in (*PAUSES_S, None):
        try:
            response = requests.get(address, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            said, wait_s = f"{type(error).__name__}: {error}"[:200], None
        else:
            if response.status_code not in _AGAIN:
                return _body(response, address)
            said, wait_s = f"it answered {response.status_code}", retry_after_s(response)
        if pause_s is not None:
            time.sleep(min(_LONGEST_PAUSE_S, wait_s or pause_s))
    raise Unreachable(f"the price API cannot be reached ({said})", "try again later; until then the older prices count")


def _body(response: Any, address: str) -> Page:
    if response.status_code != 200:
        raise ProviderRefused(f"the price API refuses {address}: {response.status_code} {response.text[:200]}")
    try:
        page: Page = response.json()
    except ValueError:
        raise ProviderRefused(f"the price API's answer is not JSON: {response.text[:200]!r}", REFRESH) from None
    return page


DAY_S = 86_400
_SCHEMA = 1
_PREFIX = "Standard_"
_LOW = " Low Priority"
_SPOT = " Spot"


@dataclass(frozen=True, slots=True)
class Price:
    """One node's hour. `region` is empty where the source names none; `date` is as exact as the source is."""

    size: str
    region: str
    usd_micro_per_hour: int
    low_priority: bool
    source: str
    date: str


@dataclass(frozen=True, slots=True)
class Size:
    """A machine size by Azure's own name, and what is in it."""

    size: str
    vcpus: int
    memory_gb: int
    gpu: str


@dataclass(frozen=True, slots=True)
class Retired:
    """A series that Azure ended; `date` is empty where no day is known."""

    series: str
    pattern: str
    date: str


@dataclass(frozen=True, slots=True)
class Table:
    """What is shipped: known sizes, their fallback prices, and the retired series."""

    date: str
    sizes: tuple[Size, ...]
    prices: tuple[Price, ...]
    retired: tuple[Retired, ...]


def table() -> Table:
    """The shipped table, ``infra/azure-prices.json``; spot prices in it are left out."""
    content = json.loads((data_dir("infra") / "azure-prices.json").read_text(encoding="utf-8"))
    return Table(
        content["date"],
        tuple(Size(**line) for line in content["sizes"]),
        tuple(_price(line) for line in content["prices"] if line["kind"] != "spot"),
        tuple(Retired(line["series"], line["pattern"], line["retired"] or "") for line in content["retired"]),
    )


def canonical(size: str, known: Iterable[str] | None = None) -> str:
    """`size` as Azure writes it: its price API tells upper from lower case, and ``Standard_`` may be left out.

    `known` are the names to choose from; None takes the table's. A name that is not among them comes back as it is.
    """
    full = size if size.lower().startswith(_PREFIX.lower()) else _PREFIX + size
    names = [line.size for line in table().sizes] if known is None else known
    return next((name for name in names if name.lower() == full.lower()), full)


def lookup(size: str, region: str, low_priority: bool, refreshed: Path | None) -> Price:
    """The price to count with: the refreshed file's, else the table's, else the highest known of that size.

    That last one may be another region's, and for low priority also the dedicated price, which is not below it;
    `source` then says so.

    Raises:
        UsageError: a retired size, one that nothing is known of, or one without a price that is safe to use.
        MachineError: the refreshed file cannot be read.
    """
    shipped = table()
    prices = [*(_read(refreshed) if refreshed else []), *shipped.prices]
    name = canonical(size, [*(line.size for line in shipped.sizes), *(price.size for price in prices)])
    _refuse_retired(name, shipped)
    own = [price for price in prices if price.size == name]
    exact = (price for price in own if price.region == region and price.low_priority == low_priority)
    if found := next(exact, None):
        return found
    if not own:
        raise _unpriced(name, shipped)
    return _highest(own, name, region, low_priority)


def known(refreshed: Path) -> list[Price]:
    """Every price that `lookup` would find by name: refreshed ones, and of the table what they do not have."""
    own = _read(refreshed)
    have = {(price.size, price.region, price.low_priority) for price in own}
    shipped = [price for price in table().prices if (price.size, price.region, price.low_priority) not in have]
    return sorted([*own, *shipped], key=lambda price: (price.size, price.low_priority, price.region))


def _highest(own: Sequence[Price], name: str, region: str, low_priority: bool) -> Price:
    """The highest of all; a low priority price is never taken for a dedicated one."""
    fitting = [price for price in own if low_priority or not price.low_priority]
    if not fitting:
        raise UsageError(f"only the low priority price of {name} is known", f"{REFRESH} --region {region}")
    top = max(fitting, key=lambda price: price.usd_micro_per_hour)
    kind = "low priority" if top.low_priority else "dedicated"
    note = f"no {'low priority' if low_priority else 'dedicated'} price known for {region}: the highest known of {name}"
    source = f"{note}, {kind} in {top.region or 'an unnamed region'}; {top.source}"
    return Price(name, region, top.usd_micro_per_hour, low_priority, source, top.date)


def _refuse_retired(name: str, shipped: Table) -> None:
    for series in shipped.retired:
        if re.fullmatch(series.pattern, name, re.IGNORECASE):
            when = f"on {series.date}" if series.date else "some time before " + shipped.date
            raise UsageError(f"Azure retired {name} (series {series.series}) {when}", f"take one of {_known(shipped)}")


def _unpriced(name: str, shipped: Table) -> UsageError:
    if name in {line.size for line in shipped.sizes}:
        return UsageError(f"no price of {name} is known that holds for Azure ML", REFRESH)
    return UsageError(f"{name} is no GPU size known here", f"known: {_known(shipped)}")


def _known(shipped: Table) -> str:
    return ", ".join(line.size for line in shipped.sizes)


def _price(line: Mapping[str, Any]) -> Price:
    certainty = f" ({line['certainty']})" if "certainty" in line else ""
    return Price(
        line["size"],
        line["region"] or "",
        units.usd_micro(line["usd_per_hour"]),
        line["kind"] == "low_priority",
        line["source"] + certainty,
        line["date"],
    )


def _read(path: Path) -> list[Price]:
    """What `refresh` wrote; nothing where there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [_price(line) for line in content["prices"] if line["kind"] != "spot"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise MachineError(f"the price file {path} cannot be read: {error}", f"remove it, then {REFRESH}") from None


def refresh(
    path: Path, sizes: Iterable[str], region: str, fetch: Fetch = get_json, address: str = ADDRESS
) -> list[Price]:
    """Asks the retail price API for `sizes` in `region`, writes what it says into `path`, and returns that.

    Prices of other regions and sizes in `path` stay, with their own dates. Where several meters fit one size,
    the highest counts. A size that the API has no price for is missing from what is returned.

    Source: the API's page, learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices.

    Raises:
        UsageError: a retired size, or a size or region that is not a name.
        Unreachable: no answer after several tries.
        ProviderRefused: an answer that cannot be understood. MachineError: a price file that cannot be read.
    """
    _check_name("region", region, r"[a-z0-9]+")
    known, shipped = _read(path), table()
    today = models.format_iso(time.time())[:10]
    new: list[Price] = []
    for size in map(canonical, sizes):
        _check_name("size", size, r"Standard_[\w-]+")
        _refuse_retired(size, shipped)
        answers = items(query(address, size, region), fetch)
        new += _priced(answers, size, region, today)
    fresh = {(price.size, price.region, price.low_priority) for price in new}
    kept = [price for price in known if (price.size, price.region, price.low_priority) not in fresh]
    lines = [_line(price) for price in sorted([*kept, *new], key=lambda p: (p.size, p.region, p.low_priority))]
    write_json(path, {"schema": _SCHEMA, "date": today, "prices": lines})
    return new


def _check_name(what: str, name: str, pattern: str) -> None:
    """Both stand inside a filter expression, in quotes."""
    if not re.fullmatch(pattern, name, re.ASCII):
        raise UsageError(f"{name!r} is not the name of a {what}", "write westeurope, Standard_NC4as_T4_v3")


def _priced(items: Iterable[Mapping[str, Any]], size: str, region: str, today: str) -> list[Price]:
    """The highest price of each kind among the meters that fit."""
    highest: dict[bool, Price] = {}
    for item in items:
        if not _fits(item, size, region):
            continue
        low = any(item[name].endswith(_LOW) for name in ("skuName", "meterName"))
        source = f"retail price API, meter {item['meterName']!r}, {item['productName']}"
        price = Price(size, region, units.usd_micro(item["retailPrice"]), low, source, today)
        highest[low] = max(price, highest.get(low, price), key=lambda one: one.usd_micro_per_hour)
    return [highest[low] for low in sorted(highest)]


def _fits(item: Mapping[str, Any], size: str, region: str) -> bool:
    """Whether `item` is what an hour of Linux without a contract costs there, dedicated or low priority.

    An item without a word about a thing that decides is refused, and so is a price of nothing.
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


def _line(price: Price) -> dict[str, Any]:
    return {
        "size": price.size,
        "region": price.region,
        "usd_per_hour": units.to_usd(price.usd_micro_per_hour),
        "kind": "low_priority" if price.low_priority else "dedicated",
        "date": price.date,
        "source": price.source,
    }


def worst_case(price: Price, nodes: int, time_limit_s: int, idle_s: int, startup_s: int, daily_usd_micro: int) -> int:
    """The most that a job can cost, in micro-dollars, rounded up.

    ::

        billed_s = time_limit_s + startup_s + idle_s
        cost     = ceil(nodes * usd_micro_per_hour * billed_s / 3600) + ceil(billed_s / 86400) * daily_usd_micro

    Every node is billed from its start to the end of its idle tail, and `daily_usd_micro` for each day that is
    begun in that time. Queueing costs nothing, since no node stands yet.

    Raises:
        UsageError: fewer than one node, or anything below zero.
    """
    if nodes < 1 or min(time_limit_s, idle_s, startup_s, daily_usd_micro, price.usd_micro_per_hour) < 0:
        raise UsageError(f"a worst case needs at least one node and nothing below zero, not {nodes} nodes")
    billed_s = time_limit_s + startup_s + idle_s
    machines = units.cost_usd_micro(nodes * price.usd_micro_per_hour, billed_s)
    return machines + -(-billed_s // DAY_S) * daily_usd_micro
