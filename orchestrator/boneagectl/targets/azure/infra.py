"""The Azure resources that a workspace needs: created from one template, listed with their idle cost, deleted.

Azure itself checks the template with its parameters: its what-if runs before anything is created.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from boneagectl import units
from boneagectl.errors import NotFound, ProviderRefused, RemoteError, Unreachable, UsageError
from boneagectl.paths import data_dir
from boneagectl.target_settings import AzureSettings
from boneagectl.targets.azure import client, preflight

Json = dict[str, Any]

_RESOURCES = "2021-04-01"
_BUDGETS = "2024-08-01"
_VAULTS = "2023-07-01"
_NAME = "boneagectl"
_VAULT = "microsoft.keyvault/vaults"
_CLUSTER = "Microsoft.MachineLearningServices/workspaces/computes"
REGISTER_S = 600.0
_REGISTER_POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class IdleCost:
    """What one resource costs per day while nothing runs; `usd_micro_per_day` is None where it is unknown."""

    type: str
    name: str
    usd_micro_per_day: int | None
    certainty: str
    source: str
    date: str
    note: str


class Infra:
    """One resource group that holds only what the template creates."""

    def __init__(self, arm: client.ArmClient, workspace: client.Workspace, settings: AzureSettings) -> None:
        self.arm, self.workspace, self.settings = arm, workspace, settings
        self._subscription = f"/subscriptions/{workspace.subscription}"
        self.group = f"{self._subscription}/resourceGroups/{workspace.resource_group}"
        self._deployment = f"{self.group}/providers/Microsoft.Resources/deployments/{_NAME}"

    @property
    def cluster_name(self) -> str:
        """The name of the recurring charge in the ledger."""
        return f"{self.workspace.resource_group}/{self.settings.cluster}"

    @property
    def idle_usd_micro_per_day(self) -> int:
        """The known idle cost: the cluster's load balancer."""
        properties = {"properties": {"scaleSettings": {"maxNodeCount": self.settings.nodes}}}
        (cost,) = estimate_idle_costs([{"type": _CLUSTER, "name": self.settings.cluster, "properties": properties}])
        return cost.usd_micro_per_day or 0

    # ----------------------------------------------------------------------------------- create
    def parameters(self, contact_email: str, budget_usd: int) -> Json:
        """The template's parameters in ARM's own form.

        A budget that exists keeps its first month, which Azure does not let anybody change.

        Raises:
            UsageError: `contact_email` is not an address. `what_if` checks the rest.
        """
        if not re.fullmatch(r"[^@\s]+@[^@\s]+", contact_email):
            raise UsageError(f"{contact_email!r} is not an email address", "--email you@example.org")
        settings, month = self.settings, datetime.now(UTC).date()
        for budget in self._list_budgets():
            month = date.fromisoformat(budget["properties"]["timePeriod"]["startDate"][:10])
        values = {
            "location": settings.region,
            "workspaceName": settings.workspace,
            "clusterName": settings.cluster,
            "contactEmail": contact_email,
            "budgetUsd": budget_usd,
            "budgetStart": f"{month:%Y-%m}-01T00:00:00Z",
            "vmSize": settings.size,
            "vmPriority": "LowPriority" if settings.tier == "low_priority" else "Dedicated",
            "maxNodes": settings.nodes,
            "idleSeconds": settings.idle_s,
        }
        return {name: {"value": value} for name, value in values.items()}

    def has_group(self) -> bool:
        try:
            self.arm.get(self.group, _RESOURCES)
        except NotFound:
            return False
        return True

    def create_group(self) -> None:
        """An empty group costs nothing, and what-if needs one."""
        self.arm.request("PUT", self.group, _RESOURCES, {"location": self.settings.region, "tags": {_NAME: "infra"}})

    def delete_group(self) -> None:
        with contextlib.suppress(NotFound):
            self.arm.run_operation("DELETE", self.group, _RESOURCES)

    def register_providers(self) -> Iterator[str]:
        """Registers the resource providers that the subscription lacks; yields each before it is registered."""
        for name in preflight.missing_providers(self.arm, self.workspace.subscription):
            yield name
            path, give_up_s = f"{self._subscription}/providers/{name}", time.monotonic() + REGISTER_S
            self.arm.request("POST", f"{path}/register", _RESOURCES)
            while self.arm.get(path, _RESOURCES).get("registrationState") != "Registered":
                if time.monotonic() > give_up_s:
                    raise Unreachable(f"{name} is still not registered", "boneagectl infra up, in some minutes")
                time.sleep(_REGISTER_POLL_S)

    def what_if(self, parameters: Json) -> list[tuple[str, str]]:
        """What a deployment would change: pairs of the kind (Create, NoChange, Modify, Delete) and the resource.

        Raises:
            ProviderRefused: Azure does not accept the template or a parameter.
        """
        response = self.arm.run_operation("POST", f"{self._deployment}/whatIf", _RESOURCES, _deployment_of(parameters))
        changes = response.get("properties", response).get("changes", [])
        return [(str(item["changeType"]), str(item["resourceId"]).rpartition("/providers/")[2]) for item in changes]

    def deploy(self, parameters: Json) -> None:
        """Raises RemoteError where a resource could not be created; the others stay, and a second call resumes."""
        try:
            self.arm.run_operation("PUT", self._deployment, _RESOURCES, _deployment_of(parameters))
        except RemoteError as error:
            raise type(error)(error.message, f"{error.next_step}; boneagectl infra show lists what exists") from None

    def has_cluster(self) -> bool:
        return any(cluster["name"] == self.settings.cluster for cluster in self._list_clusters())

    # ----------------------------------------------------------------------------------- list
    def list_resources(self) -> list[Json]:
        """What Azure lists in the group, and what it leaves out there: clusters and budgets."""
        try:
            listed = self.arm.list_all(f"{self.group}/resources", _RESOURCES)
        except NotFound:
            return []
        return [*listed, *self._list_clusters(), *self._list_budgets()]

    def _list_clusters(self) -> list[Json]:
        try:
            return self.arm.list_all(f"{self.workspace.resource_id}/computes", client.COMPUTES)
        except NotFound:
            return []

    def _list_budgets(self) -> list[Json]:
        try:
            return self.arm.list_all(f"{self.group}/providers/Microsoft.Consumption/budgets", _BUDGETS)
        except NotFound:
            return []

    # ----------------------------------------------------------------------------------- delete
    def delete_all(self) -> Iterator[str]:
        """Deletes everything, the most expensive first; yields each step before it is done. Repeatable.

        A workspace and a vault are purged too: Azure would reserve their names, and the next deployment would fail.

        Raises:
            ProviderRefused: something still exists.
        """
        resources = self.list_resources()
        for cluster in self._list_clusters():
            yield f"cluster {cluster['name']}"
            self._delete(cluster["id"], client.COMPUTES, "&underlyingResourceAction=Delete")
        yield f"workspace {self.workspace.name}"
        self._delete(self.workspace.resource_id, client.WORKSPACES, "&forceToPurge=true")
        yield f"resource group {self.workspace.resource_group}"
        self.delete_group()
        for vault in (item for item in resources if str(item["type"]).lower() == _VAULT):
            yield f"the deleted vault {vault['name']}"
            vaults = f"{self._subscription}/providers/Microsoft.KeyVault/locations/{vault['location']}/deletedVaults"
            with contextlib.suppress(NotFound):
                self.arm.run_operation("POST", f"{vaults}/{vault['name']}/purge", _VAULTS)
        self._verify_deleted()

    def _delete(self, path: str, version: str, query: str) -> None:
        with contextlib.suppress(NotFound):
            self.arm.run_operation("DELETE", path, version, query=query)

    def _verify_deleted(self) -> None:
        """Asks in two ways: for the group itself, and for all resources of the subscription."""
        everything = self.arm.list_all(f"{self._subscription}/resources", _RESOURCES)
        left = [
            str(item["name"]) for item in everything if str(item["id"]).lower().startswith(f"{self.group.lower()}/")
        ]
        if left or self.has_group():
            names = ", ".join(left) or self.workspace.resource_group
            raise ProviderRefused(f"still there after the deletion: {names}", "boneagectl infra down, or the portal")


def load_template() -> Json:
    """The ARM template, ``infra/azure.json``."""
    return _load("azure.json")


def _deployment_of(parameters: Json) -> Json:
    return {"properties": {"mode": "Incremental", "template": load_template(), "parameters": parameters}}


def _load(name: str) -> Json:
    content: Json = json.loads((data_dir("infra") / name).read_text(encoding="utf-8"))
    return content


def estimate_idle_costs(resources: Iterable[Mapping[str, Any]]) -> list[IdleCost]:
    """What each of `resources`, with `type` and `name` as Azure lists them, costs per day while nothing runs.

    Source: ``infra/azure-costs.json``, by type, which Azure itself writes in more than one case. A type that is
    missing there gets a line too, with its cost unknown.
    """
    lines = {line["type"].lower(): line for line in _load("azure-costs.json")["costs"]}
    return [_estimate_idle_cost(resource, lines.get(resource["type"].lower(), {})) for resource in resources]


def _estimate_idle_cost(resource: Mapping[str, Any], line: Mapping[str, Any]) -> IdleCost:
    """A cluster pays once per group of `per_nodes`; a resource that does not say its nodes counts as one."""
    usd, times = line.get("usd_per_day"), 1
    if "per_nodes" in line:
        inner = (resource.get("properties") or {}).get("properties") or {}
        nodes = (inner.get("scaleSettings") or {}).get("maxNodeCount", 1)
        times = max(1, -(-(nodes if isinstance(nodes, int) else 1) // line["per_nodes"]))
    return IdleCost(
        resource["type"],
        resource["name"],
        None if usd is None else units.usd_micro(usd) * times,
        line.get("certainty", "unknown"),
        line.get("source", "no figure found"),
        line.get("date", ""),
        line.get("note", ""),
    )
