"""Settings: every key with its default, and where each value came from.

Precedence, strongest first: flag, environment (``BONEAGECTL_TRAIN__EPOCHS=3``), profile, project file
(``boneage.toml`` or ``[tool.boneagectl]`` in ``pyproject.toml``), user file, default. A profile is a
``[profiles.NAME]`` table of the project or user file.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_trainer.contract import PRESETS, ContractError, TrainConfig, unknown_name
from boneagectl import units
from boneagectl.errors import UsageError
from boneagectl.paths import config_folder

PROJECT_FILE = "boneage.toml"
PREFIX = "BONEAGECTL_"
OTHER_VARIABLES = {"HOME": "state folder", "CONFIG": "config file", "PROFILE": "profile", "USER_CONFIG": "user file"}

DEFAULTS: dict[str, Any] = {
    "target": "local",
    "time_limit": "12h",
    "prefer": "cheapest",
    "watch.stalled_epochs": 5.0,
    "watch.stalled_least": "10m",
    "watch.at_stall": "tell",
    "alert.webhook": "",
    "alert.command": [],
    "data.pack": "pack",
    "data.image_size_px": 0,
    "targets.local.python": sys.executable,
    "targets.local.usd_per_hour": 0.0,
    "targets.kaggle.username": "",
    "targets.kaggle.dataset": "kmader/rsna-bone-age",
    "targets.kaggle.machine_shape": "NvidiaTeslaT4",
    "targets.kaggle.internet": False,
    "targets.kaggle.code": "embed",
    "targets.kaggle.models": [],
    "targets.colab.via": "notebook",
    "targets.colab.dataset": "kmader/rsna-bone-age",
    "targets.colab.pack": "",
    "targets.colab.gpu": "T4",
    "targets.colab.drive": False,
    "targets.colab.program": "colab",
    "targets.colab.auth": "oauth2",
    "targets.colab.paid": True,
    "targets.azure.subscription": "",
    "targets.azure.resource_group": "boneagectl",
    "targets.azure.workspace": "boneagectl",
    "targets.azure.region": "westeurope",
    "targets.azure.cluster": "gpu",
    "targets.azure.size": "Standard_NC4as_T4_v3",
    "targets.azure.tier": "dedicated",
    "targets.azure.nodes": 1,
    "targets.azure.idle": "2m",
    "targets.azure.environment": "azureml://registries/azureml/environments/tensorflow-2.16-cuda12/labels/latest",
    "targets.azure.pack": "",
}
SECRETS = ("alert.webhook",)
"""Settings whose value nobody prints: who has a webhook's address may write to it."""
_CHOICES = {
    "watch.at_stall": ("tell", "stop"),
    "prefer": ("cheapest", "fastest", "balanced"),
    "targets.kaggle.code": ("embed", "dataset"),
    "targets.colab.via": ("notebook", "cli"),
    "targets.colab.auth": ("oauth2", "adc"),
    "targets.azure.tier": ("dedicated", "low_priority"),
}
_PATHS = ("data.pack",)
_TRAIN_KEYS = {f"train.{item.name}": item.default for item in dataclasses.fields(TrainConfig)}
KNOWN = {**DEFAULTS, **_TRAIN_KEYS}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, and the file, variable or flag it came from."""

    value: Any
    origin: str

    def shown(self, key: str) -> Any:
        """The value, but of a secret only that there is one."""
        return "(set)" if key in SECRETS and self.value else self.value


@dataclass(frozen=True, slots=True)
class Config:
    """The merged settings, by dotted key."""

    settings: Mapping[str, Setting]

    def __getitem__(self, key: str) -> Any:
        return self.settings[key].value

    def with_values(self, **values: Any) -> Config:
        """The same with some settings changed; dots in a key are written as two underscores."""
        changed = {key.replace("__", "."): Setting(value, "relay") for key, value in values.items()}
        return Config({**self.settings, **changed})

    def train(self) -> TrainConfig:
        """The training settings that were set, over the chosen preset's defaults."""
        given = {
            key.removeprefix("train."): item.value
            for key, item in self.settings.items()
            if key.startswith("train.") and item.origin != "default"
        }
        return TrainConfig.from_mapping(given)


def load(
    file: Path | None = None,
    profile: str | None = None,
    flags: Mapping[str, Any] | None = None,
    start: Path | None = None,
) -> Config:
    """Merges every source; `start` is the folder the search for a project file begins in.

    Raises:
        UsageError: an unreadable file, an unknown key or profile, a value that cannot be meant.
    """
    environment = dict(_from_environment(os.environ))
    file = file or _optional_path(os.environ.get(f"{PREFIX}CONFIG"))
    profile = profile or os.environ.get(f"{PREFIX}PROFILE")
    project, project_profiles = _read_project(file, start or Path.cwd())
    user, user_profiles = _read_file(user_file(), must_exist=False)
    layers = [_defaults(), user, project]
    if profile:
        layers.append(_pick_profile(profile, {**user_profiles, **project_profiles}))
    layers += [environment, {key: Setting(value, "flag") for key, value in (flags or {}).items()}]
    merged: dict[str, Setting] = {}
    for layer in layers:
        merged.update(layer)
    return _checked(_fill_preset(merged))


def user_file() -> Path:
    """The user's own settings: ``BONEAGECTL_USER_CONFIG``, or the platform's place for them."""
    if given := os.environ.get(f"{PREFIX}USER_CONFIG"):
        return Path(given)
    return config_folder() / "config.toml"


def check_preset(name: str) -> None:
    """Raises UsageError where there is no preset called `name`."""
    if name not in PRESETS:
        raise UsageError(unknown_name("preset", name, PRESETS))


def parse_assignment(text: str) -> tuple[str, Any]:
    """``train.epochs=3`` as key and value; a value that is no TOML is a plain string."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text!r} has no '='", "write it as --set train.epochs=3")
    _check_key(key.strip(), "--set")
    return key.strip(), _parse_value(value.strip())


def _defaults() -> dict[str, Setting]:
    return {key: Setting(value, "default") for key, value in KNOWN.items()}


def _fill_preset(merged: dict[str, Setting]) -> dict[str, Setting]:
    """Shows the preset's values in place of the general defaults."""
    preset = merged["train.preset"].value
    for key, value in (PRESETS[preset].settings if isinstance(preset, str) and preset in PRESETS else {}).items():
        if merged[f"train.{key}"].origin == "default":
            merged[f"train.{key}"] = Setting(value, "default")
    return merged


def _checked(merged: dict[str, Setting]) -> Config:
    config = Config(merged)
    for key, default in DEFAULTS.items():
        if not _is_like(config[key], default):
            raise _bad_value(config, key, _RULES[type(default)])
    for key, choices in _CHOICES.items():
        if config[key] not in choices:
            raise _bad_value(config, key, f"must be {' or '.join(map(repr, choices))}")
    if not 1 <= config["targets.azure.nodes"] <= 50:
        raise _bad_value(config, "targets.azure.nodes", "must lie between 1 and 50")
    if config["watch.stalled_epochs"] <= 1:
        raise _bad_value(config, "watch.stalled_epochs", "must be more than 1")
    for key in ("time_limit", "watch.stalled_least", "targets.azure.idle"):
        units.parse_duration_s(config[key])
    try:
        config.train()
    except ContractError as error:
        raise UsageError(str(error), "boneagectl config shows where each setting comes from") from None
    return config


_RULES = {
    str: "must be text in quotes",
    float: "must be a number",
    int: "must be a whole number",
    bool: "must be true or false",
    list: "must be a list of texts",
}


def _is_like(value: Any, default: Any) -> bool:
    """Whether `value` has the type of `default`; a whole number is a number, true is none."""
    if isinstance(default, list):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _bad_value(config: Config, key: str, rule: str) -> UsageError:
    setting = config.settings[key]
    return UsageError(f"{key} {rule}, not {setting.value!r} ({setting.origin})")


def _read_project(file: Path | None, start: Path) -> tuple[dict[str, Setting], dict[str, dict[str, Setting]]]:
    if file:
        return _read_file(file, must_exist=True)
    for folder in (start, *start.parents):
        if (found := folder / PROJECT_FILE).is_file():
            return _read_file(found, must_exist=True)
        if (found := folder / "pyproject.toml").is_file() and _own_table(_parse(found)) is not None:
            return _read_file(found, must_exist=True)
    return {}, {}


def _read_file(path: Path, must_exist: bool) -> tuple[dict[str, Setting], dict[str, dict[str, Setting]]]:
    """The settings of one file and those of its profiles."""
    if not must_exist and not path.is_file():
        return {}, {}
    table = _parse(path)
    if path.name == "pyproject.toml":
        table = {} if (own := _own_table(table)) is None else own
    if not isinstance(table, dict):
        raise UsageError(f"tool.boneagectl in {path} must be a table", "write [tool.boneagectl]")
    profiles = table.pop("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(item, dict) for item in profiles.values()):
        raise UsageError(f"profiles in {path} must be tables", "write [profiles.NAME] and the settings below it")
    named = {name: _layer(item, path, f"profile {name} in {path}") for name, item in profiles.items()}
    return _layer(table, path, str(path)), named


def _own_table(pyproject: dict[str, Any]) -> Any:
    """What stands under ``tool.boneagectl``, or None."""
    tool = pyproject.get("tool")
    return tool.get("boneagectl") if isinstance(tool, dict) else None


def _parse(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise UsageError(f"config file {path} cannot be read: {error.strerror}", "boneagectl init makes one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"config file {path} is not TOML: {error}") from None


def _layer(table: dict[str, Any], path: Path, origin: str) -> dict[str, Setting]:
    """A table's settings; paths in a file are meant from the folder of that file."""
    layer = {}
    for key, value in _flatten(table):
        _check_key(key, origin)
        if key in _PATHS and isinstance(value, str):
            value = str(path.absolute().parent / Path(value).expanduser())
        layer[key] = Setting(value, origin)
    return layer


def _flatten(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _from_environment(variables: Mapping[str, str]) -> Iterator[tuple[str, Setting]]:
    for name, text in variables.items():
        if not name.startswith(PREFIX) or name.removeprefix(PREFIX) in OTHER_VARIABLES:
            continue
        key = name.removeprefix(PREFIX).lower().replace("__", ".")
        _check_key(key, f"environment variable {name}")
        yield key, Setting(_parse_value(text), f"${name}")


def _check_key(key: str, origin: str) -> None:
    if key not in KNOWN:
        raise UsageError(f"{origin}: {unknown_name('setting', key, KNOWN)}")


def _parse_value(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _pick_profile(name: str, profiles: Mapping[str, dict[str, Setting]]) -> dict[str, Setting]:
    if name not in profiles:
        known = unknown_name("profile", name, profiles) if profiles else f"unknown profile {name!r}; no file has any"
        raise UsageError(known, "add a [profiles.NAME] table to boneage.toml")
    return profiles[name]


def _optional_path(text: str | None) -> Path | None:
    return Path(text) if text else None
