"""The measures of an evaluated set: key, name, unit, and how a reader sees them. Named once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from boneagectl.report import text
from boneagectl.report.text import number, numbers, section

CI95 = "mae_ci95_months"
_CI95_ENDS = ("mae_ci95_low_months", "mae_ci95_high_months")


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a set: `key` in the evaluation, `unit` in exports, `shown` for people."""

    key: str
    name: str
    unit: str
    shown: Callable[[Any], str]

    @property
    def label(self) -> str:
        """The name with the unit, where the shown number does not carry it."""
        return f"{self.name}, months" if self.unit == "months" else self.name


MEASURES = (
    Measure("n", "Radiographs", "radiographs", text.count),
    Measure("mae_months", "Mean absolute error", "months", text.plain),
    Measure("median_ae_months", "Median absolute error", "months", text.plain),
    Measure("rmse_months", "Root mean square error", "months", text.plain),
    Measure("p90_ae_months", "90 % of errors are below", "months", text.plain),
    Measure("bias_months", "Bias (prediction − label)", "months", text.signed),
    Measure("sd_error_months", "Standard deviation of errors", "months", text.plain),
    Measure("within_6_months", "Within 6 months", "share", text.share),
    Measure("within_12_months", "Within 12 months", "share", text.share),
    Measure("within_24_months", "Within 24 months", "share", text.share),
    Measure("loa_low_months", "Lower limit of agreement", "months", text.plain),
    Measure("loa_high_months", "Upper limit of agreement", "months", text.plain),
    Measure("slope", "Slope of prediction on label", "months per month", lambda value: text.plain(value, 3)),
    Measure("intercept_months", "Intercept", "months", text.plain),
    Measure("r2", "R²", "1", lambda value: text.plain(value, 3)),
    Measure("baseline_median_mae_months", "Baseline: one median age", "months", text.plain),
    Measure("baseline_median_by_sex_mae_months", "Baseline: median age of each sex", "months", text.plain),
)


def flat(group: Mapping[str, Any]) -> dict[str, float | None]:
    """The known measures of a set or group, those it names; the interval as two numbers, NaN as None."""
    values = {measure.key: number(group.get(measure.key)) for measure in MEASURES if measure.key in group}
    if CI95 in group:
        values.update(zip(_CI95_ENDS, numbers(group[CI95], 2) or (None, None), strict=True))
    return values


def unit_of(key: str) -> str:
    """The unit of a key of `flat`."""
    return next((measure.unit for measure in MEASURES if measure.key == key), "months")


def groups(own: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A set and every group in it, each with its name: all, sex:male, age:0-59, sex:male/age:0-59."""
    yield "all", own
    for kind, key in (("sex", "by_sex"), ("age", "by_age_band")):
        for name, group in section(own.get(key)).items():
            yield f"{kind}:{name}", section(group)
    for sex, bands in section(own.get("by_sex_and_age_band")).items():
        for band, group in section(bands).items():
            yield f"sex:{sex}/age:{band}", section(group)
