"""How easy the code base is to find one's way in, against commit fab6458, before it was reorganized.

    python benchmarks/house.py [--rounds 15] [--without-install]

Prints one JSON object. Everything but start-up and install size is counted from the source with `ast`. The guesses
of a reader who saw the tasks and the file names only are recorded in first_guesses.json and compared with the table in
docs/architecture.md.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import ROOT, entry, show

ROOTS = ("orchestrator", "trainer")
BEFORE = {
    "files": 230, "single_use": 31.0, "lines": 26_815, "account_files": 7, "retry_loops": 8, "downloaders": 4,
    "not_found": 4, "guessed": 66.0, "ls": 1.92, "install_mb": 21.0,
}  # fmt: skip
_LIMITS = {"cap_usd_micro", "cap_s", "quota_s", "credit_usd_micro", "limit_s", "allowed_s"}


def sources() -> dict[Path, ast.Module]:
    paths = sorted(path for root in ROOTS for path in (ROOT / root).rglob("*.py"))
    return {path.relative_to(ROOT): ast.parse(path.read_text()) for path in paths}


def lines(trees: dict[Path, ast.Module]) -> int:
    return sum((ROOT / path).read_text().count("\n") for path in trees)


def single_use_percent(trees: dict[Path, ast.Module]) -> float:
    """Share of all functions that are private and referenced exactly once in their own file."""
    functions, single = 0, 0
    for tree in trees.values():
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        used = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        used += Counter(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))
        functions += len(names)
        single += sum(name.startswith("_") and not name.startswith("__") and used[name] == 1 for name in names)
    return 100 * single / functions


def account_files(trees: dict[Path, ast.Module]) -> list[str]:
    """Files of the orchestrator that subtract from, or compare with, a limit of an account."""

    def computes(node: ast.AST) -> bool:
        is_subtraction = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)
        is_comparison = isinstance(node, ast.Compare) and not isinstance(node.ops[0], ast.Is | ast.IsNot)
        parts = ast.walk(node) if is_subtraction or is_comparison else ()
        return any(isinstance(part, ast.Attribute) and part.attr in _LIMITS for part in parts)

    return [
        str(path) for path, tree in trees.items()
        if path.parts[0] == "orchestrator" and any(computes(node) for node in ast.walk(tree))
    ]  # fmt: skip


def retry_loops(trees: dict[Path, ast.Module]) -> list[str]:
    """Loops that sleep and try again, in files that import an HTTP library."""
    return [
        f"{path}:{node.lineno}" for path, tree in trees.items()
        if re.search(r"^ *(?:import|from) (?:requests|urllib3?|http\.client)\b", ast.unparse(tree), re.MULTILINE)
        for node in ast.walk(tree)
        if isinstance(node, ast.For | ast.While) and re.search(r"\bsleep\(", body := ast.unparse(node))
        and re.search(r"PAUSES|pause_s|BACKOFF|tries", body)
    ]  # fmt: skip


def downloaders(trees: dict[Path, ast.Module]) -> list[str]:
    """Files that request the rest of a file, from a byte on to its end."""
    return [str(path) for path, tree in trees.items() if re.search(r"bytes=\{[^{}]*\}-['\"]", ast.unparse(tree))]


def not_found_classes(trees: dict[Path, ast.Module]) -> list[str]:
    return [
        f"{path}:{node.lineno}" for path, tree in trees.items() for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name in ("NotFound", "Missing")
    ]  # fmt: skip


def tasks() -> dict[str, set[str]]:
    """Task: files, from the table in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text().split("## Which file do I change for")[1].split("\n## ")[0]
    rows = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and "`" in line)
    return {row[0].strip(): set(re.findall(r"`([^`]+)`", row[1])) for row in rows}


def guessed_percent() -> float:
    """Share of the tasks whose first guess names a file of the table."""
    guesses = json.loads((ROOT / "benchmarks" / "first_guesses.json").read_text())["guesses"]
    known = tasks()
    return 100 * sum(guesses.get(task) in files for task, files in known.items()) / len(known)


def install_mb() -> float:
    """The core installation in a new environment, without pip, in 10^6 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(ROOT)], check=True, stdout=sys.stderr)
        subprocess.run([str(python), "-m", "pip", "uninstall", "-y", "-q", "pip", "setuptools"], check=True)
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = Path(
            subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout[:-1]
        )
        return sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()) / 1e6


def ls_ratio(rounds: int) -> float:
    command = [sys.executable, str(ROOT / "benchmarks" / "startup.py"), "--rounds", str(rounds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["startup_ls"]["ratio"])


def measure(rounds: int, with_install: bool) -> Iterator[tuple[str, str, str, float, dict[str, float]]]:
    """Name, description, unit, value and bar of each measure."""
    trees = sources()
    found: dict[str, Callable[[dict[Path, ast.Module]], list[str]]] = {
        "account_files": account_files, "retry_loops": retry_loops, "downloaders": downloaders,
        "not_found": not_found_classes,
    }  # fmt: skip
    yield "files", "files in the two source roots", "files", len(trees), {"at_most": 170}
    yield (
        "single_use",
        "private functions called from exactly one place",
        "%",
        single_use_percent(trees),
        {"at_most": 20},
    )
    yield "lines", "lines in the two source roots", "lines", lines(trees), {"at_most": 25_500}
    what = {
        "account_files": ("files that compute with an account's limits", 2),
        "retry_loops": ("retry loops (one travels with the trainer)", 2),
        "downloaders": ("resumable downloaders (one travels with the trainer)", 2),
        "not_found": ("classes named NotFound or Missing", 1),
    }
    for name, count in found.items():
        places = count(trees)
        print(f"{name}: {', '.join(places)}", file=sys.stderr)
        yield name, what[name][0], "places", len(places), {"at_most": what[name][1]}
    yield "guessed", "tasks whose file is found by its name in one guess", "%", guessed_percent(), {"at_least": 90}
    yield "ls", "CPU of `boneagectl ls`, in multiples of `import typer`", "x", ls_ratio(rounds), {"at_most": 1.5}
    if with_install:
        yield "install_mb", "core installation without pip", "MB", install_mb(), {"at_most": 21}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the start-up measurement")
    parser.add_argument("--without-install", action="store_true", help="skip the install size, which needs a network")
    given = parser.parse_args()
    entries: dict[str, dict[str, Any]] = {}
    for name, what, unit, value, bar in measure(given.rounds, not given.without_install):
        entries[f"house_{name}"] = entry(what, unit, ours=round(value, 2), other=BEFORE[name], **bar)
    show(entries)


if __name__ == "__main__":
    main()
