"""predict and export as people meet them: a run by name or by folder, missing packages, messages. Real models."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder
from boneage_trainer.data.synth import radiograph_png
from support import Cli, Outcome, boneagectl


def outside(*arguments: object) -> Outcome:
    """In a process of its own, since the trainer's output does not pass through this one's printer."""
    return boneagectl(*arguments, env={name: value for name, value in os.environ.items() if name.startswith("BONEAGE")})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder named to break command lines, whose model says 100 x mean gray, and 10 more for boys."""
    from trainer.models import brightness

    run = RunFolder(tmp_path_factory.mktemp("models") / "-a run's $(folder)")
    run.root.mkdir()
    brightness(32).save(run.model)
    return run.root


@pytest.fixture
def hand(tmp_path: Path) -> Path:
    file = tmp_path / "-a hand.png"
    file.write_bytes(radiograph_png(1, 1, 64))
    return file


def months(file: Path) -> float:
    return float(100 * cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).mean() / 255)


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_predict_with_a_folder(model: Path, hand: Path) -> None:
    done = outside("predict", "--sex", "male", "--json", "--", model, hand)
    assert done.code == 0, done.err
    (prediction,) = done.json["predictions"]
    assert prediction["months"] == pytest.approx(months(hand) + 10, abs=0.5)
    assert prediction["low_months"] is None
    assert RESEARCH_ONLY in done.err
    assert "limits: unknown" in done.err


def test_a_run_by_name_is_collected_first(cli: Cli, project: Path, model: Path, hand: Path, home: Path) -> None:
    cli("submit", "--name", "first-run")
    cli("watch", "--every", 0.1)
    leg = home / "local" / "first-run-01"
    (file,) = leg.rglob("model.keras")
    shutil.copyfile(model / "model.keras", file)
    shutil.rmtree(file.parent / "checkpoint")  # the fake trainer's is none
    done = outside("predict", "first", hand, "--sex", "female", "--out", project / "ages.csv")
    assert done.code == 0, done.err
    assert done.out == f"{project / 'ages.csv'}\n"
    assert f"{months(hand):.0f}" in (project / "ages.csv").read_text()
    done = outside("export", "last", "--format", "keras", "--json")
    assert done.code == 0, done.err
    assert Path(done.json["folder"]) == home / "runs" / "first-run" / "export"
    assert (home / "runs" / "first-run" / "export" / "model.keras").read_bytes() == file.read_bytes()
    done = outside("export", "first-run", "--to", "tensorboard", project / "logs")
    assert done.code == 0, done.err
    assert [path.parent.name for path in (project / "logs").rglob("events.*")] == ["first-run"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("predict", "no-such-run", "hand.png"), 2, "no-such-run"),
        (("predict", "last", "hand.png", "--sex", "boy"), 2, "--sex must be male or female, not 'boy'"),
        (("predict", "last", "hand.png", "--sex", "male", "--sexes", "a.csv"), 2, "--sexes"),
        (("export", "last"), 2, "give either --format or --to"),
        (("export", "last", "--format", "onnx", "--to", "mlflow", "sqlite:///a.db"), 2, "give either --format or --to"),
        (("export", "last", "--to", "wandb", "here"), 2, "'wandb'"),
    ],
)
def test_a_wrong_call_is_an_error(arguments: tuple[str, ...], code: int, message: str, cli: Cli, project: Path) -> None:
    assert message in cli(*arguments, code=code).err


def test_a_run_without_a_model_yet_exits_with_not_yet(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "crash")
    cli("submit", "--name", "first-run")
    cli("watch", "--every", 0.1, code=4)
    stderr = cli("export", "last", "--format", "keras", code=6).err
    assert "first-run has no model yet: it is lost" in stderr
    assert "boneagectl watch first-run" in stderr


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (("--format", "onnx"), "onnxruntime", "export"),
        (("--format", "tflite"), "ai_edge_litert", "export"),
        (("--to", "mlflow", "sqlite:///a.db"), "sqlalchemy", "mlflow"),
        (("--format", "keras"), "keras", "train"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    arguments: tuple[str, ...], missing: str, extra: str, cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from boneagectl.cli import model as cli_model

    def find_spec(name: str) -> Any:
        return None if name == missing else object()

    monkeypatch.setattr(cli_model.importlib.util, "find_spec", find_spec)
    outcome = cli("export", *arguments, "--", model, code=3)
    assert f"needs {missing}, which is not installed" in outcome.err
    assert f"pip install 'boneagectl[{extra}]'" in outcome.err


def test_json_of_an_export_says_what_was_checked(model: Path, tmp_path: Path) -> None:
    done = outside("export", model, "--format", "savedmodel", "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    (export,) = done.json["exports"]
    assert export["largest_difference_months"] <= export["tolerance_months"]
    assert (
        done.json["research_only"]
        == RESEARCH_ONLY
        == json.loads((tmp_path / "out" / "export.json").read_text())["research_only"]
    )
