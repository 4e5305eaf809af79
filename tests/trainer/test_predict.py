"""Predictions for files: the same as the run's own, in order, with limits, or the reason why a file was skipped."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from boneage_trainer.contract import RESEARCH_ONLY, PackFolder
from boneage_trainer.inference.command import RunErrors, format_years
from trainer.conftest import Bench, run_quietly


def run_predict(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_quietly(["-m", "boneage_trainer.inference.command", *arguments])


@pytest.fixture(scope="module")
def hands(finished: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the pack as files named by their id, and ``labels.csv``."""
    folder = tmp_path_factory.mktemp("hands")
    pack = PackFolder(finished.pack)
    lines = list(csv.DictReader(pack.index.read_text().splitlines()))
    for line, image in zip(lines, np.load(pack.images), strict=True):
        cv2.imwrite(str(folder / f"{line['id']}.png"), image)
    (folder / "labels.csv").write_text("id,male\n" + "".join(f"{line['id']},{line['male']}\n" for line in lines))
    return folder


def read_test_rows(finished: Bench) -> list[dict[str, str]]:
    """The run's predictions for its test images."""
    lines = csv.DictReader(finished.out("whole").predictions.read_text().splitlines())
    return [line for line in lines if line["split"] == "test"]


# -------------------------------------------------------------------------------------- the command
def test_a_folder_becomes_a_table_with_the_run_s_own_predictions(finished: Bench, hands: Path, tmp_path: Path) -> None:
    run, out = finished.out("whole").root, tmp_path / "ages.csv"
    done = run_predict("--sexes", hands / "labels.csv", "--out", out, run, hands)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    assert "read 96/96 (100 %)" in done.stderr
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [Path(row["file"]).name for row in rows] == sorted(path.name for path in hands.glob("*.png"))
    assert {row["note"] for row in rows} == {RESEARCH_ONLY}
    months = {Path(row["file"]).stem: float(row["months"]) for row in rows}
    for line in read_test_rows(finished):
        assert months[line["id"]] == pytest.approx(float(line["predicted_months"]), abs=0.02)


def test_one_file_s_prediction_has_limits_and_views(finished: Bench, hands: Path) -> None:
    line = read_test_rows(finished)[0]
    sex = "male" if line["male"] == "True" else "female"
    done = run_predict(finished.out("whole").root, hands / f"{line['id']}.png", "--sex", sex, "--views", 4, "--json")
    assert done.returncode == 0, done.stderr
    assert RESEARCH_ONLY in done.stderr
    assert "bias-corrected 95 % limits of agreement from the run's test set" in done.stderr
    document = json.loads(done.stdout)
    (prediction,) = document["predictions"]
    assert document["research_only"] == RESEARCH_ONLY
    errors = [float(row["predicted_months"]) - float(row["boneage_months"]) for row in read_test_rows(finished)]
    centre, half_width = prediction["months"] - statistics.fmean(errors), 1.96 * statistics.stdev(errors)
    assert prediction["test_images"] == len(errors) == 20
    assert (prediction["low_months"], prediction["high_months"]) == pytest.approx(
        (max(0, centre - half_width), centre + half_width), abs=0.1
    )
    assert prediction["views_sd_months"] is not None


def test_skipped_files_are_listed_in_their_place_with_a_reason(finished: Bench, hands: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"nothing")
    cv2.imwrite(str(tmp_path / "photo.png"), np.random.default_rng(1).integers(0, 256, (90, 70, 3), np.uint8))
    good = min(hands.glob("*.png"))
    files = [tmp_path / "torn.png", good, tmp_path / "photo.png", tmp_path / "missing.png"]
    done = run_predict("--sex", "female", finished.out("whole").root, *files)
    assert done.returncode == 2
    assert "3 of 4 files were skipped" in done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("  ")[-1] for line in lines] == list(map(str, files)), "in the order of the call"
    assert "broken, truncated" in lines[0]
    assert "months (" in lines[1]
    assert "colour picture" in lines[2]
    assert "No such file" in lines[3]


def test_a_model_that_uses_sex_requires_it(finished: Bench, hands: Path) -> None:
    done = run_predict(finished.out("whole").root, min(hands.glob("*.png")))
    assert done.returncode == 2
    assert "skipped: sex is required (--sex or --sexes)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--sexes", "no.csv", "hand.png"), "no.csv: No such file"), ((".",), "has no images (.png, .jpg")],
)
def test_a_wrong_call_is_an_error_at_once(
    arguments: tuple[str, ...], message: str, finished: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_predict(*arguments[:-1], "--", finished.out("whole").root, arguments[-1])
    assert done.returncode in (2, 3)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_every_file_is_predicted_in_every_view_and_in_order(hands: Path) -> None:
    """More files than a batch has, some of them missing, with a model that predicts 100 x mean gray."""
    from boneage_trainer.inference.model import BATCH
    from boneage_trainer.inference.reader import FilePredictor, FileRequest
    from trainer.models import brightness

    files = sorted(hands.glob("*.png"))[: 2 * BATCH + 3]
    files[1] = files[BATCH + 4] = hands / "missing.png"
    batches = FilePredictor(brightness(32), 2).predict([FileRequest(file, 1.0) for file in files])
    predictions = [prediction for batch in batches for prediction in batch]
    assert [prediction.file for prediction in predictions] == files
    assert [at for at, prediction in enumerate(predictions) if prediction.problem] == [1, BATCH + 4]
    for prediction in predictions:
        if not prediction.problem:
            picture = cv2.imread(str(prediction.file), cv2.IMREAD_GRAYSCALE)
            assert prediction.months == pytest.approx([100 * picture.mean() / 255 + 10] * 2, abs=0.01), (
                "mirrored: as bright"
            )


# --------------------------------------------------------------------------------------- limits
def of_errors(errors: list[float], at: float) -> RunErrors:
    return RunErrors([at] * len(errors), errors)


def test_limits_are_those_of_the_predicted_age_band() -> None:
    young, old = of_errors([4.0, 6.0] * 15, 30), of_errors([-30.0, 10.0] * 15, 200)
    both = RunErrors([*young.predicted_months, *old.predicted_months], [*young.error_months, *old.error_months])
    limits = both.limits_for(40)
    assert limits is not None
    assert (limits.band, limits.images) == ("0-59", 30)
    reach = 1.96 * statistics.stdev([4.0, 6.0] * 15)
    assert (limits.low_months, limits.high_months) == pytest.approx((35 - reach, 35 + reach))


def test_a_band_with_too_few_images_uses_the_whole_test_set() -> None:
    limits = of_errors([-5.0, 5.0] * 10, 30).limits_for(100)
    assert limits is not None
    assert (limits.band, limits.images) == ("all", 20)
    assert of_errors([-5.0, 5.0] * 9, 30).limits_for(30) is None


def test_no_limit_is_below_zero() -> None:
    limits = of_errors([-30.0, 30.0] * 10, 5).limits_for(5)
    assert limits is not None
    assert limits.low_months == 0
    assert limits.high_months > 60


@pytest.mark.parametrize(
    ("months", "text"), [(103.4, "8 y 7 m"), (11.6, "1 y 0 m"), (-3.0, "0 y 0 m"), (0.0, "0 y 0 m")]
)
def test_months_as_years(months: float, text: str) -> None:
    assert format_years(months) == text


def test_the_limits_cover_95_percent() -> None:
    """Of 2,000 new images, 95 % have their reference age within the limits of their prediction."""
    random = np.random.default_rng(1)
    actual = random.uniform(20, 220, 4000)
    predicted = actual + random.normal(3, 8, 4000)
    errors = RunErrors(predicted[:2000].tolist(), (predicted - actual)[:2000].tolist())
    inside: list[Any] = []
    for age, months in zip(actual[2000:], predicted[2000:], strict=True):
        limits = errors.limits_for(float(months))
        assert limits is not None
        inside.append(limits.low_months <= age <= limits.high_months)
    assert 0.93 < np.mean(inside) < 0.97
