"""Every test has a state folder of its own, an environment without settings, and no way out of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("contract_suite", "support")

from boneagectl.__main__ import run  # noqa: E402
from emulators import fake_trainer  # noqa: E402
from emulators.azure import Azure  # noqa: E402
from emulators.colab import Colab  # noqa: E402
from emulators.kaggle import Kaggle  # noqa: E402
from support import KAGGLE_PACK, Cli, Outcome, end_everything, make_pack  # noqa: E402

HOSTILE = ("with space", "Röntgen 手", 'it\'s "quoted"', "-dash", "$(HOME);&%7B{x}")
RETRY_AT_ONCE = {"retry_total": 3, "initial_backoff": 0, "increment_base": 0, "random_jitter_range": 0}
_LOOPBACK = ("127.0.0.1", "::1", "localhost", None, "")


def _refuse_the_world(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host not in _LOOPBACK:
        raise PermissionError(f"a test reached for {host}; only loopback is allowed")


sys.addaudithook(_refuse_the_world)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder that stands in for the user's own."""
    user = tmp_path_factory.mktemp("user")
    for name in [name for name in os.environ if name.startswith(("BONEAGECTL_", "FAKE_"))]:
        monkeypatch.delenv(name)
    for name in ("DATA", "CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(user / name.lower()))
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("BONEAGECTL_HOME", str(user / "home"))
    return user


@pytest.fixture
def home(clean_environment: Path) -> Iterator[Path]:
    """The state folder; what a test leaves running in it ends with the test."""
    yield clean_environment / "home"
    end_everything(clean_environment / "home")


@pytest.fixture
def trainer(tmp_path: Path) -> Path:
    """The program that stands in for an interpreter that trains."""
    return fake_trainer.install(tmp_path / "bin")


@pytest.fixture
def project(tmp_path: Path, home: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a project with a pack, whose trainings take three short epochs."""
    folder = tmp_path / "project"
    make_pack(folder / "pack")
    (folder / "boneage.toml").write_text("train.epochs = 3\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BONEAGECTL_TARGETS__LOCAL__PYTHON", str(trainer))
    return folder


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three attempts of each request, with hardly a pause between them."""
    for name, value in (("ATTEMPTS", 3), ("BACKOFF_S", 0.01), ("LONGEST_PAUSE_S", 0.05)):
        monkeypatch.setattr(f"boneagectl.targets.http.{name}", value)


@pytest.fixture
def kaggle(tmp_path: Path, trainer: Path, fast_retries: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    """Kaggle's other side; the real clients are sent there by their own environment variables alone."""
    with Kaggle(tmp_path / "other-side", python=str(trainer)) as other:
        other.add_dataset(KAGGLE_PACK, make_pack(tmp_path / "dataset"))
        for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setenv("http_proxy", other.url)
        monkeypatch.setenv("KAGGLE_API_TOKEN", other.token)
        for name, value in (("_LOOKS_S", (0.01, 0.05)), ("_IDLE_S", 0.05), ("_MOST_S", 0.2), ("_RECONNECT_S", 0.01)):
            monkeypatch.setattr(f"boneagectl.targets.kaggle.{name}", value)
        yield other


@pytest.fixture
def azure(tmp_path: Path, trainer: Path, fast_retries: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """Azure's other side with a workspace, a cluster and a pack; the real clients are sent there by environment."""
    pytest.importorskip("azure.ai.ml")
    if reason := Azure.missing():
        pytest.skip(reason)
    with Azure(tmp_path / "other-side", python=str(trainer)) as other:
        for name, value in other.environment().items():
            monkeypatch.setenv(name, value)
        place = other.add_workspace("boneagectl", "boneagectl")
        other.add_cluster(place)
        other.add_data(place, "boneage-pack-9eab9eab9eab", make_pack(tmp_path / "asset"))
        other.sync_s, other.clock_rate = 0.1, 600.0
        other.retry_after = "50ms"
        monkeypatch.setattr("boneagectl.targets.azure.client.RETRY", {"retry_total": 2, "retry_backoff_factor": 0.05})
        monkeypatch.setattr("boneagectl.targets.azure.client.POLL_S", 0.05)
        monkeypatch.setattr("boneagectl.targets.azure.outputs.RETRY", RETRY_AT_ONCE)
        monkeypatch.setattr("boneagectl.targets.azure.status.SECOND_LOOK_S", 0.01)
        for name, value_s in (("_FIND_AGAIN_S", (0.01, 0.05)), ("_FOLLOW_S", 0.1), ("_STOP_POLL_S", 0.05)):
            monkeypatch.setattr(f"boneagectl.targets.azure.{name}", value_s)
        yield other


@pytest.fixture
def colab(tmp_path: Path, trainer: Path, fast_retries: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Colab]:
    """Colab's other side, with units bought; the real clients are sent there by environment."""
    for name in ("cryptography", "requests", "websocket"):
        pytest.importorskip(name)
    if reason := Colab.missing():
        pytest.skip(reason)
    for name in [name for name in os.environ if name.startswith("GOOGLE") or "proxy" in name.lower()]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("boneagectl.targets.http.ATTEMPTS", 3)
    monkeypatch.setattr("boneagectl.targets.http.BACKOFF_S", 0.05)
    quick = (("cli_mode._FOLLOW_S", 0.1), ("cli_mode._STOP_POLL_S", 0.1), ("cli_session.POLL_S", 0.1),
             ("status.SECOND_POLL_S", 0.1), ("runtimes._RELEASE_PAUSES_S", (0.0, 0.2)))  # fmt: skip
    for name, value in quick:
        monkeypatch.setattr(f"boneagectl.targets.colab.{name}", value)
    with Colab(tmp_path / "the colab", python=str(trainer)) as other:
        other.tier, other.rates["T4"] = "pro", 1.5
        other.kernel_path = [Path(__file__).parent / "emulators" / "colab_package"]
        for name, text in other.environment().items():
            monkeypatch.setenv(name, text)
        yield other
        assert other.refused_hosts == []


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder whose name breaks whatever pastes it into a command line."""
    folder = tmp_path / str(request.param)
    folder.mkdir()
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], home: Path) -> Cli:
    """Calls the command line in this process; `code` is the exit code it must end with, or one of several."""

    def call(*arguments: object, code: int | tuple[int, ...] = 0) -> Outcome:
        capsys.readouterr()
        ended = run([str(item) for item in arguments])
        outcome = Outcome(ended, *capsys.readouterr())
        assert ended in (code if isinstance(code, tuple) else (code,)), (
            f"{arguments} ended with {ended}\n{outcome.out}\n{outcome.err}"
        )
        assert "Traceback" not in outcome.err
        return outcome

    return call
