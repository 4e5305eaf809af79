"""Who signs in to Azure: azure-identity's own chain, in words where it has nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

from boneagectl.errors import MachineError

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
