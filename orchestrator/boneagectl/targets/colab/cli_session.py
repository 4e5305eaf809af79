"""One CLI leg from its submit to the release of its runtime: creating the runtime, downloading, releasing."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from boneage_trainer.contract import ContractError, RunFolder, sha256_of, write_atomic
from boneagectl import artifacts, locks
from boneagectl.errors import (
    BoneagectlError,
    LimitRefused,
    MachineError,
    NotFound,
    NotYet,
    ProviderRefused,
    RemoteError,
    SubmitUncertain,
    Unreachable,
)
from boneagectl.models import Artifacts, LegState
from boneagectl.targets.colab import colab_cli, jupyter, status, upload
from boneagectl.targets.colab.cli_state import CliLegFolder, LegRecord
from boneagectl.targets.colab.colab_cli import ColabCli
from boneagectl.targets.colab.jupyter import RuntimeClient, RuntimeGone
from boneagectl.targets.colab.runtimes import Runtimes
from boneagectl.targets.colab.upload import LaunchSpec, remote_folder

HOLD_S, HOLD_SHARE = 900, 0.1
"""As in the trainer's `platforms.colab_cli`."""
POLL_S = 1.0
_FINAL_FILES_S = 60.0
_INCOMING = ".incoming"
_UPLOAD_TOO_SLOW = (
    f"try again. Colab ends idle runtimes, and one where no run starts in {upload.STARTUP_S // 60} min releases "
    "itself; if the pack takes too long to upload, set targets.colab.dataset and submit without a pack"
)


def submit_leg(leg: CliLegFolder, rendered: Path, runtimes: Runtimes, colab: ColabCli, is_paid: bool) -> None:
    """Creates a runtime, uploads everything and starts the run; after a failure the runtime is released.

    Raises:
        LimitRefused: Colab refuses the runtime, or charges more than was reserved.
        SubmitUncertain: a runtime may exist; `recover_submit` finds out.
    """
    try:
        with locks.hold(leg.submit_lock):
            jupyter.check_dependencies()
            colab.version()
            launch = upload.read_launch(rendered)
            if launch.dataset:
                upload.kaggle_authorization()  # fails here rather than while a runtime is billed
            record = leg.save_record(_new_record(launch, colab, is_paid))
            try:
                access = colab.create_runtime(launch.name, launch.gpu)
            except LimitRefused:
                leg.delete_record()
                raise
            except (MachineError, RemoteError) as error:
                raise SubmitUncertain(error.message, "boneagectl ls searches for the runtime") from None
            _start(leg, leg.save_record(replace(record, endpoint=access.endpoint)), launch, rendered, runtimes, colab)
    except locks.LockBusy:
        raise MachineError(f"{leg.leg_id} is being submitted by another process", "boneagectl ls") from None


def _new_record(launch: LaunchSpec, colab: ColabCli, is_paid: bool) -> LegRecord:
    listed = colab.list_runtimes()
    if launch.name in [runtime.name for runtime in listed]:  # a second one takes its name: the first can't be stopped
        raise ProviderRefused(f"a Colab runtime {launch.name} already exists", "boneagectl doctor --target colab")
    before = tuple(runtime.endpoint for runtime in listed)
    usd_micro = colab_cli.usd_micro_per_hour(launch.units_per_hour) if is_paid else 0
    hold_s = round(min(HOLD_S, HOLD_SHARE * launch.time_limit_s))
    worst_s = launch.time_limit_s + upload.STARTUP_S
    return LegRecord(launch.name, launch.gpu, usd_micro, worst_s, hold_s, time.time(), before)


def _start(
    leg: CliLegFolder, record: LegRecord, launch: LaunchSpec, rendered: Path, runtimes: Runtimes, colab: ColabCli
) -> None:
    """Starts the run on the new runtime; releases the runtime after any failure."""
    try:
        if record.usd_micro_per_hour:
            _check_rate(launch, colab)
        with runtimes.connect(record) as client:
            kernel = upload.start_run(client, rendered, launch)
    except BaseException as error:
        try:
            runtimes.release(record)
        except (MachineError, RemoteError) as release_error:
            raise SubmitUncertain(f"{error}; then: {release_error.message}", release_error.next_step) from None
        leg.delete_record()
        if isinstance(error, RuntimeGone | NotFound):
            raise ProviderRefused(
                f"Colab ended the runtime before the run started ({error.message})", _UPLOAD_TOO_SLOW
            ) from None
        raise
    leg.save_record(replace(record, kernel=kernel))


def _check_rate(launch: LaunchSpec, colab: ColabCli) -> None:
    """The reservation rests on rates that Google does not publish. With other runtimes the rate of one is unknown."""
    current = colab.compute_units()
    if current.runtimes == 1 and current.rate_per_hour > launch.units_per_hour:
        raise LimitRefused(
            f"Colab charges {current.rate_per_hour:g} units per hour for a {launch.gpu}; {launch.units_per_hour:g} "
            "were reserved. The runtime was released", "choose another targets.colab.gpu"
        )  # fmt: skip


def recover_submit(leg: CliLegFolder, runtimes: Runtimes) -> bool:
    """Whether the leg has or had a runtime. One that an interrupted submit left is released; its cost is the leg's."""
    record = leg.record
    if record is None:
        return False
    if locks.is_held(leg.submit_lock):
        raise Unreachable(f"{leg.leg_id} is being submitted right now", "try again in some minutes")
    if record.kernel or leg.final:
        return True
    endpoint = runtimes.find_leftover(record)
    if endpoint:
        runtimes.release(replace(record, endpoint=endpoint))
        reason = "its submit was interrupted; the runtime was released"
        leg.save_final(status.ended_observation(record, LegState.LOST, reason))
        leg.mark_released()
    return bool(endpoint)


class OutputDownloader:
    """Downloads what legs write while they run, in the background, and releases their runtimes at the end.

    One for all legs of a state folder, in each process.
    """

    def __init__(self, runtimes: Runtimes) -> None:
        self._runtimes = runtimes
        self._threads: dict[str, threading.Thread] = {}
        self._requested: set[str] = set()
        self._lock = threading.Lock()

    def download(self, leg: CliLegFolder) -> Artifacts | None:
        """Downloads what is new. None where the runtime was released before.

        Raises:
            NotYet: there is nothing yet. RuntimeGone: Colab ended the runtime.
        """
        with leg.download_lock():
            record = leg.record
            if record is None or not record.kernel or leg.released.exists():
                return None
            with self._runtimes.connect(record) as client:
                return download_run_folder(client, leg.leg_id, leg.run)

    def finish(self, leg: CliLegFolder) -> None:
        """Downloads everything that the leg's manifest lists, then releases the runtime with proof.

        Raises:
            RemoteError: the runtime is still listed, or the list cannot be read.
        """
        give_up_s, is_lost = time.monotonic() + _FINAL_FILES_S, leg.final and leg.final.state is LegState.LOST
        with suppress(RuntimeGone, NotYet):
            while (found := self.download(leg)) and found.unlisted and not is_lost and time.monotonic() < give_up_s:
                time.sleep(POLL_S)
        with leg.download_lock():
            record = leg.record
            if record is None or leg.released.exists():
                return
            try:
                self._runtimes.release(record)
            except (MachineError, RemoteError):
                with suppress(MachineError, RemoteError), self._runtimes.connect(record) as client:
                    client.write_file(f"{remote_folder(leg.leg_id)}/fetched", b"all of it\n")  # it releases itself then
                raise
            leg.mark_released()

    # ----------------------------------------------------------------------------- in the background
    def start(self, leg: CliLegFolder) -> None:
        """Downloads or finishes in a thread, which this process waits for at its end. Returns at once."""
        with self._lock:
            self._requested.add(leg.leg_id)
            thread = self._threads.get(leg.leg_id)
            if thread is None or not thread.is_alive():
                self._threads[leg.leg_id] = thread = threading.Thread(target=self._work, args=(leg,))
                thread.start()

    def _work(self, leg: CliLegFolder) -> None:
        """Repeats while requests come in: one made during a download may be about the leg's end."""
        while True:
            with self._lock:
                if leg.leg_id not in self._requested:
                    del self._threads[leg.leg_id]
                    return
                self._requested.discard(leg.leg_id)
            with suppress(BoneagectlError, ContractError, OSError):  # the next poll tries again
                if leg.final:
                    self.finish(leg)
                else:
                    self.download(leg)

    def wait(self) -> None:
        """Waits for the downloads in the background."""
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join()


def download_run_folder(client: RuntimeClient, leg_id: str, dest: RunFolder) -> Artifacts:
    """Downloads the run folder into `dest`; files that are there and match the leg's manifest are skipped.

    Raises:
        NotYet: there is nothing yet. MachineError: a name points outside the folder.
        RuntimeGone, Unreachable: the runtime is gone, or does not answer.
    """
    folder, incoming = f"{remote_folder(leg_id)}/run", dest.root / _INCOMING
    names = [name for name in client.list_files(folder) if not any(part.startswith(".") for part in name.split("/"))]
    for name in names:
        artifacts.check_name(name)
    shutil.rmtree(incoming, ignore_errors=True)  # parts of files that the run may have replaced since
    if manifest := client.read_file(f"{folder}/{dest.manifest.name}"):
        write_atomic(dest.manifest, manifest)
    listed, hashes = artifacts.read_manifest_hashes(dest), {}
    for name in (name for name in names if name != dest.manifest.name):
        path, sha256 = dest.root / name, listed.get(name)
        if sha256 is not None and path.is_file() and sha256_of(path) == sha256:
            hashes[name] = sha256
            continue
        with suppress(NotFound):  # replaced or deleted meanwhile
            hashes[name] = client.download(f"{folder}/{name}", incoming / name)
            artifacts.move_into_place(incoming / name, path)
    shutil.rmtree(incoming, ignore_errors=True)
    return artifacts.read_artifacts(dest, hashes)
