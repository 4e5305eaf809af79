"""``python -m boneage_trainer.evaluation.evaluate`` on a real model file and a real pack, as a process of its own."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boneage_trainer.contract import PackFolder, RunFolder
from boneage_trainer.data import splits
from boneage_trainer.data.pack import Pack, open_pack
from boneage_trainer.data.splits import make_split
from boneage_trainer.evaluation import evaluate
from boneage_trainer.inference.model import AgePredictor, load_model
from trainer.conftest import run_quietly
from trainer.models import brightness

PX = 32

# Keras' own: it saves variables by a NumPy call that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def opened(pack: Path) -> Pack:
    return open_pack(pack, PackFolder(pack).read_card())


@pytest.fixture
def run(opened: Pack, tmp_path: Path) -> RunFolder:
    """A finished run on the pack, whose model predicts 100 x mean gray, plus 10 for boys."""
    folder = RunFolder(tmp_path / "a run")
    parts = make_split("paper", opened.ids)
    rest = {name: np.zeros(len(getattr(parts, name))) for name in ("validation", "test")}
    evaluate.write_evaluation(folder, opened, parts, rest)
    splits.write_split_csv(folder, opened, parts)
    brightness(PX).save(folder.model)
    return folder


def run_evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_quietly(["-m", "boneage_trainer.evaluation.evaluate", *arguments])


def expected(pack: Pack, rows: list[int]) -> Any:
    return 100 * (pack.images[rows] / 255).mean(axis=(1, 2)) + 10 * pack.male[rows]


def test_the_test_part_is_predicted_and_nothing_was_trained_on(
    pack: Path, opened: Pack, run: RunFolder, tmp_path: Path
) -> None:
    own = run.evaluation.read_bytes(), run.predictions.read_bytes()
    out = RunFolder(tmp_path / "out")
    done = run_evaluate(run.root, "--data", pack, "--split", "paper", "--out", out.root, "--json")
    assert done.returncode == 0, done.stderr
    assert "TRAINED ON" not in done.stderr
    printed = json.loads(done.stdout)
    assert printed == json.loads(out.evaluation.read_text())
    assert (printed["sets"]["test"]["trained_on"], printed["sets"]["test"]["trained_on_count"]) == (False, 0)
    rows = list(csv.DictReader(out.predictions.read_text().splitlines()))
    test = sorted(make_split("paper", opened.ids).test)
    assert [row["id"] for row in rows] == [opened.ids[at] for at in test]
    assert [float(row["predicted_months"]) for row in rows] == pytest.approx(expected(opened, test), abs=0.01)
    assert (run.evaluation.read_bytes(), run.predictions.read_bytes()) == own
    medians = json.loads(run.evaluation.read_text())["sets"]["test"]["baseline_median_by_sex_mae_months"]
    assert printed["sets"]["test"]["baseline_median_by_sex_mae_months"] == medians


def test_images_of_the_training_set_are_reported_whatever_their_ids(
    pack: Path, opened: Pack, run: RunFolder, tmp_path: Path
) -> None:
    renamed = tmp_path / "renamed"
    shutil.copytree(pack, renamed)
    lines = (pack / "index.csv").read_text().splitlines()
    (renamed / "index.csv").write_text("\n".join([lines[0], *(f"new{line}" for line in lines[1:])]) + "\n")
    done = run_evaluate(run.root, "--data", renamed, "--views", 2, "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["sets"]["all"]
    trained = len(make_split("paper", opened.ids).train)
    assert (results["n"], results["trained_on"], results["trained_on_count"]) == (96, True, trained)
    assert f"{trained} of the 96 images in all were TRAINED ON" in done.stderr
    assert (results["views"], results["view_disagreement"]["mean_sd_months"]) == (2, pytest.approx(0, abs=1e-3))


def test_without_a_split_csv_the_training_images_are_unknown(pack: Path, run: RunFolder, capsys: Any) -> None:
    run.split.unlink()
    assert evaluate.main([str(run.root), "--data", str(pack), "--split", "paper", "--json"]) == 0
    captured = capsys.readouterr()
    assert "no split.csv" in captured.err
    assert json.loads(captured.out)["sets"]["test"]["trained_on"] is None


def test_the_text_has_the_same_results_as_the_json(pack: Path, run: RunFolder, capsys: Any) -> None:
    assert evaluate.main([str(run.root), "--data", str(pack), "--split", "paper"]) == 0
    text = capsys.readouterr().out
    evaluate.main([str(run.root), "--data", str(pack), "--split", "paper", "--json"])
    results = json.loads(capsys.readouterr().out)["sets"]["test"]
    assert f"{results['n']} images, MAE {results['mae_months']:.2f} months" in text


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("no model", "does not exist"),
        ("torn model", "Keras cannot load"),
        ("damaged model", "Keras cannot load"),
        ("other size", "images of 64 px"),
        ("torn split", "columns id,split,sha256"),
        ("strange split", "'exam'"),
        ("into the run", "is a run's folder"),
        ("no split", "neither paper"),
    ],
)
def test_an_unusable_input_is_refused_with_one_line(
    harm: str, message: str, pack: Path, run: RunFolder, capsys: Any
) -> None:
    if harm == "no model":
        run.model.unlink()
    elif harm == "torn model":
        run.model.write_bytes(run.model.read_bytes()[:500])
    elif harm == "damaged model":
        data = bytearray(run.model.read_bytes())
        data[len(data) // 2] ^= 0xFF
        run.model.write_bytes(data)
    elif harm == "other size":
        brightness(64).save(run.model)
    elif harm == "torn split":
        run.split.write_text("a,b\n1,2\n")
    elif harm == "strange split":
        run.split.write_text("id,split,sha256\n1,exam,00\n")
    before = {path: path.read_bytes() for path in run.root.iterdir()}
    out = ["--out", str(run.root)] if harm == "into the run" else []
    named = ["--split", "papre" if harm == "no split" else "all"]
    assert evaluate.main([str(run.root), "--data", str(pack), *out, *named]) == 2
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in run.root.iterdir()} == before


def test_a_model_without_sex_gets_the_image_alone(opened: Pack, tmp_path: Path) -> None:
    brightness(PX, sex=False).save(tmp_path / "model.keras")
    rows = [5, 3, 90]
    months = AgePredictor(load_model(tmp_path / "model.keras")).predict_pack(opened, rows, 2)
    assert (months.shape, months.dtype) == ((2, 3), np.float32)
    assert months[0] == pytest.approx(expected(opened, rows) - 10 * opened.male[rows], abs=0.01)


def test_split_csv_has_every_image_with_its_part_and_hash(opened: Pack, run: RunFolder) -> None:
    rows = list(csv.DictReader(run.split.read_text().splitlines()))
    assert [row["id"] for row in rows] == opened.ids
    assert [row["sha256"] for row in rows] == [sha256[:16] for sha256 in opened.sha256]
    parts = make_split("paper", opened.ids)
    assert [row["id"] for row in rows if row["split"] == "test"] == [opened.ids[at] for at in sorted(parts.test)]


def test_an_image_in_two_parts_counts_as_trained_on(opened: Pack, tmp_path: Path) -> None:
    parts = make_split("paper", opened.ids)
    hashes = list(opened.sha256)
    hashes[parts.test[0]] = hashes[parts.train[0]]
    twice, folder = replace(opened, sha256=hashes), RunFolder(tmp_path)
    splits.write_split_csv(folder, twice, parts)
    for known in (splits.read_split_csv(folder), splits.parts_by_sha256(twice, parts)):
        assert splits.count_training_overlap(twice, parts.test, known)["trained_on_count"] == 1
