"""What the cells of a Colab notebook call: one session of a leg, from the GPU to the zip of results.

The training has a process of its own, which the cell waits for: the kernel stays busy, as Colab wants it, and lives
on when a training is killed. BONEAGECTL_ROOT stands in for ``/content``; with BONEAGE_REHEARSAL=1 the training is
cut short and needs no GPU.
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
from boneage_trainer.platforms.colab_api import Stop
from boneage_trainer.platforms.colab_drive import Drive, Mirror, take_back
from boneage_trainer.platforms.colab_view import View, duration
from boneage_trainer.platforms.detect import NoGpu, check_gpus, environment_limit_s
from boneage_trainer.platforms.session import Programs, misfit, say, settled
from boneage_trainer.platforms.subprocesses import Children

FOLDER = "boneagectl"
"""Where everything is, below ``/content`` and on Drive."""
_MARGIN_S, _MARGIN_SHARE = 300.0, 0.1
"""Kept free of the session's limit for what comes after the training; the share is for short sessions."""
_SETTLE_S = 300.0
"""How long the end of a session waits for Drive."""

_Given = ParamSpec("_Given")
_Gives = TypeVar("_Gives")


def _in_words(method: Callable[_Given, _Gives]) -> Callable[_Given, _Gives]:
    """Has what can be mended end the cell with its words alone."""

    @functools.wraps(method)
    def cell(*arguments: _Given.args, **named: _Given.kwargs) -> _Gives:
        try:
            return method(*arguments, **named)
        except (ContractError, OSError) as error:
            raise Stop(str(error)) from None

    return cell


class Session:
    """One session of the leg `leg`; its methods are the notebook's cells, in their order.

    `code` is the zip of the trainer; `resume` the leg to go on from, or nothing; `dataset` and `pack` as in
    `colab_images.Wanted`; `train`, `data` and `provenance` are those of a `Job`.
    """

    @_in_words
    def __init__(
        self, code: Path, *, leg: str, resume: str, dataset: str, pack: str, time_limit_s: float, allow_cpu: bool,
        train: Mapping[str, Any], data: dict[str, Any], provenance: dict[str, Any],
    ) -> None:  # fmt: skip
        """Checks the GPU first: without one, nothing else is worth its time."""
        self._began_s, self._limit_s = time.monotonic(), float(time_limit_s)
        self._leg, self._resume, self._rehearses = leg, resume, detect.is_on()
        _check_place(self._rehearses, allow_cpu)
        self._needs_gpu = not (allow_cpu or self._rehearses)
        self._job = Job(train=TrainConfig.from_mapping(train), data=data, provenance=provenance)
        root = Path(os.environ.get("BONEAGECTL_ROOT") or "/content").absolute()
        run = leg.rpartition("-")[0] or leg
        self._base, self._tmp = root / FOLDER, root / FOLDER / leg / "tmp"
        self._out = RunFolder(root / FOLDER / leg / "run")
        self._tmp.mkdir(parents=True, exist_ok=True)
        self._bundle = self._tmp / "bundle.zip"
        write_atomic(self._bundle, _bundle(code, self._job))
        self._drive = Drive(root / "drive")
        self._on_drive = self._drive.my / FOLDER / run
        self._wanted = colab_images.Wanted(dataset, pack, data["image_size_px"], self._misfit)
        self._mirror: Mirror | None = None
        self._earlier: RunFolder | None = None
        self._pack: PackFolder | None = None
        say(RESEARCH_ONLY)
        say(f"{leg}: this session ends itself in {duration(self.left_s)}")

    @property
    def left_s(self) -> float:
        """Seconds until the training must have ended."""
        left_s = self._limit_s - (time.monotonic() - self._began_s)
        surroundings_s, _ = environment_limit_s()
        margin_s = min(_MARGIN_S, _MARGIN_SHARE * self._limit_s)
        return min(left_s, left_s if surroundings_s is None else surroundings_s) - margin_s

    def _misfit(self, card: dict[str, Any]) -> str:
        data = self._job.data
        return "" if self._rehearses else misfit(card, data["fingerprint"], data["image_size_px"])

    # ------------------------------------------------------------------------------------ cell: Drive
    @_in_words
    def connect_drive(self) -> None:
        """Mounts Drive and takes back what an earlier session of this leg, or the leg before it, has reached."""
        try:
            self._drive.mount()
            self._mirror = Mirror(self._drive, self._on_drive / self._leg, self._out, self._tmp / "mirror", say)
            self._earlier = self._newest()
            if self._earlier or not self._resume or self._rehearses:
                return say(colab_view.beginning(_state(self._earlier), _epoch(self._earlier)))
            self._earlier = take_back(self._on_drive / self._resume, self._tmp / "resume", say)
        except OSError as error:
            raise Stop(colab_view.NO_DRIVE.format(why=error)) from None
        if not self._earlier:
            raise Stop(colab_view.NO_CHECKPOINT.format(place=f"{FOLDER}/{self._on_drive.name}/{self._resume}"))
        return say(f"going on from the leg {self._resume}")

    def _newest(self) -> RunFolder | None:
        """What this leg has reached: on the local disk, where that is newer, else on Drive."""
        there = take_back(self._on_drive / self._leg, self._tmp / "earlier", say)
        here = self._out if self._out.last.exists() else None
        return here if here and _epoch(here) >= _epoch(there) else there

    # ----------------------------------------------------------------------------------- cell: images
    @_in_words
    def get_images(self) -> None:
        """Brings the images to the local disk; a pack that had to be made is kept on Drive."""
        mirror, kept, local = self._connected(), self._drive.my / FOLDER / "packs", self._base / "packs"
        pack, is_there = colab_images.find(self._wanted, self._drive, kept, local)
        if not is_there:
            say(f"downloading {self._wanted.dataset} from Kaggle; this happens once")
            colab_images.make(self._wanted, self._prepare, pack, self._tmp / "images")
            mirror.also("the pack", lambda: colab_images.keep(pack, self._drive, kept))
        self._pack = pack

    def _prepare(self, tree: Path, pack: PackFolder) -> None:
        with Children() as children:
            self._programs(children).prepare(tree, pack, self._wanted.image_size_px, self.left_s)

    def _programs(self, children: Children) -> Programs:
        return Programs(children, self._bundle, self._tmp, self._needs_gpu)

    def _connected(self) -> Mirror:
        if not self._mirror:
            raise Stop("Drive is not connected yet: run the cells in their order (Runtime > Run all)")
        return self._mirror

    # --------------------------------------------------------------------------------- cell: training
    @_in_words
    def train(self) -> None:
        """Trains until it is complete, the session's time is over, or a person interrupts the cell."""
        mirror = self._connected()
        if not self._pack:
            raise Stop("the images are not here yet: run the cells in their order (Runtime > Run all)")
        left_s = int(self.left_s)
        if left_s < 1:
            raise Stop(colab_view.NO_TIME)
        self._out.state.unlink(missing_ok=True)  # an earlier session's word
        self._out.root.mkdir(parents=True, exist_ok=True)
        history = read_metrics(self._earlier.metrics) if self._earlier else []
        epochs = min(self._job.train.epochs, detect.EPOCHS if self._rehearses else self._job.train.epochs)
        heard = _Heard(View(epochs, history, lambda: self.left_s), self._out.log, mirror)
        with Children() as children:
            ended = self._programs(children).train(
                self._pack, self._out, self._leg, left_s, _MARGIN_S / 2, self._earlier, heard
            )
            state = settled(self._out, ended)
            if self._out.last.exists():
                self._earlier = self._out
                mirror.wake()
            missing = mirror.settle(_SETTLE_S)
        words = colab_view.ending(state, missing, self._leg)
        if state["state"] == "failed":
            raise Stop(words)
        say(words)

    # ---------------------------------------------------------------------------------- cell: results
    @_in_words
    def results(self) -> None:
        """Offers everything as one zip, puts it on Drive too, and waits until Drive has it."""
        mirror = self._connected()
        if not (self._out.last.exists() and self._out.manifest.exists()):
            raise Stop("nothing was trained in this session: run the cells in their order (Runtime > Run all)")
        zipped = self._base / f"results-{self._leg}.zip"
        archive.pack_run(self._out, zipped, with_log=self._out.log.exists())
        if self._out.evaluation.exists():
            say(colab_view.result(parse_object(self._out.evaluation.read_text(), self._out.evaluation.name)))
        if why := colab_api.offer(zipped):
            say(f"the browser did not take the download ({why}): open Files at the left edge, folder {FOLDER}")
        mirror.also("the results", lambda: self._drive.put(zipped, self._on_drive / zipped.name))
        missing = mirror.settle(_SETTLE_S)
        mirror.also("what was last written", colab_api.flush)
        say(colab_view.goodbye(zipped.name, self._on_drive.name, missing or mirror.settle(_SETTLE_S)))


class _Heard:
    """Hears each line of the trainer: into the log, onto the screen, and at the end of an epoch to the mirror."""

    def __init__(self, view: View, log: Path, mirror: Mirror) -> None:
        self._view, self._log, self._mirror = view, log, mirror

    def __call__(self, line: str) -> None:
        with suppress(OSError), open(self._log, "a", encoding="utf-8") as log:
            log.write(f"{line}\n")
        self._view.line(line)
        if metrics := parse_sentinel(line):
            self._mirror.wake()
            self._view.epoch(metrics)


def _check_place(rehearses: bool, allow_cpu: bool) -> None:
    if rehearses:
        say("REHEARSAL: the same notebook with a training cut short; no GPU is needed, other images may be used")
        return
    if "COLAB_RELEASE_TAG" not in os.environ:
        raise Stop("this notebook is made for Google Colab; on your own machine: boneagectl submit --target local")
    try:
        check_gpus(1, "Colab", colab_view.NO_GPU)
    except NoGpu:
        if not allow_cpu:
            raise
        say("no GPU; training on the CPU, as ALLOW_CPU says: slow")


def _bundle(code: Path, job: Job) -> bytes:
    """The very zip that the other targets get: the code in this notebook, and the job in its settings."""
    with zipfile.ZipFile(code) as opened:
        entries = [(info.filename, opened.read(info)) for info in opened.infolist()]
    return archive.stored([*entries, ("job.json", job.to_json().encode())])


def _state(folder: RunFolder | None) -> dict[str, Any]:
    if not folder or not folder.state.exists():
        return {}
    return parse_object(folder.state.read_text(encoding="utf-8"), folder.state.name)


def _epoch(folder: RunFolder | None) -> int:
    """By its metrics, which are written after the weights and before the state."""
    return len(read_metrics(folder.metrics)) if folder else 0
