"""Runs longer than a session: watch passes them on, as often as was agreed, and no epoch is trained twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boneagectl import monitor
from boneagectl.config import load
from boneagectl.ledger.store import opened
from boneagectl.paths import Home
from boneagectl.runs import Workflow
from emulators.kaggle import Fault, Kaggle
from support import KAGGLE_PACK, Cli, end_leg, wait_for


@pytest.fixture
def slow(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose trainings take six short epochs."""
    (project / "boneage.toml").write_text('train.epochs = 6\ntime_limit = "1h"\n')
    monkeypatch.setenv("FAKE_EPOCHS", "6")
    monkeypatch.setenv("FAKE_EPOCH_S", "0.3")
    return project


def on_kaggle_too(project: Path) -> None:
    (project / "boneage.toml").write_text(
        f'train.epochs = 6\ntime_limit = "1h"\ntargets.kaggle.dataset = "{KAGGLE_PACK}"\n'
        'targets.kaggle.username = "alice"\n'
    )


def epochs_of(cli: Cli, run: str) -> list[int]:
    folder = Path(cli("collect", run).out.strip())
    return [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def at_work(cli: Cli, run: str, epoch: int) -> None:
    wait_for(lambda: cli("show", run, "--json").json["epoch"] >= epoch)


def lose(cli: Cli, home: Path, leg: str) -> None:
    """Its machine goes down."""
    end_leg(home, leg)
    wait_for(lambda: cli("show", leg.rpartition("-")[0], "--json").json["state"] == "lost")


def test_watch_passes_a_lost_leg_on(slow: Path, cli: Cli, home: Path) -> None:
    said = cli("submit", "--name", "long-run", "--legs", 3)
    assert "legs     up to 3, on local: at most 3 h 00 min and $0.00 in total" in said.err
    at_work(cli, "long-run", 2)
    lose(cli, home, "long-run-01")
    said = cli("watch", "long-run", "--once")
    assert "continues as long-run-02 on local" in said.err
    said = cli("watch", "long-run", "--every", 0.1)
    shown = cli("show", "long-run", "--json").json
    assert (shown["state"], len(shown["legs"])) == ("complete", 2)
    assert epochs_of(cli, "long-run") == [1, 2, 3, 4, 5, 6]


def test_it_ends_with_the_legs_that_were_agreed(slow: Path, cli: Cli, home: Path) -> None:
    cli("submit", "--name", "long-run", "--legs", 2, "-q")
    for leg in ("long-run-01", "long-run-02"):
        wait_for(lambda: cli("show", "long-run", "--json").json["epoch"] >= 1)
        lose(cli, home, leg)
        cli("watch", "long-run", "--once", "-q", code=(0, 4))
    assert len(cli("show", "long-run", "--json").json["legs"]) == 2
    assert cli("watch", "long-run", "--once", code=4).err


def test_a_run_that_was_stopped_by_hand_stays_stopped(slow: Path, cli: Cli, home: Path) -> None:
    cli("submit", "--name", "long-run", "--legs", 5, "-q")
    at_work(cli, "long-run", 1)
    cli("stop", "long-run", "--yes", "-q")
    cli("watch", "long-run", "--once")
    assert len(cli("show", "long-run", "--json").json["legs"]) == 1
    with opened(home / "ledger.db") as ledger:
        assert ledger.relay("long-run") is None


def test_a_fault_of_its_own_is_not_repeated(slow: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "fail")
    cli("submit", "--name", "broken-run", "--legs", 5, "-q")
    cli("watch", "broken-run", "--every", 0.1, code=4)
    assert len(cli("show", "broken-run", "--json").json["legs"]) == 1


def test_where_the_first_choice_is_full_the_next_one_takes_it_and_goes_on_from_the_same_epoch(
    slow: Path, kaggle: Kaggle, cli: Cli, home: Path
) -> None:
    on_kaggle_too(slow)
    kaggle.quota_used_s = 30 * 3600
    cli("submit", "--name", "moving-run", "--legs", 4, "--then", "kaggle,local", "-q")
    at_work(cli, "moving-run", 2)
    lose(cli, home, "moving-run-01")
    said = cli("watch", "moving-run", "--once")
    assert "not on kaggle: " in said.err
    assert "continues as moving-run-02 on local" in said.err
    at_work(cli, "moving-run", 3)
    kaggle.quota_used_s = 0
    lose(cli, home, "moving-run-02")
    assert "continues as moving-run-03 on kaggle" in cli("watch", "moving-run", "--once").err
    cli("watch", "moving-run", "--every", 0.1)
    shown = cli("show", "moving-run", "--json").json
    assert [leg["target"] for leg in shown["legs"]] == ["local", "local", "kaggle"]
    assert shown["state"] == "complete"
    assert epochs_of(cli, "moving-run") == [1, 2, 3, 4, 5, 6]


def test_nobody_takes_it_and_it_is_tried_again(slow: Path, kaggle: Kaggle, cli: Cli, home: Path) -> None:
    on_kaggle_too(slow)
    kaggle.faults.append(Fault("SaveKernel", "refuse", times=1, text="Maximum batch GPU session count of 2 reached."))
    cli("submit", "--name", "waiting-run", "--legs", 3, "--then", "kaggle", "-q")
    at_work(cli, "waiting-run", 1)
    lose(cli, home, "waiting-run-01")
    said = cli("watch", "waiting-run", "--once", code=(0, 4))
    assert "no target accepted the next leg" in said.err
    assert "continues as waiting-run-03 on kaggle" in cli("watch", "waiting-run", "--once", code=(0, 4)).err


def test_one_that_refuses_what_was_booked_already_is_passed_over(
    slow: Path, kaggle: Kaggle, cli: Cli, home: Path
) -> None:
    on_kaggle_too(slow)
    kaggle.faults.append(Fault("SaveKernel", "refuse", times=1, text="Maximum batch GPU session count of 2 reached."))
    cli("submit", "--name", "passed-run", "--legs", 2, "--then", "kaggle,local", "-q")
    at_work(cli, "passed-run", 1)
    lose(cli, home, "passed-run-01")
    said = cli("watch", "passed-run", "--once")
    assert "not on kaggle: " in said.err
    assert "continues as passed-run-03 on local" in said.err
    cli("watch", "passed-run", "--every", 0.1)
    assert epochs_of(cli, "passed-run") == [1, 2, 3, 4, 5, 6]


def test_what_a_killed_kernel_left_goes_along_to_the_next_one(slow: Path, kaggle: Kaggle, cli: Cli) -> None:
    """Kaggle attaches the output of a kernel that is complete; of one that was killed, nobody knows."""
    on_kaggle_too(slow)
    cli("submit", "--name", "killed-run", "--target", "kaggle", "--legs", 2, "-q")
    at_work(cli, "killed-run", 2)
    kaggle.preempt("killed-run-01")
    assert "continues as killed-run-02 on kaggle" in cli("watch", "killed-run", "--once").err
    cli("watch", "killed-run", "--every", 0.1)
    assert epochs_of(cli, "killed-run") == [1, 2, 3, 4, 5, 6]
    assert kaggle.kernels["killed-run-02"].request["datasetDataSources"] == [KAGGLE_PACK, "alice/killed-run-02-from"]


def test_a_relay_to_nowhere_is_refused(slow: Path, cli: Cli) -> None:
    assert "unknown target 'moon'" in cli("submit", "--legs", 2, "--then", "moon", code=2).err
    assert cli("ls", "--json").json["runs"] == []


def test_one_of_which_nobody_knows_whether_it_began_is_found_by_the_next_look(
    slow: Path, kaggle: Kaggle, cli: Cli, home: Path
) -> None:
    on_kaggle_too(slow)
    cli("submit", "--name", "doubt-run", "--legs", 2, "--then", "kaggle", "-q")
    at_work(cli, "doubt-run", 1)
    lose(cli, home, "doubt-run-01")
    kaggle.faults += [Fault("SaveKernel", "500_after"), Fault("GetKernel", "500", times=20)]
    with opened(home / "ledger.db") as book:
        flow = Workflow(Home(home), load(), book)
        assert monitor.poll_run(flow, "doubt-run").error
        assert list(kaggle.kernels) == ["doubt-run-02"], "it did begin"
        kaggle.faults.clear()
        assert not monitor.poll_run(flow, "doubt-run").error
        assert book.leg("doubt-run-02").handle
    cli("watch", "doubt-run", "--every", 0.1)
    assert [leg["state"] for leg in cli("show", "doubt-run", "--json").json["legs"]] == ["lost", "complete"]
    assert len(kaggle.kernels) == 1


def test_where_nobody_takes_it_the_next_try_is_minutes_away_however_often_one_looks(
    slow: Path, kaggle: Kaggle, cli: Cli, home: Path
) -> None:
    on_kaggle_too(slow)
    kaggle.quota_used_s = 30 * 3600
    cli("submit", "--name", "waiting-run", "--legs", 2, "--then", "kaggle", "-q")
    at_work(cli, "waiting-run", 1)
    lose(cli, home, "waiting-run-01")
    with opened(home / "ledger.db") as book:
        look = monitor.poll_run(Workflow(Home(home), load(), book), "waiting-run")
        assert (look.is_over, look.pause_s(0.1)) == (False, 600)
        assert not book.mark_notified("waiting-run-01 waits"), "it was told"
    assert kaggle.kernels == {}


def test_a_network_that_is_gone_while_a_next_leg_waits_does_not_end_the_watch(
    slow: Path, kaggle: Kaggle, cli: Cli, home: Path
) -> None:
    on_kaggle_too(slow)
    cli("submit", "--name", "patient-run", "--target", "kaggle", "--legs", 2, "-q")
    at_work(cli, "patient-run", 1)
    kaggle.preempt("patient-run-01")
    kaggle.quota_used_s = 30 * 3600
    with opened(home / "ledger.db") as book:
        flow = Workflow(Home(home), load(), book)
        assert monitor.poll_run(flow, "patient-run").must_wait
        kaggle.faults.append(Fault("*", "reset", times=50))
        look = monitor.poll_run(flow, "patient-run")
        assert look.error
        assert not look.is_over
    kaggle.faults.clear()


def test_what_is_wrong_with_one_run_keeps_no_other_from_being_watched(
    slow: Path, kaggle: Kaggle, cli: Cli, home: Path
) -> None:
    on_kaggle_too(slow)
    kaggle.stuck_in_queue = True
    cli("submit", "--name", "barred-run", "--target", "kaggle", "-q")
    cli("submit", "--name", "lost-run", "--legs", 2, "-q")
    at_work(cli, "lost-run", 1)
    lose(cli, home, "lost-run-01")
    kaggle.faults.append(Fault("*", "401", times=50))
    said = cli("watch", "--all", "--once")
    assert "cannot be polled now" in said.err
    assert "continues as lost-run-02 on local" in said.err
    kaggle.faults.clear()
