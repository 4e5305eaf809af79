"""The Azure emulator's sign-in: tokens as Microsoft's login gives them, and a fake `az` that has some too."""

from __future__ import annotations

import base64
import json
import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from emulators.azure_wire import Problem, Reply, Request

if TYPE_CHECKING:
    from emulators.azure import Azure

HOST = "https://login.microsoftonline.com"
ARM = "https://management.azure.com"
_ARM_NAMES = (ARM, "https://management.core.windows.net", "https://ml.azure.com")
_AZ = """#!/bin/sh
test -f {folder}/arm.json || {{ echo "Please run 'az login' to setup account." >&2; exit 1; }}
case "$*" in
  *storage.azure.com*) cat {folder}/storage.json;;
  *get-access-token*) cat {folder}/arm.json;;
  *) echo "this az only knows get-access-token" >&2; exit 2;;
esac
"""


class Login:
    """Gives tokens and knows them again."""

    def __init__(self, azure: Azure) -> None:
        self.azure, self.tenant, self.client = azure, _guid(), _guid()
        self.secret, self.person = secrets.token_urlsafe(24), _guid()
        self._good: set[str] = set()

    def expire(self) -> None:
        """No token given so far is good any more; the clients do not know it."""
        self._good.clear()

    def token(self, audience: str, life_s: float) -> str:
        now = int(self.azure.now_s())
        said = {"aud": audience, "iss": f"https://sts.windows.net/{self.tenant}/", "tid": self.tenant, "iat": now,
                "nbf": now, "exp": now + int(life_s), "oid": self.person, "upn": "alice@example.edu",
                "appid": self.client, "uti": secrets.token_hex(8)}  # fmt: skip
        token = f"{_packed({'alg': 'none', 'typ': 'JWT'})}.{_packed(said)}."
        self._good.add(token)
        return token

    def check(self, header: str, audience: str = "") -> str:
        """The audience of the token in the header.

        Raises Problem 401 unless it is a token of ours, for `audience`, that has not expired.
        """
        token = header.removeprefix("Bearer ")
        if token not in self._good:
            raise Problem(401)
        said = _unpacked(token)
        wanted = (audience,) if audience else _ARM_NAMES
        if said["aud"].rstrip("/") not in wanted:
            raise Problem(401, "InvalidAuthenticationTokenAudience", f"The audience {said['aud']} is not {wanted[0]}.")
        if said["exp"] < self.azure.now_s():
            raise Problem(401, "ExpiredAuthenticationToken", "The access token expired.")
        return str(said["aud"]).rstrip("/")

    def answer(self, request: Request) -> dict[str, Any]:
        if request.path.endswith("/openid-configuration"):
            return self._description()
        if request.path.endswith("/discovery/instance"):
            return {"tenant_discovery_endpoint": f"{HOST}/{self.tenant}/v2.0/.well-known/openid-configuration",
                    "metadata": [{"preferred_network": "login.microsoftonline.com", "preferred_cache":
                                  "login.windows.net", "aliases": ["login.microsoftonline.com"]}]}  # fmt: skip
        if request.path.endswith("/oauth2/v2.0/token"):
            return self._given(dict(parse_qsl(request.body.decode())))
        raise Problem(404)

    def _description(self) -> dict[str, Any]:
        base = f"{HOST}/{self.tenant}"
        return {"issuer": f"{base}/v2.0", "token_endpoint": f"{base}/oauth2/v2.0/token",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode"}  # fmt: skip

    def _given(self, asked: dict[str, str]) -> Any:
        if (asked.get("client_id"), asked.get("client_secret")) != (self.client, self.secret):
            text = "AADSTS7000215: Invalid client secret provided."
            return Reply(401, {"error": "invalid_client", "error_description": text, "error_codes": [7000215]})
        audience, life_s = asked.get("scope", "").split()[0].removesuffix("/.default"), self.azure.token_life_s
        token = self.token(audience, life_s)
        return {"token_type": "Bearer", "expires_in": int(life_s), "ext_expires_in": int(life_s), "access_token": token}

    def write_az(self, folder: Path) -> None:
        """An `az` that says what ``az account get-access-token`` says."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, audience in (("arm", ARM), ("storage", "https://storage.azure.com")):
            ends = int(self.azure.now_s() + 3600)
            said = {"accessToken": self.token(audience, 3600), "expiresOn": "2099-01-01 00:00:00.000000",
                    "expires_on": ends, "subscription": self.azure.subscription, "tenant": self.tenant,
                    "tokenType": "Bearer"}  # fmt: skip
            (folder / f"{name}.json").write_text(json.dumps(said))
        (folder / "az").write_text(_AZ.format(folder=shlex.quote(str(folder))))
        (folder / "az").chmod(0o755)


def _guid() -> str:
    text = secrets.token_hex(16)
    return "-".join((text[:8], text[8:12], "4" + text[13:16], "8" + text[17:20], text[20:]))


def _packed(said: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()


def _unpacked(token: str) -> dict[str, Any]:
    middle = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))))
