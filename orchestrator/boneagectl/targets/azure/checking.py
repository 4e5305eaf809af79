"""What Azure would refuse, asked before anything is booked; for doctor and for the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from boneagectl.errors import BoneagectlError, MachineError
from boneagectl.records import Finding, Verdict
from boneagectl.targets.azure import rest
from boneagectl.targets.azure.rendering import Wishes

_SUBSCRIPTION = "2022-12-01"
_STUDENT = "AzureForStudents"


def verdicts(arm: rest.Arm, place: rest.Place, wishes: Wishes, pack: str) -> list[Verdict]:
    """Whether the subscription works, the cluster is what the price was asked for, and the data is there."""
    return [_subscription(arm, place), _cluster(arm, place, wishes), _data(arm, place, pack)]


def findings(signed_in: Callable[[], rest.Arm], place: rest.Place, wishes: Wishes) -> list[Finding]:
    """The same for doctor, which goes on after what fails; never raises."""
    try:
        arm = signed_in()
    except BoneagectlError as error:
        return [Finding("bad", "azure", error.message, error.next_step)]
    return list(_each(arm, place, wishes))


def _each(arm: rest.Arm, place: rest.Place, wishes: Wishes) -> Iterator[Finding]:
    looks: tuple[Callable[[], Verdict], ...] = (
        lambda: _subscription(arm, place),
        lambda: _quota(arm, place, wishes),
        lambda: _cluster(arm, place, wishes),
    )
    for look in looks:
        try:
            said = look()
            yield Finding("ok" if said.allows else "bad", said.limit, said.detail)
        except MachineError as error:
            yield Finding("bad", "azure", error.message, error.next_step)


def _subscription(arm: rest.Arm, place: rest.Place) -> Verdict:
    said = arm.get(f"/subscriptions/{place.subscription}", _SUBSCRIPTION)
    policies = said.get("subscriptionPolicies", {})
    kind = str(policies.get("quotaId", "unknown offer"))
    student = ", Azure for Students" if kind.startswith(_STUDENT) else ""
    state, limit = str(said.get("state", "unknown")), str(policies.get("spendingLimit", "unknown"))
    detail = f"{said.get('displayName', place.subscription)} is {state} ({kind}{student}), spending limit {limit}"
    return Verdict("subscription", state == "Enabled", detail)


def _cluster(arm: rest.Arm, place: rest.Place, wishes: Wishes) -> Verdict:
    try:
        said = arm.get(f"{place.path}/computes/{wishes.cluster}", rest.COMPUTES)["properties"]["properties"]
    except rest.Missing:
        return Verdict("cluster", False, f"there is no cluster {wishes.cluster!r} in {place.workspace}")
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
    if scale["maxNodeCount"] < wishes.nodes:
        yield f"the cluster has {scale['maxNodeCount']} nodes at most, targets.azure.nodes is {wishes.nodes}"


def _quota(arm: rest.Arm, place: rest.Place, wishes: Wishes) -> Verdict:
    """Cores of the size's family that Azure ML may use in this region."""
    base = f"/subscriptions/{place.subscription}/providers/Microsoft.MachineLearningServices/locations/{wishes.region}"
    sizes = arm.get(f"{base}/vmSizes", rest.COMPUTES).get("value", [])
    size = next((one for one in sizes if str(one.get("name", "")).lower() == wishes.size.lower()), None)
    if size is None:
        return Verdict("quota", False, f"{wishes.size} is not offered in {wishes.region}")
    family = str(size["family"])
    usages = arm.get(f"{base}/usages", rest.COMPUTES).get("value", [])
    found: dict[str, Any] = next((one for one in usages if _name(one).lower() == family.lower()), {})
    free, needed = int(found.get("limit", 0)) - int(found.get("currentValue", 0)), int(size["vCPUs"]) * wishes.nodes
    detail = f"{family} in {wishes.region}: {max(0, free)} cores free, {needed} needed"
    if free < needed:
        detail += "; you cannot run this GPU here, and a student offer cannot raise it: train on Kaggle"
    return Verdict("quota", free >= needed, detail)


def _name(usage: dict[str, Any]) -> str:
    return str(usage.get("name", {}).get("value", ""))


def _data(arm: rest.Arm, place: rest.Place, pack: str) -> Verdict:
    name, _, version = pack.removeprefix("azureml:").partition(":")
    try:
        arm.get(f"{place.path}/data/{name}/versions/{version}", rest.JOBS)
    except rest.Missing:
        return Verdict("data", False, f"the pack is not there as {pack}: boneagectl data push --target azure")
    return Verdict("data", True, f"{pack} is registered")
