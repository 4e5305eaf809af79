"""The Azure emulator's wire: requests get names, answers become bytes, and faults spoil either."""

from __future__ import annotations

import json
import re
import secrets
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from emulators.azure_tls import Server, Tunnel

_WORKSPACE = re.compile(r".*/providers/Microsoft\.MachineLearningServices/workspaces/[^/]+/(.+)", re.I)
_PROVIDER = re.compile(r".*/providers/[\w.]+/(.+)", re.I)
_SUBSCRIPTION = re.compile(r"/subscriptions/[^/]+/(.+)", re.I)
_CODES = {
    400: ("BadRequest", "The request is invalid."),
    401: ("InvalidAuthenticationToken", "The access token is missing, expired or not valid."),
    403: ("RequestDisallowedByAzure", "Resource was disallowed by Azure: this policy maintains a set of best available "
          "regions where your subscription can deploy resources."),
    404: ("ResourceNotFound", "The resource was not found."),
    409: ("Conflict", "The request conflicts with the state of the resource."),
    429: ("TooManyRequests", "The request is throttled."),
    500: ("InternalServerError", "Something went wrong on our side."),
    503: ("ServiceUnavailable", "The service is busy."),
}  # fmt: skip
_BLOB_CODES = {401: "NoAuthenticationInformation", 403: "AuthenticationFailed", 404: "BlobNotFound",
               409: "LeaseIdMissing", 429: "TooManyRequests", 500: "InternalError", 503: "ServerBusy"}  # fmt: skip
_PIECE = 1 << 18


@dataclass
class Fault:
    """What goes wrong with matching calls: `after` of them pass, then `times` of them meet `kind`.

    `method` is a pattern, as in file names, of what `calls` holds: ``PUT jobs/*``, ``* blob *``, ``*``. The kinds:
    a number         that error before any work, with `code` and `text` or what is usual (429 says Retry-After: 1)
    ``500_after``    does the work, then says 500
    ``hang``         no answer until `release` or the end; a blob's download hangs in the middle
    ``hang_after``   does the work, then hangs
    ``reset``        the connection is torn without an answer; a blob's download in the middle
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


class Problem(Exception):
    """An answer that is an HTTP error, in ARM's shape."""

    def __init__(
        self, status: int, code: str = "", message: str = "", headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        usual = _CODES.get(status, ("Error", "Error"))
        self.status, self.code, self.message = status, code or usual[0], message or usual[1]
        self.headers, self.more = dict(headers or {}), more
        if status == 429:
            self.headers.setdefault("Retry-After", "1")
            self.headers["x-ms-ratelimit-microsoft.costmanagement-qpu-retry-after"] = "1"
        if status == 401:
            self.headers["WWW-Authenticate"] = (
                'Bearer authorization_uri="https://login.microsoftonline.com/common", error="invalid_token"'
            )
        super().__init__(f"{self.code}: {self.message}")

    @property
    def error(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, **self.more}


@dataclass(frozen=True)
class Reply:
    """An answer with its status; `body` is JSON unless it is bytes, or None for nothing."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """A blob store's own answer, passed on piece by piece; `source` is the HTTP response, `link` its connection."""

    source: Any
    link: Any

    def close(self) -> None:
        self.source.close()
        self.link.close()


Answer = dict[str, Any] | Reply | Stream | Problem


@dataclass(frozen=True)
class Request:
    verb: str
    host: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path).rstrip("/")

    @cached_property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def is_blob(self) -> bool:
        return self.host.endswith(".blob.core.windows.net")

    @property
    def account(self) -> str:
        """The storage account that is asked."""
        return self.host.partition(".")[0]

    @cached_property
    def name(self) -> str:
        """What `calls` and faults name this call: the verb, and what matters of the place."""
        if self.is_blob:
            return f"{self.verb} blob {self.path.lstrip('/')}"
        if self.host.startswith("login."):
            return f"{self.verb} login {self.path.rpartition('/')[2]}"
        if self.host == "prices.azure.com":
            return f"{self.verb} prices"
        if self.host.endswith(".api.azureml.ms"):
            return f"{self.verb} history {self.path.rpartition('/workspaces/')[2].partition('/')[2] or self.path}"
        found = next((one for way in (_WORKSPACE, _PROVIDER, _SUBSCRIPTION) if (one := way.fullmatch(self.path))), None)
        return f"{self.verb} {found[1] if found else self.path.lstrip('/')}"

    @property
    def json(self) -> dict[str, Any]:
        try:
            said = json.loads(self.body)
        except ValueError:
            raise Problem(400, "InvalidRequestContent", "The request content was invalid: it is not JSON.") from None
        if not isinstance(said, dict):
            raise Problem(400, "InvalidRequestContent", "The request content was invalid: it is not an object.")
        return said


class Handler(Tunnel):
    def do_POST(self) -> None:
        if not self.host:  # a plain request to the proxy: nothing that we play speaks without encryption
            self._read_body()
            self.refuse((urlsplit(self.path).hostname or self.headers.get("Host", "")).lower())
            return
        request = Request(self.command, self.host, self.path, self.headers, self._read_body())
        self._serve(request)

    do_GET = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_POST

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return b"".join(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _serve(self, request: Request) -> None:
        fault = self.server.emulator.note(request.name)
        in_the_middle = request.is_blob and request.verb == "GET"
        if fault.kind in ("hang", "reset") and not in_the_middle:
            return self._break_off(fault.kind)
        answer = self._answer(request, fault)
        if fault.kind in ("hang_after", "reset_after"):
            if isinstance(answer, Stream):
                answer.close()
            return self._break_off(fault.kind.removesuffix("_after"))
        return self._send(answer, request, fault.kind)

    def _answer(self, request: Request, fault: Fault) -> Answer:
        if fault.kind.isdigit():
            return Problem(int(fault.kind), fault.code, fault.text)
        try:
            answer: Answer = self.server.emulator.answer(request)
        except Problem as problem:
            return problem
        except Exception:
            traceback.print_exc()
            return Problem(500, "EmulatorBug", traceback.format_exc())
        if fault.kind != "500_after":
            return answer
        if isinstance(answer, Stream):
            answer.close()
        return Problem(500, fault.code, fault.text)

    # ------------------------------------------------------------------------------ answers
    def _send(self, answer: Answer, request: Request, spoilt: str) -> None:
        if isinstance(answer, Stream):
            self._pass_on(answer, request, spoilt)
            return
        if isinstance(answer, Problem):
            answer = _as_blobs_say(answer) if request.is_blob else _as_arm_says(answer)
        if isinstance(answer, dict):
            answer = Reply(200, answer)
        said = b"" if answer.body is None else answer.body
        kind = {} if isinstance(said, bytes) else {"Content-Type": "application/json; charset=utf-8"}
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self._head(answer.status, {**kind, **answer.headers, "Content-Length": str(len(body))}.items())
        self._body([body], len(body), request, spoilt)

    def _pass_on(self, answer: Stream, request: Request, spoilt: str) -> None:
        source = answer.source
        with closing(answer):
            headers = [one for one in source.getheaders() if one[0].lower() not in _OURS]
            pieces, size = iter(lambda: source.read(_PIECE), b""), int(source.getheader("Content-Length") or 0)
            if source.chunked:
                pieces = iter([whole := source.read()])
                size = len(whole)
                headers.append(("Content-Length", str(size)))
            self._head(source.status, headers)
            self._body(pieces, size, request, spoilt)

    def _head(self, status: int, headers: Any) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Date", formatdate(self.server.emulator.now_s(), usegmt=True))
        self.send_header("x-ms-request-id", secrets.token_hex(8))
        self.end_headers()

    def _body(self, pieces: Any, size: int, request: Request, spoilt: str) -> None:
        if request.verb == "HEAD":
            return
        left = size // 2 if spoilt in ("truncate", "reset", "hang") else size
        for piece in pieces:
            self.wfile.write(piece[:left])
            left -= len(piece)
            if left <= 0:
                break
        if spoilt in ("truncate", "reset", "hang"):
            self._break_off(spoilt)

    def _break_off(self, how: str) -> None:
        self.close_connection = True
        if how == "hang":
            self.server.emulator.hold()
        self.is_torn = how != "truncate"


_OURS = ("date", "x-ms-request-id", "connection", "keep-alive", "transfer-encoding")


def _as_arm_says(problem: Problem) -> Reply:
    return Reply(problem.status, {"error": problem.error}, problem.headers)


def _as_blobs_say(problem: Problem) -> Reply:
    code = problem.code
    if code == _CODES.get(problem.status, ("",))[0]:
        code = _BLOB_CODES.get(problem.status, code)
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    headers = {**problem.headers, "x-ms-error-code": code, "Content-Type": "application/xml"}
    return Reply(problem.status, text.encode(), headers)


__all__ = ["NO_FAULT", "Answer", "Fault", "Handler", "Problem", "Reply", "Request", "Server", "Stream"]
