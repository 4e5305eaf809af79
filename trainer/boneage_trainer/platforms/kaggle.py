"""One session on Kaggle: find the attached inputs, prepare images if needed, train one leg, leave ``run.zip``.

The generated script calls `main`. Inputs are attached below ``/kaggle/input``: a dataset, and the leg to resume.
"""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, PackFolder, RunFolder, parse_parameters, state_line
from boneage_trainer.platforms import detect
from boneage_trainer.platforms.detect import NoGpu
from boneage_trainer.platforms.session import TrainerPrograms, failed_state, finalize_run, mismatch_reason, print_line
from boneage_trainer.platforms.subprocesses import SubprocessRunner

_NO_GPU_CODE = 3
_NO_GPU = (
    "Verify your phone number in Kaggle's settings, check how much of this week's GPU quota is left, "
    "and use the machine shape NvidiaTeslaT4"
)
_MARGIN_S, _MARGIN_SHARE = 180.0, 0.1
"""Kept free of the session's limit for packing the outputs; the share is for short sessions."""
_DEPTH = 4
"""Folders below the input in which a mount is looked for; deeper ones only hold images."""
_KINDS = ("datasets", "notebooks", "kernels", "models")


def main(parameters: Mapping[str, Any], bundle: str | Path) -> int:
    """Trains one leg by `parameters` with the trainer in the zip `bundle`; returns the exit code.

    The first and the last line printed are `state_line`s. By the last one a poll tells paused from complete.
    """
    leg, started_s = parameters.get("leg", ""), round(time.time(), 3)
    known = {"leg": leg, "epoch": 0, "epochs": 0, "started_s": started_s}
    print_line(state_line({**known, "state": "running"}))
    try:
        code, state = KaggleSession(parse_parameters(KaggleParameters, parameters), Path(bundle)).run()
    except NoGpu as error:
        code, state = _NO_GPU_CODE, failed_state(str(error))
    except ContractError as error:
        code, state = 2, failed_state(str(error))
    except Exception as error:
        traceback.print_exc()
        code, state = 1, failed_state(f"{type(error).__name__}: {error}")
    if state["state"] == "failed":
        print_line(f"error: {state['reason']}")
    print_line(state_line({**known, **state}))
    return code


# ------------------------------------------------------------------------------------------ session
@dataclass(frozen=True, slots=True, kw_only=True)
class KaggleParameters:
    """The parameters in the generated script.

    Args:
        leg: id of the leg.
        owner: user whose kernel it is.
        dataset: ``owner/slug`` of the attached dataset.
        image_size_px: side of the images that are trained on.
        fingerprint: of the pack that the job needs; empty: any images.
        resume: ``owner/slug`` of the attached leg to resume, or None.
        resume_kind: ``notebooks`` if that is the output of a kernel, ``datasets`` if it is a dataset.
        time_limit_s: the session limit that Kaggle was given.
        gpus: expected number of GPUs.
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


class KaggleSession:
    """One session in the folders ``input`` (attached), ``working`` (Kaggle keeps it) and ``tmp`` below `root`."""

    def __init__(self, parameters: KaggleParameters, bundle: Path) -> None:
        self._started_s = time.monotonic()
        self.parameters = parameters
        root = Path(os.environ.get("BONEAGE_KAGGLE_ROOT") or "/kaggle").absolute()
        self.inputs, self.working, self.tmp = root / "input", root / "working", root / "tmp"
        self.out, self.pack = RunFolder(self.working / "run"), PackFolder(self.tmp / "pack")
        self.is_rehearsal = detect.is_rehearsal()
        self.margin_s = min(_MARGIN_S, _MARGIN_SHARE * parameters.time_limit_s)
        needs_gpu = bool(parameters.gpus) and not self.is_rehearsal
        self.programs = TrainerPrograms(SubprocessRunner(), bundle.absolute(), self.tmp, needs_gpu)

    @property
    def left_s(self) -> float:
        """Seconds until the outputs must be packed."""
        return self.parameters.time_limit_s - (time.monotonic() - self._started_s) - self.margin_s

    def run(self) -> tuple[int, dict[str, Any]]:
        """The whole session; returns the exit code and the final content of ``state.json``.

        Raises:
            ContractError: an input is missing or does not fit.
            OSError: the disk is full.
        """
        for folder in (self.tmp, self.working):
            folder.mkdir(parents=True, exist_ok=True)
        asked = self.parameters
        print_line(f"leg {asked.leg} of {asked.owner}; session limit {asked.time_limit_s:.0f} s")
        if self.is_rehearsal:
            print_line("REHEARSAL: the same script, cut short; it needs no GPU and accepts other images")
        elif asked.gpus:
            detect.check_gpus(asked.gpus, "Kaggle", _NO_GPU)
        earlier = self._earlier_leg()
        self._find_pack()
        left_s = int(self.left_s)
        if left_s < 1:
            raise ContractError(f"no time is left to train within {asked.time_limit_s:.0f} s; set a longer time limit")
        result = self.programs.train_leg(self.pack, self.out, asked.leg, left_s, self.margin_s / 2, earlier)
        state = finalize_run(self.out, result)
        if self.out.root.is_dir():
            archive.pack_run(self.out, self.working / "run.zip")
            shutil.rmtree(self.out.root)
        return (0 if state["state"] in ("complete", "paused") else max(1, result.code)), state

    def _earlier_leg(self) -> RunFolder | None:
        name = self.parameters.resume
        if not name:
            return None
        leg = open_earlier_leg(find_mount(self.inputs, self.parameters.resume_kind, name), self.tmp / "resume")
        if self.is_rehearsal:
            print_line(f"rehearsal: {name} is attached and complete; this short run starts without it")
            return None
        print_line(f"resuming {name} ({leg.root})")
        return leg

    def _find_pack(self) -> None:
        """Uses the attached pack, or makes one of the attached images."""
        folder, is_pack = find_images(find_mount(self.inputs, "datasets", self.parameters.dataset), self._mismatch)
        if is_pack:
            self.pack = PackFolder(folder)
        else:
            self.programs.prepare_pack(folder, self.pack, self.parameters.image_size_px, self.left_s)
            if reason := self._mismatch(self.pack.read_card()):
                raise ContractError(f"the pack made of {folder} {reason}")
        card = self.pack.read_card()
        print_line(
            f"pack {self.pack.root}: {card['count']} images of {card['image_size_px']} px, {card['fingerprint'][:12]}"
        )

    def _mismatch(self, card: dict[str, Any]) -> str:
        asked = self.parameters
        return "" if self.is_rehearsal else mismatch_reason(card, asked.fingerprint, asked.image_size_px)


# -------------------------------------------------------------------------------------------- mounts
def find_mount(inputs: Path, kind: str, name: str) -> Path:
    """The folder at which ``owner/slug`` is attached; `kind` is ``datasets`` or ``notebooks``.

    Raises:
        ContractError: it is not attached, or only a mount of another owner has that slug.
    """
    owner, _, slug = name.partition("/")
    for folder in (inputs / kind / owner / slug, inputs / slug):
        if slug and folder.is_dir():
            return folder
    candidates = [folder for folder in _folders(inputs, _DEPTH) if folder.name == slug]
    for accepted in (owner, ""):
        for folder in candidates:
            if _owner(inputs, folder) == accepted:
                return folder
    if candidates:
        others = ", ".join(f"{_owner(inputs, folder)}/{folder.name} at {folder}" for folder in candidates)
        raise ContractError(f"{name} is not attached, but that of another owner is: {others}; attach {name}")
    attached = ", ".join(str(path.relative_to(inputs)) for path in _folders(inputs, 3)) or "nothing"
    raise ContractError(
        f"{kind} {name} is not attached to this kernel (below {inputs}: {attached[:500]}); attach it and start again"
    )


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Not rglob: it would stat each of thousands of images."""
    for entry in _entries(root):
        if entry.is_dir():
            yield Path(entry.path)
            if depth > 1:
                yield from _folders(Path(entry.path), depth - 1)


def _entries(root: Path) -> list[os.DirEntry[str]]:
    return sorted(os.scandir(root), key=lambda entry: entry.name) if root.is_dir() else []


def _owner(inputs: Path, folder: Path) -> str:
    """The mount's owner by its path; "" if the path does not tell."""
    above = folder.parent
    return "" if above == inputs or (above.parent == inputs and above.name in _KINDS) else above.name


def find_images(folder: Path, mismatch: Callable[[dict[str, Any]], str]) -> tuple[Path, bool]:
    """The pack or the raw tree in `folder` or one level below, and whether it is a pack.

    `mismatch` returns why a pack's card does not fit, or "".

    Raises:
        ContractError: there is neither, or no pack that fits.
    """
    folders = [folder, *_folders(folder, depth=1)]
    packs = [pack for path in folders if (pack := PackFolder(path)).card.is_file()]
    reasons = [(pack.root, mismatch(pack.read_card())) for pack in packs]
    for root, reason in reasons:
        if not reason:
            return root, True
    if reasons:
        raise ContractError("; ".join(f"pack {root} {reason}" for root, reason in reasons))
    for path in folders:
        if any(entry.name.lower().endswith(".csv") for entry in _entries(path)):
            return path, False
    names = ", ".join(entry.name for entry in _entries(folder)[:20]) or "nothing"
    raise ContractError(f"{folder} has neither a pack (pack.json) nor radiographs with a csv; it contains {names}")


def open_earlier_leg(folder: Path, dest: Path) -> RunFolder:
    """The run folder in `folder`, unpacked into `dest` if it is a zip.

    `folder` is the output of an earlier leg's kernel, or a dataset made of a leg that ran elsewhere. Of a kernel that
    was killed, ``run/`` is as it was at that instant: its manifest may be an epoch behind, so there the
    checkpoint's own checksums count, which the trainer verifies.

    Raises:
        ContractError: there is no run, it is damaged, or it has no checkpoint.
        OSError: the disk is full.
    """
    run = RunFolder(folder / "run")
    if zip_path := next((path for name in ("run.zip", "run.bin") if (path := folder / name).is_file()), None):
        run = archive.unpack_run(zip_path, dest)
    elif not run.root.is_dir():
        raise ContractError(f"{folder} has neither run.zip nor run/: that kernel left nothing to resume")
    if not run.last.is_file():
        missing = run.last.relative_to(run.root).as_posix()
        raise ContractError(f"the leg in {folder} has no {missing}: resume one that finished an epoch")
    return run
