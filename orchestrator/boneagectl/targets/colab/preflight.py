"""What stands in the way of Colab without a browser: the program, the login, the units, machines nobody knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from boneagectl.errors import BoneagectlError
from boneagectl.models import Finding, Verdict
from boneagectl.targets.colab import colab_cli, jupyter
from boneagectl.targets.colab.colab_cli import Assignment, Official, Usage
from boneagectl.targets.colab.upload import name_of

FAQ = "https://research.google.com/colaboratory/faq.html"
_FREE = (
    f"a free account: it costs nothing, Colab may end it at any time, and forbids it much (see {FAQ}); whether it "
    "minds Google's own command line there, Google does not say"
)
_MANAGE = "end it in a browser: colab.research.google.com, Runtime > Manage sessions"


def findings(official: Official, gpu: str, paid: bool, orphans: Callable[[], list[Finding]]) -> list[Finding]:
    """For doctor; never raises."""
    try:
        jupyter.check_installed()
        version = official.version()
        usage, lost = official.usage(), orphans()
    except BoneagectlError as error:
        return [Finding("bad", "colab", error.message, error.next_step)]
    program = Finding("ok", "colab", f"google-colab-cli {version}, signed in")
    return [program, *_units(usage, gpu, paid), *lost]


def _units(usage: Usage, gpu: str, paid: bool) -> Iterator[Finding]:
    told = f"{usage.balance:g} compute units; {usage.machines} machines use {usage.rate_per_hour:g} an hour"
    said = judged(usage, paid, 0.0)
    yield Finding("ok" if said.allows else "bad", said.limit, f"{told}. {said.detail}")
    try:
        rate = colab_cli.units_per_hour(gpu)
        asked = f"a {gpu} is booked at {rate:g} units an hour ({colab_cli.SOURCE}, {colab_cli.DATE})"
        yield Finding("ok", "rate", asked)
    except BoneagectlError as error:
        yield Finding("bad", "gpu", error.message, error.next_step)


def verdicts(official: Official, paid: bool, needed_units: float) -> list[Verdict]:
    """Raises MachineError where the program cannot tell."""
    version = official.version()
    return [Verdict("colab", True, f"google-colab-cli {version}"), judged(official.usage(), paid, needed_units)]


def judged(usage: Usage, paid: bool, needed_units: float) -> Verdict:
    """Whether the units fit what the settings say of the account: else it would cost what nobody booked."""
    if not paid and usage.balance > 0:
        return Verdict("units", False, f"the account has {usage.balance:g} compute units, which Colab would use: set "
                                       "targets.colab.paid = true, so that they are booked")  # fmt: skip
    if not paid:
        return Verdict("units", True, _FREE)
    is_enough = usage.balance >= needed_units and usage.balance > 0
    takes = f"this takes {needed_units:.1f} at the worst" if needed_units else "bought units are used"
    return Verdict("units", is_enough, f"{usage.balance:g} compute units are left, {takes}")


def orphans(listed: list[Assignment], is_expected: Callable[[str], bool]) -> list[Finding]:
    """Machines that no running leg accounts for; one without a name may be a notebook in a browser."""
    found = []
    for one in listed:
        if not one.name:
            found.append(Finding("warn", "machine", f"{one.endpoint} ({one.gpu}) is not known here: a notebook in a "
                                                    "browser, or a forgotten machine", _MANAGE))  # fmt: skip
        elif not (one.name.startswith(name_of("")) and is_expected(one.name)):
            found.append(Finding("bad", "machine", f"{one.name} ({one.gpu}) stands, and no leg needs it", _MANAGE))
    return found
