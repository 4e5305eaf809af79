"""Google Colab on the loopback, as far as facts about it are known; its runtimes really execute what they receive.

The real clients are led here by their environment alone: a proxy that knows no way out, and an authority to trust.
Each machine is a Jupyter server; beside them stand the session backend, Google's sign-in and Google Drive.
Every secret that it issues contains SECRET, so that a test can search for it where it must not be.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from pathlib import Path

from emulators.colab_backend import Backend, Vms, Warden
from emulators.colab_drive import Drive
from emulators.colab_login import CLI_SCOPES, Login
from emulators.colab_vms import Vm, missing
from emulators.colab_wire import HOSTS, NAMES, Answer, Handler, Problem, Request
from emulators.tls import Server, write_certificates
from emulators.wire import Fault, Other

__all__ = ["Colab", "Fault", "Vm"]


class Colab(Other):
    """The emulator. `environment()` points clients to it; `vms`, `drive`, `login`, `calls` are for tests.

    `python` is what kernels find under that name and as `sys.executable`; ``python -c`` is this interpreter.

    Switches, to be set at any time:
    faults               what goes wrong with the next calls, see `Fault`; ``POST assign`` with 503 is retried
    tier                 free, pro or pro+
    gpus                 accelerators by tier; another one meets 400
    most_sessions        how many machines there may be at once; one more meets 412
    no_capacity          while this is so, new machines meet 412
    outcome              what assigning answers with 200 instead of a machine, like QUOTA_EXCEEDED_USAGE_TIME
    balance_units, free_units   compute units bought, and given free; without free ones the free tier meets 412
    rates                compute units an hour, by accelerator
    clock_rate           seconds of Colab's clock that pass in a second: for age, idleness and price
    session_s, idle_s    the age at which a machine is taken, and how long it may be without a busy kernel; or inf
    needs_connection     whether a busy kernel counts as idle while no websocket is open
    proxy_token_s        how long machine tokens given from now on are good, of this clock; `expire_tokens` ends all
    rotates_tokens       whether a new machine token ends the ones before
    cuts                 the next downloads, of a machine's files or Drive's, end after so many bytes each
    takes_chunks         False: a file's second part, and a chunked body, meet 400
    most_body_bytes      a longer request to a machine meets 413
    serves_files         False: /files/ is not found, as if the proxy kept it back
    kernel_path          folders with modules for kernels to come: a stub of google.colab, say
    login.life_s, login.revoked, drive.quota_bytes, drive.most_per_page   see `Login` and `Drive`
    """

    def __init__(self, root: Path, python: str = sys.executable) -> None:
        super().__init__()
        self.root, self.python = root, python
        self.tier, self.no_capacity, self.outcome, self.most_sessions = "free", False, "", 2
        paid = {"T4", "L4", "G4", "A100", "V5E1", "V6E1"}
        self.gpus = {"free": {"T4", "V5E1"}, "pro": paid, "pro+": paid | {"H100"}}
        self.balance_units, self.free_units = 100.0, 15.0
        self.rates = {"NONE": 0.07, "T4": 1.19, "L4": 1.71, "G4": 8.0, "A100": 5.4, "H100": 12.0, "V5E1": 3.0,
                      "V6E1": 5.0}  # fmt: skip
        self._rate, self._base_s, self._since_s = 1.0, time.time(), time.monotonic()
        self.session_s, self.idle_s, self.needs_connection = 12 * 3600.0, 90 * 60.0, False
        self.proxy_token_s, self.rotates_tokens = 3600.0, False
        self.cuts: list[int] = []
        self.takes_chunks, self.most_body_bytes, self.serves_files = True, math.inf, True
        self.kernel_path: list[Path] = []
        root.mkdir(parents=True, exist_ok=True)
        self.vms, self.login, self.drive, self.backend = Vms(), Login(), Drive(self), Backend(self)
        self._lock = threading.RLock()
        self._server = Server(self, write_certificates(root, NAMES), Handler)
        self.proxy = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.home = root / "home"
        self._token_file = self.home / ".config" / "colab-cli" / "token.json"
        self._sign_in()
        self._warden = Warden(self)

    def __enter__(self) -> Colab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything: the runtimes with all their processes, hanging requests, and the server."""
        self.release()
        self._warden.close()
        for vm in self.vms.alive:
            vm.end("closed")
        self._server.close()
        self.drive.close()

    # --------------------------------------------------------------------------- for tests
    @staticmethod
    def missing() -> str:
        """Why the emulator cannot run here, or ""."""
        return missing()

    def environment(self) -> dict[str, str]:
        """The variables that point real clients here; Google's CLI finds a sign-in in HOME."""
        ca = str(self.root / "ca.pem")
        said = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "HTTPLIB2_CA_CERTS"), ca)
        for name in ("HTTPS_PROXY", "HTTP_PROXY"):
            said |= {name: self.proxy, name.lower(): self.proxy}
        own = "127.0.0.1,localhost"
        # The command line waits that long as it ends, and that long before it asks again.
        waits = {"REQUEST_TIMEOUT": "3", "COLAB_CLI_RETRY_BACKOFF": "0.05"}
        return {**said, **waits, "HOME": str(self.home), "NO_PROXY": own, "no_proxy": own}

    def lose(self, vm: Vm | str) -> None:
        """The runtime vanishes with all its processes, whatever they were doing."""
        (self.vms[vm] if isinstance(vm, str) else vm).end("lost")

    def drop_sockets(self) -> None:
        """Closes every websocket, as a short network failure does; the runtimes and kernels keep running."""
        for vm in self.vms.alive:
            vm.drop_sockets()

    def expire_tokens(self) -> None:
        """Invalidates every runtime token issued so far; the clients do not know it."""
        for vm in self.vms.alive:
            vm.expire_tokens()

    def sign_out(self) -> None:
        """From now on Google's CLI finds no sign-in in HOME, and asks for one."""
        self._token_file.unlink()

    @property
    def clock_rate(self) -> float:
        return self._rate

    @clock_rate.setter
    def clock_rate(self, rate: float) -> None:
        self._base_s, self._since_s, self._rate = self.now_s(), time.monotonic(), rate

    def _sign_in(self) -> None:
        folder = self._token_file.parent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps({"enable_update_check": False}))
        self._token_file.write_text(json.dumps(self.login.grant(*CLI_SCOPES)))
        self._token_file.chmod(0o600)

    # ------------------------------------------------------------------------- for the wire
    def now_s(self) -> float:
        return self._base_s + (time.monotonic() - self._since_s) * self._rate

    def plays(self, host: str) -> bool:
        """Whether this is a host of the emulator; a released runtime keeps its name."""
        return host in HOSTS or any(vm.host == host for vm in list(self.vms.values()))

    def vm_by_address(self, path: str) -> Vm | None:
        """The runtime that asks, from inside, to be released."""
        return next((vm for vm in self.vms.alive if path == f"{vm.self_address}/unassign"), None)

    def next_cut(self, size: int) -> int | None:
        """After how many bytes a download of that size ends; a shorter one leaves the cut to the next."""
        with self._fault_lock:
            return self.cuts.pop(0) if self.cuts and self.cuts[0] < size else None

    def answer(self, request: Request) -> Answer:
        """Executes the request."""
        if request.face == "runtime":
            return self._enter(request)
        if request.face == "login":
            return self.login.answer(request)
        if request.face == "drive":
            return self.drive.answer(request)
        with self._lock:
            return self.backend.answer(request)

    def _enter(self, request: Request) -> Answer:
        vm = self.vms.opened_by(request)
        if len(request.body) > self.most_body_bytes:
            raise Problem(413, "tooLarge", "Request Entity Too Large")
        if request.path.startswith("files/") and not self.serves_files:
            raise Problem(404)
        if not self.takes_chunks and request.verb == "PUT" and _is_chunked(request):
            raise Problem(400, "", "Chunks are not supported.")
        return vm.forward(request)


def _is_chunked(request: Request) -> bool:
    return request.headers.get("Transfer-Encoding", "").lower() == "chunked" or request.json.get("chunk", 1) != 1
