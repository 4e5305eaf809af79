"""The commands with `--target kaggle`: booked before pushed, in doubt kept, counted by the week."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from boneagectl.ledger.store import opened
from boneagectl.models import LegState
from emulators.kaggle import Fault, Kaggle
from support import KAGGLE_PACK, Cli, environment, first_or_long, make_pack, wait_for

Submit = Callable[..., str]


@pytest.fixture
def on_kaggle(project: Path, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> Kaggle:
    """A project whose legs go to the emulator."""
    (project / "boneage.toml").write_text(
        f'target = "kaggle"\ntime_limit = "2h"\ntrain.epochs = 3\ntargets.kaggle.dataset = "{KAGGLE_PACK}"\n'
        'targets.kaggle.username = "alice"\n'
    )
    monkeypatch.setenv("FAKE_EPOCH_S", "0.05")
    return kaggle


@pytest.fixture
def busy(on_kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> Kaggle:
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    return on_kaggle


def check_books(home: Path, kaggle: Kaggle) -> None:
    """The ledger, Kaggle's list of kernels and what runs there agree."""
    with opened(home / "ledger.db") as ledger:
        legs = [leg for run in ledger.runs() for leg in run.legs]
        account = ledger.account("kaggle")
    open_legs = [leg for leg in legs if not leg.state.is_over]
    assert account.reserved_s == sum(leg.time_limit_s for leg in open_legs)
    assert set(kaggle.running()) <= {leg.leg_id for leg in open_legs}
    assert set(kaggle.kernels) <= {leg.leg_id for leg in legs if leg.state is not LegState.RELEASED}


def until_over(cli: Cli, name: str) -> str:
    def is_over() -> bool:
        return cli("watch", name, "--once", "--json", "-q").json["snapshot"]["state"] in ("complete", "paused")

    wait_for(is_over)
    return str(cli("show", name, "--json").json["state"])


# ------------------------------------------------------------------------------------- the whole way
def test_from_submit_to_the_folder(on_kaggle: Kaggle, cli: Cli, home: Path) -> None:
    said = cli("submit", "--name", "first-run")
    assert "limit    ok      quota: " in said.err
    assert "limit    ok      account: Kaggle user alice" in said.err
    cli("watch", "first-run", "--every", 0.1)
    shown = cli("show", "first-run", "--json").json
    assert (shown["state"], shown["epoch"], shown["epochs"]) == ("complete", 3, 3)
    assert shown["legs"][0]["handle"].endswith("https://www.kaggle.com/code/alice/first-run-01")
    folder = Path(cli("collect", "first-run").out.strip())
    assert {"metrics.jsonl", "model.keras", "train.log", "MANIFEST.json"} <= {path.name for path in folder.iterdir()}
    assert "epoch" in cli("logs", "first-run").out
    check_books(home, on_kaggle)


def test_a_run_without_a_pack_here(on_kaggle: Kaggle, project: Path, cli: Cli) -> None:
    (project / "pack" / "pack.json").unlink()
    said = cli("submit", "--dry-run", "--name", "unseen-run", "--set", "data.image_size_px=96", "--json").json
    assert said["plan"]["spec"]["data"] == {"fingerprint": "", "count": 0, "image_size_px": 96}
    assert "'fingerprint': ''" in (project / "unseen-run-01" / "kernel.py").read_text()


def test_what_a_dry_run_writes_is_what_is_sent_and_asks_nobody(on_kaggle: Kaggle, cli: Cli, project: Path) -> None:
    cli("submit", "--dry-run", "--name", "shown-run")
    assert on_kaggle.calls == []
    shown = (project / "shown-run-01" / "kernel.py").read_text()
    cli("submit", "--name", "shown-run", "-q")
    assert on_kaggle.kernels["shown-run-01"].source == shown
    sent = on_kaggle.kernels["shown-run-01"].request
    assert sent["sessionTimeoutSeconds"] == 7200
    assert (sent["isPrivate"], sent.get("enableInternet", False), sent["machineShape"]) == (
        True,
        False,
        "NvidiaTeslaT4",
    )


def test_the_folder_of_a_dry_run_is_pushed_by_kaggle_s_own_tool(on_kaggle: Kaggle, cli: Cli, project: Path) -> None:
    cli("submit", "--dry-run", "--name", "by-hand-run")
    command = [sys.executable, "-m", "kaggle", "kernels", "push", "-p", "by-hand-run-01", "-t", "7200"]
    done = subprocess.run(
        command, cwd=project, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "successfully pushed" in done.stdout
    kernel = on_kaggle.kernels["by-hand-run-01"]
    assert kernel.source == (project / "by-hand-run-01" / "kernel.py").read_text()
    wait_for(lambda: kernel.sessions[0].status == "COMPLETE")


def test_rehearsing_runs_the_very_script_here(
    on_kaggle: Kaggle, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BONEAGECTL_TARGETS__LOCAL__PYTHON", sys.executable)
    findings = cli("rehearse", "--json", "--set", "train.preset=smoke").json["findings"]
    held = [finding["what"] for finding in findings if finding["level"] == "ok"]
    assert held == ["data", "script", "outputs"]
    assert "GPU" in " ".join(finding["detail"] for finding in findings)
    assert on_kaggle.calls == []
    assert not home.exists() or not (home / "runs").exists()


def test_a_rehearsal_that_fails_says_where(on_kaggle: Kaggle, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONEAGECTL_TARGETS__LOCAL__PYTHON", "/bin/false")
    assert "/bin/false cannot run boneage_trainer.data.synth" in cli("rehearse", code=3).err


def test_this_machine_has_nothing_to_rehearse(project: Path, cli: Cli) -> None:
    assert "train check" in cli("rehearse", code=2).err


# ---------------------------------------------------------------------------------------- limits
def test_hours_are_booked_before_and_settled_after(on_kaggle: Kaggle, cli: Cli, home: Path) -> None:
    on_kaggle.stuck_in_queue = True
    cli("submit", "--name", "booked-run", "-q")
    account = next(one for one in cli("budget", "--json").json["accounts"] if one["name"] == "kaggle")
    assert (account["reserved_s"], account["quota_s"]) == (7200, 30 * 3600)
    assert account["refresh"]
    on_kaggle.stuck_in_queue = False
    assert until_over(cli, "booked-run") == "complete"
    said = cli("budget")
    assert "kaggle's own count" in said.out
    assert "of quota left until" in said.out
    check_books(home, on_kaggle)


@pytest.mark.parametrize(
    ("used_hours", "words"), [(29, "1 h 00 min of the 30 h 00 min quota"), (30, "0 s of the 30 h 00 min quota")]
)
def test_what_does_not_fit_the_quota_is_never_pushed(
    on_kaggle: Kaggle, cli: Cli, home: Path, used_hours: int, words: str
) -> None:
    on_kaggle.quota_used_s = used_hours * 3600
    said = cli("submit", "--name", "large-run", "--time-limit", "12h", code=5)
    assert words in said.err
    assert on_kaggle.kernels == {}
    assert cli("ls", "--json").json["runs"] == []


def test_a_limit_that_is_only_a_wish_is_cut_to_the_hours_that_are_left(on_kaggle: Kaggle, cli: Cli, home: Path) -> None:
    on_kaggle.quota_used_s = 29 * 3600
    said = cli("submit", "--name", "short-run")
    assert "reduced to 1 h 00 min" in said.err
    (session,) = on_kaggle.kernels.all_sessions
    assert session.machine.limit_s == 3600, "what Kaggle itself enforces"
    check_books(home, on_kaggle)


def test_a_session_longer_than_kaggle_s_is_refused(on_kaggle: Kaggle, cli: Cli) -> None:
    assert "12 h at most" in cli("submit", "--time-limit", "13h", code=5).err
    assert on_kaggle.kernels == {}


def test_a_data_set_that_is_not_there(on_kaggle: Kaggle, cli: Cli) -> None:
    said = cli("submit", "--set", "targets.kaggle.dataset=alice/nothing-here", code=5)
    assert "kaggle.com/datasets/alice/nothing-here" in said.err
    assert on_kaggle.kernels == {}


def test_two_at_once_never_overbook_the_week(busy: Kaggle, cli: Cli, home: Path, project: Path) -> None:
    cli("budget", "set", "kaggle", "--cap-hours", 3)
    command = [sys.executable, "-m", "boneagectl", "submit", "-q", "--name"]
    racers = [
        subprocess.Popen([*command, f"racer-{at}"], env=environment(), cwd=project, stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for at in range(3)
    ]  # fmt: skip
    assert sorted(racer.wait(60) for racer in racers) == [0, 5, 5]
    check_books(home, busy)


# ------------------------------------------------------------------------------------------ doubt
@pytest.mark.parametrize("kind", ["500_after", "reset_after", "hang_after"])
def test_a_lost_answer_is_found_again(
    on_kaggle: Kaggle, cli: Cli, home: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boneagectl.targets.http.TIMEOUT_S", (1.0, 0.5))
    on_kaggle.faults.append(Fault("SaveKernel", kind))
    cli("submit", "--name", "found-run", "-q")
    assert until_over(cli, "found-run") == "complete"
    assert on_kaggle.calls.count("SaveKernel") == 1
    check_books(home, on_kaggle)


def test_what_arrives_late_is_attached_and_never_pushed_twice(busy: Kaggle, cli: Cli, home: Path) -> None:
    """The push does its work but the answer and the first looks are lost."""
    busy.faults += [Fault("SaveKernel", "500_after"), Fault("GetKernel", "500", times=20)]
    said = cli("submit", "--name", "late-run", code=11)
    assert "boneagectl ls" in said.err
    assert cli("ls", "--json").json["runs"][0]["state"] == "reserved"
    check_books(home, busy)
    busy.faults.clear()
    assert cli("ls", "--json").json["runs"][0]["state"] == "queued"
    assert busy.calls.count("SaveKernel") == 1
    check_books(home, busy)


def test_what_never_arrives_is_released_when_it_no_longer_can(
    busy: Kaggle, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy.faults.append(Fault("SaveKernel", "500"))
    cli("submit", "--name", "lost-run", code=11)
    assert cli("ls", "--json").json["runs"][0]["state"] == "reserved"
    import time

    now_s = time.time
    monkeypatch.setattr("boneagectl.runs.time.time", lambda: now_s() + 601)
    assert cli("ls", "--json").json["runs"][0]["state"] == "released"
    check_books(home, busy)


def test_a_refusal_gives_the_booking_back(busy: Kaggle, cli: Cli, home: Path) -> None:
    busy.faults.append(Fault("SaveKernel", "refuse", text="Maximum batch GPU session count of 2 reached."))
    said = cli("submit", "--name", "refused-run", code=5)
    assert "Maximum batch GPU session count" in said.err
    assert cli("ls", "--json").json["runs"][0]["state"] == "released"
    check_books(home, busy)


STEPS = ("IntrospectToken", "ListKernels", "GetDatasetStatus", "GetAcceleratorQuotaStatistics", "SaveKernel",
         "GetKernelSessionStatus", "stream", "ListKernelSessionOutput", "download", "DeleteKernel")  # fmt: skip
IN_WORDS = (0, 2, 4, 5, 6, 8, 9, 10, 11)
"""Every documented way to end that a fault of the other side may lead to."""
KINDS = ("429", "500", "hang", "reset", "refuse", "403", "404", "truncate", "500_after", "reset_after")


@pytest.mark.parametrize("kind", first_or_long(KINDS, ("refuse", "403", "404", "reset_after")))
def test_every_fault_at_every_step_leaves_the_books_right(
    on_kaggle: Kaggle, cli: Cli, home: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever each command then answers, in words of its own: a run is listed, or never came to be."""
    monkeypatch.setattr("boneagectl.targets.http.TIMEOUT_S", (0.5, 0.3))
    for at, step in enumerate(STEPS if kind != "refuse" else ("SaveKernel", "DeleteKernel")):
        name = f"run-{at}"
        on_kaggle.faults.append(Fault(step, kind, times=1))
        for command in (("submit", "--name", name, "-q"), ("watch", name, "--once", "-q"), ("logs", name),
                        ("collect", name, "-q"), ("stop", name, "--yes", "-q")):  # fmt: skip
            cli(*command, code=IN_WORDS)
            check_books(home, on_kaggle)
        on_kaggle.faults.clear()
        cli("watch", name, "--once", "-q", code=IN_WORDS)
        cli("stop", name, "--yes", "-q", code=IN_WORDS)
        check_books(home, on_kaggle)
        assert on_kaggle.running() == []


# ------------------------------------------------------------------------------------------- stop
def test_stop_says_what_it_costs_and_asks(busy: Kaggle, cli: Cli, home: Path) -> None:
    cli("submit", "--name", "stopped-run", "-q")
    wait_for(lambda: cli("show", "stopped-run", "--json").json["epoch"] >= 2)
    said = cli("stop", "stopped-run", code=7)
    assert "only by deleting it" in said.err
    assert busy.running() == ["stopped-run-01"]
    cli("stop", "stopped-run", "--yes")
    shown = cli("show", "stopped-run", "--json").json
    assert (shown["state"], shown["epoch"] >= 2) == ("lost", True)
    assert busy.kernels == {}
    folder = Path(cli("collect", "stopped-run").out.strip())
    assert len((folder / "metrics.jsonl").read_text().splitlines()) >= 2
    check_books(home, busy)


# ------------------------------------------------------------------------------------------- data
def test_a_pack_is_pushed_once_and_then_trained_on(on_kaggle: Kaggle, project: Path, cli: Cli) -> None:
    for name in ("images.npy", "index.csv", "problems.csv"):
        (project / "pack" / name).write_bytes(b"x" * 1000)
    ref = cli("data", "push", "pack", "--yes", "-q").out.strip()
    assert ref == "alice/boneage-pack-9eab9eab9eab"
    uploads = on_kaggle.calls.count("CreateDataset")
    assert cli("data", "push", "pack", "--yes", "-q").out.strip() == ref
    assert on_kaggle.calls.count("CreateDataset") == uploads == 1
    assert sorted(path.name for path in (project / "pack").iterdir()) == [
        "images.npy", "index.csv", "pack.json", "problems.csv"]  # fmt: skip
    cli("submit", "--name", "pushed-run", "-q", "--set", f"targets.kaggle.dataset={ref}")
    assert until_over(cli, "pushed-run") == "complete"


def test_fetch_shows_the_terms_once_and_wants_an_answer(on_kaggle: Kaggle, cli: Cli, tmp_path: Path) -> None:
    tree = tmp_path / "hands"
    make_pack(tree)
    on_kaggle.add_dataset("kmader/rsna-bone-age", tree)
    asked = cli("data", "fetch", tmp_path / "fetched", code=7)
    assert "non-commercial" in asked.err
    assert not (tmp_path / "fetched").exists()
    said = cli("data", "fetch", tmp_path / "fetched", "--yes")
    assert "non-commercial" in said.err
    assert json.loads((tmp_path / "fetched" / "pack.json").read_text())["labelled"]
    assert "non-commercial" not in cli("data", "fetch", tmp_path / "fetched").err


def test_fetch_needs_room(on_kaggle: Kaggle, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pack(tmp_path / "hands")
    on_kaggle.add_dataset("alice/hands", tmp_path / "hands")
    monkeypatch.setattr("boneagectl.targets.kaggle.client.KaggleApi.dataset_bytes", lambda *_: 10**18)
    said = cli("data", "fetch", tmp_path / "fetched", "--dataset", "alice/hands", "--yes", code=3)
    assert "free" in said.err


# ------------------------------------------------------------------------------- without credentials
def test_without_credentials_the_other_commands_work_and_say_nothing(
    on_kaggle: Kaggle, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    said = cli("budget")
    assert "count" not in said.out + said.err
    assert on_kaggle.calls == []
    assert "no Kaggle credentials" in cli("submit", code=8).err
    assert "no Kaggle credentials" in cli("doctor", "--target", "kaggle", code=3).out


def test_nothing_here_can_reach_the_internet() -> None:
    """The guard in conftest.py: without it, a wrong setting would have the real Kaggle called."""
    import requests

    with pytest.raises(requests.ConnectionError, match="only loopback"):
        requests.get("https://api.kaggle.com/v1/", timeout=5)
