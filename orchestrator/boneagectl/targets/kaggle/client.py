"""Kaggle's API as this tool uses it: the official SDK with timeouts, tries, and refusals told apart."""

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
from boneagectl.targets.kaggle import status
from boneagectl.targets.kaggle.credentials import HOW, Credentials

LATER = "try again in a few minutes; `boneagectl ls` shows whether the kernel was created"
NOT_FOUND_STATUSES = (403, 404)
"""Kaggle answers 403 for a kernel or data set that does not exist, as for one of another account."""
_KERNELS = "kernels.KernelsApiService"
_UNREADABLE = (ValueError, KeyError, TypeError)
"""What the SDK raises when a response is not what it expects."""


class Calls:
    """A signed-in client of the official SDK, with time limits, retries and translated errors."""

    def __init__(self, credentials: Credentials) -> None:
        self.provider = http.Provider(
            "Kaggle",
            sign_in=f"{HOW}; a bad credential hides all others",
            refused="boneagectl doctor --target kaggle",
            later=LATER,
            account=str(credentials),
            not_found=NOT_FOUND_STATUSES,
        )
        self.client = _client(credentials)
        wire = self.client.http_client()
        wire._init_session()  # the SDK makes it on its first call, and has no public way to it
        self.session = http.add_retries(wire._session, repeatable={*http.IDEMPOTENT, "POST"})
        # Every call of the SDK is a POST. This one starts a session on Kaggle each time that it arrives.
        self.session.mount(wire._get_request_url(_KERNELS, "SaveKernel"), http.RetryAdapter())

    def ask(self, call: Callable[[Any], Any], request: Any, what: str) -> Any:
        """The response to `request`, which was asked for `what`.

        Raises:
            NotSignedIn, NotFound, ProviderRefused, Unreachable: see `http.translated_errors`.
        """
        with http.translated_errors(self.provider, what, _UNREADABLE):
            return call(request)


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
        text = http.error_text(error)
        raise NotSignedIn(f"the Kaggle login could not be renewed: {text}", "kaggle auth login") from None
    if not token:
        raise NotSignedIn("the Kaggle login has no token", "kaggle auth login")
    return str(token)


_PAGE = 100
_BEGUN: dict[str, Any] = {"data": ""}


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
            raise UsageError(f"{handle} is no kernel", "a kaggle handle looks like kaggle:alice/my-run-01/1") from None

    @property
    def handle(self) -> Handle:
        url = f"https://www.kaggle.com/code/{self.owner}/{self.slug}"
        return Handle("kaggle", f"{self.owner}/{self.slug}/{self.version}", url)

    def address(self, request: Any) -> Any:
        request.user_name, request.kernel_slug = self.owner, self.slug
        if self.version:
            request.version_label = f"v{self.version}"
        return request


class KaggleApi:
    """One signed-in client; the SDK is imported when it is made."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self._calls = Calls(credentials)
        self._client, self._ask = self._calls.client, self._calls.ask
        self._kernels = self._client.kernels.kernels_api_client

    # ------------------------------------------------------------------------------------ kernels
    def push_kernel(self, metadata: dict[str, Any], text: str) -> Kernel:
        """Pushes the script `text` as `metadata` says and starts it.

        Raises:
            LimitRefused: a quota is used up. SubmitUncertain: no answer came; the kernel may run or not.
            ProviderRefused: Kaggle refused it, or took it with an invalid source, and it was deleted again.
        """
        from kagglesdk.kernels.types.kernels_api_service import ApiSaveKernelRequest

        request = _filled(ApiSaveKernelRequest(), metadata, text)
        try:
            answer = self._ask(self._kernels.save_kernel, request, "pushing the kernel")
        except Unreachable as error:
            if http.was_not_processed(error.__cause__):
                raise
            raise SubmitUncertain(error.message, error.next_step) from None
        if answer.error or not answer.ref:
            raise _refusal(str(answer.error or ""))
        owner, slug = answer.ref.strip("/").removeprefix("code/").split("/")[:2]
        kernel = Kernel(owner, slug, answer.version_number)
        if invalid := _invalid_sources(answer):
            self._take_back(kernel)
            raise ProviderRefused(
                f"Kaggle cannot attach {', '.join(invalid)}; the kernel was deleted again",
                "check the name, and that this account may see it: for a data set, accept its terms on its page",
            )
        return kernel

    def _take_back(self, kernel: Kernel) -> None:
        try:
            self.delete_kernel(kernel)
        except RemoteError as error:
            message = f"{kernel.slug} lacks a source and could not be deleted: {error.message}"
            raise SubmitUncertain(message, error.next_step) from None

    def find_kernel(self, owner: str, slug: str) -> Kernel | None:
        """The kernel of that name with its newest version, or None where there is none."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest

        request = ApiGetKernelRequest()
        request.user_name, request.kernel_slug = owner, slug
        try:
            answer = self._ask(self._kernels.get_kernel, request, f"looking for {owner}/{slug}")
        except NotFound:
            return None
        return Kernel(owner, slug, answer.metadata.current_version_number)

    def session_status(self, kernel: Kernel) -> tuple[str, str]:
        """The session's state by Kaggle's name, and why it failed. Raises NotFound where the kernel is gone."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

        request = kernel.address(ApiGetKernelSessionStatusRequest())
        answer = self._ask(self._kernels.get_kernel_session_status, request, f"asking for {kernel.slug}")
        return answer.status.name, answer.failure_message or ""

    def list_outputs(self, kernel: Kernel) -> tuple[list[tuple[str, str]], str]:
        """Name and address of each file of a session that is over, all pages, and its log as Kaggle keeps it."""
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

        files: list[tuple[str, str]] = []
        request, written = kernel.address(ApiListKernelSessionOutputRequest()), ""
        request.page_size = _PAGE
        while True:
            answer = self._ask(self._kernels.list_kernel_session_output, request, f"listing what {kernel.slug} left")
            files += [(one.file_name, one.url) for one in answer.files or []]
            written = written or answer.log or ""
            if not answer.next_page_token:
                return files, written
            request.page_token = answer.next_page_token

    def recent_kernels(self, count: int) -> list[Kernel]:
        """This account's most recently run kernels."""
        from kagglesdk.kernels.types import kernels_enums
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelsRequest

        request = ApiListKernelsRequest()
        request.group = kernels_enums.KernelsListViewType.PROFILE
        request.sort_by = kernels_enums.KernelsListSortType.DATE_RUN
        request.page, request.page_size = 1, count
        answer = self._ask(self._kernels.list_kernels, request, "listing your kernels")
        names = [one.ref.strip("/").split("/") for one in answer.kernels or []]
        return [Kernel(name[-2], name[-1], 0) for name in names if len(name) >= 2]

    def delete_kernel(self, kernel: Kernel) -> None:
        """Deletes the kernel with all its versions, which ends its session; silent where it is gone."""
        from kagglesdk.kernels.types.kernels_api_service import ApiDeleteKernelRequest

        request = ApiDeleteKernelRequest()
        request.user_name, request.kernel_slug = kernel.owner, kernel.slug
        try:
            answer = self._ask(self._kernels.delete_kernel, request, f"deleting {kernel.slug}")
        except NotFound:
            return
        if answer.error_message:
            raise ProviderRefused(f"Kaggle did not delete {kernel.slug}: {answer.error_message}", kernel.handle.url)

    def log_events(
        self, kernel: Kernel, idle_s: float, answer_s: float = sum(http.TIMEOUT_S)
    ) -> Iterator[dict[str, Any]]:
        """The log's events from the first on; ends at the log's end, or after `idle_s` without news.

        An answer is waited for `answer_s`; without one there are no events.

        Raises:
            NotFound: there is no log yet, or no kernel. Unreachable: the connection broke.
        """
        news: queue.SimpleQueue[dict[str, Any] | RemoteError | None] = queue.SimpleQueue()
        is_unwanted = threading.Event()
        threading.Thread(target=self._read, args=(kernel, news, is_unwanted), daemon=True).start()
        try:
            wait_s = answer_s
            while (event := news.get(timeout=wait_s)) is not None:
                if isinstance(event, RemoteError):
                    raise event
                if event is not _BEGUN:
                    yield event
                wait_s = idle_s
        except queue.Empty:
            return
        finally:
            is_unwanted.set()

    def _read(self, kernel: Kernel, news: Any, is_unwanted: threading.Event) -> None:
        """In a thread of its own, since a socket's time-out cannot tell a slow answer from a quiet log."""
        try:
            what = f"reading the log of {kernel.slug}"
            with http.translated_errors(self._calls.provider, what), self._stream(kernel) as response:
                news.put(_BEGUN)
                for event in status.read_events(response):
                    news.put(event)
                    if is_unwanted.is_set():
                        return
            news.put(None)
        except RemoteError as error:
            news.put(error)

    @contextmanager
    def _stream(self, kernel: Kernel) -> Iterator[Any]:
        """By the path that Kaggle's own tool takes: the SDK's method wants a session id that no answer carries."""
        wire = self._client.http_client()
        url = wire._get_request_url("kernels", f"logs/stream/{kernel.owner}/{kernel.slug}")
        headers = {"Accept": "text/event-stream, */*", "Content-Type": None}
        label = {"versionLabel": f"v{kernel.version}"} if kernel.version else None
        with self._calls.session.get(url, params=label, headers=headers, stream=True) as response:
            response.raise_for_status()
            yield response

    # ------------------------------------------------------------------------- account and data sets
    def username(self) -> str:
        """Whose credentials these are, by Kaggle's word. Raises NotSignedIn where Kaggle does not accept them."""
        if self.credentials.kind == "key":
            self.quota()  # Basic authentication is checked by any call
            return self.credentials.username
        from kagglesdk.security.types.oauth_service import IntrospectTokenRequest

        request = IntrospectTokenRequest()
        request.token = self._client.api_token
        try:
            answer = self._ask(self._client.security.oauth_client.introspect_token, request, "checking the token")
        except NotFound:
            raise self._not_signed_in() from None
        if not answer.active or not answer.username:
            raise self._not_signed_in()
        return str(answer.username)

    def _not_signed_in(self) -> NotSignedIn:
        return NotSignedIn(f"Kaggle does not accept the {self.credentials}", self._calls.provider.sign_in)

    def quota(self) -> Quota:
        """The weekly GPU hours; the SDK's own text of a duration loses whole days, so seconds are taken."""
        answer = self._ask(self._kernels.get_accelerator_quota_statistics, None, "asking for the quota")
        gpu = answer.gpu_quota
        times = (gpu.time_used, gpu.time_reserved, gpu.total_time_allowed) if gpu else (None,) * 3
        used, reserved, allowed = (round(one.total_seconds()) if one else 0 for one in times)
        refresh = answer.quota_refresh_time
        return Quota(used, reserved, allowed, int(refresh.replace(tzinfo=UTC).timestamp()) if refresh else 0)

    def dataset_status(self, ref: str) -> str:
        """``ready``, or what Kaggle is doing with it. Raises NotFound where there is none that we may see."""
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetStatusRequest

        request = ApiGetDatasetStatusRequest()
        request.owner_slug, request.dataset_slug = ref.split("/")[:2]
        answer = self._ask(
            self._client.datasets.dataset_api_client.get_dataset_status, request, f"asking for the data set {ref}"
        )
        return str(answer.status.name if hasattr(answer.status, "name") else answer.status).lower()

    def dataset_bytes(self, ref: str) -> int:
        """How large a data set is, 0 where Kaggle does not say; raises NotFound as `dataset_status` does."""
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

        request = ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = ref.split("/")[:2]
        answer = self._ask(self._client.datasets.dataset_api_client.get_dataset, request, f"looking at {ref}")
        return int(answer.total_bytes or 0)


def _filled(request: Any, metadata: dict[str, Any], text: str) -> Any:
    """The request for a folder's metadata; every field that the script's fate depends on is sent."""
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


def _refusal(said: str) -> ProviderRefused | LimitRefused:
    """What Kaggle answers with status 200 and no kernel."""
    text = f"Kaggle refused the kernel: {said or 'it gave no reason'}"
    if "quota" in said.lower() or "maximum" in said.lower():
        return LimitRefused(text, "boneagectl budget shows what is used, reserved and when it comes back")
    return ProviderRefused(text, "verify your phone number at kaggle.com/settings: GPU and internet need it")


def _invalid_sources(answer: Any) -> list[str]:
    kinds = ("dataset", "kernel", "model", "competition")
    return [str(name) for kind in kinds for name in getattr(answer, f"invalid_{kind}_sources") or []]
