"""One Colab runtime as a Jupyter server: files up and down, one kernel, and what it is doing.

Files are transferred in pieces and are never whole in memory. A token is valid for one hour: after a 401 it is renewed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from boneagectl.errors import MachineError, NotFound, ProviderRefused, RemoteError, Unreachable
from boneagectl.targets.colab.colab_cli import RuntimeAccess
from boneagectl.targets.http import error_text

PAUSES_S = (0.5, 2.0, 5.0)
TIMEOUT_S = (10.0, 60.0)
PIECE_BYTES = 4 << 20
"""Of a file, for one request: base64 and JSON take several times that in memory."""
_READ_BYTES = 1 << 20
_SOCKET_TIMEOUT_S = 60.0
_RETRY_STATUSES = (408, 429, 500, 502, 503, 504)
_LATER = "try again in some minutes"


class RuntimeGone(ProviderRefused):
    """The account no longer has this runtime."""


def check_dependencies() -> None:
    """Raises MachineError where a package that talks to runtimes is missing: before a runtime is billed."""
    for name in ("requests", "websocket"):
        if importlib.util.find_spec(name) is None:
            raise MachineError(f"Colab's CLI mode needs the module {name}", "pip install 'boneagectl[colab]'")


class RuntimeClient:
    """Uses `access`; `renew` gives a new one, and raises `RuntimeGone` where the runtime does not exist any more."""

    def __init__(self, access: RuntimeAccess, renew: Callable[[], RuntimeAccess]) -> None:
        import requests

        self._access, self._renew = access, renew
        self._session = requests.Session()
        self._session.auth = lambda request: request  # otherwise requests adds what it finds in ~/.netrc
        self._session.headers["Accept-Encoding"] = "identity"

    def close(self) -> None:
        self._session.close()

    # ------------------------------------------------------------------------------------- requests
    def _request_json(self, verb: str, path: str, **options: Any) -> Any:
        """The parsed body.

        Raises:
            NotFound: 404. ProviderRefused: another refusal. RuntimeGone, Unreachable: no answer after retries.
        """
        with self._open(verb, path, **options) as response:
            return response.json() if response.content else {}

    @contextmanager
    def _open(self, verb: str, path: str, **options: Any) -> Iterator[Any]:
        with closing(self._request(verb, path, **options)) as response:
            yield response

    def _request(self, verb: str, path: str, **options: Any) -> Any:
        import requests

        failure, is_renewed = "", False
        for pause_s in (*PAUSES_S, None):
            try:
                response = self._session.request(
                    verb, f"{self._access.url}/{path}", headers=token_header(self._access), timeout=TIMEOUT_S,
                    allow_redirects=False, **options,
                )  # fmt: skip
            except requests.RequestException as error:
                failure = error_text(error)
            else:
                if response.status_code < 300:
                    return response
                response.close()
                failure = f"{response.status_code} {response.reason}"
                if response.status_code in (401, 403) and not is_renewed:
                    self._access, is_renewed = self._renew(), True
                    continue
                if response.status_code not in _RETRY_STATUSES:
                    raise (NotFound if response.status_code == 404 else ProviderRefused)(f"{verb} {path}: {failure}")
            if pause_s is not None:
                time.sleep(pause_s)
        self._access = self._renew()
        raise Unreachable(f"{verb} {path}: the Colab runtime does not answer ({failure})", _LATER)

    # -------------------------------------------------------------------------------------- files
    def create_folder(self, path: str) -> None:
        """Repeatable."""
        self._request_json("PUT", _contents(path), json={"type": "directory"})

    def upload(self, source: Path, path: str) -> None:
        """Uploads a file in pieces.

        Raises:
            Unreachable: it did not arrive complete after several attempts.
        """
        size, arrived = source.stat().st_size, -1
        for pause_s in (*PAUSES_S, None):
            arrived = self._upload_once(source, size, path)
            if arrived == size:
                return
            time.sleep(pause_s or 0)
        raise Unreachable(f"{source.name} arrived with {arrived} of {size} bytes", _LATER)

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
        return dict(self._request_json("PUT", _contents(path), json=body))

    def read_file(self, path: str) -> bytes:
        """A small file; empty where there is none."""
        try:
            with self._open("GET", f"files/{quote(path)}") as response:
                return bytes(response.content)
        except NotFound:
            return self._load_content(path) or b""

    def _load_content(self, path: str) -> bytes | None:
        """As Google's CLI loads files, in case the streaming route is closed: the file is whole in memory."""
        try:
            answer = self._request_json("GET", f"{_contents(path)}?type=file&format=base64&content=1")
        except NotFound:
            return None
        return base64.b64decode(answer.get("content") or "")

    def list_files(self, path: str) -> list[str]:
        """The files below the folder, by their names relative to it; empty where there is no such folder."""
        try:
            entries = self._request_json("GET", f"{_contents(path)}?type=directory&content=1").get("content") or []
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
        """Downloads a file to `dest`, and returns its sha256; after a broken connection it starts again.

        Raises:
            NotFound: there is no such file. Unreachable: the connection broke several times.
        """
        failure = ""
        dest.parent.mkdir(parents=True, exist_ok=True)
        for pause_s in (*PAUSES_S, None):
            try:
                with open(dest, "wb") as stream:
                    failure, sha256 = self._download_once(path, stream)
            except RemoteError:
                dest.unlink()
                raise
            if not failure:
                return sha256
            if pause_s is not None:
                time.sleep(pause_s)
        dest.unlink()
        raise Unreachable(f"the download of {path} broke off several times: {failure}", "boneagectl collect")

    def _download_once(self, path: str, stream: IO[bytes]) -> tuple[str, str]:
        """Why it broke off, or "", and the sha256."""
        import requests
        import urllib3

        digest = hashlib.sha256()
        try:
            with self._open("GET", f"files/{quote(path)}", stream=True) as response:
                for piece in response.iter_content(_READ_BYTES):
                    digest.update(piece)
                    stream.write(piece)
        except NotFound:
            content = self._load_content(path)
            if content is None:
                raise
            digest.update(content)
            stream.write(content)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            return error_text(error), ""
        return "", digest.hexdigest()

    # ------------------------------------------------------------------------------------- kernel
    def list_kernels(self) -> list[str]:
        return [str(kernel["id"]) for kernel in self._request_json("GET", "api/kernels")]

    def start_kernel(self) -> str:
        return str(self._request_json("POST", "api/kernels", json={"name": "python3"})["id"])

    def kernel_state(self, kernel: str) -> str:
        """``busy``, ``idle``, ``starting`` or ``dead``; empty where there is no such kernel."""
        try:
            return str(self._request_json("GET", f"api/kernels/{kernel}").get("execution_state"))
        except NotFound:
            return ""

    def interrupt(self, kernel: str) -> None:
        self._request_json("POST", f"api/kernels/{kernel}/interrupt")

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
        raise Unreachable("the kernel closed the connection", _LATER)

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
        raise Unreachable(f"no connection to the kernel ({kind})", _LATER) from None


def _execute_request(message_id: str, code: str) -> dict[str, Any]:
    header = {"msg_id": message_id, "msg_type": "execute_request", "session": uuid.uuid4().hex,
              "username": "boneagectl", "version": "5.3"}  # fmt: skip
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell",
            "buffers": []}  # fmt: skip
