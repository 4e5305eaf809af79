"""watch: alerts that arrive once, limits that stop, all runs at once, and what a terminal shows."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from boneagectl.ledger.store import opened
from support import Cli, end_leg, environment, wait_for

PAID = ("--set", "targets.local.usd_per_hour=3600", "--time-limit", "100s", "--yes", "-q")
"""A dollar a second."""


class Hook:
    """A webhook's other side; `answers` are its next status codes, then 200."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.answers: list[int] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = hook.answers.pop(0) if hook.answers else 200
                if status == 200:
                    hook.got.append(json.loads(body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/services/s3cret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    hook = Hook()
    monkeypatch.setenv("BONEAGECTL_ALERT__WEBHOOK", hook.address)
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


@pytest.fixture
def slow(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    return project


def at_work(cli: Cli, run: str) -> None:
    wait_for(lambda: cli("show", run, "--json").json["epoch"] >= 1)


# ----------------------------------------------------------------------------------------- alerts
def test_the_end_of_a_run_is_told_once_by_webhook_and_command(
    project: Path, cli: Cli, hook: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BONEAGECTL_ALERT__COMMAND", json.dumps(["sh", "-c", 'cat >> told.json; echo "$0" >> told.txt']))
    cli("submit", "--name", "first-run", "-q")
    for _ in range(2):
        said = cli("watch", "first-run", "--every", 0.1)
        assert "s3cret" not in said.err
    (event,) = hook.got
    text = "first-run-01 on local is complete, epoch 3/3"
    assert event == {"run_id": "first-run", "leg_id": "first-run-01", "event": "first-run-01 complete", "does": "tell",
                     "text": text, "content": text}  # fmt: skip
    assert (project / "told.txt").read_text() == f"{text}\n"
    assert json.loads((project / "told.json").read_text()) == event


def test_an_alert_that_does_not_arrive_is_said_and_sent_again_later(
    project: Path, cli: Cli, hook: Hook, home: Path
) -> None:
    hook.answers = [500]
    cli("submit", "--name", "first-run", "-q")
    said = cli("watch", "first-run", "--every", 0.1)
    assert "alert.webhook: status 500" in said.err
    cli("watch", "first-run", "--once")
    assert hook.got == [], "not at once"
    with opened(home / "ledger.db") as ledger:
        ledger.retry_notification("first-run-01 complete", 1)
    cli("watch", "first-run", "--once")
    assert [event["event"] for event in hook.got] == ["first-run-01 complete"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WEBHOOK", "http://127.0.0.1:9/s3cret", "ConnectionRefusedError"),
        ("WEBHOOK", "http://127.0.0.1:9/s3cret\u00e9 ?", "InvalidURL"),
        ("WEBHOOK", "mailto:s3cret", "not an http address"),
        ("COMMAND", '["no-such-program"]', "cannot be run: No such file"),
        ("COMMAND", '["sh", "-c", "echo no mail here >&2; exit 3"]', "ended with 3: no mail here"),
    ],
)
def test_a_test_alert_tells_why_it_does_not_arrive(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"BONEAGECTL_ALERT__{name}", value)
    said = cli("budget", "test-alert", code=3)
    assert words in said.err
    assert "s3cret" not in said.err


def test_a_test_alert_arrives(project: Path, cli: Cli, hook: Hook) -> None:
    cli("budget", "test-alert")
    assert hook.got[0]["event"] == "test"
    hook.server.shutdown()


def test_without_an_address_there_is_nothing_to_test(project: Path, cli: Cli) -> None:
    assert "neither alert.webhook nor alert.command is set" in cli("budget", "test-alert", code=2).err


def test_the_webhook_is_a_secret(project: Path, cli: Cli, hook: Hook) -> None:
    for words in (("config",), ("config", "--json")):
        assert "s3cret" not in cli(*words).out
    assert cli("config", "--json").json["settings"]["alert.webhook"]["value"] == "(set)"
    cli("submit", "--name", "first-run", "-q")
    cli("watch", "first-run", "--every", 0.1)
    held = [path for path in project.parent.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert held == []


# ----------------------------------------------------------------------------------------- limits
def test_a_cap_that_was_lowered_stops_what_runs_where_that_was_asked_for(slow: Path, cli: Cli, hook: Hook) -> None:
    cli("budget", "set", "local", "--cap-usd", "200", "--alert-at", "20")
    cli("submit", "--name", "paid-run", *PAID)
    at_work(cli, "paid-run")
    cli("watch", "paid-run", "--once", "-q")
    cli("budget", "set", "local", "--cap-usd", "2")
    assert cli("watch", "paid-run", "--once", "--json").json["snapshot"]["state"] == "running", "it only refuses"
    cli("budget", "set", "local", "--at-cap", "stop")
    said = cli("watch", "paid-run", "--once")
    assert "paid-run-01 stopped" in said.err
    shown = cli("show", "paid-run", "--json").json
    assert (shown["state"], shown["reason"]) == ("paused", "stop")
    assert "paid-run-01 at cap" in [event["event"] for event in hook.got]


def test_a_share_of_a_limit_is_told_once(slow: Path, cli: Cli) -> None:
    cli("budget", "set", "local", "--cap-usd", "100", "--alert-at", "1,99")
    cli("submit", "--name", "paid-run", *PAID)
    wait_for(lambda: cli("show", "paid-run", "--json").json["legs"][0]["elapsed_s"] >= 1)
    said = [cli("watch", "paid-run", "--once").err for _ in range(2)]
    assert ["of the $100.00 cap used" in text for text in said] == [True, False]
    cli("stop", "paid-run", "--yes", "-q")


@pytest.mark.parametrize("text", ["0", "100", "fifty", "50,,80", "-5", "50%"])
def test_shares_that_are_none_are_refused(project: Path, cli: Cli, text: str) -> None:
    assert "percentages of a limit" in cli("budget", "set", "local", "--alert-at", text, code=2).err


def test_alerts_and_what_happens_at_a_cap_are_kept(project: Path, cli: Cli) -> None:
    said = cli("budget", "set", "azure", "--alert-at", "90,25", "--at-cap", "stop", "--json").json
    assert (said["alert_at"], said["at_cap"]) == ([25, 90], "stop")
    assert cli("budget", "set", "azure", "--cap-usd", "50", "--json").json["at_cap"] == "stop"
    assert cli("budget", "set", "azure", "--alert-at", "none", "--json").json["alert_at"] == []


def test_a_stalled_leg_is_told_and_if_so_configured_stopped_and_the_run_goes_on(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    monkeypatch.setenv("FAKE_MODE", "stall")
    cli("submit", "--name", "still-run", "--legs", 2, "-q")
    at_work(cli, "still-run")
    monkeypatch.setenv("BONEAGECTL_WATCH__STALLED_LEAST", "1s")
    wait_for(lambda: "has shown no new epoch after" in cli("watch", "still-run", "--once").err)
    monkeypatch.setenv("BONEAGECTL_WATCH__AT_STALL", "stop")
    said = cli("watch", "still-run", "--once", code=(0, 4))
    assert "continues as still-run-02 on local" in said.err
    cli("stop", "still-run", "--yes", "-q")


# --------------------------------------------------------------------------------- all of them, and seen
def test_all_runs_are_watched_at_once_and_those_that_may_go_on(slow: Path, cli: Cli, home: Path) -> None:
    cli("submit", "--name", "done-run", "-q", "--set", "train.epochs=3")
    for run in ("long-run", "lost-run"):
        cli("submit", "--name", run, "--legs", 2, "-q")
        at_work(cli, run)
    cli("stop", "done-run", "--yes", "-q")
    end_leg(home, "lost-run-01")
    lines = cli("watch", "--all", "--once", "--json", "-q").out.splitlines()
    seen = {line["run_id"]: line["snapshot"]["state"] for line in map(json.loads, lines)}
    assert seen == {"long-run": "running", "lost-run": "lost"}
    assert cli("show", "lost-run", "--json").json["legs"][-1]["leg_id"] == "lost-run-02"
    for run in ("long-run", "lost-run"):
        cli("stop", run, "--yes", "-q")
    assert "no run is running" in cli("watch", "--all", "--once").err
    assert "--all watches every run" in cli("watch", "long-run", "--all", code=2).err


def test_elsewhere_a_line_is_printed_only_when_something_changed(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_EPOCH_S", "0.4")
    cli("submit", "--name", "first-run", "-q")
    lines = cli("watch", "first-run", "--every", 0.1).err.splitlines()
    seen = [re.sub(r"loss.*", "", line) for line in lines]
    assert len(seen) == len(set(seen)) >= 4


def test_a_terminal_shows_one_screen_that_is_drawn_over(project: Path, cli: Cli) -> None:
    cli("budget", "set", "local", "--cap-hours", "30")
    cli("submit", "--name", "first-run", "--legs", 2, "-q", "--time-limit", "1h")
    drawn = on_terminal(["watch", "first-run", "--every", "0.1"], columns=60)
    frames = [re.sub(r"\x1b\[[0-9]*[AJK]|\r", "", frame) for frame in drawn.split("\x1b[J")[1:]]
    assert all(len(line) < 60 for frame in frames for line in frame.splitlines())
    last = frames[-1].splitlines()
    assert last[0] == "run      first-run, leg 1, 1 of at most 2 started, on local"
    assert last[2] == "epoch    ████████████████████████  3 of 3"
    assert "10.3 months, lowest 10.3 in epoch 3" in frames[-1]
    assert last[-1] == "next     boneagectl report first-run"


def on_terminal(words: list[str], columns: int) -> str:
    """What boneagectl writes to a terminal of that width."""
    mine, theirs = pty.openpty()
    env = {**environment(), "TERM": "xterm", "COLUMNS": str(columns)}
    process = subprocess.Popen([sys.executable, "-m", "boneagectl", *words], env=env, stdin=theirs, stdout=theirs,
                               stderr=theirs)  # fmt: skip
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(mine, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        said += part
    os.close(mine)
    assert process.wait(timeout=30) == 0, said
    return said.decode()
