"""The interface of every target: six methods that it must implement, and defaults for all others.

Exceptions of the provider are those of errors.py below RemoteError. A method that lists none raises none.
docs/adding-a-target.md has a complete example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Protocol, runtime_checkable

from boneagectl.errors import NotFound, UsageError
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


class BaseTarget(ABC):
    """A place where legs run. Vendor SDKs are imported inside the methods that need them."""

    name: str
    capabilities: Capabilities

    # -------------------------------------------------------------------- what a target must implement
    @abstractmethod
    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        """Writes into the new folder `dest` exactly what `submit` sends, in the provider's format.

        Repeatable: the same arguments give the same bytes. No network, no waiting.

        Raises:
            UsageError: the target cannot run this bundle, or cannot resume from that checkpoint.
        """

    @abstractmethod
    def submit(self, leg_id: str, rendered: Path) -> Handle:
        """Starts the rendered leg and returns once the provider has accepted it. Not repeatable: `find` comes first.

        Raises:
            NotSignedIn, ProviderRefused, Unreachable: the leg does not exist.
            SubmitUncertain: it may or may not exist; its reservation stays until `find` tells.
        """

    @abstractmethod
    def poll(self, handle: Handle) -> Observation:
        """The leg's state now. Repeatable; never waits for a change. A leg that is gone is LOST.

        Raises:
            NotSignedIn, Unreachable: the state is unknown.
        """

    @abstractmethod
    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        """The lines of the log so far; with `follow` it waits for further lines until the leg is over. Repeatable.

        Raises:
            NotSignedIn, Unreachable: the log cannot be read now.
        """

    @abstractmethod
    def stop(self, handle: Handle) -> None:
        """Asks the leg to save and end, waits for that, and ends it by force if it does not. Repeatable.

        Does nothing for a leg that is over or unknown.

        Raises:
            NotSignedIn, ProviderRefused, Unreachable: the leg may still run.
        """

    @abstractmethod
    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        """Downloads the leg's outputs so far into `dest` and verifies their checksums. Repeatable, also while it runs.

        Raises:
            NotYet: there are no outputs. MachineError: the disk is full, or a file name points outside `dest`.
            NotSignedIn, ProviderRefused, Unreachable: what was downloaded is kept, and the next call resumes.
        """

    # ------------------------------------------------------------------------------------ defaults
    def check(self) -> list[Finding]:
        """What prevents legs from running here, for doctor. May take some seconds. Default: nothing."""
        return []

    def quota(self) -> Quota | None:
        """The hours that the provider grants, by its own count. Default: None, it counts none.

        Raises:
            NotSignedIn, ProviderRefused, Unreachable: it cannot be asked.
        """
        return None

    def bill(self) -> Bill | None:
        """What the provider has billed. Default: None, it bills nothing.

        Raises:
            NotSignedIn, ProviderRefused, Unreachable: it cannot be asked, or does not answer for this account.
        """
        return None

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        """What the provider would refuse of this leg, asked before anything is reserved. Default: nothing.

        Raises:
            NotSignedIn, ProviderRefused, Unreachable: it cannot be asked.
        """
        return []

    def quote(self, spec: JobSpec) -> Quote:
        """The maximum cost of one leg that the remote limit allows. No network. Default: it costs nothing.

        A target whose legs are billed must override it.
        """
        today = date.today().isoformat()  # noqa: DTZ011
        return Quote(self.name, spec.time_limit_s, 0, 0, 1, f"{self.name} is free of charge", today)

    def rehearse(self, rendered: Path, workspace: Path, python: str) -> Iterator[Finding]:
        """Executes what `submit` would send on this machine, in the empty folder `workspace`. Default: refused.

        Raises:
            UsageError: there is nothing to rehearse. MachineError: the rehearsal failed.
        """
        raise UsageError(f"the target {self.name} has no rehearsal", "boneagectl train check")

    def next_steps(self, handle: Handle) -> list[str]:
        """What the user has to do after the submit. Default: nothing, the leg runs by itself."""
        return []

    def find(self, leg_id: str) -> Handle | None:
        """The remote object that has this leg's id, or None if there certainly is none. Repeatable.

        Default: the object's id is the leg's id, and `poll` raises NotFound if there is no such object.

        Raises:
            NotSignedIn, Unreachable: it is unknown whether the leg exists.
        """
        handle = Handle(self.name, leg_id)
        try:
            self.poll(handle)
        except NotFound:
            return None
        return handle

    def wind_down(self, handle: Handle) -> Iterator[str]:
        """Waits until nothing of a leg that is over is billed any more; yields what still is. Default: nothing is.

        Raises:
            ProviderRefused: it does not go away. NotSignedIn, Unreachable: it is unknown whether it is gone.
        """
        return iter(())


@runtime_checkable
class AcceptsResultsZip(Protocol):
    """A target whose outputs the user may download as a zip."""

    def collect_from_zip(self, handle: Handle, zip_path: Path, dest: Path) -> Artifacts:
        """Verifies the leg's outputs in `zip_path` and unpacks them into `dest`. Repeatable.

        Raises:
            UsageError: it belongs to another leg, or is older than what `dest` has.
            MachineError: it is damaged, or a file name points outside `dest`.
        """
