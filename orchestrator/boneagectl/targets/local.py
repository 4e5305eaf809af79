"""The `local` target: a detached process on this machine, in a folder of its own.

The folder is the remote side: ``sent/`` as rendered, ``out/`` as the trainer's run folder, and a lock that the
process inherits when it is started. A leg runs as long as its lock is held: a kill, a crash and a reboot look the
same, and a process id that was reused is never mistaken for the leg.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RunFolder, parse_object, read_metrics, write_atomic, write_json
from boneagectl import artifacts, locks, units
from boneagectl.errors import MachineError
from boneagectl.models import (
    Artifacts,
    Bundle,
    Capabilities,
    Checkpoint,
    Finding,
    Handle,
    JobSpec,
    LegState,
    Observation,
    Quote,
)
from boneagectl.target_settings import LocalSettings
from boneagectl.targets.base import BaseTarget

STOP_GRACE_S = 60
_LOG_POLL_S = 0.2
_LAUNCH = "launch.json"
_LOCK = "alive.lock"
_PID = "pid"
_PROBE_TIMEOUT_S = 180


class LocalTarget(BaseTarget):
    """Runs legs below `root` with the interpreter of the settings; ``usd_per_hour`` is for a rented machine."""

    name = "local"

    def __init__(self, root: Path, settings: LocalSettings, stop_grace_s: float = STOP_GRACE_S) -> None:
        self.root = root
        self.python = settings.python
        self.stop_grace_s = stop_grace_s
        self.usd_micro_per_hour = units.usd_micro(settings.usd_per_hour)
        self.capabilities = Capabilities(
            unattended=True,
            can_stop=True,
            billed=self.usd_micro_per_hour > 0,
            max_session_hours=None,
            live_metrics=True,
            needs_network=False,
        )

    # -------------------------------------------------------------------------- before the start
    def check(self) -> list[Finding]:
        """What the interpreter can train with: versions, and the GPU that TensorFlow finds or why it finds none."""
        try:
            probe = _run_probe(self.python)
        except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
            return [Finding("bad", "local", f"cannot examine {self.python}: {error}", "set targets.local.python")]
        if missing := [name for name, version in probe["versions"].items() if version is None]:
            lacks = f"{self.python} lacks {', '.join(missing)}"
            return [Finding("bad", "local", lacks, "pip install 'boneagectl[train]'")]
        versions = ", ".join(f"{name} {version}" for name, version in probe["versions"].items())
        findings = [Finding("ok", "local", f"Python {probe['python']}, {versions}")]
        for gpu in probe["gpus"]:
            memory = f", {gpu['memory_mb']} MB" if gpu["memory_mb"] else ""
            detail = f"{gpu['name']}{memory}, driver {probe['driver']}, CUDA {probe['cuda']}"
            findings.append(Finding("ok", "gpu", detail))
        if not probe["gpus"]:
            findings.append(Finding("warn", "gpu", f"none: {probe['no_gpu_reason']}", "train small presets on the CPU"))
        return findings

    def quote(self, spec: JobSpec) -> Quote:
        """The trainer ends itself at its time limit, by force if needed: that is the maximum."""
        worst = units.cost_usd_micro(self.usd_micro_per_hour, spec.time_limit_s)
        source = "targets.local.usd_per_hour"
        return Quote(self.name, spec.time_limit_s, worst, self.usd_micro_per_hour, 1, source, date.today().isoformat())  # noqa: DTZ011

    def render(self, spec: JobSpec, bundle_: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        from boneagectl import bundle

        write_atomic(dest / bundle.BUNDLE_NAME, bundle_.content)
        argv = [self.python, f"sent/{bundle.BUNDLE_NAME}", "--data", str(spec.pack), "--out", "out", "--leg", leg_id]
        argv += ["--time-limit-s", str(spec.time_limit_s)]
        argv += ["--resume", str(resume.folder)] if resume else []
        price = {"usd_micro_per_hour": self.usd_micro_per_hour}  # the settings may change before the leg is over
        write_json(dest / _LAUNCH, {"argv": argv, "env": {"PYTHONUNBUFFERED": "1"}, **price})

    # ------------------------------------------------------------------------------- the start
    def submit(self, leg_id: str, rendered: Path) -> Handle:
        """Acquires the leg's lock, copies the rendered files, starts the process, which keeps the lock."""
        folder = self.root / leg_id
        lock = locks.acquire(folder / _LOCK)
        try:
            shutil.copytree(rendered, folder / "sent", dirs_exist_ok=True)
            self._start(folder, lock)
        except OSError as error:
            raise MachineError(f"{leg_id} could not be started: {error}", "boneagectl doctor") from None
        finally:
            os.close(lock)
        return Handle(self.name, leg_id)

    @staticmethod
    def _start(folder: Path, lock: int) -> None:
        launch = _read_launch(folder)
        out = RunFolder(folder / "out")
        out.root.mkdir(exist_ok=True)
        with open(out.log, "ab") as log:
            process = subprocess.Popen(
                launch["argv"],
                cwd=folder,
                env={**os.environ, **launch["env"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
            )
        process.returncode = 0  # not waited for: it outlives this process
        write_atomic(folder / _PID, str(process.pid))

    def find(self, leg_id: str) -> Handle | None:
        started = self._out(leg_id).state.exists() or self._is_alive(leg_id)
        return Handle(self.name, leg_id) if started else None

    # ---------------------------------------------------------------------------- while it runs
    def poll(self, handle: Handle) -> Observation:
        """The order matters: a leg that was alive may end before its files are read, never the reverse."""
        out, is_alive = self._out(handle.remote_id), self._is_alive(handle.remote_id)
        if not out.state.exists():
            return Observation(LegState.QUEUED) if is_alive else Observation(LegState.FAILED, _start_failure(out))
        state = parse_object(out.state.read_text(), out.state.name)
        return self._observe(out, state, is_alive)

    def _observe(self, out: RunFolder, state: dict[str, Any], is_alive: bool) -> Observation:
        leg_state, reason = LegState(state["state"]), state["reason"]
        until_s = time.time() if is_alive and leg_state is LegState.RUNNING else state["updated_s"]
        if is_alive and leg_state.is_over:  # it still writes its manifest
            leg_state, reason = LegState.RUNNING, f"{leg_state}, finishing"
        elif leg_state is LegState.RUNNING and not is_alive:
            leg_state, reason = LegState.LOST, "its process is gone: killed, or the machine was shut down"
        elapsed_s = max(0, round(until_s - state["started_s"]))
        metrics = read_metrics(out.metrics)
        spent = units.cost_usd_micro(_read_launch(out.root.parent)["usd_micro_per_hour"], elapsed_s)
        newest = metrics[-1] if metrics else None
        return Observation(leg_state, reason, state["epoch"], state["epochs"], elapsed_s, spent, newest)

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        path = self._out(handle.remote_id).log
        if not path.exists():
            return
        with open(path, encoding="utf-8", errors="replace") as stream:
            rest = ""
            while True:
                is_alive = self._is_alive(handle.remote_id)
                *lines, rest = (rest + stream.read()).split("\n")
                yield from lines
                if not (follow and is_alive):
                    yield from [rest] if rest else []
                    return
                time.sleep(_LOG_POLL_S)

    def stop(self, handle: Handle) -> None:
        out = self._out(handle.remote_id)
        if not self._is_alive(handle.remote_id):
            return
        give_up = time.monotonic() + self.stop_grace_s
        self._signal(out, signal.SIGTERM)
        while self._is_alive(handle.remote_id) and time.monotonic() < give_up:
            time.sleep(_LOG_POLL_S)
        if self._is_alive(handle.remote_id):
            self._signal(out, signal.SIGKILL)

    def _signal(self, out: RunFolder, number: signal.Signals) -> None:
        """To the whole process group, and only while the lock proves that the process id is the leg's."""
        out.stop_request.touch()
        pid = _pid(out)
        if pid and locks.is_held(out.root.parent / _LOCK):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        return artifacts.copy_outputs(self._out(handle.remote_id), RunFolder(dest))

    # ------------------------------------------------------------------------------------ folders
    def _out(self, leg_id: str) -> RunFolder:
        return RunFolder(self.root / leg_id / "out")

    def _is_alive(self, leg_id: str) -> bool:
        return locks.is_held(self.root / leg_id / _LOCK)


def _read_launch(folder: Path) -> dict[str, Any]:
    return parse_object((folder / "sent" / _LAUNCH).read_text(), _LAUNCH)


def _pid(out: RunFolder) -> int | None:
    """As written by `submit`, or by the trainer if `submit` was killed before it could."""
    path = out.root.parent / _PID
    if path.exists():
        return int(path.read_text())
    return int(parse_object(out.state.read_text(), out.state.name)["pid"]) if out.state.exists() else None


def _start_failure(out: RunFolder) -> str:
    """Why a process ended before it wrote its state: the last line of its log."""
    text = out.log.read_text(errors="replace").strip() if out.log.exists() else ""
    return f"did not start: {text.splitlines()[-1]}" if text else "did not start and left no log"


def _run_probe(python: str) -> dict[str, Any]:
    """Runs local_probe.py in another interpreter; it starts TensorFlow, which takes some seconds.

    Raises:
        OSError, ValueError, IndexError, subprocess.SubprocessError: no such interpreter, or no report from it.
    """
    command = [python, "-c", (Path(__file__).parent / "local_probe.py").read_text()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True, stdin=subprocess.DEVNULL
    )
    probe: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return probe
