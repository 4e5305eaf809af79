"""The remote's own limit, the only one that holds while nobody looks: cut to what is left, and booked at its worst."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from boneagectl import units
from support import Cli

WISHES = ("--weights", "none", "--set", "targets.kaggle.username=alice", "--set", "targets.colab.via=cli",
          "--set", f"targets.azure.subscription={'1' * 8}-1111-1111-1111-{'1' * 12}")  # fmt: skip


def _local(sent: Path) -> int:
    argv = json.loads((sent / "launch.json").read_text())["argv"]
    return int(argv[argv.index("--time-limit-s") + 1])


def _kaggle(sent: Path) -> int:
    return int(json.loads((sent / "kernel-metadata.json").read_text())["session_timeout_seconds"])


def _azure(sent: Path) -> int:
    found = re.search(r"^limits:\n  timeout: (\d+)$", (sent / "job.yml").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def _colab(sent: Path) -> int:
    return int(json.loads((sent / "launch.json").read_text())["time_limit_s"])


LIMITS: dict[str, tuple[Callable[[Path], int], str, str]] = {
    "local": (_local, "--cap-hours", "1.25"),
    "kaggle": (_kaggle, "--cap-hours", "2.5"),
    "azure": (_azure, "--cap-usd", "3"),
    "colab": (_colab, "--cap-usd", "0.5"),
}
"""Where what is sent says what is enforced there, and the cap it is derived from."""


@pytest.mark.parametrize("target", LIMITS)
def test_what_the_remote_enforces_is_what_is_left_to_the_minute(project: Path, cli: Cli, target: str) -> None:
    enforced, option, left = LIMITS[target]
    cli("budget", "set", target, option, left)
    said = cli("submit", "--target", target, "--dry-run", "--out", project / "sent", "--json", *WISHES).json["plan"]
    limit_s, quote = enforced(project / "sent"), said["quote"]
    assert limit_s == said["spec"]["time_limit_s"] < units.parse_duration_s("12h")
    if option == "--cap-usd":
        assert 0 < limit_s * quote["usd_per_hour"] / 3600 <= quote["worst_usd"] <= float(left), (
            "a start may be billed too"
        )
    else:
        assert limit_s <= quote["worst_s"] <= float(left) * 3600
    more = ("--time-limit", f"{limit_s + 60}s", "--out", project / "more")
    assert "REFUSED cap" in cli("submit", "--target", target, "--dry-run", *more, *WISHES).out, (
        "a minute more is too much"
    )


def test_where_less_is_left_than_is_worth_a_start_it_is_refused(project: Path, cli: Cli) -> None:
    cli("budget", "set", "local", "--cap-hours", "0.24")
    assert "this may take 12 h 00 min" in cli("submit", code=5).err
    assert cli("ls", "--json").json["runs"] == []


def test_a_session_is_never_longer_than_the_target_s(project: Path, cli: Cli) -> None:
    said = cli("submit", "--target", "kaggle", "--dry-run", "--json", *WISHES, "--out", project / "sent")
    assert said.json["plan"]["spec"]["time_limit_s"] == 12 * 3600
    (project / "boneage.toml").write_text('time_limit = "20h"\n')
    said = cli("submit", "--target", "kaggle", "--dry-run", "--json", *WISHES, "--out", project / "longer")
    assert said.json["plan"]["spec"]["time_limit_s"] == _kaggle(project / "longer") == 12 * 3600
