"""One session on Kaggle: find what is attached, prepare it if need be, train one leg, leave it as ``run.zip``."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_trainer import archive, attached, rehearsal
from boneage_trainer.children import Children, Ended
from boneage_trainer.contract import ContractError, PackFolder, RunFolder, unknown
from boneage_trainer.gpus import check_gpus
from boneage_trainer.rented import Programs, misfit, say, settled

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
                raise ContractError(unknown("parameter", name, names))
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
        self.rehearses = rehearsal.is_on()
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
        folder = attached.mount(self.inputs, self.given.resume_kind, self.given.resume)
        leg = attached.earlier_leg(folder, self.tmp / "resume")
        if self.rehearses:
            say(f"rehearsal: {self.given.resume} is there and whole; this short training begins anew beside it")
            return None
        say(f"going on from {self.given.resume} ({leg.root})")
        return leg

    def _find_pack(self) -> None:
        """Takes the attached pack, or makes one of the attached images."""
        folder = attached.mount(self.inputs, "datasets", self.given.dataset)
        place, is_pack = attached.images(folder, self._misfit)
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
