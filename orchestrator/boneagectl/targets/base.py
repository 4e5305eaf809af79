"""What a target is: seven verbs, what it says before the start, and a value that says what it can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from boneagectl.models import (
    Artifacts,
    Bill,
    Bundle,
    Capabilities,
    Checkpoint,
    Finding,
    Handle,
    JobSpec,
    Observation,
    Quota,
    Quote,
    Verdict,
)


class Target(Protocol):
    """A place where legs run. Vendor SDKs are imported inside the methods that need them."""

    name: str
    capabilities: Capabilities

    def check(self) -> list[Finding]:
        """What stands in the way of running here, for doctor. Never raises."""

    def quota(self) -> Quota | None:
        """The hours the provider gives, as it counts them now; None where it counts none."""

    def bill(self) -> Bill | None:
        """What the provider itself says was spent; None where nothing is ever billed.

        Raises:
            MachineError: it cannot be asked, or does not tell for this account.
        """

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        """What the provider would refuse of this leg, asked before anything is booked."""

    def quote(self, spec: JobSpec) -> Quote:
        """What one leg of `spec` costs at the worst that the remote limit lets happen. No network."""

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        """Writes into the new folder `dest` exactly what `submit` sends, in the vendor's format. No network.

        Raises:
            UsageError: the target cannot take this bundle, or go on from that checkpoint.
        """

    def rehearse(self, rendered: Path, place: Path, python: str) -> Iterator[Finding]:
        """Runs what `submit` would send here, in the empty folder `place`, and tells what held.

        Raises:
            UsageError: there is nothing to rehearse. MachineError: it failed.
        """

    def submit(self, leg_id: str, rendered: Path) -> Handle:
        """Starts the rendered leg and returns at once. Not repeatable: `find` comes first.

        Raises:
            SubmitUncertain: it may or may not come to be; the booking must stand until `find` tells.
        """

    def next_steps(self, handle: Handle) -> list[str]:
        """What a person has to do now that the leg was submitted; nothing where it runs by itself."""

    def find(self, leg_id: str) -> Handle | None:
        """The remote thing that carries this leg's id, or None where there certainly is none."""

    def poll(self, handle: Handle) -> Observation:
        """The leg's state now. Never waits for a change."""

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        """The log's lines so far; with `follow`, further ones until the leg is over."""

    def stop(self, handle: Handle) -> None:
        """Asks the leg to save and end, and ends it by force if it does not; silent if already over."""

    def wind_down(self, handle: Handle) -> Iterator[str]:
        """After a leg is over: until nothing of it stands and is billed any more, what still does, in words.

        Raises:
            MachineError: it does not go away.
        """

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        """Brings what the leg has made so far into `dest`, checked; repeatable, also while it runs.

        Raises:
            NotYet: there is nothing to bring.
        """


@runtime_checkable
class Handed(Protocol):
    """A target whose results a person may bring themselves."""

    def bring(self, handle: Handle, zipped: Path, dest: Path) -> Artifacts:
        """The leg's results from `zipped`, checked like a stranger's, into `dest`.

        Raises:
            UsageError: it is another leg's, or an older one. MachineError: it is torn or hostile.
        """
