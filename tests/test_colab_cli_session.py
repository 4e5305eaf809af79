"""The session that a Colab kernel runs alone: it records how it ended, waits for the download, releases its runtime."""

from __future__ import annotations

import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import ContractError, RunFolder, parse_parameters
from boneage_trainer.platforms import colab_cli
from boneagectl import bundle
from boneagectl.targets.colab import cli_session
from emulators import programs
from support import DATA, make_pack, make_spec

PACKAGE = Path(__file__).parent / "emulators" / "colab_package"
LEG = "some-run-01"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Google's side of `google.colab.runtime.unassign`: what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.syspath_prepend(str(PACKAGE))
    for name in [name for name in sys.modules if name.startswith("google.colab")]:
        monkeypatch.delitem(sys.modules, name)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("TBE_RUNTIME_ADDR", f"127.0.0.1:{server.server_port}")
        yield asked
        for timer in threading.enumerate():  # a deadline that is still ahead must not reach the next test's server
            if isinstance(timer, threading.Timer):
                timer.cancel()
        server.shutdown()


@pytest.fixture
def place(tmp_path: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As the orchestrator leaves it."""
    folder = programs.python_folder(tmp_path / "programs", str(trainer), 1)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    make_pack(tmp_path / "leg" / "pack")
    (tmp_path / "leg" / "bundle.zip").write_bytes(bundle.build(make_spec(epochs=3, target="colab")).content)
    return tmp_path / "leg"


@pytest.fixture
def run(place: Path, given_back: list[str]) -> Run:
    def session(time_limit_s: float = 30, fetched: bool = True, **other: Any) -> dict[str, Any]:
        if fetched:
            (place / colab_cli.FETCHED).touch()
        parameters = {"leg": LEG, "fingerprint": DATA["fingerprint"], "image_size_px": 96, "dataset": "",
                      "time_limit_s": time_limit_s, **other}  # fmt: skip
        guard = threading.Timer(60, lambda: given_back.append("guard"))
        guard.start()
        colab_cli.run_session(place, parameters, "", guard)
        assert guard.finished.is_set(), "what would have ended it soon is called off"
        return dict(json.loads(RunFolder(place / "run").state.read_text()))

    return session


def test_it_trains_and_releases_the_runtime_once_everything_is_downloaded(
    run: Run, place: Path, given_back: list[str]
) -> None:
    began_s = time.monotonic()
    state = run()
    assert (state["state"], state["epoch"]) == ("complete", 3)
    assert time.monotonic() - began_s < 10
    assert len(given_back) == 1
    out = RunFolder(place / "run")
    assert out.model.exists()
    assert "complete: 3 epochs" in out.log.read_text()
    assert (place / colab_cli.OVER).exists()


def test_it_waits_for_the_download_for_a_limited_time(
    run: Run, given_back: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colab_cli, "HOLD_S", 1.5)
    began_s = time.monotonic()
    run(fetched=False)
    assert 1.5 <= time.monotonic() - began_s < 10
    assert len(given_back) == 1


def test_it_pauses_in_time_and_releases_the_runtime_at_its_limit(
    run: Run, given_back: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colab_cli, "HOLD_SHARE", 0.5)  # leaves a busy machine 2 s to save in
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    began_s = time.monotonic()
    state = run(time_limit_s=8, fetched=False)
    assert state["state"] == "paused"
    assert 7 < time.monotonic() - began_s < 12, "without a limit it would hold for 4 s more, or run for a minute"
    assert given_back


def test_the_runtime_of_a_hanging_session_is_released_at_its_limit(
    run: Run, given_back: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colab_cli.CliSession, "hold", lambda self: time.sleep(3))
    monkeypatch.setattr(colab_cli.CliSession, "run", lambda self, _: self._save_failure("it hung"))
    run(time_limit_s=1, fetched=False)
    assert len(given_back) == 2, "at the limit, and as it ended"


def test_the_state_records_why_a_session_could_not_train(
    run: Run, place: Path, given_back: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has fingerprint 9eab9eab9eab, the job needs another" in run(fingerprint="another")["reason"]
    (tmp_path / "programs" / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    state = run()
    assert state["state"] == "failed"
    assert "Colab provided no GPU" in state["reason"]
    assert "boneagectl submit --target kaggle" in state["reason"]
    assert json.loads(RunFolder(place / "run").manifest.read_text())["files"].keys() == {"state.json"}


def test_the_state_records_why_the_trainer_did_not_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "silent")
    state = run()
    assert (state["state"], state["reason"]) == ("failed", "did not start: no module named keras")


def test_unknown_and_missing_parameters_are_refused() -> None:
    with pytest.raises(ContractError, match="parameter"):
        parse_parameters(colab_cli.CliSessionParameters, {"colour": "red"})
    with pytest.raises(ContractError, match="lacks the parameters leg"):
        parse_parameters(colab_cli.CliSessionParameters, {})


def test_both_sides_agree_on_the_hold_time() -> None:
    ours = (cli_session.HOLD_S, cli_session.HOLD_SHARE)
    assert ours == (colab_cli.HOLD_S, colab_cli.HOLD_SHARE)
