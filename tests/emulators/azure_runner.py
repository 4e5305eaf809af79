"""The Azure emulator's running jobs: each has its own thread and executes its command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulators.azure_compute import Cluster, seconds
from emulators.azure_mounts import LOG, Log, Mount, download
from emulators.azure_nodes import environment, fill, workers
from emulators.programs import python_folder

if TYPE_CHECKING:
    from emulators.azure import Azure

OVER = ("Completed", "Failed", "Canceled")
_TICK_S = 0.01
_NO_BUILDS = (
    "TasksOperationsNotAllowed: ACR Tasks requests for the registry and subscription are not permitted. "
    "Please file an Azure support request for assistance."
)


@dataclass(frozen=True)
class Fate:
    """How a job ends. `is_gone`: its nodes are gone, so there is no process to stop."""

    status: str
    code: str = ""
    message: str = ""
    is_gone: bool = False


class _Ended(Exception):
    """The fate came before the work was done."""


class Job:
    """`said` are the properties of its PUT, `seen` the states that it has been in."""

    def __init__(self, azure: Azure, workspace: dict[str, Any], job_id: str, said: dict[str, Any]) -> None:
        self.azure, self.workspace, self.job_id, self.said = azure, workspace, job_id, said
        self.name, self.created = job_id.rpartition("/")[2], azure.now_text()
        self.folder, self.around = azure.work / self.name, dict(os.environ)
        self.status, self.seen, self.times = "NotStarted", ["NotStarted"], dict[str, str]()
        self.fate: Fate | None = None
        self.is_requeued = False
        self.processes: list[subprocess.Popen[bytes]] = []
        self.attempts = 0
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._live, daemon=True)

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    @property
    def is_alive(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    @property
    def cluster(self) -> Cluster | None:
        return self.azure.computes.find(self.said.get("computeId") or "")

    @property
    def node_count(self) -> int:
        return int((self.said.get("resources") or {}).get("instanceCount") or 1)

    def output_uri(self, name: str) -> str:
        usual = "azureml://datastores/workspaceblobstore/paths/azureml/${{name}}/${{output_name}}/"
        return (
            str(self.said["outputs"][name].get("uri") or usual)
            .replace("${{name}}", self.name)
            .replace("${{output_name}}", name)
        )

    # -------------------------------------------------------------------------- from outside
    def end(self, fate: Fate, wait: bool = True) -> None:
        """Ends it, and returns when it is over."""
        with self.changed:
            if self.is_over:
                return
            self.fate = self.fate or fate
            self.changed.notify_all()
        if wait and self.thread is not threading.current_thread():
            self.thread.join(10)

    def cancel(self) -> None:
        """Asks; the job ends when it likes, or is ended when its grace is over."""
        with self.changed:
            self.fate = self.fate or Fate("Canceled")
            self._to("CancelRequested")
            self.changed.notify_all()

    def interrupt(self, is_requeued: bool, reason: str) -> None:
        """Its nodes are gone; it waits for others, or has failed."""
        with self.changed:
            self.is_requeued = is_requeued
            self.fate = self.fate or Fate("Failed", "NodePreempted", reason, is_gone=True)
            self.changed.notify_all()

    # ------------------------------------------------------------------------- its own thread
    def _to(self, status: str) -> None:
        with self.changed:
            if not self.is_over and (self.fate is None or status in (*OVER, "CancelRequested", "Finalizing")):
                self.status = status
                self.seen.append(status)
            self.changed.notify_all()

    def _pause(self, wait_s: float) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.fate, wait_s)
            if self.fate:
                raise _Ended

    def _live(self) -> None:
        while True:
            fate = self._try()
            with self.changed:
                if not (fate.is_gone and self.is_requeued):
                    break
                self.fate, self.is_requeued = None, False
        self.times["endTimeUtc"] = self.azure.now_text()
        self.fate = fate
        self._to(fate.status)

    def _try(self) -> Fate:
        try:
            fate = self._walk()
        except _Ended:
            fate = Fate("Failed", "Emulator", "It ended without a fate.")
        except Exception as error:
            traceback.print_exc()
            fate = Fate("Failed", "Emulator", f"The emulator could not run it: {error!r}")
        finally:
            if cluster := self.cluster:
                cluster.lose(self.name) if self.fate and self.fate.is_gone else cluster.give_back(self.name)
        return self.fate or fate

    def _walk(self) -> Fate:
        for status in ("Starting", "Preparing"):
            self._pause(self.azure.phase_s)
            self._to(status)
        if refused := self._build():
            return refused
        self._pause(self.azure.phase_s)
        self._to("Queued")
        while self.azure.queue_forever or ((cluster := self.cluster) and not cluster.take(self.name, self.node_count)):
            self._pause(_TICK_S)
        return self._run()

    def _build(self) -> Fate | None:
        """An environment with packages of its own is built by the registry, which not every subscription may use."""
        if not self.said["environmentId"].startswith("/"):
            return None
        environment = self.azure.workspaces.find(self.said["environmentId"])["properties"]
        if not (environment.get("condaFile") or environment.get("build")):
            return None
        if not self.azure.image_builds:
            place = self.azure.workspaces.artifacts(self.workspace, self.name)
            name = f"{place.path}/azureml-logs/20_image_build_log.txt"
            self.azure.blobs.put(place.account, place.container, name, _NO_BUILDS.encode())
            return Fate("Failed", "ImageBuildFailure", f"Failed to build the image. {_NO_BUILDS}")
        self.azure.add_registry(self.workspace)
        return None

    def _run(self) -> Fate:
        self.attempts += 1
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        places = {f"outputs.{name}": str(self._output(name)) for name in self.said.get("outputs") or {}}
        for name, given in (self.said.get("inputs") or {}).items():
            try:
                places[f"inputs.{name}"] = self._input(name, given)
            except FileNotFoundError as error:
                return Fate("Failed", "UserError", f"ScriptExecution.StreamAccess.NotFound: {error}")
        mounts = [Mount(self.azure, self._place(self.output_uri(name)), self._output(name))
                  for name in self.said.get("outputs") or {}]  # fmt: skip
        artifacts = self.azure.workspaces.artifacts(self.workspace, self.name)
        mounts.append(Mount(self.azure, artifacts, self.folder / "node0" / "outputs", "outputs"))
        self._to("Running")
        self.times["startTimeUtc"] = self.azure.now_text()
        try:
            return self._work(fill(self.said["command"], places), places, mounts)
        finally:
            if not (self.fate and self.fate.is_gone):  # a node that is lost takes with it what was not written yet
                for mount in mounts:
                    mount.sync()

    def _place(self, uri: str) -> Any:
        return self.azure.workspaces.place(self.workspace, uri)

    def _output(self, name: str) -> Path:
        folder = self.folder / "outputs" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _input(self, name: str, given: dict[str, Any]) -> str:
        if given["jobInputType"] == "literal":
            return str(given["value"])
        return str(download(self.azure, self._place(given["uri"]), self.folder / "inputs" / name))

    # ----------------------------------------------------------------------------- processes
    def _work(self, command: str, places: dict[str, str], mounts: list[Mount]) -> Fate:
        logs = [Log(self.azure, self.workspace, self.name, at) for at in range(self.node_count)]
        cluster_environments = workers(self.said.get("distribution"), self.node_count)
        path = python_folder(self.folder / "bin", self.azure.python, self.cluster.size.gpus if self.cluster else 0)
        with self.changed:
            if self.fate:
                raise _Ended
            self.processes = []
            for at in range(self.node_count):
                given = environment(self, places, path) | cluster_environments[at]
                self.processes.append(self._start(at, command, given))
        for log, process in zip(logs, self.processes, strict=True):
            log.follow(process)
        try:
            fate = self._watch(mounts, logs)
        finally:
            self._signal(signal.SIGKILL)
            for process in self.processes:
                process.wait()
            for log in logs:
                log.close()
        self._to("Finalizing")
        with self.changed:
            self.changed.wait_for(lambda: self.fate and self.fate.is_gone, self.azure.finalizing_s)
        return fate

    def _start(self, at: int, command: str, given: dict[str, str]) -> subprocess.Popen[bytes]:
        folder = self.folder / f"node{at}"
        folder.mkdir(exist_ok=True)
        if self.said.get("codeId"):
            download(self.azure, self._place(self.said["codeId"]), folder)
        return subprocess.Popen(
            ["bash", "-c", command], cwd=folder, env=given, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def _watch(self, mounts: list[Mount], logs: list[Log]) -> Fate:
        """Until all nodes are done, one has failed, the time is over, or the fate has come."""
        limit = (self.said.get("limits") or {}).get("timeout")
        started_s, synced_s = time.monotonic(), time.monotonic()
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.fate, _TICK_S)
            codes = [process.poll() for process in self.processes]
            if any(codes) or None not in codes:
                return self._judged(codes)
            if self.fate or (limit and time.monotonic() - started_s > seconds(limit)):
                return self._stop()
            for log in logs:
                log.write()
            if time.monotonic() - synced_s > self.azure.sync_s:
                synced_s = time.monotonic()
                for mount in mounts:
                    mount.sync()

    def _stop(self) -> Fate:
        if not (self.fate and self.fate.is_gone):
            self._signal(signal.SIGTERM)
            give_up = time.monotonic() + self.azure.grace_s
            while self.is_alive and time.monotonic() < give_up:
                time.sleep(_TICK_S)
        return Fate("Canceled", "", "" if self.fate else "The job exceeded its timeout.")

    def _judged(self, codes: list[int | None]) -> Fate:
        """A node that fails takes the others with it."""
        bad = next((code for code in codes if code), 0)
        if not bad:
            return Fate("Completed")
        number = bad if bad > 0 else 128 - bad
        text = (f"Execution failed. User process 'bash' exited with status code {number}. Please check log file "
                f"'{LOG}' for error details.")  # fmt: skip
        return Fate("Failed", "UserError", text)

    def _signal(self, number: int) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
