"""Azure's management plane by plain REST: no SDK but the one that signs in, so that a status costs no seconds."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass
from typing import Any

from boneagectl.errors import MachineError, NotFound, Unreachable, UsageError
from boneagectl.targets.http import error_text, retry_after_s

HOST = "https://management.azure.com"
TIMEOUT_S = (10.0, 60.0)
PAUSES_S = (1.0, 4.0)
_LONGEST_PAUSE_S = 60.0
POLL_S = 5.0
FINISH_S = 1800.0
_EXPIRED = "ExpiredAuthenticationToken"
"""A token may end on its way; the next try has a new one."""
_AGAIN = (408, 429, 500, 502, 503, 504)
JOBS = "2024-01-01-preview"
COMPUTES = "2023-08-01-preview"
STORES = "2024-10-01-preview"


_PLACE = re.compile(r"/subscriptions/([^/?&]+)/resourceGroups/([^/?&]+)/providers/[^/]+/workspaces/([^/?&]+)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the workspace is."""

    subscription: str
    resource_group: str
    workspace: str

    @property
    def path(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"
        )

    @classmethod
    def of(cls, text: str) -> Place:
        """The workspace that a path, or the address of a job, names."""
        if found := _PLACE.search(text):
            return cls(*found.groups())
        raise UsageError(f"no workspace in {text!r}", "boneagectl show tells the leg's handle")


class Arm:
    """One signed-in session; `credential` is one of azure-identity's."""

    def __init__(self, credential: Any) -> None:
        import requests

        self.credential = credential
        self._http = requests.Session()

    def get(self, path: str, version: str) -> dict[str, Any]:
        """Raises Missing where it is not there, Unreachable where no answer comes."""
        return self.ask("GET", path, version)

    def listed(self, path: str, version: str) -> list[dict[str, Any]]:
        """All that a list names, page by page."""
        answer = self.get(path, version)
        found = list(answer.get("value", []))
        while address := str(answer.get("nextLink") or ""):
            if not address.startswith(f"{HOST}/"):
                raise MachineError(f"{_what('GET', path)}: the next page lies elsewhere: {address[:80]}")
            answer = _json(self._send("GET", address))
            found += answer.get("value", [])
        return found

    def ask(self, method: str, path: str, version: str, body: Any = None, host: str = HOST) -> dict[str, Any]:
        """The answer's JSON. Whatever is sent here may be sent twice: all names are ours."""
        return _json(self._send(method, f"{host}{path}?api-version={version}", body))

    def finish(self, method: str, path: str, version: str, body: Any = None, query: str = "") -> dict[str, Any]:
        """As `ask`, for what takes its time: returns when it is done. `query` is appended to the address.

        Raises:
            MachineError: it failed, in Azure's words, or is not done after half an hour.
        """
        give_up = time.monotonic() + FINISH_S
        answer = self._send(method, f"{HOST}{path}?api-version={version}{query}", body)
        place = answer.headers.get("Azure-AsyncOperation") or answer.headers.get("Location")
        while place and time.monotonic() < give_up:
            time.sleep(retry_after_s(answer) or POLL_S)
            answer = self._send("GET", place)
            if _is_done(answer):
                return _json(answer)
        if place:
            raise MachineError(f"{_what(method, path)} is not done after {FINISH_S / 60:.0f} min", "look at the portal")
        return _json(answer)

    def _send(self, method: str, url: str, body: Any = None) -> Any:
        for pause_s in (*PAUSES_S, None):
            trouble, wait_s = self._once(method, url, body)
            if not isinstance(trouble, MachineError):
                return trouble
            if pause_s is None or not isinstance(trouble, Unreachable):
                raise trouble
            time.sleep(min(_LONGEST_PAUSE_S, wait_s or pause_s))
        raise AssertionError("the last try returns or raises")

    def _once(self, method: str, url: str, body: Any) -> tuple[Any, float | None]:
        """The response, or what went wrong, and how long Azure asks to wait."""
        import requests

        what = _what(method, url.partition("?")[0])
        head = {"Authorization": f"Bearer {self.credential.get_token(SCOPE).token}"}
        try:
            answer = self._http.request(method, url, json=body, timeout=TIMEOUT_S, headers=head)
            if answer.ok and answer.content:
                answer.json()  # a torn answer is none
        except (requests.RequestException, ValueError) as error:
            return Unreachable(f"{what}: Azure cannot be reached ({error_text(error)})", LATER), None
        return (answer, None) if answer.ok else (_translated(what, answer), retry_after_s(answer))


def _json(answer: Any) -> dict[str, Any]:
    return dict(answer.json()) if answer.content else {}


def _is_done(answer: Any) -> bool:
    """Of an operation under way; raises MachineError where it failed."""
    status = str(_json(answer).get("status") or "")
    if status in ("Failed", "Canceled"):
        code, text = _error_of(answer)
        raise MachineError(f"Azure could not do it: {code} {text}", _way_out(code))
    return answer.status_code != 202 and status not in ("InProgress", "Running", "Accepted", "Creating", "Deleting")


def _what(method: str, path: str) -> str:
    return f"{method} {'/'.join(path.split('/')[-2:])}"


LATER = "try again in some minutes; boneagectl ls looks whether it came to be"


def _translated(what: str, answer: Any) -> MachineError:
    code, text = _error_of(answer)
    if answer.status_code == 404:
        return NotFound(f"{what}: Azure does not know it ({code})", "boneagectl doctor --target azure")
    if answer.status_code in _AGAIN or code == _EXPIRED:
        return Unreachable(f"{what}: Azure answered {answer.status_code} {code}: {text}", LATER)
    return MachineError(f"{what}: Azure refused with {answer.status_code} {code}: {text}", _way_out(code))


def _way_out(code: str) -> str:
    ways = {
        "RequestDisallowedByAzure": "this subscription may not use that region: boneagectl doctor --target azure",
        "ReadOnlyDisabledSubscription": "the credit is used up or over; see the portal, or train on Kaggle",
        "ResourceNotAvailableForOffer": "this kind of subscription has no such machine: train on Kaggle instead",
    }
    return ways.get(code, "boneagectl doctor --target azure")


def _error_of(answer: Any) -> tuple[str, str]:
    """The innermost code and words: a deployment that failed tells what was wrong in details of details."""
    try:
        said = answer.json()["error"]
        while inner := said.get("details"):
            said = inner[0]
        return str(said.get("code", "")), " ".join(str(said.get("message", "")).split())[:300]
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", str(answer.reason or "")


# == signin: Who signs in to Azure: azure-identity's own chain, in words where it has nothing.

SCOPE = "https://management.azure.com/.default"


def credential() -> Any:
    """azure-identity's default credential: environment, managed identity, ``az login`` and others, in its order.

    Raises:
        MachineError: azure-identity is not installed.
    """
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        raise MachineError(
            f"the azure target needs azure-identity: {error}", "pip install 'boneagectl[azure]'"
        ) from None
    return _InWords(DefaultAzureCredential())


def whose(credential: Any) -> str:
    """Who is signed in, and by which link of the chain, read from a token; nothing is verified here."""
    claims = _claims(credential.get_token(SCOPE).token)
    name = next((str(claims[key]) for key in ("upn", "unique_name", "email", "appid", "oid") if claims.get(key)), "")
    return f"{name or 'somebody without a name'} by {credential.link or 'an unknown credential'}"


def _claims(token: str) -> dict[str, Any]:
    try:
        middle = token.split(".")[1]
        return dict(json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))))
    except (IndexError, ValueError, TypeError):
        return {}


class _InWords:
    """The credential, whose refusal is one line and not a page."""

    def __init__(self, real: Any) -> None:
        self._real = real

    @property
    def link(self) -> str:
        """The link of the chain that gave the last token; azure-identity keeps it to itself, so it may be missing."""
        return type(found).__name__ if (found := getattr(self._real, "_successful_credential", None)) else ""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        from azure.core.exceptions import ClientAuthenticationError

        try:
            return self._real.get_token(*scopes, **options)
        except ClientAuthenticationError as error:
            first = " ".join(str(error).split())[:160]
            raise MachineError(f"nobody is signed in to Azure: {first}", "az login") from None
