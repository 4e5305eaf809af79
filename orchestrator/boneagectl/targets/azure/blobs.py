"""The workspace's blob stores: the log as it grows, and what a job has written, also while it runs.

Our own small reader, since azure-ai-ml 1.35 takes a SAS for an account key when it streams a log, and drops
named outputs when it downloads all (azure-sdk-for-python#48972, #48941).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boneagectl.errors import Unreachable
from boneagectl.targets.azure.rest import STORES, Arm, Place

LOGS = "workspaceartifactstore"
OUTPUTS = "workspaceblobstore"
_PARALLEL = 4


def log_of(job: str) -> str:
    return f"ExperimentRun/dcid.{job}/user_logs/std_log.txt"


def run_of(job: str) -> str:
    return f"azureml/{job}/run/"


class Store:
    """One container of the workspace, opened with what the workspace itself hands out."""

    def __init__(self, arm: Arm, place: Place, name: str) -> None:
        from azure.storage.blob import ContainerClient

        path = f"{place.path}/datastores/{name}"
        said = arm.get(path, STORES)["properties"]
        secrets = arm.ask("POST", f"{path}/listSecrets", STORES, {"expirableSecret": True, "expireAfterHours": 1})
        account = f"{said.get('protocol', 'https')}://{said['accountName']}.blob.{said['endpoint']}"
        credential = secrets.get("sasToken") or secrets.get("key") or arm.credential
        self._container: Any = ContainerClient(account, said["containerName"], credential=credential)

    def names(self, prefix: str) -> list[str]:
        """What is below `prefix`, by the rest of its name."""
        with _in_words(prefix):
            return [one.removeprefix(prefix) for one in self._container.list_blob_names(name_starts_with=prefix)]

    def read(self, name: str) -> bytes:
        """A whole small blob; nothing where there is none."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            with _in_words(name):
                return bytes(self._container.download_blob(name).readall())
        except ResourceNotFoundError:
            return b""

    def fetch(self, name: str, path: Path) -> None:
        """Streams a blob to `path`; the SDK itself goes on after a broken connection."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with _in_words(name), open(path, "wb") as stream:
            self._container.download_blob(name, max_concurrency=_PARALLEL).readinto(stream)


@contextmanager
def _in_words(what: str) -> Iterator[None]:
    """A network that fails, in our words; what is not there is left to the caller."""
    from azure.core.exceptions import ServiceRequestError, ServiceResponseError

    try:
        yield
    except (ServiceRequestError, ServiceResponseError) as error:
        raise Unreachable(f"{what}: the blob store cannot be reached ({error})", "try again in some minutes") from None
