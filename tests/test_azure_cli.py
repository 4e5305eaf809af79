"""The commands with `--target azure`: reserved before created, found again after every fault, stopped, collected."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import RunFolder
from boneagectl.ledger.store import opened
from boneagectl.models import LegState
from emulators.azure import Azure, Fault
from support import Cli, environment, first_or_long, wait_for

FAMILY = "standardNCASv3_T4Family"


@pytest.fixture
def on_azure(project: Path, azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Azure:
    """A project whose legs go to the emulator; the one subscription that the login sees is found by itself."""
    (project / "boneage.toml").write_text('target = "azure"\ntime_limit = "2h"\ntrain.epochs = 3\n')
    monkeypatch.setenv("FAKE_EPOCH_S", "0.05")
    return azure


@pytest.fixture
def busy(on_azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Azure:
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    return on_azure


def check_books(home: Path, azure: Azure) -> None:
    """The ledger, Azure's jobs and what runs there agree, and no cap is crossed."""
    with opened(home / "ledger.db") as ledger:
        legs = [leg for run in ledger.runs() for leg in run.legs]
        account = ledger.account("azure")
    open_legs = [leg for leg in legs if not leg.state.is_over]
    assert account.reserved_usd_micro == sum(leg.reserved_usd_micro for leg in open_legs)
    assert set(azure.running()) <= {leg.leg_id for leg in open_legs}
    assert set(azure.jobs.all) <= {leg.leg_id for leg in legs if leg.state is not LegState.RELEASED}
    assert account.spent_usd_micro + account.reserved_usd_micro <= (account.cap_usd_micro or 0)


def until_over(cli: Cli, name: str, code: int = 0) -> str:
    def is_over() -> bool:
        seen = cli("watch", name, "--once", "--json", "-q", code=(0, code)).json["snapshot"]["state"]
        return seen not in ("queued", "running", "reserved")

    wait_for(is_over)
    return str(cli("show", name, "--json").json["state"])


def leg_of(cli: Cli, name: str) -> dict[str, object]:
    found: dict[str, object] = cli("show", name, "--json").json["legs"][-1]
    return found


# ------------------------------------------------------------------------------------- the whole way
def test_from_submit_to_the_folder(on_azure: Azure, cli: Cli, home: Path) -> None:
    said = cli("submit", "--name", "first-run", "--yes")
    assert "limit    ok      cluster: gpu: Standard_NC4as_T4_v3" in said.err
    assert "limit    ok      subscription: " in said.err
    cli("watch", "first-run", "--every", 0.1)
    shown = cli("show", "first-run", "--json").json
    assert (shown["state"], shown["epoch"], shown["epochs"]) == ("complete", 3, 3)
    assert f"/subscriptions/{on_azure.subscription}/" in shown["legs"][0]["handle"]
    folder = Path(cli("collect", "first-run").out.strip())
    assert {"metrics.jsonl", "model.keras", "train.log", "MANIFEST.json"} <= {path.name for path in folder.iterdir()}
    assert "epoch" in cli("logs", "first-run").out
    check_books(home, on_azure)


def test_a_billed_run_asks_for_confirmation(on_azure: Azure, cli: Cli) -> None:
    said = cli("submit", "--name", "asked-run", "-q", code=7)
    assert "cost     at most $" in said.err
    assert len(on_azure.jobs) == 0


def test_a_dry_run_writes_what_is_sent_and_uses_no_network(on_azure: Azure, cli: Cli, project: Path) -> None:
    cli("submit", "--dry-run", "--name", "shown-run")
    assert on_azure.calls == []
    cli("submit", "--name", "shown-run", "-q", "--yes")
    job, text = on_azure.jobs["shown-run-01"], (project / "shown-run-01" / "job.yml").read_text()
    assert str(job.said["command"]).strip() in text
    assert job.said["limits"]["timeout"] == "PT2H"
    assert job.said["environmentVariables"]["TF_USE_LEGACY_KERAS"] == "0"
    shown = (project / "shown-run-01" / "stage" / "bundle.zip").read_bytes()
    place = on_azure.workspaces.place(job.workspace, job.said["codeId"])
    assert on_azure.blobs.names(place.account, place.container, f"{place.path}/") == [f"{place.path}/bundle.zip"]
    assert on_azure.blobs.get(place.account, place.container, f"{place.path}/bundle.zip") == shown


READS = (("ls",), ("show", "last"), ("watch", "last", "--once"), ("logs", "last"), ("collect", "last"), ("budget",),
         ("doctor", "--target", "azure"), ("infra", "show"), ("prices",), ("stop", "last", "--yes"))  # fmt: skip


def test_only_submit_imports_the_sdk(on_azure: Azure, cli: Cli, project: Path) -> None:
    """Its import takes seconds; commands that only read should not pay them."""
    cli("submit", "--name", "light-run", "-q", "--yes")
    code = (f"import sys\nfrom boneagectl.__main__ import run\nfor words in {READS!r}: run(list(words))\n"
            "print('imported', [name for name in sys.modules if name.startswith('azure.ai')])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120,
                          check=True)  # fmt: skip
    assert done.stdout.splitlines()[-1] == "imported []"
    assert "Traceback" not in done.stderr


# --------------------------------------------------------------------------------------------- limits
def test_the_default_cap_is_a_student_s_credit(on_azure: Azure, cli: Cli) -> None:
    said = cli("submit", "--name", "large-run", "--time-limit", "200h", "--yes", code=5)
    assert "$100.00 of the $100.00 cap is free" in said.err
    assert len(on_azure.jobs) == 0


def test_a_typed_in_balance_is_the_limit_from_then_on(on_azure: Azure, cli: Cli, home: Path) -> None:
    said = cli("budget", "set", "--azure-balance", 2.5, "--azure-credit-ends", "2031-08-31")
    assert "azure: $2.50 of the credit left" in said.out
    assert "the credit ends on 2031-08-31" in said.out
    assert "$2.50 of the $2.50 credit is free" in cli("submit", "--time-limit", "9h", "--yes", code=5).err
    cli("submit", "--name", "small-run", "--yes", "-q")
    assert until_over(cli, "small-run") == "complete"
    account = next(one for one in cli("budget", "--json").json["accounts"] if one["name"] == "azure")
    assert account["credit_usd"] == pytest.approx(2.5 - account["spent_usd"])
    cli("budget", "set", "--azure-credit-ends", "2026-01-01")
    assert "the credit ends on 2026-01-01" in cli("submit", "--yes", code=5).err
    check_books(home, on_azure)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cap-usd", "5"), "budget set NAME"),
        (("kaggle", "--azure-balance", "5"), "not to kaggle"),
        (("--azure-credit-ends", "31.8.2027"), "31.8.2027"),
        (("--azure-balance", "much"), "much"),
    ],
)
def test_a_wrong_budget_is_refused(project: Path, cli: Cli, words: tuple[str, ...], said: str) -> None:
    assert said in cli("budget", "set", *words, code=2).err


def test_the_cluster_must_be_the_one_that_was_priced(on_azure: Azure, cli: Cli) -> None:
    for setting, said in (("size=Standard_NC8as_T4_v3", "targets.azure.size"), ("tier=low_priority", "azure.tier"),
                          ("nodes=3", "targets.azure.nodes"), ("idle=1m", "targets.azure.idle")):  # fmt: skip
        refused = cli("submit", "--yes", "--set", f"targets.azure.{setting}", code=5).err
        assert said in refused
    assert "there is no cluster 'other'" in cli("submit", "--yes", "--set", "targets.azure.cluster=other", code=5).err
    assert len(on_azure.jobs) == 0


def test_a_missing_pack_is_refused_before_the_submit(on_azure: Azure, cli: Cli) -> None:
    said = cli("submit", "--yes", "--set", "targets.azure.pack=azureml:nothing:1", code=5)
    assert "data push --target azure" in said.err


def test_a_leg_keeps_its_workspace_and_price_when_the_settings_change(busy: Azure, cli: Cli, home: Path) -> None:
    cli("submit", "--name", "kept-run", "--yes", "-q")
    wait_for(lambda: cli("show", "kept-run", "--json").json["epoch"] >= 1)
    (home / "azure").mkdir(exist_ok=True)
    price = {"size": "Standard_NC4as_T4_v3", "region": "westeurope", "usd_per_hour": 50.0, "kind": "dedicated",
             "date": "2026-11-25", "source": "a test"}  # fmt: skip
    (home / "azure" / "prices.json").write_text(json.dumps({"schema": 1, "date": "2026-11-25", "prices": [price]}))
    Path("boneage.toml").write_text('target = "azure"\ntargets.azure.resource_group = "elsewhere"\n')
    assert cli("show", "kept-run", "--json").json["state"] == "running"
    cli("stop", "kept-run", "--yes", "-q")
    assert leg_of(cli, "kept-run")["state"] == "paused"
    assert 0 < float(str(leg_of(cli, "kept-run")["spent_usd"])) < 1
    check_books(home, busy)


# ------------------------------------------------------------------------------------- doubt and faults
@pytest.mark.parametrize("kind", ["500_after", "reset_after"])
def test_a_lost_answer_is_found_again(on_azure: Azure, cli: Cli, home: Path, kind: str) -> None:
    on_azure.faults.append(Fault("PUT jobs/*", kind))
    cli("submit", "--name", "found-run", "-q", "--yes")
    assert until_over(cli, "found-run") == "complete"
    check_books(home, on_azure)


def test_a_job_that_appears_late_is_attached_and_never_created_twice(busy: Azure, cli: Cli, home: Path) -> None:
    """The PUT does its work, but its answer and the first looks are lost."""
    busy.faults += [Fault("PUT jobs/*", "500_after", times=10), Fault("GET jobs/*", "500", times=40, after=1)]
    assert "boneagectl ls" in cli("submit", "--name", "late-run", "--yes", code=11).err
    assert cli("ls", "--json").json["runs"][0]["state"] == "reserved"
    check_books(home, busy)
    busy.faults.clear()
    assert cli("ls", "--json").json["runs"][0]["state"] == "queued"
    assert list(busy.jobs.all) == ["late-run-01"]
    check_books(home, busy)


def test_a_job_that_was_never_created_is_released_after_the_deadline(
    busy: Azure, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy.faults.append(Fault("PUT jobs/*", "500", times=10))
    cli("submit", "--name", "lost-run", "--yes", code=11)
    assert cli("ls", "--json").json["runs"][0]["state"] == "reserved"
    import time

    now_s = time.time
    monkeypatch.setattr("boneagectl.runs.time.time", lambda: now_s() + 601)
    assert cli("ls", "--json").json["runs"][0]["state"] == "released"
    check_books(home, busy)


@pytest.mark.parametrize(
    ("fault", "said", "code"),
    [
        (Fault("PUT jobs/*", "403", code="RequestDisallowedByAzure", text="Not in this region."), "refused the job", 9),
        (Fault("PUT jobs/*", "401", times=3), "401", 8),
        (Fault("PUT jobs/*", "409", code="Conflict", text="Somebody else."), "409", 9),
    ],
)
def test_a_refusal_releases_the_reservation(
    busy: Azure, cli: Cli, home: Path, fault: Fault, said: str, code: int
) -> None:
    busy.faults.append(fault)
    assert said in cli("submit", "--name", "refused-run", "--yes", code=code).err
    assert cli("ls", "--json").json["runs"][0]["state"] == "released"
    check_books(home, busy)


STEPS = ("GET */computes/*", "GET data/*", "GET */data/*", "PUT jobs/*", "GET jobs/*", "POST */listSecrets", "* blob *",
         "POST jobs/*", "POST */cancel", "POST *token")  # fmt: skip
KINDS = ("429", "500", "reset", "403", "404", "409", "truncate", "500_after", "reset_after")
DOCUMENTED_CODES = (0, 2, 4, 5, 6, 8, 9, 10, 11)
"""Exit codes that a fault of the provider may lead to."""


# The SDK leaves sockets to the garbage collector where an answer was not what it should be.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", first_or_long(KINDS, ("404", "reset_after")))
def test_every_fault_at_every_step_keeps_the_ledger_consistent(
    on_azure: Azure, cli: Cli, home: Path, kind: str
) -> None:
    """Every command ends with a documented code, and a run is listed or was never created."""
    met = set()
    for at, step in enumerate(STEPS):
        name, fault = f"run-{at}", Fault(step, kind, times=1)
        on_azure.faults.append(fault)
        for command in (("submit", "--name", name, "-q", "--yes"), ("watch", name, "--once", "-q"), ("logs", name),
                        ("collect", name, "-q"), ("stop", name, "--yes", "-q")):  # fmt: skip
            cli(*command, code=DOCUMENTED_CODES)
            check_books(home, on_azure)
        met |= {step} if fault.times <= 0 else set()
        on_azure.faults.clear()
        cli("stop", name, "--yes", "-q", code=DOCUMENTED_CODES)
        cli("watch", name, "--once", "-q", code=DOCUMENTED_CODES)
        check_books(home, on_azure)
        assert on_azure.running() == []
    assert len(met) >= 5, f"only {met} were ever called: the steps have other names now"


def test_expired_keys_and_tokens_are_renewed(busy: Azure, cli: Cli, home: Path) -> None:
    from boneagectl import config, monitor
    from boneagectl.ledger import store
    from boneagectl.paths import Home
    from boneagectl.runs import Workflow

    cli("submit", "--name", "long-run", "--yes", "-q")
    wait_for(lambda: cli("show", "long-run", "--json").json["epoch"] >= 1)
    busy.token_life_s = 1
    with store.opened(home / "ledger.db") as book:
        flow = Workflow(Home(home), config.load(), book)
        run = book.find_run("long-run")
        looks = (look.seen.epoch for look in monitor.follow_run(flow, "long-run", 0.05))
        assert next(looks) >= 1
        busy.expire_sas()
        assert any(epoch >= 2 for epoch in looks)
        assert any(epoch >= 30 for epoch in looks), "longer than a token lives"
        flow.stop(run)
    check_books(home, busy)


def test_azure_s_clock_may_be_wrong(on_azure: Azure, cli: Cli, home: Path) -> None:
    on_azure.clock_skew_s = 200
    cli("submit", "--name", "skewed-run", "--yes", "-q")
    assert until_over(cli, "skewed-run") == "complete"
    assert int(str(leg_of(cli, "skewed-run")["elapsed_s"])) < 60


# ------------------------------------------------------------------------------- what a job may meet
def test_a_preempted_leg_is_lost_with_its_reason_and_can_be_resumed(busy: Azure, cli: Cli, home: Path) -> None:
    cli("submit", "--name", "cheap-run", "--yes", "-q")
    wait_for(lambda: cli("show", "cheap-run", "--json").json["epoch"] >= 2)
    busy.preempt("cheap-run-01")
    assert until_over(cli, "cheap-run", code=4) == "lost"
    leg = leg_of(cli, "cheap-run")
    assert "preempted" in str(leg["reason"])
    assert 0 < float(str(leg["spent_usd"])) < 1
    cli("resume", "cheap-run", "--yes", "-q")
    wait_for(lambda: cli("show", "cheap-run", "--json").json["epoch"] >= 3)
    cli("stop", "cheap-run", "--yes", "-q")
    check_books(home, busy)


def test_a_node_that_is_lost(busy: Azure, cli: Cli, home: Path) -> None:
    cli("submit", "--name", "torn-run", "--yes", "-q")
    wait_for(lambda: cli("show", "torn-run", "--json").json["epoch"] >= 1)
    busy.lose_node("torn-run-01")
    assert until_over(cli, "torn-run", code=4) == "lost"
    assert "NodeLost" in str(leg_of(cli, "torn-run")["reason"])
    check_books(home, busy)


def test_an_exhausted_quota_is_the_reason_of_a_waiting_job_and_costs_little(busy: Azure, cli: Cli, home: Path) -> None:
    busy.quota[FAMILY] = 0
    cli("submit", "--name", "waiting-run", "--yes", "-q")
    wait_for(lambda: "exceeding quota limits" in cli("watch", "waiting-run", "--once").err)
    assert busy.running() == []
    cli("stop", "waiting-run", "--yes", "-q")
    leg = leg_of(cli, "waiting-run")
    assert leg["state"] == "lost"
    assert float(str(leg["spent_usd"])) < 0.2, "it never ran: a start-up is counted, not all that was booked"
    check_books(home, busy)


def test_an_unknown_duration_settles_at_the_full_reservation(busy: Azure, cli: Cli, home: Path) -> None:
    """A queued job is canceled, it wrote nothing, and its history does not answer."""
    busy.queue_forever = True
    cli("submit", "--name", "mute-run", "--yes", "-q")
    busy.faults.append(Fault("*details*", "500", times=100))
    cli("stop", "mute-run", "--yes", "-q")
    leg = leg_of(cli, "mute-run")
    assert leg["spent_usd"] == leg["reserved_usd"]
    check_books(home, busy)


def test_an_image_that_may_not_be_built(on_azure: Azure, cli: Cli, home: Path) -> None:
    """By default none is built; where a person names one that must be, the reason comes through."""
    on_azure.image_builds = False
    cli("submit", "--name", "plain-run", "--yes", "-q")
    assert until_over(cli, "plain-run") == "complete"
    place = next(one["id"] for one in on_azure.arm.resources.values() if one["name"] == "boneagectl")
    mine = {"image": "mcr.microsoft.com/azureml/base", "condaFile": "dependencies: [keras]"}
    on_azure.workspaces.add(f"{place}/environments/mine/versions/1", "environments", mine)
    cli("submit", "--name", "built-run", "--yes", "-q", "--set", "targets.azure.environment=azureml:mine:1")
    assert until_over(cli, "built-run", code=4) == "failed"
    assert "ImageBuildFailure" in str(leg_of(cli, "built-run")["reason"])
    check_books(home, on_azure)


def test_the_end_of_the_credit(busy: Azure, cli: Cli, home: Path) -> None:
    cli("submit", "--name", "last-run", "--yes", "-q")
    wait_for(lambda: cli("show", "last-run", "--json").json["epoch"] >= 1)
    busy.end_credit()
    assert until_over(cli, "last-run", code=4) == "lost"
    assert "subscription: " in cli("submit", "--name", "next-run", "--yes", code=5).err
    assert "the subscription is Disabled" in cli("doctor", "--target", "azure", code=3).out
    check_books(home, busy)


# ---------------------------------------------------------------------------------------------- stop
def test_stop_saves_and_waits_until_nothing_is_billed(busy: Azure, cli: Cli, home: Path) -> None:
    busy.clock_rate = 60  # two minutes of being idle take two seconds
    cli("submit", "--name", "stopped-run", "--yes", "-q")
    wait_for(lambda: cli("show", "stopped-run", "--json").json["epoch"] >= 2)
    said = cli("stop", "stopped-run", "--yes")
    assert "still up and billed" in said.err
    cluster = next(iter(busy.computes.clusters.values()))
    assert cluster.shown()["properties"]["properties"]["currentNodeCount"] == 0
    assert leg_of(cli, "stopped-run")["state"] == "paused"
    folder = RunFolder(Path(cli("collect", "stopped-run").out.strip()))
    assert len(folder.metrics.read_text().splitlines()) >= 2
    check_books(home, busy)


def test_nodes_that_are_not_released_are_reported(busy: Azure, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("submit", "--name", "sticky-run", "--yes", "-q")
    wait_for(lambda: cli("show", "sticky-run", "--json").json["epoch"] >= 1)
    busy.clock_rate = 0.01  # from now on idle nodes stay for hours
    monkeypatch.setattr("boneagectl.targets.azure._RELEASE_S", -119.5)
    said = cli("stop", "sticky-run", "--yes", code=9)
    assert "still up and billed" in said.err
    assert "infra down" in said.err


# ---------------------------------------------------------------------------------------------- data
def test_a_pack_is_registered_once_and_no_other_file_is_uploaded(on_azure: Azure, project: Path, cli: Cli) -> None:
    for name in ("images.npy", "index.csv", "problems.csv"):
        (project / "pack" / name).write_bytes(b"x" * 1000)
    (project / "pack" / ".env").write_text("SECRET=1")
    card = json.loads((project / "pack" / "pack.json").read_text())
    card["fingerprint"] = "ab" * 32
    (project / "pack" / "pack.json").write_text(json.dumps(card))
    assert cli("data", "push", "pack", "--target", "azure", "-q", code=7).out == ""
    ref = cli("data", "push", "pack", "--target", "azure", "--yes", "-q").out.strip()
    assert ref == "azureml:boneage-pack-abababababab:1"
    uploads = [call for call in on_azure.calls if "blob" in call and call.startswith("PUT")]
    assert cli("data", "push", "pack", "--target", "azure", "--yes", "-q").out.strip() == ref
    assert [call for call in on_azure.calls if "blob" in call and call.startswith("PUT")] == uploads
    assert not [call for call in on_azure.calls if ".env" in call]
    cli("submit", "--name", "pushed-run", "--yes", "-q")
    assert until_over(cli, "pushed-run") == "complete"


# --------------------------------------------------------------------------------------------- spend
def test_azure_s_own_count_and_its_difference_to_ours_are_shown(on_azure: Azure, cli: Cli) -> None:
    assert cli("budget", "--json").json["bills"] == {}, "nothing was ever spent there: no request"
    assert on_azure.calls == []
    cli("submit", "--name", "paid-run", "--yes", "-q")
    assert until_over(cli, "paid-run") == "complete"
    on_azure.money.extra_usd.append((20261124, "Storage", 1.25))
    said = cli("budget")
    assert "azure reports since" in said.out
    assert "Storage $1.25" in said.out
    assert "more" in said.out
    bill = cli("budget", "--json").json["bills"]["azure"]
    assert bill["usd"] >= 1.25
    on_azure.costs_are_available = False
    assert "offer type" in cli("budget").err


def test_a_higher_bill_is_booked_once_and_a_lower_one_when_it_is_complete(
    on_azure: Azure, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def booked() -> float:
        (line,) = cli("budget", "reconcile", "--json").json["accounts"]
        return float(line["booked_usd"])

    cli("submit", "--name", "paid-run", "--yes", "-q")
    assert until_over(cli, "paid-run") == "complete"
    before = account_of(cli)["spent_usd"]
    on_azure.money.extra_usd.append((20261124, "Storage", 1.25))
    more = booked()
    assert 0 < more <= 1.25, "a part of it our own count, which is the worst case, had already"
    assert booked() == 0
    assert account_of(cli)["spent_usd"] == pytest.approx(before + more)
    on_azure.costs_lag = 0.9
    monkeypatch.setattr("boneagectl.targets.azure.billing.LATE_S", 10 * 86_400)
    on_azure.money.extra_usd.clear()
    late = booked()
    monkeypatch.setattr("boneagectl.targets.azure.billing.LATE_S", 0)
    assert -more <= late < 0, "a leg of today may not be in the bill yet: only what was booked for one is given back"
    less = booked()
    assert less < 0
    assert account_of(cli)["spent_usd"] == pytest.approx(before + more + late + less)
    assert [line["kind"] for line in entries(cli)].count("reconciled") == 4
    assert sum(line["usd"] for line in entries(cli)) == pytest.approx(account_of(cli)["spent_usd"])
    assert "by the provider's bill" in cli("budget").out


def entries(cli: Cli) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli("budget", "export", "--format", "json", "--account", "azure").json["entries"]
    return found


def account_of(cli: Cli) -> dict[str, float]:
    return next(one for one in cli("budget", "--json").json["accounts"] if one["name"] == "azure")


def test_secrets_stay_in_memory(on_azure: Azure, cli: Cli, home: Path) -> None:
    said = [cli("submit", "--name", "quiet-run", "--yes")]
    assert until_over(cli, "quiet-run") == "complete"
    said += [cli("collect", "quiet-run"), cli("show", "quiet-run", "--json"), cli("doctor", "--target", "azure")]
    files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    everything = b"".join(files) + "".join(one.out + one.err for one in said).encode()
    for secret in (on_azure.login.secret, "sig=", "eyJ", on_azure.blobs.key):
        assert secret.encode() not in everything


def test_default_outputs_of_a_job_are_collected_too(on_azure: Azure, cli: Cli) -> None:
    cli("submit", "--name", "other-run", "--yes", "-q")
    assert until_over(cli, "other-run") == "complete"
    job = on_azure.jobs["other-run-01"]
    place = on_azure.workspaces.artifacts(job.workspace, job.name)
    on_azure.blobs.put(place.account, place.container, f"{place.path}/outputs/deep/extra.txt", b"left there")
    folder = Path(cli("collect", "other-run").out.strip())
    assert (folder / "outputs" / "deep" / "extra.txt").read_bytes() == b"left there"
    on_azure.blobs.put(place.account, place.container, f"{place.path}/outputs/../up.txt", b"no")
    assert "points outside its folder" in cli("collect", "other-run", code=3).err
