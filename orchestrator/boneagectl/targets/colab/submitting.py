"""The start of a leg: a machine, everything sent, the training begun; and what becomes of a start that was cut off."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from boneagectl import locks
from boneagectl.errors import InDoubt, LimitRefused, MachineError, Unreachable
from boneagectl.records import LegState
from boneagectl.targets.colab import channel, looking, rates, sending
from boneagectl.targets.colab.legs import LegFolder, Note
from boneagectl.targets.colab.machines import Machines
from boneagectl.targets.colab.official import Official
from boneagectl.targets.colab.runtime import Gone, Missing

HOLD_S, HOLD_SHARE = 900, 0.1
"""As the trainer's `colab_unattended` has it."""

_SLOW = (
    f"Colab takes idle ones, and after {sending.STARTUP_S // 60} min it goes by itself: try again; where the pack "
    "takes so long, set targets.colab.dataset and submit without it"
)


def submit(leg: LegFolder, rendered: Path, machines: Machines, official: Official, paid: bool) -> None:
    """Whatever fails once there is a machine has it given back.

    Raises:
        LimitRefused: Colab gives no such machine, or at another price. InDoubt: there may be one; `find` tells.
    """
    try:
        with locks.held(leg.submitting):
            channel.check_installed()
            official.version()
            launch = sending.read(rendered)
            if launch.dataset:
                sending.authorization()  # rather now than when a machine waits for it
            _submit(leg, launch, rendered, machines, official, paid)
    except locks.Busy:
        raise MachineError(f"{leg.leg_id} is being sent by another process", "boneagectl ls") from None


def _submit(
    leg: LegFolder, launch: sending.Launch, rendered: Path, machines: Machines, official: Official, paid: bool
) -> None:
    note = leg.write(_new_note(launch, official, paid))
    try:
        access = official.new(launch.name, launch.gpu)
    except LimitRefused:
        leg.forget()
        raise
    except MachineError as error:
        raise InDoubt(error.message, "boneagectl ls looks whether there is a machine") from None
    note = leg.write(replace(note, endpoint=access.endpoint))
    try:
        if paid:
            _check_rate(launch, official)
        with machines.opened(note) as runtime:
            kernel = sending.begin(runtime, rendered, launch)
    except BaseException as error:
        _undo(leg, note, error, machines)
        if isinstance(error, Gone | Missing):
            raise MachineError(f"the machine went away before the training began ({error.message})", _SLOW) from None
        raise
    leg.write(replace(note, kernel=kernel))


def _new_note(launch: sending.Launch, official: Official, paid: bool) -> Note:
    listed = official.sessions()
    if launch.name in [one.name for one in listed]:  # a second one would take its name, and nobody could stop the first
        raise MachineError(f"there is a machine {launch.name} already", "boneagectl doctor --target colab")
    before = tuple(one.endpoint for one in listed)
    usd_micro = rates.usd_micro_per_hour(launch.units_per_hour) if paid else 0
    hold_s = round(min(HOLD_S, HOLD_SHARE * launch.time_limit_s))
    worst_s = launch.time_limit_s + sending.STARTUP_S
    return Note(launch.name, launch.gpu, usd_micro, worst_s, hold_s, time.time(), before)


def _check_rate(launch: sending.Launch, official: Official) -> None:
    """What was booked rests on a table that Google does not publish. With other machines there, nobody can tell."""
    usage = official.usage()
    if usage.machines == 1 and usage.rate_per_hour > launch.units_per_hour:
        raise LimitRefused(
            f"Colab asks {usage.rate_per_hour:g} units an hour for a {launch.gpu}, {launch.units_per_hour:g} were "
            "booked; the machine was given back", "ask for another targets.colab.gpu"
        )  # fmt: skip


def _undo(leg: LegFolder, note: Note, error: BaseException, machines: Machines) -> None:
    try:
        machines.give_back(note)
    except MachineError as still:
        raise InDoubt(f"{error}; and then: {still.message}", still.next_step) from None
    leg.forget()


def settle_cut_off(leg: LegFolder, machines: Machines) -> bool:
    """Of a submit that was cut off, gives the machine back; what it cost is the leg's. Whether there was one."""
    note = leg.note
    if note is None:
        return False
    if locks.is_held(leg.submitting):
        raise Unreachable(f"{leg.leg_id} is being sent right now", "look again in some minutes")
    if note.kernel or leg.final:
        return True
    endpoint = machines.left_by(note)
    if endpoint:
        machines.give_back(replace(note, endpoint=endpoint))
        leg.end(looking.ended(note, LegState.LOST, "its submit was cut off; its machine was given back"))
        leg.release()
    return bool(endpoint)
