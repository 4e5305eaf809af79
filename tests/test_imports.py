"""Who may import whom: the picture in docs/architecture.md against the imports of the code."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ROOT

ORCHESTRATOR, TRAINER = ROOT / "orchestrator" / "boneagectl", ROOT / "trainer" / "boneage_trainer"

PICTURE = re.search(r"```layers\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
assert PICTURE, "docs/architecture.md has lost its picture of the layers"
LAYERS = [line.split() for line in PICTURE[1].splitlines()]
"""From the top down; a module imports from its own layer and those below."""
RANK = {name: len(LAYERS) - at for at, layer in enumerate(LAYERS) for name in layer}
TRAINER_MAY = {"boneage_trainer", "numpy", "pandas", "keras", "tensorflow", "cv2"}
SURROUNDINGS = {
    "colab_api.py": {"google"}, "colab_view.py": {"IPython"},
    "formats.py": {"onnx", "onnxruntime", "tf2onnx", "ai_edge_litert"},
    "mlflow.py": {"mlflow", "sqlalchemy"}, "dicom.py": {"pydicom"},
}  # fmt: skip
"""What a trainer's module may ask for beside: in a notebook, or of an extra that brings it."""
VENDORS = {
    "kaggle": {"kagglesdk", "requests", "urllib3"},
    "azure": {"azure", "requests", "urllib3"},
    "targets": {"requests", "urllib3"},
    "colab": {"google", "requests", "urllib3", "websocket"},
}
"""What a target's own folder may import, inside its functions."""
OWN_LIBRARIES = {"typer", "jinja2", "platformdirs", "boneage_trainer", "boneagectl"}


_TRAINER_PACKAGES = ("data", "train", "evaluation", "inference", "export", "platforms")
PACKAGES = {
    "boneagectl", *(f"boneagectl.{name}" for name in ("cli", "report", "ledger", "targets")),
    "boneage_trainer", *(f"boneage_trainer.{name}" for name in _TRAINER_PACKAGES),
}  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """Each module that `path` imports, dotted; ``from boneagectl import units`` is boneagectl.units."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module
            is_package = node.module in PACKAGES
            yield from (f"{node.module}.{alias.name}" if is_package else node.module for alias in node.names)


def parts(path: Path) -> str:
    """The layered name of a module: its file, or its folder."""
    relative = path.relative_to(ORCHESTRATOR)
    return relative.parts[0].removesuffix(".py")


def modules(root: Path) -> list[Path]:
    return sorted(root.rglob("*.py"))


@pytest.mark.parametrize("path", modules(ORCHESTRATOR), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_orchestrator_knows_the_contract_only(path: Path) -> None:
    for name in imports(path):
        top = name.partition(".")[0]
        vendors = VENDORS.get(path.parent.name, set())
        assert top in OWN_LIBRARIES | vendors | set(sys.stdlib_module_names) or path.name == "local_probe.py", name
        if top == "boneage_trainer":
            assert name in SHARED, f"{path} imports {name}"


@pytest.mark.parametrize("path", modules(ORCHESTRATOR), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_arrow_points_up(path: Path) -> None:
    own = parts(path)
    if own == "__init__":
        return
    assert own in RANK, f"{own} is in no layer of docs/architecture.md"
    for name in imports(path):
        if name.startswith("boneagectl.") and (other := name.split(".")[1]) != "errors":
            assert RANK[other] <= RANK[own], f"{own} imports {other}, which is above it"


@pytest.mark.parametrize("path", modules(TRAINER), ids=lambda path: path.name)
def test_the_trainer_stands_alone(path: Path) -> None:
    for name in imports(path):
        top = name.partition(".")[0]
        allowed = TRAINER_MAY | SURROUNDINGS.get(path.name, set()) | set(sys.stdlib_module_names)
        assert top in allowed, f"{path.name} imports {name}"


def test_the_contract_needs_the_standard_library_only() -> None:
    """What the command line reads on every call: the contract and the modules it hands on."""
    handed_on = ("config", "errors", "presets")
    allowed = set(sys.stdlib_module_names) | {f"boneage_trainer.{name}" for name in ("contract", *handed_on)}
    for module in ("contract", "archive", *handed_on):
        for name in imports(TRAINER / f"{module}.py"):
            assert name in allowed or name.partition(".")[0] in allowed, f"{module} imports {name}"


SHARED = ("boneage_trainer", "boneage_trainer.contract", "boneage_trainer.archive")
"""What both sides use: names and files, and how a run folder becomes a zip and comes out of it."""
FORBIDDEN = [
    "".join(pieces)
    for pieces in (("py", "pi.org"), ("files.python", "hosted"), ("index", "-url"), ("/ho", "me/"), ("/wo", "rk/"),
                   ("/Us", "ers/"), ("C:", "\\Users"))
]  # fmt: skip


def test_no_file_names_a_package_index_or_a_machine_s_path() -> None:
    folders = ("orchestrator", "trainer", "templates", "infra", "tests", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in [*files, ROOT / "pyproject.toml"]:
        if "__pycache__" in path.parts or path.suffix in (".pyc", ".png", ".gz"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert [word for word in FORBIDDEN if word in text] == [], path


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions count too: they are how a circle usually hides."""
    paths = {_module_name(path): path for root in (ORCHESTRATOR, TRAINER) for path in modules(root)}
    graph: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= {other if other in paths else str(node.module) for other in imported}
    for name, others in graph.items():
        others.intersection_update(paths.keys() - {name})
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_two_public_classes_share_a_name() -> None:
    found: dict[str, list[str]] = {}
    for path in (*modules(ORCHESTRATOR), *modules(TRAINER)):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(_module_name(path))
    assert {name: owners for name, owners in found.items() if len(owners) > 1} == {}


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[1:]).removesuffix(".__init__")
