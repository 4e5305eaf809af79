"""The Azure emulator's clusters: nodes that come when a job asks, cost from their first second, and go when idle."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emulators import azure_rules as rules
from emulators.azure_routes import WORKSPACE, route
from emulators.azure_wire import Answer, Problem, Reply, Request

if TYPE_CHECKING:
    from emulators.azure import Azure

_COMPUTES = f"{WORKSPACE}/computes"
_ML = "/subscriptions/{s}/providers/Microsoft.MachineLearningServices/locations/{region}"
LOW = "lowPriorityCores"


@dataclass(frozen=True)
class Size:
    """A machine; the price of an hour, in USD, is that of `emulators.azure_money`."""

    name: str
    family: str
    vcpus: int
    memory_gb: int
    gpus: int = 0


SIZES = {
    size.name.lower(): size
    for size in (
        Size("Standard_DS3_v2", "standardDSv2Family", 4, 14),
        Size("Standard_NC4as_T4_v3", "standardNCASv3_T4Family", 4, 28, 1),
        Size("Standard_NC8as_T4_v3", "standardNCASv3_T4Family", 8, 56, 1),
        Size("Standard_NC24ads_A100_v4", "standardNCADSA100v4Family", 24, 220, 1),
    )
}


def seconds(duration: str) -> float:
    """Of PT2M and the like."""
    days, _, rest = duration.removeprefix("P").partition("T")
    total, digits = float(days.removesuffix("D") or 0) * 86400, ""
    for letter in rest:
        if letter in "HMS":
            total += float(digits) * {"H": 3600, "M": 60, "S": 1}[letter]
            digits = ""
        else:
            digits += letter
    return total


@dataclass
class Node:
    number: int
    started_s: float
    ready_s: float
    job: str = ""
    idle_since_s: float = 0.0


class Cluster:
    """The nodes of one AmlCompute; `all` is the clusters it shares the quota with."""

    def __init__(self, azure: Azure, resource: dict[str, Any], everyone: dict[str, Cluster]) -> None:
        self.azure, self.resource, self.everyone = azure, resource, everyone
        self.nodes: list[Node] = []
        self.waiting: dict[str, int] = {}
        self.errors: list[dict[str, Any]] = []
        self.past_s, self.count, self.lock = 0.0, 0, threading.RLock()

    @property
    def own(self) -> dict[str, Any]:
        return dict(self.resource["properties"]["properties"])

    @property
    def size(self) -> Size:
        return SIZES[self.own["vmSize"].lower()]

    @property
    def is_low(self) -> bool:
        return bool(self.own.get("vmPriority") == "LowPriority")

    @property
    def quota_name(self) -> str:
        return LOW if self.is_low else self.size.family

    @property
    def scale(self) -> tuple[int, int, float]:
        """Fewest and most nodes, and how many seconds of this clock an idle one stays."""
        said = self.own.get("scaleSettings") or {"maxNodeCount": 1}
        idle_s = seconds(said.get("nodeIdleTimeBeforeScaleDown") or "PT120S")
        return int(said.get("minNodeCount") or 0), int(said["maxNodeCount"]), idle_s / self.azure.clock_rate

    @property
    def node_seconds(self) -> float:
        """What all its nodes together were there, in seconds of Azure's clock."""
        with self.lock:
            self.settle()
            now_s = time.monotonic()
            return (self.past_s + sum(now_s - node.started_s for node in self.nodes)) * self.azure.clock_rate

    def settle(self) -> None:
        """Lets idle nodes go, at the time at which they went, and starts what is asked for."""
        with self.lock:
            fewest, most, idle_s = self.scale
            now_s = time.monotonic()
            for node in [node for node in self.nodes if not node.job]:
                ends_s = max(node.ready_s, node.idle_since_s) + idle_s
                if len(self.nodes) > max(fewest, sum(self.waiting.values())) and ends_s <= now_s:
                    self._end(node, ends_s)
            busy = sum(1 for node in self.nodes if node.job)
            wanted = min(most, max(fewest, busy + sum(self.waiting.values())))
            self.errors = []
            while len(self.nodes) < wanted and self._has_quota():
                ready_s = now_s + self.azure.startup_s / self.azure.clock_rate
                self.nodes.append(Node(self.count, now_s, ready_s, idle_since_s=ready_s))
                self.count += 1

    def _end(self, node: Node, when_s: float) -> None:
        self.past_s += max(0.0, when_s - node.started_s)
        self.nodes.remove(node)

    def _has_quota(self) -> bool:
        limit, used = self.azure.quota.get(self.quota_name, 0), cores_used(self.everyone, self.quota_name)
        if used + self.size.vcpus <= limit:
            return True
        text = (f"Operation results in exceeding quota limits of {self.quota_name}. Maximum allowed: {limit}, Current "
                f"in use: {used}, Additional requested: {self.size.vcpus}.")  # fmt: skip
        self.errors = [{"error": {"code": "ClusterCoreQuotaReached", "message": text}}]
        return False

    def take(self, job: str, count: int) -> bool:
        """Asks for nodes, and says whether they are there. Those who ask first are served first."""
        with self.lock:
            self.waiting.setdefault(job, count)
            self.settle()
            free = [node for node in self.nodes if not node.job and node.ready_s <= time.monotonic()]
            if next(iter(self.waiting)) != job or len(free) < count:
                return False
            del self.waiting[job]
            for node in free[:count]:
                node.job = job
            return True

    def give_back(self, job: str) -> None:
        with self.lock:
            self.waiting.pop(job, None)
            for node in self.nodes:
                if node.job == job:
                    node.job, node.idle_since_s = "", time.monotonic()

    def lose(self, job: str = "") -> None:
        """The nodes of a job, or all, are gone at once."""
        with self.lock:
            for node in [node for node in self.nodes if not job or node.job == job]:
                self._end(node, time.monotonic())

    def shown(self) -> dict[str, Any]:
        """The answer to a GET."""
        with self.lock:
            self.settle()
            now_s = time.monotonic()
            ready = [node for node in self.nodes if node.ready_s <= now_s]
            busy = [node for node in self.nodes if node.job]
            states = {"preparingNodeCount": len(self.nodes) - len(ready), "runningNodeCount": len(busy),
                      "idleNodeCount": len(ready) - len(busy), "unusableNodeCount": 0, "leavingNodeCount": 0,
                      "preemptedNodeCount": 0}  # fmt: skip
            own = {**self.own, "allocationState": "Steady" if len(ready) == len(self.nodes) else "Resizing",
                   "currentNodeCount": len(self.nodes), "targetNodeCount": len(self.nodes), "nodeStateCounts": states,
                   "errors": self.errors or None, "allocationStateTransitionTime": self.azure.now_text()}  # fmt: skip
        outer = {**self.resource["properties"], "properties": own, "isAttachedCompute": False}
        return {**self.resource, "properties": outer}


def cores_used(clusters: dict[str, Cluster], quota_name: str) -> int:
    return sum(len(one.nodes) * one.size.vcpus for one in clusters.values() if one.quota_name == quota_name)


class Computes:
    """The clusters of all workspaces, with sizes and quota."""

    def __init__(self, azure: Azure) -> None:
        self.azure = azure
        self.clusters: dict[str, Cluster] = {}
        self.past_usd: dict[str, float] = {}

    def put(self, resource: dict[str, Any]) -> None:
        """Called before the resource is stored; refuses what Azure would."""
        own = resource["properties"]["properties"]
        scale, name = own.get("scaleSettings") or {"maxNodeCount": 1}, own["vmSize"]
        if name.lower() not in SIZES:
            raise Problem(400, "InvalidVmSize", f"The specified vm size {name} is not supported in this region.")
        if name.lower() in self.azure.refused_sizes:
            text = f"The resource {name} is not available for your offer. Upgrade to Pay-As-You-Go to use it."
            raise Problem(409, "ResourceNotAvailableForOffer", text)
        if not 0 <= int(scale.get("minNodeCount") or 0) <= int(scale["maxNodeCount"]):
            raise Problem(400, "InvalidScaleSettings", "minNodeCount must be between 0 and maxNodeCount.")
        key = resource["id"].lower()
        if key in self.clusters:
            if self.clusters[key].own["vmSize"].lower() != name.lower():
                raise Problem(400, "ValidationError", "The size of a cluster cannot be changed.")
            self.clusters[key].resource = resource
        else:
            self.clusters[key] = Cluster(self.azure, resource, self.clusters)
        self.clusters[key].settle()

    def remove(self, resource: dict[str, Any]) -> None:
        gone = self.clusters.pop(resource["id"].lower(), None)
        if gone:
            self.azure.jobs.lose_cluster(resource["id"])
            gone.lose()
            self.past_usd[gone.size.name] = self.past_usd.get(gone.size.name, 0) + self.azure.money.price_of(gone)

    def find(self, compute_id: str) -> Cluster | None:
        return self.clusters.get(compute_id.lower())

    # -------------------------------------------------------------------------------- routes
    @route("GET", _COMPUTES)
    def list_computes(self, request: Request, s: str, group: str, workspace: str) -> Answer:
        prefix = f"{request.path.lower()}/"
        return {"value": [one.shown() for key, one in self.clusters.items() if key.startswith(prefix)]}

    @route("GET", f"{_COMPUTES}/{{name}}")
    def get_compute(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        self.azure.arm.find(request.path.rsplit("/", 2)[0])
        found = self.find(request.path)
        if found is None:
            raise Problem(404, "ResourceNotFound", f"The Resource '{name}' of type computes was not found.")
        return found.shown()

    @route("PUT", f"{_COMPUTES}/{{name}}")
    def put_compute(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        azure, is_new = self.azure, self.find(request.path) is None
        azure.arm.put(request.path, request.json)
        started = azure.operations.start(lambda: None, azure.operation_s)
        place = f"Microsoft.MachineLearningServices/locations/{azure.region}/computeOperationsStatus"
        shown = self.clusters[request.path.lower()].shown()
        shown["properties"]["provisioningState"] = "Creating" if is_new else "Succeeded"
        return Reply(201 if is_new else 200, shown, azure.operations.async_headers(started, place))

    @route("PATCH", f"{_COMPUTES}/{{name}}")
    def scale(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        body, resource = request.json, self.azure.arm.find(request.path)
        rules.check(body, {"properties!": {"properties!": {"scaleSettings!": rules._CLUSTER["scaleSettings"]}}})
        resource["properties"]["properties"] |= body["properties"]["properties"]
        return self.clusters[request.path.lower()].shown()

    @route("DELETE", f"{_COMPUTES}/{{name}}")
    def delete_compute(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        if request.query.get("underlyingResourceAction") not in ("Delete", "Detach"):
            raise Problem(400, "ValidationError", "underlyingResourceAction must be Delete or Detach.")
        if self.find(request.path) is None:
            raise Problem(404, "ResourceNotFound", f"The Resource '{name}' of type computes was not found.")
        azure, place = self.azure, request.path
        started = azure.operations.start(lambda: azure.arm.remove(place), azure.operation_s)
        base = f"Microsoft.MachineLearningServices/locations/{azure.region}"
        headers = azure.operations.location_headers(started, f"{base}/computeOperationsResults")
        return Reply(
            202, None, {**headers, **azure.operations.async_headers(started, f"{base}/computeOperationsStatus")}
        )

    @route("POST", f"{_COMPUTES}/{{name}}/listNodes")
    def list_nodes(self, request: Request, s: str, group: str, workspace: str, name: str) -> Answer:
        found = self.clusters[request.path.rpartition("/")[0].lower()]
        found.settle()
        return {"nodes": [{"nodeId": f"tvmps_{node.number}", "nodeState": "running" if node.job else "idle",
                           "runId": node.job or None} for node in found.nodes]}  # fmt: skip

    @route("GET", f"{_ML}/usages")
    def list_usages(self, request: Request, s: str, region: str) -> Answer:
        return {"value": [self._usage(request.path, name, limit) for name, limit in self.azure.quota.items()]}

    def _usage(self, path: str, name: str, limit: int) -> dict[str, Any]:
        for one in list(self.clusters.values()):
            one.settle()
        return {"id": f"{path}/{name}", "type": "Microsoft.MachineLearningServices/usages", "unit": "Count",
                "name": {"value": name, "localizedValue": name}, "limit": limit,
                "currentValue": cores_used(self.clusters, name)}  # fmt: skip

    @route("GET", f"{_ML}/vmSizes")
    def list_sizes(self, request: Request, s: str, region: str) -> Answer:
        return {"value": [self._offered(size, region) for size in SIZES.values()]}

    def _offered(self, size: Size, region: str) -> dict[str, Any]:
        prices = [
            {"osType": "Linux", "vmTier": tier, "retailPrice": usd}
            for tier, low in (("Standard", False), ("LowPriority", True))
            if (usd := self.azure.money.hour_usd(size.name, region, low)) is not None
        ]
        return {"name": size.name, "family": size.family, "vCPUs": size.vcpus, "gpus": size.gpus,
                "memoryGB": size.memory_gb, "osVhdSizeMB": 1047552, "maxResourceVolumeMB": 180224,
                "lowPriorityCapable": True, "premiumIO": True, "supportedComputeTypes": ["AmlCompute"],
                "estimatedVMPrices": {"billingCurrency": "USD", "unitOfMeasure": "OneHour",
                                      "values": prices}}  # fmt: skip
