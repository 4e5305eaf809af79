"""The Colab emulator answers real clients, led there by environment alone: Google's own command line, requests with
a websocket as Jupyter's clients use them, and Google's API client for Drive."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import parse_sentinel
from boneagectl import bundle
from emulators import colab_cli, fake_trainer
from emulators.colab import Colab, Fault, Vm
from support import environment, make_pack, make_spec, wait_for

pytest.importorskip("cryptography")
requests = pytest.importorskip("requests")

BACKEND, DRIVE = "https://colab.research.google.com", "https://www.googleapis.com/drive/v3"
XSSI = ")]}'\n"
WRITE, READ = "drive.file", "drive.readonly"
needs_machines = pytest.mark.skipif(bool(Colab.missing()), reason=Colab.missing())
needs_cli = pytest.mark.skipif(bool(colab_cli.missing()), reason=colab_cli.missing())


@pytest.fixture
def colab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Colab]:
    for name in [name for name in os.environ if name.startswith("GOOGLE") or "proxy" in name.lower()]:
        monkeypatch.delenv(name)
    with Colab(tmp_path / "the colab") as emulator:
        emulator.tier = "pro"
        for name, value in emulator.environment().items():
            monkeypatch.setenv(name, value)
        yield emulator
        assert emulator.refused_hosts == []


# ----------------------------------------------------------------------------------------- helpers
class Backend:
    """The session backend, asked as the official command line asks it."""

    def __init__(self, colab: Colab) -> None:
        self.colab = colab
        self.token = colab.login.grant("userinfo.email", "colaboratory")["token"]

    def ask(self, verb: str, path: str, host: str = BACKEND, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        return requests.request(verb, f"{host}/{path}", headers=headers, timeout=10, **more)

    def said(self, verb: str, path: str, **more: Any) -> Any:
        answer = self.ask(verb, path, **more)
        answer.raise_for_status()
        assert answer.text.startswith(XSSI)
        return json.loads(answer.text.removeprefix(XSSI))

    def post_assign(self, notebook: str = "", **kind: str) -> requests.Response:
        query = {"nbh": notebook or new_notebook(), "authuser": "0", **kind}
        xsrf = self.said("GET", "tun/m/assign", params=query)["token"]
        return self.ask("POST", "tun/m/assign", params=query, headers={"X-Goog-Colab-Token": xsrf})

    def assign(self, notebook: str = "", **kind: str) -> Any:
        answer = self.post_assign(notebook, **kind)
        answer.raise_for_status()
        return json.loads(answer.text.removeprefix(XSSI))

    def assignments(self) -> list[Any]:
        return list(self.said("GET", "tun/m/assignments")["assignments"])

    def unassign(self, endpoint: str) -> requests.Response:
        xsrf = self.said("GET", f"tun/m/unassign/{endpoint}")["token"]
        return self.ask("POST", f"tun/m/unassign/{endpoint}", headers={"X-Goog-Colab-Token": xsrf})


class Machine:
    """One machine, as Jupyter's clients speak to it."""

    def __init__(self, colab: Colab, backend: Backend, **kind: str) -> None:
        said = backend.assign(**kind)
        self.vm: Vm = colab.vms[said["endpoint"]]
        self.url, self.token = said["runtimeProxyInfo"]["url"], said["runtimeProxyInfo"]["token"]
        self.kernel = ""

    def ask(self, verb: str, path: str, **more: Any) -> requests.Response:
        headers = {"X-Colab-Runtime-Proxy-Token": self.token}
        return requests.request(verb, f"{self.url}/{path}", headers=headers, timeout=20, **more)

    def put(self, path: str, body: bytes, **more: Any) -> requests.Response:
        said = {"type": "file", "format": "base64", "content": base64.b64encode(body).decode(), **more}
        return self.ask("PUT", f"api/contents/{path}", json=said)

    def get(self, path: str) -> bytes:
        answer = self.ask("GET", f"files/{path}")
        answer.raise_for_status()
        return bytes(answer.content)

    def start_kernel(self) -> str:
        self.kernel = str(self.ask("POST", "api/kernels", json={"name": "python3"}).json()["id"])
        return self.kernel

    def state(self) -> str:
        return str(self.ask("GET", f"api/kernels/{self.kernel}").json()["execution_state"])

    def socket(self) -> Any:
        websocket = pytest.importorskip("websocket")
        if not self.kernel:
            self.start_kernel()
        place = f"{self.url.replace('https:', 'wss:')}/api/kernels/{self.kernel}/channels?session_id={uuid.uuid4().hex}"
        return websocket.create_connection(place, header={"X-Colab-Runtime-Proxy-Token": self.token}, timeout=20)

    def start(self, code: str) -> None:
        """Sends code and leaves when the kernel has taken it."""
        with closing(self.socket()) as link:
            asked = send(link, code)
            for said in messages(link, asked):
                if said["msg_type"] == "execute_input":
                    return

    def run(self, code: str) -> str:
        """What the code prints; an error's name and text when it raises."""
        with closing(self.socket()) as link:
            return heard(link, send(link, code))


def send(link: Any, code: str) -> str:
    asked = uuid.uuid4().hex
    header = {"msg_id": asked, "msg_type": "execute_request", "session": "s", "username": "u", "version": "5.3"}
    content = {"code": code, "silent": False, "allow_stdin": False, "stop_on_error": True, "store_history": True}
    link.send(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content,
                          "channel": "shell", "buffers": []}))  # fmt: skip
    return asked


def messages(link: Any, asked: str) -> Iterator[Any]:
    while True:
        said = json.loads(link.recv())
        if said["parent_header"].get("msg_id") == asked:
            yield said


def heard(link: Any, asked: str) -> str:
    text = ""
    for said in messages(link, asked):
        content = said["content"]
        text += content["text"] if said["msg_type"] == "stream" else ""
        text += f"{content['ename']}: {content['evalue']}" if said["msg_type"] == "error" else ""
        if said["msg_type"] == "status" and content["execution_state"] == "idle":
            return text
    raise AssertionError("the kernel said nothing")


def until_torn(answer: requests.Response) -> bytes:
    """As much of the body as comes; that it ends too early must be noticed."""
    got = bytearray()

    def read() -> None:
        for piece in answer.iter_content(4096):
            got.extend(piece)

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        read()
    return bytes(got)


def new_notebook() -> str:
    return str(uuid.uuid4()).replace("-", "_").ljust(44, ".")


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


@pytest.fixture
def backend(colab: Colab) -> Backend:
    return Backend(colab)


@pytest.fixture
def machine(colab: Colab, backend: Backend) -> Machine:
    return Machine(colab, backend, variant="GPU", accelerator="T4")


# ----------------------------------------------------------------------------------------- the way out
def test_requests_to_other_hosts_are_refused(colab: Colab) -> None:
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get("https://example.com/", timeout=5)
    assert requests.get("http://example.org/", timeout=5).status_code == 403
    assert colab.refused_hosts == ["example.com", "example.org"]
    colab.refused_hosts.clear()


# ----------------------------------------------------------------------------------------- session backend
@needs_machines
def test_a_runtime_is_assigned_once_listed_with_new_tokens_and_released(colab: Colab, backend: Backend) -> None:
    notebook = new_notebook()
    query = {"nbh": notebook, "variant": "GPU", "accelerator": "T4"}
    first = backend.said("GET", "tun/m/assign", params=query)
    assert first | {"token": ""} == {"acc": "T4", "nbh": notebook, "p": False, "token": "", "variant": "GPU"}
    assert backend.ask("POST", "tun/m/assign", params=query).status_code == 403, "without its token"
    made = backend.assign(notebook, variant="GPU", accelerator="T4")
    assert (made["accelerator"], made["variant"], made["machineShape"]) == ("T4", 1, 0)
    again = backend.said("GET", "tun/m/assign", params=query)
    assert again["endpoint"] == made["endpoint"], "the same notebook gets the machine it has"
    listed = backend.assignments()
    assert [one["endpoint"] for one in listed] == [made["endpoint"]]
    tokens = {one["runtimeProxyInfo"]["token"] for one in (made, again, *listed)}
    assert len(tokens) == 3
    assert all("SECRET" in token for token in tokens)
    process = colab.vms[made["endpoint"]].process
    assert backend.unassign(made["endpoint"]).status_code == 204
    assert backend.assignments() == []
    assert process.poll() is not None
    assert backend.ask("GET", f"tun/m/unassign/{made['endpoint']}").status_code == 404


def test_what_an_account_may_not_have_is_refused(colab: Colab, backend: Backend) -> None:
    colab.tier = "free"
    assert backend.post_assign(variant="GPU", accelerator="A100").status_code == 400
    assert backend.post_assign(variant="GPU", accelerator="T4", shape="hm").status_code == 400
    colab.no_capacity = True
    assert backend.post_assign(variant="GPU", accelerator="T4").status_code == 412
    colab.no_capacity, colab.most_sessions = False, 0
    assert backend.post_assign(variant="GPU", accelerator="T4").status_code == 412
    colab.most_sessions, colab.free_units = 1, 0
    assert backend.post_assign(variant="GPU", accelerator="T4").status_code == 412
    colab.free_units, colab.outcome = 1, "QUOTA_EXCEEDED_USAGE_TIME"
    assert backend.assign(variant="GPU", accelerator="T4") == {"outcome": "QUOTA_EXCEEDED_USAGE_TIME"}
    colab.faults.append(Fault("POST assign", "503", times=2))
    codes = [backend.post_assign(variant="GPU", accelerator="A100").status_code for _ in range(3)]
    assert codes == [503, 503, 400]
    assert colab.vms == {}


@needs_machines
def test_a_runtime_whose_answer_was_lost_is_listed(colab: Colab, backend: Backend) -> None:
    notebook = new_notebook()
    colab.faults.append(Fault("POST assign", "reset_after"))
    with pytest.raises(requests.ConnectionError):
        backend.post_assign(notebook)
    (made,) = backend.assignments()
    assert backend.said("GET", "tun/m/assign", params={"nbh": notebook})["endpoint"] == made["endpoint"]


@needs_machines
def test_use_costs_units_by_the_emulators_clock(colab: Colab, backend: Backend) -> None:
    assert backend.said("GET", "tun/m/ccu-info")["currentBalance"] == 100
    made = backend.assign(variant="GPU", accelerator="T4")
    for host in (BACKEND, "https://colab.pa.googleapis.com"):
        said = backend.said("GET", "v1/user-info", host=host)
        assert said["subscriptionTier"] == "SUBSCRIPTION_TIER_PRO"
    shown = backend.said("GET", "tun/m/ccu-info")
    assert (shown["consumptionRateHourly"], shown["assignmentsCount"]) == (1.19, 1)
    assert "A100" in shown["eligibleGpus"]
    assert shown["ineligibleGpus"] == ["H100"]
    colab.clock_rate = 36000
    wait_for(lambda: backend.said("GET", "tun/m/ccu-info")["currentBalance"] < 99.5)
    backend.unassign(made["endpoint"])
    ended = backend.said("GET", "tun/m/ccu-info")
    time.sleep(0.05)
    assert backend.said("GET", "tun/m/ccu-info") == ended, "nothing is used any more"
    assert ended["consumptionRateHourly"] == 0
    colab.tier = "free"
    free = backend.said("GET", "tun/m/ccu-info")
    assert free["currentBalance"] == 0
    assert 0 < int(free["freeCcuQuotaInfo"]["remainingTokens"]) < 15000


@needs_machines
def test_an_old_or_idle_runtime_is_ended(colab: Colab, machine: Machine, tmp_path: Path) -> None:
    machine.start(f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)")
    colab.idle_s, colab.clock_rate = 60, 600
    time.sleep(0.4)
    assert machine.vm.is_alive, "its kernel is busy, though no client listens"
    (tmp_path / "go").touch()
    wait_for(lambda: machine.vm.ended == "idle")
    colab.idle_s, colab.session_s = 1e9, 30
    other = Machine(colab, Backend(colab))
    wait_for(lambda: other.vm.ended == "age")


@needs_machines
def test_a_busy_kernel_may_need_a_connected_client(colab: Colab, machine: Machine) -> None:
    machine.start_kernel()
    with closing(machine.socket()) as link:
        send(link, "import time; time.sleep(60)")
        wait_for(lambda: machine.state() == "busy")
        colab.idle_s, colab.clock_rate, colab.needs_connection = 60, 600, True
        time.sleep(0.3)
        assert machine.vm.is_alive
    wait_for(lambda: machine.vm.ended == "idle")


def test_the_backend_needs_a_valid_sign_in(colab: Colab, backend: Backend) -> None:
    assert backend.assignments() == []
    colab.login.expire()
    assert backend.ask("GET", "tun/m/assignments").status_code == 401
    backend.token = colab.login.grant("drive.file")["token"]
    assert backend.ask("GET", "tun/m/assignments").status_code == 403
    backend.token = "made-up"
    assert backend.ask("GET", "tun/m/ccu-info").status_code == 401


# ----------------------------------------------------------------------------------------- machines
@needs_machines
def test_a_job_outlives_its_connection_and_leaves_files(machine: Machine, tmp_path: Path) -> None:
    assert machine.run("print(6 * 7)") == "42\n"
    assert machine.run("1 / 0") == "ZeroDivisionError: division by zero"
    machine.start("import time; time.sleep(0.5); open('/content/done.txt', 'w').write('done')")
    assert machine.state() == "busy"
    wait_for(lambda: machine.state() == "idle")
    assert machine.get("content/done.txt") == b"done"
    names = machine.ask("GET", "api/contents/content").json()["content"]
    assert [one["name"] for one in names] == ["done.txt"]
    assert machine.ask("GET", "files/content/nothing").status_code == 404


@needs_machines
def test_a_runtimes_token_opens_no_other_runtime(colab: Colab, backend: Backend, machine: Machine) -> None:
    query = {"colab-runtime-proxy-token": machine.token}
    assert requests.get(f"{machine.url}/api/status", params=query, timeout=20).status_code == 200
    assert requests.get(f"{machine.url}/api/status", timeout=20).status_code == 401
    other = Machine(colab, backend)
    other.token = machine.token
    assert other.ask("GET", "api/status").status_code == 401
    colab.rotates_tokens = True
    fresh = backend.assignments()[0]["runtimeProxyInfo"]["token"]
    assert machine.ask("GET", "api/status").status_code == 401, "rotated"
    machine.token = fresh
    assert machine.ask("GET", "api/status").status_code == 200
    colab.expire_tokens()
    assert machine.ask("GET", "api/status").status_code == 401
    colab.proxy_token_s = 0.1
    machine.token = backend.assignments()[0]["runtimeProxyInfo"]["token"]
    assert machine.ask("GET", "api/status").status_code == 200
    time.sleep(0.15)
    assert machine.ask("GET", "api/status").status_code == 401


@needs_machines
def test_files_are_uploaded_in_parts_and_downloads_may_be_torn(colab: Colab, machine: Machine) -> None:
    parts = [os.urandom(40_000) for _ in range(3)]
    for chunk, part in zip((1, 2, -1), parts, strict=True):
        assert machine.put("content/big.bin", part, chunk=chunk).ok
    whole = b"".join(parts)
    assert machine.get("content/big.bin") == whole
    colab.cuts = [50_000]
    answer = machine.ask("GET", "files/content/big.bin", stream=True)
    got = until_torn(answer)
    assert len(got) < 50_000
    assert whole.startswith(got)
    colab.faults.append(Fault("GET runtime files/*", "reset"))
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        machine.get("content/big.bin")
    assert machine.get("content/big.bin") == whole


@needs_machines
def test_what_the_real_proxy_might_refuse_can_be_refused(colab: Colab, machine: Machine) -> None:
    colab.takes_chunks = False
    assert machine.put("content/a.bin", b"first", chunk=1).ok
    assert machine.put("content/a.bin", b"second", chunk=-1).status_code == 400
    body = json.dumps({"type": "file", "format": "text", "content": "x"}).encode()
    assert machine.ask("PUT", "api/contents/content/b.txt", data=iter([body])).status_code == 400
    colab.takes_chunks, colab.most_body_bytes = True, 1000
    assert machine.put("content/a.bin", b"x" * 2000).status_code == 413
    colab.serves_files = False
    assert machine.ask("GET", "files/content/a.bin").status_code == 404
    said = machine.ask("GET", "api/contents/content/a.bin?content=1&format=base64").json()
    assert base64.b64decode(said["content"]) == b"first"


@needs_machines
def test_a_lost_runtime_ends_its_processes_and_connections(colab: Colab, backend: Backend, machine: Machine) -> None:
    websocket = pytest.importorskip("websocket")
    code = "import os, subprocess\nchild = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
    pids = [int(word) for word in machine.run(code + "print(os.getpid(), child.pid)").split()]
    assert all(map(is_running, pids))
    link = machine.socket()
    send(link, "import time; time.sleep(60)")
    wait_for(lambda: machine.state() == "busy")
    colab.faults.append(Fault("GET runtime api/status", "hang"))
    failures: list[Exception] = []

    def ask() -> None:
        try:
            machine.ask("GET", "api/status")
        except requests.RequestException as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: "GET runtime api/status" in colab.calls)
    colab.lose(machine.vm)
    with pytest.raises((OSError, websocket.WebSocketException)):
        list(iter(link.recv, None))
    link.close()
    colab.release()
    thread.join(5)
    assert len(failures) == 1
    wait_for(lambda: not any(map(is_running, pids)))
    assert backend.assignments() == []
    assert machine.ask("GET", "api/kernels").status_code == 404


@needs_machines
def test_a_kernel_finds_the_trainer_but_not_the_emulator(
    colab: Colab, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colab.python = str(fake_trainer.install(tmp_path / "a folder"))
    monkeypatch.setenv("FAKE_EPOCH_S", "0.01")
    monkeypatch.setenv("BONEAGECTL_SECRET", "not for machines")
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "its_stub.py").write_text("said = 'stubbed'")
    colab.kernel_path = [tmp_path / "stubs"]
    machine = Machine(colab, backend, variant="GPU", accelerator="T4")
    make_pack(machine.vm.content / "pack")
    assert machine.put("content/bundle.zip", bundle.build(make_spec(epochs=3, target="colab")).content).ok
    lines = machine.run(
        "import subprocess, sys\n"
        "done = subprocess.run([sys.executable, 'bundle.zip', '--data', 'pack', '--out', 'out', '--leg', 'a', "
        "'--time-limit-s', '60'], capture_output=True, text=True)\nprint(done.stdout, done.stderr)"
    ).splitlines()
    assert [said["epoch"] for line in lines if (said := parse_sentinel(line))] == [1, 2, 3]
    assert machine.get("content/out/model.keras") == b"model"
    shown = machine.run(
        "import os, its_stub\nprint(its_stub.said, os.environ['FAKE_EPOCH_S'], os.environ['BONEAGECTL_ROOT'])\n"
        "print([name for name in os.environ if 'proxy' in name.lower() or name in "
        "('REQUESTS_CA_BUNDLE', 'SSL_CERT_FILE', 'BONEAGECTL_SECRET')])\n"
        "print('COLAB_RELEASE_TAG' in os.environ, subprocess.getoutput('nvidia-smi -L'))\n"
        "print(subprocess.getoutput('python -c \"print(1 + 1)\"'))"
    ).splitlines()
    assert shown[0] == f"stubbed 0.01 {machine.vm.content}"
    assert shown[1] == "[]"
    assert shown[2].startswith("True GPU 0: Tesla T4")
    assert shown[3] == "2"


@needs_machines
def test_content_is_the_runtimes_own_folder(machine: Machine) -> None:
    before = Path("/content").exists()
    shown = machine.run(
        "import os, shutil, pathlib, zipfile\nos.makedirs('/content/a/b', exist_ok=True)\nos.chdir('/content/a')\n"
        "pathlib.Path('/content/a/b/c.txt').write_text('c')\nshutil.copy('/content/a/b/c.txt', '/content/d.txt')\n"
        "os.replace('/content/d.txt', '/content/e.txt')\nshutil.make_archive('/content/z', 'zip', '/content/a')\n"
        "print(sorted(os.listdir('/content')), os.path.exists('/content/a/b/c.txt'), open('b/c.txt').read())\n"
        "print(zipfile.ZipFile('/content/z.zip').namelist())\nshutil.rmtree('/content/a')\n"
        "print([path.name for path in sorted(pathlib.Path('/content').iterdir())])"
    ).splitlines()
    assert shown == ["['a', 'e.txt', 'z.zip'] True c", "['b/', 'b/c.txt']", "['e.txt', 'z.zip']"]
    assert (machine.vm.content / "e.txt").read_text() == "c"
    assert Path("/content").exists() == before


@needs_machines
def test_a_runtime_can_release_itself(colab: Colab, machine: Machine) -> None:
    machine.start(
        "import os, time, urllib.request as u\ntime.sleep(0.3)  # until no client listens\n"
        "u.urlopen(u.Request(f\"http://{os.environ['TBE_RUNTIME_ADDR']}/unassign\", data=b'', method='POST'))"
    )
    wait_for(lambda: machine.vm.ended == "unassigned")
    assert "POST self-unassign" in colab.calls


@needs_machines
def test_a_runtime_keeps_running_when_a_connection_drops(colab: Colab, machine: Machine) -> None:
    websocket = pytest.importorskip("websocket")
    with closing(machine.socket()) as link:
        send(link, "import time; time.sleep(0.5); open('/content/done.txt', 'w').write('done')")
        wait_for(lambda: machine.state() == "busy")
        colab.drop_sockets()
        with pytest.raises((OSError, websocket.WebSocketException)):
            list(iter(link.recv, None))
    wait_for(lambda: machine.state() == "idle")
    assert machine.get("content/done.txt") == b"done"


@needs_machines
def test_no_runtime_outlives_the_tests(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from emulators.colab import Colab; from emulators.colab_vms import *\n"
        "colab = Colab(Path(sys.argv[1])); vm = Vm(colab, '', Kind('DEFAULT', 'NONE', False)); vm.dial().close()\n"
        "print(vm.process.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "colab")]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        assert is_running(pid)
        process.kill()
    wait_for(lambda: not is_running(pid))


@needs_machines
def test_faults_apply_to_calls_to_runtimes(colab: Colab, machine: Machine) -> None:
    websocket = pytest.importorskip("websocket")
    colab.faults.append(Fault("WS runtime *", "503"))
    with pytest.raises(websocket.WebSocketBadStatusException):
        machine.socket()
    machine.socket().close()
    colab.faults += [Fault("GET runtime api/kernels", "500"), Fault("POST runtime api/kernels", "reset_after")]
    assert machine.ask("GET", "api/kernels").status_code == 500
    before = len(machine.ask("GET", "api/kernels").json())
    with pytest.raises(requests.ConnectionError):
        machine.ask("POST", "api/kernels", json={"name": "python3"})
    assert len(machine.ask("GET", "api/kernels").json()) == before + 1, "the work was done"


# ----------------------------------------------------------------------------------------- sign-in
def refreshed(said: dict[str, Any], **other: str) -> requests.Response:
    form = {"grant_type": "refresh_token", **{name: said[name] for name in ("client_id", "client_secret")}}
    form |= {"refresh_token": said["refresh_token"], **other}
    return requests.post("https://oauth2.googleapis.com/token", data=form, timeout=5)


def test_a_login_is_refreshed_until_it_is_revoked(colab: Colab, backend: Backend) -> None:
    said = colab.login.grant("userinfo.email")
    colab.login.expire()
    colab.login.life_s = 0.2
    fresh = refreshed(said).json()
    backend.token = fresh["access_token"]
    assert backend.assignments() == []
    time.sleep(0.25)
    assert backend.ask("GET", "tun/m/assignments").status_code == 401, "its hour is over"
    wider = refreshed(said, scope="https://www.googleapis.com/auth/drive")
    assert (wider.status_code, wider.json()["error"]) == (400, "invalid_scope")
    assert refreshed(said, client_id="another").status_code == 401
    colab.login.revoked = True
    gone = refreshed(said)
    assert (gone.status_code, gone.json()["error"]) == (400, "invalid_grant")
    colab.login.revoked = False
    assert requests.post("https://oauth2.googleapis.com/revoke", params={"token": said["refresh_token"]}, timeout=5).ok
    assert refreshed(said).json()["error"] == "invalid_grant"


def test_google_auth_refreshes_by_itself(colab: Colab) -> None:
    credentials = pytest.importorskip("google.oauth2.credentials")
    transport = pytest.importorskip("google.auth.transport.requests")
    errors = pytest.importorskip("google.auth.exceptions")
    login = credentials.Credentials.from_authorized_user_info(colab.login.grant("userinfo.email"))
    with transport.AuthorizedSession(login) as session:
        assert session.get(f"{BACKEND}/tun/m/assignments").ok
        colab.login.expire()
        assert session.get(f"{BACKEND}/tun/m/assignments").ok
        assert colab.calls.count("POST token") == 1
        colab.login.expire()
        colab.login.revoked = True
        with pytest.raises(errors.RefreshError, match="invalid_grant"):
            session.get(f"{BACKEND}/tun/m/assignments")


# ----------------------------------------------------------------------------------------- Drive
class Drive:
    """Google's own API client, with a login of this scope."""

    def __init__(self, colab: Colab, *scopes: str) -> None:
        credentials = pytest.importorskip("google.oauth2.credentials")
        discovery = pytest.importorskip("googleapiclient.discovery")
        self.http = pytest.importorskip("googleapiclient.http")
        self.errors = pytest.importorskip("googleapiclient.errors")
        pytest.importorskip("socks", reason="PySocks is not installed, without which httplib2 heeds no proxy")
        login = credentials.Credentials.from_authorized_user_info(colab.login.grant(*scopes))
        plain = self.http.build_http()
        # httplib2 asks the environment for its authorities once, as it is imported: too early for the next test.
        plain.ca_certs = os.environ["HTTPLIB2_CA_CERTS"]
        http = pytest.importorskip("google_auth_httplib2").AuthorizedHttp(login, plain)
        self.service = discovery.build("drive", "v3", http=http, static_discovery=True, cache_discovery=False)
        self.files = self.service.files()

    def media(self, body: bytes, **more: Any) -> Any:
        return self.http.MediaIoBaseUpload(io.BytesIO(body), "application/octet-stream", **more)

    def create(self, name: str, body: bytes = b"", **said: Any) -> Any:
        fields = "id,name,size,md5Checksum,modifiedTime,parents,mimeType"
        return self.files.create(body={"name": name, **said}, media_body=self.media(body), fields=fields).execute()

    def names(self, q: str = "trashed = false", **more: Any) -> list[str]:
        return sorted(one["name"] for one in self.files.list(q=q, **more).execute()["files"])

    def fetch(self, file_id: str, piece_bytes: int = 1 << 20) -> bytes:
        into = io.BytesIO()
        work = self.http.MediaIoBaseDownload(into, self.files.get_media(fileId=file_id), piece_bytes)
        while not work.next_chunk()[1]:
            pass
        return into.getvalue()

    def fails(self, call: Any) -> tuple[int, str]:
        with pytest.raises(self.errors.HttpError) as caught:
            call.execute()
        return int(caught.value.resp.status), str(caught.value.error_details[0]["reason"])


@pytest.fixture
def drive(colab: Colab) -> Iterator[Drive]:
    made = Drive(colab, WRITE)
    yield made
    made.service.close()


def test_a_file_is_uploaded_changed_in_place_and_deleted(colab: Colab, drive: Drive) -> None:
    made = drive.create("last.keras", b"first")
    assert (made["size"], made["md5Checksum"]) == ("5", "8b04d5e3775d298e78455efc5ca404d5")
    assert (colab.drive.folder / "last.keras").read_bytes() == b"first"
    media = drive.media(b"second!")
    changed = drive.files.update(fileId=made["id"], media_body=media, fields="id,size,modifiedTime").execute()
    assert (changed["id"], changed["size"]) == (made["id"], "7")
    assert changed["modifiedTime"] >= made["modifiedTime"]
    assert drive.fetch(made["id"], piece_bytes=3) == b"second!"
    assert drive.files.get(fileId=made["id"]).execute() == {
        "kind": "drive#file", "id": made["id"], "name": "last.keras", "mimeType": "application/octet-stream",
    }  # fmt: skip
    drive.files.update(fileId=made["id"], body={"name": "best.keras", "appProperties": {"leg": "a-1"}}).execute()
    assert drive.names("appProperties has { key='leg' and value='a-1' }") == ["best.keras"]
    drive.files.delete(fileId=made["id"]).execute()
    assert list(colab.drive.folder.iterdir()) == []
    assert drive.fails(drive.files.get(fileId=made["id"])) == (404, "notFound")


def test_a_listing_is_searched_sorted_and_paged(colab: Colab, drive: Drive) -> None:
    folder = drive.files.create(body={"name": "runs", "mimeType": "application/vnd.google-apps.folder"}).execute()
    for number in range(5):
        drive.create(f"part-{number}.bin", bytes(number), parents=[folder["id"]])
    drive.create("it's.txt", b"")
    inside = f"'{folder['id']}' in parents and trashed = false"
    assert drive.names(inside) == [f"part-{number}.bin" for number in range(5)]
    assert drive.names("name = 'it\\'s.txt'") == ["it's.txt"]
    assert drive.names("'root' in parents and mimeType != 'application/vnd.google-apps.folder'") == ["it's.txt"]
    assert drive.names("(name contains 'part' and not name = 'part-3.bin') or name = 'runs'") == [
        "part-0.bin", "part-1.bin", "part-2.bin", "part-4.bin", "runs",
    ]  # fmt: skip
    assert drive.names("modifiedTime > '2999-01-01T00:00:00'") == []
    assert drive.fails(drive.files.list(q="name ~ 'x'")) == (400, "invalid")
    asked = drive.files.list(q=inside, pageSize=2, orderBy="name desc", fields="nextPageToken, files(name,size)")
    pages = []
    while asked is not None:
        said = asked.execute()
        assert set(said) <= {"nextPageToken", "files"}
        pages.append([(one["name"], one["size"]) for one in said["files"]])
        asked = drive.files.list_next(asked, said)
    assert [len(page) for page in pages] == [2, 2, 1]
    assert pages[0] == [("part-4.bin", "4"), ("part-3.bin", "3")]
    colab.drive.most_per_page = 3
    assert len(drive.files.list(q=inside, pageSize=1000).execute()["files"]) == 3


def test_a_resumable_upload_survives_failures(colab: Colab, drive: Drive) -> None:
    body = os.urandom(700_000)
    asked = drive.files.create(body={"name": "big"}, media_body=drive.media(body, chunksize=1 << 18, resumable=True))
    assert asked.next_chunk()[0].resumable_progress == 1 << 18
    colab.faults.append(Fault("PUT drive upload", "503"))
    with pytest.raises(drive.errors.HttpError):
        asked.next_chunk()
    assert asked.next_chunk()[0].resumable_progress == 1 << 19
    done = asked.next_chunk()[1]
    assert (colab.drive.folder / "big").read_bytes() == body
    assert drive.fetch(done["id"], piece_bytes=1 << 18) == body
    assert colab.calls.count("PUT drive upload") == 5, "after the fault it asks how much there is"
    changed = drive.media(b"x" * 300_000, chunksize=1 << 18, resumable=True)
    drive.files.update(fileId=done["id"], media_body=changed).execute()
    assert (colab.drive.folder / "big").read_bytes() == b"x" * 300_000


def test_a_part_that_arrived_before_the_connection_broke_is_known(colab: Colab) -> None:
    headers = {"Authorization": f"Bearer {colab.login.grant(WRITE)['token']}"}
    place = requests.post(
        "https://www.googleapis.com/upload/drive/v3/files?uploadType=resumable", json={"name": "a"}, headers=headers,
        timeout=5,
    ).headers["Location"]  # fmt: skip
    colab.faults.append(Fault("PUT drive upload", "reset_after"))
    part, size = b"p" * (1 << 18), (1 << 18) + 4
    first = {**headers, "Content-Range": f"bytes 0-{len(part) - 1}/{size}"}
    with pytest.raises(requests.ConnectionError):
        requests.put(place, data=part, headers=first, timeout=5)
    asked = requests.put(place, headers={**headers, "Content-Range": f"bytes */{size}"}, timeout=5)
    assert (asked.status_code, asked.headers["Range"]) == (308, f"bytes=0-{len(part) - 1}")
    odd = requests.put(place, data=b"xx", headers={**headers, "Content-Range": f"bytes {1 << 18}-{(1 << 18) + 1}/*"})
    assert odd.status_code == 400, "parts are multiples of 256 KiB"
    last = {**headers, "Content-Range": f"bytes {1 << 18}-{size - 1}/{size}"}
    assert requests.put(place, data=b"last", headers=last, timeout=5).status_code == 200
    assert (colab.drive.folder / "a").read_bytes() == part + b"last"


def test_a_file_is_created_before_its_bytes(colab: Colab) -> None:
    headers = {"Authorization": f"Bearer {colab.login.grant(WRITE)['token']}"}
    ask = {"headers": headers, "timeout": 5}
    (given,) = requests.get(f"{DRIVE}/files/generateIds?count=1", **ask).json()["ids"]
    said = {"id": given, "name": "place.bin", "description": "to be filled"}
    assert requests.post(f"{DRIVE}/files?fields=id,size,description", json=said, **ask).json() == {
        "id": given, "size": "0", "description": "to be filled",
    }  # fmt: skip
    again = requests.post(f"{DRIVE}/files", json=said, **ask)
    assert (again.status_code, again.json()["error"]["errors"][0]["reason"]) == (409, "fileIdInUse")
    place = f"{DRIVE.replace('/drive', '/upload/drive')}/files"
    assert requests.patch(f"{place}/{given}?uploadType=media", data=b"filled", **ask).json()["id"] == given
    assert (colab.drive.folder / "place.bin").read_bytes() == b"filled"


def test_a_torn_download_is_noticed_and_can_resume(colab: Colab, drive: Drive) -> None:
    body = os.urandom(100_000)
    made = drive.create("big", body)
    headers = {"Authorization": f"Bearer {colab.login.grant(WRITE)['token']}"}
    colab.cuts = [60_000]
    answer = requests.get(f"{DRIVE}/files/{made['id']}?alt=media", headers=headers, stream=True, timeout=5)
    got = until_torn(answer)
    assert 0 < len(got) <= 60_000
    more = {**headers, "Range": f"bytes={len(got)}-"}
    rest = requests.get(f"{DRIVE}/files/{made['id']}?alt=media", headers=more, timeout=5)
    assert (rest.status_code, rest.headers["Content-Range"]) == (206, f"bytes {len(got)}-99999/100000")
    assert got + rest.content == body
    beyond = {**headers, "Range": "bytes=100000-"}
    assert requests.get(f"{DRIVE}/files/{made['id']}?alt=media", headers=beyond, timeout=5).status_code == 416
    colab.faults.append(Fault("GET drive media/*", "truncate"))
    with pytest.raises(Exception, match=r"IncompleteRead|more expected"):
        drive.fetch(made["id"])


def test_a_scope_limits_what_is_shown(colab: Colab, drive: Drive) -> None:
    (colab.drive.folder / "run").mkdir()
    (colab.drive.folder / "run" / "metrics.jsonl").write_text("{}\n")
    drive.create("ours.txt", b"ours")
    assert drive.names() == ["ours.txt"], "what the notebook's mount wrote is not the app's"
    with closing(Drive(colab, READ).service) as service:
        reader = service.files()
        assert sorted(one["name"] for one in reader.list().execute()["files"]) == ["metrics.jsonl", "ours.txt", "run"]
        found = reader.list(q="name = 'metrics.jsonl'").execute()["files"][0]["id"]
        assert reader.get_media(fileId=found).execute() == b"{}\n"
        assert drive.fails(reader.delete(fileId=found)) == (403, "insufficientPermissions")
        assert drive.fails(drive.files.get(fileId=found)) == (404, "notFound")
        assert colab.drive.open("run/metrics.jsonl") == found
        assert drive.names() == ["metrics.jsonl", "ours.txt"]
    with closing(Drive(colab, "userinfo.email").service) as service:
        assert drive.fails(service.files().list()) == (403, "insufficientPermissions")


def test_the_folder_and_the_api_are_the_same_files(colab: Colab, drive: Drive) -> None:
    made = drive.create("state.json", b"{}")
    place = colab.drive.folder / "state.json"
    place.write_text('{"epoch": 1}')
    assert drive.fetch(made["id"]) == b'{"epoch": 1}', "written in place: the same file"
    place.rename(colab.drive.folder / "old.json")
    assert drive.names() == ["old.json"], "a new name, the same file"
    new = colab.drive.folder / "old.json.part"
    new.write_text("new")
    new.replace(colab.drive.folder / "old.json")
    assert drive.names() == [], "what is put in its place is another file, and not the app's"
    assert drive.fails(drive.files.get(fileId=made["id"])) == (404, "notFound")
    twins = [drive.create("twin.txt", text)["id"] for text in (b"a", b"b")]
    assert drive.names() == ["twin.txt", "twin.txt"], "Drive lets two have one name"
    assert sorted(path.name for path in colab.drive.folder.iterdir()) == ["old.json", "twin (1).txt", "twin.txt"]
    assert [drive.fetch(one) for one in twins] == [b"a", b"b"]
    assert (colab.drive.mount / "MyDrive" / "twin.txt").is_file()


def test_the_trash_holds_deleted_files_and_counts(colab: Colab, drive: Drive) -> None:
    folder = drive.files.create(body={"name": "runs", "mimeType": "application/vnd.google-apps.folder"}).execute()
    made = drive.create("a.bin", b"x" * 600, parents=[folder["id"]])
    drive.files.update(fileId=folder["id"], body={"trashed": True}).execute()
    assert list(colab.drive.folder.iterdir()) == []
    assert drive.names() == []
    assert drive.names("trashed = true") == ["a.bin", "runs"]
    quota = drive.service.about().get(fields="storageQuota").execute()["storageQuota"]
    assert quota["usage"] == "600"
    colab.drive.quota_bytes = 1000
    media = drive.media(b"y" * 500)
    full = drive.fails(drive.files.create(body={"name": "b.bin"}, media_body=media))
    assert full == (403, "storageQuotaExceeded")
    drive.files.update(fileId=folder["id"], body={"trashed": False}).execute()
    assert (colab.drive.folder / "runs" / "a.bin").stat().st_size == 600
    assert drive.fetch(made["id"]) == b"x" * 600


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [("403", "rateLimitExceeded", (403, "rateLimitExceeded")),
     ("403", "storageQuotaExceeded", (403, "storageQuotaExceeded")), ("429", "", (429, "rateLimitExceeded")),
     ("500", "", (500, "internalError")), ("404", "", (404, "notFound"))],
)  # fmt: skip
def test_drives_errors_have_googles_format(
    colab: Colab, drive: Drive, kind: str, code: str, said: tuple[int, str]
) -> None:
    colab.faults.append(Fault("GET drive files", kind, code=code))
    assert drive.fails(drive.files.list()) == said
    assert drive.names() == []


# ----------------------------------------------------------------------------------------- the official command line
class Cli:
    """Google's own program, in a process of its own; `home` and the state file are the test's."""

    def __init__(self, colab: Colab, folder: Path) -> None:
        self.colab, self.config = colab, folder / "sessions.json"

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        command = [str(colab_cli.find_cli()), "--config", str(self.config), *words]
        return subprocess.Popen(
            command, env=dict(os.environ), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, **more,
        )  # fmt: skip

    def __call__(self, *words: str, code: int = 0, given: str = "") -> str:
        with self.start(*words) as process:
            said = process.communicate(given, timeout=60)[0]
        assert process.returncode == code, said
        return said

    @property
    def kept(self) -> dict[str, Any]:
        return dict(json.loads(self.config.read_text())) if self.config.exists() else {}

    @property
    def log(self) -> str:
        return (self.colab.home / ".config" / "colab-cli" / "colab.log").read_text()


@pytest.fixture
def cli(colab: Colab, tmp_path: Path) -> Cli:
    return Cli(colab, tmp_path)


@needs_cli
@needs_machines
def test_the_command_line_runs_a_job_from_new_to_stop(colab: Colab, cli: Cli, tmp_path: Path) -> None:
    assert "Session READY" in cli("new", "-s", "leg-1", "--gpu", "T4")
    (tmp_path / "job.py").write_text(
        "import os; open('out.txt', 'w').write(os.environ['LEG']); print('done', os.getcwd())"
    )
    (tmp_path / "up.txt").write_text("up")
    assert "Uploaded" in cli("upload", "-s", "leg-1", str(tmp_path / "up.txt"), "content/up.txt")
    kept = cli.kept["leg-1"]
    vm, headers = colab.vms[kept["endpoint"]], {"X-Colab-Runtime-Proxy-Token": kept["token"]}
    assert requests.get(f"{kept['url']}/files/content/up.txt", headers=headers, timeout=20).text == "up"
    said = cli("exec", "-s", "leg-1", "-f", str(tmp_path / "job.py"), "--env", "LEG=one", "--timeout", "1e6")
    assert said.strip() == f"done {vm.content}"
    assert "out.txt\nup.txt" in cli("ls", "-s", "leg-1")
    cli("download", "-s", "leg-1", "content/out.txt", str(tmp_path / "down.txt"))
    assert (tmp_path / "down.txt").read_text() == "one"
    assert f"[leg-1] {vm.endpoint} | Hardware: T4" in cli("sessions")
    assert "Usage rate: 1.19/hr" in cli("usage")
    assert "Session terminated" in cli("stop", "-s", "leg-1")
    assert "No active sessions" in cli("sessions")
    assert vm.ended == "unassigned"
    assert "ZeroDivisionError" not in said
    assert "SECRET" in cli.log, "what it writes down can be found"


@needs_cli
def test_the_command_line_reports_why_there_is_no_runtime(colab: Colab, cli: Cli) -> None:
    colab.tier = "free"
    assert "may not have quota or entitlement" in cli("new", "-s", "a", "--gpu", "L4", code=1)
    colab.no_capacity = True
    assert "Allocation refused" in cli("new", "-s", "a", "--gpu", "T4", code=1)
    colab.faults.append(Fault("POST assign", "503", times=2))
    assert "Allocation refused" in cli("new", "-s", "a", "--gpu", "T4", code=1)
    assert colab.calls.count("POST assign") == 5, "it asked again after each 503"
    assert cli.kept == {}
    colab.sign_out()
    assert "Enter the authorization code" in cli("sessions", code=1)


@needs_cli
@needs_machines
def test_the_command_line_forgets_a_lost_runtime(colab: Colab, cli: Cli) -> None:
    cli("new", "-s", "leg-1", "--gpu", "T4")
    vm = colab.vms[cli.kept["leg-1"]["endpoint"]]
    with cli.start("exec", "-s", "leg-1", "--timeout", "1e6") as process:
        assert process.stdin
        process.stdin.write("import time\nprint('up', flush=True)\ntime.sleep(60)")
        process.stdin.close()
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        colab.lose(vm)
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)  # mostly it hangs: its caller must check the sessions
        process.kill()
    assert "No active sessions" in cli("sessions")
    assert cli.kept == {}


@needs_cli
@needs_machines
def test_the_command_line_renews_expired_tokens(colab: Colab, cli: Cli) -> None:
    colab.proxy_token_s = 60  # it renews what is good for less than five minutes
    token = colab.home / ".config" / "colab-cli" / "token.json"
    said = json.loads(token.read_text())
    token.write_text(json.dumps({**said, "expiry": "2020-01-01T00:00:00Z"}))
    cli("new", "-s", "leg-1")
    assert colab.calls.count("POST token") == 1
    assert json.loads(token.read_text())["token"] != said["token"]
    first = cli.kept["leg-1"]["token"]
    colab.rotates_tokens = True
    cli("ls", "-s", "leg-1")
    assert cli.kept["leg-1"]["token"] != first
    colab.login.revoked = True
    colab.login.expire()
    assert "invalid_grant" in cli("sessions", code=1)
