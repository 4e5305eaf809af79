"""The value types: what commands pass around and what ``--json`` prints.

Every type is frozen and imported from here. The modules behind it are loaded on first use, because creating the
dataclasses is a large part of what a quick command like ``ls`` costs.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneagectl import units

if TYPE_CHECKING:
    from boneagectl.models.legs import Handle, Leg, LegState, Observation, Relay, Run, leg_id
    from boneagectl.models.plans import (
        Artifacts,
        Bill,
        Bundle,
        BundleFile,
        Capabilities,
        Checkpoint,
        Finding,
        JobSpec,
        Plan,
        Quota,
        Quote,
        Speed,
        Verdict,
    )

__all__ = [
    "Artifacts", "Bill", "Bundle", "BundleFile", "Capabilities", "Checkpoint", "Finding", "Handle", "JobSpec",
    "Leg", "LegState", "Observation", "Plan", "Quota", "Quote", "Relay", "Run", "Speed", "Verdict", "as_json",
    "format_iso", "leg_id", "parse_iso",
]  # fmt: skip
_OF_LEGS = {"Handle", "Leg", "LegState", "Observation", "Relay", "Run", "leg_id"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _OF_LEGS:
        from boneagectl.models import legs as module
    else:
        from boneagectl.models import plans as module  # type: ignore[no-redef]
    value = globals()[name] = getattr(module, name)
    return value


def format_iso(time_s: float) -> str:
    """A Unix time as UTC text: 2026-11-28T10:30:02Z."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_iso(text: str) -> float:
    """The Unix time of `text`, as `format_iso` prints it."""
    return datetime.fromisoformat(text).timestamp()


def as_json(value: Any) -> Any:
    """Any value type as plain JSON values. Money is in dollars (``*_usd``), time in seconds or hours, so that no
    reader needs to know how the ledger counts.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return dict(_field_json(name, item) for name, item in pairs if not isinstance(item, bytes))
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _field_json(name: str, value: Any) -> tuple[str, Any]:
    if "usd_micro" not in name:
        return name, as_json(value)
    if isinstance(value, dict):
        value = {key: units.to_usd(item) for key, item in value.items()}
    elif value is not None:
        value = units.to_usd(value)
    return name.replace("usd_micro", "usd"), value
