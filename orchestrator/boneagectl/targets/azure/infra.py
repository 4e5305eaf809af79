"""The workspace and all it needs: made from one template, shown with its cost a day, taken away without a rest."""

from __future__ import annotations

import contextlib
from typing import Any

from boneagectl.errors import MachineError
from boneagectl.targets.azure import rest

_DEPLOYMENTS = "2021-04-01"
_GROUPS = "2021-04-01"
_NAME = "boneagectl"


class Infra:
    """One resource group, which holds nothing but what the template makes."""

    def __init__(self, arm: rest.Arm, place: rest.Place, region: str) -> None:
        self.arm, self.place, self.region = arm, place, region

    @property
    def group(self) -> str:
        return f"/subscriptions/{self.place.subscription}/resourceGroups/{self.place.resource_group}"

    @property
    def _deployment(self) -> str:
        return f"{self.group}/providers/Microsoft.Resources/deployments/{_NAME}"

    def exists(self) -> bool:
        try:
            self.arm.get(self.group, _GROUPS)
        except rest.Missing:
            return False
        return True

    def make_group(self) -> None:
        self.arm.ask("PUT", self.group, _GROUPS, {"location": self.region, "tags": {_NAME: "infra"}})

    def what_if(self, template: dict[str, Any], parameters: dict[str, Any]) -> list[tuple[str, str]]:
        """What a deployment would do: kind of change (Create, NoChange, Modify, Delete) and resource, one by one."""
        said = self.arm.finish("POST", f"{self._deployment}/whatIf", _DEPLOYMENTS, _body(template, parameters))
        changes = said.get("properties", said).get("changes", [])
        return [(str(one["changeType"]), str(one["resourceId"]).rpartition("/providers/")[2]) for one in changes]

    def up(self, template: dict[str, Any], parameters: dict[str, Any]) -> None:
        """Raises MachineError where a part could not be made; what was made stays, and `up` goes on with it."""
        self.arm.finish("PUT", self._deployment, _DEPLOYMENTS, _body(template, parameters))

    def resources(self) -> list[dict[str, Any]]:
        """Everything in the group: name, type, location; empty where there is no group."""
        try:
            return list(self.arm.get(f"{self.group}/resources", _GROUPS).get("value", []))
        except rest.Missing:
            return []

    def down(self, cluster: str) -> None:
        """The cluster first, since it is what bills most, then the group with all the rest.

        Raises:
            MachineError: something that bills is left.
        """
        path = f"{self.place.path}/computes/{cluster}"
        with contextlib.suppress(rest.Missing):
            self.arm.finish("DELETE", path, f"{rest.COMPUTES}&underlyingResourceAction=Delete")
        with contextlib.suppress(rest.Missing):
            self.arm.finish("DELETE", self.group, _GROUPS)
        if self.exists() or self.resources():
            left = ", ".join(str(one["name"]) for one in self.resources())
            raise MachineError(
                f"still there after the deletion: {left or self.place.resource_group}", "look at the portal"
            )


def _body(template: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """`parameters` are in ARM's own form, as `template.parameters` makes them."""
    return {"properties": {"mode": "Incremental", "template": template, "parameters": parameters}}
