"""One signed-in Kaggle client: the official SDK with timeouts, further tries, and failures in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import boneage_trainer
from boneagectl.errors import InDoubt, MachineError, Unreachable
from boneagectl.targets.answers import retry_after_s, words
from boneagectl.targets.kaggle.credentials import HOW, Credentials

TIMEOUT_S = (10.0, 60.0)
PAUSES_S = (0.5, 2.0)
LATER = "try again in some minutes; boneagectl ls looks whether it came to be"
_LONGEST_PAUSE_S = 30.0
_AGAIN = (429, 500, 502, 503, 504)
GONE = (403, 404)
"""Kaggle answers 403 for a kernel or data set that does not exist, as for one of somebody else."""


class Missing(MachineError):
    """There is no such thing, or it is somebody else's: Kaggle does not tell which."""


class Calls:
    """The SDK is imported when this is made."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.client = _client(credentials)
        _give_timeouts(self.session)

    @property
    def session(self) -> Any:
        http = self.client.http_client()
        http._init_session()  # the SDK makes it on its first call, and has no public way to it
        return http._session

    def ask(self, call: Callable[[Any], Any], request: Any, what: str, safe: bool = True) -> Any:
        """Calls, again after a pause where that may help; `safe` says whether doing it twice does no harm."""
        import requests

        broken = (requests.RequestException, ValueError, KeyError, TypeError)  # or an answer that cannot be read
        for pause_s in (*PAUSES_S, None):
            try:
                return call(request)
            except requests.HTTPError as error:
                status = error.response.status_code if error.response is not None else 0
                if pause_s is None or status not in _AGAIN or not (safe or status == 429):
                    raise self._translated(error, what, safe) from None
                time.sleep(min(_LONGEST_PAUSE_S, retry_after_s(error.response) or pause_s))
            except broken as error:
                if not safe and not _was_never_sent(error):
                    raise InDoubt(f"{what}: no answer from Kaggle ({words(error)})", LATER) from None
                if pause_s is None:
                    raise Unreachable(f"{what}: Kaggle cannot be reached ({words(error)})", LATER) from None
                time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _translated(self, error: Any, what: str, safe: bool) -> MachineError:
        status, text = error.response.status_code, _message_of(error.response)
        if status == 401:
            return not_signed_in(self.credentials)
        if status in GONE:
            return Missing(
                f"{what}: Kaggle says {status} {text}", "check the names; Kaggle calls the unknown forbidden"
            )
        if status in _AGAIN:
            kind = Unreachable if safe or status == 429 else InDoubt
            return kind(f"{what}: Kaggle answered {status} {text}", LATER)
        return MachineError(f"{what}: Kaggle answered {status} {text}", "boneagectl doctor --target kaggle")


def _client(credentials: Credentials) -> Any:
    try:
        from kagglesdk import KaggleClient
    except ImportError as error:
        raise MachineError(f"the kaggle target needs kagglesdk: {error}", "pip install 'boneagectl[kaggle]'") from None
    agent = f"boneagectl/{boneage_trainer.__version__}"
    if credentials.kind == "key":
        return KaggleClient(username=credentials.username, password=credentials.secret, user_agent=agent)
    token = credentials.secret if credentials.kind == "token" else _login_token()
    return KaggleClient(api_token=token, user_agent=agent)


def _login_token() -> str:
    from kagglesdk import KaggleClient
    from kagglesdk.kaggle_creds import KaggleCredentials

    found = KaggleCredentials.load(KaggleClient())
    try:
        token = found.get_access_token() if found else None
    except Exception as error:  # whatever a renewal over the network raises
        raise MachineError(f"the Kaggle login could not be renewed: {words(error)}", "kaggle auth login") from None
    if not token:
        raise MachineError("the Kaggle login has no token", "kaggle auth login")
    return str(token)


def _give_timeouts(session: Any) -> None:
    """The SDK passes none, and a call without one may wait for ever."""
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def send(self, *arguments: Any, **options: Any) -> Any:
            options["timeout"] = options.get("timeout") or TIMEOUT_S
            return super().send(*arguments, **options)

    for scheme in ("https://", "http://"):
        session.mount(scheme, Adapter())


def not_signed_in(credentials: Credentials) -> MachineError:
    return MachineError(f"Kaggle does not accept the {credentials}", f"{HOW}; a bad one hides any other")


def _message_of(response: Any) -> str:
    """The message inside the body: the SDK's own error has only the status."""
    try:
        said = response.json()
        return str(said["error"]["message"] if isinstance(said.get("error"), dict) else said["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return str(response.reason or "")


def _was_never_sent(error: Exception) -> bool:
    """Whether no connection came about at all."""
    import requests
    import urllib3

    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, requests.ConnectTimeout) or isinstance(reason, urllib3.exceptions.NewConnectionError)
