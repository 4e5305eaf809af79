"""The command that writes reports: of one run, or the page over all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneagectl.cli import options
from boneagectl.errors import UsageError
from boneagectl.output import ComparisonFormat, Format, Printer

if TYPE_CHECKING:
    from boneagectl.runs import Workflow

_Samples = Annotated[
    Path | None, typer.Option("--samples", metavar="PNG", help="Show this sheet of radiographs in it.")
]


def report(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="As in show; by default 'last'.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.HTML,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; by default beside the run, or stdout.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the HTML report in the browser.")] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="Write one page over all runs, and the reports it links.")
    ] = False,
    samples: _Samples = None,
    quiet: options.Quiet = False,
) -> None:
    """Write a run's report: HTML, JSON or CSV.

    Collects the run first. HTML is one file; the figures as JSON or CSV go to stdout. Radiographs are in it only with
    --samples: then the terms of the data apply to the report. --all asks no provider: it shows what is here.

    Example: boneagectl report last --format csv
    """
    from boneagectl.report import collect

    printer = Printer(quiet=quiet)
    path: Path | None
    with options.workflow() as flow:
        flow.refresh()
        if all_:
            path = _report_all(flow, run, format_, samples, out, printer)
        else:
            found = flow.ledger.find_run(run or "last")
            content = collect.build(flow, found, format_, samples)
            path = out or (flow.home.report(found.run_id) if format_ is Format.HTML else None)
            collect.deliver(content, path)
        if path:
            printer.data({"report": path}, str(path))
        if open_ and path:
            options.open_page(path)


def _report_all(
    flow: Workflow, run: str | None, format_: Format, samples: Path | None, out: Path | None, printer: Printer
) -> Path:
    """Writes the page over all runs and returns its place."""
    from boneagectl.report import collect

    if run or samples or format_ is not Format.HTML:
        raise UsageError("--all writes one HTML page over all runs", "leave out RUN, --format and --samples")
    path = out or flow.home.index
    for trouble in collect.build_index(flow, path):
        printer.talk(f"shown as far as the ledger tells: {trouble}")
    return path


# == compare: The command that puts runs beside each other.

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
    from boneagectl.report import collect

    wanted = format_ or (ComparisonFormat.HTML if open_ else ComparisonFormat.TEXT)
    if open_ and wanted is not ComparisonFormat.HTML:
        raise UsageError(f"--open shows HTML, not {wanted}", "leave out --format, or --open")
    with options.workflow() as flow:
        flow.refresh()
        content = collect.comparing_build(flow, collect.find(flow, runs), wanted)
        path = out or (flow.home.comparison if wanted is ComparisonFormat.HTML else None)
        collect.deliver(content, path)
        if path:
            Printer(quiet=quiet).data({}, str(path))
        if open_ and path:
            options.open_page(path)
