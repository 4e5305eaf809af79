"""The script that goes to Kaggle, run as Kaggle runs it: a process, in a tree like Kaggle's, with a log to read."""

from __future__ import annotations

import ast
import base64
import json
import os
import pprint
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.archive import check_run
from boneage_trainer.contract import (
    Job,
    PackFolder,
    RunFolder,
    parse_sentinel,
    parse_state,
    write_atomic,
    write_manifest,
)
from boneage_trainer.data.synth import synthesize
from boneage_trainer.platforms import detect
from boneage_trainer.train import checkpoint
from boneagectl import bundle
from boneagectl.models import JobSpec
from boneagectl.templates import fill
from emulators import fake_trainer
from support import DATA, make_pack, make_spec, wait_for

LEG, DATASET, EARLIER = "hands-a1b2-02", "kmader/rsna-bone-age", "student/hands-a1b2-01"
TWO_GPUS = ("GPU 0: Tesla T4 (UUID: GPU-1234)", "GPU 1: Tesla T4 (UUID: GPU-5678)")
SHIM = """#!/bin/sh
if [ "$1" = -m ]; then exec {python} "$@"; fi
printf '%s\\n' "$@" > arguments
printf '%s' "${{BONEAGE_NEED_GPU-not set}}" > need_gpu
exec {fake} "$@"
"""
STAND_IN = "import runpy, sys; sys.executable = sys.argv[1]; runpy.run_path(sys.argv[2], run_name='__main__')"


@dataclass(frozen=True)
class Log:
    """What a session printed, and how its process ended."""

    code: int
    text: str

    @property
    def states(self) -> list[dict[str, Any]]:
        return [state for line in self.text.splitlines() if (state := parse_state(line))]

    @property
    def last(self) -> dict[str, Any]:
        """The state in the very last line."""
        state = parse_state(self.text.splitlines()[-1])
        assert state, self.text
        return state


@dataclass
class Kaggle:
    """A tree like Kaggle's below `root`, and one kernel in it."""

    root: Path
    spec: JobSpec
    python: Path
    parameters: dict[str, Any]
    variables: dict[str, str] = field(default_factory=dict)
    code_dataset: str = ""
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def working(self) -> Path:
        return self.root / "working"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    def give_gpus(self, *lines: str, code: int = 0) -> None:
        """Puts a nvidia-smi that says `lines` first on PATH."""
        program = self.root / "bin" / "nvidia-smi"
        said = "".join(f"echo {shlex.quote(line)}\n" for line in lines)
        write_atomic(program, f'#!/bin/sh\n[ "$1" = -L ] || exit 1\n{said}exit {code}\n')
        program.chmod(0o755)

    def script(self) -> Path:
        made = bundle.build(self.spec)
        lines = [] if self.code_dataset else textwrap.wrap(base64.b64encode(made.content).decode(), 120)
        parameters = pprint.pformat(self.parameters, sort_dicts=False)
        text = fill(
            "kaggle/kernel.py.j2", leg_id=LEG, parameters=parameters, bundle_sha256=made.sha256,
            bundle_base64_lines=lines, code_dataset=self.code_dataset,
        )  # fmt: skip
        write_atomic(self.root / "src" / "script.py", text)
        return self.root / "src" / "script.py"

    def start(self, **parameters: Any) -> subprocess.Popen[str]:
        self.parameters |= parameters
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        kept |= {"PATH": f"{self.root / 'bin'}:/usr/bin:/bin", "BONEAGE_KAGGLE_ROOT": str(self.root), **self.variables}
        self.working.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", STAND_IN, str(self.python), str(self.script())], env=kept, cwd=self.working,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, code: int = 0, **parameters: Any) -> Log:
        """One session from start to end; `code` is the one it must end with."""
        process = self.start(**parameters)
        text, _ = process.communicate(timeout=120)
        assert process.returncode == code, text
        return Log(process.returncode, text)

    def left(self) -> RunFolder:
        """What came back, unpacked; nothing but ``run.zip`` is in the working folder."""
        assert [path.name for path in self.working.iterdir()] == ["run.zip"]
        folder = self.root / "came back"
        shutil.rmtree(folder, ignore_errors=True)
        with zipfile.ZipFile(self.working / "run.zip") as archive:
            archive.extractall(folder)
        check_run(RunFolder(folder), self.working / "run.zip")
        return RunFolder(folder)

    def attach_earlier(self, mount: str = f"notebooks/{EARLIER}", epochs: int = 2) -> Path:
        """The output of an earlier leg that finished so many epochs; returns its folder."""
        run = RunFolder(self.root / "earlier")
        write_atomic(run.last, f"weights after epoch {epochs}")
        write_atomic(run.metrics, "".join(f'{{"epoch": {at}}}\n' for at in range(1, epochs + 1)))
        write_manifest(run)
        output = self.input / mount
        output.mkdir(parents=True)
        shutil.make_archive(str(output / "run"), "zip", run.root)
        return output


@pytest.fixture
def kaggle(tmp_path: Path) -> Iterator[Kaggle]:
    """Two GPUs, nothing attached, and a trainer that is a fake."""
    root = tmp_path / "kaggle"
    fake = fake_trainer.install(root / "fake")
    python = root / "fake" / "python"
    python.write_text(SHIM.format(python=shlex.quote(sys.executable), fake=shlex.quote(str(fake))))
    python.chmod(0o755)
    parameters = {
        "leg": LEG, "owner": "student", "dataset": DATASET, "image_size_px": 96, "fingerprint": DATA["fingerprint"],
        "resume": None, "resume_kind": "notebooks", "time_limit_s": 3600, "gpus": 2,
    }  # fmt: skip
    made = Kaggle(root, make_spec(epochs=3, target="kaggle"), python, parameters)
    made.give_gpus(*TWO_GPUS)
    yield made
    for process in made.started:
        if process.poll() is None:  # a test failed in its middle
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def packed(kaggle: Kaggle) -> Kaggle:
    """With the pack attached that the job wants."""
    make_pack(kaggle.input / "datasets" / DATASET)
    return kaggle


# -------------------------------------------------------------------------------------- the script
@pytest.mark.parametrize("code_dataset", ["", "student/boneage-code"])
def test_the_script_is_short_but_for_the_zip(code_dataset: str, kaggle: Kaggle) -> None:
    kaggle.code_dataset = code_dataset
    text = kaggle.script().read_text()
    ast.parse(text, feature_version=(3, 11))
    assert max(map(len, text.splitlines())) <= 120
    assert len(text.encode()) < 900_000
    own = text if code_dataset else text[: text.index('b64decode("""')]
    assert len(own.splitlines()) < 60
    assert f"leg {LEG}." in own
    assert "Not a medical device" in own


def test_a_whole_training_leaves_one_zip_and_says_so(packed: Kaggle) -> None:
    log = packed.run()
    first, last = log.states
    assert parse_state(log.text.splitlines()[0]) == first
    assert (first["state"], first["leg"]) == ("running", LEG)
    assert (last["state"], last["epoch"], last["epochs"], last["leg"]) == ("complete", 3, 3, LEG)
    assert last["started_s"] <= last["updated_s"]
    assert "GPU 0: Tesla T4\nGPU 1: Tesla T4\n" in log.text
    assert [line["epoch"] for text in log.text.splitlines() if (line := parse_sentinel(text))] == [1, 2, 3]
    out = packed.left()
    assert json.loads(out.state.read_text()) == last
    listed = json.loads(out.manifest.read_text())["files"]
    assert sorted(listed) == ["checkpoint/last.npz", "metrics.jsonl", "model.keras", "state.json"]
    assert (packed.tmp / "need_gpu").read_text() == "1"


def test_the_bundle_may_lie_in_a_data_set(packed: Kaggle) -> None:
    packed.code_dataset = "student/boneage-code"
    packed.run(code=1)
    for mount in ("elsewhere/boneage-code", "boneage-code", "datasets/student/boneage-code"):
        write_atomic(packed.input / mount / "bundle.bin", bundle.build(packed.spec).content)
        assert packed.run().last["state"] == "complete"
        shutil.rmtree(packed.input / mount)


def test_a_damaged_bundle_is_not_run(packed: Kaggle) -> None:
    packed.code_dataset = "student/boneage-code"
    write_atomic(packed.input / "boneage-code" / "bundle.bin", b"another version")
    assert "submit the leg again" in packed.run(code=1).text


def test_parameters_that_nobody_knows_are_refused(packed: Kaggle) -> None:
    assert "unknown parameter 'gpu'. Did you mean 'gpus'?" in packed.run(code=2, gpu=1).last["reason"]
    del packed.parameters["gpu"], packed.parameters["gpus"]
    assert "lacks the parameters gpus" in packed.run(code=2).last["reason"]


# -------------------------------------------------------------------------------------------- GPUs
@pytest.mark.parametrize(
    ("said", "code"), [(None, 0), ((), 0), (("Failed to initialize NVML",), 9), (("No devices found",), 0)]
)
def test_without_a_gpu_it_ends_at_once(said: tuple[str, ...] | None, code: int, packed: Kaggle) -> None:
    if said is None:
        (packed.root / "bin" / "nvidia-smi").unlink()
    else:
        packed.give_gpus(*said, code=code)
    log = packed.run(code=3)
    assert log.last["state"] == "failed"
    assert log.last["reason"].startswith("Kaggle provided no GPU: ")
    assert all(word in log.last["reason"] for word in ("phone", "quota", "NvidiaTeslaT4", *(said or ())))
    assert not (packed.tmp / "arguments").exists()
    assert list(packed.working.iterdir()) == []


def test_one_gpu_of_two_is_told_and_used(packed: Kaggle) -> None:
    packed.give_gpus(TWO_GPUS[0])
    log = packed.run()
    assert "warning: 2 GPUs expected, 1 provided" in log.text
    assert log.last["state"] == "complete"


def test_a_session_without_gpus_asks_for_none(packed: Kaggle) -> None:
    packed.give_gpus()
    packed.variables["BONEAGE_NEED_GPU"] = "1"
    assert packed.run(gpus=0).last["state"] == "complete"
    assert (packed.tmp / "need_gpu").read_text() == "not set"


# ---------------------------------------------------------------------------------------- the data
@pytest.mark.parametrize(
    "mount",
    [f"datasets/{DATASET}", "rsna-bone-age", "datasets/rsna-bone-age", f"v2/{DATASET}", f"datasets/{DATASET}/pack"],
)
def test_the_data_set_is_found_where_kaggle_mounts_it(mount: str, kaggle: Kaggle) -> None:
    pack = make_pack(kaggle.input / mount)
    assert kaggle.run().last["state"] == "complete"
    assert str(pack) in (kaggle.tmp / "arguments").read_text().splitlines()
    assert [path.name for path in pack.iterdir()] == ["pack.json"]


def test_another_owner_s_data_set_is_refused(kaggle: Kaggle) -> None:
    make_pack(kaggle.input / "datasets" / "somebody" / "rsna-bone-age")
    reason = kaggle.run(code=2).last["reason"]
    assert DATASET in reason
    assert "somebody/rsna-bone-age" in reason


def test_what_is_not_attached_is_told_with_what_is(kaggle: Kaggle) -> None:
    make_pack(kaggle.input / "datasets" / "student" / "cats")
    reason = kaggle.run(code=2).last["reason"]
    assert f"{DATASET} is not attached" in reason
    assert "student/cats" in reason
    assert not (kaggle.tmp / "arguments").exists()


def test_a_data_set_without_images_is_told(kaggle: Kaggle) -> None:
    write_atomic(kaggle.input / "datasets" / DATASET / "readme.txt", "")
    assert "it contains readme.txt" in kaggle.run(code=2).last["reason"]


def test_a_pack_of_other_images_is_refused_by_both_fingerprints(packed: Kaggle) -> None:
    reason = packed.run(code=2, fingerprint="beef" * 16).last["reason"]
    assert "has fingerprint 9eab9eab9eab, the job needs beefbeefbeef" in reason


def test_of_several_packs_the_one_that_is_wanted_is_taken(kaggle: Kaggle) -> None:
    for name, fingerprint in (("a", "a" * 64), ("b", DATA["fingerprint"]), ("c", "c" * 64)):
        make_pack(kaggle.input / "datasets" / DATASET / name, fingerprint=fingerprint)
    kaggle.run()
    assert str(kaggle.input / "datasets" / DATASET / "b") in (kaggle.tmp / "arguments").read_text().splitlines()


def test_where_any_images_will_do_their_size_must_fit(packed: Kaggle) -> None:
    assert packed.run(fingerprint="").last["state"] == "complete"
    reason = packed.run(code=2, fingerprint="", image_size_px=128).last["reason"]
    assert "has images of 96 px, the job needs 128 px" in reason


def test_raw_images_that_cannot_be_prepared_are_told(kaggle: Kaggle) -> None:
    write_atomic(kaggle.input / "datasets" / DATASET / "labels.csv", "nothing,of,use\n")
    log = kaggle.run(code=2)
    assert "no csv with the columns" in log.text
    assert "failed: exit code 2" in log.last["reason"]


def test_a_signal_while_images_are_prepared_ends_the_session(kaggle: Kaggle) -> None:
    write_atomic(kaggle.input / "datasets" / DATASET / "labels.csv", "id,boneage,male\n1,12,True\n")
    kaggle.python.write_text("#!/bin/sh\ntouch preparing\nexec sleep 60\n")
    process = kaggle.start()
    wait_for(lambda: (kaggle.tmp / "preparing").exists())
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 2, text
    assert "failed: ended by SIGTERM" in Log(2, text).last["reason"]
    assert list(kaggle.working.iterdir()) == []


# ---------------------------------------------------------------------------------- an earlier leg
@pytest.mark.parametrize("mount", [f"notebooks/{EARLIER}", EARLIER.partition("/")[2]])
def test_it_goes_on_from_the_attached_leg(mount: str, packed: Kaggle) -> None:
    packed.attach_earlier(mount)
    log = packed.run(resume=EARLIER)
    assert [line["epoch"] for text in log.text.splitlines() if (line := parse_sentinel(text))] == [3]
    assert log.last["state"] == "complete"


def test_it_goes_on_from_a_leg_that_ran_elsewhere(packed: Kaggle) -> None:
    """Sent as a data set, under a name that Kaggle does not unpack."""
    output = packed.attach_earlier("datasets/student/elsewhere-02-from")
    (output / "run.zip").rename(output / "run.bin")
    log = packed.run(resume="student/elsewhere-02-from", resume_kind="datasets")
    assert [line["epoch"] for text in log.text.splitlines() if (line := parse_sentinel(text))] == [3]


def test_of_a_killed_kernel_the_folder_is_taken_as_it_was_left(packed: Kaggle) -> None:
    output = packed.attach_earlier()
    shutil.unpack_archive(output / "run.zip", output / "run")
    (output / "run.zip").unlink()
    RunFolder(output / "run").manifest.unlink()
    assert packed.run(resume=EARLIER).last["epoch"] == 3


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("not attached", f"notebooks {EARLIER} is not attached"),
        ("empty", "neither run.zip nor run/"),
        ("damaged", "checkpoint/last.npz has another sha256"),
        ("hostile", "a name that leads out of the folder"),
        ("before its first epoch", "has no checkpoint/last.npz"),
    ],
)
def test_a_leg_that_is_not_there_or_not_whole_never_starts_anew(harm: str, said: str, packed: Kaggle) -> None:
    archive = packed.attach_earlier() / "run.zip"
    earlier = RunFolder(packed.root / "earlier")
    if harm == "damaged":
        earlier.last.write_text("weights after epoch 9")
    elif harm == "hostile":
        write_atomic(packed.root / "evil", "evil")
    elif harm == "before its first epoch":
        earlier.last.unlink()
        write_manifest(earlier)
    archive.unlink()
    if harm == "not attached":
        archive.parent.rmdir()
    elif harm != "empty":
        shutil.make_archive(str(archive.with_suffix("")), "zip", earlier.root)
    if harm == "hostile":
        with zipfile.ZipFile(archive, "a") as opened:
            opened.write(packed.root / "evil", "../../evil")
    log = packed.run(code=2, resume=EARLIER)
    assert said in log.last["reason"]
    assert not (packed.tmp / "arguments").exists()


# -------------------------------------------------------------------------------------- the ending
def test_a_killed_trainer_leaves_what_it_had(packed: Kaggle) -> None:
    packed.variables["FAKE_MODE"] = "crash"
    log = packed.run(code=1)
    assert (log.last["state"], log.last["epoch"]) == ("failed", 1)
    assert "most likely out of memory" in log.last["reason"]
    out = packed.left()
    assert out.last.read_text() == "weights after epoch 1"
    assert json.loads(out.state.read_text()) == log.last


@pytest.mark.parametrize(
    ("mode", "said", "words"),
    [("fail", "the loss is not a number", ""), ("silent", "left no state: exit code 1", "no module named")],
)
def test_a_trainer_that_fails_is_heard(mode: str, said: str, words: str, packed: Kaggle) -> None:
    packed.variables["FAKE_MODE"] = mode
    log = packed.run(code=1)
    assert log.last["state"] == "failed"
    assert said in log.last["reason"]
    assert words in log.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_pauses_the_training_and_packs_it(number: signal.Signals, packed: Kaggle) -> None:
    packed.variables["FAKE_EPOCHS"] = "900"
    process = packed.start()
    wait_for(lambda: (packed.working / "run" / "checkpoint").exists())
    process.send_signal(number)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 0, text
    assert Log(0, text).last["state"] == "paused"
    assert packed.left().last.exists()


@pytest.mark.parametrize(("limit_s", "least_s", "most_s"), [(36_000, 35_810, 35_820), (600, 530, 540)])
def test_the_trainer_gets_what_is_left_of_the_session(limit_s: int, least_s: int, most_s: int, packed: Kaggle) -> None:
    packed.run(time_limit_s=limit_s)
    arguments = (packed.tmp / "arguments").read_text().splitlines()
    assert least_s <= int(arguments[arguments.index("--time-limit-s") + 1]) <= most_s


def test_at_its_limit_it_pauses(packed: Kaggle) -> None:
    packed.variables["FAKE_EPOCHS"] = "900"
    log = packed.run(time_limit_s=10)
    assert (log.last["state"], log.last["reason"]) == ("paused", "time_limit")
    assert packed.left().last.exists()


def test_a_trainer_that_hangs_is_ended_and_packed(packed: Kaggle) -> None:
    packed.variables["FAKE_MODE"] = "mute"
    log = packed.run(code=1, time_limit_s=2)
    assert "still running after" in log.last["reason"]


def test_a_session_without_time_is_not_begun(packed: Kaggle) -> None:
    assert "no time is left" in packed.run(code=2, time_limit_s=1).last["reason"]


# --------------------------------------------------------------------------------------- rehearsal
def test_a_rehearsal_cuts_the_training_and_nothing_else(packed: Kaggle) -> None:
    (packed.root / "bin" / "nvidia-smi").unlink()
    packed.attach_earlier()
    packed.variables["BONEAGE_REHEARSAL"] = "1"
    log = packed.run(fingerprint="beef" * 16, resume=EARLIER)
    assert "REHEARSAL" in log.text
    assert "rehearsal: epochs 3 -> 2, batch_size 32 -> 8, test_views 10 -> 2\n" in log.text
    assert (log.last["state"], log.last["epoch"], log.last["epochs"]) == ("complete", 2, 2)
    assert (packed.tmp / "need_gpu").read_text() == "not set"
    assert packed.left().model.exists()


def test_a_rehearsal_takes_whatever_images_are_there(packed: Kaggle) -> None:
    job = Job(train=packed.spec.train, data={**DATA, "fingerprint": "beef" * 16}, provenance={})
    short = detect.shorten_job(job, PackFolder(packed.input / "datasets" / DATASET))
    assert (short.data, short.train.epochs) == (DATA, 2)


# ---------------------------------------------------------------------------------- the real thing
@pytest.fixture
def real(kaggle: Kaggle) -> Iterator[Kaggle]:
    """The real trainer on raw images, of which nobody knew the fingerprint."""
    tree = kaggle.input / "datasets" / DATASET
    synthesize(tree, 24, 32)
    write_atomic(tree / "boneage-test-dataset.csv", "Case ID,Sex\n4360,M\n")
    short: dict[str, Any] = {"preset": "tiny", "width": 4, "epochs": 2, "batch_size": 8, "test_views": 1}
    kaggle.spec = make_spec(target="kaggle", deterministic=True, **short)
    kaggle.spec.data.update(fingerprint="", count=0, image_size_px=32)
    kaggle.python = Path(sys.executable)
    kaggle.parameters.update(fingerprint="", image_size_px=32, gpus=0)
    yield kaggle
    assert sorted(path.name for path in tree.iterdir()) == [
        "boneage-test-dataset.csv", "boneage-training-dataset", "boneage-training-dataset.csv"
    ]  # fmt: skip


def test_two_real_sessions_on_raw_images_end_complete(real: Kaggle) -> None:
    process = real.start()
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if parse_sentinel(line):
            process.send_signal(signal.SIGTERM)
            break
    text = "".join(lines) + process.communicate(timeout=120)[0]
    first = Log(process.returncode, text)
    assert (first.code, first.last["state"], first.last["reason"]) == (0, "paused", "signal SIGTERM"), text
    assert "prepared 24/24" in text
    fingerprint = PackFolder(real.tmp / "pack").read_card()["fingerprint"]
    out = real.left()
    assert checkpoint.read_notes(out.last)["job"]["fingerprint"] == fingerprint

    output = real.input / "notebooks" / EARLIER
    output.mkdir(parents=True)
    shutil.move(real.working / "run.zip", output)
    second = real.run(resume=EARLIER)
    assert f"after epoch {first.last['epoch']} of 2" in second.text
    assert (second.last["state"], second.last["epoch"]) == ("complete", 2)
    out = real.left()
    found = json.loads(out.environment.read_text())
    assert found["data"] == {"fingerprint": fingerprint, "count": 24, "image_size_px": 32}
    assert found["bundle_sha256"] == bundle.build(real.spec).sha256
    assert out.model.exists()
    assert len(out.predictions.read_text().splitlines()) > 1
