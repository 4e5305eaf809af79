"""One session on Kaggle: find what is attached, prepare it if need be, train one leg, leave it as ``run.zip``."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, PackFolder, RunFolder, state_line, unknown_name
from boneage_trainer.platforms import detect
from boneage_trainer.platforms.detect import NoGpu, check_gpus
from boneage_trainer.platforms.session import Programs, failed, misfit, say, settled
from boneage_trainer.platforms.subprocesses import Children, Ended

_MARGIN_S, _MARGIN_SHARE = 180.0, 0.1
"""Kept free of the session's limit for packing what was reached; the share is for short sessions."""


_NO_GPU = (
    "Verify your phone number in Kaggle's settings, see how much of this week's GPU quota is left, "
    "and ask for the machine shape NvidiaTeslaT4"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What one session is asked for.

    `leg` is its id, `owner` the user whose kernel it is, `dataset` and `resume` are ``owner/slug`` of what is
    attached, `resume` as an earlier kernel (`resume_kind` notebooks) or as a data set (datasets); `fingerprint` is
    that of the pack the job wants, or empty; `time_limit_s` is what Kaggle was given; at least `gpus` are expected.
    """

    leg: str
    owner: str
    dataset: str
    image_size_px: int
    fingerprint: str
    resume: str | None
    resume_kind: str
    time_limit_s: float
    gpus: int

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Parameters:
        """Raises ContractError where a parameter is unknown or missing."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                raise ContractError(unknown_name("parameter", name, names))
        if missing := [name for name in names if name not in given]:
            raise ContractError(f"the script lacks the parameters {', '.join(missing)}")
        return cls(**given)


class KaggleSession:
    """One session in the folders below `root`: ``input`` is attached, ``working`` comes back, ``tmp`` does not."""

    def __init__(self, given: Parameters, bundle: Path) -> None:
        self._began_s = time.monotonic()
        self.given, self.bundle = given, bundle.absolute()
        root = Path(os.environ.get("BONEAGE_KAGGLE_ROOT") or "/kaggle").absolute()
        self.inputs, self.working, self.tmp = root / "input", root / "working", root / "tmp"
        self.out, self.pack = RunFolder(self.working / "run"), PackFolder(self.tmp / "pack")
        self.rehearses = detect.is_on()
        self.margin_s = min(_MARGIN_S, _MARGIN_SHARE * given.time_limit_s)
        needs_gpu = bool(given.gpus) and not self.rehearses
        self.programs = Programs(Children(), self.bundle, self.tmp, needs_gpu)

    @property
    def left_s(self) -> float:
        """Seconds until what is reached must be packed."""
        return self.given.time_limit_s - (time.monotonic() - self._began_s) - self.margin_s

    def run(self) -> tuple[int, dict[str, Any]]:
        """The whole session; returns the exit code and what ``state.json`` says at its end.

        Raises:
            ContractError: something that is asked for is not there or does not fit.
            OSError: the disk is full.
        """
        for folder in (self.tmp, self.working):
            folder.mkdir(parents=True, exist_ok=True)
        say(f"leg {self.given.leg} of {self.given.owner}; this session ends after {self.given.time_limit_s:.0f} s")
        if self.rehearses:
            say("REHEARSAL: the same script with a training cut short; no GPU is needed, other images may be used")
        elif self.given.gpus:
            check_gpus(self.given.gpus, "Kaggle", _NO_GPU)
        earlier = self._earlier_leg()
        self._find_pack()
        ended = self._train(earlier)
        return self._leave(ended)

    # ---------------------------------------------------------------------------- what is attached
    def _earlier_leg(self) -> RunFolder | None:
        if not self.given.resume:
            return None
        folder = mount(self.inputs, self.given.resume_kind, self.given.resume)
        leg = earlier_leg(folder, self.tmp / "resume")
        if self.rehearses:
            say(f"rehearsal: {self.given.resume} is there and whole; this short training begins anew beside it")
            return None
        say(f"going on from {self.given.resume} ({leg.root})")
        return leg

    def _find_pack(self) -> None:
        """Takes the attached pack, or makes one of the attached images."""
        folder = mount(self.inputs, "datasets", self.given.dataset)
        place, is_pack = images(folder, self._misfit)
        if is_pack:
            self.pack = PackFolder(place)
        else:
            self.programs.prepare(place, self.pack, self.given.image_size_px, self.left_s)
            if reason := self._misfit(self.pack.read_card()):
                raise ContractError(f"the pack made of {place} {reason}")
        card = self.pack.read_card()
        say(f"pack {self.pack.root}: {card['count']} images of {card['image_size_px']} px, {card['fingerprint'][:12]}")

    def _misfit(self, card: dict[str, Any]) -> str:
        """Why a pack with this `card` is not the one the job wants, or nothing."""
        return "" if self.rehearses else misfit(card, self.given.fingerprint, self.given.image_size_px)

    # -------------------------------------------------------------------------------- the training
    def _train(self, earlier: RunFolder | None) -> Ended:
        left_s = int(self.left_s)
        if left_s < 1:
            raise ContractError(f"nothing of the {self.given.time_limit_s:.0f} s is left to train in; raise the limit")
        return self.programs.train(self.pack, self.out, self.given.leg, left_s, self.margin_s / 2, earlier)

    # ------------------------------------------------------------------------------ what comes back
    def _leave(self, ended: Ended) -> tuple[int, dict[str, Any]]:
        """Packs what the trainer left and says how it went."""
        state = settled(self.out, ended)
        if self.out.root.is_dir():
            archive.pack_run(self.out, self.working / "run.zip")
            shutil.rmtree(self.out.root)
        return (0 if state["state"] in ("complete", "paused") else max(1, ended.code)), state


# == kaggle: What the script that Kaggle runs calls: one session, and its first and last word.

_KAGGLE_NO_GPU = 3


def main(parameters: Mapping[str, Any], bundle: str | Path) -> int:
    """Trains one leg as `parameters` say with the trainer in the zip `bundle`.

    The first line printed and the last are `state_line`s: by the last a poller tells paused from complete.

    Returns:
        The exit code.
    """
    leg, started_s = parameters.get("leg", ""), round(time.time(), 3)
    known = {"leg": leg, "epoch": 0, "epochs": 0, "started_s": started_s}
    say(state_line({**known, "state": "running"}))
    try:
        code, state = KaggleSession(Parameters.from_mapping(parameters), Path(bundle)).run()
    except NoGpu as error:
        code, state = _KAGGLE_NO_GPU, failed(str(error))
    except ContractError as error:
        code, state = 2, failed(str(error))
    except Exception as error:
        traceback.print_exc()
        code, state = 1, failed(f"{type(error).__name__}: {error}")
    if state["state"] == "failed":
        say(f"error: {state['reason']}")
    say(state_line({**known, **state}))
    return code


# == attached: What a Kaggle session finds attached below ``/kaggle/input``: a data set, and the leg to go on from.

_DEPTH = 4
"""Folders below the input in which a mount is looked for; below them only images are."""
_KINDS = ("datasets", "notebooks", "kernels", "models")


# ------------------------------------------------------------------------------------------ mounts
def mount(inputs: Path, kind: str, name: str) -> Path:
    """The folder at which ``owner/slug`` is attached; `kind` is ``datasets`` or ``notebooks``.

    Raises:
        ContractError: it is not attached, or only another owner's of that slug is.
    """
    owner, _, slug = name.partition("/")
    for folder in (inputs / kind / owner / slug, inputs / slug):
        if slug and folder.is_dir():
            return folder
    found = [folder for folder in _folders(inputs, _DEPTH) if folder.name == slug]
    for wanted in (owner, ""):
        for folder in found:
            if _owner(inputs, folder) == wanted:
                return folder
    raise ContractError(_not_attached(inputs, kind, name, found))


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Not rglob: that asks for each of thousands of images whether it is a folder."""
    for entry in _entries(root):
        if entry.is_dir():
            yield Path(entry.path)
            if depth > 1:
                yield from _folders(Path(entry.path), depth - 1)


def _entries(root: Path) -> list[os.DirEntry[str]]:
    return sorted(os.scandir(root), key=lambda entry: entry.name) if root.is_dir() else []


def _owner(inputs: Path, folder: Path) -> str:
    """Whose the mount is by its path; nothing where the path does not say."""
    above = folder.parent
    return "" if above == inputs or (above.parent == inputs and above.name in _KINDS) else above.name


def _not_attached(inputs: Path, kind: str, name: str, found: list[Path]) -> str:
    if found:
        others = ", ".join(f"{_owner(inputs, folder)}/{folder.name} at {folder}" for folder in found)
        return f"{name} is not attached, but another owner's is: {others}; attach {name}"
    there = ", ".join(str(path.relative_to(inputs)) for path in _folders(inputs, 3)) or "nothing"
    return f"{kind} {name} is not attached to this kernel (below {inputs}: {there[:500]}); attach it and start again"


# ------------------------------------------------------------------------------------------- images
def images(folder: Path, misfit: Callable[[dict[str, Any]], str]) -> tuple[Path, bool]:
    """The pack or the raw tree in `folder` or one level below, and whether it is a pack.

    `misfit` says of a pack's card why it is not wanted, or nothing.

    Raises:
        ContractError: neither is there, or no pack that is wanted.
    """
    places = [folder, *_folders(folder, depth=1)]
    packs = [PackFolder(place) for place in places if PackFolder(place).card.is_file()]
    reasons = [(pack.root, misfit(pack.read_card())) for pack in packs]
    for root, reason in reasons:
        if not reason:
            return root, True
    if reasons:
        raise ContractError("; ".join(f"pack {root} {reason}" for root, reason in reasons))
    for place in places:
        if any(entry.name.lower().endswith(".csv") for entry in _entries(place)):
            return place, False
    names = ", ".join(entry.name for entry in _entries(folder)[:20]) or "nothing"
    raise ContractError(f"{folder} holds neither a pack (pack.json) nor radiographs with their csv; it has {names}")


# -------------------------------------------------------------------------------------------- a leg
def earlier_leg(folder: Path, dest: Path) -> RunFolder:
    """The run folder in `folder`, unpacked into `dest` where it is a zip: the output of an earlier leg's kernel, or a
    data set made of a leg that ran elsewhere.

    Of a kernel that was killed, ``run/`` is left as it was at that instant: its manifest may be an epoch
    behind, so there the checkpoint's own checksums count, which the trainer verifies.

    Raises:
        ContractError: no run is there, it is damaged, or it has no checkpoint to go on from.
        OSError: the disk is full.
    """
    run = RunFolder(folder / "run")
    if zipped := next((path for name in ("run.zip", "run.bin") if (path := folder / name).is_file()), None):
        run = archive.unpack_run(zipped, dest)
    elif not run.root.is_dir():
        raise ContractError(f"{folder} has neither run.zip nor run/: that kernel left no training to go on from")
    if not run.last.is_file():
        missing = run.last.relative_to(run.root).as_posix()
        raise ContractError(f"the leg in {folder} has no {missing}: go on from one that finished an epoch")
    return run
