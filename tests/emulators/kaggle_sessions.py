"""The Kaggle emulator's sessions: scripts that really run, in folders laid out like Kaggle's machines."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from emulators.programs import kill_marked

LONGEST_S = 12 * 3600
OVER = ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")
TIME_LIMIT = "Your notebook was stopped because it exceeded the max allowed execution duration."
OUT_OF_MEMORY = "Your notebook tried to allocate more memory than is available."
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running."
)
_RUN = (
    "import sys, runpy; sys.executable, sys.argv = sys.argv[1], sys.argv[2:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
_SECRETS = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "KAGGLE_API_ENVIRONMENT")


@dataclass(frozen=True)
class Machine:
    """What a session runs on: `mounts` are folders by their place below /kaggle/input."""

    python: str
    mounts: dict[str, Path]
    gpus: int
    is_gpu: bool
    limit_s: float
    error_keeps_outputs: bool
    environment: dict[str, str]


@dataclass(frozen=True)
class Fate:
    status: str
    message: str = ""
    keep_outputs: bool = True


class Session:
    """One run of one script. It lives in its own thread until `status` is one of `OVER`."""

    def __init__(self, number: int, folder: Path, source: str, machine: Machine, is_stuck: Callable[[], bool]) -> None:
        self.number, self.folder, self.machine, self.is_stuck = number, folder, machine, is_stuck
        self.status, self.failure_message, self.keep_outputs = "QUEUED", "", True
        self.process: subprocess.Popen[bytes] | None = None
        self.log: list[dict[str, Any]] = []
        self.fate: Fate | None = None
        self.started_s = self.ended_s = 0.0
        self.changed = threading.Condition()
        self.script = self.kaggle / "src" / "script.py"
        self.script.parent.mkdir(parents=True)
        self.script.write_text(source, encoding="utf-8")
        self.thread = threading.Thread(target=self._live, daemon=True)

    @property
    def kaggle(self) -> Path:
        """The folder that stands in for /kaggle."""
        return self.folder / "kaggle"

    @property
    def working(self) -> Path:
        return self.kaggle / "working"

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def elapsed_s(self) -> float:
        """Seconds on the machine, without the queue."""
        return (self.ended_s or time.monotonic()) - self.started_s if self.started_s else 0.0

    @property
    def outputs(self) -> list[Path]:
        """What it left, once it is over."""
        return files_below(self.working) if self.is_over and self.keep_outputs else []

    def follow(self) -> Iterator[dict[str, Any]]:
        """The log from its start, as it comes."""
        seen = 0
        while new := self._after(seen):
            yield from new
            seen += len(new)

    def _after(self, seen: int) -> list[dict[str, Any]]:
        """The events after the first `seen`, as soon as there are any; none when it is over."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.log) > seen or self.is_over)
            return self.log[seen:]

    def end(self, fate: Fate) -> None:
        """Ends it from outside, and returns when it is over."""
        with self.changed:
            if self.is_over:
                return
            self.fate = self.fate or fate
            self.changed.notify_all()
            self._kill()
        self.thread.join(10)

    # ------------------------------------------------------------------------- its own thread
    def _live(self) -> None:
        self._wait_in_queue()
        try:
            self._prepare()
            fate = self._run()
        except Exception as error:
            fate = Fate("ERROR", f"the emulator could not run it: {error!r}")
        with self.changed:
            self.failure_message, self.keep_outputs = fate.message, fate.keep_outputs
            self.ended_s, self.status = time.monotonic(), fate.status
            self.changed.notify_all()

    def _wait_in_queue(self) -> None:
        with self.changed:
            while self.is_stuck() and not self.fate:
                self.changed.wait(0.01)

    def _prepare(self) -> None:
        for name in ("input", "working", "tmp"):
            (self.kaggle / name).mkdir()
        for place, folder in self.machine.mounts.items():
            # Copies: a walk does not follow a link to a folder, and Kaggle mounts the real thing.
            shutil.copytree(folder, self.kaggle / "input" / place)
        write_smi(self.folder / "bin", self.machine.gpus)

    def _run(self) -> Fate:
        with self.changed:
            if self.fate:
                return self.fate
            self.process = process = self._start()
            self.started_s, self.status = time.monotonic(), "RUNNING"
        pipes = {"stdout": process.stdout, "stderr": process.stderr}
        readers = [threading.Thread(target=self._read, args=pipe, daemon=True) for pipe in pipes.items()]
        for reader in readers:
            reader.start()
        fate = self._wait_for(process)
        for reader in readers:
            reader.join(5)
        return self.fate or fate

    def _start(self) -> subprocess.Popen[bytes]:
        given = {name: value for name, value in self.machine.environment.items() if name not in _SECRETS}
        environment = given | {
            "BONEAGE_KAGGLE_ROOT": str(self.kaggle),
            "KAGGLE_KERNEL_RUN_TYPE": "Batch",
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{given.get('PATH', '')}",
        }
        command = [sys.executable, "-c", _RUN, self.machine.python, str(self.script)]
        return subprocess.Popen(
            command, cwd=self.working, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def _wait_for(self, process: subprocess.Popen[bytes]) -> Fate:
        try:
            code = process.wait(self.machine.limit_s)
        except subprocess.TimeoutExpired:
            with self.changed:
                self._kill()
            process.wait()
            return Fate("CANCEL_ACKNOWLEDGED", TIME_LIMIT)
        with self.changed:
            self._kill()  # what the script left behind goes with its machine
        return Fate("ERROR", "", self.machine.error_keeps_outputs) if code else Fate("COMPLETE")

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                event = {"stream_name": name, "time": self.elapsed_s, "data": line.decode(errors="replace")}
                with self.changed:
                    self.log.append(event)
                    self.changed.notify_all()

    def _kill(self) -> None:
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        # Processes that left the group: Kaggle's container would still hold them.
        kill_marked(f"BONEAGE_KAGGLE_ROOT={self.kaggle}")


@dataclass
class Version:
    """One save: the request as it came, and its run unless it was only saved."""

    number: int
    request: dict[str, Any]
    session: Session | None = None
    saved_s: float = field(default_factory=time.time)

    @property
    def source(self) -> str:
        return str(self.request.get("text", ""))


@dataclass
class Kernel:
    slug: str
    kernel_id: int
    title: str
    versions: list[Version] = field(default_factory=list)

    @property
    def latest(self) -> Version:
        return self.versions[-1]

    @property
    def source(self) -> str:
        return self.latest.source

    @property
    def request(self) -> dict[str, Any]:
        return self.latest.request

    @property
    def sessions(self) -> list[Session]:
        return [version.session for version in self.versions if version.session]


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write_smi(folder: Path, gpus: int) -> None:
    """An `nvidia-smi` that knows `-L`, whatever it is asked."""
    lines = [f"echo 'GPU {at}: Tesla T4 (UUID: GPU-{at:08x}-0000-4000-8000-0123456789ab)'" for at in range(gpus)]
    if not lines:
        lines = [f'echo "{NO_DRIVER}"', "exit 9"]
    folder.mkdir(parents=True)
    program = folder / "nvidia-smi"
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    program.chmod(0o755)
