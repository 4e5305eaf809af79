"""Kaggle's API on the loopback, as far as facts about it are known; it really runs the scripts it is sent."""

from __future__ import annotations

import base64
import re
import secrets
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from emulators.kaggle_datasets import Dataset, Datasets
from emulators.kaggle_kernels import Kernels
from emulators.kaggle_sessions import OUT_OF_MEMORY, TIME_LIMIT, Fate, Kernel, Session, Version
from emulators.kaggle_wire import NO_FAULT, Answer, Fault, Problem, Request, Server

__all__ = ["Dataset", "Fault", "Kaggle", "Kernel", "Session", "Version"]


def next_saturday() -> datetime:
    """The next Saturday, 00:00 UTC."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=(5 - today.weekday()) % 7 or 7)


class Kaggle:
    """The other side. `url`, `token` and `key` are for clients; `kernels`, `datasets` and `calls` for tests.

    Switches, to be set at any time:
    faults               what goes wrong with the next calls, see `Fault`
    queue_s              how long the sessions to come wait for their machine
    stuck_in_queue       while this is so, sessions go on waiting
    gpus                 how many GPUs `nvidia-smi -L` shows the GPU sessions to come; 0: a broken driver
    old_mounts           whether inputs lie in input/SLUG instead of input/datasets/OWNER/SLUG
    error_keeps_outputs  whether a script that fails leaves its files
    quota_used_s         GPU seconds used this week besides those of the sessions here
    quota_total_s        GPU seconds allowed a week
    quota_refresh        when the quota is full again, in UTC: Kaggle's weeks begin on Saturday
    clock_rate           quota seconds that pass in a second of the clock
    dataset_ready_after  how many polls of a new dataset's status say that it is not ready
    dataset_fails        whether new datasets end as FAILED
    zip_from_bytes       from which size on a single dataset file is served zipped
    """

    def __init__(self, root: Path, python: str = sys.executable, owner: str = "alice") -> None:
        self.root, self.python, self.owner = root, python, owner
        self.token, self.key = f"KGAT_{secrets.token_hex(16)}", secrets.token_hex(16)
        self.faults: list[Fault] = []
        self.queue_s, self.stuck_in_queue = 0.05, False
        self.gpus, self.old_mounts, self.error_keeps_outputs = 2, False, True
        self.quota_used_s, self.quota_total_s, self.clock_rate = 0.0, 30 * 3600.0, 1.0
        self.quota_refresh = next_saturday()
        self.dataset_ready_after, self.dataset_fails, self.zip_from_bytes = 0, False, 1 << 40
        self.calls: list[str] = []
        self.kernels, self.datasets = Kernels(self), Datasets(self)
        self._signed: dict[str, Path] = {}
        self._lock, self._fault_lock, self._released = threading.RLock(), threading.Lock(), threading.Event()
        self._server = Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Kaggle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything: the sessions with all their processes, what hangs, and the server."""
        self.stuck_in_queue = False
        for session in list(self.kernels.all_sessions):
            session.end(Fate("CANCEL_ACKNOWLEDGED"))
        self.release()
        self._server.close()

    # --------------------------------------------------------------------------- for tests
    def running(self) -> list[str]:
        """The slugs whose script runs."""
        return [slug for slug, kernel in list(self.kernels.items()) if any(one.is_alive for one in kernel.sessions)]

    def add_dataset(self, ref: str, folder: Path) -> Dataset:
        """Makes a folder attachable as owner/slug; it is used in place."""
        return self.datasets.add(ref, folder)

    def preempt(self, slug: str, keep_outputs: bool = True) -> None:
        """Takes the machine away, without a word."""
        self._end(slug, Fate("CANCEL_ACKNOWLEDGED", "", keep_outputs))

    def time_limit(self, slug: str, keep_outputs: bool = True) -> None:
        """Ends the session as one that took too long."""
        self._end(slug, Fate("CANCEL_ACKNOWLEDGED", TIME_LIMIT, keep_outputs))

    def out_of_memory(self, slug: str, keep_outputs: bool = True) -> None:
        """Ends the session as one that took too much memory."""
        self._end(slug, Fate("ERROR", OUT_OF_MEMORY, keep_outputs))

    def _end(self, slug: str, fate: Fate) -> None:
        for session in self.kernels[slug].sessions:
            session.end(fate)

    def release(self) -> None:
        """Lets go of the connections that hang; they end without an answer."""
        with self._fault_lock:
            released, self._released = self._released, threading.Event()
        released.set()

    # ------------------------------------------------------------------------- for the wire
    def hold(self) -> None:
        with self._fault_lock:
            released = self._released
        released.wait()

    def note(self, name: str) -> Fault:
        """Books a call, and says what is to go wrong with it."""
        with self._fault_lock:
            self.calls.append(name)
            for fault in [fault for fault in self.faults if fault.method in (name, "*")]:
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return NO_FAULT

    def sign(self, path: Path, name: str) -> str:
        """An address that serves the file to anyone who knows it; the name is what the client sees."""
        secret = secrets.token_hex(8)
        self._signed[secret] = path
        return f"{self.url}/signed/{secret}/{quote(name)}?X-Goog-Expires=3600&X-Goog-Signature={secret}"

    def answer(self, request: Request) -> Answer:
        """Does what is asked for."""
        if request.name == "download":
            return self._download(request)
        if request.name == "upload":
            token, place = request.path.removeprefix("/blobs/"), request.headers.get("Content-Range", "")
            return self.datasets.upload(token, place, request.body)
        if request.rpc and request.rpc[1] == "IntrospectToken":
            return self._introspect(request.json)
        if not self._is_known(request.headers.get("Authorization", "")):
            raise Problem(401)
        if request.stream:
            owner, slug = request.stream
            asked = {"userName": owner, "kernelSlug": slug, "versionLabel": request.query.get("versionLabel")}
            return self.kernels.get_kernel_session_logs_stream(asked)
        if request.rpc:
            return self._call(*request.rpc, request.json)
        raise Problem(404, f"There is no {request.command} {request.path}")

    def _call(self, service: str, method: str, body: dict[str, Any]) -> Answer:
        services = {
            "kernels.KernelsApiService": self.kernels,
            "datasets.DatasetApiService": self.datasets,
            "blobs.BlobApiService": self.datasets,
        }
        words = re.findall("[A-Z][a-z]+", method)
        work = getattr(services.get(service), "_".join(words).lower(), None)
        if work is None or len(words) < 2:
            raise Problem(404, f"The emulator has no {service}/{method}.")
        with self._lock:
            return work(body)

    def _download(self, request: Request) -> Path:
        path = self._signed.get(request.path.split("/")[2])
        if path is None or not path.is_file():
            raise Problem(403, "The signature does not match.")
        return path

    def _is_known(self, authorization: str) -> bool:
        basic = base64.b64encode(f"{self.owner}:{self.key}".encode()).decode()
        return authorization in (f"Bearer {self.token}", f"Basic {basic}")

    def _introspect(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("token") != self.token:
            raise Problem(403, "The token is not active.")
        return {"active": True, "username": self.owner, "userId": 7, "scope": "resources.admin:*"}
