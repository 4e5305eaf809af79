"""The commands about runs: submit, resume, ls, show, logs, stop, collect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boneagectl import units
from boneagectl.cli import format_runs, options
from boneagectl.errors import UsageError
from boneagectl.models import Handle, Relay
from boneagectl.output import Printer, Screen
from boneagectl.targets import NAMES

if TYPE_CHECKING:
    from boneagectl.runs import Prepared, Workflow

_WHERE = f"Where to train: {', '.join(NAMES)}; submit: or auto."
_Target = Annotated[str | None, typer.Option("--target", "-t", help=_WHERE)]
_Limit = Annotated[str | None, typer.Option("--time-limit", help="The longest this leg may take, e.g. 11h30m.")]
_Name = Annotated[str | None, typer.Option("--name", "-n", help="The run's id, instead of a made-up one.")]
_Dry = Annotated[bool, typer.Option("--dry-run", help="Write the folder that would be sent, and nothing else.")]
_WEIGHTS = "What the backbone starts from; a path is meant from the pack's folder."
_Weights = Annotated[str | None, typer.Option("--weights", metavar="none|imagenet|PATH", help=_WEIGHTS)]
_VIA = "How Colab is used: a notebook to open, or Google's CLI."
_ZIP = "Results that a Colab notebook offered for download."
_LEGS = "How many sessions it may have; watch starts the next."
_THEN = "Where later legs may go, in order of preference."
_PLAN_ONLY = "Folder a dry run writes; by default one named as the leg."


def submit(
    target: _Target = None,
    pack: Annotated[Path | None, typer.Option("--data", help="The pack to train on.")] = None,
    time_limit: _Limit = None,
    name: _Name = None,
    preset: Annotated[str | None, typer.Option("--preset", help="A preset of `train presets`.")] = None,
    weights: _Weights = None,
    legs: Annotated[int, typer.Option("--legs", min=1, max=50, help=_LEGS)] = 1,
    then: Annotated[str | None, typer.Option("--then", metavar="A,B", help=_THEN)] = None,
    dry_run: _Dry = False,
    via: Annotated[str | None, typer.Option("--via", metavar="notebook|cli", help=_VIA)] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page of what was started.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help=_PLAN_ONLY)] = None,
    set_: options.Set = None,
    config: options.ConfigFile = None,
    profile: options.Profile = None,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Plan a training, book its worst case, start it.

    Returns at once.

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
            from boneagectl import relay as relay_module

            relay = relay_module.parse_relay(
                legs, units.parse_duration_s(merged["time_limit"]), prepared.plan.spec.target, then
            )
            start(flow, prepared, printer, yes, relay, open_)


def rehearse(
    target: _Target = None,
    pack: Annotated[Path | None, typer.Option("--data", help="The pack to train on.")] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="A preset of `train presets`.")] = None,
    weights: _Weights = None,
    set_: options.Set = None,
    config: options.ConfigFile = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run here what a target would be sent, first.

    The very script, on a few synthetic hands, in a tree like the target's. Nothing is booked or sent.

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
    """Go on with a run from its last checkpoint.

    It may be paused, failed or lost; what follows is its next leg, by default where the last one was.

    Example: boneagectl resume last --time-limit 2h
    """
    with options.workflow(options.settings(config)) as flow:
        flow.refresh()
        found = flow.ledger.find_run(run)
        flow.config = options.settings(config, target=target or found.latest.target, time_limit=time_limit)
        start(flow, flow.prepare_resume(found), Printer(json, quiet), yes)


def _dry_run(flow: Workflow, prepared: Prepared, out: Path | None, printer: Printer) -> None:
    plan, bundle = prepared.plan, prepared.bundle
    folder = (out or Path(plan.leg_id)).absolute()
    flow.render(prepared, folder)
    text = f"{format_runs.plan_text(plan, bundle)}\n\n{format_runs.bundle_table(bundle)}\n\nrendered to {folder}"
    printer.data({**format_runs.plan_json(plan, bundle), "folder": folder}, text)
    exactly = f"--name {plan.run_id} --time-limit {plan.spec.time_limit_s}s"  # one that is demanded is not cut
    printer.talk(f"nothing was booked or sent; to send exactly this: boneagectl submit {exactly}")


def start(
    flow: Workflow, prepared: Prepared, printer: Printer, yes: bool, relay: Relay | None = None, open_: bool = False
) -> None:
    """Launches, and tells what came of it and what is next."""
    prepared, handle = launch(flow, prepared, printer, yes, relay)
    plan, steps = prepared.plan, prepared.target.next_steps(handle)
    value = {**format_runs.plan_json(plan, prepared.bundle), "handle": str(handle)}
    printer.data(value, plan.run_id)
    for line in steps:
        printer.talk(line)
    printer.talk(f"{'made' if steps else 'started'}; boneagectl watch {plan.run_id}")
    if open_:
        _open_page(handle.url)


def launch(
    flow: Workflow, prepared: Prepared, printer: Printer, yes: bool, relay: Relay | None = None
) -> tuple[Prepared, Handle]:
    """Shows the plan, asks where it costs, books and sends; nothing goes to stdout."""
    prepared = flow.preflight(prepared)
    plan = prepared.plan
    text = format_runs.plan_text(plan, prepared.bundle, relay)
    if plan.quote.worst_usd_micro and not plan.refusals and not yes:
        Printer().talk(text)  # what is asked about is shown, however quiet
        printer.confirm("Book and start this?", yes)
    else:
        printer.talk(text)
    handle = flow.submit(prepared)
    if relay:
        flow.ledger.set_relay(plan.run_id, relay)
    return prepared, handle


def _open_page(url: str) -> None:
    if not url:
        raise UsageError("this target has no page to open", "boneagectl watch last")
    import webbrowser

    webbrowser.open(url)


def ls(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show the newest N runs.")] = 20,
    ids: Annotated[bool, typer.Option("--ids", help="Print only the ids, one a line.")] = False,
    json: options.Json = False,
) -> None:
    """List runs, newest first.

    Example: boneagectl ls --json
    """
    with options.workflow() as flow:
        flow.refresh()
        runs = flow.ledger.runs(limit)
        text = "\n".join(run.run_id for run in runs) if ids else format_runs.runs_table(runs)
        Printer(json).data({"runs": [format_runs.run_json(run) for run in runs]}, text)


def show(run: options.RunName = "last", json: options.Json = False) -> None:
    """Show one run: state, newest metrics, legs, folder.

    Example: boneagectl show last
    """
    from boneagectl.report import collect as report_collect

    with options.workflow() as flow:
        flow.reconcile()
        snapshot = flow.poll_latest(flow.ledger.find_run(run))
        found = flow.ledger.find_run(run)
        folder = flow.home.run(found.run_id)
        curve = "" if json else format_runs.curve_text(report_collect.validation_curve(flow, found))
        relay = flow.ledger.relay(found.run_id)
        value = {**format_runs.run_json(found), "metrics": snapshot.metrics, "folder": folder, "relay": relay}
        Printer(json).data(value, format_runs.run_text(found, snapshot, str(folder), relay, curve))


def logs(
    run: options.RunName = "last",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the leg is over.")] = False,
) -> None:
    """Print the log of a run's latest leg.

    Example: boneagectl logs last -f
    """
    with options.workflow() as flow:
        flow.reconcile()
        for line in flow.logs(flow.ledger.find_run(run), follow):
            typer.echo(line)


def stop(
    run: options.RunName, yes: options.Yes = False, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Have a run save and end; it can be resumed later.

    Waits until nothing of it is billed any more.

    Example: boneagectl stop last --yes
    """
    printer = Printer(json, quiet)
    with options.workflow() as flow:
        flow.refresh()
        found = flow.ledger.find_run(run)
        if not found.latest.state.is_over:
            printer.confirm(format_runs.stop_question(found, flow.target(found.latest.target).capabilities), yes)
            printer.talk("stopping …")
        flow.ledger.set_relay(found.run_id, None)  # a person who stops it does not want it to go on by itself
        snapshot = flow.stop(found)
        printer.data(
            {"run_id": found.run_id, "snapshot": snapshot}, f"{found.run_id}  {format_runs.snapshot_text(snapshot)}"
        )
        screen = Screen(printer)
        for line in flow.wind_down(found):
            screen.update(line)


def collect(
    run: options.RunName = "last",
    from_: Annotated[Path | None, typer.Option("--from", metavar="ZIP", help=_ZIP)] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Bring what a run has made into one folder, checked.

    Its metrics, model, predictions and log; also while it runs.

    Example: boneagectl collect last
    """
    printer = Printer(json, quiet)
    with options.workflow() as flow:
        flow.refresh()
        wanted = flow.ledger.find_run(run)
        found = flow.bring(wanted, from_) if from_ else flow.collect(wanted)
        if found.unlisted:
            printer.talk(f"written after the leg last listed its files: {', '.join(found.unlisted)}")
        printer.data(found, str(found.folder))
