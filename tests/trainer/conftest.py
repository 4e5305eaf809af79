"""A small pack, and the trainer as a separate process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boneage_trainer.contract import Job, PackFolder, RunFolder, TrainConfig, read_metrics, write_atomic
from boneage_trainer.data.prepare import prepare
from boneage_trainer.data.synth import synthesize

SOURCE = Path(__file__).resolve().parents[2] / "trainer"


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 synthetic hands at 32 px."""
    folder = tmp_path_factory.mktemp("a pack")
    synthesize(folder / "hands", 96, 32, 1)
    prepare(folder / "hands", folder / "pack", 32)
    return folder / "pack"


@dataclass
class Bench:
    """Runs legs on one pack, in folders below `root`."""

    pack: Path
    root: Path

    def job(self, **train: Any) -> Path:
        card = PackFolder(self.pack).read_card()
        data = {key: card[key] for key in ("fingerprint", "count", "image_size_px")}
        given = {"width": 4, "epochs": 4, "batch_size": 8, "deterministic": True, "test_views": 1, **train}
        job = Job(train=TrainConfig.from_mapping(given), data=data, provenance={"git_commit": None})
        write_atomic(self.root / "job.json", job.to_json())
        return self.root / "job.json"

    def start(
        self, leg: str, *options: str, driver: str = "", variables: Mapping[str, str] | None = None, **train: Any
    ) -> subprocess.Popen[str]:
        """Starts the trainer as a process; `driver` is code that it executes before its `main`."""
        code = ["-c", f"{driver}\nfrom boneage_trainer.__main__ import main\nmain()"]
        command = [sys.executable, *(code if driver else ["-m", "boneage_trainer"]), str(self.job(**train))]
        command += ["--data", str(self.pack), "--out", str(self.root / leg), "--leg", leg, *options]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1", **(variables or {})}
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, leg: str, *options: str, **train: Any) -> tuple[int, str]:
        process = self.start(leg, *options, **train)
        output, _ = process.communicate(timeout=240)
        return process.returncode, output

    def out(self, leg: str) -> RunFolder:
        return RunFolder(self.root / leg)

    def state(self, leg: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.out(leg).state.read_text())
        return state

    def times(self, leg: str) -> dict[str, float]:
        """Seconds from the start of `leg` to its first epoch, and of one epoch."""
        lines = read_metrics(self.out(leg).metrics)
        epoch_s = float(np.median([line["epoch_s"] for line in lines]))
        return {"startup_s": lines[0]["elapsed_s"], "epoch_s": epoch_s}


@pytest.fixture
def bench(pack: Path, tmp_path: Path) -> Bench:
    return Bench(pack, tmp_path)


@pytest.fixture(scope="session")
def finished(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One uninterrupted run, as the leg ``whole``."""
    bench = Bench(pack, tmp_path_factory.mktemp("uninterrupted"))
    code, output = bench.run("whole")
    assert code == 0, output
    return bench


def wait_until(holds: Callable[[], bool], limit_s: float = 60) -> None:
    """Returns once `holds()` is true; fails after `limit_s`."""
    end_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end_s, f"not reached in {limit_s} s"
        time.sleep(0.01)


NOISE = re.compile(r"absl::InitializeLog|oneDNN|XNNPACK|rebuild TensorFlow|\.cc:\d+\]|WARNING:tensorflow|:onnxruntime:")


def run_quietly(command: list[object], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A trainer's command as a process of its own, which must not print log lines of TensorFlow or other runtimes."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **({"TMPDIR": str(folder)} if folder else {})}
    arguments = [sys.executable, *map(str, command)]
    # Only a hang takes this long: under load, loading TensorFlow and tracing alone can take minutes.
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert not NOISE.search(done.stderr), done.stderr
    return done


def log_run(run: RunFolder, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Logs `run` to an experiment tracker."""
    return run_quietly(["-m", "boneage_trainer.export.track", *arguments, "--json", "--", run.root])
