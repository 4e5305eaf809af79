"""Plans, runs, estimates and checks as text and JSON. Nothing here asks, opens or decides."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from boneagectl import units
from boneagectl.models import as_json
from boneagectl.output import table

if TYPE_CHECKING:
    from boneagectl.models import Bundle, Capabilities, Finding, Observation, Plan, Relay, Run, Speed
    from boneagectl.target_choice import Choice

_CURVE_WIDTH = 40


def plan_text(plan: Plan, bundle: Bundle, relay: Relay | None = None) -> str:
    spec, quote = plan.spec, plan.quote
    if quote.quota_s:
        cost = f"{units.format_duration(quote.quota_s)} of {quote.target}'s GPU quota, no money"
    else:
        rate = f"{units.format_usd(quote.usd_micro_per_hour)} per hour, from {quote.source}, {quote.date}"
        cost = f"{units.format_usd(quote.worst_usd_micro)} ({rate})"
    lines = [
        f"run      {plan.run_id}, leg {plan.leg_number}, on {spec.target}",
        f"train    {_train_text(as_json(spec.train))}",
        f"data     {_data_text(spec.data)}, {spec.pack if spec.data['fingerprint'] else 'prepared by the target'}",
        f"time     at most {units.format_duration(quote.worst_s)}; then the leg saves a checkpoint and stops",
        f"cost     at most {cost}",
        f"bundle   {len(bundle.files)} files, {units.format_bytes(len(bundle.content))}, sha256 {bundle.sha256[:16]}",
    ]
    if relay:
        share = max(1.0, relay.time_limit_s / spec.time_limit_s)  # the first leg may have less time than requested
        time = units.format_duration(math.ceil(quote.worst_s * share) * relay.legs)
        usd = units.format_usd(math.ceil(quote.worst_usd_micro * share) * relay.legs)
        total = f"at most {time} and {usd} in total, each leg reserved when it starts"
        lines.insert(5, f"legs     up to {relay.legs}, on {' or '.join(relay.targets)}: {total}")
    for verdict in plan.verdicts:
        lines.append(f"limit    {'ok     ' if verdict.allows else 'REFUSED'} {verdict.limit}: {verdict.detail}")
    return "\n".join(lines)


def _data_text(data: dict[str, Any]) -> str:
    count = f"{data['count']} images" if data["count"] else "the target's dataset"
    return f"{count} at {data['image_size_px']} px"


def _train_text(train: dict[str, Any]) -> str:
    return f"{train['preset']}, {train['epochs']} epochs, batch {train['batch_size']}, seed {train['seed']}"


def bundle_table(bundle: Bundle) -> str:
    return table(("bytes", "sha256", "file"), [(item.bytes, item.sha256[:16], item.name) for item in bundle.files])


def plan_json(plan: Plan, bundle: Bundle) -> dict[str, Any]:
    return {"plan": {**as_json(plan), "leg_id": plan.leg_id}, "bundle": as_json(bundle)}


def runs_table(runs: Sequence[Run]) -> str:
    if not runs:
        return "no runs yet; start one with boneagectl submit"
    headings = ("RUN", "STATE", "EPOCH", "LEGS", "TARGET", "TIME", "COST", "CREATED")
    rows = []
    for run in runs:
        leg, legs = run.latest, run.legs
        elapsed = units.format_duration(sum(item.elapsed_s for item in legs))
        cost = units.format_usd(sum(item.spent_usd_micro or 0 for item in legs))
        epoch = f"{leg.epoch}/{leg.epochs}"
        rows.append((run.run_id, str(leg.state), epoch, len(legs), leg.target, elapsed, cost, run.created))
    return table(headings, rows)


def run_json(run: Run) -> dict[str, Any]:
    """A run with the state of its latest leg at the top level."""
    leg = run.latest
    top = {"state": str(leg.state), "reason": leg.reason, "epoch": leg.epoch, "epochs": leg.epochs}
    return {**as_json(run), **top}


def run_text(run: Run, observation: Observation, folder: str, relay: Relay | None, curve: str) -> str:
    data, none = run.data, none_text()
    legs = [
        (leg.leg_id, leg.target, str(leg.state), f"{leg.epoch}/{leg.epochs}", units.format_duration(leg.elapsed_s),
         none if leg.spent_usd_micro is None else units.format_usd(leg.spent_usd_micro), leg.reason or none)
        for leg in run.legs
    ]  # fmt: skip
    lines = [
        f"run      {run.run_id}, created {run.created}",
        f"state    {observation_text(observation, run.latest.time_limit_s)}",
        *([f"val MAE  {curve}"] if curve else []),
        f"train    {_train_text(run.config)}",
        f"data     {_data_text(data)}, fingerprint {data['fingerprint'][:16] or 'unknown'}",
        f"bundle   sha256 {run.bundle_sha256[:16]}",
        f"folder   {folder}",
    ]
    if relay:
        lines.append(f"legs     {run.started_legs} of at most {relay.legs}, then on {' or '.join(relay.targets)}")
    return "\n".join([*lines, "", table(("LEG", "TARGET", "STATE", "EPOCH", "TIME", "COST", "REASON"), legs)])


def curve_text(values: Sequence[float | None]) -> str:
    """Validation MAE over epochs as a line of block characters, ASCII ones on a plain terminal."""
    from boneagectl.report import charts

    known = [value for value in values if value is not None]
    if not known:
        return ""
    drawn = charts.sparkline_text(values, _CURVE_WIDTH, is_plain_terminal())
    best = min(known)
    return f"{known[0]:.1f} {drawn} {known[-1]:.1f} months, lowest {best:.1f} in epoch {values.index(best) + 1}"


def none_text() -> str:
    """What a table shows where a value is unknown or does not apply."""
    return "-" if is_plain_terminal() else "–"


def is_plain_terminal() -> bool:
    """Whether stdout can show ASCII only."""
    return os.environ.get("TERM") == "dumb" or not (sys.stdout.encoding or "").lower().startswith("utf")


def observation_text(observation: Observation, limit_s: int = 0) -> str:
    """State, epoch, metrics and elapsed time; of a running leg also its time limit, if `limit_s` is given."""
    parts = [str(observation.state) + (f" ({observation.reason})" if observation.reason else "")]
    if observation.epochs:
        parts.append(f"epoch {observation.epoch}/{observation.epochs}")
    parts += metric_texts(observation.metrics or {})
    age = "duration unknown" if observation.elapsed_s is None else units.format_duration(observation.elapsed_s)
    limit = f" of {units.format_duration(limit_s)}" if limit_s and not observation.state.is_over else ""
    return ", ".join([*parts, f"{age}{limit}"])


def metric_texts(metrics: dict[str, Any]) -> list[str]:
    texts = (("loss", "loss {:.4f}"), ("mae_months", "MAE {:.1f}"), ("val_mae_months", "validation MAE {:.1f} months"))
    return [text.format(metrics[key]) for key, text in texts if isinstance(metrics.get(key), int | float)]


def log_lines(lines: Iterable[str], epochs: int) -> Iterator[str]:
    """A log for people: without the lines that only programs read, and without control characters.

    The trainer prints a plain line for each epoch beside the one for programs. Where it is missing, it is made here.
    """
    import re

    from boneage_trainer.contract import SENTINEL, STATE_SENTINEL, parse_sentinel

    epoch_line, control = re.compile(r"epoch (\d{1,9})/"), re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
    shown = 0
    for line in lines:
        if match := epoch_line.match(line):
            shown = int(match[1])
        if not line.startswith((SENTINEL, STATE_SENTINEL)):
            yield control.sub("", line)
        elif metrics := parse_sentinel(line):
            epoch = metrics.get("epoch")
            if type(epoch) is int and epoch != shown:
                yield "  ".join([f"epoch {epoch}/{epochs}", *metric_texts(metrics)])


def choices_text(choices: Sequence[Choice], prefer: str) -> str:
    headings = ("TARGET", "TIME", "RANGE", "LEGS", "USD", "QUOTA HOURS", "DONE BY", "BASIS")
    rows: list[tuple[object, ...]] = []
    for choice in choices:
        if choice.time_s is None or choice.low_s is None or choice.high_s is None:
            rows.append((choice.target, *[none_text()] * 6, choice.basis or "blocked"))
            continue
        time, low, high = map(units.format_duration, (choice.time_s, choice.low_s, choice.high_s))
        basis = f"{choice.basis}; you open a notebook" if choice.needs_you else choice.basis
        rows.append((choice.target, time, f"{low} to {high}", str(choice.sessions), units.format_usd(choice.usd_micro),
                     f"{choice.quota_s / 3600:.2f}", choice.done_by[:16].replace("T", " "), basis))  # fmt: skip
    blocked = [f"{choice.target} is blocked: {block}" for choice in choices for block in choice.blocks]
    recommended = next((choice.target for choice in choices if choice.is_recommended), "")
    last = f"{prefer}: {recommended}; boneagectl submit --target {recommended}"
    return "\n".join([table(headings, rows), *blocked, "", last if recommended else "no target can run this"])


def speed_text(speed: Speed) -> str:
    kinds = ", ".join(
        f"{name}: {1000 * sum(values) / len(values):.2f} ms per image over {len(values)} epochs"
        for name, values in speed.samples.items()
    )
    return (f"{speed.target}, {speed.machine}: {kinds or 'too few epochs'}; load {speed.load_ms:.2f}, compute "
            f"{speed.compute_ms:.2f} ms per image; {units.format_duration(speed.startup_s)} to the first epoch, "
            f"{units.format_duration(speed.finish_s)} to evaluate")  # fmt: skip


def stop_question(run: Run, capabilities: Capabilities) -> str:
    """What a stop costs, and the question."""
    leg = run.latest
    question = f"Stop {run.run_id} at epoch {leg.epoch}/{leg.epochs}?"
    if not capabilities.can_stop:
        return f"{leg.target} can only be stopped on its own page; this marks the leg as ended. {question}"
    if capabilities.stop_keeps:
        return question
    return (f"{leg.target} stops a session only by deleting it: the log and the metrics are kept on this machine, "
            f"the leg's checkpoint and other files are lost. {question}")  # fmt: skip


def findings_text(findings: Sequence[Finding]) -> str:
    width = max(len(finding.what) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<4} {finding.what:<{width}}  {finding.detail}")
        if finding.fix:
            lines.append(f"     {'':{width}}  next: {finding.fix}")
    return "\n".join(lines)
