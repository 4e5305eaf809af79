"""One session of a CLI leg, run by a Colab kernel without a browser: it trains, and releases its own runtime.

Everything is in one folder: ``bundle.zip``, ``pack`` and ``earlier`` as uploaded, ``run`` as the trainer writes it,
``over`` once there are no further changes, ``fetched`` once everything was downloaded. The kernel stays busy until the
runtime is released: Colab considers a runtime with an idle kernel idle, even while a subprocess trains.
"""

from __future__ import annotations

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
    parse_parameters,
    write_atomic,
    write_json,
    write_manifest,
)
from boneage_trainer.platforms import colab_api, colab_images
from boneage_trainer.platforms.detect import check_gpus
from boneage_trainer.platforms.session import TrainerPrograms, failed_state, finalize_run, mismatch_reason, print_line
from boneage_trainer.platforms.subprocesses import SubprocessRunner

SESSION_S = 11.5 * 3600
"""Colab ends a session after 12 hours."""
HOLD_S, HOLD_SHARE = 900.0, 0.1
"""The runtime waits at most this long, and this share of the time limit, for its files to be downloaded."""
OVER, FETCHED = "over", "fetched"
_POLL_S = 0.5
_NO_GPU = "run boneagectl submit again for another runtime, or: boneagectl submit --target kaggle"


@dataclass(frozen=True, slots=True, kw_only=True)
class CliSessionParameters:
    """The settings of one session.

    `leg` is its id; `fingerprint` that of the job's pack, or empty for any pack; `dataset` (OWNER/NAME) the Kaggle
    dataset if no pack was uploaded, else empty; after `time_limit_s` the runtime is released in any case.
    """

    leg: str
    fingerprint: str
    image_size_px: int
    dataset: str
    time_limit_s: float


def run_session(folder: Path, parameters: Mapping[str, Any], authorization: str, timer: threading.Timer) -> None:
    """The whole session in `folder`, from the kernel's main thread.

    `authorization` is the header that signs in to Kaggle, kept in memory only; `timer` would have released the runtime
    soon, had this not started.
    """
    session_parameters = parse_parameters(CliSessionParameters, parameters)
    deadline = threading.Timer(session_parameters.time_limit_s, colab_api.release_runtime)
    deadline.daemon = True
    deadline.start()
    timer.cancel()
    with SubprocessRunner() as children:
        session = CliSession(folder, session_parameters, children)
        session.run(authorization)
        session.hold()
    colab_api.release_runtime()


class CliSession:
    """One session of a leg."""

    def __init__(self, folder: Path, parameters: CliSessionParameters, children: SubprocessRunner) -> None:
        self._end_s = time.monotonic() + min(parameters.time_limit_s, SESSION_S)
        self._parameters, self._folder = parameters, folder
        self._hold_s = min(HOLD_S, HOLD_SHARE * parameters.time_limit_s)
        self._out, self._pack = RunFolder(folder / "run"), PackFolder(folder / "pack")
        self._tmp = folder / "tmp"
        self._programs = TrainerPrograms(children, folder / "bundle.zip", self._tmp, needs_gpu=True)

    @property
    def left_s(self) -> float:
        """Seconds until the trainer must have ended."""
        return self._end_s - self._hold_s - time.monotonic()

    def run(self, authorization: str) -> None:
        """Trains; ``state.json`` records how it ended, whatever happens."""
        try:
            self._tmp.mkdir(exist_ok=True)
            self._out.root.mkdir(exist_ok=True)
            check_gpus(1, "Colab", _NO_GPU)
            self._provide_pack(authorization)
            left_s = int(self.left_s)
            if left_s < 1:
                raise ContractError("no time is left to train; raise the time limit")
            earlier = RunFolder(self._folder / "earlier")
            result = self._programs.train_leg(
                self._pack, self._out, self._parameters.leg, left_s, self._hold_s / 2,
                earlier if earlier.last.exists() else None, self._log,
            )  # fmt: skip
            state = finalize_run(self._out, result)
            if not self._out.state.exists():
                log = self._out.log.read_text(errors="replace").split("\n") if self._out.log.exists() else []
                last_line = next((line for line in reversed(log) if line.strip()), "")
                self._save_failure(f"did not start: {last_line or state['reason']}")
        except (ContractError, OSError) as error:
            self._save_failure(str(error))
        except Exception as error:
            traceback.print_exc()
            self._save_failure(f"{type(error).__name__}: {error}")

    def hold(self) -> None:
        """Waits until everything was downloaded, or the hold time is over."""
        until_s = min(time.monotonic() + self._hold_s, self._end_s)
        with suppress(OSError):
            write_atomic(self._folder / OVER, "nothing more comes\n")
        while time.monotonic() < until_s and not (self._folder / FETCHED).exists():
            time.sleep(_POLL_S)

    def _provide_pack(self, authorization: str) -> None:
        parameters = self._parameters
        if parameters.dataset and not self._pack.card.exists():
            size_px = parameters.image_size_px
            request = colab_images.PackRequest(parameters.dataset, "", size_px, self._mismatch)

            def prepare(tree: Path, pack: PackFolder) -> None:
                self._programs.prepare_pack(tree, pack, size_px, self.left_s)

            colab_images.build_pack(request, prepare, self._pack, self._tmp / "images", authorization)
        elif reason := self._mismatch(self._pack.read_card()):
            raise ContractError(f"the uploaded pack {reason}")

    def _mismatch(self, card: dict[str, Any]) -> str:
        return mismatch_reason(card, self._parameters.fingerprint, self._parameters.image_size_px)

    def _log(self, line: str) -> None:
        with suppress(OSError), open(self._out.log, "a", encoding="utf-8") as log:
            log.write(f"{line}\n")
        print_line(line)

    def _save_failure(self, reason: str) -> None:
        """For failures that the trainer cannot record; frees disk space first, as a full disk may be the reason."""
        shutil.rmtree(self._tmp, ignore_errors=True)
        state = {"epoch": 0, "epochs": 0, "leg": self._parameters.leg, "started_s": round(time.time(), 3)}
        with suppress(OSError):
            write_json(self._out.state, {**state, **failed_state(reason)})
            write_manifest(self._out)
