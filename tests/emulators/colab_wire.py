"""The Colab emulator's wire: which host serves what, the format of its errors, and the connection to a runtime."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from emulators.tls import Server
from emulators.wire import Exchange, Fault, HttpProblem, Reply, Stream

REGION = "us-central1-0.prod.colab.dev"
"""The domain of the runtimes' host names."""
BACKEND, BACKEND_API = "colab.research.google.com", "colab.pa.googleapis.com"
LOGIN, DRIVE = "oauth2.googleapis.com", "www.googleapis.com"
HOSTS = {BACKEND: "backend", BACKEND_API: "backend", LOGIN: "login", DRIVE: "drive"}
NAMES = (*HOSTS, f"*.{REGION}", "localhost")
XSSI = b")]}'\n"
TOKEN_HEADER, TOKEN_FIELD = "X-Colab-Runtime-Proxy-Token", "colab-runtime-proxy-token"

_USUAL = {
    400: ("badRequest", "The request is not valid."),
    401: ("authError", "Invalid Credentials"),
    403: ("rateLimitExceeded", "Rate Limit Exceeded"),
    404: ("notFound", "Not found."),
    412: ("conditionNotMet", "Precondition Failed"),
    429: ("rateLimitExceeded", "Rate Limit Exceeded"),
    500: ("internalError", "Internal Error"),
    503: ("backendError", "The service is currently unavailable."),
}


class Problem(HttpProblem):
    """An answer that is an HTTP error; `code` is Google's reason."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        usual = _USUAL.get(status, ("error", "Error"))
        self.status, self.code, self.message = status, code or usual[0], message or usual[1]
        super().__init__(f"{self.code}: {self.message}")


Answer = dict[str, Any] | Reply | Stream


@dataclass(frozen=True)
class Request:
    verb: str
    host: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path).strip("/")

    @cached_property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def face(self) -> str:
        """Which service is requested: backend, login, drive or runtime."""
        return HOSTS.get(self.host, "runtime")

    @property
    def is_websocket(self) -> bool:
        return self.face == "runtime" and self.headers.get("Upgrade", "").lower() == "websocket"

    @property
    def is_media(self) -> bool:
        """Whether a Drive file's bytes are requested."""
        return self.face == "drive" and self.verb == "GET" and self.query.get("alt") == "media"

    @property
    def is_download(self) -> bool:
        if self.face == "runtime":
            return self.verb == "GET" and self.path.startswith(("files/", "api/contents"))
        return self.is_media

    @property
    def proxy_token(self) -> str:
        """The runtime's token."""
        return self.headers.get(TOKEN_HEADER) or self.query.get(TOKEN_FIELD, "")

    @cached_property
    def name(self) -> str:
        """The name of this call in `calls` and faults."""
        if self.face == "runtime":
            return f"{'WS' if self.is_websocket else self.verb} runtime {self.path}"
        if self.face == "drive":
            place = self.path.replace("upload/drive/v3/files", "upload").removeprefix("drive/v3/")
            return f"{self.verb} drive {place.replace('files/', 'media/') if self.is_media else place}"
        parts = [part for part in self.path.split("/") if part not in ("tun", "m", "v1")]
        return f"{self.verb} {parts[0] if parts else ''}"

    @property
    def json(self) -> dict[str, Any]:
        try:
            said = json.loads(self.body or b"{}")
        except ValueError:
            raise Problem(400, "parseError", "Parse Error") from None
        if not isinstance(said, dict):
            raise Problem(400, "parseError", "Parse Error")
        return said


class Handler(Exchange):
    _may_cut = False

    def asked(self, body: bytes) -> Request:
        return Request(self.command, self.host, self.path, self.headers, body)

    def problem(self, fault: Fault, text: str = "") -> Problem:
        return Problem(500, "emulatorBug", text) if text else Problem(int(fault.kind), fault.code, fault.text)

    def told(self, problem: Any, request: Request) -> Reply:
        more = {"Retry-After": "1"} if problem.status == 429 else {}
        if request.face == "login":
            body: Any = {"error": problem.code, "error_description": problem.message}
        elif request.face == "drive":
            one = {"domain": "global", "reason": problem.code, "message": problem.message}
            body = {"error": {"code": problem.status, "message": problem.message, "errors": [one]}}
        else:
            body = f"{problem.message}\n".encode()
        return Reply(problem.status, body, more)

    def do_POST(self) -> None:
        found = self.server.emulator.vm_by_address(self.path) if not self.host else None
        if found is None:
            super().do_POST()
            return
        self.read_body()  # google.colab.runtime.unassign(), asked from inside the machine
        self.server.emulator.note("POST self-unassign")
        self.reply(Reply(200, {}), self.asked(b""))
        found.end("unassigned")

    do_GET = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_POST

    def serve(self, request: Request) -> None:
        self.cut_bytes, self._may_cut = None, request.is_download
        try:
            self._tunnel(request) if request.is_websocket else super().serve(request)
        except (ConnectionError, HTTPException):  # the machine has gone, or the client
            self.break_off("reset")

    def share(self, size: int, spoilt: str) -> int:
        self.cut_bytes = self.server.emulator.next_cut(size) if self._may_cut else None
        return super().share(size, spoilt)

    # --------------------------------------------------------------------------- websockets
    def _tunnel(self, request: Request) -> None:
        """Joins the client to the machine's Jupyter until either leaves; all frames pass as they are."""
        emulator = self.server.emulator
        fault = emulator.note(request.name)
        if fault.kind in ("hang", "reset"):
            return self.break_off(fault.kind)
        try:
            vm = emulator.vms.opened_by(request)
            if fault.kind.isdigit():
                raise self.problem(fault)
            inner = vm.dial()
        except Problem as problem:
            return self.reply(self.told(problem, request), request)
        self.close_connection = True
        with inner:
            inner.sendall(vm.head_of(request))
            vm.sockets.add(inner)
            try:
                self._join(inner)
            finally:
                vm.sockets.discard(inner)
        self.is_torn = not vm.is_alive
        return None

    def _join(self, inner: socket.socket) -> None:
        """One thread for both ways: an encrypted socket is not for two."""
        outer, ends = self.connection, {self.connection: inner, inner: self.connection}
        with suppress(OSError):
            while True:
                ready = [outer] if outer.pending() else select.select(list(ends), [], [])[0]
                for end in ready:
                    piece = end.recv(1 << 16)
                    if not piece:
                        return
                    ends[end].sendall(piece)


__all__ = ["NAMES", "Answer", "Fault", "Handler", "Problem", "Reply", "Request", "Server", "Stream"]
