"""The Drive emulator's small languages: the `q` of a listing, and the `fields` of an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from emulators.colab_wire import Problem

Test = Callable[[dict[str, Any]], bool]
_TOKEN = re.compile(r"\s*(?:'((?:[^'\\]|\\.)*)'|([A-Za-z]+)|(!=|<=|>=|[=<>(){}]))")
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: bool(one == other),
    "!=": lambda one, other: bool(one != other),
    "<": lambda one, other: bool(one < other),
    "<=": lambda one, other: bool(one <= other),
    ">": lambda one, other: bool(one > other),
    ">=": lambda one, other: bool(one >= other),
}


class Query:
    """One `q`, parsed from left to right; `matches` evaluates it for a file."""

    def __init__(self, text: str) -> None:
        self._words = list(_words(text))
        self.matches: Test = self._any() if self._words else lambda _: True
        if self._words:
            raise _invalid("q")

    def _any(self) -> Test:
        tests = [self._all()]
        while self._takes("or"):
            tests.append(self._all())
        return lambda file: any(test(file) for test in tests)

    def _all(self) -> Test:
        tests = [self._one()]
        while self._takes("and"):
            tests.append(self._one())
        return lambda file: all(test(file) for test in tests)

    def _one(self) -> Test:
        if self._takes("not"):
            test = self._one()
            return lambda file: not test(file)
        if self._takes("("):
            test = self._any()
            self._must(")")
            return test
        word = self._next()
        if word.startswith("'"):
            self._must("in")
            self._must("parents")
            return lambda file: word[1:] in file["parents"]
        return self._compared(word)

    def _compared(self, field: str) -> Test:
        sign = self._next()
        if field in ("appProperties", "properties") and sign == "has":
            return self._has(field)
        value = self._next()
        if field == "name" and sign == "contains":
            return lambda file: _contains(file["name"], value[1:])
        if field in ("trashed", "starred") and value in ("true", "false") and sign in ("=", "!="):
            return lambda file: _COMPARED[sign](bool(file.get(field)), value == "true")
        if field in ("modifiedTime", "createdTime") and sign in _COMPARED:
            return lambda file: _COMPARED[sign](_moment(file[field]), _moment(value[1:]))
        if field in ("name", "mimeType") and sign in ("=", "!=") and value.startswith("'"):
            return lambda file: _COMPARED[sign](file[field], value[1:])
        raise _invalid("q")

    def _has(self, field: str) -> Test:
        self._must("{")
        said = {}
        for part in ("key", "value"):
            self._must(part)
            self._must("=")
            said[part] = self._next()[1:]
            if part == "key":
                self._must("and")
        self._must("}")
        return lambda file: file.get(field, {}).get(said["key"]) == said["value"]

    def _takes(self, word: str) -> bool:
        return bool(self._words) and self._words[0] == word and bool(self._words.pop(0))

    def _must(self, word: str) -> None:
        if not self._takes(word):
            raise _invalid("q")

    def _next(self) -> str:
        if not self._words:
            raise _invalid("q")
        return self._words.pop(0)


def _words(text: str) -> Iterator[str]:
    """The tokens of a query; strings keep their first quote, which tells them apart from names."""
    at, text = 0, text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _invalid("q")
        yield found[2] or found[3] or "'" + re.sub(r"\\(.)", r"\1", found[1])
        at = found.end()


def _contains(name: str, wanted: str) -> bool:
    """Drive finds the beginnings of words only."""
    return any(name[at:].lower().startswith(wanted.lower()) for at in [0, *(m.end() for m in re.finditer(r"\W", name))])


def _moment(text: str) -> datetime:
    try:
        said = datetime.fromisoformat(text)
    except ValueError:
        raise _invalid("q") from None
    return said if said.tzinfo else said.replace(tzinfo=UTC)


def _invalid(parameter: str) -> Problem:
    return Problem(400, "invalid" if parameter == "q" else "invalidParameter", f"Invalid Value: {parameter}")


def masked(said: Any, mask: str) -> Any:
    """As much of an answer as `fields` names: ``*``, ``id,name``, ``nextPageToken,files(id,name)``, ``files/id``."""
    return _chosen(said, _tree(mask)) if mask else said


def _tree(mask: str) -> dict[str, Any]:
    """The mask as nested names; an empty one means everything below."""
    tree: dict[str, Any] = {}
    for part in _split(mask):
        found = re.fullmatch(r"([\w*]+)(?:/(.+)|\((.+)\))?", part.strip())
        if found is None:
            raise _invalid("fields")
        below = found[2] or found[3]
        tree.setdefault(found[1], {}).update(_tree(below) if below else {})
    return tree


def _split(mask: str) -> list[str]:
    """Splits at the commas outside of parentheses."""
    parts, depth = [""], 0
    for letter in mask:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _chosen(said: Any, tree: dict[str, Any]) -> Any:
    if not tree or "*" in tree:
        return said
    if isinstance(said, list):
        return [_chosen(one, tree) for one in said]
    if not isinstance(said, dict):
        raise _invalid("fields")
    return {name: _chosen(said[name], below) for name, below in tree.items() if name in said}
