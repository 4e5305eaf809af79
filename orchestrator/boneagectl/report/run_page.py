"""What the template prints: every number in its words, every list ready to loop over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boneage_trainer.contract import RESEARCH_ONLY
from boneagectl.report import accuracy_figures, budget_figures, training_figures
from boneagectl.report.data import SETS, ReportData, load_run
from boneagectl.report.export import split_words, to_csv, to_json
from boneagectl.report.metrics import CI95, MEASURES
from boneagectl.report.text import (
    UNKNOWN,
    count,
    dollars,
    duration,
    interval,
    listed,
    months,
    number,
    numbers,
    plain,
    section,
    sex,
    signed,
    with_unit,
)
from boneagectl.templates import fill

NONE = "none"
_NO_INTERVAL = "The evaluation is not there yet, so there is no interval and no comparison with a baseline."
Rows = list[tuple[str, ...]]


def view(data: ReportData) -> dict[str, Any]:
    """Everything the template names; text only, but for the figures."""
    drawn = [
        *training_figures.figures(data),
        *accuracy_figures.agreement_figures(data),
        *accuracy_figures.figures(data),
    ]
    drawn += [accuracy_figures.people_figure(data), accuracy_figures.figure(data)]
    return {
        "run_id": data.run_id,
        "research_only": RESEARCH_ONLY,
        "status": status(data),
        "notes": notes(data),
        "hero": hero(data),
        "sets": [name for name in SETS if data.set_of(name)],
        "accuracy": accuracy(data),
        "run_numbers": run_numbers(data),
        "figures": {figure.key.replace("-", "_"): figure for figure in drawn},
        "set_name": data.set_name,
        "samples_png": str(data.facts.get("samples_png") or ""),
        "left": budget_figures.figures(data.facts.get("accounts") or []),
        "worst": worst(data),
        "environment": environment(data),
        "legs": legs(data),
        "config": [(key, listed(value)) for key, value in section(data.facts.get("config")).items()],
        "provenance": provenance(data),
        "command": str(data.facts.get("command") or ""),
    }


def status(data: ReportData) -> str:
    """One sentence on where the run stands."""
    state, reason = data.state.get("state"), data.state.get("reason")
    done, planned = _epochs_done(data), number(data.state.get("epochs"))
    how_far = f"{done} of {count(planned)} epochs" if planned else f"{done} epochs"
    why = f" ({reason})" if reason and reason != state else ""
    return f"{str(state).capitalize() if state else 'State not known'}{why}: {how_far} done."


def _epochs_done(data: ReportData) -> int:
    return len(data.epochs)


def notes(data: ReportData) -> list[str]:
    """What a reader must know is not in this report."""
    told = []
    if data.missing:
        told.append(f"Not there yet: {', '.join(data.missing)}. This report shows what the rest tells.")
    if "evaluation.json" in data.missing and data.shown:
        told.append("The measures were computed from predictions.csv; no baseline is known.")
    if unusable := sum(not row.is_usable for row in data.predictions):
        told.append(f"{unusable} of {len(data.predictions)} predictions are no number; no figure shows them.")
    if data.set_name == "validation":
        told.append(
            "There is no test set here. The kept weights were chosen on the validation set, so its errors flatter."
        )
    return told


def hero(data: ReportData) -> dict[str, str]:
    """The result in a few words; before the evaluation, the best validation error; before that, that there is none."""
    own = data.set_of(data.set_name)
    if number(own.get("mae_months")) is not None:
        return _hero(own["mae_months"], f"mean absolute error on the {data.set_name} set", _hero_detail(data, own))
    if best := data.best_epoch:
        return _hero(best["val_mae_months"], "lowest validation error so far", _NO_INTERVAL)
    return _hero(None, "No result yet", "No epoch has been validated so far.")


def _hero(mae_months: Any, what: str, detail: str) -> dict[str, str]:
    return {"mae": "" if mae_months is None else plain(mae_months), "what": what, "detail": detail}


def _hero_detail(data: ReportData, own: Mapping[str, Any]) -> str:
    ci = f"95 % interval {interval(own.get(CI95))}. " if numbers(own.get(CI95), 2) else ""
    baseline = number(own.get("baseline_median_mae_months"))
    against = f" Guessing one median age for everyone would be {months(baseline)} off." if baseline is not None else ""
    labels = listed(data.evaluation.get("labels"))
    split = listed(section(data.evaluation.get("split")).get("name"))
    return f"{ci}{count(own.get('n'))} radiographs; split: {split}; labels: {labels}.{against}"


def accuracy(data: ReportData) -> Rows:
    """A row a measure, with a column for each evaluated set, in the order of `SETS`."""
    found = [data.set_of(name) for name in SETS if data.set_of(name)]
    rows = [(measure.label, *(measure.shown(own.get(measure.key)) for own in found)) for measure in MEASURES]
    rows.insert(2, ("95 % interval of it, months", *(interval(own.get(CI95)) for own in found)))
    return rows if found else []


def run_numbers(data: ReportData) -> Rows:
    """The key numbers of the run itself."""
    best = data.best_epoch
    kept = f"{listed(best.get('epoch'))}, {months(best['val_mae_months'])} on validation" if best else UNKNOWN
    return [
        ("Epochs", str(_epochs_done(data))),
        ("Kept epoch", kept),
        ("Time in epochs", duration(data.total_s("epoch_s"))),
        ("GPU really given", gpu(data)),
        ("Cost", dollars(data.facts.get("cost_usd"))),
        ("Quota used", with_unit(plain(data.facts.get("quota_hours")), "h")),
        ("Labels", listed(data.evaluation.get("labels"))),
        ("Split", split_words(data)),
    ]


def gpu(data: ReportData) -> str:
    """The GPUs the run really got; their names, or why there is none."""
    given = data.environment.get("gpus")
    if isinstance(given, list):
        return ", ".join(_gpu_name(one) for one in given) or "none; it ran on the CPU"
    return str(given) if given else UNKNOWN


def _gpu_name(one: Any) -> str:
    return str(one.get("name", UNKNOWN)) if isinstance(one, Mapping) else str(one)


def worst(data: ReportData) -> Rows:
    """The largest errors of the shown set: id, sex, label, prediction, error."""
    rows = data.set_of(data.set_name).get("worst") or []
    return [
        (
            str(row.get("id")),
            sex(bool(row.get("male"))),
            plain(row.get("boneage_months"), 0),
            plain(row.get("predicted_months")),
            signed(row.get("error_months")),
        )
        for row in map(section, rows)
    ]


def environment(data: ReportData) -> Rows:
    """The machine and its software, in the order people ask for them."""
    own = data.environment
    rows: Rows = [("GPU", gpu(data))] if own else []
    for key, name in (("cpu", "CPU"), ("cores", "Cores"), ("ram_gb", "Memory (GB)"), ("platform", "System"),
                      ("python", "Python"), ("backend", "Keras backend")):  # fmt: skip
        if own.get(key) is not None:
            rows.append((name, listed(own[key])))
    return rows + [(name, listed(version)) for name, version in section(own.get("packages")).items()]


def legs(data: ReportData) -> Rows:
    """Each leg: number, target, state with reason, start, hours."""
    return [
        (
            listed(leg.get("number")),
            listed(leg.get("target")),
            " · ".join(str(leg[key]) for key in ("state", "reason") if leg.get(key)) or UNKNOWN,
            listed(leg.get("started")),
            plain(leg.get("hours"), 2),
        )
        for leg in map(section, data.facts.get("legs") or [])
    ]


def provenance(data: ReportData) -> Rows:
    """Where the numbers come from: data, split, bundle, versions, git state."""
    own = data.environment
    rows: Rows = [("Bundle sha256", listed(data.facts.get("bundle_sha256")))]
    rows.append(("Split sha256", listed(section(data.evaluation.get("split")).get("sha256"))))
    for part in ("data", "provenance"):
        rows += [
            (_title(part, key), NONE if value is None else listed(value))
            for key, value in section(own.get(part)).items()
        ]
    return rows


def _title(part: str, key: str) -> str:
    """A provenance entry's name; a count or a fingerprint says that it is the data's."""
    words = key.replace("_", " ")
    return (f"{part} {words}" if part == "data" else words).capitalize()


# == build: The report of one run: read its folder, then render HTML, JSON or CSV.

__all__ = ["ReportData", "load_run", "render_html", "to_csv", "to_json"]

TEMPLATE = "report/report.html.j2"


def render_html(data: ReportData) -> str:
    """The report as one HTML file that needs nothing beside it."""
    return fill(TEMPLATE, **view(data))
