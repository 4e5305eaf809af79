"""The report of one run: read its folder, then render HTML, JSON or CSV.

The same input gives the same bytes: no clock, no random numbers, no network, no script in the page.
"""

from __future__ import annotations

from boneagectl.render import fill
from boneagectl.report.data import ReportData, load_run
from boneagectl.report.export import to_csv, to_json
from boneagectl.report.view import view

__all__ = ["ReportData", "load_run", "render_html", "to_csv", "to_json"]

TEMPLATE = "report/report.html.j2"


def render_html(data: ReportData) -> str:
    """The report as one HTML file that needs nothing beside it."""
    return fill(TEMPLATE, **view(data))
