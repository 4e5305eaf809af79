"""The main job with the real trainer, by the commands a user types: submit, kill, resume, collect, report."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


class User:
    """Somebody with a project folder, whose path has a space, and a state folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "my project"
        self.project.mkdir()
        self.home = folder / "state of mine"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BONEAGECTL_")}
        path = os.pathsep.join((str(ROOT / "orchestrator"), str(ROOT / "trainer")))
        self.environment = {**kept, "BONEAGECTL_HOME": str(self.home), "PYTHONPATH": path}

    def types(self, *arguments: str, expect: int = 0) -> str:
        command = [sys.executable, "-m", "boneagectl", *arguments]
        done = subprocess.run(
            command, cwd=self.project, env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def asks(self, *arguments: str) -> Any:
        return json.loads(self.types(*arguments, "--json"))

    def waits_for_epoch(self, epoch: int) -> None:
        end_s = time.monotonic() + 60
        while self.asks("show", "last")["epoch"] < epoch:
            assert time.monotonic() < end_s
            time.sleep(0.1)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> User:
    user = User(tmp_path_factory.mktemp("somebody"))
    user.types("data", "synth", "hands", "--n", "96", "--size", "32")
    user.types("data", "prepare", "hands", "--out", "pack", "--size", "32")
    user.types("init")
    return user


def test_a_training_killed_in_the_middle_is_lost_resumed_and_reported(user: User) -> None:
    settings = ("--set", "train.width=4", "--set", "train.epochs=40", "--set", "train.batch_size=8")
    run_id = user.types("submit", "--name", "main-job", *settings).strip()
    user.waits_for_epoch(2)
    state = json.loads((user.home / "local" / f"{run_id}-01" / "out" / "state.json").read_text())
    os.killpg(state["pid"], signal.SIGKILL)
    wait_for(lambda: user.asks("ls")["runs"][0]["state"] == "lost")
    user.types("watch", run_id, expect=4)

    user.types("resume", run_id)
    user.types("watch", run_id, "--every", "0.5")
    run = user.asks("show", run_id)
    assert [(leg["number"], leg["state"]) for leg in run["legs"]] == [(1, "lost"), (2, "complete")]
    folder = Path(user.types("collect", run_id).strip())
    epochs = [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 41))
    assert json.loads((folder / "environment.json").read_text())["provenance"]["boneagectl"]
    page = Path(user.types("report", run_id).strip()).read_text()
    mae = json.loads((folder / "evaluation.json").read_text())["sets"]["test"]["mae_months"]
    assert f"{mae:.1f}" in page
    assert "Not a medical device" in page
    budget = user.asks("budget")["accounts"][0]
    assert budget["reserved_s"] == 0
    assert budget["spent_s"] == sum(leg["elapsed_s"] for leg in run["legs"])


def test_stop_saves_and_a_dry_run_is_what_submit_sends(user: User) -> None:
    settings = ("--name", "long-job", "--set", "train.width=4", "--set", "train.epochs=5000")
    user.types("submit", *settings, "--dry-run", "--out", "looked-at")
    user.types("submit", *settings)
    user.waits_for_epoch(1)
    user.types("stop", "long-job", expect=7)
    stopped = json.loads(user.types("stop", "long-job", "--yes", "--json"))["snapshot"]
    assert (stopped["state"], stopped["reason"]) == ("paused", "signal SIGTERM")
    sent = user.home / "runs" / "long-job" / "legs" / "01" / "sent"
    looked_at = user.project / "looked-at"
    names = sorted(path.name for path in sent.iterdir())
    assert names == sorted(path.name for path in looked_at.iterdir())
    assert all((sent / name).read_bytes() == (looked_at / name).read_bytes() for name in names)
    shutil.rmtree(looked_at)


def wait_for(holds: Any, limit_s: float = 30) -> None:
    end_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.1)
