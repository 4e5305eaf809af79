"""Azure on the loopback, as far as facts about it are known; it really runs the jobs it is sent.

The real clients are led here by their environment alone: a proxy that knows no way out, and an authority to trust.
The blob store behind it is Microsoft's Azurite.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emulators.azure_arm import Arm
from emulators.azure_blobs import Blobs
from emulators.azure_compute import LOW, SIZES, Cluster, Computes
from emulators.azure_deployments import Deployments
from emulators.azure_jobs import Jobs
from emulators.azure_login import Login
from emulators.azure_ml import Workspaces
from emulators.azure_money import Money
from emulators.azure_routes import Operations, Routes
from emulators.azure_runner import Fate, Job
from emulators.azure_wire import NAMES, Answer, Fault, Handler, Problem, Reply, Request, Server
from emulators.azurite import missing
from emulators.tls import write_certificates
from emulators.wire import Other

__all__ = ["Azure", "Fault", "Job"]

_SPACES = ("Resources", "MachineLearningServices", "Storage", "KeyVault", "Insights", "OperationalInsights",
           "ContainerRegistry", "Consumption", "Authorization", "ManagedIdentity")  # fmt: skip


class Azure(Other):
    """The other side. `environment()` leads clients here; `calls`, `refused_hosts`, `jobs` and `arm` are for tests.

    `python` is what jobs find under that name; ``python -c`` is this interpreter and ``python -m pip`` does nothing.

    Switches, to be set at any time:
    faults               what goes wrong with the next calls, see `Fault`
    subscription_state   Enabled; with Disabled or Warned every write meets ReadOnlyDisabledSubscription
    quota_id             the offer, by which students are known; `spending_limit` is On, Off or CurrentPeriodOff
    allowed_regions      the only ones for new resources; elsewhere RequestDisallowedByAzure. None: all
    registered           resource providers in lower case; others meet MissingSubscriptionRegistration
    quota                cores by family and LOW for low priority; where they are used up no node comes, ever
    refused_sizes        sizes in lower case for which a cluster is refused with ResourceNotAvailableForOffer
    image_builds         False: environments with packages of their own fail with TasksOperationsNotAllowed
    queue_forever        while this is so, jobs stay Queued
    secrets_type         what listSecrets gives: Sas, AccountKey, or None (then only AAD opens the blobs)
    sas_life_s, token_life_s   how long tokens given from now on are good; `expire_tokens` and `expire_sas` end all
    clock_skew_s         how far Azure's clock is ahead of this one
    clock_rate           seconds of Azure's clock that pass in a second, for nodes: start, idleness, price
    startup_s            until a node is ready, of Azure's clock; it is paid for
    phase_s, finalizing_s   how long a job is in each state before and after it runs, of this clock
    grace_s              how long a canceled job may live on after SIGTERM, of this clock
    sync_s               how often mounted outputs are written to the blob store, of this clock
    operation_s          how long a long-running operation takes, of this clock
    retry_after          Retry-After of such an operation: 1, or like 50ms, which only azure-core honours
    costs_are_available       False: Cost Management answers that it does not support this offer
    costs_lag            the part of what was spent that it does not know yet, 0 to 1
    jobs_per_page, prices_per_page   how long a page of a listing is
    referred_url         where operations, next pages and, with `redirects`, every call to ARM are sent: ARM itself
    """

    def __init__(self, root: Path, python: str = sys.executable) -> None:
        super().__init__()
        self.root, self.python = root, python
        self.subscription = "5b0e4a5c-0000-4000-8000-00000000a2e1"
        self.regions = ("westeurope", "eastus", "uksouth", "francecentral", "swedencentral")
        self.region = "westeurope"
        self.subscription_state, self.quota_id, self.spending_limit = "Enabled", "AzureForStudents_2018-01-01", "On"
        self.allowed_regions: list[str] | None = None
        self.registered = {f"microsoft.{space.lower()}" for space in _SPACES}
        self.quota = {**{size.family: 100 for size in SIZES.values()}, LOW: 100}
        self.refused_sizes: set[str] = set()
        self.image_builds, self.queue_forever, self.secrets_type = True, False, "Sas"
        self.sas_life_s, self.token_life_s, self.clock_skew_s = 3600.0, 3600.0, 0.0
        self.clock_rate, self.startup_s = 60.0, 3.0
        self.phase_s, self.finalizing_s, self.grace_s, self.sync_s = 0.02, 0.02, 2.0, 1.0
        self.operation_s, self.costs_are_available, self.costs_lag = 0.05, True, 0.0
        self.jobs_per_page, self.prices_per_page, self.redirects = 50, 1000, False
        self.audiences: set[tuple[str, str]] = set()
        """Each host that was sent a good token, with the audience of it."""
        # Commands are pasted together from paths: Azure's have no blanks in them, whatever the test's folder has.
        self.work = Path(tempfile.mkdtemp(prefix="azure-"))
        self.login, self.blobs, self.arm = Login(self), Blobs(self), Arm(self)
        self.operations = Operations(self.subscription)
        self.computes, self.workspaces, self.jobs, self.money = (
            Computes(self),
            Workspaces(self),
            Jobs(self),
            Money(self),
        )
        self.deployments = Deployments(self)
        parts = (self.computes, self.jobs, self.workspaces, self.money, self.operations, self.deployments, self.arm)
        self._routes = Routes(*parts)
        self._lock = threading.RLock()
        self.root.mkdir(parents=True, exist_ok=True)
        self._server = Server(self, write_certificates(self.root, NAMES), Handler)
        self.proxy = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.login.write_az(self.root / "bin")

    def __enter__(self) -> Azure:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything: the jobs with all their processes, what hangs, and the server."""
        self.queue_forever = False
        self.release()
        self.jobs.close()
        self._server.close()
        shutil.rmtree(self.work, ignore_errors=True)

    # --------------------------------------------------------------------------- for tests
    @staticmethod
    def missing() -> str:
        """Why there can be no emulator here; nothing where there can."""
        return missing()

    @property
    def retry_after(self) -> str:
        return self.operations.retry_after

    @retry_after.setter
    def retry_after(self, text: str) -> None:
        self.operations.retry_after = text

    @property
    def referred_url(self) -> str:
        return self.operations.arm_url

    @referred_url.setter
    def referred_url(self, url: str) -> None:
        self.operations.arm_url = url

    def environment(self) -> dict[str, str]:
        """What leads the real clients here; EnvironmentCredential and AzureCliCredential both find a login."""
        ca, path = str(self.root / "ca.pem"), os.environ.get("PATH", "")
        said = {"REQUESTS_CA_BUNDLE": ca, "SSL_CERT_FILE": ca, "PATH": f"{self.root / 'bin'}{os.pathsep}{path}",
                "AZURE_TENANT_ID": self.login.tenant, "AZURE_CLIENT_ID": self.login.client,
                "AZURE_CLIENT_SECRET": self.login.secret, "AZUREML_RUN_POLLING_INTERVAL_MIN": "1"}  # fmt: skip
        for name in ("HTTPS_PROXY", "HTTP_PROXY"):
            said |= {name: self.proxy, name.lower(): self.proxy}
        return said | {"NO_PROXY": "", "no_proxy": ""}

    def add_workspace(self, group: str = "boneage", name: str = "boneage", region: str = "westeurope") -> str:
        """A group with all that a workspace needs; returns the workspace's id."""
        base = f"{self.arm.add_group(group, region)['id']}/providers"
        store = f"{name.replace('-', '').replace('_', '').lower()[:20]}st"
        links = {"storageAccount": f"{base}/Microsoft.Storage/storageAccounts/{store}",
                 "keyVault": f"{base}/Microsoft.KeyVault/vaults/{name[:20]}-kv",
                 "applicationInsights": f"{base}/Microsoft.Insights/components/{name}-insights"}  # fmt: skip
        for resource_id in links.values():
            self.arm.put(resource_id, {"location": region, "properties": {}})
        place = f"{base}/Microsoft.MachineLearningServices/workspaces/{name}"
        self.arm.put(place, {"location": region, "identity": {"type": "SystemAssigned"}, "properties": links})
        return place

    def add_cluster(self, workspace_id: str, name: str = "gpu", **own: Any) -> Cluster:
        """A cluster of up to two T4 nodes, unless `own` says otherwise in the words of ARM."""
        scale = {"minNodeCount": 0, "maxNodeCount": 2, "nodeIdleTimeBeforeScaleDown": "PT2M"}
        said = {"vmSize": "Standard_NC4as_T4_v3", "vmPriority": "Dedicated", "scaleSettings": scale, **own}
        place = f"{workspace_id}/computes/{name}"
        self.arm.put(place, {"location": self.region, "properties": {"computeType": "AmlCompute", "properties": said}})
        return self.computes.clusters[place.lower()]

    def add_data(self, workspace_id: str, name: str, folder: Path, version: str = "1") -> str:
        """A folder as a data asset; returns its id."""
        workspace, base = self.arm.find(workspace_id), f"LocalUpload/{name}-{version}"
        uri = f"azureml://datastores/workspaceblobstore/paths/{base}"
        place = self.workspaces.place(workspace, uri)
        for path in (path for path in folder.rglob("*") if path.is_file()):
            blob = f"{base}/{path.relative_to(folder).as_posix()}"
            self.blobs.put(place.account, place.container, blob, path.read_bytes())
        asset = f"{workspace_id}/data/{name}/versions/{version}"
        self.workspaces.add(asset, "data", {"dataType": "uri_folder", "dataUri": uri, "tags": {}})
        return asset

    def running(self) -> list[str]:
        """The names of the jobs whose command runs."""
        return [name for name, job in list(self.jobs.all.items()) if job.is_alive]

    def preempt(self, job: str, requeue: bool = False) -> None:
        """Takes a job's nodes away, without a word; it fails, or waits for others and begins again."""
        self.jobs[job].interrupt(requeue, "The node was preempted.")

    def lose_node(self, job: str) -> None:
        """One of a job's nodes is not heard of any more, which ends them all."""
        self.jobs[job]._to("NotResponding")
        self.jobs[job].end(Fate("Failed", "NodeLost", "Lost the connection to a node.", is_gone=True))

    def end_credit(self) -> None:
        """The student's credit is used up: nothing can be written, and what runs ends."""
        self.subscription_state = "Disabled"
        for job in list(self.jobs.all.values()):
            job.interrupt(False, "The subscription is disabled.")
        for cluster in self.computes.clusters.values():
            cluster.lose()

    def expire_tokens(self) -> None:
        """No token given so far is good any more."""
        self.login.expire()

    def expire_sas(self) -> None:
        self.blobs.expire_sas()

    def sign_out_az(self) -> None:
        """From now on `az` is not signed in."""
        (self.root / "bin" / "arm.json").unlink()

    def billed_usd(self) -> dict[str, float]:
        """What Cost Management knows."""
        return {service: usd * (1 - self.costs_lag) for service, usd in self.money.spent_usd().items()}

    # ------------------------------------------------------------------------- for the wire
    def now_s(self) -> float:
        return time.time() + self.clock_skew_s

    def now_text(self) -> str:
        return datetime.fromtimestamp(self.now_s(), UTC).isoformat(timespec="microseconds")

    def plays(self, host: str) -> bool:
        """Whether this is a host that we are."""
        first, _, rest = host.partition(".")
        if rest == "blob.core.windows.net":
            return first in self.blobs
        own = ("management.azure.com", "login.microsoftonline.com", "login.microsoft.com", "prices.azure.com")
        return host in own or (rest == "api.azureml.ms" and first in self.regions)

    def answer(self, request: Request) -> Answer:
        """Does what is asked for."""
        if request.host.startswith("login."):
            return self.login.answer(request)
        if request.is_blob:
            return self.blobs.forward(request)
        if request.host != "prices.azure.com" and not request.path.startswith("/discovery"):
            self.audiences.add((request.host, self.login.check(request.headers.get("Authorization", ""))))
        if self.redirects and request.host == "management.azure.com":
            return Reply(307, None, {"Location": f"{self.referred_url}{request.target}"})
        if request.host == "management.azure.com" and "api-version" not in request.query:
            raise Problem(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        with self._lock:
            self.operations.tick()
            return self._routes.answer(request)

    def put_special(self, kind: str, made: dict[str, Any], before: dict[str, Any] | None) -> None:
        """What is special about some kinds of resource, before one is stored."""
        if kind == "microsoft.storage/storageaccounts":
            self.blobs.add(made["name"])
            made["properties"]["primaryEndpoints"] = {"blob": f"https://{made['name']}.blob.core.windows.net/"}
        elif kind == "microsoft.machinelearningservices/workspaces":
            self.workspaces.put(made, before)
        elif kind == "microsoft.machinelearningservices/workspaces/computes":
            self.computes.put(made)
        elif kind == "microsoft.consumption/budgets":
            self.money.put_budget(made)

    def remove_special(self, kind: str, gone: dict[str, Any]) -> None:
        if kind == "microsoft.storage/storageaccounts":
            self.blobs.remove(gone["name"])
        elif kind == "microsoft.machinelearningservices/workspaces":
            self.workspaces.remove(gone)
        elif kind == "microsoft.machinelearningservices/workspaces/computes":
            self.computes.remove(gone)

    def add_registry(self, workspace: dict[str, Any]) -> None:
        """Azure ML makes one itself when it first builds an image; it costs, and no template knows of it."""
        if workspace["properties"].get("containerRegistry") is None:
            name = f"acr{workspace['properties']['workspaceId'][:12]}"
            place = (
                f"{workspace['id'].partition('/providers/')[0]}/providers/Microsoft.ContainerRegistry/registries/{name}"
            )
            self.arm.put(place, {"location": workspace["location"], "sku": {"name": "Basic"}, "properties": {}})
            workspace["properties"]["containerRegistry"] = place
