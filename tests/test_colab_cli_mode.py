"""Legs on Colab through Google's CLI keep the contract, against an emulator that runs them in real kernels."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import contract_suite
from boneage_trainer.contract import RunFolder
from boneagectl import bundle
from boneagectl.errors import (
    LimitRefused,
    MachineError,
    NotSignedIn,
    NotYet,
    ProviderRefused,
    SubmitUncertain,
    Unreachable,
    UsageError,
)
from boneagectl.models import Handle, JobSpec, LegState
from boneagectl.target_settings import ColabSettings
from boneagectl.targets.colab import rehearsal, upload
from boneagectl.targets.colab.cli_mode import CliMode
from contract_suite import LEG, Behave, Kill, TargetContract
from emulators import colab_cli
from emulators.colab import Colab, Fault, Vm
from support import environment, make_pack, make_spec, wait_for

pytestmark = pytest.mark.skipif(bool(colab_cli.missing()), reason=colab_cli.missing())
Start = Callable[..., Handle]
HANDLE = Handle("colab", f"cli/{LEG}")


def settings(**other: Any) -> ColabSettings:
    said = {"program": str(colab_cli.find_cli()), "auth": "oauth2", "gpu": "T4", "dataset": "", "paid": True}
    return ColabSettings(**{**said, **other})


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch) -> Behave:
    def switch(mode: str = "", epochs: int = 3, epoch_s: float = 0.05) -> None:
        monkeypatch.setenv("FAKE_MODE", mode)
        monkeypatch.setenv("FAKE_EPOCHS", str(epochs))
        monkeypatch.setenv("FAKE_EPOCH_S", str(epoch_s))

    return switch


@pytest.fixture
def target(home: Path, colab: Colab) -> Iterator[CliMode]:
    target = CliMode(home / "colab", settings(), stop_grace_s=3)
    yield target
    target.downloader.wait()


def only(colab: Colab) -> Vm:
    (vm,) = colab.vms.alive
    return vm


def end_kernels(vm: Vm) -> None:
    """Each with what it started; the machine and its server live on."""
    groups = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"BONEAGE_COLAB_VM={vm.endpoint}".encode() in (path / "environ").read_bytes():
                groups.add(os.getpgid(int(path.name)))
        except OSError:
            continue
    for group in groups - {vm.process.pid}:
        os.killpg(group, signal.SIGKILL)


@pytest.mark.long
class TestCliMode(TargetContract):
    never_was = "cli/never-was-01"
    shows_files = False
    died_alone = LegState.FAILED

    @pytest.fixture(autouse=True)
    def times(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A submit waits for a machine, sends everything, and sees the training begin."""
        monkeypatch.setattr(contract_suite, "AT_ONCE_S", 60.0)

    @pytest.fixture
    def target(self, target: CliMode) -> CliMode:
        return target

    @pytest.fixture
    def behave(self, behave: Behave) -> Behave:
        return behave

    @pytest.fixture
    def kill(self, colab: Colab) -> Kill:
        def end(handle: Handle) -> None:
            end_kernels(only(colab))

        return end


# ----------------------------------------------------------------------------------------- helpers
@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return make_spec(make_pack(tmp_path / "pack"), time_limit_s=600, epochs=3, target="colab")


@pytest.fixture
def start(target: CliMode, spec: JobSpec, tmp_path: Path) -> Start:
    def submit(leg_id: str = LEG, of: JobSpec = spec, by: CliMode = target) -> Handle:
        by.render(of, bundle.build(of), leg_id, tmp_path / f"sent-{leg_id}", None)
        return by.submit(leg_id, tmp_path / f"sent-{leg_id}")

    return submit


def reach(target: CliMode, state: LegState = LegState.RUNNING, epoch: int = 0) -> None:
    def is_there() -> bool:
        seen = target.poll(HANDLE)
        assert not seen.state.is_over or seen.state is state, seen
        return seen.state is state and seen.epoch >= epoch

    wait_for(is_there, 60)


# ----------------------------------------------------------------------------------------- money and machines
def test_an_ended_leg_has_no_further_cost(target: CliMode, start: Start, colab: Colab, tmp_path: Path) -> None:
    start()
    vm = only(colab)
    reach(target, LegState.COMPLETE)
    assert list(target.wind_down(HANDLE))
    assert vm.ended == "unassigned"
    assert list(target.wind_down(HANDLE)) == []
    seen = target.poll(HANDLE)
    assert 0 < seen.spent_usd_micro <= target.quote(make_spec(time_limit_s=600, target="colab")).worst_usd_micro
    found = target.collect(HANDLE, tmp_path / "collected")
    assert found.unlisted == ()
    assert {"model.keras", "checkpoint/last.npz", "train.log"} <= set(found.sha256)
    assert target.find_orphans() == []


@pytest.mark.long
def test_one_poll_downloads_everything_and_releases_the_runtime(target: CliMode, start: Start, colab: Colab) -> None:
    start()
    vm = only(colab)
    reach(target, LegState.COMPLETE)
    target.downloader.wait()
    assert vm.ended == "unassigned"
    assert RunFolder(target.root / LEG / "run").model.exists()


@pytest.mark.long
def test_a_leg_that_ends_during_a_download_is_finished_too(
    target: CliMode, start: Start, colab: Colab, behave: Behave
) -> None:
    behave(epochs=6, epoch_s=0.3)
    colab.faults.append(Fault("GET runtime files/*/checkpoint/last.npz", "hang"))
    start()
    vm = only(colab)
    reach(target, epoch=1)
    wait_for((vm.content / "boneagectl" / LEG / "over").exists, 60)
    assert colab.faults == [], "the thread hangs in the middle of a file"
    assert target.poll(HANDLE).state is LegState.COMPLETE
    colab.release()
    target.downloader.wait()
    assert vm.ended == "unassigned"


@pytest.mark.long
def test_a_runtime_that_is_never_polled_releases_itself(
    target: CliMode, start: Start, spec: JobSpec, colab: Colab, behave: Behave
) -> None:
    behave(epochs=1000, epoch_s=0.1)
    start(of=replace(spec, time_limit_s=8))
    vm = only(colab)
    wait_for(lambda: vm.ended == "unassigned", 60)
    assert "POST self-unassign" in colab.calls
    seen = target.poll(HANDLE)
    assert seen.state is LegState.LOST
    assert "Colab ended the runtime" in seen.reason
    assert target.poll(HANDLE) == seen


@pytest.mark.long
def test_an_ended_session_waits_until_its_files_are_downloaded(
    target: CliMode, start: Start, spec: JobSpec, colab: Colab, behave: Behave, tmp_path: Path
) -> None:
    behave(epochs=1000, epoch_s=0.1)
    start(of=replace(spec, time_limit_s=40))
    place = only(colab).content / "boneagectl" / LEG
    wait_for((place / "run" / "checkpoint").exists)
    (place / "run" / "stop").touch()
    wait_for((place / "over").exists)
    assert target.collect(HANDLE, tmp_path / "collected").unlisted == ()
    assert target.poll(HANDLE).state is LegState.PAUSED


@pytest.mark.long
def test_a_runtime_where_no_run_starts_releases_itself(
    target: CliMode, start: Start, colab: Colab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "STARTUP_S", 1)
    monkeypatch.setattr("boneagectl.targets.http.TIMEOUT_S", (5.0, 2.5))
    colab.faults.append(Fault("PUT runtime api/contents/content/boneagectl/*", "hang"))
    with pytest.raises(ProviderRefused, match="before the run started"):
        start()
    assert [vm.ended for vm in colab.vms.values()] == ["unassigned"]
    assert target.find(LEG) is None


@pytest.mark.long
def test_a_higher_rate_than_reserved_is_refused(target: CliMode, start: Start, colab: Colab) -> None:
    colab.rates["T4"] = 3.0
    with pytest.raises(LimitRefused, match=r"charges 3 units per hour for a T4; 1\.76"):
        start()
    assert colab.vms.alive == []
    assert target.find(LEG) is None


def test_stop_proves_that_the_runtime_is_gone(
    target: CliMode, start: Start, colab: Colab, behave: Behave, tmp_path: Path
) -> None:
    behave(epochs=1000, epoch_s=0.1)
    start()
    reach(target, epoch=2)
    colab.faults.append(Fault("POST unassign", "500", times=4))
    with pytest.raises(ProviderRefused, match="still running and may be billed"):
        target.stop(HANDLE)
    assert target.poll(HANDLE).state is LegState.PAUSED
    wait_for(lambda: not colab.vms.alive)  # it released itself, or the next poll released it
    target.stop(HANDLE)
    found = RunFolder(target.collect(HANDLE, tmp_path / "collected").folder)
    assert found.last.read_text() == f"weights after epoch {target.poll(HANDLE).epoch}"


# ----------------------------------------------------------------------------------------- refusals
def test_refusals_of_colab_name_the_next_step(target: CliMode, start: Start, colab: Colab, home: Path) -> None:
    colab.tier = "free"
    with pytest.raises(LimitRefused, match="refuses a L4") as refused:
        start(by=CliMode(home / "colab", settings(gpu="L4")))
    assert "boneagectl submit --target kaggle" in refused.value.next_step
    colab.no_capacity = True
    with pytest.raises(LimitRefused, match="has no T4 for you now") as refused:
        start("contract-run-02")
    assert "boneagectl submit --target kaggle" in refused.value.next_step
    colab.no_capacity, colab.outcome = False, "QUOTA_EXCEEDED_USAGE_TIME"
    with pytest.raises(LimitRefused, match="QUOTA_EXCEEDED_USAGE_TIME"):
        start("contract-run-03")
    assert colab.vms == {}
    assert [target.find(f"contract-run-0{number}") for number in (1, 2, 3)] == [None, None, None]


@pytest.mark.long
def test_an_unreachable_backend_leaves_no_runtime(target: CliMode, start: Start, colab: Colab) -> None:
    colab.faults.append(Fault("POST assign", "503", times=4))
    with pytest.raises(SubmitUncertain, match="created no runtime"):
        start()
    assert target.find(LEG) is None
    assert colab.vms == {}
    colab.faults.append(Fault("POST assign", "503", times=2))
    assert start() == HANDLE, "Google's CLI retries"


def test_an_unknown_gpu_is_refused_before_anything(target: CliMode, spec: JobSpec, tmp_path: Path, home: Path) -> None:
    other = CliMode(home / "colab", settings(gpu="T5"))
    with pytest.raises(UsageError, match="one of T4, L4, A100, not 'T5'"):
        other.render(spec, bundle.build(spec), LEG, tmp_path / "sent", None)
    with pytest.raises(UsageError):
        other.quote(spec)


def test_compute_units_must_match_the_paid_setting(colab: Colab, home: Path, spec: JobSpec) -> None:
    paid, free = CliMode(home / "colab", settings()), CliMode(home / "colab", settings(paid=False))
    assert [verdict.allows for verdict in paid.preflight(spec)] == [True, True]
    assert [verdict.allows for verdict in free.preflight(spec)] == [True, False], (
        "it would use units that are not reserved"
    )
    assert free.quote(spec).worst_usd_micro == 0
    colab.balance_units = 0.5
    assert [verdict.allows for verdict in paid.preflight(spec)] == [True, False]
    colab.tier = "free"
    said = free.preflight(spec)[1]
    assert said.allows
    assert "colaboratory/faq.html" in said.detail


def test_doctor_reports_what_blocks_the_cli_mode(colab: Colab, home: Path, tmp_path: Path) -> None:
    levels = [(one.level, one.what) for one in CliMode(home / "colab", settings()).check()]
    assert levels == [("ok", "colab"), ("ok", "units"), ("ok", "rate")]
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho 'Version: 0.7.3'\n")
    old.chmod(0o755)
    for program, words in ((str(old), "too old"), (str(tmp_path / "none"), "there is no program")):
        (bad,) = CliMode(home / "colab", settings(program=program)).check()
        assert bad.level == "bad"
        assert words in bad.detail
    colab.sign_out()
    (bad,) = CliMode(home / "colab", settings()).check()
    assert bad.detail == "not signed in to Colab on this computer"
    assert "colab sessions" in bad.fix


# ----------------------------------------------------------------------------------------- what is lost, and found
def test_a_vanished_runtime_keeps_the_downloaded_files(
    target: CliMode, start: Start, colab: Colab, behave: Behave, tmp_path: Path
) -> None:
    behave(epochs=1000, epoch_s=0.3)
    start()
    reach(target, epoch=2)
    target.downloader.wait()
    colab.lose(only(colab))
    seen = target.poll(HANDLE)
    assert seen.state is LegState.LOST
    assert "boneagectl resume" in seen.reason
    assert seen.epoch >= 1
    found = RunFolder(target.collect(HANDLE, tmp_path / "collected").folder)
    assert found.last.read_text().startswith("weights after epoch")
    assert target.find(LEG) == HANDLE
    assert target.poll(HANDLE) == seen


@pytest.mark.long
def test_a_session_lost_after_twelve_hours_names_the_limit(
    target: CliMode, start: Start, colab: Colab, behave: Behave, tmp_path: Path
) -> None:
    behave(epochs=1000, epoch_s=0.3)
    start()
    reach(target, epoch=1)
    colab.session_s, colab.clock_rate = 1.0, 100.0
    wait_for(lambda: not colab.vms.alive)
    note = target.root / f"{LEG}.json"
    said = json.loads(note.read_text())
    note.write_text(json.dumps({**said, "asked_s": said["asked_s"] - 12 * 3600}))
    assert "Colab ends a session after 12 h" in target.poll(HANDLE).reason


def test_an_hour_old_token_is_renewed(target: CliMode, start: Start, colab: Colab, behave: Behave) -> None:
    behave(epochs=1000, epoch_s=0.1)
    start()
    reach(target, epoch=1)
    colab.expire_tokens()
    assert target.poll(HANDLE).state is LegState.RUNNING
    colab.rotates_tokens = True
    target.colab.list_runtimes()
    assert target.poll(HANDLE).state is LegState.RUNNING
    target.stop(HANDLE)
    assert colab.vms.alive == []


@pytest.mark.long
def test_a_lost_state_file_loses_no_runtime(target: CliMode, start: Start, colab: Colab, behave: Behave) -> None:
    behave(epochs=1000, epoch_s=0.1)
    start()
    target.colab.state.unlink()
    reach(target, epoch=1)
    target.stop(HANDLE)
    assert colab.vms.alive == []
    target.colab.state.write_text("{torn")
    with pytest.raises(MachineError, match=r"sessions\.json cannot be read"):
        target.colab.access("boneage-x")


@pytest.mark.long
def test_a_wrong_answer_does_not_end_a_leg(target: CliMode, start: Start, colab: Colab, behave: Behave) -> None:
    behave(epochs=1000, epoch_s=0.1)
    start()
    reach(target, epoch=1)
    colab.faults.append(Fault("GET runtime *", "404", times=20))
    with pytest.raises(Unreachable):
        target.poll(HANDLE)
    colab.faults.clear()
    assert target.poll(HANDLE).state is LegState.RUNNING


KILLED = """
import sys
from pathlib import Path
from boneagectl.targets.colab.cli_mode import CliMode
from boneagectl.target_settings import ColabSettings
target = CliMode(Path(sys.argv[1]), ColabSettings(program=sys.argv[2], dataset=""))
target.submit(sys.argv[3], Path(sys.argv[4]))
"""


@pytest.mark.parametrize("named", [True, False])
def test_a_killed_submit_leaves_no_runtime(
    target: CliMode, spec: JobSpec, colab: Colab, tmp_path: Path, named: bool
) -> None:
    target.render(spec, bundle.build(spec), LEG, tmp_path / "sent", None)
    colab.faults.append(Fault("POST runtime api/kernels", "hang"))
    command = [sys.executable, "-c", KILLED, str(target.root), str(colab_cli.find_cli()), LEG, str(tmp_path / "sent")]
    with subprocess.Popen(command, env=environment()) as process:
        wait_for(lambda: "POST runtime api/kernels" in colab.calls, 60)
        with pytest.raises(Unreachable, match="being submitted right now"):
            target.find(LEG)
        process.kill()
    colab.release()
    vm = only(colab)
    if not named:  # as if the command line had been killed before it wrote the name down
        target.colab.state.unlink()
        note = target.root / f"{LEG}.json"
        note.write_text(json.dumps({**json.loads(note.read_text()), "endpoint": ""}))
    assert target.find(LEG) == HANDLE
    assert vm.ended == "unassigned"
    seen = target.poll(HANDLE)
    assert (seen.state, seen.reason) == (LegState.LOST, "its submit was interrupted; the runtime was released")
    assert seen.spent_usd_micro > 0
    with pytest.raises(NotYet):
        target.collect(HANDLE, tmp_path / "collected")


@pytest.mark.long
def test_a_runtime_used_in_a_browser_is_not_claimed(target: CliMode, spec: JobSpec, colab: Colab) -> None:
    leg = target._folder(LEG)
    target.colab.create_runtime("browser", "T4")
    note = {"name": f"boneage-{LEG}", "gpu": "T4", "usd_micro_per_hour": 1, "worst_s": 9, "hold_s": 0, "asked_s": 0.0}
    (target.root / f"{LEG}.json").write_text(json.dumps({**note, "before": []}))
    assert leg.record
    with target.runtimes.connect(replace(leg.record, name="browser", endpoint=only(colab).endpoint)) as runtime:
        runtime.start_kernel()
    target.colab.state.unlink()
    assert target.find(LEG) is None
    assert only(colab).is_alive
    assert target.colab.access(f"boneage-{LEG}") is None
    (found,) = target.find_orphans()
    assert (found.level, "a notebook in a browser" in found.detail) == ("warn", True)


def test_an_orphan_runtime_is_reported(target: CliMode, start: Start, colab: Colab, behave: Behave) -> None:
    behave(epochs=1000)
    start()
    assert target.find_orphans() == []
    (target.root / f"{LEG}.json").unlink()
    (found,) = target.find_orphans()
    assert found.level == "bad"
    assert f"boneage-{LEG} (T4) is running" in found.detail
    assert found in target.check()


def test_a_connection_cut_during_a_download_loses_nothing(
    target: CliMode, start: Start, colab: Colab, tmp_path: Path
) -> None:
    start()
    run = only(colab).content / "boneagectl" / LEG / "run"
    wait_for(lambda: (run.parent / "over").exists())
    (run / "extra.bin").write_bytes(os.urandom(300_000))
    colab.cuts = [100_000, 50_000]
    target.collect(HANDLE, tmp_path / "collected")
    kept = target.root / LEG / "run"
    assert (kept / "extra.bin").read_bytes() == (run / "extra.bin").read_bytes()
    assert colab.cuts == []
    assert not (kept / ".incoming").exists()


@pytest.mark.long
def test_a_name_outside_the_folder_collects_nothing(
    target: CliMode, start: Start, colab: Colab, behave: Behave, tmp_path: Path
) -> None:
    behave(epochs=1000)
    start()
    run = only(colab).content / "boneagectl" / LEG / "run"
    wait_for(lambda: (run / "MANIFEST.json").exists())
    (run / "a\\b").write_text("x")
    with pytest.raises(MachineError, match="points outside its folder"):
        target.collect(HANDLE, tmp_path / "collected")


@pytest.mark.long
def test_a_second_runtime_of_the_same_name_is_refused(
    target: CliMode, start: Start, colab: Colab, behave: Behave
) -> None:
    behave(epochs=1000)
    start()
    with pytest.raises(ProviderRefused, match="boneage-contract-run-01 already exists"):
        start()
    assert len(colab.vms) == 1
    assert target.poll(HANDLE).state is LegState.RUNNING


@pytest.mark.long
def test_an_unreachable_network_is_not_a_missing_sign_in(colab: Colab, home: Path) -> None:
    colab_program = CliMode(home / "colab", settings()).colab
    token = colab.home / ".config" / "colab-cli" / "token.json"
    token.write_text(json.dumps({**json.loads(token.read_text()), "expiry": "2020-01-01T00:00:00Z"}))
    colab.faults.append(Fault("POST token", "reset", times=50))
    with pytest.raises(Unreachable, match="Google did not answer"):
        colab_program.list_runtimes()
    colab.faults.clear()
    colab.login.revoked = True
    with pytest.raises(NotSignedIn, match="not signed in"):
        colab_program.list_runtimes()
    colab.login.revoked = False
    assert colab_program.list_runtimes() == []
    assert "2020" not in token.read_text(), "the user's own login was renewed, not a copy"


# ----------------------------------------------------------------------------------------- secrets
def holding(folder: Path, word: bytes) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                  if path.is_file() and not path.is_symlink() and word in path.read_bytes())  # fmt: skip


@pytest.fixture
def recording_program(tmp_path: Path) -> Path:
    """A program in the place of the command line, which notes what it was called with, and calls it."""
    program = tmp_path / "colab-noted"
    said = shlex.quote(str(tmp_path / "arguments.txt"))
    program.write_text(f'#!/bin/sh\necho "$@" >> {said}\nexec {shlex.quote(str(colab_cli.find_cli()))} "$@"\n')
    program.chmod(0o755)
    return program


def test_secrets_are_stored_in_the_state_file_only(
    colab: Colab, start: Start, home: Path, recording_program: Path, tmp_path: Path, behave: Behave
) -> None:
    behave(epochs=1000, epoch_s=0.1)
    target = CliMode(home / "colab", settings(program=str(recording_program)), stop_grace_s=3)
    start(by=target)
    reach(target, epoch=1)
    target.downloader.wait()
    assert holding(home, b"SECRET") == ["colab/sessions.json"]
    assert oct((home / "colab" / "sessions.json").stat().st_mode)[-3:] == "600"
    assert oct((home / "colab").stat().st_mode)[-3:] == "700"
    assert "SECRET" not in (tmp_path / "arguments.txt").read_text()
    assert not (colab.home / ".config" / "colab-cli" / "colab.log").exists()
    left = home / "colab" / ".call-killed"
    left.mkdir()
    (left / "colab.log").write_text("SECRET")
    os.utime(left, (0, 0))
    target.stop(HANDLE)
    target.downloader.wait()
    assert holding(home, b"SECRET") == []


@pytest.mark.long
def test_kaggle_images_use_the_users_token_which_is_stored_nowhere(
    colab: Colab, start: Start, home: Path, recording_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", rehearsal.TOKEN)
    zipped, place = tmp_path / "set.zip", tmp_path / "place"
    with zipfile.ZipFile(zipped, "w") as made:
        for path in make_pack(tmp_path / "set").rglob("*"):
            made.write(path, path.name)
    place.mkdir()
    with rehearsal.serve_dataset("/api/v1/datasets/download/alice/hands", zipped) as address:
        (place / "sitecustomize.py").write_text(f"import os; os.environ['KAGGLE_API_ENDPOINT'] = {address!r}")
        colab.kernel_path.append(place)
        target = CliMode(home / "colab", settings(program=str(recording_program), dataset="alice/hands"))
        start(of=make_spec(tmp_path / "no-pack", time_limit_s=600, epochs=3, target="colab"), by=target)
        reach(target, LegState.COMPLETE)
    target.downloader.wait()
    for folder in (home, tmp_path / f"sent-{LEG}", colab.root / "vms"):
        assert holding(folder, rehearsal.TOKEN.encode()) == []
    assert rehearsal.TOKEN not in (tmp_path / "arguments.txt").read_text()
    assert rehearsal.TOKEN not in " ".join(colab.calls)
