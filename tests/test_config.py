"""Where a setting comes from, what is refused, and what is derived from the settings' fields."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from boneagectl import config
from boneagectl.errors import UsageError
from boneagectl.target_settings import OPTIONS
from support import Cli


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, the current one."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_each_source_overrides_those_below_it(
    folder: Path, clean_environment: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    def epochs(*arguments: str) -> tuple[object, str]:
        item = cli("config", "--json", *arguments).json["settings"]["train.epochs"]
        return item["value"], item["origin"]

    assert epochs() == (80, "default")
    user = clean_environment / "config" / "boneagectl" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text("train.epochs = 2\n")
    assert epochs() == (2, str(user))
    project = folder / "boneage.toml"
    project.write_text("train.epochs = 3\n[profiles.long]\ntrain.epochs = 4\n")
    assert epochs() == (3, str(project))
    assert epochs("--profile", "long") == (4, f"profile long in {project}")
    monkeypatch.setenv("BONEAGECTL_TRAIN__EPOCHS", "5")
    assert epochs("--profile", "long") == (5, "$BONEAGECTL_TRAIN__EPOCHS")
    assert epochs("--profile", "long", "--set", "train.epochs=6") == (6, "flag")


def test_variables_that_are_not_settings(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text("time_limit = '3h'\n[profiles.p]\ntime_limit = '4h'\n")
    monkeypatch.setenv("BONEAGECTL_CONFIG", str(elsewhere))
    assert config.load()["time_limit"] == "3h"
    monkeypatch.setenv("BONEAGECTL_PROFILE", "p")
    assert config.load()["time_limit"] == "4h"
    monkeypatch.setenv("BONEAGECTL_USER_CONFIG", str(tmp_path / "none.toml"))
    assert config.user_file() == tmp_path / "none.toml"


def test_a_preset_shows_its_own_values(folder: Path) -> None:
    settings = config.load(flags={"train.preset": "smoke", "train.width": 12})
    assert (settings["train.epochs"], settings["train.width"]) == (2, 12)
    assert (settings.train().epochs, settings.train().width, settings.train().augment) == (2, 12, "none")


def test_the_project_file_is_found_from_below_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "boneage.toml").write_text("time_limit = '7h'\n")
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert config.load()["time_limit"] == "7h"


def test_pyproject_is_used_if_it_has_the_table(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "boneage.toml").write_text("time_limit = '7h'\n")
    (inner / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert config.load(start=inner)["time_limit"] == "7h"
    (inner / "pyproject.toml").write_text("[tool.boneagectl]\ntime_limit = '8h'\n[tool.boneagectl.train]\nepochs = 9\n")
    settings = config.load(start=inner)
    assert (settings["time_limit"], settings.train().epochs) == ("8h", 9)
    assert settings.settings["time_limit"].origin == str(inner / "pyproject.toml")


def test_a_pack_path_is_relative_to_the_settings_file(folder: Path) -> None:
    (folder / "boneage.toml").write_text("data.pack = '../packs/hands'\n")
    below = folder / "below"
    below.mkdir()
    expected = folder.parent / "packs" / "hands"
    assert Path(os.path.normpath(config.load(start=below)["data.pack"])) == expected
    (folder / "boneage.toml").write_text("data.pack = '/packs/hands'\n")
    assert config.load()["data.pack"] == "/packs/hands"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("time_limt = '2h'", r"unknown setting 'time_limt'\. Did you mean 'time_limit'\?"),
        ("[train]\nepoch = 2", r"unknown setting 'train.epoch'\. Did you mean 'train.epochs'\?"),
        ("[profiles.quick]\ntrain.epoch = 2", r"profile quick in .*Did you mean 'train.epochs'\?"),
        ("target = 'locl'", r"target must be one of .*, not 'locl'\. Did you mean 'local'\? \(.*boneage\.toml\)"),
        ("[profiles.quick]\ntarget = 'locl'", r"'locl'.*\(profile quick in .*\)"),
        ("train.preset = 'tinny'", r"train\.preset must be one of .*, not 'tinny'\. Did you mean 'tiny'\?"),
        ("train.preset = ['tiny']", "train.preset must be text"),
        ("train.epochs = true", "train.epochs must be a whole number, not True"),
        ("train.epochs = 'x'", "train.epochs must be a whole number, not 'x'"),
        ("train.epochs = 0", "train.epochs must lie between 1 and 10000, not 0"),
        ("train.learning_rate = nan", "train.learning_rate must be a finite number"),
        ("watch.stalled_epochs = nan", "watch.stalled_epochs must be a finite number"),
        ("watch.stalled_epochs = 1", "watch.stalled_epochs must lie between"),
        ("targets.local.usd_per_hour = -inf", "usd_per_hour must be a finite number"),
        ("targets.azure.nodes = 51", "nodes must lie between 1 and 50"),
        ("watch.at_stall = 'tell'", "at_stall must be one of notify, stop"),
        ("train.split = 'banana'", r"train\.split must be paper, .*, not 'banana' \(.*boneage\.toml\)"),
        ("train.split = 'holdout:0.2'", r"holdout:FRACTION:SEED, e\.g\."),
        ("train.split = 'holdout:0.9:1'", "0.01..0.5"),
        ("train.split = '../mine.csv'", "relative to the pack"),
        ("train.backbone = 'vgg16'\ntrain.weights = '../../../etc/passwd'", r"train\.weights must be .*passwd"),
        (f"train.epochs = {10**200}", "train.epochs must lie between 1 and 10000, not 1000.*…"),
        (f"train.epochs = {'9' * 5000}", "is not TOML"),
        (f"train.epochs = 0x{'f' * 5000}", "not a value too long to print"),
        (f"train.epochs = {'[' * 10_000}", "is not TOML"),
        (f"{'a.' * 10_000}b = 1", "unknown setting 'a.a.a.a.a.a'"),
        (f"time_limit = '{'9' * 5000}h'", "time_limit must be a duration"),
        ("time_limit = '9000000d'", "time_limit must be at most 366d"),
        ("train = 3", "unknown setting 'train'"),
        ("profiles = 3", "profiles in .* must be tables"),
        ("profiles.quick = 3", "profiles in .* must be tables"),
        ("time_limit = 2", "time_limit must be text in quotes, not 2"),
        ("time_limit = 'soon'", "time_limit must be a duration like .*, not 'soon'"),
        ("target = 1", "target must be text"),
        ("data.pack = 1", "data.pack must be text"),
        ("targets.local.usd_per_hour = 'cheap'", "usd_per_hour must be a number"),
        ("targets.local.usd_per_hour = true", "usd_per_hour must be a number"),
        ("epochs = = 3", "is not TOML"),
        ("a = '\x00'", "is not TOML"),
    ],
)
def test_refused_files(folder: Path, cli: Cli, toml: str, message: str) -> None:
    (folder / "boneage.toml").write_text(toml)
    with pytest.raises(UsageError, match=message) as refused:
        config.load()
    assert len(refused.value.message) < 1000
    assert cli("config", code=2).out == ""


@pytest.mark.parametrize("value", ['["https://example.org/SECRET"]', "{ a = 'SECRET' }"])
def test_a_refused_webhook_is_not_printed(folder: Path, cli: Cli, value: str) -> None:
    (folder / "boneage.toml").write_text(f"alert.webhook = {value}\n")
    refused = cli("config", code=2)
    assert "alert.webhook" in refused.err
    assert "SECRET" not in refused.out + refused.err


def test_files_that_cannot_be_read(folder: Path, cli: Cli) -> None:
    assert "cannot be read" in cli("config", "--config", folder / "none.toml", code=2).err
    assert "cannot be read" in cli("config", "--config", folder, code=2).err
    (folder / "boneage.toml").write_bytes(b"\xff\xfe")
    assert "is not TOML" in cli("config", code=2).err


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\nboneagectl = 3", "[tool.boneagectl]\nprofiles = 1"])
def test_a_pyproject_of_another_shape(folder: Path, cli: Cli, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)
    cli("config", code=0 if text == "tool = 3" else 2)


def test_an_unknown_profile(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown profile 'quick'"):
        config.load(profile="quick")
    (folder / "boneage.toml").write_text("[profiles.quick]\ntrain.epochs = 2\n")
    with pytest.raises(UsageError, match="Did you mean 'quick'"):
        config.load(profile="quik")


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONEAGECTL_TRAIN__EPOCH", "3")
    with pytest.raises(UsageError, match=r"BONEAGECTL_TRAIN__EPOCH: .*Did you mean 'train.epochs'"):
        config.load()


@pytest.mark.parametrize(
    ("text", "value"),
    [("train.epochs=3", 3), ("train.epochs = 3", 3), ("train.use_sex=false", False), ("train.dropout=.5", ".5"),
     ("train.split=paper", "paper"), ("train.split='paper'", "paper"), ("data.pack=/a=b", "/a=b"),
     ("time_limit=11h30m", "11h30m"), ("data.pack=", "")],
)  # fmt: skip
def test_assignments(text: str, value: object) -> None:
    assert config.parse_assignment(text) == (text.partition("=")[0].strip(), value)


def test_bad_assignments() -> None:
    with pytest.raises(UsageError, match="has no '='"):
        config.parse_assignment("train.epochs")
    with pytest.raises(UsageError, match=r"--set: unknown setting 'epochs'.*Did you mean 'train.epochs'"):
        config.parse_assignment("epochs=3")


def test_the_file_that_init_writes_loads(folder: Path, cli: Cli) -> None:
    cli("init", "--data", 'odd "pack"', "--preset", "smoke")
    settings = json.loads(cli("config", "--json", "--profile", "quick").out)["settings"]
    assert settings["data.pack"]["value"] == str(folder / 'odd "pack"')
    assert settings["train.preset"]["value"] == "smoke"
    assert "exists already" in cli("init", code=2).err


# ------------------------------------------------------------------------------ derived from the fields
def test_the_editor_schema_has_every_setting(folder: Path, cli: Cli) -> None:
    schema = cli("config", "schema").json
    cli("config", "schema", "--out", folder / "schema.json")
    assert json.loads((folder / "schema.json").read_text()) == schema
    settings = schema["definitions"]["settings"]
    for key, option in OPTIONS.items():
        entry = settings
        for name in key.split("."):
            assert entry["additionalProperties"] is False
            entry = entry["properties"][name]
        assert entry["description"]
        assert entry["type"] in ("string", "integer", "number", "boolean", "array")
        if key != "targets.local.python":  # depends on the machine
            assert entry["default"] == config.load()[key]
        assert tuple(entry.get("enum", ())) == option.metadata["choices"]
    assert {"train", "targets", "profiles"} < schema["properties"].keys()


def test_the_help_of_each_setting_is_one_short_line() -> None:
    for key, option in OPTIONS.items():
        text = option.metadata["help"]
        assert text[0].isupper(), key
        assert not text.endswith("."), key
        assert len(text) <= 100, key


def test_init_full_writes_every_setting_with_its_default(folder: Path, cli: Cli) -> None:
    cli("init", "--full", "--data", "/packs/hands", "--preset", "tiny")
    path = folder / "boneage.toml"
    lines = path.read_text().splitlines()
    settings = cli("config", "--json").json["settings"]
    assert [key for key, item in settings.items() if item["origin"] != "default"] == [
        "target", "data.pack", "train.preset",
    ]  # fmt: skip
    path.write_text("\n".join(re.sub(r"^# (?=\w+(\.\w+)? = )", "", line) for line in lines))
    enabled = cli("config", "--json").json["settings"]
    assert {key for key, item in enabled.items() if item["origin"] == "default"} == set()
    assert {key: item["value"] for key, item in enabled.items()} == {
        key: item["value"] for key, item in settings.items()
    }


@pytest.mark.parametrize("options", [(), ("--full",)])
def test_the_settings_file_names_a_schema_that_is_there(folder: Path, cli: Cli, options: tuple[str, ...]) -> None:
    cli("init", *options)
    first = (folder / "boneage.toml").read_text().splitlines()[0]
    assert first.startswith("#:schema ./")
    assert json.loads((folder / first.removeprefix("#:schema ")).read_text()) == cli("config", "schema").json
