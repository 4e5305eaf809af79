"""Azure Resource Manager (ARM) through azure-core: sign-in, retries, paging, long-running operations.

azure-ai-ml stays out of here: importing it takes seconds, and a status needs none of it.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from boneagectl.errors import MachineError, NotFound, NotSignedIn, ProviderRefused, RemoteError, Unreachable, UsageError
from boneagectl.targets.http import error_text

ARM_HOST = "management.azure.com"
ARM_SCOPE = f"https://{ARM_HOST}/.default"
HISTORY_DOMAIN = ".api.azureml.ms"
HISTORY_SCOPE = "https://ml.azure.com/.default"
"""The run history service takes tokens of Azure ML's own audience, as azure-ai-ml sends them."""

JOBS = "2024-01-01-preview"
COMPUTES = "2023-08-01-preview"
STORES = "2024-10-01-preview"
WORKSPACES = "2024-10-01"
_HISTORY = "v1.0"

TIMEOUTS: dict[str, Any] = {"connection_timeout": 10, "read_timeout": 60}
RETRY: dict[str, Any] = {"retry_total": 3, "retry_backoff_factor": 1}
"""Pauses of 0, 2 and 4 s, or what Retry-After asks for."""
LONGEST_PAUSE_S = 60.0
POLL_S = 5.0
OPERATION_S = 1800.0
_METHODS = frozenset(("GET", "PUT", "POST", "DELETE"))
"""Every request may be sent twice: the names of all objects are chosen here."""
_FRESH_TOKENS = 2
LATER = "try again in some minutes; boneagectl ls shows whether it was created"
_DOCTOR = "boneagectl doctor --target azure"
_NEXT_STEPS = {
    "RequestDisallowedByAzure": f"this subscription may not use that region. Run: {_DOCTOR}",
    "ReadOnlyDisabledSubscription": "the credit is used up or has expired; see the portal, or train on Kaggle",
    "ResourceNotAvailableForOffer": "this kind of subscription has no such machine: train on Kaggle instead",
    "InvalidTemplate": "boneagectl config shows the settings",
}
_WORKSPACE = re.compile(r"/subscriptions/([^/?&]+)/resourceGroups/([^/?&]+)/providers/[^/]+/workspaces/([^/?&]+)")


@dataclass(frozen=True, slots=True)
class Workspace:
    """An Azure ML workspace by its names."""

    subscription: str
    resource_group: str
    name: str

    @property
    def resource_id(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )

    @classmethod
    def parse(cls, text: str) -> Workspace:
        """The workspace in a resource id or in the address of a job."""
        if match := _WORKSPACE.search(text):
            return cls(*match.groups())
        raise UsageError(f"no workspace in {text!r}", "boneagectl show prints the handle of a leg")


class ArmClient:
    """One signed-in session; `credential` is one of azure-identity's."""

    def __init__(self, credential: Any) -> None:
        self.credential = credential
        self._client = _pipeline_client(credential, ARM_SCOPE, lambda host: host == ARM_HOST)

    def get(self, path: str, version: str) -> dict[str, Any]:
        """Raises NotFound, NotSignedIn, ProviderRefused or Unreachable."""
        return self.request("GET", path, version)

    def list_all(self, path: str, version: str) -> list[dict[str, Any]]:
        """The items of all pages of a list."""
        page = self.get(path, version)
        items = list(page.get("value", []))
        while link := str(page.get("nextLink") or ""):
            page = _send_for_json(self._client, "GET", link)
            items += page.get("value", [])
        return items

    def request(self, method: str, path: str, version: str, body: Any = None) -> dict[str, Any]:
        """The JSON of the answer; an empty object where there is none."""
        return _send_for_json(self._client, method, _arm_url(path, version), body)

    def run_operation(self, method: str, path: str, version: str, body: Any = None, query: str = "") -> dict[str, Any]:
        """Like `request` for a long-running operation: returns when it is done. `query` is appended to the address.

        Raises:
            ProviderRefused: it failed, with Azure's reason. Unreachable: it is not done after half an hour.
        """
        from azure.core.polling import LROPoller
        from azure.mgmt.core.polling.arm_polling import ARMPolling

        response = _send(self._client, method, _arm_url(path, version) + query, body)
        action = _action(method, path)
        with _translated_errors(action):
            poller = LROPoller(self._client, response, lambda last: _parse_json(last.http_response), ARMPolling(POLL_S))
            result: dict[str, Any] | None = poller.result(OPERATION_S)
            if not poller.done():
                raise Unreachable(f"{action} is not done after {OPERATION_S / 60:.0f} min", "look at the Azure portal")
        return result or {}

    def get_run_details(self, workspace: Workspace, job_name: str) -> dict[str, Any]:
        """Start, end and error of a job, by the run history service of the workspace's region."""
        properties = self.get(workspace.resource_id, WORKSPACES)["properties"]
        host = urlsplit(str(properties.get("discoveryUrl"))).hostname or ""
        url = f"https://{host}/history/v1.0{workspace.resource_id}/runs/{job_name}/details?api-version={_HISTORY}"
        client = _pipeline_client(self.credential, HISTORY_SCOPE, lambda host: host.endswith(HISTORY_DOMAIN))
        return _send_for_json(client, "GET", url)


def _arm_url(path: str, version: str) -> str:
    return f"https://{ARM_HOST}{path}?api-version={version}"


# ------------------------------------------------------------------------------------------ pipeline
class TokenGuard:
    """A pipeline policy before the one that adds the token: only hosts that the token is meant for pass.

    Redirects, pages and the addresses in Azure-AsyncOperation and Location headers come by here too.
    """

    next: Any

    def __init__(self, is_allowed: Callable[[str], bool]) -> None:
        self._is_allowed = is_allowed

    def send(self, request: Any) -> Any:
        """Raises ProviderRefused before anything is sent to another host, or without TLS."""
        url = urlsplit(request.http_request.url)
        if url.scheme != "https" or not self._is_allowed(url.hostname or ""):
            address = f"{url.scheme}://{url.netloc}"
            raise ProviderRefused(f"Azure refers to {address}, which must not receive the sign-in token", _DOCTOR)
        response = self.next.send(request)
        for _ in range(_FRESH_TOKENS):  # a token may expire on its way; the next policy has dropped it by now
            if response.http_response.status_code != 401:
                break
            response = self.next.send(request)
        return response


def _pipeline_client(credential: Any, scope: str, is_allowed: Callable[[str], bool]) -> Any:
    from azure.core.pipeline import policies
    from azure.mgmt.core import ARMPipelineClient

    class BoundedRetry(policies.RetryPolicy[Any, Any]):
        """Retry-After is honoured up to a minute: nothing here is worth an hour of silence."""

        def get_retry_after(self, response: Any) -> float | None:
            pause_s = super().get_retry_after(response)
            return None if pause_s is None else min(LONGEST_PAUSE_S, pause_s)

    chain = [
        policies.RequestIdPolicy(),
        policies.UserAgentPolicy("boneagectl"),
        policies.RedirectPolicy(),
        BoundedRetry(**RETRY),
        TokenGuard(is_allowed),
        policies.BearerTokenCredentialPolicy(credential, scope),
        policies.ContentDecodePolicy(),  # below the retries: a torn answer is asked for again
    ]
    return ARMPipelineClient(f"https://{ARM_HOST}", policies=chain, **TIMEOUTS)


def _send(client: Any, method: str, url: str, body: Any = None) -> Any:
    """The pipeline's response, which long-running operations need; raises what an answer of 400 or more means."""
    from azure.core.rest import HttpRequest

    request = HttpRequest(method, url, json=body)
    with _translated_errors(_action(method, urlsplit(url).path)):
        response = client.send_request(request, retry_on_methods=_METHODS, _return_pipeline_response=True)
        response.http_response.raise_for_status()
    return response


def _send_for_json(client: Any, method: str, url: str, body: Any = None) -> dict[str, Any]:
    response = _send(client, method, url, body).http_response
    with _translated_errors(_action(method, urlsplit(url).path)):
        return _parse_json(response)


def _parse_json(response: Any) -> dict[str, Any]:
    return dict(response.json()) if response.content else {}


def _action(method: str, path: str) -> str:
    return f"{method} {'/'.join(path.split('/')[-2:])}"


# ------------------------------------------------------------------------------------------ errors
@contextmanager
def _translated_errors(action: str) -> Iterator[None]:
    from azure.core.exceptions import AzureError, DecodeError, HttpResponseError, IncompleteReadError

    try:
        yield
    except (DecodeError, IncompleteReadError, ValueError, TypeError) as error:
        raise Unreachable(f"{action}: Azure's answer cannot be read ({error_text(error)})", LATER) from None
    except HttpResponseError as error:
        raise _translated(action, error.response) from None
    except AzureError as error:
        raise Unreachable(f"{action}: Azure cannot be reached ({error_text(error)})", LATER) from None


def _translated(action: str, response: Any) -> RemoteError:
    status, (code, reason) = response.status_code, _error_of(response)
    if status == 404:
        return NotFound(f"{action}: Azure has no such object ({code})", _DOCTOR)
    if code == "ExpiredAuthenticationToken" or status in (408, 429) or status >= 500:
        return Unreachable(f"{action}: Azure answered {status} {code}: {reason}", LATER)
    if status == 401:
        return NotSignedIn(f"{action}: Azure does not accept the sign-in: {code}: {reason}", "az login")
    if status < 400:
        return ProviderRefused(f"{action} failed: {code}: {reason}", _NEXT_STEPS.get(code, _DOCTOR))
    return ProviderRefused(f"{action}: Azure refused with {status} {code}: {reason}", _NEXT_STEPS.get(code, _DOCTOR))


def _error_of(response: Any) -> tuple[str, str]:
    """The innermost code and message: a deployment that failed has its reason in details of details."""
    try:
        error = response.json()["error"]
        while details := error.get("details"):
            error = details[0]
        return str(error.get("code", "")), " ".join(str(error.get("message", "")).split())[:300]
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", str(response.reason or "")


# ------------------------------------------------------------------------------------------ sign-in
class Credential:
    """azure-identity's default credential: environment, managed identity, ``az login`` and others, in its order.

    Raises:
        MachineError: azure-identity is not installed.
    """

    def __init__(self) -> None:
        try:
            from azure.identity import DefaultAzureCredential
        except ImportError as error:
            raise MachineError(
                f"the azure target needs azure-identity: {error}", "pip install 'boneagectl[azure]'"
            ) from None
        logging.getLogger("azure").setLevel(logging.CRITICAL)  # our error says it, once and in one line
        self._chain = DefaultAzureCredential()

    @property
    def source(self) -> str:
        """The link of the chain that gave the last token; azure-identity keeps it private, so it may be missing."""
        link = getattr(self._chain, "_successful_credential", None)
        return type(link).__name__ if link else "an unknown credential"

    def get_token(self, *scopes: str, **options: Any) -> Any:
        """Raises NotSignedIn."""
        from azure.core.exceptions import ClientAuthenticationError

        try:
            return self._chain.get_token(*scopes, **options)
        except ClientAuthenticationError as error:
            # Each credential of the chain has its own paragraph; only Microsoft's sign-in service gives a reason.
            refusal = next((line for line in str(error).splitlines() if "AADSTS" in line), "")
            reason = textwrap.shorten(refusal, 300, placeholder=" …") or "azure-identity finds no credential"
            raise NotSignedIn(f"not signed in to Azure: {reason}", "az login") from None

    def account(self) -> str:
        """The signed-in account by the claims of a token; nothing is verified here."""
        token = self.get_token(ARM_SCOPE).token
        try:
            payload = token.split(".")[1]
            claims = dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
        except (IndexError, ValueError, TypeError):
            claims = {}
        keys = ("upn", "unique_name", "email", "appid", "oid")
        return next((str(claims[key]) for key in keys if claims.get(key)), "an account without a name")
