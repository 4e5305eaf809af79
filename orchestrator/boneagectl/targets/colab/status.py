"""From what a machine of Colab's shows of a leg to a snapshot, and its files to this machine."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from boneage_trainer.contract import ContractError, RunFolder, parse_object, sha256_of, write_atomic
from boneagectl import artifacts, units
from boneagectl.errors import NotFound
from boneagectl.models import Artifacts, LegState, Observation
from boneagectl.targets.colab.cli_state import LegFolder, Note
from boneagectl.targets.colab.jupyter import Runtime
from boneagectl.targets.colab.upload import folder_of

SECOND_LOOK_S = 0.3
SESSION_S = 12 * 3600
"""At most, for an account without Pro+: research.google.com/colaboratory/faq.html."""
_LIMIT_SHARE = 0.97
_INCOMING = ".incoming"
_OVER = (LegState.COMPLETE, LegState.PAUSED, LegState.FAILED)


def look(runtime: Runtime, leg_id: str, note: Note) -> Observation:
    """The leg's state file decides; a kernel that does nothing, and said nothing, means that it is lost.

    The kernel is asked first: one seen at work may have ended since, but never the other way round.

    Raises:
        Missing: nothing of it is found there, not even the server.
    """
    kernel = runtime.kernel_state(note.kernel)
    state = _state(runtime, leg_id)
    if kernel != "busy" and _said(state) not in _OVER:
        time.sleep(SECOND_LOOK_S)  # the server hears of its kernels a little late
        kernel, state = runtime.kernel_state(note.kernel), _state(runtime, leg_id)
        if not kernel:
            runtime.kernels()  # one wrong answer must not end a leg: it may be the way there that does not know
    leg, reason = _judged(kernel, state)
    if leg in _OVER and kernel == "busy" and not runtime.read(f"{folder_of(leg_id)}/over"):
        leg, reason = LegState.RUNNING, f"{leg}, finishing"
    return _snapshot(note, leg, reason, state, _last(runtime.read(f"{folder_of(leg_id)}/run/metrics.jsonl")))


def lost(leg: LegFolder, note: Note) -> Observation:
    """The machine is gone. What it cost is told at the most: nobody knows when it went."""
    state, age_s = _kept(leg.run), time.time() - note.asked_s
    said = _said(state)
    if said in _OVER and leg.run.manifest.exists():
        return _snapshot(note, said, str(state.get("reason", "")), state, None)
    took = units.format_duration(age_s)
    if age_s > _LIMIT_SHARE * SESSION_S:
        reason = "Colab ends a session after 12 h"
    elif age_s > note.worst_s - note.hold_s:
        reason = "the machine gave itself back at its time limit, and nobody had fetched what it reached at last"
    elif not leg.kept_epoch:
        reason = f"Colab took the machine away within {took}, before an epoch was brought: it may count it as idle"
    else:
        reason = f"Colab took the machine away within {took}: idle by its count, out of units, or needed elsewhere"
    next_step = f"; epoch {leg.kept_epoch} is here: boneagectl resume" if leg.kept_epoch else ""
    return _snapshot(note, LegState.LOST, reason + next_step, {**state, "updated_s": time.time()}, None)


def ended(note: Note, state: LegState, reason: str, seen: Observation | None = None) -> Observation:
    """As somebody here ended it."""
    numbers = {"epoch": seen.epoch, "epochs": seen.epochs} if seen else {}
    return _snapshot(note, state, reason, {**numbers, "updated_s": time.time()}, seen.metrics if seen else None)


def bring(runtime: Runtime, leg_id: str, dest: RunFolder) -> Artifacts:
    """Downloads the run folder into `dest`; what is here, and as the leg's list says, is not loaded again.

    Raises:
        NotYet: there is nothing yet. MachineError: a name points outside the folder.
        Gone, Unreachable: as the machine is.
    """
    folder, incoming = f"{folder_of(leg_id)}/run", dest.root / _INCOMING
    names = [name for name in runtime.tree(folder) if not any(part.startswith(".") for part in name.split("/"))]
    for name in names:
        artifacts.check_name(name)
    if listed := runtime.read(f"{folder}/{dest.manifest.name}"):
        write_atomic(dest.manifest, listed)
    wanted, known = artifacts.read_manifest_hashes(dest), {}
    for name in (name for name in names if name != dest.manifest.name):
        with suppress(NotFound):  # replaced or taken away meanwhile
            known[name] = _fetched(runtime, f"{folder}/{name}", incoming / name, dest.root / name, wanted.get(name))
    shutil.rmtree(incoming, ignore_errors=True)
    return artifacts.read_artifacts(dest, known)


def _fetched(runtime: Runtime, path: str, incoming: Path, place: Path, sha256: str | None) -> str:
    """The sha256 of the file at `place`, which is the wanted one already or comes from `path`."""
    if sha256 is not None and place.is_file() and sha256_of(place) == sha256:
        return sha256
    arrived = runtime.download(path, incoming)
    artifacts.move_into_place(incoming, place)
    return arrived


# ---------------------------------------------------------------------------------------- judgement
def _judged(kernel: str, state: dict[str, Any]) -> tuple[LegState, str]:
    said, reason = _said(state), str(state.get("reason", ""))
    if said in _OVER:
        return said, reason
    if kernel == "busy":
        return LegState.RUNNING, reason if state else "getting ready"
    return LegState.LOST, f"its kernel is gone ({kernel or 'not there'}): out of memory, most likely"


def _snapshot(
    note: Note, leg: LegState, reason: str, state: dict[str, Any], metrics: dict[str, Any] | None
) -> Observation:
    """Costs run from the machine's begin, and for one that is over to the end of the wait for who fetches it."""
    updated_s = state.get("updated_s")
    is_told = leg.is_over and isinstance(updated_s, int | float)
    until_s = float(updated_s or 0) if is_told else time.time()
    elapsed_s = min(note.worst_s, max(0, round(until_s - note.asked_s)))
    billed_s = min(note.worst_s, elapsed_s + (note.hold_s if leg.is_over else 0))
    spent = units.cost_usd_micro(note.usd_micro_per_hour, billed_s)
    epoch, epochs = (int(state.get(key) or 0) for key in ("epoch", "epochs"))
    return Observation(leg, reason, epoch, epochs, elapsed_s, spent, metrics)


def _said(state: dict[str, Any]) -> LegState | None:
    with suppress(ValueError):
        return LegState(str(state.get("state")))
    return None


def _state(runtime: Runtime, leg_id: str) -> dict[str, Any]:
    text = runtime.read(f"{folder_of(leg_id)}/run/state.json").decode("utf-8", "replace")
    return parse_object(text, "state.json") if text else {}


def _kept(run: RunFolder) -> dict[str, Any]:
    with suppress(OSError, ContractError):
        return parse_object(run.state.read_text(encoding="utf-8"), run.state.name)
    return {}


def _last(metrics: bytes) -> dict[str, Any] | None:
    for line in reversed(metrics.decode("utf-8", "replace").splitlines()):
        with suppress(ValueError):
            return dict(json.loads(line))
    return None
