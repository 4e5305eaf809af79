"""What Azure would refuse, asked before anything is reserved: for the plan of a leg, and for doctor."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneagectl import units
from boneagectl.errors import BoneagectlError, NotFound, RemoteError, UsageError
from boneagectl.models import Finding, Verdict
from boneagectl.target_settings import AzureSettings
from boneagectl.targets.azure import pricing
from boneagectl.targets.azure.client import COMPUTES, JOBS, ArmClient, Workspace

SUBSCRIPTIONS = "2022-12-01"
STUDENT = "AzureForStudents"
KAGGLE = "boneagectl submit --target kaggle"
_PROVIDER_VERSION = "2021-04-01"
_POLICIES = "2022-06-01"
_LOCATIONS = "listOfAllowedLocations"
_PREBUILT = "azureml://registries/"
_PROVIDERS = tuple(
    f"Microsoft.{name}" for name in ("MachineLearningServices", "Storage", "KeyVault", "Insights",
                                     "OperationalInsights", "ContainerRegistry")
)  # fmt: skip
"""The resource providers that a workspace needs."""
_DURATION = re.compile(r"P(?:([\d.]+)D)?(?:T(?:([\d.]+)H)?(?:([\d.]+)M)?(?:([\d.]+)S)?)?")


# ---------------------------------------------------------------------------------------- subscription
def only_subscription(arm: ArmClient) -> str:
    """The id of the only subscription of the account that is not deleted.

    Raises:
        UsageError: there is none, or there are several.
    """
    items = [item for item in arm.list_all("/subscriptions", SUBSCRIPTIONS) if item.get("state") != "Deleted"]
    if len(items) == 1:
        return str(items[0]["subscriptionId"])
    if not items:
        raise UsageError("the signed-in account has no Azure subscription", f"az login with another, or {KAGGLE}")
    names = ", ".join(f"{item['subscriptionId']} ({item.get('displayName', '')})" for item in items)
    raise UsageError(f"the account has several subscriptions: {names}", "set targets.azure.subscription")


def get_subscription(arm: ArmClient, subscription: str) -> dict[str, Any]:
    return arm.get(f"/subscriptions/{subscription}", SUBSCRIPTIONS)


def subscription_text(response: dict[str, Any]) -> str:
    policies = response.get("subscriptionPolicies", {})
    offer = str(policies.get("quotaId", "unknown offer"))
    student = ", Azure for Students" if offer.startswith(STUDENT) else ""
    state, limit = str(response.get("state", "unknown")), str(policies.get("spendingLimit", "unknown"))
    return f"{response.get('displayName', 'it')} is {state} ({offer}{student}), spending limit {limit}"


def missing_providers(arm: ArmClient, subscription: str) -> list[str]:
    """The resource providers that are not registered yet."""
    base = f"/subscriptions/{subscription}/providers"
    return [
        name for name in _PROVIDERS
        if arm.get(f"{base}/{name}", _PROVIDER_VERSION).get("registrationState") != "Registered"
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------- one leg
def check_leg(arm: ArmClient, workspace: Workspace, settings: AzureSettings, pack: str) -> list[Verdict]:
    """Whether the subscription is enabled, the cluster is the one that was priced, and the data exists."""
    response = get_subscription(arm, workspace.subscription)
    enabled = Verdict("subscription", response.get("state") == "Enabled", subscription_text(response))
    name, _, version = pack.removeprefix("azureml:").partition(":")
    data = Verdict("data", True, f"{pack} is registered")
    try:
        arm.get(f"{workspace.resource_id}/data/{name}/versions/{version}", JOBS)
    except NotFound:
        data = Verdict("data", False, f"no data asset {pack}: boneagectl data push --target azure")
    return [enabled, check_cluster(arm, workspace, settings), data]


def check_cluster(arm: ArmClient, workspace: Workspace, settings: AzureSettings) -> Verdict:
    """Refuses a cluster that would make the cost another one than was reserved."""
    try:
        path = f"{workspace.resource_id}/computes/{settings.cluster}"
        cluster = arm.get(path, COMPUTES)["properties"]["properties"]
    except NotFound:
        missing = f"there is no cluster {settings.cluster!r} in {workspace.name}: boneagectl infra up"
        return Verdict("cluster", False, missing)
    differences = list(_differences(cluster, settings))
    nodes = cluster.get("currentNodeCount", 0)
    detail = f"{settings.cluster}: {cluster['vmSize']}, {cluster['vmPriority']}, now {nodes} nodes"
    return Verdict("cluster", not differences, "; ".join(differences) or detail)


def _differences(cluster: dict[str, Any], settings: AzureSettings) -> Iterator[str]:
    scale = cluster["scaleSettings"]
    if cluster["vmSize"].lower() != settings.size.lower():
        yield f"the cluster has {cluster['vmSize']}, targets.azure.size is {settings.size}"
    if cluster["vmPriority"].lower() != settings.tier.replace("_", ""):
        yield f"the cluster is {cluster['vmPriority']}, targets.azure.tier is {settings.tier}"
    if scale["minNodeCount"] > 0:
        yield f"the cluster keeps {scale['minNodeCount']} nodes running and billed for ever"
    if (idle_s := _parse_iso_duration_s(scale.get("nodeIdleTimeBeforeScaleDown", "PT120S"))) > settings.idle_s:
        yield f"the cluster keeps idle nodes for {idle_s} s, targets.azure.idle is {settings.idle_s} s"
    if scale["maxNodeCount"] < settings.nodes:
        yield f"the cluster has {scale['maxNodeCount']} nodes at most, targets.azure.nodes is {settings.nodes}"


def _parse_iso_duration_s(duration: str) -> int:
    """ISO 8601 as Azure writes it: PT2M, PT120S."""
    match = _DURATION.fullmatch(duration)
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0, 0.0)
    return round(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


# ------------------------------------------------------------------------------------------- regions
@dataclass(frozen=True, slots=True)
class RegionOffer:
    """What one region offers for the size in the settings. Cores and prices are None where they are unknown.

    `fits` are the known GPU sizes of which one node fits into the quota, dedicated or low priority.
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


def allowed_regions(arm: ArmClient, subscription: str) -> list[str] | None:
    """The only regions that the subscription's policies allow; None where no policy restricts them."""
    path = f"/subscriptions/{subscription}/providers/Microsoft.Authorization/policyAssignments"
    allowed: list[set[str]] = []
    for policy in arm.list_all(path, _POLICIES):
        parameter = (policy.get("properties", {}).get("parameters") or {}).get(_LOCATIONS) or {}
        if isinstance(parameter.get("value"), list):
            allowed.append({str(region).lower().replace(" ", "") for region in parameter["value"]})
    return sorted(set.intersection(*allowed)) if allowed else None


def get_offer(
    arm: ArmClient, subscription: str, region: str, settings: AzureSettings, allowed: Sequence[str] | None, file: Path
) -> RegionOffer:
    """Asks Azure ML for sizes and quota, and the price API for prices; `file` keeps the prices.

    Raises:
        ProviderRefused: Azure refuses to answer. UsageError: a size that Azure retired.
    """
    base = f"/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{region}"
    sizes = {str(item.get("name")): item for item in arm.list_all(f"{base}/vmSizes", COMPUTES)}
    usages = arm.list_all(f"{base}/usages", COMPUTES)
    own = next((item for name, item in sizes.items() if name.lower() == settings.size.lower()), None)
    low_free = _free_cores(usages, "lowpriority")
    with contextlib.suppress(RemoteError):  # the date that is shown tells how old the price is
        pricing.refresh_prices(file, [settings.size], region)
    where = pricing.canonical_size(settings.size), region
    prices = {price.low_priority: price for price in pricing.list_prices(file) if (price.size, price.region) == where}
    dedicated, low = prices.get(False), prices.get(True)
    return RegionOffer(
        region,
        allowed is None or region in allowed,
        own is not None,
        int(own["vCPUs"]) * settings.nodes if own else 0,
        _free_cores(usages, str(own["family"])) if own else None,
        low_free,
        dedicated.usd_micro_per_hour if dedicated else None,
        low.usd_micro_per_hour if low else None,
        dedicated.date if dedicated else "",
        tuple(sorted(
            name for name, item in sizes.items()
            if int(item.get("gpus") or 0) > 0
            and max(_free_cores(usages, str(item["family"])) or 0, low_free or 0) >= int(item["vCPUs"])
        )),
    )  # fmt: skip


def _free_cores(usages: Iterable[dict[str, Any]], family: str) -> int | None:
    """Azure writes the name of a family with and without blanks, and adds words to it."""

    def plain(name: str) -> str:
        return name.lower().replace(" ", "").replace("-", "")

    for usage in usages:
        if plain(family) in plain(str(usage.get("name", {}).get("value", ""))):
            return max(0, int(usage.get("limit", 0)) - int(usage.get("currentValue", 0)))
    return None


# -------------------------------------------------------------------------------------------- doctor
class SubscriptionCheck:
    """Doctor's findings about the subscription: continues after what fails, and ends with the answer that counts."""

    def __init__(self, arm: ArmClient, workspace: Workspace, settings: AzureSettings, prices_file: Path) -> None:
        self.arm, self.workspace, self.settings, self.prices_file = arm, workspace, settings, prices_file
        self._obstacles: list[str] = []

    def findings(self) -> Iterator[Finding]:
        steps = (self._sign_in, self._state, self._providers, self._region, self._image, self._cluster)
        for step in steps:
            try:
                yield from step()
            except BoneagectlError as error:
                yield Finding("bad", "azure", error.message, error.next_step)
                if step == self._sign_in:
                    return
        if self._obstacles:
            reasons = "; ".join(self._obstacles)
            yield Finding("bad", "answer", f"you cannot run a GPU here: {reasons}. Kaggle's are free", KAGGLE)
        else:
            yield Finding("ok", "answer", f"{self.settings.size} can run in {self.settings.region}")

    def obstacles(self) -> list[str]:
        """Why no GPU can run in the region of the settings; empty where one can, as far as Azure says."""
        list(self._state())
        list(self._region())
        return self._obstacles

    def _sign_in(self) -> Iterator[Finding]:
        credential = self.arm.credential
        yield Finding("ok", "signed in", f"{credential.account()} by {credential.source}")

    def _state(self) -> Iterator[Finding]:
        response = get_subscription(self.arm, self.workspace.subscription)
        is_enabled = response.get("state") == "Enabled"
        if not is_enabled:
            self._obstacles.append(f"the subscription is {response.get('state')}")
        yield Finding("ok" if is_enabled else "bad", "subscription", subscription_text(response))

    def _providers(self) -> Iterator[Finding]:
        if missing := missing_providers(self.arm, self.workspace.subscription):
            yield Finding("warn", "providers", f"not registered: {', '.join(missing)}", "boneagectl infra up")
        else:
            yield Finding("ok", "providers", "all that a workspace needs are registered")

    def _region(self) -> Iterator[Finding]:
        settings, subscription = self.settings, self.workspace.subscription
        allowed = allowed_regions(self.arm, subscription)
        offer = get_offer(self.arm, subscription, settings.region, settings, allowed, self.prices_file)
        if not offer.allowed:
            self._obstacles.append(f"this subscription may not use {settings.region}")
            detail = f"{settings.region} is not allowed; allowed are: {', '.join(allowed or [])}"
            yield Finding("bad", "region", detail, "set targets.azure.region")
        elif allowed:
            yield Finding("ok", "region", f"{settings.region} is one of the allowed: {', '.join(allowed)}")
        if offer.offered:
            is_low = settings.tier == "low_priority"
            yield self._quota(offer, "dedicated", offer.cores_free, not is_low)
            yield self._quota(offer, "low priority", offer.low_priority_cores_free, is_low)
        else:
            self._obstacles.append(f"{settings.size} is not offered in {offer.region}")
            detail = f"{settings.size} is not offered in {offer.region}"
            yield Finding("bad", "quota", detail, "boneagectl doctor --target azure --regions A,B,C")
        yield self._price(offer)

    def _quota(self, offer: RegionOffer, tier: str, free: int | None, is_used: bool) -> Finding:
        """`is_used`: the settings ask for this tier."""
        what, size = f"quota, {tier}", self.settings.size
        if free is None:
            return Finding("warn", what, f"unknown: Azure lists no such quota in {offer.region}")
        needed = f"{offer.cores_needed} needed for {self.settings.nodes} x {size}"
        detail = f"{free} cores free in {offer.region}, {needed}"
        if free >= offer.cores_needed:
            return Finding("ok", what, detail)
        if is_used:
            self._obstacles.append(f"only {free} {tier} cores of the {offer.cores_needed} for {size} are free")
        return Finding("bad" if is_used else "warn", what, detail)

    def _price(self, offer: RegionOffer) -> Finding:
        """What quotes count with; `get_offer` has refreshed it if the price API answered."""
        settings = self.settings
        is_low = settings.tier == "low_priority"
        price = pricing.find_price(settings.size, settings.region, is_low, self.prices_file)
        low = offer.low_priority_usd_micro_per_hour
        low_text = "" if low is None or price.low_priority else f", low priority {units.format_usd(low)}"
        text = f"{units.format_usd(price.usd_micro_per_hour)} an hour and node{low_text}; {price.source}, {price.date}"
        return Finding("ok", "price", text)

    def _image(self) -> Iterator[Finding]:
        response = get_subscription(self.arm, self.workspace.subscription)
        offer = str(response.get("subscriptionPolicies", {}).get("quotaId", ""))
        if self.settings.environment.startswith(_PREBUILT):
            yield Finding("ok", "image", "prebuilt; no image is built")
        elif offer.startswith((STUDENT, "FreeTrial")):
            detail = "this offer may be refused to build images (TasksOperationsNotAllowed)"
            yield Finding("warn", "image", detail, "use a curated image: leave targets.azure.environment as it is")
        else:
            yield Finding("ok", "image", "Azure ML creates a container registry for it, about $5 a month")

    def _cluster(self) -> Iterator[Finding]:
        verdict = check_cluster(self.arm, self.workspace, self.settings)
        next_step = "" if verdict.allows else "boneagectl infra up"
        yield Finding("ok" if verdict.allows else "warn", verdict.limit, verdict.detail, next_step)
