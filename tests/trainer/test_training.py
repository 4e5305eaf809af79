"""Whole legs as processes: the files they leave, and what a kill, a stop and a limit lose."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boneage_trainer.contract import RunFolder, parse_sentinel, read_metrics, sha256_of
from trainer.conftest import SOURCE, Bench, wait_until

CLOCKS = ("leg", "time_s", "elapsed_s", "epoch_s", "load_s", "compute_s", "validate_s", "checkpoint_s", "compile_s",
          "load_ms_per_image", "compute_ms_per_image")  # fmt: skip


def weights(path: Path) -> dict[str, bytes]:
    with np.load(path) as archive:
        return {name: archive[name].tobytes() for name in archive.files if name != "notes"}


def figures(bench: Bench, leg: str) -> list[dict[str, Any]]:
    return [{key: line[key] for key in line if key not in CLOCKS} for line in read_metrics(bench.out(leg).metrics)]


def assert_same_weights(one: RunFolder, other: RunFolder) -> None:
    """Bit for bit, optimizer and averages included."""
    assert weights(one.last) == weights(other.last)
    assert weights(one.best) == weights(other.best)


def assert_same_training(bench: Bench, leg: str, finished: Bench) -> None:
    assert_same_weights(bench.out(leg), finished.out("whole"))
    assert figures(bench, leg) == figures(finished, "whole")
    assert bench.out(leg).predictions.read_text() == finished.out("whole").predictions.read_text()


def test_a_leg_leaves_the_whole_run_folder(finished: Bench) -> None:
    out = finished.out("whole")
    assert finished.state("whole")["state"] == "complete"
    files = json.loads(out.manifest.read_text())["files"]
    assert set(files) == {path.relative_to(out.root).as_posix() for path in out.manifest_files()}
    assert len(files) == 11
    assert all(sha256_of(out.root / name) == entry["sha256"] for name, entry in files.items())


def test_the_best_checkpoint_has_the_lowest_validation_mae(finished: Bench) -> None:
    """The paper kept the highest loss (mode="max")."""
    with np.load(finished.out("whole").best) as archive:
        kept = json.loads(archive["notes"].tobytes())
    lines = read_metrics(finished.out("whole").metrics)
    assert kept["epoch"] == min(lines, key=lambda line: line["val_mae_months"])["epoch"]


def test_the_model_loads_without_our_code_and_predicts_what_was_written(finished: Bench) -> None:
    """The paper prepared train and test images differently; here the model does it, so nothing can."""
    rows = list(csv.DictReader(finished.out("whole").predictions.read_text().splitlines()))[:8]
    code = """
import json, sys, keras, numpy as np, csv
model = keras.models.load_model(sys.argv[1])
index = {row["id"]: at for at, row in enumerate(csv.DictReader(open(sys.argv[2] + "/index.csv")))}
images = np.load(sys.argv[2] + "/images.npy")
rows = json.loads(sys.argv[3])
at = [index[row["id"]] for row in rows]
male = np.array([[float(row["male"] == "True")] for row in rows], "float32")
print(json.dumps(model.predict([images[at][..., None], male], verbose=0)[:, 0].tolist()))
print("boneage_trainer" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(finished.out("whole").model), str(finished.pack), json.dumps(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    answers, ours_loaded = done.stdout.splitlines()[-2:]
    assert ours_loaded == "False"
    assert json.loads(answers) == pytest.approx([float(row["predicted_months"]) for row in rows], abs=0.01)


def test_killed_and_resumed_it_ends_bit_for_bit_as_if_never_stopped(bench: Bench, finished: Bench) -> None:
    process = bench.start("one")
    wait_until(lambda: len(read_metrics(bench.out("one").metrics)) >= 2)
    process.kill()
    process.communicate()
    done = len(read_metrics(bench.out("one").metrics))
    assert bench.state("one")["state"] == "running"
    code, output = bench.run("two", "--resume", str(bench.root / "one"))
    assert code == 0, output
    assert f"resuming after epoch {done} of " in output
    assert_same_training(bench, "two", finished)


@pytest.mark.long
def test_killed_again_and_again_at_random_it_ends_bit_for_bit_as_if_never_stopped(bench: Bench) -> None:
    """Each leg resumes in the same folder, as after a reboot; kills come before, in and after epochs."""
    train = {"epochs": 60, "batch_size": 4}
    assert bench.run("whole", **train)[0] == 0
    times, random = bench.times("whole"), np.random.default_rng()
    for _ in range(int(os.environ.get("BONEAGE_KILLS", "10"))):
        process = bench.start("killed", **train)
        left_s = (60 - len(read_metrics(bench.out("killed").metrics))) * times["epoch_s"]
        time.sleep(times["startup_s"] + random.uniform(-0.5, left_s / 4))
        process.kill()
        process.communicate()
    code, output = bench.run("killed", **train)
    assert code == 0, output
    assert_same_weights(bench.out("killed"), bench.out("whole"))
    assert bench.out("killed").predictions.read_text() == bench.out("whole").predictions.read_text()


def test_a_signal_pauses_and_the_next_leg_resumes(bench: Bench, finished: Bench) -> None:
    process = bench.start("one")
    wait_until(lambda: len(read_metrics(bench.out("one").metrics)) >= 1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert (bench.state("one")["state"], bench.state("one")["reason"]) == ("paused", "signal SIGTERM")
    assert bench.run("two", "--resume", str(bench.root / "one"))[0] == 0
    assert_same_training(bench, "two", finished)


def test_a_signal_while_tensorflow_starts_pauses_too(bench: Bench) -> None:
    process = bench.start("one")
    wait_until(lambda: bench.out("one").state.exists())
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert bench.state("one")["state"] == "paused"


def test_it_stops_itself_before_its_time_limit(bench: Bench) -> None:
    began_s = time.monotonic()
    code, output = bench.run("one", "--time-limit-s", "16", epochs=9999)
    assert code == 0, output
    assert time.monotonic() - began_s < 18
    assert (bench.state("one")["state"], bench.state("one")["reason"]) == ("paused", "time limit")
    assert bench.out("one").last.exists()
    epochs = [line for text in output.splitlines() if (line := parse_sentinel(text))]
    assert [line["epoch"] for line in epochs] == list(range(1, bench.state("one")["epoch"] + 1))


def test_a_process_that_hangs_is_ended_at_its_limit(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from boneage_trainer.contract import RunFolder
from boneage_trainer.train.session import TrainingSession
TrainingSession(RunFolder(Path(sys.argv[1])), "x", 0.5).start()
while True:
    time.sleep(1)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, timeout=10, check=False, capture_output=True)
    assert done.returncode == 4
    assert json.loads((tmp_path / "state.json").read_text())["state"] == "paused"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("no pack", "is not a pack"),
        ("other pack", "fingerprint"),
        ("torn array", "cannot be read|do not fit"),
        ("no job", "cannot be read"),
        ("bad job", "schema"),
    ],
)
def test_wrong_input_fails_at_once_with_one_line(harm: str, message: str, bench: Bench, tmp_path: Path) -> None:
    import re
    import shutil

    job, data = bench.job(), tmp_path / "copy"
    shutil.copytree(bench.pack, data)
    if harm == "no pack":
        (data / "pack.json").unlink()
    elif harm == "other pack":
        card = json.loads((data / "pack.json").read_text())
        (data / "pack.json").write_text(json.dumps({**card, "fingerprint": "0" * 64}))
    elif harm == "torn array":
        (data / "images.npy").write_bytes((data / "images.npy").read_bytes()[:1000])
    elif harm == "no job":
        job.unlink()
    else:
        job.write_text('{"schema": 99}')
    command = [sys.executable, "-m", "boneage_trainer", str(job), "--data", str(data), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr)
    assert json.loads((tmp_path / "out" / "state.json").read_text())["state"] == "failed"


def test_a_torn_checkpoint_is_named(bench: Bench, finished: Bench) -> None:
    import shutil

    shutil.copytree(finished.out("whole").root, bench.root / "one")
    torn = bench.out("one").last
    data = bytearray(torn.read_bytes())
    data[len(data) // 2] ^= 0xFF
    torn.write_bytes(data)
    code, output = bench.run("two", "--resume", str(bench.root / "one"))
    assert code == 2
    assert str(torn) in output
    assert bench.state("two")["state"] == "failed"


def test_a_leg_whose_job_has_no_fingerprint_resumes_with_the_same_images_only(
    bench: Bench, finished: Bench, tmp_path: Path
) -> None:
    import shutil

    other, job = tmp_path / "other", json.loads(bench.job().read_text())
    shutil.copytree(bench.pack, other)
    card = json.loads((other / "pack.json").read_text())
    (other / "pack.json").write_text(json.dumps({**card, "fingerprint": "0" * 64}))
    (tmp_path / "open.json").write_text(json.dumps({**job, "data": {**job["data"], "fingerprint": ""}}))
    command = [sys.executable, "-m", "boneage_trainer", str(tmp_path / "open.json"), "--data", str(other)]
    command += ["--out", str(bench.root / "two"), "--resume", str(finished.out("whole").root)]
    done = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout
    assert "belongs to another run" in done.stderr
