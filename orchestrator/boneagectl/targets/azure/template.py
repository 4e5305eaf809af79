"""The infrastructure template: what goes into it, what it makes, what that costs idle, and whether Azure would take it.

Nothing here uses the network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from boneagectl import units
from boneagectl.errors import UsageError
from boneagectl.resources import data_dir
from boneagectl.targets.azure.arm import Json, Unresolved, is_a, resolve, resource_id, violations

_BOUNDS = (("minLength", "minValue"), ("maxLength", "maxValue"))
_PREFIX = re.compile(r"[a-z][a-z0-9]{2,7}")


@dataclass(frozen=True, slots=True)
class IdleCost:
    """What one resource costs a day while nothing runs; `usd_micro_per_day` None: not known."""

    type: str
    name: str
    usd_micro_per_day: int | None
    certainty: str
    source: str
    date: str
    note: str


def load() -> Json:
    """The ARM template, ``infra/azure.json``."""
    return _shipped("azure.json")


def _shipped(name: str) -> Json:
    content: Json = json.loads((data_dir("infra") / name).read_text(encoding="utf-8"))
    return content


def parameters(
    location: str,
    contact_email: str,
    budget_usd: int,
    budget_month: date,
    *,
    prefix: str = "boneage",
    workspace: str = "boneagectl",
    cluster: str = "gpu",
    vm_size: str = "Standard_NC4as_T4_v3",
    low_priority: bool = False,
    max_nodes: int = 1,
    idle_s: int = 120,
) -> Json:
    """The parameters of a deployment, in ARM's own form.

    The budget begins with the month of `budget_month`; Azure takes the current one or one of the next twelve.

    Raises:
        UsageError: a prefix that does not fit every resource's name. `check` looks at the rest.
    """
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(f"a prefix has 3 to 8 lower-case letters and digits, a letter first, not {prefix!r}")
    values = {
        "location": location,
        "namePrefix": prefix,
        "workspaceName": workspace,
        "clusterName": cluster,
        "contactEmail": contact_email,
        "budgetUsd": budget_usd,
        "budgetStart": f"{budget_month:%Y-%m}-01T00:00:00Z",
        "vmSize": vm_size,
        "vmPriority": "LowPriority" if low_priority else "Dedicated",
        "maxNodes": max_nodes,
        "idleSeconds": idle_s,
    }
    return {name: {"value": value} for name, value in values.items()}


def idle_costs(resources: Iterable[Mapping[str, Any]]) -> list[IdleCost]:
    """What each of `resources` costs a day, even idle: the template's, or what Azure lists (`type`, `name`).

    A type that is not known gets a line too, with the cost unknown. Azure itself writes types in more than one case.
    Source: ``infra/azure-costs.json``.
    """
    known = {line["type"].lower(): line for line in _shipped("azure-costs.json")["costs"]}
    return [_idle_cost(resource, known.get(resource["type"].lower(), {})) for resource in resources]


def _idle_cost(resource: Mapping[str, Any], line: Mapping[str, Any]) -> IdleCost:
    usd, times = line.get("usd_per_day"), 1
    if "per_nodes" in line:
        times = max(1, -(-_max_nodes(resource) // line["per_nodes"]))
    return IdleCost(
        resource["type"],
        resource["name"],
        None if usd is None else units.usd_micro(usd) * times,
        line.get("certainty", "unknown"),
        line.get("source", "no figure found"),
        line.get("date", ""),
        line.get("note", ""),
    )


def _max_nodes(resource: Mapping[str, Any]) -> int:
    """1 where it does not say: a list of resources has no such properties."""
    inner = (resource.get("properties") or {}).get("properties") or {}
    count = (inner.get("scaleSettings") or {}).get("maxNodeCount", 1)
    return count if isinstance(count, int) else 1


def daily_usd_micro(lines: Iterable[IdleCost]) -> int:
    """The sum of what is known; a cost that is unknown counts nothing, so show it beside the sum."""
    return sum(line.usd_micro_per_day or 0 for line in lines)


def check(template: Json, given: Json) -> list[str]:
    """What is wrong with the template, filled with the parameters `given`; empty where Azure would take it.

    Looks at the parameters' own rules, at every resource against ``infra/azure-rules.json`` (closed objects), and
    at what depends on what. It cannot know quotas, policies, or whether a global name is taken.
    """
    problems = list(_parameter_problems(template, given))
    if problems:
        return problems
    try:
        resources = resolve(template, given)
    except Unresolved as error:
        return [str(error)]
    rules = _shipped("azure-rules.json")["resources"]
    for resource in resources:
        kind = str(resource.get("type"))
        rule = rules.get(kind)
        problems += violations(resource, rule, kind) if rule else [f"{kind}: no such resource type is known here"]
    return problems or list(_loose_ends(resources))


def _parameter_problems(template: Json, given: Json) -> Iterator[str]:
    declared = template["parameters"]
    yield from (f"parameter {name}: the template has none of that name" for name in given if name not in declared)
    for name, rule in declared.items():
        if name in given:
            yield from _value_problems(name, given[name]["value"], rule)
        elif "defaultValue" not in rule:
            yield f"parameter {name}: missing"


def _value_problems(name: str, value: Any, rule: Json) -> Iterator[str]:
    if not is_a(value, rule["type"]):
        yield f"parameter {name}: {value!r} is not of type {rule['type']}"
    elif value not in rule.get("allowedValues", [value]):
        yield f"parameter {name}: {value!r} is none of {', '.join(rule['allowedValues'])}"
    else:
        size = len(value) if isinstance(value, str) else value
        low, high = (next((rule[word] for word in words if word in rule), size) for words in _BOUNDS)
        if not low <= size <= high:
            yield f"parameter {name}: {value!r} lies outside {low} to {high}"


def _loose_ends(resources: list[Json]) -> Iterator[str]:
    """Azure makes things at the same time unless told what waits for what."""
    made = {resource_id(one["type"], *one["name"].split("/")): one for one in resources}
    if len(made) < len(resources):
        yield "two resources have the same type and name"
    for own, resource in made.items():
        waits, named = resource.get("dependsOn", []), json.dumps(resource["properties"])
        yield from (f"{own}: depends on {one}, which the template does not make" for one in waits if one not in made)
        needed = [one for one in made if f'"{one}"' in named or own.startswith(one + "/")]
        yield from (f"{own}: needs {one} and does not depend on it" for one in needed if one not in waits)
