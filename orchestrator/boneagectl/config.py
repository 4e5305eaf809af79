"""Settings: every key with its default, and where each value came from.

Precedence, strongest first: flag, environment (``BONEAGECTL_TRAIN__EPOCHS=3``), profile, project file
(``boneage.toml`` or ``[tool.boneagectl]`` in ``pyproject.toml``), user file, default. A profile is a
``[profiles.NAME]`` table of the project or user file.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from boneage_trainer.contract import PRESETS, ContractError, TrainConfig, did_you_mean, shorten, unknown_name
from boneagectl.errors import UsageError
from boneagectl.paths import config_folder
from boneagectl.target_settings import OPTIONS, SECTIONS, broken_rule, default_of

T = TypeVar("T")

PROJECT_FILE = "boneage.toml"
PREFIX = "BONEAGECTL_"
_LIST = "boneagectl config lists the settings and their origins"
OTHER_VARIABLES = {"HOME", "CONFIG", "PROFILE", "USER_CONFIG", "DEBUG"}
"""Variables with the prefix that are not settings."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, and the file, variable or flag it came from."""

    value: Any
    origin: str

    def shown(self, key: str) -> Any:
        """The value, but of a secret only that there is one."""
        return "(set)" if OPTIONS[key].metadata.get("secret") and self.value else self.value


@dataclass(frozen=True, slots=True)
class Config:
    """The merged settings, by dotted key."""

    settings: Mapping[str, Setting]

    def __getitem__(self, key: str) -> Any:
        return self.settings[key].value

    def section(self, kind: type[T]) -> T:
        """The settings of one section as its dataclass."""
        prefix = next(prefix for prefix, section in SECTIONS.items() if section is kind)
        values = {item.name: self[f"{prefix}{item.name}"] for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

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
    layers += [environment, {key: _given(key, value, "flag", "flag") for key, value in (flags or {}).items()}]
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
    return {key: Setting(default_of(key), "default") for key in OPTIONS}


def _fill_preset(merged: dict[str, Setting]) -> dict[str, Setting]:
    """Shows the preset's values in place of the general defaults."""
    preset = merged["train.preset"].value
    for key, value in (PRESETS[preset].settings if isinstance(preset, str) and preset in PRESETS else {}).items():
        if merged[f"train.{key}"].origin == "default":
            merged[f"train.{key}"] = Setting(value, "default")
    return merged


def _checked(merged: dict[str, Setting]) -> Config:
    config = Config(merged)
    try:
        config.train()
    except ContractError as error:  # its message starts with the name of the setting
        name = str(error).split()[0]
        origin = merged[f"train.{name}"].origin if f"train.{name}" in merged else "train"
        raise UsageError(f"train.{error} ({origin})", _LIST) from None
    return config


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
    except (ValueError, RecursionError) as error:  # also a number of over 4,300 digits, and tables too deep
        raise UsageError(f"config file {path} is not TOML: {error}") from None


def _layer(table: dict[str, Any], path: Path, origin: str) -> dict[str, Setting]:
    """A table's settings; paths in a file are meant from the folder of that file."""
    layer = {}
    for key, value in _flatten(table):
        layer[key] = _given(key, value, origin, origin)
        if OPTIONS[key].metadata.get("path"):
            layer[key] = Setting(str(path.absolute().parent / Path(value).expanduser()), origin)
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
        yield key, _given(key, _parse_value(text), f"${name}", f"environment variable {name}")


def _given(key: str, value: Any, origin: str, source: str) -> Setting:
    """A setting of one source, checked."""
    _check_key(key, source)
    if rule := broken_rule(key, value):
        raise UsageError(f"{rule} ({origin})", _LIST)
    return Setting(value, origin)


def _check_key(key: str, origin: str) -> None:
    if key not in OPTIONS:
        raise UsageError(f"{origin}: unknown setting {shorten(key)}.{did_you_mean(key, OPTIONS)}", _LIST)


def _parse_value(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _pick_profile(name: str, profiles: Mapping[str, dict[str, Setting]]) -> dict[str, Setting]:
    if name not in profiles:
        known = unknown_name("profile", name, profiles) if profiles else f"unknown profile {name!r}; no file has any"
        raise UsageError(known, "add a [profiles.NAME] table to boneage.toml")
    return profiles[name]


def _optional_path(text: str | None) -> Path | None:
    return Path(text) if text else None
