"""An incomplete or broken run still has a report, and the report names what is missing."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import ContractError, RunFolder
from boneagectl.report.data import ReportData, load_run
from boneagectl.report.evaluation import compute_metrics, lacks_metrics
from boneagectl.report.export import to_csv, to_json
from boneagectl.report.run_page import render_run
from boneagectl.report.text import UNKNOWN
from report.page import Page
from report.sample_run import FACTS, epoch_lines, predictions, write_csv, write_lines


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def page_of(folder: RunFolder, facts: dict[str, Any] = FACTS) -> Page:
    """The page of `folder`, after its other outputs were made as well."""
    lacking = [folder] if lacks_metrics(folder) else []
    data = load_run(folder, facts, compute_metrics(sys.executable, lacking))
    json.dumps(to_json(data), allow_nan=False)
    to_csv(data)
    return Page.of(render_run(data))


def test_nothing_at_all(folder: RunFolder) -> None:
    page = page_of(folder, {})
    assert page.figures == {}
    for text in ("No result yet", "No epoch has finished yet", "No predictions yet", "State unknown",
                  "Not evaluated yet", "The machine is unknown so far"):  # fmt: skip
        assert text in page.text
    for path in (folder.metrics, folder.predictions, folder.evaluation, folder.environment, folder.state):
        assert path.name in page.text


def test_only_metrics_of_a_paused_run(folder: RunFolder) -> None:
    lines = epoch_lines()[:3]
    write_lines(folder.metrics, lines)
    folder.state.write_text('{"state": "paused", "reason": "deadline", "epoch": 3, "epochs": 24}', encoding="utf-8")
    page = page_of(folder)
    assert list(page.figures) == ["mae", "loss", "time"]
    assert "Paused (deadline): 3 of 24 epochs done." in page.text
    assert f"{lines[2]['val_mae_months']:.1f} months\nlowest validation error so far" in page.text


def test_one_epoch_is_a_point(folder: RunFolder) -> None:
    write_lines(folder.metrics, epoch_lines()[:1])
    page = page_of(folder)
    assert len(page.figures["mae"].rows) == 2
    assert "M" in page.figures["mae"].paths["mark b"][0]
    assert "after each of 1 epoch." in page.figures["mae"].texts["figcaption"]


def test_an_outlier_epoch_is_in_the_table_and_not_drawn(folder: RunFolder) -> None:
    lines = epoch_lines()
    lines[0]["val_mae_months"] = 900.0
    write_lines(folder.metrics, lines)
    part = page_of(folder).figures["mae"]
    assert "are in the table only: 1." in part.texts["figcaption"]
    assert part.rows[1][2] == "900.00"
    assert "600" not in part.labels


def test_many_legs_are_marked_but_not_named(folder: RunFolder) -> None:
    write_lines(folder.metrics, [line | {"leg": line["epoch"]} for line in epoch_lines()])
    page = page_of(folder)
    assert len(page.figures["mae"].paths["leg"]) == 23
    assert "leg 2" not in page.figures["mae"].labels
    assert "in 24 legs" in page.figures["loss"].texts["figcaption"]


def test_nulls_and_nan_leave_gaps_not_zeros(folder: RunFolder) -> None:
    lines = epoch_lines()[:4]
    lines[1] |= {"loss": math.nan, "val_mae_months": None, "load_s": None}
    write_lines(folder.metrics, lines)
    page = page_of(folder)
    assert page.figures["mae"].rows[2][2] == UNKNOWN
    assert page.figures["loss"].rows[2][2] == UNKNOWN
    assert max(page.figures["mae"].paths["curve b"], key=len).count("M") == 2, "the line breaks at the gap"
    assert "nan" not in "".join(
        path for part in page.figures.values() for paths in part.paths.values() for path in paths
    )


def test_epochs_without_any_number(folder: RunFolder) -> None:
    write_lines(folder.metrics, [{"epoch": 1, "leg": "a"}])
    page = page_of(folder)
    assert page.figures == {}
    assert "No epoch has an error in months yet." in page.text


def test_evaluation_of_nulls(folder: RunFolder) -> None:
    test = {"n": 0, "mae_months": None, "by_sex": {"male": None}, "worst": None}
    empty = {"labels": None, "split": None, "sets": {"test": test, "validation": None}}
    folder.evaluation.write_text(json.dumps(empty), encoding="utf-8")
    page = page_of(folder)
    assert ("Mean absolute error (months)", UNKNOWN) in page.tables["Accuracy"]
    assert "No result yet" in page.text


def test_no_predictions_in_the_file(folder: RunFolder) -> None:
    write_csv(folder.predictions, [])
    assert "No predictions yet" in page_of(folder).text


def test_predictions_without_evaluation_are_evaluated(folder: RunFolder) -> None:
    write_csv(folder.predictions, predictions({"validation": 40}))
    page = page_of(folder)
    assert len(page.figures["bland-altman"].paths["level"]) == 3 + 1
    assert "This run has no test set." in page.text
    assert ("Baseline MAE, median age (months)", UNKNOWN) in page.tables["Accuracy"]


def test_nan_predictions_are_counted_and_left_out(folder: RunFolder) -> None:
    rows = predictions({"test": 40})
    rows[3]["predicted_months"], rows[4]["predicted_months"] = "nan", ""
    write_csv(folder.predictions, rows)
    page = page_of(folder)
    assert "2 of 40 predictions are not numbers" in page.text
    assert "38 radiographs of the test set" in page.figures["scatter"].texts["figcaption"]
    assert "Accuracy" not in page.tables, "the 38 alone would flatter the network"
    assert "limits not computed" in page.figures["bland-altman"].texts["figcaption"]


@pytest.mark.parametrize("factor", [15, 1e9])
def test_diverged_predictions_still_have_few_ticks(folder: RunFolder, factor: float) -> None:
    rows = predictions({"test": 40})
    for row in rows:
        row["predicted_months"] *= factor
    write_csv(folder.predictions, rows)
    assert len(page_of(folder).figures["scatter"].labels) < 20


def test_broken_file_is_named(folder: RunFolder) -> None:
    folder.evaluation.write_text("{", encoding="utf-8")
    with pytest.raises(ContractError, match=r"evaluation\.json is not JSON"):
        load_run(folder, FACTS)


@pytest.mark.parametrize(
    ("given", "shown"),
    [([], "none (CPU)"), ("none: no driver", "none: no driver"), (["T4", "T4"], "T4, T4")],
)
def test_gpu_is_the_one_the_run_had(data: ReportData, given: object, shown: str) -> None:
    changed = {**data.environment, "gpus": given}
    other = ReportData(data.facts, data.epochs, (), {}, changed, data.state, ())
    assert dict(Page.of(render_run(other)).tables["Machine"])["GPU"] == shown
