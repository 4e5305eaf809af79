"""The images of a notebook's training, as a pack on the local disk: from Drive, or from Kaggle and then kept on Drive.

Nothing is trained from Drive: it is slow, and thousands of small files break it. A pack is four files.
"""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_trainer.contract import ContractError, PackFolder, sha256_of
from boneage_trainer.platforms import colab_api, kaggle, kaggle_download
from boneage_trainer.platforms.colab_drive import Drive, copy_patiently
from boneage_trainer.platforms.session import say


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which images: the folder `pack` below MyDrive, or else the Kaggle set `dataset` (OWNER/NAME) at `image_size_px`.

    `misfit` says of a pack's card why it is not the one the job wants, or nothing.
    """

    dataset: str
    pack: str
    image_size_px: int
    misfit: Callable[[dict[str, Any]], str]

    @property
    def name(self) -> str:
        """What the pack is called, here and on Drive."""
        return self.pack.strip("/").replace("/", "-") or f"{self.dataset.replace('/', '-')}-{self.image_size_px}px"


def find(wanted: Wanted, drive: Drive, kept: Path, local: Path) -> tuple[PackFolder, bool]:
    """The pack below `local`: there already, or copied from Drive; and whether it is there.

    `kept` is the folder on Drive that keeps packs made by an earlier session.

    Raises:
        ContractError: the pack that was named is not on Drive, is damaged, or is another one.
        OSError: Drive does not give it, or the disk is full.
    """
    pack = PackFolder(local / wanted.name)
    if not (pack.card.exists() and not wanted.misfit(pack.read_card())):
        source = PackFolder(drive.my / wanted.pack if wanted.pack else kept / wanted.name)
        if not source.card.exists():
            if wanted.pack:
                raise ContractError(f"there is no pack in {wanted.pack!r} on Drive: put the folder that "
                                    "`boneagectl data prepare` made there, or leave PACK empty")  # fmt: skip
            return pack, False
        if not _bring(source, pack, wanted):
            return pack, False
    card = pack.read_card()
    say(f"{card['count']:,} images of {card['image_size_px']} px on the local disk ({card['fingerprint'][:12]})")
    return pack, True


def _bring(source: PackFolder, pack: PackFolder, wanted: Wanted) -> bool:
    """Copies `source`; of a pack that was only kept, one that will not do is not worth a stop."""
    began_s, reason = time.monotonic(), wanted.misfit(source.read_card())
    if not reason:
        shutil.rmtree(pack.root, ignore_errors=True)
        for path in filter(Path.exists, source.files()):
            copy_patiently(path, pack.root / path.name)
        reason = fault(pack)
        say(f"copied from Drive in {time.monotonic() - began_s:.0f} s")
    if not reason:
        return True
    shutil.rmtree(pack.root, ignore_errors=True)
    if wanted.pack:
        raise ContractError(f"the pack {wanted.pack!r} on Drive {reason}")
    say(f"the pack kept on Drive {reason}: making it anew")
    return False


def make(
    wanted: Wanted, prepare: Callable[[Path, PackFolder], None], pack: PackFolder, scratch: Path, header: str = ""
) -> None:
    """Makes `pack` of the Kaggle set, which is downloaded to `scratch` and deleted afterwards.

    `header` signs in; where it is empty, Colab's store of secrets is asked.

    Raises:
        ContractError: no token, Kaggle refuses, or the images are not what the job wants.
        OSError: no connection, or the disk is full.
    """
    shutil.rmtree(pack.root, ignore_errors=True)
    kaggle_download.fetch(wanted.dataset, header or kaggle_download.authorization(colab_api.secret), scratch)
    place, is_pack = kaggle.images(scratch, wanted.misfit)
    if is_pack:
        shutil.move(place, pack.root)
    else:
        prepare(place, pack)
    shutil.rmtree(scratch, ignore_errors=True)
    if reason := wanted.misfit(pack.read_card()):
        raise ContractError(f"the pack made of {wanted.dataset} {reason}")


def keep(pack: PackFolder, drive: Drive, kept: Path) -> None:
    """Puts `pack` on Drive for the next session, its card last: what has a card is whole. Raises OSError."""
    place = PackFolder(kept / pack.root.name)
    if place.card.exists() and place.read_card() == pack.read_card():
        return
    for path in (pack.images, pack.index, pack.problems, pack.card):
        if path.exists():
            drive.put(path, place.root / path.name)


def fault(pack: PackFolder) -> str:
    """Why the files of `pack` are not what its card says, or nothing."""
    from boneage_trainer.data.pack_writer import compute_fingerprint
    from boneage_trainer.data.source import Row

    card = pack.read_card()
    try:
        with open(pack.index, encoding="utf-8", newline="") as stream:
            rows = [(Row(one["id"], one["male"] == "True", _months(one["boneage_months"])), one["sha256"])
                    for one in csv.DictReader(stream)]  # fmt: skip
        if sha256_of(pack.images) != card["images_sha256"]:
            return f"is damaged: {pack.images.name} has another sha256 than {pack.card.name} says"
    except (OSError, ValueError, KeyError) as error:
        return f"is damaged: {error}"
    is_ours = compute_fingerprint(card["image_size_px"], rows) == card["fingerprint"]
    return "" if is_ours else f"is damaged: {pack.index.name} was changed"


def _months(text: str) -> float | None:
    return float(text) if text else None
