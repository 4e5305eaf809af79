"""The Azure emulator's workspaces: stores, code, environments and data that jobs are made of."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emulators import azure_rules as rules
from emulators.azure_routes import WORKSPACE, route
from emulators.azure_wire import Answer, Problem, Reply, Request

if TYPE_CHECKING:
    from emulators.azure import Azure

_STORE = re.compile(r"azureml://(?:.+?/)?datastores/([^/]+)/(?:paths/)?(.*)")
_ARTIFACTS, _BLOBS = "workspaceartifactstore", "workspaceblobstore"
_LINKS = ("storageAccount", "keyVault", "applicationInsights")


@dataclass(frozen=True)
class Place:
    """Where blobs lie: all below `path`."""

    account: str
    container: str
    path: str


class Workspaces:
    """Their assets are kept by their ids, like all resources, but are none that a group lists."""

    def __init__(self, azure: Azure) -> None:
        self.azure = azure
        self.assets: dict[str, dict[str, Any]] = {}

    # ------------------------------------------------------------------------- the workspace
    def put(self, resource: dict[str, Any], before: dict[str, Any] | None) -> None:
        """Called before it is stored."""
        said = resource["properties"]
        for name in _LINKS:
            if self.azure.arm.resources.get(str(said.get(name, "")).lower()) is None:
                raise Problem(
                    400, "ValidationError", f"The workspace needs a {name} that exists, not {said.get(name)}."
                )
        if "SystemAssigned" not in str((resource.get("identity") or {}).get("type", "")):
            raise Problem(400, "ValidationError", "The workspace needs an identity of type SystemAssigned.")
        region, account = resource["location"], said["storageAccount"].rpartition("/")[2]
        number = before["properties"]["workspaceId"] if before else secrets.token_hex(16)
        said |= {"workspaceId": number, "discoveryUrl": f"https://{region}.api.azureml.ms/discovery",
                 "mlFlowTrackingUri": f"azureml://{region}.api.azureml.ms/mlflow/v1.0{resource['id']}",
                 "publicNetworkAccess": said.get("publicNetworkAccess", "Enabled")}  # fmt: skip
        resource["identity"] = {"type": "SystemAssigned", "principalId": number, "tenantId": self.azure.login.tenant}
        for _, container in self._stores(number):
            self.azure.blobs.make_container(account, container)

    def remove(self, resource: dict[str, Any]) -> None:
        prefix = f"{resource['id'].lower()}/"
        self.azure.jobs.remove_below(prefix)
        self.assets = {key: one for key, one in self.assets.items() if not key.startswith(prefix)}

    @staticmethod
    def _stores(number: str) -> list[tuple[str, str]]:
        return [(_ARTIFACTS, "azureml"), (_BLOBS, f"azureml-blobstore-{number}")]

    def of(self, path: str) -> dict[str, Any]:
        """The workspace that something belongs to."""
        found = re.match(r"(.*?/workspaces/[^/]+)(?:/|$)", path, re.I)
        return self.azure.arm.find(found[1] if found else path)

    @route("GET", WORKSPACE)
    def get_workspace(self, request: Request, s: str, group: str, workspace: str) -> Answer:
        return self.azure.arm.find(request.path)

    @route("PUT", WORKSPACE)
    def put_workspace(self, request: Request, s: str, group: str, workspace: str) -> Answer:
        is_new = request.path.lower() not in self.azure.arm.resources
        made = self.azure.arm.put(request.path, request.json)
        started = self.azure.operations.start(lambda: None, self.azure.operation_s)
        place = f"Microsoft.MachineLearningServices/locations/{made['location']}/workspaceOperationsStatus"
        return Reply(201 if is_new else 200, made, self.azure.operations.async_headers(started, place))

    @route("GET", "/discovery/workspaces/{number}")
    @route("GET", "/discovery")
    def discover(self, request: Request, number: str = "") -> Answer:
        return {"api": f"https://{request.host}", "history": f"https://{request.host}",
                "experimentation": f"https://{request.host}", "studio": "https://ml.azure.com"}  # fmt: skip

    # -------------------------------------------------------------------------------- stores
    def place(self, workspace: dict[str, Any], uri: str) -> Place:
        """Where a uri of a datastore, an asset or a blob points to."""
        if found := re.fullmatch(r"https://([^.]+)\.blob\.core\.windows\.net/([^/]+)/([^?]*)(?:\?.*)?", uri):
            return Place(*found.groups())
        if found := _STORE.fullmatch(uri):
            return Place(self._account(workspace), self._container(workspace, found[1]), found[2].rstrip("/"))
        asset = self.assets.get(uri.lower().removeprefix("azureml:"))
        if asset is None and (found := re.search(r"/(data|codes)/([^/]+)/versions/([^/]+)$", uri)):
            asset = self.assets.get("/".join([workspace["id"], found[1], found[2], "versions", found[3]]).lower())
        if asset is None:
            raise Problem(400, "UserError", f"There is nothing at {uri}.")
        said = asset["properties"]
        return self.place(workspace, said.get("dataUri") or said["codeUri"])

    def _account(self, workspace: dict[str, Any]) -> str:
        return str(workspace["properties"]["storageAccount"]).rpartition("/")[2]

    def _container(self, workspace: dict[str, Any], store: str) -> str:
        stores = dict(self._stores(workspace["properties"]["workspaceId"]))
        if store not in stores:
            raise Problem(404, "UserError", f"Could not find datastore: {store}")
        return stores[store]

    def artifacts(self, workspace: dict[str, Any], job: str) -> Place:
        container = self._container(workspace, _ARTIFACTS)
        return Place(self._account(workspace), container, f"ExperimentRun/dcid.{job}")

    def _store(self, workspace: dict[str, Any], name: str) -> dict[str, Any]:
        kind = {"None": "None", "Sas": "Sas"}.get(self.azure.secrets_type, "AccountKey")
        return {"id": f"{workspace['id']}/datastores/{name}", "name": name, "type":
                "Microsoft.MachineLearningServices/workspaces/datastores", "properties": {
                    "datastoreType": "AzureBlob", "isDefault": name == _BLOBS, "accountName": self._account(workspace),
                    "containerName": self._container(workspace, name), "endpoint": "core.windows.net",
                    "protocol": "https", "credentials": {"credentialsType": kind}, "subscriptionId": None,
                    "serviceDataAccessAuthIdentity": "None", "tags": {}, "properties": {}}}  # fmt: skip

    @route("GET", f"{WORKSPACE}/datastores")
    def list_stores(self, request: Request, s: str, group: str, workspace: str) -> Answer:
        place, only = self.of(request.path), request.query.get("isDefault") == "true"
        return {"value": [self._store(place, name) for name in ((_BLOBS,) if only else (_ARTIFACTS, _BLOBS))]}

    @route("GET", f"{WORKSPACE}/datastores/{{name}}")
    def get_store(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        return self._store(self.of(request.path), name)

    @route("POST", f"{WORKSPACE}/datastores/{{name}}/listSecrets")
    def list_secrets(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        store = self._store(self.of(request.path), name)["properties"]
        kind = self.azure.secrets_type
        if kind == "Sas":
            return {
                "secretsType": "Sas",
                "sasToken": self.azure.blobs.sas(store["accountName"], store["containerName"]),
            }
        if kind == "AccountKey":
            return {"secretsType": "AccountKey", "key": self.azure.blobs.key}
        raise Problem(400, "UserError", "No secrets for credentials of type None.")

    # -------------------------------------------------------------------------------- assets
    def find(self, asset_id: str) -> dict[str, Any]:
        if asset_id.lower() not in self.assets:
            raise Problem(404, "UserError", f"Not found: {asset_id.rpartition('/workspaces/')[2]}")
        return self.assets[asset_id.lower()]

    def add(self, asset_id: str, kind: str, properties: dict[str, Any]) -> dict[str, Any]:
        made = {"id": asset_id, "name": asset_id.rpartition("/")[2], "properties": properties,
                "type": f"Microsoft.MachineLearningServices/workspaces/{kind}/versions",
                "systemData": {"createdAt": self.azure.now_text(), "createdBy": "Alice"}}  # fmt: skip
        self.assets[asset_id.lower()] = made
        return made

    def _put(self, request: Request, kind: str, rule: dict[str, Any]) -> Answer:
        self.azure.arm.check_write(request.path)
        self.of(request.path)
        body = request.json
        rules.check(body, rule)
        before = self.assets.get(request.path.lower())
        said = {"isArchived": False, "isAnonymous": False, "tags": {}, **body["properties"]}
        if before and any(before["properties"].get(key) != said.get(key) for key in ("dataUri", "codeUri", "image")):
            raise Problem(409, "UserError", f"A {kind} version with this name exists already, and is immutable.")
        return Reply(200 if before else 201, self.add(request.path, kind, said))

    def _versions(self, request: Request) -> list[dict[str, Any]]:
        self.of(request.path)
        return [one for key, one in self.assets.items() if key.startswith(f"{request.path.lower()}/")]

    @route("GET", f"{WORKSPACE}/codes/{{name}}/versions")
    def list_codes(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        """Looks for a hash in all code of the workspace, whatever its name."""
        prefix = f"{self.of(request.path)['id']}/codes/".lower()
        wanted = request.query.get("hash")
        found = [one for key, one in self.assets.items() if key.startswith(prefix)]
        return {"value": [one for one in found if one["properties"].get("properties", {}).get("hash_sha256") == wanted]}

    @route("POST", f"{WORKSPACE}/{{kind}}/{{name}}/versions/{{version}}/startPendingUpload")
    def start_upload(
        self, request: Request, s: str, group: str, workspace: str, kind: str, name: str, version: str
    ) -> Answer:
        """A container of its own for what is to come, with a pass."""
        place = self.of(request.path)
        account, container = self._account(place), f"{secrets.token_hex(4)}-{name}"[:63].lower()
        self.azure.blobs.make_container(account, container)
        uri = f"https://{account}.blob.core.windows.net/{container}"
        credential = {"credentialType": "SAS", "sasUri": f"{uri}?{self.azure.blobs.sas(account, container)}"}
        reference = {"blobUri": uri, "storageAccountArmId": place["properties"]["storageAccount"],
                     "credential": credential}  # fmt: skip
        return {"pendingUploadId": secrets.token_hex(8), "pendingUploadType": "TemporaryBlobReference",
                "blobReferenceForConsumption": reference}  # fmt: skip

    @route("GET", f"{WORKSPACE}/{{kind}}/{{name}}/versions/{{version}}")
    def get_version(
        self, request: Request, s: str, group: str, workspace: str, kind: str, name: str, version: str
    ) -> Answer:
        self.of(request.path)
        return self.find(request.path)

    @route("PUT", f"{WORKSPACE}/codes/{{name}}/versions/{{version}}")
    def put_code(self, request: Request, s: str, group: str, workspace: str, name: str, version: str) -> Answer:
        return self._put(request, "codes", rules.CODE)

    @route("PUT", f"{WORKSPACE}/environments/{{name}}/versions/{{version}}")
    def put_environment(self, request: Request, s: str, group: str, workspace: str, name: str, version: str) -> Answer:
        return self._put(request, "environments", rules.ENVIRONMENT)

    @route("PUT", f"{WORKSPACE}/data/{{name}}/versions/{{version}}")
    def put_data(self, request: Request, s: str, group: str, workspace: str, name: str, version: str) -> Answer:
        return self._put(request, "data", rules.DATA)

    @route("GET", f"{WORKSPACE}/environments/{{name}}/versions")
    @route("GET", f"{WORKSPACE}/data/{{name}}/versions")
    def list_versions(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        return {"value": list(reversed(self._versions(request)))}

    @route("GET", f"{WORKSPACE}/environments/{{name}}")
    @route("GET", f"{WORKSPACE}/data/{{name}}")
    def get_asset(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        """The asset without its versions; it knows its newest."""
        found = self._versions(request)
        if not found:
            raise Problem(404, "UserError", f"Not found: {name}")
        said = {"latestVersion": found[-1]["name"], "nextVersion": str(len(found) + 1), "isArchived": False,
                "tags": {}, "properties": {}, "dataType": found[-1]["properties"].get("dataType")}  # fmt: skip
        return {
            "id": request.path,
            "name": name,
            "properties": {key: one for key, one in said.items() if one is not None},
        }

    @route("GET", f"{WORKSPACE}/data")
    def list_data(self, request: Request, s: str, group: str, workspace: str) -> Answer:
        names = {key.removeprefix(f"{request.path.lower()}/").partition("/")[0] for key in self.assets
                 if key.startswith(f"{request.path.lower()}/")}  # fmt: skip
        return {"value": [{"id": f"{request.path}/{name}", "name": name, "properties": {}} for name in sorted(names)]}
