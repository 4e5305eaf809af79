"""The command that puts runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneagectl.cli import options
from boneagectl.errors import UsageError
from boneagectl.output import ComparisonFormat, Printer

_Runs = Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two runs or more; the first is the measure.")]
_Format = Annotated[ComparisonFormat | None, typer.Option("--format", help="By default text; with --open, html.")]
_Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write; by default stdout, HTML in a file.")]


def compare(
    runs: _Runs,
    format_: _Format = None,
    out: _Out = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the HTML comparison in the browser.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare runs: error, time, cost, what was the same.

    Collects each run first. Errors are paired: the same test images only, by id and content.

    Example: boneagectl compare kaggle-run azure-run --format markdown
    """
    from boneagectl import comparing, reporting

    wanted = format_ or (ComparisonFormat.HTML if open_ else ComparisonFormat.TEXT)
    if open_ and wanted is not ComparisonFormat.HTML:
        raise UsageError(f"--open shows HTML, not {wanted}", "leave out --format, or --open")
    with options.workflow() as flow:
        flow.refresh()
        content = comparing.build(flow, comparing.find(flow, runs), wanted)
        path = out or (flow.home.comparison if wanted is ComparisonFormat.HTML else None)
        reporting.deliver(content, path)
        if path:
            Printer(quiet=quiet).data({}, str(path))
        if open_ and path:
            options.open_page(path)
