"""HTTP for every target: one session with retries, one resumable download, one translation of errors.

How a target uses it:

    DRIVE = http.Provider("Google Drive", sign_in="gcloud auth application-default login", refused="boneagectl doctor")

    session = http.session()                     # or http.add_retries(a session of a vendor's SDK)
    with http.translated_errors(DRIVE, "listing the folder"):
        response = session.get(url, params=query)    # repeated after 408, 429, 5xx and broken connections
        response.raise_for_status()              # what is left: NotSignedIn, NotFound, Unreachable, ProviderRefused
    sha256 = http.download(session, url, path, DRIVE, size=file.size, md5=file.md5)
    http.repeat(lambda: upload_once(), http.retry_policy())    # upload_once raises http.Transient to be repeated

A request is repeated only if its method is in `repeatable`, or if the server certainly did not act on it: no
connection was made, or the answer was 429. A request whose method alone does not tell gets an adapter of its own:
`session.mount(address, http.RetryAdapter(repeatable=...))`. A provider's own sign of "try again" (403 with
`rateLimitExceeded`) is given as `is_transient`, its own refusals as `Provider.own_error`.

requests and urllib3 are imported where they are used: a target that needs no network works without them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from boneagectl import units
from boneagectl.errors import BoneagectlError, MachineError, NotFound, NotSignedIn, ProviderRefused, Unreachable

TIMEOUT_S = (10.0, 60.0)
"""For the connection, and for each wait for further bytes."""
ATTEMPTS = 4
BACKOFF_S = 1.0
"""The first pause; each further one is twice as long."""
LONGEST_PAUSE_S = 60.0
"""Bounds every pause, also one that Retry-After asks for."""
RETRY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})

_PIECE_BYTES = 1 << 20
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

T = TypeVar("T")


# ------------------------------------------------------------------------------------------- retries
class Transient(Exception):
    """One attempt failed and a further one may succeed; `error` is raised if none does.

    `response` may carry Retry-After. After an attempt `with_progress` the count of attempts starts again.
    """

    def __init__(self, error: Exception, response: Any = None, with_progress: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.response, self.with_progress = error, response, with_progress


def retry_policy(repeatable: Collection[str] = IDEMPOTENT) -> Any:
    """urllib3's Retry with this module's attempts, statuses and backoff."""
    from urllib3.util import Retry

    return Retry(
        total=ATTEMPTS - 1, allowed_methods=repeatable, status_forcelist=RETRY_STATUSES, backoff_factor=BACKOFF_S
    )


def repeat(attempt: Callable[[], T], policy: Any) -> T:
    """Calls `attempt` until it does not raise `Transient`, with pauses in between.

    Raises:
        The error inside the last `Transient`, when the policy allows no further attempt.
    """
    from urllib3.exceptions import MaxRetryError

    state = policy
    while True:
        try:
            return attempt()
        except Transient as failure:
            try:
                state = (policy if failure.with_progress else state).increment(error=failure)
            except MaxRetryError:
                raise failure.error from None
            asked_s = retry_after_s(failure.response) if failure.response is not None else None
            time.sleep(min(LONGEST_PAUSE_S, asked_s or max(BACKOFF_S, state.get_backoff_time())))


def retry_after_s(response: Any) -> float | None:
    """Seconds until the time of the Retry-After header, a number or a date; None without a valid one."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    try:
        return float(Retry().parse_retry_after(response.headers["Retry-After"]))
    except (KeyError, InvalidHeader):
        return None


class RetryAdapter:
    """A transport adapter for sessions of requests: time limits for every request, and retries by `retry_policy`.

    A body that ends early, or is not the JSON that its header promises, counts as a broken connection, unless the
    caller streams it.

    Args:
        repeatable: methods of requests that do no harm when the server gets them twice.
        is_transient: responses beside `RETRY_STATUSES` that a repetition may mend.
    """

    def __init__(
        self, repeatable: Collection[str] = IDEMPOTENT, is_transient: Callable[[Any], bool] = lambda response: False
    ) -> None:
        from requests.adapters import HTTPAdapter

        self._transport, self._policy, self._is_transient = HTTPAdapter(), retry_policy(repeatable), is_transient

    def send(self, request: Any, stream: bool = False, timeout: Any = None, **options: Any) -> Any:
        """Raises requests.HTTPError where the last attempt has a status that would be repeated."""
        return repeat(lambda: self._attempt(request, stream, timeout=timeout or TIMEOUT_S, **options), self._policy)

    def close(self) -> None:
        self._transport.close()

    def _attempt(self, request: Any, stream: bool, **options: Any) -> Any:
        import requests

        try:
            response = self._transport.send(request, stream=stream, **options)
            if not stream and response.content and response.ok and "json" in response.headers.get("Content-Type", ""):
                response.json()
        except requests.RequestException as error:
            if request.method in self._policy.allowed_methods or was_not_processed(error):
                raise Transient(error) from None
            raise
        status = response.status_code
        if status == 429 or self._policy.is_retry(request.method, status) or self._is_transient(response):
            response.close()
            final = requests.HTTPError(f"{status} {response.reason}", response=response, request=request)
            raise Transient(final, response)
        return response


def was_not_processed(error: BaseException | None) -> bool:
    """Whether the server certainly did not act on the request: it was not connected, or it answered 429."""
    import requests
    from urllib3.exceptions import ConnectTimeoutError, ProxyError

    if isinstance(error, requests.HTTPError):
        return error.response is not None and error.response.status_code == 429
    if not isinstance(error, requests.ConnectionError) or not error.args:
        return False
    reason = getattr(error.args[0], "reason", error.args[0])
    if isinstance(reason, ProxyError):
        reason = reason.original_error
    return isinstance(reason, ConnectTimeoutError)


def session(repeatable: Collection[str] = IDEMPOTENT, is_transient: Callable[[Any], bool] | None = None) -> Any:
    """A session of requests with retries. It signs nothing, and sends nothing from ~/.netrc."""
    import requests

    made = requests.Session()
    made.auth = lambda request: request
    made.headers["Accept-Encoding"] = "identity"
    return add_retries(made, repeatable, is_transient)


def add_retries(
    session: Any, repeatable: Collection[str] = IDEMPOTENT, is_transient: Callable[[Any], bool] | None = None
) -> Any:
    """Mounts a `RetryAdapter` on a session that somebody else made, and returns the session."""
    adapter = RetryAdapter(repeatable, is_transient) if is_transient else RetryAdapter(repeatable)
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    return session


# -------------------------------------------------------------------------------------------- errors
@dataclass(frozen=True, slots=True)
class Provider:
    """How errors of one provider read: its name, and what to do next.

    Args:
        sign_in: the next step after 401.
        refused: the next step after any other refusal.
        later: the next step where no answer came.
        account: what 401 does not accept.
        not_found: statuses that mean that there is no such object.
        own_error: the error for a response and its message, or None for the usual one.
    """

    name: str
    sign_in: str
    refused: str
    later: str = "try again in a few minutes"
    account: str = "sign-in"
    not_found: Collection[int] = (404,)
    own_error: Callable[[Any, str], BoneagectlError | None] = lambda response, message: None

    def error_from(self, response: Any, what: str) -> BoneagectlError:
        """The error for a response with a status from 400 on; `what` was asked."""
        status = response.status_code
        message = f"{what}: {self.name} answered {status} {response_text(response)}".rstrip()
        if own := self.own_error(response, message):
            return own
        if status == 401:
            return NotSignedIn(f"{self.name} does not accept the {self.account} (401)", self.sign_in)
        if status in self.not_found:
            return NotFound(message, self.refused)
        return Unreachable(message, self.later) if status in RETRY_STATUSES else ProviderRefused(message, self.refused)


@contextmanager
def translated_errors(provider: Provider, what: str, unreadable: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns errors of requests and urllib3 in the block into ours; `unreadable`: what an SDK raises for a torn answer.

    Raises:
        NotSignedIn, NotFound, ProviderRefused: by the status, see `Provider`.
        Unreachable: no answer, or one with a status of `RETRY_STATUSES`. `__cause__` is the original error.
    """
    import requests
    import urllib3

    caught: Any = (requests.RequestException, urllib3.exceptions.HTTPError, *unreadable)
    try:
        yield
    except caught as error:
        response = getattr(error, "response", None)
        if isinstance(error, requests.HTTPError) and response is not None:
            raise provider.error_from(response, what) from error
        message = f"{what}: no answer from {provider.name} ({error_text(error)})"
        raise Unreachable(message, provider.later) from error


def response_text(response: Any) -> str:
    """The message in a response's JSON, in one line of at most 300 characters; without one its reason."""
    try:
        body = response.json()
        error = body.get("error")
        text = error["message"] if isinstance(error, dict) else body["message"]
    except (ValueError, LookupError, TypeError, AttributeError):
        text = response.reason or ""
    return " ".join(str(text).split())[:300]


def error_text(error: BaseException) -> str:
    """The error's kind and text, cut to what a message can carry."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


# ------------------------------------------------------------------------------------------ download
class ContentChanged(Unreachable):
    """The bytes are not those that were listed: the file is being replaced, or was damaged on the way."""


def read_bytes(
    session: Any,
    url: str,
    what: str,
    provider: Provider,
    *,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of a small file, which need not be valid JSON; repeated where the connection breaks.

    Raises:
        Unreachable, NotFound, NotSignedIn, ProviderRefused: see `Provider`.
    """
    import requests

    def attempt() -> bytes:
        with translated_errors(provider, what):
            response = session.get(url, params=params, headers=headers, stream=True)
            response.raise_for_status()
        with closing(response):
            try:
                return bytes(response.content)
            except requests.RequestException as error:
                raise Transient(Unreachable(f"{what} broke off: {error_text(error)}", provider.later)) from None

    return repeat(attempt, retry_policy())


def download(
    session: Any,
    url: str,
    path: Path,
    provider: Provider,
    *,
    size: int | None = None,
    sha256: str = "",
    md5: str = "",
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Downloads `url` to `path` and returns the sha256 of its bytes.

    What arrives is kept beside `path` as ``NAME.part`` and resumed, in this call after a broken connection and in
    later calls; `path` exists only when it is complete and has the `size` in bytes, `sha256` and `md5` that are given.

    Raises:
        Unreachable: the connection broke off `ATTEMPTS` times without a new byte; the next call resumes.
        ContentChanged: size or checksum differ; what arrived is deleted.
        MachineError: the disk is too small.
        NotFound, NotSignedIn, ProviderRefused: see `Provider`.
    """
    with closing(_Part(path, needs_md5=bool(md5))) as part:
        repeat(lambda: part.append_rest(session, url, provider, params, headers or {}), retry_policy())
        expected = (part.size if size is None else size, sha256 or part.sha256.hexdigest(), md5 or part.md5.hexdigest())
        if expected != (part.size, part.sha256.hexdigest(), part.md5.hexdigest()):
            part.path.unlink()
            raise ContentChanged(
                f"{path.name} differs from the size or checksum that it was listed with", provider.later
            )
    os.replace(part.path, path)
    return part.sha256.hexdigest()


class _Part:
    """A file that arrives in pieces, with the checksums of what is there; the md5, which takes time, only if needed."""

    def __init__(self, dest: Path, needs_md5: bool) -> None:
        dest.parent.mkdir(parents=True, exist_ok=True)
        self._needs_md5 = needs_md5
        self.path, self._etag = dest.with_name(f"{dest.name}.part"), ""
        self._stream = open(self.path, "ab+", buffering=0)  # noqa: SIM115 - it stays open until `close`
        self._stream.seek(0)
        self._reset()
        while piece := self._stream.read(_PIECE_BYTES):
            self._count(piece)

    def close(self) -> None:
        self._stream.close()

    def append_rest(
        self, session: Any, url: str, provider: Provider, params: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> None:
        """Requests the bytes that are missing and appends them; raises `Transient` where the connection breaks."""
        import requests
        import urllib3

        before, name = self.size, self.path.stem
        with translated_errors(provider, f"downloading {name}"):
            asked = {"Accept-Encoding": "identity", **headers, **self._range()}
            response = session.get(url, params=params, headers=asked, stream=True)
            if response.status_code != 416:
                response.raise_for_status()
        with closing(response):
            if response.status_code == 416:  # nothing is missing
                return
            if response.status_code != 206:
                self._stream.truncate(0)
                self._reset()
            self._etag = response.headers.get("ETag", "")
            expected = self.size + int(response.headers.get("Content-Length", 0))
            self._check_space(expected - self.size)
            try:
                shutil.copyfileobj(response.raw, self, _PIECE_BYTES)
                trouble = f"{self.size} of {expected} bytes" if self.size < expected else ""
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                trouble = error_text(error)
        if trouble:
            final = Unreachable(f"the download of {name} broke off: {trouble}", "the same command resumes it")
            raise Transient(final, with_progress=self.size > before)

    def write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[self._stream.write(rest) :]
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            raise MachineError(f"the disk is full: {self.path}", "free some space; the same command resumes") from None
        self._count(piece)

    def _range(self) -> dict[str, str]:
        if not self.size:
            return {}
        is_strong = self._etag and not self._etag.startswith("W/")
        return {"Range": f"bytes={self.size}-", **({"If-Range": self._etag} if is_strong else {})}

    def _reset(self) -> None:
        self.size, self.sha256, self.md5 = 0, hashlib.sha256(), hashlib.md5(usedforsecurity=False)

    def _count(self, piece: bytes) -> None:
        self.sha256.update(piece)
        if self._needs_md5:
            self.md5.update(piece)
        self.size += len(piece)

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise MachineError(
                f"{self.path.stem} needs {units.format_bytes(needed)}, the disk has {units.format_bytes(free)} free",
                "free some space; the same command resumes the download",
            )
