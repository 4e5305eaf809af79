"""The relay's promise with the real trainer: cut at random and passed on, a training ends as if it had run through."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boneage_trainer.contract import PackFolder, RunFolder, read_metrics, write_atomic
from boneage_trainer.data.prepare import prepare
from boneage_trainer.data.synth import synthesize
from boneage_trainer.platforms.detect import NEED_GPU
from boneagectl.targets.azure import render
from emulators.azure import Azure
from emulators.kaggle import Kaggle
from support import KAGGLE_PACK, Cli, wait_for

LEARNED = ("epoch", "images", "loss", "mae_months", "val_loss", "val_mae_months", "learning_rate")
SETTINGS = """
time_limit = "1h"
targets.kaggle.dataset = "{pack}"
targets.kaggle.username = "alice"

[train]
width = 4
batch_size = 1
test_views = 2
deterministic = true
"""


@dataclass(frozen=True)
class Machine:
    """What a leg runs on, seen from beside it: the run folder that the trainer writes there, and the power switch."""

    out: Callable[[str], RunFolder]
    kill: Callable[[str], None]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 synthetic hands at 32 px."""
    folder = tmp_path_factory.mktemp("hands")
    synthesize(folder / "hands", 96, 32, 1)
    prepare(folder / "hands", folder / "pack", 32)
    return folder / "pack"


@pytest.fixture
def place(project: Path, pack: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project, whose legs are trained by this interpreter."""
    (project / "boneage.toml").write_text(SETTINGS.format(pack=KAGGLE_PACK))
    monkeypatch.setenv("BONEAGECTL_DATA__PACK", str(pack))
    monkeypatch.setenv("BONEAGECTL_TARGETS__LOCAL__PYTHON", sys.executable)
    return project


@pytest.fixture
def here(home: Path) -> Machine:
    def kill(leg: str) -> None:
        os.killpg(int((home / "local" / leg / "pid").read_text()), signal.SIGKILL)

    return Machine(lambda leg: RunFolder(home / "local" / leg / "out"), kill)


@pytest.fixture
def on_kaggle(place: Path, pack: Path, kaggle: Kaggle) -> Machine:
    """This CPU plays the two T4s of `nvidia-smi`, so whoever trains there does not hear that a GPU must be found."""
    program = place / "python"
    write_atomic(program, f'#!/bin/sh\nunset {NEED_GPU}\nexec {shlex.quote(sys.executable)} "$@"\n')
    program.chmod(0o755)
    kaggle.python = str(program)
    kaggle.add_dataset(KAGGLE_PACK, pack)

    def out(leg: str) -> RunFolder:
        session = kaggle.kernels[leg].latest.session
        assert session is not None
        return RunFolder(session.working / "run")

    return Machine(out, kaggle.preempt)


@pytest.fixture
def on_azure(place: Path, pack: Path, azure: Azure) -> Machine:
    """Its outputs are written once a second, so that a kill may cost an epoch that the node had."""
    azure.python, azure.sync_s = sys.executable, 1.0
    workspace = next(iter(azure.computes.clusters)).partition("/computes/")[0]
    azure.add_data(workspace, render.asset_name(PackFolder(pack).read_card()["fingerprint"]), pack)
    return Machine(lambda leg: RunFolder(azure.jobs[leg].folder / "outputs" / "run"), azure.preempt)


@pytest.fixture
def chance() -> np.random.Generator:
    """What decides when the kills come; BONEAGE_SEED has the same ones again."""
    seed = int(os.environ.get("BONEAGE_SEED") or secrets.randbits(32))
    tell(f"BONEAGE_SEED={seed}")
    return np.random.default_rng(seed)


def tell(text: str) -> None:
    """Past `cli`, which takes what is printed as the command's."""
    print(text, file=sys.__stderr__, flush=True)


# ------------------------------------------------------------------------------------ the cut
def cut(cli: Cli, machine: Machine, leg: str, before: int, chance: np.random.Generator) -> int:
    """Kills the leg within one of its first epochs; of `before` epochs it goes on, and returns how many there are then.

    In its very first epoch a leg traces its step, which takes most of that time; a run's first epoch is not cut,
    since without a checkpoint a next leg just begins anew.
    """
    out, whole = machine.out(leg), before + int(chance.integers(0 if before else 1, 3))
    wait_for(lambda: len(read_metrics(out.metrics)) >= whole, limit_s=90)
    lines = read_metrics(out.metrics)
    epoch_s = lines[-1]["epoch_s"] - lines[-1]["compile_s"] + (lines[0]["compile_s"] if whole == before else 0)
    moment_s = time.monotonic() + chance.uniform(0, epoch_s)
    while time.monotonic() < moment_s and len(read_metrics(out.metrics)) <= whole:  # an epoch may be quicker than those
        time.sleep(0.01)
    machine.kill(leg)
    done = len(read_metrics(out.metrics))  # seen from beside it: fewer may have come out of there
    tell(f"{leg} killed after {done - before} epochs of its own")
    wait_for(lambda: cli("show", leg.rpartition("-")[0], "--json").json["state"] == "lost", limit_s=60)
    return done


def passed_on(cli: Cli, run: str) -> str:
    """What cron's look does; returns the target that goes on."""
    said = cli("watch", run, "--once").err
    assert "continues as" in said, said
    return str(cli("show", run, "--json").json["legs"][-1]["target"])


def followed(cli: Cli, run: str) -> RunFolder:
    """Waits for its end, and brings what it has made."""
    wait_for(lambda: cli("show", run, "--json").json["state"] not in ("queued", "running"), limit_s=120)
    shown = cli("show", run, "--json").json
    assert shown["state"] == "complete", shown["legs"]
    return RunFolder(Path(cli("collect", run).out.strip()))


# ------------------------------------------------------------------------------- the comparison
def arrays(path: Path) -> dict[str, bytes]:
    with np.load(path) as archive:
        return {name: archive[name].tobytes() for name in archive.files if name != "notes"}


def weights(model: Path) -> bytes:
    """The rest of a model's file is the time at which it was made, and layers counted up as a leg made them."""
    with zipfile.ZipFile(model) as archive:
        return archive.read("model.weights.h5")


def learned(out: RunFolder) -> list[dict[str, Any]]:
    return [{name: line[name] for name in LEARNED} for line in read_metrics(out.metrics)]


def assert_same_training(one: RunFolder, other: RunFolder, epochs: int) -> None:
    """Bit for bit: weights, optimizer, averages, random state, figures and predictions."""
    assert [line["epoch"] for line in learned(one)] == list(range(1, epochs + 1))
    assert learned(one) == learned(other)
    for name in ("last", "best"):
        assert arrays(getattr(one, name)) == arrays(getattr(other, name))
    assert weights(one.model) == weights(other.model)
    assert one.predictions.read_bytes() == other.predictions.read_bytes()
    tested = [json.loads(out.evaluation.read_text())["sets"] for out in (one, other)]
    assert tested[0] == tested[1]


# -------------------------------------------------------------------------------------- the relay
def test_cut_on_kaggle_and_ended_here_it_is_the_same_training(
    on_kaggle: Machine, cli: Cli, chance: np.random.Generator
) -> None:
    settings = ("-q", "--set", "train.epochs=6")
    cli("submit", *settings, "--name", "whole-run")
    cli("submit", *settings, "--name", "moved-run", "--target", "kaggle", "--legs", 2, "--then", "local")
    cut(cli, on_kaggle, "moved-run-01", 0, chance)
    assert passed_on(cli, "moved-run") == "local"
    assert_same_training(followed(cli, "moved-run"), followed(cli, "whole-run"), 6)


@pytest.mark.long
def test_five_legs_on_three_targets_end_as_one_that_ran_through(
    here: Machine,
    on_azure: Machine,
    on_kaggle: Machine,
    azure: Azure,
    kaggle: Kaggle,
    cli: Cli,
    chance: np.random.Generator,
) -> None:
    """A target is left because it takes no more: the credit is used up on Azure, then the week's hours on Kaggle.

    Half of the epochs see smaller images, so that the network's step changes on the way.
    """
    settings = ("-q", "--set", "train.epochs=20", "--set", "train.small_px=16")
    cli("submit", *settings, "--name", "whole-run")
    cli("submit", *settings, "--name", "relay-run", "--legs", 5, "--then", "azure,kaggle,local")
    done = cut(cli, here, "relay-run-01", 0, chance)
    assert passed_on(cli, "relay-run") == "azure"
    done = cut(cli, on_azure, "relay-run-02", done, chance)
    azure.end_credit()
    assert passed_on(cli, "relay-run") == "kaggle"
    done = cut(cli, on_kaggle, "relay-run-03", done, chance)
    assert passed_on(cli, "relay-run") == "kaggle"
    cut(cli, on_kaggle, "relay-run-04", done, chance)
    kaggle.quota_used_s = kaggle.quota_total_s
    assert passed_on(cli, "relay-run") == "local"
    assert_same_training(followed(cli, "relay-run"), followed(cli, "whole-run"), 20)
    assert [leg["state"] for leg in cli("show", "relay-run", "--json").json["legs"]] == ["lost"] * 4 + ["complete"]
