"""The `kaggle` target: each leg is a private kernel of its own, generated, pushed, followed and brought back.

Kaggle has no way to stop a kernel but deleting it, shows no file of one that runs, and answers the
same for a kernel that does not exist and one of somebody else. What follows from that is decided here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path

from boneage_trainer.contract import RunFolder, parse_object, write_json
from boneagectl.errors import MachineError, NotFound, NotYet, ProviderRefused, SubmitUncertain, Unreachable
from boneagectl.models import (
    Artifacts,
    Bundle,
    Capabilities,
    Checkpoint,
    Finding,
    Handle,
    JobSpec,
    Observation,
    Quota,
    Quote,
    Verdict,
)
from boneagectl.target_settings import KaggleSettings
from boneagectl.targets.base import BaseTarget
from boneagectl.targets.kaggle import (
    credentials,
    datasets,
    outputs,
    preflight,
    rehearsal,
    render,
)
from boneagectl.targets.kaggle import (
    status as kaggle_status,
)
from boneagectl.targets.kaggle.client import LATER, KaggleApi, Kernel
from boneagectl.targets.kaggle.status import KernelLog, join_lines, parse_events

_IDLE_S = 0.2
"""Without news for so long, a running log has been read as far as it goes: it is replayed in one go."""
_MOST_S = 1.0
_ANSWER_S = 10.0
_QUIET_S = 60.0
_LOOKS_S = (0.5, 2.0, 5.0)
_RECONNECT_S = 1.0
_SESSION_HOURS = 12.0


class KaggleTarget(BaseTarget):
    """`root` keeps what Kaggle would forget: the log of each kernel that was stopped."""

    name = "kaggle"
    capabilities = Capabilities(
        unattended=True,
        can_stop=True,
        billed=False,
        max_session_hours=_SESSION_HOURS,
        live_metrics=True,
        needs_network=True,
        stop_keeps=False,
        appears_s=600,
        poll_every_s=60.0,
        attaches_data=True,
    )

    def __init__(self, root: Path, settings: KaggleSettings) -> None:
        self.root, self.settings = root, settings
        self._signed_in: KaggleApi | None = None

    @property
    def api(self) -> KaggleApi:
        if self._signed_in is None:
            self._signed_in = KaggleApi(credentials.find_credentials())
        return self._signed_in

    def _named(self, ask: bool) -> KaggleSettings:
        """The settings with the user's name: as set, as the credentials say, or else, with `ask`, as Kaggle says."""
        if not self.settings.username:
            name = _username_here()
            self.settings = replace(self.settings, username=self.api.username() if ask and not name else name)
        return self.settings

    # -------------------------------------------------------------------------- before the start
    def check(self) -> list[Finding]:
        return preflight.findings(lambda: self.api, lambda: self._named(ask=True))

    def quota(self) -> Quota | None:
        return self.api.quota() if self._signed_in or credentials.have_credentials() else None

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        return preflight.verdicts(self.api, self._named(ask=True))

    def quote(self, spec: JobSpec) -> Quote:
        """Kaggle ends the session at the time limit that is sent with it; it costs GPU hours, and no money."""
        today = date.today().isoformat()  # noqa: DTZ011
        return Quote(self.name, spec.time_limit_s, 0, 0, 1, "kaggle.com/docs/notebooks", today, spec.time_limit_s)

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        render.write_kernel_folder(spec, bundle, leg_id, dest, resume, self._named(ask=False))

    # ------------------------------------------------------------------------------- the start
    def submit(self, leg_id: str, rendered: Path) -> Handle:
        metadata, script = render.read_kernel_folder(rendered)
        for folder in (rendered / render.CODE, rendered / render.RESUME):
            if folder.exists():
                datasets.create_dataset(self.api, folder)
        try:
            return self.api.push_kernel(metadata, script).handle
        except SubmitUncertain as doubt:
            return self._found_after(doubt, metadata["id"])

    def _found_after(self, doubt: SubmitUncertain, name: str) -> Handle:
        """No answer came: looks whether the kernel is there, since a second push would start a second session."""
        owner, _, slug = name.partition("/")
        for pause_s in _LOOKS_S:
            time.sleep(pause_s)
            try:
                if kernel := self.api.find_kernel(owner, slug):
                    return kernel.handle
            except MachineError:
                continue
        raise doubt

    def find(self, leg_id: str) -> Handle | None:
        name = Kernel(self._named(ask=True).username, leg_id, 0)
        if kernel := self.api.find_kernel(name.owner, name.slug):
            return kernel.handle
        if self._status(name):
            raise Unreachable(f"Kaggle shows {leg_id} to one question and not to another", LATER)
        return None

    def _status(self, kernel: Kernel) -> tuple[str, str] | None:
        """As `Api.status`, or None where the kernel is gone: two questions must agree on that.

        A kernel that runs on while it is thought to be gone would be one that nobody watches or stops.
        """
        try:
            return self.api.session_status(kernel)
        except NotFound as error:
            if self.api.find_kernel(kernel.owner, kernel.slug):
                raise Unreachable(error.message, LATER) from None
            return None

    # ---------------------------------------------------------------------------- while it runs
    def poll(self, handle: Handle) -> Observation:
        kernel = Kernel.from_handle(handle)
        found = self._status(kernel)
        if found is None:
            return kaggle_status.observe_deleted(*self._kept(kernel))
        status, failure = found
        if status in kaggle_status.ENDED:
            return kaggle_status.observe_ended(status, failure, self._final_log(kernel))
        return kaggle_status.observe_running(status, self._log_so_far(kernel))

    def _log_so_far(self, kernel: Kernel) -> KernelLog:
        """Empty where there is none yet, or the stream fails: the state is known without it."""
        log, enough_s = KernelLog(), time.monotonic() + _MOST_S
        with suppress(NotFound, Unreachable):
            for _ in join_lines(self.api.log_events(kernel, _IDLE_S, _ANSWER_S), log):
                if time.monotonic() > enough_s:
                    break
        return log

    def _final_log(self, kernel: Kernel) -> KernelLog:
        """As kept with the outputs; some time after the end only the stream may have it."""
        _, text = self.api.list_outputs(kernel)
        log = KernelLog.from_events(parse_events(text))
        return log if log.lines else self._log_so_far(kernel)

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        kernel = Kernel.from_handle(handle)
        found = self._status(kernel)
        if found is None:
            log, _ = self._kept(kernel)
            yield from log.lines if log else []
        elif found[0] in kaggle_status.ENDED:
            yield from self._final_log(kernel).lines
        elif follow:
            yield from self._followed(kernel)
        else:
            yield from self._log_so_far(kernel).lines

    def _followed(self, kernel: Kernel) -> Iterator[str]:
        """Each line once: a new connection replays the log from its start."""
        seen = 0
        while True:
            with suppress(NotFound, Unreachable):  # not begun, or cut by a proxy: the state tells which
                for at, line in enumerate(join_lines(self.api.log_events(kernel, _QUIET_S))):
                    if at >= seen:
                        seen = at + 1
                        yield line
            found = self._status(kernel)
            if found is None or found[0] in kaggle_status.ENDED:
                yield from self._final_log(kernel).lines[seen:] if found else []
                return
            time.sleep(_RECONNECT_S)

    def stop(self, handle: Handle) -> None:
        """Keeps what the log tells, then deletes the kernel: Kaggle knows no other way from outside."""
        kernel = Kernel.from_handle(handle)
        found = self._status(kernel)
        if found is None or found[0] in kaggle_status.ENDED:
            return
        log = self._log_so_far(kernel)
        elapsed_s = kaggle_status.observe_running(found[0], log).elapsed_s
        write_json(self._keep(kernel), {"lines": log.lines, "elapsed_s": elapsed_s})
        self.api.delete_kernel(kernel)
        if self._status(kernel):
            raise ProviderRefused(
                f"{kernel.slug} is still on Kaggle after it was deleted", f"delete it at {handle.url}"
            )

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        kernel, folder = Kernel.from_handle(handle), RunFolder(dest)
        if whole := outputs.read_complete_outputs(folder):
            return whole
        found = self._status(kernel)
        if found is None:
            kept, _ = self._kept(kernel)
            if kept is None:
                raise NotYet(f"{kernel.slug} is not on Kaggle", "boneagectl show")
            return outputs.write_log_outputs(kept, folder)
        if found[0] not in kaggle_status.ENDED:
            return outputs.write_log_outputs(self._log_so_far(kernel), folder)
        files, text = self.api.list_outputs(kernel)
        log = KernelLog.from_events(parse_events(text))
        return outputs.download_outputs(files, log if log.lines else self._log_so_far(kernel), folder)

    # ------------------------------------------------------------------------------- beside the legs
    def rehearse(self, rendered: Path, place: Path, python: str) -> Iterator[Finding]:
        """Runs the rendered script below the new folder `place`; see `rehearsing`."""
        return rehearsal.rehearse(rendered, place, python)

    def push_pack(self, pack: Path) -> str:
        """Uploads `pack` as a private data set, once, and returns its name; see `datasets`."""
        return datasets.upload_pack(self.api, pack, self._named(ask=True).username, self.root)

    def download_dataset(self, ref: str, dest: Path) -> None:
        """Downloads and unpacks the data set `ref` into `dest`; goes on where it broke off."""
        datasets.download_dataset(self.api, ref, dest)

    # ---------------------------------------------------------------------------- what is kept here
    def _keep(self, kernel: Kernel) -> Path:
        return self.root / f"{kernel.slug}.json"

    def _kept(self, kernel: Kernel) -> tuple[KernelLog | None, int | None]:
        path = self._keep(kernel)
        if not path.exists():
            return None, None
        kept = parse_object(path.read_text(), path.name)
        return KernelLog.from_events({"data": f"{line}\n"} for line in kept["lines"]), kept["elapsed_s"]


def _username_here() -> str:
    try:
        return credentials.find_credentials().username
    except MachineError:
        return ""
