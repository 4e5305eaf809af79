"""The check passes on a sound trainer and fails on a broken one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.conftest import SOURCE

ALL = ["pauses", "goes on", "learns by heart", "saves and loads", "predicts a file"]


def checked(tmp_path: Path, *arguments: str, driver: str = "") -> tuple[int, dict[str, bool], str]:
    code = f"import sys\n{driver}\nfrom boneage_trainer.check import main\nsys.exit(main())"
    command = [sys.executable, "-c", code, "--json", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["checks"] if done.stdout else []
    return done.returncode, {one["name"]: one["ok"] for one in found}, done.stderr


def test_a_sound_trainer_passes_on_drawn_images_and_leaves_nothing(tmp_path: Path) -> None:
    code, found, said = checked(tmp_path)
    assert code == 0, said
    assert found == dict.fromkeys(ALL, True)
    assert [path for path in tmp_path.iterdir() if "tmp" in path.name] == []


@pytest.mark.long
def test_the_paper_s_head_passes_on_a_pack(tmp_path: Path, pack: Path) -> None:
    code, found, said = checked(tmp_path, "--preset", "paper", "--data", str(pack))
    assert code == 0, said
    assert found == dict.fromkeys(ALL, True)


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        (
            "from boneage_trainer.inference import model as predict\nreal = predict.decode_square\n"
            "predict.decode_square = lambda data, px: 255 - real(data, px)",
            "predicts a file",
        ),
        pytest.param(
            "from boneage_trainer.train import step as steps\nfrom keras import ops\n"
            "steps.compute_loss = lambda kind, errors: 0.0 * ops.mean(errors)",
            "learns by heart",
            marks=pytest.mark.long,
        ),
    ],
    ids=["other pixels", "no gradient"],
)
def test_a_broken_trainer_fails_by_name(driver: str, name: str, tmp_path: Path) -> None:
    code, found, said = checked(tmp_path, "--preset", "smoke", driver=driver)
    assert code == 2
    assert "does not work here" in said
    assert found[name] is False
