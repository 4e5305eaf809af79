"""The images of a Colab session, as a pack on the local disk: from Drive, or from Kaggle and then stored on Drive.

The trainer never reads from Drive: it is slow, and thousands of small files overload it. A pack is four files.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_trainer.contract import ContractError, PackFolder, sha256_of
from boneage_trainer.platforms import colab_api, kaggle, kaggle_dataset
from boneage_trainer.platforms.colab_drive import MountedDrive, copy_with_retries
from boneage_trainer.platforms.session import print_line


@dataclass(frozen=True, slots=True)
class PackRequest:
    """Which images: the folder `pack` below MyDrive, or the Kaggle `dataset` (OWNER/NAME) at `image_size_px`.

    `mismatch` returns why a pack with this card is not the job's, or "".
    """

    dataset: str
    pack: str
    image_size_px: int
    mismatch: Callable[[dict[str, Any]], str]

    @property
    def name(self) -> str:
        """The name of the pack's folder, here and on Drive."""
        return self.pack.strip("/").replace("/", "-") or f"{self.dataset.replace('/', '-')}-{self.image_size_px}px"


def find_pack(request: PackRequest, drive: MountedDrive, stored: Path, local: Path) -> tuple[PackFolder, bool]:
    """The pack below `local`, there already or copied from Drive; and whether it exists.

    `stored` is the folder on Drive with packs that earlier sessions built.

    Raises:
        ContractError: the pack that was named is not on Drive, is damaged, or is another one.
        OSError: Drive cannot be read, or the disk is full.
    """
    pack = PackFolder(local / request.name)
    if not (pack.card.exists() and not request.mismatch(pack.read_card())):
        source = PackFolder(drive.my / request.pack if request.pack else stored / request.name)
        if request.pack and not source.card.exists():
            raise ContractError(f"there is no pack in {request.pack!r} on Drive: upload the folder that "
                                "`boneagectl data prepare` created, or leave PACK empty")  # fmt: skip
        if not source.card.exists() or not _copy_pack(source, pack, request):
            return pack, False
    card = pack.read_card()
    print_line(f"{card['count']:,} images of {card['image_size_px']} px on the local disk ({card['fingerprint'][:12]})")
    return pack, True


def _copy_pack(source: PackFolder, pack: PackFolder, request: PackRequest) -> bool:
    """Copies `source` from Drive. An unusable pack of an earlier session is built again; the user's own is an error."""
    start_s, reason = time.monotonic(), request.mismatch(source.read_card())
    if not reason:
        shutil.rmtree(pack.root, ignore_errors=True)
        for path in filter(Path.exists, source.files()):
            copy_with_retries(path, pack.root / path.name)
        reason = verify_pack(pack)
        print_line(f"copied from Drive in {time.monotonic() - start_s:.0f} s")
    if not reason:
        return True
    shutil.rmtree(pack.root, ignore_errors=True)
    if request.pack:
        raise ContractError(f"the pack {request.pack!r} on Drive {reason}")
    print_line(f"the pack stored on Drive {reason}: building it again")
    return False


def build_pack(
    request: PackRequest, prepare: Callable[[Path, PackFolder], None], pack: PackFolder, scratch: Path, header: str = ""
) -> None:
    """Builds `pack` from the Kaggle dataset, which is downloaded to `scratch` and deleted afterwards.

    `header` is the Authorization header; if it is empty, it is made from Colab's secrets.

    Raises:
        ContractError: no token, Kaggle refuses, or the images are not the job's.
        OSError: no connection, or the disk is full.
    """
    shutil.rmtree(pack.root, ignore_errors=True)
    authorization = header or kaggle_dataset.authorization_header(colab_api.read_secret)
    kaggle_dataset.download_dataset(request.dataset, authorization, scratch)
    folder, is_pack = kaggle.find_images(scratch, request.mismatch)
    if is_pack:
        shutil.move(folder, pack.root)
    else:
        prepare(folder, pack)
    shutil.rmtree(scratch, ignore_errors=True)
    if reason := request.mismatch(pack.read_card()):
        raise ContractError(f"the pack built from {request.dataset} {reason}")


def store_pack(pack: PackFolder, drive: MountedDrive, stored: Path) -> None:
    """Copies `pack` to Drive for the next session, its card last: a pack with a card is complete. Raises OSError."""
    dest = PackFolder(stored / pack.root.name)
    if dest.card.exists() and dest.read_card() == pack.read_card():
        return
    for path in (pack.images, pack.index, pack.problems, pack.card):
        if path.exists():
            drive.copy_in(path, dest.root / path.name)


def verify_pack(pack: PackFolder) -> str:
    """Why the files of `pack` do not match its card, or ""."""
    from boneage_trainer.data.pack_writer import compute_fingerprint
    from boneage_trainer.data.source import read_index

    card = pack.read_card()
    try:
        rows = read_index(pack)
        if sha256_of(pack.images) != card["images_sha256"]:
            return f"is damaged: {pack.images.name} does not have the sha256 that {pack.card.name} lists"
    except (OSError, ValueError, KeyError) as error:
        return f"is damaged: {error}"
    is_intact = compute_fingerprint(card["image_size_px"], rows) == card["fingerprint"]
    return "" if is_intact else f"is damaged: {pack.index.name} was changed"
