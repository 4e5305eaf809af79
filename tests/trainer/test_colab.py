"""A session in Colab, cell by cell: what it refuses, how it ends, what it prints, and what the next session resumes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import PackFolder, RunFolder, TrainConfig, read_metrics, write_atomic, write_manifest
from boneage_trainer.platforms import colab_drive, colab_notebook
from boneage_trainer.platforms.colab_api import CellStopped
from boneagectl import bundle
from boneagectl.models import JobSpec
from boneagectl.targets.colab import notebook_outputs, render
from colab_stub import colab_at
from support import make_spec, wait_for

RUN, LEG, SECOND = "hands-a1b2", "hands-a1b2-01", "hands-a1b2-02"


@dataclass
class Colab:
    """One user's Colab and Drive; each `session` is a new machine by default."""

    root: Path
    my_drive: Path
    pack: Path
    monkeypatch: pytest.MonkeyPatch
    spec: JobSpec = field(default_factory=lambda: make_spec(preset="smoke", epochs=3, target="colab"))

    def __post_init__(self) -> None:
        shutil.copytree(self.pack, self.my_drive / "boneage" / "pack")
        self.spec.data.update(PackFolder(self.pack).job_data())
        self.code = self.root / "code.zip"
        self.code.write_bytes(render.extract_code(bundle.build(self.spec)))

    @property
    def content(self) -> Path:
        return self.root / "content"

    @property
    def out(self) -> RunFolder:
        return RunFolder(self.content / "boneagectl" / LEG / "run")

    def fault(self, kind: str) -> None:
        self.monkeypatch.setenv("STUB_DRIVE_FAULT", kind)

    def behave(self, **switches: object) -> None:
        for name, value in switches.items():
            self.monkeypatch.setenv(f"FAKE_{name.upper()}", str(value))

    def session(self, **other: Any) -> colab_notebook.NotebookSession:
        given: dict[str, Any] = {
            "leg": LEG, "resume": "", "dataset": "kmader/rsna-bone-age", "pack": "boneage/pack",
            "time_limit_s": 36_000, "allow_cpu": True, "train": asdict(self.spec.train), "data": self.spec.data,
            "provenance": self.spec.provenance,
        }  # fmt: skip
        return colab_notebook.NotebookSession(self.code, **{**given, **other})

    def run_all(self, new_machine: bool = True, **other: Any) -> None:
        """Every cell, in order; the first that stops is the last."""
        if new_machine:
            shutil.rmtree(self.content, ignore_errors=True)
        session = self.session(**other)
        for cell in (session.connect_drive, session.get_images, session.train, session.results):
            cell()

    def offered(self, leg: str = LEG) -> RunFolder:
        """The browser's download, imported and checked."""
        dest = RunFolder(self.root / "collected")
        shutil.rmtree(dest.root, ignore_errors=True)
        notebook_outputs.import_results(self.root / "downloads" / f"results-{leg}.zip", leg, dest)
        return dest


@pytest.fixture
def place(tmp_path: Path, pack: Path, trainer: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Colab]:
    monkeypatch.setattr(colab_drive, "PAUSES_S", (0.01, 0.02))
    monkeypatch.setattr(colab_notebook, "_DRIVE_WAIT_S", 5.0)
    monkeypatch.setattr(sys, "executable", str(trainer))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("BONEAGE_REHEARSAL", raising=False)
    with colab_at(tmp_path, monkeypatch) as my_drive:
        yield Colab(tmp_path, my_drive, pack, monkeypatch)


# ------------------------------------------------------------------------------------- before it starts
def test_without_a_gpu_it_stops_first_and_says_what_to_do(place: Colab) -> None:
    with pytest.raises(CellStopped) as caught:
        place.session(allow_cpu=False)
    for word in ("no GPU", "Change runtime type", "some hours", "boneagectl submit --target kaggle", "ALLOW_CPU"):
        assert word in str(caught.value)
    assert caught.value._render_traceback_() == [f"STOPPED: {caught.value}"]
    assert not (place.content / "drive").exists()


def test_a_gpu_is_named(place: Colab, capsys: pytest.CaptureFixture[str]) -> None:
    program = place.root / "bin" / "nvidia-smi"
    write_atomic(program, "#!/bin/sh\necho 'GPU 0: Tesla T4 (UUID: GPU-1234)'\n")
    program.chmod(0o755)
    place.monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    place.session(allow_cpu=False)
    said = capsys.readouterr().out
    assert "GPU 0: Tesla T4" in said
    assert "this session stops in 9 h 54 min" in said


def test_outside_of_colab_it_does_not_start(place: Colab) -> None:
    place.monkeypatch.delenv("COLAB_RELEASE_TAG")
    with pytest.raises(CellStopped, match="made for Google Colab"):
        place.session()


def test_cells_out_of_order_are_reported(place: Colab) -> None:
    session = place.session()
    for cell in (session.get_images, session.train, session.results):
        with pytest.raises(CellStopped, match="in their order"):
            cell()


def test_drive_refused_stops_before_anything_is_trained(place: Colab) -> None:
    place.fault("refused")
    with pytest.raises(CellStopped, match=r"mount failed.*allow the access"):
        place.run_all()


def test_invalid_settings_are_reported(place: Colab) -> None:
    with pytest.raises(CellStopped, match="epochs must be int, not 'many'"):
        place.session(train={**asdict(TrainConfig()), "epochs": "many"})


# -------------------------------------------------------------------------------------- how it ends
def test_complete_in_one_session(place: Colab, capsys: pytest.CaptureFixture[str]) -> None:
    place.run_all()
    said = capsys.readouterr().out
    assert "COMPLETE after epoch 3. Drive has everything" in said
    assert f"boneagectl collect {RUN} --from results-{LEG}.zip" in said
    found = place.offered()
    assert [line["epoch"] for line in read_metrics(found.metrics)] == [1, 2, 3]
    assert "complete: 3 epochs" in found.log.read_text()
    there = place.my_drive / "boneagectl" / RUN / f"results-{LEG}.zip"
    assert there.read_bytes() == (place.root / "downloads" / there.name).read_bytes()


def test_at_its_limit_it_pauses_and_the_next_session_completes_it(
    place: Colab, capsys: pytest.CaptureFixture[str]
) -> None:
    place.behave(epochs=900, epoch_s=0.1)
    place.run_all(time_limit_s=3)
    said = capsys.readouterr().out
    assert "PAUSED after epoch" in said
    assert "time_limit" in said
    assert "open this notebook again" in said
    reached = len(read_metrics(place.offered().metrics))
    assert reached >= 1
    place.behave(epochs=reached + 2, epoch_s=0.01)
    place.run_all()
    said = capsys.readouterr().out
    assert f"resuming after epoch {reached}" in said
    epochs = [line["epoch"] for line in read_metrics(place.offered().metrics)]
    assert epochs == list(range(1, reached + 3)), "an epoch is lost or was done twice"


def test_an_interrupt_pauses_the_run_and_restores_the_signal_handlers(
    place: Colab, capsys: pytest.CaptureFixture[str]
) -> None:
    place.behave(epochs=900, epoch_s=0.05)
    before = signal.getsignal(signal.SIGINT)

    def click() -> None:
        wait_for(lambda: place.out.metrics.exists())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=click, daemon=True).start()
    place.run_all()
    assert "PAUSED after epoch" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) == before
    assert json.loads(place.offered().state.read_text())["state"] == "paused"


def test_an_interrupted_session_is_reported_as_such(place: Colab, capsys: pytest.CaptureFixture[str]) -> None:
    place.run_all()
    for path in (place.my_drive / "boneagectl" / RUN / LEG).rglob("state.json"):
        folder = RunFolder(path.parent)
        path.write_text(path.read_text().replace('"complete"', '"running"'))
        write_manifest(folder)
    capsys.readouterr()
    place.behave(epochs=4)
    place.run_all()
    said = capsys.readouterr().out
    assert "was interrupted after epoch 3: idle too long" in said
    assert "COMPLETE after epoch 4" in said


def test_a_killed_trainer_is_reported_and_the_notebook_survives(place: Colab) -> None:
    place.behave(mode="crash")
    with pytest.raises(CellStopped, match="failed after epoch 1: trainer killed, most likely out of memory"):
        place.run_all()
    place.behave(mode="")
    place.run_all(new_machine=False)
    assert [line["epoch"] for line in read_metrics(place.offered().metrics)] == [1, 2, 3]


def test_a_trainer_that_leaves_no_state(place: Colab) -> None:
    place.behave(mode="silent")
    with pytest.raises(CellStopped, match="left no state: exit code 1"):
        place.run_all()


def test_a_hanging_trainer_is_killed(place: Colab) -> None:
    place.monkeypatch.setattr(colab_notebook, "_MARGIN_S", 0.5)
    place.behave(mode="mute")
    with pytest.raises(CellStopped, match="still running after"):
        place.run_all(time_limit_s=2)


def test_a_session_without_time_is_not_started(place: Colab) -> None:
    with pytest.raises(CellStopped, match="no time is left"):
        place.run_all(time_limit_s=1)


def test_on_the_same_runtime_the_newer_of_disk_and_drive_counts(place: Colab) -> None:
    place.behave(epochs=2)
    place.run_all()
    place.fault("rename")
    place.behave(epochs=4)
    place.run_all(new_machine=False)
    assert len(read_metrics(place.out.metrics)) == 4
    place.fault("")
    place.behave(epochs=5)
    place.run_all(new_machine=False)
    assert [line["epoch"] for line in read_metrics(place.offered().metrics)] == [1, 2, 3, 4, 5]


# ------------------------------------------------------------------------------------ Drive in between
@pytest.mark.parametrize("kind", ["every:3", "drop:5", "slow:0.05"])
def test_two_sessions_with_a_bad_drive_lose_no_epoch(kind: str, place: Colab) -> None:
    place.behave(epochs=4, epoch_s=0.05)
    place.session().connect_drive()
    place.fault(kind)
    place.run_all()
    place.behave(epochs=8)
    place.run_all()
    assert [line["epoch"] for line in read_metrics(place.offered().metrics)] == list(range(1, 9))


def test_a_permanently_lost_drive_does_not_stop_training(place: Colab, capsys: pytest.CaptureFixture[str]) -> None:
    place.behave(epochs=6, epoch_s=0.05)
    place.fault("gone:3")
    began_s = time.monotonic()
    place.run_all()
    assert time.monotonic() - began_s < 10
    said = capsys.readouterr().out
    assert "COMPLETE after epoch 6. MISSING ON DRIVE: the newest epoch" in said
    assert "keep the zip" in said
    assert len(read_metrics(place.offered().metrics)) == 6


# ---------------------------------------------------------------------------------- an earlier leg
def test_a_second_leg_resumes_the_first(place: Colab) -> None:
    place.behave(epochs=2)
    place.run_all()
    place.behave(epochs=4)
    place.run_all(leg=SECOND, resume=LEG)
    lines = read_metrics(place.offered(SECOND).metrics)
    assert [(line["epoch"], line["leg"]) for line in lines] == [(1, LEG), (2, LEG), (3, SECOND), (4, SECOND)]


def test_a_leg_missing_on_drive_is_requested_with_its_folder(place: Colab) -> None:
    with pytest.raises(CellStopped, match=f"`checkpoint`.*folder boneagectl/{RUN}/{LEG} of your Drive"):
        place.run_all(leg=SECOND, resume=LEG)
