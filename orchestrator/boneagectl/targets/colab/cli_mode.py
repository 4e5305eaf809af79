"""Legs on Colab without a browser: the official command line gets a machine, Jupyter's own protocol does the rest.

A machine has no disk that lasts: whenever an epoch was added, what is new is brought here in the background, and at
the end the machine is given back and seen to be gone. With this computer off, it gives itself back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from boneage_trainer.contract import RunFolder
from boneagectl import artifacts, units
from boneagectl.errors import NotFound, NotYet, Unreachable, UsageError
from boneagectl.models import (
    Artifacts,
    Bundle,
    Capabilities,
    Checkpoint,
    Finding,
    Handle,
    JobSpec,
    LegState,
    Observation,
    Quote,
    Verdict,
)
from boneagectl.target_settings import ColabSettings
from boneagectl.targets.colab import cli_session, colab_cli, preflight, status, upload
from boneagectl.targets.colab.cli_session import Bringing
from boneagectl.targets.colab.cli_state import LegFolder, Note
from boneagectl.targets.colab.colab_cli import Official
from boneagectl.targets.colab.jupyter import Gone
from boneagectl.targets.colab.machines import Machines

KIND = "cli/"
_FOLLOW_S = 3.0
_STOP_POLL_S = 1.0
_DEAF = "it did not heed the stop; its machine was given back"


class ByCli:
    """`root` keeps a note of each leg, what it left, and the command line's own state."""

    name = "colab"

    def __init__(self, root: Path, settings: ColabSettings, stop_grace_s: float = 120) -> None:
        self.root, self.settings, self.stop_grace_s = root, settings, stop_grace_s
        self.official = Official(root, settings.program, settings.auth)
        self.machines = Machines(self.official)
        self.bringing = Bringing(self.machines)
        self.capabilities = Capabilities(
            unattended=True,
            can_stop=True,
            billed=settings.paid,
            max_session_hours=11.5,
            live_metrics=True,
            needs_network=True,
            appears_s=300,
            poll_every_s=30.0,
            attaches_data=bool(settings.dataset),
        )

    # -------------------------------------------------------------------------- before the start
    def check(self) -> list[Finding]:
        return preflight.findings(self.official, self.settings.gpu, self.settings.paid, self.orphans)

    def orphans(self) -> list[Finding]:
        """Machines that no running leg here accounts for. Raises MachineError where they cannot be listed."""
        return preflight.orphans(self.official.sessions(), self._is_expected)

    def _is_expected(self, name: str) -> bool:
        leg = self._folder(name.removeprefix(upload.name_of("")))
        return leg.note is not None and leg.final is None

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        need = colab_cli.units_per_hour(self.settings.gpu) * (spec.time_limit_s + upload.STARTUP_S) / 3600
        return preflight.verdicts(self.official, self.settings.paid, need)

    def quote(self, spec: JobSpec) -> Quote:
        """The machine gives itself back at the time limit, or soon where the training never begins."""
        rate = self._usd_micro_per_hour()
        worst_s = spec.time_limit_s + upload.STARTUP_S
        return Quote(self.name, worst_s, units.cost_usd_micro(rate, worst_s), rate, 1, colab_cli.SOURCE, colab_cli.DATE)

    def _usd_micro_per_hour(self) -> int:
        rate = colab_cli.units_per_hour(self.settings.gpu)
        return colab_cli.usd_micro_per_hour(rate) if self.settings.paid else 0

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        upload.write(spec, bundle, leg_id, dest, resume, self.settings.gpu, self.settings.dataset)

    def rehearse(self, rendered: Path, place: Path, python: str) -> Iterator[Finding]:
        raise UsageError("a leg by the command line is not rehearsed", "rehearse the notebook: the trainer is the same")

    # ------------------------------------------------------------------------------- the start
    def submit(self, leg_id: str, rendered: Path) -> Handle:
        """Returns once everything is sent and the training has begun: with a large pack that takes minutes."""
        cli_session.submit(self._folder(leg_id), rendered, self.machines, self.official, self.settings.paid)
        return self._handle(leg_id)

    def find(self, leg_id: str) -> Handle | None:
        """Of a submit that was cut off, the machine is given back, and the leg is lost."""
        return self._handle(leg_id) if cli_session.settle_cut_off(self._folder(leg_id), self.machines) else None

    # ---------------------------------------------------------------------------- while it runs
    def poll(self, handle: Handle) -> Observation:
        """Never waits; what is new there is brought behind it, and a machine that is done with goes back."""
        leg = self._of(handle)
        note, seen = leg.note, leg.final
        if note is None:
            return Observation(LegState.LOST, "this computer knows nothing of it", elapsed_s=None)
        if seen is None:
            seen = self._look(leg, note)
        is_news = seen.state.is_over or seen.epoch > leg.kept_epoch
        if is_news and note.kernel and not leg.released.exists():
            self.bringing.behind(leg)
        return seen

    def _look(self, leg: LegFolder, note: Note) -> Observation:
        if not note.kernel:
            return Observation(LegState.QUEUED, "it is being sent")
        try:
            seen = self._seen(leg, note)
        except Gone:
            if leg.final:  # another process has ended it meanwhile
                return leg.final
            leg.release()
            return leg.end(status.lost(leg, note))
        return leg.end(seen) if seen.state.is_over else seen

    def _seen(self, leg: LegFolder, note: Note) -> Observation:
        """Raises Gone where it is the machine that is lost; what it says of itself is not enough for that."""
        try:
            with self.machines.opened(note) as runtime:
                seen = status.look(runtime, leg.leg_id, note)
        except NotFound as error:
            self.machines.renewed(note)
            raise Unreachable(f"nothing of it is found on its machine ({error.message})", "look again") from None
        if seen.state is LegState.LOST:
            self.machines.renewed(note)
        return seen

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        leg, seen = self._of(handle), 0
        while True:
            is_over = not follow or self.poll(handle).state.is_over
            lines = self._log(leg).decode("utf-8", "replace").split("\n")
            whole = lines if is_over and lines[-1] else lines[:-1]
            yield from whole[seen:]
            seen = len(whole)
            if is_over:
                return
            time.sleep(_FOLLOW_S)

    def _log(self, leg: LegFolder) -> bytes:
        note, kept = leg.note, leg.run.log
        if note and note.kernel and not leg.released.exists():
            with suppress(Gone), self.machines.opened(note) as runtime:
                return runtime.read(f"{upload.folder_of(leg.leg_id)}/run/{kept.name}")
        return kept.read_bytes() if kept.exists() else b""

    # ------------------------------------------------------------------------- its end
    def stop(self, handle: Handle) -> None:
        """Interrupts, waits until the trainer has saved, brings what there is, and sees that the machine is gone."""
        leg = self._of(handle)
        note = leg.note
        if note is None or not note.kernel:
            return
        if not leg.final:
            seen = self._interrupted(leg, note)
            if not leg.final:
                with suppress(NotYet, Unreachable, Gone):
                    self.bringing.bring(leg)
                leg.end(status.ended(note, LegState.LOST, _DEAF, seen))
        self.bringing.finish(leg)

    def _interrupted(self, leg: LegFolder, note: Note) -> Observation:
        """The last look at it, after at most the time of grace."""
        give_up, seen = time.monotonic() + self.stop_grace_s, self._look(leg, note)
        if not seen.state.is_over:
            with suppress(Gone), self.machines.opened(note) as runtime:
                runtime.interrupt(note.kernel)
        while not seen.state.is_over and time.monotonic() < give_up:
            time.sleep(_STOP_POLL_S)
            seen = self._look(leg, note)
        return seen

    def wind_down(self, handle: Handle) -> Iterator[str]:
        leg = self._of(handle)
        if leg.note and leg.final and not leg.released.exists():
            yield "the machine still stands; bringing what it left, then giving it back"
            self.bringing.finish(leg)

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        leg = self._of(handle)
        note = leg.note
        if note is None:
            raise NotYet(f"{leg.leg_id} is not known on this computer", "boneagectl show")
        with suppress(Gone):
            self.bringing.bring(leg)
        return artifacts.copy_outputs(leg.run, RunFolder(dest))

    # ----------------------------------------------------------------------------------- places
    def _handle(self, leg_id: str) -> Handle:
        return Handle(self.name, KIND + leg_id)

    def _of(self, handle: Handle) -> LegFolder:
        return self._folder(handle.remote_id.removeprefix(KIND))

    def _folder(self, leg_id: str) -> LegFolder:
        return LegFolder(self.root, leg_id)
