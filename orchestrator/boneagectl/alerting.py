"""Tells what happened where people look: a webhook, a command of their own. Neither is ever needed.

The webhook gets JSON by POST. Slack, Mattermost and Teams' workflows read its ``text``, Discord its ``content``; a
program reads the rest. The command gets the text as its last argument and the same JSON on its standard input.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TIMEOUT_S = 10
_COMMAND_TIMEOUT_S = 60


def send(webhook: str, command: Sequence[str], event: Mapping[str, Any]) -> Iterator[str]:
    """Sends `event`, whose ``text`` is for people; yields in words what did not arrive. Never raises.

    The webhook's address is a secret: no message repeats it.
    """
    body = json.dumps({**event, "content": event["text"]})
    if webhook and (trouble := _post(webhook, body)):
        yield f"the alert did not reach alert.webhook: {trouble}"
    if command and (trouble := _run([*command, str(event["text"])], body)):
        yield f"alert.command {command[0]!r} {trouble}"


def _post(address: str, body: str) -> str:
    import http.client
    import urllib.error
    import urllib.request

    if not address.startswith(("https://", "http://")):
        return "it is no http address"
    headers = {"Content-Type": "application/json", "User-Agent": "boneagectl"}
    try:
        request = urllib.request.Request(address, body.encode(), headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
            return ""
    except urllib.error.HTTPError as error:
        return f"it answered {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None)
        return f"{type(reason or error).__name__}"


def _run(command: list[str], body: str) -> str:
    try:
        done = subprocess.run(command, input=body, text=True, capture_output=True, timeout=_COMMAND_TIMEOUT_S,
                              check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"did not end in {_COMMAND_TIMEOUT_S} s"
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    return f"ended with {done.returncode}: {done.stderr.strip()[-200:]}" if done.returncode else ""
