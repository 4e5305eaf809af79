"""Azure's management plane by plain REST: no SDK but the one that signs in, so that a status costs no seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from boneagectl.errors import MachineError, Unreachable

HOST = "https://management.azure.com"
TIMEOUT_S = (10.0, 60.0)
PAUSES_S = (1.0, 4.0)
_LONGEST_PAUSE_S = 60.0
_AGAIN = (408, 429, 500, 502, 503, 504)
JOBS = "2024-01-01-preview"
COMPUTES = "2023-08-01-preview"
STORES = "2024-10-01-preview"


class Missing(MachineError):
    """There is no such resource."""


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


class Arm:
    """One signed-in session; `credential` is one of azure-identity's."""

    def __init__(self, credential: Any) -> None:
        import requests

        self.credential = credential
        self._http = requests.Session()

    def get(self, path: str, version: str) -> dict[str, Any]:
        """Raises Missing where it is not there, Unreachable where no answer comes."""
        return self.ask("GET", path, version)

    def ask(self, method: str, path: str, version: str, body: Any = None) -> dict[str, Any]:
        """The answer's JSON. Whatever is sent here may be sent twice: the names are ours."""
        for pause_s in (*PAUSES_S, None):
            trouble, wait_s = self._once(method, path, version, body)
            if isinstance(trouble, dict):
                return trouble
            if pause_s is None or not isinstance(trouble, Unreachable):
                raise trouble
            time.sleep(min(_LONGEST_PAUSE_S, wait_s or pause_s))
        raise AssertionError("the last try returns or raises")

    def _once(
        self, method: str, path: str, version: str, body: Any
    ) -> tuple[dict[str, Any] | MachineError, float | None]:
        """The JSON, or what went wrong, and how long Azure asks to wait."""
        import requests

        what = f"{method} {path.rsplit('/', 2)[-2]}/{path.rsplit('/', 1)[-1]}"
        try:
            answer = self._http.request(
                method, HOST + path, params={"api-version": version}, json=body, timeout=TIMEOUT_S,
                headers={"Authorization": f"Bearer {self._token()}"},
            )  # fmt: skip
            if answer.ok:
                return (answer.json() if answer.content else {}), None
        except (requests.RequestException, ValueError) as error:
            return Unreachable(f"{what}: Azure cannot be reached ({_words(error)})", _LATER), None
        return _translated(what, answer), _retry_after_s(answer)

    def _token(self) -> str:
        return str(self.credential.get_token(f"{HOST}/.default").token)


_LATER = "try again in some minutes; boneagectl ls looks whether it came to be"


def _translated(what: str, answer: Any) -> MachineError:
    code, text = _error_of(answer)
    if answer.status_code == 404:
        return Missing(f"{what}: Azure does not know it ({code})", "boneagectl doctor --target azure")
    if answer.status_code in _AGAIN:
        return Unreachable(f"{what}: Azure answered {answer.status_code} {code}: {text}", _LATER)
    return MachineError(f"{what}: Azure refused with {answer.status_code} {code}: {text}", _way_out(code))


def _way_out(code: str) -> str:
    ways = {
        "RequestDisallowedByAzure": "this subscription may not use that region: boneagectl doctor --target azure",
        "ReadOnlyDisabledSubscription": "the credit is used up or over; see the portal, or train on Kaggle",
        "ResourceNotAvailableForOffer": "this kind of subscription has no such machine: train on Kaggle instead",
    }
    return ways.get(code, "boneagectl doctor --target azure")


def _error_of(answer: Any) -> tuple[str, str]:
    try:
        said = answer.json()["error"]
        return str(said.get("code", "")), " ".join(str(said.get("message", "")).split())[:300]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", str(answer.reason or "")


def _retry_after_s(answer: Any) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
