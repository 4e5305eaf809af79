"""The Azure emulator's blob store: Microsoft's Azurite, one process for all emulators of this Python."""

from __future__ import annotations

import atexit
import base64
import hashlib
import hmac
import html
import http.client
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from emulators.azure_wire import Problem, Request, Stream
from emulators.azurite import find_azurite, missing

if TYPE_CHECKING:
    from emulators.azure import Azure

_SLOTS = 200
_API = "2021-10-04"
# Azurite has no wish to end with its parent; a pipe that closes, however the parent ends, gives it one.
_ENDS_WITH_US = (
    "process.stdin.resume().on('end', () => { require('fs').rmSync(process.cwd(), {recursive: true, force: true}); "
    "process.exit(); }); const main = process.argv[1]; "
    "process.argv.splice(1, 0, main); process.argv.splice(2, 1); require(main)"
)
_SIGNED_HEADERS = ("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
                   "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range")  # fmt: skip


class Azurite:
    """The process, with many accounts to be taken one by one; `key` opens each of them."""

    _running: Azurite | None = None
    _lock = threading.Lock()

    def __init__(self) -> None:
        if reason := missing():
            raise RuntimeError(reason)
        self.key, self._taken = base64.b64encode(os.urandom(64)).decode(), 0
        self.folder = Path(tempfile.mkdtemp(prefix="azurite-"))
        with socket.create_server(("127.0.0.1", 0)) as one:
            self.port = int(one.getsockname()[1])
        command = [
            "node", "-e", _ENDS_WITH_US, str(find_azurite()), "--blobHost", "127.0.0.1", "--blobPort", str(self.port),
            "--location", str(self.folder), "--disableTelemetry", "--skipApiVersionCheck", "--loose", "--silent",
        ]  # fmt: skip
        accounts = ";".join(f"slot{at:03d}:{self.key}" for at in range(_SLOTS))
        self.process = subprocess.Popen(
            command, env={**os.environ, "AZURITE_ACCOUNTS": accounts}, cwd=self.folder, stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        atexit.register(self.close)
        self._wait()

    @classmethod
    def shared(cls) -> Azurite:
        with cls._lock:
            if cls._running is None or cls._running._taken >= _SLOTS or cls._running.process.poll() is not None:
                cls._running = cls()
            return cls._running

    def take(self) -> str:
        """An unused account."""
        with self._lock:
            self._taken += 1
            return f"slot{self._taken - 1:03d}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> None:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError("Azurite does not start")


class Blobs:
    """The storage accounts of one emulator, each one of Azurite's under another name."""

    def __init__(self, azure: Azure) -> None:
        self.azure, self._azurite = azure, Azurite.shared()
        self._slots: dict[str, str] = {}
        self._dead: set[str] = set()
        self._given: set[str] = set()

    @property
    def key(self) -> str:
        return self._azurite.key

    def __contains__(self, account: object) -> bool:
        return account in self._slots

    def add(self, account: str) -> None:
        self._slots.setdefault(account, self._azurite.take())

    def remove(self, account: str) -> None:
        self._slots.pop(account, None)

    # ------------------------------------------------------------------------------- our own use
    def make_container(self, account: str, container: str) -> None:
        self._do("PUT", account, container, restype="container")

    def put(self, account: str, container: str, name: str, body: bytes | BinaryIO) -> None:
        self._do("PUT", account, f"{container}/{name}", body, {"x-ms-blob-type": "BlockBlob"})

    def start_log(self, account: str, container: str, name: str) -> None:
        self._do("PUT", account, f"{container}/{name}", b"", {"x-ms-blob-type": "AppendBlob"})

    def append(self, account: str, container: str, name: str, body: bytes) -> None:
        self._do("PUT", account, f"{container}/{name}", body, {}, comp="appendblock")

    def delete(self, account: str, container: str, name: str) -> None:
        self._do("DELETE", account, f"{container}/{name}")

    def get(self, account: str, container: str, name: str) -> bytes:
        return self._do("GET", account, f"{container}/{name}")

    def fetch(self, account: str, container: str, name: str, path: Path) -> None:
        """A blob as a file, which need not fit into memory."""
        target = f"/{quote(f'{container}/{name}')}?{urlencode(self._pass(account))}"
        with closing(self._send("GET", account, target, b"", {})) as answer, open(path, "wb") as stream:
            if answer.source.status != 200:
                raise FileNotFoundError(f"{name}: {answer.source.status}")
            shutil.copyfileobj(answer.source, stream, 1 << 20)

    def names(self, account: str, container: str, prefix: str = "") -> list[str]:
        """All names that begin so, in order."""
        found: list[str] = []
        marker = ""
        while True:
            asked = {"restype": "container", "comp": "list", "prefix": prefix, "marker": marker}
            text = self._do("GET", account, container, **asked).decode()
            found += [html.unescape(name) for name in re.findall("<Name>(.*?)</Name>", text)]
            marker = next(iter(re.findall("<NextMarker>(.*?)</NextMarker>", text)), "")
            if not marker:
                return found

    def _do(
        self,
        verb: str,
        account: str,
        place: str,
        body: bytes | BinaryIO = b"",
        head: Mapping[str, str] | None = None,
        **query: str,
    ) -> bytes:
        target = f"/{quote(place)}?{urlencode({**query, **self._pass(account)})}"
        with closing(self._send(verb, account, target, body, head or {})) as answer:
            said: bytes = answer.source.read()
        if answer.source.status >= 300 and answer.source.status != 409:
            raise KeyError(f"{verb} {place}: {answer.source.status} {said[:300]!r}")
        return said

    def _send(self, verb: str, account: str, target: str, body: bytes | BinaryIO, head: Mapping[str, str]) -> Stream:
        """Over a connection of its own: on the loopback that costs little, and nothing has to be tidied up."""
        size = len(body) if isinstance(body, bytes) else os.fstat(body.fileno()).st_size
        head = {**head, "Host": f"{self._slots[account]}.blob.core.windows.net", "Content-Length": str(size)}
        link = http.client.HTTPConnection("127.0.0.1", self._azurite.port, timeout=60)
        try:
            link.request(verb, target, body, head)
            return Stream(link.getresponse(), link)
        except BaseException:
            link.close()
            raise

    # ----------------------------------------------------------------------------------- signatures
    def sas(self, account: str, container: str, rights: str = "racwdl", life_s: float | None = None) -> str:
        """A token for one container, as `listSecrets` gives it."""
        ends = _iso(time.time() + (self.azure.sas_life_s if life_s is None else life_s))
        begins = _iso(time.time() - 900 - len(self._given))  # no two are the same, not even in one second
        said = {"sv": _API, "sr": "c", "st": begins, "se": ends, "sp": rights, "spr": "https,http"}
        place = f"/blob/{self._slots[account]}/{container}"
        lines = [rights, said["st"], ends, place, "", "", said["spr"], _API, "c", *[""] * 7]
        token = urlencode({**said, "sig": self._sign("\n".join(lines))})
        self._given.add(token)
        return token

    def expire_sas(self) -> None:
        """No token given so far opens anything any more."""
        self._dead |= {dict(parse_qsl(token))["sig"] for token in self._given}

    def _pass(self, account: str) -> dict[str, str]:
        """What opens the whole account; for us, and for those whose own pass was found to be good."""
        ends = _iso(time.time() + 3600)
        said = {"sp": "rwdlac", "ss": "b", "srt": "sco", "se": ends, "spr": "https,http", "sv": _API}
        lines = [self._slots[account], said["sp"], "b", "sco", "", ends, "", said["spr"], _API, "", ""]
        return {**said, "sig": self._sign("\n".join(lines))}

    def _sign(self, text: str) -> str:
        made = hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()
        return base64.b64encode(made).decode()

    # -------------------------------------------------------------------------------------- the wire
    def forward(self, request: Request) -> Stream:
        """Azurite's own answer; it checks SAS tokens, all other ways in are checked here."""
        if request.account not in self._slots:
            raise Problem(404, "ResourceNotFound")
        target, way = request.target, request.headers.get("Authorization", "")
        if way:
            self._check(request, way)
            target += ("&" if "?" in target else "?") + urlencode(self._pass(request.account))
        elif request.query.get("sig") in self._dead:
            raise Problem(403, "AuthenticationFailed")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        return self._send(request.verb, request.account, target, request.body, headers)

    def _check(self, request: Request, way: str) -> None:
        if way.startswith("Bearer "):
            return self.azure.login.check(way, "https://storage.azure.com")
        sent = parsedate_to_datetime(request.headers.get("x-ms-date") or request.headers["Date"]).timestamp()
        if abs(sent - self.azure.now_s()) > 900:
            raise Problem(403, "AuthenticationFailed", "Request date header too old or too new")
        if way != f"SharedKey {request.account}:{self._sign(_said(request))}":
            raise Problem(403, "AuthenticationFailed")
        return None


_HOP = ("host", "authorization", "connection", "content-length", "transfer-encoding")


def _said(request: Request) -> str:
    """What a client with the account's key signs."""
    lines = [request.verb, *(request.headers.get(name, "") for name in _SIGNED_HEADERS)]
    if lines[3] == "0":
        lines[3] = ""
    own = {name.lower(): value.strip() for name, value in request.headers.items() if name.lower().startswith("x-ms-")}
    lines += [f"{name}:{own[name]}" for name in sorted(own)]
    lines.append(f"/{request.account}{urlsplit(request.target).path}")
    lines += [f"{name.lower()}:{unquote(value)}" for name, value in sorted(request.query.items())]
    return "\n".join(lines)


def _iso(when_s: float) -> str:
    return datetime.fromtimestamp(when_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
