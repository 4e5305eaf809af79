"""Failures of Drive: no epoch is lost, training never waits, and missing files are reported."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, RunFolder, read_metrics, write_atomic, write_json, write_manifest
from boneage_trainer.platforms import colab_drive
from boneage_trainer.platforms.colab_drive import (
    SLOTS,
    DriveMirror,
    MountedDrive,
    checkpoint_files,
    restore_checkpoint,
    stored_progress,
)
from colab_stub import colab_at

LEG = "hands-a1b2-01"
EPOCHS, EPOCH_S = 8, 0.05


@dataclass
class Bench:
    """A run folder written as the trainer writes it, and its mirror."""

    root: Path
    my_drive: Path
    monkeypatch: pytest.MonkeyPatch
    messages: list[str] = field(default_factory=list)
    longest_s: float = 0.0

    def __post_init__(self) -> None:
        self.drive = MountedDrive(self.root / "content" / "drive")
        self.drive.mount()
        self.out = RunFolder(self.root / "content" / "run")
        self.mirror = self.new_mirror()

    def new_mirror(self) -> DriveMirror:
        place = self.drive.my / "boneagectl" / LEG
        return DriveMirror(self.drive, place, self.out, self.root / "content" / "mirror", self.messages.append)

    def fault(self, kind: str) -> None:
        self.monkeypatch.setenv("STUB_DRIVE_FAULT", kind)

    def epoch(self, epoch: int) -> None:
        """One epoch as `Recorder.commit` leaves it; how long the mirror kept it waiting is noted."""
        time.sleep(EPOCH_S)
        if epoch % 2:
            write_atomic(self.out.best, f"best weights, epoch {epoch}\n" * 2000)
        write_atomic(self.out.last, f"weights after epoch {epoch}\n" * 2000)
        write_atomic(self.out.metrics, "".join(json.dumps({"epoch": at + 1}) + "\n" for at in range(epoch)))
        self.note("running", epoch)
        began_s = time.monotonic()
        self.mirror.copy_epoch()
        self.longest_s = max(self.longest_s, time.monotonic() - began_s)

    def note(self, state: str, epoch: int) -> None:
        said = {"state": state, "reason": "", "epoch": epoch, "epochs": EPOCHS, "leg": LEG, "updated_s": time.time()}
        write_json(self.out.state, said)
        write_manifest(self.out)

    def train(self, first: int = 1, last: int = EPOCHS) -> None:
        for epoch in range(first, last + 1):
            self.epoch(epoch)

    def on_drive(self) -> int:
        """The newest epoch that Drive holds whole, read as a next session would; 0 where there is none."""
        try:
            found = restore_checkpoint(self.my_drive / "boneagectl" / LEG, self.root / "restored", self.messages.append)
        except ContractError:
            return 0
        return max(0, stored_progress(found)[0]) if found else 0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(colab_drive, "PAUSES_S", (0.01, 0.02, 0.04))
    with colab_at(tmp_path, monkeypatch) as my_drive:
        yield Bench(tmp_path, my_drive, monkeypatch)


def test_a_working_drive_holds_the_newest_epoch_in_two_slots(bench: Bench) -> None:
    bench.train()
    assert bench.mirror.wait(10) == []
    assert (bench.on_drive(), bench.messages) == (EPOCHS, [])
    names = sorted(path.name for path in bench.my_drive.rglob("*") if path.is_file())
    assert names == sorted(["best.npz", "last.npz", "metrics.jsonl", "state.json", "MANIFEST.json"] * 2)


@pytest.mark.parametrize("kind", ["every:3", "slow:0.05", "drop:7", "every:4"])
def test_temporary_drive_failures_lose_nothing(kind: str, bench: Bench) -> None:
    bench.fault(kind)
    began_s = time.monotonic()
    bench.train()
    trained_s = time.monotonic() - began_s
    assert len(read_metrics(bench.out.metrics)) == EPOCHS, "an epoch is lost here"
    archive.check_run(bench.out, bench.out.root)
    assert bench.longest_s < 0.2, "the training waited for Drive"
    assert trained_s < EPOCHS * (EPOCH_S + 0.3)
    assert bench.mirror.wait(20) == []
    assert bench.on_drive() == EPOCHS, "Drive works again and lacks an epoch"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("gone:7", "not mounted any more"),
        ("full", "Drive is full"),
        ("rename", "Input/output error"),
        ("torn", "different bytes than were written"),
        ("gone:0", "mounted"),
    ],
)
def test_permanent_drive_failures_are_reported_once_and_lose_nothing(kind: str, said: str, bench: Bench) -> None:
    bench.fault(kind)
    bench.train()
    assert len(read_metrics(bench.out.metrics)) == EPOCHS
    archive.check_run(bench.out, bench.out.root)
    assert bench.longest_s < 0.2
    missing = bench.mirror.wait(10)
    assert len(missing) == 1
    assert said in missing[0]
    assert "newest epoch" in missing[0]
    assert len([line for line in bench.messages if "Training continues" in line]) == 1
    assert len(bench.messages) <= 2, "a mount was tried more than once, and may have asked the user each time"
    assert bench.on_drive() in (0, 1)
    assert not (bench.root / "content" / "drive" / "MyDrive").exists() or not kind.startswith("gone")


def test_after_a_failure_the_last_complete_copy_remains(bench: Bench) -> None:
    bench.train(1, 3)
    assert bench.mirror.wait(10) == []
    bench.fault("rename")
    bench.train(4, 5)
    assert bench.mirror.wait(10) != []
    assert bench.on_drive() == 3
    bench.fault("")
    bench.train(6, 6)
    assert bench.mirror.wait(10) == []
    assert bench.messages[-1].startswith("Drive works again")
    assert bench.on_drive() == 6


def test_a_hanging_drive_delays_neither_training_nor_its_end(bench: Bench) -> None:
    bench.fault("slow:3")
    bench.train()
    assert bench.longest_s < 0.2
    began_s = time.monotonic()
    missing = bench.mirror.wait(0.3)
    assert time.monotonic() - began_s < 2
    assert "Drive took longer than 0 s" in missing[0]


def test_killed_at_any_write_drive_holds_a_complete_epoch(bench: Bench) -> None:
    """As if the machine were taken away after the n-th write: the copy before it is whole."""
    bench.train(1, 2)
    assert bench.mirror.wait(10) == []
    for number in range(1, 11):
        bench.fault(f"dead:{number}")
        bench.epoch(2 + number)
        bench.mirror.wait(10)
        assert bench.on_drive() >= 1 + number
        bench.fault("")
        bench.mirror.copy_epoch()
        assert bench.mirror.wait(10) == []
        assert bench.on_drive() == 2 + number


def test_the_final_state_counts_more_than_the_epoch_before_it(bench: Bench) -> None:
    for last in (3, 4):  # whichever of the two places comes last
        bench.train(last, last)
        bench.mirror.wait(10)
        bench.note("paused", last)
        bench.mirror.copy_epoch()
        assert bench.mirror.wait(10) == []
        assert bench.on_drive() == last
        assert json.loads(RunFolder(bench.root / "restored").state.read_text())["state"] == "paused"


def test_files_being_written_are_never_copied_partially(bench: Bench) -> None:
    """The mirror is woken while the trainer is between the next epoch's weights and its list."""
    bench.train(1, 1)
    bench.mirror.wait(10)
    write_atomic(bench.out.last, "weights of an epoch that is not finished")
    bench.mirror.copy_epoch()
    time.sleep(0.1)
    bench.train(2, 2)
    assert bench.mirror.wait(10) == []
    assert bench.on_drive() == 2
    for slot in SLOTS:
        folder = RunFolder(bench.my_drive / "boneagectl" / LEG / slot)
        archive.check_run(folder, folder.root)


# ------------------------------------------------------------------------------------- taking back
def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def test_the_damaged_one_of_two_copies_is_skipped(bench: Bench) -> None:
    for epoch in (1, 2, 3):
        bench.train(epoch, epoch)
        assert bench.mirror.wait(10) == []
    place = bench.my_drive / "boneagectl" / LEG
    newest = max((RunFolder(place / slot) for slot in SLOTS), key=stored_progress)
    damaged(newest.last)
    assert bench.on_drive() == 2
    assert "damaged" in bench.messages[-1]
    for path in place.glob("?/checkpoint/best.npz"):
        damaged(path)
    with pytest.raises(ContractError, match="all checkpoints"):
        restore_checkpoint(place, bench.root / "again", bench.messages.append)


def test_a_damaged_copy_is_replaced_before_the_complete_one(bench: Bench) -> None:
    """The newest is damaged, and two epochs newer: the one that is whole must outlive the first epochs after it."""
    for epoch in (3, 5):
        bench.train(epoch, epoch)
        assert bench.mirror.wait(10) == []
    place = bench.my_drive / "boneagectl" / LEG
    whole, torn = sorted((place / slot for slot in SLOTS), key=lambda slot: stored_progress(RunFolder(slot)))
    damaged(RunFolder(torn).last)
    assert bench.on_drive() == 3
    assert (place / f"{torn.name}-damaged").is_dir()
    bench.mirror = bench.new_mirror()
    bench.train(4, 4)
    assert bench.mirror.wait(10) == []
    assert (stored_progress(RunFolder(whole))[0], stored_progress(RunFolder(torn))[0]) == (3, 4)
    assert bench.on_drive() == 4


def test_files_lost_by_drive_are_copied_again(bench: Bench) -> None:
    bench.train(1, 4)
    assert bench.mirror.wait(10) == []
    for path in bench.my_drive.rglob("best.npz"):
        path.unlink()
    bench.train(6, 6)
    bench.train(8, 8)
    assert bench.mirror.wait(10) == []
    assert len(list(bench.my_drive.rglob("best.npz"))) == 2
    assert bench.on_drive() == 8


def test_a_checkpoint_that_the_user_uploaded_is_restored(bench: Bench) -> None:
    place = RunFolder(bench.my_drive / "boneagectl" / "from-elsewhere-01")
    for path in (place.last, place.best):
        write_atomic(path, "weights")
    taken = restore_checkpoint(place.root, bench.root / "taken", bench.messages.append)
    assert taken
    assert [path.name for path in checkpoint_files(taken)] == ["best.npz", "last.npz"]


def test_without_a_checkpoint_nothing_is_restored(bench: Bench) -> None:
    assert restore_checkpoint(bench.my_drive / "none", bench.root / "taken", bench.messages.append) is None


def test_two_notebooks_of_one_leg_never_overwrite_the_later_one(bench: Bench) -> None:
    bench.train(1, 5)
    assert bench.mirror.wait(10) == []
    bench.mirror = bench.new_mirror()
    bench.train(1, 2)
    assert "is this notebook open twice" in bench.mirror.wait(10)[0]
    assert bench.on_drive() == 5


# ------------------------------------------------------------------------------- other things to copy
def test_the_epoch_is_copied_before_waiting_jobs(bench: Bench) -> None:
    order, go = [], threading.Event()
    bench.mirror.add_job("first", go.wait)
    bench.mirror.add_job("the pack", lambda: order.append("pack"))
    bench.train(1, 1)
    bench.mirror.add_job("the pack", lambda: order.append(f"pack after epoch {bench.on_drive()}"))
    go.set()
    assert bench.mirror.wait(10) == []
    assert order == ["pack after epoch 1"]


def test_an_error_of_any_kind_does_not_end_the_copying(bench: Bench) -> None:
    def broken() -> None:
        raise RuntimeError("a message port closed")

    bench.mirror.add_job("the pack", broken)
    bench.train()
    assert bench.mirror.wait(10) == ["the pack: a message port closed"]
    assert bench.on_drive() == EPOCHS
