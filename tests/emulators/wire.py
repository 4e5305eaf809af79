"""An emulator's wire: requests become calls, answers become bytes, and faults spoil either."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from email.utils import formatdate
from fnmatch import fnmatchcase
from typing import Any, Protocol
from urllib.parse import urlsplit

from emulators.tls import Tunnel

PIECE = 1 << 18
_OURS = ("date", "x-ms-request-id", "connection", "keep-alive", "transfer-encoding")


@dataclass
class Fault:
    """What goes wrong with matching calls: `after` of them pass, then `times` of them meet `kind`.

    `method` is a pattern, as in file names, of what `calls` holds: ``PUT jobs/*``, ``* blob *``, ``*``. The kinds:
    a number         that error before any work, with `code` and `text` or what is usual (429 says Retry-After: 1)
    ``500_after``    does the work, then says 500
    ``hang``         no answer until `release` or the end; a download hangs in the middle
    ``hang_after``   does the work, then hangs
    ``reset``        the connection is torn without an answer; a download in the middle
    ``reset_after``  does the work, then tears the connection
    ``truncate``     half of the promised body, then the connection ends
    """

    method: str = "*"
    kind: str = "500"
    times: int = 1
    after: int = 0
    code: str = ""
    text: str = ""


NO_FAULT = Fault(kind="", times=0)


class HttpProblem(Exception):
    """An answer that is an HTTP error; each emulator has its own shape for it."""


@dataclass(frozen=True)
class Reply:
    """An answer with its status; `body` is JSON unless it is bytes, or None for nothing."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """Another server's own answer, passed on piece by piece; `source` is the HTTP response, `link` its connection."""

    source: Any
    link: Any

    def close(self) -> None:
        self.source.close()
        self.link.close()


class Asked(Protocol):
    """What every emulator's request has; a download is spoilt in the middle."""

    @property
    def verb(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def is_download(self) -> bool: ...


class Other:
    """What every other side keeps: the calls that came, the faults to come, the connections that hang."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.refused_hosts: list[str] = []
        self.faults: list[Fault] = []
        self._fault_lock, self._released = threading.Lock(), threading.Event()

    def release(self) -> None:
        """Lets go of the connections that hang; they end without an answer."""
        with self._fault_lock:
            released, self._released = self._released, threading.Event()
        released.set()

    def hold(self) -> None:
        with self._fault_lock:
            released = self._released
        released.wait()

    def note(self, name: str) -> Fault:
        """Books a call, and says what is to go wrong with it."""
        with self._fault_lock:
            self.calls.append(name)
            for fault in [fault for fault in self.faults if fnmatchcase(name, fault.method)]:
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return NO_FAULT


class Exchange(Tunnel):
    """One connection's requests. Subclasses say what a request is and how a problem looks."""

    cut_bytes: int | None = None
    """Where the next body ends, whatever was promised."""

    def asked(self, body: bytes) -> Any:
        """What was asked for, an `Asked`."""
        raise NotImplementedError

    def problem(self, fault: Fault, text: str = "") -> HttpProblem:
        """The error that a fault names by its number; with `text`, a bug of the emulator."""
        raise NotImplementedError

    def told(self, problem: HttpProblem, request: Any) -> Reply:
        """How that error looks to the one who asked."""
        raise NotImplementedError

    def extra_headers(self) -> dict[str, str]:
        return {"Date": formatdate(usegmt=True)}

    # ----------------------------------------------------------------------------- requests
    def do_POST(self) -> None:
        if not self.host:  # a plain request to the proxy: nothing that we play speaks without encryption
            self.read_body()
            self.refuse((urlsplit(self.path).hostname or self.headers.get("Host", "")).lower())
            return
        self.serve(self.asked(self.read_body()))

    do_GET = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_POST

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return b"".join(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def serve(self, request: Any) -> None:
        fault = self.server.emulator.note(request.name)
        if fault.kind in ("hang", "reset") and not request.is_download:
            return self.break_off(fault.kind)
        answer = self._answer(request, fault)
        if fault.kind in ("hang_after", "reset_after"):
            if isinstance(answer, Stream):
                answer.close()
            return self.break_off(fault.kind.removesuffix("_after"))
        return self._send(answer, request, fault.kind)

    def _answer(self, request: Any, fault: Fault) -> Any:
        if fault.kind.isdigit():
            return self.problem(fault)
        try:
            answer = self.server.emulator.answer(request)
        except HttpProblem as problem:
            return problem
        except ConnectionError:
            raise
        except Exception:
            traceback.print_exc()
            return self.problem(Fault(kind="500"), traceback.format_exc())
        if fault.kind != "500_after":
            return answer
        if isinstance(answer, Stream):
            answer.close()
        return self.problem(Fault(kind="500", code=fault.code, text=fault.text))

    # ------------------------------------------------------------------------------ answers
    def _send(self, answer: Any, request: Any, spoilt: str) -> None:
        if isinstance(answer, Stream):
            self._pass_on(answer, request, spoilt)
            return
        if isinstance(answer, HttpProblem):
            answer = self.told(answer, request)
        self.reply(Reply(200, answer) if isinstance(answer, dict) else answer, request, spoilt)

    def reply(self, answer: Reply, request: Any, spoilt: str = "") -> None:
        said = b"" if answer.body is None else answer.body
        kind = {} if isinstance(said, bytes) else {"Content-Type": "application/json; charset=utf-8"}
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self._head(answer.status, {**kind, **answer.headers, "Content-Length": str(len(body))}.items())
        self._body([body], len(body), request, spoilt)

    def _pass_on(self, answer: Stream, request: Any, spoilt: str) -> None:
        source = answer.source
        with closing(answer):
            headers = [one for one in source.getheaders() if one[0].lower() not in _OURS]
            pieces, size = iter(lambda: source.read(PIECE), b""), int(source.getheader("Content-Length") or 0)
            if source.chunked:
                pieces = iter([whole := source.read()])
                size = len(whole)
                headers.append(("Content-Length", str(size)))
            self._head(source.status, headers)
            self._body(pieces, size, request, spoilt)

    def _head(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        self.send_response_only(status)
        for name, value in [*headers, *self.extra_headers().items()]:
            self.send_header(name, value)
        self.end_headers()

    def share(self, size: int, spoilt: str) -> int:
        """How many bytes of a body are sent."""
        if self.cut_bytes is not None:
            return min(self.cut_bytes, size)
        return size // 2 if spoilt in ("truncate", "reset", "hang") else size

    def _body(self, pieces: Iterable[bytes], size: int, request: Any, spoilt: str) -> None:
        if request.verb == "HEAD" or not size:
            return
        left = self.share(size, spoilt)
        for piece in pieces:
            self.wfile.write(piece[:left])
            left -= len(piece)
            if left <= 0:
                break
        if spoilt in ("truncate", "reset", "hang"):
            self.break_off(spoilt)
        elif self.cut_bytes is not None:
            self.break_off("truncate")  # politely: a reset would also take back what was sent
        elif left > 0:
            self.break_off("reset")  # where it came from has gone

    def break_off(self, how: str) -> None:
        self.close_connection = True
        if how == "hang":
            self.server.emulator.hold()
        self.is_torn = how != "truncate"
