"""Exports a run's model to other formats; each file is verified to predict the same as the model before it is kept.

    python -m boneage_trainer.export.command RUN_FOLDER --format keras|savedmodel|onnx|tflite --out FOLDER
        [--format …] [--data PACK] [--json]

Verification runs eight images (of PACK, else synthetic), one at a time and as a batch, in the format's own runtime.
A file whose predictions differ from those of the model by more than the tolerance is deleted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from boneage_trainer.console import print_result, print_status, run_keras_command
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
from boneage_trainer.data.pack import open_pack
from boneage_trainer.export import formats
from boneage_trainer.export.formats import ExportSource, ModelInputs

TOLERANCE_MONTHS, _TOLERANCE_SHARE = 0.01, 1e-4
"""Runtimes add in different orders: differences of 0.0001 months were measured. The tolerance is the larger of the
first, in months, and the second as a share of the largest prediction."""
_IMAGES = 8


def export_model(run: RunFolder, names: Sequence[str], out: Path, data: Path | None) -> list[dict[str, Any]]:
    """Writes the model of `run` to `out` in each of the formats `names`, with its model card and ``export.json``.

    Returns:
        for each: format, path, bytes, images, largest_difference_months, tolerance_months.

    Raises:
        ContractError: no usable model or pack, or a format that cannot be written or predicts differently; then an
            earlier export of that name in `out` is unchanged.
    """
    pack = open_pack(data, PackFolder(data).read_card()) if data else None
    from boneage_trainer.inference.model import AgePredictor, load_model, model_inputs

    model = load_model(run.model)
    predictor = AgePredictor(model)
    if pack:
        rows = np.unique(np.linspace(0, len(pack.ids) - 1, _IMAGES).astype(int)).tolist()
        expected = predictor.predict_pack(pack, rows, views=1)[0]
        images, males = pack.images[rows], pack.male[rows]
    else:
        ids = range(synth.FIRST_ID, synth.FIRST_ID + _IMAGES)
        files = (np.frombuffer(synth.radiograph_png(1, id_, predictor.size_px), np.uint8) for id_ in ids)
        images = np.stack([np.asarray(cv2.imdecode(file, cv2.IMREAD_GRAYSCALE), np.uint8) for file in files])
        males = np.arange(_IMAGES).astype(np.float32) % 2
        expected = predictor.predict(images, males)[0]
    names_of_inputs = [tensor.name for tensor in model.inputs]
    inputs = dict(zip(names_of_inputs, model_inputs(model, images, males), strict=True))
    card = f"# Model card\n\n**{RESEARCH_ONLY}**\n\nThe run has no model card.\n"
    if run.model_card.exists():
        card = run.model_card.read_text(encoding="utf-8")
    source = ExportSource(model, run.model, card)
    out.mkdir(parents=True, exist_ok=True)
    exports = [_export_format(name, source, out, inputs, expected) for name in names]
    write_atomic(out / "model_card.md", card)
    write_json(out / "export.json", {"schema": SCHEMA, "research_only": RESEARCH_ONLY, "exports": exports})
    return exports


def _export_format(name: str, source: ExportSource, out: Path, inputs: ModelInputs, expected: Any) -> dict[str, Any]:
    """Writes one format beside its destination, verifies it there, and moves it into place."""
    format_ = formats.FORMATS[name]
    scratch = Path(tempfile.mkdtemp(prefix=".export.", dir=out))  # on the same disk, for a rename
    try:
        path = scratch / format_.name
        try:
            format_.write(source, path)
            predict = format_.open(path)  # over all images, as a batch and one by one
            single = [{name: values[[at]] for name, values in inputs.items()} for at in range(len(expected))]
            predictions = [np.asarray(predict(inputs)), np.concatenate([predict(image) for image in single])]
            difference = float(np.max(np.abs(np.stack(predictions) - expected)))
        except Exception as error:  # converters and runtimes raise all kinds of errors
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise ContractError(f"{name} could not be written or read back, and was not kept: {reason}") from None
        tolerance = max(TOLERANCE_MONTHS, _TOLERANCE_SHARE * float(np.max(np.abs(expected))))
        if not difference <= tolerance:  # NaN too
            raise ContractError(
                f"{name} differs from model.keras by up to {difference:.4f} months, more than the tolerance of"
                f" {tolerance:.4f}, and was not kept"
            )
        size_bytes = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
        destination = out / format_.name
        if destination.is_dir():  # a folder cannot be replaced in one step
            os.replace(destination, scratch / "before")
        os.replace(path, destination)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {
        "format": name, "path": str(destination), "bytes": size_bytes, "images": len(expected),
        "largest_difference_months": round(float(difference), 6), "tolerance_months": round(tolerance, 6),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m boneage_trainer.export.command", description=RESEARCH_ONLY)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="folder with model.keras")
    parser.add_argument("--format", action="append", required=True, choices=formats.FORMATS, help="may be repeated")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="output folder")
    parser.add_argument("--data", type=Path, metavar="PACK", help="verify on images of this pack (else synthetic)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # a GPU rounds differently from the runtimes it is compared with

    def command() -> None:
        wanted = list(dict.fromkeys(arguments.format))
        with contextlib.redirect_stdout(sys.stderr):
            exports = export_model(RunFolder(arguments.run), wanted, arguments.out, arguments.data)
        print_status(RESEARCH_ONLY)
        lines = (
            f"{export['format']:<11} {export['path']}  {export['bytes'] / 1e6:.1f} MB, {export['images']} images within"
            f" {export['largest_difference_months']:.5f} months (tolerance {export['tolerance_months']})"
            for export in exports
        )
        result = {"exports": exports, "folder": str(arguments.out), "research_only": RESEARCH_ONLY}
        print_result(result, "\n".join(lines), arguments.json)

    return run_keras_command(command)


if __name__ == "__main__":
    sys.exit(main())
