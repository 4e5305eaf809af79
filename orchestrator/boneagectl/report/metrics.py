"""The metrics of an evaluated set: key, name, unit, and how they are shown. Each is defined here once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from boneagectl.report import text
from boneagectl.report.text import number, numbers, section

CI95 = "mae_ci95_months"
_CI95_ENDS = ("mae_ci95_low_months", "mae_ci95_high_months")


@dataclass(frozen=True, slots=True)
class ReportMetric:
    """One number of a set: `key` in the evaluation, `unit` in exports, `format` for people."""

    key: str
    name: str
    unit: str
    format: Callable[[Any], str]

    @property
    def label(self) -> str:
        """The name with the unit, where the formatted number does not carry it."""
        return f"{self.name} (months)" if self.unit == "months" else self.name


METRICS = (
    ReportMetric("n", "Radiographs", "radiographs", text.count),
    ReportMetric("mae_months", "Mean absolute error", "months", text.plain),
    ReportMetric("median_ae_months", "Median absolute error", "months", text.plain),
    ReportMetric("rmse_months", "Root mean square error", "months", text.plain),
    ReportMetric("p90_ae_months", "90th percentile of absolute error", "months", text.plain),
    ReportMetric("bias_months", "Bias, predicted − reference", "months", text.signed),
    ReportMetric("sd_error_months", "Standard deviation of error", "months", text.plain),
    ReportMetric("within_6_months", "Within 6 months", "share", text.share),
    ReportMetric("within_12_months", "Within 12 months", "share", text.share),
    ReportMetric("within_24_months", "Within 24 months", "share", text.share),
    ReportMetric("loa_low_months", "Lower 95 % limit of agreement", "months", text.signed),
    ReportMetric("loa_high_months", "Upper 95 % limit of agreement", "months", text.signed),
    ReportMetric("slope", "Slope, predicted on reference", "months per month", lambda value: text.plain(value, 3)),
    ReportMetric("intercept_months", "Intercept", "months", text.signed),
    ReportMetric("r2", "R²", "1", lambda value: text.plain(value, 3)),
    ReportMetric("baseline_median_mae_months", "Baseline MAE, median age", "months", text.plain),
    ReportMetric("baseline_median_by_sex_mae_months", "Baseline MAE, median age by sex", "months", text.plain),
)


def _flatten(group: Any) -> dict[str, float | None]:
    group = section(group)
    values = {metric.key: number(group.get(metric.key)) for metric in METRICS if metric.key in group}
    if CI95 in group:
        values.update(zip(_CI95_ENDS, numbers(group[CI95], 2) or (None, None), strict=True))
    return values


def unit_of(key: str) -> str:
    """The unit of a metric of `flat_groups`."""
    return next((metric.unit for metric in METRICS if metric.key == key), "months")


def flat_groups(metrics: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float | None]]]:
    """The known metrics of a set and of every group in it; the interval is two numbers, NaN is None.

    The groups are named all, sex:male, age:0-59, sex:male/age:0-59.
    """
    yield "all", _flatten(metrics)
    for kind, key in (("sex", "by_sex"), ("age", "by_age_band")):
        for name, group in section(metrics.get(key)).items():
            yield f"{kind}:{name}", _flatten(group)
    for sex, bands in section(metrics.get("by_sex_and_age_band")).items():
        for band, group in section(bands).items():
            yield f"sex:{sex}/age:{band}", _flatten(group)
