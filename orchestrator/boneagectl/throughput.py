"""How long a training takes somewhere: from what was measured there, else roughly from a table, which is then said.

A training's epochs are of few kinds, by the size of their images and by what learns. The first epoch of a leg and any
that compiled are warm-up and left out; what a leg needs before its first epoch is its start.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from boneage_trainer.contract import RunFolder, TrainConfig, parse_object, read_metrics
from boneagectl.models import Speed
from boneagectl.paths import data_dir

_DECIDES = ("backbone", "head", "pixels", "width", "batch_size", "augment", "precision", "jit", "train_backbone",
            "use_sex", "small_px", "cache_features", "cached_views", "deterministic")  # fmt: skip
"""What of a training decides how long an image takes."""
_STUDENT_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Two-sided 95 % points of Student's t for 1, 2, … degrees of freedom; beyond them 2."""
_LONE_SHARE = 0.3
"""What a single epoch's time may be off."""
_NEEDED = {"epoch", "epoch_s", "elapsed_s", "images"}
_TRAIN_SHARE = 0.64
"""Of all images, in the student paper's split."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of a whole training in one go, with a range; `startup_s` of it is paid again by each further session."""

    seconds: float
    low_s: float
    high_s: float
    startup_s: float
    basis: str
    is_rough: bool


def workload_id(train: TrainConfig, image_size_px: int) -> str:
    """Names the work of a training: the same name, the same seconds an image on the same machine."""
    sized = train.for_size(image_size_px)
    said = {name: getattr(sized, name) for name in _DECIDES} | {"image_size_px": image_size_px}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def epoch_kinds(train: TrainConfig) -> Iterator[str]:
    """The kind of each epoch."""
    alone, _ = train.backbone_epochs
    for epoch in range(1, train.epochs + 1):
        yield f"{'small' if epoch <= train.small_epochs else 'full'} {'head' if epoch <= alone else 'all'}"


# ----------------------------------------------------------------------------------------- measured
def measure_leg(
    target: str, leg_id: str, config: Mapping[str, Any], data: Mapping[str, Any], run: RunFolder
) -> Speed | None:
    """What the leg's own epochs in the collected `run` tell; None where they tell nothing."""
    train = TrainConfig.from_mapping(config).for_size(data["image_size_px"])
    lines = read_metrics(run.metrics) if run.metrics.exists() else []
    mine = [line for line in lines if line.get("leg") == leg_id and line.keys() >= _NEEDED]
    if not mine:
        return None
    names, samples = list(epoch_kinds(train)), dict[str, list[float]]()
    for line in mine[1:]:
        if not line.get("compile_s") and line["images"] and line["epoch"] <= len(names):
            samples.setdefault(names[line["epoch"] - 1], []).append(line["epoch_s"] / line["images"])
    compiled_s = sum(float(line.get("compile_s") or 0) for line in mine)  # each kind of epoch is compiled once a leg
    startup_s = max(0.0, mine[0]["elapsed_s"] - mine[0]["epoch_s"]) + compiled_s
    environment = _environment(run)
    finish_s = float(environment.get("times", {}).get("evaluate_s") or 0)
    work, images = workload_id(train, data["image_size_px"]), int(mine[0]["images"])
    load_ms, compute_ms = (
        statistics.median(float(line.get(f"{what}_ms_per_image") or 0) for line in mine) for what in ("load", "compute")
    )
    return Speed(target, _machine(environment), work, images, startup_s, finish_s, load_ms, compute_ms, samples)


def _environment(run: RunFolder) -> dict[str, Any]:
    return parse_object(run.environment.read_text(), run.environment.name) if run.environment.exists() else {}


def _machine(environment: Mapping[str, Any]) -> str:
    """The GPUs that were really given, or the processor."""
    gpus = [str(one.get("name", "GPU")) for one in environment.get("gpus") or []]
    if gpus:
        return f"{len(gpus)} x {gpus[0]}"
    return f"{environment.get('cores', '?')} cores, {environment.get('cpu', 'unknown processor')}"


# ---------------------------------------------------------------------------------------- estimated
def estimate(speeds: Iterable[Speed], train: TrainConfig, data: Mapping[str, Any]) -> Estimate | None:
    """From legs that did the same work on one target; None where a kind of epoch was never measured."""
    sized = train.for_size(data["image_size_px"])
    own = [one for one in speeds if one.work == workload_id(sized, data["image_size_px"])]
    samples = dict[str, list[float]]()
    for one in own:
        for kind, values in one.samples.items():
            samples.setdefault(kind, []).extend(values)
    wanted = {kind: list(epoch_kinds(sized)).count(kind) for kind in dict.fromkeys(epoch_kinds(sized))}
    if not own or any(kind not in samples for kind in wanted):
        return None
    images = _images(own, data)
    parts = [(count * images, samples[kind]) for kind, count in wanted.items()]
    startup_s = statistics.median(one.startup_s for one in own)
    finish_s = statistics.median(one.finish_s for one in own)
    seconds = startup_s + finish_s + sum(times * statistics.fmean(values) for times, values in parts)
    off_s = math.sqrt(sum((times * _off(values)) ** 2 for times, values in parts))
    epochs = sum(len(values) for _, values in parts)
    basis = f"{epochs} epochs measured on {own[-1].machine}, last {own[-1].date[:10]}"
    return Estimate(seconds, max(0.0, seconds - off_s), seconds + off_s, startup_s, basis, False)


def _images(own: list[Speed], data: Mapping[str, Any]) -> int:
    """Images an epoch; of a set that is not seen from here, as many as were measured."""
    return round(data["count"] * _TRAIN_SHARE) if data["count"] else own[-1].images


def _off(values: list[float]) -> float:
    """Half of the 95 % interval of the mean."""
    if len(values) < 2:
        return _LONE_SHARE * values[0]
    points = _STUDENT_95[len(values) - 2] if len(values) - 2 < len(_STUDENT_95) else 2.0
    return points * statistics.stdev(values) / math.sqrt(len(values))


# -------------------------------------------------------------------------------------------- rough
def estimate_from_table(
    gpu: str, gpus: int, train: TrainConfig, data: Mapping[str, Any], startup_s: float
) -> Estimate | None:
    """From a dated table of GPUs; None for a GPU or a network that is not in it."""
    table = json.loads((data_dir("infra") / "speeds.json").read_text(encoding="utf-8"))
    tflops, gflop = table["tflops"].get(gpu), table["gflop_224"].get(train.backbone)
    if not (tflops and gflop and data["count"]):
        return None
    image_gflop = gflop * (data["image_size_px"] / 224) ** 2
    passes = sum(3 if kind.endswith("all") else 1 for kind in epoch_kinds(train))
    images = data["count"] * _TRAIN_SHARE
    computed_s = passes * images * image_gflop / (1000 * tflops * gpus * table["used"])
    work_s = max(computed_s, train.epochs * images / table["most_images_per_s"])
    low, high = table["low_high"]
    basis = f"rough: a table of {table['date']} for {gpus} x {gpu}, nothing was measured there"
    return Estimate(startup_s + work_s, startup_s + low * work_s, startup_s + high * work_s, startup_s, basis, True)
