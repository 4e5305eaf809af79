"""The `local` target keeps the contract, and what is its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from boneage_trainer.contract import write_json
from boneagectl import bundle, locks
from boneagectl.errors import MachineError, UsageError
from boneagectl.models import Handle, JobSpec, LegState
from boneagectl.target_settings import LocalSettings
from boneagectl.targets.local import LocalTarget
from contract_suite import LEG, Behave, Kill, TargetContract
from emulators import fake_trainer
from support import environment, make_pack, make_spec, starts, wait_for


class TestLocal(TargetContract):
    @pytest.fixture
    def target(self, home: Path, trainer: Path) -> LocalTarget:
        return LocalTarget(home / "local", LocalSettings(str(trainer)), stop_grace_s=1)

    @pytest.fixture
    def behave(self, monkeypatch: pytest.MonkeyPatch) -> Behave:
        def switch(mode: str = "", epochs: int = 3, epoch_s: float = 0.05) -> None:
            monkeypatch.setenv("FAKE_MODE", mode)
            monkeypatch.setenv("FAKE_EPOCHS", str(epochs))
            monkeypatch.setenv("FAKE_EPOCH_S", str(epoch_s))

        return switch

    @pytest.fixture
    def kill(self, home: Path) -> Kill:
        def end(handle: Handle) -> None:
            os.kill(int((home / "local" / handle.remote_id / "starts.txt").read_text()), signal.SIGKILL)

        return end

    def test_an_interpreter_that_is_not_there(self, home: Path, spec: JobSpec, tmp_path: Path) -> None:
        target = LocalTarget(home / "local", LocalSettings("/no/such/python"))
        target.render(spec, bundle.build(spec), LEG, tmp_path / "sent", None)
        with pytest.raises(MachineError, match="could not be started") as caught:
            target.submit(LEG, tmp_path / "sent")
        assert "doctor" in caught.value.next_step
        assert target.find(LEG) is None

    def test_a_leg_that_runs_is_not_submitted_again(
        self, target: LocalTarget, behave: Behave, start: Callable[..., Handle], tmp_path: Path, home: Path
    ) -> None:
        behave(epochs=1000)
        handle = start()
        with pytest.raises(locks.LockBusy):
            target.submit(LEG, tmp_path / f"sent-{LEG}")
        self.wait_until(target, handle, LegState.RUNNING)
        assert starts(home) == {LEG: 1}

    def test_a_leg_outlives_its_submitter_and_its_session(
        self, target: LocalTarget, spec: JobSpec, tmp_path: Path
    ) -> None:
        target.render(spec, bundle.build(spec), LEG, tmp_path / "sent", None)
        script = """
import sys
from pathlib import Path
from boneagectl.target_settings import LocalSettings
from boneagectl.targets.local import LocalTarget
LocalTarget(Path(sys.argv[1]), LocalSettings("unused")).submit(sys.argv[2], Path(sys.argv[3]))
"""
        command = [sys.executable, "-c", script, str(target.root), LEG, str(tmp_path / "sent")]
        submitter = subprocess.Popen(command, env=environment(FAKE_EPOCHS="1000"), start_new_session=True)
        assert submitter.wait(timeout=20) == 0
        handle = Handle("local", LEG)
        self.wait_until(target, handle, LegState.RUNNING, epoch=2)
        with pytest.raises(ProcessLookupError):
            os.killpg(submitter.pid, signal.SIGHUP)
        self.wait_until(target, handle, LegState.RUNNING, epoch=4)
        target.stop(handle)
        assert target.poll(handle).state is LegState.PAUSED

    def test_a_reused_process_id_is_not_killed(self, target: LocalTarget, start: Callable[..., Handle]) -> None:
        handle = start()
        self.wait_until(target, handle, LegState.COMPLETE)
        wait_for(lambda: not locks.is_held(target.root / LEG / "alive.lock"))
        innocent = subprocess.Popen(["sleep", "30"], start_new_session=True)
        try:
            out = target.root / LEG / "out"
            state = json.loads((out / "state.json").read_text())
            write_json(out / "state.json", {**state, "state": "running", "pid": innocent.pid})
            (target.root / LEG / "pid").write_text(str(innocent.pid))
            assert target.poll(handle).state is LegState.LOST
            target.stop(handle)
            assert innocent.poll() is None
        finally:
            innocent.kill()
            innocent.wait()

    def test_a_rented_machine_is_billed_by_the_second(
        self, home: Path, trainer: Path, behave: Behave, tmp_path: Path
    ) -> None:
        target = LocalTarget(home / "local", LocalSettings(str(trainer), 3600.0), stop_grace_s=1)
        spec = make_spec(make_pack(tmp_path / "pack"), time_limit_s=90)
        assert target.quote(spec).worst_usd_micro == 90_000_000
        assert target.capabilities.billed
        behave(epochs=1000)
        target.render(spec, bundle.build(spec), LEG, tmp_path / "sent", None)
        handle = target.submit(LEG, tmp_path / "sent")
        wait_for(lambda: target.poll(handle).elapsed_s >= 1)
        seen = target.poll(handle)
        assert seen.spent_usd_micro == seen.elapsed_s * 1_000_000
        target.stop(handle)

    def test_it_works_below_hostile_names(self, hostile: Path, behave: Behave) -> None:
        target = LocalTarget(hostile / "local", LocalSettings(str(fake_trainer.install(hostile / "bin"))))
        spec = make_spec(make_pack(hostile / "pack"), epochs=1)
        target.render(spec, bundle.build(spec), LEG, hostile / "sent", None)
        handle = target.submit(LEG, hostile / "sent")
        self.wait_until(target, handle, LegState.COMPLETE)
        launch = json.loads((hostile / "sent" / "launch.json").read_text())
        assert launch["argv"][3] == str(hostile / "pack")
        wait_for(lambda: target.collect(handle, hostile / "brought").unlisted == ())


@pytest.mark.parametrize("rate", [-1.0, float("nan"), 1e12])
def test_no_price(rate: float) -> None:
    with pytest.raises(UsageError, match="dollars"):
        LocalTarget(Path("x"), LocalSettings("python", rate))


@pytest.mark.parametrize("text", ["", "local", "local:", ":x", " local:x"])
def test_no_handles(text: str) -> None:
    with pytest.raises(UsageError, match="is not a handle"):
        Handle.parse(text)


def test_the_probe_runs_in_the_interpreter_that_trains(tmp_path: Path) -> None:
    first = LocalTarget(tmp_path, LocalSettings(sys.executable)).check()[0]
    assert (first.level, first.what) == ("ok", "local"), first
    assert "tensorflow" in first.detail


def test_an_interpreter_that_cannot_be_checked_is_a_finding(tmp_path: Path) -> None:
    (finding,) = LocalTarget(tmp_path, LocalSettings("/no/such/python")).check()
    assert finding.level == "bad"
    assert "/no/such/python" in finding.detail
