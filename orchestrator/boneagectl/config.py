"""The settings of one command, merged from every source, each with its origin.

Precedence, highest first: flag, environment (``BONEAGECTL_TRAIN__EPOCHS=3``), profile, project file (``boneage.toml``
or ``[tool.boneagectl]`` in ``pyproject.toml``), user file, default. A profile is a ``[profiles.NAME]`` table of the
project or user file. Which settings there are: target_settings.py.
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
OTHER_VARIABLES = {"HOME", "CONFIG", "PROFILE", "USER_CONFIG", "DEBUG"}
"""Variables with the prefix that are not settings."""
_DEFAULT = "default"
_DEEPEST = 5
"""Deeper tables than any setting has are not followed, however deep they are."""
_NEXT_STEP = "boneagectl config lists the settings and their origins"


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and the file, profile, variable or flag that set it."""

    value: Any
    origin: str

    def shown(self, key: str) -> Any:
        """The value; of a secret only whether it is set."""
        return "(set)" if OPTIONS[key].metadata.get("secret") and self.value else self.value


Layer = dict[str, Setting]
"""The settings of one source, by dotted key."""


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
        """A copy with some settings changed; dots in a key are written as two underscores."""
        changed = {key.replace("__", "."): Setting(value, "relay") for key, value in values.items()}
        return Config({**self.settings, **changed})

    def train(self) -> TrainConfig:
        """The training settings that were set, over the chosen preset's defaults."""
        given = {
            key.removeprefix("train."): item.value
            for key, item in self.settings.items()
            if key.startswith("train.") and item.origin != _DEFAULT
        }
        return TrainConfig.from_mapping(given)


def load(
    file: Path | None = None,
    profile: str | None = None,
    flags: Mapping[str, Any] | None = None,
    start: Path | None = None,
) -> Config:
    """Reads, checks and merges every source; the search for a project file begins in `start`.

    Raises:
        UsageError: an unreadable file, an unknown key or profile, or a value that breaks its rule.
    """
    if not file and (variable := os.environ.get(f"{PREFIX}CONFIG")):
        file = Path(variable)
    project, project_profiles = _read_file(file, must_exist=True) if file else _find_project(start or Path.cwd())
    user, user_profiles = _read_file(user_file(), must_exist=False)
    merged = {**{key: Setting(default_of(key), _DEFAULT) for key in OPTIONS}, **user, **project}
    if profile := profile or os.environ.get(f"{PREFIX}PROFILE"):
        profiles = {**user_profiles, **project_profiles}
        if profile not in profiles:
            known = unknown_name("profile", profile, profiles) if profiles else f"unknown profile {shorten(profile)}"
            raise UsageError(known, f"add a [profiles.{profile[:40]}] table to boneage.toml")
        merged |= profiles[profile]
    merged |= _from_environment(os.environ)
    merged |= {key: _checked(key, value, "flag") for key, value in (flags or {}).items()}
    for name, value in PRESETS[merged["train.preset"].value].settings.items():
        if merged[f"train.{name}"].origin == _DEFAULT:  # a preset changes defaults
            merged[f"train.{name}"] = Setting(value, _DEFAULT)
    config = Config(merged)
    try:
        config.train()
    except ContractError as error:  # its message starts with the name of a setting
        item = merged.get(f"train.{str(error).split()[0]}")
        raise UsageError(f"train.{error} ({item.origin if item else 'train'})", _NEXT_STEP) from None
    return config


def user_file() -> Path:
    """The user's own settings: ``BONEAGECTL_USER_CONFIG``, or config.toml in the platform's folder for settings."""
    if given := os.environ.get(f"{PREFIX}USER_CONFIG"):
        return Path(given)
    return config_folder() / "config.toml"


def check_preset(name: str) -> None:
    """Raises UsageError if there is no preset called `name`."""
    if name not in PRESETS:
        raise UsageError(unknown_name("preset", name, PRESETS))


def parse_assignment(text: str) -> tuple[str, Any]:
    """``train.epochs=3`` as key and value; a value that is not TOML is a text.

    Raises:
        UsageError: no ``=``, or an unknown key.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {shorten(text)} has no '='", "write it as --set train.epochs=3")
    _check_key(key.strip(), "--set")
    return key.strip(), _parse_value(value.strip())


def _find_project(start: Path) -> tuple[Layer, dict[str, Layer]]:
    for folder in (start, *start.parents):
        if (path := folder / PROJECT_FILE).is_file():
            return _read_file(path, must_exist=True)
        if (path := folder / "pyproject.toml").is_file() and _own_table(_parse_file(path)) is not None:
            return _read_file(path, must_exist=True)
    return {}, {}


def _read_file(path: Path, must_exist: bool) -> tuple[Layer, dict[str, Layer]]:
    """The settings of one file, and those of its profiles."""
    if not must_exist and not path.is_file():
        return {}, {}
    table: Any = _parse_file(path)
    if path.name == "pyproject.toml":
        table = {} if (own := _own_table(table)) is None else own
    if not isinstance(table, dict):
        raise UsageError(f"tool.boneagectl in {path} must be a table", "write [tool.boneagectl]")
    profiles = table.pop("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(item, dict) for item in profiles.values()):
        raise UsageError(f"profiles in {path} must be tables", "write [profiles.NAME] and the settings below it")
    named = {name: _read_table(item, path, f"profile {name} in {path}") for name, item in profiles.items()}
    return _read_table(table, path, str(path)), named


def _own_table(pyproject: dict[str, Any]) -> Any:
    """The value of ``tool.boneagectl``, or None."""
    tool = pyproject.get("tool")
    return tool.get("boneagectl") if isinstance(tool, dict) else None


def _parse_file(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise UsageError(f"config file {path} cannot be read: {error.strerror}", "boneagectl init writes one") from None
    except (ValueError, RecursionError) as error:  # also a number of over 4,300 digits, and tables too deep
        raise UsageError(f"config file {path} is not TOML: {error}") from None


def _read_table(table: dict[str, Any], path: Path, origin: str) -> Layer:
    """A table's settings; paths are relative to the folder of the file."""
    layer = {}
    for key, value in _flatten(table):
        layer[key] = _checked(key, value, origin)
        if OPTIONS[key].metadata.get("path"):
            layer[key] = Setting(str(path.absolute().parent / Path(value).expanduser()), origin)
    return layer


def _flatten(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and prefix.count(".") < _DEEPEST:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _from_environment(variables: Mapping[str, str]) -> Layer:
    layer = {}
    for variable, text in variables.items():
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and name not in OTHER_VARIABLES:
            key = name.lower().replace("__", ".")
            layer[key] = _checked(key, _parse_value(text), f"${variable}")
    return layer


def _parse_value(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _checked(key: str, value: Any, origin: str) -> Setting:
    """A setting, if its key exists and the value is allowed."""
    _check_key(key, origin)
    if rule := broken_rule(key, value):
        raise UsageError(f"{rule} ({origin})", _NEXT_STEP)
    return Setting(value, origin)


def _check_key(key: str, origin: str) -> None:
    if key not in OPTIONS:
        raise UsageError(f"{origin}: unknown setting {shorten(key)}.{did_you_mean(key, OPTIONS)}", _NEXT_STEP)
