"""The targets by name. Each is imported when it is first used."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from boneage_trainer.contract import unknown_name
from boneagectl.config import Config
from boneagectl.errors import UsageError
from boneagectl.paths import Home
from boneagectl.target_settings import TARGETS, AzureSettings, ColabSettings, KaggleSettings, LocalSettings

if TYPE_CHECKING:  # each target's module is imported when the target is used, its interface with it
    from boneagectl.targets.azure import AzureTarget
    from boneagectl.targets.base import BaseTarget
    from boneagectl.targets.kaggle import KaggleTarget

NAMES = TARGETS
_VENDOR_LOGGERS = ("azure", "msal", "msrest", "kaggle", "kagglesdk", "google", "google_auth_oauthlib", "urllib3")


def local_target(home: Home, config: Config) -> BaseTarget:
    from boneagectl.targets.local import LocalTarget

    return LocalTarget(home.local, config.section(LocalSettings))


def kaggle_target(home: Home, config: Config) -> KaggleTarget:
    """By its own type, for the commands that push datasets."""
    from boneagectl.targets.kaggle import KaggleTarget

    _silence_vendor_loggers()
    return KaggleTarget(home.kaggle, config.section(KaggleSettings))


def colab_target(home: Home, config: Config) -> BaseTarget:
    from boneagectl.targets.colab import ColabTarget

    _silence_vendor_loggers()
    return ColabTarget(home.colab, config.section(ColabSettings))


def azure_target(home: Home, config: Config) -> AzureTarget:
    """By its own type, for the commands about infrastructure and prices."""
    from boneagectl.targets.azure import AzureTarget

    _silence_vendor_loggers()
    return AzureTarget(home.azure, config.section(AzureSettings))


FACTORIES: dict[str, Callable[[Home, Config], BaseTarget]] = {
    "local": local_target,
    "kaggle": kaggle_target,
    "colab": colab_target,
    "azure": azure_target,
}


def check_name(name: str) -> None:
    """Raises UsageError if there is no target called `name`."""
    if name not in NAMES:
        raise UsageError(unknown_name("target", name, NAMES))


def get(name: str, home: Home, config: Config) -> BaseTarget:
    """The target called `name`, set up from `config`. Raises UsageError if there is none."""
    check_name(name)
    return FACTORIES[name](home, config)


def _silence_vendor_loggers() -> None:
    """Keeps the SDKs' log records off the terminal, where every message is this project's own.

    Without a handler, Python prints warnings to stderr. ``BONEAGECTL_DEBUG=1`` leaves them.
    """
    import logging

    if os.environ.get("BONEAGECTL_DEBUG"):
        return
    for name in _VENDOR_LOGGERS:
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
