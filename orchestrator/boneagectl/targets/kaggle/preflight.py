"""What Kaggle would refuse, asked before anything is reserved or pushed; for doctor and for the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from boneagectl import units
from boneagectl.errors import BoneagectlError, NotFound
from boneagectl.models import Finding, Verdict
from boneagectl.target_settings import KaggleSettings
from boneagectl.targets.kaggle.client import KaggleApi, Kernel

_MAX_SESSIONS = 2
""""Maximum batch GPU session count of 2 reached."."""
_RECENT = 5
_PHONE = (
    "GPU and internet need a verified phone number (kaggle.com/settings); Kaggle's API does not show "
    "whether yours is verified"
)


def verdicts(api: KaggleApi, settings: KaggleSettings) -> list[Verdict]:
    """Account, running sessions and dataset; the quota is checked with the plan."""
    phone = Verdict("phone", True, _PHONE)
    return [_check_account(api, settings), _check_sessions(api), _check_dataset(api, settings.dataset), phone]


def findings(sign_in: Callable[[], KaggleApi], settings_with_username: Callable[[], KaggleSettings]) -> list[Finding]:
    """The same for doctor, one finding per check; never raises."""
    try:
        api = sign_in()
        name, settings = api.username(), settings_with_username()
    except BoneagectlError as error:
        return [Finding("bad", "kaggle", error.message, error.next_step)]
    signed_in = Finding("ok", "kaggle", f"signed in as {name} by {api.credentials}")
    return [signed_in, *_run_checks(api, settings), Finding("ok", "phone", _PHONE)]


def _run_checks(api: KaggleApi, settings: KaggleSettings) -> Iterator[Finding]:
    checks: tuple[Callable[[], Verdict], ...] = (
        lambda: _check_account(api, settings),
        lambda: _check_sessions(api),
        lambda: _check_dataset(api, settings.dataset),
        lambda: _check_quota(api),
    )
    for check in checks:
        try:
            verdict = check()
            yield Finding("ok" if verdict.allows else "bad", verdict.limit, verdict.detail)
        except BoneagectlError as error:
            yield Finding("bad", "kaggle", error.message, error.next_step)


def _check_quota(api: KaggleApi) -> Verdict:
    quota = api.quota()
    times_s = (quota.used_s, quota.reserved_s, quota.free_s, quota.allowed_s)
    used, reserved, free, allowed = map(units.format_duration, times_s)
    refresh = units.format_local(quota.refresh_s)
    detail = f"{used} used, {reserved} reserved, {free} of {allowed} free; full quota again {refresh}"
    return Verdict("quota", quota.free_s > 0, detail)


def _check_account(api: KaggleApi, settings: KaggleSettings) -> Verdict:
    name = api.username()
    if name == settings.username:
        return Verdict("account", True, f"Kaggle user {name}")
    return Verdict("account", False, f"the credentials are {name}'s, targets.kaggle.username is {settings.username!r}")


def _check_sessions(api: KaggleApi) -> Verdict:
    running = [kernel.slug for kernel in api.recent_kernels(_RECENT) if _is_running(api, kernel)]
    detail = f"{len(running)} of {_MAX_SESSIONS} sessions running" + (f": {', '.join(running)}" if running else "")
    return Verdict("sessions", len(running) < _MAX_SESSIONS, detail)


def _is_running(api: KaggleApi, kernel: Kernel) -> bool:
    try:
        return api.session_status(kernel)[0] == "RUNNING"
    except NotFound:
        return False


def _check_dataset(api: KaggleApi, ref: str) -> Verdict:
    try:
        status = api.dataset_status(ref)
    except NotFound:
        return Verdict("data", False, f"this account sees no dataset {ref}: check kaggle.com/datasets/{ref}")
    return Verdict("data", status == "ready", f"{ref} is {status}")
