"""Who was measured: boys and girls in each part of the data."""

from __future__ import annotations

from boneagectl.report import bars
from boneagectl.report.data import ReportData
from boneagectl.report.svg import Figure
from boneagectl.report.words import count, number, plain, section

PARTS = ("train", "validation", "test")
_COLUMNS = ("Part", "Radiographs", "Boys", "Girls", "Mean age (months)", "SD (months)", "Youngest (months)",
            "Oldest (months)")  # fmt: skip
_NOBODY = "It is not told yet who is in each part of the data; the trainer writes it when the run is complete."


def figure(data: ReportData) -> Figure:
    parts = {name: section(section(data.evaluation.get("parts")).get(name)) for name in PARTS}
    known = {name: part for name, part in parts.items() if number(part.get("n")) is not None}
    drawn = [
        bars.Bar(sex, name, float(part[key]), count(part[key]))
        for name, part in known.items()
        for sex, key in (("Boys", "male"), ("Girls", "female"))
        if number(part.get(key)) is not None
    ]
    if not drawn:
        return Figure.absent("sexes", _NOBODY)
    desc = "; ".join(f"{bar.note} {bar.name.lower()} {bar.words}" for bar in drawn) + "."
    svg = bars.upright("sexes", "Boys and girls by part", desc, "Radiographs", drawn, max(bar.value for bar in drawn))
    told = ", ".join(f"{count(part.get('n'))} to {_VERBS[name]}" for name, part in known.items())
    absent = [name for name in PARTS if name not in known]
    lacking = f" Not told of: {', '.join(absent)}." if absent else ""
    caption = f"Boys and girls in each part of the data: {told} radiographs. No radiograph is in two.{lacking}"
    return Figure("sexes", svg, caption, _COLUMNS, tuple(_row(name, part) for name, part in parts.items()))


_VERBS = {"train": "train on", "validation": "choose the kept epoch", "test": "test"}


def _row(name: str, part: object) -> tuple[str, ...]:
    own = section(part)
    ages = (plain(own.get(key)) for key in ("mean_months", "sd_months", "min_months", "max_months"))
    return (name, *(count(own.get(key)) for key in ("n", "male", "female")), *ages)
