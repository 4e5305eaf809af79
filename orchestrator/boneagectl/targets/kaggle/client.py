"""Kaggle's API: the official SDK with the time limits, retries and errors of `targets/http.py`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import boneage_trainer
from boneagectl.errors import (
    LimitRefused,
    MachineError,
    NotFound,
    NotSignedIn,
    ProviderRefused,
    RemoteError,
    SubmitUncertain,
    Unreachable,
    UsageError,
)
from boneagectl.models import Handle, Quota
from boneagectl.targets import http
from boneagectl.targets.kaggle.credentials import HOW, Credentials
from boneagectl.targets.kaggle.status import read_events

LATER = "try again in a few minutes; `boneagectl ls` shows whether the kernel was created"
NOT_FOUND_STATUSES = (403, 404)
"""Kaggle answers 403 for a kernel or dataset that does not exist, as for one of another account."""
_PAGE_SIZE = 100
_CONNECTED: dict[str, Any] = {"data": ""}
_UNREADABLE = (ValueError, KeyError, TypeError)
"""What the SDK raises when a response is not what it expects."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One version of one kernel; `version` 0 is the newest."""

    owner: str
    slug: str
    version: int

    @classmethod
    def from_handle(cls, handle: Handle) -> Kernel:
        try:
            owner, slug, version = handle.remote_id.split("/")
            return cls(owner, slug, int(version))
        except ValueError:
            message = f"{handle} is not a kaggle handle"
            raise UsageError(message, "a kaggle handle looks like kaggle:alice/my-run-01/1") from None

    @property
    def handle(self) -> Handle:
        url = f"https://www.kaggle.com/code/{self.owner}/{self.slug}"
        return Handle("kaggle", f"{self.owner}/{self.slug}/{self.version}", url)

    def address(self, request: Any) -> Any:
        """`request` with this kernel's name and version."""
        request.user_name, request.kernel_slug = self.owner, self.slug
        if self.version:
            request.version_label = f"v{self.version}"
        return request


class KaggleApi:
    """A signed-in client; the SDK is imported when it is made.

    Every method may raise NotSignedIn, ProviderRefused, NotFound or Unreachable; see `http.translated_errors`.
    """

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self._provider = http.Provider(
            "Kaggle",
            sign_in=f"{HOW}; a bad credential hides all others",
            refused="boneagectl doctor --target kaggle",
            later=LATER,
            account=str(credentials),
            not_found=NOT_FOUND_STATUSES,
        )
        self._client = _sdk_client(credentials)
        self._kernels = self._client.kernels.kernels_api_client
        self._wire = self._client.http_client()
        self._wire._init_session()  # the SDK makes it on its first call, and has no public way to it
        self._session = http.add_retries(self._wire._session, repeatable={*http.IDEMPOTENT, "POST"})
        # Every call of the SDK is a POST. This one starts a session on Kaggle each time that it arrives.
        save_url = self._wire._get_request_url("kernels.KernelsApiService", "SaveKernel")
        self._session.mount(save_url, http.RetryAdapter())

    def _ask(self, call: Callable[[Any], Any], request: Any, what: str) -> Any:
        with http.translated_errors(self._provider, what, _UNREADABLE):
            return call(request)

    # ------------------------------------------------------------------------------------ kernels
    def push_kernel(self, metadata: dict[str, Any], text: str) -> Kernel:
        """Pushes the script `text` with `metadata` and starts it.

        Raises:
            LimitRefused: a quota is used up.
            SubmitUncertain: no answer came; the kernel may or may not run.
            ProviderRefused: Kaggle refused it, or accepted it with an invalid source, and it was deleted again.
        """
        from kagglesdk.kernels.types.kernels_api_service import ApiSaveKernelRequest

        request = _save_request(ApiSaveKernelRequest(), metadata, text)
        try:
            response = self._ask(self._kernels.save_kernel, request, "pushing the kernel")
        except Unreachable as error:
            if http.was_not_processed(error.__cause__):
                raise
            raise SubmitUncertain(error.message, error.next_step) from None
        if response.error or not response.ref:
            raise _refusal(str(response.error or ""))
        owner, slug = response.ref.strip("/").removeprefix("code/").split("/")[:2]
        kernel = Kernel(owner, slug, response.version_number)
        if invalid := _invalid_sources(response):
            self._withdraw(kernel)
            raise ProviderRefused(
                f"Kaggle cannot attach {', '.join(invalid)}; the kernel was deleted again",
                "check the name; accept the terms of a dataset on its page",
            )
        return kernel

    def _withdraw(self, kernel: Kernel) -> None:
        try:
            self.delete_kernel(kernel)
        except RemoteError as error:
            message = f"{kernel.slug} lacks a source and could not be deleted: {error.message}"
            raise SubmitUncertain(message, error.next_step) from None

    def find_kernel(self, owner: str, slug: str) -> Kernel | None:
        """The kernel of that name with its newest version, or None if there is none."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest

        request = ApiGetKernelRequest()
        request.user_name, request.kernel_slug = owner, slug
        try:
            response = self._ask(self._kernels.get_kernel, request, f"looking for {owner}/{slug}")
        except NotFound:
            return None
        return Kernel(owner, slug, response.metadata.current_version_number)

    def session_status(self, kernel: Kernel) -> tuple[str, str]:
        """The session's state by Kaggle's name, and why it failed. Raises NotFound if there is no kernel."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

        request = kernel.address(ApiGetKernelSessionStatusRequest())
        response = self._ask(self._kernels.get_kernel_session_status, request, f"polling {kernel.slug}")
        return response.status.name, response.failure_message or ""

    def list_outputs(self, kernel: Kernel) -> tuple[list[tuple[str, str]], str]:
        """Name and address of each output of a session that is over, and its stored log."""
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

        files: list[tuple[str, str]] = []
        request, log = kernel.address(ApiListKernelSessionOutputRequest()), ""
        request.page_size = _PAGE_SIZE
        while True:
            what = f"listing the outputs of {kernel.slug}"
            response = self._ask(self._kernels.list_kernel_session_output, request, what)
            files += [(file.file_name, file.url) for file in response.files or []]
            log = log or response.log or ""
            if not response.next_page_token:
                return files, log
            request.page_token = response.next_page_token

    def recent_kernels(self, count: int) -> list[Kernel]:
        """This account's most recently run kernels."""
        from kagglesdk.kernels.types import kernels_enums
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelsRequest

        request = ApiListKernelsRequest()
        request.group = kernels_enums.KernelsListViewType.PROFILE
        request.sort_by = kernels_enums.KernelsListSortType.DATE_RUN
        request.page, request.page_size = 1, count
        response = self._ask(self._kernels.list_kernels, request, "listing your kernels")
        names = [kernel.ref.strip("/").split("/") for kernel in response.kernels or []]
        return [Kernel(name[-2], name[-1], 0) for name in names if len(name) >= 2]

    def delete_kernel(self, kernel: Kernel) -> None:
        """Deletes the kernel with all its versions, which ends its session; does nothing if there is none."""
        from kagglesdk.kernels.types.kernels_api_service import ApiDeleteKernelRequest

        request = ApiDeleteKernelRequest()
        request.user_name, request.kernel_slug = kernel.owner, kernel.slug
        try:
            response = self._ask(self._kernels.delete_kernel, request, f"deleting {kernel.slug}")
        except NotFound:
            return
        if response.error_message:
            raise ProviderRefused(f"Kaggle did not delete {kernel.slug}: {response.error_message}", kernel.handle.url)

    # ----------------------------------------------------------------------------------- live log
    def log_events(self, kernel: Kernel, idle_s: float, connect_s: float | None = None) -> Iterator[dict[str, Any]]:
        """The log's events from the first one on, until the log ends or no event arrives for `idle_s` seconds.

        It waits `connect_s` seconds for the connection, by default as long as any request; then there are no events.

        Raises:
            NotFound: there is no log yet, or no kernel. Unreachable: the connection broke.
        """
        events: queue.SimpleQueue[dict[str, Any] | RemoteError | None] = queue.SimpleQueue()
        is_cancelled = threading.Event()
        threading.Thread(target=self._read_log, args=(kernel, events, is_cancelled), daemon=True).start()
        wait_s = sum(http.TIMEOUT_S) if connect_s is None else connect_s
        try:
            while (event := events.get(timeout=wait_s)) is not None:
                if isinstance(event, RemoteError):
                    raise event
                if event is not _CONNECTED:
                    yield event
                wait_s = idle_s
        except queue.Empty:
            return
        finally:
            is_cancelled.set()

    def _read_log(self, kernel: Kernel, events: Any, is_cancelled: threading.Event) -> None:
        """In a thread of its own, since a socket's timeout cannot tell a slow answer from a quiet log."""
        try:
            what = f"reading the log of {kernel.slug}"
            with http.translated_errors(self._provider, what), self._open_log(kernel) as response:
                events.put(_CONNECTED)
                for event in read_events(response):
                    events.put(event)
                    if is_cancelled.is_set():
                        return
            events.put(None)
        except RemoteError as error:
            events.put(error)

    @contextmanager
    def _open_log(self, kernel: Kernel) -> Iterator[Any]:
        """The address that Kaggle's own tool uses: the SDK's method needs a session id that no response has."""
        url = self._wire._get_request_url("kernels", f"logs/stream/{kernel.owner}/{kernel.slug}")
        headers = {"Accept": "text/event-stream, */*", "Content-Type": None}
        label = {"versionLabel": f"v{kernel.version}"} if kernel.version else None
        with self._session.get(url, params=label, headers=headers, stream=True) as response:
            response.raise_for_status()
            yield response

    # ----------------------------------------------------------------------- account and datasets
    def username(self) -> str:
        """The user of these credentials, as Kaggle says. Raises NotSignedIn if Kaggle does not accept them."""
        if self.credentials.kind == "key":
            self.quota()  # any call checks Basic authentication
            return self.credentials.username
        from kagglesdk.security.types.oauth_service import IntrospectTokenRequest

        request = IntrospectTokenRequest()
        request.token = self._client.api_token
        refused = NotSignedIn(f"Kaggle does not accept the {self.credentials}", self._provider.sign_in)
        try:
            response = self._ask(self._client.security.oauth_client.introspect_token, request, "checking the token")
        except NotFound:
            raise refused from None
        if not response.active or not response.username:
            raise refused
        return str(response.username)

    def quota(self) -> Quota:
        """The weekly GPU hours. Taken in seconds, since the SDK's own text of a duration loses whole days."""
        response = self._ask(self._kernels.get_accelerator_quota_statistics, None, "reading the quota")
        gpu = response.gpu_quota
        times = (gpu.time_used, gpu.time_reserved, gpu.total_time_allowed) if gpu else (None,) * 3
        used, reserved, allowed = (round(time.total_seconds()) if time else 0 for time in times)
        refresh = response.quota_refresh_time
        return Quota(used, reserved, allowed, int(refresh.replace(tzinfo=UTC).timestamp()) if refresh else 0)

    def dataset_status(self, ref: str) -> str:
        """``ready``, or what Kaggle is doing with it. Raises NotFound if this account sees no such dataset."""
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetStatusRequest

        request = ApiGetDatasetStatusRequest()
        request.owner_slug, request.dataset_slug = ref.split("/")[:2]
        call = self._client.datasets.dataset_api_client.get_dataset_status
        status = self._ask(call, request, f"looking for the dataset {ref}").status
        return str(status.name if hasattr(status, "name") else status).lower()

    def dataset_bytes(self, ref: str) -> int:
        """The size of a dataset, 0 if Kaggle does not tell. Raises NotFound as `dataset_status` does."""
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

        request = ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = ref.split("/")[:2]
        call = self._client.datasets.dataset_api_client.get_dataset
        return int(self._ask(call, request, f"looking for the dataset {ref}").total_bytes or 0)


def _sdk_client(credentials: Credentials) -> Any:
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
    """The token of `kaggle auth login`, which the SDK renews."""
    from kagglesdk import KaggleClient
    from kagglesdk.kaggle_creds import KaggleCredentials

    login = KaggleCredentials.load(KaggleClient())
    try:
        token = login.get_access_token() if login else None
    except Exception as error:  # whatever a renewal over the network raises
        text = http.error_text(error)
        raise NotSignedIn(f"the Kaggle login could not be renewed: {text}", "kaggle auth login") from None
    if not token:
        raise NotSignedIn("the Kaggle login has no token", "kaggle auth login")
    return str(token)


def _save_request(request: Any, metadata: dict[str, Any], text: str) -> Any:
    """Every field is set: Kaggle's defaults differ between its documentation and its client."""
    from kagglesdk.kernels.types.kernels_enums import KernelExecutionType

    request.slug, request.new_title, request.text = metadata["id"], metadata["title"], text
    request.language, request.kernel_type = metadata["language"], metadata["kernel_type"]
    request.is_private, request.enable_internet = metadata["is_private"], metadata["enable_internet"]
    request.enable_gpu, request.enable_tpu = metadata["enable_gpu"], metadata["enable_tpu"]
    request.machine_shape = metadata["machine_shape"]
    request.session_timeout_seconds = metadata["session_timeout_seconds"]
    request.dataset_data_sources = metadata["dataset_sources"]
    request.kernel_data_sources = metadata["kernel_sources"]
    request.model_data_sources = metadata["model_sources"]
    request.competition_data_sources = metadata["competition_sources"]
    request.kernel_execution_type = KernelExecutionType.SAVE_AND_RUN_ALL
    return request


def _refusal(reason: str) -> ProviderRefused | LimitRefused:
    """For a response with status 200 and no kernel."""
    message = f"Kaggle refused the kernel: {reason or 'it gave no reason'}"
    if "quota" in reason.lower() or "maximum" in reason.lower():
        return LimitRefused(message, "`boneagectl budget` shows the used and reserved hours and when the quota is back")
    return ProviderRefused(message, "verify your phone number at kaggle.com/settings: GPU and internet need it")


def _invalid_sources(response: Any) -> list[str]:
    kinds = ("dataset", "kernel", "model", "competition")
    return [str(name) for kind in kinds for name in getattr(response, f"invalid_{kind}_sources") or []]
