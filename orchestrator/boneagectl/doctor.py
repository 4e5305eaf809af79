"""The checks of `doctor`: this machine, what is installed, and what each target needs."""

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
    ("data", ("numpy", "pandas", "opencv-python-headless"), "generates, prepares and describes radiographs"),
    ("kaggle", ("kagglesdk", "kaggle"), "trains on Kaggle's GPUs"),
    ("azure", ("azure-ai-ml", "azure-identity", "azure-storage-blob"), "trains on Azure ML"),
    ("train", ("keras", "tensorflow", "tensorflow-cpu"), "trains on this machine"),
)
"""Of each extra: its packages (of the two TensorFlows one is enough) and what it is for."""


def examine(home: Home, config: Config, target: str | None) -> list[Finding]:
    """The findings about this machine, then those of every target, or only of `target`."""
    findings = [*_machine(home), _ledger(home), *(_extra(*extra) for extra in _EXTRAS)]
    selected = target or config["target"]
    for name in (target,) if target else NAMES:
        for finding in get(name, home, config).check():
            is_blocking = finding.level == "bad" and name == selected  # another target's failure blocks no run
            findings.append(finding if is_blocking or finding.level != "bad" else replace(finding, level="warn"))
    return findings


def _machine(home: Home) -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", "cores", str(cores))
    yield Finding("ok", "memory", format_bytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    has_git = shutil.which("git")
    detail = "installed" if has_git else "not installed: runs do not record the commit"
    yield Finding("ok" if has_git else "warn", "git", detail)
    folder = home.root
    while not folder.exists():
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    detail = f"{format_bytes(free_bytes)} free for {home.root}"
    if free_bytes >= MIN_FREE_BYTES:
        yield Finding("ok", "disk", detail)
    else:
        yield Finding("bad", "disk", detail, f"free at least {format_bytes(MIN_FREE_BYTES)}")


def _ledger(home: Home) -> Finding:
    if not home.ledger.exists():
        return Finding("ok", "ledger", f"none yet; the first submit creates {home.ledger}")
    try:
        with opened(home.ledger) as ledger:
            detail = f"{home.ledger}, {len(ledger.runs())} runs, {len(ledger.open_legs())} open legs"
            return Finding("ok", "ledger", detail)
    except BoneagectlError as error:
        return Finding("bad", "ledger", error.message, error.next_step)


def _extra(name: str, packages: tuple[str, ...], purpose: str) -> Finding:
    installed = {package: version for package in packages if (version := _version(package))}
    listed = ", ".join(f"{package} {version}" for package, version in installed.items())
    needed = len(packages) - 1 if "tensorflow" in packages else len(packages)
    if len(installed) >= needed:
        return Finding("ok", f"[{name}]", listed)
    detail = f"not installed{f', only {listed}' if listed else ''}: {purpose}"
    return Finding("warn", f"[{name}]", detail, f"pip install 'boneagectl[{name}]'")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
