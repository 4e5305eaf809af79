"""Where the orchestrator keeps things on the user's machine; every path of it, named once."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from boneagectl.errors import MachineError

if TYPE_CHECKING:  # `ls` opens no run folder, and the contract takes 10 ms to import
    from boneage_trainer.contract import RunFolder

HOME_VARIABLE = "BONEAGECTL_HOME"
_APP = "boneagectl"
_ON_LINUX: bool = sys.platform == "linux"


def data_folder() -> Path:
    """The platform's place for this application's data."""
    if _ON_LINUX:  # platformdirs says the same, but importing it costs 12 ms
        return _xdg_folder("XDG_DATA_HOME", "~/.local/share")
    import platformdirs

    return Path(platformdirs.user_data_dir(_APP, appauthor=False))


def config_folder() -> Path:
    """The platform's place for this application's settings."""
    if _ON_LINUX:
        return _xdg_folder("XDG_CONFIG_HOME", "~/.config")
    import platformdirs

    return Path(platformdirs.user_config_dir(_APP, appauthor=False))


def _xdg_folder(variable: str, default: str) -> Path:
    """A relative path in the variable does not count: so says the XDG specification."""
    given = Path(os.environ.get(variable, "").strip())
    return (given if given.is_absolute() else Path(default).expanduser()) / _APP


@dataclass(frozen=True, slots=True)
class LegPaths:
    """One leg's folder."""

    root: Path

    @property
    def sent(self) -> Path:
        """Exactly what was, or would be, sent: the target's vendor format."""
        return self.root / "sent"

    @property
    def plan(self) -> Path:
        """``plan.json``: what was shown before the start, prices included."""
        return self.root / "plan.json"

    @property
    def source_diff(self) -> Path:
        """How the bundled code differs from its commit; written only where it does."""
        return self.root / "source.diff"

    @property
    def lock(self) -> Path:
        """Held by the process that submits this leg, from before its reservation until attached."""
        return self.root / "submitting.lock"

    @property
    def artifacts(self) -> RunFolder:
        """What was collected."""
        from boneage_trainer.contract import RunFolder

        return RunFolder(self.root / "artifacts")


@dataclass(frozen=True, slots=True)
class Home:
    """The state folder: ``BONEAGECTL_HOME``, or the platform's place for application data."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        if given := os.environ.get(HOME_VARIABLE):
            return cls(Path(given).expanduser().absolute())
        return cls(data_folder())

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.db"

    @property
    def local(self) -> Path:
        """Where the `local` target runs its jobs: the other machine, as it were."""
        return self.root / "local"

    @property
    def kaggle(self) -> Path:
        """Where the `kaggle` target keeps what Kaggle would forget."""
        return self.root / "kaggle"

    @property
    def azure(self) -> Path:
        """Where the `azure` target keeps refreshed prices."""
        return self.root / "azure"

    @property
    def colab(self) -> Path:
        """Where the `colab` target keeps what it knows of notebooks and sessions."""
        return self.root / "colab"

    def run(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def report(self, run_id: str) -> Path:
        return self.run(run_id) / "report.html"

    @property
    def index(self) -> Path:
        """The page over all runs; it links each run's report beside it."""
        return self.root / "runs" / "index.html"

    @property
    def comparison(self) -> Path:
        return self.root / "runs" / "comparison.html"

    def leg(self, run_id: str, number: int) -> LegPaths:
        return LegPaths(self.run(run_id) / "legs" / f"{number:02d}")

    def create(self) -> None:
        """Makes the folder, readable by its owner only.

        Raises:
            MachineError: it cannot be made or written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = self.root / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise MachineError(
                f"state folder {self.root} cannot be written: {error.strerror}",
                f"free it, or set {HOME_VARIABLE} to a folder of your own",
            ) from None


# == resources: Finds the folders shipped beside the code, in a wheel and in a checkout alike.


def data_dir(name: str) -> Path:
    """The folder `name` (``templates`` or ``infra``): in the wheel, else in the checkout."""
    package = Path(__file__).resolve().parent
    shipped = package / "_data" / name
    return shipped if shipped.is_dir() else package.parents[1] / name
