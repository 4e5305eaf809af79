"""The Colab emulator's sign-in: Google's tokens, issued for a refresh token and verified."""

from __future__ import annotations

import secrets
import threading
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from emulators.colab_wire import LOGIN, Answer, Problem, Reply, Request

SCOPE = "https://www.googleapis.com/auth/"
CLI_SCOPES = ("openid", *(SCOPE + name for name in ("userinfo.profile", "userinfo.email", "cloud-platform",
                                                    "colaboratory", "drive.file")))  # fmt: skip
"""The scopes that Google's CLI requests."""


class Login:
    """Issues tokens and verifies them.

    Switches: `life_s`, how long access tokens given from now on are good, of this clock; `revoked`, while no refresh
    token is taken, as after the user withdrew what was allowed.
    """

    def __init__(self) -> None:
        self.client, self.secret = "colab-test.apps.googleusercontent.com", f"GOCSPX-SECRET-{secrets.token_hex(8)}"
        self.life_s, self.revoked = 3600.0, False
        self._lock = threading.Lock()
        self._refreshes: dict[str, tuple[str, ...]] = {}
        self._access: dict[str, tuple[tuple[str, ...], float]] = {}

    def grant(self, *scopes: str) -> dict[str, Any]:
        """A signed-in user's file, as google-auth reads and writes it; short scopes like ``drive.file`` will do."""
        full = tuple(one if one == "openid" or one.startswith("https:") else SCOPE + one for one in scopes)
        refresh = f"1//SECRET-refresh-{secrets.token_hex(16)}"
        with self._lock:
            self._refreshes[refresh] = full
        token, ends = self._new_access(full)
        expiry = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"token": token, "refresh_token": refresh, "token_uri": f"https://{LOGIN}/token",
                "client_id": self.client, "client_secret": self.secret, "scopes": list(full),
                "universe_domain": "googleapis.com", "account": "", "expiry": expiry}  # fmt: skip

    def expire(self) -> None:
        """Invalidates every access token issued so far; the clients do not know it."""
        with self._lock:
            self._access.clear()

    def scopes(self, request: Request) -> tuple[str, ...]:
        """What the bearer may do; Problem 401 for one we do not know, or whose time is over."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        with self._lock:
            found = self._access.get(token)
        if found is None or found[1] < time.time():
            raise Problem(401)
        return found[0]

    def answer(self, request: Request) -> Answer:
        given = dict(parse_qsl(request.body.decode())) | request.query
        if request.path == "token" and request.verb == "POST":
            return self._refresh(given)
        if request.path == "revoke" and request.verb == "POST":
            return self._revoke(given.get("token", ""))
        if request.path == "tokeninfo":
            return self._describe(given.get("access_token", ""))
        raise Problem(404)

    def _refresh(self, given: dict[str, str]) -> Answer:
        if given.get("grant_type") != "refresh_token":
            raise Problem(400, "unsupported_grant_type", f"Invalid grant_type: {given.get('grant_type')}")
        if (given.get("client_id"), given.get("client_secret")) != (self.client, self.secret):
            raise Problem(401, "invalid_client", "The OAuth client was not found.")
        with self._lock:
            granted = None if self.revoked else self._refreshes.get(given.get("refresh_token", ""))
        if granted is None:
            raise Problem(400, "invalid_grant", "Token has been expired or revoked.")
        wanted = tuple(given.get("scope", "").split()) or granted
        if not set(wanted) <= set(granted):
            raise Problem(400, "invalid_scope", f"Some requested scopes were invalid. invalid=[{given['scope']}]")
        token, ends = self._new_access(wanted)
        left_s = int(ends - time.time())
        return {"access_token": token, "expires_in": left_s, "scope": " ".join(wanted), "token_type": "Bearer"}

    def _revoke(self, token: str) -> Answer:
        with self._lock:
            if self._refreshes.pop(token, None) is None and self._access.pop(token, None) is None:
                raise Problem(400, "invalid_token", "Token expired or revoked")
        return Reply(200, {})

    def _describe(self, token: str) -> Answer:
        with self._lock:
            found = self._access.get(token)
        if found is None or found[1] < time.time():
            raise Problem(400, "invalid_token", "Invalid Value")
        return {"azp": self.client, "aud": self.client, "scope": " ".join(found[0]), "email": "alice@example.edu",
                "expires_in": str(int(found[1] - time.time())), "access_type": "offline"}  # fmt: skip

    def _new_access(self, scopes: tuple[str, ...]) -> tuple[str, float]:
        token, ends = f"ya29.SECRET-access-{secrets.token_hex(16)}", time.time() + self.life_s
        with self._lock:
            self._access[token] = (scopes, ends)
        return token, ends
