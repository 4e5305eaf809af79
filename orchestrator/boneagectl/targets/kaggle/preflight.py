"""What Kaggle would refuse, asked before anything is booked or pushed; for doctor and for the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from boneagectl import units
from boneagectl.errors import BoneagectlError, MachineError, NotFound
from boneagectl.models import Finding, Verdict
from boneagectl.target_settings import KaggleSettings
from boneagectl.targets.kaggle.client import KaggleApi, Kernel

_SESSIONS = 2
"""GPU sessions at a time: "Maximum batch GPU session count of 2 reached."."""
_RECENT = 5
_PHONE = (
    "Kaggle gives GPU and internet only to accounts with a verified phone number, and does not say here "
    "whether yours is: kaggle.com/settings"
)


def verdicts(api: KaggleApi, settings: KaggleSettings) -> list[Verdict]:
    """Who we are, what runs, and whether the data can be attached; the quota is judged with the plan."""
    return [_account(api, settings), _sessions(api), _dataset(api, settings.dataset), Verdict("phone", True, _PHONE)]


def findings(signed_in: Callable[[], KaggleApi], named: Callable[[], KaggleSettings]) -> list[Finding]:
    """The same for doctor, which goes on after what fails; never raises."""
    try:
        api = signed_in()
        name, settings = api.username(), named()
    except BoneagectlError as error:
        return [Finding("bad", "kaggle", error.message, error.next_step)]
    signed = Finding("ok", "kaggle", f"signed in as {name} by {api.credentials}")
    return [signed, *_each(api, settings), Finding("ok", "phone", _PHONE)]


def _each(api: KaggleApi, settings: KaggleSettings) -> Iterator[Finding]:
    looks: tuple[Callable[[], Verdict], ...] = (
        lambda: _account(api, settings),
        lambda: _sessions(api),
        lambda: _dataset(api, settings.dataset),
    )
    for look in looks:
        try:
            said = look()
            yield Finding("ok" if said.allows else "bad", said.limit, said.detail)
        except MachineError as error:
            yield Finding("bad", "kaggle", error.message, error.next_step)
    try:
        yield _quota(api)
    except MachineError as error:
        yield Finding("bad", "quota", error.message, error.next_step)


def _quota(api: KaggleApi) -> Finding:
    quota = api.quota()
    times = (units.format_duration(one) for one in (quota.used_s, quota.reserved_s, quota.free_s, quota.allowed_s))
    used, reserved, free, allowed = times
    detail = f"{used} used, {reserved} reserved, {free} of {allowed} free; back {units.format_local(quota.refresh_s)}"
    return Finding("ok" if quota.free_s else "bad", "quota", detail)


def _account(api: KaggleApi, settings: KaggleSettings) -> Verdict:
    name = api.username()
    if name == settings.username:
        return Verdict("account", True, f"Kaggle user {name}")
    return Verdict("account", False, f"the credentials are {name}'s, targets.kaggle.username is {settings.username!r}")


def _sessions(api: KaggleApi) -> Verdict:
    running = [kernel.slug for kernel in api.recent_kernels(_RECENT) if _is_running(api, kernel)]
    detail = f"{len(running)} of {_SESSIONS} at a time" + (f": {', '.join(running)}" if running else "")
    return Verdict("sessions", len(running) < _SESSIONS, detail)


def _is_running(api: KaggleApi, kernel: Kernel) -> bool:
    try:
        return api.session_status(kernel)[0] == "RUNNING"
    except NotFound:
        return False


def _dataset(api: KaggleApi, ref: str) -> Verdict:
    try:
        status = api.dataset_status(ref)
    except NotFound:
        return Verdict(
            "data", False, f"{ref} is not there for this account: check the name at kaggle.com/datasets/{ref}"
        )
    return Verdict("data", status == "ready", f"{ref} is {status}")
