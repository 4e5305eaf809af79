"""Outputs of a kernel: downloaded, verified by the leg's own manifest, and never outside their folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, RunFolder, parse_object, write_atomic
from boneagectl import artifacts
from boneagectl.errors import MachineError, NotYet
from boneagectl.models import Artifacts
from boneagectl.targets import http
from boneagectl.targets.kaggle.status import KernelLog

ZIP = "run.zip"
LOOSE = "run/"
_INCOMING = ".incoming"
_STORAGE = http.Provider("Kaggle's file storage", sign_in="boneagectl collect", refused="run the same command again")
"""Its addresses are signed for about an hour; each call lists them again."""


def download_outputs(files: list[tuple[str, str]], log: KernelLog, dest: RunFolder) -> Artifacts:
    """Downloads the run folder among `files` (name, address) into `dest`, and writes the log beside it.

    Raises:
        NotYet: there is nothing, not even a log.
        MachineError: a name points outside the folder, or a file does not match the leg's manifest.
        ProviderRefused, Unreachable: what was downloaded is kept, and the next call resumes.
    """
    for name, _ in files:
        artifacts.check_name(name)
    incoming = dest.root / _INCOMING
    addresses = {name: url for name, url in files if name == ZIP or name.startswith(LOOSE)}
    with http.session() as session:
        if ZIP in addresses:
            if not (incoming / ZIP).exists():  # else an earlier call downloaded it and could not unpack it
                http.download(session, addresses[ZIP], incoming / ZIP, _STORAGE)
            collected = unpack_outputs(incoming / ZIP, log, dest)
        else:
            _write_log(log, dest)
            hashes = {}
            for name, url in addresses.items():
                relative = name.removeprefix(LOOSE)
                hashes[relative] = http.download(session, url, incoming / name, _STORAGE)
                artifacts.move_into_place(incoming / name, dest.root / relative)
            collected = artifacts.read_artifacts(dest, hashes)
    shutil.rmtree(incoming, ignore_errors=True)
    return collected


def unpack_outputs(zip_path: Path, log: KernelLog, dest: RunFolder) -> Artifacts:
    """Unpacks the run folder in `zip_path` into `dest`: all files, verified by the leg's manifest, or none.

    Raises:
        MachineError: the zip is damaged or hostile, or a file does not match the manifest.
    """
    folder = zip_path.with_name("unpacked")
    try:
        archive.unpack_run(zip_path, folder)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                artifacts.move_into_place(path, dest.root / path.relative_to(folder))
    except ContractError as error:
        zip_path.unlink()
        raise MachineError(f"no output was accepted: {error}", "boneagectl collect downloads it again") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _write_log(log, dest)
    return artifacts.read_artifacts(dest)


def _write_log(log: KernelLog, dest: RunFolder) -> None:
    if log.lines:
        write_atomic(dest.log, "".join(f"{line}\n" for line in log.lines))


def write_log_outputs(log: KernelLog, dest: RunFolder) -> Artifacts:
    """Writes the log and its metrics: the only outputs of a session that runs or was deleted.

    Raises:
        NotYet: the log is empty.
    """
    if not log.lines:
        raise NotYet("Kaggle shows no line of the log yet", "boneagectl watch")
    _write_log(log, dest)
    if log.metrics:
        write_atomic(dest.metrics, "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in log.metrics))
    return artifacts.read_artifacts(dest)


def read_complete_outputs(dest: RunFolder) -> Artifacts | None:
    """The outputs in `dest` if they are all of a leg that ended in order, else None."""
    try:
        collected, state = (
            artifacts.read_artifacts(dest),
            parse_object(dest.state.read_text(), dest.state.name)["state"],
        )
    except (OSError, ValueError, KeyError, NotYet):
        return None
    has_all = dest.log.exists() and dest.manifest.exists() and not collected.unlisted
    return collected if has_all and state in ("complete", "paused") else None
