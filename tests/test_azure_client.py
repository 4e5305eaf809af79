"""The ARM client over the wire: which host receives which token, and how long it waits when it is asked to."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("azure.mgmt.core")

import requests

from boneagectl.errors import NotFound, ProviderRefused, Unreachable
from boneagectl.targets.azure import client
from boneagectl.targets.azure.client import ArmClient, Credential, Workspace
from emulators.azure import Azure, Fault

GROUPS = "2021-04-01"
JOB = {
    "jobType": "Command",
    "command": "python -c pass",
    "environmentId": "azureml://registries/azureml/x/labels/latest",
}


class Stranger(ThreadingHTTPServer):
    """A host that is not Azure, with a certificate that the clients trust; it answers everything and keeps headers."""

    daemon_threads = True

    def __init__(self, azure: Azure) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(azure.root / "server.pem")
        self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.headers: list[dict[str, str]] = []
        self.url = f"https://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Stranger

    def do_GET(self) -> None:
        self.server.headers.append(dict(self.headers))
        body = b'{"status": "Succeeded", "value": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stranger(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stranger]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with Stranger(azure) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        requests.get(server.url, headers={"Authorization": "it can be reached"}, timeout=5)
        assert server.headers.pop()["Authorization"] == "it can be reached"
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def workspace(azure: Azure) -> Workspace:
    return Workspace(azure.subscription, "boneagectl", "boneagectl")


@pytest.fixture
def arm(azure: Azure) -> ArmClient:
    return ArmClient(Credential())


def add_jobs(azure: Azure, arm: ArmClient, workspace: Workspace) -> str:
    """Two jobs that never start; returns the path of their list."""
    azure.queue_forever = True
    path = f"{workspace.resource_id}/jobs"
    for name in ("first-job", "second-job"):
        body = {"properties": {**JOB, "computeId": f"{workspace.resource_id}/computes/gpu"}}
        arm.request("PUT", f"{path}/{name}", client.JOBS, body)
    return path


def group_of(workspace: Workspace) -> str:
    return workspace.resource_id.partition("/providers/")[0]


# ------------------------------------------------------------------------------------------- the token
def delete_cluster(azure: Azure, arm: ArmClient, workspace: Workspace) -> None:
    """Answered with Azure-AsyncOperation and Location."""
    path = f"{workspace.resource_id}/computes/gpu"
    arm.run_operation("DELETE", path, client.COMPUTES, query="&underlyingResourceAction=Delete")


def delete_group(azure: Azure, arm: ArmClient, workspace: Workspace) -> None:
    """Answered with Location alone."""
    arm.run_operation("DELETE", group_of(workspace), GROUPS)


def list_two_pages(azure: Azure, arm: ArmClient, workspace: Workspace) -> None:
    azure.jobs_per_page = 1
    arm.list_all(add_jobs(azure, arm, workspace), client.JOBS)


def follow_redirect(azure: Azure, arm: ArmClient, workspace: Workspace) -> None:
    azure.redirects = True
    arm.get(group_of(workspace), GROUPS)


REFERRALS = (delete_cluster, delete_group, list_two_pages, follow_redirect)


@pytest.mark.parametrize("refer", REFERRALS)
def test_no_other_host_receives_the_token(
    azure: Azure, arm: ArmClient, workspace: Workspace, stranger: Stranger, refer: Callable[..., None]
) -> None:
    azure.referred_url = stranger.url
    with pytest.raises(ProviderRefused, match=stranger.url):
        refer(azure, arm, workspace)
    assert stranger.headers == []


@pytest.mark.parametrize("refer", REFERRALS[:3])
def test_the_arm_host_receives_its_token(
    azure: Azure, arm: ArmClient, workspace: Workspace, refer: Callable[..., None]
) -> None:
    refer(azure, arm, workspace)
    assert azure.audiences == {("management.azure.com", "https://management.azure.com")}


def test_an_address_without_tls_receives_no_token(azure: Azure, arm: ArmClient, workspace: Workspace) -> None:
    azure.referred_url = "http://management.azure.com"
    with pytest.raises(ProviderRefused, match="http://management"):
        delete_group(azure, arm, workspace)
    assert azure.refused_hosts == []


def test_the_run_history_service_receives_a_token_of_its_own(
    azure: Azure, arm: ArmClient, workspace: Workspace
) -> None:
    add_jobs(azure, arm, workspace)
    assert arm.get_run_details(workspace, "first-job")["runId"] == "first-job"
    assert ("westeurope.api.azureml.ms", "https://ml.azure.com") in azure.audiences
    assert ("westeurope.api.azureml.ms", "https://management.azure.com") not in azure.audiences


# ------------------------------------------------------------------------------------------- retries
@pytest.mark.parametrize("kind", ["500", "503", "429", "reset", "truncate", "500_after"])
def test_a_passing_fault_is_not_noticed(azure: Azure, arm: ArmClient, workspace: Workspace, kind: str) -> None:
    azure.faults.append(Fault("*computes/gpu", kind, times=2))
    assert arm.get(f"{workspace.resource_id}/computes/gpu", client.COMPUTES)["name"] == "gpu"


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_a_lasting_fault_is_unreachable(azure: Azure, arm: ArmClient, workspace: Workspace, method: str) -> None:
    azure.faults.append(Fault("*computes/gpu*", "reset", times=10))
    with pytest.raises(Unreachable, match="computes/gpu"):
        arm.request(method, f"{workspace.resource_id}/computes/gpu", client.COMPUTES)
    assert [call for call in azure.calls if "computes/gpu" in call] == [f"{method} computes/gpu"] * 3


def test_a_long_retry_after_is_cut(
    azure: Azure, arm: ArmClient, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LONGEST_PAUSE_S", 0.01)
    azure.faults.append(Fault("*computes/gpu", "429", times=10))
    started_s = time.monotonic()
    with pytest.raises(Unreachable, match="429"):
        arm.get(f"{workspace.resource_id}/computes/gpu", client.COMPUTES)
    assert time.monotonic() - started_s < 1


def test_an_operation_that_does_not_end(
    azure: Azure, arm: ArmClient, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "OPERATION_S", 0.2)
    azure.operation_s = 60
    with pytest.raises(Unreachable, match="not done after"):
        delete_group(azure, arm, workspace)


def test_not_found(arm: ArmClient, workspace: Workspace) -> None:
    with pytest.raises(NotFound, match="computes/none"):
        arm.get(f"{workspace.resource_id}/computes/none", client.COMPUTES)
