"""The Azure emulator's deployments: templates become resources, and what-if says beforehand which."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from emulators import azure_rules as rules
from emulators.azure_arm import is_shown
from emulators.azure_routes import GROUP, route
from emulators.azure_template import Template
from emulators.azure_wire import Answer, Problem, Reply, Request

if TYPE_CHECKING:
    from emulators.azure import Azure


_NOT_STATE = ("dependsOn", "apiVersion", "id", "name", "type", "scope")


class Deployments:
    def __init__(self, azure: Azure) -> None:
        self.azure = azure
        self.all: dict[str, dict[str, Any]] = {}

    def _read(self, request: Request, group: str) -> tuple[dict[str, Any], Template]:
        body = request.json
        rules.check(body, {"location": str, "tags": rules.TEXTS, "properties!": {
            "mode!": ("Incremental", "Complete", "incremental", "complete"), "template!": object,
            "parameters": rules.Map({"value": object, "reference": object}), "debugSetting": object,
            "whatIfSettings": object, "expressionEvaluationOptions": object, "onErrorDeployment": object,
            "validationLevel": str}})  # fmt: skip
        said = body["properties"]
        place = self.azure.arm.get_group(request, self.azure.subscription, group)
        return said, Template(said["template"], said.get("parameters") or {}, place, self.azure.login.tenant)

    @route("POST", f"{GROUP}/providers/Microsoft.Resources/deployments/{{name}}/whatIf")
    def what_if(self, request: Request, s: str, group: str, name: str) -> Answer:
        _, template = self._read(request, group)
        changes = [self._change(one) for one in template.resources]
        wanted = {one["id"].lower() for one in template.resources}
        others = [one for one in self.azure.arm.below(template.prefix) if one["id"].lower() not in wanted]
        changes += [{"resourceId": one["id"], "changeType": "Ignore", "before": one} for one in others if is_shown(one)]
        said = {"status": "Succeeded", "properties": {"correlationId": secrets.token_hex(16), "changes": changes}}
        started = self.azure.operations.start(lambda: said, self.azure.operation_s)
        return Reply(202, None, self.azure.operations.location_headers(started))

    def _change(self, one: dict[str, Any]) -> dict[str, Any]:
        before, after = self.azure.arm.resources.get(one["id"].lower()), {**one}
        if before is None:
            return {"resourceId": one["id"], "changeType": "Create", "after": after}
        wanted = {key: value for key, value in one.items() if key not in _NOT_STATE}
        delta = list(_differences(before, wanted, ""))
        kind = "Modify" if delta else "NoChange"
        return {"resourceId": one["id"], "changeType": kind, "before": before, "after": after, "delta": delta}

    @route("POST", f"{GROUP}/providers/Microsoft.Resources/deployments/{{name}}/validate")
    def validate(self, request: Request, s: str, group: str, name: str) -> Answer:
        said, _ = self._read(request, group)
        return {"id": request.path.rpartition("/")[0], "name": name, "properties": {
            "mode": said["mode"], "provisioningState": "Succeeded"}}  # fmt: skip

    @route("PUT", f"{GROUP}/providers/Microsoft.Resources/deployments/{{name}}")
    def deploy(self, request: Request, s: str, group: str, name: str) -> Answer:
        self.azure.arm.check_write(request.path)
        said, template = self._read(request, group)
        made = {"id": request.path, "name": name, "type": "Microsoft.Resources/deployments", "properties": {
            "provisioningState": "Accepted", "mode": said["mode"], "timestamp": self.azure.now_text(),
            "correlationId": secrets.token_hex(16), "outputResources": []}}  # fmt: skip
        is_new = self.all.get(request.path.lower()) is None
        self.all[request.path.lower()] = made
        started = self.azure.operations.start(lambda: self._make(made, template), self.azure.operation_s)
        headers = self.azure.operations.async_headers(started, "Microsoft.Resources/locations/global/operationStatuses")
        return Reply(201 if is_new else 200, made, headers)

    def _make(self, made: dict[str, Any], template: Template) -> None:
        """One resource after the other; at the first that fails it ends, and what was made stays."""
        for one in template.resources:
            try:
                body = {key: value for key, value in one.items() if key not in ("id", "name", "type", "apiVersion",
                                                                               "dependsOn", "scope")}  # fmt: skip
                made["properties"]["outputResources"].append({"id": self.azure.arm.put(one["id"], body)["id"]})
            except Problem as problem:
                problem.more["target"] = one["id"]
                text = (
                    "At least one resource deployment operation failed. Please list deployment operations for details."
                )
                failed = Problem(409, "DeploymentFailed", text, details=[problem.error])
                made["properties"] |= {"provisioningState": "Failed", "error": failed.error}
                raise failed from None
        made["properties"]["outputs"] = template.outputs(lambda name: self._referenced(template, name))
        made["properties"]["provisioningState"] = "Succeeded"

    def _referenced(self, template: Template, name: str) -> Any:
        found = [one for one in template.resources if name in (one["name"], one["id"])]
        return self.azure.arm.find(found[0]["id"] if found else name)["properties"]

    @route("GET", f"{GROUP}/providers/Microsoft.Resources/deployments/{{name}}")
    def get_deployment(self, request: Request, s: str, group: str, name: str) -> Answer:
        found = self.all.get(request.path.lower())
        if found is None:
            raise Problem(404, "DeploymentNotFound", f"Deployment '{name}' could not be found.")
        return found


def _differences(before: Any, wanted: Any, path: str) -> Any:
    """What a deployment would change; what it does not name stays."""
    if isinstance(wanted, dict) and isinstance(before, dict):
        for key, value in wanted.items():
            yield from _differences(before.get(key), value, f"{path}.{key}".lstrip("."))
    elif before != wanted:
        change = "Create" if before is None else "Modify"
        yield {"path": path, "propertyChangeType": change, "before": before, "after": wanted}
