"""The workspace's blob stores: the log as it grows, and what a job has written, also while it runs.

Our own small reader, since azure-ai-ml 1.35 takes a SAS for an account key when it streams a log, and drops
named outputs when it downloads all (azure-sdk-for-python#48972, #48941).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from boneagectl.errors import MachineError, Unreachable
from boneagectl.targets.azure.rest import STORES, Arm, Place

LOGS = "workspaceartifactstore"
OUTPUTS = "workspaceblobstore"
_PARALLEL = 4
RETRY: dict[str, Any] = {"retry_total": 3, "initial_backoff": 1, "increment_base": 3, "random_jitter_range": 1}
"""Pauses of about 4, 10 and 28 s. The SDK's own begin with 18 s, in which a person thinks that it hangs."""
T = TypeVar("T")


def log_of(job: str) -> str:
    return f"ExperimentRun/dcid.{job}/user_logs/std_log.txt"


def default_of(job: str) -> str:
    """Where Azure ML keeps what a job leaves in its folder ``outputs``."""
    return f"ExperimentRun/dcid.{job}/outputs/"


def run_of(job: str) -> str:
    return f"azureml/{job}/run/"


class Store:
    """One container of the workspace, opened with what the workspace itself hands out, for an hour at most."""

    def __init__(self, arm: Arm, place: Place, name: str) -> None:
        self._arm, self._path = arm, f"{place.path}/datastores/{name}"
        self._container = self._open()

    def _open(self) -> Any:
        from azure.storage.blob import ContainerClient

        said = self._arm.get(self._path, STORES)["properties"]
        wanted = {"expirableSecret": True, "expireAfterHours": 1}
        secrets = self._arm.ask("POST", f"{self._path}/listSecrets", STORES, wanted)
        account = f"{said.get('protocol', 'https')}://{said['accountName']}.blob.{said['endpoint']}"
        credential = secrets.get("sasToken") or secrets.get("key") or self._arm.credential
        return ContainerClient(account, said["containerName"], credential=credential, **RETRY)

    def names(self, prefix: str) -> list[str]:
        """What is below `prefix`, by the rest of its name."""
        return self._do(
            prefix, lambda box: [one.removeprefix(prefix) for one in box.list_blob_names(name_starts_with=prefix)]
        )

    def read(self, name: str) -> bytes:
        """A whole small blob; nothing where there is none."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return self._do(name, lambda box: bytes(box.download_blob(name).readall()))
        except ResourceNotFoundError:
            return b""

    def fetch(self, name: str, path: Path) -> bool:
        """Streams a blob to `path`; the SDK itself goes on after a broken connection. False where it is gone by now."""
        from azure.core.exceptions import ResourceNotFoundError

        path.parent.mkdir(parents=True, exist_ok=True)

        def stream(box: Any) -> None:
            with open(path, "wb") as file:
                box.download_blob(name, max_concurrency=_PARALLEL).readinto(file)

        try:
            self._do(name, stream)
        except ResourceNotFoundError:
            return False
        return True

    def _do(self, what: str, call: Callable[[Any], T]) -> T:
        """`call` with the container, once more with a new key where the old one is over; failures in our words."""
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        for is_last in (False, True):
            try:
                return _in_words(what, call, self._container)
            except ResourceNotFoundError:
                raise
            except HttpResponseError as error:
                if is_last or error.status_code not in (401, 403):
                    raise _refused(what, error) from None
                self._container = self._open()
        raise AssertionError("the last try returns or raises")


def _refused(what: str, error: Any) -> MachineError:
    kind = Unreachable if (error.status_code or 500) >= 500 or error.status_code == 429 else MachineError
    code = getattr(error, "error_code", None) or error.reason
    text = f"{what}: the blob store answered {error.status_code} {getattr(code, 'value', code)}"
    return kind(text, "try again in some minutes")


def _in_words(what: str, call: Callable[[Any], T], container: Any) -> T:
    """A network that fails, in our words."""
    from azure.core.exceptions import ServiceRequestError, ServiceResponseError

    try:
        return call(container)
    except (ServiceRequestError, ServiceResponseError) as error:
        raise Unreachable(f"{what}: the blob store cannot be reached ({error})", "try again in some minutes") from None
