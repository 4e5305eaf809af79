"""The workspace and all it needs: made from one template, shown with its cost a day, taken away without a rest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

from boneagectl.errors import MachineError, UsageError
from boneagectl.targets.azure import checking, rest, template
from boneagectl.targets.azure.rendering import Wishes

_RESOURCES = "2021-04-01"
_BUDGETS = "2024-08-01"
_WORKSPACES = "2024-10-01"
_VAULTS = "2023-07-01"
_NAME = "boneagectl"
_VAULT = "microsoft.keyvault/vaults"
REGISTER_S = 600.0
_REGISTER_POLL_S = 2.0
_CLUSTER = "Microsoft.MachineLearningServices/workspaces/computes"

Json = dict[str, Any]


class Infra:
    """One resource group, which holds nothing but what the template makes."""

    def __init__(self, arm: rest.Arm, place: rest.Place, wishes: Wishes) -> None:
        self.arm, self.place, self.wishes = arm, place, wishes

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
        return f"{self.place.resource_group}/{self.wishes.cluster}"

    @property
    def daily_usd_micro(self) -> int:
        """What is known to be paid a day while no node stands: the cluster's share of the load balancer."""
        cluster = {"type": _CLUSTER, "name": self.wishes.cluster, "properties": _scale(self.wishes.nodes)}
        return template.daily_usd_micro(template.idle_costs([cluster]))

    # ------------------------------------------------------------------------------------- up
    def parameters(self, contact_email: str, budget_usd: int) -> Json:
        """The template's parameters from the settings, checked here before Azure is asked.

        Raises:
            UsageError: a value that Azure would not take.
        """
        wishes, month = self.wishes, self._budget_month()
        given = template.parameters(
            wishes.region, contact_email, budget_usd, month,
            workspace=wishes.workspace, cluster=wishes.cluster, vm_size=wishes.size,
            low_priority=wishes.tier == "low_priority", max_nodes=wishes.nodes, idle_s=wishes.idle_s,
        )  # fmt: skip
        if problems := template.check(template.load(), given):
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
        except rest.Missing:
            return False
        return True

    def make_group(self) -> None:
        """An empty group costs nothing, and without one there is no what-if."""
        self.arm.ask("PUT", self.group, _RESOURCES, {"location": self.wishes.region, "tags": {_NAME: "infra"}})

    def drop_group(self) -> None:
        with contextlib.suppress(rest.Missing):
            self.arm.finish("DELETE", self.group, _RESOURCES)

    def register(self) -> Iterator[str]:
        """Has the subscription know the resource providers a workspace needs; yields each that was missing."""
        for space in checking.missing_spaces(self.arm, self.place.subscription):
            yield space
            path, give_up = f"{self._subscription}/providers/{space}", time.monotonic() + REGISTER_S
            self.arm.ask("POST", f"{path}/register", _RESOURCES)
            while self.arm.get(path, _RESOURCES).get("registrationState") != "Registered":
                if time.monotonic() > give_up:
                    raise MachineError(f"{space} is still not registered", "boneagectl infra up, in some minutes")
                time.sleep(_REGISTER_POLL_S)

    def what_if(self, parameters: Json) -> list[tuple[str, str]]:
        """What a deployment would do: kind of change (Create, NoChange, Modify, Delete) and resource, one by one."""
        said = self.arm.finish("POST", f"{self._deployment}/whatIf", _RESOURCES, _body(parameters))
        changes = said.get("properties", said).get("changes", [])
        return [(str(one["changeType"]), str(one["resourceId"]).rpartition("/providers/")[2]) for one in changes]

    def up(self, parameters: Json) -> None:
        """Raises MachineError where a part could not be made; what was made stays, and `up` goes on with it."""
        try:
            self.arm.finish("PUT", self._deployment, _RESOURCES, _body(parameters))
        except MachineError as error:
            raise type(error)(error.message, f"{error.next_step}; boneagectl infra show tells what was made") from None

    def has_cluster(self) -> bool:
        return any(one["name"] == self.wishes.cluster for one in self._clusters())

    # ----------------------------------------------------------------------------------- show
    def standing(self) -> list[Json]:
        """All that stands: what Azure lists in the group, and what it does not: clusters and budgets."""
        try:
            listed = self.arm.listed(f"{self.group}/resources", _RESOURCES)
        except rest.Missing:
            return []
        return [*listed, *self._clusters(), *self._budgets()]

    def _clusters(self) -> list[Json]:
        try:
            return self.arm.listed(f"{self.place.path}/computes", rest.COMPUTES)
        except rest.Missing:
            return []

    def _budgets(self) -> list[Json]:
        try:
            return self.arm.listed(f"{self.group}/providers/Microsoft.Consumption/budgets", _BUDGETS)
        except rest.Missing:
            return []

    # ----------------------------------------------------------------------------------- down
    def down(self) -> Iterator[str]:
        """Takes all away, what bills most first; yields what it does. Repeatable.

        A workspace and a vault are purged too: Azure would keep their names, and the next `up` would meet them.

        Raises:
            MachineError: something that bills is left.
        """
        found = self.standing()
        for cluster in self._clusters():
            yield f"cluster {cluster['name']}"
            self._delete(cluster["id"], rest.COMPUTES, "&underlyingResourceAction=Delete")
        yield f"workspace {self.place.workspace}"
        self._delete(self.place.path, _WORKSPACES, "&forceToPurge=true")
        yield f"resource group {self.place.resource_group}"
        self.drop_group()
        for vault in (one for one in found if str(one["type"]).lower() == _VAULT):
            yield f"the deleted vault {vault['name']}"
            self._purge(vault)
        self._prove_gone()

    def _delete(self, path: str, version: str, query: str) -> None:
        with contextlib.suppress(rest.Missing):
            self.arm.finish("DELETE", path, version, query=query)

    def _purge(self, vault: Json) -> None:
        path = f"{self._subscription}/providers/Microsoft.KeyVault/locations/{vault['location']}/deletedVaults"
        with contextlib.suppress(rest.Missing):
            self.arm.finish("POST", f"{path}/{vault['name']}/purge", _VAULTS)

    def _prove_gone(self) -> None:
        """Asks in two ways: for the group itself, and for all that the subscription has."""
        everything = self.arm.listed(f"{self._subscription}/resources", _RESOURCES)
        left = [str(one["name"]) for one in everything if str(one["id"]).lower().startswith(f"{self.group.lower()}/")]
        if left or self.exists():
            names = ", ".join(left) or self.place.resource_group
            raise MachineError(f"still there after the deletion: {names}", "boneagectl infra down again, or the portal")


def _body(parameters: Json) -> Json:
    """`parameters` are in ARM's own form, as `template.parameters` makes them."""
    return {"properties": {"mode": "Incremental", "template": template.load(), "parameters": parameters}}


def _scale(nodes: int) -> Json:
    return {"properties": {"scaleSettings": {"maxNodeCount": nodes}}}
