"""One Colab runtime as a Jupyter server: files up and down, one kernel, and what it is doing.

Files are transferred in pieces and are never whole in memory. A token is valid for one hour: after a 401 it is renewed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from boneagectl.errors import MachineError, NotFound, ProviderRefused, Unreachable
from boneagectl.targets import http
from boneagectl.targets.colab.colab_cli import RuntimeAccess

PIECE_BYTES = 4 << 20
"""Of a file, for one request: base64 and JSON take several times that in memory."""
_SOCKET_TIMEOUT_S = 60.0

T = TypeVar("T")


class RuntimeGone(ProviderRefused):
    """The account no longer has this runtime."""


class _TokenRejected(ProviderRefused):
    """The token has expired, or was rotated."""


def _own_error(response: Any, message: str) -> ProviderRefused | None:
    return _TokenRejected(message, _DOCTOR) if response.status_code in (401, 403) else None


_DOCTOR = "boneagectl doctor --target colab"
_RUNTIME = http.Provider("the Colab runtime", sign_in=_DOCTOR, refused=_DOCTOR, own_error=_own_error)


def check_dependencies() -> None:
    """Raises MachineError where a package that talks to runtimes is missing: before a runtime is billed."""
    for name in ("requests", "websocket"):
        if importlib.util.find_spec(name) is None:
            raise MachineError(f"Colab's CLI mode needs the module {name}", "pip install 'boneagectl[colab]'")


class RuntimeClient:
    """Uses `access`; `renew` gives a new one, and raises `RuntimeGone` where the runtime does not exist any more."""

    def __init__(self, access: RuntimeAccess, renew: Callable[[], RuntimeAccess]) -> None:
        self._renew = renew
        self._session = http.session(repeatable=http.IDEMPOTENT | {"POST"})
        self._session.max_redirects = 0  # another host must not get the token
        self._set_access(access)

    def close(self) -> None:
        self._session.close()

    def _set_access(self, access: RuntimeAccess) -> None:
        self._access = access
        self._session.headers.update(token_header(access))

    # ------------------------------------------------------------------------------------- requests
    def _request(self, verb: str, path: str, **options: Any) -> Any:
        """The parsed body of the response.

        Raises:
            NotFound: 404. ProviderRefused: another refusal. RuntimeGone, Unreachable: no answer after retries.
        """

        def send() -> Any:
            with http.translated_errors(_RUNTIME, f"{verb} {path}"):
                response = self._session.request(verb, f"{self._access.url}/{path}", **options)
                response.raise_for_status()
                return response.json() if response.content else {}

        return self._renewing(send)

    def _renewing(self, send: Callable[[], T]) -> T:
        """Renews a rejected token once; without an answer, finds out whether the runtime still exists."""
        try:
            return send()
        except _TokenRejected:
            self._set_access(self._renew())
        except Unreachable:
            self._set_access(self._renew())
            raise
        return send()

    # -------------------------------------------------------------------------------------- files
    def create_folder(self, path: str) -> None:
        """Repeatable."""
        self._request("PUT", _contents(path), json={"type": "directory"})

    def upload(self, source: Path, path: str) -> None:
        """Uploads a file in pieces.

        Raises:
            Unreachable: it did not arrive complete after several attempts.
        """
        size = source.stat().st_size

        def send() -> None:
            arrived = self._upload_once(source, size, path)
            if arrived != size:
                message = f"{source.name} arrived with {arrived} of {size} bytes"
                raise http.Transient(Unreachable(message, _RUNTIME.later))

        http.repeat(send, http.retry_policy())

    def _upload_once(self, source: Path, size: int, path: str) -> int:
        """The size on the runtime. A piece whose answer was lost is sent twice, and is then in the file twice."""
        answer: dict[str, Any] = {}
        with open(source, "rb") as stream:
            for number in range(1, max(1, -(-size // PIECE_BYTES)) + 1):
                piece = stream.read(PIECE_BYTES)
                chunk = {} if size <= PIECE_BYTES else {"chunk": -1 if stream.tell() >= size else number}
                answer = self._put(path, piece, **chunk)
        return int(answer.get("size") or 0)

    def write_file(self, path: str, content: bytes) -> None:
        self._put(path, content)

    def _put(self, path: str, content: bytes, **chunk: int) -> dict[str, Any]:
        body = {"type": "file", "format": "base64", "content": base64.b64encode(content).decode(), **chunk}
        return dict(self._request("PUT", _contents(path), json=body))

    def read_file(self, path: str) -> bytes:
        """A small file; empty where there is none."""
        try:
            return self._renewing(lambda: http.read_bytes(self._session, self._file_url(path), f"GET {path}", _RUNTIME))
        except NotFound:
            return self._load_content(path) or b""

    def _file_url(self, path: str) -> str:
        return f"{self._access.url}/files/{quote(path)}"

    def _load_content(self, path: str) -> bytes | None:
        """As Google's CLI loads files, in case the streaming route is closed: the file is whole in memory."""
        try:
            answer = self._request("GET", f"{_contents(path)}?type=file&format=base64&content=1")
        except NotFound:
            return None
        return base64.b64decode(answer.get("content") or "")

    def list_files(self, path: str) -> list[str]:
        """The files below the folder, by their names relative to it; empty where there is no such folder."""
        try:
            entries = self._request("GET", f"{_contents(path)}?type=directory&content=1").get("content") or []
        except NotFound:
            return []
        names = []
        for entry in entries:
            name = str(entry["name"])
            if entry["type"] == "directory":
                names += [f"{name}/{below}" for below in self.list_files(f"{path}/{name}")]
            else:
                names.append(name)
        return sorted(names)

    def download(self, path: str, dest: Path) -> str:
        """Downloads a file to `dest`, and returns its sha256; after a broken connection it resumes or starts again.

        Raises:
            NotFound: there is no such file. Unreachable: the connection broke several times.
        """
        try:
            return self._renewing(lambda: http.download(self._session, self._file_url(path), dest, _RUNTIME))
        except NotFound:
            content = self._load_content(path)
            if content is None:
                raise
            dest.write_bytes(content)
            return hashlib.sha256(content).hexdigest()

    # ------------------------------------------------------------------------------------- kernel
    def list_kernels(self) -> list[str]:
        return [str(kernel["id"]) for kernel in self._request("GET", "api/kernels")]

    def start_kernel(self) -> str:
        return str(self._request("POST", "api/kernels", json={"name": "python3"})["id"])

    def kernel_state(self, kernel: str) -> str:
        """``busy``, ``idle``, ``starting`` or ``dead``; empty where there is no such kernel."""
        try:
            return str(self._request("GET", f"api/kernels/{kernel}").get("execution_state"))
        except NotFound:
            return ""

    def interrupt(self, kernel: str) -> None:
        self._request("POST", f"api/kernels/{kernel}/interrupt")

    def run_code(self, kernel: str, code: str) -> None:
        """Runs `code` to its end.

        Raises:
            ProviderRefused: it raised an error. Unreachable: the connection broke.
        """
        for kind, content in execute(self._access, kernel, code):
            if kind == "error":
                message = f"the kernel raised {content.get('ename')}: {content.get('evalue')}"
                raise ProviderRefused(message[:300])
            if kind == "status" and content.get("execution_state") == "idle":
                return
        raise Unreachable("the kernel closed the connection", _RUNTIME.later)

    def start_code(self, kernel: str, code: str) -> None:
        """Starts `code` and returns; it runs on without a connection. One request, which is never repeated."""
        try:
            for kind, _ in execute(self._access, kernel, code):
                if kind == "execute_input":
                    return
        except Unreachable:
            if self.kernel_state(kernel) != "busy":
                raise


def _contents(path: str) -> str:
    return f"api/contents/{quote(path)}"


def token_header(access: RuntimeAccess) -> dict[str, str]:
    """The header that opens a runtime. A token in the URL would appear in the logs of servers and proxies."""
    return {"X-Colab-Runtime-Proxy-Token": access.token}


def execute(access: RuntimeAccess, kernel: str, code: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Sends `code` once over the kernel's websocket; yields the type and content of each message about it.

    The kernel keeps the code in no history.

    Raises:
        Unreachable: no connection, or it broke.
    """
    import websocket

    message_id, host = uuid.uuid4().hex, urlsplit(access.url).netloc
    url = f"wss://{host}/api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}"
    try:
        connection = websocket.create_connection(url, header=token_header(access), timeout=_SOCKET_TIMEOUT_S)
        with closing(connection):
            connection.send(json.dumps(_execute_request(message_id, code)))
            while text := connection.recv():
                message = json.loads(text)
                if (message.get("parent_header") or {}).get("msg_id") == message_id:
                    yield str(message.get("msg_type")), message.get("content") or {}
    except (OSError, websocket.WebSocketException) as error:
        kind = type(error).__name__  # the error's text has the headers, and so the token
        raise Unreachable(f"no connection to the kernel ({kind})", _RUNTIME.later) from None


def _execute_request(message_id: str, code: str) -> dict[str, Any]:
    header = {"msg_id": message_id, "msg_type": "execute_request", "session": uuid.uuid4().hex,
              "username": "boneagectl", "version": "5.3"}  # fmt: skip
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell",
            "buffers": []}  # fmt: skip
