"""The check passes on a sound trainer and fails on a broken one; predict reads what was trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from boneage_trainer.contract import PackFolder
from trainer.conftest import SOURCE, Bench

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


def test_the_paper_s_head_passes_on_a_pack(tmp_path: Path, pack: Path) -> None:
    code, found, said = checked(tmp_path, "--preset", "paper", "--data", str(pack))
    assert code == 0, said
    assert found == dict.fromkeys(ALL, True)


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        (
            "from boneage_trainer import predict\nreal = predict.square_from\n"
            "predict.square_from = lambda data, px: 255 - real(data, px)",
            "predicts a file",
        ),
        (
            "from boneage_trainer import steps\nfrom keras import ops\n"
            "steps.loss_of = lambda kind, errors: 0.0 * ops.mean(errors)",
            "learns by heart",
        ),
    ],
    ids=["other pixels", "no gradient"],
)
def test_a_broken_trainer_fails_by_name(driver: str, name: str, tmp_path: Path) -> None:
    code, found, said = checked(tmp_path, "--preset", "smoke", driver=driver)
    assert code == 2
    assert "does not work here" in said
    assert found[name] is False


def predicted(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "boneage_trainer.predict", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_file_s_age_is_the_one_its_image_in_the_pack_had(finished: Bench, tmp_path: Path) -> None:
    lines = finished.out("whole").predictions.read_text().splitlines()
    row = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    folder = PackFolder(finished.pack)
    ids = [line.split(",")[0] for line in folder.index.read_text().splitlines()[1:]]
    cv2.imwrite(str(tmp_path / "hand.png"), np.load(folder.images)[ids.index(row["id"])])
    sex = "male" if row["male"] == "True" else "female"
    views = json.loads(finished.out("whole").evaluation.read_text())["sets"]["test"].get("views", 1)
    done = predicted(
        finished.out("whole").root, tmp_path / "hand.png", "--sex", sex, "--views", views, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Not a medical device" in done.stderr
    found = json.loads(done.stdout)["predictions"][0]["months"]
    assert found == pytest.approx(float(row["predicted_months"]), abs=0.02)


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [(b"nothing", ["--sex", "male"], "hand.png is broken"), (None, [], "--sex male or --sex female")],
)
def test_what_cannot_be_read_is_told(
    content: bytes | None, options: list[str], said: str, finished: Bench, tmp_path: Path
) -> None:
    if content:
        (tmp_path / "hand.png").write_bytes(content)
    else:
        cv2.imwrite(str(tmp_path / "hand.png"), np.zeros((40, 30), np.uint8))
    done = predicted(finished.out("whole").root, tmp_path / "hand.png", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
