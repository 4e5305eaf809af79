"""The `colab` target: a notebook that the user runs, or unattended runs through Google's own command line.

A leg keeps the mode it was submitted with, whatever the settings say later.
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
from boneagectl.targets.colab.cli_mode import CLI_PREFIX, CliMode
from boneagectl.targets.colab.notebook_mode import NotebookMode

SESSION_HOURS = 12.0
"""Of a free account: research.google.com/colaboratory/faq.html."""
_NOTEBOOK_CAPABILITIES = Capabilities(
    unattended=False,
    can_stop=False,
    billed=False,
    max_session_hours=SESSION_HOURS,
    live_metrics=False,
    needs_network=True,  # for Drive, and for legs of Google's CLI: neither may delay `ls`
    appears_s=300,
    poll_every_s=30.0,
    attaches_data=True,
)


class ColabTarget(BaseTarget):
    """`root` holds the records of the legs; ``settings.via`` is the mode of new ones: ``notebook`` or ``cli``."""

    name = "colab"

    def __init__(self, root: Path, settings: ColabSettings) -> None:
        self._uses_cli = settings.via == "cli"
        self.notebook_mode = NotebookMode(root, settings)
        self.cli_mode = CliMode(root / "by-cli", settings)
        self.capabilities = self.cli_mode.capabilities if self._uses_cli else _NOTEBOOK_CAPABILITIES

    @property
    def _new_mode(self) -> NotebookMode | CliMode:
        return self.cli_mode if self._uses_cli else self.notebook_mode

    def _mode(self, handle: Handle) -> NotebookMode | CliMode:
        return self.cli_mode if handle.remote_id.startswith(CLI_PREFIX) else self.notebook_mode

    def check(self) -> list[Finding]:
        findings = self.cli_mode.check()
        if not self._uses_cli:  # problems of the mode that is not in use block nothing
            findings = [replace(item, level="warn") if item.level == "bad" else item for item in findings]
        return [*self.notebook_mode.check(), *findings]

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        return self.cli_mode.preflight(spec) if self._uses_cli else []

    def quote(self, spec: JobSpec) -> Quote:
        return self._new_mode.quote(spec)

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        self._new_mode.render(spec, bundle, leg_id, dest, resume)

    def rehearse(self, rendered: Path, workspace: Path, python: str) -> Iterator[Finding]:
        return self._new_mode.rehearse(rendered, workspace, python)

    def submit(self, leg_id: str, rendered: Path) -> Handle:
        return self._new_mode.submit(leg_id, rendered)

    def next_steps(self, handle: Handle) -> list[str]:
        return [] if handle.remote_id.startswith(CLI_PREFIX) else self.notebook_mode.next_steps(handle)

    def find(self, leg_id: str) -> Handle | None:
        return self.notebook_mode.find(leg_id) or self.cli_mode.find(leg_id)

    def poll(self, handle: Handle) -> Observation:
        return self._mode(handle).poll(handle)

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        return self._mode(handle).logs(handle, follow)

    def stop(self, handle: Handle) -> None:
        self._mode(handle).stop(handle)

    def wind_down(self, handle: Handle) -> Iterator[str]:
        return self.cli_mode.wind_down(handle) if handle.remote_id.startswith(CLI_PREFIX) else iter(())

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        return self._mode(handle).collect(handle, dest)

    def collect_from_zip(self, handle: Handle, zip_path: Path, dest: Path) -> Artifacts:
        """Results from the zip that a notebook offered as a download.

        Raises:
            UsageError: this leg has no notebook.
        """
        if handle.remote_id.startswith(CLI_PREFIX):
            raise UsageError(f"{handle.remote_id} is a CLI leg, which has no zip to download", "omit --from")
        return self.notebook_mode.import_results(handle, zip_path, RunFolder(dest))
