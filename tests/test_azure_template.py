"""The infrastructure template: it passes as it is, and each way of getting it wrong is caught without Azure."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from boneagectl.paths import data_dir
from boneagectl.targets.azure import infra
from emulators.azure_template import Template
from emulators.azure_wire import Problem

jsonschema = pytest.importorskip("jsonschema")

ML = "Microsoft.MachineLearningServices/workspaces"
CLUSTER = f"{ML}/computes"
BUDGET = "Microsoft.Consumption/budgets"
STORAGE = "Microsoft.Storage/storageAccounts"
VAULT = "Microsoft.KeyVault/vaults"
GROUP = {"id": "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/boneage"}
TENANT = "00000000-0000-0000-0000-000000000000"
RULES = json.loads((Path(__file__).parent / "emulators" / "azure_resource_rules.json").read_text())["resources"]
Json = dict[str, Any]


def parameters(**other: Any) -> Json:
    """Values of all parameters but the prefix, in ARM's own form."""
    values = {
        "location": "westeurope", "workspaceName": "boneagectl", "clusterName": "gpu", "contactEmail": "me@example.org",
        "budgetUsd": 80, "budgetStart": "2026-11-01T00:00:00Z", "vmSize": "Standard_NC4as_T4_v3",
        "vmPriority": "Dedicated", "maxNodes": 1, "idleSeconds": 120, **other,
    }  # fmt: skip
    return {name: {"value": value} for name, value in values.items()}


def resolve(template: Json, values: Json) -> list[Json]:
    """The resources with every expression evaluated, as Azure would create them."""
    resources = Template(template, values, GROUP, TENANT).resources
    return [{key: value for key, value in resource.items() if key != "id"} for resource in resources]


def find_problems(template: Json, values: Json) -> list[str]:
    """What Azure, or our stricter rules, would not accept; quotas, policies and taken names are out of reach."""
    try:
        resources = resolve(template, values)
    except Problem as problem:
        return [problem.message]
    problems = []
    for resource in resources:
        if resource["type"] in RULES:
            errors = jsonschema.Draft7Validator(RULES[resource["type"]]).iter_errors(resource)
            problems += [f"{resource['type']} {error.json_path}: {error.message}" for error in errors]
        else:
            problems.append(f"{resource['type']}: unknown resource type")
    return problems or list(find_loose_ends(resources))


def find_loose_ends(resources: list[Json]) -> Iterator[str]:
    """Azure creates resources at the same time unless `dependsOn` orders them."""
    ids = {id_of(resource): resource for resource in resources}
    if len(ids) < len(resources):
        yield "two resources have the same type and name"
    for own, resource in ids.items():
        waits, text = resource.get("dependsOn", []), json.dumps(resource["properties"])
        yield from (f"{own}: depends on {other}, which the template does not create" for other in waits
                    if other not in ids)  # fmt: skip
        needed = [other for other in ids if f'"{other}"' in text or own.startswith(other + "/")]
        yield from (f"{own}: needs {other} and does not depend on it" for other in needed if other not in waits)


def id_of(resource: Json) -> str:
    space, *kinds = resource["type"].split("/")
    pairs = "/".join(f"{kind}/{name}" for kind, name in zip(kinds, resource["name"].split("/"), strict=True))
    return f"{GROUP['id']}/providers/{space}/{pairs}"


def find(kind: str, resources: list[Json]) -> Json:
    return next(resource for resource in resources if resource["type"] == kind)


def broken(kind: str, change: Callable[[Json], object]) -> Json:
    """The template with one resource changed."""
    changed = copy.deepcopy(infra.load_template())
    change(find(kind, changed["resources"]))
    return changed


def inner(resource: Json) -> Json:
    found: Json = resource["properties"]["properties"]
    return found


def scale(resource: Json) -> Json:
    found: Json = inner(resource)["scaleSettings"]
    return found


def mail(resource: Json) -> Json:
    found: Json = resource["properties"]["notifications"]["used75"]
    return found


WRONG: dict[str, tuple[str, Callable[[Json], object], str]] = {
    "typo in a property": (CLUSTER, lambda r: scale(r).update(maxNodes=1), "'maxNodes' was unexpected"),
    "typo instead of it": (CLUSTER, lambda r: inner(r).update(vmsize=inner(r).pop("vmSize")), "'vmSize' is a required"),
    "typo at the top": (STORAGE, lambda r: r.update(tag={}), "'tag' was unexpected"),
    "spot": (CLUSTER, lambda r: inner(r).update(vmPriority="Spot"), "'Spot' is not one of"),
    "no most nodes": (CLUSTER, lambda r: scale(r).pop("maxNodeCount"), "'maxNodeCount' is a required"),
    "most nodes as text": (CLUSTER, lambda r: scale(r).update(maxNodeCount="1"), "not of type 'integer'"),
    "nodes that stay": (CLUSTER, lambda r: scale(r).update(minNodeCount=1), "minNodeCount: 1 is not one of"),
    "false is not 0": (CLUSTER, lambda r: scale(r).update(minNodeCount=False), "False is not one of"),
    "no idle time": (CLUSTER, lambda r: scale(r).pop("nodeIdleTimeBeforeScaleDown"), "ScaleDown' is a required"),
    "idle time in words": (CLUSTER, lambda r: scale(r).update(nodeIdleTimeBeforeScaleDown="2 min"), "'2 min'"),
    "remote login": (CLUSTER, lambda r: inner(r).update(remoteLoginPortPublicAccess="Enabled"), "'Enabled' is not one"),
    "local users": (CLUSTER, lambda r: r["properties"].update(disableLocalAuth=False), "disableLocalAuth: False"),
    "no period": (BUDGET, lambda r: r["properties"].pop("timePeriod"), "'timePeriod' is a required"),
    "not the first": (BUDGET, lambda r: r["properties"]["timePeriod"].update(startDate="2026-11-02T00:00:00Z"), "-02T"),
    "bad operator": (BUDGET, lambda r: mail(r).update(operator="AtLeast"), "'AtLeast' is not one of"),
    "nobody notified": (BUDGET, lambda r: mail(r).update(contactEmails=[]), "contactEmails: []"),
    "a share missing": (BUDGET, lambda r: r["properties"]["notifications"].pop("used90"), "'used90' is a required"),
    "grain": (BUDGET, lambda r: r["properties"].update(timeGrain="Weekly"), "'Weekly' is not one of"),
    "public blobs": (STORAGE, lambda r: r["properties"].update(allowBlobPublicAccess=True), "BlobPublicAccess: True"),
    "dashes in storage": (STORAGE, lambda r: r.update(name="[variables('name')]"), "$.name: 'boneage-"),
    "long vault name": (VAULT, lambda r: r.update(name="[concat(variables('name'), '-vault')]"), "-vault' does not"),
    "version": (VAULT, lambda r: r.update(apiVersion="2027-01-01"), "'2027-01-01' is not one of"),
    "no tags": (VAULT, lambda r: r.pop("tags"), "'tags' is a required"),
    "unknown type": (VAULT, lambda r: r.update(type="Microsoft.KeyVault/vault"), "unknown resource type"),
    "not made": (ML, lambda r: r["dependsOn"].append("[resourceId('A.B/c', 'd')]"), "the template does not create"),
    "too early": (ML, lambda r: r["dependsOn"].pop(0), "and does not depend on it"),
    "before its parent": (CLUSTER, lambda r: r.pop("dependsOn"), "and does not depend on it"),
    "empty text": (VAULT, lambda r: r["properties"].update(tenantId=""), "tenantId: ''"),
    "vault as storage": (
        ML, lambda r: r["properties"].update(storageAccount=r["properties"]["keyVault"]), "storageAccount: '",
    ),
    "unknown parameter": (ML, lambda r: r.update(location="[parameters('place')]"), "'place'"),
    "unknown function": (ML, lambda r: r.update(location="[whereAmI()]"), "whereAmI"),
    "half an expression": (ML, lambda r: r.update(location="[concat('a']"), "concat"),
    "no expression": (ML, lambda r: r.update(location="[a ? b]"), "a ? b"),
    "too much": (ML, lambda r: r.update(location="['a' 'b']"), "'a' 'b'"),
}  # fmt: skip


def test_the_template_passes_as_it_is() -> None:
    assert find_problems(infra.load_template(), parameters()) == []
    assert (
        find_problems(
            infra.load_template(),
            parameters(vmPriority="LowPriority", maxNodes=50, idleSeconds=1800, namePrefix="a23456z8"),
        )
        == []
    )


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_template_is_caught(name: str) -> None:
    kind, change, said = WRONG[name]
    problems = find_problems(broken(kind, change), parameters())
    assert any(said in problem for problem in problems), problems


def test_every_object_in_the_rules_is_closed() -> None:
    def look(rule: Any) -> int:
        if isinstance(rule, list):
            return sum(map(look, rule))
        if not isinstance(rule, dict):
            return 0
        if rule.get("type") == "object":
            assert {"properties", "required", "additionalProperties"} <= set(rule)
            assert rule["additionalProperties"] is not True
        return (rule.get("type") == "object") + sum(map(look, rule.values()))

    for rule in RULES.values():
        jsonschema.Draft7Validator.check_schema(rule)
    assert look(RULES) > 20


@pytest.mark.parametrize(
    ("name", "value"),
    [("maxNodes", 0), ("maxNodes", "1"), ("maxNodes", True), ("idleSeconds", 86_400), ("budgetUsd", 0),
     ("budgetUsd", 12.5), ("contactEmail", ""), ("location", ""), ("vmPriority", "Spot"), ("colour", "blue")],
)  # fmt: skip
def test_wrong_parameters_are_caught(name: str, value: Any) -> None:
    (problem,) = find_problems(infra.load_template(), parameters(**{name: value}))
    assert f"'{name}'" in problem


def test_a_missing_parameter_is_caught() -> None:
    values = parameters()
    del values["budgetStart"]
    assert "'budgetStart'" in find_problems(infra.load_template(), values)[0]


def test_nothing_is_created_twice() -> None:
    twice = infra.load_template()
    twice["resources"].append(find(STORAGE, twice["resources"]))
    assert find_problems(twice, parameters()) == ["two resources have the same type and name"]


def test_resolved_resources() -> None:
    made = resolve(infra.load_template(), parameters(vmPriority="LowPriority", maxNodes=2, idleSeconds=300))
    assert scale(find(CLUSTER, made)) == {
        "minNodeCount": 0,
        "maxNodeCount": 2,
        "nodeIdleTimeBeforeScaleDown": "PT300S",
    }
    assert inner(find(CLUSTER, made))["vmPriority"] == "LowPriority"
    budget = find(BUDGET, made)["properties"]
    assert (budget["amount"], budget["timePeriod"]) == (80, {"startDate": "2026-11-01T00:00:00Z"})
    assert [one["threshold"] for one in budget["notifications"].values()] == [50, 75, 90]
    assert {one["contactEmails"][0] for one in budget["notifications"].values()} == {"me@example.org"}
    assert all(resource["tags"] == {"boneagectl": "boneage"} for resource in made if resource["type"] != BUDGET)
    assert not [resource for resource in made if "ContainerRegistry" in resource["type"]]


@pytest.mark.parametrize("prefix", ["abc", "boneage", "a23456z8"])
def test_names_keep_azure_s_rules(prefix: str) -> None:
    """Even for the longest prefix: Azure's uniqueString has 13 characters, at times a digit first."""
    names = {
        resource["type"]: resource["name"] for resource in resolve(infra.load_template(), parameters(namePrefix=prefix))
    }
    assert re.fullmatch(r"[a-z0-9]{3,24}", names[STORAGE])
    assert re.fullmatch(r"[a-z][a-z0-9-]{1,22}[a-z0-9]", names[VAULT])
    assert "--" not in names[VAULT]
    assert re.fullmatch(r"[a-z0-9-]{3,33}/gpu", names[CLUSTER])
    assert len(names[BUDGET]) <= 63


def test_every_parameter_is_described_used_and_given() -> None:
    content = infra.load_template()
    text = json.dumps([content["variables"], content["resources"]])
    assert {*parameters(), "namePrefix"} == set(content["parameters"])
    for name, rule in content["parameters"].items():
        assert rule["metadata"]["description"].endswith(".")
        assert f"parameters('{name}')" in text
    for name in content["variables"]:
        assert f"variables('{name}')" in json.dumps(content)


def costs() -> dict[str, Json]:
    lines = json.loads((data_dir("infra") / "azure-costs.json").read_text())["costs"]
    return {line["type"]: line for line in lines}


def test_every_resource_has_its_idle_cost() -> None:
    made = infra.load_template()["resources"]
    assert {resource["type"] for resource in made} <= set(costs())
    for line in costs().values():
        assert line["certainty"] in ("measured", "documented", "guess", "unknown")
        assert (line["usd_per_day"] is None) == (line["certainty"] == "unknown")
        assert re.fullmatch(r"2026-\d\d-\d\d", line["date"])
        assert line["source"]


def test_the_readme_says_what_the_costs_say() -> None:
    page = (data_dir("infra") / "README.md").read_text()
    for kind, line in costs().items():
        usd = "unknown" if line["usd_per_day"] is None else f"${line['usd_per_day']:.2f}"
        assert f"| `{kind}` | {usd}" in page


def test_idle_costs() -> None:
    resources = resolve(infra.load_template(), parameters())
    costs = infra.estimate_idle_costs(resources)
    assert [cost.type for cost in costs] == [resource["type"] for resource in resources]
    assert {cost.type: cost.usd_micro_per_day for cost in costs if cost.usd_micro_per_day is not None} == {
        CLUSTER: 330_000}  # fmt: skip
    scale(find(CLUSTER, resources))["maxNodeCount"] = 51
    assert 660_000 in [cost.usd_micro_per_day for cost in infra.estimate_idle_costs(resources)]


def test_idle_costs_of_what_azure_lists() -> None:
    """Types in Azure's changing case, and things that the template did not make."""
    lines = infra.estimate_idle_costs(
        [
            {"type": "microsoft.insights/components", "name": "a"},
            {"type": CLUSTER.upper(), "name": "w/gpu"},
            {"type": "Microsoft.ContainerRegistry/registries", "name": "r"},
            {"type": "Microsoft.Compute/disks", "name": "d"},
        ]
    )
    assert [line.usd_micro_per_day for line in lines] == [None, 330_000, 170_000, None]
    assert (lines[3].certainty, lines[3].source) == ("unknown", "no figure found")
