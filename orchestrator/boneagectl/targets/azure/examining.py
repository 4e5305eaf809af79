"""Doctor's look at a subscription: what is there, what is missing, and whether a GPU can run at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from boneagectl import units
from boneagectl.errors import BoneagectlError
from boneagectl.records import Finding
from boneagectl.targets.azure import capacity, checking, prices, rest, signin
from boneagectl.targets.azure.rendering import Wishes

_PREBUILT = "azureml://registries/"


class Examination:
    """Goes on after what fails, and ends with the one answer that counts."""

    def __init__(self, arm: rest.Arm, place: rest.Place, wishes: Wishes, prices_file: Path) -> None:
        self.arm, self.place, self.wishes, self.prices_file = arm, place, wishes, prices_file
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
        yield Finding("ok", "signed in", signin.whose(self.arm.credential))

    def _state(self) -> Iterator[Finding]:
        said = checking.subscription(self.arm, self.place.subscription)
        is_enabled = said.get("state") == "Enabled"
        if not is_enabled:
            self.blocks.append(f"the subscription is {said.get('state')}")
        yield Finding("ok" if is_enabled else "bad", "subscription", checking.subscription_text(said))

    def _providers(self) -> Iterator[Finding]:
        missing = checking.missing_spaces(self.arm, self.place.subscription)
        if missing:
            yield Finding("warn", "providers", f"not registered: {', '.join(missing)}", "boneagectl infra up does it")
        else:
            yield Finding("ok", "providers", "all that a workspace needs are registered")

    def _region(self) -> Iterator[Finding]:
        wishes, allowed = self.wishes, capacity.allowed_regions(self.arm, self.place.subscription)
        found = capacity.offer(self.arm, self.place.subscription, wishes.region, wishes, allowed, self.prices_file)
        if not found.allowed:
            self.blocks.append(f"this subscription may not use {wishes.region}")
            yield Finding("bad", "region", f"{wishes.region} is not allowed; these are: {', '.join(allowed or [])}",
                          "set targets.azure.region")  # fmt: skip
        elif allowed:
            yield Finding("ok", "region", f"{wishes.region} is one of the allowed: {', '.join(allowed)}")
        yield from self._quotas(found)
        yield self._price(found)

    def _quotas(self, found: capacity.Offer) -> Iterator[Finding]:
        size, is_low = self.wishes.size, self.wishes.tier == "low_priority"
        if not found.offered:
            self.blocks.append(f"{size} is not offered in {found.region}")
            yield Finding("bad", "quota", f"{size} is not offered in {found.region}", "doctor --regions A,B,C compares")
            return
        for name, free, is_own in (
            ("dedicated", found.cores_free, not is_low),
            ("low priority", found.low_priority_cores_free, is_low),
        ):
            yield self._quota(found, name, free, is_own)

    def _quota(self, found: capacity.Offer, name: str, free: int | None, is_own: bool) -> Finding:
        what, size = f"quota, {name}", self.wishes.size
        if free is None:
            return Finding("warn", what, f"Azure lists no such quota in {found.region}: not known")
        detail = f"{free} cores free in {found.region}, {found.cores_needed} needed for {self.wishes.nodes} x {size}"
        if free >= found.cores_needed:
            return Finding("ok", what, detail)
        if is_own:
            self.blocks.append(f"only {free} {name} cores of the {found.cores_needed} for {size} are free")
        return Finding("bad" if is_own else "warn", what, detail)

    def _price(self, found: capacity.Offer) -> Finding:
        """What quotes count with; refreshed a moment ago, if the price API answered."""
        wishes = self.wishes
        price = prices.lookup(wishes.size, wishes.region, wishes.tier == "low_priority", self.prices_file)
        low = found.low_priority_usd_micro_per_hour
        cheap = "" if low is None or price.low_priority else f", low priority {units.format_usd(low)}"
        text = f"{units.format_usd(price.usd_micro_per_hour)} an hour and node{cheap}; {price.source}, {price.date}"
        return Finding("ok", "price", text)

    def _builds(self) -> Iterator[Finding]:
        said = checking.subscription(self.arm, self.place.subscription)
        kind = str(said.get("subscriptionPolicies", {}).get("quotaId", ""))
        if self.wishes.environment.startswith(_PREBUILT):
            yield Finding("ok", "image", "a prebuilt one; no image is built")
        elif kind.startswith((checking.STUDENT, "FreeTrial")):
            yield Finding("warn", "image", "this offer may be refused to build images (TasksOperationsNotAllowed)",
                          "take a curated image: leave targets.azure.environment as it is")  # fmt: skip
        else:
            yield Finding("ok", "image", "Azure ML makes a registry for it, about $5 a month")

    def _standing(self) -> Iterator[Finding]:
        said = checking.cluster(self.arm, self.place, self.wishes)
        fix = "" if said.allows else "boneagectl infra up"
        yield Finding("ok" if said.allows else "warn", said.limit, said.detail, fix)

    def _answer(self) -> Finding:
        if not self.blocks:
            return Finding("ok", "answer", f"{self.wishes.size} can run in {self.wishes.region}")
        why = "; ".join(self.blocks)
        return Finding("bad", "answer", f"you cannot run a GPU here: {why}. Kaggle's are free", checking.KAGGLE)
