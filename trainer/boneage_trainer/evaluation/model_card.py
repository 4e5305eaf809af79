"""The model card: what a reader must know before using, citing or grading a trained model.

Its order follows CLAIM, the checklist for artificial intelligence in medical imaging. Every number comes from
the run's own files; a missing one is a dash.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from boneage_trainer.contract import RESEARCH_ONLY, Job, RunFolder, parse_object, write_atomic
from boneage_trainer.data.splits import PART_NAMES

Values = Mapping[str, Any]

_WEIGHTS = {
    "vgg16": "The ImageNet weights of VGG16 are from the Visual Geometry Group (Oxford), under a Creative Commons"
    " attribution licence: credit them when you share this model."
}
_PIXELS = {
    "standardized": "standardizes each image to mean 0 and variance 1",
    "unit": "divides gray levels by 255",
    "backbone": "scales gray levels as in the pretraining of the backbone",
}
_RSNA = (
    "If the pack was made from the RSNA Pediatric Bone Age set (2017): non-commercial use under"
    " [its terms](https://www.rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone-age-challenge-2017), cite Halabi et"
    " al., Radiology 2019;290(2):498-503, and do not try to identify a child. `gradcam.png` contains radiographs, so"
    " the same terms apply to it."
)


def write_model_card(folder: RunFolder, job: Job) -> None:
    """Writes ``model_card.md`` from `job` and the ``evaluation.json`` and ``environment.json`` in `folder`."""
    paths = (folder.evaluation, folder.environment)
    evaluation, environment = (parse_object(path.read_text(encoding="utf-8"), path.name) for path in paths)
    write_atomic(folder.model_card, format_model_card(dataclasses.asdict(job), evaluation, environment))


def format_model_card(job: Values, evaluation: Values, environment: Values) -> str:
    """The card as Markdown, from the contents of ``job.json``, ``evaluation.json`` and ``environment.json``."""
    train, test = get_nested(job, "train"), get_nested(evaluation, "sets", "test")
    sections = {
        **_purpose_and_data(job, evaluation),
        **_method(job, environment),
        "Results": _results(test, evaluation),
        "Limitations": _limitations(test),
        "Grad-CAM": _gradcam(get_nested(evaluation, "gradcam")),
        "Reproducibility": _reproducibility(job, environment),
    }
    body = "\n".join(f"\n## {title}\n\n" + "\n".join(lines) for title, lines in sections.items())
    return f"# Model card: bone age, preset {_text(train.get('preset'))}\n\n**{RESEARCH_ONLY}**\n{body}\n"


# --------------------------------------------------------------------------------------- sections
def _purpose_and_data(job: Values, evaluation: Values) -> dict[str, list[str]]:
    split, data = get_nested(evaluation, "split"), get_nested(job, "data")
    parts = {name: get_nested(evaluation, "parts", name) for name in PART_NAMES}
    youngest, oldest = (_number(parts["train"].get(key), 0) for key in ("min_months", "max_months"))
    header = ("Part", "Images", "Boys", "Girls", "Mean age", "SD", "Youngest", "Oldest")
    ages = ("mean_months", "sd_months", "min_months", "max_months")
    rows = [
        (name, *(part.get(key) for key in ("n", "male", "female")), *(_number(part.get(key)) for key in ages))
        for name, part in parts.items()
    ]
    sex = "and the child's sex" if get_nested(job, "train").get("use_sex") else "alone, without sex"
    return {
        "Model": [f"A network that predicts bone age, in months, from one radiograph of a hand {sex}."],
        "Intended use": [
            "- For: teaching, and research on methods, with data like the training data.",
            "- Not for: diagnosis, treatment, age assessment in asylum or court, or any decision about a person.",
            f"- Not for ages outside the training data ({youngest} to {oldest} months), other body parts, or other"
            " views of the hand.",
        ],
        "Data": [
            f"Pack of {_text(data.get('count'))} radiographs, fingerprint {_text(data.get('fingerprint'))}.",
            f"Split {_text(split.get('name'))}; sha256 of its test ids {_text(split.get('sha256'))}. Ages in months.",
            "",
            *_table(header, rows),
            "",
            f"Reference standard: {_text(evaluation.get('labels'))}.",
            "",
            _RSNA,
        ],
    }  # fmt: skip


def _method(job: Values, environment: Values) -> dict[str, list[str]]:
    train, px = get_nested(job, "train"), _text(get_nested(job, "data").get("image_size_px"))
    scaling = _PIXELS.get(str(train.get("pixels", "standardized")), "scales gray levels")
    backbone, weights = str(train.get("backbone", "residual")), str(train.get("weights", "none"))
    if weights == "none":
        licence = "Trained from random weights; no third-party licence applies."
    else:
        licence = _WEIGHTS.get(backbone, "The publisher's licence of the pretrained weights applies; look it up.")
    gpus = ", ".join(str(gpu.get("name")) for gpu in environment.get("gpus") or [])
    device = gpus or f"GPU: none (CPU; {environment.get('no_gpu_reason') or 'reason unknown'})"
    times = [(key, _number(value)) for key, value in sorted(get_nested(environment, "times").items())]
    return {
        "Preprocessing": [
            f"Gray, 8 bit, {px} x {px} px: resized by area averaging and padded to a square, with the aspect ratio"
            f" kept. The model itself {scaling}. It takes uint8 images, so training and test images are prepared"
            " identically.",
        ],
        "Network": [f"Backbone {_text(backbone)}, initial weights {_text(weights)}. {licence}"],
        "Training": [
            "The epoch with the lowest validation error was kept; the test set was not used for any choice.",
            "",
            *_table(("Setting", "Value"), sorted(train.items())),
        ],
        "Hardware and time": [
            f"{_text(device)}; {_text(environment.get('cpu'))}, {_text(environment.get('cores'))} cores,"
            f" {_text(environment.get('ram_gb'))} GB of memory. Times are those of the last leg.",
            "",
            *_table(("Time", "Value"), times),
        ],
    }  # fmt: skip


def _results(test: Values, evaluation: Values) -> list[str]:
    validation = get_nested(evaluation, "sets", "validation")
    agreement = f"{_number(test.get('loa_low_months'))} to {_number(test.get('loa_high_months'))}"
    leaked = test.get("trained_on_count")
    warning = ["", f"**{_text(leaked)} of these images were also in the training set.**"] if leaked else []
    header = ("Group", "Images", "MAE", "95 % CI", "RMSE", "Bias", "90th percentile", "Within 12 months")
    groups = [("all", test), *get_nested(test, "by_sex").items(), *get_nested(test, "by_age_band").items()]
    keys = ("rmse_months", "bias_months", "p90_ae_months", "within_12_months")
    rows = [
        (name, group.get("n"), _number(group.get("mae_months")), _interval(group.get("mae_ci95_months")),
         *(_number(group.get(key)) for key in keys))
        for name, group in groups
    ]  # fmt: skip
    median, by_sex = (_number(test.get(f"baseline_median{key}_mae_months")) for key in ("", "_by_sex"))
    lines = [
        f"On {_text(test.get('n'))} test images, in months, with 95 % bootstrap confidence intervals over images:"
        f" **MAE {_number(test.get('mae_months'))}** ({_interval(test.get('mae_ci95_months'))});"
        f" validation {_number(validation.get('mae_months'))}.",
        *warning,
        "",
        *_table(header, rows),
        "",
        f"Limits of agreement (bias and 1.96 SD): {agreement}. R² {_number(test.get('r2'), 3)}.",
        f"Baselines: MAE {median} for the training median, {by_sex} for the training median of the same sex.",
        f"Compared with the latter, image by image: {_comparison(get_nested(test, 'against_median_by_sex'))}.",
    ]
    if "views" not in test:
        return lines
    correlation = _number(get_nested(test, "view_disagreement").get("rank_correlation"))
    return [
        *lines,
        f"Predictions are the mean of {_text(test['views'])} views. The plain view alone has MAE"
        f" {_number(test.get('plain_view_mae_months'))}; compared with it:"
        f" {_comparison(get_nested(test, 'against_plain_view'))}.",
        f"The rank correlation of view disagreement with the error is {correlation}; it is not an uncertainty.",
    ]


def _comparison(paired: Values) -> str:
    """A paired comparison as text; see `metrics.paired_metrics`."""
    share = paired.get("improved_share")
    win_rate = "-" if share is None else f"{share:.0%}"
    change, interval = _number(paired.get("difference_months")), _interval(paired.get("difference_ci95_months"))
    return f"mean change of the absolute error {change} months ({interval}), win rate {win_rate} of images"


def _limitations(test: Values) -> list[str]:
    regression = get_nested(test, "regression_to_the_mean")
    young, old = (get_nested(regression, f"{name}_fifth") for name in ("youngest", "oldest"))
    calibration = _number(get_nested(test, "calibration").get("expected_error_months"))
    highest, bands = [], get_nested(test, "by_age_band")
    if known := {name: band for name, band in bands.items() if band.get("mae_months") is not None}:
        name, band = max(known.items(), key=lambda item: float(item[1]["mae_months"]))
        mae = _number(band["mae_months"])
        highest = [f"- Highest error: {_text(name)} months, MAE {mae} on {_text(band.get('n'))} images."]
    worst = [
        [case.get(key) for key in ("id", "boneage_months", "predicted_months")] for case in test.get("worst") or []
    ]
    return [
        f"- Regression to the mean: {_number(regression.get('error_slope'), 3)} months of error per month of age; bias"
        f" {_number(young.get('bias_months'))} in the youngest fifth, {_number(old.get('bias_months'))} in the oldest.",
        *highest,
        f"- Calibration: mean predicted and reference age differ by {calibration} months on average over bins of"
        " predicted age.",
        "- Labels are human readings, with errors of their own; results on single readings and on means of several"
        " raters cannot be compared.",
        "- Not tested: children whose age, origin, health, scanner or positioning is missing from the data.",
        "",
        "Largest errors, in months:",
        "",
        *_table(("Image", "Reference", "Predicted"), [(id_, *map(_number, months)) for id_, *months in worst]),
    ]


def _gradcam(gradcam: Values) -> list[str]:
    if not gradcam.get("done"):
        return [f"No Grad-CAM: {_text(gradcam.get('reason') or 'not computed')}."]
    shift = get_nested(gradcam, "shift")
    moved, unmoved, unrelated = (_number(shift.get(key)) for key in ("moved", "unmoved", "unrelated"))
    return [
        "`gradcam.png` shows which parts of the image change the predicted age. Such maps are easily over-interpreted,"
        f" so they were tested on {_text(gradcam.get('images'))} images: the hand was shifted"
        f" {_text(shift.get('shift_px'))} px to the right. Correlation with the new map: {moved} for the old map"
        f" shifted along (should be near 1), {unmoved} left in place, {unrelated} for the map of another hand."
        f" Share of heat in the middle half of the area: {_number(gradcam.get('central_share'))} (0.50 for an even"
        " map)."
    ]


def _reproducibility(job: Values, environment: Values) -> list[str]:
    train, provenance = get_nested(job, "train"), get_nested(job, "provenance")
    versions = {"python": environment.get("python"), **get_nested(environment, "packages"), **provenance}
    same = "bit for bit on the same machine" if train.get("deterministic") else "closely, but not bit for bit"
    return [
        f"Seed {_text(train.get('seed'))}; with the same pack, this command reproduces the model {same}:",
        "",
        "    python -m boneage_trainer job.json --data PACK --out FOLDER",
        "",
        *_table(("Component", "Version"), [*versions.items(), ("bundle sha256", environment.get("bundle_sha256"))]),
    ]


# --------------------------------------------------------------------------------------- Markdown
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~!&])")


def get_nested(values: Any, *names: str) -> Values:
    """The mapping at the end of `names`; empty if anything on the way is missing."""
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def _number(value: Any, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(ends: Any) -> str:
    """``low to high``; a dash if either is missing."""
    low, high = ends or (None, None)
    return "-" if low is None or high is None else f"{_number(low)} to {_number(high)}"


def _text(value: Any) -> str:
    """`value` on one line, with everything escaped that Markdown or HTML would interpret."""
    return "-" if value is None else _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(map(_text, row)) + " |" for row in rows]
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *lines]
