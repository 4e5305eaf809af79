"""The page over all runs, and sparklines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder
from boneagectl.report import charts, index_page, text
from report import several_runs
from report.browser import check_page
from report.page import Page
from report.several_runs import facts, rows_of


@pytest.fixture
def entries(tmp_path: Path) -> list[index_page.IndexRow]:
    """Two runs, the better one with a report, and one that never started."""
    made = []
    for name, worse_months in (("worse-run", 0.9), ("better-run", 0.0)):
        folder = several_runs.fill(RunFolder(tmp_path / name / "artifacts"), rows_of(200, worse_months))
        report = tmp_path / name / "report.html"
        if name == "better-run":
            report.write_text("here")
        made.append(index_page.build_row(folder, facts(name), report, tmp_path / "index.html"))
    bare: dict[str, Any] = {"run_id": "bare-run", "legs": [{"state": "released", "target": "azure"}]}
    return [*made, index_page.build_row(None, bare, tmp_path / "none.html", tmp_path / "index.html")]


def test_a_row_has_the_numbers_of_its_run(entries: list[index_page.IndexRow]) -> None:
    page = Page.of(index_page.render_index(entries))
    rows = {row[0]: row for row in page.tables[""]}
    assert rows["worse-run (no report)"][6:9] == ("10.81", "9.95", "9.55 to 10.35")
    assert rows["better-run"][1:5] == ("complete", "azure", "Tesla T4", "24")
    assert rows["better-run"][9:] == ("51.7 min", "US$ 1.50", "0.00", "2026-11-24")
    assert rows["bare-run (no report)"][1:] == (
        "released", *[text.UNKNOWN] * 3, "no epoch yet", *[text.UNKNOWN] * 7,
    )  # fmt: skip


def test_links_to_reports_are_relative(entries: list[index_page.IndexRow], tmp_path: Path) -> None:
    page = Page.of(index_page.render_index(entries))
    links = [given["href"] for tag, given in page.elements if tag == "a"]
    assert links == ["better-run/report.html"]
    assert (tmp_path / (links[0] or "")).read_text() == "here"


def test_a_link_to_a_hostile_path_is_quoted(hostile: Path) -> None:
    report = hostile / "a#b?.html"
    report.write_text("here")
    one = index_page.build_row(None, {"run_id": '"><script>'}, report, hostile / "deep" / "index.html")
    assert one.href == "../a%23b%3F.html"
    page = index_page.render_index([one])
    assert page.count("<script>") == 1, "the page's own"


def test_the_page_is_self_contained(entries: list[index_page.IndexRow]) -> None:
    html = index_page.render_index(entries)
    assert not re.search(r"https?:|url\(|@import|<img|<script src", html)
    assert html.index(RESEARCH_ONLY) < html.index("<main>") < html.rindex(RESEARCH_ONLY)
    assert "No runs yet" in index_page.render_index([])


def test_a_browser_sorts_it_and_axe_finds_no_violation(entries: list[index_page.IndexRow], tmp_path: Path) -> None:
    texts = check_page(index_page.render_index(entries), tmp_path, "Test MAE (months)|Run")
    names = [[text.split()[0] for text in one] for one in texts[:2]]
    assert names == [["better-run", "worse-run", "bare-run"], ["bare-run", "better-run", "worse-run"]]


# ----------------------------------------------------------------------------------- the curve
@pytest.mark.parametrize(
    ("values", "blocks", "plain"),
    [
        ([8, 7, 6, 5, 4, 3, 2, 1], "█▇▆▅▄▃▂▁", "#*+=~-._"),
        ([3, None, 1], "█ ▁", "# _"),
        ([5.0], "▁", "_"),
        ([900.0, 10.0, 10.0, 9.0], "█▁▁▁", "#___"),
        ([None, None], "", ""),
        ([], "", ""),
    ],
)
def test_a_sparkline_in_characters(values: list[float | None], blocks: str, plain: str) -> None:
    assert charts.sparkline_text(values, 40, is_plain=False) == blocks
    assert charts.sparkline_text(values, 40, is_plain=True) == plain


def test_a_long_sparkline_is_thinned_by_means() -> None:
    assert charts.sparkline_text([float(100 - at) for at in range(100)], 8, is_plain=False) == "█▇▆▅▄▃▂▁"


def test_a_sparkline_breaks_at_unknown_values() -> None:
    drawn = charts.sparkline_svg([3.0, None, 1.0, 2.0], 'lowest "1"')
    assert drawn.count("M") == 2 + 1, "two pieces and the mark at the end"
    assert 'aria-label="lowest &quot;1&quot;"' in drawn
    assert charts.sparkline_svg([None], "x") == ""
