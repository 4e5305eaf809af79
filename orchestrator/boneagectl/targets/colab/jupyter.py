"""One machine of Colab's as a Jupyter server: files up and down, one kernel, and what it is doing.

Files go in pieces and are never whole in memory. A token is good for an hour: an answer 401 has it renewed.
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

from boneagectl.errors import MachineError, NotFound, Unreachable
from boneagectl.targets.colab.colab_cli import Access
from boneagectl.targets.http import error_text

PAUSES_S = (0.5, 2.0, 5.0)
TIMEOUT_S = (10.0, 60.0)
PIECE_BYTES = 4 << 20
"""Of a file, for one request: base64 and its JSON are some times that in memory."""
_READ_BYTES = 1 << 20
_AGAIN = (408, 429, 500, 502, 503, 504)
_LATER = "try again in some minutes"


class Gone(MachineError):
    """The account has this machine no more."""


class Runtime:
    """Reached as `access` says; `renew` gives a fresh one, and raises `Gone` where there is no such machine."""

    def __init__(self, access: Access, renew: Callable[[], Access]) -> None:
        import requests

        self._access, self._renew = access, renew
        self._session = requests.Session()
        self._session.auth = lambda request: request  # or requests would send along what ~/.netrc has
        self._session.headers["Accept-Encoding"] = "identity"

    def close(self) -> None:
        self._session.close()

    # ------------------------------------------------------------------------------------- asking
    def _ask(self, verb: str, path: str, **more: Any) -> Any:
        """The answer, after further tries where that may help.

        Raises:
            Missing: 404. Gone: the machine is. Unreachable: no answer. MachineError: any other refusal.
        """
        with self._answer(verb, path, **more) as answer:
            return answer.json() if answer.content else {}

    @contextmanager
    def _answer(self, verb: str, path: str, **more: Any) -> Iterator[Any]:
        with closing(self._tried(verb, path, **more)) as answer:
            yield answer

    def _tried(self, verb: str, path: str, **more: Any) -> Any:
        import requests

        trouble, is_renewed = "", False
        for pause_s in (*PAUSES_S, None):
            try:
                answer = self._session.request(
                    verb, f"{self._access.url}/{path}", headers=opening(self._access), timeout=TIMEOUT_S,
                    allow_redirects=False, **more,
                )  # fmt: skip
            except requests.RequestException as error:
                trouble = error_text(error)
            else:
                if answer.status_code < 300:
                    return answer
                answer.close()
                trouble = f"{answer.status_code} {answer.reason}"
                if answer.status_code in (401, 403) and not is_renewed:
                    self._access, is_renewed = self._renew(), True
                    continue
                if answer.status_code not in _AGAIN:
                    raise (NotFound if answer.status_code == 404 else MachineError)(f"{verb} {path}: {trouble}")
            if pause_s is not None:
                time.sleep(pause_s)
        self._access = self._renew()
        raise Unreachable(f"{verb} {path}: the machine does not answer ({trouble})", _LATER)

    # -------------------------------------------------------------------------------------- files
    def make_folder(self, path: str) -> None:
        """Also where it is there already."""
        self._ask("PUT", _contents(path), json={"type": "directory"})

    def upload(self, source: Path, path: str) -> None:
        """Puts the file at `path`, in pieces.

        Raises:
            Unreachable: it did not arrive whole, again and again.
        """
        size, arrived = source.stat().st_size, -1
        for pause_s in (*PAUSES_S, None):
            arrived = self._sent(source, size, path)
            if arrived == size:
                return
            time.sleep(pause_s or 0)
        raise Unreachable(f"{source.name} arrived with {arrived} of {size} bytes", _LATER)

    def _sent(self, source: Path, size: int, path: str) -> int:
        """How much the machine has of it then. A piece whose answer was lost is sent twice, and is there twice."""
        said: dict[str, Any] = {}
        with open(source, "rb") as stream:
            for number in range(1, max(1, -(-size // PIECE_BYTES)) + 1):
                piece = stream.read(PIECE_BYTES)
                chunk = {} if size <= PIECE_BYTES else {"chunk": -1 if stream.tell() >= size else number}
                said = self._put(path, piece, **chunk)
        return int(said.get("size") or 0)

    def write(self, path: str, content: bytes) -> None:
        self._put(path, content)

    def _put(self, path: str, content: bytes, **more: int) -> dict[str, Any]:
        body = {"type": "file", "format": "base64", "content": base64.b64encode(content).decode(), **more}
        return dict(self._ask("PUT", _contents(path), json=body))

    def read(self, path: str) -> bytes:
        """A small file; nothing where there is none."""
        try:
            with self._answer("GET", f"files/{quote(path)}") as answer:
                return bytes(answer.content)
        except NotFound:
            return self._content(path) or b""

    def _content(self, path: str) -> bytes | None:
        """The way of the official command line, should the one that streams be closed: the file is whole in memory."""
        try:
            said = self._ask("GET", f"{_contents(path)}?type=file&format=base64&content=1")
        except NotFound:
            return None
        return base64.b64decode(said.get("content") or "")

    def tree(self, path: str) -> list[str]:
        """The files below the folder, by their names within it; none where there is no such folder."""
        try:
            listed = self._ask("GET", f"{_contents(path)}?type=directory&content=1").get("content") or []
        except NotFound:
            return []
        names = []
        for one in listed:
            name = str(one["name"])
            names += [f"{name}/{below}" for below in self.tree(f"{path}/{name}")] if one["type"] == "directory" else [
                name]  # fmt: skip
        return sorted(names)

    def download(self, path: str, dest: Path) -> str:
        """Brings the file into `dest`, and returns its sha256; a connection that breaks has it begin anew.

        Raises:
            Missing: there is no such file. Unreachable: it broke off again and again.
        """
        trouble = ""
        dest.parent.mkdir(parents=True, exist_ok=True)
        for pause_s in (*PAUSES_S, None):
            try:
                with open(dest, "wb") as stream:
                    trouble, sha256 = self._bring(path, stream)
            except MachineError:
                dest.unlink()
                raise
            if not trouble:
                return sha256
            if pause_s is not None:
                time.sleep(pause_s)
        dest.unlink()
        raise Unreachable(f"{path} broke off again and again: {trouble}", "boneagectl collect tries anew")

    def _bring(self, path: str, stream: IO[bytes]) -> tuple[str, str]:
        """Why it broke off, or nothing; and the sha256."""
        import requests
        import urllib3

        digest = hashlib.sha256()
        try:
            with self._answer("GET", f"files/{quote(path)}", stream=True) as answer:
                for piece in answer.iter_content(_READ_BYTES):
                    digest.update(piece)
                    stream.write(piece)
        except NotFound:
            content = self._content(path)
            if content is None:
                raise
            digest.update(content)
            stream.write(content)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            return error_text(error), ""
        return "", digest.hexdigest()

    # ------------------------------------------------------------------------------------- kernel
    def kernels(self) -> list[str]:
        return [str(one["id"]) for one in self._ask("GET", "api/kernels")]

    def start_kernel(self) -> str:
        return str(self._ask("POST", "api/kernels", json={"name": "python3"})["id"])

    def kernel_state(self, kernel: str) -> str:
        """busy, idle, starting, dead; nothing where there is no such kernel."""
        try:
            return str(self._ask("GET", f"api/kernels/{kernel}").get("execution_state"))
        except NotFound:
            return ""

    def interrupt(self, kernel: str) -> None:
        self._ask("POST", f"api/kernels/{kernel}/interrupt")

    def delete_kernel(self, kernel: str) -> None:
        self._ask("DELETE", f"api/kernels/{kernel}")

    def run(self, kernel: str, code: str) -> None:
        """Has `code` run to its end.

        Raises:
            MachineError: it failed. Unreachable: the connection broke.
        """
        for kind, content in heard(self._access, kernel, code):
            if kind == "error":
                raise MachineError(f"the kernel refused: {content.get('ename')}: {content.get('evalue')}"[:300])
            if kind == "status" and content.get("execution_state") == "idle":
                return
        raise Unreachable("the kernel went away", _LATER)

    def start(self, kernel: str, code: str) -> None:
        """Has `code` begin, and lets go: it goes on without us. One request, which is not sent again."""
        try:
            for kind, _ in heard(self._access, kernel, code):
                if kind == "execute_input":
                    return
        except Unreachable:
            if self.kernel_state(kernel) != "busy":
                raise


def _contents(path: str) -> str:
    return f"api/contents/{quote(path)}"


# == channel: What a kernel says to a piece of code, over the websocket that Jupyter's own clients use.

_TIMEOUT_S = 60.0


def check_installed() -> None:
    """Raises MachineError where what speaks to a machine is not installed: before one is paid for."""
    for name in ("requests", "websocket"):
        if importlib.util.find_spec(name) is None:
            raise MachineError(f"Colab without a browser needs the module {name}", "pip install 'boneagectl[colab]'")


def opening(access: Access) -> dict[str, str]:
    """The header that opens a machine; not in the address, which servers and proxies write down."""
    return {"X-Colab-Runtime-Proxy-Token": access.token}


def heard(access: Access, kernel: str, code: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Sends `code` once; each message about it, by kind and content. The code is kept in no history.

    Raises:
        Unreachable: no connection, or it broke.
    """
    import websocket

    asked, host = uuid.uuid4().hex, urlsplit(access.url).netloc
    address = f"wss://{host}/api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}"
    try:
        with closing(websocket.create_connection(address, header=opening(access), timeout=_TIMEOUT_S)) as link:
            link.send(json.dumps(_request(asked, code)))
            while text := link.recv():
                said = json.loads(text)
                if (said.get("parent_header") or {}).get("msg_id") == asked:
                    yield str(said.get("msg_type")), said.get("content") or {}
    except (OSError, websocket.WebSocketException) as error:
        kind = type(error).__name__  # its text has the headers that were sent
        raise Unreachable(f"the kernel cannot be spoken to ({kind})", "try again in some minutes") from None


def _request(asked: str, code: str) -> dict[str, Any]:
    header = {"msg_id": asked, "msg_type": "execute_request", "session": uuid.uuid4().hex, "username": "boneagectl",
              "version": "5.3"}  # fmt: skip
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell",
            "buffers": []}  # fmt: skip
