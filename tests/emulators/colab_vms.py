"""The Colab emulator's runtimes: each is a folder and a real Jupyter server, reached through its proxy name only."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from emulators.colab_wire import REGION, TOKEN_FIELD, TOKEN_HEADER, Problem, Request, Stream
from emulators.programs import kill_marked, python_folder

if TYPE_CHECKING:
    from emulators.colab import Colab

GPUS = {"T4": "Tesla T4", "L4": "NVIDIA L4", "A100": "NVIDIA A100-SXM4-40GB", "H100": "NVIDIA H100 80GB HBM3",
        "G4": "NVIDIA RTX PRO 6000 Blackwell Server Edition"}  # fmt: skip
_NOT_THERE = re.compile(
    r"AZURE|BONEAGE|KAGGLE|GOOGLE|COLAB|JUPYTER|IPYTHON|XDG_|.*proxy$|REQUESTS_CA_BUNDLE$|SSL_CERT_FILE$|"
    r"HTTPLIB2_|REQUEST_TIMEOUT$|PYTHONPATH$|PYTEST_", re.I
)  # fmt: skip
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-connection", "accept-encoding",
               "authorization", TOKEN_HEADER.lower()}  # fmt: skip
_START_LIMIT_S = 60
# Jupyter has no wish to end with its parent; a pipe that closes, however the parent ends, gives it one. And it would
# spend most of its start on a grammar for addresses, which jsonschema does without where there is none.
_START = (
    "import os, runpy, sys, threading; ends = lambda: (sys.stdin.read(), os._exit(1)); "
    "threading.Thread(target=ends, daemon=True).start(); sys.modules['rfc3987_syntax'] = None; "
    "runpy.run_module('jupyter_server', run_name='__main__')"
)


def find_jupyter() -> str:
    """An interpreter with jupyter_server and ipykernel: BONEAGE_JUPYTER, else this one; empty where neither has."""
    if given := os.environ.get("BONEAGE_JUPYTER"):
        return given
    known = all(importlib.util.find_spec(name) for name in ("jupyter_server", "ipykernel"))
    return sys.executable if known else ""


def missing() -> str:
    """Why runtimes cannot run here, or ""."""
    if find_jupyter():
        return ""
    return "jupyter_server and ipykernel are not installed: pip install both, or BONEAGE_JUPYTER=PYTHON that has them"


@dataclass(frozen=True)
class Kind:
    """What was requested; `variant` is DEFAULT, GPU or TPU."""

    variant: str
    accelerator: str
    is_high_memory: bool

    @property
    def said(self) -> dict[str, Any]:
        number = {"DEFAULT": 0, "GPU": 1, "TPU": 2}.get(self.variant, 0)
        return {"accelerator": self.accelerator, "variant": number, "machineShape": int(self.is_high_memory)}


class Vm:
    """One assignment. `content` replaces /content; `ended` is the reason of its end, empty while it runs."""

    def __init__(self, colab: Colab, notebook: str, kind: Kind) -> None:
        self.colab, self.notebook, self.kind = colab, notebook, kind
        word = {"DEFAULT": "m", "GPU": f"gpu-{kind.accelerator.lower()}", "TPU": "tpu"}[kind.variant]
        self.endpoint = f"{word}-s-{secrets.token_hex(6)}"
        self.host = f"8080-{self.endpoint}.{REGION}"
        self.ended, self.sockets = "", set[socket.socket]()
        self.started_s = self.active_s = colab.now_s()
        self.ended_s: float | None = None
        self.folder = colab.root / "vms" / self.endpoint
        self.disk, self.content = self.folder / "disk", self.folder / "disk" / "content"
        # Socket names must be short, and a test's folder need not be.
        self._socket = Path(tempfile.mkdtemp(prefix="colab-")) / "s"
        self._tokens: dict[str, float] = {}
        self.self_address = f"/vm/SECRET-{secrets.token_hex(8)}"
        self.process = self._start()

    @property
    def is_alive(self) -> bool:
        return not self.ended

    # ------------------------------------------------------------------------------- tokens
    def new_token(self) -> dict[str, Any]:
        """A new token, as the backend's answer gives it."""
        life_s = self.colab.proxy_token_s
        if self.colab.rotates_tokens:
            self._tokens.clear()
        token = f"SECRET-proxy-{secrets.token_hex(16)}"
        self._tokens[token] = time.monotonic() + life_s
        return {"url": f"https://{self.host}", "token": token, "tokenExpiresInSeconds": int(life_s)}

    def expire_tokens(self) -> None:
        self._tokens.clear()

    def check(self, token: str) -> None:
        if self._tokens.get(token, 0) < time.monotonic():
            raise Problem(401, "unauthorized", "Unauthorized")

    # ------------------------------------------------------------------------------ process
    def _start(self) -> subprocess.Popen[bytes]:
        self.content.mkdir(parents=True)
        startup = self.folder / "etc" / "ipython" / "profile_default" / "startup" / "00-colab.py"
        startup.parent.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("colab_startup.py"), startup)
        config = self.folder / "etc" / "server.json"
        config.write_text(json.dumps(self._config()))
        command = [find_jupyter(), "-c", _START, f"--config={config}"]
        with open(self.folder / "jupyter.log", "wb") as log:
            return subprocess.Popen(
                command, cwd=self.content, env=self._environment(), stdin=subprocess.PIPE, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def _config(self) -> dict[str, Any]:
        return {
            "ServerApp": {"sock": str(self._socket), "root_dir": str(self.content), "open_browser": False,
                          "allow_root": True, "disable_check_xsrf": True, "allow_remote_access": True,
                          "allow_origin": "*", "jpserver_extensions": {}},
            # The proxy in front has checked the token, and no one else knows the socket.
            "IdentityProvider": {"token": ""},
            "PasswordIdentityProvider": {"password_required": False},
            "FileContentsManager": {"root_dir": str(self.disk), "delete_to_trash": False},
            "ContentsManager": {"allow_hidden": True},
        }  # fmt: skip

    def _environment(self) -> dict[str, str]:
        """That of now, so that a trainer's FAKE_ switches arrive, without what would lead back to the emulator."""
        own = {name: value for name, value in os.environ.items() if not _NOT_THERE.match(name)}
        etc, gpu = self.folder / "etc", GPUS.get(self.kind.accelerator)
        programs = python_folder(self.folder / "bin", self.colab.python, 1 if gpu else 0, gpu or "")
        jupyter = {f"JUPYTER_{name}": str(etc / name.lower()) for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")}
        return {
            **own, **jupyter, "HOME": str(etc), "IPYTHONDIR": str(etc / "ipython"), "BONEAGE_COLAB_VM": self.endpoint,
            "BONEAGE_COLAB_PYTHON": str(programs / "python"), "BONEAGECTL_ROOT": str(self.content), "COLAB_RELEASE_TAG":
            "release-colab_20261112-060050_RC00", "COLAB_GPU": str(int(bool(gpu))), "TBE_RUNTIME_ADDR":
            self.colab.proxy.removeprefix("http://") + self.self_address, "PYTHONUNBUFFERED": "1", "PYTHONPATH":
            os.pathsep.join(map(str, self.colab.kernel_path)), "PATH": f"{programs}{os.pathsep}{own.get('PATH', '')}",
        }  # fmt: skip

    def end(self, reason: str) -> None:
        """Ends the runtime with all its processes, and breaks every connection to it."""
        if self.ended:
            return
        self.ended, self.ended_s = reason, self.colab.now_s()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        kill_marked(f"BONEAGE_COLAB_VM={self.endpoint}")  # kernels have a process group of their own
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        shutil.rmtree(self._socket.parent, ignore_errors=True)

    def drop_sockets(self) -> None:
        """Ends the websockets, and nothing else."""
        for one in list(self.sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    # -------------------------------------------------------------------------------- wire
    def dial(self) -> socket.socket:
        """A connection to the Jupyter server, as soon as it listens."""
        give_up = time.monotonic() + _START_LIMIT_S
        while self.is_alive and self.process.poll() is None and time.monotonic() < give_up:
            one = socket.socket(socket.AF_UNIX)
            try:
                one.connect(str(self._socket))
            except OSError:
                one.close()
                time.sleep(0.02)
            else:
                return one
        raise Problem(*((404, "notFound", "Not Found") if self.ended else (500, "noJupyter", self._last_words())))

    def _last_words(self) -> str:
        return (self.folder / "jupyter.log").read_text(errors="replace")[-2000:]

    def head_of(self, request: Request) -> bytes:
        """The request's head, for Jupyter: without what opened the proxy."""
        lines = [f"{request.verb} {_inner_target(request)} HTTP/1.1", "Connection: Upgrade"]
        lines += [f"{name}: {value}" for name, value in _inner_headers(request.headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def forward(self, request: Request) -> Stream:
        """Jupyter's own answer; what was on the way when the machine went is torn by the wire."""
        link = http.client.HTTPConnection("localhost")
        link.sock = self.dial()
        headers = dict(_inner_headers(request.headers))
        try:
            link.request(request.verb, _inner_target(request), request.body or None, headers)
            return Stream(link.getresponse(), link)
        except (OSError, http.client.HTTPException) as error:
            link.close()
            raise ConnectionResetError(f"{self.endpoint} is gone") from error

    def is_busy(self) -> bool:
        """Whether a kernel is busy; by default also one without a connected client."""
        if self.colab.needs_connection and not self.sockets:
            return False
        with suppress(OSError, Problem, ValueError, http.client.HTTPException):
            request = Request("GET", self.host, "/api/kernels", {}, b"")
            with closing(self.forward(request)) as answer:
                return any(one["execution_state"] == "busy" for one in json.load(answer.source))
        return False


def _inner_target(request: Request) -> str:
    query = {name: value for name, value in request.query.items() if name not in (TOKEN_FIELD, "token", "authuser")}
    return f"/{quote(request.path)}" + (f"?{urlencode(query)}" if query else "")


def _inner_headers(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP)
