"""A Colab runtime as a Jupyter server: expiring tokens, broken connections, files of any size."""

from __future__ import annotations

import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from boneagectl.errors import NotFound, ProviderRefused, Unreachable
from boneagectl.targets.colab import jupyter as module
from boneagectl.targets.colab.colab_cli import RuntimeAccess
from boneagectl.targets.colab.jupyter import RuntimeClient, RuntimeGone
from emulators.colab import Colab, Fault, Vm
from emulators.colab_vms import Kind
from support import wait_for


def access(vm: Vm) -> RuntimeAccess:
    said = vm.new_token()
    return RuntimeAccess(vm.endpoint, said["url"], said["token"], time.time() + 3600)


@pytest.fixture
def vm(colab: Colab) -> Vm:
    made = Vm(colab, "", Kind("GPU", "T4", False))
    colab.vms[made.endpoint] = made
    return made


@pytest.fixture
def renew(vm: Vm) -> Callable[[], RuntimeAccess]:
    def ask() -> RuntimeAccess:
        if not vm.is_alive:
            raise RuntimeGone("it is gone")
        return access(vm)

    return ask


@pytest.fixture
def machine(vm: Vm, renew: Callable[[], RuntimeAccess]) -> Iterator[RuntimeClient]:
    with closing(RuntimeClient(access(vm), renew)) as opened:
        yield opened


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(300_000))
    return path


# ----------------------------------------------------------------------------------------- files
def test_a_file_is_uploaded_in_pieces_and_downloaded(
    machine: RuntimeClient, vm: Vm, colab: Colab, big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 65_536)
    machine.create_folder("content/a")
    machine.create_folder("content/a")
    machine.upload(big, "content/a/big.bin")
    assert colab.calls.count("PUT runtime api/contents/content/a/big.bin") == 5
    assert (vm.content / "a" / "big.bin").read_bytes() == big.read_bytes()
    assert machine.list_files("content/a") == ["big.bin"]
    assert machine.list_files("content") == ["a/big.bin"]
    assert machine.list_files("content/none") == []
    machine.download("content/a/big.bin", tmp_path / "down" / "big.bin")
    assert (tmp_path / "down" / "big.bin").read_bytes() == big.read_bytes()


@pytest.mark.parametrize("size", [0, 65_535, 65_536, 65_537, 131_072])
def test_files_of_any_size_are_uploaded(
    machine: RuntimeClient, vm: Vm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 65_536)
    (tmp_path / "a b#ü%.bin").write_bytes(os.urandom(size))
    machine.upload(tmp_path / "a b#ü%.bin", "content/a b#ü%.bin")
    assert (vm.content / "a b#ü%.bin").read_bytes() == (tmp_path / "a b#ü%.bin").read_bytes()
    assert machine.read_file("content/a b#ü%.bin") == (tmp_path / "a b#ü%.bin").read_bytes()


def test_a_piece_with_a_lost_answer_does_not_corrupt_the_file(
    machine: RuntimeClient, vm: Vm, colab: Colab, big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 65_536)
    colab.faults.append(Fault("PUT runtime *", "reset_after", after=1))
    machine.upload(big, "content/big.bin")
    assert (vm.content / "big.bin").read_bytes() == big.read_bytes()


def test_an_interrupted_download_is_resumed_and_given_up_when_nothing_arrives(
    machine: RuntimeClient, vm: Vm, colab: Colab, big: Path, tmp_path: Path
) -> None:
    (vm.content / "big.bin").write_bytes(big.read_bytes())
    colab.cuts = [100_000, 10_000]
    machine.download("content/big.bin", tmp_path / "down.bin")
    assert (tmp_path / "down.bin").read_bytes() == big.read_bytes()
    colab.cuts = [0] * 3
    with pytest.raises(Unreachable, match="broke off"):
        machine.download("content/big.bin", tmp_path / "other.bin")
    assert not (tmp_path / "other.bin").exists()


def test_transfers_do_not_hold_a_file_in_memory(machine: RuntimeClient, vm: Vm, tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    path.write_bytes(b"x" * (48 << 20))
    tracemalloc.start()
    try:
        machine.upload(path, "content/big.bin")
        machine.download("content/big.bin", tmp_path / "down.bin")
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "down.bin").stat().st_size == path.stat().st_size


def test_files_are_downloaded_through_the_contents_api_if_needed(
    machine: RuntimeClient, vm: Vm, colab: Colab, big: Path
) -> None:
    (vm.content / "big.bin").write_bytes(big.read_bytes())
    colab.serves_files = False
    assert machine.read_file("content/big.bin") == big.read_bytes()
    assert machine.read_file("content/none") == b""
    machine.download("content/big.bin", big.with_name("down.bin"))
    assert big.with_name("down.bin").read_bytes() == big.read_bytes()


# ----------------------------------------------------------------------------------------- answers
def test_an_expired_token_is_renewed_once(machine: RuntimeClient, colab: Colab, vm: Vm) -> None:
    colab.expire_tokens()
    machine.write_file("content/a.txt", b"a")
    assert machine.read_file("content/a.txt") == b"a"
    colab.faults.append(Fault("GET runtime *", "401", times=2))
    with pytest.raises(ProviderRefused, match="401"):
        machine.read_file("content/a.txt")


def test_a_missing_file_differs_from_a_lost_runtime(
    machine: RuntimeClient, vm: Vm, colab: Colab, tmp_path: Path
) -> None:
    assert machine.read_file("content/none") == b""
    assert machine.kernel_state("none") == ""
    with pytest.raises(NotFound):
        machine.download("content/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    colab.faults.append(Fault("GET runtime *", "503", times=2))
    assert machine.list_kernels() == []
    colab.faults.append(Fault("GET runtime *", "503", times=3))
    with pytest.raises(Unreachable, match="503"):
        machine.list_kernels()
    colab.faults.append(Fault("GET runtime *", "503", times=3))
    colab.lose(vm)
    with pytest.raises(RuntimeGone):
        machine.list_kernels()


# ----------------------------------------------------------------------------------------- kernel
def test_code_runs_on_without_a_connection(machine: RuntimeClient, vm: Vm) -> None:
    kernel = machine.start_kernel()
    machine.run_code(kernel, "answer = 42")
    code = (
        "import os, time\nwhile not os.path.exists('/content/go'): time.sleep(0.01)\n"
        "open('/content/done.txt', 'w').write(str(answer))"
    )
    machine.start_code(kernel, code)
    wait_for(lambda: machine.kernel_state(kernel) == "busy")
    (vm.content / "go").touch()
    wait_for(lambda: machine.kernel_state(kernel) == "idle")
    assert machine.read_file("content/done.txt") == b"42"
    with pytest.raises(ProviderRefused, match="ZeroDivisionError"):
        machine.run_code(kernel, "1 / 0")
    machine.start_code(kernel, "import time; time.sleep(60)")
    machine.interrupt(kernel)
    wait_for(lambda: machine.kernel_state(kernel) == "idle")


def test_starting_code_is_never_repeated(machine: RuntimeClient, vm: Vm, colab: Colab) -> None:
    kernel = machine.start_kernel()
    colab.faults.append(Fault("WS runtime *", "503"))
    with pytest.raises(Unreachable, match="no connection to the kernel"):
        machine.start_code(kernel, "open('/content/begun.txt', 'w')")
    assert machine.read_file("content/begun.txt") == b""
    assert len([call for call in colab.calls if call.startswith("WS")]) == 1


def test_the_token_appears_in_no_message(machine: RuntimeClient, vm: Vm, colab: Colab) -> None:
    assert "SECRET" not in repr(access(vm))
    colab.faults.append(Fault("* runtime *", "500", times=9))
    with pytest.raises(Unreachable) as error:
        machine.start_kernel()
    assert "SECRET" not in f"{error.value!r} {error.value.message}"


def test_a_redirect_does_not_pass_the_token_on(tmp_path: Path, colab: Colab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from an expired address to a sign-in page, or from a proxy to any other host."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{server.server_port}/other-host")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        address = RuntimeAccess("endpoint", f"http://127.0.0.1:{server.server_port}", "SECRET", time.time() + 3600)
        with closing(RuntimeClient(address, lambda: address)) as client:
            for call in (
                client.list_kernels,
                lambda: client.download("a", tmp_path / "a"),
                lambda: client.read_file("a"),
            ):
                with pytest.raises(Unreachable):
                    call()
        server.shutdown()
    assert requests
    assert "/other-host" not in requests
