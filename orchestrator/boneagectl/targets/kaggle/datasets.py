"""Kaggle datasets, up- and downloaded by Kaggle's own command line, which resumes and shows its progress."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from boneage_trainer.contract import PackFolder, write_json
from boneagectl import units
from boneagectl.errors import MachineError, NotFound, ProviderRefused
from boneagectl.targets.kaggle.client import KaggleApi

METADATA = "dataset-metadata.json"
_COMMAND = [sys.executable, "-m", "kaggle"]
_STDERR = 2
_READY_EVERY_S = 2.0
_READY_LIMIT_S = 1800.0
_ABSENT = "not found"


def create_dataset(api: KaggleApi, folder: Path) -> str:
    """Creates the private dataset that `folder` describes, waits until it can be attached, and returns its name.

    One that exists is left as it is: its name identifies its content.

    Raises:
        ProviderRefused: Kaggle's command line failed, or the dataset did not become ready.
    """
    ref = str(json.loads((folder / METADATA).read_text())["id"])
    if _dataset_status(api, ref) == _ABSENT:
        run_kaggle_cli("datasets", "create", "-p", str(folder), "-r", "skip")
    give_up = time.monotonic() + _READY_LIMIT_S
    while (status := _dataset_status(api, ref)) != "ready":
        if status == "failed" or time.monotonic() > give_up:
            raise ProviderRefused(f"the dataset {ref} is {status} on Kaggle", f"look at kaggle.com/datasets/{ref}")
        time.sleep(_READY_EVERY_S)
    return ref


def upload_pack(api: KaggleApi, pack: Path, owner: str, root: Path) -> str:
    """Uploads a pack once, as a dataset named by its fingerprint; returns the dataset's name."""
    name = f"boneage-pack-{PackFolder(pack).read_card()['fingerprint'][:12]}"
    folder = root / "push" / name  # the pack stays unchanged; Kaggle's tool resumes an upload by this path
    folder.mkdir(parents=True, exist_ok=True)
    for file in PackFolder(pack).files():
        link = folder / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file.absolute())
    write_json(folder / METADATA, {"id": f"{owner}/{name}", "title": name, "licenses": [{"name": "unknown"}]})
    return create_dataset(api, folder)


def download_dataset(api: KaggleApi, ref: str, dest: Path) -> None:
    """Downloads the dataset `ref` and unpacks it into `dest`.

    Raises:
        NotFound: this account sees no such dataset. ProviderRefused: Kaggle's command line failed.
        MachineError: the disk is too small.
    """
    needed = 2 * api.dataset_bytes(ref)
    folder = dest if dest.exists() else dest.absolute().parent
    if needed > (free := shutil.disk_usage(folder).free):
        raise MachineError(
            f"{ref} needs {units.format_bytes(needed)} while it is unpacked, the disk of {dest} has "
            f"{units.format_bytes(free)} free",
            "choose another folder, or let Kaggle prepare it: submit --target kaggle",
        )
    run_kaggle_cli("datasets", "download", ref, "-p", str(dest), "--unzip")


def run_kaggle_cli(*arguments: str) -> None:
    """Runs Kaggle's command line, with its output on standard error."""
    done = subprocess.run([*_COMMAND, *arguments], stdout=_STDERR, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        command = f"kaggle {' '.join(arguments[:2])}"
        raise ProviderRefused(f"{command} failed with exit code {done.returncode}; its reason is above")


def _dataset_status(api: KaggleApi, ref: str) -> str:
    try:
        return api.dataset_status(ref)
    except NotFound:
        return _ABSENT
