"""The Azure emulator's resource manager: subscription, groups, resources of any kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from emulators import azure_rules as rules
from emulators.azure_routes import GROUP, route
from emulators.azure_wire import Answer, Problem, Reply, Request

if TYPE_CHECKING:
    from emulators.azure import Azure

_POLICY = "b86dabb9-b578-4d7b-b842-3b45e95769a1"
_TOP = {**rules._TOP, "properties": object, "sku": object, "kind": str, "identity": object, "zones": object,
        "extendedLocation": object, "plan": object, "managedBy": str, "apiVersion": str, "dependsOn": object,
        "scope": str, "comments": str, "eTag": str}  # fmt: skip
_NAMES = {
    "microsoft.storage/storageaccounts": ("[a-z0-9]{3,24}", "AccountNameInvalid"),
    "microsoft.keyvault/vaults": ("[A-Za-z](?!.*--)[A-Za-z0-9-]{1,22}[A-Za-z0-9]", "VaultNameNotValid"),
    "microsoft.machinelearningservices/workspaces": ("[A-Za-z0-9][A-Za-z0-9_-]{2,32}", "ValidationError"),
    "microsoft.machinelearningservices/workspaces/computes": ("[A-Za-z][A-Za-z0-9-]{1,31}", "ValidationError"),
}
_VAULT = "microsoft.keyvault/vaults"
_RULES = {
    "microsoft.machinelearningservices/workspaces/computes": rules.COMPUTE,
    "microsoft.consumption/budgets": rules.BUDGET,
}


def kind_of(resource_id: str) -> str:
    """Like microsoft.storage/storageaccounts."""
    space, *rest = resource_id.rpartition("/providers/")[2].split("/")
    return "/".join([space, *rest[::2]]).lower()


def name_of(resource_id: str) -> str:
    return resource_id.rpartition("/")[2]


class Arm:
    """What there is, by id in lower case; the other parts add what is special about some kinds."""

    def __init__(self, azure: Azure) -> None:
        self.azure = azure
        self.groups: dict[str, dict[str, Any]] = {}
        self.resources: dict[str, dict[str, Any]] = {}
        self.deleted_vaults: set[str] = set()

    @property
    def base(self) -> str:
        return f"/subscriptions/{self.azure.subscription}"

    # ----------------------------------------------------------------------------- resources
    def find(self, resource_id: str) -> dict[str, Any]:
        found = self.resources.get(resource_id.lower())
        if found is None:
            text = f"The Resource '{resource_id.rpartition('/providers/')[2]}' was not found."
            raise Problem(404, "ResourceNotFound", text)
        return found

    def below(self, prefix: str) -> list[dict[str, Any]]:
        return [one for key, one in list(self.resources.items()) if key.startswith(f"{prefix.lower()}/")]

    def put(self, resource_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Makes or changes; what is wrong with it is a Problem, and then nothing is changed."""
        kind, before = kind_of(resource_id), self.resources.get(resource_id.lower())
        self.check_write(resource_id)
        rules.check(body, _RULES.get(kind, _TOP))
        self._check_place(kind, resource_id, body)
        made = {
            "id": resource_id, "name": name_of(resource_id), "type": _spelt(resource_id),
            **{key: value for key, value in body.items() if key in _TOP and key not in ("apiVersion", "dependsOn")},
        }  # fmt: skip
        made["properties"] = {**body.get("properties", {})}
        made["systemData"] = (before or {}).get("systemData") or {"createdAt": self.azure.now_text()}
        self.azure.put_special(kind, made, before)
        made["properties"]["provisioningState"] = "Succeeded"
        self.resources[resource_id.lower()] = made
        return made

    def remove(self, resource_id: str) -> None:
        """It and all below it, the youngest first."""
        for one in [*reversed(self.below(resource_id)), self.resources.get(resource_id.lower())]:
            if one and self.resources.pop(one["id"].lower(), None):
                self.azure.remove_special(kind_of(one["id"]), one)
                if kind_of(one["id"]) == _VAULT:
                    self.deleted_vaults.add(one["name"].lower())

    def check_write(self, resource_id: str) -> None:
        azure = self.azure
        if azure.subscription_state not in ("Enabled", "PastDue"):
            text = (f"The subscription '{azure.subscription}' is disabled and therefore marked as read only. You "
                    "cannot perform any write actions on this subscription until it is re-enabled.")  # fmt: skip
            raise Problem(409, "ReadOnlyDisabledSubscription", text)
        found = re.match(r".*/resourceGroups/([^/]+)/providers/", resource_id, re.I)
        if found and found[1].lower() not in self.groups:
            raise Problem(404, "ResourceGroupNotFound", f"Resource group '{found[1]}' could not be found.")

    def _check_place(self, kind: str, resource_id: str, body: dict[str, Any]) -> None:
        space, name = kind.partition("/")[0], name_of(resource_id)
        if space not in self.azure.registered:
            text = f"The subscription is not registered to use namespace '{space}'."
            raise Problem(409, "MissingSubscriptionRegistration", text)
        if kind in _NAMES and not re.fullmatch(_NAMES[kind][0], name):
            raise Problem(400, _NAMES[kind][1], f"{name} is not a valid name for {kind}.")
        if kind == _VAULT and name.lower() in self.deleted_vaults:
            text = f"A vault with the same name already exists in deleted state: {name}. Recover or purge it."
            if body.get("properties", {}).get("createMode") != "recover":
                raise Problem(409, "ConflictError", text)
            self.deleted_vaults.discard(name.lower())
        if kind.count("/") == 1 and space != "microsoft.consumption" and "/resourceGroups/" in resource_id:
            self._check_region(str(body.get("location") or ""), name)
        parent = resource_id.rsplit("/", 2)[0]
        if kind.count("/") > 1 and parent.lower() not in self.resources:
            raise Problem(404, "ParentResourceNotFound", f"The parent of '{name}', {parent}, was not found.")

    def _check_region(self, region: str, name: str) -> None:
        if not region:
            raise Problem(400, "LocationRequired", "The location property is required for this definition.")
        allowed, plain = self.azure.allowed_regions, region.lower().replace(" ", "")
        if allowed is not None and plain not in allowed and plain != "global":
            text = (f"Resource '{name}' was disallowed by Azure: This policy maintains a set of best available regions "
                    "where your subscription can deploy resources.")  # fmt: skip
            raise Problem(403, "RequestDisallowedByAzure", text)

    # -------------------------------------------------------------------------- subscription
    @route("GET", "/subscriptions")
    def list_subscriptions(self, request: Request) -> Answer:
        return {"value": [self.get_subscription(request, self.azure.subscription)]}

    @route("GET", "/subscriptions/{s}")
    def get_subscription(self, request: Request, s: str) -> dict[str, Any]:
        azure = self.azure
        if s.lower() != azure.subscription:
            raise Problem(404, "SubscriptionNotFound", f"The subscription '{s}' could not be found.")
        policies = {"locationPlacementId": "Public_2014-09-01", "quotaId": azure.quota_id,
                    "spendingLimit": azure.spending_limit}  # fmt: skip
        return {"id": self.base, "subscriptionId": s, "displayName": "Azure for Students", "tenantId":
                azure.login.tenant, "state": azure.subscription_state, "subscriptionPolicies": policies,
                "authorizationSource": "RoleBased"}  # fmt: skip

    @route("GET", "/subscriptions/{s}/locations")
    def list_locations(self, request: Request, s: str) -> Answer:
        return {"value": [{"id": f"{self.base}/locations/{name}", "name": name} for name in self.azure.regions]}

    @route("GET", "/subscriptions/{s}/providers/Microsoft.Authorization/policyAssignments")
    def list_policies(self, request: Request, s: str) -> Answer:
        if self.azure.allowed_regions is None:
            return {"value": []}
        given = {"listOfAllowedLocations": {"value": list(self.azure.allowed_regions)}}
        definition = f"/providers/Microsoft.Authorization/policyDefinitions/{_POLICY}"
        said = {"displayName": "Allowed resource deployment regions", "policyDefinitionId": definition,
                "scope": self.base, "parameters": given, "enforcementMode": "Default"}  # fmt: skip
        place = f"{self.base}/providers/Microsoft.Authorization/policyAssignments/sys.regionrestriction"
        return {"value": [{"id": place, "name": "sys.regionrestriction", "properties": said,
                           "type": "Microsoft.Authorization/policyAssignments"}]}  # fmt: skip

    @route("GET", "/subscriptions/{s}/providers/{space}")
    def get_provider(self, request: Request, s: str, space: str) -> Answer:
        state = "Registered" if space.lower() in self.azure.registered else "NotRegistered"
        return {"id": f"{self.base}/providers/{space}", "namespace": space, "registrationState": state}

    @route("POST", "/subscriptions/{s}/providers/{space}/register")
    def register(self, request: Request, s: str, space: str) -> Answer:
        self.check_write(self.base)
        self.azure.registered.add(space.lower())
        said = self.get_provider(request, s, space)
        return {**said, "registrationState": "Registering"} if isinstance(said, dict) else said

    # -------------------------------------------------------------------------------- groups
    @route("GET", "/subscriptions/{s}/resourceGroups")
    def list_groups(self, request: Request, s: str) -> Answer:
        return {"value": list(self.groups.values())}

    @route("PUT", GROUP)
    def put_group(self, request: Request, s: str, group: str) -> Answer:
        self.check_write(self.base)
        body, is_new = request.json, group.lower() not in self.groups
        rules.check(body, {**rules._TOP, "location!": str, "managedBy": str, "properties": object})
        return Reply(201 if is_new else 200, self.add_group(group, body["location"], body.get("tags")))

    def add_group(self, group: str, region: str, tags: Any = None) -> dict[str, Any]:
        made = {"id": f"{self.base}/resourceGroups/{group}", "name": group, "location": region, "tags": tags or {},
                "type": "Microsoft.Resources/resourceGroups",
                "properties": {"provisioningState": "Succeeded"}}  # fmt: skip
        self.groups[group.lower()] = made
        return made

    @route("HEAD", GROUP)
    def has_group(self, request: Request, s: str, group: str) -> Answer:
        return Reply(204 if group.lower() in self.groups else 404)

    @route("GET", GROUP)
    def get_group(self, request: Request, s: str, group: str) -> dict[str, Any]:
        if group.lower() not in self.groups:
            raise Problem(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
        return self.groups[group.lower()]

    @route("DELETE", GROUP)
    def delete_group(self, request: Request, s: str, group: str) -> Answer:
        made = self.get_group(request, s, group)
        made["properties"] = {"provisioningState": "Deleting"}
        started = self.azure.operations.start(lambda: self._drop(made), self.azure.operation_s)
        return Reply(202, None, self.azure.operations.location_headers(started))

    def _drop(self, made: dict[str, Any]) -> None:
        for one in sorted(self.below(made["id"]), key=lambda one: -len(one["id"])):
            self.remove(one["id"])
        self.groups.pop(made["name"].lower(), None)

    @route("GET", f"{GROUP}/resources")
    def list_in_group(self, request: Request, s: str, group: str) -> Answer:
        """As the portal lists them: what is a part of another resource is not shown."""
        found = self.below(str(self.get_group(request, s, group)["id"]))
        wanted = ("id", "name", "type", "location", "sku", "kind", "tags")
        return {"value": [{key: one[key] for key in wanted if key in one} for one in found if is_shown(one)]}

    @route("GET", "/subscriptions/{s}/resources")
    def list_everywhere(self, request: Request, s: str) -> Answer:
        return {"value": [{key: one.get(key) for key in ("id", "name", "type", "location")}
                          for one in self.resources.values() if is_shown(one)]}  # fmt: skip

    # --------------------------------------------------------------------- any other resource
    @route("GET", f"{GROUP}/providers/{{rest...}}")
    def get_any(self, request: Request, s: str, group: str, rest: str) -> Answer:
        if rest.count("/") % 2 == 0:
            return self.find(request.path)
        kind = f"{self.base}/resourceGroups/{group}/providers/{rest}/x"
        return {"value": [one for one in self.below(kind.rpartition("/")[0]) if kind_of(one["id"]) == kind_of(kind)]}

    @route("HEAD", f"{GROUP}/providers/{{rest...}}")
    def has_any(self, request: Request, s: str, group: str, rest: str) -> Answer:
        return Reply(204 if request.path.lower() in self.resources else 404)

    @route("PUT", f"{GROUP}/providers/{{rest...}}")
    def put_any(self, request: Request, s: str, group: str, rest: str) -> Answer:
        is_new = request.path.lower() not in self.resources
        return Reply(201 if is_new else 200, self.put(request.path, request.json))

    @route("POST", f"{GROUP}/providers/Microsoft.Storage/storageAccounts/{{account}}/listKeys")
    def list_keys(self, request: Request, s: str, group: str, account: str) -> Answer:
        self.find(request.path.rpartition("/")[0])
        return {"keys": [{"keyName": "key1", "value": self.azure.blobs.key, "permissions": "FULL"}]}

    @route("DELETE", f"{GROUP}/providers/{{rest...}}")
    def delete_any(self, request: Request, s: str, group: str, rest: str) -> Answer:
        place = request.path
        if place.lower() not in self.resources:
            return Reply(204)
        if kind_of(place) == "microsoft.consumption/budgets":
            self.remove(place)
            return Reply(200)
        operations = self.azure.operations
        started = operations.start(lambda: self.remove(place), self.azure.operation_s)
        space, region = rest.partition("/")[0], self.azure.region
        status = operations.async_headers(started, f"{space}/locations/{region}/operationsStatus")
        return Reply(202, None, {**operations.location_headers(started), **status})

    @route("POST", "/subscriptions/{s}/providers/Microsoft.KeyVault/locations/{region}/deletedVaults/{vault}/purge")
    def purge_vault(self, request: Request, s: str, region: str, vault: str) -> Answer:
        if vault.lower() not in self.deleted_vaults:
            raise Problem(404, "DeletedVaultNotFound", f"There is no deleted vault {vault}.")
        self.deleted_vaults.discard(vault.lower())
        return Reply(200)


def is_shown(one: dict[str, Any]) -> bool:
    kind = kind_of(one["id"])
    return kind.count("/") == 1 and kind != "microsoft.consumption/budgets"


def _spelt(resource_id: str) -> str:
    space, *rest = resource_id.rpartition("/providers/")[2].split("/")
    return "/".join([space, *rest[::2]])
