"""Turns settings into a job spec, and a spec into a plan."""

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
from boneagectl.ledger import accounts
from boneagectl.ledger.store import Ledger
from boneagectl.models import Account, Capabilities, JobSpec, Plan, Quota, Quote, Verdict
from boneagectl.paths import Home
from boneagectl.targets.base import BaseTarget

SHORTEST_S = 900
"""Of a leg that is worth starting."""
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_NAME_CHARACTERS = set("abcdefghijklmnopqrstuvwxyz0123456789-")


def build_spec(config: Config, is_there: bool, train: TrainConfig | None = None, pack: Path | None = None) -> JobSpec:
    """The job the settings ask for, or today's settings around a given training and pack.

    `is_there` says that the target has images of its own, so that no pack need be here.

    Raises:
        ContractError: there is no pack there.
        UsageError: the pack has no ages.
    """
    from boneagectl import bundle

    pack = (pack or Path(config["data.pack"]).expanduser()).absolute()
    train = train or config.train()
    return JobSpec(
        train=train,
        pack=pack,
        data=_unseen(config, train) if is_there and not PackFolder(pack).card.exists() else describe_pack(pack),
        target=config["target"],
        time_limit_s=units.parse_duration_s(config["time_limit"]),
        provenance=bundle.collect_provenance(Path.cwd()),
    )


def describe_pack(pack: Path) -> dict[str, Any]:
    """What a job says of its data; two packs with the same fingerprint hold the same images."""
    folder = PackFolder(pack)
    if not folder.read_card()["labelled"]:
        raise UsageError(f"pack {pack} has no ages to train on", "prepare a tree whose csv has them")
    return folder.job_data()


def _unseen(config: Config, train: TrainConfig) -> dict[str, Any]:
    """Images that are only where the training runs: any that lie there, at the size asked for or the preset's."""
    size_px = config["data.image_size_px"] or PRESETS[train.preset].size_px[0]
    return {"fingerprint": "", "count": 0, "image_size_px": size_px}


def plan_leg(
    run_id: str, leg_number: int, spec: JobSpec, target: BaseTarget, ledger: Ledger, home: Home, is_firm: bool = True
) -> Plan:
    """The plan of one leg, with what every limit says of it. Changes nothing.

    A time limit that is not firm is the longest that is wished for: it is cut to what the account and a session have
    left, so that the remote's own limit can cost no more.
    """
    account, asked_s = ledger.account(target.name), spec.time_limit_s
    if not is_firm:
        spec = _fitting(spec, target, account)
    quote = target.quote(spec)
    said = verdicts(quote, account, target.capabilities, home.root)
    return Plan(run_id, leg_number, spec, quote, (*said, *shortened_verdict(spec, asked_s), *_preset_verdicts(spec)))


def _fitting(spec: JobSpec, target: BaseTarget, account: Account) -> JobSpec:
    """With the longest time limit, in whole minutes, that no limit refuses; as it is where even the shortest is."""

    def is_refused(minutes: int) -> bool:
        quote = target.quote(replace(spec, time_limit_s=60 * minutes))
        return any(refusals(quote, account, target.capabilities))

    wanted = range(SHORTEST_S // 60, spec.time_limit_s // 60 + 1)
    allowed = bisect.bisect_left(wanted, True, key=is_refused)
    return replace(spec, time_limit_s=60 * wanted[allowed - 1]) if 0 < allowed < len(wanted) else spec


def shortened_verdict(spec: JobSpec, asked_s: int) -> Iterator[Verdict]:
    """Says that a leg gets less time than was wished for."""
    if spec.time_limit_s < asked_s:
        less, asked = units.format_duration(spec.time_limit_s), units.format_duration(asked_s)
        yield Verdict("time limit", True, f"{less} is what is left; {asked} were wished for")


def _preset_verdicts(spec: JobSpec) -> Iterator[Verdict]:
    """What to know before it costs: a pack of another size than the preset was made for."""
    low, high = PRESETS[spec.train.preset].size_px
    size_px = spec.data["image_size_px"]
    if not low <= size_px <= high:
        made_for = f"{low}-{high}" if low < high else f"{low}"
        yield Verdict("preset", True, f"{spec.train.preset} was made for {made_for} px, this pack has {size_px}")


def new_run_id() -> str:
    """Short enough for every vendor's names, and dated so that people recognise it."""
    import secrets

    letters = "".join(secrets.choice(_ALPHABET) for _ in range(4))
    return f"bone-{datetime.now(UTC):%y%m%d}-{letters}"


def check_run_id(name: str) -> str:
    """A name a person chose, if every vendor takes it."""
    if not 5 <= len(name) <= 40 or set(name) - _NAME_CHARACTERS or "--" in f"-{name}-":
        raise UsageError(
            f"{name!r} cannot name a run", "use 5 to 40 lower-case letters, digits and single dashes inside"
        )
    return name


# == limits: What forbids a plan before it costs anything. The ledger checks its caps once more when it books.

MIN_FREE_BYTES = 500_000_000


def verdicts(quote: Quote, account: Account, capabilities: Capabilities, folder: Path) -> tuple[Verdict, ...]:
    """One verdict for each limit that applies, refusals among them."""
    return (*_caps(quote, account), *_session(quote, capabilities), check_disk(folder))


def refusals(quote: Quote, account: Account, capabilities: Capabilities) -> Iterator[str]:
    """In words, what forbids a leg because of how long it may take."""
    yield from accounts.refusals(account, quote.worst_usd_micro, quote.worst_s, int(time.time()))
    yield from (verdict.detail for verdict in _session(quote, capabilities) if not verdict.allows)


def _caps(quote: Quote, account: Account) -> Iterator[Verdict]:
    refused = list(accounts.refusals(account, quote.worst_usd_micro, quote.worst_s, int(time.time())))
    yield from (Verdict("cap", False, refusal) for refusal in refused)
    if not refused:
        yield Verdict(
            "cap", True, f"account {account.name}: fits" if _has_cap(account) else f"account {account.name}: no cap set"
        )


def _has_cap(account: Account) -> bool:
    return account.free_usd_micro is not None or account.limit_s is not None


def check_quota(quota: Quota, quote: Quote) -> Verdict:
    """Whether the provider, by its own count, has the hours that a leg may take."""
    free, allowed = units.format_duration(quota.free_s), units.format_duration(quota.allowed_s)
    back = f"the full quota is back {units.format_local(quota.refresh_s)}"
    detail = f"{free} of {allowed} free by {quote.target}'s own count; {back}"
    if quote.worst_s <= quota.free_s:
        return Verdict("quota", True, detail)
    return Verdict("quota", False, f"this may take {units.format_duration(quote.worst_s)}, {detail}")


def _session(quote: Quote, capabilities: Capabilities) -> Iterator[Verdict]:
    if capabilities.max_session_hours is None:
        return
    allowed = quote.worst_s <= capabilities.max_session_hours * 3600
    yield Verdict("session", allowed, f"a session there lasts {capabilities.max_session_hours:g} h at most")


def check_disk(folder: Path) -> Verdict:
    """Whether there is room here for what a run brings back."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{units.format_bytes(free)} free, {units.format_bytes(MIN_FREE_BYTES)} wanted in {folder}"
    return Verdict("disk", free >= MIN_FREE_BYTES, detail)
