"""The targets by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boneage_trainer.contract import unknown_name
from boneagectl.config import Config
from boneagectl.errors import UsageError
from boneagectl.paths import Home
from boneagectl.target_settings import TARGETS, AzureSettings, ColabSettings, KaggleSettings, LocalSettings
from boneagectl.targets.base import Target

if TYPE_CHECKING:
    from boneagectl.targets.azure import AzureTarget
    from boneagectl.targets.kaggle import KaggleTarget

NAMES = TARGETS


def check_name(name: str) -> None:
    """Raises UsageError where there is no target called `name`."""
    if name not in NAMES:
        raise UsageError(unknown_name("target", name, NAMES))


def get(name: str, home: Home, config: Config) -> Target:
    """The target called `name`, set up from `config`."""
    check_name(name)
    if name == "kaggle":
        return kaggle_target(home, config)
    if name == "azure":
        return azure_target(home, config)
    if name == "colab":
        from boneagectl.targets.colab import ColabTarget

        return ColabTarget(home.colab, config.section(ColabSettings))
    from boneagectl.targets.local import LocalTarget

    return LocalTarget(home.local, config.section(LocalSettings))


def kaggle_target(home: Home, config: Config) -> KaggleTarget:
    """The kaggle target by its own type, for the commands that push datasets."""
    from boneagectl.targets.kaggle import KaggleTarget

    return KaggleTarget(home.kaggle, config.section(KaggleSettings))


def azure_target(home: Home, config: Config) -> AzureTarget:
    """The azure target by its own type, for the commands about infrastructure and prices."""
    from boneagectl.targets.azure import AzureTarget

    return AzureTarget(home.azure, config.section(AzureSettings))
