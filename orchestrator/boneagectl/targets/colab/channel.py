"""What a kernel says to a piece of code, over the websocket that Jupyter's own clients use."""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from boneagectl.errors import MachineError, Unreachable
from boneagectl.targets.colab.official import Access

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
