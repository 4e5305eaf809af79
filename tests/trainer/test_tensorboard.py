"""A run in TensorBoard's event files, read back by its own client; and the record of a run that both trackers get."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder, read_metrics
from boneage_trainer.export import run_record
from trainer.conftest import Bench, log_run

needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")


@pytest.fixture(scope="module")
def run(finished: Bench) -> RunFolder:
    return finished.out("whole")


@needs_tensorboard
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_every_epoch_once(run: RunFolder, tmp_path: Path) -> None:
    for _ in range(2):
        done = log_run(run, "--to", "tensorboard", tmp_path / "logs")
        assert done.returncode == 0, done.stderr
    assert [path.parent.name for path in (tmp_path / "logs").rglob("events.out.tfevents.*")] == ["whole"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "logs" / "whole"))
    events.Reload()
    lines = read_metrics(run.metrics)
    points = events.Scalars("val_mae_months")
    assert [(point.step, point.wall_time) for point in points] == [(line["epoch"], line["time_s"]) for line in lines]
    assert [point.value for point in points] == pytest.approx([line["val_mae_months"] for line in lines])
    assert "test_mae_months" in events.Tags()["scalars"]
    (about,) = events.Tensors("about")
    assert RESEARCH_ONLY.encode() in about.tensor_proto.string_val[0]


@pytest.mark.parametrize("name", ["..", "a/b"])
def test_a_name_cannot_lead_out_of_the_logs(name: str, run: RunFolder, tmp_path: Path) -> None:
    done = log_run(run, "--to", "tensorboard", tmp_path / "logs", "--name", name)
    assert done.returncode == 2
    assert "invalid run name" in done.stderr
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------- record
def test_a_run_is_called_by_its_own_id(run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(shutil.copytree(run.root, tmp_path / "artifacts"))
    state = json.loads(other.state.read_text())
    for leg, name in (("first-run-02", "first-run"), ("", "artifacts")):
        other.state.write_text(json.dumps({**state, "leg": leg}))
        assert run_record.read_record(other, None).name == name
    assert run_record.read_record(other, "mine").name == "mine"


def test_a_run_without_epochs_is_an_error(tmp_path: Path) -> None:
    done = log_run(RunFolder(tmp_path), "--to", "tensorboard", tmp_path / "logs")
    assert done.returncode == 2
    assert "has no epochs" in done.stderr
