"""The start of a leg: a machine, everything sent, the training begun; and what becomes of a start that was cut off."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from boneage_trainer.contract import ContractError
from boneagectl import locks
from boneagectl.errors import (
    BoneagectlError,
    LimitRefused,
    MachineError,
    NotFound,
    NotYet,
    SubmitUncertain,
    Unreachable,
)
from boneagectl.models import Artifacts, LegState
from boneagectl.targets.colab import colab_cli, jupyter, status, upload
from boneagectl.targets.colab.cli_state import LegFolder, Note
from boneagectl.targets.colab.colab_cli import Official
from boneagectl.targets.colab.jupyter import Gone
from boneagectl.targets.colab.machines import Machines
from boneagectl.targets.colab.upload import folder_of

HOLD_S, HOLD_SHARE = 900, 0.1
"""As the trainer's `colab_unattended` has it."""

_SLOW = (
    f"Colab takes idle ones, and after {upload.STARTUP_S // 60} min it goes by itself: try again; where the pack "
    "takes so long, set targets.colab.dataset and submit without it"
)


def submit(leg: LegFolder, rendered: Path, machines: Machines, official: Official, paid: bool) -> None:
    """Whatever fails once there is a machine has it given back.

    Raises:
        LimitRefused: Colab gives no such machine, or at another price. SubmitUncertain: there may be one; `find` tells.
    """
    try:
        with locks.hold(leg.submitting):
            jupyter.check_installed()
            official.version()
            launch = upload.read(rendered)
            if launch.dataset:
                upload.authorization()  # rather now than when a machine waits for it
            _submit(leg, launch, rendered, machines, official, paid)
    except locks.LockBusy:
        raise MachineError(f"{leg.leg_id} is being sent by another process", "boneagectl ls") from None


def _submit(
    leg: LegFolder, launch: upload.Launch, rendered: Path, machines: Machines, official: Official, paid: bool
) -> None:
    note = leg.write(_new_note(launch, official, paid))
    try:
        access = official.new(launch.name, launch.gpu)
    except LimitRefused:
        leg.forget()
        raise
    except MachineError as error:
        raise SubmitUncertain(error.message, "boneagectl ls looks whether there is a machine") from None
    note = leg.write(replace(note, endpoint=access.endpoint))
    try:
        if paid:
            _check_rate(launch, official)
        with machines.opened(note) as runtime:
            kernel = upload.begin(runtime, rendered, launch)
    except BaseException as error:
        _undo(leg, note, error, machines)
        if isinstance(error, Gone | NotFound):
            raise MachineError(f"the machine went away before the training began ({error.message})", _SLOW) from None
        raise
    leg.write(replace(note, kernel=kernel))


def _new_note(launch: upload.Launch, official: Official, paid: bool) -> Note:
    listed = official.sessions()
    if launch.name in [one.name for one in listed]:  # a second one would take its name, and nobody could stop the first
        raise MachineError(f"there is a machine {launch.name} already", "boneagectl doctor --target colab")
    before = tuple(one.endpoint for one in listed)
    usd_micro = colab_cli.usd_micro_per_hour(launch.units_per_hour) if paid else 0
    hold_s = round(min(HOLD_S, HOLD_SHARE * launch.time_limit_s))
    worst_s = launch.time_limit_s + upload.STARTUP_S
    return Note(launch.name, launch.gpu, usd_micro, worst_s, hold_s, time.time(), before)


def _check_rate(launch: upload.Launch, official: Official) -> None:
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
        raise SubmitUncertain(f"{error}; and then: {still.message}", still.next_step) from None
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
        leg.end(status.ended(note, LegState.LOST, "its submit was cut off; its machine was given back"))
        leg.release()
    return bool(endpoint)


# == bringing: What a machine has of a leg, to this computer: as it runs, in the background; and at its end, the

LOOK_S = 1.0
_LISTS_S = 60.0


class Bringing:
    """One for all legs of a state folder, in each process."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._threads: dict[str, threading.Thread] = {}
        self._wanted: set[str] = set()
        self._changing = threading.Lock()

    def bring(self, leg: LegFolder) -> Artifacts | None:
        """None where the machine was given back, with everything here that came.

        Raises:
            NotYet: there is nothing yet. Gone: the machine is, without a word.
        """
        with leg.held():
            note = leg.note
            if note is None or not note.kernel or leg.released.exists():
                return None
            with self._machines.opened(note) as runtime:
                return status.bring(runtime, leg.leg_id, leg.run)

    def finish(self, leg: LegFolder) -> None:
        """Brings all that the leg listed, then gives the machine back and sees that it is gone.

        Raises:
            MachineError: it is not.
        """
        give_up, is_lost = time.monotonic() + _LISTS_S, leg.final and leg.final.state is LegState.LOST
        with suppress(Gone, NotYet):
            while (found := self.bring(leg)) and found.unlisted and not is_lost and time.monotonic() < give_up:
                time.sleep(LOOK_S)
        with leg.held():
            note = leg.note
            if note and not leg.released.exists():
                self._give_back(leg, note)

    def _give_back(self, leg: LegFolder, note: Note) -> None:
        try:
            self._machines.give_back(note)
        except MachineError:
            with suppress(MachineError), self._machines.opened(note) as runtime:  # it can still do so by itself
                runtime.write(f"{folder_of(leg.leg_id)}/fetched", b"all of it\n")
            raise
        leg.release()

    # ----------------------------------------------------------------------------- in the background
    def behind(self, leg: LegFolder) -> None:
        """Brings or finishes in a thread, which this process waits for when it ends. Returns at once."""
        with self._changing:
            self._wanted.add(leg.leg_id)
            before = self._threads.get(leg.leg_id)
            if before is None or not before.is_alive():
                self._threads[leg.leg_id] = thread = threading.Thread(target=self._work, args=(leg,))
                thread.start()

    def _work(self, leg: LegFolder) -> None:
        """As long as there is news: what came while it was at work may be the leg's end."""
        while True:
            with self._changing:
                if leg.leg_id not in self._wanted:
                    del self._threads[leg.leg_id]
                    return
                self._wanted.discard(leg.leg_id)
            with suppress(BoneagectlError, ContractError, OSError):  # what fails is tried again at the next look
                if leg.final:
                    self.finish(leg)
                else:
                    self.bring(leg)

    def settle(self) -> None:
        """Waits for what goes on in the background."""
        with self._changing:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join()
