"""The Kaggle emulator answers Kaggle's own clients: the SDK in this process, the command line in its own."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from emulators.kaggle import Fault, Kaggle
from support import wait_for

pytest.importorskip("kagglesdk")

import requests
from kagglesdk import KaggleClient, kaggle_env
from kagglesdk.blobs.types import blob_api_service as B
from kagglesdk.datasets.types import dataset_api_service as D
from kagglesdk.kernels.types import kernels_api_service as K
from kagglesdk.kernels.types.kernels_enums import KernelExecutionType, KernelsListViewType

SLUG, TIMEOUT_S = "bone-run-01", 0.4
WAITING = "import time; print('up', flush=True); time.sleep(60)"
WRITING = "open('half.txt', 'w').write('half')\n" + WAITING


class Impatient(requests.adapters.HTTPAdapter):
    """The SDK itself waits for ever."""

    def send(self, *given: Any, timeout: Any = None, **more: Any) -> requests.Response:
        return super().send(*given, timeout=timeout or TIMEOUT_S * 10, **more)


class Sdk:
    """The few calls the tests make, by the real SDK."""

    def __init__(self, kaggle: Kaggle, **login: str) -> None:
        self.kaggle, self.owner = kaggle, kaggle.owner
        self.client = KaggleClient(env=kaggle_env.KaggleEnv.TEST, **(login or {"api_token": kaggle.token}))
        http = self.client.http_client()
        http._init_session()
        http._session.mount("http://", Impatient())
        self.http, self.api = http._session, self.client.kernels.kernels_api_client
        self.data = self.client.datasets.dataset_api_client

    def ask(self, kind: Any, slug: str, label: str = "", **more: Any) -> Any:
        request = kind()
        request.user_name, request.kernel_slug = self.owner, slug
        for name, value in {**({"version_label": label} if label else {}), **more}.items():
            setattr(request, name, value)
        return request

    def push(self, text: str, slug: str = SLUG, **more: Any) -> Any:
        request = K.ApiSaveKernelRequest()
        request.slug, request.new_title, request.text = f"{self.owner}/{slug}", slug, text
        request.language, request.kernel_type, request.is_private = "python", "script", True
        request.machine_shape, request.enable_internet = "NvidiaTeslaT4", False
        for name, value in more.items():
            setattr(request, name, value)
        return self.api.save_kernel(request)

    def status(self, slug: str = SLUG, label: str = "") -> tuple[str, str]:
        said = self.api.get_kernel_session_status(self.ask(K.ApiGetKernelSessionStatusRequest, slug, label))
        return said.status.name, said.failure_message

    def wait(self, status: str, slug: str = SLUG, label: str = "") -> None:
        wait_for(lambda: self.status(slug, label)[0] == status)

    def output(self, slug: str = SLUG, label: str = "", **more: Any) -> Any:
        request = self.ask(K.ApiListKernelSessionOutputRequest, slug, label, **more)
        return self.api.list_kernel_session_output(request)

    def log(self, slug: str = SLUG) -> str:
        return "".join(event["data"] for event in json.loads(self.output(slug).log))

    def run(self, text: str, slug: str = SLUG, **more: Any) -> str:
        """Pushes, waits until it is complete, returns the log."""
        self.push(text, slug, **more)
        self.wait("COMPLETE", slug)
        return self.log(slug)

    def delete(self, slug: str = SLUG) -> None:
        self.api.delete_kernel(self.ask(K.ApiDeleteKernelRequest, slug))

    def stream(self, slug: str = SLUG, label: str = "v1") -> requests.Response:
        url = f"{self.kaggle.url}/api/v1/kernels/logs/stream/{self.owner}/{slug}"
        return self.http.get(url, params={"versionLabel": label}, stream=True, timeout=TIMEOUT_S * 10)

    def quota(self) -> Any:
        asked = K.ApiGetAcceleratorQuotaStatisticsRequest()
        return self.api.get_accelerator_quota_statistics(asked).gpu_quota

    def dataset(self, kind: Any, slug: str, **more: Any) -> Any:
        request = kind()
        request.owner_slug, request.dataset_slug = self.owner, slug
        for name, value in more.items():
            setattr(request, name, value)
        return request


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    for name in [name for name in os.environ if name.upper().startswith("KAGGLE_") or "proxy" in name.lower()]:
        monkeypatch.delenv(name)
    with Kaggle(tmp_path / "kaggle") as emulator:
        emulator.queue_s = 0
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.TEST, emulator.url)
        yield emulator


@pytest.fixture
def sdk(kaggle: Kaggle) -> Iterator[Sdk]:
    made = Sdk(kaggle)
    yield made
    made.http.close()


def fails_with(code: int, call: Callable[[], object]) -> str:
    """The call's error, and what it says."""
    with pytest.raises(requests.HTTPError) as caught:
        call()
    response = caught.value.response
    assert response.status_code == code
    assert response.json()["error"]["code"] == code
    return str(response.json()["error"]["message"])


def until(go: Path) -> str:
    """Lines of a script that wait for a file."""
    return f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"


def sse(response: requests.Response) -> Iterator[str]:
    """The stream's texts. It is UTF-8 and does not say so: by `decode_unicode` it would be read as Latin-1."""
    for line in (line.removeprefix(b"data: ") for line in response.iter_lines() if line):
        yield "END_OF_LOG" if line == b"END_OF_LOG" else json.loads(line)["data"]


# ---------------------------------------------------------------------------------------- sessions
def test_a_script_runs_on_something_like_kaggles_machine(kaggle: Kaggle, sdk: Sdk) -> None:
    script = """
import json, os, subprocess, sys
from pathlib import Path
print(json.dumps([sys.executable, os.getcwd(), os.environ["BONEAGE_KAGGLE_ROOT"], sorted(os.listdir(".."))]))
print(os.environ["KAGGLE_KERNEL_RUN_TYPE"], "KAGGLE_API_TOKEN" in os.environ, __name__)
print(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout, end="")
print("to stderr: Röntgen", file=sys.stderr)
Path("out").mkdir()
Path("out/model.keras").write_bytes(b"model")
"""
    kaggle.python = "/no/such/python"
    saved = sdk.push(script)
    assert (saved.ref, saved.version_number, saved.error) == (f"/code/alice/{SLUG}", 1, "")
    assert saved.kernel_id == kaggle.kernels[SLUG].kernel_id
    sdk.wait("COMPLETE")
    events = json.loads(sdk.output().log)
    said = [event["data"] for event in events if event["stream_name"] == "stdout"]
    session = kaggle.kernels[SLUG].sessions[0]
    places = ["input", "src", "tmp", "working"]
    assert json.loads(said[0]) == ["/no/such/python", str(session.working), str(session.kaggle), places]
    assert said[1] == "Batch False __main__\n"
    assert [line[:15] for line in said[2:]] == ["GPU 0: Tesla T4", "GPU 1: Tesla T4"]
    assert [event["data"] for event in events if event["stream_name"] == "stderr"] == ["to stderr: Röntgen\n"]
    assert events[0]["time"] >= 0
    (file,) = sdk.output().files
    assert file.file_name == "out/model.keras"
    assert requests.get(file.url, timeout=5).content == b"model"


def test_a_session_waits_runs_and_is_silent_until_it_is_over(kaggle: Kaggle, sdk: Sdk) -> None:
    kaggle.stuck_in_queue = True
    sdk.push(WRITING)
    assert sdk.status() == ("QUEUED", "")
    assert kaggle.running() == []
    kaggle.stuck_in_queue = False
    sdk.wait("RUNNING")
    wait_for(lambda: (kaggle.kernels[SLUG].sessions[0].working / "half.txt").exists())
    assert (sdk.output().files, sdk.output().log) == ([], "")
    assert kaggle.running() == [SLUG]


def test_a_session_can_be_deleted_in_the_queue(kaggle: Kaggle, sdk: Sdk) -> None:
    kaggle.queue_s = 60
    sdk.push(WAITING)
    session = kaggle.kernels[SLUG].sessions[0]
    assert session.status == "QUEUED"
    sdk.delete()
    assert (session.status, session.process, session.elapsed_s) == ("CANCEL_ACKNOWLEDGED", None, 0)


def test_a_script_that_fails(kaggle: Kaggle, sdk: Sdk) -> None:
    kaggle.error_keeps_outputs = False
    sdk.push("open('left.txt', 'w').close()\nraise SystemError('no good')")
    sdk.wait("ERROR")
    assert "SystemError: no good" in sdk.log()
    assert sdk.output().files == []


def test_a_broken_driver_and_no_gpu(kaggle: Kaggle, sdk: Sdk) -> None:
    asks = "import subprocess as s; print(s.run('nvidia-smi').returncode)"
    kaggle.gpus = 0
    assert "couldn't communicate with the NVIDIA driver" in sdk.run(asks)
    assert sdk.log().endswith("9\n")
    kaggle.gpus = 1
    assert sdk.run(asks, "cpu-run-01", machine_shape="").endswith("9\n")
    assert sdk.run(asks, "old-run-01", machine_shape="NvidiaTeslaP100").endswith("0\n")


@pytest.mark.parametrize("old", [False, True])
def test_inputs_are_mounted(kaggle: Kaggle, sdk: Sdk, tmp_path: Path, old: bool) -> None:
    kaggle.old_mounts = old
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "card.json").write_text("{}")
    kaggle.add_dataset("kmader/bones", tmp_path / "pack")
    sdk.run("open('last.npz', 'w').close()", "first-leg-01")
    lists = "import os; from pathlib import Path\nroot = Path(os.environ['BONEAGE_KAGGLE_ROOT']) / 'input'\n"
    lists += "print(sorted(str(p.relative_to(root)) for p in root.rglob('*') if p.is_file()))"
    sources = {"dataset_data_sources": ["kmader/bones", "kmader/none"], "kernel_data_sources": ["alice/first-leg-01"]}
    saved = sdk.push(lists, **sources)
    assert (saved.invalid_dataset_sources, saved.invalid_kernel_sources) == (["kmader/none"], [])
    sdk.wait("COMPLETE")
    kinds = ("", "") if old else ("datasets/kmader/", "notebooks/alice/")
    assert sdk.log() == f"{[kinds[0] + 'bones/card.json', kinds[1] + 'first-leg-01/last.npz']}\n"


def test_a_time_limit_holds(sdk: Sdk) -> None:
    sdk.push(WRITING, session_timeout_seconds=1)
    sdk.wait("CANCEL_ACKNOWLEDGED")
    said = "Your notebook was stopped because it exceeded the max allowed execution duration."
    assert sdk.status()[1] == said
    assert [file.file_name for file in sdk.output().files] == ["half.txt"]


@pytest.mark.parametrize(
    ("fate", "status", "message"),
    [
        ("preempt", "CANCEL_ACKNOWLEDGED", ""),
        ("time_limit", "CANCEL_ACKNOWLEDGED", "Your notebook was stopped because it exceeded"),
        ("out_of_memory", "ERROR", "Your notebook tried to allocate more memory than is available."),
    ],
)
@pytest.mark.parametrize("keep", [True, False])
def test_fates(kaggle: Kaggle, sdk: Sdk, fate: str, status: str, message: str, keep: bool) -> None:
    sdk.push(WRITING)
    wait_for(lambda: kaggle.kernels[SLUG].sessions[0].log)
    getattr(kaggle, fate)(SLUG, keep_outputs=keep)
    seen = sdk.status()
    assert (seen[0], seen[1][: len(message) or None]) == (status, message)
    assert len(sdk.output().files) == keep
    assert sdk.log() == "up\n"
    assert kaggle.running() == []


def test_a_second_save_starts_a_second_session(kaggle: Kaggle, sdk: Sdk) -> None:
    sdk.push(WAITING)
    assert sdk.push("print('second')").version_number == 2
    sdk.wait("COMPLETE", label="v2")
    sdk.wait("RUNNING", label="v1")
    assert sdk.status()[0] == "COMPLETE", "the latest, without a label"
    assert [session.status for session in kaggle.kernels[SLUG].sessions] == ["RUNNING", "COMPLETE"]
    fails_with(404, lambda: sdk.status(label="1"))
    saved = sdk.push("print(3)", kernel_execution_type=KernelExecutionType.QUICK_SAVE)
    assert (saved.version_number, sdk.status()[0]) == (3, "NEW_SCRIPT")
    card = sdk.api.get_kernel(sdk.ask(K.ApiGetKernelRequest, SLUG))
    assert (card.metadata.current_version_number, card.blob.source) == (3, "print(3)")
    assert kaggle.kernels[SLUG].source == "print(3)"


def test_delete_ends_the_run_and_its_helpers(kaggle: Kaggle, sdk: Sdk) -> None:
    helper = "import subprocess as s, sys; print(s.Popen(['sleep', '60'], start_new_session=True).pid, flush=True)\n"
    sdk.push(helper + WAITING)
    session = kaggle.kernels[SLUG].sessions[0]
    wait_for(lambda: len(session.log) == 2)
    sdk.delete()
    assert session.process is not None
    assert session.process.returncode == -9
    if sys.platform == "linux":
        wait_for(lambda: not lives(int(session.log[0]["data"])))
    assert kaggle.kernels == {}
    assert fails_with(404, sdk.status)
    assert fails_with(404, sdk.delete)
    assert fails_with(403, lambda: sdk.status("never-was-01")) == "Permission 'kernels.get' was denied"


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_the_end_of_the_emulator_ends_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Kaggle(tmp_path / "other") as kaggle:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.TEST, kaggle.url)
        sdk = Sdk(kaggle)
        sdk.push(WAITING)
        sdk.wait("RUNNING")
        session = kaggle.kernels[SLUG].sessions[0]
    assert session.process is not None
    assert session.process.returncode == -9
    with pytest.raises(requests.ConnectionError):
        sdk.status()
    sdk.http.close()


# ------------------------------------------------------------------------------- saves that are refused
def test_refusals_come_with_status_200(kaggle: Kaggle, sdk: Sdk) -> None:
    kaggle.quota_used_s = 30 * 3600
    saved = sdk.push(WAITING)
    assert saved.error == "Maximum weekly GPU quota of 30.00 hours reached."
    assert (saved.ref, saved.version_number, kaggle.kernels) == ("", 0, {})
    kaggle.quota_used_s = 20 * 3600
    assert sdk.push(WAITING).error == ""
    projected = "Session cannot start because currently running sessions are projected to exceed maximum weekly GPU"
    assert sdk.push(WAITING, "second-01").error.startswith(projected)
    assert sdk.push("print()", "on-cpu-01", machine_shape="").error == ""
    kaggle.quota_used_s = 0
    assert sdk.push(WAITING, "second-01").error == ""
    assert sdk.push(WAITING, "third-01").error == "Maximum batch GPU session count of 2 reached."
    sdk.delete("second-01")
    assert sdk.push(WAITING, "third-01").error == ""


def test_saves_that_are_wrong(sdk: Sdk) -> None:
    too_large = fails_with(400, lambda: sdk.push("#" * 1_000_000))
    assert too_large == "The kernel source must be less than 1 megabytes in size."
    assert "does not resolve" in fails_with(400, lambda: sdk.push("print()", new_title="Another title"))
    sdk.owner = "bob"
    fails_with(403, lambda: sdk.push("print()"))
    sdk.kaggle.token = "another"
    fails_with(401, lambda: sdk.push("print()"))


def test_the_quota_counts(kaggle: Kaggle, sdk: Sdk) -> None:
    kaggle.clock_rate = 3600
    quota = sdk.quota()
    assert quota.total_time_allowed.total_seconds() == 30 * 3600
    assert quota.time_used.total_seconds() == quota.time_reserved.total_seconds() == 0
    sdk.push(WAITING, session_timeout_seconds=36000)
    sdk.wait("RUNNING")
    quota = sdk.quota()
    both = quota.time_used + quota.time_reserved
    assert both.total_seconds() == pytest.approx(36000, abs=1)
    assert 0 < quota.time_used.total_seconds() < 36000
    sdk.delete()
    spent_s = kaggle.kernels.all_sessions[0].elapsed_s * 3600
    kaggle.quota_used_s = 100
    quota = sdk.quota()
    assert quota.time_used.total_seconds() == pytest.approx(100 + spent_s, abs=0.01)
    assert quota.time_reserved.total_seconds() == 0
    kaggle.quota_refresh = datetime(2026, 12, 5, tzinfo=UTC)
    said = sdk.api.get_accelerator_quota_statistics(K.ApiGetAcceleratorQuotaStatisticsRequest())
    assert said.quota_refresh_time.replace(tzinfo=UTC) == kaggle.quota_refresh


def test_kernels_are_listed_in_pages(sdk: Sdk) -> None:
    for at in range(5):
        sdk.push("print()", f"leg-no-{at}", kernel_execution_type=KernelExecutionType.QUICK_SAVE)
    request = K.ApiListKernelsRequest()
    request.group, request.page_size, seen = KernelsListViewType.PROFILE, 2, []
    for number in (1, 2, 3):
        request.page = number
        page = sdk.api.list_kernels(request)
        seen += [kernel.ref for kernel in page.kernels]
        assert bool(page.next_page_token) == (number < 3)
    assert seen == [f"alice/leg-no-{at}" for at in (4, 3, 2, 1, 0)]
    assert sdk.api.list_kernels().kernels == []


# -------------------------------------------------------------------------------- outputs and logs
def test_outputs_come_in_pages_and_parts(sdk: Sdk) -> None:
    sdk.run("for i in range(45): open(f'{i:02}.txt', 'w').write('0123456789')")
    names, token = [], ""
    for count in (20, 20, 5):
        page = sdk.output(page_size=20, **({"page_token": token} if token else {}))
        assert len(page.files) == count
        names += [file.file_name for file in page.files]
        token = page.next_page_token
    assert (names, token) == ([f"{at:02}.txt" for at in range(45)], "")
    url = page.files[0].url
    part = requests.get(url, headers={"Range": "bytes=4-"}, timeout=5)
    assert (part.status_code, part.text, part.headers["Content-Range"]) == (206, "456789", "bytes 4-9/10")
    changed = {"Range": "bytes=4-", "If-Range": '"another"'}
    assert requests.get(url, headers=changed, timeout=5).text == "0123456789"
    assert requests.get(url, headers={"Range": "bytes=10-"}, timeout=5).status_code == 416
    assert requests.get(url.replace("/signed/", "/signed/x"), timeout=5).status_code == 403
    request = K.ApiDownloadKernelOutputRequest()
    request.owner_slug, request.kernel_slug, request.file_path = "alice", SLUG, "07.txt"
    assert sdk.api.download_kernel_output(request).content == b"0123456789"
    request.file_path, request.version_number = "", 1
    whole = zipfile.ZipFile(io.BytesIO(sdk.api.download_kernel_output(request).content))
    assert len(whole.namelist()) == 45


def test_a_log_streams_live_and_is_json_afterwards(kaggle: Kaggle, sdk: Sdk, tmp_path: Path) -> None:
    go = tmp_path / "go"
    sdk.push(f"print('one')\n{until(go)}print('Größe')")
    with sdk.stream() as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        texts = sse(response)
        assert next(texts) == "one\n"
        assert sdk.status()[0] == "RUNNING"
        go.touch()
        assert list(texts) == ["Größe\n", "END_OF_LOG"]
    sdk.wait("COMPLETE")
    done = sdk.stream()
    assert done.headers["Content-Type"].startswith("application/json")
    assert [event["data"] for event in done.json()] == ["one\n", "Größe\n"]
    asked = sdk.ask(K.ApiGetKernelSessionLogsStreamRequest, SLUG)
    assert sdk.api.get_kernel_session_logs_stream(asked).json() == done.json()
    assert kaggle.calls.count("stream") == 3


# ------------------------------------------------------------------------------------------ faults
@pytest.mark.parametrize(("kind", "saved"), [("429", 0), ("500", 0), ("403", 0), ("404", 0), ("500_after", 1)])
def test_errors_before_and_after_the_work(kaggle: Kaggle, sdk: Sdk, kind: str, saved: int) -> None:
    kaggle.faults = [Fault("SaveKernel", kind, after=1)]
    sdk.push("print()", "other-01", machine_shape="")
    with pytest.raises(requests.HTTPError) as caught:
        sdk.push("print()")
    assert caught.value.response.status_code == int(kind[:3])
    assert caught.value.response.headers.get("Retry-After") == ("1" if kind == "429" else None)
    assert (SLUG in kaggle.kernels) == saved
    assert kaggle.faults == []
    assert sdk.push("print()").version_number == 1 + saved
    assert kaggle.calls == ["SaveKernel"] * 3


@pytest.mark.parametrize(("kind", "saved"), [("reset", 0), ("reset_after", 1), ("hang", 0), ("hang_after", 1)])
def test_no_answer_at_all(kaggle: Kaggle, sdk: Sdk, kind: str, saved: int) -> None:
    kaggle.faults = [Fault("*", kind)]
    sdk.http.mount("http://", BriefAdapter())
    error = requests.Timeout if "hang" in kind else requests.ConnectionError
    with pytest.raises(error):
        sdk.push(WAITING)
    assert len(kaggle.kernels) == saved
    kaggle.release()
    assert sdk.push(WAITING).version_number == 1 + saved


class BriefAdapter(Impatient):
    def send(self, *given: Any, timeout: Any = None, **more: Any) -> requests.Response:
        return super().send(*given, timeout=TIMEOUT_S, **more)


def test_a_told_refusal_and_half_an_answer(kaggle: Kaggle, sdk: Sdk) -> None:
    kaggle.faults = [Fault("SaveKernel", "refuse", text="Not today."), Fault("GetKernelSessionStatus", "truncate")]
    assert (sdk.push("print()").error, kaggle.kernels) == ("Not today.", {})
    sdk.push(WAITING)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        sdk.status()
    assert sdk.status()[0] in ("QUEUED", "RUNNING")


@pytest.mark.parametrize("kind", ["reset", "truncate", "hang"])
def test_downloads_break_in_the_middle(kaggle: Kaggle, sdk: Sdk, kind: str) -> None:
    sdk.run("open('x.bin', 'wb').write(bytes(1000))")
    url = sdk.output().files[0].url
    kaggle.faults = [Fault("download", kind)]
    with requests.get(url, stream=True, timeout=TIMEOUT_S) as response:
        assert response.headers["Content-Length"] == "1000"
        parts = response.iter_content(100)
        got = b"".join(next(parts) for _ in range(5))
        with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
            next(parts)
    kaggle.release()
    rest = requests.get(url, headers={"Range": "bytes=500-"}, timeout=5)
    assert got + rest.content == bytes(1000)
    kaggle.faults = [Fault("download", "403")]
    assert requests.get(url, timeout=5).status_code == 403


@pytest.mark.parametrize("kind", ["reset", "truncate", "hang"])
def test_streams_break_in_the_middle_and_begin_again(kaggle: Kaggle, sdk: Sdk, tmp_path: Path, kind: str) -> None:
    go = tmp_path / "go"
    sdk.push(f"for i in range(3): print(i)\n{until(go)}")
    wait_for(lambda: len(kaggle.kernels[SLUG].sessions[0].log) == 3)
    kaggle.faults = [Fault("stream", kind)]
    sdk.http.mount("http://", BriefAdapter())
    with sdk.stream() as response, pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        list(sse(response))
    kaggle.release()
    with sdk.stream() as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        go.touch()
        assert list(sse(response)) == ["0\n", "1\n", "2\n", "END_OF_LOG"]


# ---------------------------------------------------------------------------------------- datasets
def start_upload(sdk: Sdk, name: str, size: int) -> Any:
    request = B.ApiStartBlobUploadRequest()
    request.type, request.name, request.content_length = B.ApiBlobType.DATASET, name, size
    return sdk.client.blobs.blob_api_client.start_blob_upload(request)


def upload(sdk: Sdk, name: str, data: bytes) -> Any:
    started = start_upload(sdk, name, len(data))
    assert requests.put(started.create_url, data=data, timeout=5).status_code == 200
    file = D.ApiDatasetNewFile()
    file.token = started.token
    return file


def create(sdk: Sdk, slug: str, *files: Any) -> Any:
    request = D.ApiCreateDatasetRequest()
    request.owner_slug, request.slug, request.title = sdk.owner, slug, slug
    request.license_name, request.is_private, request.files = "CC0-1.0", True, list(files)
    return sdk.data.create_dataset(request)


def zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    buffer, member = io.BytesIO(), tarfile.TarInfo(name)
    member.size = len(data)
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_an_upload_goes_on_where_it_was_cut(kaggle: Kaggle, sdk: Sdk) -> None:
    url = start_upload(sdk, "data.bin", 10).create_url

    def put(place: str, data: bytes = b"") -> requests.Response:
        return requests.put(url, data=data, headers={"Content-Range": place}, timeout=5)

    nothing = put("bytes */10")
    assert (nothing.status_code, "Range" in nothing.headers) == (308, False)
    assert put("bytes 0-5/10", b"012345").headers["Range"] == "bytes=0-5"
    assert (asked := put("bytes */10")).status_code == 308
    assert asked.headers["Range"] == "bytes=0-5"
    kaggle.faults = [Fault("upload", "503")]
    assert put("bytes 6-9/10", b"6789").status_code == 503
    assert put("bytes */10").headers["Range"] == "bytes=0-7"
    kaggle.faults = [Fault("upload", "reset")]
    with pytest.raises(requests.ConnectionError):
        put("bytes 8-9/10", b"89")
    assert put("bytes */10").headers["Range"] == "bytes=0-8"
    assert put("bytes 9-9/10", b"9").status_code == 200
    assert put("bytes */10").status_code == 200
    kaggle.faults = [Fault("upload", "404")]
    assert put("bytes */10").status_code == 404
    (blob,) = kaggle.datasets.blobs.values()
    assert blob.data == b"0123456789"


def test_a_dataset_is_made_versioned_listed_and_attached(kaggle: Kaggle, sdk: Sdk) -> None:
    kaggle.dataset_ready_after = 2
    files = [upload(sdk, "card.json", b"{}"), upload(sdk, "train.zip", zipped("a/1.png", b"png"))]
    made = create(sdk, "bone-pack", *files, upload(sdk, "test.tar.gz", tarred("2.png", b"png")))
    assert (made.ref, made.status, made.error) == ("/alice/bone-pack", "ok", "")
    reads = "import os; print(sorted(n for _, _, names in os.walk('../input') for n in names))"
    assert sdk.push(reads, dataset_data_sources=["alice/bone-pack"]).invalid_dataset_sources == ["alice/bone-pack"]
    asked = sdk.dataset(D.ApiGetDatasetStatusRequest, "bone-pack")
    seen = [sdk.data.get_dataset_status(asked).status.name for _ in range(3)]
    assert seen == ["BLOBS_RECEIVED", "BLOBS_DECOMPRESSED", "READY"]
    source = {"dataset_data_sources": ["alice/bone-pack"]}
    assert sdk.run(reads, "second-01", **source) == "['1.png', '2.png', 'card.json']\n"
    listed = [
        sdk.data.list_dataset_files(sdk.dataset(D.ApiListDatasetFilesRequest, "bone-pack", page_size=2, **more))
        for more in ({}, {"page_token": "2"})
    ]
    assert [[file.name for file in page.files] for page in listed] == [["card.json", "test/2.png"], ["train/a/1.png"]]
    assert (listed[0].next_page_token, listed[0].files[0].total_bytes) == ("2", 2)
    kaggle.dataset_ready_after, kaggle.dataset_fails = 0, True
    version = sdk.dataset(D.ApiCreateDatasetVersionRequest, "bone-pack")
    version.body = D.ApiCreateDatasetVersionRequestBody()
    version.body.files = [upload(sdk, "card.json", b"[]")]
    assert sdk.data.create_dataset_version(version).status == "ok"
    assert sdk.data.get_dataset_status(asked).status.name == "FAILED"
    assert sdk.data.get_dataset(sdk.dataset(D.ApiGetDatasetRequest, "bone-pack")).current_version_number == 2
    assert create(sdk, "bone-pack").status == "error"
    assert create(sdk, "half-a-pack", D.ApiDatasetNewFile()).error.startswith("The upload None is unknown")
    fails_with(403, lambda: sdk.data.get_dataset(sdk.dataset(D.ApiGetDatasetRequest, "never-was")))


def test_a_dataset_is_downloaded_whole_and_by_file(kaggle: Kaggle, sdk: Sdk) -> None:
    create(sdk, "bone-pack", upload(sdk, "train.zip", zipped("1.csv", b"id,male\n")), upload(sdk, "card.json", b"{}"))

    def get(**more: Any) -> requests.Response:
        return sdk.data.download_dataset(sdk.dataset(D.ApiDownloadDatasetRequest, "bone-pack", **more))

    assert get(file_name="train/1.csv").content == b"id,male\n"
    whole = get()
    assert zipfile.ZipFile(io.BytesIO(whole.content)).namelist() == ["card.json", "train/1.csv"]
    rest = requests.get(whole.url, headers={"Range": "bytes=10-", "If-Range": whole.headers["ETag"]}, timeout=5)
    assert (rest.status_code, whole.content[:10] + rest.content) == (206, whole.content)
    kaggle.zip_from_bytes = 4
    large = get(file_name="train/1.csv")
    assert large.url.split("?")[0].endswith("1.csv.zip")
    assert zipfile.ZipFile(io.BytesIO(large.content)).read("1.csv") == b"id,male\n"
    assert get(file_name="card.json").content == b"{}"
    fails_with(404, lambda: get(file_name="../../../kaggle"))


# ------------------------------------------------------------------------------------- the bare wire
def test_the_wire_takes_what_clients_may_send(kaggle: Kaggle) -> None:
    login, path = ("alice", kaggle.key), "v1/kernels.KernelsApiService/ListKernels"
    url = f"{kaggle.url}/{path}"
    assert requests.post(url, json={"group": "PROFILE"}, auth=login, timeout=5).json() == {"kernels": []}
    assert requests.post(f"{kaggle.url}/api/{path}", json={}, auth=login, timeout=5).status_code == 200
    assert requests.post(url, data=iter([b"{", b"}"]), auth=login, timeout=5).status_code == 200
    for body in ("", "{", "[]"):
        assert requests.post(url, data=body, auth=login, timeout=5).status_code == 400
    assert requests.post(url, json={}, auth=("alice", "wrong"), timeout=5).status_code == 401
    assert requests.post(url + "Twice", json={}, auth=login, timeout=5).status_code == 404
    assert kaggle.calls == ["ListKernels"] * 7 + ["ListKernelsTwice"]
    with socket.create_connection(kaggle._server.server_address, timeout=5) as raw:
        raw.sendall(b"GET http://localhost/api/v1/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 401 ")


# ------------------------------------------------------------------------------- the command line
@pytest.fixture
def command(kaggle: Kaggle, tmp_path: Path) -> Callable[..., str]:
    """Kaggle's own command, unmodified, led here by a proxy setting."""
    pytest.importorskip("tqdm")
    home = tmp_path / "home"
    home.mkdir()
    given = {"HOME": str(home), "TMPDIR": str(home), "KAGGLE_CONFIG_DIR": str(home), "http_proxy": kaggle.url}
    environment = {**os.environ, **given, "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "KAGGLE_API_TOKEN": kaggle.token}

    def call(*arguments: object) -> str:
        line = [sys.executable, "-m", "kaggle", *map(str, arguments)]
        done = subprocess.run(line, env=environment, cwd=home, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


def test_the_command_line_pushes_watches_and_fetches(
    kaggle: Kaggle, command: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "push"
    folder.mkdir()
    (folder / "script.py").write_text("print('hello')\nopen('a.txt', 'w').write('a')\n")
    card = {"id": f"alice/{SLUG}", "title": SLUG, "code_file": "script.py", "language": "python"}
    card |= {"kernel_type": "script", "machine_shape": "NvidiaTeslaT4"}
    (folder / "kernel-metadata.json").write_text(json.dumps(card))
    assert "30.00h" in command("quota")
    assert "Kernel version 1 successfully pushed" in command("kernels", "push", "-p", folder, "-t", "600")
    assert kaggle.kernels[SLUG].request["sessionTimeoutSeconds"] == 600
    assert command("kernels", "logs", "-f", f"alice/{SLUG}").endswith("hello\n")
    wait_for(lambda: kaggle.kernels[SLUG].sessions[0].is_over)
    assert "COMPLETE" in command("kernels", "status", f"alice/{SLUG}")
    command("kernels", "output", f"alice/{SLUG}", "-p", tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == "a"
    assert "hello" in (tmp_path / "out" / f"{SLUG}.log").read_text()
    assert "a.txt" in command("kernels", "files", f"alice/{SLUG}")
    assert SLUG in command("kernels", "list", "--mine")
    command("kernels", "delete", f"alice/{SLUG}", "--yes")
    assert kaggle.kernels == {}


def test_the_command_line_makes_and_fetches_a_dataset(
    kaggle: Kaggle, command: Callable[..., str], tmp_path: Path
) -> None:
    folder, ref = tmp_path / "data", "alice/bone-pack"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "1.png").write_bytes(b"png")
    (folder / "images.bin").write_bytes(bytes(range(256)) * 40)
    card = {"id": ref, "title": "bone-pack", "licenses": [{"name": "CC0-1.0"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(card))
    kaggle.faults = [Fault("upload", "503")]
    assert "is being created" in command("datasets", "create", "-p", folder, "--dir-mode", "zip")
    assert kaggle.calls.count("upload") == 4, "one cut, one question, one rest, one other file"
    assert "ready" in command("datasets", "status", ref)
    assert "train/1.png" in command("datasets", "files", ref)
    kaggle.faults = [Fault("download", "reset")]
    command("datasets", "download", ref, "-p", tmp_path / "got", "--unzip")
    assert (tmp_path / "got" / "images.bin").read_bytes() == bytes(range(256)) * 40
    assert (tmp_path / "got" / "train" / "1.png").read_bytes() == b"png"
    command("datasets", "download", ref, "-f", "train/1.png", "-p", tmp_path / "one")
    assert (tmp_path / "one" / "train" / "1.png").read_bytes() == b"png"
