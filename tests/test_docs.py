"""The documents say what is: links lead somewhere, every command is documented, generated pages are fresh."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from boneagectl import errors

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "infra").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_the_readme_begins_with_its_two_commands() -> None:
    commands = re.findall(r"^(make \w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]


def test_every_command_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "guide.md").read_text()
    known = set(re.findall(r"^## `boneagectl (\S+)`", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE))
    used = set(re.findall(r"(?:^|`)boneagectl ([a-z]+)", text, re.MULTILINE))
    assert {"submit", "watch", "data", "budget"} <= used
    assert used <= known


def test_the_exit_codes_are_documented() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text()
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.BoneagectlError)}
    assert len(codes) == 11
    assert all(f"\n| {code} |" in guide for code in codes)


def test_generated_pages_are_fresh() -> None:
    """If not: make docs."""
    command = [sys.executable, str(ROOT / "scripts" / "docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
