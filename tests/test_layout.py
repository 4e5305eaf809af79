"""The layout that docs/architecture.md describes: its files and their names."""

from __future__ import annotations

import re

import pytest

from support import ROOT

TASKS = (ROOT / "docs" / "architecture.md").read_text().split("## Which file do I change for")[1].split("\n## ")[0]


def test_every_file_of_the_task_table_exists() -> None:
    rows = [line for line in TASKS.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) == 22
    files = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[1])]
    assert [name for name in files if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("target", ["azure", "kaggle", "colab"])
def test_targets_have_the_same_role_files(target: str) -> None:
    folder = ROOT / "orchestrator" / "boneagectl" / "targets" / target
    assert {"render", "preflight", "status", "rehearsal"} <= {path.stem for path in folder.glob("*.py")}


def test_module_names_are_nouns() -> None:
    """English has a few nouns in -ing; these are in use."""
    names = {path.stem for root in ("orchestrator", "trainer") for path in (ROOT / root).rglob("*.py")}
    assert {name for name in names if name.endswith("ing")} <= {"pricing", "billing"}
