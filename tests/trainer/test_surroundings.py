"""When the surroundings end a session, and which of several machines writes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from boneage_trainer.contract import RunFolder
from boneage_trainer.session import Session
from boneage_trainer.surroundings import environment_limit_s, is_chief

VARIABLES = ("SLURM_JOB_END_TIME", "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG", "TF_CONFIG")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_nothing_ends_a_session_at_home() -> None:
    assert environment_limit_s() == (None, "")


@pytest.mark.parametrize(("variable", "name"), [("KAGGLE_KERNEL_RUN_TYPE", "Kaggle"), ("COLAB_RELEASE_TAG", "Colab")])
def test_notebooks_end_half_an_hour_before_their_twelve(
    variable: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "x")
    limit_s, reason = environment_limit_s()
    assert limit_s is not None
    assert limit_s < 11.5 * 3600, "the container's age is not counted"
    assert reason == f"limit of the {name} session"


def test_a_rehearsal_is_not_ended_by_the_age_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
    monkeypatch.setenv("BONEAGE_REHEARSAL", "1")
    assert environment_limit_s() == (None, "")


def test_the_smallest_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 100))
    session = Session(RunFolder(tmp_path), "x", time_limit_s=1000)
    assert session.exceeded(50) == ""
    assert session.exceeded(120) == "end of the Slurm job"
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    assert Session(RunFolder(tmp_path), "x", time_limit_s=60).exceeded(120) == "time limit"
    assert Session(RunFolder(tmp_path), "x", time_limit_s=None).exceeded(1e9) == ""


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
