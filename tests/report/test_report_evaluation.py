"""Metrics that a run folder lacks are computed by the trainer's module in the interpreter that trains."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from boneage_trainer.contract import RunFolder
from boneage_trainer.evaluation import predictions as trainer_predictions
from boneagectl.report.data import ReportData, load_run
from boneagectl.report.evaluation import ComputedMetrics, compute_metrics, lacks_metrics
from boneagectl.report.run_page import render_run
from boneagectl.report.text import UNKNOWN
from report.page import Page
from report.sample_run import COUNTS, FACTS, evaluation, predictions, write_csv


@pytest.fixture
def bare(tmp_path: Path) -> RunFolder:
    """A run folder with 200 test predictions and nothing else."""
    folder = RunFolder(tmp_path / "bare")
    folder.root.mkdir()
    write_csv(folder.predictions, predictions({"test": 200}))
    return folder


@pytest.fixture
def without_numpy(tmp_path: Path) -> str:
    """An interpreter that has only the standard library."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    python.chmod(0o755)
    return str(python)


# ------------------------------------------------------------------------------- computing it
def test_a_folder_without_evaluation_gets_the_trainers_metrics(bare: RunFolder) -> None:
    assert lacks_metrics(bare)
    computed = compute_metrics(sys.executable, [bare])
    assert computed.problem == ""
    assert computed.evaluations[bare.root] == trainer_predictions.evaluate_folder(bare)
    assert list(computed.evaluations[bare.root]["sets"]) == ["test"]
    data = load_run(bare, FACTS, computed)
    assert data.metrics["mae_ci95_months"] == computed.evaluations[bare.root]["sets"]["test"]["mae_ci95_months"]
    assert "were computed from predictions.csv" in Page.of(render_run(data)).text


def test_what_an_evaluation_has_is_not_replaced(bare: RunFolder) -> None:
    bare.evaluation.write_text(json.dumps({"sets": {"test": {"mae_months": 99.0, "r2": None}}}), encoding="utf-8")
    assert lacks_metrics(bare)
    metrics = load_run(bare, FACTS, compute_metrics(sys.executable, [bare])).metrics
    assert metrics["mae_months"] == 99.0
    assert 0.5 < metrics["r2"] < 1
    assert len(metrics["worst"]) == 10


def test_a_complete_evaluation_needs_no_process_and_stays_as_it_is(complete: RunFolder, data: ReportData) -> None:
    assert not lacks_metrics(complete)
    assert compute_metrics("no such interpreter", []) == ComputedMetrics()
    assert data.evaluation == evaluation(predictions())
    assert not data.is_computed


def test_without_numpy_the_report_is_written_and_names_the_install_command(bare: RunFolder, without_numpy: str) -> None:
    computed = compute_metrics(without_numpy, [bare])
    page = Page.of(render_run(load_run(bare, FACTS, computed)))
    assert f"Some accuracy metrics and figures are missing: numpy is not installed in {without_numpy}." in page.text
    assert f"Run: {without_numpy} -m pip install numpy" in page.text
    assert "scatter" in page.figures
    assert "Accuracy" not in page.tables


@pytest.mark.parametrize(
    ("script", "problem"),
    [(None, "cannot be used"), ("echo no json", "printed no metrics"), ("echo '{}'", "printed no metrics"),
     ("echo broken >&2; exit 7", "broken"), ("exit 7", "exit code 7"),
     ("echo '{\"evaluations\": 3, \"pairs\": []}'", "printed no metrics")],
)  # fmt: skip
def test_an_interpreter_that_fails_is_a_named_problem(
    bare: RunFolder, tmp_path: Path, script: str | None, problem: str
) -> None:
    python = tmp_path / "python"
    if script is not None:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    computed = compute_metrics(str(python), [bare], {"a": bare, "b": bare})
    assert problem in computed.problem
    assert "targets.local.python" in computed.problem
    assert [(pair.run_id, pair.n, pair.verdict) for pair in computed.pairs] == [("b", None, "not computed")]


def test_modules_of_the_current_folder_are_not_imported(
    bare: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    assert compute_metrics(sys.executable, [bare]).problem == ""


def test_a_set_with_a_nan_prediction_is_left_out(bare: RunFolder) -> None:
    rows = predictions({"test": 40, "validation": 40})
    rows[3]["predicted_months"] = "nan"
    write_csv(bare.predictions, rows)
    assert list(trainer_predictions.evaluate_folder(bare)["sets"]) == ["validation"]


# ---------------------------------------------------------------------------- showing it
def test_the_page_draws_calibration_and_the_parts_of_the_data(data: ReportData, page: Page) -> None:
    calibration = data.metrics["calibration"]
    figure = page.figures["calibration"]
    assert len(figure.rows) == 1 + len(calibration["bins"])
    assert sum(int(row[1]) for row in figure.rows[1:]) == COUNTS["test"]
    assert f"Mean distance {calibration['expected_error_months']:.1f} months" in figure.texts["figcaption"]
    sexes = {row[0]: row for row in page.figures["sexes"].rows}
    assert int(sexes["test"][2].replace("\u202f", "")) == sum(row.male for row in data.shown)
    assert sexes["train"][1] == UNKNOWN, "an unknown count is not shown as 0"
    assert "Unknown: train." in page.figures["sexes"].texts["figcaption"]


def test_the_scatter_names_mae_rmse_and_r2(data: ReportData, page: Page) -> None:
    metrics = data.metrics
    text = f"MAE {metrics['mae_months']:.1f} months, RMSE {metrics['rmse_months']:.1f} months, R² {metrics['r2']:.3f}."
    assert text in page.figures["scatter"].texts["figcaption"]


def test_the_trainers_further_comparisons_are_shown(data: ReportData) -> None:
    metrics = {
        **data.metrics,
        "against_median_by_sex": {"difference_months": -21.25, "difference_ci95_months": [-22, -20.5],
                                  "improved_share": 0.87},
        "regression_to_the_mean": {"youngest_fifth": {"bias_months": 4.1}, "oldest_fifth": {"bias_months": -3.2}},
    }  # fmt: skip
    changed = {**data.evaluation, "sets": {"test": metrics}}
    page = Page.of(render_run(ReportData(FACTS, (), data.predictions, changed, {}, {}, ())))
    caption = page.figures["ruler"].texts["figcaption"]
    assert "−21.2 months (95 % CI −22.0 to −20.5)" in caption
    assert "87.0 % of the radiographs" in caption
    assert "youngest fifth +4.1 months, in the oldest fifth −3.2" in page.figures["calibration"].texts["figcaption"]


def test_radiographs_are_shown_on_request_only(data: ReportData, html: str) -> None:
    assert "This report contains no radiographs" in html
    facts = {**data.facts, "samples_png": "iVBORw0KGgo="}
    page = render_run(ReportData(facts, data.epochs, data.predictions, data.evaluation, {}, {}, ()))
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in page
    assert "The terms of the data apply to this page" in page
