"""Doctor's look at a subscription: what is there, what is missing, and whether a GPU can run at all."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneagectl import units
from boneagectl.errors import BoneagectlError, NotFound, RemoteError, UsageError
from boneagectl.models import Finding, Verdict
from boneagectl.target_settings import AzureSettings
from boneagectl.targets.azure import client, pricing

_PREBUILT = "azureml://registries/"


class Examination:
    """Goes on after what fails, and ends with the one answer that counts."""

    def __init__(
        self, arm: client.ArmClient, place: client.Workspace, settings: AzureSettings, prices_file: Path
    ) -> None:
        self.arm, self.place, self.settings, self.prices_file = arm, place, settings, prices_file
        self.blocks: list[str] = []
        """Why no GPU can run here, in words."""

    def findings(self) -> Iterator[Finding]:
        looks = (self._credential, self._state, self._providers, self._region, self._builds, self._standing)
        for look in looks:
            try:
                yield from look()
            except BoneagectlError as error:
                yield Finding("bad", "azure", error.message, error.next_step)
                if look == self._credential:
                    return
        yield self._answer()

    def why_not(self) -> list[str]:
        """Why no GPU can run in the region that is set; empty where one can, as far as Azure tells."""
        list(self._state())
        list(self._region())
        return self.blocks

    def _credential(self) -> Iterator[Finding]:
        yield Finding("ok", "signed in", f"{self.arm.credential.account()} by {self.arm.credential.source}")

    def _state(self) -> Iterator[Finding]:
        said = subscription(self.arm, self.place.subscription)
        is_enabled = said.get("state") == "Enabled"
        if not is_enabled:
            self.blocks.append(f"the subscription is {said.get('state')}")
        yield Finding("ok" if is_enabled else "bad", "subscription", subscription_text(said))

    def _providers(self) -> Iterator[Finding]:
        missing = missing_providers(self.arm, self.place.subscription)
        if missing:
            yield Finding("warn", "providers", f"not registered: {', '.join(missing)}", "boneagectl infra up does it")
        else:
            yield Finding("ok", "providers", "all that a workspace needs are registered")

    def _region(self) -> Iterator[Finding]:
        settings, allowed = self.settings, allowed_regions(self.arm, self.place.subscription)
        found = offer(self.arm, self.place.subscription, settings.region, settings, allowed, self.prices_file)
        if not found.allowed:
            self.blocks.append(f"this subscription may not use {settings.region}")
            yield Finding("bad", "region", f"{settings.region} is not allowed; these are: {', '.join(allowed or [])}",
                          "set targets.azure.region")  # fmt: skip
        elif allowed:
            yield Finding("ok", "region", f"{settings.region} is one of the allowed: {', '.join(allowed)}")
        yield from self._quotas(found)
        yield self._price(found)

    def _quotas(self, found: Offer) -> Iterator[Finding]:
        size, is_low = self.settings.size, self.settings.tier == "low_priority"
        if not found.offered:
            self.blocks.append(f"{size} is not offered in {found.region}")
            yield Finding("bad", "quota", f"{size} is not offered in {found.region}", "doctor --regions A,B,C compares")
            return
        for name, free, is_own in (
            ("dedicated", found.cores_free, not is_low),
            ("low priority", found.low_priority_cores_free, is_low),
        ):
            yield self._quota(found, name, free, is_own)

    def _quota(self, found: Offer, name: str, free: int | None, is_own: bool) -> Finding:
        what, size = f"quota, {name}", self.settings.size
        if free is None:
            return Finding("warn", what, f"Azure lists no such quota in {found.region}: not known")
        detail = f"{free} cores free in {found.region}, {found.cores_needed} needed for {self.settings.nodes} x {size}"
        if free >= found.cores_needed:
            return Finding("ok", what, detail)
        if is_own:
            self.blocks.append(f"only {free} {name} cores of the {found.cores_needed} for {size} are free")
        return Finding("bad" if is_own else "warn", what, detail)

    def _price(self, found: Offer) -> Finding:
        """What quotes count with; refreshed a moment ago, if the price API answered."""
        settings = self.settings
        price = pricing.lookup(settings.size, settings.region, settings.tier == "low_priority", self.prices_file)
        low = found.low_priority_usd_micro_per_hour
        cheap = "" if low is None or price.low_priority else f", low priority {units.format_usd(low)}"
        text = f"{units.format_usd(price.usd_micro_per_hour)} an hour and node{cheap}; {price.source}, {price.date}"
        return Finding("ok", "price", text)

    def _builds(self) -> Iterator[Finding]:
        said = subscription(self.arm, self.place.subscription)
        kind = str(said.get("subscriptionPolicies", {}).get("quotaId", ""))
        if self.settings.environment.startswith(_PREBUILT):
            yield Finding("ok", "image", "a prebuilt one; no image is built")
        elif kind.startswith((STUDENT, "FreeTrial")):
            yield Finding("warn", "image", "this offer may be refused to build images (TasksOperationsNotAllowed)",
                          "take a curated image: leave targets.azure.environment as it is")  # fmt: skip
        else:
            yield Finding("ok", "image", "Azure ML makes a registry for it, about $5 a month")

    def _standing(self) -> Iterator[Finding]:
        said = cluster(self.arm, self.place, self.settings)
        fix = "" if said.allows else "boneagectl infra up"
        yield Finding("ok" if said.allows else "warn", said.limit, said.detail, fix)

    def _answer(self) -> Finding:
        if not self.blocks:
            return Finding("ok", "answer", f"{self.settings.size} can run in {self.settings.region}")
        why = "; ".join(self.blocks)
        return Finding("bad", "answer", f"you cannot run a GPU here: {why}. Kaggle's are free", KAGGLE)


# == checking: What Azure would refuse, asked before anything is booked; for the plan and for doctor.

SUBSCRIPTIONS = "2022-12-01"
_PROVIDERS = "2021-04-01"
STUDENT = "AzureForStudents"
SPACES = tuple(
    f"Microsoft.{name}" for name in ("MachineLearningServices", "Storage", "KeyVault", "Insights",
                                     "OperationalInsights", "ContainerRegistry")
)  # fmt: skip
"""The resource providers that a workspace needs."""
_DURATION = re.compile(r"P(?:([\d.]+)D)?(?:T(?:([\d.]+)H)?(?:([\d.]+)M)?(?:([\d.]+)S)?)?")
KAGGLE = "boneagectl submit --target kaggle"


def only_subscription(arm: client.ArmClient) -> str:
    """The id of the one subscription that is enabled and can be seen.

    Raises:
        UsageError: there is none, or a choice.
    """
    seen = [one for one in arm.list_all("/subscriptions", SUBSCRIPTIONS) if one.get("state") != "Deleted"]
    if len(seen) == 1:
        return str(seen[0]["subscriptionId"])
    if not seen:
        raise UsageError("the signed-in account has no Azure subscription", f"az login with another, or {KAGGLE}")
    names = ", ".join(f"{one['subscriptionId']} ({one.get('displayName', '')})" for one in seen)
    raise UsageError(f"which subscription? {names}", "set targets.azure.subscription in boneage.toml")


def verdicts(arm: client.ArmClient, place: client.Workspace, settings: AzureSettings, pack: str) -> list[Verdict]:
    """Whether the subscription works, the cluster is what the price was asked for, and the data is there."""
    said = subscription(arm, place.subscription)
    verdict = Verdict("subscription", said.get("state") == "Enabled", subscription_text(said))
    return [verdict, cluster(arm, place, settings), _data(arm, place, pack)]


def missing_providers(arm: client.ArmClient, subscription: str) -> list[str]:
    """The resource providers that are not registered yet."""
    base = f"/subscriptions/{subscription}/providers"
    return [name for name in SPACES if arm.get(f"{base}/{name}", _PROVIDERS).get("registrationState") != "Registered"]


def subscription(arm: client.ArmClient, subscription: str) -> dict[str, Any]:
    return arm.get(f"/subscriptions/{subscription}", SUBSCRIPTIONS)


def subscription_text(said: dict[str, Any]) -> str:
    policies = said.get("subscriptionPolicies", {})
    kind = str(policies.get("quotaId", "unknown offer"))
    student = ", Azure for Students" if kind.startswith(STUDENT) else ""
    state, limit = str(said.get("state", "unknown")), str(policies.get("spendingLimit", "unknown"))
    return f"{said.get('displayName', 'it')} is {state} ({kind}{student}), spending limit {limit}"


def cluster(arm: client.ArmClient, place: client.Workspace, settings: AzureSettings) -> Verdict:
    try:
        said = arm.get(f"{place.resource_id}/computes/{settings.cluster}", client.COMPUTES)["properties"]["properties"]
    except NotFound:
        missing = f"there is no cluster {settings.cluster!r} in {place.name}: boneagectl infra up makes it"
        return Verdict("cluster", False, missing)
    wrong = list(_differences(said, settings))
    detail = f"{settings.cluster}: {said['vmSize']}, {said['vmPriority']}, now {said.get('currentNodeCount', 0)} nodes"
    return Verdict("cluster", not wrong, "; ".join(wrong) or detail)


def _differences(said: dict[str, Any], settings: AzureSettings) -> Iterator[str]:
    """Whatever would make the price another one than was booked."""
    scale = said["scaleSettings"]
    if said["vmSize"].lower() != settings.size.lower():
        yield f"the cluster has {said['vmSize']}, targets.azure.size is {settings.size}"
    if said["vmPriority"].lower() != settings.tier.replace("_", ""):
        yield f"the cluster is {said['vmPriority']}, targets.azure.tier is {settings.tier}"
    if scale["minNodeCount"] > 0:
        yield f"the cluster keeps {scale['minNodeCount']} nodes running and billed for ever"
    if (idle_s := _seconds(scale.get("nodeIdleTimeBeforeScaleDown", "PT120S"))) > settings.idle_s:
        yield f"the cluster keeps idle nodes for {idle_s} s, targets.azure.idle is {settings.idle_s} s"
    if scale["maxNodeCount"] < settings.nodes:
        yield f"the cluster has {scale['maxNodeCount']} nodes at most, targets.azure.nodes is {settings.nodes}"


def _seconds(duration: str) -> int:
    """Of ISO 8601, as Azure writes it: PT2M, PT120S."""
    found = _DURATION.fullmatch(duration)
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0, 0.0)
    return round(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _data(arm: client.ArmClient, place: client.Workspace, pack: str) -> Verdict:
    name, _, version = pack.removeprefix("azureml:").partition(":")
    try:
        arm.get(f"{place.resource_id}/data/{name}/versions/{version}", client.JOBS)
    except NotFound:
        return Verdict("data", False, f"the pack is not there as {pack}: boneagectl data push --target azure")
    return Verdict("data", True, f"{pack} is registered")


# == capacity: What a subscription may run where: cores by family and tier, allowed regions, prices; for doctor.

_POLICIES = "2022-06-01"
_LOCATIONS = "listOfAllowedLocations"


@dataclass(frozen=True, slots=True)
class Offer:
    """What one region has for the size that is wished for. Cores and prices None: nobody tells.

    `fits` are the known GPU sizes of which one node has room in the quota, dedicated or low priority.
    """

    region: str
    allowed: bool
    offered: bool
    cores_needed: int
    cores_free: int | None
    low_priority_cores_free: int | None
    usd_micro_per_hour: int | None
    low_priority_usd_micro_per_hour: int | None
    price_date: str
    fits: tuple[str, ...]


def allowed_regions(arm: client.ArmClient, subscription: str) -> list[str] | None:
    """The only regions that the subscription's policies allow, or None where none of them says so."""
    path = f"/subscriptions/{subscription}/providers/Microsoft.Authorization/policyAssignments"
    found: list[set[str]] = []
    for policy in arm.list_all(path, _POLICIES):
        given = (policy.get("properties", {}).get("parameters") or {}).get(_LOCATIONS) or {}
        if isinstance(given.get("value"), list):
            found.append({str(region).lower().replace(" ", "") for region in given["value"]})
    return sorted(set.intersection(*found)) if found else None


def offer(
    arm: client.ArmClient,
    subscription: str,
    region: str,
    settings: AzureSettings,
    allowed: list[str] | None,
    file: Path,
) -> Offer:
    """Asks Azure ML for sizes and quota, and the price API for prices; `file` keeps those.

    Raises:
        ProviderRefused: Azure refuses to answer. UsageError: a size that Azure retired.
    """
    base = f"/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{region}"
    sizes = {str(one.get("name")): one for one in arm.list_all(f"{base}/vmSizes", client.COMPUTES)}
    usages = arm.list_all(f"{base}/usages", client.COMPUTES)
    own = next((one for name, one in sizes.items() if name.lower() == settings.size.lower()), None)
    low_free, priced = _free(usages, "lowpriority"), _prices(settings.size, region, file)
    dedicated, low = priced.get(False), priced.get(True)
    return Offer(
        region,
        allowed is None or region in allowed,
        own is not None,
        int(own["vCPUs"]) * settings.nodes if own else 0,
        _free(usages, str(own["family"])) if own else None,
        low_free,
        dedicated.usd_micro_per_hour if dedicated else None,
        low.usd_micro_per_hour if low else None,
        dedicated.date if dedicated else "",
        tuple(_fitting(sizes, usages, low_free)),
    )


def _free(usages: Iterable[dict[str, Any]], family: str) -> int | None:
    """Cores that are left; Azure writes a family's name with and without blanks, and adds words to it."""
    wanted = _plain(family)
    for one in usages:
        if wanted in _plain(str(one.get("name", {}).get("value", ""))):
            return max(0, int(one.get("limit", 0)) - int(one.get("currentValue", 0)))
    return None


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "")


def _fitting(sizes: dict[str, dict[str, Any]], usages: list[dict[str, Any]], low_free: int | None) -> list[str]:
    gpus = {name: one for name, one in sizes.items() if int(one.get("gpus") or 0) > 0}
    return sorted(
        name
        for name, one in gpus.items()
        if max(_free(usages, str(one["family"])) or 0, low_free or 0) >= int(one["vCPUs"])
    )


def _prices(size: str, region: str, file: Path) -> dict[bool, pricing.Price]:
    """By whether it is low priority: today's price where the price API answers, else that region's newest known."""
    with contextlib.suppress(RemoteError):  # the date that is shown tells how old the price is
        pricing.refresh(file, [size], region)
    name = pricing.canonical(size)
    return {one.low_priority: one for one in pricing.known(file) if (one.size, one.region) == (name, region)}
