"""Google's own command line for Colab, run as a program: it signs in, and creates, lists and releases runtimes.

It does nothing else here. What it reports about running code cannot be relied on (it exits with 0 when the code
failed, and hangs when the runtime is gone), and it logs what it is given. Each call therefore gets a home folder of
its own, with a link to the user's sign-in; the folder and its log are deleted after the call.
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
from boneagectl.errors import LimitRefused, MachineError, NotSignedIn, RemoteError, Unreachable, UsageError
from boneagectl.targets.http import error_text

OLDEST = (0, 7, 4)
"""Older versions forget a running runtime when its one-hour token expires."""
INSTALL = "install it in an environment of its own, with Python 3.12 or newer: pipx install 'google-colab-cli>=0.7.4'"
CALL_S = 180.0
"""Longer than all of the program's own retries."""
UNITS_PER_HOUR = {"T4": 1.76, "L4": 1.71, "A100": 5.40}
"""Compute units. The highest rates that users reported, as Google publishes none; the real rate is compared before the
run starts."""
UNIT_USD_MICRO = 99_900
"""100 units for $9.99: colab.research.google.com/signup."""
SOURCE = "users' reports of units per hour, and 100 units for $9.99 at colab.research.google.com/signup"
DATE = "2026-11-20"

_OTHER_TARGET = "use another target: boneagectl submit --target kaggle"
_CALL = ".call-"
_RUNTIME = re.compile(r"\[(?P<name>[^\]]+)\] (?P<endpoint>\S+) \| Hardware: (?P<gpu>\S+)")
_UNITS = re.compile(r"balance: (?P<balance>[\d.]+).*?rate: (?P<rate>[\d.]+)/hr.*?assignments: (?P<count>\d+)", re.S)
_SIGN_IN = ("authorization code", "invalid_grant", "No valid default credentials", "Failed to obtain valid ADC")
_OUTCOME = re.compile(r"QUOTA_[A-Z_]+|DENYLISTED")
"""Outcomes that Colab names and the program does not handle."""
_NO_ANSWER = re.compile(r"Failed to refresh token: (?!.*invalid_grant)")
_LOGIN, _LOG = (Path(".config", "colab-cli", name) for name in ("token.json", "colab.log"))


@dataclass(frozen=True, slots=True)
class Assignment:
    """A runtime of this account; `name` is empty where our state file does not know it."""

    name: str
    endpoint: str
    gpu: str


@dataclass(frozen=True, slots=True)
class RuntimeAccess:
    """A runtime's address, and the token that opens it until `expires_s`."""

    endpoint: str
    url: str
    token: str = field(repr=False)
    expires_s: float


@dataclass(frozen=True, slots=True)
class ComputeUnits:
    """The account's compute units left, their use per hour by all its runtimes, and how many those are."""

    balance: float
    rate_per_hour: float
    runtimes: int


def units_per_hour(gpu: str) -> float:
    """Raises UsageError for an unknown GPU: Google's CLI would silently take another one."""
    if gpu not in UNITS_PER_HOUR:
        raise UsageError(f"targets.colab.gpu must be one of {', '.join(UNITS_PER_HOUR)}, not {gpu!r}")
    return UNITS_PER_HOUR[gpu]


def usd_micro_per_hour(rate_units: float) -> int:
    return units.usd_micro(rate_units * UNIT_USD_MICRO / units.MICRO)


class ColabCli:
    """The program `program`, or ``colab`` on the PATH, with its state in `root`; `auth` is ``oauth2`` or ``adc``."""

    def __init__(self, root: Path, program: str, auth: str) -> None:
        self.root, self._program, self._auth = root, program, auth

    @property
    def state(self) -> Path:
        """``sessions.json``: the names of our runtimes, which are stored nowhere else, and their tokens."""
        return self.root / "sessions.json"

    # -------------------------------------------------------------------------------- its commands
    def version(self) -> str:
        """Raises MachineError where the program is missing or too old."""
        output = self._run("version")
        version = re.search(r"\d+(\.\d+)+", output)
        if not version or tuple(map(int, version[0].split("."))) < OLDEST:
            raise MachineError(f"google-colab-cli is too old: {output.strip()[:80]}", INSTALL)
        return version[0]

    def create_runtime(self, name: str, gpu: str) -> RuntimeAccess:
        """Requests a runtime.

        Raises:
            LimitRefused: this account cannot have it, or not now.
            RemoteError, MachineError: no clear answer; an unnamed runtime may exist.
        """
        units_per_hour(gpu)  # the program takes an A100 for a name that it does not know
        code, output = self._call("new", "-s", name, "--gpu", gpu)
        if code:
            raise _refusal(output, gpu)
        access = self.access(name)
        if access is None:
            raise Unreachable("colab new left no runtime in its state file", "boneagectl doctor --target colab")
        return access

    def list_runtimes(self) -> list[Assignment]:
        """All runtimes of the account. Renews the tokens of ours, and forgets those of ours that are gone."""
        output = self._run("sessions")
        listed = [Assignment(*match.group("name", "endpoint", "gpu")) for match in _RUNTIME.finditer(output)]
        if not listed and "No active sessions" not in output:
            raise _unknown_output("sessions", output)
        return [Assignment("", item.endpoint, item.gpu) if item.name == "?" else item for item in listed]

    def stop(self, name: str) -> None:
        """Releases the runtime. Only `list_runtimes` shows whether it is gone."""
        self._call("stop", "-s", name)

    def compute_units(self) -> ComputeUnits:
        output = self._run("usage")
        match = _UNITS.search(output)
        if not match:
            raise _unknown_output("usage", output)
        return ComputeUnits(float(match["balance"]), float(match["rate"]), int(match["count"]))

    # ------------------------------------------------------------------------------- its state file
    def access(self, name: str) -> RuntimeAccess | None:
        """The runtime's address and token as last stored; None for an unknown name."""
        entry = self._load_state().get(name)
        if not isinstance(entry, dict):
            return None
        expires_s = 0.0
        with suppress(ValueError):
            expires_s = models.parse_iso(str(entry.get("token_expires_at")))
        return RuntimeAccess(str(entry.get("endpoint")), str(entry.get("url")), str(entry.get("token")), expires_s)

    def adopt(self, name: str, endpoint: str) -> None:
        """Names an unnamed runtime: the program can stop only named ones."""
        self._save_state(self._load_state() | {name: {"name": name, "token": "", "url": "", "endpoint": endpoint}})

    def disown(self, name: str) -> None:
        """Forgets the name; the runtime keeps running."""
        self._save_state({key: entry for key, entry in self._load_state().items() if key != name})

    def _save_state(self, entries: dict[str, Any]) -> None:
        self._make_root()
        write_atomic(self.state, json.dumps(entries, indent=2))
        self.state.chmod(0o600)

    def _load_state(self) -> dict[str, Any]:
        """Raises MachineError where the file is unreadable: no runtime may be considered gone then."""
        try:
            text = self.state.read_text(encoding="utf-8")
            return parse_object(text, self.state.name) if text.strip() else {}
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, ContractError) as error:
            raise MachineError(
                f"{self.state.name} cannot be read: {error_text(error)}", f"repair or restore {self.state}"
            ) from None

    # ---------------------------------------------------------------------------------- the program
    def _run(self, *command: str) -> str:
        """The output of a command that must succeed."""
        code, output = self._call(*command)
        if code:
            raise Unreachable(f"colab {command[0]} failed: {_last_line(output)}", "try again in some minutes")
        return output

    def _call(self, *command: str) -> tuple[int, str]:
        """Exit code and output.

        Raises:
            MachineError: the program is missing. NotSignedIn: it has no valid sign-in. Unreachable: it does not end.
        """
        program = shutil.which(self._program or "colab")
        if not program:
            raise MachineError(f"there is no program {self._program or 'colab'}", INSTALL)
        client = Path.home() / ".colab-cli-oauth-config.json"
        options = ["--client-oauth-config", str(client)] if client.exists() else []
        with self._home() as home:
            arguments = [program, "--auth", self._auth, "--config", str(self.state), *options, *command]
            try:
                done = subprocess.run(
                    arguments, env=_environment(home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, timeout=CALL_S, check=False, umask=0o077, cwd=home,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise Unreachable(f"colab {command[0]} did not end in {CALL_S:.0f} s", "try again later") from None
            except OSError as error:
                raise MachineError(f"{program} cannot be started: {error}", INSTALL) from None
            log = home / _LOG
            logged = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        output = done.stdout.decode(errors="replace")
        if any(sign in output for sign in _SIGN_IN):  # it may exit with 0, as if the account had no runtimes
            if _NO_ANSWER.search(logged):  # without an answer it asks for a new sign-in, although the old one is valid
                raise Unreachable("Google did not answer when the sign-in was renewed", "try again in some minutes")
            login = "gcloud auth application-default login" if self._auth == "adc" else "colab sessions"
            raise NotSignedIn("not signed in to Colab on this computer", f"run once in a terminal: {login}")
        return done.returncode, output

    @contextmanager
    def _home(self) -> Iterator[Path]:
        """A home folder for one call: a link to the user's sign-in, no update check, and nothing kept."""
        self._make_root()
        for left in self.root.glob(f"{_CALL}*"):  # by a process that was killed, with its log
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


def _refusal(output: str, gpu: str) -> RemoteError | LimitRefused:
    """The error for what the program prints on Colab's 400, 412 and everything else."""
    if "rejected accelerator" in output:
        return LimitRefused(f"Colab refuses a {gpu} to this account: its plan or its compute units do not allow one",
                            f"targets.colab.gpu = \"T4\", or {_OTHER_TARGET}")  # fmt: skip
    if "Allocation refused" in output:
        return LimitRefused(
            f"Colab has no {gpu} for you now: too many sessions, your recent use, or no free capacity; this may last "
            "hours to weeks", f"boneagectl doctor --target colab lists your runtimes; or {_OTHER_TARGET}")  # fmt: skip
    if outcome := _OUTCOME.search(output):
        message = f"Colab gives this account no {gpu} now: {outcome[0]}; this may last days"
        return LimitRefused(message, _OTHER_TARGET)
    return Unreachable(
        f"Colab created no runtime: {_last_line(output)}", f"try again in some minutes, or {_OTHER_TARGET}"
    )


def _unknown_output(command: str, output: str) -> Unreachable:
    return Unreachable(f"colab {command} printed something unknown: {_last_line(output)}", "boneagectl doctor")


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"
