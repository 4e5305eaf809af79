"""Legs on Colab without a browser: Google's CLI creates the runtime, Jupyter's protocol does the rest.

A runtime has no permanent disk: after each epoch the new files are downloaded in the background, and at the end the
runtime is released and the account's list is checked. While this computer is off, the runtime releases itself.
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
from boneagectl.targets.colab.cli_session import OutputDownloader
from boneagectl.targets.colab.cli_state import CliLegFolder, LegRecord
from boneagectl.targets.colab.colab_cli import ColabCli
from boneagectl.targets.colab.jupyter import RuntimeGone
from boneagectl.targets.colab.runtimes import Runtimes

CLI_PREFIX = "cli/"
"""Of a handle's remote id; a notebook leg's has none."""
_FOLLOW_S = 3.0
_STOP_POLL_S = 1.0
_NO_STOP = "it did not stop when asked; its runtime was released"


class CliMode:
    """`root` holds a record of each leg, what was downloaded of it, and the state of Google's CLI."""

    name = "colab"

    def __init__(self, root: Path, settings: ColabSettings, stop_grace_s: float = 120) -> None:
        self.root, self.settings, self.stop_grace_s = root, settings, stop_grace_s
        self.colab = ColabCli(root, settings.program, settings.auth)
        self.runtimes = Runtimes(self.colab)
        self.downloader = OutputDownloader(self.runtimes)
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
        return list(preflight.check_setup(self.colab, self.settings.gpu, self.settings.paid, self.find_orphans))

    def find_orphans(self) -> list[Finding]:
        """Runtimes that no active leg here needs. Raises RemoteError where they cannot be listed."""

        def is_expected(name: str) -> bool:
            leg = self._folder(name.removeprefix(upload.runtime_name("")))
            return leg.record is not None and leg.final is None

        return preflight.find_orphans(self.colab.list_runtimes(), is_expected)

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        needed_units = colab_cli.units_per_hour(self.settings.gpu) * (spec.time_limit_s + upload.STARTUP_S) / 3600
        return preflight.check_account(self.colab, self.settings.paid, needed_units)

    def quote(self, spec: JobSpec) -> Quote:
        """The runtime releases itself at the time limit, or sooner where the run does not start."""
        rate_units = colab_cli.units_per_hour(self.settings.gpu)
        rate = colab_cli.usd_micro_per_hour(rate_units) if self.settings.paid else 0
        worst_s = spec.time_limit_s + upload.STARTUP_S
        return Quote(self.name, worst_s, units.cost_usd_micro(rate, worst_s), rate, 1, colab_cli.SOURCE, colab_cli.DATE)

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        upload.render_upload(spec, bundle, leg_id, dest, resume, self.settings.gpu, self.settings.dataset)

    def rehearse(self, rendered: Path, workspace: Path, python: str) -> Iterator[Finding]:
        raise UsageError(
            "a Colab CLI leg cannot be rehearsed", "rehearse the notebook, which runs the same trainer: --via notebook"
        )

    # ------------------------------------------------------------------------------- the start
    def submit(self, leg_id: str, rendered: Path) -> Handle:
        """Returns once everything is uploaded and the run has started; with a large pack that takes minutes."""
        cli_session.submit_leg(self._folder(leg_id), rendered, self.runtimes, self.colab, self.settings.paid)
        return self._handle(leg_id)

    def find(self, leg_id: str) -> Handle | None:
        """After an interrupted submit the runtime is released, and the leg is lost."""
        return self._handle(leg_id) if cli_session.recover_submit(self._folder(leg_id), self.runtimes) else None

    # ---------------------------------------------------------------------------- while it runs
    def poll(self, handle: Handle) -> Observation:
        """Never waits; new files are downloaded in the background, and the runtime of an ended leg is released."""
        leg = self._leg(handle)
        record, observation = leg.record, leg.final
        if record is None:
            return Observation(LegState.LOST, "this computer has no record of it", elapsed_s=None)
        if observation is None:
            observation = self._observe(leg, record)
        has_news = observation.state.is_over or observation.epoch > leg.downloaded_epoch
        if has_news and record.kernel and not leg.released.exists():
            self.downloader.start(leg)
        return observation

    def _observe(self, leg: CliLegFolder, record: LegRecord) -> Observation:
        """A leg is lost only when its runtime is gone by the account's list; its own server's answer is not enough."""
        if not record.kernel:
            return Observation(LegState.QUEUED, "being submitted")
        try:
            try:
                with self.runtimes.connect(record) as client:
                    observation = status.poll_leg(client, leg.leg_id, record)
            except NotFound as error:
                self.runtimes.renew_access(record)
                message = f"{leg.leg_id} was not found on its runtime ({error.message})"
                raise Unreachable(message, "try again in some minutes") from None
            if observation.state is LegState.LOST:
                self.runtimes.renew_access(record)
        except RuntimeGone:
            if leg.final:  # another process has ended it meanwhile
                return leg.final
            leg.mark_released()
            return leg.save_final(status.lost_observation(leg, record))
        return leg.save_final(observation) if observation.state.is_over else observation

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        leg, shown = self._leg(handle), 0
        while True:
            is_over = not follow or self.poll(handle).state.is_over
            lines = self._load_log(leg).decode("utf-8", "replace").split("\n")
            complete = lines if is_over and lines[-1] else lines[:-1]
            yield from complete[shown:]
            shown = len(complete)
            if is_over:
                return
            time.sleep(_FOLLOW_S)

    def _load_log(self, leg: CliLegFolder) -> bytes:
        record, downloaded = leg.record, leg.run.log
        if record and record.kernel and not leg.released.exists():
            with suppress(RuntimeGone), self.runtimes.connect(record) as client:
                return client.read_file(f"{upload.remote_folder(leg.leg_id)}/run/{downloaded.name}")
        return downloaded.read_bytes() if downloaded.exists() else b""

    # ------------------------------------------------------------------------- its end
    def stop(self, handle: Handle) -> None:
        """Interrupts the trainer, waits until it has saved, downloads its files, and releases the runtime."""
        leg = self._leg(handle)
        record = leg.record
        if record is None or not record.kernel:
            return
        if not leg.final:
            last = self._interrupt(leg, record)
            if not leg.final:
                with suppress(NotYet, Unreachable, RuntimeGone):
                    self.downloader.download(leg)
                leg.save_final(status.ended_observation(record, LegState.LOST, _NO_STOP, last))
        self.downloader.finish(leg)

    def _interrupt(self, leg: CliLegFolder, record: LegRecord) -> Observation:
        """The last observation, after at most `stop_grace_s`."""
        give_up_s, observation = time.monotonic() + self.stop_grace_s, self._observe(leg, record)
        if not observation.state.is_over:
            with suppress(RuntimeGone), self.runtimes.connect(record) as client:
                client.interrupt(record.kernel)
        while not observation.state.is_over and time.monotonic() < give_up_s:
            time.sleep(_STOP_POLL_S)
            observation = self._observe(leg, record)
        return observation

    def wind_down(self, handle: Handle) -> Iterator[str]:
        leg = self._leg(handle)
        if leg.record and leg.final and not leg.released.exists():
            yield "the Colab runtime is still running: downloading its files, then releasing it"
            self.downloader.finish(leg)

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        leg = self._leg(handle)
        if leg.record is None:
            raise NotYet(f"this computer has no record of {leg.leg_id}", "boneagectl show")
        with suppress(RuntimeGone):
            self.downloader.download(leg)
        return artifacts.copy_outputs(leg.run, RunFolder(dest))

    # ----------------------------------------------------------------------------------- its folder
    def _handle(self, leg_id: str) -> Handle:
        return Handle(self.name, CLI_PREFIX + leg_id)

    def _leg(self, handle: Handle) -> CliLegFolder:
        return self._folder(handle.remote_id.removeprefix(CLI_PREFIX))

    def _folder(self, leg_id: str) -> CliLegFolder:
        return CliLegFolder(self.root, leg_id)
