"""A disk that fills up and a folder that vanishes: reported at once, repaired by the next epoch."""

from __future__ import annotations

import json
import resource

import pytest

from boneage_trainer.contract import read_metrics, sha256_of
from boneage_trainer.train.checkpoint import BackgroundWriter
from trainer.conftest import Bench, wait_until


def test_a_folder_that_vanishes_is_written_again_whole(bench: Bench) -> None:
    process = bench.start("one", epochs=40)
    wait_until(lambda: len(read_metrics(bench.out("one").metrics)) >= 2)
    bench.out("one").root.rename(bench.root / "elsewhere")  # at once: the trainer keeps writing into it
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    out = bench.out("one")
    assert len(read_metrics(out.metrics)) == 40
    assert out.best.exists()
    files = json.loads(out.manifest.read_text())["files"]
    assert len(files) == 11
    assert all(sha256_of(out.root / name) == entry["sha256"] for name, entry in files.items())


def test_a_full_disk_is_reported_and_training_continues_until_there_is_room(bench: Bench) -> None:
    """A limit on the size of files stands in for the disk: the kernel then refuses writes as a full one does."""
    process = bench.start("one", epochs=40)
    wait_until(lambda: len(read_metrics(bench.out("one").metrics)) >= 2)
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, hard))
    assert process.stdout
    assert any("could not be saved" in line for line in process.stdout)
    written = bench.state("one")["epoch"]
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert written < 40
    assert len(read_metrics(bench.out("one").metrics)) == 40


def test_a_disk_that_stays_full_fails_with_its_reason(bench: Bench) -> None:
    process = bench.start("one", epochs=20)
    wait_until(lambda: len(read_metrics(bench.out("one").metrics)) >= 2)
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4000, hard))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "File too large" in output.splitlines()[-1]
    assert bench.state("one")["state"] == "failed"
    assert "epoch 20/20" in output, "training ended before its last epoch"


def test_an_error_that_is_not_of_the_disk_is_raised() -> None:
    writer = BackgroundWriter()
    writer.submit("epoch 1", lambda: (_ for _ in ()).throw(ZeroDivisionError))  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        writer.wait()


def test_tasks_run_in_order_and_an_error_is_cleared_by_the_next_success() -> None:
    writer, done = BackgroundWriter(), list[int]()

    def fail() -> None:
        raise OSError(28, "No space left on device")

    writer.submit("epoch 1", lambda: done.append(1))
    writer.submit("epoch 2", fail)
    writer.wait()
    assert writer.error
    writer.submit("epoch 3", lambda: done.append(3))
    writer.wait()
    assert writer.error is None
    assert done == [1, 3]
