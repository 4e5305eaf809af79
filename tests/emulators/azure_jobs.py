"""The Azure emulator's jobs, as the API shows them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from emulators import azure_rules as rules
from emulators.azure_nodes import holes
from emulators.azure_routes import WORKSPACE, route
from emulators.azure_runner import OVER, Fate, Job
from emulators.azure_wire import Answer, Problem, Reply, Request

if TYPE_CHECKING:
    from emulators.azure import Azure

_HISTORY = f"/history/v1.0{WORKSPACE}"
_MAY_CHANGE = ("tags", "displayName", "description", "isArchived", "properties", "services", "status")


class Jobs:
    """By name, as if there were one workspace only."""

    def __init__(self, azure: Azure) -> None:
        self.azure = azure
        self.all: dict[str, Job] = {}

    def __getitem__(self, name: str) -> Job:
        return self.all[name]

    def __len__(self) -> int:
        return len(self.all)

    def find(self, path: str) -> Job:
        name = re.sub(r".*/(?:jobs|runs)/([^/]+).*", r"\1", path, flags=re.I)
        if name not in self.all:
            self.azure.workspaces.of(path)
            raise Problem(404, "UserError", f"Not found: there is no job '{name}'.")
        return self.all[name]

    def lose_cluster(self, compute_id: str) -> None:
        for job in list(self.all.values()):
            if job.said.get("computeId", "").lower() == compute_id.lower():
                job.end(Fate("Failed", "ComputeDeleted", "The compute target was deleted."))

    def remove_below(self, prefix: str) -> None:
        for name, job in list(self.all.items()):
            if job.job_id.lower().startswith(prefix):
                job.end(Fate("Canceled"))
                del self.all[name]

    def close(self) -> None:
        """Ends all, at once."""
        for job in list(self.all.values()):
            job.end(Fate("Failed", "Closed", "The emulator is closed.", is_gone=True), wait=False)
        for job in list(self.all.values()):
            job.thread.join(10)

    # ----------------------------------------------------------------------------------- PUT
    @route("PUT", f"{WORKSPACE}/jobs/{{name}}")
    def put_job(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        """A second PUT of a name changes a few words about it, and is refused where it would be another job."""
        self.azure.arm.check_write(request.path)
        place, body = self.azure.workspaces.of(request.path), request.json
        rules.check(body, rules.JOB)
        said = body["properties"]
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}", name):
            raise Problem(400, "UserError", f"'{name}' is not a valid name of a job.")
        if name in self.all:
            return self._again(self.all[name], said)
        self._check(place, said)
        self.all[name] = job = Job(self.azure, place, request.path, said)
        job.thread.start()
        return Reply(201, self.shown(job))

    def _again(self, job: Job, said: dict[str, Any]) -> Answer:
        for key in {*said, *job.said} - set(_MAY_CHANGE):
            if said.get(key) != job.said.get(key):
                text = (f"A job with this name already exists. If you are trying to submit a new job, use a different "
                        f"name. If you are trying to update an existing job, '{key}' cannot be changed.")  # fmt: skip
                raise Problem(400, "UserError", text)
        job.said |= {key: said[key] for key in _MAY_CHANGE if key in said}
        return Reply(200, self.shown(job))

    def _check(self, place: dict[str, Any], said: dict[str, Any]) -> None:
        known = {f"{kind}.{name}" for kind in ("inputs", "outputs") for name in said.get(kind) or {}}
        if unknown := holes(said["command"]) - known:
            raise Problem(400, "UserError", f"The command names what the job does not have: {', '.join(unknown)}.")
        compute = said.get("computeId")
        if compute and not compute.lower().endswith("/serverless") and self.azure.computes.find(compute) is None:
            raise Problem(400, "UserError", f"Unknown compute target '{compute.rpartition('/')[2]}'.")
        nodes = int((said.get("resources") or {}).get("instanceCount") or 1)
        cluster = self.azure.computes.find(compute or "")
        if cluster and nodes > cluster.scale[1]:
            raise Problem(400, "UserError", f"The job needs {nodes} nodes, the cluster has {cluster.scale[1]} at most.")
        if said["environmentId"].startswith("/"):
            self.azure.workspaces.find(said["environmentId"])
        for one in (said.get("inputs") or {}).values():
            if one["jobInputType"] != "literal":
                self.azure.workspaces.place(place, one["uri"])
        if said.get("codeId"):
            self.azure.workspaces.place(place, said["codeId"])

    # ----------------------------------------------------------------------------------- GET
    def shown(self, job: Job) -> dict[str, Any]:
        studio = f"https://ml.azure.com/runs/{job.name}?wsid={job.workspace['id']}&tid={self.azure.login.tenant}"
        tracking = job.workspace["properties"]["mlFlowTrackingUri"]
        services = {"Tracking": {"endpoint": tracking, "jobServiceType": "Tracking"},
                    "Studio": {"endpoint": studio, "jobServiceType": "Studio"}}  # fmt: skip
        default = f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{job.name}"
        outputs = {"default": {"jobOutputType": "uri_folder", "mode": "ReadWriteMount", "uri": default}}
        for name, one in (job.said.get("outputs") or {}).items():
            outputs[name] = {**one, "uri": job.output_uri(name)}
        said = {"displayName": job.name, "experimentName": "Default", "tags": {}, "isArchived": False, "properties": {},
                **job.said, "status": job.status, "services": {**(job.said.get("services") or {}), **services},
                "outputs": outputs}  # fmt: skip
        return {"id": job.job_id, "name": job.name, "type": "Microsoft.MachineLearningServices/workspaces/jobs",
                "properties": said, "systemData": {"createdAt": job.created, "createdBy": "Alice"}}  # fmt: skip

    @route("GET", f"{WORKSPACE}/jobs")
    def list_jobs(self, request: Request, s: str, group: str, workspace: str) -> Answer:
        """In pages, the newest first."""
        found = [
            job for job in reversed(list(self.all.values())) if job.job_id.lower().startswith(request.path.lower())
        ]
        if (kind := request.query.get("listViewType", "ActiveOnly")) != "All":
            found = [job for job in found if bool(job.said.get("isArchived")) == (kind == "ArchivedOnly")]
        first, size = int(request.query.get("$skip") or 0), self.azure.jobs_per_page
        said = {"value": [self.shown(job) for job in found[first : first + size]]}
        if len(found) > first + size:
            version = request.query["api-version"]
            link = f"{request.path}?api-version={version}&listViewType={kind}&$skip={first + size}"
            said["nextLink"] = f"{self.azure.operations.arm_url}{link}"  # type: ignore[assignment]
        return said

    @route("GET", f"{WORKSPACE}/jobs/{{name}}")
    def get_job(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        return self.shown(self.find(request.path))

    @route("POST", f"{WORKSPACE}/jobs/{{name}}/cancel")
    def cancel(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        job, operations = self.find(request.path), self.azure.operations
        if job.status in (*OVER, "Finalizing"):
            raise Problem(400, "UserError", f"A job in the state {job.status} cannot be canceled.")
        job.cancel()
        started = operations.start(dict, 0, lambda: job.status in OVER)
        place = f"Microsoft.MachineLearningServices/locations/{job.workspace['location']}/mfeOperationResults"
        return Reply(202, None, operations.location_headers(started, place))

    @route("DELETE", f"{WORKSPACE}/jobs/{{name}}")
    def delete(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        job = self.find(request.path)
        if job.status not in OVER:
            raise Problem(400, "UserError", f"A job in the state {job.status} cannot be deleted.")
        del self.all[name]
        return Reply(200)

    # ------------------------------------------------------------------------------- history
    @route("GET", f"{_HISTORY}/runs/{{name}}/details")
    def get_details(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        job = self.find(request.path)
        said = {"runId": name, "target": job.said.get("computeId", "").rpartition("/")[2], "status": job.status,
                "properties": job.said.get("properties") or {}, "logFiles": self._logs(job), "inputDatasets": [],
                "outputDatasets": [], "submittedBy": "Alice", **job.times}  # fmt: skip
        if job.fate and job.fate.code:
            error = {"code": job.fate.code, "message": job.fate.message, "details": []}
            said["error"] = {"error": error, "time": self.azure.now_text()}
        return said

    def _logs(self, job: Job) -> dict[str, str]:
        place = self.azure.workspaces.artifacts(job.workspace, job.name)
        names = [name for name in self.azure.blobs.names(place.account, place.container, f"{place.path}/")
                 if "logs/" in name]  # fmt: skip
        base = f"https://{place.account}.blob.core.windows.net/{place.container}"
        token = self.azure.blobs.sas(place.account, place.container, "r")
        return {name.removeprefix(f"{place.path}/"): f"{base}/{name}?{token}" for name in names}

    @route("POST", f"{_HISTORY}/rundata")
    def get_rundata(self, request: Request, s: str, group: str, workspace: str) -> Answer:
        job = self.find(f"{request.path}/runs/{request.json['runId']}")
        outputs = {
            name: {"assetId": self._asset(job, name), "type": "UriFolder"} for name in job.said.get("outputs") or {}
        }
        said = {"runId": job.name, "status": job.status, "outputs": outputs, "properties": {}, "tags": {},
                "dataContainerId": f"dcid.{job.name}", **job.times}  # fmt: skip
        return {"runMetadata": said, "runDefinition": None}

    @staticmethod
    def _asset(job: Job, output: str) -> str:
        place = job.workspace
        base = f"azureml://locations/{place['location']}/workspaces/{place['properties']['workspaceId']}"
        return f"{base}/data/azureml_{job.name}_output_data_{output}/versions/1"

    @route("POST", f"/data/v1.0{WORKSPACE}/dataversion/batchGetResolvedUris")
    def resolve(self, request: Request, s: str, group: str, workspace: str) -> Answer:
        wanted = {self._asset(job, name): job.output_uri(name) for job in self.all.values()
                  for name in job.said.get("outputs") or {}}  # fmt: skip
        asked = request.json.get("values") or []
        return {"values": {one: {"uri": wanted[one], "type": "UriFolder"} for one in asked if one in wanted}}
