"""The example of docs/adding-a-target.md is a target: six methods are enough for every command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from boneagectl import targets
from boneagectl.errors import UsageError
from boneagectl.models import Handle
from boneagectl.target_settings import LocalSettings
from boneagectl.targets.base import BaseTarget
from support import ROOT, Cli

PAGE = (ROOT / "docs" / "adding-a-target.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names that the page's one block of Python defines."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(block, "docs/adding-a-target.md", "exec", dont_inherit=True), names)  # noqa: S102 - the page is ours
    return names


@pytest.fixture
def minimal(example: dict[str, Any], project: Path, monkeypatch: pytest.MonkeyPatch) -> Cli | None:
    """Registered under the name of the target that it stands in for."""
    kind, settings = example["MinimalTarget"], example["MinimalSettings"]
    monkeypatch.setattr(kind, "name", "local")
    monkeypatch.setitem(
        targets.FACTORIES,
        "local",
        lambda home, config: kind(home.local, settings(config.section(LocalSettings).python)),
    )
    return None


def test_a_run_from_submit_to_report(minimal: None, cli: Cli, home: Path) -> None:
    cli("submit", "--name", "first-run", "-q")
    cli("watch", "first-run", "-q")
    (run,) = cli("ls", "--json").json["runs"]
    assert (run["state"], run["epoch"]) == ("complete", 3)
    assert "complete: 3 epochs" in cli("logs", "first-run").out
    cli("collect", "first-run", "-q")
    assert (home / "runs/first-run/legs/01/artifacts/model.keras").exists()


def test_a_run_that_is_stopped_resumes(minimal: None, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    cli("submit", "--name", "first-run", "-q")
    cli("stop", "first-run", "--yes", "-q")
    assert cli("ls", "--json").json["runs"][0]["state"] == "paused"
    epoch = cli("ls", "--json").json["runs"][0]["epoch"]
    monkeypatch.setenv("FAKE_EPOCHS", str(epoch + 2))
    cli("resume", "first-run", "-q")
    cli("watch", "first-run", "-q")
    assert cli("ls", "--json").json["runs"][0]["epoch"] == epoch + 2


def test_what_a_minimal_target_inherits(example: dict[str, Any], tmp_path: Path) -> None:
    target: BaseTarget = example["MinimalTarget"](tmp_path, example["MinimalSettings"]())
    handle = Handle("minimal", "no-such-run-01")
    assert target.find("no-such-run-01") is None
    assert (target.check(), target.quota(), target.bill(), target.next_steps(handle)) == ([], None, None, [])
    assert list(target.wind_down(handle)) == []
    with pytest.raises(UsageError):
        target.rehearse(tmp_path, tmp_path, "python")


def test_a_target_lacks_nothing_but_six_methods() -> None:
    assert BaseTarget.__abstractmethods__ == {"render", "submit", "poll", "logs", "stop", "collect"}


def test_the_page_names_files_that_exist() -> None:
    named = set(re.findall(r"`((?:orchestrator|trainer|tests|docs|infra)/[\w./-]+|[\w.-]+\.(?:md|toml|txt))`", PAGE))
    assert len(named) >= 12
    for name in named:
        assert "NAME" in name or (ROOT / name).exists(), name
