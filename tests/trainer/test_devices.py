"""Several devices, several machines, too little memory: the same results."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boneage_trainer.contract import ContractError, PackFolder, RunFolder, TrainConfig, read_metrics
from boneage_trainer.platforms.detect import NEED_GPU
from boneage_trainer.train.autotune import choose_fastest
from boneage_trainer.train.device import Device, find_device
from trainer.conftest import SOURCE, Bench, wait_until

TWO_CPUS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""


def test_two_devices_are_one_that_takes_its_batch_in_two_parts() -> None:
    """Gradients and averages: after ten steps every weight is the same."""
    code = f"""{TWO_CPUS}
import keras, numpy as np
from pathlib import Path
from boneage_trainer.train import device, model, step as steps
from boneage_trainer.contract import TrainConfig
config = TrainConfig.from_mapping({{"preset": "smoke", "dropout": 0.0}})
def trained(where):
    keras.utils.set_random_seed(1)
    with where.scope():
        ages = np.array([10, 200], np.float32)
        core = model.build_networks(config, 16, ages, Path(), "float32").core
        step = steps.TrainStep(core, steps.build_optimizer(config, 1e-3, 5, 2), config, where, 5.0)
    random = np.random.default_rng(0)
    for _ in range(10):
        images = random.integers(0, 256, (8, 16, 16, 1), np.uint8)
        loss, _ = step([images, np.ones((8, 1), np.float32)], random.normal(size=(8, 1)).astype(np.float32))
    with step.averaged_weights():
        return float(loss), [np.asarray(variable) for variable in core.trainable_variables]
found = device.find_device()
assert (found.replicas, found.workers) == (2, 1), found
(loss, many), (other, one) = trained(found), trained(device.Device(accumulate=2))
print(abs(loss - other), max(float(np.abs(a - b).max()) for a, b in zip(many, one)))
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert max(map(float, done.stdout.split())) < 1e-4


def test_every_device_of_a_machine_is_used_and_named(bench: Bench) -> None:
    code, output = bench.run("both", driver=TWO_CPUS, epochs=2)
    assert code == 0, output
    assert json.loads(bench.out("both").environment.read_text())["device"]["replicas"] == 2
    assert len(read_metrics(bench.out("both").metrics)) == 2


def test_a_batch_that_devices_cannot_share_is_refused(bench: Bench) -> None:
    code, output = bench.run("odd", driver=TWO_CPUS, batch_size=7)
    assert code == 2
    assert "set train.batch_size=6" in output


@pytest.mark.parametrize(("need", "gpus"), [("1", 0), ("1", 1), ("0", 0)])
def test_where_a_gpu_is_needed_nothing_trains_on_the_cpu(need: str, gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NEED_GPU, need)
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda _kind: ["a GPU"] * gpus)
    monkeypatch.setattr("tensorflow.config.list_logical_devices", lambda kind: [f"a {kind}"])
    if need == "1" and not gpus:
        with pytest.raises(ContractError, match="BONEAGE_NEED_GPU=1"):
            find_device()
    else:
        assert find_device() == Device()


# ------------------------------------------------------------------------------- several machines
def cluster_configs() -> list[str]:
    """TF_CONFIG of each of two machines on this one."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (one, other)]
    tasks = [{"type": "worker", "index": index} for index in range(2)]
    return [json.dumps({"cluster": {"worker": workers}, "task": task}) for task in tasks]


def start_cluster(bench: Bench, **train: Any) -> list[subprocess.Popen[str]]:
    return [
        bench.start(f"machine-{at}", variables={"TF_CONFIG": config}, **train)
        for at, config in enumerate(cluster_configs())
    ]


def test_two_machines_train_as_one_and_only_the_chief_writes(bench: Bench) -> None:
    for process in start_cluster(bench, epochs=2, dropout=0.0):
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    assert not bench.out("machine-1").root.exists()
    assert bench.out("machine-0").model.exists()
    device = json.loads(bench.out("machine-0").environment.read_text())["device"]
    assert (device["replicas"], device["machines"]) == (2, 2)
    assert bench.run("one", driver=TWO_CPUS, epochs=2, dropout=0.0)[0] == 0
    one, two = (read_metrics(bench.out(leg).metrics) for leg in ("one", "machine-0"))
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)


def test_a_stop_of_one_machine_pauses_all(bench: Bench) -> None:
    machines = start_cluster(bench, epochs=5000)
    wait_until(lambda: len(read_metrics(bench.out("machine-0").metrics)) >= 1, 120)
    machines[1].send_signal(signal.SIGTERM)
    for process in machines:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    assert bench.state("machine-0")["state"] == "paused"
    assert bench.state("machine-0")["reason"] == "another machine stopped"


# ---------------------------------------------------------------------------------- out of memory
HUNGRY = """
import tensorflow as tf
from boneage_trainer.train import step as steps
real = steps.compute_loss
def hungry(kind, errors):  # requests 16 TB for more than two images at once
    if errors.ndim == 2 and errors.shape[0] > 2:
        many = tf.where(errors > -1e9, tf.constant(2**42, tf.int64), tf.constant(1, tf.int64))
        errors = errors + tf.reduce_max(tf.zeros(tf.reduce_max(many, keepdims=True)[0]))
    return real(kind, errors)
steps.compute_loss = hungry
"""


def test_out_of_memory_the_batch_is_taken_in_parts(bench: Bench) -> None:
    code, output = bench.run("hungry", driver=HUNGRY, epochs=2)
    assert code == 0, output
    assert "out of memory: continuing with 4 images at a time" in output
    assert "out of memory: continuing with 2 images at a time" in output
    assert json.loads(bench.out("hungry").environment.read_text())["device"]["accumulate"] == 4
    assert [line["images"] for line in read_metrics(bench.out("hungry").metrics)] == [56, 56]


@pytest.mark.long
def test_memory_that_is_never_enough_is_reported(bench: Bench) -> None:
    code, output = bench.run("hungry", driver=HUNGRY.replace("> 2:", "> 0:"), epochs=2, batch_size=2)
    assert code == 2, output
    assert "out of memory with 1 images" in bench.state("hungry")["reason"]


# ---------------------------------------------------------------------------------------- autotune
def choosing(times_ms: dict[str, float], images: int = 10**6, **train: Any) -> tuple[str, list[Any]]:
    """The precision that is chosen where an image takes `times_ms`; a missing precision fails."""
    import time

    def make_step(device: Device) -> Any:
        return lambda: time.sleep(8 * times_ms[device.precision] / 1000)

    config = TrainConfig.from_mapping({"precision": "auto", **train})
    device, measured = choose_fastest(Device(), config, images, make_step, 8)
    return device.precision, measured


@pytest.fixture
def cpu_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boneage_trainer.train.autotune._cpu_has_bfloat16", lambda: True)


@pytest.mark.usefixtures("cpu_with_bfloat16")
def test_the_faster_precision_is_chosen_if_it_is_clearly_faster() -> None:
    assert choosing({"float32": 4.0, "mixed_bfloat16": 2.0})[0] == "mixed_bfloat16"
    assert choosing({"float32": 4.0, "mixed_bfloat16": 3.9})[0] == "float32"
    assert choosing({"float32": 2.0, "mixed_bfloat16": 4.0})[0] == "float32"


@pytest.mark.usefixtures("cpu_with_bfloat16")
def test_a_setting_that_fails_is_recorded_and_not_chosen() -> None:
    precision, measured = choosing({"float32": 2.0})
    assert precision == "float32"
    assert [bool(one.get("failed")) for one in measured] == [False, True]


@pytest.mark.usefixtures("cpu_with_bfloat16")
def test_short_and_deterministic_runs_are_not_benchmarked() -> None:
    assert choosing({}, images=1000) == ("float32", [])
    assert choosing({}, deterministic=True) == ("float32", [])
    assert choosing({}, precision="mixed_bfloat16") == ("mixed_bfloat16", [])


def test_a_next_leg_computes_as_the_one_before(tmp_path: Path, pack: Path) -> None:
    from boneage_trainer.data.pack import open_pack
    from boneage_trainer.data.splits import make_split
    from boneage_trainer.train import checkpoint
    from boneage_trainer.train.autotune import autotune

    settings = {"precision": "mixed_bfloat16", "jit": False, "accumulate": 4}
    checkpoint.save_checkpoint(RunFolder(tmp_path).last, [], {"device": settings})
    opened = open_pack(pack, PackFolder(pack).read_card())
    config = TrainConfig.from_mapping({"precision": "auto"})
    device, measured = autotune(Device(), config, opened, make_split("paper", opened.ids), RunFolder(tmp_path))
    assert (device.settings, measured) == (settings, [])
