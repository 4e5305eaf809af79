"""The outputs of a job in the workspace's blob stores: streamed, verified, never outside their folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from boneage_trainer.contract import RunFolder, sha256_of, write_atomic
from boneagectl import artifacts
from boneagectl.errors import NotSignedIn, ProviderRefused, RemoteError, Unreachable
from boneagectl.models import Artifacts
from boneagectl.targets.azure.client import STORES, ArmClient, Workspace

LOG_STORE = "workspaceartifactstore"
OUTPUT_STORE = "workspaceblobstore"
RETRY: dict[str, Any] = {"retry_total": 3, "initial_backoff": 1, "increment_base": 3, "random_jitter_range": 1}
"""Pauses of about 4, 10 and 28 s. The SDK's default begins with 18 s, in which it seems to hang."""
_PARALLEL = 4
_INCOMING = ".incoming"
_LATER = "try again in some minutes"

T = TypeVar("T")


def log_name(job: str) -> str:
    return f"ExperimentRun/dcid.{job}/user_logs/std_log.txt"


def default_outputs_folder(job: str) -> str:
    """Where Azure ML stores what a job leaves in its folder ``outputs``."""
    return f"ExperimentRun/dcid.{job}/outputs/"


def run_folder(job: str) -> str:
    return f"azureml/{job}/run/"


class BlobStore:
    """One container of the workspace, opened with the key that the workspace gives for an hour at most."""

    def __init__(self, arm: ArmClient, workspace: Workspace, name: str) -> None:
        self._arm, self._path = arm, f"{workspace.resource_id}/datastores/{name}"
        self._container = self._open()

    def _open(self) -> Any:
        from azure.storage.blob import ContainerClient

        store = self._arm.get(self._path, STORES)["properties"]
        lifetime = {"expirableSecret": True, "expireAfterHours": 1}
        secrets = self._arm.request("POST", f"{self._path}/listSecrets", STORES, lifetime)
        account = f"{store.get('protocol', 'https')}://{store['accountName']}.blob.{store['endpoint']}"
        credential = secrets.get("sasToken") or secrets.get("key") or self._arm.credential
        return ContainerClient(account, store["containerName"], credential=credential, **RETRY)

    def list_names(self, prefix: str) -> list[str]:
        """The blobs below `prefix`, by the rest of their names."""
        return self._call(
            prefix,
            lambda container: [
                name.removeprefix(prefix) for name in container.list_blob_names(name_starts_with=prefix)
            ],
        )

    def read_blob(self, name: str) -> bytes:
        """A whole small blob; nothing where there is none."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return self._call(name, lambda container: bytes(container.download_blob(name).readall()))
        except ResourceNotFoundError:
            return b""

    def download_blob(self, name: str, path: Path) -> bool:
        """Streams a blob to `path`; the SDK resumes after a broken connection. False where it is gone by now."""
        from azure.core.exceptions import ResourceNotFoundError

        path.parent.mkdir(parents=True, exist_ok=True)

        def stream(container: Any) -> None:
            with open(path, "wb") as file:
                container.download_blob(name, max_concurrency=_PARALLEL).readinto(file)

        try:
            self._call(name, stream)
        except ResourceNotFoundError:
            return False
        return True

    def _call(self, what: str, request: Callable[[Any], T]) -> T:
        """`request` on the container, once more with a new key where the old one has expired."""
        from azure.core.exceptions import (
            HttpResponseError,
            ResourceNotFoundError,
            ServiceRequestError,
            ServiceResponseError,
        )

        for is_last in (False, True):
            try:
                return request(self._container)
            except ResourceNotFoundError:
                raise
            except (ServiceRequestError, ServiceResponseError) as error:
                raise Unreachable(f"{what}: the blob store cannot be reached ({error})", _LATER) from None
            except HttpResponseError as error:
                if is_last or error.status_code not in (401, 403):
                    raise _translated(what, error) from None
                self._container = self._open()
        raise AssertionError("the last attempt returns or raises")


def _translated(what: str, error: Any) -> RemoteError:
    status, code = error.status_code or 500, getattr(error, "error_code", None) or error.reason
    message = f"{what}: the blob store answered {error.status_code} {getattr(code, 'value', code)}"
    if status >= 500 or status == 429:
        return Unreachable(message, _LATER)
    return NotSignedIn(message, "az login") if status == 401 else ProviderRefused(message, _LATER)


def download_run(store: BlobStore, folder: str, log: bytes, dest: RunFolder) -> Artifacts:
    """Downloads what is below `folder` to `dest`, with the log; files that match the manifest stay as they are.

    Raises:
        NotYet: the job has written nothing.
        MachineError: a name points outside the folder. Unreachable: the store does not answer.
    """
    names = store.list_names(folder)
    for name in names:
        artifacts.check_name(name)
    if dest.manifest.name in names and (content := store.read_blob(folder + dest.manifest.name)):
        write_atomic(dest.manifest, content)  # first: its hashes tell which files are here already
    hashes = artifacts.read_manifest_hashes(dest)
    for name in names:
        path = dest.root / name
        is_here = path.is_file() and name in hashes and sha256_of(path) == hashes[name]
        if name != dest.manifest.name and not is_here:
            _download_into_place(store, folder, name, dest.root)
    if log:
        write_atomic(dest.log, log)
    shutil.rmtree(dest.root / _INCOMING, ignore_errors=True)
    return artifacts.read_artifacts(dest)


def download_default_outputs(store: BlobStore, folder: str, dest: Path) -> None:
    """Downloads what the job left in its folder ``outputs``, which our trainer does not use, to `dest`."""
    names = store.list_names(folder)
    for name in names:
        artifacts.check_name(name)
    for name in names:
        _download_into_place(store, folder, name, dest)
    shutil.rmtree(dest / _INCOMING, ignore_errors=True)


def _download_into_place(store: BlobStore, folder: str, name: str, dest: Path) -> None:
    """`dest` never holds half a file."""
    if store.download_blob(folder + name, dest / _INCOMING / name):
        artifacts.move_into_place(dest / _INCOMING / name, dest / name)
