"""What the cells of a Colab notebook call: one session of a leg, from the GPU check to the zip of results.

The trainer runs in a process of its own, and the cell waits for it: the kernel stays busy, which keeps the session
alive, and survives when the trainer is killed. BONEAGECTL_ROOT replaces ``/content``; with BONEAGE_REHEARSAL=1 the
run is short and needs no GPU.
"""

from __future__ import annotations

import functools
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from boneage_trainer import archive
from boneage_trainer.contract import (
    RESEARCH_ONLY,
    ContractError,
    Job,
    PackFolder,
    RunFolder,
    TrainConfig,
    parse_object,
    parse_sentinel,
    read_metrics,
    write_atomic,
)
from boneage_trainer.platforms import colab_api, colab_images, colab_view, detect
from boneage_trainer.platforms.colab_api import CellStopped
from boneage_trainer.platforms.colab_drive import DriveMirror, MountedDrive, restore_checkpoint
from boneage_trainer.platforms.colab_view import TrainingView, format_duration
from boneage_trainer.platforms.detect import NoGpu, check_gpus, platform_limit_s
from boneage_trainer.platforms.session import TrainerPrograms, finalize_run, mismatch_reason, print_line
from boneage_trainer.platforms.subprocesses import SubprocessRunner

FOLDER = "boneagectl"
"""Contains everything, below ``/content`` and on Drive."""
_MARGIN_S, _MARGIN_SHARE = 300.0, 0.1
"""Of the session's limit, reserved for what follows the training; the share is for short sessions."""
_DRIVE_WAIT_S = 300.0
"""How long the end of a session waits for Drive."""
_IN_ORDER = "run the cells in their order (Runtime > Run all)"

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _stops_cell(method: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Turns errors that the user can fix into a message without a traceback."""

    @functools.wraps(method)
    def cell(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        try:
            return method(*arguments, **options)
        except (ContractError, OSError) as error:
            raise CellStopped(str(error)) from None

    return cell


class NotebookSession:
    """One session of the leg `leg`; its methods are the notebook's cells, in their order.

    `code` is the zip of the trainer; `resume` the leg to resume from, or empty; `dataset` and `pack` as in
    `colab_images.PackRequest`; `train`, `data` and `provenance` are those of a `Job`.
    """

    @_stops_cell
    def __init__(
        self, code: Path, *, leg: str, resume: str, dataset: str, pack: str, time_limit_s: float, allow_cpu: bool,
        train: Mapping[str, Any], data: dict[str, Any], provenance: dict[str, Any],
    ) -> None:  # fmt: skip
        """Checks the GPU first, before anything that takes time."""
        self._start_s, self._limit_s = time.monotonic(), float(time_limit_s)
        self._leg, self._resume, self._is_rehearsal = leg, resume, detect.is_rehearsal()
        _check_machine(self._is_rehearsal, allow_cpu)
        self._needs_gpu = not (allow_cpu or self._is_rehearsal)
        self._job = Job(train=TrainConfig.from_mapping(train), data=data, provenance=provenance)
        root = Path(os.environ.get("BONEAGECTL_ROOT") or "/content").absolute()
        run = leg.rpartition("-")[0] or leg
        self._base, self._tmp = root / FOLDER, root / FOLDER / leg / "tmp"
        self._out = RunFolder(root / FOLDER / leg / "run")
        self._tmp.mkdir(parents=True, exist_ok=True)
        self._bundle = self._tmp / "bundle.zip"
        with zipfile.ZipFile(code) as opened:  # with job.json added, the same bundle that other targets get
            entries = [(info.filename, opened.read(info)) for info in opened.infolist()]
        write_atomic(self._bundle, archive.zip_entries([*entries, ("job.json", self._job.to_json().encode())]))
        self._drive = MountedDrive(root / "drive")
        self._run_on_drive = self._drive.my / FOLDER / run
        self._request = colab_images.PackRequest(dataset, pack, data["image_size_px"], self._mismatch)
        self._mirror: DriveMirror | None = None
        self._earlier: RunFolder | None = None
        self._pack: PackFolder | None = None
        print_line(RESEARCH_ONLY)
        print_line(f"{leg}: this session stops in {format_duration(self.left_s)}")

    @property
    def left_s(self) -> float:
        """Seconds until the trainer must have ended."""
        left_s = self._limit_s - (time.monotonic() - self._start_s)
        platform_s, _ = platform_limit_s()
        margin_s = min(_MARGIN_S, _MARGIN_SHARE * self._limit_s)
        return min(left_s, left_s if platform_s is None else platform_s) - margin_s

    def _mismatch(self, card: dict[str, Any]) -> str:
        data = self._job.data
        return "" if self._is_rehearsal else mismatch_reason(card, data["fingerprint"], data["image_size_px"])

    # ------------------------------------------------------------------------------------ cell: Drive
    @_stops_cell
    def connect_drive(self) -> None:
        """Mounts Drive and restores the last checkpoint of this leg, or of the leg that it resumes."""
        try:
            self._drive.mount()
            place = self._run_on_drive / self._leg
            self._mirror = DriveMirror(self._drive, place, self._out, self._tmp / "mirror", print_line)
            self._earlier = restore_checkpoint(place, self._tmp / "earlier", print_line)
            if self._out.last.exists() and _last_epoch(self._out) >= _last_epoch(self._earlier):
                self._earlier = self._out  # the local disk is ahead of Drive
            if self._earlier or not self._resume or self._is_rehearsal:
                path = self._earlier.state if self._earlier else None
                state = parse_object(path.read_text(encoding="utf-8"), path.name) if path and path.exists() else {}
                return print_line(colab_view.start_message(state, _last_epoch(self._earlier)))
            self._earlier = restore_checkpoint(self._run_on_drive / self._resume, self._tmp / "resume", print_line)
        except OSError as error:
            raise CellStopped(colab_view.NO_DRIVE.format(why=error)) from None
        if not self._earlier:
            place = Path(FOLDER, self._run_on_drive.name, self._resume)
            raise CellStopped(colab_view.NO_CHECKPOINT.format(place=place.as_posix()))
        return print_line(f"resuming from the leg {self._resume}")

    # ----------------------------------------------------------------------------------- cell: images
    @_stops_cell
    def get_images(self) -> None:
        """Copies the images to the local disk; a pack that was built here is stored on Drive."""
        mirror, stored, local = self._connected_mirror(), self._drive.my / FOLDER / "packs", self._base / "packs"
        pack, exists = colab_images.find_pack(self._request, self._drive, stored, local)
        if not exists:
            print_line(f"downloading {self._request.dataset} from Kaggle; this happens once")
            colab_images.build_pack(self._request, self._prepare, pack, self._tmp / "images")
            mirror.add_job("the pack", lambda: colab_images.store_pack(pack, self._drive, stored))
        self._pack = pack

    def _prepare(self, tree: Path, pack: PackFolder) -> None:
        with SubprocessRunner() as children:
            self._programs(children).prepare_pack(tree, pack, self._request.image_size_px, self.left_s)

    def _programs(self, children: SubprocessRunner) -> TrainerPrograms:
        return TrainerPrograms(children, self._bundle, self._tmp, self._needs_gpu)

    def _connected_mirror(self) -> DriveMirror:
        if not self._mirror:
            raise CellStopped(f"Drive is not connected yet: {_IN_ORDER}")
        return self._mirror

    # --------------------------------------------------------------------------------- cell: training
    @_stops_cell
    def train(self) -> None:
        """Trains until the run is complete, the session's time is over, or the user stops the cell."""
        mirror = self._connected_mirror()
        if not self._pack:
            raise CellStopped(f"the images are not on the local disk yet: {_IN_ORDER}")
        left_s = int(self.left_s)
        if left_s < 1:
            raise CellStopped(colab_view.NO_TIME)
        self._out.state.unlink(missing_ok=True)  # of an earlier session
        self._out.root.mkdir(parents=True, exist_ok=True)
        history = read_metrics(self._earlier.metrics) if self._earlier else []
        epochs = min(self._job.train.epochs, detect.REHEARSAL_EPOCHS if self._is_rehearsal else self._job.train.epochs)
        view = TrainingView(epochs, history, lambda: self.left_s)

        def on_line(line: str) -> None:
            with suppress(OSError), open(self._out.log, "a", encoding="utf-8") as log:
                log.write(f"{line}\n")
            view.show_line(line)
            if metrics := parse_sentinel(line):
                mirror.copy_epoch()
                view.show_epoch(metrics)

        with SubprocessRunner() as children:
            ended = self._programs(children).train_leg(
                self._pack, self._out, self._leg, left_s, _MARGIN_S / 2, self._earlier, on_line
            )
            state = finalize_run(self._out, ended)
            if self._out.last.exists():
                self._earlier = self._out
                mirror.copy_epoch()
            missing = mirror.wait(_DRIVE_WAIT_S)
        message = colab_view.end_message(state, missing, self._leg)
        if state["state"] == "failed":
            raise CellStopped(message)
        print_line(message)

    # ---------------------------------------------------------------------------------- cell: results
    @_stops_cell
    def results(self) -> None:
        """Offers everything as one zip, copies it to Drive, and waits until Drive has it."""
        mirror = self._connected_mirror()
        if not (self._out.last.exists() and self._out.manifest.exists()):
            raise CellStopped(f"nothing was trained in this session: {_IN_ORDER}")
        zipped = self._base / f"results-{self._leg}.zip"
        archive.pack_run(self._out, zipped, with_log=self._out.log.exists())
        if self._out.evaluation.exists():
            evaluation = parse_object(self._out.evaluation.read_text(), self._out.evaluation.name)
            print_line(colab_view.result_message(evaluation))
        if reason := colab_api.offer_download(zipped):
            print_line(
                f"the browser did not start the download ({reason}): open Files in the left sidebar, folder {FOLDER}"
            )
        mirror.add_job("the results", lambda: self._drive.copy_in(zipped, self._run_on_drive / zipped.name))
        missing = mirror.wait(_DRIVE_WAIT_S)
        mirror.add_job("the last files", colab_api.flush_drive)
        missing = missing or mirror.wait(_DRIVE_WAIT_S)
        print_line(colab_view.final_message(zipped.name, self._run_on_drive.name, missing))


def _check_machine(is_rehearsal: bool, allow_cpu: bool) -> None:
    if is_rehearsal:
        print_line("REHEARSAL: the same notebook with a short run; no GPU is needed, other images may be used")
        return
    if "COLAB_RELEASE_TAG" not in os.environ:
        raise CellStopped(
            "this notebook is made for Google Colab; on your own computer, run: boneagectl submit --target local"
        )
    try:
        check_gpus(1, "Colab", colab_view.NO_GPU)
    except NoGpu:
        if not allow_cpu:
            raise
        print_line("no GPU; training on the CPU because ALLOW_CPU is set: slow")


def _last_epoch(folder: RunFolder | None) -> int:
    """By its metrics, which are written after the weights and before the state."""
    return len(read_metrics(folder.metrics)) if folder else 0
