"""The figures of what is left of each account's limit: spent so far, reserved now, and how long the rest lasts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from boneagectl.report import svg
from boneagectl.report.svg import Figure, Plot, axis, legend, time_axis
from boneagectl.report.text import day, dollars, minute, plain, with_unit

_KINDS = {"cap": "cap", "credit": "prepaid credit", "quota": "weekly quota"}
_SHORTEST_S = 2 * 86_400
"""The least time a figure shows: with less, it could lack a tick."""
_AHEAD = 3
"""How many times the past a projection may take of a figure: one that took more would leave the past no room."""
_HEADROOM = 1.12
"""How far the axis goes beyond the limit: the notes stand above the line."""
_RIGHT = svg.WIDTH - 24
_BOOKED_WIDTH = 7
_NOTE_CHARACTER = 6.4
_MANY_DAYS = 3650
_FAST_SPACE = "\u00a0"


def figures(accounts: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """A figure for each object that `burndown.of` made."""
    return [_figure(one) for one in accounts]


def _figure(one: Mapping[str, Any]) -> Figure:
    key = f"left-{one['account']}-{'usd' if one['unit'] == 'US$' else 'hours'}"
    plot = _plot(one)
    parts = [plot.frame(), _marks(plot, one), _booked(plot, one), _ahead(plot, one), _line(plot, one)]
    title = f"What is left of the {_KINDS[one['kind']]} of account {one['account']}"
    drawn = svg.drawing(key, title, _desc(one), plot.height, [*parts, legend(_legend(one))])
    return Figure(key, drawn, _caption(one), _columns(one), _rows(one))


# -------------------------------------------------------------------------------- the drawing
def _plot(one: Mapping[str, Any]) -> Plot:
    first_s, now_s = one["points"][0][0], one["as_of_s"]
    is_window = one["unit"] == "h" and one["ends_s"]
    last_s = max(now_s, one["ends_s"] if is_window else _ahead_until_s(one))
    unit = "US$" if one["unit"] == "US$" else "hours"
    left = axis(f"{one['account']}: {unit} left of the {_KINDS[one['kind']]}",
                [_HEADROOM * max(value for _, value in one["points"])], zero=True)  # fmt: skip
    return Plot(time_axis(min(first_s, last_s - _SHORTEST_S), last_s), left, inset=8, right=_RIGHT)


def _ahead_until_s(one: Mapping[str, Any]) -> float:
    """Where the projection stops: nothing is left, the limit ends, or the figure does."""
    now_s, runs_out_s = one["as_of_s"], one["runs_out_s"]
    if runs_out_s is None or _is_over(one):
        return float(now_s)
    room_s = _AHEAD * max(now_s - one["points"][0][0], _SHORTEST_S)
    return float(min(runs_out_s, now_s + room_s, one["ends_s"] or runs_out_s))


def _is_over(one: Mapping[str, Any]) -> bool:
    return one["ends_s"] is not None and one["ends_s"] <= one["as_of_s"]


def _line(plot: Plot, one: Mapping[str, Any]) -> str:
    """The steps of what is left; of those that fall on one place, the last."""
    (first_s, first), *later = one["points"]
    places = {round(2 * plot.at_x(at_s)): plot.at(at_s, left) for at_s, left in later}
    corners = [plot.at(first_s, first)]
    for x, y in places.values():
        corners += [(x, corners[-1][1]), (x, y)]
    return svg.polyline(corners, "curve b")


def _booked(plot: Plot, one: Mapping[str, Any]) -> str:
    """What is reserved hangs from the end of the line; it reaches down to what is free."""
    x, left = plot.at(*one["points"][-1])
    height = plot.at_y(one["free"]) - left
    return svg.rect(x, left, _BOOKED_WIDTH, height, "booked") if one["reserved"] else ""


def _ahead(plot: Plot, one: Mapping[str, Any]) -> str:
    until_s = _ahead_until_s(one)
    if until_s == one["as_of_s"]:
        return ""
    return svg.polyline([plot.at(one["as_of_s"], one["free"]), plot.at(until_s, _free_at(one, until_s))], "identity")


def _free_at(one: Mapping[str, Any], time_s: float) -> float:
    """What is free at a later time, at the rate of the last seven days."""
    share = (time_s - one["as_of_s"]) / (one["runs_out_s"] - one["as_of_s"])
    return float(max(0.0, one["free"] * (1 - share)))


def _marks(plot: Plot, one: Mapping[str, Any]) -> str:
    """Upright lines: as of when this is, and when the limit ends; each is named where its name has room."""
    now_x, words = plot.at_x(one["as_of_s"]), f"as of {day(one['as_of_s']).rsplit(' ', 1)[0]}"
    is_left = now_x - plot.left > _width(words)
    parts = [plot.upright(one["as_of_s"], "leg"), _note(plot, words, now_x, is_left=is_left)]
    ends_s = one["ends_s"]
    if ends_s and one["as_of_s"] < ends_s <= plot.x.high:
        ends, taken = _ends_words(one), 0.0 if is_left else _width(words)
        parts.append(plot.upright(ends_s, "leg"))
        if plot.at_x(ends_s) - now_x > _width(ends) + taken:
            parts.append(_note(plot, ends, plot.at_x(ends_s), is_left=True))
    return "".join(parts)


def _width(words: str) -> float:
    return _NOTE_CHARACTER * len(words) + 10


def _note(plot: Plot, words: str, x: float, is_left: bool) -> str:
    return svg.text(words, x - 4 if is_left else x + 4, plot.top + 9, "note", "end" if is_left else "start")


def _ends_words(one: Mapping[str, Any]) -> str:
    return "credit ends" if one["unit"] == "US$" else "hours back"


def _legend(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    entries = [("left", svg.line(-11, 0, 11, 0, "curve b"))]
    if one["reserved"]:
        entries.append(("reserved", svg.rect(-5, -6, 10, 12, "booked")))
    if _ahead_until_s(one) > one["as_of_s"]:
        entries.append(("at the last week's rate", svg.line(-11, 0, 11, 0, "identity")))
    return entries


# ---------------------------------------------------------------------------------- the words
def _amount(one: Mapping[str, Any], value: float) -> str:
    """In words that no line break parts."""
    return (dollars(value) if one["unit"] == "US$" else with_unit(plain(value, 2), "h")).replace(" ", _FAST_SPACE)


def _desc(one: Mapping[str, Any]) -> str:
    (first_s, first), (now_s, left) = one["points"][0], one["points"][-1]
    line = f"Line of steps from {_amount(one, first)} on {day(first_s)} to {_amount(one, left)} on {day(now_s)}."
    return f"{line} {_rate(one)}"


def _caption(one: Mapping[str, Any]) -> str:
    """The figure in sentences: what is left of what, as of when, what of it is free, at which rate, until when."""
    of = f"its {_KINDS[one['kind']]}" + ("" if one["kind"] == "credit" else f" of {_amount(one, one['limit'])}")
    left = one["points"][-1][1]
    told = [f"Account {one['account']}: {_amount(one, left)} of {of} left as of {minute(one['as_of_s'])}."]
    if one["kind"] == "credit":
        told.append("This is the last balance told less our own count since; what was before is counted back from it.")
    if one["reserved"]:
        reserved, free = (_amount(one, one[key]) for key in ("reserved", "free"))
        told.append(f"Reserved of it, for legs that are not settled: {reserved}; free: {free}.")
    return " ".join([*told, _rate(one)])


def _rate(one: Mapping[str, Any]) -> str:
    """At which rate it was spent, and what then is first: that nothing is left, or that the limit ends."""
    ending = _ending(one)
    if one["runs_out_s"] is None:
        return " ".join(["Nothing was spent in the last seven days.", *_sentence(ending)])
    spent = f"Spent in the last seven days: {_amount(one, one['week'])}"
    if not one["free"] or _is_over(one):
        return " ".join([f"{spent}.", *([] if one["free"] else ["Nothing is free."]), *_sentence(ending)])
    if one["ends_s"] and one["ends_s"] < one["runs_out_s"]:
        return f"{spent}; at that rate {ending} with {_amount(one, _free_at(one, one['ends_s']))} still free."
    return " ".join([f"{spent}; at that rate what is free lasts until {_until(one)}.", *_sentence(ending)])


def _until(one: Mapping[str, Any]) -> str:
    """The day it runs out; of one that is far away, only that it is."""
    days = (one["runs_out_s"] - one["as_of_s"]) / 86_400
    when = "more than ten years from now" if days > _MANY_DAYS else day(one["runs_out_s"])
    return when if _ahead_until_s(one) == one["runs_out_s"] else f"{when}, beyond this figure"


def _ending(one: Mapping[str, Any]) -> str:
    if one["ends_s"] is None:
        return ""
    if one["unit"] == "US$":
        return f"the credit {'ended' if _is_over(one) else 'ends'} on {day(one['ends_s'])}"
    return f"the hours come back on {minute(one['ends_s'])}"


def _sentence(words: str) -> list[str]:
    return [f"{words[0].upper()}{words[1:]}."] if words else []


# ---------------------------------------------------------------------------------- the table
def _columns(one: Mapping[str, Any]) -> tuple[str, ...]:
    return ("Day (UTC)", f"Spent ({one['unit']})", f"Left ({one['unit']})")


def _rows(one: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """A row each day on which something was spent, then what is reserved."""
    (first_s, first), *later = one["points"]
    rows, before = [(f"begin, {day(first_s)}", plain(0, 2), plain(first, 2))], first
    for name, left in _last_of_day(later):
        if left != before:
            rows.append((name, plain(before - left, 2), plain(left, 2)))
        before = left
    reserved = [("reserved now", plain(one["reserved"], 2), plain(one["free"], 2))] if one["reserved"] else []
    return (*rows, *reserved)


def _last_of_day(points: Sequence[Sequence[float]]) -> list[tuple[str, float]]:
    """(day, left at its end)."""
    by_day = itertools.groupby(points, key=lambda point: day(point[0]))
    return [(name, list(found)[-1][1]) for name, found in by_day]
