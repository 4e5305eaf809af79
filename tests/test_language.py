"""Words and constructions that documentation, help, messages and templates do not use.

The glossary in docs/architecture.md has the words that they do use.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support import ROOT

_COMPOUND = "(?:set|data|image|label|loop|step|run|process|program|session|code|setting|speed|time|epoch|median|part)"
BANNED = {
    r"\bnobody\b": "name who: no target, the provider, you",
    r"\banew\b|\bgo(?:es)? on\b|\bwent on\b|\bgone on\b|\bgoing on\b": "again, continue, resume",
    r"\b(?:came|come|comes) to be\b|\bcame about\b": "was created, exists",
    r"\bwish(?:es|ed)?\b": "request, setting, option",
    r"\btold\b|(?-i:\bTells?\b)|\btells? (?:it|them|people|a person|the user)\b": "show, report, notify; unknown",
    r"\bheed(?:s|ed)?\b|\bby heart\b|\bmade-up\b|\bthe truth about\b": "say what it does",
    r"\bdrawn hands?\b": "synthetic hand",
    r"\bin the way\b|\bstands? in\b|\bat work\b": "blocking, running",
    rf"\b(?:a|each|every|another|no|two|the same) trainings?\b(?! {_COMPOUND})": "run",
    r"\brings?\b(?! buffer)": "safeguard layer",
    r"\bbring(?:s|ing)?\b|\bbrought\b": "download, collect, copy",
    r"\bpass(?:es|ed)? (?:it|a run|the run) on\b": "hand over, continue on",
    r"\bsurroundings\b|\brented\b(?! (?:machine|GPU))": "platform, remote session",
    r"\bin doubt\b": "uncertain",
}
"""Pattern: what to write instead."""

TEXTS = (".md", ".j2", ".py", ".toml", ".cff", ".json")
FOLDERS = ("orchestrator", "trainer", "templates", "docs", "infra", "scripts", "benchmarks")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "Makefile", "pyproject.toml")
DATA = {"results.json", "first_guesses.json"}
ON_DISK = {"schema.py": {"told"}, "store.py": {"told"}}
"""Names of the ledger's tables, which stay."""


def files() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS]
    return sorted(path for path in [*found, *map(ROOT.joinpath, PAGES)] if path.name not in DATA)


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_words_are_the_field_s(path: Path) -> None:
    """Comments and docstrings count too: the next message is copied from them."""
    text = path.read_text(encoding="utf-8")
    hits = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}: {instead}"
        for pattern, instead in BANNED.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
        if match[0] not in ON_DISK.get(path.name, ())
    ]
    assert not hits, "\n".join(hits)


def test_the_list_can_fail() -> None:
    """Each pattern matches the phrase that it was made for."""
    old = [
        "nobody takes the next leg", "never starts anew", "it came to be", "a wish", "it is told once",
        "learns by heart", "a drawn hand", "in the way", "Plan a training", "three rings",
        "Bring what a run has made", "passes it on", "the surroundings", "stays in doubt",
    ]  # fmt: skip
    for pattern, text in zip(BANNED, old, strict=True):
        assert re.search(pattern, text, re.IGNORECASE), f"{pattern} does not match {text!r}"
