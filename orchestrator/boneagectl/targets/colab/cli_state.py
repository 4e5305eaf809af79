"""What this computer keeps of a CLI leg: its record, the files downloaded so far, and how it ended."""

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

_LOCK_WAIT_S = 900.0
_LOCK_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class LegRecord:
    """Written before the runtime is requested, so that a crash leaves a name to search for.

    `name` is the runtime's; `worst_s` its longest life; `hold_s` how long it waits for its files to be downloaded;
    `asked_s` when it was requested; `before` the endpoints the account had then. `endpoint` and `kernel` are empty
    until they are known.
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


class CliLegFolder:
    """``ROOT/<leg>.json`` is the record, ``ROOT/<leg>/`` holds what was downloaded."""

    def __init__(self, root: Path, leg_id: str) -> None:
        self.leg_id, self._record_path, self.root = leg_id, root / f"{leg_id}.json", root / leg_id

    @property
    def run(self) -> RunFolder:
        """The run folder as downloaded so far."""
        return RunFolder(self.root / "run")

    @property
    def released(self) -> Path:
        """A marker file; exists once the account no longer lists the runtime."""
        return self.root / "released"

    @property
    def submit_lock(self) -> Path:
        return self.root / "submit.lock"

    @property
    def record(self) -> LegRecord | None:
        if not self._record_path.exists():
            return None
        values = parse_object(self._record_path.read_text(encoding="utf-8"), self._record_path.name)
        return LegRecord(**{**values, "before": tuple(values["before"])})

    def save_record(self, record: LegRecord) -> LegRecord:
        write_json(self._record_path, dataclasses.asdict(record))
        return record

    def delete_record(self) -> None:
        """For a leg that was never created."""
        self._record_path.unlink(missing_ok=True)

    @property
    def final(self) -> Observation | None:
        """How the leg ended; None while it runs. Once written it does not change."""
        path = self.root / "final.json"
        if not path.exists():
            return None
        values = parse_object(path.read_text(encoding="utf-8"), path.name)
        return Observation(**{**values, "state": LegState(values["state"])})

    def save_final(self, observation: Observation) -> Observation:
        write_json(self.root / "final.json", dataclasses.asdict(observation))
        return observation

    @property
    def downloaded_epoch(self) -> int:
        return len(read_metrics(self.run.metrics))

    def mark_released(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.released.touch()

    @contextmanager
    def download_lock(self) -> Iterator[None]:
        """Lets one process at a time download into this folder; waits for another one.

        Raises:
            MachineError: another process has held it for 15 minutes.
        """
        give_up_s = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                with locks.hold(self.root / "collect.lock"):
                    yield
                return
            except locks.LockBusy:
                if time.monotonic() > give_up_s:
                    raise MachineError(
                        f"another process has been downloading {self.leg_id} for {_LOCK_WAIT_S / 60:.0f} min",
                        "wait until it ends, then try again",
                    ) from None
                time.sleep(_LOCK_POLL_S)
