"""Examines this machine: what is here, what is missing, what each missing piece would add."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import replace

from boneagectl.config import Config
from boneagectl.errors import BoneagectlError
from boneagectl.ledger.store import opened
from boneagectl.models import Finding
from boneagectl.paths import Home
from boneagectl.planner import MIN_FREE_BYTES
from boneagectl.targets import NAMES, get
from boneagectl.units import format_bytes

_EXTRAS = (
    ("data", ("numpy", "pandas", "opencv-python-headless"), "drawing, preparing and describing radiographs"),
    ("kaggle", ("kagglesdk", "kaggle"), "training on Kaggle's GPUs"),
    ("azure", ("azure-ai-ml", "azure-identity", "azure-storage-blob"), "training on Azure ML"),
    ("train", ("keras", "tensorflow", "tensorflow-cpu"), "training on this machine"),
)


def examine(home: Home, config: Config, target: str | None) -> list[Finding]:
    """Every finding about the machine, then those of each target, or only of `target`."""
    findings = [*_machine(), _disk(home), _ledger(home), *(_extra(*extra) for extra in _EXTRAS)]
    wanted = target or config["target"]
    for name in (target,) if target else NAMES:
        findings += [one if name == wanted else _aside(one) for one in get(name, home, config).check()]
    return findings


def _aside(finding: Finding) -> Finding:
    """What is wrong with a target that nobody asked for stands in nobody's way."""
    return replace(finding, level="warn") if finding.level == "bad" else finding


def _machine() -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding(
        "ok", "cores", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"
    )
    yield Finding("ok", "memory", format_bytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    git = shutil.which("git")
    yield Finding("ok" if git else "warn", "git", "found" if git else "not found: runs will not name their commit")


def _disk(home: Home) -> Finding:
    folder = home.root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    enough = free >= MIN_FREE_BYTES
    return Finding(
        "ok" if enough else "bad", "disk", f"{format_bytes(free)} free for {home.root}", "" if enough else "free some"
    )


def _ledger(home: Home) -> Finding:
    if not home.ledger.exists():
        return Finding("ok", "ledger", f"none yet; the first submit makes {home.ledger}")
    try:
        with opened(home.ledger) as ledger:
            return Finding(
                "ok", "ledger", f"{home.ledger}, {len(ledger.runs())} runs, {len(ledger.open_legs())} open legs"
            )
    except BoneagectlError as error:
        return Finding("bad", "ledger", error.message, error.next_step)


def _extra(name: str, packages: tuple[str, ...], purpose: str) -> Finding:
    installed = {package: version for package in packages if (version := _version(package))}
    found = ", ".join(f"{package} {version}" for package, version in installed.items())
    wanted = len(packages) - 1 if "tensorflow" in packages else len(packages)
    if len(installed) >= wanted:
        return Finding("ok", f"[{name}]", found)
    return Finding(
        "warn",
        f"[{name}]",
        f"not installed ({found or 'nothing of it'}): adds {purpose}",
        f"pip install 'boneagectl[{name}]'",
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
