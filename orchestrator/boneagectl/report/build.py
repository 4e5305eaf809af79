"""The report of one run: read its folder, then render HTML, JSON or CSV.

The same input gives the same bytes: no clock, no random numbers, no network, no script in the page.
"""

from __future__ import annotations

from boneagectl.report.data import ReportData, load_run
from boneagectl.report.export import to_csv, to_json
from boneagectl.report.view import view
from boneagectl.resources import data_dir

__all__ = ["ReportData", "load_run", "render_html", "to_csv", "to_json"]

TEMPLATE = "report.html.j2"


def render_html(data: ReportData) -> str:
    """The report as one HTML file that needs nothing beside it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(data_dir("templates") / "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(view(data))
