"""The burn-down figures of the accounts: spent so far, reserved now, and how long the rest lasts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from boneagectl.report import svg
from boneagectl.report.svg import Plot, ReportFigure, axis, legend, time_axis
from boneagectl.report.text import day, dollars, minute, plain, with_unit

Burndown = Mapping[str, Any]
"""A limit of an account over time, as `burndown.limit_series` makes it."""
_KINDS = {"cap": "cap", "credit": "prepaid credit", "quota": "weekly quota"}
_MIN_SPAN_S = 2 * 86_400
"""The shortest time a figure shows: a shorter one could lack a tick."""
_MAX_AHEAD = 3
"""The longest projection, in times the past: a longer one would leave the past no room."""
_HEADROOM = 1.12
"""How far the axis goes beyond the limit: the notes are above the line."""
_RIGHT = svg.WIDTH - 24
_RESERVED_WIDTH = 7
_NOTE_CHARACTER = 6.4
_MAX_DAYS = 3650
_NO_BREAK_SPACE = "\u00a0"
_CREDIT_NOTE = "This is the last balance you entered minus what was spent since; earlier values are calculated back."


def draw_burndown(burndown: Burndown) -> ReportFigure:
    """What is left of a limit over time, what is reserved of it, and how long the rest lasts."""
    (first_s, first), (_, last) = burndown["points"][0], burndown["points"][-1]
    now_s, until_s = burndown["as_of_s"], _ahead_until_s(burndown)
    end_s = max(now_s, burndown["ends_s"] if burndown["unit"] == "h" and burndown["ends_s"] else until_s)
    unit, kind = "US$" if burndown["unit"] == "US$" else "hours", _KINDS[burndown["kind"]]
    high = _HEADROOM * max(value for _, value in burndown["points"])
    left_axis = axis(f"{burndown['account']}: {unit} left of the {kind}", [high], zero=True)
    plot = Plot(time_axis(min(first_s, end_s - _MIN_SPAN_S), end_s), left_axis, inset=8, right=_RIGHT)
    parts = [plot.frame(), _time_marks(plot, burndown)]
    entries = [("left", svg.line(-11, 0, 11, 0, "curve b"))]
    if burndown["reserved"]:
        # From the end of the line down to what is free.
        x, left = plot.at(*burndown["points"][-1])
        parts.append(svg.rect(x, left, _RESERVED_WIDTH, plot.at_y(burndown["free"]) - left, "booked"))
        entries.append(("reserved", svg.rect(-5, -6, 10, 12, "booked")))
    if until_s > now_s:
        end = plot.at(until_s, _free_at(burndown, until_s))
        parts.append(svg.polyline([plot.at(now_s, burndown["free"]), end], "identity"))
        entries.append(("projection (last 7 days)", svg.line(-11, 0, 11, 0, "identity")))
    before, after = _amount(burndown, first), _amount(burndown, last)
    desc = f"Stepped line from {before} on {day(first_s)} to {after} on {day(now_s)}. {_rate_text(burndown)}"
    key = f"left-{burndown['account']}-{'usd' if burndown['unit'] == 'US$' else 'hours'}"
    title = f"Remaining {kind} of account {burndown['account']}"
    drawing = svg.drawing(key, title, desc, plot.height, [*parts, _steps(plot, burndown), legend(entries)])
    columns = ("Day (UTC)", f"Spent ({burndown['unit']})", f"Left ({burndown['unit']})")
    return ReportFigure(key, drawing, _caption(burndown), columns, _rows(burndown))


# -------------------------------------------------------------------------------- the drawing
def _ahead_until_s(burndown: Burndown) -> float:
    """Where the projection stops: at zero, where the limit ends, or at the figure's edge."""
    now_s, runs_out_s = burndown["as_of_s"], burndown["runs_out_s"]
    if runs_out_s is None or _is_over(burndown):
        return float(now_s)
    room_s = _MAX_AHEAD * max(now_s - burndown["points"][0][0], _MIN_SPAN_S)
    return float(min(runs_out_s, now_s + room_s, burndown["ends_s"] or runs_out_s))


def _is_over(burndown: Burndown) -> bool:
    return burndown["ends_s"] is not None and burndown["ends_s"] <= burndown["as_of_s"]


def _steps(plot: Plot, burndown: Burndown) -> str:
    """The amount left over time; of steps at one position the last is drawn."""
    (first_s, first), *later = burndown["points"]
    places = {round(2 * plot.at_x(at_s)): plot.at(at_s, left) for at_s, left in later}
    corners = [plot.at(first_s, first)]
    for x, y in places.values():
        corners += [(x, corners[-1][1]), (x, y)]
    return svg.polyline(corners, "curve b")


def _free_at(burndown: Burndown, time_s: float) -> float:
    """The free amount at a later time, at the rate of the last seven days."""
    share = (time_s - burndown["as_of_s"]) / (burndown["runs_out_s"] - burndown["as_of_s"])
    return float(max(0.0, burndown["free"] * (1 - share)))


def _time_marks(plot: Plot, burndown: Burndown) -> str:
    """Vertical lines at the date of the data and at the end of the limit; each is named where its name fits."""
    now_s, ends_s = burndown["as_of_s"], burndown["ends_s"]
    now_x, date = plot.at_x(now_s), f"as of {day(now_s).rsplit(' ', 1)[0]}"
    is_left = now_x - plot.left > _width(date)
    parts = [plot.vertical(now_s, "leg"), plot.top_note(date, now_s, is_left)]
    if ends_s and now_s < ends_s <= plot.x.high:
        end_name = "credit ends" if burndown["unit"] == "US$" else "quota resets"
        taken = 0.0 if is_left else _width(date)
        parts.append(plot.vertical(ends_s, "leg"))
        if plot.at_x(ends_s) - now_x > _width(end_name) + taken:
            parts.append(plot.top_note(end_name, ends_s, is_left=True))
    return "".join(parts)


def _width(note: str) -> float:
    return _NOTE_CHARACTER * len(note) + 10


# --------------------------------------------------------------------------------------- text
def _amount(burndown: Burndown, value: float) -> str:
    """`value` with its unit and no place for a line break."""
    shown = dollars(value) if burndown["unit"] == "US$" else with_unit(plain(value, 2), "h")
    return shown.replace(" ", _NO_BREAK_SPACE)


def _caption(burndown: Burndown) -> str:
    """What is left of what, as of when, how much of it is free, at which rate it is spent, and until when it lasts."""
    kind, left = burndown["kind"], _amount(burndown, burndown["points"][-1][1])
    limit = "" if kind == "credit" else f" of {_amount(burndown, burndown['limit'])}"
    date = minute(burndown["as_of_s"])
    sentences = [f"Account {burndown['account']}: {left} of its {_KINDS[kind]}{limit} left on {date}."]
    if kind == "credit":
        sentences.append(_CREDIT_NOTE)
    if burndown["reserved"]:
        reserved, free = (_amount(burndown, burndown[key]) for key in ("reserved", "free"))
        sentences.append(f"Reserved for legs that are not settled: {reserved}; free: {free}.")
    return " ".join([*sentences, _rate_text(burndown)])


def _rate_text(burndown: Burndown) -> str:
    """The rate of spending, and what comes first at that rate: nothing is left, or the limit ends."""
    if burndown["ends_s"] is None:
        ending = ""
    elif burndown["unit"] == "US$":
        ending = f"the credit {'ended' if _is_over(burndown) else 'ends'} on {day(burndown['ends_s'])}"
    else:
        ending = f"the quota resets on {minute(burndown['ends_s'])}"
    sentence = [f"{ending[0].upper()}{ending[1:]}."] if ending else []
    if burndown["runs_out_s"] is None:
        return " ".join(["Nothing was spent in the last seven days.", *sentence])
    spent = f"Spent in the last seven days: {_amount(burndown, burndown['week'])}"
    if not burndown["free"] or _is_over(burndown):
        return " ".join([f"{spent}.", *([] if burndown["free"] else ["Nothing is free."]), *sentence])
    if burndown["ends_s"] and burndown["ends_s"] < burndown["runs_out_s"]:
        unused = _amount(burndown, _free_at(burndown, burndown["ends_s"]))
        return f"{spent}; at that rate {ending} with {unused} still free."
    days = (burndown["runs_out_s"] - burndown["as_of_s"]) / 86_400
    end = "more than ten years from now" if days > _MAX_DAYS else day(burndown["runs_out_s"])
    beyond = "" if _ahead_until_s(burndown) == burndown["runs_out_s"] else ", beyond this figure"
    return " ".join([f"{spent}; at that rate the free amount lasts until {end}{beyond}.", *sentence])


def _rows(burndown: Burndown) -> tuple[tuple[str, ...], ...]:
    """A row for each day on which something was spent, then what is reserved."""
    (first_s, first), *later = burndown["points"]
    rows, before = [(f"start, {day(first_s)}", plain(0, 2), plain(first, 2))], first
    for name, points in itertools.groupby(later, key=lambda point: day(point[0])):
        *_, (_, left) = points
        if left != before:
            rows.append((name, plain(before - left, 2), plain(left, 2)))
        before = left
    if burndown["reserved"]:
        rows.append(("reserved now", plain(burndown["reserved"], 2), plain(burndown["free"], 2)))
    return tuple(rows)
