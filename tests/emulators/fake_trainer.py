"""A program that behaves like the trainer by its contract, without a network to train; it starts in 50 ms.

Switches in the environment, which a local leg inherits:
FAKE_EPOCHS  how many (else the job's own), FAKE_EPOCH_S  how long one takes,
FAKE_MODE    ``fail`` (says so), ``crash`` (ends in the middle), ``silent`` (ends before its state),
             ``deaf`` (heeds no stop), ``mute`` (heeds no stop and writes no state), ``torn`` (prints half lines),
             ``stall`` (trains one epoch and no second).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

TRAINER = Path(__file__).resolve().parents[2] / "trainer"
LIFE_S = 60  # nobody's process for longer than a test can take
SLICE_S = 0.005


def install(folder: Path) -> Path:
    """Makes an executable in `folder` that takes what a Python interpreter takes, and is this program.

    The metrics of a report are computed by a real interpreter: they are the trainer's own.
    """
    program = folder / "trainer"
    folder.mkdir(parents=True, exist_ok=True)
    real = f'case "$1 $2" in "-c "*boneage_trainer.evaluation*) exec {shlex.quote(sys.executable)} "$@";; esac'
    program.write_text(f'#!/bin/sh\n{real}\nexec {shlex.join([sys.executable, "-S", "-B", __file__])} "$@"\n')
    program.chmod(0o755)
    return program


class FakeTrainer:
    def __init__(self, given: argparse.Namespace) -> None:
        from boneage_trainer.contract import Job, PackFolder, RunFolder, read_metrics
        from boneage_trainer.platforms import detect

        self.given, self.out, self.started_s = given, RunFolder(Path(given.out)), time.time()
        with zipfile.ZipFile(given.bundle) as archive:
            job = Job.from_json(archive.read("job.json").decode())
        if detect.is_rehearsal():
            job = detect.shorten_job(job, PackFolder(Path(given.data)))
        self.epochs = int(os.environ.get("FAKE_EPOCHS", job.train.epochs))
        self.epoch_s, self.mode = float(os.environ.get("FAKE_EPOCH_S", "0.05")), os.environ.get("FAKE_MODE", "")
        self.is_stopped = False
        self.metrics = read_metrics(RunFolder(given.resume).metrics) if given.resume else []

    def run(self) -> None:
        """Epochs until all are done, the time is over or somebody asks to stop."""
        if self.mode in ("deaf", "mute"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.stop)
        if self.mode == "mute":
            time.sleep(LIFE_S)
        self.note("running")
        while len(self.metrics) < self.epochs:
            self.wait()
            if self.is_stopped or time.time() - self.started_s > min(self.given.time_limit_s, LIFE_S):
                return self.finish("paused", "stop" if self.is_stopped else "time_limit")
            self.add_epoch()
            if self.mode == "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.mode == "fail":
                return self.finish("failed", "the loss is not a number")
        self.out.model.write_bytes(b"model")
        return self.finish("complete", "")

    def stop(self, *_: object) -> None:
        self.is_stopped = True

    def wait(self) -> None:
        """One epoch's work, broken off by a wish to stop or by the folder's end."""
        is_stalled = self.mode == "stall" and len(self.metrics) == 1
        until_s = time.monotonic() + (LIFE_S if is_stalled else self.epoch_s)
        while time.monotonic() < until_s and not self.is_stopped:
            time.sleep(SLICE_S)
            if not self.out.root.is_dir():
                sys.exit("the folder is gone")
            self.is_stopped = self.mode != "deaf" and (self.is_stopped or self.out.stop_request.exists())

    def add_epoch(self) -> None:
        from boneage_trainer.contract import sentinel_line, write_atomic

        epoch = len(self.metrics) + 1
        self.metrics.append({"epoch": epoch, "leg": self.given.leg, "loss": 1 / epoch, "mae_months": 30 / epoch,
                             "val_mae_months": 31 / epoch, "epoch_s": self.epoch_s})  # fmt: skip
        write_atomic(self.out.last, f"weights after epoch {epoch}")
        write_atomic(self.out.metrics, "".join(json.dumps(line) + "\n" for line in self.metrics))
        line = sentinel_line(self.metrics[-1])
        for part in (line[:20], line[20:]) if self.mode == "torn" else (line,):
            print(part, end="", flush=True)
            time.sleep(0.3 if self.mode == "torn" else 0)
        print(flush=True)
        self.note("running")

    def note(self, state: str, reason: str = "") -> None:
        from boneage_trainer.contract import write_json, write_manifest

        said: dict[str, Any] = {
            "state": state, "reason": reason, "epoch": len(self.metrics), "epochs": self.epochs, "pid": os.getpid(),
            "leg": self.given.leg, "started_s": self.started_s, "updated_s": time.time(),
        }  # fmt: skip
        write_json(self.out.state, said)
        write_manifest(self.out)

    def finish(self, state: str, reason: str) -> None:
        print(f"{state}: {len(self.metrics)} epochs", flush=True)
        self.note(state, reason)


def main() -> None:
    with open("starts.txt", "a") as stream:
        stream.write(f"{os.getpid()}\n")
    if os.environ.get("FAKE_MODE") == "silent":
        sys.exit("no module named keras\n")
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--data")
    parser.add_argument("--out")
    parser.add_argument("--leg")
    parser.add_argument("--time-limit-s", type=int)
    parser.add_argument("--resume", type=Path)
    FakeTrainer(parser.parse_args()).run()


if __name__ == "__main__":
    sys.path.insert(0, str(TRAINER))
    main()
