"""What is kept here of a leg on a machine of Colab's: how far its submit came, what it left, how it ended."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from boneage_trainer.contract import RunFolder, parse_object, read_metrics, write_json
from boneagectl import locks
from boneagectl.errors import MachineError
from boneagectl.models import LegState, Observation

_WAIT_S = 900.0
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Note:
    """Written before there is a machine, so that a crash leaves a name to look for.

    `before` are the machines there were then; `endpoint` and `kernel` are empty until they are known.
    """

    name: str
    gpu: str
    usd_micro_per_hour: int
    worst_s: int
    hold_s: int
    asked_s: float
    before: tuple[str, ...]
    endpoint: str = ""
    kernel: str = ""


class LegFolder:
    """``ROOT/<leg>.json`` is the note, ``ROOT/<leg>/`` what came from there."""

    def __init__(self, root: Path, leg_id: str) -> None:
        self.leg_id, self._note, self.root = leg_id, root / f"{leg_id}.json", root / leg_id

    @property
    def run(self) -> RunFolder:
        """What was brought so far."""
        return RunFolder(self.root / "run")

    @property
    def released(self) -> Path:
        """There once the machine was seen to be gone."""
        return self.root / "released"

    @property
    def note(self) -> Note | None:
        if not self._note.exists():
            return None
        said = parse_object(self._note.read_text(encoding="utf-8"), self._note.name)
        return Note(**{**said, "before": tuple(said["before"])})

    def write(self, note: Note) -> Note:
        write_json(self._note, dataclasses.asdict(note))
        return note

    def forget(self) -> None:
        """Nothing came of it."""
        self._note.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------- its end
    @property
    def final(self) -> Observation | None:
        """How it ended; what is over does not change."""
        path = self.root / "final.json"
        if not path.exists():
            return None
        said = parse_object(path.read_text(encoding="utf-8"), path.name)
        return Observation(**{**said, "state": LegState(said["state"])})

    def end(self, seen: Observation) -> Observation:
        write_json(self.root / "final.json", dataclasses.asdict(seen))
        return seen

    @property
    def kept_epoch(self) -> int:
        return len(read_metrics(self.run.metrics))

    def release(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.released.touch()

    # --------------------------------------------------------------------------------------- locks
    @property
    def submitting(self) -> Path:
        return self.root / "submit.lock"

    @contextmanager
    def held(self) -> Iterator[None]:
        """One at a time brings files, of all processes.

        Raises:
            MachineError: another one has been at it for long.
        """
        give_up = time.monotonic() + _WAIT_S
        while True:
            try:
                with locks.hold(self.root / "bring.lock"):
                    yield
                return
            except locks.LockBusy:
                if time.monotonic() > give_up:
                    raise MachineError(f"another process still brings {self.leg_id}", "wait for it") from None
                time.sleep(_LOOK_S)
