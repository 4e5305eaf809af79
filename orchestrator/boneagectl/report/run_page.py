"""The report of one run as HTML: every number as text, every list ready for the template to loop over."""

from __future__ import annotations

from collections.abc import Mapping

from boneage_trainer.contract import RESEARCH_ONLY
from boneagectl.report import accuracy_figures, budget_figures, text, training_figures
from boneagectl.report.data import ReportData
from boneagectl.report.metrics import CI95, METRICS
from boneagectl.report.text import UNKNOWN, number, numbers, section
from boneagectl.templates import fill

TEMPLATE = "report/report.html.j2"
_MACHINE = (("cpu", "CPU"), ("cores", "Cores"), ("ram_gb", "Memory (GB)"), ("platform", "System"),
            ("python", "Python"), ("backend", "Keras backend"))  # fmt: skip
Rows = list[tuple[str, ...]]


def render_run(data: ReportData) -> str:
    """The report as one HTML file that needs nothing beside it."""
    return fill(
        TEMPLATE,
        run_id=data.run_id,
        research_only=RESEARCH_ONLY,
        status=status_text(data),
        notes=report_notes(data),
        hero=headline(data),
        sets=data.set_names,
        accuracy=accuracy_rows(data),
        run_numbers=run_rows(data),
        figures={
            "ruler": accuracy_figures.draw_baselines(data),
            "sexes": accuracy_figures.draw_parts(data),
            "ages": accuracy_figures.draw_age_histogram(data),
            "mae": training_figures.draw_mae(data),
            "loss": training_figures.draw_loss(data),
            "scatter": accuracy_figures.draw_scatter(data),
            "bland_altman": accuracy_figures.draw_bland_altman(data),
            "by_sex": accuracy_figures.draw_by_sex(data),
            "by_age": accuracy_figures.draw_by_age_band(data),
            "calibration": accuracy_figures.draw_calibration(data),
            "time": training_figures.draw_time(data),
        },
        set_name=data.set_name,
        samples_png=str(data.facts.get("samples_png") or ""),
        left=[*map(budget_figures.draw_burndown, data.facts.get("accounts") or [])],
        worst=worst_case_rows(data),
        environment=machine_rows(data),
        legs=leg_rows(data),
        config=[(key, text.inline(value)) for key, value in section(data.facts.get("config")).items()],
        provenance=provenance_rows(data),
        command=str(data.facts.get("command") or ""),
    )


def status_text(data: ReportData) -> str:
    """State, reason and progress in one line."""
    state, reason = data.state.get("state"), data.state.get("reason")
    done, planned = len(data.epochs), number(data.state.get("epochs"))
    progress = f"{done} of {text.count(planned)} epochs" if planned else f"{done} epochs"
    why = f" ({reason})" if reason and reason != state else ""
    return f"{str(state).capitalize() if state else 'State unknown'}{why}: {progress} done."


def report_notes(data: ReportData) -> list[str]:
    """What a reader must know is missing from this report."""
    notes = []
    if data.missing:
        notes.append(f"Missing so far: {', '.join(data.missing)}. The report shows everything else.")
    if data.is_computed:
        notes.append("Metrics that evaluation.json lacks were computed from predictions.csv; the baselines need more.")
    if data.problem:
        notes.append(f"Some accuracy metrics and figures are missing: {data.problem}")
    if unusable := sum(not row.is_usable for row in data.predictions):
        notes.append(f"{unusable} of {len(data.predictions)} predictions are not numbers and are not shown.")
    if data.set_name == "validation":
        notes.append(
            "This run has no test set. The checkpoint was selected on the validation set, so the errors shown are "
            "optimistic."
        )
    return notes


def headline(data: ReportData) -> dict[str, str]:
    """The result in a few words; before the evaluation, the best validation error; before that, that there is none."""
    metrics, best = data.metrics, data.best_epoch
    if number(metrics.get("mae_months")) is None:
        if best is None:
            return {"mae": "", "what": "No result yet", "detail": "No epoch has been validated so far."}
        detail = "Not evaluated yet: no confidence interval and no baseline."
        return {"mae": text.plain(best["val_mae_months"]), "what": "lowest validation error so far", "detail": detail}
    ci = f"95 % confidence interval {text.interval(metrics.get(CI95))}. " if numbers(metrics.get(CI95), 2) else ""
    baseline = number(metrics.get("baseline_median_mae_months"))
    against = f" Baseline (always the median training age): {text.months(baseline)}." if baseline is not None else ""
    labels, split = data.evaluation.get("labels"), section(data.evaluation.get("split")).get("name")
    return {
        "mae": text.plain(metrics["mae_months"]),
        "what": f"mean absolute error on the {data.set_name} set",
        "detail": f"{ci}{text.count(metrics.get('n'))} radiographs; split: {split or 'unknown'}; "
        f"reference ages: {labels or 'unknown'}.{against}",
    }


def accuracy_rows(data: ReportData) -> Rows:
    """A row for each metric, with a column for each evaluated set."""
    sets = [data.set_metrics(name) for name in data.set_names]
    rows = [(metric.label, *(metric.format(metrics.get(metric.key)) for metrics in sets)) for metric in METRICS]
    intervals = [text.interval(metrics.get(CI95)) for metrics in sets]
    rows.insert(2, ("95 % CI of the mean absolute error (months)", *intervals))
    return rows if sets else []


def run_rows(data: ReportData) -> Rows:
    """Epochs, time, GPU, cost and data of the run."""
    best, split = data.best_epoch, section(data.evaluation.get("split"))
    counts = ", ".join(f"{text.count(size)} {name}" for name, size in section(split.get("counts")).items())
    return [
        ("Epochs", str(len(data.epochs))),
        ("Best epoch (checkpoint used)", text.inline(best.get("epoch")) if best else UNKNOWN),
        ("Validation MAE of that epoch", text.months(best["val_mae_months"]) if best else UNKNOWN),
        ("Training time", text.duration(data.total_s("epoch_s"))),
        ("GPU", describe_gpu(data)),
        ("Cost", text.dollars(data.facts.get("cost_usd"))),
        ("Quota used", text.with_unit(text.plain(data.facts.get("quota_hours")), "h")),
        ("Reference ages", text.inline(data.evaluation.get("labels"))),
        ("Split", f"{split.get('name') or UNKNOWN}{f' ({counts})' if counts else ''}"),
    ]


def describe_gpu(data: ReportData) -> str:
    """The names of the GPUs the run had, or why it had none."""
    gpus = data.environment.get("gpus")
    if isinstance(gpus, list):
        names = [str(gpu.get("name", UNKNOWN)) if isinstance(gpu, Mapping) else str(gpu) for gpu in gpus]
        return ", ".join(names) or "none (CPU)"
    return str(gpus) if gpus else UNKNOWN


def worst_case_rows(data: ReportData) -> Rows:
    """The largest errors of the shown set: id, sex, reference age, predicted age, error."""
    return [
        (str(case.get("id")), "boy" if case.get("male") else "girl", text.count(case.get("boneage_months")),
         text.plain(case.get("predicted_months")), text.signed(case.get("error_months")))
        for case in map(section, data.metrics.get("worst") or [])
    ]  # fmt: skip


def machine_rows(data: ReportData) -> Rows:
    """The machine and its software, in the order people ask for them."""
    environment = data.environment
    rows: Rows = [("GPU", describe_gpu(data))] if environment else []
    rows += [(name, text.inline(environment[key])) for key, name in _MACHINE if environment.get(key) is not None]
    return rows + [(name, text.inline(version)) for name, version in section(environment.get("packages")).items()]


def leg_rows(data: ReportData) -> Rows:
    """Each leg: number, target, state with reason, start, hours."""
    return [
        (
            text.inline(leg.get("number")),
            text.inline(leg.get("target")),
            " · ".join(str(leg[key]) for key in ("state", "reason") if leg.get(key)) or UNKNOWN,
            text.inline(leg.get("started")),
            text.plain(leg.get("hours"), 2),
        )
        for leg in map(section, data.facts.get("legs") or [])
    ]


def provenance_rows(data: ReportData) -> Rows:
    """Where the numbers come from: data, split, bundle, versions, git state."""
    rows: Rows = [("Bundle sha256", text.inline(data.facts.get("bundle_sha256")))]
    rows.append(("Split sha256", text.inline(section(data.evaluation.get("split")).get("sha256"))))
    for part in ("data", "provenance"):
        for key, value in section(data.environment.get(part)).items():
            name = key.replace("_", " ")
            # A count or a fingerprint does not say by itself that it is the data's.
            title = (f"data {name}" if part == "data" else name).capitalize()
            rows.append((title, "none" if value is None else text.inline(value)))
    return rows
