"""Brings what a job has written so far: each file once, streamed, checked by hash, never outside its folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from boneage_trainer.contract import RunFolder, sha256_of, write_atomic
from boneagectl import artifacts
from boneagectl.errors import ProviderRefused, RemoteError, Unreachable
from boneagectl.models import Artifacts
from boneagectl.targets.azure.client import STORES, ArmClient, Workspace

_INCOMING = ".incoming"


def bring(store: Store, folder: str, log: bytes, dest: RunFolder) -> Artifacts:
    """Downloads what is below `folder` into `dest`, with the log; what is here, and as listed, is not loaded again.

    Raises:
        NotYet: the job has written nothing.
        MachineError: a name points outside the folder. Unreachable: the store does not answer.
    """
    names = store.names(folder)
    for name in names:
        artifacts.check_name(name)
    _list_first(store, folder, names, dest)
    wanted, incoming = artifacts.read_manifest_hashes(dest), dest.root / _INCOMING
    others = [name for name in names if name != dest.manifest.name]
    for name in (name for name in others if not _is_here(dest.root / name, wanted.get(name))):
        if store.fetch(folder + name, incoming / name):
            artifacts.move_into_place(incoming / name, dest.root / name)
    if log:
        write_atomic(dest.log, log)
    shutil.rmtree(incoming, ignore_errors=True)
    return artifacts.read_artifacts(dest)


def bring_default(store: Store, folder: str, dest: Path) -> None:
    """What the job left in its folder ``outputs``, which our trainer does not use, below `dest`."""
    names = store.names(folder)
    for name in names:
        artifacts.check_name(name)
    for name in names:
        incoming = dest / _INCOMING / name
        if store.fetch(folder + name, incoming):
            artifacts.move_into_place(incoming, dest / name)
    shutil.rmtree(dest / _INCOMING, ignore_errors=True)


def _list_first(store: Store, folder: str, names: list[str], dest: RunFolder) -> None:
    """The leg's own list tells which files are here already."""
    if dest.manifest.name in names and (content := store.read(folder + dest.manifest.name)):
        write_atomic(dest.manifest, content)


def _is_here(path: Path, sha256: str | None) -> bool:
    return sha256 is not None and path.is_file() and sha256_of(path) == sha256


# == blobs: The workspace's blob stores: the log as it grows, and what a job has written, also while it runs.

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

    def __init__(self, arm: ArmClient, place: Workspace, name: str) -> None:
        self._arm, self._path = arm, f"{place.resource_id}/datastores/{name}"
        self._container = self._open()

    def _open(self) -> Any:
        from azure.storage.blob import ContainerClient

        said = self._arm.get(self._path, STORES)["properties"]
        wanted = {"expirableSecret": True, "expireAfterHours": 1}
        secrets = self._arm.request("POST", f"{self._path}/listSecrets", STORES, wanted)
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


def _refused(what: str, error: Any) -> RemoteError:
    kind = Unreachable if (error.status_code or 500) >= 500 or error.status_code == 429 else ProviderRefused
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
