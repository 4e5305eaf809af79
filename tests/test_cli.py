"""The commands as people and scripts use them. The legs are real processes of the fake trainer."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import TrainConfig
from emulators import fake_trainer
from support import Cli, Outcome, boneagectl, environment, make_pack, starts, wait_for

SCHEMA = Path(__file__).parent / "golden" / "schema.json"
ACCEPT = "ACCEPT_GOLDEN"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that last until they are stopped."""
    monkeypatch.setenv("FAKE_EPOCHS", "1000")


@pytest.fixture
def paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONEAGECTL_TARGETS__LOCAL__USD_PER_HOUR", "0.9")


def wait_for_epoch(cli: Cli, run: str, epoch: int) -> None:
    wait_for(lambda: cli("show", run, "--json").json["epoch"] >= epoch)


# ----------------------------------------------------------------------------------- happy paths
def test_a_run_from_init_to_collect(project: Path, cli: Cli, home: Path) -> None:
    (project / "boneage.toml").unlink()
    assert cli("init", "--data", "pack").out == "boneage.toml\n"
    assert "boneagectl submit" in cli("ls").out
    started = cli("submit", "--set", "train.epochs=3", "--name", "first-run")
    assert started.out == "first-run\n"
    assert "limit    ok      cap: account local: no cap set" in started.err
    watched = cli("watch", "first-run", "--every", 0.1)
    assert watched.out == ""
    assert "complete, epoch 3/3" in watched.err.splitlines()[-1]
    assert re.search(r"^first-run +complete +3/3 +1 +local", cli("ls").out, re.MULTILINE)
    assert cli("ls", "--ids").out == "first-run\n"
    shown = cli("show").out
    assert "first-run-01" in shown
    assert "fingerprint 9eab" in shown
    logged = cli("logs").out.splitlines()
    assert logged[-4:] == [*(f"epoch {n}/3  loss {1 / n:.4f}  MAE {30 / n:.1f}  validation MAE {31 / n:.1f} months"
                             for n in (1, 2, 3)), "complete: 3 epochs"]  # fmt: skip
    assert cli("logs", "first", "-f").out.splitlines() == logged
    assert cli("logs", "--raw").out.count('BONEAGE {"epoch": ') == 3
    folder = Path(cli("collect").out.strip())
    assert folder == home / "runs" / "first-run" / "legs" / "01" / "artifacts"
    assert (folder / "model.keras").read_bytes() == b"model"
    assert "complete" in cli("stop", "last").out
    assert re.search(r"^local +\$0.00 +\$0.00 +none", cli("budget").out, re.MULTILINE)
    assert starts(home) == {"first-run-01": 1}


def test_stop_resume_and_a_second_leg(project: Path, cli: Cli, long: None, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("submit", "--name", "first-run")
    wait_for_epoch(cli, "first-run", 2)
    assert "first-run-01 is running" in cli("resume", "first-run", code=6).err
    stopped = cli("stop", "first-run", "--yes", "--json").json["snapshot"]
    assert (stopped["state"], stopped["reason"]) == ("paused", "stop")
    cli("watch", "first-run", "--once")
    monkeypatch.setenv("FAKE_EPOCHS", str(stopped["epoch"] + 2))
    resumed = cli("resume", "first-run", "--json").json
    assert resumed["plan"]["leg_number"] == 2
    cli("watch", "--every", 0.1)
    done = cli("show", "--json").json
    assert (done["state"], done["epoch"]) == ("complete", stopped["epoch"] + 2)
    assert [leg["state"] for leg in done["legs"]] == ["paused", "complete"]
    metrics = Path(cli("collect", "--json").json["folder"]) / "metrics.jsonl"
    epochs = [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()]
    assert epochs == list(range(1, stopped["epoch"] + 3))
    assert "is complete" in cli("resume", "first-run", code=2).err
    assert "boneagectl report first-run" in cli("resume", "first-run", code=2).err


@pytest.mark.parametrize("mode", ["crash", "fail", "silent"])
def test_a_run_that_fails_exits_4_and_can_be_resumed(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("FAKE_MODE", mode)
    cli("submit", "--name", "first-run")
    failed = cli("watch", "--every", 0.1, code=4)
    word = {"crash": "process is gone", "fail": "the loss is not", "silent": "no module named keras"}[mode]
    assert word in failed.err
    assert "boneagectl resume first-run" in failed.err
    cli("watch", "--once", "--json", code=4)
    monkeypatch.setenv("FAKE_MODE", "")
    cli("resume", "first-run")
    cli("watch", "--every", 0.1)
    assert cli("show", "--json").json["epoch"] == 3


def test_a_time_limit_pauses(project: Path, cli: Cli, long: None) -> None:
    cli("submit", "--time-limit", "1s")
    cli("watch", "--every", 0.1)
    seen = cli("show", "--json").json
    assert (seen["state"], seen["reason"]) == ("paused", "time_limit")


# --------------------------------------------------------------------------------------- dry run
def test_a_dry_run_writes_its_folder_and_nothing_else(project: Path, home: Path, cli: Cli) -> None:
    before = contents(project.parent)
    result = cli("submit", "--dry-run", "--name", "first-run", "--json")
    made = {name: data for name, data in contents(project.parent).items() if name not in before}
    assert set(made) == {"project/first-run-01/bundle.zip", "project/first-run-01/launch.json"}
    assert not home.exists()
    assert "nothing was reserved" in result.err
    cli("submit", "--name", "first-run")
    assert contents(project / "first-run-01") == contents(home / "runs/first-run/legs/01/sent")
    assert contents(project / "first-run-01") == contents(home / "local/first-run-01/sent")
    assert "is not an empty folder" in cli("submit", "--dry-run", "--name", "first-run", code=2).err


def test_a_dry_run_beside_a_ledger_leaves_it_alone(project: Path, home: Path, cli: Cli) -> None:
    cli("budget", "set", "local", "--cap-hours", "1")
    before = contents(home)
    shown = cli("submit", "--dry-run", "--time-limit", "2h", "--out", project / "shown").out
    assert "REFUSED cap" in shown, "a dry run shows what would be refused"
    shortened = cli("submit", "--dry-run", "--out", project / "cut", "--name", "first-run")
    assert "reduced to 1 h 00 min, which is what is left" in shortened.out
    assert "boneagectl submit --name first-run --time-limit 3600s" in shortened.err
    assert contents(home) == before


# ---------------------------------------------------------------------------------------- limits
def test_over_the_cap_is_refused_and_reserves_nothing(project: Path, home: Path, cli: Cli, paid: None) -> None:
    cli("budget", "set", "local", "--cap-usd", "1")
    refused = cli("submit", "--time-limit", "2h", "--yes", code=5)
    assert refused.out == ""
    assert "this may cost $1.80, $1.00 of the $1.00 cap is free" in refused.err
    assert cli("ls", "--json").json == {"runs": []}
    assert starts(home) == {}
    assert not (home / "runs").exists()
    account = cli("budget", "--json").json["accounts"][0]
    assert (account["cap_usd"], account["reserved_usd"], account["spent_usd"]) == (1.0, 0.0, 0.0)
    cli("submit", "--time-limit", "1h", "--yes", "--name", "first-run")
    cli("submit", "--time-limit", "30m", "--yes", code=5)


def test_caps_are_set_kept_and_removed(project: Path, cli: Cli) -> None:
    cli("budget", "set", "local", "--cap-usd", "12.50", "--cap-hours", "20")
    kept = cli("budget", "set", "local", "--cap-hours", "none", "--json").json
    assert (kept["cap_usd"], kept["cap_s"]) == (12.5, None)
    lifted = cli("budget", "set", "local", "--cap-usd", "none", "--json").json
    assert (lifted["cap_usd"], lifted["cap_s"]) == (None, None)
    for wrong in ("nan", "-1", "much", "inf"):
        cli("budget", "set", "local", "--cap-usd", wrong, code=2)
        cli("budget", "set", "local", "--cap-hours", wrong, code=2)
    assert "Did you mean 'local'" in cli("budget", "set", "locl", "--cap-usd", "1", code=2).err


def test_what_costs_is_asked_first(project: Path, home: Path, cli: Cli, paid: None) -> None:
    declined = cli("submit", code=7)
    assert "--yes" in declined.err
    assert starts(home) == {}
    assert cli("ls", "--json").json == {"runs": []}
    cli("submit", "--yes", "--name", "first-run")
    cli("watch", "--every", 0.1)
    run = cli("ls", "--json").json["runs"][0]
    assert run["legs"][0]["reserved_usd"] == 10.8


def test_stop_is_asked_first(project: Path, cli: Cli, long: None) -> None:
    cli("submit")
    cli("stop", "last", code=7)
    assert cli("show", "--json").json["state"] != "paused"
    cli("stop", "last", "-y")


# ------------------------------------------------------------------------------ the user's mistakes
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["submit", "--data", "none"], 2, "is not a pack"),
        (["submit", "--name", "Ünfit name"], 2, "invalid run name"),
        (["submit", "--name", "../../x"], 2, "invalid run name"),
        (["submit", "--name", "-x-"], 2, "invalid run name"),
        (["submit", "--name", "two--dashes"], 2, "invalid run name"),
        (["submit", "--target", "azur"], 2, "Did you mean 'azure'"),
        (["submit", "--time-limit", "soon"], 2, "soon"),
        (["submit", "--set", "train.epoch=3"], 2, "Did you mean 'train.epochs'"),
        (["submit", "--set", "train.epochs=x"], 2, "train.epochs"),
        (["submit", "--config", "none.toml"], 2, "cannot be read"),
        (["submit", "--profile", "none"], 2, "unknown profile"),
        (["submit", "--dry-run", "--out", "boneage.toml"], 2, "is not an empty folder"),
        (["submit", "surplus"], 2, "surplus"),
        (["sumbit"], 2, "submit"),
        (["show", "none"], 2, "there is no run 'none'"),
        (["watch"], 2, "there is no run 'last'"),
        (["logs", "none"], 2, "boneagectl ls"),
        (["stop", "none"], 2, "there is no run"),
        (["collect", "none"], 2, "there is no run"),
        (["resume", "none"], 2, "there is no run"),
        (["ls", "--limit", "0"], 2, "limit"),
        (["init", "elsewhere", "--preset", "tinny"], 2, "Did you mean 'tiny'"),
    ],
)
def test_usage_errors(project: Path, cli: Cli, arguments: list[str], code: int, message: str) -> None:
    outcome = cli(*arguments, code=code)
    assert outcome.out == ""
    assert message in outcome.err


def test_run_names_that_are_taken_or_ambiguous(project: Path, cli: Cli) -> None:
    cli("submit", "--name", "apple-1")
    cli("submit", "--name", "apple-2")
    assert "there is a run 'apple-1' already" in cli("submit", "--name", "apple-1", code=2).err
    assert "could be apple-1, apple-2" in cli("show", "apple", code=2).err
    cli("show", "apple-1")


def test_a_pack_without_ages_or_another_pack(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pack(project / "blind", labelled=False)
    assert "has no ages" in cli("submit", "--data", "blind", code=2).err
    monkeypatch.setenv("FAKE_MODE", "fail")
    cli("submit", "--name", "first-run")
    cli("watch", "--every", 0.1, code=4)
    make_pack(project / "pack", fingerprint="0" * 64)
    assert "is not the one first-run was trained on" in cli("resume", "first-run", code=2).err
    (project / "pack" / "pack.json").write_text("{")
    cli("resume", "first-run", code=2)


@pytest.mark.parametrize("command", [["ls"], ["submit"], ["budget"], ["watch"]])
def test_an_unusable_state_folder(
    project: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (tmp_path / "file").write_text("a file")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("BONEAGECTL_HOME", str(place))
        assert "cannot be written" in cli(*command, code=3).err
    cli("submit", "--dry-run")


def test_a_file_that_is_not_a_ledger(project: Path, home: Path, cli: Cli) -> None:
    home.mkdir()
    (home / "ledger.db").write_text("not a database " * 100)
    for command in (["ls"], ["submit"], ["budget"], ["submit", "--dry-run"]):
        assert "cannot be used" in cli(*command, code=3).err
    assert (home / "ledger.db").read_text() == "not a database " * 100


FULL_DISK = """
import resource, sys
from boneagectl.__main__ import run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(run(sys.argv[2:]))
"""


@pytest.mark.parametrize("limit_bytes", [0, 1000, 30_000, 60_000])
def test_a_full_disk_is_an_error_of_the_machine(project: Path, home: Path, cli: Cli, limit_bytes: int) -> None:
    cli("ls")
    command = [sys.executable, "-c", FULL_DISK, str(limit_bytes), "submit", "--name", "first-run"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert starts(home) == {}
    account = cli("budget", "--json").json["accounts"][0]
    assert (account["reserved_s"], account["spent_s"]) == (0, 0)


def test_a_missing_interpreter(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONEAGECTL_TARGETS__LOCAL__PYTHON", "/no/such/python")
    assert "could not be started" in cli("submit", "--name", "first-run", code=3).err
    run = cli("ls", "--json").json["runs"][0]
    assert run["state"] == "released"
    assert cli("watch", "--once").out == ""
    assert "never started" in cli("logs", code=6).err
    assert "ever started" in cli("collect", code=6).err


# ------------------------------------------------------------------------------ out, err, modes
def test_stdout_has_data_only_and_stderr_messages_only(project: Path, cli: Cli) -> None:
    loud, quiet = cli("submit", "--name", "run-1"), cli("submit", "--name", "run-2", "--quiet")
    assert (loud.out, quiet.out, quiet.err) == ("run-1\n", "run-2\n", "")
    assert "boneagectl watch run-1" in loud.err
    cli("watch", "run-2", "--every", 0.1)
    quiet = cli("watch", "run-2", "-q")
    assert (quiet.out, quiet.err) == ("", "")
    for line in cli("watch", "run-2", "--json").out.splitlines():
        assert json.loads(line)["snapshot"]["state"] == "complete"


def test_a_closed_pipe_is_not_an_error(project: Path, cli: Cli) -> None:
    cli("submit", "--name", "first-run")
    command = f"{shlex.quote(sys.executable)} -m boneagectl config | true"
    done = subprocess.run(command, shell=True, env=environment(), capture_output=True, text=True, timeout=30)  # noqa: S602
    assert (done.returncode, done.stderr) == (0, "")


def test_the_module_runs_as_a_process(project: Path, cli: Cli) -> None:
    assert boneagectl("--version").out.startswith("boneagectl ")
    assert boneagectl("submit", "--name", "first-run").out == "first-run\n"
    assert boneagectl("watch", "--every", 0.1).code == 0
    assert boneagectl("show", "none").code == 2


def test_hostile_folders(hostile: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONEAGECTL_HOME", str(hostile / "home"))
    monkeypatch.setenv("BONEAGECTL_TARGETS__LOCAL__PYTHON", str(fake_trainer.install(hostile / "bin")))
    make_pack(hostile / "pack")
    (hostile / "project").mkdir()
    monkeypatch.chdir(hostile / "project")
    cli("init", "--data", "../pack")
    cli("submit", "--set", "train.epochs=1", "--name", "first-run")
    cli("watch", "--every", 0.1)
    collected = Path(cli("collect").out.rstrip("\n"))
    assert collected.is_relative_to(hostile)
    cli("submit", "--dry-run", f"--out={hostile / 'shown'}", "--data", hostile / "pack")
    assert json.loads((hostile / "shown" / "launch.json").read_text())["argv"][3] == str(hostile / "pack")


# ---------------------------------------------------------------------------- the names in --json
OPEN = {"sha256", "provenance", "metrics", "config"}  # filled by others: the trainer, git, the file names


def shape(value: Any, name: str = "") -> Any:
    """The names in a JSON value; of a list, those of its first item."""
    if name in OPEN:
        return "..."
    if isinstance(value, dict):
        return {key: shape(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "."


def test_the_field_names_of_json_are_stable(project: Path, cli: Cli) -> None:
    outcomes: dict[str, Outcome] = {
        "submit --dry-run": cli("submit", "--dry-run", "--json", "--out", project / "shown")
    }
    outcomes["submit"] = cli("submit", "--name", "first-run", "--json")
    outcomes["watch"] = cli("watch", "--every", 0.1, "--json", "-q")
    outcomes["ls"], outcomes["show"] = cli("ls", "--json"), cli("show", "--json")
    outcomes["stop"], outcomes["collect"] = cli("stop", "last", "--json"), cli("collect", "--json")
    outcomes["budget"], outcomes["budget set"] = cli("budget", "--json"), cli("budget", "set", "local", "--json")
    outcomes["config"] = cli("config", "--json")
    names = {name: shape(json.loads(outcome.out.splitlines()[-1] if name == "watch" else outcome.out))
             for name, outcome in outcomes.items()}  # fmt: skip
    text = json.dumps(names, indent=1, sort_keys=True) + "\n"
    if os.environ.get(ACCEPT):
        SCHEMA.write_text(text)
    assert text == SCHEMA.read_text(), (
        f"the field names of --json changed, which breaks scripts; to accept that, run this test once with {ACCEPT}=1"
    )


def test_every_training_setting_is_in_config(project: Path, cli: Cli) -> None:
    keys = cli("config", "--json").json["settings"]
    assert {f"train.{name}" for name in TrainConfig.__dataclass_fields__} <= set(keys)


def test_a_leg_is_settled_at_the_price_it_was_reserved_at(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate was a flag of submit; the commands that follow do not know it."""
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    cli("submit", "--set", "targets.local.usd_per_hour=3600", "--time-limit", "1m", "--yes")
    wait_for(lambda: cli("show", "--json").json["legs"][0]["elapsed_s"] >= 1)
    cli("stop", "last", "--yes")
    (leg,) = cli("show", "--json").json["legs"]
    assert leg["reserved_usd"] == 60
    assert leg["spent_usd"] == leg["elapsed_s"] >= 1
    assert cli("budget", "--json").json["accounts"][0]["spent_usd"] == leg["spent_usd"]


def test_on_a_terminal_a_cost_is_shown_and_confirmed_even_with_quiet(project: Path, cli: Cli) -> None:
    command = [sys.executable, "-m", "boneagectl", "submit", "-q", "--set", "targets.local.usd_per_hour=2"]
    for answer, code in ((b"n\n", 7), (b"y\n", 0)):
        mine, theirs = os.openpty()
        process = subprocess.Popen(
            command, env=environment(), stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        os.write(mine, answer)
        _, errors = process.communicate(timeout=30)
        os.close(mine)
        os.close(theirs)
        assert process.returncode == code, errors
        assert b"at most $24.00" in errors
        assert b"[y/N]" in errors
    assert len(cli("ls", "--json").json["runs"]) == 1


INTERRUPTIBLE = """
import signal
from boneagectl.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test suite in the background ignores it
main()
"""


def test_ctrl_c_leaves_the_run_running_and_says_so(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    cli("submit", "--name", "long-run")
    command = [sys.executable, "-c", INTERRUPTIBLE, "watch", "long-run", "--every", "0.1"]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr
    assert any("running" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.endswith("interrupted; the submitted run continues\n")
    assert cli("show", "long-run", "--json").json["state"] == "running"


def test_every_line_of_a_run_is_explained_and_exported(project: Path, cli: Cli) -> None:
    options = ("--set", "targets.local.usd_per_hour=3.6", "--time-limit", "10m", "--yes", "-q")
    cli("submit", "--name", "paid-run", *options)
    cli("watch", "paid-run", "--every", 0.1, "-q")
    lines = cli("budget", "explain", "paid-run", "--json").json["entries"]
    assert [line["kind"] for line in lines] == ["reserved", "returned", "spent"]
    account = next(item for item in cli("budget", "--json").json["accounts"] if item["name"] == "local")
    assert sum(line["usd"] for line in lines) == pytest.approx(account["spent_usd"])
    assert "ended: complete" in cli("budget", "explain", "last").out
    rows = cli("budget", "export").out.splitlines()
    assert rows[0] == "time,account,run_id,leg_id,kind,usd,seconds,note"
    assert len(rows) == 4
    assert cli("budget", "export", "--format", "json", "--account", "kaggle").json["entries"] == []
