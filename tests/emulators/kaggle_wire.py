"""The Kaggle emulator's wire: requests become calls, answers become bytes, and faults spoil either."""

from __future__ import annotations

import email.utils
import json
import re
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from emulators.kaggle import Kaggle

_RPC = re.compile(r"(?:/api)?/v1/(\w+\.\w+)/(\w+)")
_STREAM = re.compile(r"(?:/api)?/v1/kernels/logs/stream/([^/]+)/([^/]+)")
_STATUS = {
    400: ("INVALID_ARGUMENT", "Bad request"),
    401: ("UNAUTHENTICATED", "Unauthenticated"),
    403: ("PERMISSION_DENIED", "Permission 'kernels.get' was denied"),
    404: ("NOT_FOUND", "Not found"),
    429: ("RESOURCE_EXHAUSTED", "Too many requests"),
    503: ("UNAVAILABLE", "Service unavailable"),
}
MOST_PER_PAGE = 200
T = TypeVar("T")


@dataclass
class Fault:
    """What goes wrong with matching calls: `after` of them pass, then `times` of them meet `kind`.

    `method` is a call's name, ``download``, ``upload``, ``stream`` or ``*``. The kinds:
    a number         that error, before any work (429 says Retry-After: 1; an upload's 503 keeps half the body)
    ``500_after``    does the work, then says 500
    ``hang``         no answer until `release` or the end; a download or stream hangs in the middle
    ``hang_after``   does the work, then hangs
    ``reset``        the connection is torn without an answer; a download, stream or upload in the middle
    ``reset_after``  does the work, then tears the connection
    ``truncate``     half of the promised body, then a polite close
    ``refuse``       200, with the fields that say no and `text`
    """

    method: str = "*"
    kind: str = "500"
    times: int = 1
    after: int = 0
    text: str = "The emulator was told to refuse."


NO_FAULT = Fault(kind="", times=0)


class Problem(Exception):
    """An answer that is an HTTP error, in the shape the API gives it."""

    def __init__(self, code: int, message: str = "", headers: Mapping[str, str] | None = None) -> None:
        status, text = _STATUS.get(code, ("INTERNAL", "Internal error"))
        self.code, self.headers = code, dict(headers or {})
        if code == 429:
            self.headers["Retry-After"] = "1"
        self.body = {"error": {"code": code, "message": message or text, "status": status}}
        super().__init__(message or text)


@dataclass(frozen=True)
class Reply:
    """An answer that is neither a file nor a stream nor simply JSON."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Live:
    """Server-sent events, sent as they come."""

    events: Iterator[dict[str, Any]]


Answer = dict[str, Any] | list[Any] | Path | Reply | Live | Problem


def redirect(url: str) -> Reply:
    return Reply(302, {"Location": url})


def refusal(text: str) -> dict[str, Any]:
    """How a save is refused: with HTTP 200."""
    nothing = {"ref": "", "url": "", "versionNumber": 0, "kernelId": 0}
    return {"errorNullable": text, "error": text, "hasError": True, **nothing}


def page_of(items: Sequence[T], asked: Mapping[str, Any], default: int = 20) -> tuple[Sequence[T], dict[str, str]]:
    """The asked page, and the field that leads to the next one if there is one."""
    size = min(int(asked.get("pageSize") or default), MOST_PER_PAGE)
    first = int(asked.get("pageToken") or 0) or size * (int(asked.get("page") or 1) - 1)
    follows = {"nextPageToken": str(first + size)} if first + size < len(items) else {}
    return items[first : first + size], follows


@dataclass(frozen=True)
class Request:
    command: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def rpc(self) -> tuple[str, str] | None:
        """Service and method."""
        found = _RPC.fullmatch(self.path) if self.command == "POST" else None
        return (found[1], found[2]) if found else None

    @property
    def stream(self) -> tuple[str, str] | None:
        """Owner and slug of the kernel whose log is asked for."""
        found = _STREAM.fullmatch(self.path) if self.command == "GET" else None
        return (unquote(found[1]), unquote(found[2])) if found else None

    @property
    def name(self) -> str:
        """What `calls` and faults name this call."""
        if self.rpc:
            return "stream" if self.rpc[1] == "GetKernelSessionLogsStream" else self.rpc[1]
        if self.stream:
            return "stream"
        kind = {"/signed/": "download", "/blobs/": "upload"}
        return next((name for start, name in kind.items() if self.path.startswith(start)), self.path)

    @property
    def json(self) -> dict[str, Any]:
        try:
            said = json.loads(self.body)
        except ValueError:
            raise Problem(400, "The body is not JSON.") from None
        if not isinstance(said, dict):
            raise Problem(400, "The body is not a JSON object.")
        return said


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: else each answer waits 40 ms
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self._serve(self._read())

    do_GET = do_PUT = do_POST

    def _read(self) -> Request:
        url = urlsplit(self.path)  # a proxy is asked for whole addresses
        return Request(self.command, url.path, dict(parse_qsl(url.query)), self.headers, self._read_body())

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _serve(self, request: Request) -> None:
        fault = self.server.kaggle.note(request.name)
        if request.name == "upload" and fault.kind in ("503", "reset"):
            self._answer(replace(request, body=request.body[: len(request.body) // 2]), NO_FAULT)
        if fault.kind in ("hang", "reset") and request.name not in ("download", "stream"):
            return self._break_off(fault.kind)
        answer = self._answer(request, fault)
        if fault.kind in ("hang_after", "reset_after"):
            return self._break_off(fault.kind.removesuffix("_after"))
        return self._send(answer, request, fault.kind)

    def _answer(self, request: Request, fault: Fault) -> Answer:
        if fault.kind.isdigit():
            return Problem(int(fault.kind))
        if fault.kind == "refuse":
            return {**refusal(fault.text), "errorMessage": fault.text, "status": "error"}
        try:
            answer = self.server.kaggle.answer(request)
        except Problem as problem:
            return problem
        except Exception:
            traceback.print_exc()
            return Problem(500, traceback.format_exc())
        return Problem(500) if fault.kind == "500_after" else answer

    # ------------------------------------------------------------------------------ answers
    def _send(self, answer: Answer, request: Request, spoilt: str) -> None:
        if isinstance(answer, Live):
            self._send_live(answer, spoilt)
        elif isinstance(answer, Path):
            self._send_file(answer, request.headers, spoilt)
        elif isinstance(answer, Reply):
            self._put(answer.code, answer.headers, answer.body, spoilt)
        elif isinstance(answer, Problem):
            self._put_json(answer.code, answer.headers, answer.body, spoilt)
        else:
            self._put_json(200, {}, answer, spoilt)

    def _put_json(self, code: int, headers: dict[str, str], said: Any, spoilt: str) -> None:
        kind = {"Content-Type": "application/json; charset=utf-8"}
        self._put(code, {**headers, **kind}, json.dumps(said).encode(), spoilt)

    def _put(self, code: int, headers: Mapping[str, str], body: bytes, spoilt: str = "") -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if spoilt in ("truncate", "reset", "hang"):
            self.wfile.write(body[: len(body) // 2])
            self._break_off(spoilt)
        else:
            self.wfile.write(body)

    def _send_file(self, path: Path, asked: Mapping[str, str], spoilt: str) -> None:
        """The file, or the part from `Range` on, unless it is no longer the one named by `If-Range`."""
        body, changed_ns = path.read_bytes(), path.stat().st_mtime_ns
        mark = f'"{changed_ns:x}-{len(body):x}"'
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": mark,
                   "Last-Modified": email.utils.formatdate(changed_ns / 1e9, usegmt=True)}  # fmt: skip
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.get("Range", ""))
        if part is None or asked.get("If-Range", mark) not in (mark, headers["Last-Modified"]):
            return self._put(200, headers, body, spoilt)
        first, last = int(part[1]), min(int(part[2] or len(body)), len(body) - 1)
        if first >= len(body):
            return self._put(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        return self._put(206, headers, body[first : last + 1], spoilt)

    def _send_live(self, live: Live, spoilt: str) -> None:
        """Events one by one; a spoilt stream ends with its first event."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in live.events:
            self._chunk(json.dumps(event, ensure_ascii=False))  # the harder guess for those who decode
            if spoilt:
                break
        if spoilt:
            self._break_off(spoilt)
        else:
            self._chunk("END_OF_LOG")
            self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, event: str) -> None:
        data = f"data: {event}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _break_off(self, how: str) -> None:
        self.close_connection = True
        if how == "hang":
            self.server.kaggle.hold()
        if how != "truncate":
            self.server.torn.add(self.connection)


class Server(ThreadingHTTPServer):
    """Listens until closed; `torn` connections end with a reset instead of a goodbye."""

    def __init__(self, kaggle: Kaggle) -> None:
        self.kaggle, self.torn, self.open = kaggle, set[Any](), set[Any]()
        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would ask the name service

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        if request not in self.torn:
            return super().shutdown_request(request)
        self.torn.discard(request)
        request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # clients may leave as they please
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Ends it, and the connections that clients keep for later."""
        self.shutdown()
        self.thread.join()
        self.server_close()
        for request in list(self.open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
