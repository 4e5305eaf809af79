"""The layout that docs/architecture.md describes: files, names, and no import circle."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ROOT

SOURCES = {
    ".".join(path.relative_to(ROOT / root).with_suffix("").parts): path
    for root in ("orchestrator", "trainer")
    for path in sorted((ROOT / root).rglob("*.py"))
    if "stub" not in path.parts
}
"""Every module by its dotted name; a package is NAME.__init__."""
TASKS = (ROOT / "docs" / "architecture.md").read_text().split("## Which file do I change for")[1].split("\n## ")[0]


def test_every_file_of_the_task_table_exists() -> None:
    rows = [line for line in TASKS.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) == 22
    files = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[1])]
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module, path in SOURCES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


@pytest.mark.parametrize("target", ["azure", "kaggle", "colab"])
def test_targets_have_the_same_role_files(target: str) -> None:
    folder = ROOT / "orchestrator" / "boneagectl" / "targets" / target
    assert {"render", "preflight", "status", "rehearsal"} <= {path.stem for path in folder.glob("*.py")}


def test_module_names_are_nouns() -> None:
    """English has a few nouns in -ing; these are in use."""
    names = {part for module in SOURCES for part in module.split(".")}
    assert {name for name in names if name.endswith("ing")} <= {"pricing", "billing"}


def test_nothing_imports_in_a_circle() -> None:
    """Imports at the top of a module, those for type checkers left out."""
    arrows = {module: set(top_imports(path)) for module, path in SOURCES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for other in arrows.get(module, ()):
                visit(other, (*way, module))
            done.add(module)

    for module in arrows:
        visit(module, ())


def top_imports(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield from known(f"{node.module}.{alias.name}") or known(node.module)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from known(alias.name)


def known(name: str) -> list[str]:
    return [module for module in (name, f"{name}.__init__") if module in SOURCES]
