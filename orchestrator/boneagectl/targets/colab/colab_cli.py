"""Google's own command line for Colab, as a program: it signs in, gets machines, lists them and gives them back.

Nothing else is left to it: what it says of a training cannot be trusted (it ends with 0 when the code fails, and
hangs when the machine is gone), and it writes what it is told into logs. Each call has a home folder of its own,
with a link to the user's login in it, which is gone afterwards with all that was logged there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boneage_trainer.contract import ContractError, parse_object, write_atomic
from boneagectl import models, units
from boneagectl.errors import LimitRefused, MachineError, Unreachable, UsageError
from boneagectl.targets.http import error_text

OLDEST = (0, 7, 4)
"""Before it, an hour-old token made the program forget a machine that ran on."""
INSTALL = "install it in an environment of its own, with Python 3.12 or newer: pipx install 'google-colab-cli>=0.7.4'"
ELSEWHERE = "another target has one perhaps: boneagectl submit --target kaggle"
CALL_S = 180.0
"""More than all its own further tries take."""
_CALL = ".call-"
_LINE = re.compile(r"\[(?P<name>[^\]]+)\] (?P<endpoint>\S+) \| Hardware: (?P<gpu>\S+)")
_USAGE = re.compile(r"balance: (?P<balance>[\d.]+).*?rate: (?P<rate>[\d.]+)/hr.*?assignments: (?P<count>\d+)", re.S)
_SIGN_IN = ("authorization code", "invalid_grant", "No valid default credentials", "Failed to obtain valid ADC")
_OUTCOME = re.compile(r"QUOTA_[A-Z_]+|DENYLISTED")
"""Colab's own words, which the program stumbles over."""
_NO_ANSWER = re.compile(r"Failed to refresh token: (?!.*invalid_grant)")
_LOGIN, _LOG = (Path(".config", "colab-cli", name) for name in ("token.json", "colab.log"))


@dataclass(frozen=True, slots=True)
class Assignment:
    """A machine this account has; `name` is empty where this state folder does not know it."""

    name: str
    endpoint: str
    gpu: str


@dataclass(frozen=True, slots=True)
class Access:
    """How a machine is reached until `expires_s`."""

    endpoint: str
    url: str
    token: str = field(repr=False)
    expires_s: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Compute units: bought and left, used an hour by all machines together, and how many those are."""

    balance: float
    rate_per_hour: float
    machines: int


class Official:
    """The program `program`, or ``colab`` on the PATH; its state lies in `root`. `auth` is oauth2 or adc."""

    def __init__(self, root: Path, program: str, auth: str) -> None:
        self.root, self._program, self._auth = root, program, auth

    @property
    def state(self) -> Path:
        """``sessions.json``: the names of our machines, known nowhere else, and what opens them."""
        return self.root / "sessions.json"

    # -------------------------------------------------------------------------------- its commands
    def version(self) -> str:
        """Raises MachineError where it is not installed, or too old."""
        said = self._said("version")
        found = re.search(r"\d+(\.\d+)+", said)
        if not found or tuple(map(int, found[0].split("."))) < OLDEST:
            raise MachineError(f"google-colab-cli is too old: {said.strip()[:80]}", INSTALL)
        return found[0]

    def new(self, name: str, gpu: str) -> Access:
        """Gets a machine.

        Raises:
            LimitRefused: this account cannot have it, or not now.
            MachineError: no clear answer; there may be one without a name.
        """
        units_per_hour(gpu)  # a name it does not know becomes an A100
        code, said = self._call("new", "-s", name, "--gpu", gpu)
        if code:
            raise _refusal(said, gpu)
        access = self.access(name)
        if access is None:
            raise MachineError("colab new left no machine in its state file", "boneagectl doctor --target colab")
        return access

    def sessions(self) -> list[Assignment]:
        """All machines of the account. Renews what opens ours, and forgets those of ours that are gone."""
        said = self._said("sessions")
        found = [Assignment(*match.group("name", "endpoint", "gpu")) for match in _LINE.finditer(said)]
        if not found and "No active sessions" not in said:
            raise MachineError(f"colab sessions said something unknown: {_last(said)}", "boneagectl doctor")
        return [one if one.name != "?" else Assignment("", one.endpoint, one.gpu) for one in found]

    def stop(self, name: str) -> None:
        """Gives the machine back. Whether it is gone, only `sessions` tells."""
        self._call("stop", "-s", name)

    def usage(self) -> Usage:
        said = self._said("usage")
        found = _USAGE.search(said)
        if not found:
            raise MachineError(f"colab usage said something unknown: {_last(said)}", "boneagectl doctor")
        return Usage(float(found["balance"]), float(found["rate"]), int(found["count"]))

    # ------------------------------------------------------------------------------- its state file
    def access(self, name: str) -> Access | None:
        """What opens the machine, as last told; None for a name that is not known."""
        said = self._known().get(name)
        if not isinstance(said, dict):
            return None
        expires_s = 0.0
        with suppress(ValueError):
            expires_s = models.parse_iso(str(said.get("token_expires_at")))
        return Access(str(said.get("endpoint")), str(said.get("url")), str(said.get("token")), expires_s)

    def adopt(self, name: str, endpoint: str) -> None:
        """Gives a machine without a name one: the only way to have this program stop it."""
        self._write(self._known() | {name: {"name": name, "token": "", "url": "", "endpoint": endpoint}})

    def disown(self, name: str) -> None:
        """Forgets the name; the machine stays."""
        self._write({key: said for key, said in self._known().items() if key != name})

    def _write(self, known: dict[str, Any]) -> None:
        self._make_root()
        write_atomic(self.state, json.dumps(known, indent=2))
        self.state.chmod(0o600)

    def _known(self) -> dict[str, Any]:
        """Raises MachineError where the file cannot be read: nothing may be taken for gone then."""
        try:
            text = self.state.read_text(encoding="utf-8")
            return parse_object(text, self.state.name) if text.strip() else {}
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, ContractError) as error:
            raise MachineError(
                f"{self.state.name} cannot be read: {error_text(error)}", f"look at {self.state}"
            ) from None

    # ---------------------------------------------------------------------------------- the program
    def _said(self, *command: str) -> str:
        code, said = self._call(*command)
        if code:
            raise Unreachable(f"colab {command[0]} failed: {_last(said)}", "try again in some minutes")
        return said

    def _call(self, *command: str) -> tuple[int, str]:
        """Exit code and what it said.

        Raises:
            MachineError: it is not there, or nobody is signed in. Unreachable: it does not end.
        """
        program = shutil.which(self._program or "colab")
        if not program:
            raise MachineError(f"there is no program {self._program or 'colab'}", INSTALL)
        with self._home() as home:
            words_ = [program, "--auth", self._auth, "--config", str(self.state), *self._client(), *command]
            try:
                done = subprocess.run(
                    words_, env=_environment(home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, timeout=CALL_S, check=False, umask=0o077, cwd=home,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise Unreachable(f"colab {command[0]} did not end in {CALL_S:.0f} s", "try again later") from None
            except OSError as error:
                raise MachineError(f"{program} cannot be started: {error}", INSTALL) from None
            log = home / _LOG
            logged = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        said = done.stdout.decode(errors="replace")
        if any(sign in said for sign in _SIGN_IN):  # it may even end with 0, as if there were no machines
            if _NO_ANSWER.search(logged):  # then it asks for a new login, as if the one there were not good
                raise Unreachable("Google does not answer, to renew the login", "try again in some minutes")
            raise MachineError("nobody is signed in to Colab on this machine", f"{self._login_words()}, once")
        return done.returncode, said

    def _login_words(self) -> str:
        return "gcloud auth application-default login" if self._auth == "adc" else "run in a terminal: colab sessions"

    @staticmethod
    def _client() -> list[str]:
        own = Path.home() / ".colab-cli-oauth-config.json"
        return ["--client-oauth-config", str(own)] if own.exists() else []

    @contextmanager
    def _home(self) -> Iterator[Path]:
        """A home for one call: the user's login by a link, no look for updates, and nothing kept."""
        self._make_root()
        for left in self.root.glob(f"{_CALL}*"):  # by a process that was killed, with what was logged there
            with suppress(OSError):
                if left.stat().st_mtime < time.time() - 2 * CALL_S:
                    shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=_CALL, dir=self.root, ignore_cleanup_errors=True) as name:
            login = Path(name) / _LOGIN
            login.parent.mkdir(parents=True)
            login.symlink_to(Path.home() / _LOGIN)
            login.with_name("settings.json").write_text('{"enable_update_check": false}')
            yield Path(name)

    def _make_root(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)


def _environment(home: Path) -> dict[str, str]:
    google = os.environ.get("CLOUDSDK_CONFIG") or str(Path.home() / ".config" / "gcloud")
    return {**os.environ, "HOME": str(home), "CLOUDSDK_CONFIG": google, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def _refusal(said: str, gpu: str) -> MachineError | LimitRefused:
    """From what it says of Colab's 400, 412 and all else, to what to do next."""
    if "rejected accelerator" in said:
        return LimitRefused(f"Colab does not give this account a {gpu}: its tier, or its units, do not reach that far",
                            f"targets.colab.gpu = \"T4\", or {ELSEWHERE}")  # fmt: skip
    if "Allocation refused" in said:
        return LimitRefused(
            f"Colab has no {gpu} for you now: too many sessions, your use so far, or none free; it may take hours to "
            "weeks", f"boneagectl doctor --target colab lists your machines; {ELSEWHERE}")  # fmt: skip
    if outcome := _OUTCOME.search(said):
        return LimitRefused(f"Colab gives this account no {gpu} now: {outcome[0]}; it may take days", ELSEWHERE)
    return Unreachable(f"Colab gave no machine: {_last(said)}", f"try again in some minutes, or {ELSEWHERE}")


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


# == rates: What a GPU costs on Colab: compute units an hour, and what a unit costs. Google publishes no list.

UNITS_PER_HOUR = {"T4": 1.76, "L4": 1.71, "A100": 5.40}
"""The highest that users reported; what is really asked is looked at once a machine is there, before it trains."""
UNIT_USD_MICRO = 99_900
"""100 units for $9.99: colab.research.google.com/signup."""
SOURCE = "users' reports of units an hour, and 100 units for $9.99 at colab.research.google.com/signup"
DATE = "2026-11-20"


def units_per_hour(gpu: str) -> float:
    """Raises UsageError for a GPU that is not in the table: Colab's own program would take another one, unheard."""
    if gpu not in UNITS_PER_HOUR:
        raise UsageError(f"targets.colab.gpu is one of {', '.join(UNITS_PER_HOUR)}, not {gpu!r}")
    return UNITS_PER_HOUR[gpu]


def usd_micro_per_hour(rate_units: float) -> int:
    return units.usd_micro(rate_units * UNIT_USD_MICRO / units.MICRO)
