"""What a target is: seven verbs, a check and a value that says what it can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from boneagectl.records import Artifacts, Bundle, Capabilities, Finding, Handle, JobSpec, Quote, Snapshot


class Target(Protocol):
    """A place where legs run. Vendor SDKs are imported inside the methods that need them."""

    name: str
    capabilities: Capabilities

    def check(self) -> list[Finding]:
        """What stands in the way of running here, for doctor. Never raises."""

    def quote(self, spec: JobSpec) -> Quote:
        """What one leg of `spec` costs at the worst that the remote limit lets happen. No network."""

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Path | None) -> None:
        """Writes into the new folder `dest` exactly what `submit` sends, in the vendor's format. No network.

        `resume` is the artifacts folder of the leg to go on from.
        """

    def submit(self, leg_id: str, rendered: Path) -> Handle:
        """Starts the rendered leg and returns at once. Not repeatable: `find` comes first."""

    def find(self, leg_id: str) -> Handle | None:
        """The remote thing that carries this leg's id, or None where there certainly is none."""

    def poll(self, handle: Handle) -> Snapshot:
        """The leg's state now. Never waits for a change."""

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        """The log's lines so far; with `follow`, further ones until the leg is over."""

    def stop(self, handle: Handle) -> None:
        """Asks the leg to save and end, and ends it by force if it does not; silent if already over."""

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        """Brings what the leg has made so far into `dest`, checked; repeatable, also while it runs.

        Raises:
            NotYet: there is nothing to bring.
        """
