"""The commands about runs: submit, rehearse, resume, ls, show, logs, stop, collect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneagectl import units
from boneagectl.cli import format_runs, options
from boneagectl.errors import UsageError
from boneagectl.output import Printer, Screen

if TYPE_CHECKING:  # `ls` needs none of these
    from boneagectl.models import Handle, Relay
    from boneagectl.runs import Prepared, Workflow

_Pack = Annotated[Path | None, typer.Option("--data", help="Pack to train on.")]
_Preset = Annotated[str | None, typer.Option("--preset", help="Training preset, see `train presets`.")]
_TARGET_HELP = "local, kaggle, colab or azure; `submit` also accepts auto."
_Target = Annotated[str | None, typer.Option("--target", "-t", help=_TARGET_HELP)]
_Limit = Annotated[str | None, typer.Option("--time-limit", help="Time limit of this leg, e.g. 11h30m.")]
_Name = Annotated[str | None, typer.Option("--name", "-n", help="Run name (default: generated).")]
_Dry = Annotated[bool, typer.Option("--dry-run", help="Only write the folder that would be submitted.")]
_WEIGHTS = "Initial weights; paths are relative to the pack."
_Weights = Annotated[str | None, typer.Option("--weights", metavar="none|imagenet|PATH", help=_WEIGHTS)]
_VIA = "How Colab is used: a notebook that you open, or Google's CLI."
_ZIP = "Outputs downloaded from a Colab notebook."
_LEGS = "Maximum number of legs; `watch` starts the next one."
_THEN = "Targets of later legs, in order of preference."
_DRY_OUT = "Folder that a dry run writes (default: named after the leg)."


def submit(
    target: _Target = None,
    pack: _Pack = None,
    time_limit: _Limit = None,
    name: _Name = None,
    preset: _Preset = None,
    weights: _Weights = None,
    legs: Annotated[int, typer.Option("--legs", min=1, max=50, help=_LEGS)] = 1,
    then: Annotated[str | None, typer.Option("--then", metavar="A,B", help=_THEN)] = None,
    dry_run: _Dry = False,
    via: Annotated[str | None, typer.Option("--via", metavar="notebook|cli", help=_VIA)] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the leg's page in the browser.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help=_DRY_OUT)] = None,
    set_: options.Set = None,
    config: options.ConfigFile = None,
    profile: options.Profile = None,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Submit a run; its maximum cost is reserved first.

    Returns at once. Follow the run with `watch`.

    Example: boneagectl submit --target local --set train.epochs=3
    """
    named = {"data__pack": str(pack) if pack else None, "train__preset": preset, "train__weights": weights,
             "targets__colab__via": via}  # fmt: skip
    merged = options.settings(config, profile, set_, target=target, time_limit=time_limit, **named)
    printer = Printer(json, quiet)
    with options.workflow(merged, may_write=not dry_run) as flow:
        if merged["target"] == "auto":
            from boneagectl import target_choice

            flow.config = merged.with_values(target=target_choice.recommend_target(flow))
        prepared = flow.prepare(name)
        if dry_run:
            _dry_run(flow, prepared, out, printer)
        else:
            from boneagectl.relay import parse_relay

            relay = parse_relay(legs, units.parse_duration_s(merged["time_limit"]), prepared.plan.spec.target, then)
            start(flow, prepared, printer, yes, relay, open_)


def rehearse(
    target: _Target = None,
    pack: _Pack = None,
    preset: _Preset = None,
    weights: _Weights = None,
    set_: options.Set = None,
    config: options.ConfigFile = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Execute the generated job locally before submitting it.

    Runs the same script on a few synthetic hands, in a folder tree like the target's. Nothing is reserved or sent.

    Example: boneagectl rehearse --target kaggle
    """
    named = {"data__pack": str(pack) if pack else None, "train__preset": preset, "train__weights": weights}
    merged, printer = options.settings(config, None, set_, target=target, **named), Printer(json, quiet)
    with options.workflow(merged, may_write=False) as flow:
        findings = []
        for finding in flow.rehearse():
            findings.append(finding)
            if not json:
                printer.data({}, format_runs.findings_text([finding]))
        if json:
            printer.data({"findings": findings}, "")


def resume(
    run: options.RunName,
    target: _Target = None,
    time_limit: _Limit = None,
    yes: options.Yes = False,
    config: options.ConfigFile = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Resume a run from its last checkpoint.

    The run may be paused, failed or lost. Its next leg runs on the same target unless --target names another.

    Example: boneagectl resume last --time-limit 2h
    """
    with options.workflow(options.settings(config)) as flow:
        flow.refresh()
        selected = flow.ledger.find_run(run)
        flow.config = options.settings(config, target=target or selected.latest.target, time_limit=time_limit)
        start(flow, flow.prepare_resume(selected), Printer(json, quiet), yes)


def _dry_run(flow: Workflow, prepared: Prepared, out: Path | None, printer: Printer) -> None:
    plan, bundle = prepared.plan, prepared.bundle
    folder = (out or Path(plan.leg_id)).absolute()
    flow.render(prepared, folder)
    text = f"{format_runs.plan_text(plan, bundle)}\n\n{format_runs.bundle_table(bundle)}\n\nrendered to {folder}"
    printer.data({**format_runs.plan_json(plan, bundle), "folder": folder}, text)
    options_ = f"--name {plan.run_id} --time-limit {plan.spec.time_limit_s}s"  # a time limit given here is not cut
    printer.talk(f"nothing was reserved or sent; to submit exactly this: boneagectl submit {options_}")


def start(
    flow: Workflow, prepared: Prepared, printer: Printer, yes: bool, relay: Relay | None = None, open_: bool = False
) -> None:
    """Submits a prepared leg; prints its plan, its run's name and the next step."""
    prepared, handle = launch(flow, prepared, printer, yes, relay)
    plan, steps = prepared.plan, prepared.target.next_steps(handle)
    value = {**format_runs.plan_json(plan, prepared.bundle), "handle": str(handle)}
    printer.data(value, plan.run_id)
    for line in steps:
        printer.talk(line)
    printer.talk(f"{'prepared' if steps else 'started'}; next: boneagectl watch {plan.run_id}")
    if open_:
        import webbrowser

        if not handle.url:
            raise UsageError(f"{plan.spec.target} has no page to open", f"boneagectl watch {plan.run_id}")
        webbrowser.open(handle.url)


def launch(
    flow: Workflow, prepared: Prepared, printer: Printer, yes: bool, relay: Relay | None = None
) -> tuple[Prepared, Handle]:
    """Shows the plan, asks for confirmation if it costs money, reserves and submits. Prints nothing to stdout."""
    prepared = flow.preflight(prepared)
    plan = prepared.plan
    text = format_runs.plan_text(plan, prepared.bundle, relay)
    if plan.quote.worst_usd_micro and not plan.refusals and not yes:
        Printer().talk(text)  # shown even with --quiet, since the question is about it
        printer.confirm("Reserve and submit this?", yes)
    else:
        printer.talk(text)
    handle = flow.submit(prepared)
    if relay:
        flow.ledger.set_relay(plan.run_id, relay)
    return prepared, handle


def ls(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Number of runs to show.")] = 20,
    ids: Annotated[bool, typer.Option("--ids", help="Print run names only, one per line.")] = False,
    json: options.Json = False,
) -> None:
    """List runs, newest first.

    Example: boneagectl ls --json
    """
    with options.open_ledger() as (home, ledger):
        if ledger.open_legs():  # only then can anything have changed
            from boneagectl.runs import Workflow

            Workflow(home, options.settings(), ledger).refresh()
        runs = ledger.runs(limit)
        text = "\n".join(run.run_id for run in runs) if ids else format_runs.runs_table(runs)
        Printer(json).data({"runs": [format_runs.run_json(run) for run in runs]}, text)


def show(run: options.RunName = "last", json: options.Json = False) -> None:
    """Show a run's state, metrics, legs and folder.

    Example: boneagectl show last
    """
    from boneagectl.report import collect as report_collect

    with options.workflow() as flow:
        flow.reconcile()
        observation = flow.poll_latest(flow.ledger.find_run(run))
        selected = flow.ledger.find_run(run)
        folder, relay = flow.home.run(selected.run_id), flow.ledger.relay(selected.run_id)
        curve = "" if json else format_runs.curve_text(report_collect.validation_curve(flow, selected))
        value = {**format_runs.run_json(selected), "metrics": observation.metrics, "folder": folder, "relay": relay}
        Printer(json).data(value, format_runs.run_text(selected, observation, str(folder), relay, curve))


def logs(
    run: options.RunName = "last",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines until the leg is over.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print the log unchanged, machine-readable lines too.")] = False,
) -> None:
    """Print the log of a run's latest leg.

    Example: boneagectl logs last -f
    """
    with options.workflow() as flow:
        flow.reconcile()
        selected = flow.ledger.find_run(run)
        lines = flow.logs(selected, follow)
        for line in lines if raw else format_runs.log_lines(lines, selected.latest.epochs):
            typer.echo(line)


def stop(
    run: options.RunName, yes: options.Yes = False, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Stop a run after saving a checkpoint.

    Waits until nothing of the run is billed. Continue later with `resume`.

    Example: boneagectl stop last --yes
    """
    printer = Printer(json, quiet)
    with options.workflow() as flow:
        flow.refresh()
        selected = flow.ledger.find_run(run)
        if not selected.latest.state.is_over:
            capabilities = flow.target(selected.latest.target).capabilities
            printer.confirm(format_runs.stop_question(selected, capabilities), yes)
            printer.talk("stopping …")
        flow.ledger.set_relay(selected.run_id, None)  # no leg follows a stop by hand
        observation = flow.stop(selected)
        text = f"{selected.run_id}  {format_runs.observation_text(observation)}"
        printer.data({"run_id": selected.run_id, "snapshot": observation}, text)
        screen = Screen(printer)
        for line in flow.wind_down(selected):
            screen.update(line)


def collect(
    run: options.RunName = "last",
    from_: Annotated[Path | None, typer.Option("--from", metavar="ZIP", help=_ZIP)] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download a run's outputs and verify their checksums.

    Metrics, model, predictions and log; also while the run is running.

    Example: boneagectl collect last
    """
    printer = Printer(json, quiet)
    with options.workflow() as flow:
        flow.refresh()
        selected = flow.ledger.find_run(run)
        outputs = flow.import_results(selected, from_) if from_ else flow.collect(selected)
        if outputs.unlisted:
            printer.talk(f"not in the manifest, so not verified: {', '.join(outputs.unlisted)}")
        printer.data(outputs, str(outputs.folder))
