"""Downloads a dataset from Kaggle with the user's own token: a zip, resumed after broken connections, then unpacked.

It uses Kaggle's public download address and the standard library, since the version of Kaggle's client on a Colab
runtime is unknown, and it travels in the bundle, so it cannot use the orchestrator's `targets/http.py`.
KAGGLE_API_ENDPOINT replaces the address of kaggle.com, as in kagglehub.
"""

from __future__ import annotations

import base64
import errno
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from boneage_trainer.console import ProgressLine
from boneage_trainer.contract import ContractError
from boneage_trainer.platforms.colab_api import ColabSecret

PAUSES_S = (1.0, 5.0, 15.0, 60.0)
_TIMEOUT_S = 60.0
_CHUNK_BYTES = 1 << 20
_SIGN_IN = (
    "no Kaggle token: {why}. On kaggle.com open Settings > API and create a token. Here click the key at the left "
    "edge, add the secret KAGGLE_API_TOKEN (or KAGGLE_USERNAME and KAGGLE_KEY), switch on its notebook access, and run "
    "this cell again. Or put a pack on Drive and set PACK to its folder"
)
_REFUSED = {
    401: "Kaggle does not accept the token: create a new one (kaggle.com, Settings > API) and save it as the secret",
    403: "Kaggle does not let this account download it: open the dataset's page, accept its terms, run the cell again",
    404: "there is no such dataset on Kaggle: correct DATASET in the settings (OWNER/NAME)",
}


def authorization_header(secret: Callable[[str], ColabSecret]) -> str:
    """The header that signs in, from the secrets that exist.

    Raises:
        ContractError: there are none; the message explains how to create one.
    """
    token = secret("KAGGLE_API_TOKEN")
    if token.value:
        return f"Bearer {token.value}"
    name, key = secret("KAGGLE_USERNAME"), secret("KAGGLE_KEY")
    if name.value and key.value:
        return "Basic " + base64.b64encode(f"{name.value}:{key.value}".encode()).decode()
    reasons = [item.missing for item in (token, name, key) if item.missing]
    raise ContractError(_SIGN_IN.format(why="; ".join(reasons)))


def download_dataset(dataset: str, header: str, dest: Path) -> None:
    """Downloads the newest version of `dataset` (OWNER/NAME) and unpacks it into the folder `dest`.

    Raises:
        ContractError: Kaggle refuses, or the download is not a zip.
        OSError: no connection, or the disk is full.
    """
    zip_path = dest.with_name(f"{dest.name}.zip")
    zip_path.parent.mkdir(parents=True, exist_ok=True)
    endpoint = os.environ.get("KAGGLE_API_ENDPOINT") or "https://www.kaggle.com"
    _download(f"{endpoint}/api/v1/datasets/download/{dataset}", header, zip_path)
    shutil.rmtree(dest, ignore_errors=True)
    print(f"unpacking {dataset}", flush=True)
    try:
        with zipfile.ZipFile(zip_path) as archive:
            archive.extractall(dest)
    except zipfile.BadZipFile as error:
        raise ContractError(f"the download of {dataset} cannot be unpacked: {error}; run the cell again") from None
    finally:
        zip_path.unlink()


def _download(address: str, header: str, dest: Path) -> None:
    dest.unlink(missing_ok=True)
    for pause_s in (*PAUSES_S, None):
        try:
            return _append_rest(address, header, dest)
        except urllib.error.HTTPError as error:
            if error.code in _REFUSED:
                raise ContractError(_REFUSED[error.code]) from None
            reason = f"HTTP {error.code}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(error)
        if pause_s is None:
            raise OSError(f"the download from Kaggle broke off {len(PAUSES_S) + 1} times: {reason}")
        print(f"the download broke off ({reason}); resuming in {pause_s:.0f} s", flush=True)
        time.sleep(pause_s)
    return None


def _append_rest(address: str, header: str, dest: Path) -> None:
    """Appends the missing bytes of `dest`; raises http.client.IncompleteRead if the connection breaks."""
    have = dest.stat().st_size if dest.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    request.add_unredirected_header("Authorization", header)  # Kaggle redirects to another host, which must not see it
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
        have = have if response.status == 206 else 0
        left = int(response.headers.get("Content-Length") or 0)
        needed, free = 2 * left, shutil.disk_usage(dest.parent).free  # the zip and its content: images hardly compress
        if free < needed:
            reason = f"{needed / 1e9:,.1f} GB are needed, {free / 1e9:,.1f} GB are free"
            raise OSError(errno.ENOSPC, reason, str(dest))
        progress = ProgressLine("downloaded MB", max(1, (have + left) // 10**6), have // 10**6, sys.stdout)
        with open(dest, "ab" if have else "wb") as target:
            while chunk := response.read(_CHUNK_BYTES):
                target.write(chunk)
                progress.add((have + len(chunk)) // 10**6 - have // 10**6)
                have, left = have + len(chunk), left - len(chunk)
    if left > 0:
        raise http.client.IncompleteRead(b"", left)
