"""`train check` passes on a working trainer and fails on a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.conftest import run_quietly

ALL = ["pauses", "resumes", "overfits", "saves and reloads", "predicts a file"]


def run_check(tmp_path: Path, *arguments: str, driver: str = "") -> tuple[int, dict[str, bool], str]:
    code = (
        "import sys\nfrom boneage_trainer.check import main\n"
        "from boneage_trainer.stderr_filter import quiet_tensorflow\n"
        f"with quiet_tensorflow():\n    exec({driver!r})\nsys.exit(main())"
    )
    done = run_quietly(["-c", code, "--json", *arguments], tmp_path)
    assert "BONEAGE " not in done.stderr
    checks = json.loads(done.stdout)["checks"] if done.stdout else []
    return done.returncode, {check["name"]: check["ok"] for check in checks}, done.stderr


def test_a_working_trainer_passes_on_synthetic_images_and_leaves_no_files(tmp_path: Path) -> None:
    code, checks, stderr = run_check(tmp_path)
    assert code == 0, stderr
    assert checks == dict.fromkeys(ALL, True)
    assert [path for path in tmp_path.iterdir() if "tmp" in path.name] == []


@pytest.mark.long
def test_the_paper_s_head_passes_on_a_pack(tmp_path: Path, pack: Path) -> None:
    code, checks, stderr = run_check(tmp_path, "--preset", "paper", "--data", str(pack))
    assert code == 0, stderr
    assert checks == dict.fromkeys(ALL, True)


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        (
            "from boneage_trainer.inference import intake\nreal = intake.fit_square\n"
            "intake.fit_square = lambda gray, px: 255 - real(gray, px)",
            "predicts a file",
        ),
        pytest.param(
            "from boneage_trainer.train import step as steps\nfrom keras import ops\n"
            "steps.compute_loss = lambda kind, errors: 0.0 * ops.mean(errors)",
            "overfits",
            marks=pytest.mark.long,
        ),
    ],
    ids=["other pixels", "no gradient"],
)
def test_a_broken_trainer_fails_by_name(driver: str, name: str, tmp_path: Path) -> None:
    code, checks, stderr = run_check(tmp_path, "--preset", "smoke", driver=driver)
    assert code == 2
    assert "does not work on this machine" in stderr
    assert checks[name] is False
