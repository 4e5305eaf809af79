"""Writes a run's model in other formats, each checked to predict the same before it takes its place.

    python -m boneage_trainer.export.command RUN_FOLDER --format keras|savedmodel|onnx|tflite --out FOLDER
        [--format …] [--data PACK] [--json]

The check: eight images (of PACK, else drawn ones), one at a time and all at once, by the runtime of the format.
A file whose answers differ from those of Keras by more than the tolerance is not left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from boneage_trainer.console import print_result, print_status, run_command
from boneage_trainer.contract import (
    RESEARCH_ONLY,
    SCHEMA,
    ContractError,
    PackFolder,
    RunFolder,
    write_atomic,
    write_json,
)
from boneage_trainer.data import synth
from boneage_trainer.data.pack import Pack, open_pack
from boneage_trainer.export import formats
from boneage_trainer.export.formats import Answer, Inputs, Source
from boneage_trainer.inference import model as inference_model

TOLERANCE_MONTHS, _TOLERANCE_SHARE = 0.01, 1e-4
"""Runtimes add in another order: answers 0.0001 months apart were seen. What is further apart than the first, and
than the second of the largest answer, is another model."""
_IMAGES = 8


def export(run: RunFolder, names: Sequence[str], out: Path, data: Path | None) -> list[dict[str, Any]]:
    """Writes the model of `run` into `out` in each of the formats `names`, with its card and ``export.json``.

    Returns:
        of each: format, path, bytes, images, largest_difference_months, tolerance_months.

    Raises:
        ContractError: no model, no such pack, or a format that cannot be written or predicts otherwise; then
            what stood in `out` under its name still does.
    """
    pack = open_pack(data, PackFolder(data).read_card()) if data else None
    model = inference_model.load(run.model)
    source = Source(model, run.model, _card(run))
    inputs = _inputs(model, pack)
    wanted = np.asarray(model.predict_on_batch(list(inputs.values())))[:, 0]
    out.mkdir(parents=True, exist_ok=True)
    done = [_written(name, source, out, inputs, wanted) for name in names]
    write_atomic(out / "model_card.md", source.card)
    write_json(out / "export.json", {"schema": SCHEMA, "research_only": RESEARCH_ONLY, "exports": done})
    return done


def _card(run: RunFolder) -> str:
    if run.model_card.exists():
        return run.model_card.read_text(encoding="utf-8")
    return f"# Model card\n\n**{RESEARCH_ONLY}**\n\nThe run left no model card.\n"


# ------------------------------------------------------------------------------------ the images
def _inputs(model: Any, pack: Pack | None) -> Inputs:
    size_px = model.inputs[0].shape[1]
    images, males = _of_pack(pack, size_px) if pack else _drawn(size_px)
    names = (tensor.name for tensor in model.inputs)
    return dict(zip(names, inference_model.inputs(model, images, males), strict=True))


def _of_pack(pack: Pack, size_px: int) -> tuple[Any, Any]:
    if pack.images.shape[1] != size_px:
        raise ContractError(f"the model takes images of {size_px} px, the pack has {pack.images.shape[1]} px")
    rows = np.unique(np.linspace(0, len(pack.ids) - 1, _IMAGES).astype(int))
    return pack.images[rows], pack.male[rows]


def _drawn(size_px: int) -> tuple[Any, Any]:
    ids = range(synth.FIRST_ID, synth.FIRST_ID + _IMAGES)
    files = (np.frombuffer(synth.radiograph_png(1, id_, size_px), np.uint8) for id_ in ids)
    images = np.stack([np.asarray(cv2.imdecode(file, cv2.IMREAD_GRAYSCALE), np.uint8) for file in files])
    return images, np.arange(_IMAGES).astype(np.float32) % 2


# ------------------------------------------------------------------------------------- one format
def _written(name: str, source: Source, out: Path, inputs: Inputs, wanted: Any) -> dict[str, Any]:
    with _elsewhere(out) as place:
        try:
            made = formats.FORMATS[name]
            path = place / made.name
            made.write(source, path)
            largest = _largest_difference(made.open(path), inputs, wanted)
        except Exception as error:  # converters and runtimes fail in every way there is
            raise ContractError(f"{name} cannot be written or read back, so it was not left: {_short(error)}") from None
        allowed = max(TOLERANCE_MONTHS, _TOLERANCE_SHARE * float(np.max(np.abs(wanted))))
        if not largest <= allowed:
            raise ContractError(
                f"{name} predicts otherwise than model.keras, by up to {largest:.4f} months where"
                f" {allowed:.4f} are allowed, so it was not left"
            )
        size = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
        _put(path, out / made.name)
    return {
        "format": name, "path": str(out / made.name), "bytes": size, "images": len(wanted),
        "largest_difference_months": round(float(largest), 6), "tolerance_months": round(allowed, 6),
    }  # fmt: skip


def _largest_difference(answer: Answer, inputs: Inputs, wanted: Any) -> float:
    """Over all images, given at once and one by one; NaN where an answer is none."""
    singly = [{name: values[[at]] for name, values in inputs.items()} for at in range(len(wanted))]
    found = [np.asarray(answer(inputs)), np.concatenate([answer(one) for one in singly])]
    return float(np.max(np.abs(np.stack(found) - wanted)))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextlib.contextmanager
def _elsewhere(out: Path) -> Iterator[Path]:
    """A folder beside the results, on their disk, that is gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix=".export.", dir=out))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _put(made: Path, path: Path) -> None:
    """Moves what was checked to its place; a folder cannot be replaced in one step, so the old one steps aside."""
    if path.is_dir():
        os.replace(path, made.with_name("before"))
    os.replace(made, path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.export.command", description=RESEARCH_ONLY)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="the folder with model.keras")
    parser.add_argument("--format", action="append", required=True, choices=formats.FORMATS, help="may be repeated")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write")
    parser.add_argument("--data", type=Path, metavar="PACK", help="check on images of this pack; else on drawn ones")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(argv)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a GPU rounds otherwise than the runtimes that are compared with it

    def command() -> None:
        with contextlib.redirect_stdout(sys.stderr):
            done = export(RunFolder(given.run), list(dict.fromkeys(given.format)), given.out, given.data)
        print_status(RESEARCH_ONLY)
        lines = (
            f"{one['format']:<11} {one['path']}  {one['bytes'] / 1e6:.1f} MB, {one['images']} images within"
            f" {one['largest_difference_months']:.5f} months (allowed: {one['tolerance_months']})"
            for one in done
        )
        print_result(
            {"exports": done, "folder": str(given.out), "research_only": RESEARCH_ONLY}, "\n".join(lines), given.json
        )

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
