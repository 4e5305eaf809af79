"""Turns settings into a job spec, and a spec into a plan with the result of every check."""

from __future__ import annotations

import bisect
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from boneage_trainer.contract import PRESETS, PackFolder, TrainConfig
from boneagectl import units
from boneagectl.config import Config
from boneagectl.errors import UsageError
from boneagectl.ledger.accounts import Account, check_account
from boneagectl.ledger.store import Ledger
from boneagectl.models import Capabilities, JobSpec, Plan, Quote, Verdict
from boneagectl.paths import Home
from boneagectl.targets.base import BaseTarget

SHORTEST_S = 900
"""The shortest leg that is worth starting."""
MIN_FREE_BYTES = 500_000_000
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_NAME_CHARACTERS = set("abcdefghijklmnopqrstuvwxyz0123456789-")


# -------------------------------------------------------------------------------------------- job spec
def build_spec(config: Config, has_data: bool, train: TrainConfig | None = None, pack: Path | None = None) -> JobSpec:
    """The job that the settings describe; with `train` and `pack` given, those with today's settings.

    `has_data` says that the target has its own images, so that no local pack is needed.

    Raises:
        ContractError: there is no pack in that folder.
        UsageError: the pack has no ages.
    """
    from boneagectl import bundle

    pack = (pack or Path(config["data.pack"]).expanduser()).absolute()
    train = train or config.train()
    if has_data and not PackFolder(pack).card.exists():
        # The images on the target are unknown: any number of them, at the size set or the preset's.
        size_px = config["data.image_size_px"] or PRESETS[train.preset].size_px[0]
        data: dict[str, Any] = {"fingerprint": "", "count": 0, "image_size_px": size_px}
    else:
        data = describe_pack(pack)
    time_limit_s = units.parse_duration_s(config["time_limit"])
    return JobSpec(train, pack, data, config["target"], time_limit_s, *bundle.collect_provenance())


def describe_pack(pack: Path) -> dict[str, Any]:
    """What a job records of its data; two packs with the same fingerprint hold the same images."""
    folder = PackFolder(pack)
    if not folder.read_card()["labelled"]:
        raise UsageError(f"pack {pack} has no ages to train on", "prepare a dataset whose csv has them")
    return folder.job_data()


def new_run_id() -> str:
    """Short enough for every provider's names, and dated so that people recognise it."""
    import secrets

    letters = "".join(secrets.choice(_ALPHABET) for _ in range(4))
    return f"bone-{datetime.now(UTC):%y%m%d}-{letters}"


def check_run_id(name: str) -> str:
    """Returns `name` if every provider accepts it as a run name, else raises UsageError."""
    if not 5 <= len(name) <= 40 or set(name) - _NAME_CHARACTERS or "--" in f"-{name}-":
        raise UsageError(f"invalid run name {name!r}", "use 5 to 40 lower-case letters, digits, single dashes")
    return name


# -------------------------------------------------------------------------------------------- plan
def plan_leg(
    run_id: str, leg_number: int, spec: JobSpec, target: BaseTarget, ledger: Ledger, home: Home, is_firm: bool = True
) -> Plan:
    """The plan of one leg with the result of every check. Changes nothing.

    A time limit that is not firm is an upper bound: it is cut to what the account and a session have left, so that the
    target's own limit cannot cost more.
    """
    account, requested_s = ledger.account(target.name), spec.time_limit_s
    if not is_firm:
        spec = _cut_to_fit(spec, target, account)
    quote = target.quote(spec)
    checks = check_quote(quote, account, target.capabilities)
    others = (check_disk(home.root), *check_shortened(spec, requested_s), *_check_preset(spec))
    return Plan(run_id, leg_number, spec, quote, (*checks, *others))


def _cut_to_fit(spec: JobSpec, target: BaseTarget, account: Account) -> JobSpec:
    """With the longest time limit, in whole minutes, that nothing refuses; unchanged where even the shortest is."""

    def is_refused(minutes: int) -> bool:
        quote = target.quote(replace(spec, time_limit_s=60 * minutes))
        return not all(verdict.allows for verdict in check_quote(quote, account, target.capabilities))

    minutes = range(SHORTEST_S // 60, spec.time_limit_s // 60 + 1)
    allowed = bisect.bisect_left(minutes, True, key=is_refused)
    return replace(spec, time_limit_s=60 * minutes[allowed - 1]) if 0 < allowed < len(minutes) else spec


# -------------------------------------------------------------------------------------------- checks
# What forbids a plan before it costs anything. The ledger checks the account again when it reserves.
def check_quote(quote: Quote, account: Account, capabilities: Capabilities) -> list[Verdict]:
    """What account and session limit say of a leg at its maximum."""
    verdicts = check_account(account, quote.worst_usd_micro, quote.worst_s, time.time())
    if (hours := capabilities.max_session_hours) is not None:
        detail = f"a session there lasts {hours:g} h at most"
        verdicts.append(Verdict("session", quote.worst_s <= hours * 3600, detail, f"--time-limit {hours:g}h"))
    return verdicts


def check_shortened(spec: JobSpec, requested_s: int) -> Iterator[Verdict]:
    """Reports that a leg gets less time than requested."""
    if spec.time_limit_s < requested_s:
        left, requested = units.format_duration(spec.time_limit_s), units.format_duration(requested_s)
        yield Verdict("time limit", True, f"reduced to {left}, which is what is left; requested: {requested}")


def _check_preset(spec: JobSpec) -> Iterator[Verdict]:
    """Reports a pack of another image size than the preset was tuned for."""
    low, high = PRESETS[spec.train.preset].size_px
    size_px = spec.data["image_size_px"]
    if not low <= size_px <= high:
        sizes = f"{low}-{high}" if low < high else f"{low}"
        yield Verdict("preset", True, f"{spec.train.preset} is tuned for {sizes} px, this pack has {size_px}")


def check_disk(folder: Path) -> Verdict:
    """Whether the disk has room for the outputs of a run."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{units.format_bytes(free)} free of {units.format_bytes(MIN_FREE_BYTES)} required in {folder}"
    return Verdict("disk", free >= MIN_FREE_BYTES, detail, f"free space in {folder}")
