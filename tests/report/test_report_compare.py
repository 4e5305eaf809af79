"""A comparison has the numbers of each run, pairs the same images only, and names what differs."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder
from boneage_trainer.evaluation.metrics import paired_metrics
from boneagectl.report import comparison_formats
from boneagectl.report.comparison import Comparison, compare_folders, render_comparison
from boneagectl.report.comparison_run import load_compared, run_values
from boneagectl.report.comparison_tables import PAPER_NOTE, TIME_PARTS, differing_settings
from boneagectl.report.data import ReportData
from boneagectl.report.text import UNKNOWN
from report import several_runs
from report.browser import check_page
from report.page import Page
from report.several_runs import BASELINE_MONTHS, facts, rows_of, write_split

COUNT = 400
HOSTILE = ["<script>alert(1)</script>", "{{7*7}}", r"\input{/etc/passwd}", "a|b\n| c |", "=1+1", "50 % & $x_1$ #~^"]


Prepared = tuple[RunFolder, dict[str, Any]]


def run(folder: Path, run_id: str, rows: list[dict[str, Any]] | None = None, **more: Any) -> Prepared:
    """A run in `folder`, tested on `rows`, and what the ledger knows about it."""
    given = rows_of(COUNT) if rows is None else rows
    made = several_runs.fill(RunFolder(folder / "runs" / str(sum(map(ord, run_id)))), given)
    return made, facts(run_id, **more)


def compare(*runs: Prepared, command: str = "") -> Comparison:
    return compare_folders([folder for folder, _ in runs], [known for _, known in runs], sys.executable, command)


def values_of(folder: RunFolder, known: dict[str, Any]) -> Mapping[str, Any]:
    return load_compared(folder, known).values


@pytest.fixture
def two(tmp_path: Path) -> Comparison:
    runs = [run(tmp_path, "first-run"), run(tmp_path, "second-run", rows_of(COUNT, 0.8))]
    return compare(*runs, command="boneagectl compare first-run second-run")


def rows_by_run(comparison: Comparison, key: str) -> dict[str, dict[str, str]]:
    chosen = next(table for table in comparison.tables if table.key == key)
    return {row[0]: dict(zip(chosen.columns, row, strict=True)) for row in chosen.rows}


# --------------------------------------------------------------------------------- the numbers
def test_every_number_is_taken_from_the_run(two: Comparison) -> None:
    values = two.runs[0].values
    rows = rows_of(COUNT)
    mae = sum(abs(row["predicted_months"] - row["boneage_months"]) for row in rows) / COUNT
    assert values["mae_months"] == pytest.approx(mae)
    assert values["gained_months"] == pytest.approx(BASELINE_MONTHS - mae)
    assert values["usd_per_month_gained"] == pytest.approx(1.5 / (BASELINE_MONTHS - mae))
    assert values["usd_per_epoch"] == 1.5 / 24
    assert (values["sessions"], values["interruptions"], values["target"]) == (2, 1, "azure")
    assert (values["total_s"], values["prepare_s"], values["startup_s"]) == (3100, 150, 40)
    assert (values["load_s"], values["compute_s"], values["compile_s"]) == (24 * 12.5, 24 * 84.0, 5.0)
    assert (values["load_ms_per_image"], values["compute_ms_per_image"]) == (1.5, 10.4)
    parts = [values[key] for key, _ in TIME_PARTS]
    assert sum(parts) == pytest.approx(values["total_s"]), "the parts add up"
    assert rows_by_run(two, "time")["first-run"]["Load"] == "5.0 min"
    assert rows_by_run(two, "cost")["first-run"]["Cost/epoch"] == "US$ 0.0625"


def test_startup_adds_up_over_legs() -> None:
    lines = [{"leg": "a", "elapsed_s": 100, "epoch_s": 60}, {"leg": "a", "elapsed_s": 160, "epoch_s": 60},
             {"leg": "b", "elapsed_s": 95, "epoch_s": 60}]  # fmt: skip
    data = ReportData({}, tuple(lines), (), {}, {}, {}, ())
    assert run_values(data)["startup_s"] == 40 + 35
    del lines[2]["epoch_s"]
    assert run_values(data)["startup_s"] is None, "unknown is not 0"


def test_an_empty_run_has_unknown_values_and_no_zeros(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = (RunFolder(tmp_path / "empty"), {"run_id": "bare"})
    assert {key for key, value in values_of(*nothing).items() if value is not None} == {"run_id"}
    comparison = compare(run(tmp_path, "first-run"), nothing)
    for key in ("accuracy", "time", "cost", "same"):
        row = list(rows_by_run(comparison, key)["bare"].values())
        assert set(row[1:]) == {UNKNOWN}, key
    assert comparison.pairs[0].verdict == "no test predictions yet"
    assert "Unknown whether the data are the same: missing for bare." in comparison.notes
    json.loads(comparison_formats.format_json(comparison))
    assert comparison_formats.format_csv(comparison).splitlines()[2].startswith("bare,,,")
    assert "No run" not in render_comparison(comparison)


def test_a_run_no_better_than_its_baseline_has_no_cost_per_month(tmp_path: Path) -> None:
    worse = run(tmp_path, "worse", rows_of(COUNT, 40))
    values = values_of(*worse)
    assert values["gained_months"] < 0
    assert values["usd_per_month_gained"] is None


def test_a_run_without_evaluation_has_the_metrics_that_its_predictions_give(tmp_path: Path) -> None:
    first, second = (run(tmp_path, name) for name in ("first-run", "second-run"))
    second[0].evaluation.unlink()
    comparison = compare(first, second)
    known, computed = (compared.values for compared in comparison.runs)
    assert computed["mae_months"] == pytest.approx(known["mae_months"], abs=1e-4)
    assert computed["baseline_median_mae_months"] is None


def test_without_the_interpreter_the_comparison_has_no_pairs_and_a_note(tmp_path: Path) -> None:
    runs = [run(tmp_path, name) for name in ("first-run", "second-run")]
    comparison = compare_folders([folder for folder, _ in runs], [known for _, known in runs], "no-such-python", "")
    assert (comparison.pairs[0].n, comparison.pairs[0].verdict) == (None, "not computed")
    assert any("Some metrics are missing: no-such-python" in note for note in comparison.notes)
    assert json.loads(comparison_formats.format_json(comparison))["pairs"][0]["ci95_months"] is None
    assert comparison.runs[0].values["mae_months"]


# --------------------------------------------------------------------------------- the pairs
def test_a_pair_has_the_trainers_paired_metrics(two: Comparison) -> None:
    first, second = rows_of(COUNT), rows_of(COUNT, 0.8)
    metrics = paired_metrics([row["boneage_months"] for row in first], [row["predicted_months"] for row in second],
                             [row["predicted_months"] for row in first])  # fmt: skip
    (pair,) = two.pairs
    assert pair.difference_months == metrics["difference_months"] > 0
    assert list(pair.ci95_months or ()) == metrics["difference_ci95_months"]
    assert pair.improved_share == metrics["improved_share"]
    assert (pair.n, pair.own, pair.firsts, pair.verdict) == (COUNT, COUNT, COUNT, "worse")


def test_a_pair_does_not_depend_on_the_other_runs(tmp_path: Path) -> None:
    first, second, third = (run(tmp_path, name, rows_of(COUNT, worse)) for name, worse in
                            (("first-run", 0.0), ("second-run", 0.4), ("third-run", -0.4)))  # fmt: skip
    assert compare(first, second, third).pairs == (*compare(first, second).pairs, *compare(first, third).pairs)


def test_only_the_same_images_are_paired(tmp_path: Path) -> None:
    other = run(tmp_path, "second-run", rows_of(COUNT, 0.8, first=100))
    (pair,) = compare(run(tmp_path, "first-run"), other).pairs
    assert (pair.n, pair.own) == (COUNT - 100, COUNT)


def test_the_same_id_with_different_content_is_a_different_image(tmp_path: Path) -> None:
    folder = several_runs.fill(RunFolder(tmp_path / "other"), rows_of(COUNT))
    write_split(folder.split, rows_of(COUNT), other="cd")
    (pair,) = compare(run(tmp_path, "first-run"), (folder, facts("b"))).pairs
    assert (pair.n, pair.difference_months) == (0, None)
    assert pair.verdict == "no shared test image with the same label"


def test_images_with_different_labels_are_excluded_and_noted(tmp_path: Path) -> None:
    rows = rows_of(COUNT)
    for row in rows[:10]:
        row["boneage_months"] += 6
    comparison = compare(run(tmp_path, "first-run"), run(tmp_path, "second-run", rows))
    assert (comparison.pairs[0].n, comparison.pairs[0].relabelled) == (COUNT - 10, 10)
    assert any("excluded from the pairs: second-run" in note for note in comparison.notes)


@pytest.mark.parametrize("place", [0, 1])
def test_a_run_without_split_or_with_nan_is_not_paired(tmp_path: Path, place: int) -> None:
    runs = [several_runs.fill(RunFolder(tmp_path / name), rows_of(COUNT)) for name in "ab"]
    runs[place].split.unlink()
    (pair,) = compare(*((folder, facts(folder.root.name)) for folder in runs)).pairs
    assert pair.difference_months is None
    assert "no split.csv" in pair.verdict
    rows = rows_of(COUNT)
    rows[3]["predicted_months"] = "nan"
    sound = several_runs.fill(RunFolder(tmp_path / "c"), rows_of(COUNT))
    (tmp_path / "d").mkdir()
    broken = RunFolder(tmp_path / "d")
    several_runs.write_csv(broken.predictions, rows)
    write_split(broken.split, rows)
    (pair,) = compare((sound, facts("c")), (broken, facts("d"))).pairs
    assert (pair.difference_months, pair.verdict) == (None, "a prediction is not a number")


# --------------------------------------------------------------------------------- what is said
def test_notes_list_what_is_the_same(two: Comparison) -> None:
    assert [note.split(" in all")[0] for note in two.notes] == ["Same settings", "Same data", "Same test images"]


def test_notes_list_differences_first(tmp_path: Path) -> None:
    data = {**several_runs.DATA, "fingerprint": "0000" * 16}
    config = {**facts("x")["config"], "epochs": 12}
    comparison = compare(run(tmp_path, "first-run"), run(tmp_path, "second-run", data=data, config=config))
    assert comparison.notes[0] == (
        "Settings differ: results are not attributable to the environment alone (epochs 24 | 12)."
    )
    assert comparison.notes[1] == "Data differ: 9eab9eab9eab, 000000000000."
    assert differing_settings(comparison.runs) == {"epochs": [24, 12]}


def test_only_the_times_of_the_paper_are_in_the_tables(two: Comparison) -> None:
    rows = [row for name, row in rows_by_run(two, "time").items() if name.startswith("Paper 2026-11")]
    assert [row["Total"] for row in rows] == ["4 h 40 min", "4 h 40 min", "3 h 30 min", "1 h 39 min"]
    assert {cell for row in rows for cell in list(row.values())[2:]} == {UNKNOWN}
    assert all("Paper" not in name for key in ("accuracy", "cost") for name in rows_by_run(two, key))
    assert PAPER_NOTE in comparison_formats.format_markdown(two).replace("\\", "")


# ------------------------------------------------------------------------------------ formats
def test_every_format_has_the_research_notice(two: Comparison) -> None:
    for render in (
        comparison_formats.format_text,
        render_comparison,
        comparison_formats.format_csv,
        comparison_formats.format_json,
        comparison_formats.format_markdown,
    ):
        assert RESEARCH_ONLY in render(two)
    assert comparison_formats.format_latex(two).count(RESEARCH_ONLY) == 1 + len(two.tables), (
        "a table may be copied alone"
    )


def test_json_has_stablenames(two: Comparison) -> None:
    document = json.loads(comparison_formats.format_json(two))
    assert sorted(document) == ["command", "differing_settings", "notes", "pairs", "reference", "research_only", "runs",
                            "schema"]  # fmt: skip
    assert list(document["runs"][0]) == list(two.runs[0].values)
    assert document["pairs"][0]["ci95_months"] == list(two.pairs[0].ci95_months or ())
    assert document["runs"][0]["mae_months"] == two.runs[0].values["mae_months"]


def test_csv_keeps_full_precision_and_empty_cells(two: Comparison) -> None:
    first, second = csv.DictReader(io.StringIO(comparison_formats.format_csv(two)))
    assert float(second["mae_months"]) == two.runs[1].values["mae_months"]
    assert float(second["against_first_difference_months"]) == two.pairs[0].difference_months
    assert first["against_first_difference_months"] == ""


def test_text_is_ascii_and_aligned(two: Comparison) -> None:
    text = comparison_formats.format_text(two)
    assert text.isascii()
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("Run") and "MAE (months)" in line)
    row = next(line for line in lines if line.startswith("first-run"))
    assert row[head.index("MAE (months)") :].startswith(f"{two.runs[0].values['mae_months']:.2f}")


def test_latex_rows_have_as_many_cells_as_columns(two: Comparison) -> None:
    text = comparison_formats.format_latex(two)
    for table in two.tables:
        body = text.split(f"tab:boneage-{table.key}")[1].split(r"\end{tabular}")[0]
        width = len(re.search(r"\{tabular\}\{(\w+)\}", body)[1])  # type: ignore[index]
        rows = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert len(rows) == 1 + len(table.rows)
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {width}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text(tmp_path: Path, hostile: str) -> None:
    legs = [{"target": hostile, "state": "complete", "elapsed_s": 9}]
    odd = run(tmp_path, hostile, legs=legs, config={hostile: hostile})
    comparison = compare(run(tmp_path, "first-run"), odd, command=hostile)
    page = Page.of(render_comparison(comparison))
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert "49" not in "".join(note for note in comparison.notes)
    markdown = comparison_formats.format_markdown(comparison)
    assert "<script" not in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    widths = {1 + len(table.columns) for table in comparison.tables}
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} <= widths, "no cell broke its row"
    latex = comparison_formats.format_latex(comparison)
    assert r"\input" not in re.sub(r"(?m)^%.*$", "", latex)
    assert not re.search(r"(?<!\\)[#~^]|(?<!\\)\$(?!-\$)(?<!-\$)", re.sub(r"(?m)^%.*$", "", latex))
    (_, cells) = list(csv.reader(io.StringIO(comparison_formats.format_csv(comparison))))[1:]
    assert not cells[0].startswith(("=", "+", "-", "@"))
    json.loads(comparison_formats.format_json(comparison))


# --------------------------------------------------------------------------------------- HTML
def test_bars_are_proportional_to_errors_and_times(two: Comparison) -> None:
    page = Page.of(render_comparison(two))
    assert list(page.figures) == ["errors", "times"]
    maes = [run_.values["mae_months"] for run_ in two.runs]
    assert [row[1] for row in page.figures["errors"].rows[1:]] == [f"{mae:.2f} months" for mae in maes]
    bars = [float(rect["width"] or 0) for rect in page.figures["errors"].rects if rect["class"] == "bar"]
    assert bars[0] / bars[1] == pytest.approx(maes[0] / maes[1], rel=0.01)
    load = [float(rect["width"] or 0) for rect in page.figures["times"].rects if rect["class"] == "part p3"][1:]
    compute = [float(rect["width"] or 0) for rect in page.figures["times"].rects if rect["class"] == "part p4"][1:]
    assert compute[0] / load[0] == pytest.approx(84 / 12.5, rel=0.01)


def test_the_page_is_self_contained_and_has_no_script(two: Comparison) -> None:
    html = render_comparison(two)
    page = Page.of(html)
    assert not {"script", "iframe", "img", "form", "link"} & {
        tag for tag, given in page.elements if given.get("rel") != "icon"
    }
    assert not re.search(r"https?:|url\(|@import", html)
    assert html == render_comparison(two)
    ids = [given["id"] for _, given in page.elements if "id" in given]
    assert len(ids) == len(set(ids))


def test_axe_finds_no_violation(two: Comparison, tmp_path: Path) -> None:
    check_page(render_comparison(two), tmp_path)
