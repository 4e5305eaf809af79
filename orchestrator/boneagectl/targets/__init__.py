"""The targets by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boneage_trainer.contract import unknown_name
from boneagectl import units
from boneagectl.config import Config
from boneagectl.errors import UsageError
from boneagectl.paths import Home
from boneagectl.targets.base import Target

if TYPE_CHECKING:
    from boneagectl.targets.azure import AzureTarget
    from boneagectl.targets.kaggle import KaggleTarget

NAMES = ("local", "kaggle", "colab", "azure")


def check_name(name: str) -> None:
    """Raises UsageError where there is no target called `name`."""
    if name not in NAMES:
        raise UsageError(unknown_name("target", name, NAMES))


def get(name: str, home: Home, config: Config) -> Target:
    """The target called `name`, set up from `config`."""
    check_name(name)
    if name == "kaggle":
        return kaggle_target(home, config)
    if name == "colab":
        return _colab(home, config)
    if name == "azure":
        return azure_target(home, config)
    from boneagectl.targets.local import LocalTarget

    return LocalTarget(home.local, config["targets.local.python"], config["targets.local.usd_per_hour"])


def kaggle_target(home: Home, config: Config) -> KaggleTarget:
    """The kaggle target, by its own type: its data sets have commands of their own."""
    from boneagectl.targets.kaggle import KaggleTarget
    from boneagectl.targets.kaggle.render import Wishes

    names = ("username", "dataset", "machine_shape", "internet", "code")
    wishes = {name: config[f"targets.kaggle.{name}"] for name in names}
    return KaggleTarget(home.kaggle, Wishes(**wishes, models=tuple(config["targets.kaggle.models"])))


def azure_target(home: Home, config: Config) -> AzureTarget:
    """The azure target, by its own type: its infrastructure and prices have commands of their own."""
    from boneagectl.targets.azure import AzureTarget
    from boneagectl.targets.azure.render import Wishes

    names = ("subscription", "resource_group", "workspace", "region", "cluster", "size", "tier", "nodes",
             "environment", "pack")  # fmt: skip
    wishes = {name: config[f"targets.azure.{name}"] for name in names}
    idle_s = units.parse_duration_s(config["targets.azure.idle"])
    return AzureTarget(home.azure, Wishes(**wishes, idle_s=idle_s))


def _colab(home: Home, config: Config) -> Target:
    from boneagectl.targets.colab import ColabTarget
    from boneagectl.targets.colab.cli_mode import CliWishes
    from boneagectl.targets.colab.render import Wishes

    own = {name: config[f"targets.colab.{name}"] for name in ("dataset", "pack", "gpu", "program", "auth", "paid")}
    by_hand = Wishes(own["dataset"], own["pack"], own["gpu"])
    by_cli = CliWishes(own["program"], own["auth"], own["gpu"], own["dataset"], own["paid"])
    return ColabTarget(home.colab, by_hand, by_cli, config["targets.colab.via"], config["targets.colab.drive"])
