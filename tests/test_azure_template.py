"""The infrastructure template: it passes as it is, and each way of getting it wrong is caught without Azure."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from boneagectl.errors import UsageError
from boneagectl.paths import data_dir
from boneagectl.targets.azure import arm, infra

ML = "Microsoft.MachineLearningServices/workspaces"
CLUSTER = f"{ML}/computes"
BUDGET = "Microsoft.Consumption/budgets"
STORAGE = "Microsoft.Storage/storageAccounts"
VAULT = "Microsoft.KeyVault/vaults"
Json = dict[str, Any]


def given(**other: Any) -> Json:
    wishes = {"location": "westeurope", "contact_email": "me@example.org", "budget_usd": 80}
    return infra.parameters(**{**wishes, "budget_month": date(2026, 11, 25), **other})


def of(kind: str, resources: list[Json]) -> Json:
    return next(resource for resource in resources if resource["type"] == kind)


def broken(kind: str, change: Callable[[Json], object]) -> Json:
    """The template with one resource changed."""
    changed = copy.deepcopy(infra.load())
    change(of(kind, changed["resources"]))
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
    "typo in a property": (CLUSTER, lambda r: scale(r).update(maxNodes=1), "maxNodes is no property"),
    "typo instead of it": (CLUSTER, lambda r: inner(r).update(vmsize=inner(r).pop("vmSize")), "vmSize is missing"),
    "typo at the top": (STORAGE, lambda r: r.update(tag={}), "tag is no property"),
    "spot": (CLUSTER, lambda r: inner(r).update(vmPriority="Spot"), "'Spot' is none of Dedicated, LowPriority"),
    "no most nodes": (CLUSTER, lambda r: scale(r).pop("maxNodeCount"), "maxNodeCount is missing"),
    "most nodes as text": (CLUSTER, lambda r: scale(r).update(maxNodeCount="1"), "not of type integer"),
    "nodes that stay": (CLUSTER, lambda r: scale(r).update(minNodeCount=1), "minNodeCount: 1 is none of 0"),
    "false is not 0": (CLUSTER, lambda r: scale(r).update(minNodeCount=False), "False is none of 0"),
    "no idle time": (CLUSTER, lambda r: scale(r).pop("nodeIdleTimeBeforeScaleDown"), "ScaleDown is missing"),
    "idle time in words": (CLUSTER, lambda r: scale(r).update(nodeIdleTimeBeforeScaleDown="2 min"), "does not fit"),
    "remote login": (CLUSTER, lambda r: inner(r).update(remoteLoginPortPublicAccess="Enabled"), "none of Disabled"),
    "local users": (CLUSTER, lambda r: r["properties"].update(disableLocalAuth=False), "False is none of True"),
    "no period": (BUDGET, lambda r: r["properties"].pop("timePeriod"), "timePeriod is missing"),
    "not the first": (BUDGET, lambda r: r["properties"]["timePeriod"].update(startDate="2026-11-02T00:00:00Z"), "fit"),
    "bad operator": (BUDGET, lambda r: mail(r).update(operator="AtLeast"), "'AtLeast' is none of EqualTo"),
    "nobody told": (BUDGET, lambda r: mail(r).update(contactEmails=[]), "fewer than 1 items"),
    "a share missing": (BUDGET, lambda r: r["properties"]["notifications"].pop("used90"), "used90 is missing"),
    "grain": (BUDGET, lambda r: r["properties"].update(timeGrain="Weekly"), "'Weekly' is none of"),
    "public blobs": (STORAGE, lambda r: r["properties"].update(allowBlobPublicAccess=True), "True is none of False"),
    "dashes in storage": (STORAGE, lambda r: r.update(name="[variables('name')]"), "does not fit"),
    "long vault name": (VAULT, lambda r: r.update(name="[concat(variables('name'), '-vault')]"), "does not fit"),
    "version": (VAULT, lambda r: r.update(apiVersion="2027-01-01"), "'2027-01-01' is none of"),
    "no tags": (VAULT, lambda r: r.pop("tags"), "tags is missing"),
    "unknown type": (VAULT, lambda r: r.update(type="Microsoft.KeyVault/vault"), "no such resource type"),
    "not made": (ML, lambda r: r["dependsOn"].append("[resourceId('A.B/c', 'd')]"), "which the template does not make"),
    "too early": (ML, lambda r: r["dependsOn"].pop(0), "and does not depend on it"),
    "before its parent": (CLUSTER, lambda r: r.pop("dependsOn"), "and does not depend on it"),
    "empty text": (VAULT, lambda r: r["properties"].update(tenantId=""), "does not fit"),
    "vault as storage": (
        ML, lambda r: r["properties"].update(storageAccount=r["properties"]["keyVault"]), "does not fit",
    ),
    "unknown parameter": (ML, lambda r: r.update(location="[parameters('place')]"), "'place'"),
    "unknown function": (ML, lambda r: r.update(location="[whereAmI()]"), "whereAmI"),
    "half an expression": (ML, lambda r: r.update(location="[concat('a']"), "concat"),
    "no expression": (ML, lambda r: r.update(location="[a ? b]"), "not a template expression"),
    "too much": (ML, lambda r: r.update(location="['a' 'b']"), "not understood from"),
}  # fmt: skip


def test_the_template_passes_as_it_is() -> None:
    assert infra.check(infra.load(), given()) == []
    assert infra.check(infra.load(), given(low_priority=True, max_nodes=50, idle_s=1800, prefix="a23456z8")) == []


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_template_is_caught(name: str) -> None:
    kind, change, said = WRONG[name]
    problems = infra.check(broken(kind, change), given())
    assert any(said in problem for problem in problems), problems


def test_our_rules_say_what_jsonschema_says() -> None:
    """The few words of JSON Schema that `arm.violations` knows mean what they mean elsewhere."""
    jsonschema = pytest.importorskip("jsonschema")
    rules = json.loads((data_dir("infra") / "azure-rules.json").read_text())["resources"]
    for kind, change, _ in [(ML, dict, ""), *WRONG.values()]:
        try:
            resources = arm.resolve(broken(kind, change), given())
        except arm.Unresolved:
            continue
        for resource in resources:
            if rule := rules.get(resource["type"]):
                jsonschema.Draft7Validator.check_schema(rule)
                theirs = not jsonschema.Draft7Validator(rule).is_valid(resource)
                assert bool(list(arm.violations(resource, rule, ""))) == theirs, resource


def test_every_object_in_the_rules_is_closed() -> None:
    rules = json.loads((data_dir("infra") / "azure-rules.json").read_text())["resources"]

    def look(rule: Any) -> int:
        if isinstance(rule, list):
            return sum(map(look, rule))
        if not isinstance(rule, dict):
            return 0
        if rule.get("type") == "object":
            assert {"properties", "required", "additionalProperties"} <= set(rule)
            assert rule["additionalProperties"] is not True
        return (rule.get("type") == "object") + sum(map(look, rule.values()))

    assert look(rules) > 20


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_nodes": 0}, "maxNodes: 0 lies outside 1 to 50"),
        ({"max_nodes": "1"}, "maxNodes: '1' is not of type int"),
        ({"max_nodes": True}, "maxNodes: True is not of type int"),
        ({"idle_s": 86_400}, "idleSeconds: 86400 lies outside"),
        ({"budget_usd": 0}, "budgetUsd: 0 lies outside"),
        ({"budget_usd": 12.5}, "not of type int"),
        ({"contact_email": "me@example.org\n"}, "does not fit"),
        ({"contact_email": "nobody"}, "'nobody' does not fit"),
        ({"location": ""}, "location: '' lies outside"),
        ({"vm_size": "NC4as_T4_v3"}, "does not fit"),
    ],
)
def test_wrong_parameters_are_caught(wrong: Json, said: str) -> None:
    problems = infra.check(infra.load(), given(**wrong))
    assert any(said in problem for problem in problems), problems


def test_nothing_is_made_twice() -> None:
    twice = infra.load()
    twice["resources"].append(of(STORAGE, twice["resources"]))
    assert infra.check(twice, given()) == ["two resources have the same type and name"]


def test_missing_unknown_and_disallowed_parameters() -> None:
    values = given()
    del values["budgetStart"]
    values["colour"] = {"value": "blue"}
    values["vmPriority"] = {"value": "Spot"}
    assert infra.check(infra.load(), values) == [
        "parameter colour: the template has none of that name",
        "parameter budgetStart: missing",
        "parameter vmPriority: 'Spot' is none of Dedicated, LowPriority",
    ]


@pytest.mark.parametrize("prefix", ["", "ab", "toolongone", "Bone", "1bone", "bo-ne", "böne", "bone\n"])
def test_a_prefix_that_fits_no_name(prefix: str) -> None:
    with pytest.raises(UsageError, match="3 to 8 lower-case"):
        given(prefix=prefix)


def test_what_is_made() -> None:
    made = arm.resolve(infra.load(), given(low_priority=True, max_nodes=2, idle_s=300))
    assert scale(of(CLUSTER, made)) == {
        "minNodeCount": 0,
        "maxNodeCount": 2,
        "nodeIdleTimeBeforeScaleDown": "PT300S",
    }
    assert inner(of(CLUSTER, made))["vmPriority"] == "LowPriority"
    budget = of(BUDGET, made)["properties"]
    assert (budget["amount"], budget["timePeriod"]) == (80, {"startDate": "2026-11-01T00:00:00Z"})
    assert [one["threshold"] for one in budget["notifications"].values()] == [50, 75, 90]
    assert {one["contactEmails"][0] for one in budget["notifications"].values()} == {"me@example.org"}
    assert all(resource["tags"] == {"boneagectl": "boneage"} for resource in made if resource["type"] != BUDGET)
    assert not [resource for resource in made if "ContainerRegistry" in resource["type"]]


@pytest.mark.parametrize("prefix", ["abc", "boneage", "a23456z8"])
def test_names_keep_azure_s_rules(prefix: str) -> None:
    """Even for the longest prefix, since Azure's uniqueString has 13 characters, digits first at times."""
    assert len(arm._unique("a", "b")) == 13
    names = {resource["type"]: resource["name"] for resource in arm.resolve(infra.load(), given(prefix=prefix))}
    assert re.fullmatch(r"[a-z0-9]{3,24}", names[STORAGE])
    assert re.fullmatch(r"[a-z][a-z0-9-]{1,22}[a-z0-9]", names[VAULT])
    assert "--" not in names[VAULT]
    assert re.fullmatch(r"[a-z0-9-]{3,33}/gpu", names[CLUSTER])
    assert len(names[BUDGET]) <= 63


def test_every_parameter_is_described_used_and_given() -> None:
    content = infra.load()
    text = json.dumps([content["variables"], content["resources"]])
    assert set(given()) == set(content["parameters"])
    for name, rule in content["parameters"].items():
        assert rule["metadata"]["description"].endswith(".")
        assert f"parameters('{name}')" in text
    for name in content["variables"]:
        assert f"variables('{name}')" in json.dumps(content)


def costs() -> dict[str, Json]:
    lines = json.loads((data_dir("infra") / "azure-costs.json").read_text())["costs"]
    return {line["type"]: line for line in lines}


def test_every_resource_has_its_idle_cost() -> None:
    made = infra.load()["resources"]
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
    made = arm.resolve(infra.load(), given())
    lines = infra.idle_costs(made)
    assert [line.type for line in lines] == [resource["type"] for resource in made]
    assert {line.type for line in lines if line.usd_micro_per_day is not None} == {CLUSTER}
    assert infra.daily_usd_micro(lines) == 330_000
    scale(of(CLUSTER, made))["maxNodeCount"] = 51
    assert infra.daily_usd_micro(infra.idle_costs(made)) == 660_000


def test_idle_costs_of_what_azure_lists() -> None:
    """Types in Azure's changing case, and things that the template did not make."""
    lines = infra.idle_costs(
        [
            {"type": "microsoft.insights/components", "name": "a"},
            {"type": CLUSTER.upper(), "name": "w/gpu"},
            {"type": "Microsoft.ContainerRegistry/registries", "name": "r"},
            {"type": "Microsoft.Compute/disks", "name": "d"},
        ]
    )
    assert [line.usd_micro_per_day for line in lines] == [None, 330_000, 170_000, None]
    assert (lines[3].certainty, lines[3].source) == ("unknown", "no figure found")
