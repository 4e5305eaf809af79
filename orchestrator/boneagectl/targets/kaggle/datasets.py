"""Private data sets, pushed by Kaggle's own command line, which resumes uploads and shows their progress."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from boneage_trainer.contract import PackFolder, write_json
from boneagectl import units
from boneagectl.errors import MachineError, NotFound
from boneagectl.targets.kaggle.client import KaggleApi

METADATA = "dataset-metadata.json"
_COMMAND = [sys.executable, "-m", "kaggle"]
_STDERR = 2
_READY_EVERY_S = 2.0
_READY_LIMIT_S = 1800.0


def create_dataset(api: KaggleApi, folder: Path) -> str:
    """Makes the private data set that `folder` describes, waits until it can be attached, and returns its name.

    One that exists already is left as it is: its name says what it holds.

    Raises:
        MachineError: Kaggle's tool failed, or the data set did not become ready.
    """
    ref = str(json.loads((folder / METADATA).read_text())["id"])
    if not _exists(api, ref):
        run_kaggle_cli("datasets", "create", "-p", str(folder), "-r", "skip")
    _wait(api, ref)
    return ref


def upload_pack(api: KaggleApi, pack: Path, owner: str, root: Path) -> str:
    """Uploads a pack under a name made of its fingerprint, so that the same pack is uploaded once."""
    name = f"boneage-pack-{PackFolder(pack).read_card()['fingerprint'][:12]}"
    folder = root / "push" / name  # the pack stays as it is; Kaggle's tool finds a broken upload again by this path
    folder.mkdir(parents=True, exist_ok=True)
    for file in PackFolder(pack).files():
        link = folder / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file.absolute())
    write_json(folder / METADATA, {"id": f"{owner}/{name}", "title": name, "licenses": [{"name": "unknown"}]})
    return create_dataset(api, folder)


def download_dataset(api: KaggleApi, ref: str, dest: Path) -> None:
    """Downloads and unpacks the data set `ref` into `dest`.

    Raises:
        Missing: there is none that this account may see. MachineError: no room, or Kaggle's tool failed.
    """
    needed = 2 * api.dataset_bytes(ref)
    folder = dest if dest.exists() else dest.absolute().parent
    if needed > (free := shutil.disk_usage(folder).free):
        raise MachineError(
            f"{ref} takes {units.format_bytes(needed)} while it is unpacked, the disk of {dest} has "
            f"{units.format_bytes(free)} free", "choose another folder, or prepare it there: submit --target kaggle",
        )  # fmt: skip
    run_kaggle_cli("datasets", "download", ref, "-p", str(dest), "--unzip")


def run_kaggle_cli(*arguments: str) -> None:
    """Kaggle's command line, whose talk goes to standard error."""
    done = subprocess.run([*_COMMAND, *arguments], stdout=_STDERR, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise MachineError(f"kaggle {' '.join(arguments[:2])} ended with {done.returncode}; it says why above")


def _exists(api: KaggleApi, ref: str) -> bool:
    try:
        api.dataset_status(ref)
    except NotFound:
        return False
    return True


def _wait(api: KaggleApi, ref: str) -> None:
    give_up = time.monotonic() + _READY_LIMIT_S
    while (status := _status(api, ref)) != "ready":
        if status == "failed" or time.monotonic() > give_up:
            raise MachineError(f"the data set {ref} is {status} on Kaggle", f"look at kaggle.com/datasets/{ref}")
        time.sleep(_READY_EVERY_S)


def _status(api: KaggleApi, ref: str) -> str:
    try:
        return api.dataset_status(ref)
    except NotFound:
        return "unknown"
