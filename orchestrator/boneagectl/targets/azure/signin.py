"""Who signs in to Azure: azure-identity's own chain, in words where it has nothing."""

from __future__ import annotations

from typing import Any

from boneagectl.errors import MachineError


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


class _InWords:
    """The credential, whose refusal is one line and not a page."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def get_token(self, *scopes: str, **options: Any) -> Any:
        from azure.core.exceptions import ClientAuthenticationError

        try:
            return self._real.get_token(*scopes, **options)
        except ClientAuthenticationError as error:
            first = " ".join(str(error).split())[:160]
            raise MachineError(f"nobody is signed in to Azure: {first}", "az login") from None
