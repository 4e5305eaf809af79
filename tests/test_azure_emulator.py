"""The Azure emulator answers Azure's own clients, unpatched, over real sockets, led there by environment alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import parse_sentinel, write_atomic
from boneagectl import bundle
from emulators import fake_trainer
from emulators.azure import Azure, Fault, Job
from support import ROOT, make_pack, make_spec, wait_for

pytest.importorskip("azure.ai.ml")

import requests
from azure.ai.ml import Input, MLClient, Output, TensorFlowDistribution, command, load_job
from azure.ai.ml.entities import AmlCompute, Data, Environment
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import AzureCliCredential, ClientSecretCredential, EnvironmentCredential
from azure.storage.blob import ContainerClient, LinearRetry

pytestmark = [
    pytest.mark.skipif(bool(Azure.missing()), reason=Azure.missing()),
    # azure-ai-ml uses marshmallow 3 in ways that marshmallow 4 will not know; that is theirs to change.
    pytest.mark.filterwarnings("ignore::marshmallow.warnings.RemovedInMarshmallow4Warning"),
    # Its own download uses what storage-blob calls deprecated.
    pytest.mark.filterwarnings("ignore:content_as_bytes is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The use of a 'BlobProperties' instance:DeprecationWarning"),
]
NAME, IMAGE = "bone-run-01", "azureml://registries/azureml/environments/tensorflow-2.16-cuda12/labels/latest"
ARM, COMPUTE = "https://management.azure.com", "2023-08-01-preview"
SLOW = "import time\nprint('up', flush=True)\ntime.sleep(60)\n"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLOW
SIZE = {"vmSize": "Standard_NC4as_T4_v3", "scaleSettings": {"maxNodeCount": 1}}
Submit = Callable[..., Job]


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    for name in [name for name in os.environ if name.startswith("AZURE") or "proxy" in name.lower()]:
        monkeypatch.delenv(name)
    with Azure(tmp_path / "azure") as emulator:
        emulator.retry_after, emulator.sync_s = "50ms", 0.1
        for name, value in emulator.environment().items():
            monkeypatch.setenv(name, value)
        yield emulator
        assert emulator.refused_hosts == []


@pytest.fixture
def place(azure: Azure) -> str:
    """A workspace with a cluster."""
    made = azure.add_workspace()
    azure.add_cluster(made)
    return made


@pytest.fixture
def ml(azure: Azure, place: str) -> Iterator[MLClient]:
    with EnvironmentCredential() as login:
        yield MLClient(login, azure.subscription, "boneage", "boneage", show_progress=False)


@pytest.fixture
def submit(azure: Azure, ml: MLClient, tmp_path: Path) -> Submit:
    """Uploads a script and starts it by the SDK."""

    def start(script: str, name: str = NAME, **more: Any) -> Job:
        code = tmp_path / f"code-{name}"
        code.mkdir(exist_ok=True)
        (code / "t.py").write_text(script)
        given = {"command": "python t.py", "compute": "gpu", "environment": IMAGE, **more}
        ml.jobs.create_or_update(command(name=name, code=str(code), experiment_name="tests", **given))
        return azure.jobs[name]

    return start


class Rest:
    """Plain requests, with a token."""

    def __init__(self, azure: Azure) -> None:
        with EnvironmentCredential() as login:
            token = login.get_token(f"{ARM}/.default").token
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {token}"
        self.base = f"/subscriptions/{azure.subscription}"

    def ask(self, verb: str, path: str, body: Any = None, timeout_s: float = 5) -> requests.Response:
        path = path if path.startswith("/subscriptions") else f"{self.base}{path}"
        mark = "&" if "?" in path else "?"
        return self.http.request(verb, f"{ARM}{path}{mark}api-version={COMPUTE}", json=body, timeout=timeout_s)

    def refused(self, verb: str, path: str, body: Any = None) -> tuple[int, str]:
        answer = self.ask(verb, path, body)
        return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture
def rest(azure: Azure) -> Iterator[Rest]:
    made = Rest(azure)
    with made.http:
        yield made


def container(ml: MLClient, store: str = "workspaceblobstore", **more: Any) -> ContainerClient:
    """A store opened by what the workspace itself hands out."""
    one = next(one for one in ml.datastores.list(include_secrets=True) if one.name == store)
    url = f"https://{one.account_name}.blob.core.windows.net"
    return ContainerClient(url, one.container_name, credential=one.credentials.sas_token, **more)


def log_of(ml: MLClient, name: str = NAME) -> str:
    with container(ml, "workspaceartifactstore") as store:
        try:
            return str(store.download_blob(f"ExperimentRun/dcid.{name}/user_logs/std_log.txt").readall().decode())
        except ResourceNotFoundError:
            return ""


def until(go: Path) -> str:
    return f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"


# ----------------------------------------------------------------------------------------- cluster
def test_a_cluster_is_created_scales_and_is_deleted(azure: Azure, ml: MLClient, submit: Submit, tmp_path: Path) -> None:
    wanted = AmlCompute(
        name="t4", size="STANDARD_NC4AS_T4_V3", tier="low_priority", min_instances=0, max_instances=1,
        idle_time_before_scale_down=120,
    )  # fmt: skip
    made = ml.compute.begin_create_or_update(wanted).result()
    assert (made.provisioning_state, made.tier, made.max_instances) == ("Succeeded", "low_priority", 1)
    cluster = next(one for key, one in azure.computes.clusters.items() if key.endswith("/t4"))
    azure.clock_rate = 240  # two idle minutes in half a second
    submit(until(tmp_path / "go"), compute="t4")
    wait_for(lambda: azure.running() == [NAME])
    shown = cluster.shown()["properties"]["properties"]
    assert (shown["currentNodeCount"], shown["nodeStateCounts"]["runningNodeCount"]) == (1, 1)
    (tmp_path / "go").touch()
    wait_for(lambda: azure.jobs[NAME].is_over)
    assert cluster.shown()["properties"]["properties"]["nodeStateCounts"]["idleNodeCount"] == 1
    wait_for(lambda: cluster.shown()["properties"]["properties"]["currentNodeCount"] == 0)
    assert cluster.node_seconds >= 120
    assert cluster.node_seconds == cluster.node_seconds
    ml.compute.begin_delete("t4").result()
    assert [one.name for one in ml.compute.list()] == ["gpu"]


def test_quota_and_sizes(azure: Azure, ml: MLClient, rest: Rest, place: str) -> None:
    azure.quota["standardNCASv3_T4Family"] = 6
    where = "/providers/Microsoft.MachineLearningServices/locations/westeurope"
    usages = {one["name"]["value"]: one for one in rest.ask("GET", f"{where}/usages").json()["value"]}
    assert (usages["standardNCASv3_T4Family"]["limit"], usages["standardNCASv3_T4Family"]["currentValue"]) == (6, 0)
    size = next(one for one in rest.ask("GET", f"{where}/vmSizes").json()["value"] if "NC4as" in one["name"])
    assert (size["family"], size["vCPUs"], size["gpus"]) == ("standardNCASv3_T4Family", 4, 1)
    assert "Standard_NC4as_T4_v3" in [one.name for one in ml.compute.list_sizes()]
    azure.refused_sizes.add("standard_nc4as_t4_v3")
    with pytest.raises(HttpResponseError, match="ResourceNotAvailableForOffer"):
        ml.compute.begin_create_or_update(AmlCompute(name="new", size="STANDARD_NC4AS_T4_V3")).result()


def test_without_quota_a_job_waits_for_ever(azure: Azure, submit: Submit, place: str) -> None:
    azure.quota["standardNCASv3_T4Family"] = 3
    job = submit("print()")
    wait_for(lambda: job.status == "Queued")
    shown = azure.computes.clusters[f"{place}/computes/gpu".lower()].shown()["properties"]["properties"]
    assert shown["errors"][0]["error"]["code"] == "ClusterCoreQuotaReached"
    assert shown["currentNodeCount"] == 0


# -------------------------------------------------------------------------------------------- jobs
def test_a_job_runs_with_data_and_its_outputs_are_downloaded(
    azure: Azure, ml: MLClient, submit: Submit, tmp_path: Path
) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "card.json").write_text("{}")
    asset = ml.data.create_or_update(Data(name="pack", version="1", path=str(tmp_path / "pack"), type="uri_folder"))
    assert "LocalUpload" in asset.path
    script = (
        "import os, sys\nfrom pathlib import Path\nprint(sys.argv[1:2], sorted(os.listdir(sys.argv[2])), flush=True)\n"
        f"print(os.environ['AZUREML_RUN_ID'], os.environ['COLOUR'], 'AZURE_CLIENT_SECRET' in os.environ, flush=True)\n"
        f"Path(sys.argv[3], 'last.npz').write_bytes(b'weights')\n{until(tmp_path / 'go')}"
        "Path(sys.argv[3], 'last.npz').rename(Path(sys.argv[3], 'model.keras'))\nprint('done')\n"
        "Path('outputs').mkdir()\nPath('outputs', 'note.txt').write_text('hello')\n"
    )
    job = submit(
        script,
        command="python t.py ${{inputs.lr}} ${{inputs.pack}} ${{outputs.run}}",
        inputs={"pack": Input(type="uri_folder", path="azureml:pack:1", mode="ro_mount"), "lr": 0.001},
        outputs={"run": Output(type="uri_folder", mode="rw_mount")},
        environment_variables={"COLOUR": "blue"},
        timeout=60,
    )
    wait_for(lambda: log_of(ml).count("\n") == 2)
    assert log_of(ml) == f"['0.001'] ['card.json']\n{NAME} blue False\n"
    assert ml.jobs.get(NAME).status == "Running"
    folder = f"azureml/{NAME}/run/"
    with container(ml) as store:
        wait_for(lambda: list(store.list_blob_names(name_starts_with=folder)) == [f"{folder}last.npz"])
        (tmp_path / "go").touch()
        wait_for(lambda: job.is_over)
        assert list(store.list_blob_names(name_starts_with=folder)) == [f"{folder}model.keras"]
        assert store.download_blob(f"{folder}model.keras").readall() == b"weights"
    assert log_of(ml).endswith("done\n")
    walk = ["NotStarted", "Starting", "Preparing", "Queued", "Running", "Finalizing", "Completed"]
    assert job.seen == walk
    assert ml.jobs.get(NAME).status == "Completed"
    ml.jobs.download(NAME, download_path=str(tmp_path / "downloaded"), output_name="run")
    assert [path.name for path in (tmp_path / "downloaded").rglob("*.keras")] == ["model.keras"]
    ml.jobs.download(NAME, download_path=str(tmp_path / "rest"))
    assert {"note.txt", "std_log.txt"} <= {path.name for path in (tmp_path / "rest").rglob("*")}
    assert [one.name for one in ml.jobs.list()] == [NAME]


def test_a_job_from_yaml_trains(azure: Azure, ml: MLClient, place: str, tmp_path: Path) -> None:
    azure.add_data(place, "pack", make_pack(tmp_path / "pack"))
    azure.python = str(fake_trainer.install(tmp_path / "a folder"))
    write_atomic(tmp_path / "stage" / "bundle.zip", bundle.build(make_spec(epochs=3, target="azure")).content)
    (tmp_path / "job.yml").write_text(
        f"type: command\nname: {NAME}\ncode: stage\nenvironment: {IMAGE}\ncompute: azureml:gpu\n"
        f"command: python -m pip install no-such && python -c 'pass' && python bundle.zip --leg {NAME}"
        " --time-limit-s 600 --data ${{inputs.pack}} --out ${{outputs.run}}\n"
        "inputs:\n  pack:\n    type: uri_folder\n    path: azureml:pack:1\n    mode: ro_mount\n"
        "outputs:\n  run:\n    type: uri_folder\n    mode: rw_mount\nlimits:\n  timeout: 7200\n"
        "experiment_name: tests\n"
    )
    ml.jobs.create_or_update(load_job(tmp_path / "job.yml"))
    wait_for(lambda: azure.jobs[NAME].is_over)
    assert azure.jobs[NAME].said["limits"] == {"jobLimitsType": "Command", "timeout": "PT2H"}
    assert ml.jobs.get(NAME).status == "Completed", log_of(ml)
    assert [line["epoch"] for text in log_of(ml).splitlines() if (line := parse_sentinel(text))] == [1, 2, 3]
    with container(ml) as store:
        assert json.loads(store.download_blob(f"azureml/{NAME}/run/state.json").readall())["state"] == "complete"
    assert [path.name for path in (azure.work / NAME / "inputs" / "pack").iterdir()] == ["pack.json"]


def test_a_name_is_one_job(azure: Azure, rest: Rest, submit: Submit, place: str) -> None:
    job = submit("print()")
    wait_for(lambda: job.is_over)
    assert rest.ask("PUT", f"{place}/jobs/{NAME}", {"properties": job.said}).status_code == 200
    holed = {**job.said, "command": "python ${{inputs.pack}}"}
    assert rest.refused("PUT", f"{place}/jobs/other", {"properties": holed}) == (400, "UserError")
    other = {**job.said, "command": "python other.py"}
    assert rest.refused("PUT", f"{place}/jobs/{NAME}", {"properties": other}) == (400, "UserError")
    assert (len(azure.jobs), job.attempts) == (1, 1)


def test_two_nodes_know_of_each_other(azure: Azure, ml: MLClient, submit: Submit) -> None:
    script = "import json, os\nsaid = json.loads(os.environ['TF_CONFIG'])\n"
    script += "print(said['task'], len(said['cluster']['worker']))\n"
    job = submit(script, instance_count=2, distribution=TensorFlowDistribution(worker_count=2))
    wait_for(lambda: job.is_over)
    assert job.status == "Completed", job.fate
    assert log_of(ml) == "{'type': 'worker', 'index': 0} 2\n"
    with container(ml, "workspaceartifactstore") as store:
        other = store.download_blob(f"ExperimentRun/dcid.{NAME}/user_logs/std_log_process_1.txt").readall()
    assert other == b"{'type': 'worker', 'index': 1} 2\n"


@pytest.mark.parametrize(("script", "least_s"), [(SLOW, 0.0), (DEAF, 0.5)])
def test_cancel(azure: Azure, ml: MLClient, submit: Submit, script: str, least_s: float) -> None:
    azure.grace_s = 0.5
    job = submit(script)
    wait_for(lambda: log_of(ml) == "up\n")
    started_s = time.monotonic()
    ml.jobs.begin_cancel(NAME).result()
    assert time.monotonic() - started_s >= least_s
    assert ml.jobs.get(NAME).status == "Canceled"
    assert (job.seen[-3:], azure.running()) == (["CancelRequested", "Finalizing", "Canceled"], [])
    with pytest.raises(HttpResponseError, match="cannot be canceled"):
        ml.jobs.begin_cancel(NAME)


def test_a_job_cannot_be_canceled_while_it_finalizes(azure: Azure, ml: MLClient, submit: Submit) -> None:
    azure.finalizing_s = 5
    job = submit("print()")
    wait_for(lambda: job.status == "Finalizing")
    with pytest.raises(HttpResponseError, match="Finalizing"):
        ml.jobs.begin_cancel(NAME)


def test_a_timeout_ends_a_job(azure: Azure, submit: Submit) -> None:
    job = submit(SLOW, timeout=1)
    wait_for(lambda: job.is_over)
    assert (job.status, job.fate and job.fate.message) == ("Canceled", "The job exceeded its timeout.")


def test_a_failed_job_has_its_error(azure: Azure, ml: MLClient, submit: Submit, rest: Rest, place: str) -> None:
    job = submit("raise SystemExit('no good')")
    wait_for(lambda: job.is_over)
    assert log_of(ml) == "no good\n"
    url = f"https://westeurope.api.azureml.ms/history/v1.0{place}/runs/{NAME}/details"
    said = rest.http.get(url, timeout=5).json()
    assert said["status"] == "Failed"
    assert "exited with status code 1" in said["error"]["error"]["message"]
    assert requests.get(said["logFiles"]["user_logs/std_log.txt"], timeout=5).text == "no good\n"


def test_a_job_that_queues_for_ever_can_be_canceled(azure: Azure, ml: MLClient, submit: Submit) -> None:
    azure.queue_forever = True
    job = submit("print()")
    wait_for(lambda: job.status == "Queued")
    ml.jobs.begin_cancel(NAME).result()
    assert (job.status, job.attempts) == ("Canceled", 0)


@pytest.mark.parametrize("requeue", [False, True])
def test_preemption(azure: Azure, ml: MLClient, submit: Submit, tmp_path: Path, requeue: bool) -> None:
    job = submit("print('up', flush=True)\n" + until(tmp_path / "go"))
    wait_for(lambda: log_of(ml) == "up\n")
    azure.preempt(NAME, requeue)
    (tmp_path / "go").touch()
    wait_for(lambda: job.is_over)
    assert (job.status, job.attempts) == (("Completed", 2) if requeue else ("Failed", 1))


def test_a_lost_node_ends_the_others(azure: Azure, ml: MLClient, submit: Submit) -> None:
    job = submit(SLOW, instance_count=2, distribution=TensorFlowDistribution(worker_count=2))
    wait_for(lambda: log_of(ml) == "up\n")
    azure.lose_node(NAME)
    assert (job.status, job.fate and job.fate.code, azure.running()) == ("Failed", "NodeLost", [])


def test_image_builds_may_be_refused(azure: Azure, ml: MLClient, submit: Submit, place: str) -> None:
    conda = {"name": "x", "dependencies": ["python=3.11"]}
    built = Environment(name="own", version="1", image="ubuntu:22.04", conda_file=conda)
    azure.image_builds = False
    job = submit("print()", environment=built)
    wait_for(lambda: job.is_over)
    assert (job.status, "TasksOperationsNotAllowed" in (job.fate.message if job.fate else "")) == ("Failed", True)
    azure.image_builds = True
    job = submit("print()", "bone-run-02", environment="own:1")
    wait_for(lambda: job.is_over)
    assert job.status == "Completed"
    assert [usd for name, usd in azure.money.billed() if "/registries/" in name] == [0.167]


def test_nothing_is_left_running(azure: Azure, submit: Submit) -> None:
    job = submit(DEAF)
    wait_for(lambda: azure.running() == [NAME])
    azure.close()
    assert (job.status, job.is_alive, azure.work.exists()) == ("Failed", False, False)


# ------------------------------------------------------------------------------------------- money
def test_prices_come_in_pages(azure: Azure) -> None:
    azure.prices_per_page = 4
    asked = {"api-version": "2023-01-01-preview", "$filter": "serviceName eq 'Virtual Machines' and armRegionName eq "
             "'eastus' and armSkuName eq 'Standard_NC4as_T4_v3' and priceType eq 'Consumption'"}  # fmt: skip
    said = requests.get("https://prices.azure.com/api/retail/prices", params=asked, timeout=5).json()
    items = said["Items"]
    assert len(items) == 4
    while link := said["NextPageLink"]:
        said = requests.get(link, timeout=5).json()
        items += said["Items"]
    linux = {one["skuName"]: one["retailPrice"] for one in items if "Windows" not in one["productName"]}
    assert linux["NC4as T4 v3"] == 0.526
    assert linux["NC4as T4 v3 Low Priority"] < linux["NC4as T4 v3 Spot"] < 0.2
    wrong = requests.get("https://prices.azure.com/api/retail/prices", params={"$filter": "no eq 'x'"}, timeout=5)
    assert wrong.status_code == 400


def test_costs_and_budgets(azure: Azure, ml: MLClient, submit: Submit) -> None:
    pytest.importorskip("azure.mgmt.consumption")
    pytest.importorskip("azure.mgmt.costmanagement")
    from azure.mgmt.consumption import ConsumptionManagementClient
    from azure.mgmt.costmanagement import CostManagementClient

    wait_for(lambda: submit("print()").is_over)
    azure.money.extra_usd.append((20261124, "Storage", 0.5))
    scope = f"/subscriptions/{azure.subscription}"
    asked = {"type": "ActualCost", "timeframe": "MonthToDate", "dataset": {
        "granularity": "Daily", "aggregation": {"totalCost": {"name": "Cost", "function": "Sum"}},
        "grouping": [{"type": "Dimension", "name": "ServiceName"}]}}  # fmt: skip
    with EnvironmentCredential() as login, CostManagementClient(login) as costs:
        said = costs.query.usage(scope, asked)
        rows = {row[2]: row[0] for row in said.rows}
        assert rows["Storage"] == 0.5
        assert 0 < rows["Virtual Machines"] < 0.526
        azure.costs_are_available = False
        with pytest.raises(HttpResponseError, match="not supported"):
            costs.query.usage(scope, asked)
    alert = {"enabled": True, "operator": "GreaterThanOrEqualTo", "threshold": 50, "thresholdType": "Actual",
             "contactEmails": ["alice@example.edu"]}  # fmt: skip
    budget = {"properties": {"category": "Cost", "amount": 80, "timeGrain": "Monthly", "notifications": {"half": alert},
                             "timePeriod": {"startDate": "2026-11-01T00:00:00Z"}}}  # fmt: skip
    with EnvironmentCredential() as login, ConsumptionManagementClient(login, azure.subscription) as consumption:
        made = consumption.budgets.create_or_update(scope, "cap", budget)
        assert made.properties.current_spend.amount > 0.5
        assert consumption.budgets.get(scope, "cap").properties.amount == 80
        alert["operator"] = "AtLeast"
        with pytest.raises(HttpResponseError, match="operator"):
            consumption.budgets.create_or_update(scope, "cap", budget)


# ------------------------------------------------------------------------------------------- infra
TEMPLATE = {
    "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
    "contentVersion": "1.0.0.0",
    "parameters": {"name": {"type": "string", "minLength": 3}, "nodes": {"type": "int", "defaultValue": 1}},
    "variables": {"store": "[concat(take(toLower(parameters('name')), 10), uniqueString(resourceGroup().id))]"},
    "resources": [
        {"type": "Microsoft.MachineLearningServices/workspaces", "apiVersion": "2024-10-01", "name":
         "[parameters('name')]", "location": "[resourceGroup().location]", "identity": {"type": "SystemAssigned"},
         "properties": {
             "storageAccount": "[resourceId('Microsoft.Storage/storageAccounts', variables('store'))]",
             "keyVault": "[resourceId('Microsoft.KeyVault/vaults', format('{0}-kv', parameters('name')))]",
             "applicationInsights": "[resourceId('Microsoft.Insights/components', parameters('name'))]"},
         "dependsOn": ["[resourceId('Microsoft.Storage/storageAccounts', variables('store'))]",
                       "[resourceId('Microsoft.KeyVault/vaults', format('{0}-kv', parameters('name')))]",
                       "[resourceId('Microsoft.Insights/components', parameters('name'))]"],
         "resources": [{"type": "computes", "apiVersion": "2024-10-01", "name": "gpu", "location": "westeurope",
                        "properties": {"computeType": "AmlCompute", "properties": {
                            "vmSize": "Standard_NC4as_T4_v3", "vmPriority": "LowPriority",
                            "scaleSettings": {"maxNodeCount": "[parameters('nodes')]"}}}}]},
        {"type": "Microsoft.Storage/storageAccounts", "apiVersion": "2023-01-01", "name": "[variables('store')]",
         "location": "[resourceGroup().location]", "sku": {"name": "Standard_LRS"}, "kind": "StorageV2"},
        {"type": "Microsoft.KeyVault/vaults", "apiVersion": "2023-07-01", "name":
         "[format('{0}-kv', parameters('name'))]", "location": "[resourceGroup().location]",
         "properties": {"tenantId": "[subscription().tenantId]", "sku": {"family": "A", "name": "standard"}}},
        {"type": "Microsoft.Insights/components", "apiVersion": "2020-02-02", "name": "[parameters('name')]",
         "location": "[resourceGroup().location]", "kind": "web", "properties": {"Application_Type": "web"}},
    ],
    "outputs": {"workspace": {"type": "string", "value":
                              "[resourceId('Microsoft.MachineLearningServices/workspaces', parameters('name'))]"}},
}  # fmt: skip


def deployment(template: dict[str, Any] = TEMPLATE, **values: Any) -> dict[str, Any]:
    given = {name: {"value": value} for name, value in values.items()}
    return {"properties": {"mode": "Incremental", "template": template, "parameters": given}}


def test_what_if_deploy_and_delete(azure: Azure) -> None:
    deployments = pytest.importorskip("azure.mgmt.resource.deployments")
    from azure.mgmt.resource.resources import ResourceManagementClient

    with (
        EnvironmentCredential() as login,
        deployments.DeploymentsMgmtClient(login, azure.subscription) as deploying,
        ResourceManagementClient(login, azure.subscription) as managing,
    ):
        managing.resource_groups.create_or_update("bones", {"location": "westeurope"})
        asked = ("bones", "up", deployment(name="bones"))
        seen = deploying.deployments.begin_what_if(*asked).result()
        assert [one.change_type for one in seen.changes] == ["Create"] * 5
        assert list(managing.resources.list_by_resource_group("bones")) == []
        done = deploying.deployments.begin_create_or_update(*asked).result()
        assert done.properties.provisioning_state == "Succeeded"
        assert done.properties.outputs["workspace"]["value"].endswith("/workspaces/bones")
        assert len(list(managing.resources.list_by_resource_group("bones"))) == 4
        assert {one.partition("/providers/")[2].split("/")[1] for one, usd in azure.money.billed() if usd > 0} == {
            "storageAccounts", "workspaces"}  # fmt: skip
        again = deploying.deployments.begin_what_if("bones", "up", deployment(name="bones", nodes=2)).result()
        assert sorted(one.change_type for one in again.changes) == ["Modify"] + ["NoChange"] * 4
        managing.resource_groups.begin_delete("bones").result()
        assert not managing.resource_groups.check_existence("bones")
        assert azure.money.billed() == []
        managing.resource_groups.create_or_update("bones", {"location": "westeurope"})
        with pytest.raises(HttpResponseError, match="deleted state"):  # the key vault's name is kept for days
            deploying.deployments.begin_create_or_update(*asked).result()


def test_a_template_that_is_wrong(azure: Azure, rest: Rest) -> None:
    azure.arm.add_group("bones", "westeurope")
    path = "/resourceGroups/bones/providers/Microsoft.Resources/deployments/up"
    for values, why in (({}, "not provided"), ({"name": "xy"}, "length"), ({"name": "bones", "no": 1}, "not valid")):
        said = rest.ask("PUT", path, deployment(**values))
        assert (said.status_code, said.json()["error"]["code"]) == (400, "InvalidTemplate")
        assert why in said.json()["error"]["message"]


def test_regions_and_credit_are_limits(azure: Azure, rest: Rest) -> None:
    azure.arm.add_group("bones", "westeurope")
    azure.allowed_regions = ["uksouth"]
    policies = rest.ask("GET", "/providers/Microsoft.Authorization/policyAssignments").json()["value"]
    assert policies[0]["properties"]["parameters"]["listOfAllowedLocations"]["value"] == ["uksouth"]
    path = "/resourceGroups/bones/providers/Microsoft.Storage/storageAccounts/bonesstore"
    assert rest.refused("PUT", path, {"location": "westeurope"}) == (403, "RequestDisallowedByAzure")
    azure.registered.discard("microsoft.storage")
    assert rest.refused("PUT", path, {"location": "uksouth"}) == (409, "MissingSubscriptionRegistration")
    assert rest.ask("POST", "/providers/Microsoft.Storage/register").json()["registrationState"] == "Registering"
    assert rest.ask("GET", "/providers/Microsoft.Storage").json()["registrationState"] == "Registered"
    azure.subscription_state = "Disabled"
    assert rest.refused("PUT", path, {"location": "uksouth"}) == (409, "ReadOnlyDisabledSubscription")
    said = rest.ask("GET", "").json()
    assert (said["state"], said["subscriptionPolicies"]["quotaId"]) == ("Disabled", "AzureForStudents_2018-01-01")
    assert said["subscriptionPolicies"]["spendingLimit"] == "On"


def test_the_end_of_the_credit_ends_what_runs(azure: Azure, ml: MLClient, submit: Submit) -> None:
    job = submit(SLOW)
    wait_for(lambda: log_of(ml) == "up\n")
    azure.end_credit()
    wait_for(lambda: job.is_over)
    with pytest.raises(HttpResponseError, match="ReadOnlyDisabledSubscription"):
        submit("print()", "bone-run-02")
    assert (job.status, azure.running(), len(azure.jobs)) == ("Failed", [], 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("computes/x", {"computeType": "AmlCompute", "properties": {**SIZE, "vmPriority": "Spot"}}),
        ("computes/x", {"computeType": "AmlCompute", "properties": {**SIZE, "vmSise": "typo"}}),
        ("computes/x", {"computeType": "AmlCompute", "properties": {**SIZE, "scaleSettings": {"minNodeCount": 0}}}),
        ("jobs/x", {"jobType": "Command", "command": "x", "environmentId": IMAGE, "computeid": "x"}),
        ("jobs/x", {"jobType": "Command", "command": "x", "environmentId": IMAGE, "limits": {"timeout": "PT1H"}}),
        ("jobs/x", {"jobType": "Command", "command": "x", "environmentId": IMAGE, "outputs": {
            "run": {"jobOutputType": "uri_folder", "mode": "rw_mount"}}}),
        ("data/x/versions/1", {"dataType": "folder", "dataUri": "azureml://datastores/workspaceblobstore/paths/x"}),
        ("environments/x/versions/1", {"image": "x", "conda": "{}"}),
    ],
)  # fmt: skip
def test_bodies_are_checked(rest: Rest, place: str, path: str, body: dict[str, Any]) -> None:
    said = {"properties": body, **({"location": "westeurope"} if "computes" in path else {})}
    assert rest.refused("PUT", f"{place}/{path}", said) == (400, "InvalidRequestContent")


# ----------------------------------------------------------------------------------------- sign-in
def test_ways_to_sign_in(azure: Azure) -> None:
    assert AzureCliCredential().get_token(f"{ARM}/.default").token.count(".") == 2
    azure.sign_out_az()
    with pytest.raises(Exception, match="az login"):
        AzureCliCredential().get_token(f"{ARM}/.default")
    with (
        ClientSecretCredential(azure.login.tenant, azure.login.client, "wrong") as login,
        pytest.raises(Exception, match="Invalid client secret"),
    ):
        login.get_token(f"{ARM}/.default")


def test_a_token_ends_in_the_middle(azure: Azure, rest: Rest, place: str) -> None:
    assert rest.ask("GET", place).status_code == 200
    azure.expire_tokens()
    answer = rest.ask("GET", place)
    assert (answer.status_code, "Bearer" in answer.headers["WWW-Authenticate"]) == (401, True)
    assert requests.get(f"{ARM}{place}?api-version=1", timeout=5).status_code == 401


def test_blobs_open_by_each_kind_of_secret(azure: Azure, ml: MLClient, place: str) -> None:
    with container(ml) as store:
        store.upload_blob("a/b c.txt", b"hello")
        azure.expire_sas()
        with pytest.raises(HttpResponseError):
            store.download_blob("a/b c.txt")
    for kind in ("AccountKey", "None"):
        azure.secrets_type = kind
        secret = ml.datastores.get_default(include_secrets=True).credentials
        with EnvironmentCredential() as login:
            way = getattr(secret, "account_key", None) or login
            url = f"https://{store.account_name}.blob.core.windows.net"
            with ContainerClient(url, store.container_name, credential=way) as other:
                assert other.download_blob("a/b c.txt").readall() == b"hello"
    wrong = ContainerClient(url, store.container_name, credential="d3Jvbmc=", retry_total=0)
    with wrong, pytest.raises(HttpResponseError):
        wrong.download_blob("a/b c.txt")


def test_a_clock_that_is_ahead(azure: Azure, ml: MLClient) -> None:
    azure.secrets_type, azure.clock_skew_s = "AccountKey", 3000
    one = ml.datastores.get_default(include_secrets=True)
    url = f"https://{one.account_name}.blob.core.windows.net"
    with (
        ContainerClient(url, one.container_name, credential=one.credentials.account_key, retry_total=0) as store,
        pytest.raises(HttpResponseError, match="AuthenticationFailed"),
    ):
        list(store.list_blob_names())


# ------------------------------------------------------------------------------------------ faults
def test_an_unknown_host_is_refused_and_recorded(azure: Azure) -> None:
    with pytest.raises(requests.ConnectionError, match="403"):
        requests.get("https://example.com/", timeout=5)
    assert requests.get("http://169.254.169.254/metadata", timeout=5).status_code == 403
    assert azure.refused_hosts == ["example.com", "169.254.169.254"]
    azure.refused_hosts.clear()


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("401", 401, "InvalidAuthenticationToken"),
        ("403", 403, "RequestDisallowedByAzure"),
        ("409", 409, "Conflict"),
        ("429", 429, "TooManyRequests"),
        ("500", 500, "InternalServerError"),
        ("500_after", 500, "InternalServerError"),
    ],
)
def test_faults_with_an_answer(azure: Azure, rest: Rest, kind: str, status: int, code: str) -> None:
    azure.faults = [Fault("PUT resourceGroups/*", kind, after=1)]
    body = {"location": "westeurope"}
    assert rest.ask("PUT", "/resourceGroups/first", body).status_code == 201
    assert rest.refused("PUT", "/resourceGroups/second", body) == (status, code)
    assert ("second" in azure.arm.groups) == (kind == "500_after")
    assert rest.ask("PUT", "/resourceGroups/third", body).status_code == 201
    assert azure.calls[-3:] == [f"PUT resourceGroups/{name}" for name in ("first", "second", "third")]


@pytest.mark.parametrize("kind", ["hang", "hang_after", "reset", "reset_after"])
def test_faults_without_an_answer(azure: Azure, rest: Rest, kind: str) -> None:
    azure.faults = [Fault("PUT *", kind)]
    with pytest.raises((requests.ConnectionError, requests.Timeout)):
        rest.ask("PUT", "/resourceGroups/first", {"location": "westeurope"}, timeout_s=0.4)
    assert ("first" in azure.arm.groups) == kind.endswith("_after")
    assert rest.ask("GET", "/resourceGroups").status_code == 200


def test_429_says_when(azure: Azure, rest: Rest) -> None:
    azure.faults = [Fault("*", "429")]
    answer = rest.ask("GET", "")
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["x-ms-ratelimit-microsoft.costmanagement-qpu-retry-after"] == "1"


@pytest.mark.parametrize("kind", ["truncate", "reset", "503"])
def test_the_sdk_resumes_a_broken_download(azure: Azure, ml: MLClient, kind: str) -> None:
    body = os.urandom(3 << 20)
    with container(ml, retry_policy=LinearRetry(backoff=0, retry_total=2)) as store:
        store.upload_blob("big", body)
        azure.faults = [Fault("GET blob */big", kind)]
        assert store.download_blob("big").readall() == body
        assert azure.faults == []


def test_a_retried_put_makes_one_job(azure: Azure, submit: Submit) -> None:
    azure.faults = [Fault("PUT jobs/*", "reset_after")]
    job = submit("print()")
    wait_for(lambda: job.is_over)
    assert [call for call in azure.calls if call.startswith("PUT jobs/")] == [f"PUT jobs/{NAME}"] * 2
    assert (len(azure.jobs), job.attempts) == (1, 1)


def test_it_dies_with_this_process() -> None:
    """However that ends: a blob store that outlives the tests would hold a port, and disk."""
    code = "import os, time; from emulators.azure_blobs import Azurite; print(Azurite.shared().process.pid, flush=True)"
    command = [sys.executable, "-c", f"{code}; os.kill(os.getpid(), 9)"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=30)
    wait_for(lambda: not _is_alive(int(done.stdout)))


def _is_alive(pid: int) -> bool:
    try:
        return b"azurite" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
