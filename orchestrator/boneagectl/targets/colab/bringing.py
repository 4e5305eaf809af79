"""What a machine has of a leg, to this computer: as it runs, in the background; and at its end, the machine back."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

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
        self._starting = threading.Lock()

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
        with self._starting:
            before = self._threads.get(leg.leg_id)
            if before is None or not before.is_alive():
                self._threads[leg.leg_id] = thread = threading.Thread(target=self._quietly, args=(leg,))
                thread.start()

    def _quietly(self, leg: LegFolder) -> None:
        """What fails here is tried again at the next look."""
        with suppress(BoneagectlError, OSError):
            if leg.final:
                self.finish(leg)
            else:
                self.bring(leg)

    def settle(self) -> None:
        """Waits for what goes on in the background."""
        for thread in list(self._threads.values()):
            thread.join()
