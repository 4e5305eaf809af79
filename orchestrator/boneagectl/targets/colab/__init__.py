"""The `colab` target: a notebook that a person runs, or, where Google's own command line is installed, unattended.

Each leg keeps the way it was begun by, whatever the settings say later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from boneage_trainer.contract import RunFolder
from boneagectl.errors import UsageError
from boneagectl.models import (
    Artifacts,
    Bundle,
    Capabilities,
    Checkpoint,
    Finding,
    Handle,
    JobSpec,
    Observation,
    Quote,
    Verdict,
)
from boneagectl.target_settings import ColabSettings
from boneagectl.targets.base import BaseTarget
from boneagectl.targets.colab.cli_mode import KIND, ByCli
from boneagectl.targets.colab.notebook_mode import ByHand

SESSION_HOURS = 12.0
"""Of a free account; research.google.com/colaboratory/faq.html."""
_BY_HAND = Capabilities(
    unattended=False,
    can_stop=False,
    billed=False,
    max_session_hours=SESSION_HOURS,
    live_metrics=False,
    needs_network=True,  # Drive, or a leg that the command line began: neither may hold up `ls`
    appears_s=300,
    poll_every_s=30.0,
    attaches_data=True,
)


class ColabTarget(BaseTarget):
    """`root` keeps notes of the legs; ``settings.via`` decides how new ones are started: notebook or cli."""

    name = "colab"

    def __init__(self, root: Path, settings: ColabSettings) -> None:
        self._via_cli = settings.via == "cli"
        self.by_hand = ByHand(root, settings)
        self.by_cli = ByCli(root / "by-cli", settings)
        self.capabilities = self.by_cli.capabilities if self._via_cli else _BY_HAND

    @property
    def _new(self) -> ByHand | ByCli:
        return self.by_cli if self._via_cli else self.by_hand

    def _way(self, handle: Handle) -> ByHand | ByCli:
        return self.by_cli if handle.remote_id.startswith(KIND) else self.by_hand

    # -------------------------------------------------------------------------- before the start
    def check(self) -> list[Finding]:
        said = self.by_cli.check()
        if not self._via_cli:  # what is wrong with a way that nobody asked for stands in nobody's way
            said = [replace(one, level="warn") if one.level == "bad" else one for one in said]
        return [*self.by_hand.findings(), *said]

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        return self.by_cli.preflight(spec) if self._via_cli else []

    def quote(self, spec: JobSpec) -> Quote:
        return self._new.quote(spec)

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        self._new.render(spec, bundle, leg_id, dest, resume)

    def rehearse(self, rendered: Path, workspace: Path, python: str) -> Iterator[Finding]:
        return self._new.rehearse(rendered, workspace, python)

    # ------------------------------------------------------------------------------- the start
    def submit(self, leg_id: str, rendered: Path) -> Handle:
        return self._new.submit(leg_id, rendered)

    def next_steps(self, handle: Handle) -> list[str]:
        return [] if handle.remote_id.startswith(KIND) else self.by_hand.next_steps(handle)

    def find(self, leg_id: str) -> Handle | None:
        return self.by_hand.find(leg_id) or self.by_cli.find(leg_id)

    # ---------------------------------------------------------------------------- while it runs
    def poll(self, handle: Handle) -> Observation:
        return self._way(handle).poll(handle)

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        return self._way(handle).logs(handle, follow)

    def stop(self, handle: Handle) -> None:
        self._way(handle).stop(handle)

    def wind_down(self, handle: Handle) -> Iterator[str]:
        return self.by_cli.wind_down(handle) if handle.remote_id.startswith(KIND) else iter(())

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        return self._way(handle).collect(handle, dest)

    def collect_from_zip(self, handle: Handle, zip_path: Path, dest: Path) -> Artifacts:
        """From the zip that a notebook offered, instead of from there.

        Raises:
            UsageError: this leg has no notebook.
        """
        if handle.remote_id.startswith(KIND):
            raise UsageError(f"{handle.remote_id} runs unattended: nothing is downloaded by hand", "leave --from out")
        return self.by_hand.collect_from_zip(handle, zip_path, RunFolder(dest))
