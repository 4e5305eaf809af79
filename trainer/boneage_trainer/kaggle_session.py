"""One session on Kaggle: find what is attached, prepare it if need be, train one leg, leave it as ``run.zip``."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_trainer import archive, attached, rehearsal
from boneage_trainer.children import Children, Ended
from boneage_trainer.contract import (
    ContractError,
    PackFolder,
    RunFolder,
    parse_object,
    unknown,
    write_json,
    write_manifest,
)
from boneage_trainer.gpus import check_gpus
from boneage_trainer.surroundings import NEED_GPU

_MARGIN_S, _MARGIN_SHARE = 180.0, 0.1
"""Kept free of the session's limit for packing what was reached; the share is for short sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What one session is asked for.

    `leg` is its id, `owner` the user whose kernel it is, `dataset` and `resume` are ``owner/slug`` of what is
    attached; `fingerprint` is that of the pack the job wants, or empty; `time_limit_s` is what Kaggle was given;
    at least `gpus` are expected.
    """

    leg: str
    owner: str
    dataset: str
    image_size_px: int
    fingerprint: str
    resume: str | None
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


def failed(reason: str) -> dict[str, Any]:
    """What ``state.json`` says where the trainer could not say it itself."""
    return {"state": "failed", "reason": " ".join(reason.split())[:500], "updated_s": round(time.time(), 3)}


def say(text: str) -> None:
    print(text, flush=True)


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
        self.children = Children()

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
            check_gpus(self.given.gpus)
        earlier = self._earlier_leg()
        self._find_pack()
        ended = self._train(earlier)
        return self._leave(ended)

    # ---------------------------------------------------------------------------- what is attached
    def _earlier_leg(self) -> RunFolder | None:
        if not self.given.resume:
            return None
        folder = attached.mount(self.inputs, "notebooks", self.given.resume)
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
            self._prepare(place)
            if reason := self._misfit(self.pack.read_card()):
                raise ContractError(f"the pack made of {place} {reason}")
        card = self.pack.read_card()
        say(f"pack {self.pack.root}: {card['count']} images of {card['image_size_px']} px, {card['fingerprint'][:12]}")

    def _misfit(self, card: dict[str, Any]) -> str:
        """Why a pack with this `card` is not the one the job wants, or nothing."""
        wanted, found = self.given.fingerprint, card["fingerprint"]
        if self.rehearses:
            return ""
        if wanted:
            return "" if found == wanted else f"has fingerprint {found[:12]}, the job wants {wanted[:12]}"
        size_px, asked_px = card["image_size_px"], self.given.image_size_px
        return "" if size_px == asked_px else f"has images of {size_px} px, the job wants {asked_px} px"

    def _prepare(self, tree: Path) -> None:
        say(f"preparing the images in {tree} at {self.given.image_size_px} px")
        command = [sys.executable, "-m", "boneage_trainer.prepare", str(tree), "--out", str(self.pack.root)]
        command += ["--size-px", str(self.given.image_size_px)]
        ended = self._child(command, self.left_s, merged=True)
        if ended.code:
            raise ContractError(f"the images in {tree} were not prepared: {ended.words}")

    # -------------------------------------------------------------------------------- the training
    def _train(self, earlier: RunFolder | None) -> Ended:
        left_s = int(self.left_s)
        if left_s < 1:
            raise ContractError(f"nothing of the {self.given.time_limit_s:.0f} s is left to train in; raise the limit")
        command = [sys.executable, str(self.bundle), "--data", str(self.pack.root)]
        command += ["--out", str(self.out.root), "--leg", self.given.leg, "--time-limit-s", str(left_s)]
        command += ["--resume", str(earlier.root)] if earlier else []
        return self._child(command, left_s + self.margin_s / 2)  # at its limit the trainer ends itself

    def _child(self, command: list[str], limit_s: float, merged: bool = False) -> Ended:
        environment = {name: value for name, value in os.environ.items() if name != NEED_GPU}
        if self.given.gpus and not self.rehearses:
            environment[NEED_GPU] = "1"
        paths = filter(None, (str(self.bundle), environment.get("PYTHONPATH")))
        environment |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        return self.children.run(command, environment, self.tmp, max(1.0, limit_s), merged)

    # ------------------------------------------------------------------------------ what comes back
    def _leave(self, ended: Ended) -> tuple[int, dict[str, Any]]:
        """Packs what the trainer left and says how it went."""
        state = self._last_state(ended)
        if self.out.root.is_dir():
            if self.out.state.exists():
                write_json(self.out.state, state)
            write_manifest(self.out)  # anew: a trainer that was killed had no time to
            archive.pack_run(self.out, self.working / "run.zip")
            shutil.rmtree(self.out.root)
        return (0 if state["state"] in ("complete", "paused") else max(1, ended.code)), state

    def _last_state(self, ended: Ended) -> dict[str, Any]:
        """The trainer's last word, or ours where it ended without one."""
        if not self.out.state.exists():
            return failed(f"the trainer left no state: {ended.words}")
        state = parse_object(self.out.state.read_text(encoding="utf-8"), self.out.state.name)
        return state if state["state"] != "running" else {**state, **failed(f"trainer {ended.words}")}
