"""The workspace and all it needs: made from one template, shown with its cost a day, taken away without a rest."""

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
from boneagectl.targets.azure.arm import Json, Unresolved, is_a, resolve, resource_id, violations

_RESOURCES = "2021-04-01"
_BUDGETS = "2024-08-01"
_VAULTS = "2023-07-01"
_NAME = "boneagectl"
_VAULT = "microsoft.keyvault/vaults"
REGISTER_S = 600.0
_REGISTER_POLL_S = 2.0
_CLUSTER = "Microsoft.MachineLearningServices/workspaces/computes"


class Infra:
    """One resource group, which holds nothing but what the template makes."""

    def __init__(self, arm: client.ArmClient, place: client.Workspace, settings: AzureSettings) -> None:
        self.arm, self.place, self.settings = arm, place, settings

    @property
    def _subscription(self) -> str:
        return f"/subscriptions/{self.place.subscription}"

    @property
    def group(self) -> str:
        return f"{self._subscription}/resourceGroups/{self.place.resource_group}"

    @property
    def _deployment(self) -> str:
        return f"{self.group}/providers/Microsoft.Resources/deployments/{_NAME}"

    @property
    def cluster_name(self) -> str:
        """What the ledger calls the thing that is paid by the day."""
        return f"{self.place.resource_group}/{self.settings.cluster}"

    @property
    def daily_usd_micro(self) -> int:
        """What is known to be paid a day while no node stands: the cluster's share of the load balancer."""
        cluster = {"type": _CLUSTER, "name": self.settings.cluster, "properties": _scale(self.settings.nodes)}
        return daily_usd_micro(idle_costs([cluster]))

    # ------------------------------------------------------------------------------------- up
    def parameters(self, contact_email: str, budget_usd: int) -> Json:
        """The template's parameters from the settings, checked here before Azure is asked.

        Raises:
            UsageError: a value that Azure would not take.
        """
        settings, month = self.settings, self._budget_month()
        given = parameters(
            settings.region, contact_email, budget_usd, month,
            workspace=settings.workspace, cluster=settings.cluster, vm_size=settings.size,
            low_priority=settings.tier == "low_priority", max_nodes=settings.nodes, idle_s=settings.idle_s,
        )  # fmt: skip
        if problems := check(load(), given):
            raise UsageError(
                f"Azure would not take this: {'; '.join(problems)}", "boneagectl config shows the settings"
            )
        return given

    def _budget_month(self) -> date:
        """The month a budget that is there began with, which Azure lets nobody change; else this one."""
        for budget in self._budgets():
            return date.fromisoformat(budget["properties"]["timePeriod"]["startDate"][:10])
        return datetime.now(UTC).date()

    def exists(self) -> bool:
        try:
            self.arm.get(self.group, _RESOURCES)
        except NotFound:
            return False
        return True

    def make_group(self) -> None:
        """An empty group costs nothing, and without one there is no what-if."""
        self.arm.request("PUT", self.group, _RESOURCES, {"location": self.settings.region, "tags": {_NAME: "infra"}})

    def drop_group(self) -> None:
        with contextlib.suppress(NotFound):
            self.arm.run_operation("DELETE", self.group, _RESOURCES)

    def register(self) -> Iterator[str]:
        """Has the subscription know the resource providers a workspace needs; yields each that was missing."""
        for space in preflight.missing_spaces(self.arm, self.place.subscription):
            yield space
            path, give_up = f"{self._subscription}/providers/{space}", time.monotonic() + REGISTER_S
            self.arm.request("POST", f"{path}/register", _RESOURCES)
            while self.arm.get(path, _RESOURCES).get("registrationState") != "Registered":
                if time.monotonic() > give_up:
                    raise Unreachable(f"{space} is still not registered", "boneagectl infra up, in some minutes")
                time.sleep(_REGISTER_POLL_S)

    def what_if(self, parameters: Json) -> list[tuple[str, str]]:
        """What a deployment would do: kind of change (Create, NoChange, Modify, Delete) and resource, one by one."""
        said = self.arm.run_operation("POST", f"{self._deployment}/whatIf", _RESOURCES, _body(parameters))
        changes = said.get("properties", said).get("changes", [])
        return [(str(one["changeType"]), str(one["resourceId"]).rpartition("/providers/")[2]) for one in changes]

    def up(self, parameters: Json) -> None:
        """Raises RemoteError where a part could not be made; what was made stays, and `up` goes on with it."""
        try:
            self.arm.run_operation("PUT", self._deployment, _RESOURCES, _body(parameters))
        except RemoteError as error:
            raise type(error)(error.message, f"{error.next_step}; boneagectl infra show tells what was made") from None

    def has_cluster(self) -> bool:
        return any(one["name"] == self.settings.cluster for one in self._clusters())

    # ----------------------------------------------------------------------------------- show
    def standing(self) -> list[Json]:
        """All that stands: what Azure lists in the group, and what it does not: clusters and budgets."""
        try:
            listed = self.arm.list_all(f"{self.group}/resources", _RESOURCES)
        except NotFound:
            return []
        return [*listed, *self._clusters(), *self._budgets()]

    def _clusters(self) -> list[Json]:
        try:
            return self.arm.list_all(f"{self.place.resource_id}/computes", client.COMPUTES)
        except NotFound:
            return []

    def _budgets(self) -> list[Json]:
        try:
            return self.arm.list_all(f"{self.group}/providers/Microsoft.Consumption/budgets", _BUDGETS)
        except NotFound:
            return []

    # ----------------------------------------------------------------------------------- down
    def down(self) -> Iterator[str]:
        """Takes all away, what bills most first; yields what it does. Repeatable.

        A workspace and a vault are purged too: Azure would keep their names, and the next `up` would meet them.

        Raises:
            ProviderRefused: something that bills is left.
        """
        found = self.standing()
        for cluster in self._clusters():
            yield f"cluster {cluster['name']}"
            self._delete(cluster["id"], client.COMPUTES, "&underlyingResourceAction=Delete")
        yield f"workspace {self.place.name}"
        self._delete(self.place.resource_id, client.WORKSPACES, "&forceToPurge=true")
        yield f"resource group {self.place.resource_group}"
        self.drop_group()
        for vault in (one for one in found if str(one["type"]).lower() == _VAULT):
            yield f"the deleted vault {vault['name']}"
            self._purge(vault)
        self._prove_gone()

    def _delete(self, path: str, version: str, query: str) -> None:
        with contextlib.suppress(NotFound):
            self.arm.run_operation("DELETE", path, version, query=query)

    def _purge(self, vault: Json) -> None:
        path = f"{self._subscription}/providers/Microsoft.KeyVault/locations/{vault['location']}/deletedVaults"
        with contextlib.suppress(NotFound):
            self.arm.run_operation("POST", f"{path}/{vault['name']}/purge", _VAULTS)

    def _prove_gone(self) -> None:
        """Asks in two ways: for the group itself, and for all that the subscription has."""
        everything = self.arm.list_all(f"{self._subscription}/resources", _RESOURCES)
        left = [str(one["name"]) for one in everything if str(one["id"]).lower().startswith(f"{self.group.lower()}/")]
        if left or self.exists():
            names = ", ".join(left) or self.place.resource_group
            raise ProviderRefused(
                f"still there after the deletion: {names}", "boneagectl infra down again, or the portal"
            )


def _body(parameters: Json) -> Json:
    """`parameters` are in ARM's own form, as `template.parameters` makes them."""
    return {"properties": {"mode": "Incremental", "template": load(), "parameters": parameters}}


def _scale(nodes: int) -> Json:
    return {"properties": {"scaleSettings": {"maxNodeCount": nodes}}}


# == template: The infrastructure template: what goes into it, what it makes, what that costs idle, and whether

_BOUNDS = (("minLength", "minValue"), ("maxLength", "maxValue"))
_PREFIX = re.compile(r"[a-z][a-z0-9]{2,7}")


@dataclass(frozen=True, slots=True)
class IdleCost:
    """What one resource costs a day while nothing runs; `usd_micro_per_day` None: not known."""

    type: str
    name: str
    usd_micro_per_day: int | None
    certainty: str
    source: str
    date: str
    note: str


def load() -> Json:
    """The ARM template, ``infra/azure.json``."""
    return _shipped("azure.json")


def _shipped(name: str) -> Json:
    content: Json = json.loads((data_dir("infra") / name).read_text(encoding="utf-8"))
    return content


def parameters(
    location: str,
    contact_email: str,
    budget_usd: int,
    budget_month: date,
    *,
    prefix: str = "boneage",
    workspace: str = "boneagectl",
    cluster: str = "gpu",
    vm_size: str = "Standard_NC4as_T4_v3",
    low_priority: bool = False,
    max_nodes: int = 1,
    idle_s: int = 120,
) -> Json:
    """The parameters of a deployment, in ARM's own form.

    The budget begins with the month of `budget_month`; Azure takes the current one or one of the next twelve.

    Raises:
        UsageError: a prefix that does not fit every resource's name. `check` looks at the rest.
    """
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(f"a prefix has 3 to 8 lower-case letters and digits, a letter first, not {prefix!r}")
    values = {
        "location": location,
        "namePrefix": prefix,
        "workspaceName": workspace,
        "clusterName": cluster,
        "contactEmail": contact_email,
        "budgetUsd": budget_usd,
        "budgetStart": f"{budget_month:%Y-%m}-01T00:00:00Z",
        "vmSize": vm_size,
        "vmPriority": "LowPriority" if low_priority else "Dedicated",
        "maxNodes": max_nodes,
        "idleSeconds": idle_s,
    }
    return {name: {"value": value} for name, value in values.items()}


def idle_costs(resources: Iterable[Mapping[str, Any]]) -> list[IdleCost]:
    """What each of `resources` costs a day, even idle: the template's, or what Azure lists (`type`, `name`).

    A type that is not known gets a line too, with the cost unknown. Azure itself writes types in more than one case.
    Source: ``infra/azure-costs.json``.
    """
    known = {line["type"].lower(): line for line in _shipped("azure-costs.json")["costs"]}
    return [_idle_cost(resource, known.get(resource["type"].lower(), {})) for resource in resources]


def _idle_cost(resource: Mapping[str, Any], line: Mapping[str, Any]) -> IdleCost:
    usd, times = line.get("usd_per_day"), 1
    if "per_nodes" in line:
        times = max(1, -(-_max_nodes(resource) // line["per_nodes"]))
    return IdleCost(
        resource["type"],
        resource["name"],
        None if usd is None else units.usd_micro(usd) * times,
        line.get("certainty", "unknown"),
        line.get("source", "no figure found"),
        line.get("date", ""),
        line.get("note", ""),
    )


def _max_nodes(resource: Mapping[str, Any]) -> int:
    """1 where it does not say: a list of resources has no such properties."""
    inner = (resource.get("properties") or {}).get("properties") or {}
    count = (inner.get("scaleSettings") or {}).get("maxNodeCount", 1)
    return count if isinstance(count, int) else 1


def daily_usd_micro(lines: Iterable[IdleCost]) -> int:
    """The sum of what is known; a cost that is unknown counts nothing, so show it beside the sum."""
    return sum(line.usd_micro_per_day or 0 for line in lines)


def check(template: Json, given: Json) -> list[str]:
    """What is wrong with the template, filled with the parameters `given`; empty where Azure would take it.

    Looks at the parameters' own rules, at every resource against ``infra/azure-rules.json`` (closed objects), and
    at what depends on what. It cannot know quotas, policies, or whether a global name is taken.
    """
    problems = list(_parameter_problems(template, given))
    if problems:
        return problems
    try:
        resources = resolve(template, given)
    except Unresolved as error:
        return [str(error)]
    rules = _shipped("azure-rules.json")["resources"]
    for resource in resources:
        kind = str(resource.get("type"))
        rule = rules.get(kind)
        problems += violations(resource, rule, kind) if rule else [f"{kind}: no such resource type is known here"]
    return problems or list(_loose_ends(resources))


def _parameter_problems(template: Json, given: Json) -> Iterator[str]:
    declared = template["parameters"]
    yield from (f"parameter {name}: the template has none of that name" for name in given if name not in declared)
    for name, rule in declared.items():
        if name in given:
            yield from _value_problems(name, given[name]["value"], rule)
        elif "defaultValue" not in rule:
            yield f"parameter {name}: missing"


def _value_problems(name: str, value: Any, rule: Json) -> Iterator[str]:
    if not is_a(value, rule["type"]):
        yield f"parameter {name}: {value!r} is not of type {rule['type']}"
    elif value not in rule.get("allowedValues", [value]):
        yield f"parameter {name}: {value!r} is none of {', '.join(rule['allowedValues'])}"
    else:
        size = len(value) if isinstance(value, str) else value
        low, high = (next((rule[word] for word in words if word in rule), size) for words in _BOUNDS)
        if not low <= size <= high:
            yield f"parameter {name}: {value!r} lies outside {low} to {high}"


def _loose_ends(resources: list[Json]) -> Iterator[str]:
    """Azure makes things at the same time unless told what waits for what."""
    made = {resource_id(one["type"], *one["name"].split("/")): one for one in resources}
    if len(made) < len(resources):
        yield "two resources have the same type and name"
    for own, resource in made.items():
        waits, named = resource.get("dependsOn", []), json.dumps(resource["properties"])
        yield from (f"{own}: depends on {one}, which the template does not make" for one in waits if one not in made)
        needed = [one for one in made if f'"{one}"' in named or own.startswith(one + "/")]
        yield from (f"{own}: needs {one} and does not depend on it" for one in needed if one not in waits)
