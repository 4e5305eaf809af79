"""The machines of legs: what opens them, which one a cut-off submit left, and giving them back with proof."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from boneagectl.errors import MachineError, Unreachable
from boneagectl.targets.colab.cli_state import Note
from boneagectl.targets.colab.colab_cli import Access, Official
from boneagectl.targets.colab.jupyter import Gone, Runtime

_SPARE_S = 120.0
_LOOKS_S = (0.0, 2.0, 5.0)


class Machines:
    def __init__(self, official: Official) -> None:
        self._official = official

    def access(self, note: Note) -> Access:
        """What opens the leg's machine; renewed where its hour is nearly over.

        Raises:
            Gone: there is no such machine. MachineError: the official command line cannot tell.
        """
        known = self._official.access(note.name)
        is_good = known and known.url and known.endpoint == note.endpoint and known.expires_s > time.time() + _SPARE_S
        return known if known and is_good else self.renewed(note)

    @contextmanager
    def opened(self, note: Note) -> Iterator[Runtime]:
        """The leg's machine, to be spoken to; raises as `access`."""
        with closing(Runtime(self.access(note), lambda: self.renewed(note))) as runtime:
            yield runtime

    def renewed(self, note: Note) -> Access:
        """As `access`, asked anew."""
        if note.endpoint not in self._endpoints():
            raise Gone(f"Colab has no machine {note.endpoint} of yours any more")
        known = self._official.access(note.name)
        if known is None or known.endpoint != note.endpoint:  # its name was lost, with the state file
            self._adopt(note.name, note.endpoint)
            known = self._official.access(note.name)
        if known is None:
            raise Unreachable(f"the official command line does not tell what opens {note.name}", "try again")
        return known

    def left_by(self, note: Note) -> str:
        """The endpoint of the machine that a cut-off submit has left, or nothing.

        It has the leg's name; or, where the command line was cut off too, it has none, came after the note was
        written, has the leg's GPU, and no kernel: what a browser opens has one.
        """
        listed = self._official.sessions()
        for one in listed:
            if one.name == note.name or one.endpoint == note.endpoint:
                return one.endpoint
        strangers = (one for one in listed if not one.name and one.gpu == note.gpu and one.endpoint not in note.before)
        return next((one.endpoint for one in strangers if self._is_empty(note.name, one.endpoint)), "")

    def _is_empty(self, name: str, endpoint: str) -> bool:
        """Whether nobody uses it; one that somebody does is not ours, and keeps no name of ours."""
        self._adopt(name, endpoint)
        access = self._official.access(name)
        if access:
            with suppress(MachineError), closing(Runtime(access, lambda: access)) as runtime:
                if not runtime.kernels():
                    return True
        self._official.disown(name)
        return False

    def give_back(self, note: Note) -> None:
        """Gives the machine back, and returns when the account's list shows it no more.

        Raises:
            MachineError: it still does, or nobody can tell.
        """
        known = self._official.access(note.name)
        if known is None or known.endpoint != note.endpoint:
            if note.endpoint not in self._endpoints():
                return
            self._adopt(note.name, note.endpoint)
        for pause_s in _LOOKS_S:
            time.sleep(pause_s)
            self._official.stop(note.name)
            if note.endpoint not in self._endpoints():
                return
            self._adopt(note.name, note.endpoint)
        raise MachineError(f"the machine of {note.name} still stands, and may be billed",
                           "end it in a browser: colab.research.google.com, Runtime > Manage sessions")  # fmt: skip

    def _adopt(self, name: str, endpoint: str) -> None:
        self._official.adopt(name, endpoint)
        self._endpoints()  # has the command line fetch what opens it

    def _endpoints(self) -> set[str]:
        return {one.endpoint for one in self._official.sessions()}
