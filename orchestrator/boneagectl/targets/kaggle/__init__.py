"""The `kaggle` target: each leg is a private kernel of its own, generated, pushed, polled and collected.

Kaggle can only stop a kernel by deleting it, shows no files of a running one, and gives the same answer for a kernel
that does not exist and for one of another account. This module deals with the consequences.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path

from boneage_trainer.contract import RunFolder, parse_object, write_json
from boneagectl.errors import NotFound, NotSignedIn, NotYet, ProviderRefused, RemoteError, SubmitUncertain, Unreachable
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
from boneagectl.targets.kaggle import credentials, datasets, outputs, preflight, rehearsal, render, status
from boneagectl.targets.kaggle.client import LATER, KaggleApi, Kernel
from boneagectl.targets.kaggle.status import KernelLog, join_lines, parse_events

_IDLE_S = 0.2
"""A running log without an event for so long has been read to its current end: Kaggle replays it in one go."""
_MOST_S = 1.0
_CONNECT_S = 10.0
_QUIET_S = 60.0
_LOOKS_S = (0.5, 2.0, 5.0)
_RECONNECT_S = 1.0
_SESSION_HOURS = 12.0


class KaggleTarget(BaseTarget):
    """`root` keeps what Kaggle does not: the log of each kernel that was stopped."""

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
        self._api: KaggleApi | None = None

    @property
    def api(self) -> KaggleApi:
        if self._api is None:
            self._api = KaggleApi(credentials.find_credentials())
        return self._api

    def _settings_with_username(self, offline: bool = False) -> KaggleSettings:
        """The settings; an empty username is filled from the credentials, or else from Kaggle unless `offline`."""
        if not self.settings.username:
            try:
                name = credentials.find_credentials().username
            except NotSignedIn:
                name = ""
            name = name if name or offline else self.api.username()
            self.settings = replace(self.settings, username=name)
        return self.settings

    # -------------------------------------------------------------------------- before the start
    def check(self) -> list[Finding]:
        return preflight.findings(lambda: self.api, self._settings_with_username)

    def quota(self) -> Quota | None:
        return self.api.quota() if self._api or credentials.have_credentials() else None

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        return preflight.verdicts(self.api, self._settings_with_username())

    def quote(self, spec: JobSpec) -> Quote:
        """Kaggle ends the session at the time limit that is sent with it; it uses GPU hours and no money."""
        today = date.today().isoformat()  # noqa: DTZ011
        return Quote(self.name, spec.time_limit_s, 0, 0, 1, "kaggle.com/docs/notebooks", today, spec.time_limit_s)

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        render.write_kernel_folder(spec, bundle, leg_id, dest, resume, self._settings_with_username(offline=True))

    def rehearse(self, rendered: Path, workspace: Path, python: str) -> Iterator[Finding]:
        return rehearsal.rehearse(rendered, workspace, python)

    # ------------------------------------------------------------------------------- the start
    def submit(self, leg_id: str, rendered: Path) -> Handle:
        metadata, script = render.read_kernel_folder(rendered)
        for folder in (rendered / render.CODE, rendered / render.RESUME):
            if folder.exists():
                datasets.create_dataset(self.api, folder)
        try:
            return self.api.push_kernel(metadata, script).handle
        except SubmitUncertain as error:
            return self._find_after(error, metadata["id"])

    def _find_after(self, error: SubmitUncertain, name: str) -> Handle:
        """Looks for the kernel after a lost answer; a second push would start a second session."""
        owner, _, slug = name.partition("/")
        for pause_s in _LOOKS_S:
            time.sleep(pause_s)
            with suppress(RemoteError):
                if kernel := self.api.find_kernel(owner, slug):
                    return kernel.handle
        raise error

    def find(self, leg_id: str) -> Handle | None:
        name = Kernel(self._settings_with_username().username, leg_id, 0)
        if kernel := self.api.find_kernel(name.owner, name.slug):
            return kernel.handle
        if self._session_status(name):
            raise Unreachable(f"Kaggle's answers about {leg_id} contradict each other", LATER)
        return None

    def _session_status(self, kernel: Kernel) -> tuple[str, str] | None:
        """As `KaggleApi.session_status`, or None if the kernel does not exist: two requests must agree on that.

        A kernel that runs on after it was taken for deleted would be monitored and stopped by no one.
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
        session = self._session_status(kernel)
        if session is None:
            return status.observe_deleted(*self._saved_log(kernel))
        state, failure = session
        if state in status.ENDED:
            return status.observe_ended(state, failure, self._final_log(kernel))
        return status.observe_running(state, self._current_log(kernel))

    def _current_log(self, kernel: Kernel) -> KernelLog:
        """Empty if there is none yet or the stream fails: the state is known without it."""
        log, give_up = KernelLog(), time.monotonic() + _MOST_S
        with suppress(NotFound, Unreachable):
            for _ in join_lines(self.api.log_events(kernel, _IDLE_S, _CONNECT_S), log):
                if time.monotonic() > give_up:
                    break
        return log

    def _final_log(self, kernel: Kernel) -> KernelLog:
        _, text = self.api.list_outputs(kernel)
        return self._stored_log(kernel, text)

    def _stored_log(self, kernel: Kernel, text: str) -> KernelLog:
        """The log that is stored with the outputs; for some time after the end only the stream may have it."""
        log = KernelLog.from_events(parse_events(text))
        return log if log.lines else self._current_log(kernel)

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        kernel = Kernel.from_handle(handle)
        session = self._session_status(kernel)
        if session is None:
            log, _ = self._saved_log(kernel)
            yield from log.lines if log else []
        elif session[0] in status.ENDED:
            yield from self._final_log(kernel).lines
        elif follow:
            yield from self._follow_log(kernel)
        else:
            yield from self._current_log(kernel).lines

    def _follow_log(self, kernel: Kernel) -> Iterator[str]:
        """Each line once: a new connection replays the log from its start."""
        shown = 0
        while True:
            with suppress(NotFound, Unreachable):  # not started, or cut by a proxy: the state tells which
                for number, line in enumerate(join_lines(self.api.log_events(kernel, _QUIET_S))):
                    if number >= shown:
                        shown = number + 1
                        yield line
            session = self._session_status(kernel)
            if session is None or session[0] in status.ENDED:
                yield from self._final_log(kernel).lines[shown:] if session else []
                return
            time.sleep(_RECONNECT_S)

    # ------------------------------------------------------------------------------- stop, collect
    def stop(self, handle: Handle) -> None:
        """Saves the log, then deletes the kernel: Kaggle has no other way to stop it from outside."""
        kernel = Kernel.from_handle(handle)
        session = self._session_status(kernel)
        if session is None or session[0] in status.ENDED:
            return
        log = self._current_log(kernel)
        elapsed_s = status.observe_running(session[0], log).elapsed_s
        write_json(self._saved_log_path(kernel), {"lines": log.lines, "elapsed_s": elapsed_s})
        self.api.delete_kernel(kernel)
        if self._session_status(kernel):
            raise ProviderRefused(f"Kaggle still has {kernel.slug} after it was deleted", f"delete it at {handle.url}")

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        kernel, folder = Kernel.from_handle(handle), RunFolder(dest)
        if complete := outputs.read_complete_outputs(folder):
            return complete
        session = self._session_status(kernel)
        if session is None:
            saved, _ = self._saved_log(kernel)
            if saved is None:
                raise NotYet(f"{kernel.slug} does not exist on Kaggle", "boneagectl show")
            return outputs.write_log_outputs(saved, folder)
        if session[0] not in status.ENDED:
            return outputs.write_log_outputs(self._current_log(kernel), folder)
        files, text = self.api.list_outputs(kernel)
        return outputs.download_outputs(files, self._stored_log(kernel, text), folder)

    def _saved_log_path(self, kernel: Kernel) -> Path:
        return self.root / f"{kernel.slug}.json"

    def _saved_log(self, kernel: Kernel) -> tuple[KernelLog | None, int | None]:
        """What `stop` saved before it deleted the kernel: the log and its elapsed seconds."""
        path = self._saved_log_path(kernel)
        if not path.exists():
            return None, None
        saved = parse_object(path.read_text(), path.name)
        return KernelLog.from_events({"data": f"{line}\n"} for line in saved["lines"]), saved["elapsed_s"]

    # ----------------------------------------------------------------------------------- datasets
    def push_pack(self, pack: Path) -> str:
        """Uploads `pack` as a private dataset, once, and returns its name."""
        return datasets.upload_pack(self.api, pack, self._settings_with_username().username, self.root)

    def download_dataset(self, ref: str, dest: Path) -> None:
        """Downloads the dataset `ref` and unpacks it into `dest`; resumes a download that broke off."""
        datasets.download_dataset(self.api, ref, dest)
