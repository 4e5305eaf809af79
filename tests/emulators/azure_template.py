"""ARM templates, as far as a hand-kept one needs: parameters, variables, expressions, conditions, child resources."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from emulators.azure_wire import Problem

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+)|(?P<name>[A-Za-z_$][\w$]*)|(?P<mark>[()\[\].,]))"
)
_KINDS = {"string": str, "securestring": str, "int": int, "bool": bool, "array": list, "object": dict,
          "secureobject": dict}  # fmt: skip


def bad(text: str) -> Problem:
    return Problem(400, "InvalidTemplate", f"Deployment template validation failed: '{text}'.")


class Template:
    """A template with its parameters; `resources` is what it makes, in an order in which it can be made."""

    def __init__(self, said: dict[str, Any], given: dict[str, Any], group: dict[str, Any], tenant: str) -> None:
        self.said, self.group, self.tenant, self.parameters = said, group, tenant, dict[str, Any]()
        if not str(said.get("$schema", "")).startswith("https://schema.management.azure.com/schemas/"):
            raise bad("the property '$schema' is missing or unknown")
        declared = said.get("parameters", {})
        for name in given:
            if name not in declared:
                raise bad(f"the template parameters '{name}' are not valid; they are not present in the template")
        for name, one in declared.items():
            self.parameters[name] = self._parameter(name, one, given)
        self.resources = self._in_order(list(self._all(said.get("resources", []), "", "")))

    @property
    def prefix(self) -> str:
        return str(self.group["id"])

    def outputs(self, reference: Callable[[str], Any]) -> dict[str, Any]:
        self._reference = reference
        declared = self.said.get("outputs", {})
        return {name: {"type": one["type"], "value": self.value(one["value"])} for name, one in declared.items()}

    def _parameter(self, name: str, one: dict[str, Any], given: dict[str, Any]) -> Any:
        if name in given:
            value = given[name].get("value")
        elif "defaultValue" in one:
            value = self.value(one["defaultValue"])
        else:
            raise bad(f"the value for the template parameter '{name}' is not provided")
        if not isinstance(value, _KINDS[one["type"].lower()]) or (isinstance(value, bool) and one["type"] == "int"):
            raise bad(f"the parameter '{name}' must be of type '{one['type']}', not {value!r}")
        if value not in one.get("allowedValues", [value]):
            raise bad(f"the parameter '{name}' must be one of {one['allowedValues']}, not {value!r}")
        size = len(value) if isinstance(value, str) else 0
        if isinstance(value, str) and not one.get("minLength", 0) <= size <= one.get("maxLength", size):
            raise bad(f"the parameter '{name}' has a length that is not allowed")
        if isinstance(value, int) and not one.get("minValue", value) <= value <= one.get("maxValue", value):
            raise bad(f"the parameter '{name}' must be between minValue and maxValue, not {value}")
        return value

    def _all(self, resources: list[Any], parent_type: str, parent_name: str) -> Iterator[dict[str, Any]]:
        for one in resources:
            if not {"type", "name", "apiVersion"} <= set(one):
                raise bad(f"a resource lacks type, name or apiVersion: {one.get('name')}")
            if "copy" in one:
                raise bad("the emulator knows no copy loops")
            if not self.value(one.get("condition", True)):
                continue
            made = {key: self.value(value) for key, value in one.items() if key not in ("resources", "condition")}
            if parent_type:
                made["type"], made["name"] = f"{parent_type}/{made['type']}", f"{parent_name}/{made['name']}"
                parent = self.id_of(parent_type, *parent_name.split("/"))
                made["dependsOn"] = [*made.get("dependsOn", []), parent]
            made["id"] = self.id_of(made["type"], *made["name"].split("/"), scope=made.get("scope", ""))
            yield made
            yield from self._all(one.get("resources", []), made["type"], made["name"])

    def _in_order(self, waiting: list[dict[str, Any]]) -> list[dict[str, Any]]:
        ids, done = {one["id"].lower() for one in waiting}, list[dict[str, Any]]()
        while waiting:
            made = {one["id"].lower() for one in done}
            ready = [one for one in waiting if not (self._needs(one) & ids) - made]
            if not ready:
                raise bad("the resources depend on each other in a circle")
            done.append(ready[0])
            waiting.remove(ready[0])
        return done

    def _needs(self, one: dict[str, Any]) -> set[str]:
        names = [str(need).lower() for need in one.get("dependsOn", [])]
        return {name if name.startswith("/") else f"{self.prefix}/providers/{name}".lower() for name in names}

    def id_of(self, kind: str, *names: str, scope: str = "") -> str:
        space, _, rest = kind.partition("/")
        kinds = rest.split("/")
        if len(kinds) != len(names):
            raise bad(f"'{kind}' needs {len(kinds)} names, not {len(names)}: {names}")
        pairs = "/".join(f"{one}/{name}" for one, name in zip(kinds, names, strict=True))
        return f"{scope or self.prefix}/providers/{space}/{pairs}"

    # ------------------------------------------------------------------------------- expressions
    def value(self, said: Any) -> Any:
        if isinstance(said, dict):
            return {key: self.value(one) for key, one in said.items()}
        if isinstance(said, list):
            return [self.value(one) for one in said]
        if not isinstance(said, str) or not said.startswith("["):
            return said
        if said.startswith("[["):
            return said[1:]
        return _Expression(said[1:-1], self._call).whole() if said.endswith("]") else said

    def _call(self, name: str, given: list[Any]) -> Any:
        own = getattr(self, f"do_{name.lower()}", None)
        if own:
            return own(*given)
        if name.lower() not in FUNCTIONS:
            raise bad(f"the template function '{name}' is not known here")
        return FUNCTIONS[name.lower()](*given)

    def _reference(self, name: str) -> Any:
        return {}

    def do_parameters(self, name: str) -> Any:
        if name not in self.parameters:
            raise bad(f"the template parameter '{name}' is not found")
        return self.parameters[name]

    def do_variables(self, name: str) -> Any:
        if name not in self.said.get("variables", {}):
            raise bad(f"the template variable '{name}' is not found")
        return self.value(self.said["variables"][name])

    def do_resourceid(self, *given: str) -> str:
        at = next(at for at, text in enumerate(given) if "/" in text)
        return self.id_of(*given[at:])

    def do_extensionresourceid(self, scope: str, kind: str, *names: str) -> str:
        return self.id_of(kind, *names, scope=scope)

    def do_subscriptionresourceid(self, kind: str, *names: str) -> str:
        return self.id_of(kind, *names, scope=self.prefix.partition("/resourceGroups/")[0])

    def do_resourcegroup(self) -> dict[str, Any]:
        return self.group

    def do_subscription(self) -> dict[str, Any]:
        guid = self.prefix.split("/")[2]
        return {"id": f"/subscriptions/{guid}", "subscriptionId": guid, "tenantId": self.tenant}

    def do_tenant(self) -> dict[str, Any]:
        return {"tenantId": self.tenant}

    def do_reference(self, name: str, *_: Any) -> Any:
        return self._reference(name)


class _Expression:
    """Reads and works out one expression."""

    def __init__(self, text: str, call: Callable[[str, list[Any]], Any]) -> None:
        self.text, self.call, self.at = text, call, 0

    def whole(self) -> Any:
        value = self._value()
        if self.text[self.at :].strip():
            raise bad(f"unable to parse the language expression '{self.text}' from {self.at}")
        return value

    def _peek(self) -> str:
        return self.text[self.at :].lstrip()[:1]

    def _next(self) -> re.Match[str]:
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            raise bad(f"unable to parse the language expression '{self.text}' from {self.at}")
        self.at = found.end()
        return found

    def _value(self) -> Any:
        token = self._next()
        if token["text"]:
            return token["text"][1:-1].replace("''", "'")
        if token["number"]:
            return int(token["number"])
        if not token["name"] or self._peek() != "(":
            raise bad(f"unable to parse the language expression '{self.text}'")
        return self._rest(self.call(token["name"], list(self._arguments())))

    def _arguments(self) -> Iterator[Any]:
        self._next()
        while self._peek() != ")":
            yield self._value()
            if self._peek() == ",":
                self._next()
        self._next()

    def _rest(self, value: Any) -> Any:
        """What follows a call: .name and [place]."""
        while (mark := self._peek()) in (".", "["):
            self._next()
            key = self._next()["name"] if mark == "." else self._value()
            if mark == "[":
                self._next()
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                raise bad(f"the property '{key}' does not exist") from None
        return value


def _unique(*given: str) -> str:
    digest = hashlib.sha256("-".join(given).encode()).digest()
    return base64.b32encode(digest).decode().lower()[:13]


def _guid(*given: str) -> str:
    text = hashlib.sha256("-".join(given).encode()).hexdigest()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:32]))


def _joined(*given: Any) -> Any:
    return [one for part in given for one in part] if isinstance(given[0], list) else "".join(map(_text, given))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _now(form: str = "yyyyMMddTHHmmssZ") -> str:
    """Of .NET's format letters, those that a start date needs."""
    for letters, code in (("yyyy", "%Y"), ("MM", "%m"), ("dd", "%d"), ("HH", "%H"), ("mm", "%M"), ("ss", "%S")):
        form = form.replace(letters, code)
    return datetime.now(UTC).strftime(form.replace("'", ""))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "concat": _joined,
    "format": lambda form, *given: form.format(*given),
    "tolower": str.lower,
    "toupper": str.upper,
    "trim": str.strip,
    "take": lambda value, count: value[:count],
    "skip": lambda value, count: value[count:],
    "substring": lambda value, first, count=None: value[first:] if count is None else value[first : first + count],
    "replace": lambda value, old, new: value.replace(old, new),
    "split": lambda value, mark: value.split(mark),
    "join": lambda values, mark: mark.join(values),
    "first": lambda value: value[0],
    "last": lambda value: value[-1],
    "length": len,
    "empty": lambda value: not value,
    "contains": lambda value, one: one in value,
    "startswith": lambda value, one: value.lower().startswith(one.lower()),
    "coalesce": lambda *given: next((one for one in given if one is not None), None),
    "uniquestring": _unique,
    "guid": _guid,
    "string": _text,
    "int": int,
    "bool": bool,
    "json": json.loads,
    "equals": lambda one, other: one == other,
    "not": lambda one: not one,
    "and": lambda *given: all(given),
    "or": lambda *given: any(given),
    "if": lambda holds, one, other: one if holds else other,
    "greater": lambda one, other: one > other,
    "less": lambda one, other: one < other,
    "add": lambda one, other: one + other,
    "sub": lambda one, other: one - other,
    "mul": lambda one, other: one * other,
    "div": lambda one, other: one // other,
    "true": lambda: True,
    "false": lambda: False,
    "null": lambda: None,
    "createarray": lambda *given: list(given),
    "createobject": lambda *given: dict(zip(given[::2], given[1::2], strict=True)),
    "union": lambda *given: {key: one for part in given for key, one in part.items()},
    "utcnow": _now,
}
