"""Keras' networks as backbones: the paper's network, verified weights, pixels scaled as in their own training."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boneage_trainer.contract import ContractError, TrainConfig

# TensorFlow and numpy disagree about copies while Keras writes weights.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
AGES = np.array([20, 200], np.float32)


def built(folder: Path, px: int = 32, **train: Any) -> Any:
    from boneage_trainer.train import model

    networks = model.build_networks(TrainConfig.from_mapping(train), px, AGES, folder, "float32")
    networks.freeze(not TrainConfig.from_mapping(train).train_backbone)
    return networks


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Any]:
    """A weights file of VGG16 without its top, its md5, and the network it is of."""
    import keras

    network = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    path = tmp_path_factory.mktemp("weights") / "mine.weights.h5"
    network.save_weights(path)
    return path, hashlib.md5(path.read_bytes()).hexdigest(), network  # noqa: S324


def test_the_paper_s_network_has_the_paper_s_numbers_of_parameters(tmp_path: Path) -> None:
    core = built(tmp_path, 224, preset="paper", weights="none").core
    assert core.count_params() == 17_926_721
    assert sum(int(np.prod(variable.shape)) for variable in core.trainable_variables) == 3_211_777


def test_a_file_s_weights_are_the_backbone_s(vgg16: tuple[Path, str, Any]) -> None:
    path, md5, network = vgg16
    ours = built(path.parent, backbone="vgg16", pixels="backbone", weights=path.name, weights_md5=md5)
    theirs = {layer.name: layer.get_weights() for layer in network.layers if layer.weights}
    found = {layer.name: layer.get_weights() for layer in ours.body.layers if layer.name in theirs}
    assert len(found) == 13
    assert all(np.array_equal(a, b) for name in theirs for a, b in zip(found[name], theirs[name], strict=True))


def test_pixels_enter_as_the_backbone_was_trained(vgg16: tuple[Path, str, Any]) -> None:
    import keras

    path, md5, network = vgg16
    ours = built(path.parent, backbone="vgg16", pixels="backbone", weights=path.name, weights_md5=md5, head="flat")
    gray = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    theirs = network(keras.applications.vgg16.preprocess_input(gray.repeat(3, axis=-1).astype(np.float32)))
    assert np.allclose(ours.body(gray), theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("weights", "md5", "message"),
    [
        ("mine.weights.h5", "", "torn download, or other weights"),
        ("mine.weights.h5", "0" * 32, "torn download, or other weights"),
        ("absent.h5", "", r"absent\.h5: No such file.*weights=none"),
        ("text.h5", "e2fc714c4727ee9395f324cd2e7f331f", "do not fit backbone vgg16"),
    ],
)
def test_wrong_weights_are_refused(weights: str, md5: str, message: str, vgg16: tuple[Path, str, Any]) -> None:
    (vgg16[0].parent / "text.h5").write_text("abcd")
    with pytest.raises(ContractError, match=message):
        built(vgg16[0].parent, backbone="vgg16", weights=weights, weights_md5=md5)


def test_imagenet_weights_without_a_network_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(ContractError, match="cannot be downloaded"):
        built(tmp_path, preset="paper")


def test_images_that_are_too_small_are_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="vgg16 cannot take images of 16 px"):
        built(tmp_path, 16, backbone="vgg16")


@pytest.mark.parametrize("backbone", ["efficientnetv2b0", "convnexttiny"])
def test_a_saved_model_of_each_kind_loads_and_predicts_the_same(backbone: str, tmp_path: Path) -> None:
    import keras

    full = built(tmp_path, 64, backbone=backbone, pixels="backbone").full
    full.save(tmp_path / "model.keras")
    given = [np.full((2, 64, 64, 1), 90, np.uint8), np.ones((2, 1), np.float32)]
    assert np.array_equal(keras.models.load_model(tmp_path / "model.keras")(given), full(given))
