"""`infra`, `doctor` and `prices` for azure: resources are shown with their cost and deleted completely."""

from __future__ import annotations

from pathlib import Path

import pytest

from boneagectl.ledger.store import opened
from emulators.azure import Azure, Fault
from emulators.azure_compute import LOW
from support import Cli, wait_for

FAMILY = "standardNCASv3_T4Family"
UP = ("infra", "up", "--email", "student@example.org", "--yes")


@pytest.fixture
def bare(azure: Azure, project: Path, cli: Cli) -> Azure:
    """A subscription with nothing in it."""
    for place in [*azure.arm.groups.values()]:
        azure.arm._drop(place)
    azure.arm.deleted_vaults.clear()
    (project / "boneage.toml").write_text('target = "azure"\ntime_limit = "2h"\ntrain.epochs = 3\n')
    for name in ("images.npy", "index.csv", "problems.csv"):
        (project / "pack" / name).write_bytes(b"x" * 1000)
    return azure


def standing_usd(home: Path) -> int:
    """What the ledger counts by the day now, in micro-dollars."""
    with opened(home / "ledger.db") as ledger:
        rows = ledger._db.execute("select usd_micro_per_day from standing where until_s is null").fetchall()
    return sum(row[0] for row in rows)


def kinds(azure: Azure) -> set[str]:
    return {str(one["type"]).lower() for one in azure.arm.resources.values()}


# ------------------------------------------------------------------------------------- up, show, down
def test_infrastructure_is_created_used_and_deleted(bare: Azure, cli: Cli, home: Path, project: Path) -> None:
    said = cli(*UP)
    assert "Create  Microsoft.MachineLearningServices/workspaces/boneagectl/computes/gpu" in said.err
    assert "at least $0.33 per day when idle" in said.out
    assert kinds(bare) >= {"microsoft.machinelearningservices/workspaces/computes", "microsoft.consumption/budgets",
                           "microsoft.keyvault/vaults", "microsoft.insights/components"}  # fmt: skip
    assert standing_usd(home) == 330_000
    cli("data", "push", "pack", "--target", "azure", "--yes", "-q")
    cli("submit", "--name", "first-run", "--yes", "-q")
    wait_for(lambda: cli("watch", "first-run", "--once", "--json", "-q").json["snapshot"]["state"] == "complete")
    said = cli("infra", "down", "--yes")
    assert "deleting cluster gpu …" in said.err
    assert said.err.index("cluster gpu …") < said.err.index("workspace boneagectl …") < said.err.index("group bone")
    assert "nothing is left" in said.out
    assert bare.money.billed() == []
    assert (bare.arm.groups, bare.arm.resources, bare.arm.deleted_vaults) == ({}, {}, set())
    assert standing_usd(home) == 0
    assert "no resources" in cli("infra", "show").out


def test_it_can_be_created_again_after_the_deletion(bare: Azure, cli: Cli) -> None:
    """A vault that is only deleted keeps its name for a week."""
    cli(*UP)
    cli("infra", "down", "--yes")
    cli(*UP)
    cli("infra", "down", "--yes")
    assert bare.money.billed() == []
    assert "nothing is left" in cli("infra", "down", "--yes").out


def test_up_again_changes_nothing_and_keeps_the_budget_s_month(bare: Azure, cli: Cli, home: Path) -> None:
    cli(*UP)
    budget = next(one for one in bare.arm.resources.values() if "budgets" in str(one["type"]).lower())
    budget["properties"]["timePeriod"]["startDate"] = "2026-03-01T00:00:00Z"
    assert "Create" not in cli(*UP).err
    again = next(one for one in bare.arm.resources.values() if "budgets" in str(one["type"]).lower())
    assert again["properties"]["timePeriod"]["startDate"].startswith("2026-03-01")
    assert [mail["threshold"] for mail in again["properties"]["notifications"].values()] == [50, 75, 90]
    assert standing_usd(home) == 330_000


def test_a_declined_question_changes_nothing(bare: Azure, cli: Cli, home: Path) -> None:
    said = cli(*UP[:-1], code=7)
    assert "at least $0.33 per day" in said.err
    assert (bare.arm.groups, bare.arm.resources) == ({}, {})
    assert standing_usd(home) == 0
    cli(*UP)
    cli("infra", "down", code=7)
    assert bare.money.billed()


def test_down_is_refused_while_a_leg_runs(bare: Azure, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    cli(*UP, "-q")
    cli("data", "push", "pack", "--target", "azure", "--yes", "-q")
    cli("submit", "--name", "busy-run", "--yes", "-q")
    assert "busy-run-01" in cli("infra", "down", "--yes", code=5).err
    cli("stop", "busy-run", "--yes", "-q")
    cli("infra", "down", "--yes", "-q")
    assert bare.money.billed() == []


def test_a_registry_that_azure_created_is_deleted_too(bare: Azure, cli: Cli) -> None:
    cli(*UP, "-q")
    workspace = next(one for one in bare.arm.resources.values() if one["name"] == "boneagectl")
    bare.add_registry(workspace)
    said = cli("infra", "show")
    assert "at least $0.50 per day" in said.out
    cli("infra", "down", "--yes", "-q")
    assert bare.money.billed() == []


def test_missing_providers_are_registered(bare: Azure, cli: Cli) -> None:
    bare.registered -= {"microsoft.machinelearningservices", "microsoft.keyvault"}
    assert "not registered: Microsoft.MachineLearningServices, Microsoft.KeyVault" in cli(
        "doctor", "--target", "azure", code=(0, 3)).out  # fmt: skip
    assert "registering Microsoft.KeyVault" in cli(*UP).err


def test_a_region_that_is_not_allowed(bare: Azure, cli: Cli, home: Path) -> None:
    bare.allowed_regions = ["uksouth", "francecentral"]
    said = cli(*UP, code=9)
    assert "warning: no GPU can run there: this subscription may not use westeurope" in said.err
    assert "RequestDisallowedByAzure" in said.err
    assert bare.money.billed() == []
    doctor = cli("doctor", "--target", "azure", code=3)
    assert "westeurope is not allowed; allowed are: francecentral, uksouth" in doctor.out
    assert "this subscription may not use westeurope" in doctor.out
    assert standing_usd(home) == 0


def test_a_size_that_the_offer_does_not_have(bare: Azure, cli: Cli, home: Path) -> None:
    """What was made before the cluster was refused is still there, is shown, and goes."""
    bare.refused_sizes = {"standard_nc4as_t4_v3"}
    said = cli(*UP, code=9)
    assert "infra show" in said.err
    cli("infra", "down", "--yes", "-q")
    assert (bare.money.billed(), standing_usd(home)) == ([], 0)


def test_a_credit_that_is_used_up(bare: Azure, cli: Cli) -> None:
    bare.end_credit()
    said = cli(*UP, code=9)
    assert "ReadOnlyDisabledSubscription" in said.err
    assert "the credit is used up" in said.err


@pytest.mark.parametrize("step", ["PUT */deployments/*", "POST */whatIf", "PUT resourceGroups/*"])
def test_up_resumes_after_a_fault(bare: Azure, cli: Cli, step: str, home: Path) -> None:
    bare.faults.append(Fault(step, "500", times=10))
    cli(*UP, code=(0, 10))
    bare.faults.clear()
    cli(*UP)
    assert standing_usd(home) == 330_000
    cli("infra", "down", "--yes", "-q")
    assert (bare.money.billed(), standing_usd(home)) == ([], 0)


def test_an_interrupted_down_is_reported_and_resumes(bare: Azure, cli: Cli, home: Path) -> None:
    cli(*UP, "-q")
    bare.faults.append(Fault("DELETE resourceGroups/*", "500", times=10))
    cli("infra", "down", "--yes", code=10)
    assert standing_usd(home) == 330_000, "what may still bill is counted"
    bare.faults.clear()
    cli("infra", "down", "--yes")
    assert (bare.money.billed(), standing_usd(home)) == ([], 0)


def test_a_wrong_email_address_is_refused_before_azure_is_asked(bare: Azure, cli: Cli) -> None:
    for address in ("x", "me@example.org\n", "a b@c"):
        assert repr(address) in cli("infra", "up", "--email", address, code=2).err
    assert bare.arm.groups == {}


def test_azure_itself_checks_the_parameters_before_anything_is_created(bare: Azure, cli: Cli, home: Path) -> None:
    said = cli(*UP, "--set", "targets.azure.idle=2h", code=9)
    assert "idleSeconds" in said.err
    assert (bare.arm.groups, bare.arm.resources) == ({}, {})
    assert standing_usd(home) == 0


# --------------------------------------------------------------------------------------------- doctor
def levels(cli: Cli, *words: str, code: int = 0) -> dict[str, tuple[str, str]]:
    found = cli("doctor", "--target", "azure", "--json", *words, code=code).json["findings"]
    return {one["what"]: (one["level"], one["detail"]) for one in found}


def test_doctor_names_the_credential_the_offer_and_the_price_of_today(azure: Azure, project: Path, cli: Cli) -> None:
    said = levels(cli)
    assert said["signed in"] == ("ok", "alice@example.edu by EnvironmentCredential")
    assert "Azure for Students" in said["subscription"][1]
    assert "$0.6575 an hour and node, low priority $0.1539; retail price API" in said["price"][1]
    assert said["answer"] == ("ok", "Standard_NC4as_T4_v3 can run in westeurope")


def test_a_student_without_quota_gets_the_better_target(azure: Azure, project: Path, cli: Cli) -> None:
    azure.quota |= {FAMILY: 0, LOW: 3}
    said = levels(cli, code=3)
    assert said["quota, dedicated"] == ("bad", "0 cores free in westeurope, 4 needed for 1 x Standard_NC4as_T4_v3")
    assert said["quota, low priority"][0] == "warn"
    assert said["answer"][1].startswith("you cannot run a GPU here: only 0 dedicated cores of the 4")
    assert "boneagectl submit --target kaggle" in cli("doctor", "--target", "azure", code=3).out
    assert levels(cli, "--set", "targets.azure.tier=low_priority", code=3)["quota, low priority"][0] == "bad"


def test_an_image_of_one_s_own_may_be_refused_to_a_student(azure: Azure, project: Path, cli: Cli) -> None:
    words = ("--set", "targets.azure.environment=azureml:mine:1")
    assert levels(cli, *words)["image"][0] == "warn"
    azure.quota_id = "PayAsYouGo_2014-09-01"
    assert "registry" in levels(cli, *words)["image"][1]


def test_not_signed_in(azure: Azure, project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"):
        monkeypatch.delenv(name)
    azure.sign_out_az()
    said = cli("doctor", "--target", "azure", code=3)
    assert "not signed in to Azure" in said.out
    assert "next: az login" in said.out
    assert "not signed in to Azure" in cli("submit", "--target", "azure", "--yes", code=8).err


def test_az_login_is_found_and_named(azure: Azure, project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    assert levels(cli)["signed in"][1].endswith("by AzureCliCredential")


def test_regions_side_by_side(azure: Azure, project: Path, cli: Cli) -> None:
    azure.allowed_regions = ["westeurope", "eastus"]
    azure.quota[FAMILY] = 4
    offers = cli("doctor", "--target", "azure", "--regions", "westeurope,eastus, uksouth", "--json").json["offers"]
    assert [(one["region"], one["allowed"], one["usd_per_hour"]) for one in offers] == [
        ("westeurope", True, 0.6575), ("eastus", True, 0.526), ("uksouth", False, 0.61542)]  # fmt: skip
    assert {one["cores_free"] for one in offers} == {4}
    assert "Standard_NC4as_T4_v3" in offers[0]["fits"]
    text = cli("doctor", "--target", "azure", "--regions", "westeurope").out
    assert "DEDICATED FREE" in text
    assert "--target azure --regions A,B,C" in cli("doctor", "--regions", "eastus", code=2).err


def test_an_unknown_subscription(azure: Azure, project: Path, cli: Cli) -> None:
    said = cli("doctor", "--target", "azure", "--set", "targets.azure.subscription=unknown", code=3)
    assert "SubscriptionNotFound" in said.out


# --------------------------------------------------------------------------------------------- prices
def test_prices_come_from_the_table_until_refreshed(azure: Azure, project: Path, cli: Cli) -> None:
    assert "collected 2026-11-23" in cli("prices").out
    said = cli("prices", "refresh", "--region", "eastus", "--json").json["prices"]
    assert {one["usd_per_hour"] for one in said if one["size"] == "Standard_NC4as_T4_v3"} == {0.526, 0.123084}
    assert "retail price API" in cli("prices").out
    assert "no price of" in cli("prices", "refresh", "--region", "moon", code=2).err
    azure.faults.append(Fault("GET *prices*", "500", times=10))
    assert "until then the older prices count" in cli("prices", "refresh", code=10).err
