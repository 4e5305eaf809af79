"""Azure's template language, as much of it as ``infra/azure.json`` speaks, and the rules its resources keep.

Nothing here uses the network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

_SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000000"
_GROUP = {"id": f"{_SUBSCRIPTION}/resourceGroups/boneage"}
_TENANT = {"tenantId": "00000000-0000-0000-0000-000000000000"}
_TYPES: dict[str, Any] = {
    "string": str,
    "int": int,
    "object": dict,
    "array": list,
    "integer": int,
    "number": (int, float),
}
_TOKEN = re.compile(r"\s*('(?:[^']|'')*'|-?\d+|\w+|[(),.])")

Json = dict[str, Any]


class Unresolved(ValueError):
    """An expression that cannot be worked out."""


def resolve(template: Json, given: Json) -> list[Json]:
    """The template's resources with every expression worked out, for a group and subscription made up here.

    ``uniqueString`` gives 13 letters and digits as Azure's does, but others.
    """
    scope = _Scope(template, given)
    resources: list[Json] = scope.filled(template["resources"])
    scope.filled(template.get("outputs", {}))
    return resources


class _Scope:
    """What an expression may name."""

    def __init__(self, template: Json, given: Json) -> None:
        rules = template["parameters"].items()
        self._parameters = {
            name: given[name]["value"] if name in given else rule.get("defaultValue") for name, rule in rules
        }
        self._variables = template["variables"]
        self._functions: dict[str, Callable[..., Any]] = {
            "parameters": lambda name: self._parameters[name],
            "variables": lambda name: self.filled(self._variables[name]),
            "resourceGroup": lambda: _GROUP,
            "subscription": lambda: _TENANT,
            "concat": lambda *parts: "".join(map(str, parts)),
            "format": lambda text, *values: text.format(*values),
            "resourceId": resource_id,
            "uniqueString": _unique,
        }

    def filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self.filled(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        is_expression = isinstance(value, str) and value.startswith("[") and value.endswith("]")
        return self._worked_out(value) if is_expression else value

    def _worked_out(self, text: str) -> Any:
        tokens = _tokens(text)
        try:
            value = self._value(tokens)
        except (LookupError, TypeError, ValueError) as error:
            raise Unresolved(f"{text}: {error!r}") from None
        if tokens:
            raise Unresolved(f"{text}: not understood from {tokens[0]!r} on")
        return value

    def _value(self, tokens: list[str]) -> Any:
        token = tokens.pop(0)
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if token.lstrip("-").isdigit():
            return int(token)
        value = self._functions[token](*self._arguments(tokens))
        while tokens[:1] == ["."]:
            del tokens[0]
            value = value[tokens.pop(0)]
        return value

    def _arguments(self, tokens: list[str]) -> list[Any]:
        found: list[Any] = []
        separator = tokens.pop(0)  # the opening bracket
        while separator != ")":
            if tokens[0] != ")":
                found.append(self._value(tokens))
            separator = tokens.pop(0)
        return found


def _tokens(text: str) -> list[str]:
    body = text[1:-1]
    tokens = _TOKEN.findall(body)
    if re.sub(r"\s", "", "".join(tokens)) != re.sub(r"\s", "", body):
        raise Unresolved(f"{text}: not a template expression")
    return tokens


def resource_id(kind: str, *names: str) -> str:
    """The id of a resource in the group that stands in for the real one."""
    provider, *types = kind.split("/")
    pairs = "/".join(f"{one}/{name}" for one, name in zip(types, names, strict=True))
    return f"{_GROUP['id']}/providers/{provider}/{pairs}"


def _unique(*parts: str) -> str:
    return "u" + hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


def violations(value: Any, rule: Json, where: str) -> Iterator[str]:
    """Where `value` breaks `rule`, a JSON Schema of the few words below."""
    if "enum" in rule:
        if not any(value == allowed and type(value) is type(allowed) for allowed in rule["enum"]):
            yield f"{where}: {value!r} is none of {', '.join(map(str, rule['enum']))}"
    elif not is_a(value, rule["type"]):
        yield f"{where}: {value!r} is not of type {rule['type']}"
    elif isinstance(value, dict):
        yield from _object_violations(value, rule, where)
    elif isinstance(value, list):
        if len(value) < rule.get("minItems", 0):
            yield f"{where}: fewer than {rule['minItems']} items"
        for at, item in enumerate(value):
            yield from violations(item, rule["items"], f"{where}[{at}]")
    elif isinstance(value, str):
        pattern = rule.get("pattern", r"^(?s:.+)$")
        if not re.fullmatch(pattern, value, re.ASCII):
            yield f"{where}: {value!r} does not fit {pattern}"
    elif not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        yield f"{where}: {value!r} lies outside {rule.get('minimum', '')} to {rule.get('maximum', '')}"


def _object_violations(value: Json, rule: Json, where: str) -> Iterator[str]:
    yield from (f"{where}: {name} is missing" for name in rule["required"] if name not in value)
    for name, item in value.items():
        inner = rule["properties"].get(name, rule["additionalProperties"])
        if inner is False:
            yield f"{where}: {name} is no property of it"
        else:
            yield from violations(item, inner, f"{where}.{name}")


def is_a(value: Any, kind: str) -> bool:
    """Whether `value` is of the type that ARM or JSON Schema calls `kind`; a truth value is no number."""
    if isinstance(value, bool):
        return kind in ("bool", "boolean")
    return isinstance(value, _TYPES.get(kind, ()))
