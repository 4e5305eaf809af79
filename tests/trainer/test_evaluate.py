"""The files of an evaluation, and the paper's bugs that must stay impossible."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boneage_trainer.contract import RunFolder
from boneage_trainer.data.pack import Pack
from boneage_trainer.data.splits import Split
from boneage_trainer.evaluation import evaluate

COUNT = 40
MONTHS = np.arange(1, COUNT + 1, dtype=np.float32)
ORDER = np.random.default_rng(0).permutation(COUNT).tolist()
PARTS = Split("x", ORDER[:10], ORDER[10:20], ORDER[20:], "")
HASHES = [f"{number:064x}"[::-1] for number in range(COUNT)]


def pack_of(months: Any = MONTHS, hashes: list[str] = HASHES) -> Pack:
    ids = [str(number) for number in range(len(months))]
    return Pack(np.zeros((len(months), 1, 1), np.uint8), ids, months % 2, months, Path(), hashes)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def write(folder: Path, test: Any, pack: Pack | None = None, **more: Any) -> dict[str, Any]:
    """The evaluation as it is on disk; validation is predicted without error."""
    predicted = {"validation": MONTHS[PARTS.validation], "test": test}
    returned = evaluate.write_evaluation(RunFolder(folder), pack or pack_of(), PARTS, predicted, **more)
    written: dict[str, Any] = json.loads(RunFolder(folder).evaluation.read_text())
    assert written == returned
    return written


def test_predictions_are_next_to_their_own_labels() -> None:
    """The paper's test generator was shuffled: perfect predictions scored a MAE of 46.6."""
    rows = {name: getattr(PARTS, name) for name in ("validation", "test")}
    lines = rows_of(evaluate.format_predictions(pack_of(), rows, {name: MONTHS[rows[name]] for name in rows}))
    assert [int(line["id"]) for line in lines] == sorted(ORDER[10:])
    assert all(float(line["boneage_months"]) == float(line["predicted_months"]) for line in lines)
    assert {line["split"] for line in lines if int(line["id"]) in ORDER[20:]} == {"test"}


def test_the_baseline_is_the_training_sets_and_is_compared_image_by_image(tmp_path: Path) -> None:
    results = write(tmp_path, MONTHS[PARTS.test] + 1)
    train = MONTHS[PARTS.train]
    assert results["training_medians_months"]["male"] == np.median(train[train % 2 == 1])
    guess = np.where(MONTHS % 2 == 1, np.median(train[train % 2 == 1]), np.median(train[train % 2 == 0]))
    errors = np.abs(guess - MONTHS)[PARTS.test]
    test = results["sets"]["test"]
    assert test["baseline_median_by_sex_mae_months"] == pytest.approx(errors.mean(), abs=1e-4)
    assert test["against_median_by_sex"]["difference_months"] == pytest.approx(1 - errors.mean(), abs=1e-4)
    assert test["against_median_by_sex"]["improved_share"] == pytest.approx((errors > 1).mean())


def test_one_view_has_no_columns_for_views(tmp_path: Path) -> None:
    plain, as_row = write(tmp_path, MONTHS[PARTS.test]), write(tmp_path, MONTHS[PARTS.test][None])
    assert plain == as_row
    assert "view" not in json.dumps(plain["sets"])
    assert list(rows_of(RunFolder(tmp_path).predictions.read_text())[0])[-1] == "predicted_months"


def test_several_views_are_averaged_and_compared_with_the_plain_one(tmp_path: Path) -> None:
    actual = MONTHS[PARTS.test]
    size = np.linspace(1, 5, len(actual), dtype=np.float32)
    results = write(tmp_path, np.stack([actual + 3 * size, actual - size]))["sets"]["test"]
    assert results["mae_months"] == pytest.approx(size.mean(), abs=1e-4)
    assert results["plain_view_mae_months"] == pytest.approx(3 * size.mean(), abs=1e-4)
    assert results["against_plain_view"]["difference_months"] == pytest.approx(-2 * size.mean(), abs=1e-4)
    assert results["against_plain_view"]["improved_share"] == 1
    assert results["views"] == 2
    assert results["view_disagreement"]["mean_sd_months"] == pytest.approx(np.sqrt(8) * size.mean(), abs=1e-3)
    assert results["view_disagreement"]["rank_correlation"] == 1


def test_disagreement_is_next_to_its_image_and_empty_elsewhere(tmp_path: Path) -> None:
    actual = MONTHS[PARTS.test]
    write(tmp_path, np.stack([actual + actual, actual - actual]))
    for line in rows_of(RunFolder(tmp_path).predictions.read_text()):
        expected = f"{np.sqrt(2) * float(line['boneage_months']):.3f}" if line["split"] == "test" else ""
        assert line["disagreement_months"] == expected


def test_the_kinds_of_labels_are_distinguished(tmp_path: Path) -> None:
    labels = write(tmp_path, MONTHS[PARTS.test])["labels"]
    assert "single-rater" in labels
    assert "six raters" in labels
    assert "cannot be compared" in labels


def test_an_image_that_is_also_in_training_is_counted(tmp_path: Path) -> None:
    """Two ids, one file: found by its sha256."""
    clean = write(tmp_path, MONTHS[PARTS.test])["sets"]
    assert (clean["test"]["trained_on"], clean["test"]["validated_on_count"]) == (False, 0)
    assert clean["validation"]["validated_on_count"] == 10
    hashes = list(HASHES)
    hashes[PARTS.test[3]] = hashes[PARTS.train[0]]
    leaky = write(tmp_path, MONTHS[PARTS.test], pack_of(hashes=hashes))["sets"]
    assert (leaky["test"]["trained_on"], leaky["test"]["trained_on_count"]) == (True, 1)
    assert leaky["validation"]["trained_on"] is False


def test_parts_are_described_and_the_grad_cam_results_are_kept(tmp_path: Path) -> None:
    results = write(tmp_path, MONTHS[PARTS.test], gradcam={"done": False, "reason": "none"})
    assert results["gradcam"] == {"done": False, "reason": "none"}
    ages = MONTHS[PARTS.train]
    assert results["parts"]["train"] == {
        "n": 10, "male": int((ages % 2).sum()), "female": 10 - int((ages % 2).sum()),
        "mean_months": round(float(ages.mean()), 4), "sd_months": round(float(ages.astype(float).std()), 4),
        "min_months": ages.min(), "max_months": ages.max(),
    }  # fmt: skip
