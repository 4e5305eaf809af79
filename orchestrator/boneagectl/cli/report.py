"""The commands that write reports: of one run, of all runs, and of several compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneagectl.cli import options
from boneagectl.errors import UsageError
from boneagectl.output import ComparisonFormat, Format, Printer

if TYPE_CHECKING:
    from boneagectl.runs import Workflow

_Samples = Annotated[Path | None, typer.Option("--samples", metavar="PNG", help="Include this sheet of radiographs.")]
_Runs = Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two or more runs; the first is the reference.")]
_RUN = "Run name, prefix or 'last' (default: last)."
_OUT = "Output file (default: beside the run for HTML, else stdout)."
_ALL = "Write an index page of all runs and the reports it links to."
_COMPARE_FORMAT = "Output format (default: text; html with --open)."
_COMPARE_OUT = "Output file (default: stdout; a file of its own for HTML)."


def report(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help=_RUN)] = None,
    format_: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.HTML,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=_OUT)] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the HTML report in the browser.")] = False,
    all_: Annotated[bool, typer.Option("--all", help=_ALL)] = False,
    samples: _Samples = None,
    quiet: options.Quiet = False,
) -> None:
    """Write a run's report as HTML, JSON or CSV.

    Collects the run first. HTML is one file; JSON and CSV hold the numbers and go to stdout. A report contains
    radiographs only with --samples; the terms of the data then apply to the report. --all contacts no provider.

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
            chosen = flow.ledger.find_run(run or "last")
            content = collect.build_report(flow, chosen, format_, samples)
            path = out or (flow.home.report(chosen.run_id) if format_ is Format.HTML else None)
            collect.write_output(content, path)
        if path:
            printer.data({"report": path}, str(path))
        if open_ and path:
            options.open_page(path)


def _report_all(
    flow: Workflow, run: str | None, format_: Format, samples: Path | None, out: Path | None, printer: Printer
) -> Path:
    """Writes the page over all runs and returns its path."""
    from boneagectl.report import collect

    if run or samples or format_ is not Format.HTML:
        raise UsageError("--all writes one HTML page over all runs", "omit RUN, --format and --samples")
    path = out or flow.home.index
    for problem in collect.build_index(flow, path):
        printer.talk(f"warning: no report, only what the ledger has: {problem}")
    return path


def compare(
    runs: _Runs,
    format_: Annotated[ComparisonFormat | None, typer.Option("--format", help=_COMPARE_FORMAT)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=_COMPARE_OUT)] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the HTML comparison in the browser.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare runs: error, time, cost and settings.

    Collects each run first. Errors are compared in pairs, on test images that both runs have (same id and content).

    Example: boneagectl compare kaggle-run azure-run --format markdown
    """
    from boneagectl.report import collect

    chosen = format_ or (ComparisonFormat.HTML if open_ else ComparisonFormat.TEXT)
    if open_ and chosen is not ComparisonFormat.HTML:
        raise UsageError(f"--open shows HTML, not {chosen}", "omit --format or --open")
    with options.workflow() as flow:
        flow.refresh()
        content = collect.build_comparison(flow, collect.find_runs(flow, runs), chosen)
        path = out or (flow.home.comparison if chosen is ComparisonFormat.HTML else None)
        collect.write_output(content, path)
        if path:
            Printer(quiet=quiet).data({}, str(path))
        if open_ and path:
            options.open_page(path)
