"""Every path of the orchestrator on the user's machine."""

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
    """The platform's folder for application data."""
    if _ON_LINUX:  # the same as platformdirs, whose import costs 12 ms
        return _xdg_folder("XDG_DATA_HOME", "~/.local/share")
    import platformdirs

    return Path(platformdirs.user_data_dir(_APP, appauthor=False))


def config_folder() -> Path:
    """The platform's folder for application settings."""
    if _ON_LINUX:
        return _xdg_folder("XDG_CONFIG_HOME", "~/.config")
    import platformdirs

    return Path(platformdirs.user_config_dir(_APP, appauthor=False))


def _xdg_folder(variable: str, default: str) -> Path:
    """A relative path in the variable is ignored, as the XDG specification requires."""
    given = Path(os.environ.get(variable, "").strip())
    return (given if given.is_absolute() else Path(default).expanduser()) / _APP


@dataclass(frozen=True, slots=True)
class LegPaths:
    """One leg's folder."""

    root: Path

    @property
    def sent(self) -> Path:
        """Exactly what is submitted, in the provider's format."""
        return self.root / "sent"

    @property
    def plan(self) -> Path:
        """``plan.json``: the plan that was shown, with prices."""
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
    """The state folder: ``BONEAGECTL_HOME``, or the platform's folder for application data."""

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
        """Where the `local` target runs its jobs."""
        return self.root / "local"

    @property
    def kaggle(self) -> Path:
        """Records of the `kaggle` target that Kaggle does not keep."""
        return self.root / "kaggle"

    @property
    def azure(self) -> Path:
        """Refreshed prices of the `azure` target."""
        return self.root / "azure"

    @property
    def colab(self) -> Path:
        """Records of the `colab` target about notebooks and sessions."""
        return self.root / "colab"

    def run(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def report(self, run_id: str) -> Path:
        return self.run(run_id) / "report.html"

    @property
    def index(self) -> Path:
        """The page of all runs, which links their reports."""
        return self.root / "runs" / "index.html"

    @property
    def comparison(self) -> Path:
        return self.root / "runs" / "comparison.html"

    def leg(self, run_id: str, number: int) -> LegPaths:
        return LegPaths(self.run(run_id) / "legs" / f"{number:02d}")

    def create(self) -> None:
        """Creates the folder, readable by its owner only.

        Raises:
            MachineError: it cannot be created or written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = self.root / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise MachineError(
                f"state folder {self.root} cannot be written: {error.strerror}",
                f"make it writable, or set {HOME_VARIABLE} to another folder",
            ) from None


def data_dir(name: str) -> Path:
    """The folder `name` (``templates`` or ``infra``) that ships with the code: in the wheel, else in the checkout."""
    package = Path(__file__).resolve().parent
    shipped = package / "_data" / name
    return shipped if shipped.is_dir() else package.parents[1] / name
