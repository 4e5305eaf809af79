"""Exported models predict the same as the run's own in their own runtimes; a file that differs is not kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boneage_trainer.contract import RESEARCH_ONLY, PackFolder, RunFolder
from boneage_trainer.data.pack import Pack, open_pack
from boneage_trainer.export import formats
from boneage_trainer.export.command import main
from boneage_trainer.inference.model import AgePredictor, load_model
from trainer.conftest import Bench, run_quietly
from trainer.models import brightness

FORMATS = ("keras", "savedmodel", "onnx", "tflite")
WITHIN_MONTHS = 0.001

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    *(
        pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")
        for name in ("onnx", "onnxruntime", "tf2onnx", "ai_edge_litert")
    ),
]


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command in this process, where TensorFlow is loaded already; returns its exit code."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # the command sets it; this restores it
    return lambda *arguments: main(list(map(str, arguments)))


@pytest.fixture(scope="module")
def out(finished: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run in all formats, exported by a process of its own."""
    folder = tmp_path_factory.mktemp("with space") / "Röntgen 手"
    options = [word for name in FORMATS for word in ("--format", name)]
    command = ["-m", "boneage_trainer.export.command", "--json", *options, "--data", finished.pack, "--out", folder]
    done = run_quietly([*command, "--", finished.out("whole").root])
    assert done.returncode == 0, done.stderr
    assert RESEARCH_ONLY in done.stderr
    assert json.loads(done.stdout)["exports"] == json.loads((folder / "export.json").read_text())["exports"]
    return folder


@pytest.fixture(scope="module")
def opened(finished: Bench) -> Pack:
    return open_pack(finished.pack, PackFolder(finished.pack).read_card())


@pytest.fixture(scope="module")
def expected(finished: Bench, opened: Pack) -> Any:
    """The run's own predictions for its whole pack, months (n,)."""
    predictor = AgePredictor(load_model(finished.out("whole").model))
    return predictor.predict_pack(opened, range(len(opened.ids)), 1)[0]


@pytest.fixture(scope="module")
def inputs(opened: Pack) -> dict[str, Any]:
    rows = range(len(opened.ids))
    return {"image": opened.images[rows][..., None], "male": opened.male[:, None]}


def test_each_export_is_described(out: Path) -> None:
    document = json.loads((out / "export.json").read_text())
    assert document["research_only"] == RESEARCH_ONLY
    assert [export["format"] for export in document["exports"]] == list(FORMATS)
    for export in document["exports"]:
        assert export["largest_difference_months"] <= export["tolerance_months"] < 0.05
        assert export["images"] == 8
        assert Path(export["path"]).exists()
    assert RESEARCH_ONLY in (out / "model_card.md").read_text()
    assert sorted(path.name for path in out.iterdir()) == [
        "export.json", "model.keras", "model.onnx", "model.tflite", "model_card.md", "saved_model",
    ]  # fmt: skip


def test_onnxruntime_predicts_the_same(out: Path, inputs: dict[str, Any], expected: Any) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    assert {tensor.name: tensor.type for tensor in session.get_inputs()} == {
        "image": "tensor(uint8)",
        "male": "tensor(float)",
    }
    assert session.get_modelmeta().custom_metadata_map["research_only"] == RESEARCH_ONLY
    assert session.run(["months"], inputs)[0][:, 0] == pytest.approx(expected, abs=WITHIN_MONTHS)


def test_the_tflite_interpreter_predicts_the_same(out: Path, inputs: dict[str, Any], expected: Any) -> None:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_path=str(out / "model.tflite")).get_signature_runner()
    (months,) = run(**inputs).values()
    assert months[:, 0] == pytest.approx(expected, abs=WITHIN_MONTHS)


def test_tensorflow_predicts_the_same_without_keras(out: Path, inputs: dict[str, Any], expected: Any) -> None:
    """In a process of its own: here, Keras is loaded."""
    np.savez(out.parent / "inputs.npz", **inputs)
    script = """
import sys, numpy as np, tensorflow as tf
given = np.load(sys.argv[2])
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
(months,) = serve(**{name: tf.constant(given[name]) for name in given.files}).values()
assert not any(name.startswith("boneage") for name in sys.modules)
print(months.numpy()[:, 0].tolist())
"""
    command = [sys.executable, "-c", script, str(out / "saved_model"), str(out.parent / "inputs.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == pytest.approx(expected.tolist(), abs=WITHIN_MONTHS)
    assert RESEARCH_ONLY in (out / "saved_model" / "assets.extra" / "model_card.md").read_text()


def test_the_keras_file_is_the_run_s_own(out: Path, finished: Bench) -> None:
    assert (out / "model.keras").read_bytes() == finished.out("whole").model.read_bytes()


def test_another_export_replaces_the_first(out: Path, finished: Bench, export: Callable[..., int]) -> None:
    before = (out / "saved_model" / "fingerprint.pb").stat().st_mtime_ns
    assert export("--format", "savedmodel", "--out", out, "--", finished.out("whole").root) == 0
    assert (out / "saved_model" / "fingerprint.pb").stat().st_mtime_ns > before
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_predicts_differently_is_not_kept(
    tmp_path: Path, export: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does it replace an earlier one."""
    run = RunFolder(tmp_path / "run")
    run.root.mkdir()
    brightness(32, sex=False).save(run.model)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.tflite").write_bytes(b"an earlier one")
    tflite = formats.FORMATS["tflite"]

    def open_with_offset(path: Path) -> formats.Predict:
        predict = tflite.open(path)
        return lambda inputs: predict(inputs) + 0.1

    monkeypatch.setitem(formats.FORMATS, "tflite", replace(tflite, open=open_with_offset))
    assert export("--format", "tflite", "--out", tmp_path / "out", "--", run.root) == 2
    assert "differs from model.keras by up to 0.1000 months" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.tflite"]
    assert (tmp_path / "out" / "model.tflite").read_bytes() == b"an earlier one"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [("nothing", "does not exist"), ("torn", "Keras cannot load"), ("pack", "is not a pack")],
)
def test_an_unusable_run_or_pack_is_an_error(
    spoil: str,
    message: str,
    finished: Bench,
    tmp_path: Path,
    export: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunFolder(tmp_path / "run")
    run.root.mkdir()
    if spoil != "nothing":
        shutil.copyfile(finished.out("whole").model, run.model)
    if spoil == "torn":
        run.model.write_bytes(run.model.read_bytes()[:1000])
    pack = ["--data", tmp_path] if spoil == "pack" else []
    assert export("--format", "keras", *pack, "--out", tmp_path / "out", "--", run.root) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
