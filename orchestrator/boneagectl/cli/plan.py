"""plan and calibrate: what a run takes on each target, before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boneagectl.cli import format_runs, options
from boneagectl.output import Printer
from boneagectl.targets import NAMES, check_name

_Data = Annotated[Path | None, typer.Option("--data", help="The pack to train on.")]
_Preset = Annotated[str | None, typer.Option("--preset", help="A preset of `train presets`.")]
_Limit = Annotated[str | None, typer.Option("--time-limit", help="The longest a session may take, e.g. 11h30m.")]
_EPOCHS = 8
"""Enough epochs of each kind after the first, which warms up."""


def plan(
    target: Annotated[str, typer.Option("--target", "-t", help="all, or one target.")] = "all",
    prefer: Annotated[str | None, typer.Option("--prefer", help="cheapest, fastest or balanced.")] = None,
    ask: Annotated[bool, typer.Option("--ask", help="Also ask the providers what they would refuse.")] = False,
    pack: _Data = None,
    preset: _Preset = None,
    time_limit: _Limit = None,
    set_: options.Set = None,
    config: options.ConfigFile = None,
    json: options.Json = False,
) -> None:
    """Estimate time and cost on each target and recommend one.

    Time with its range, sessions, dollars, quota hours, and what forbids it. Estimates come from what was measured on
    each target, else roughly from a table. No provider is asked without --ask. `submit --target auto` takes the
    recommended target.

    Example: boneagectl plan --prefer fastest
    """
    from boneagectl import target_choice

    named = {"data__pack": str(pack) if pack else None, "train__preset": preset, "prefer": prefer}
    merged = options.settings(config, None, set_, time_limit=time_limit, **named)
    if target != "all":
        check_name(target)
    with options.workflow(merged, may_write=False) as flow:
        choices = target_choice.compare_targets(flow, NAMES if target == "all" else (target,), ask)
        Printer(json).data({"choices": choices}, format_runs.choices_text(choices, merged["prefer"]))


def calibrate(
    target: Annotated[str, typer.Option("--target", "-t", help=f"One of: {', '.join(NAMES)}.")] = "local",
    pack: _Data = None,
    preset: _Preset = None,
    time_limit: _Limit = "1h",
    set_: options.Set = None,
    config: options.ConfigFile = None,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a target's speed with a short run.

    Eight epochs of the real workload, submitted and reserved like any run; the first epoch of each kind only warms up.
    Every run that is collected later refines the measurement.

    Example: boneagectl calibrate --target local
    """
    from boneagectl import throughput
    from boneagectl.cli.runs import launch
    from boneagectl.cli.watch import follow, raise_if_failed

    named = {"data__pack": str(pack) if pack else None, "train__preset": preset}
    merged = options.settings(config, None, set_, target=target, time_limit=time_limit, train__epochs=_EPOCHS, **named)
    printer = Printer(json, quiet)
    with options.workflow(merged) as flow:
        prepared, _ = launch(flow, flow.prepare(), Printer(quiet=True), yes)
        ended = follow(flow, prepared.plan.run_id, None, False, Printer(quiet=quiet))
        raise_if_failed(ended)
        flow.collect(ended.run)
        spec = prepared.plan.spec
        speeds = flow.ledger.speeds(target, throughput.workload_id(spec.train, spec.data["image_size_px"]))
        text = "\n".join(map(format_runs.speed_text, speeds[-1:]))
        printer.data({"run_id": ended.run.run_id, "speeds": speeds}, text)
        printer.talk("next: boneagectl plan")
