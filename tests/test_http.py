"""targets/http.py against a local server: what is repeated, how a download resumes, which error each answer is."""

from __future__ import annotations

import hashlib
import resource
import shutil
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from boneagectl.errors import MachineError, NotFound, NotSignedIn, ProviderRefused, RemoteError, Unreachable
from boneagectl.targets import http

requests = pytest.importorskip("requests")

PROVIDER = http.Provider("Storage", sign_in="storage login", refused="storage help")
CONTENT = bytes(range(256)) * 40
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()  # noqa: S324


def response(status: int, body: bytes = b"", length: int | None = None, **headers: str) -> bytes:
    """A whole response; a `length` beyond the body's makes it end early."""
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


class Server(socketserver.ThreadingTCPServer):
    """Answers with `answers`, one after the other and the last one for ever; keeps what was requested."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/file"
        self.answers: list[bytes | Callable[[dict[str, str]], bytes]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server: Any = self.server
        method = self.rfile.readline().decode().split(" ")[0]
        headers: dict[str, str] = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.title()] = value.strip()
        server.requests.append((method, headers))
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        self.wfile.write(answer(headers) if callable(answer) else answer)


@pytest.fixture
def server(fast_retries: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(server: Server, *answers: Any, method: str = "GET", **options: Any) -> Any:
    server.answers[:] = answers
    with http.session(**options) as session, http.translated_errors(PROVIDER, "asking"):
        got = session.request(method, server.url)
        got.raise_for_status()
        return got


# ------------------------------------------------------------------------------------------- retries
@pytest.mark.parametrize("status", sorted(http.RETRY_STATUSES))
def test_a_status_that_may_pass_is_repeated_and_at_last_unreachable(server: Server, status: int) -> None:
    assert ask(server, response(status), response(200, b"yes")).content == b"yes"
    with pytest.raises(Unreachable):
        ask(server, response(status))
    assert len(server.requests) == 2 + http.ATTEMPTS


@pytest.mark.parametrize(
    "broken",
    [b"", response(200, b"half", 100), response(200, b'{"half', Content_Type="application/json")],
    ids=["reset", "truncated", "no JSON"],
)
def test_a_broken_answer_is_repeated_only_where_that_does_no_harm(server: Server, broken: bytes) -> None:
    whole = response(200, b"{}", Content_Type="application/json")
    assert ask(server, broken, whole).content == b"{}"
    assert ask(server, broken, whole, method="POST", repeatable={"POST"}).content == b"{}"
    server.requests.clear()
    with pytest.raises(Unreachable) as caught:
        ask(server, broken, whole, method="POST")
    assert len(server.requests) == 1
    assert not http.was_not_processed(caught.value.__cause__)


def test_a_post_that_was_not_processed_is_repeated(server: Server) -> None:
    assert ask(server, response(429), response(200, b"yes"), method="POST").content == b"yes"
    with pytest.raises(Unreachable):
        ask(server, response(503), method="POST")
    assert len(server.requests) == 3
    free = http.session()
    with pytest.raises(Unreachable) as caught, http.translated_errors(PROVIDER, "asking"):
        free.post("http://127.0.0.1:9/")
    assert http.was_not_processed(caught.value.__cause__)


def test_retry_after_is_heeded_as_seconds_and_as_a_date_and_is_bounded(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "LONGEST_PAUSE_S", 1.2)
    for value in ("1", formatdate(time.time() + 5, usegmt=True), "3600"):
        began_s = time.monotonic()
        ask(server, response(503, Retry_After=value), response(200))
        assert time.monotonic() - began_s >= 0.9
    began_s = time.monotonic()
    ask(server, response(503, Retry_After="soon"), response(200))
    ask(server, response(503, Retry_After=formatdate(0, usegmt=True)), response(200))
    assert time.monotonic() - began_s < 0.9


def test_a_provider_has_its_own_sign_for_try_again(server: Server) -> None:
    got = ask(server, response(403, b"slow"), response(200), is_transient=lambda said: said.content == b"slow")
    assert got.ok


# -------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, ProviderRefused), (401, NotSignedIn), (403, ProviderRefused), (404, NotFound), (409, ProviderRefused)],
)
def test_each_status_is_the_error_that_says_what_to_do(server: Server, status: int, kind: type[RemoteError]) -> None:
    with pytest.raises(kind) as caught:
        ask(server, response(status, b'{"error": {"message": "the\\nreason"}}'))
    assert type(caught.value) is kind
    assert str(status) in caught.value.message
    assert caught.value.next_step == (PROVIDER.sign_in if status == 401 else PROVIDER.refused)
    assert len(server.requests) == 1
    if status != 401:
        assert "the reason" in caught.value.message


# ------------------------------------------------------------------------------------------ download
def serve(headers: dict[str, str], etag: str = '"1"', most: int = len(CONTENT), content: bytes = CONTENT) -> bytes:
    """The file from the requested byte on, at most `most` bytes before the connection ends."""
    first = int(headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in headers else 0
    if headers.get("If-Range", etag) != etag:
        first = 0
    if first >= len(content):
        return response(416)
    rest = content[first:]
    return response(206 if first else 200, rest[:most], len(rest), ETag=etag)


def download(server: Server, path: Path, *answers: Any, **expected: Any) -> str:
    server.answers[:] = answers
    with http.session() as session:
        return http.download(session, server.url, path, PROVIDER, **expected)


def test_a_download_resumes_after_each_broken_connection(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    assert download(server, path, lambda asked: serve(asked, most=3000), size=len(CONTENT), md5=MD5) == SHA256
    assert path.read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in server.requests] == [
        None, "bytes=3000-", "bytes=6000-", "bytes=9000-"]  # fmt: skip
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_the_next_call_resumes_what_one_left(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(Unreachable):
        download(server, path, lambda asked: serve(asked, most=5000), lambda asked: serve(asked, most=0))
    assert not path.exists()
    server.requests.clear()
    assert download(server, path, serve, sha256=SHA256) == SHA256
    assert [headers["Range"] for _, headers in server.requests] == ["bytes=5000-"]


def test_what_is_complete_already_is_only_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert download(server, tmp_path / "file", serve, sha256=SHA256) == SHA256
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_that_was_replaced_begins_again(server: Server, tmp_path: Path) -> None:
    other = CONTENT[::-1]
    answers = (lambda asked: serve(asked, most=3000), lambda asked: serve(asked, etag='"2"', content=other))
    assert download(server, tmp_path / "file", *answers) == hashlib.sha256(other).hexdigest()


@pytest.mark.parametrize("expected", [{"md5": "0" * 32}, {"sha256": "0" * 64}, {"size": 7}])
def test_what_is_not_what_was_listed_is_deleted(server: Server, tmp_path: Path, expected: dict[str, Any]) -> None:
    with pytest.raises(http.ContentChanged):
        download(server, tmp_path / "file", serve, **expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "kind"), [(401, NotSignedIn), (404, NotFound), (403, ProviderRefused)])
def test_a_refused_download_is_not_repeated(
    server: Server, tmp_path: Path, status: int, kind: type[RemoteError]
) -> None:
    with pytest.raises(kind):
        download(server, tmp_path / "file", response(status))
    assert len(server.requests) == 1
    assert not (tmp_path / "file").exists()


def test_a_disk_without_room_is_found_before_a_byte_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=len(CONTENT) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(MachineError) as caught:
        download(server, tmp_path / "file", serve)
    assert not isinstance(caught.value, RemoteError)
    assert (tmp_path / "file.part").stat().st_size == 0


def test_a_disk_that_fills_up_keeps_what_arrived(server: Server, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(MachineError):
            download(server, tmp_path / "file", lambda asked: serve(asked, most=3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert download(server, tmp_path / "file", serve) == SHA256
