"""The targets by name."""

from __future__ import annotations

from boneage_trainer.contract import unknown
from boneagectl.config import Config
from boneagectl.errors import UsageError
from boneagectl.paths import Home
from boneagectl.targets.base import Target

NAMES = ("local", "kaggle")


def check_name(name: str) -> None:
    """Raises UsageError where there is no target called `name`."""
    if name not in NAMES:
        raise UsageError(unknown("target", name, NAMES))


def get(name: str, home: Home, config: Config) -> Target:
    """The target called `name`, set up from `config`."""
    check_name(name)
    if name == "kaggle":
        return _kaggle(home, config)
    from boneagectl.targets.local import LocalTarget

    return LocalTarget(home.local, config["targets.local.python"], config["targets.local.usd_per_hour"])


def _kaggle(home: Home, config: Config) -> Target:
    from boneagectl.targets.kaggle import KaggleTarget
    from boneagectl.targets.kaggle.rendering import Wishes

    names = ("username", "dataset", "machine_shape", "internet", "code")
    wishes = {name: config[f"targets.kaggle.{name}"] for name in names}
    return KaggleTarget(home.kaggle, Wishes(**wishes, models=tuple(config["targets.kaggle.models"])))
