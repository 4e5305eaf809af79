"""What a command imports when it starts, and that `--help` shows each command's own help line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest
import typer

from boneagectl import paths
from boneagectl.cli import format_runs
from boneagectl.cli.app import COMMANDS, LazyGroup, app

BANNED = {"azure", "kaggle", "kagglesdk", "mlflow", "tensorflow", "keras", "pandas", "numpy", "cv2", "jinja2", "rich"}
SCRIPT = """
import json, sys
from boneagectl.__main__ import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]))
"""


def modules_after(home: Path, *arguments: str) -> list[str]:
    """The modules of a process after it ran this command line successfully."""
    environment = {key: text for key, text in os.environ.items() if not key.startswith("BONEAGECTL_")}
    environment |= {"BONEAGECTL_HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=True)
    code, names = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    return list(names)


@pytest.mark.parametrize("arguments", [("--help",), ("ls",), ("budget",), ("ls", "--json"), ("data", "--help")])
def test_nothing_heavy_is_imported(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert not {name.partition(".")[0] for name in modules_after(tmp_path, *arguments)} & BANNED


def test_help_imports_no_command(tmp_path: Path) -> None:
    ours = [name for name in modules_after(tmp_path, "--help") if name.startswith("boneage")]
    assert ours == ["boneage_trainer", "boneagectl", "boneagectl.__main__", "boneagectl.cli", "boneagectl.cli.app",
                    "boneagectl.errors"]  # fmt: skip


@pytest.mark.parametrize(("arguments", "most"), [("--help", 170), ("ls", 190)])
def test_few_modules_are_imported(tmp_path: Path, arguments: str, most: int) -> None:
    assert len(modules_after(tmp_path, arguments)) <= most


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_line_is_the_command_s_own(name: str) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)
    context = group.make_context("boneagectl", [name], resilient_parsing=True)
    command = group.get_command(context, name)
    line = COMMANDS[name][1]
    assert command is not None
    assert command.name == name  # the generated docs/cli.md shows it
    assert command.help.splitlines()[0] == line
    assert len(line) <= 75


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere platformdirs is asked")
@pytest.mark.parametrize("given", [None, "", "/somewhere/else", "not/absolute"])
def test_folders_are_those_of_platformdirs(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False) if given is None else monkeypatch.setenv(variable, given)
    assert str(paths.data_folder()) == platformdirs.user_data_dir("boneagectl", appauthor=False)
    assert str(paths.config_folder()) == platformdirs.user_config_dir("boneagectl", appauthor=False)


def test_a_mistyped_command_gets_a_suggestion(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "boneagectl", "sumbit"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Did you mean 'submit'?" in done.stderr


VENDOR_LOG = """
import logging
from pathlib import Path
from boneagectl import config
from boneagectl.paths import Home
from boneagectl.targets import NAMES, get
for name in NAMES:
    get(name, Home(Path("home")), config.load())
for name in ("azure.identity", "azure.core.pipeline", "msrest.http", "urllib3.pool", "kaggle.api", "google.auth"):
    logging.getLogger(name).warning("a vendor's line")
"""


@pytest.mark.parametrize(("debug", "lines"), [("", 0), ("1", 6)])
def test_vendor_loggers_do_not_print(tmp_path: Path, debug: str, lines: int) -> None:
    environment = {**os.environ, "BONEAGECTL_DEBUG": debug, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", VENDOR_LOG]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.count("a vendor's line") == lines


def test_logs_show_neither_lines_for_programs_nor_control_characters() -> None:
    log = ["loading\x1b]52;c;x\x07", 'BONEAGE {"epoch": 1, "loss": 0.5, "val_mae_months": 14.2}', "epoch 2/3  loss 0.4",
           'BONEAGE {"epoch": 2, "loss": 0.4}', 'BONEAGE {"mae_months": 1}', 'BONEAGE {"epoch": 1e999}',
           "BONEAGE-STATE [1]", "complete: 3 epochs"]  # fmt: skip
    assert list(format_runs.log_lines(log, 3)) == [
        "loading]52;c;x", "epoch 1/3  loss 0.5000  validation MAE 14.2 months", "epoch 2/3  loss 0.4",
        "complete: 3 epochs",
    ]  # fmt: skip
