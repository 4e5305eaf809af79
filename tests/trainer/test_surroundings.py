"""When the surroundings end a session, and which of several machines writes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from boneage_trainer.__main__ import _choose_source, _parser
from boneage_trainer.contract import RunFolder, write_atomic, write_json
from boneage_trainer.platforms.detect import is_chief, platform_limit_s
from boneage_trainer.train.session import TrainingSession

VARIABLES = ("SLURM_JOB_END_TIME", "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG", "TF_CONFIG")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_nothing_ends_a_session_at_home() -> None:
    assert platform_limit_s() == (None, "")


@pytest.mark.parametrize(("variable", "name"), [("KAGGLE_KERNEL_RUN_TYPE", "Kaggle"), ("COLAB_RELEASE_TAG", "Colab")])
def test_notebooks_end_half_an_hour_before_their_twelve(
    variable: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "x")
    limit_s, reason = platform_limit_s()
    assert limit_s is not None
    assert limit_s < 11.5 * 3600, "the container's age is not counted"
    assert reason == f"limit of the {name} session"


def test_a_rehearsal_is_not_ended_by_the_age_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
    monkeypatch.setenv("BONEAGE_REHEARSAL", "1")
    assert platform_limit_s() == (None, "")


def test_the_smallest_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 100))
    session = TrainingSession(RunFolder(tmp_path), "x", time_limit_s=1000)
    assert session.exceeded_limit(50) == ""
    assert session.exceeded_limit(120) == "end of the Slurm job"
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    assert TrainingSession(RunFolder(tmp_path), "x", time_limit_s=60).exceeded_limit(120) == "time limit"
    assert TrainingSession(RunFolder(tmp_path), "x", time_limit_s=None).exceeded_limit(1e9) == ""


@pytest.mark.parametrize(
    ("cluster", "task", "chief"),
    [
        ({"worker": ["a", "b"]}, {"type": "worker", "index": 0}, True),
        ({"worker": ["a", "b"]}, {"type": "worker", "index": 1}, False),
        ({"chief": ["a"], "worker": ["b"]}, {"type": "worker", "index": 0}, False),
        ({"chief": ["a"], "worker": ["b"]}, {"type": "chief", "index": 0}, True),
    ],
)
def test_one_of_several_machines_writes(
    cluster: dict[str, list[str]], task: dict[str, object], chief: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_chief()
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    assert is_chief() is chief


def begun(folder: Path, leg: str, started_s: float) -> RunFolder:
    """What a leg that was killed after an epoch has left."""
    run = RunFolder(folder)
    write_json(run.state, {"state": "running", "leg": leg, "started_s": started_s})
    write_atomic(run.last, "weights")
    return run


def test_a_leg_that_is_started_again_has_only_what_is_left_of_its_first_limit(tmp_path: Path) -> None:
    begun(tmp_path, "run-01", time.time() - 900)
    again, other = (TrainingSession(RunFolder(tmp_path), leg, time_limit_s=1000) for leg in ("run-01", "run-02"))
    assert 900 <= again.elapsed_s < 910
    assert again.exceeded_limit(50) == "time limit"
    assert other.elapsed_s < 10


def test_it_goes_on_from_its_own_folder_only_where_it_was_itself_begun(tmp_path: Path) -> None:
    """Elsewhere the folder may hold an older epoch than the leg that is named to go on from."""
    own, before = begun(tmp_path / "out", "run-02", 1.0), begun(tmp_path / "before", "run-01", 1.0)

    def source(leg: str) -> Path:
        words = ["--data", "pack", "--out", str(own.root), "--resume", str(before.root), "--leg", leg]
        return _choose_source(_parser().parse_args(words)).root

    assert source("run-02") == own.root
    assert source("run-03") == before.root
    own.state.unlink()
    assert source("run-02") == before.root
