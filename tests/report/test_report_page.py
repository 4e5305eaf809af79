"""The page as a document: complete figures, self-contained, small, reproducible, safe, readable in both schemes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder
from boneagectl.paths import data_dir
from boneagectl.report.data import ReportData, load_run
from boneagectl.report.run_page import render_run
from report.browser import check_page
from report.page import Page
from report.sample_run import FACTS

FIGURES = [
    "ruler", "sexes", "ages", "mae", "loss", "scatter", "bland-altman", "by-sex", "by-age", "calibration", "time",
]  # fmt: skip
FEWEST_CONTRAST = 4.5
LARGEST_BYTES = 300_000
PAIRS = (
    ("ink", "paper"), ("soft", "paper"), ("ink", "panel"), ("note", "note-panel"), ("note", "paper"), ("blue", "paper"),
    ("red", "paper"),
)  # fmt: skip


def test_all_figures_are_there(page: Page) -> None:
    assert list(page.figures) == FIGURES


@pytest.mark.parametrize("key", FIGURES)
def test_figure_has_name_description_caption_and_table(page: Page, key: str) -> None:
    part = page.figures[key]
    assert part.svg["role"] == "img"
    assert (part.svg["aria-labelledby"] or "").split() == part.ids == [f"{key}-title", f"{key}-desc"]
    assert all(part.texts[name] for name in ("title", "desc", "figcaption", "summary"))
    assert len(part.rows) >= 2
    assert len({len(row) for row in part.rows}) == 1


def test_ids_are_unique(page: Page) -> None:
    ids = [given["id"] for _, given in page.elements if "id" in given]
    assert len(ids) == len(set(ids))


def test_page_is_self_contained_and_has_no_script(page: Page, html: str) -> None:
    assert not {"script", "iframe", "object", "embed", "img", "form"} & {tag for tag, _ in page.elements}
    assert [given["href"] for _, given in page.elements if "href" in given] == ["data:,"]
    assert not [name for _, given in page.elements for name in given if name.startswith("on") or name == "src"]
    assert not re.search(r"https?:|url\(|@import", html)


def test_page_stays_small(html: str, data: ReportData) -> None:
    assert len(data.shown) == 2523
    assert len(html.encode()) < LARGEST_BYTES


def test_same_run_gives_same_bytes(complete: RunFolder, html: str) -> None:
    assert render_run(load_run(complete, FACTS)) == html


def test_research_notice_is_first_and_last(html: str) -> None:
    assert html.index(RESEARCH_ONLY) < html.index("<main>")
    assert html.rindex(RESEARCH_ONLY) > html.index("</main>")


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "{{7*7}}", '"><img src=x onerror=alert(1)>', "{% raw %}"]
)
def test_hostile_text_stays_text(complete: RunFolder, hostile: str) -> None:
    facts = FACTS | {"run_id": hostile, "command": hostile, "config": {hostile: hostile},
                     "legs": [{"number": hostile, "target": hostile, "state": hostile}]}  # fmt: skip
    page = Page.of(render_run(load_run(complete, facts)))
    assert hostile in page.text
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert "49" not in page.tables["Training settings"][0]


def test_hostile_text_inside_drawings_stays_text(data: ReportData) -> None:
    hostile = {"</svg><script>": {"n": 3, "mae_months": 9.0}}
    own = {**data.set_metrics("test"), "by_sex": hostile}
    changed = {**data.evaluation, "sets": {"test": own}, "labels": "<script>"}
    page = Page.of(render_run(load_run_with(data, changed)))
    assert "</svg><script>" in page.figures["by-sex"].labels
    assert "script" not in {tag for tag, _ in page.elements}


def load_run_with(data: ReportData, evaluation: dict[str, object]) -> ReportData:
    return ReportData(data.facts, data.epochs, data.predictions, evaluation, data.environment, data.state, data.missing)


def luminance(colour: str) -> float:
    """The relative luminance of #rrggbb as WCAG defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_have_enough_contrast_in_both_schemes(scheme: str) -> None:
    css = (data_dir("templates") / "report" / "colors.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{([^}]+)\}", css)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[scheme == "dark"]))
    for text, ground in PAIRS:
        assert contrast(colours[text], colours[ground]) >= FEWEST_CONTRAST, (text, ground)


def test_axe_finds_no_violation(html: str, tmp_path: Path) -> None:
    check_page(html, tmp_path)
