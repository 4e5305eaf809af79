"""What a kernel on Colab runs where nobody looks on: one session of a leg, which gives its machine back by itself.

Everything lies in one folder: ``bundle.zip``, ``pack`` and ``earlier`` as sent, ``run`` as the trainer leaves it,
``over`` once nothing more comes, ``fetched`` once all of it is at home. The kernel stays busy until the machine is
given back: a training beside a kernel without work would be taken for idle.
"""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_trainer.contract import (
    ContractError,
    PackFolder,
    RunFolder,
    unknown_name,
    write_atomic,
    write_json,
    write_manifest,
)
from boneage_trainer.platforms import colab_api, colab_images
from boneage_trainer.platforms.detect import check_gpus
from boneage_trainer.platforms.session import Programs, failed, misfit, say, settled
from boneage_trainer.platforms.subprocesses import Children, Ended

SESSION_S = 11.5 * 3600
"""Colab ends a session after 12 hours."""
HOLD_S, HOLD_SHARE = 900.0, 0.1
"""At most so long, and such a part of the time limit, the machine waits for what was reached to be fetched."""
OVER, FETCHED = "over", "fetched"
_LOOK_S = 0.5
_NO_GPU = "boneagectl submit gets another machine, or: boneagectl submit --target kaggle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What one session is asked for.

    `leg` is its id; `fingerprint` that of the pack the job wants, or empty; `dataset` (OWNER/NAME) is Kaggle's where
    no pack was sent, else empty; `time_limit_s` from now on the machine is given back, whatever happens.
    """

    leg: str
    fingerprint: str
    image_size_px: int
    dataset: str
    time_limit_s: float

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Parameters:
        """Raises ContractError where a parameter is unknown or missing."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                raise ContractError(unknown_name("parameter", name, names))
        if missing := [name for name in names if name not in given]:
            raise ContractError(f"the session lacks the parameters {', '.join(missing)}")
        return cls(**given)


def main(place: Path, parameters: Mapping[str, Any], authorization: str, timer: threading.Timer) -> None:
    """The whole session in the folder `place`, from the kernel's main thread.

    `authorization` signs in to Kaggle, and is kept in memory alone; `timer` would have given the machine back soon,
    had this never begun.
    """
    given = Parameters.from_mapping(parameters)
    last_ring = threading.Timer(given.time_limit_s, colab_api.unassign)
    last_ring.daemon = True
    last_ring.start()
    timer.cancel()
    with Children() as children:
        session = Unattended(place, given, children)
        session.run(authorization)
        session.hold()
    colab_api.unassign()


class Unattended:
    """One session of a leg."""

    def __init__(self, place: Path, given: Parameters, children: Children) -> None:
        self._ends_s = time.monotonic() + min(given.time_limit_s, SESSION_S)
        self._given, self._place = given, place
        self._hold_s = min(HOLD_S, HOLD_SHARE * given.time_limit_s)
        self._out, self._pack = RunFolder(place / "run"), PackFolder(place / "pack")
        self._children, self._tmp = children, place / "tmp"
        self._programs = Programs(children, place / "bundle.zip", self._tmp, needs_gpu=True)

    @property
    def left_s(self) -> float:
        """Seconds until the training must have ended."""
        return self._ends_s - self._hold_s - time.monotonic()

    def run(self, authorization: str) -> None:
        """Trains; however that ends, ``state.json`` says how."""
        try:
            self._tmp.mkdir(exist_ok=True)
            self._out.root.mkdir(exist_ok=True)
            check_gpus(1, "Colab", _NO_GPU)
            self._find_pack(authorization)
            self._settle(self._train())
        except (ContractError, OSError) as error:
            self._fail(str(error))
        except Exception as error:
            traceback.print_exc()
            self._fail(f"{type(error).__name__}: {error}")

    def hold(self) -> None:
        """Waits until all is fetched, or nobody came in time."""
        until_s = min(time.monotonic() + self._hold_s, self._ends_s)
        with suppress(OSError):
            write_atomic(self._place / OVER, "nothing more comes\n")
        while time.monotonic() < until_s and not (self._place / FETCHED).exists():
            time.sleep(_LOOK_S)

    # ---------------------------------------------------------------------------------- the images
    def _find_pack(self, authorization: str) -> None:
        given = self._given
        if given.dataset and not self._pack.card.exists():
            wanted = colab_images.Wanted(given.dataset, "", given.image_size_px, self._misfit)
            colab_images.make(wanted, self._prepare, self._pack, self._tmp / "images", authorization)
        elif reason := self._misfit(self._pack.read_card()):
            raise ContractError(f"the pack that was sent {reason}")

    def _prepare(self, tree: Path, pack: PackFolder) -> None:
        self._programs.prepare(tree, pack, self._given.image_size_px, self.left_s)

    def _misfit(self, card: dict[str, Any]) -> str:
        return misfit(card, self._given.fingerprint, self._given.image_size_px)

    # -------------------------------------------------------------------------------- the training
    def _train(self) -> Ended:
        left_s = int(self.left_s)
        if left_s < 1:
            raise ContractError("nothing of the time limit is left to train in; raise it")
        earlier = RunFolder(self._place / "earlier")
        return self._programs.train(
            self._pack, self._out, self._given.leg, left_s, self._hold_s / 2,
            earlier if earlier.last.exists() else None, self._hear,
        )  # fmt: skip

    def _hear(self, line: str) -> None:
        with suppress(OSError), open(self._out.log, "a", encoding="utf-8") as log:
            log.write(f"{line}\n")
        say(line)

    def _settle(self, ended: Ended) -> None:
        state = settled(self._out, ended)
        if not self._out.state.exists():
            self._fail(f"did not start: {self._last_words() or state['reason']}")

    def _last_words(self) -> str:
        lines = self._out.log.read_text(errors="replace").split("\n") if self._out.log.exists() else []
        return next((line for line in reversed(lines) if line.strip()), "")

    def _fail(self, reason: str) -> None:
        """What only this side can say; a disk that is full shall not keep it back."""
        shutil.rmtree(self._tmp, ignore_errors=True)
        state = {"epoch": 0, "epochs": 0, "leg": self._given.leg, "started_s": round(time.time(), 3)}
        with suppress(OSError):
            write_json(self._out.state, {**state, **failed(reason)})
            write_manifest(self._out)
