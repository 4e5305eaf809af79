"""The burn-down figures: drawing, caption and table agree with their numbers."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import RunFolder
from boneagectl.report import budget_figures, index_page
from boneagectl.report.data import load_run
from boneagectl.report.run_page import render_run
from report.browser import check_page
from report.page import Page, Part
from report.sample_run import FACTS

DAY_S = 86_400
BEGUN_S = 1_794_960_000  # 18 Nov 2026, 00:00 UTC
NOW_S = BEGUN_S + 8 * DAY_S + 3600

DOLLARS: dict[str, Any] = {
    "account": "azure", "unit": "US$", "kind": "cap", "limit": 100.0, "reserved": 5.0, "free": 75.0, "week": 15.0,
    "points": [[BEGUN_S, 100.0], [BEGUN_S + 60, 96.0], [BEGUN_S + 3600, 95.0], [BEGUN_S + 5 * DAY_S, 80.0],
               [NOW_S, 80.0]],
    "as_of_s": NOW_S, "runs_out_s": NOW_S + 35 * DAY_S, "ends_s": None,
}  # fmt: skip
HOURS: dict[str, Any] = {
    "account": "kaggle", "unit": "h", "kind": "quota", "limit": 30.0, "reserved": 0.0, "free": 20.0, "week": 14.0,
    "points": [[BEGUN_S + 3 * DAY_S, 30.0], [BEGUN_S + 5 * DAY_S, 20.0], [NOW_S, 20.0]],
    "as_of_s": NOW_S, "runs_out_s": NOW_S + 10 * DAY_S, "ends_s": BEGUN_S + 10 * DAY_S,
}  # fmt: skip


def part(**changed: Any) -> Part:
    """The one figure of the page over all runs."""
    (figure,) = Page.of(index_page.render_index([], [DOLLARS | changed])).figures.values()
    return figure


def ends(path: str) -> list[tuple[float, float]]:
    """The corners of a path."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+) ([\d.]+)", path)]


# --------------------------------------------------------------------------------- the drawing
def test_the_line_falls_in_steps_and_the_reserved_amount_starts_at_its_end() -> None:
    figure = part()
    ((line,), (ahead,), (booked,)) = figure.paths["curve b"][:1], figure.paths["identity"][:1], figure.rects[:1]
    corners, (begin, end) = ends(line), ends(ahead)
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(corners)), "steps only"
    per_usd = (corners[-1][1] - corners[0][1]) / 20
    top, height = float(booked["y"] or 0), float(booked["height"] or 0)
    assert (float(booked["x"] or 0), top) == corners[-1]
    assert height == pytest.approx(5 * per_usd, abs=0.2)
    assert begin == (corners[-1][0], pytest.approx(top + height, abs=0.2)), "the projection begins at what is free"
    base = corners[0][1] + 100 * per_usd
    days_past, days_ahead = corners[-1][0] - corners[0][0], end[0] - begin[0]
    assert days_ahead / days_past == pytest.approx(3, abs=0.05), "its horizon, three times what was"
    fallen = (end[1] - begin[1]) / (base - begin[1])
    assert fallen == pytest.approx(3 * 8.04 / 35, abs=0.02)


def test_a_projection_ends_where_nothing_is_left() -> None:
    figure = part(runs_out_s=NOW_S + 7 * DAY_S)
    _, (_, y) = ends(figure.paths["identity"][0])
    assert y == ends(figure.paths["axis"][0])[0][1]
    assert "lasts until 3 Dec 2026." in figure.texts["figcaption"]


def test_a_projection_ends_where_the_limit_does() -> None:
    figure = part(ends_s=NOW_S + 7 * DAY_S)
    (begin_x, begin_y), (x, y) = ends(figure.paths["identity"][0])
    marks = [ends(path)[0][0] for path in figure.paths["leg"]]
    assert marks == [begin_x, x]
    base = ends(figure.paths["axis"][0])[0][1]
    assert (y - begin_y) / (base - begin_y) == pytest.approx(7 / 35, abs=0.01)
    assert "credit ends" in figure.labels


def test_steps_at_one_position_are_drawn_once() -> None:
    many = [[BEGUN_S + 10 * at, 100 - at / 100] for at in range(2000)]
    path = part(points=[*many, [NOW_S, 80.0]]).paths["curve b"][0]
    assert path.count("L") < 40
    assert ends(path)[-1][1] == ends(part().paths["curve b"][0])[-1][1]


@pytest.mark.parametrize("changed", [
    {}, {"runs_out_s": None}, {"reserved": 0.0, "free": 80.0}, {"ends_s": NOW_S + 20 * DAY_S, "kind": "credit"},
    {"ends_s": NOW_S - DAY_S}, {"runs_out_s": NOW_S + 1e12}, {"runs_out_s": NOW_S + 60},
    {"runs_out_s": NOW_S, "free": 0.0}, {"points": [[NOW_S, 80.0], [NOW_S, 80.0]]},
    {"points": [[BEGUN_S - 2000 * DAY_S, 100.0], [NOW_S, 0.0]]}, {**HOURS}, {**HOURS, "runs_out_s": None},
    {**HOURS, "ends_s": NOW_S + 600}, {**HOURS, "ends_s": NOW_S + 6 * DAY_S},
])  # fmt: skip
def test_labels_neither_overlap_nor_leave_the_figure(changed: dict[str, Any]) -> None:
    """Text counts as a little wider than a browser draws it."""
    drawn = budget_figures.draw_burndown(DOLLARS | changed).svg
    rows: dict[str, list[tuple[float, float]]] = {}
    for x, y, class_, anchor, text in re.findall(
        r'<text x="(\S+)" y="(\S+)" class="(\w+)" text-anchor="(\w+)">([^<]*)<', drawn
    ):
        width = len(text) * (6.2 if class_ == "note" else 6.5)
        begin = float(x) - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        rows.setdefault(y, []).append((begin, begin + width))
    for row in rows.values():
        row.sort()
        assert row[0][0] >= -1
        assert row[-1][1] <= 401
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(row)), rows


# ----------------------------------------------------------------------------------- the text
def test_the_caption_describes_the_figure() -> None:
    assert part().texts["figcaption"].replace("\u00a0", " ") == (
        "Account azure: US$ 80.00 of its cap of US$ 100.00 left on 26 Nov 2026, 01:00 UTC. Reserved for legs "
        "that are not settled: US$ 5.00; free: US$ 75.00. Spent in the last seven days: US$ 15.00; at that rate the "
        "free amount lasts until 31 Dec 2026, beyond this figure."
    )
    assert part(**HOURS).texts["figcaption"].replace("\u00a0", " ") == (
        "Account kaggle: 20.00 h of its weekly quota of 30.00 h left on 26 Nov 2026, 01:00 UTC. Spent in the last "
        "seven days: 14.00 h; at that rate the quota resets on 28 Nov 2026, 00:00 UTC with 16.08 h still free."
    )


@pytest.mark.parametrize(("changed", "text"), [
    ({"runs_out_s": None}, "Nothing was spent in the last seven days."),
    ({"runs_out_s": None, "ends_s": NOW_S + DAY_S}, "seven days. The credit ends on 27 Nov 2026."),
    ({"ends_s": NOW_S - DAY_S}, "US$ 15.00. The credit ended on 25 Nov 2026."),
    ({"ends_s": NOW_S + 7 * DAY_S}, "at that rate the credit ends on 3 Dec 2026 with US$ 60.00 still free."),
    ({"ends_s": NOW_S + 99 * DAY_S}, "until 31 Dec 2026, beyond this figure. The credit ends on 5 Mar 2027."),
    ({"free": 0.0, "runs_out_s": NOW_S}, "US$ 15.00. Nothing is free."),
    ({"runs_out_s": NOW_S + 1e15}, "lasts until more than ten years from now, beyond this figure."),
])  # fmt: skip
def test_the_caption_names_what_comes_first(changed: dict[str, Any], text: str) -> None:
    figure = part(**changed)
    assert figure.texts["figcaption"].replace("\u00a0", " ").endswith(text)
    assert figure.texts["desc"].replace("\u00a0", " ").endswith(text)


def test_the_table_has_one_row_per_day_and_the_figure_ids_and_a_title() -> None:
    figure = part()
    assert figure.rows == [
        ("Day (UTC)", "Spent (US$)", "Left (US$)"), ("start, 18 Nov 2026", "0.00", "100.00"),
        ("18 Nov 2026", "5.00", "95.00"), ("23 Nov 2026", "15.00", "80.00"), ("reserved now", "5.00", "75.00"),
    ]  # fmt: skip
    assert figure.ids == ["left-azure-usd-title", "left-azure-usd-desc"]
    assert figure.texts["title"] == "Remaining cap of account azure"


# ----------------------------------------------------------------------------------- the pages
def test_a_run_shows_its_accounts_and_the_index_all_of_them(complete: RunFolder) -> None:
    run = Page.of(render_run(load_run(complete, FACTS | {"accounts": [HOURS]})))
    assert [key for key in run.figures if key.startswith("left-")] == ["left-kaggle-hours"]
    assert [*Page.of(index_page.render_index([], [DOLLARS, HOURS])).figures] == ["left-azure-usd", "left-kaggle-hours"]


def test_without_accounts_there_is_no_budget_section(html: str) -> None:
    assert "Remaining budget" not in html
    assert "Remaining budget" not in index_page.render_index([])


def test_axe_finds_no_violation(complete: RunFolder, tmp_path: Path) -> None:
    check_page(render_run(load_run(complete, FACTS | {"accounts": [DOLLARS, HOURS]})), tmp_path)
    check_page(index_page.render_index([], [DOLLARS, HOURS]), tmp_path)
