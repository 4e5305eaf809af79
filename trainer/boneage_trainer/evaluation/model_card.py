"""The model card: what a reader must know before using, citing or marking a trained model.

Its order follows CLAIM, the checklist for artificial intelligence in medical imaging. Every number comes from
the run's own files; one that is not there is a dash.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from boneage_trainer.contract import RESEARCH_ONLY, Job, RunFolder, parse_object, write_atomic
from boneage_trainer.data.splits import PART_NAMES

_WEIGHTS = {
    "vgg16": "VGG16's ImageNet weights are the Visual Geometry Group's (Oxford), under a Creative Commons attribution"
    " licence: name them when you pass this model on.",
}
_PIXELS = {
    "standardized": "brings each image to mean 0 and variance 1",
    "unit": "divides gray levels by 255",
    "backbone": "scales gray levels as the backbone was pretrained with",
}
_RSNA = (
    "If the pack was made of the RSNA Pediatric Bone Age set (2017): non-commercial use under"
    " [its terms](https://www.rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone-age-challenge-2017), cite Halabi et"
    " al., Radiology 2019;290(2):498-503, and never try to identify a child. `gradcam.png` contains radiographs, so the"
    " same terms apply to it."
)


def write(folder: RunFolder, job: Job) -> None:
    """Writes ``model_card.md`` from `job` and the evaluation and environment, which must lie in `folder` by now."""
    paths = (folder.evaluation, folder.environment)
    evaluation, environment = (parse_object(path.read_text(encoding="utf-8"), path.name) for path in paths)
    write_atomic(folder.model_card, text(dataclasses.asdict(job), evaluation, environment))


def text(job: Values, evaluation: Values, environment: Values) -> str:
    """The card as Markdown, from what ``job.json``, ``evaluation.json`` and ``environment.json`` hold."""
    train = part(job, "train")
    test = part(evaluation, "sets", "test")
    sections = (
        ("What it is", _what(train)),
        ("Intended use", _use(evaluation)),
        ("Data", _data(job, evaluation)),
        ("Preprocessing", _preprocessing(job)),
        ("Network", _network(train)),
        ("Training", _training(train)),
        ("Hardware and time", _hardware(environment)),
        ("Results", _results(test, evaluation)),
        ("Limits and known failures", _limits(test)),
        ("Where the model looks", _looks(part(evaluation, "gradcam"))),
        ("Reproducing it", _reproducing(job, environment)),
    )
    body = "\n".join(f"\n## {title}\n\n" + "\n".join(lines) for title, lines in sections)
    return f"# Model card: bone age, preset {cell(train.get('preset'))}\n\n**{RESEARCH_ONLY}**\n{body}\n"


# --------------------------------------------------------------------------------------- sections
def _what(train: Values) -> list[str]:
    sex = "and the child's sex" if train.get("use_sex") else "alone; sex is not used"
    return [f"A network that reads skeletal age, in months, from one radiograph of a hand {sex}."]


def _use(evaluation: Values) -> list[str]:
    ages = part(evaluation, "parts", "train")
    known = f"{number(ages.get('min_months'), 0)} to {number(ages.get('max_months'), 0)} months"
    return [
        "- For: teaching, and research on methods, on data like those it was trained on.",
        "- Not for: diagnosis, treatment, age assessment in asylum or court, or any decision about a person.",
        f"- Not for ages outside those trained on ({known}), other body parts, or other views of the hand.",
    ]


def _data(job: Values, evaluation: Values) -> list[str]:
    split, data = part(evaluation, "split"), part(job, "data")
    heads = ("Part", "Images", "Boys", "Girls", "Mean age", "SD", "Youngest", "Oldest")
    ages = ("mean_months", "sd_months", "min_months", "max_months")
    rows = [
        (name, *(one.get(key) for key in ("n", "male", "female")), *(number(one.get(key)) for key in ages))
        for name, one in ((name, part(evaluation, "parts", name)) for name in PART_NAMES)
    ]
    return [
        f"Pack of {cell(data.get('count'))} radiographs, fingerprint {cell(data.get('fingerprint'))}.",
        f"Split {cell(split.get('name'))}; sha256 of its test ids {cell(split.get('sha256'))}. Ages in months.",
        "",
        *table(heads, rows),
        "",
        f"Reference standard: {cell(evaluation.get('labels'))}.",
        "",
        _RSNA,
    ]


def _preprocessing(job: Values) -> list[str]:
    train, px = part(job, "train"), cell(part(job, "data").get("image_size_px"))
    done = _PIXELS.get(str(train.get("pixels", "standardized")), "scales gray levels")
    return [
        f"Gray, 8 bit, {px} x {px} px: aspect kept by padding, each pixel the mean of what it covers. The model itself"
        f" {done}, so it takes uint8 images and nothing can be prepared differently for testing.",
    ]


def _network(train: Values) -> list[str]:
    backbone, weights = str(train.get("backbone", "residual")), str(train.get("weights", "none"))
    if weights == "none":
        licence = "Trained from random weights; no one else's licence applies."
    else:
        licence = _WEIGHTS.get(backbone, "Pretrained weights keep their publisher's licence; look it up.")
    return [f"Backbone {cell(backbone)}, starting weights {cell(weights)}. {licence}"]


def _training(train: Values) -> list[str]:
    return [
        "The epoch with the lowest validation error was kept; the test set had no part in any choice.",
        "",
        *table(("Setting", "Value"), sorted(train.items())),
    ]


def _hardware(environment: Values) -> list[str]:
    gpus = ", ".join(str(gpu.get("name")) for gpu in environment.get("gpus") or [])
    device = gpus or f"no GPU ({environment.get('no_gpu_reason') or 'unknown why'})"
    return [
        f"{cell(device)}; {cell(environment.get('cpu'))}, {cell(environment.get('cores'))} cores,"
        f" {cell(environment.get('ram_gb'))} GB of memory. Times are of the last leg.",
        "",
        *table(("Time", "Value"), [(key, number(value)) for key, value in sorted(part(environment, "times").items())]),
    ]


def _results(test: Values, evaluation: Values) -> list[str]:
    validation = part(evaluation, "sets", "validation")
    spread = f"{number(test.get('loa_low_months'))} to {number(test.get('loa_high_months'))}"
    return [
        f"On {cell(test.get('n'))} test images, in months, with 95 % bootstrap intervals over images:"
        f" **MAE {number(test.get('mae_months'))}** ({span(test.get('mae_ci95_months'))});"
        f" validation {number(validation.get('mae_months'))}.",
        *_warnings(test),
        "",
        *table(_GROUP_HEADS, _group_rows(test)),
        "",
        f"Limits of agreement (bias and 1.96 SD): {spread}. R² {number(test.get('r2'), 3)}.",
        *_baselines(test),
        *_views(test),
    ]


def _warnings(test: Values) -> list[str]:
    count = test.get("trained_on_count")
    return ["", f"**{cell(count)} of these images were also trained on.**"] if count else []


_GROUP_HEADS = ("Group", "Images", "MAE", "95 % interval", "RMSE", "Bias", "90 % below", "Within 12 months")


def _group_rows(test: Values) -> list[Sequence[Any]]:
    groups = [("all", test), *part(test, "by_sex").items(), *part(test, "by_age_band").items()]
    keys = ("rmse_months", "bias_months", "p90_ae_months", "within_12_months")
    return [
        (name, group.get("n"), number(group.get("mae_months")), span(group.get("mae_ci95_months")),
         *(number(group.get(key)) for key in keys))
        for name, group in groups
    ]  # fmt: skip


def _baselines(test: Values) -> list[str]:
    median, by_sex = (number(test.get(f"baseline_median{key}_mae_months")) for key in ("", "_by_sex"))
    return [
        f"Always answering the training median: MAE {median}; that of the same sex: {by_sex}.",
        f"Against the latter, image by image: {against(part(test, 'against_median_by_sex'))}.",
    ]


def _views(test: Values) -> list[str]:
    if "views" not in test:
        return []
    ranks = number(part(test, "view_disagreement").get("rank_correlation"))
    return [
        f"Mean of {cell(test['views'])} views; the plain one alone has MAE {number(test.get('plain_view_mae_months'))},"
        f" and against it: {against(part(test, 'against_plain_view'))}.",
        f"Disagreement of views ranks like the error with a correlation of {ranks}; it is no uncertainty.",
    ]


def _limits(test: Values) -> list[str]:
    mean = part(test, "regression_to_the_mean")
    young, old = (part(mean, f"{name}_fifth") for name in ("youngest", "oldest"))
    worst = [[one.get(key) for key in ("id", "boneage_months", "predicted_months")] for one in test.get("worst") or []]
    return [
        f"- Regression to the mean: {number(mean.get('error_slope'), 3)} months of error a month of age; bias"
        f" {number(young.get('bias_months'))} in the youngest fifth, {number(old.get('bias_months'))} in the oldest.",
        *_worst_band(part(test, "by_age_band")),
        f"- Calibration: given and true age differ by {number(part(test, 'calibration').get('expected_error_months'))}"
        " months on average over bins of predicted age.",
        "- Labels are people's readings, with errors of their own; figures on single readings and on means of several"
        " raters cannot be compared.",
        "- Children whose age, origin, health, scanner or positioning the data lack were never tested.",
        "",
        "Worst cases, in months:",
        "",
        *table(("Image", "Actual", "Predicted"), [(one[0], number(one[1]), number(one[2])) for one in worst]),
    ]


def _worst_band(bands: Values) -> list[str]:
    known = {name: band for name, band in bands.items() if band.get("mae_months") is not None}
    if not known:
        return []
    name, band = max(known.items(), key=lambda one: float(one[1]["mae_months"]))
    return [f"- Worst ages: {cell(name)} months, MAE {number(band['mae_months'])} on {cell(band.get('n'))} images."]


def _looks(gradcam: Values) -> list[str]:
    if not gradcam.get("done"):
        return [f"No Grad-CAM: {cell(gradcam.get('reason') or 'not made')}."]
    shift = part(gradcam, "shift")
    moved, unmoved, unrelated = (number(shift.get(key)) for key in ("moved", "unmoved", "unrelated"))
    return [
        "`gradcam.png` shows what moves the predicted age. Such maps persuade easily, so they are checked on"
        f" {cell(gradcam.get('images'))} images: with the hand {cell(shift.get('shift_px'))} px further right, the map"
        f" moved along correlates {moved} with the new one; left in place, {unmoved}; of another hand, {unrelated}."
        f" Share of heat in the middle half of the area: {number(gradcam.get('central_share'))} (an even map: 0.50).",
    ]


def _reproducing(job: Values, environment: Values) -> list[str]:
    train, facts = part(job, "train"), part(job, "provenance")
    versions = {"python": environment.get("python"), **part(environment, "packages"), **facts}
    same = "bit for bit on this machine" if train.get("deterministic") else "closely, not bit for bit"
    return [
        f"Seed {cell(train.get('seed'))}; with the same pack, this gives the same model {same}:",
        "",
        "    python -m boneage_trainer job.json --data PACK --out FOLDER",
        "",
        *table(("What", "Version"), [*versions.items(), ("bundle sha256", environment.get("bundle_sha256"))]),
    ]


def against(found: Values) -> str:
    """A paired comparison in words; see `metrics.paired_metrics`."""
    share = found.get("improved_share")
    closer = "-" if share is None else f"{share:.0%}"
    change = number(found.get("difference_months"))
    return (
        f"error changed by {change} months ({span(found.get('difference_ci95_months'))}), closer on {closer} of images"
    )


# == markdown: Markdown from plain values: numbers, intervals, cells and tables, whatever a value holds.

Values = Mapping[str, Any]
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~!&])")


def part(values: Any, *names: str) -> Values:
    """The mapping at the end of `names`, or an empty one where anything on the way is missing."""
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def number(value: Any, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def span(ends: Any) -> str:
    """An interval as ``low to high``; a dash where it has no value."""
    low, high = ends or (None, None)
    return "-" if low is None or high is None else f"{number(low)} to {number(high)}"


def cell(value: Any) -> str:
    """`value` on one line, with all that Markdown or HTML would act on escaped."""
    return "-" if value is None else _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *lines]
