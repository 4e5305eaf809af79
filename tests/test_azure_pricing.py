"""Prices of Azure's GPU machines: the shipped table, pages of the retail API over a real socket, the worst case."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from boneagectl.errors import MachineError, ProviderRefused, RemoteError, Unreachable, UsageError
from boneagectl.paths import data_dir
from boneagectl.targets.azure import pricing
from boneagectl.targets.azure.pricing import Price, find_price, maximum_cost_usd_micro, refresh_prices

T4 = "Standard_NC4as_T4_v3"


def item(price: float, suffix: str = "", **other: Any) -> dict[str, Any]:
    """One meter, with the fields that the API sends."""
    return {
        "currencyCode": "USD",
        "retailPrice": price,
        "unitPrice": price,
        "armRegionName": "westeurope",
        "location": "EU West",
        "meterName": f"NC4as T4 v3{suffix}",
        "productName": "Virtual Machines NCasT4 v3 Series",
        "skuName": f"NC4as T4 v3{suffix}",
        "serviceName": "Virtual Machines",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": T4,
        **other,
    }


NOISE = [
    item(9.1, productName="Virtual Machines NCasT4 v3 Series Windows"),
    item(9.2, type="DevTestConsumption"),
    item(9.3, type="Reservation", reservationTerm="1 Year"),
    item(9.4, isPrimaryMeterRegion=False),
    item(9.5, " Spot"),
    item(9.6, meterName="NC4as T4 v3 Spot"),
    item(9.7, armRegionName="northeurope"),
    item(9.8, armSkuName="Standard_NC64as_T4_v3"),
    item(9.9, unitOfMeasure="1 Month"),
    item(10.0, currencyCode="EUR"),
    item(0.0),
]


class Retail(ThreadingHTTPServer):
    """The retail price API on loopback: `pages` are lists of items, `faults` are statuses to send first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: list[list[dict[str, Any]]] = []
        self.faults: list[int] = []
        self.body: bytes | None = None
        self.elsewhere = ""
        self.asked: list[dict[str, list[str]]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/retail/prices"


class _Handler(BaseHTTPRequestHandler):
    server: Retail

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.server.asked.append(query)
        status = self.server.faults.pop(0) if self.server.faults else 200
        body = self.server.body if self.server.body is not None else json.dumps(self._page(query)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        at = int(query.get("$skip", ["0"])[0])
        link = f"{self.server.address}?{urlsplit(self.path).query.partition('&%24skip')[0]}&%24skip={at + 1}"
        more = at + 1 < len(self.server.pages)
        return {"Items": self.server.pages[at], "NextPageLink": self.server.elsewhere or (link if more else None)}

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api(fast_retries: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Retail]:
    pytest.importorskip("requests")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Retail() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(api: Retail, path: Path, region: str = "westeurope") -> list[Price]:
    return refresh_prices(path, [T4], region, address=api.address)


def test_only_linux_without_a_contract_counts(api: Retail, tmp_path: Path) -> None:
    """Over several pages, and the highest of the meters that fit."""
    api.pages = [NOISE, [item(0.6), item(0.1, " Low Priority")], [item(0.623), item(0.12, " Low Priority")]]
    dedicated, low = ask(api, tmp_path / "prices.json")
    assert (dedicated.usd_micro_per_hour, dedicated.low_priority) == (623_000, False)
    assert (low.usd_micro_per_hour, low.low_priority) == (120_000, True)
    assert "NC4as T4 v3" in dedicated.source
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", low.date)
    assert [query.get("$skip") for query in api.asked] == [None, ["1"], ["2"]]


@pytest.mark.parametrize("noise", NOISE, ids=lambda noise: str(noise["retailPrice"]))
def test_each_other_meter_is_left_out(tmp_path: Path, noise: dict[str, Any]) -> None:
    assert refresh_prices(tmp_path / "prices.json", [T4], "westeurope", lambda _: {"Items": [noise]}) == []


def test_the_query_is_the_documented_one(api: Retail, tmp_path: Path) -> None:
    api.pages = [[item(0.6)]]
    refresh_prices(tmp_path / "p.json", ["nc4as_t4_v3"], "westeurope", address=api.address)
    (query,) = api.asked
    assert query["api-version"] == ["2023-01-01-preview"]
    assert dict(re.findall(r"(\w+) eq '([^']*)'", query["$filter"][0])) == {
        "serviceName": "Virtual Machines",
        "armRegionName": "westeurope",
        "armSkuName": T4,
        "priceType": "Consumption",
    }


def test_a_refreshed_price_wins_and_others_stay(api: Retail, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "prices.json"
    path.parent.mkdir()
    api.pages = [[item(0.7, armRegionName="eastus")]]
    ask(api, path, "eastus")
    api.pages = [[item(0.623), item(0.12, " Low Priority")]]
    ask(api, path)
    assert find_price(T4, "eastus", False, path).usd_micro_per_hour == 700_000
    assert find_price(T4, "westeurope", True, path).usd_micro_per_hour == 120_000
    assert find_price(T4, "eastus", False, None).usd_micro_per_hour == 526_000
    assert find_price(T4, "eastus", False, tmp_path / "none.json").usd_micro_per_hour == 526_000
    assert {line["date"] for line in json.loads(path.read_text())["prices"]} == {json.loads(path.read_text())["date"]}
    assert [one.name for one in path.parent.iterdir()] == ["prices.json"]


def test_a_size_without_a_meter_is_missing(api: Retail, tmp_path: Path) -> None:
    api.pages = [[]]
    assert ask(api, tmp_path / "prices.json") == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_errors_are_retried(api: Retail, tmp_path: Path, status: int) -> None:
    api.pages, api.faults = [[item(0.6)]], [status, status]
    assert ask(api, tmp_path / "prices.json")[0].usd_micro_per_hour == 600_000
    assert len(api.asked) == 3


def test_lasting_errors_leave_the_file_unchanged(api: Retail, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    api.pages, api.faults = [[item(0.6)]], [503] * 9
    with pytest.raises(Unreachable, match="503"):
        ask(api, path)
    assert not path.exists()


def test_an_api_that_does_not_listen(tmp_path: Path, fast_retries: None) -> None:
    pytest.importorskip("requests")
    with pytest.raises(Unreachable, match="price API"):
        refresh_prices(tmp_path / "p.json", [T4], "eastus", address="http://127.0.0.1:9/api")


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"Items": [{}]}', b'{"Items": [3]}', b'{"Items": {"a": 1}}']
)
def test_answers_that_cannot_be_understood(api: Retail, tmp_path: Path, body: bytes) -> None:
    api.body = body
    with pytest.raises(RemoteError, match="price API"):
        ask(api, tmp_path / "prices.json")
    assert not (tmp_path / "prices.json").exists()


def test_a_refusal_is_not_retried(api: Retail, tmp_path: Path) -> None:
    api.body, api.faults = b"Invalid OData", [400]
    with pytest.raises(ProviderRefused, match="400"):
        ask(api, tmp_path / "prices.json")
    assert len(api.asked) == 1


@pytest.mark.parametrize("where", ["http://localhost/other", "same"])
def test_pages_on_another_host_or_without_end(api: Retail, tmp_path: Path, where: str) -> None:
    api.pages = [[item(0.6)]] * 2
    api.elsewhere = f"{api.address}?%24skip=1" if where == "same" else where
    with pytest.raises(ProviderRefused, match="on another host"):
        ask(api, tmp_path / "prices.json")


@pytest.mark.parametrize(("size", "region"), [("x' or 1 eq 1", "eastus"), (T4, "east us"), (T4, "a'b"), ("", "eastus")])
def test_invalid_names_are_refused_without_a_request(tmp_path: Path, size: str, region: str) -> None:
    def never(address: str) -> Any:
        raise AssertionError(address)

    with pytest.raises(UsageError):
        refresh_prices(tmp_path / "p.json", [size], region, never)


def test_another_region_counts_the_highest_and_says_so() -> None:
    price = find_price(T4, "westeurope", False, None)
    assert (price.usd_micro_per_hour, price.region) == (615_000, "westeurope")
    assert "no dedicated price known for westeurope" in price.source
    assert "uksouth" in price.source


def test_low_priority_without_a_price_counts_as_dedicated_at_most(tmp_path: Path) -> None:
    price = find_price(T4, "eastus", True, None)
    assert (price.usd_micro_per_hour, price.low_priority) == (615_000, True)
    assert "dedicated in uksouth" in price.source


def test_a_low_priority_price_is_never_taken_for_a_dedicated_one(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    size = "Standard_NV12ads_A10_v5"
    low = item(0.2, " Low Priority", armSkuName=size)
    refresh_prices(path, [size], "westeurope", lambda _: {"Items": [low]})
    assert find_price(size, "westeurope", True, path).usd_micro_per_hour == 200_000
    with pytest.raises(UsageError, match="only the low priority price"):
        find_price(size, "westeurope", False, path)


def test_spot_is_no_price_for_azure_ml() -> None:
    for low_priority in (False, True):
        with pytest.raises(UsageError, match="no price of Standard_NV12ads_A10_v5"):
            find_price("NV12ads_A10_v5", "centralus", low_priority, None)


def test_unknown_and_retired_sizes() -> None:
    with pytest.raises(UsageError, match="Standard_D2s_v3") as unknown:
        find_price("Standard_D2s_v3", "eastus", False, None)
    assert T4 in unknown.value.next_step
    with pytest.raises(UsageError, match=r"retired Standard_NC6s_v3 .*2025-09-30"):
        find_price("NC6s_v3", "eastus", False, None)
    with pytest.raises(UsageError, match="2026-09-30"):
        find_price("standard_nv16as_v4", "eastus", False, None)
    with pytest.raises(UsageError, match=r"NC6 .*before 2026"):
        find_price("NC6", "eastus", False, None)


@pytest.mark.parametrize("content", ["", "[]", '{"prices": [{}]}', '{"prices": 3}', '{"prices": [{"kind": "x"}]}'])
def test_a_broken_price_file_is_never_ignored(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(MachineError, match="cannot be read"):
        find_price(T4, "eastus", False, path)


def test_every_shipped_price_has_a_date_a_source_and_a_known_size() -> None:
    content = json.loads((data_dir("infra") / "azure-prices.json").read_text())
    sizes = {line["size"] for line in content["sizes"]}
    for line in content["prices"]:
        assert line["size"] in sizes
        assert re.fullmatch(r"2026(-\d\d-\d\d)?", line["date"])
        assert line["source"]
        assert line["certainty"] in ("measured", "documented", "reported", "guess")
        assert line["kind"] in ("dedicated", "low_priority", "spot")
        assert line["usd_per_hour"] > 0
    for line in content["retired"]:
        assert not any(re.fullmatch(line["pattern"], size) for size in sizes)
        assert line["retired"] is None or line["retired"] < content["date"]
    table = pricing.load_table()
    assert (table.sizes[0].size, table.sizes[0].vcpus, table.sizes[0].memory_gb) == (T4, 4, 28)


def priced(usd_micro_per_hour: int) -> Price:
    return Price(T4, "eastus", usd_micro_per_hour, False, "test", "2026-11-25")


def test_the_maximum_cost_by_hand() -> None:
    """(2 h + 10 min + 2 min) * 2 nodes * $0.526 + 1 begun day * $0.33, and two days after 24 h."""
    assert maximum_cost_usd_micro(priced(526_000), 2, 7200, 120, 600, 330_000) == 2_314_400 + 330_000
    assert maximum_cost_usd_micro(priced(0), 1, 86_400, 0, 0, 330_000) == 330_000
    assert maximum_cost_usd_micro(priced(0), 1, 86_400, 1, 0, 330_000) == 660_000
    assert maximum_cost_usd_micro(priced(1), 1, 1, 0, 0, 0) == 1


def test_the_maximum_cost_never_falls_and_is_never_below_the_plain_product() -> None:
    dice = random.Random(5)  # noqa: S311
    for _ in range(2000):
        rate, daily = dice.randrange(10**7), dice.randrange(10**6)
        nodes, times = dice.randrange(1, 20), [dice.randrange(200_000) for _ in range(3)]
        cost = maximum_cost_usd_micro(priced(rate), nodes, *times, daily)
        assert isinstance(cost, int)
        assert cost * 3600 >= nodes * rate * sum(times) + daily * 3600 * bool(sum(times))
        more = dice.randrange(1, 100_000)
        assert maximum_cost_usd_micro(priced(rate + more), nodes, *times, daily) >= cost
        assert maximum_cost_usd_micro(priced(rate), nodes + 1, *times, daily) >= cost
        assert maximum_cost_usd_micro(priced(rate), nodes, *times, daily + more) >= cost
        for at in range(3):
            longer = [*times[:at], times[at] + more, *times[at + 1 :]]
            assert maximum_cost_usd_micro(priced(rate), nodes, *longer, daily) >= cost


@pytest.mark.parametrize(
    "wrong", [(0, 1, 1, 1, 1), (-1, 1, 1, 1, 1), (1, -1, 1, 1, 1), (1, 1, -1, 1, 1), (1, 1, 1, -1, 1), (1, 1, 1, 1, -1)]
)
def test_a_maximum_cost_of_negative_values_is_refused(wrong: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="at least one node"):
        maximum_cost_usd_micro(priced(1), *wrong)
