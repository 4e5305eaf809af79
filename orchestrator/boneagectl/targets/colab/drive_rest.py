"""Google Drive's API v3 by plain REST, GET alone: further tries, and failures in words."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from typing import Any

from boneagectl.errors import BoneagectlError, LimitRefused, MachineError, Unreachable
from boneagectl.targets.answers import retry_after_s, words
from boneagectl.targets.colab import google_signin

HOST = "https://www.googleapis.com/drive/v3"
TIMEOUT_S = (10.0, 60.0)
PAUSES_S = (1.0, 4.0, 15.0)
LATER = "try again in some minutes"
_LONGEST_PAUSE_S = 60.0
_AGAIN = (408, 429, 500, 502, 503, 504)
_TOO_FAST = {"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"}
_USED_UP = {"dailyLimitExceeded", "quotaExceeded", "downloadQuotaExceeded", "storageQuotaExceeded"}
_OFF = {"accessNotConfigured", "SERVICE_DISABLED"}
_NARROW = {"insufficientPermissions", "insufficientScope", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}


class Missing(MachineError):
    """There is no such file, or not any more."""


class Changed(Unreachable):
    """The file is not what it was when it was listed: the notebook is writing."""


class Rest:
    """`session` signs what it sends, and renews its token once where that is refused."""

    def __init__(self, session: Any) -> None:
        self._http = session

    def get(self, path: str, query: Mapping[str, Any], what: str, first: int = 0, last: int | None = None) -> Any:
        """The answer; of a file's bytes, only those from `first` to `last`, and not read yet.

        Raises:
            Missing, Changed. Unreachable: no answer, or one that asks for patience, after several tries.
            LimitRefused: a quota is used up. MachineError: it is refused for good.
        """
        for pause_s in (*PAUSES_S, None):
            trouble, wait_s = self._once(path, query, what, _range(first, last))
            if not isinstance(trouble, BoneagectlError):
                return trouble
            if pause_s is None or not isinstance(trouble, Unreachable) or isinstance(trouble, Changed):
                raise trouble
            time.sleep(min(_LONGEST_PAUSE_S, wait_s or pause_s))
        raise AssertionError("the last try returns or raises")

    def _once(self, path: str, query: Mapping[str, Any], what: str, head: dict[str, str]) -> tuple[Any, float | None]:
        """The answer, or what went wrong, and how long Google asks to wait."""
        import requests
        from google.auth.exceptions import GoogleAuthError

        is_media = query.get("alt") == "media"
        try:
            answer = self._http.get(f"{HOST}/{path}", params=query, headers=head, timeout=TIMEOUT_S, stream=is_media)
            if answer.ok and not is_media:
                answer.json()  # a torn answer is none
        except GoogleAuthError as error:
            return google_signin.in_words(error), None
        except (requests.RequestException, ValueError) as error:
            return Unreachable(f"{what}: Drive cannot be reached ({words(error)})", LATER), None
        return (answer, None) if answer.ok else (_translated(what, answer), retry_after_s(answer))


def _range(first: int, last: int | None) -> dict[str, str]:
    """Asked for as it is: a part of something compressed would be of no use."""
    part = {"Range": f"bytes={first}-{'' if last is None else last}"} if first or last is not None else {}
    return {"Accept-Encoding": "identity", **part}


def _translated(what: str, answer: Any) -> BoneagectlError:
    status, (reasons, text) = answer.status_code, _error_of(answer)
    said = f"{what}: Drive answered {status} {', '.join(reasons)}: {text}"
    if status == 404:
        return Missing(f"{what} is not on Drive (any more)", "is it the same Google account?")
    if status == 416:
        return Changed(said, LATER)
    if status in _AGAIN or reasons & _TOO_FAST:
        return Unreachable(said, LATER)
    return _refused(status, reasons, said)


def _refused(status: int, reasons: Set[str], said: str) -> BoneagectlError:
    if reasons & _USED_UP:
        return LimitRefused(said, "wait until tomorrow, or take the zip in a browser: collect RUN --from ZIP")
    if reasons & _OFF:
        way = "gcloud services enable drive.googleapis.com --project=PROJECT, with the project of your OAuth client"
        return MachineError(f"the Drive API is not enabled in the project of this login; {said}", way)
    if reasons & _NARROW:
        return google_signin.may_not_read()
    if status == 401:
        return MachineError(f"Google does not accept the login; {said}", google_signin.LOGIN)
    return MachineError(said, "look at the file in a browser: https://drive.google.com")


def _error_of(answer: Any) -> tuple[Set[str], str]:
    """Google's reasons, of its older and its newer kind, in their order, and its words."""
    try:
        said = answer.json()["error"]
        told = [*said.get("errors", []), *said.get("details", [])]
        reasons = dict.fromkeys(str(one["reason"]) for one in told if "reason" in one)
        return reasons.keys(), " ".join(str(said.get("message", "")).split())[:200]
    except (ValueError, LookupError, TypeError, AttributeError):
        return set(), str(answer.reason or "")
