"""From what a Colab runtime shows of a leg to an `Observation`."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

from boneage_trainer.contract import ContractError, parse_object
from boneagectl import units
from boneagectl.models import LegState, Observation
from boneagectl.targets.colab.cli_state import CliLegFolder, LegRecord
from boneagectl.targets.colab.jupyter import RuntimeClient
from boneagectl.targets.colab.upload import remote_folder

SECOND_POLL_S = 0.3
SESSION_S = 12 * 3600
"""Longest session of an account without Pro+: research.google.com/colaboratory/faq.html."""
_LIMIT_SHARE = 0.97
_ENDED = (LegState.COMPLETE, LegState.PAUSED, LegState.FAILED)


def poll_leg(client: RuntimeClient, leg_id: str, record: LegRecord) -> Observation:
    """The leg's state file decides; an idle kernel without a final state means that the leg is lost.

    The kernel is polled first: a leg may end after its kernel was seen busy, but never start again.

    Raises:
        NotFound: the runtime does not answer at its address, not even its server.
    """
    folder = remote_folder(leg_id)
    kernel, state = client.kernel_state(record.kernel), _load_state(client, leg_id)
    if kernel != "busy" and _leg_state(state) not in _ENDED:
        time.sleep(SECOND_POLL_S)  # the server learns of its kernels' state with a delay
        kernel, state = client.kernel_state(record.kernel), _load_state(client, leg_id)
        if not kernel:
            client.list_kernels()  # one wrong 404 must not end a leg: the proxy, not the server, may have sent it
    leg_state, reason = _leg_state(state), str(state.get("reason", ""))
    if leg_state not in _ENDED:
        if kernel == "busy":
            leg_state, reason = LegState.RUNNING, reason if state else "starting"
        else:
            leg_state, reason = LegState.LOST, f"its kernel ended ({kernel or 'missing'}), probably out of memory"
    elif kernel == "busy" and not client.read_file(f"{folder}/over"):
        leg_state, reason = LegState.RUNNING, f"{leg_state}, finishing"
    metrics = _last_metrics(client.read_file(f"{folder}/run/metrics.jsonl"))
    return _observation(record, leg_state, reason, state, metrics)


def lost_observation(leg: CliLegFolder, record: LegRecord) -> Observation:
    """For a runtime that is gone. Its cost is the maximum so far, since the time of its end is unknown."""
    state: dict[str, Any] = {}
    with suppress(OSError, ContractError):
        state = parse_object(leg.run.state.read_text(encoding="utf-8"), leg.run.state.name)
    leg_state, age_s = _leg_state(state), time.time() - record.asked_s
    if leg_state in _ENDED and leg.run.manifest.exists():
        return _observation(record, leg_state, str(state.get("reason", "")), state, None)
    age = units.format_duration(age_s)
    if age_s > _LIMIT_SHARE * SESSION_S:
        reason = "Colab ends a session after 12 h"
    elif age_s > record.worst_s - record.hold_s:
        reason = "the runtime released itself at its time limit, before its last files were downloaded"
    elif not leg.downloaded_epoch:
        reason = f"Colab ended the runtime within {age}, before an epoch was downloaded; it may have counted as idle"
    else:
        reason = f"Colab ended the runtime within {age}: counted as idle, out of compute units, or no capacity"
    if leg.downloaded_epoch:
        reason += f"; epoch {leg.downloaded_epoch} was downloaded. Run: boneagectl resume"
    return _observation(record, LegState.LOST, reason, {**state, "updated_s": time.time()}, None)


def ended_observation(record: LegRecord, state: LegState, reason: str, last: Observation | None = None) -> Observation:
    """For a leg that was ended from here; `last` is the observation before that."""
    progress = {"epoch": last.epoch, "epochs": last.epochs} if last else {}
    metrics = last.metrics if last else None
    return _observation(record, state, reason, {**progress, "updated_s": time.time()}, metrics)


def _observation(
    record: LegRecord, leg_state: LegState, reason: str, state: dict[str, Any], metrics: dict[str, Any] | None
) -> Observation:
    """The cost runs from the request of the runtime to now; after the leg's end, until the wait for downloads ends."""
    updated_s = state.get("updated_s")
    has_end = leg_state.is_over and isinstance(updated_s, int | float)
    until_s = float(updated_s or 0) if has_end else time.time()
    elapsed_s = min(record.worst_s, max(0, round(until_s - record.asked_s)))
    billed_s = min(record.worst_s, elapsed_s + (record.hold_s if leg_state.is_over else 0))
    spent = units.cost_usd_micro(record.usd_micro_per_hour, billed_s)
    epoch, epochs = (int(state.get(key) or 0) for key in ("epoch", "epochs"))
    return Observation(leg_state, reason, epoch, epochs, elapsed_s, spent, metrics)


def _leg_state(state: dict[str, Any]) -> LegState | None:
    with suppress(ValueError):
        return LegState(str(state.get("state")))
    return None


def _load_state(client: RuntimeClient, leg_id: str) -> dict[str, Any]:
    text = client.read_file(f"{remote_folder(leg_id)}/run/state.json").decode("utf-8", "replace")
    return parse_object(text, "state.json") if text else {}


def _last_metrics(content: bytes) -> dict[str, Any] | None:
    for line in reversed(content.decode("utf-8", "replace").splitlines()):
        with suppress(ValueError):
            return dict(json.loads(line))
    return None
