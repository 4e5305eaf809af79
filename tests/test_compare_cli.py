"""compare, report --all and the curve in show, through the CLI; the jobs are processes of the fake trainer."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder
from boneagectl.ledger.store import opened
from boneagectl.models import Handle, LegState, Observation
from report import several_runs
from report.page import Page
from report.several_runs import rows_of
from support import Cli, environment, make_plan

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16


@pytest.fixture
def two(project: Path, home: Path, cli: Cli) -> tuple[str, str]:
    """Two finished runs, which then get the results of a whole run."""
    for name, worse_months in (("first-run", 0.0), ("second-run", 0.7)):
        cli("submit", "--name", name, "-q")
        cli("watch", name, "--every", 0.1, "-q")
        out = RunFolder(home / "local" / f"{name}-01" / "out")
        metrics, state = out.metrics.read_text(), out.state.read_text()
        several_runs.fill(out, rows_of(120, worse_months))
        out.metrics.write_text(metrics)
        out.state.write_text(state)
    return "first-run", "second-run"


# ------------------------------------------------------------------------------------- compare
def test_two_runs_as_text_by_default(two: tuple[str, str], cli: Cli) -> None:
    output = cli("compare", *two).out
    assert output.startswith(RESEARCH_ONLY)
    assert "Same settings in all runs" in output
    assert "second-run  120 of 120 (first-run: 120)  +0.7" in output
    assert "Paper 2026-11: Azure, Tesla K80" in output


def test_every_format_is_written(two: tuple[str, str], cli: Cli, home: Path, tmp_path: Path) -> None:
    assert json.loads(cli("compare", *two, "--format", "json").out)["pairs"][0]["n"] == 120
    rows = list(csv.DictReader(io.StringIO(cli("compare", *two, "--format", "csv").out)))
    assert [row["run_id"] for row in rows] == list(two)
    assert cli("compare", *two, "--format", "markdown").out.startswith("# Comparison of 2 bone age runs")
    assert r"\begin{tabular}" in cli("compare", *two, "--format", "latex").out
    assert cli("compare", *two, "--format", "html").out.strip() == str(home / "runs" / "comparison.html")
    assert cli("compare", *two, "--format", "html", "-o", tmp_path / "x.html", "-q").out.strip().endswith("x.html")
    assert (tmp_path / "x.html").read_text() == (home / "runs" / "comparison.html").read_text()


def test_runs_that_are_not_compared(two: tuple[str, str], cli: Cli) -> None:
    assert "needs at least two runs" in cli("compare", "first-run", code=2).err
    assert "first-run is named twice" in cli("compare", "first-run", "first", code=2).err
    assert "there is no run 'none'" in cli("compare", "first-run", "none", code=2).err
    assert "--open shows HTML" in cli("compare", *two, "--open", "--format", "csv", code=2).err
    cli("compare", code=2)


def test_open_writes_the_page_and_shows_it(
    two: tuple[str, str], cli: Cli, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "boneagectl", "compare", *two, "--open", "-q"]
    subprocess.run(command, env=environment(BROWSER=f"{browser} %s"), check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert (tmp_path / "opened").read_text().strip() == (home / "runs" / "comparison.html").as_uri()


def test_a_run_without_results_can_be_compared(two: tuple[str, str], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "crash")
    cli("submit", "--name", "third-run", "-q")
    cli("watch", "third-run", "--every", 0.1, "-q", code=4)
    output = cli("compare", "first-run", "third-run").out
    assert "Not complete: third-run." in output
    assert "no test predictions yet" in output


# ---------------------------------------------------------------------------------- report --all
def test_all_runs_on_one_page_with_their_reports(two: tuple[str, str], cli: Cli, home: Path) -> None:
    page = Path(cli("report", "--all").out.strip())
    assert page == home / "runs" / "index.html"
    html = page.read_text()
    for name in two:
        assert f'<a href="{name}/report.html">{name}</a>' in html
        assert RESEARCH_ONLY in (page.parent / name / "report.html").read_text()
    assert html.index("second-run") < html.index("first-run"), "newest first"


def test_reports_are_written_again_only_where_something_is_newer(two: tuple[str, str], cli: Cli, home: Path) -> None:
    cli("report", "--all")
    reports = [home / "runs" / name / "report.html" for name in two]
    for report in reports:
        report.write_text("kept")
    cli("report", "--all")
    assert [report.read_text() for report in reports] == ["kept", "kept"]
    later_s = reports[0].stat().st_mtime + 10
    os.utime(home / "runs" / "first-run" / "legs" / "01" / "artifacts" / "metrics.jsonl", (later_s, later_s))
    cli("report", "--all")
    assert reports[0].read_text() != "kept"
    assert reports[1].read_text() == "kept"


def test_all_without_runs_and_with_a_torn_one(two: tuple[str, str], cli: Cli, home: Path) -> None:
    cli("report", "--all")
    (home / "runs" / "first-run" / "legs" / "01" / "artifacts" / "evaluation.json").write_text("{")
    output = cli("report", "--all")
    assert "first-run: evaluation.json is not JSON" in output.err
    assert "second-run" in Path(output.out.strip()).read_text()
    assert "omit RUN" in cli("report", "first-run", "--all", code=2).err
    assert "omit RUN" in cli("report", "--all", "--format", "csv", code=2).err


def test_a_page_elsewhere_links_back(two: tuple[str, str], cli: Cli, home: Path, tmp_path: Path) -> None:
    page = tmp_path / "elsewhere.html"
    cli("report", "--all", "--out", page)
    link = page.read_text().split('<a href="')[1].split('"')[0]
    assert (page.parent / link).resolve() == home / "runs" / "second-run" / "report.html"


# -------------------------------------------------------------------------------- the run report
def test_a_report_contains_radiographs_on_request_only(two: tuple[str, str], cli: Cli, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(PNG)
    assert "<img" not in Path(cli("report", "first-run").out.strip()).read_text()
    assert "data:image/png;base64," in Path(cli("report", "first-run", "--samples", sheet).out.strip()).read_text()
    sheet.write_bytes(b"GIF89a")
    assert "is not a PNG" in cli("report", "first-run", "--samples", sheet, code=2).err
    assert "cannot be read" in cli("report", "first-run", "--samples", tmp_path / "none", code=2).err


def test_an_unknown_cost_is_not_zero(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    cli("submit", "--name", "long-run", "-q")
    while not cli("show", "long-run", "--json").json["epoch"]:
        pass
    document = json.loads(cli("report", "long-run", "--format", "json").out)
    assert (document["cost_usd"], document["quota_hours"]) == (None, 0.0)
    cli("stop", "long-run", "--yes")
    assert json.loads(cli("report", "long-run", "--format", "json").out)["cost_usd"] == 0.0


# --------------------------------------------------------------------------------- the curve
def test_show_draws_the_validation_error(two: tuple[str, str], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "val MAE  31.0 █▃▁ 10.3 months, lowest 10.3 in epoch 3\n" in cli("show", "first-run").out
    monkeypatch.setenv("TERM", "dumb")
    assert "val MAE  31.0 #-_ 10.3 months" in cli("show", "first-run").out


def test_show_keeps_to_ascii_where_the_terminal_does(two: tuple[str, str], home: Path) -> None:
    command = [sys.executable, "-m", "boneagectl", "show", "first-run"]
    given = environment(PYTHONIOENCODING="ascii", BONEAGECTL_HOME=str(home))
    done = subprocess.run(command, env=given, capture_output=True, check=True, timeout=60)
    assert done.stdout.isascii()
    assert b"val MAE  31.0 #-_ 10.3" in done.stdout


def test_the_curve_joins_all_legs(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    cli("submit", "--name", "first-run", "-q")
    while cli("show", "first-run", "--json").json["epoch"] < 2:
        pass
    epoch = cli("stop", "first-run", "--yes", "--json").json["snapshot"]["epoch"]
    monkeypatch.setenv("FAKE_EPOCHS", str(epoch + 2))
    cli("resume", "first-run", "-q")
    cli("watch", "--every", 0.1, "-q")
    output = cli("show", "first-run").out
    assert "val MAE  31.0 █" in output
    assert f"lowest {31 / (epoch + 2):.1f} in epoch {epoch + 2}" in output


# --------------------------------------------------------------------------- what is left over time
def test_reports_draw_the_free_amount_that_budget_prints(
    project: Path, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    cli("submit", "--name", "long-run", "-q")
    while not cli("show", "long-run", "--json").json["epoch"]:
        pass
    pages = [home / "runs" / "index.html", home / "runs" / "long-run" / "report.html"]
    cli("report", "--all")
    assert not any("Remaining budget" in page.read_text() for page in pages), "no limit, no figure"
    spend_on_azure(home / "ledger.db")
    cli("budget", "set", "local", "--cap-hours", 200, "-q")
    account = {one["name"]: one for one in cli("budget", "--json").json["accounts"]}["local"]
    cli("report", "--all")
    cli("report", "long-run")
    cli("stop", "long-run", "--yes")
    lefts = [{key: part for key, part in Page.of(page.read_text()).figures.items() if key.startswith("left-")}
             for page in pages]  # fmt: skip
    assert [list(one) for one in lefts] == [["left-azure-usd", "left-local-hours"], ["left-local-hours"]]
    for one in lefts:
        start, *_, (_, reserved, free) = one["left-local-hours"].rows[1:]
        assert start[1:] == ("0.00", "200.00")
        assert float(reserved) == round(account["reserved_s"] / 3600, 2) > 0
        assert float(free) == round((account["cap_s"] - account["spent_s"] - account["reserved_s"]) / 3600, 2)


def spend_on_azure(path: Path) -> None:
    """A dollar and ten hours of the account azure, of a run of its own."""
    plan = make_plan("other-run", worst_usd_micro=1_000_000)
    plan = replace(plan, spec=replace(plan.spec, target="azure"), quote=replace(plan.quote, target="azure"))
    with opened(path) as ledger:
        ledger.reserve(plan, "0" * 64)
        ledger.attach(plan.leg_id, Handle("azure", "a-job"))
        ledger.observe(plan.leg_id, Observation(LegState.FAILED, elapsed_s=36_000, spent_usd_micro=1_000_000))
