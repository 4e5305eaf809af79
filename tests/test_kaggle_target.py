"""The `kaggle` target keeps the contract against an emulator that runs what is pushed, and Kaggle's own rules."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from boneage_trainer.contract import RunFolder, write_atomic
from boneagectl import bundle
from boneagectl.errors import (
    LimitRefused,
    MachineError,
    NotYet,
    ProviderRefused,
    SubmitUncertain,
    Unreachable,
    UsageError,
)
from boneagectl.models import Checkpoint, Handle, JobSpec, LegState
from boneagectl.target_settings import KaggleSettings
from boneagectl.targets import http
from boneagectl.targets.kaggle import KaggleTarget, client, outputs, render
from boneagectl.targets.kaggle.status import KernelLog
from contract_suite import LEG, SECOND, Behave, Kill, TargetContract, epochs_in
from emulators.kaggle import Fault, Kaggle
from support import KAGGLE_PACK, assert_golden, make_pack, make_spec, wait_for

Start = Callable[..., Handle]
PACK = KAGGLE_PACK


def settings(**other: object) -> KaggleSettings:
    values = {"username": "alice", "dataset": PACK, "machine_shape": "NvidiaTeslaT4", "internet": False,
              "code": "embed", "models": (), **other}  # fmt: skip
    return KaggleSettings(**values)  # type: ignore[arg-type]


@pytest.fixture
def behaving(monkeypatch: pytest.MonkeyPatch) -> Behave:
    def switch(mode: str = "", epochs: int = 3, epoch_s: float = 0.05) -> None:
        monkeypatch.setenv("FAKE_MODE", mode)
        monkeypatch.setenv("FAKE_EPOCHS", str(epochs))
        monkeypatch.setenv("FAKE_EPOCH_S", str(epoch_s))

    return switch


class TestKaggle(TargetContract):
    never_was = "alice/never-was-01/1"
    died_alone = LegState.FAILED
    shows_files = False
    own_lines = 6  # two states, the session, two GPUs, the pack

    @pytest.fixture
    def target(self, home: Path, kaggle: Kaggle) -> KaggleTarget:
        return KaggleTarget(home / "kaggle", settings())

    @pytest.fixture
    def behave(self, behaving: Behave) -> Behave:
        return behaving

    @pytest.fixture
    def kill(self, kaggle: Kaggle) -> Kill:
        def end(handle: Handle) -> None:
            kaggle.preempt(handle.remote_id.split("/")[1], keep_outputs=True)

        return end

    def test_stop_keeps_the_log_and_deletes_the_kernel(
        self, target: KaggleTarget, behave: Behave, start: Start, kaggle: Kaggle, tmp_path: Path
    ) -> None:
        behave(epochs=1000, epoch_s=0.05)
        handle = start()
        self.wait_until(target, handle, LegState.RUNNING, epoch=2)
        target.stop(handle)
        assert kaggle.kernels == {}
        assert kaggle.running() == []
        seen = target.poll(handle)
        assert (seen.state, seen.epoch >= 2) == (LegState.LOST, True)
        assert "deleting its kernel" in seen.reason
        brought = RunFolder(target.collect(handle, tmp_path / "brought").folder)
        assert len(brought.metrics.read_text().splitlines()) == seen.epoch
        assert brought.log.exists()
        assert list(target.logs(handle, follow=True)) == brought.log.read_text().splitlines()

    def test_a_next_leg_goes_on_from_the_kernel_before(
        self, target: KaggleTarget, behave: Behave, start: Start, kaggle: Kaggle, tmp_path: Path
    ) -> None:
        behave(epochs=2)
        first = start()
        self.wait_until(target, first, LegState.COMPLETE)
        behave(epochs=4)
        second = start(SECOND, Checkpoint(tmp_path, first))
        self.wait_until(target, second, LegState.COMPLETE, epoch=4)
        lines = RunFolder(target.collect(second, tmp_path / "brought").folder).metrics.read_text().splitlines()
        assert [(json.loads(line)["epoch"], json.loads(line)["leg"]) for line in lines] == [
            (1, LEG), (2, LEG), (3, SECOND), (4, SECOND)]  # fmt: skip
        assert kaggle.kernels[SECOND].request["kernelDataSources"] == [f"alice/{LEG}"]

    # ------------------------------------------------------------------------ how a session ends
    def test_the_session_limit(self, target: KaggleTarget, behave: Behave, start: Start, kaggle: Kaggle) -> None:
        behave(epochs=1000)
        handle = start()
        self.wait_until(target, handle, LegState.RUNNING, epoch=2)
        kaggle.time_limit(LEG)
        seen = target.poll(handle)
        assert (seen.state, seen.reason) == (LegState.LOST, "Kaggle ended the session at its time limit")
        assert seen.epoch >= 2

    def test_out_of_memory(self, target: KaggleTarget, behave: Behave, start: Start, kaggle: Kaggle) -> None:
        behave(epochs=1000)
        handle = start()
        self.wait_until(target, handle, LegState.RUNNING, epoch=1)
        kaggle.out_of_memory(LEG)
        seen = target.poll(handle)
        assert seen.state is LegState.FAILED
        assert "out of memory" in seen.reason

    def test_preempted_without_a_word(
        self, target: KaggleTarget, behave: Behave, start: Start, kaggle: Kaggle, tmp_path: Path
    ) -> None:
        behave(epochs=1000)
        handle = start()
        self.wait_until(target, handle, LegState.RUNNING, epoch=2)
        kaggle.preempt(LEG, keep_outputs=False)
        assert target.poll(handle).state is LegState.LOST
        assert "no reason" in target.poll(handle).reason
        brought = RunFolder(target.collect(handle, tmp_path / "brought").folder)
        assert brought.log.exists()
        assert not brought.last.exists()

    def test_paused_by_ourselves(self, target: KaggleTarget, behave: Behave, spec: JobSpec, tmp_path: Path) -> None:
        behave(epochs=1000, epoch_s=0.1)
        short = JobSpec(**{**{name: getattr(spec, name) for name in spec.__slots__}, "time_limit_s": 10})
        target.render(short, bundle.build(short), LEG, tmp_path / "sent", None)
        handle = target.submit(LEG, tmp_path / "sent")
        wait_for(lambda: target.poll(handle).state.is_over)
        assert target.poll(handle).state is LegState.PAUSED
        assert "time" in target.poll(handle).reason

    def test_without_a_gpu_it_ends_at_once_and_says_so(
        self, target: KaggleTarget, behave: Behave, start: Start, kaggle: Kaggle
    ) -> None:
        behave(epochs=1000)
        kaggle.gpus = 0
        handle = start()
        wait_for(lambda: target.poll(handle).state.is_over)
        seen = target.poll(handle)
        assert (seen.state, seen.epoch) == (LegState.FAILED, 0)
        assert "no GPU" in seen.reason

    def test_stuck_in_the_queue_it_can_be_stopped(
        self, target: KaggleTarget, start: Start, kaggle: Kaggle, tmp_path: Path
    ) -> None:
        kaggle.stuck_in_queue = True
        handle = start()
        assert target.poll(handle).state is LegState.QUEUED
        with pytest.raises(NotYet):
            target.collect(handle, tmp_path / "brought")
        target.stop(handle)
        assert kaggle.kernels == {}
        assert target.poll(handle).elapsed_s == 0

    def test_deleted_behind_our_back(self, target: KaggleTarget, behave: Behave, start: Start, kaggle: Kaggle) -> None:
        behave(epochs=1000)
        handle = start()
        self.wait_until(target, handle, LegState.RUNNING)
        target.api.delete_kernel(client.Kernel.from_handle(handle))
        seen = target.poll(handle)
        assert (seen.state, seen.elapsed_s) == (LegState.LOST, None)

    # ------------------------------------------------------------------------------ pushing faults
    @pytest.mark.parametrize("kind", ["500_after", "reset_after", "hang_after"])
    def test_an_answer_that_got_lost_never_leads_to_two(
        self, target: KaggleTarget, start: Start, kaggle: Kaggle, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http, "TIMEOUT_S", (1.0, 0.3))
        kaggle.faults.append(Fault("SaveKernel", kind))
        handle = start()
        assert handle.remote_id == f"alice/{LEG}/1"
        assert kaggle.calls.count("SaveKernel") == 1
        assert len(kaggle.kernels[LEG].sessions) == 1

    @pytest.mark.parametrize("kind", ["500", "reset", "hang"])
    def test_a_push_that_never_arrived_stays_in_doubt(
        self, target: KaggleTarget, start: Start, kaggle: Kaggle, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http, "TIMEOUT_S", (1.0, 0.3))
        kaggle.faults.append(Fault("SaveKernel", kind))
        with pytest.raises(SubmitUncertain):
            start()
        assert kaggle.kernels == {}
        assert target.find(LEG) is None

    def test_too_many_requests_are_waited_for(self, target: KaggleTarget, start: Start, kaggle: Kaggle) -> None:
        kaggle.faults.append(Fault("SaveKernel", "429"))
        assert start().remote_id == f"alice/{LEG}/1"
        assert kaggle.calls.count("SaveKernel") == 2

    def test_a_refusal_with_status_200_is_a_refusal(self, target: KaggleTarget, start: Start, kaggle: Kaggle) -> None:
        kaggle.quota_used_s = kaggle.quota_total_s
        with pytest.raises(LimitRefused, match="Maximum weekly GPU quota"):
            start()
        assert kaggle.kernels == {}

    def test_an_invalid_source_is_an_error_and_the_kernel_goes(
        self, home: Path, kaggle: Kaggle, spec: JobSpec, tmp_path: Path
    ) -> None:
        target = KaggleTarget(home / "kaggle", settings(dataset="alice/no-such-set"))
        target.render(spec, bundle.build(spec), LEG, tmp_path / "sent", None)
        with pytest.raises(ProviderRefused, match="alice/no-such-set"):
            target.submit(LEG, tmp_path / "sent")
        assert kaggle.kernels == {}
        assert kaggle.running() == []

    def test_a_kernel_with_an_invalid_source_that_cannot_be_deleted_stays_in_doubt(
        self, home: Path, kaggle: Kaggle, spec: JobSpec, tmp_path: Path
    ) -> None:
        kaggle.faults.append(Fault("DeleteKernel", "500", times=3))
        target = KaggleTarget(home / "kaggle", settings(dataset="alice/no-such-set"))
        target.render(spec, bundle.build(spec), LEG, tmp_path / "sent", None)
        handle = target.submit(LEG, tmp_path / "sent")
        assert handle == target.find(LEG), "it exists, so the ledger must know it"

    # --------------------------------------------------------------------------- reading faults
    @pytest.mark.parametrize("kind", ["429", "500", "reset", "truncate"])
    def test_questions_are_asked_again(self, target: KaggleTarget, start: Start, kaggle: Kaggle, kind: str) -> None:
        handle = start()
        kaggle.faults.append(Fault("GetKernelSessionStatus", kind))
        assert target.poll(handle).state in (LegState.QUEUED, LegState.RUNNING, LegState.COMPLETE)

    def test_a_broken_stream_is_gone_on_with(
        self, target: KaggleTarget, behave: Behave, start: Start, kaggle: Kaggle
    ) -> None:
        behave(epochs=6, epoch_s=0.3)
        handle = start()
        self.wait_until(target, handle, LegState.RUNNING, epoch=1)
        kaggle.faults.append(Fault("stream", "reset", times=2))
        followed = list(target.logs(handle, follow=True))
        assert epochs_in(followed) == [1, 2, 3, 4, 5, 6]

    @pytest.mark.parametrize("kind", ["reset", "truncate", "500"])
    def test_a_broken_download_is_gone_on_with(
        self, target: KaggleTarget, start: Start, kaggle: Kaggle, kind: str, tmp_path: Path
    ) -> None:
        handle = start()
        self.wait_until(target, handle, LegState.COMPLETE)
        kaggle.faults.append(Fault("download", kind))
        brought = target.collect(handle, tmp_path / "brought")
        assert brought.unlisted == ()
        assert not (tmp_path / "brought" / ".incoming").exists()

    def test_a_download_that_breaks_again_and_again_keeps_what_came(
        self, target: KaggleTarget, start: Start, kaggle: Kaggle, tmp_path: Path
    ) -> None:
        handle = start()
        self.wait_until(target, handle, LegState.COMPLETE)
        kaggle.faults.append(Fault("download", "500", times=3))
        with pytest.raises(Unreachable):
            target.collect(handle, tmp_path / "brought")
        assert target.collect(handle, tmp_path / "brought").unlisted == ()

    def test_collected_once_it_is_not_loaded_again(
        self, target: KaggleTarget, start: Start, kaggle: Kaggle, tmp_path: Path
    ) -> None:
        handle = start()
        self.wait_until(target, handle, LegState.COMPLETE)
        first, asked = target.collect(handle, tmp_path / "brought"), len(kaggle.calls)
        assert target.collect(handle, tmp_path / "brought") == first
        assert len(kaggle.calls) == asked

    def test_every_page_of_the_outputs_is_brought(self, target: KaggleTarget, kaggle: Kaggle, tmp_path: Path) -> None:
        """A kernel that was killed leaves its files loose; Kaggle lists them in pages."""
        script = "import pathlib\nrun = pathlib.Path('run')\nrun.mkdir()\n"
        script += "for at in range(250): (run / f'{at}.txt').write_text(str(at))\n"
        spec = make_spec(make_pack(tmp_path / "pack"), time_limit_s=600, target="kaggle")
        target.render(spec, bundle.build(spec), LEG, tmp_path / "sent", None)
        handle = target.api.push_kernel(render.read_kernel_folder(tmp_path / "sent")[0], script).handle
        wait_for(lambda: target.poll(handle).state.is_over)
        target.collect(handle, tmp_path / "brought")
        assert {path.name: path.read_text() for path in (tmp_path / "brought").glob("*.txt")} == {
            f"{at}.txt": str(at) for at in range(250)
        }
        assert kaggle.calls.count("ListKernelSessionOutput") >= 3

    @pytest.mark.parametrize("name", ["../outside", "/outside", "run/../../outside", "run\\..\\outside"])
    def test_hostile_names_are_refused_whole(self, kaggle: Kaggle, tmp_path: Path, name: str) -> None:
        with pytest.raises(MachineError, match="outside its folder"):
            outputs.download_outputs(
                [("run/state.json", kaggle.url), (name, kaggle.url)], KernelLog(), RunFolder(tmp_path / "in")
            )
        assert not (tmp_path / "in").exists()

    def test_hostile_archives_are_refused_whole(self, tmp_path: Path) -> None:
        for at, spoil in enumerate((escaping, linking, truncated, swapped)):
            archive = tmp_path / f"{at}.zip"
            spoil(archive)
            with pytest.raises(MachineError):
                outputs.unpack_outputs(archive, KernelLog(), RunFolder(tmp_path / f"in-{at}"))
        assert not (tmp_path / "outside").exists()

    # ------------------------------------------------------------------------------------- asked
    def test_preflight(self, target: KaggleTarget, spec: JobSpec, start: Start, behave: Behave, kaggle: Kaggle) -> None:
        assert [verdict.allows for verdict in target.preflight(spec)] == [True, True, True, True]
        behave(epochs=1000)
        for leg in (LEG, SECOND):
            self.wait_until(target, start(leg), LegState.RUNNING)
        said = {verdict.limit: verdict for verdict in target.preflight(spec)}
        assert not said["sessions"].allows
        assert LEG in said["sessions"].detail
        quota = target.quota()
        assert quota
        assert quota.allowed_s == 30 * 3600
        assert quota.reserved_s > 0

    def test_credentials_of_each_kind(self, home: Path, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [finding.level for finding in KaggleTarget(home, settings()).check()].count("bad") == 0
        monkeypatch.setenv("KAGGLE_API_TOKEN", "no-such-token")
        (bad,) = KaggleTarget(home, settings()).check()
        assert "$KAGGLE_API_TOKEN" in bad.detail
        assert "no-such-token" not in bad.detail + bad.fix
        monkeypatch.delenv("KAGGLE_API_TOKEN")
        (none,) = KaggleTarget(home, settings()).check()
        assert "no Kaggle credentials" in none.detail
        folder = Path.home() / ".kaggle"
        folder.mkdir()
        (folder / "kaggle.json").write_text(json.dumps({"username": "alice", "key": kaggle.key}))
        assert KaggleTarget(home, settings()).check()[0].level == "ok"
        (folder / "access_token").write_text(f"{kaggle.token}\n")
        assert "access_token" in KaggleTarget(home, settings(username="")).check()[0].detail

    def test_somebody_else_s_credentials(self, home: Path, kaggle: Kaggle, spec: JobSpec) -> None:
        said = {verdict.limit: verdict for verdict in KaggleTarget(home, settings(username="bob")).preflight(spec)}
        assert not said["account"].allows
        assert "alice" in said["account"].detail

    def test_no_secret_is_sent_or_kept(
        self, target: KaggleTarget, start: Start, kaggle: Kaggle, tmp_path: Path, home: Path
    ) -> None:
        handle = start()
        self.wait_until(target, handle, LegState.COMPLETE)
        target.collect(handle, tmp_path / "brought")
        for folder in (tmp_path / f"sent-{LEG}", tmp_path / "brought", home):
            for path in (one for one in folder.rglob("*") if one.is_file()):
                assert kaggle.token.encode() not in path.read_bytes(), path


# ----------------------------------------------------------------------------------------- archives
def escaping(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../outside", "x")


def linking(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as opened:
        entry = zipfile.ZipInfo("run/model.keras")
        entry.external_attr = 0o120777 << 16
        opened.writestr(entry, "../../outside")


def truncated(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("run/state.json", "{}" * 1000)
    archive.write_bytes(archive.read_bytes()[:-200])


def swapped(archive: Path) -> None:
    """A file that is not the one its list names."""
    listed = {"schema": 1, "files": {"model.keras": {"bytes": 1, "sha256": hashlib.sha256(b"a").hexdigest()}}}
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("run/model.keras", "b")
        opened.writestr("run/MANIFEST.json", json.dumps(listed))


# ---------------------------------------------------------------------------------------- rendering
def rendered(spec: JobSpec, folder: Path, **other: object) -> tuple[dict[str, object], str]:
    render.write_kernel_folder(spec, bundle.build(spec), LEG, folder, None, settings(**other))
    return render.read_kernel_folder(folder)


def test_the_metadata_says_everything(tmp_path: Path) -> None:
    spec = make_spec(make_pack(tmp_path / "pack"), time_limit_s=600, target="kaggle")
    metadata, script = rendered(spec, tmp_path / "sent")
    assert_golden("kaggle-metadata.json", json.dumps(metadata, indent=2) + "\n")
    shown = script.split("b64decode(", 1)[0]
    made = bundle.build(spec).sha256
    assert_golden("kaggle-script.txt", shown.replace(made, "SHA256"))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"username": ""}, "targets.kaggle.username"),
        ({"machine_shape": "NvidiaTeslaP100"}, "retired"),
        ({"dataset": "rsna"}, "OWNER/NAME"),
    ],
)
def test_settings_that_cannot_be_granted(tmp_path: Path, other: dict[str, object], said: str) -> None:
    spec = make_spec(make_pack(tmp_path / "pack"), target="kaggle")
    with pytest.raises(UsageError) as caught:
        rendered(spec, tmp_path / "sent", **other)
    assert said in caught.value.message + caught.value.next_step
    assert not (tmp_path / "sent").exists()


def test_imagenet_weights_need_internet(tmp_path: Path) -> None:
    spec = make_spec(make_pack(tmp_path / "pack"), preset="paper", weights="imagenet", target="kaggle")
    with pytest.raises(UsageError, match="no internet"):
        rendered(spec, tmp_path / "sent")
    assert rendered(spec, tmp_path / "sent", internet=True)[0]["enable_internet"] is True


def test_a_script_that_is_too_long_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "MAX_SCRIPT_BYTES", 100_000)
    with pytest.raises(UsageError, match="100000") as caught:
        rendered(make_spec(make_pack(tmp_path / "pack"), target="kaggle"), tmp_path / "sent")
    assert "targets.kaggle.code=dataset" in caught.value.next_step


def test_what_was_reached_elsewhere_goes_there_as_a_data_set(
    home: Path, kaggle: Kaggle, behaving: Behave, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "reached")
    for path in (run.last, run.best):
        write_atomic(path, "weights")
    write_atomic(run.metrics, json.dumps({"epoch": 1, "mae_months": 5.0}) + "\n")
    spec, target = (
        make_spec(make_pack(tmp_path / "pack"), time_limit_s=600, epochs=2, target="kaggle"),
        KaggleTarget(home, settings()),
    )
    for name in ("one", "two"):
        target.render(spec, bundle.build(spec), SECOND, tmp_path / name, Checkpoint(run.root, Handle("local", LEG)))
    sent = {path.relative_to(tmp_path / "one"): path.read_bytes() for path in (tmp_path / "one").rglob("*.*")}
    assert sent == {path.relative_to(tmp_path / "two"): path.read_bytes() for path in (tmp_path / "two").rglob("*.*")}
    handle = target.submit(SECOND, tmp_path / "one")
    wait_for(lambda: target.poll(handle).state is LegState.COMPLETE)
    assert kaggle.kernels[SECOND].request["datasetDataSources"] == [PACK, f"alice/{SECOND}-from"]
    assert target.poll(handle).epoch == 2


def test_code_as_a_private_data_set(home: Path, kaggle: Kaggle, behaving: Behave, tmp_path: Path) -> None:
    spec = make_spec(make_pack(tmp_path / "pack"), time_limit_s=600, epochs=2, target="kaggle")
    target = KaggleTarget(home / "kaggle", settings(code="dataset"))
    target.render(spec, bundle.build(spec), LEG, tmp_path / "sent", None)
    assert len((tmp_path / "sent" / "kernel.py").read_bytes()) < 10_000
    handle = target.submit(LEG, tmp_path / "sent")
    wait_for(lambda: target.poll(handle).state is LegState.COMPLETE)
    assert kaggle.kernels[LEG].request["datasetDataSources"] == [PACK, f"alice/{LEG}-code"]
