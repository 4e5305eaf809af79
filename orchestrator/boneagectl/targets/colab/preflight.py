"""Checks before a CLI leg: Google's CLI, the sign-in, the compute units, and runtimes that no leg needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from boneagectl.errors import BoneagectlError
from boneagectl.models import Finding, Verdict
from boneagectl.targets.colab import colab_cli, jupyter
from boneagectl.targets.colab.colab_cli import Assignment, ColabCli, ComputeUnits
from boneagectl.targets.colab.runtimes import END_BY_HAND
from boneagectl.targets.colab.upload import runtime_name

FAQ = "https://research.google.com/colaboratory/faq.html"
_FREE = (
    "a free account costs nothing; Colab may end a session at any time and restricts remote use. Google does not say "
    f"whether its own CLI is allowed on a free account: {FAQ}"
)


def check_setup(
    colab: ColabCli, gpu: str, is_paid: bool, find_orphans: Callable[[], list[Finding]]
) -> Iterator[Finding]:
    """The findings for doctor; never raises."""
    try:
        jupyter.check_dependencies()
        version = colab.version()
        units, orphans = colab.compute_units(), find_orphans()
    except BoneagectlError as error:
        yield Finding("bad", "colab", error.message, error.next_step)
        return
    yield Finding("ok", "colab", f"google-colab-cli {version}, signed in")
    verdict = check_units(units, is_paid, 0.0)
    balance = f"{units.balance:g} compute units; {units.runtimes} runtimes use {units.rate_per_hour:g} per hour"
    yield Finding("ok" if verdict.allows else "bad", verdict.limit, f"{balance}. {verdict.detail}")
    try:
        rate = f"{colab_cli.units_per_hour(gpu):g} units per hour"
        yield Finding("ok", "rate", f"a {gpu} is reserved at {rate} ({colab_cli.SOURCE}, {colab_cli.DATE})")
    except BoneagectlError as error:
        yield Finding("bad", "gpu", error.message, error.next_step)
    yield from orphans


def check_account(colab: ColabCli, is_paid: bool, needed_units: float) -> list[Verdict]:
    """Whether the account can run a leg that takes `needed_units`. Raises RemoteError when Google does not answer."""
    version = colab.version()
    units = colab.compute_units()
    return [Verdict("colab", True, f"google-colab-cli {version}"), check_units(units, is_paid, needed_units)]


def check_units(units: ComputeUnits, is_paid: bool, needed_units: float) -> Verdict:
    """Whether the account's compute units match ``targets.colab.paid``; otherwise a leg costs what was not reserved."""
    if not is_paid and units.balance > 0:
        return Verdict(
            "units",
            False,
            f"the account has {units.balance:g} compute units, and Colab would use them without a reservation. "
            "Set: targets.colab.paid = true",
        )
    if not is_paid:
        return Verdict("units", True, _FREE)
    is_enough = units.balance >= needed_units and units.balance > 0
    need = f"this leg takes at most {needed_units:.1f}" if needed_units else "Colab uses paid units"
    return Verdict("units", is_enough, f"{units.balance:g} compute units left; {need}")


def find_orphans(listed: list[Assignment], is_expected: Callable[[str], bool]) -> list[Finding]:
    """Runtimes that no active leg needs; one without a name may belong to a notebook in a browser."""
    findings = []
    for runtime in listed:
        if not runtime.name:
            detail = f"unknown runtime {runtime.endpoint} ({runtime.gpu}): a notebook in a browser, or a leftover"
            findings.append(Finding("warn", "runtime", detail, END_BY_HAND))
        elif not (runtime.name.startswith(runtime_name("")) and is_expected(runtime.name)):
            detail = f"{runtime.name} ({runtime.gpu}) is running, but no active leg needs it"
            findings.append(Finding("bad", "runtime", detail, END_BY_HAND))
    return findings
