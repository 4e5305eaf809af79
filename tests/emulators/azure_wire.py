"""The Azure emulator's wire: what requests are called, and how errors look."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from emulators.tls import Server
from emulators.wire import Exchange, Fault, HttpProblem, Reply, Stream

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
NAMES = (
    "management.azure.com",
    "login.microsoftonline.com",
    "login.microsoft.com",
    "prices.azure.com",
    "*.api.azureml.ms",
    "*.blob.core.windows.net",
    "localhost",
)


class Problem(HttpProblem):
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
    def is_download(self) -> bool:
        return self.is_blob and self.verb == "GET"

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


class Handler(Exchange):
    def asked(self, body: bytes) -> Request:
        return Request(self.command, self.host, self.path, self.headers, body)

    def problem(self, fault: Fault, text: str = "") -> Problem:
        return Problem(500, "EmulatorBug", text) if text else Problem(int(fault.kind), fault.code, fault.text)

    def told(self, problem: Any, request: Request) -> Reply:
        return _as_blobs_say(problem) if request.is_blob else _as_arm_says(problem)

    def extra_headers(self) -> dict[str, str]:
        date = formatdate(self.server.emulator.now_s(), usegmt=True)
        return {"Date": date, "x-ms-request-id": secrets.token_hex(8)}


def _as_arm_says(problem: Problem) -> Reply:
    return Reply(problem.status, {"error": problem.error}, problem.headers)


def _as_blobs_say(problem: Problem) -> Reply:
    code = problem.code
    if code == _CODES.get(problem.status, ("",))[0]:
        code = _BLOB_CODES.get(problem.status, code)
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    headers = {**problem.headers, "x-ms-error-code": code, "Content-Type": "application/xml"}
    return Reply(problem.status, text.encode(), headers)


__all__ = ["NAMES", "Answer", "Fault", "Handler", "Problem", "Reply", "Request", "Server", "Stream"]
