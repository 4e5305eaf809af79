"""Small data sets on disk, in the shapes the real ones come in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

import boneage_trainer

Gray = npt.NDArray[np.uint8]
TRAINER = Path(boneage_trainer.__file__).parents[1]


def picture(seed: int, height_px: int = 48, width_px: int = 36) -> Gray:
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px), dtype=np.uint8)


def png(gray: npt.NDArray[np.generic]) -> bytes:
    done, data = cv2.imencode(".png", gray)
    assert done
    return bytes(data)


def make_tree(root: Path, count: int = 4, nesting: str = "images/images", header: str = "id,boneage,male") -> Path:
    """A training tree of `count` noise pictures, ids from 1; ages 12, 24, ... 228, 0, 12 ...; odd ids are boys."""
    folder = root / nesting
    folder.mkdir(parents=True)
    lines = [f"{at},{12 * (at % 20)},{at % 2 == 1}" for at in range(1, count + 1)]
    (root / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
    for at in range(1, count + 1):
        (folder / f"{at}.png").write_bytes(png(picture(at)))
    return root


def command(module: str, *arguments: object, before: str = "") -> list[str]:
    """The command line of `python -m boneage_trainer.MODULE`, after the statements of `before`."""
    name = f"boneage_trainer.{module}"
    if not before:
        return [sys.executable, "-m", name, *map(str, arguments)]
    code = f"import sys; {before}; import {name} as it; sys.exit(it.main(sys.argv[1:]))"
    return [sys.executable, "-c", code, *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TRAINER), str(Path(__file__).parents[1])])}


def run(module: str, *arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(module, *arguments, before=before), env=environment(), capture_output=True, text=True, timeout=60
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
