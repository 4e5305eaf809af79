"""What Azure would refuse, asked before anything is booked; for the plan and for doctor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from boneagectl.errors import UsageError
from boneagectl.records import Verdict
from boneagectl.targets.azure import rest
from boneagectl.targets.azure.rendering import Wishes

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


def only_subscription(arm: rest.Arm) -> str:
    """The id of the one subscription that is enabled and can be seen.

    Raises:
        UsageError: there is none, or a choice.
    """
    seen = [one for one in arm.listed("/subscriptions", SUBSCRIPTIONS) if one.get("state") != "Deleted"]
    if len(seen) == 1:
        return str(seen[0]["subscriptionId"])
    if not seen:
        raise UsageError("the signed-in account has no Azure subscription", f"az login with another, or {KAGGLE}")
    names = ", ".join(f"{one['subscriptionId']} ({one.get('displayName', '')})" for one in seen)
    raise UsageError(f"which subscription? {names}", "set targets.azure.subscription in boneage.toml")


def verdicts(arm: rest.Arm, place: rest.Place, wishes: Wishes, pack: str) -> list[Verdict]:
    """Whether the subscription works, the cluster is what the price was asked for, and the data is there."""
    said = subscription(arm, place.subscription)
    verdict = Verdict("subscription", said.get("state") == "Enabled", subscription_text(said))
    return [verdict, cluster(arm, place, wishes), _data(arm, place, pack)]


def missing_spaces(arm: rest.Arm, subscription: str) -> list[str]:
    """The resource providers that are not registered yet."""
    base = f"/subscriptions/{subscription}/providers"
    return [name for name in SPACES if arm.get(f"{base}/{name}", _PROVIDERS).get("registrationState") != "Registered"]


def subscription(arm: rest.Arm, subscription: str) -> dict[str, Any]:
    return arm.get(f"/subscriptions/{subscription}", SUBSCRIPTIONS)


def subscription_text(said: dict[str, Any]) -> str:
    policies = said.get("subscriptionPolicies", {})
    kind = str(policies.get("quotaId", "unknown offer"))
    student = ", Azure for Students" if kind.startswith(STUDENT) else ""
    state, limit = str(said.get("state", "unknown")), str(policies.get("spendingLimit", "unknown"))
    return f"{said.get('displayName', 'it')} is {state} ({kind}{student}), spending limit {limit}"


def cluster(arm: rest.Arm, place: rest.Place, wishes: Wishes) -> Verdict:
    try:
        said = arm.get(f"{place.path}/computes/{wishes.cluster}", rest.COMPUTES)["properties"]["properties"]
    except rest.Missing:
        missing = f"there is no cluster {wishes.cluster!r} in {place.workspace}: boneagectl infra up makes it"
        return Verdict("cluster", False, missing)
    wrong = list(_differences(said, wishes))
    detail = f"{wishes.cluster}: {said['vmSize']}, {said['vmPriority']}, now {said.get('currentNodeCount', 0)} nodes"
    return Verdict("cluster", not wrong, "; ".join(wrong) or detail)


def _differences(said: dict[str, Any], wishes: Wishes) -> Iterator[str]:
    """Whatever would make the price another one than was booked."""
    scale = said["scaleSettings"]
    if said["vmSize"].lower() != wishes.size.lower():
        yield f"the cluster has {said['vmSize']}, targets.azure.size is {wishes.size}"
    if said["vmPriority"].lower() != wishes.tier.replace("_", ""):
        yield f"the cluster is {said['vmPriority']}, targets.azure.tier is {wishes.tier}"
    if scale["minNodeCount"] > 0:
        yield f"the cluster keeps {scale['minNodeCount']} nodes running and billed for ever"
    if (idle_s := _seconds(scale.get("nodeIdleTimeBeforeScaleDown", "PT120S"))) > wishes.idle_s:
        yield f"the cluster keeps idle nodes for {idle_s} s, targets.azure.idle is {wishes.idle_s} s"
    if scale["maxNodeCount"] < wishes.nodes:
        yield f"the cluster has {scale['maxNodeCount']} nodes at most, targets.azure.nodes is {wishes.nodes}"


def _seconds(duration: str) -> int:
    """Of ISO 8601, as Azure writes it: PT2M, PT120S."""
    found = _DURATION.fullmatch(duration)
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0, 0.0)
    return round(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _data(arm: rest.Arm, place: rest.Place, pack: str) -> Verdict:
    name, _, version = pack.removeprefix("azureml:").partition(":")
    try:
        arm.get(f"{place.path}/data/{name}/versions/{version}", rest.JOBS)
    except rest.Missing:
        return Verdict("data", False, f"the pack is not there as {pack}: boneagectl data push --target azure")
    return Verdict("data", True, f"{pack} is registered")
