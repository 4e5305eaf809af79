"""How long a run takes on a target: from measured legs, else roughly from a table of GPUs.

The epochs of a run are of few kinds, by image size and by what is trained. The first epoch of a leg, and each that
compiles, is warm-up and left out; the time before a leg's first epoch is its startup.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from boneage_trainer.contract import RunFolder, TrainConfig, parse_object, read_metrics
from boneagectl.models import Speed
from boneagectl.paths import data_dir

_DECISIVE = ("backbone", "head", "pixels", "width", "batch_size", "augment", "precision", "jit", "train_backbone",
            "use_sex", "small_px", "cache_features", "cached_views", "deterministic")  # fmt: skip
"""Settings that decide how long an image takes."""
_STUDENT_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom; beyond them 2."""
_SINGLE_ERROR = 0.3
"""Relative error of a single epoch's time."""
_REQUIRED = {"epoch", "epoch_s", "elapsed_s", "images"}
_TRAIN_SHARE = 0.64
"""Of all images, in the student paper's split."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of a whole run in one session, with a range; each further session takes `startup_s` again."""

    seconds: float
    low_s: float
    high_s: float
    startup_s: float
    basis: str
    is_rough: bool


def workload_id(train: TrainConfig, image_size_px: int) -> str:
    """Identifies a workload: the same id, the same seconds per image on the same machine."""
    sized = train.for_size(image_size_px)
    settings = {name: getattr(sized, name) for name in _DECISIVE} | {"image_size_px": image_size_px}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def epoch_kinds(train: TrainConfig) -> Iterator[str]:
    """The kind of each epoch."""
    alone, _ = train.backbone_epochs
    for epoch in range(1, train.epochs + 1):
        yield f"{'small' if epoch <= train.small_epochs else 'full'} {'head' if epoch <= alone else 'all'}"


# -------------------------------------------------------------------------------------------- measurement
def measure_leg(
    target: str, leg_id: str, config: Mapping[str, Any], data: Mapping[str, Any], run: RunFolder
) -> Speed | None:
    """What the leg's own epochs in the collected `run` measure; None without any."""
    train = TrainConfig.from_mapping(config).for_size(data["image_size_px"])
    lines = read_metrics(run.metrics) if run.metrics.exists() else []
    own = [line for line in lines if line.get("leg") == leg_id and line.keys() >= _REQUIRED]
    if not own:
        return None
    names, samples = list(epoch_kinds(train)), dict[str, list[float]]()
    for line in own[1:]:
        if not line.get("compile_s") and line["images"] and line["epoch"] <= len(names):
            samples.setdefault(names[line["epoch"] - 1], []).append(line["epoch_s"] / line["images"])
    compiled_s = sum(float(line.get("compile_s") or 0) for line in own)  # each kind of epoch compiles once per leg
    startup_s = max(0.0, own[0]["elapsed_s"] - own[0]["epoch_s"]) + compiled_s
    environment = _environment(run)
    finish_s = float(environment.get("times", {}).get("evaluate_s") or 0)
    work, images = workload_id(train, data["image_size_px"]), int(own[0]["images"])
    load_ms, compute_ms = (
        statistics.median(float(line.get(f"{what}_ms_per_image") or 0) for line in own) for what in ("load", "compute")
    )
    return Speed(target, _machine(environment), work, images, startup_s, finish_s, load_ms, compute_ms, samples)


def _environment(run: RunFolder) -> dict[str, Any]:
    return parse_object(run.environment.read_text(), run.environment.name) if run.environment.exists() else {}


def _machine(environment: Mapping[str, Any]) -> str:
    """The GPUs that were found, or the processor."""
    gpus = [str(gpu.get("name", "GPU")) for gpu in environment.get("gpus") or []]
    if gpus:
        return f"{len(gpus)} x {gpus[0]}"
    return f"{environment.get('cores', '?')} cores, {environment.get('cpu', 'unknown processor')}"


# -------------------------------------------------------------------------------------------- estimate
def estimate(speeds: Iterable[Speed], train: TrainConfig, data: Mapping[str, Any]) -> Estimate | None:
    """From legs with the same workload on one target; None where a kind of epoch was never measured."""
    sized = train.for_size(data["image_size_px"])
    same = [speed for speed in speeds if speed.work == workload_id(sized, data["image_size_px"])]
    samples = dict[str, list[float]]()
    for speed in same:
        for kind, values in speed.samples.items():
            samples.setdefault(kind, []).extend(values)
    counts = Counter(epoch_kinds(sized))
    if not same or any(kind not in samples for kind in counts):
        return None
    images = round(data["count"] * _TRAIN_SHARE) if data["count"] else same[-1].images  # unknown data: as measured
    parts = [(count * images, samples[kind]) for kind, count in counts.items()]
    startup_s = statistics.median(speed.startup_s for speed in same)
    finish_s = statistics.median(speed.finish_s for speed in same)
    seconds = startup_s + finish_s + sum(times * statistics.fmean(values) for times, values in parts)
    error_s = math.sqrt(sum((times * _mean_error(values)) ** 2 for times, values in parts))
    epochs = sum(len(values) for _, values in parts)
    basis = f"{epochs} epochs measured on {same[-1].machine}, last {same[-1].date[:10]}"
    return Estimate(seconds, max(0.0, seconds - error_s), seconds + error_s, startup_s, basis, False)


def _mean_error(values: list[float]) -> float:
    """Half of the 95 % interval of the mean."""
    if len(values) < 2:
        return _SINGLE_ERROR * values[0]
    quantile = _STUDENT_95[len(values) - 2] if len(values) - 2 < len(_STUDENT_95) else 2.0
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def estimate_from_table(
    gpu: str, gpus: int, train: TrainConfig, data: Mapping[str, Any], startup_s: float
) -> Estimate | None:
    """From a dated table of GPUs; None for a GPU or a backbone that it does not list."""
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
    basis = f"rough: table of {table['date']} for {gpus} x {gpu}, not benchmarked"
    return Estimate(startup_s + work_s, startup_s + low * work_s, startup_s + high * work_s, startup_s, basis, True)
