"""The settings as frozen dataclasses, one for each section of the settings file.

Keys, choices, defaults, checks, `boneagectl config`, `init --full` and the editor schema are derived from the
fields. A field's metadata (`setting`) holds its help line, its choices or inclusive bounds, and marks:
`unit` (``duration``: text such as 11h30m), `secret` (the value is never printed), `path` (relative to the folder
of the file that sets it) and `varies` (the default depends on the machine).
"""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from typing import Any

from boneage_trainer.contract import TrainConfig, did_you_mean, setting, shorten
from boneagectl import units
from boneagectl.errors import UsageError

TARGETS = ("local", "kaggle", "colab", "azure")
DURATION = "duration"
_LONGEST_S = 366 * 86400
_RADIOGRAPHS = "kmader/rsna-bone-age"


@dataclass(frozen=True)
class GeneralSettings:
    """Settings without a section."""

    target: str = setting("local", "Where a run is trained; auto: the recommended target", choices=(*TARGETS, "auto"))
    time_limit: str = setting("12h", "Time limit of one leg", unit=DURATION)
    prefer: str = setting(
        "cheapest", "Criterion of the recommended target", choices=("cheapest", "fastest", "balanced")
    )


@dataclass(frozen=True)
class WatchSettings:
    """When `watch` regards a run as stalled."""

    stalled_epochs: float = setting(
        5.0, "Time without a new epoch after which a run is stalled, in median epoch times", low=1.1, high=1000
    )
    stalled_least: str = setting("10m", "Shortest time without a new epoch that counts as stalled", unit=DURATION)
    at_stall: str = setting("notify", "Action when a run is stalled", choices=("notify", "stop"))


@dataclass(frozen=True)
class AlertSettings:
    """Where alerts are sent besides the terminal."""

    webhook: str = setting("", "Address that receives each alert as JSON by POST", secret=True)
    command: tuple[str, ...] = setting((), "Command that is run for each alert, with its text as last argument")


@dataclass(frozen=True)
class DataSettings:
    """What a run is trained on."""

    pack: str = setting("pack", "Folder of the pack, as written by `data prepare`", path=True)
    image_size_px: int = setting(
        0, "Image side where the target prepares the data; 0: the preset's smallest", low=0, high=2048, unit="px"
    )


@dataclass(frozen=True)
class LocalSettings:
    """This machine."""

    python: str = setting(sys.executable, "Python interpreter that trains", varies=True)
    usd_per_hour: float = setting(0.0, "Price of this machine per hour", low=0, high=100_000, unit="USD")


@dataclass(frozen=True)
class KaggleSettings:
    """Kaggle kernels."""

    username: str = setting("", "Kaggle username; empty: from the credentials")
    dataset: str = setting(_RADIOGRAPHS, "Kaggle dataset with the radiographs, OWNER/NAME")
    machine_shape: str = setting("NvidiaTeslaT4", "Kaggle's name of the accelerator")
    internet: bool = setting(False, "Whether the kernel has internet access; ImageNet weights require it")
    code: str = setting("embed", "Where the bundle is: in the script, or in a dataset", choices=("embed", "dataset"))
    models: tuple[str, ...] = setting((), "Kaggle models to attach")


@dataclass(frozen=True)
class ColabSettings:
    """Google Colab, by a notebook that the user opens or by Google's command line."""

    via: str = setting("notebook", "How Colab is used: a notebook, or Google's CLI", choices=("notebook", "cli"))
    dataset: str = setting(_RADIOGRAPHS, "Kaggle dataset with the radiographs, OWNER/NAME")
    pack: str = setting("", "Folder of a pack below MyDrive, used instead of the dataset")
    gpu: str = setting("T4", "GPU type")
    drive: bool = setting(False, "Whether outputs are read from your Google Drive")
    program: str = setting("colab", "Google's Colab CLI")
    auth: str = setting("oauth2", "Sign-in of Google's CLI", choices=("oauth2", "adc"))
    paid: bool = setting(True, "Whether the account has compute units; otherwise only its free GPU is used")


@dataclass(frozen=True)
class AzureSettings:
    """Azure Machine Learning; `boneagectl infra up` creates what these name."""

    subscription: str = setting("", "Subscription id; empty: the only one of the account")
    resource_group: str = setting("boneagectl", "Resource group")
    workspace: str = setting("boneagectl", "Azure ML workspace")
    region: str = setting("westeurope", "Region; `doctor --target azure --regions A,B` compares regions")
    cluster: str = setting("gpu", "Compute cluster")
    size: str = setting("Standard_NC4as_T4_v3", "VM size of the cluster's nodes")
    tier: str = setting(
        "dedicated", "VM priority; low_priority is cheaper and can be preempted", choices=("dedicated", "low_priority")
    )
    nodes: int = setting(1, "Nodes of one leg", low=1, high=50)
    idle: str = setting("2m", "Time after which an idle node is released", unit=DURATION)
    environment: str = setting(
        "azureml://registries/azureml/environments/tensorflow-2.16-cuda12/labels/latest", "Azure ML environment"
    )
    pack: str = setting("", "Data asset or datastore path of the pack; empty: the asset that `data push` creates")

    @property
    def idle_s(self) -> int:
        return units.parse_duration_s(self.idle)


SECTIONS: dict[str, type[Any]] = {
    "": GeneralSettings,
    "watch.": WatchSettings,
    "alert.": AlertSettings,
    "data.": DataSettings,
    "train.": TrainConfig,
    "targets.local.": LocalSettings,
    "targets.kaggle.": KaggleSettings,
    "targets.colab.": ColabSettings,
    "targets.azure.": AzureSettings,
}
OPTIONS: dict[str, dataclasses.Field[Any]] = {
    f"{prefix}{item.name}": item for prefix, section in SECTIONS.items() for item in dataclasses.fields(section)
}
"""Every setting by its dotted key."""


def default_of(key: str) -> Any:
    """The default in the form that a settings file has it in: lists, not tuples."""
    default = OPTIONS[key].default
    return list(default) if isinstance(default, tuple) else default


def broken_rule(key: str, value: Any) -> str:
    """The rule that `value` breaks, with the value, or an empty text where it breaks none."""
    marks = OPTIONS[key].metadata
    rule = _type_rule(OPTIONS[key].default, value) or _value_rule(key, value)
    if not rule:
        return ""
    shown = "the given value" if marks.get("secret") else shorten(value)
    hint = did_you_mean(value, marks["choices"])
    return f"{key} {rule}, not {shown}{'.' if hint else ''}{hint}"


def _type_rule(default: Any, value: Any) -> str:
    """A whole number is accepted as a number; true and false are not."""
    if isinstance(default, tuple):
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return "" if fits else "must be a list of texts"
    if isinstance(default, float):
        return "" if isinstance(value, int | float) and not isinstance(value, bool) else "must be a number"
    names = {str: "text in quotes", int: "a whole number", bool: "true or false"}
    return "" if type(value) is type(default) else f"must be {names[type(default)]}"


def _value_rule(key: str, value: Any) -> str:
    marks = OPTIONS[key].metadata
    if marks["choices"]:
        return "" if value in marks["choices"] else f"must be one of {', '.join(marks['choices'])}"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if marks["low"] is not None and not marks["low"] <= value <= marks["high"]:
        return f"must lie between {marks['low']:g} and {marks['high']:.10g}"
    if marks.get("unit") == DURATION:
        try:
            return "" if units.parse_duration_s(value) <= _LONGEST_S else "must be at most 366d"
        except UsageError:
            return "must be a duration like 11h30m, 90m or 45s"
    return ""


def editor_schema() -> dict[str, Any]:
    """A JSON Schema of the settings file: each key with type, choices, bounds, default and help line."""
    settings: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
    for key in OPTIONS:
        table, *names = settings, *key.split(".")
        for name in names[:-1]:
            empty = {"type": "object", "additionalProperties": False, "properties": {}}
            table = table["properties"].setdefault(name, empty)
        table["properties"][names[-1]] = _option_schema(key)
    top = {name: {"$ref": f"#/definitions/settings/properties/{name}"} for name in settings["properties"]}
    profile = {"$ref": "#/definitions/settings"}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of boneagectl",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **top,
            "profiles": {
                "type": "object",
                "description": "Named settings, used with --profile NAME",
                "additionalProperties": profile,
            },
        },
        "definitions": {"settings": settings},
    }


def _option_schema(key: str) -> dict[str, Any]:
    option = OPTIONS[key]
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean", tuple: "array"}
    schema: dict[str, Any] = {"type": kinds[type(option.default)], "description": help_line(key)}
    if not option.metadata.get("varies"):
        schema["default"] = default_of(key)
    if schema["type"] == "array":
        schema["items"] = {"type": "string"}
    if option.metadata["choices"]:
        schema["enum"] = list(option.metadata["choices"])
    if option.metadata["low"] is not None:
        schema |= {"minimum": option.metadata["low"], "maximum": option.metadata["high"]}
    return schema


def help_line(key: str) -> str:
    """The help line of a setting, with its unit."""
    marks = OPTIONS[key].metadata
    unit = "e.g. 11h30m, 90m or 45s" if marks.get("unit") == DURATION else marks.get("unit")
    return f"{marks['help']} ({unit})" if unit else marks["help"]
