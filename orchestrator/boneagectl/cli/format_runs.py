"""How values look to people. Words only: nothing here asks, opens or decides."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from boneagectl import units
from boneagectl.models import Bundle, Capabilities, Finding, Leg, Observation, Plan, Relay, Run, Speed, as_json
from boneagectl.output import table

if TYPE_CHECKING:
    from boneagectl.target_choice import Choice

_SESSION_S = 12 * 3600
_CURVE_WIDTH = 40


def plan_text(plan: Plan, bundle: Bundle, relay: Relay | None = None) -> str:
    spec, quote = plan.spec, plan.quote
    lines = [
        f"run      {plan.run_id}, leg {plan.leg_number}, on {spec.target}",
        f"train    {_train_text(as_json(spec.train))}",
        f"data     {_data_text(spec.data)}, {spec.pack if spec.data['fingerprint'] else 'not seen from here'}",
        f"time     at most {units.format_duration(quote.worst_s)}: then it saves, stops itself and can be resumed",
        f"cost     at most {_cost_text(plan)}",
        f"bundle   {len(bundle.files)} files, {units.format_bytes(len(bundle.content))}, sha256 {bundle.sha256[:16]}",
    ]
    if relay:
        lines.insert(5, f"legs     {_relay_text(plan, relay)}")
    lines += [f"limit    {'ok     ' if v.allows else 'REFUSED'} {v.limit}: {v.detail}" for v in plan.verdicts]
    return "\n".join(lines)


def _relay_text(plan: Plan, relay: Relay) -> str:
    share = max(1.0, relay.time_limit_s / plan.spec.time_limit_s)  # a first leg may have less time than was wished for
    time = units.format_duration(math.ceil(plan.quote.worst_s * share) * relay.legs)
    usd = units.format_usd(math.ceil(plan.quote.worst_usd_micro * share) * relay.legs)
    where = " or ".join(relay.targets)
    return f"up to {relay.legs}, on {where}: in all at most {time} and {usd}, each booked when it starts"


def _data_text(data: dict[str, Any]) -> str:
    count = f"{data['count']} images" if data["count"] else "the images attached there"
    return f"{count} at {data['image_size_px']} px"


def _train_text(train: dict[str, Any]) -> str:
    return f"{train['preset']}, {train['epochs']} epochs, batch {train['batch_size']}, seed {train['seed']}"


def _cost_text(plan: Plan) -> str:
    quote = plan.quote
    if quote.quota_s:
        return f"{units.format_duration(quote.quota_s)} of {quote.target}'s GPU hours, and no money"
    return f"{units.format_usd(quote.worst_usd_micro)} ({_rate(plan)})"


def _rate(plan: Plan) -> str:
    quote = plan.quote
    return f"{units.format_usd(quote.usd_micro_per_hour)} an hour, from {quote.source}, {quote.date}"


def bundle_table(bundle: Bundle) -> str:
    return table(("bytes", "sha256", "file"), [(item.bytes, item.sha256[:16], item.name) for item in bundle.files])


def plan_json(plan: Plan, bundle: Bundle) -> dict[str, Any]:
    return {"plan": {**as_json(plan), "leg_id": plan.leg_id}, "bundle": as_json(bundle)}


def runs_table(runs: Sequence[Run]) -> str:
    if not runs:
        return "no runs yet; boneagectl submit starts one"
    headings = ("RUN", "STATE", "EPOCH", "LEGS", "TARGET", "TIME", "COST", "CREATED")
    return table(headings, [_run_row(run) for run in runs])


def _run_row(run: Run) -> tuple[object, ...]:
    leg = run.latest
    elapsed = units.format_duration(sum(item.elapsed_s for item in run.legs))
    cost = units.format_usd(sum(item.spent_usd_micro or 0 for item in run.legs))
    return (
        run.run_id,
        str(leg.state),
        f"{leg.epoch}/{leg.epochs}",
        len(run.legs),
        leg.target,
        elapsed,
        cost,
        run.created,
    )


def run_json(run: Run) -> dict[str, Any]:
    """A run with the state of its latest leg lifted to the top."""
    leg = run.latest
    top = {"state": str(leg.state), "reason": leg.reason, "epoch": leg.epoch, "epochs": leg.epochs}
    return {**as_json(run), **top}


def run_text(run: Run, snapshot: Observation, folder: str, relay: Relay | None, curve: str) -> str:
    data = run.data
    lines = [
        f"run      {run.run_id}, created {run.created}",
        f"state    {snapshot_text(snapshot, run.latest.time_limit_s)}",
        *([f"val MAE  {curve}"] if curve else []),
        f"train    {_train_text(run.config)}",
        f"data     {_data_text(data)}, fingerprint {data['fingerprint'][:16] or 'not known here'}",
        f"bundle   sha256 {run.bundle_sha256[:16]}",
        f"folder   {folder}",
        *(
            [f"legs     {run.started_legs} of at most {relay.legs}, then on {' or '.join(relay.targets)}"]
            if relay
            else []
        ),
        "",
        table(("LEG", "TARGET", "STATE", "EPOCH", "TIME", "COST", "REASON"), [_leg_row(leg) for leg in run.legs]),
    ]
    return "\n".join(lines)


def curve_text(values: Sequence[float | None]) -> str:
    """Validation MAE over epochs as a line of little bars, plain ones where the terminal may not have others."""
    from boneagectl.report import charts

    known = [value for value in values if value is not None]
    if not known:
        return ""
    drawn = charts.sparkline_text(values, _CURVE_WIDTH, is_plain_terminal())
    best = min(known)
    return f"{known[0]:.1f} {drawn} {known[-1]:.1f} months, lowest {best:.1f} in epoch {values.index(best) + 1}"


def is_plain_terminal() -> bool:
    return os.environ.get("TERM") == "dumb" or not (sys.stdout.encoding or "").lower().startswith("utf")


def _leg_row(leg: Leg) -> tuple[object, ...]:
    cost = "-" if leg.spent_usd_micro is None else units.format_usd(leg.spent_usd_micro)
    elapsed = units.format_duration(leg.elapsed_s)
    return leg.leg_id, leg.target, str(leg.state), f"{leg.epoch}/{leg.epochs}", elapsed, cost, leg.reason or "-"


def snapshot_text(seen: Observation, limit_s: int = 0) -> str:
    """With its age against the limit of its leg, where that is given and it is not over."""
    parts = [str(seen.state) + (f" ({seen.reason})" if seen.reason else "")]
    if seen.epochs:
        parts.append(f"epoch {seen.epoch}/{seen.epochs}")
    parts += metric_texts(seen.metrics or {})
    age = "time not known" if seen.elapsed_s is None else units.format_duration(seen.elapsed_s)
    of = f" of {units.format_duration(limit_s)}" if limit_s and not seen.state.is_over else ""
    return ", ".join([*parts, f"{age}{of}"])


def metric_texts(metrics: dict[str, Any]) -> list[str]:
    texts = (("loss", "loss {:.4f}"), ("mae_months", "MAE {:.1f}"), ("val_mae_months", "validation MAE {:.1f} months"))
    return [text.format(metrics[key]) for key, text in texts if isinstance(metrics.get(key), int | float)]


def choices_text(choices: Sequence[Choice], prefer: str) -> str:
    headings = ("TARGET", "TIME", "RANGE", "SESSIONS", "USD", "QUOTA HOURS", "DONE BY", "FROM")
    rows = [_choice_row(one) for one in choices]
    blocked = [f"{one.target} is blocked: {block}" for one in choices for block in one.blocks]
    chosen = next((one.target for one in choices if one.is_recommended), "")
    last = (
        f"{prefer}: {chosen}; boneagectl submit --target {chosen}" if chosen else f"{prefer}: none can be recommended"
    )
    return "\n".join([table(headings, rows), *blocked, "", last])


def _choice_row(one: Choice) -> tuple[object, ...]:
    if one.time_s is None or one.low_s is None or one.high_s is None:
        return one.target, "not known", "-", "-", "-", "-", "-", one.basis or "blocked"
    span = f"{units.format_duration(one.low_s)} to {units.format_duration(one.high_s)}"
    return (one.target, units.format_duration(one.time_s), span, str(one.sessions), units.format_usd(one.usd_micro),
            f"{one.quota_s / 3600:.2f}", one.done_by[:16].replace("T", " "),
            f"{one.basis}; you open a notebook" if one.needs_you else one.basis)  # fmt: skip


def speed_text(speed: Speed) -> str:
    kinds = ", ".join(
        f"{name}: {1000 * sum(values) / len(values):.2f} ms an image in {len(values)} epochs"
        for name, values in speed.samples.items()
    )
    return (f"{speed.target}, {speed.machine}: {kinds or 'too short to tell'}; load {speed.load_ms:.2f}, compute "
            f"{speed.compute_ms:.2f} ms an image; {units.format_duration(speed.startup_s)} to the first epoch, "
            f"{units.format_duration(speed.finish_s)} to evaluate")  # fmt: skip


def stop_question(run: Run, capabilities: Capabilities) -> str:
    """What a stop costs, told before it is done."""
    leg = run.latest
    question = f"Stop {run.run_id} at epoch {leg.epoch}/{leg.epochs}?"
    if not capabilities.can_stop:
        return f"{leg.target} is stopped on its own page; this only notes that it will not be opened again. {question}"
    if capabilities.stop_keeps:
        return question
    return (f"{leg.target} stops a session only by deleting it: the log and the epochs' figures are kept here, "
            f"this leg's checkpoint and files are lost. {question}")  # fmt: skip


def findings_text(findings: Sequence[Finding]) -> str:
    width = max(len(finding.what) for finding in findings)
    return "\n".join(_finding_text(finding, width) for finding in findings)


def _finding_text(finding: Finding, width: int) -> str:
    fix = f"\n     {'':{width}}  next: {finding.fix}" if finding.fix else ""
    return f"{finding.level:<4} {finding.what:<{width}}  {finding.detail}{fix}"
