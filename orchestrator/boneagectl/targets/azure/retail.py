"""Azure's retail price API: its query, its pages, and what to do where it does not answer.

Source: learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices. Needs no login.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from boneagectl.errors import MachineError, Unreachable
from boneagectl.targets.answers import retry_after_s

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
            raise MachineError(f"the price API's pages do not end, or lead elsewhere: {address}", REFRESH)
        seen.add(address)
        page = fetch(address)
        if not isinstance(page, Mapping) or not isinstance(page.get("Items"), list):
            raise MachineError(f"the price API's answer has no list of items: {address}", REFRESH)
        yield from page["Items"]
        address = page.get("NextPageLink") or ""


def get_json(address: str) -> Page:
    """What `address` answers, as JSON, with time limits and further tries.

    Raises:
        Unreachable: no answer, or 429 or a server's error, after several tries.
        MachineError: it refuses, or its answer is not JSON.
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
        raise MachineError(f"the price API refuses {address}: {response.status_code} {response.text[:200]}")
    try:
        page: Page = response.json()
    except ValueError:
        raise MachineError(f"the price API's answer is not JSON: {response.text[:200]!r}", REFRESH) from None
    return page
