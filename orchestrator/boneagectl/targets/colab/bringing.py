"""What a machine has of a leg, to this computer: as it runs, in the background; and at its end, the machine back."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from boneage_trainer.contract import ContractError
from boneagectl.errors import BoneagectlError, MachineError, NotYet
from boneagectl.records import Artifacts, LegState
from boneagectl.targets.colab import looking
from boneagectl.targets.colab.legs import LegFolder, Note
from boneagectl.targets.colab.machines import Machines
from boneagectl.targets.colab.runtime import Gone
from boneagectl.targets.colab.sending import folder_of

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
                return looking.bring(runtime, leg.leg_id, leg.run)

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
