"""The commands with `--target colab` and a notebook: submitted, opened by the user, collected from its zip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boneage_trainer import archive
from boneage_trainer.contract import RunFolder, write_atomic, write_json, write_manifest
from boneagectl.ledger.store import opened
from support import Cli, make_pack


@pytest.fixture
def on_colab(project: Path) -> Path:
    (project / "boneage.toml").write_text('target = "colab"\ntime_limit = "2h"\ntrain.epochs = 3\n')
    return project


def results_of(folder: Path, leg: str, epoch: int = 3, state: str = "complete") -> Path:
    """The zip that the notebook of `leg` offers."""
    run = RunFolder(folder / "made")
    write_atomic(run.last, "weights")
    write_atomic(run.best, "weights")
    write_atomic(run.metrics, "".join(json.dumps({"epoch": at + 1}) + "\n" for at in range(epoch)))
    write_atomic(run.log, "what it printed\n")
    said = {"state": state, "reason": "", "epoch": epoch, "epochs": 3, "leg": leg, "elapsed_s": 600.0}
    write_json(run.state, {**said, "started_s": 1.0, "updated_s": 601.0})
    write_manifest(run)
    zipped = folder / f"results-{leg}.zip"
    archive.pack_run(run, zipped, with_log=True)
    return zipped


def reserved_s(home: Path) -> int:
    with opened(home / "ledger.db") as ledger:
        return ledger.account("colab").reserved_s


def test_from_submit_to_collected_results(on_colab: Path, cli: Cli, home: Path, tmp_path: Path) -> None:
    said = cli("submit", "--name", "first-run")
    notebook = home / "runs" / "first-run" / "legs" / "01" / "sent" / "first-run-01.ipynb"
    assert f"the notebook: {notebook}" in said.err
    assert "File > Upload notebook" in said.err
    assert "colab-badge.svg" in said.err
    assert "boneagectl collect first-run --from results-first-run-01.zip" in said.err
    assert json.loads(notebook.read_text())["nbformat"] == 4
    assert "waits for you to open the notebook" in cli("watch", "first-run", "--once").err
    assert reserved_s(home) == 7200
    assert "--from results-first-run-01.zip" in cli("collect", "first-run", code=6).err
    folder = Path(cli("collect", "first-run", "--from", results_of(tmp_path, "first-run-01")).out.strip())
    assert (folder / "train.log").read_text() == "what it printed\n"
    shown = cli("show", "first-run", "--json").json
    assert (shown["state"], shown["epoch"], shown["epochs"]) == ("complete", 3, 3)
    assert reserved_s(home) == 0
    assert cli("collect", "first-run").out.strip() == str(folder)


def test_a_dry_run_writes_the_submitted_notebook(on_colab: Path, cli: Cli, home: Path) -> None:
    cli("submit", "--dry-run", "--name", "shown-run")
    assert not (home / "runs").exists()
    shown = (on_colab / "shown-run-01" / "shown-run-01.ipynb").read_bytes()
    cli("submit", "--name", "shown-run", "-q")
    sent = home / "runs" / "shown-run" / "legs" / "01" / "sent" / "shown-run-01.ipynb"
    assert sent.read_bytes() == shown


def test_a_paused_notebook_is_queued_and_can_complete(on_colab: Path, cli: Cli, tmp_path: Path) -> None:
    cli("submit", "--name", "slow-run", "-q")
    cli("collect", "slow-run", "--from", results_of(tmp_path / "one", "slow-run-01", epoch=1, state="paused"))
    shown = cli("show", "slow-run", "--json").json
    assert (shown["state"], shown["epoch"]) == ("queued", 1)
    assert "open the notebook again" in shown["reason"]
    cli("collect", "slow-run", "--from", results_of(tmp_path / "two", "slow-run-01"))
    assert cli("show", "slow-run", "--json").json["state"] == "complete"


def test_the_zip_of_another_leg_is_refused(on_colab: Path, cli: Cli, home: Path, tmp_path: Path) -> None:
    cli("submit", "--name", "right-run", "-q")
    wrong = results_of(tmp_path, "wrong-run-01")
    assert "not of right-run-01" in cli("collect", "right-run", "--from", wrong, code=2).err
    torn = results_of(tmp_path, "right-run-01")
    torn.write_bytes(torn.read_bytes()[:-200])
    assert "nothing was imported" in cli("collect", "right-run", "--from", torn, code=3).err
    assert not (home / "runs" / "right-run" / "legs" / "01" / "artifacts").exists()
    assert "there is no file" in cli("collect", "right-run", "--from", tmp_path / "none.zip", code=2).err


def test_only_notebook_legs_are_collected_from_a_zip(project: Path, cli: Cli, tmp_path: Path) -> None:
    cli("submit", "--name", "local-run", "-q")
    said = cli("collect", "local-run", "--from", results_of(tmp_path, "local-run-01"), code=2)
    assert "ran on local" in said.err
    cli("stop", "local-run", "--yes", "-q")


def test_stop_gives_a_notebook_up_and_the_run_resumes_in_another_leg(
    on_colab: Path, cli: Cli, home: Path, tmp_path: Path
) -> None:
    cli("submit", "--name", "left-run", "-q")
    cli("collect", "left-run", "--from", results_of(tmp_path, "left-run-01", epoch=2, state="paused"))
    asked = cli("stop", "left-run", code=7)
    assert "stopped on its own page" in asked.err
    cli("stop", "left-run", "--yes")
    assert cli("show", "left-run", "--json").json["state"] == "paused"
    assert reserved_s(home) == 0
    cli("resume", "left-run", "-q")
    sent = home / "runs" / "left-run" / "legs" / "02" / "sent"
    assert "resumes left-run-01" in (sent / "resume.txt").read_text()
    assert cli("show", "left-run", "--json").json["state"] == "queued"


def test_no_local_pack_is_needed(on_colab: Path, cli: Cli) -> None:
    (on_colab / "pack" / "pack.json").unlink()
    cli("submit", "--name", "unseen-run", "-q", "--set", "data.image_size_px=96")
    assert cli("show", "unseen-run", "--json").json["data"]["fingerprint"] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "targets.colab.gpu=H200"), "one of T4, L4, A100"),
        (("--set", "targets.colab.dataset=nothing"), "must be OWNER/NAME"),
        (("--set", "targets.colab.pack=/abs"), "a folder below MyDrive"),
        (("--via", "telepathy"), "one of notebook, cli"),
    ],
)
def test_invalid_settings_are_refused(on_colab: Path, cli: Cli, words: tuple[str, ...], said: str) -> None:
    assert said in cli("submit", *words, code=2).err
    assert cli("ls", "--json").json["runs"] in ([], cli("ls", "--json").json["runs"])


def test_a_session_is_twelve_hours_at_most(on_colab: Path, cli: Cli) -> None:
    assert "12 h at most" in cli("submit", "--time-limit", "13h", code=5).err


def test_doctor_shows_the_rules_of_free_accounts(on_colab: Path, cli: Cli) -> None:
    said = cli("doctor", "--target", "colab", code=(0, 3)).out
    assert "no guaranteed GPU" in said
    assert "research.google.com/colaboratory/faq.html" in said


def test_open_shows_colab_in_a_browser(on_colab: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []
    monkeypatch.setattr("webbrowser.open", pages.append)
    cli("submit", "--name", "opened-run", "-q", "--open")
    assert pages == ["https://colab.research.google.com/"]
    make_pack(on_colab / "pack")
